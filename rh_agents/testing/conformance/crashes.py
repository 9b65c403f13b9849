"""What a process that was killed leaves behind."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from rh_agents.core.ports import Store
from rh_agents.testing._records import (
    BRIEF_LEASE,
    COMPLETED,
    FAILED,
    RETRYING,
    RUN,
    STARTED,
    Written,
    completed,
    fact,
    found_run,
    listed,
    outcome,
    request,
)
from rh_agents.testing.conformance.suite import StoreSuite, cancelled, on_an_event_loop, written_run

__all__ = ["CrashConformance"]


class CrashConformance(StoreSuite):
    """What was acknowledged is there after a crash. It needs `crash`."""

    operations: ClassVar[tuple[str, ...]] = ("crash",)

    @on_an_event_loop
    async def test_after_a_crash_a_run_goes_on_in_its_epoch_with_all_that_was_acknowledged(self, store: Store) -> None:
        await (await store.open_run(request())).close(FAILED)
        written = Written(RUN)
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        assert journal.info.epoch == 1
        await written.call(journal, outcome(1, "a"))
        await written.call(journal, outcome(2, None, ValueError("no")))
        written.note(journal, fact(RUN, STARTED, outcome(3)))
        await written.append(journal, fact(RUN, RETRYING, outcome(3), attempt=1, message="no", retry_delay=0.5))
        del journal
        store = await self._crashed(store)
        assert (await found_run(store)).status is STARTED
        journal = await self._taken_over(store)
        assert (journal.info.status, journal.info.epoch) == (STARTED, 1)
        await written.check_journal(journal)
        await written.check(store)
        await written.call(journal, outcome(3, "c"))
        await written.check_journal(journal)
        await written.check(store)

    @on_an_event_loop
    async def test_what_was_closed_is_there_after_a_crash(self, store: Store) -> None:
        written = await written_run(store, 1, 2, 3, status=COMPLETED)
        store = await self._crashed(store)
        await written.check(store)
        assert (await found_run(store)).status is COMPLETED
        journal = await store.open_run(request())
        assert journal.info.epoch == 1
        await written.check_journal(journal)

    @on_an_event_loop
    async def test_what_was_only_noted_before_a_crash_is_there_up_to_some_point(self, store: Store) -> None:
        written = Written(RUN)
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        await written.call(journal, outcome("first"))
        for number in range(100):
            written.note(journal, fact(RUN, STARTED, outcome(number)))
            written.note(journal, completed(RUN, outcome(number)), outcome(number))
        del journal
        store = await self._crashed(store)
        journal = await self._taken_over(store)  # from now on the first owner cannot write any more
        stored = await listed(store.events(RUN))
        assert len(stored) >= 2
        del written.entries[len(stored) :]
        await written.check_journal(journal)
        await written.check(store)
        await written.call(journal, outcome("next"))
        await written.check(store)

    @on_an_event_loop
    async def test_what_was_flushed_is_there_after_a_crash(self, store: Store) -> None:
        written = Written(RUN)
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        for number in range(20):
            written.note(journal, completed(RUN, outcome(number, number)), outcome(number, number))
        assert journal.waiting >= 0
        await journal.flush()
        assert journal.waiting == 0
        del journal
        await written.check(await self._crashed(store))

    @on_an_event_loop
    async def test_an_outcome_and_its_event_are_recorded_both_or_neither(self, store: Store) -> None:
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        calls = [outcome(number, number) for number in range(200)]
        tasks = [asyncio.ensure_future(journal.append(completed(RUN, call), call)) for call in calls]
        await tasks[3]
        await cancelled(*tasks)
        del journal, tasks
        store = await self._crashed(store)
        journal = await self._taken_over(store)
        stored = [each.event.key for each in await listed(store.events(RUN))]
        assert stored == [each.key.hex() for each in await listed(store.outcomes(RUN))]
        assert stored == [each.hex() for each in journal.recorded.finished]
        assert calls[3].key.hex() in stored
