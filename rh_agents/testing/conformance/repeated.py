"""Calls with two outcomes in a journal: that must not come about, and does no harm if it has."""

from __future__ import annotations

import logging

import pytest

from rh_agents.core.ports import Store
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.testing._records import (
    RUN,
    STARTED,
    completed,
    fact,
    key,
    listed,
    outcome,
    request,
    same_outcome,
    same_value,
)
from rh_agents.testing.conformance.suite import StoreSuite, on_an_event_loop

__all__ = ["RepeatedConformance"]


class RepeatedConformance(StoreSuite):
    """Of several outcomes of one call the first counts for everybody. It needs the hook `plant`."""

    async def _planted(self, store: Store) -> tuple[list[Outcome], Outcome]:
        """A run in which the second of three calls has another outcome behind the third one."""
        calls = [outcome(1, "one"), outcome(2, "two", group_id="pages"), outcome(3, ["large"] * 20_000)]
        journal = await store.open_run(request())
        for call in calls:
            journal.note(fact(RUN, STARTED, call))
            await journal.append(completed(RUN, call), call)
        await journal.close(STARTED)
        other = outcome(2, error=ValueError("another"), group_id="pages")
        if not await self.plant(store, completed(RUN, other), other):
            pytest.skip("plant() puts no second outcome into a journal")
        return calls, other

    @on_an_event_loop
    async def test_the_first_outcome_counts_for_everybody_who_reads(self, store: Store) -> None:
        calls, _ = await self._planted(store)
        for found, given in zip(await listed(store.outcomes(RUN)), calls, strict=True):
            same_outcome(found, given)
        unread = await listed(store.unread_outcomes(RUN))
        assert [each.header.key for each in unread] == [each.key for each in calls]
        for each, given in zip(unread, calls, strict=True):
            same_outcome(each.read(), given)
        stored = await listed(store.events(RUN))
        assert [each.sequence for each in stored] == list(range(1, 8)), "what happened is recorded all the same"
        assert [each.sequence for each in stored if each.has_outcome] == [2, 4, 6, 7]

    @on_an_event_loop
    async def test_the_first_outcome_counts_when_the_run_is_opened_which_says_so_once(self, store: Store) -> None:
        calls, _ = await self._planted(store)
        records: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("rh_agents.stores")
        logger.addHandler(handler)
        try:
            journal = await store.open_run(request())
        finally:
            logger.removeHandler(handler)
        (said,) = records
        for part in (repr(RUN), key(2).hex(), "at events 4 and 7", "the first one counts"):
            assert part in said
        recorded = journal.recorded
        assert (list(recorded.finished), recorded.failed) == ([each.key for each in calls], {})
        assert (recorded.repeated, recorded.finished[key(2)]) == ({7: key(2)}, 4)
        assert list(recorded.orders["pages"]) == [key(2)]
        assert recorded.spent[""].calls == 4, "what was paid twice is spent twice"
        for call in calls:
            same_outcome(await journal.load(call.key), call)
        given = fact(RUN, ExecutionStatus.RECOVERED, calls[1], result="two", is_replayed=True, from_cache=True)
        await journal.append(given)
        *_, recovered = await listed(store.events(RUN))
        same_value(recovered.event.result, "two")
        await journal.close(STARTED)

    @on_an_event_loop
    async def test_a_check_names_a_call_with_two_outcomes(self, store: Store) -> None:
        await self._planted(store)
        (finding,) = await store.check()
        assert key(2).hex() in finding
        assert "at event 7 than at event 4" in finding

    @on_an_event_loop
    async def test_a_copy_has_one_outcome_for_each_call(self, store: Store) -> None:
        calls, _ = await self._planted(store)
        edited = outcome(2, "edited", group_id="pages")
        await store.fork_run(RUN, "copy", [], [])
        await store.fork_run(RUN, "edited", [key(1)], [edited])
        await store.delete_run(RUN)
        assert await store.check() == []
        for name, expected in (("copy", calls), ("edited", [edited, calls[2]])):
            for found, given in zip(await listed(store.outcomes(name)), expected, strict=True):
                same_outcome(found, given)
            assert len(await listed(store.events(name))) == (7 if name == "copy" else 5)
            journal = await store.open_run(request(run_id=name))
            assert journal.recorded.repeated == {}
            assert list(journal.recorded.finished) == [each.key for each in expected]

    @on_an_event_loop
    async def test_the_first_outcome_is_superseded_with_the_call(self, store: Store) -> None:
        await self._planted(store)
        await store.supersede(RUN, [key(2)])
        recorded = (await store.open_run(request())).recorded
        assert recorded.superseded == {key(2)}
        assert recorded.finished[key(2)] == 4
