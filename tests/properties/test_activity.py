"""What happened in parts of a history adds up to what happened in the whole, wherever it is cut."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rh_agents.core.events import ExecutionEvent
from rh_agents.core.ports import RecordedEvent
from rh_agents.core.ports.activity import (
    MOST_BUCKETS,
    MOST_LANES,
    OTHER_GROUPS,
    Activity,
    ActivityFold,
    Bucket,
    Lane,
    lane_of,
)
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.testing._records import FETCH

_ENDS = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
_OTHERS = (ExecutionStatus.STARTED, ExecutionStatus.RETRYING, ExecutionStatus.AWAITING)
_ADDRESSES = ("fetch", "pages[0]::fetch", "pages[1]::fetch", "pages[1]::survey::inner[0]::fetch", "b[[2]::x", "é[3]")


@st.composite
def _events(draw: st.DrawFn) -> list[RecordedEvent]:
    found = []
    for sequence in range(1, draw(st.integers(0, 30)) + 1):
        has_outcome = draw(st.booleans())
        seconds = draw(st.none() | st.floats(0, 100))
        event = ExecutionEvent[Any](
            actor=FETCH,
            key=draw(st.sampled_from(["a", "b", None])),
            address=draw(st.sampled_from(_ADDRESSES)),
            event_type=EventType.TOOL_CALL,
            execution_status=draw(st.sampled_from(_ENDS if has_outcome else _OTHERS)),
            timestamp=1_760_000_000.0 + draw(st.floats(0, 10 ** draw(st.integers(0, 6)))),
            execution_time=seconds,
            waited=draw(st.just(0.0) | st.floats(0, seconds or 0.0)),
        )
        found.append(RecordedEvent(sequence, event, has_outcome))
    return found


def _folded(events: list[RecordedEvent], after: int, until: int, width: float) -> Activity:
    fold = ActivityFold(after, width)
    for recorded in events[after:until]:
        fold.add(recorded)
    return fold.activity()


@given(_events(), st.lists(st.integers(0, 30), max_size=4), st.sampled_from([2.0**power for power in range(-6, 6)]))
def test_what_happened_in_parts_adds_up(events: list[RecordedEvent], cuts: list[int], width: float) -> None:
    ends = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    whole = _folded(events, 0, len(events), width)
    added = Activity(width=width)
    for after, until in pairwise(ends):
        added = added.merge(_folded(events, after, until, width))
    for name in ("until", "buckets", "slowest", "lanes"):
        assert getattr(added, name) == getattr(whole, name), name
    for some, others in ((added.durations, whole.durations), (added.waits, whole.waits)):
        assert {name: one.buckets for name, one in some.items()} == {name: one.buckets for name, one in others.items()}
        assert all(math.isclose(one.total, others[name].total, abs_tol=1e-9) for name, one in some.items())
    in_lanes = Bucket()
    for lane in whole.lanes.values():
        for bucket in lane.buckets.values():
            in_lanes = in_lanes.plus(bucket)
    assert all(some <= total for some, total in zip(in_lanes, _total(whole.buckets), strict=True))


def _total(buckets: Mapping[int, Bucket]) -> Bucket:
    return functools.reduce(Bucket.plus, buckets.values(), Bucket())


@given(_events(), st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=4))
def test_whatever_is_drawn_fits_and_nothing_is_lost(
    events: list[RecordedEvent], times: list[tuple[float, float]]
) -> None:
    owned = [(1_760_000_000.0 + min(pair), 1_760_000_000.0 + max(pair)) for pair in times]
    whole = _folded(events, 0, len(events), 2.0**-6)
    fitted = whole.fitted(owned)
    spans = fitted.spans(owned)
    assert sum(last - first + 1 for first, last in spans) <= MOST_BUCKETS
    assert all(any(first <= number <= last for first, last in spans) for number in fitted.buckets)
    assert _total(fitted.buckets) == _total(whole.buckets)
    assert all(earlier[1] < later[0] for earlier, later in pairwise(spans))


def test_a_time_without_a_process_is_not_drawn_and_does_not_make_buckets_wide() -> None:
    day = 86_400.0
    run = Activity(until=2, buckets={0: Bucket(1), int(day): Bucket(1)})
    owned = [(0.0, 2.0), (day, day + 2.0)]
    assert run.fitted(owned).width == 1.0
    assert run.spans(owned) == [(0, 2), (int(day), int(day) + 2)]
    assert run.fitted([(0.0, day + 2.0)]).width > 100.0


def test_groups_beyond_those_that_are_kept_become_one_in_the_order_in_which_they_began() -> None:
    names = [f"group {number}" for number in range(MOST_LANES + 10)]
    parts = [
        Activity(number, number + 1, lanes={name: Lane(number + 1, {0: Bucket(1)})})
        for number, name in enumerate(names)
    ]
    found = Activity()
    for part in parts:
        found = found.merge(part).fitted()
    assert list(found.lanes) == [*names[:MOST_LANES], OTHER_GROUPS]
    assert found.lanes[OTHER_GROUPS] == Lane(MOST_LANES + 1, {0: Bucket(10)})


def test_a_lane_is_named_by_its_place_in_the_program() -> None:
    assert lane_of("survey::pages[3]::survey::inner") == "survey::pages::survey::inner"
    assert lane_of("pages of [a]") == "pages of [a]"
