"""What a run came to in numbers, and what can be left out of its journal, compared with the events one by one."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import strategies as st

from rh_agents.core.ports import Journal, Store
from rh_agents.core.ports.summary import RunSummary, SummaryFold, summary_of_run, total_of
from rh_agents.core.types import ExecutionStatus
from rh_agents.testing._journals import Step, steps, write
from rh_agents.testing._records import RUN, STARTED, Written, completed, fact, outcome, request
from rh_agents.testing.conformance.suite import StoreSuite, on_an_event_loop

__all__ = ["SummaryConformance"]


class SummaryConformance(StoreSuite):
    """`summary_of_run`, with or without help of the store. Duplicates need the hook `plant`.

    Attributes:
        journals: how many random journals are tried.
    """

    journals: int = 40

    def test_a_summary_is_what_a_fold_over_the_events_says_and_summaries_add_up(self) -> None:
        """Random journals, cut at random places."""
        cuts = st.lists(st.integers(0, 60), max_size=3).map(sorted)
        self._try_examples(self.journals, st.tuples(steps(), cuts), self._compare_summaries)

    async def _compare_summaries(self, run_id: str, example: tuple[Sequence[Step], list[int]]) -> None:
        chosen, cuts = example
        store = self._stores[-1]
        written = Written(run_id)
        journal = await store.open_run(request(run_id))
        await write(journal, written, chosen)
        await journal.flush()
        expected = _folded(written)
        for each in (store, _journals_only(store)):
            found = await summary_of_run(each, run_id)
            _same(found, expected)
            parts = [RunSummary()]
            for cut in (*cuts, None):
                parts.append(await summary_of_run(each, run_id, after=parts[-1].until, until=cut))
                _same(parts[-1], _folded(written, parts[-2].until, parts[-1].until))
                assert parts[-1].until == min(len(written.entries) if cut is None else cut, len(written.entries))
            _same(total_of(parts), expected)
        await journal.close(STARTED)

    @on_an_event_loop
    async def test_of_two_outcomes_of_a_call_the_first_counts_but_both_are_spent(self, store: Store) -> None:
        calls, other = await self._with_two_outcomes(store)
        written = Written(RUN)
        for call in calls:
            written.entries += [(fact(RUN, STARTED, call), None), (completed(RUN, call), call)]
        written.entries.append((completed(RUN, other), other))
        for each in (store, _journals_only(store)):
            found = await summary_of_run(each, RUN)
            assert (found.until, found.outcomes, found.paid) == (5, 2, 3)
            assert found.actors == {"fetch": {STARTED: 2, ExecutionStatus.COMPLETED: 2}}
            assert found.groups == {"pages": {STARTED: 1, ExecutionStatus.COMPLETED: 1}}
            assert found.failures == ()
            _same(found, _folded(written))
            _same(await summary_of_run(each, RUN, after=4), _folded(written, 4))

    async def _with_two_outcomes(self, store: Store) -> tuple[list[Any], Any]:
        """Two calls, and another outcome of the second one behind them."""
        calls = [outcome(1, "one"), outcome(2, "two", group_id="pages")]
        journal = await store.open_run(request())
        for call in calls:
            await _call(journal, call)
        await journal.close(STARTED)
        other = outcome(2, error=ValueError("another"), group_id="pages")
        if not await self.plant(store, completed(RUN, other), other):
            pytest.skip("plant() puts no second outcome into a journal")
        return calls, other


async def _call(journal: Journal, call: Any) -> None:
    journal.note(fact(RUN, STARTED, call))
    await journal.append(completed(RUN, call), call)


def _folded(written: Written, after: int = 0, until: int | None = None) -> RunSummary:
    outcomes = [given for _, given in written.entries if given is not None]
    fold = SummaryFold(after, {each.key.hex(): each.base.hex() for each in outcomes if each.base != each.key})
    for sequence, (event, given_outcome) in enumerate(written.entries[:until], 1):
        fold.add(sequence, event.event(), has_outcome=given_outcome is not None)
    return fold.summary()


def _same(found: RunSummary, expected: RunSummary) -> None:
    """Assert that two summaries are equal; money may be added in another order."""
    for name in RunSummary.__slots__:
        if name != "usage":
            assert getattr(found, name) == getattr(expected, name), name
    assert found.usage.keys() == expected.usage.keys()
    for name, used in expected.usage.items():
        assert found.usage[name].as_json() == pytest.approx(used.as_json())


def _journals_only(store: Store) -> Store:
    """The store as one that computes nothing itself."""
    return cast("Store", SimpleNamespace(events=store.events, unread_outcomes=store.unread_outcomes))
