"""When a run was executed: what is noted of it, and what becomes of many."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents.core._base.executions import (
    MOST_EXECUTIONS,
    Execution,
    closed,
    executions_in,
    opened_again,
    with_executions,
    without_executions,
)


def _opened(times: Sequence[tuple[float, float]]) -> tuple[Execution, ...]:
    """Executed from the first moment of each pair to the second one."""
    found: tuple[Execution, ...] = ()
    seen_at = 0.0
    for events, (began, ended) in enumerate(times):
        found = opened_again(found, times[0][0], seen_at, events, began, epoch=0)
        seen_at = ended
    return found


def test_the_time_between_two_executions_is_that_of_neither() -> None:
    first, second = _opened([(10.0, 12.0), (50.0, 51.0)])
    assert (first, second) == (Execution(10.0, 0, 0, 12.0), Execution(50.0, 1, 0, None))
    assert (first.seconds(99.0), second.seconds(53.5)) == (2.0, 3.5)


def test_a_run_of_a_version_that_noted_nothing_was_executed_once_before() -> None:
    assert opened_again((), 10.0, 12.0, 7, 50.0, epoch=1) == (Execution(10.0, 0, 0, 12.0), Execution(50.0, 7, 1))


def test_one_that_is_closed_stays_as_long_as_it_was() -> None:
    once = closed((Execution(10.0),), 12.0)
    assert closed(once, 99.0) == once == (Execution(10.0, 0, 0, 12.0),)
    assert closed((), 99.0) == ()


@given(st.lists(st.tuples(st.floats(0.25, 9), st.floats(0, 9)), min_size=1, max_size=3 * MOST_EXECUTIONS))
def test_of_many_the_oldest_become_one_and_last_as_long_together(parts: list[tuple[float, float]]) -> None:
    times, now = [], 100.0
    for away, lasted in parts:
        times.append((now + away, now + away + lasted))
        now = times[-1][1]
    found = closed(_opened(times), now)
    assert len(found) == min(len(times), MOST_EXECUTIONS)
    assert found[0].began_at == times[0][0]
    assert sum(each.seconds(now) for each in found) == pytest.approx(sum(ended - began for began, ended in times))


def test_they_stand_among_the_facts_of_a_run_and_leave_the_others_alone() -> None:
    executions = (Execution(10.0, 0, 0, 12.0, 0.5), Execution(50.0, 7, 1))
    facts = with_executions({"a": "b"}, executions)
    assert executions_in(facts) == executions
    assert without_executions(facts) == {"a": "b"}
    assert executions_in({"a": "b"}) == ()
    assert with_executions(facts, ()) == {"a": "b"}
