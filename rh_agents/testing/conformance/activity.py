"""What happened in a run and when, compared with the events one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import strategies as st

from rh_agents.core.ports import Store
from rh_agents.core.ports.activity import Activity, Bucket, Lane, activity_of_run
from rh_agents.core.types import ExecutionStatus
from rh_agents.testing._journals import Step, steps, write
from rh_agents.testing._records import RUN, STARTED, Written, completed, fact, outcome, request
from rh_agents.testing.conformance.suite import StoreSuite, on_an_event_loop

__all__ = ["ActivityConformance"]


class ActivityConformance(StoreSuite):
    """`activity_of_run`, with or without help of the store.

    Attributes:
        activities: how many random journals are tried.
    """

    activities: int = 40

    def test_what_happened_is_what_the_events_say_and_parts_add_up(self) -> None:
        """Random journals, cut at a random place, in buckets of random widths."""
        widths = st.sampled_from([2.0**power for power in range(-6, 8)])
        examples = st.tuples(steps(), st.integers(0, 40), widths, widths)
        self._try_examples(self.activities, examples, self._compare_activities)

    @on_an_event_loop
    async def test_what_calls_waited_is_no_work_and_what_only_looks_like_it_is(self, store: Store) -> None:
        journal = await store.open_run(request())
        long = outcome(1, "one", address="survey::pages[0]::fetch", seconds=9.0)
        quick = outcome(2, "two", address="survey::pages[1]::survey::inner[3]::fetch", seconds=3.0)
        await journal.append(completed(RUN, long).with_more(waited=8.5), long)
        await journal.append(completed(RUN, quick).with_more(metadata={"waited": 2.5}, tag='{"waited": 2.5}'), quick)
        await journal.append(fact(RUN, ExecutionStatus.AWAITING, outcome(3, "three", address="survey::ask")))
        for each in (store, cast("Store", SimpleNamespace(events=store.events))):
            found = await activity_of_run(each, RUN)
            assert [(call.sequence, call.seconds, call.waited) for call in found.slowest] == [
                (2, 3.0, 0.0),
                (1, 9.0, 8.5),
            ]
            assert (found.durations["fetch"].total, found.waits["fetch"].total) == (3.5, 8.5)
            assert list(found.buckets.values()) == [Bucket(done=2, waited=2)]
            (number,) = found.buckets
            assert found.lanes == {
                "survey::pages": Lane(1, {number: Bucket(done=1, waited=1)}),
                "survey::pages::survey::inner": Lane(2, {number: Bucket(done=1)}),
            }
        await journal.close(STARTED)

    async def _compare_activities(self, run_id: str, example: tuple[Sequence[Step], int, float, float]) -> None:
        chosen, cut, width, later_width = example
        store = self._stores[-1]
        written = Written(run_id)
        journal = await store.open_run(request(run_id))
        await write(journal, written, chosen)
        await journal.flush()
        events_only = cast("Store", SimpleNamespace(events=store.events))
        expected = await activity_of_run(events_only, run_id, width=width)
        assert expected.until == len(written.entries)
        _same(await activity_of_run(store, run_id, width=width), expected)
        before = await activity_of_run(store, run_id, until=cut, width=width)
        assert before.until == min(cut, len(written.entries))
        after = await activity_of_run(store, run_id, after=before.until, width=later_width)
        _same(before.merge(after), expected.widened(max(width, later_width)))
        await journal.close(STARTED)


def _same(found: Activity, expected: Activity) -> None:
    """Assert that both are equal; seconds may be added in another order."""
    for name in ("after", "until", "width", "buckets", "groups", "totals", "slowest", "lanes"):
        assert getattr(found, name) == getattr(expected, name), name
    for some, others in ((found.durations, expected.durations), (found.waits, expected.waits)):
        assert some.keys() == others.keys()
        for name, one in some.items():
            other = others[name]
            assert (one.buckets, one.count, one.largest) == (other.buckets, other.count, other.largest)
            assert one.total == pytest.approx(other.total)
            assert math.isclose(one.percentile(0.5), other.percentile(0.5))
