"""What happened in a run and when, compared with the events one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import strategies as st

from rh_agents.core.ports import Store
from rh_agents.core.ports.activity import Activity, activity_of_run
from rh_agents.testing._journals import Step, steps, write
from rh_agents.testing._records import STARTED, Written, request
from rh_agents.testing.conformance.suite import StoreSuite

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
    for name in ("after", "until", "width", "buckets", "groups", "totals", "slowest"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.durations.keys() == expected.durations.keys()
    for name, one in found.durations.items():
        other = expected.durations[name]
        assert (one.buckets, one.count, one.largest) == (other.buckets, other.count, other.largest)
        assert one.total == pytest.approx(other.total)
        assert math.isclose(one.percentile(0.5), other.percentile(0.5))
