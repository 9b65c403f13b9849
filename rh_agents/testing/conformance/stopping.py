"""Stopping a run from outside."""

from __future__ import annotations

from typing import ClassVar

from rh_agents.core.ports import Store
from rh_agents.testing._records import (
    BRIEF_LEASE,
    CANCELLED,
    COMPLETED,
    RUN,
    STARTED,
    completed,
    counting,
    found_run,
    outcome,
    request,
)
from rh_agents.testing.conformance.suite import (
    StoreSuite,
    expect_refusals,
    on_an_event_loop,
    stop_request,
    until,
    written_run,
)

__all__ = ["StopConformance"]


class StopConformance(StoreSuite):
    """A run is stopped by asking its owner, or at once if no one does."""

    operations: ClassVar[tuple[str, ...]] = ("stop",)

    @on_an_event_loop
    async def test_only_a_run_that_is_there_is_stopped(self, store: Store) -> None:
        await expect_refusals(store, lambda: store.request_stop(RUN, "enough"))

    @on_an_event_loop
    async def test_a_run_is_stopped_by_asking_its_owner(self, store: Store) -> None:
        await self._stop(store, store)
        await self._stop(store, store)

    @on_an_event_loop
    async def test_a_run_is_stopped_by_asking_its_owner_in_another_process(self, store: Store) -> None:
        await self._stop(store, await self._second(store))

    async def _stop(self, store: Store, asking: Store) -> None:
        reasons: list[str] = []
        journal = await store.open_run(request())
        assert stop_request(journal) is None, "the request was for an earlier owner"
        journal.when_stop_requested(reasons.append)
        assert await asking.request_stop(RUN, "enough\0")

        async def has_been_told() -> bool | None:
            return True if reasons else None

        await until(has_been_told)
        assert reasons == ["enough\0"]
        assert stop_request(journal) == "enough\0"
        reasons.clear()
        journal.when_stop_requested(reasons.append)
        await until(has_been_told)
        await counting(journal, outcome(1))
        await journal.close(STARTED, "enough\0")

    @on_an_event_loop
    async def test_what_was_asked_of_an_owner_who_died_is_not_asked_of_the_next_one(self, store: Store) -> None:
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        assert await store.request_stop(RUN, "enough")
        del journal
        store = await self._crashed(store)
        journal = await self._taken_over(store)
        assert stop_request(journal) is None
        await journal.append(completed(RUN, outcome(1)), outcome(1))
        assert stop_request(journal) is None

    @on_an_event_loop
    async def test_a_run_that_nobody_executes_is_stopped_at_once(self, store: Store) -> None:
        written = await written_run(store, 1)
        assert not await store.request_stop(RUN, "enough")
        info = await found_run(store)
        assert (info.status, info.reason, info.owner) == (CANCELLED, "enough", None)
        assert info.ended_at is not None
        journal = await store.open_run(request())
        assert (journal.info.epoch, journal.stop_requested) == (1, None)
        await written.check_journal(journal)

    @on_an_event_loop
    async def test_a_run_that_has_ended_stays_as_it_is_when_it_is_stopped(self, store: Store) -> None:
        await written_run(store, 1, status=COMPLETED)
        before = await found_run(store)
        assert not await store.request_stop(RUN, "enough")
        assert await found_run(store) == before
