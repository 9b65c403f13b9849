"""When calls were under way that ended in a part of a journal: parts without any that is wanted are passed over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from rh_agents.core.ports.call_views import Within
from rh_agents.stores._parts import PART as SIZE
from rh_agents.stores._run_index import Moments

TIMES = {0: (10.0, 20.0), SIZE: (15.0, 30.0), 2 * SIZE: (None, None), 3 * SIZE: (5.0, 6.0)}
"""By the event before each part. The clock went back before the last one, and nothing ended in the one before."""


def known(until: int) -> Moments:
    def moments(number: int, after: int, end: int) -> tuple[float | None, float | None]:
        assert (number, end) == (7, after + SIZE)
        return TIMES[after]

    found = Moments(7)
    session = cast("Any", SimpleNamespace(inner=SimpleNamespace(moments=moments)))
    while found.until + SIZE <= until:
        found.extend(session)
    return found


def fitting(moments: Moments, *within: Within) -> list[int]:
    """The parts that may have such calls, by their numbers."""
    return [part for part in range(5) if moments.may_fit(part * SIZE, (part + 1) * SIZE, within)]


def test_only_whole_parts_are_known_and_the_last_one_may_have_anything() -> None:
    moments = known(4 * SIZE + 3)
    assert moments.until == 4 * SIZE
    assert fitting(moments, Within("time", 100.0, None)) == [4]


def test_parts_are_passed_over_in_which_no_call_was_under_way_at_that_time() -> None:
    moments = known(4 * SIZE)
    assert fitting(moments, Within("time", 21.0, None)) == [1, 4]
    assert fitting(moments, Within("time", None, 9.0)) == [3, 4]
    assert fitting(moments, Within("time", 16.0, 17.0)) == [0, 1, 4]
    assert fitting(moments, Within("time", 16.0, None), Within("time", None, 12.0)) == [0, 4]
    assert moments.may_fit(SIZE // 2, 3 * SIZE // 2, [Within("time", 25.0, None)]), "a part of the second one"


def test_what_is_not_about_time_passes_over_nothing() -> None:
    assert fitting(known(4 * SIZE), Within("cost", 100.0, None)) == [0, 1, 2, 3, 4]
    assert fitting(known(4 * SIZE)) == [0, 1, 2, 3, 4]
