"""Summaries of parts of a history add up to that of the whole, wherever it is cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents.core.events import ExecutionEvent
from rh_agents.core.ports.summary import RunSummary, SummaryFold, total_of
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Usage
from rh_agents.testing._records import FETCH

_PLACES = {f"again {number}": f"call {number % 7}" for number in range(14)}
"""Calls that were made again, up to twice each."""


def _event(data: st.DataObject, number: int) -> tuple[ExecutionEvent[Any], bool]:
    draw = data.draw
    has_outcome = draw(st.booleans())
    key = draw(st.sampled_from([*(f"call {number}" for number in range(7)), *_PLACES]))
    ends = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
    others = (ExecutionStatus.STARTED, ExecutionStatus.RETRYING, ExecutionStatus.SUPERSEDED)
    event = ExecutionEvent[Any](
        actor=FETCH,
        key=key,
        address=key,
        event_type=draw(st.sampled_from([EventType.TOOL_CALL, EventType.TOOL_CALL, EventType.GROUP_STARTED])),
        execution_status=draw(st.sampled_from(ends if has_outcome else others)),
        timestamp=1_760_000_000.0 + draw(st.floats(0, 10 ** draw(st.integers(0, 6)))),
        execution_time=draw(st.none() | st.floats(0, 1e6)),
        message=draw(st.none() | st.sampled_from(["no 1", "no 2", "nothing"])),
        group_id=draw(st.none() | st.sampled_from(["pages", "inner"])),
        usage=draw(st.none() | st.builds(Usage, requests=st.integers(0, 3))),
        from_cache=draw(st.booleans()),
    )
    return event, has_outcome and event.event_type is EventType.TOOL_CALL


def _folded(events: list[tuple[ExecutionEvent[Any], bool]], after: int, until: int) -> RunSummary:
    fold = SummaryFold(after, _PLACES)
    for sequence, (event, has_outcome) in enumerate(events[:until], 1):
        fold.add(sequence, event, has_outcome=has_outcome)
    return fold.summary()


@given(st.data())
def test_summaries_of_parts_add_up_wherever_a_history_is_cut(data: st.DataObject) -> None:
    events = [_event(data, number) for number in range(data.draw(st.integers(0, 30)))]
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4))), len(events)]
    whole = _folded(events, 0, len(events))
    added = total_of(_folded(events, after, until) for after, until in pairwise(cuts))
    for name in RunSummary.__slots__:
        assert getattr(added, name) == getattr(whole, name), name
    for actor, its in whole.replaced.items():
        assert all(count <= whole.actors[actor].get(status, 0) for status, count in its.items())


def test_parts_that_do_not_meet_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="up to event 3 and one from after event 4 do not meet"):
        RunSummary(0, 3).merge(RunSummary(4, 5))
    with pytest.raises(ValueError, match="no summaries"):
        total_of([])
