"""What is known of the calls of a run without reading it again: which were made again."""

from __future__ import annotations

import pytest

from rh_agents.stores._backend.windows import TriedAgain
from rh_agents.stores._run_index import Tries

PLACE = b"first key"


def made_three_times() -> Tries:
    """A call whose outcomes stand at 2, 5 and 9, all of which have been read."""
    tries = Tries()
    again = [TriedAgain(sequence, key, PLACE, "pages") for sequence, key in ((5, b"second"), (9, b"third"))]
    tries.add(again, until=12)
    assert tries.all_unknown() == [PLACE]
    tries.add_first([PLACE], [TriedAgain(2, PLACE, PLACE, "pages")])
    return tries


@pytest.mark.parametrize(
    ("after", "until", "replaced"),
    [(0, 12, [2, 5]), (0, 5, [2]), (5, 9, [5]), (4, 12, [2, 5]), (0, 4, []), (5, 8, []), (9, 12, [])],
)
def test_an_outcome_is_replaced_in_the_part_of_the_journal_where_the_next_one_stands(
    after: int, until: int, replaced: list[int]
) -> None:
    assert made_three_times().replaced_between(after, until) == replaced


def test_of_all_outcomes_of_a_call_the_newest_counts() -> None:
    tries = made_three_times()
    assert [tries.is_replaced(sequence, key) for sequence, key in ((2, PLACE), (5, b"second"), (9, b"third"))] == [
        True,
        True,
        False,
    ]
    assert tries.left_out_of("pages") == {2, 5}
    assert tries.left_out_of("inner") == set()


def test_a_second_outcome_of_one_key_makes_nothing_again() -> None:
    tries = made_three_times()
    tries.add([TriedAgain(14, b"third", PLACE, "pages")], until=15)
    assert tries.newest(PLACE) == 9
    assert tries.replaced_between(12, 15) == []
