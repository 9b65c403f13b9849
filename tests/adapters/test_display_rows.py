"""Rows and lines of groups, compared as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents import ExecutionStatus, GroupStatus
from rh_agents.display.board import Board, known_total
from rh_agents.display.rows import bar, board_rows, ended_line, group_row, milestone_line, progress_text, started_line
from tests.adapters.display_kit import group_ended, group_started, member

STARTED, COMPLETED = ExecutionStatus.STARTED, ExecutionStatus.COMPLETED
FAILED, RETRYING, RECOVERED = ExecutionStatus.FAILED, ExecutionStatus.RETRYING, ExecutionStatus.RECOVERED


def busy_board() -> Board:
    """20 members: 5 done, one of them failed, one retried, 2 running since 101 and 104 seconds."""
    board = Board()
    board.apply(group_started(name="pages", total=20), 100.0)
    for index in range(5):
        board.apply(member(STARTED, index, total=20), 100.0)
    board.apply(member(RETRYING, 1, total=20), 101.0)
    for index in range(5):
        facts = {"message": "ValueError: no"} if index == 3 else {}
        board.apply(member(FAILED if index == 3 else COMPLETED, index, total=20, **facts), 102.0)
    board.apply(member(STARTED, 5, name="long", total=20), 101.0)
    board.apply(member(STARTED, 6, name="short", total=20), 104.0)
    return board


def text_of(board: Board, now: float, width: int, height: int) -> str:
    return "\n".join(row.plain for row in board_rows(board, now, width, height))


@pytest.mark.parametrize(
    ("finished", "total", "shown"),
    [
        (8, 10, "████████▒▒ 80%"),
        (0, 10, "▒▒▒▒▒▒▒▒▒▒ 0%"),
        (10, 10, "██████████ 100%"),
        (999, 1000, "█████████▒ 99%"),
        (0, 0, "▒▒▒▒▒▒▒▒▒▒ 0%"),
        (12, 10, "██████████ 100%"),
        (7, None, "▒▒▒▒▒▒▒▒▒▒ 7"),
    ],
)
def test_a_bar_is_full_only_when_nothing_is_missing(finished: int, total: int | None, shown: str) -> None:
    assert progress_text(finished, total) == shown


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 200))
def test_a_bar_has_exactly_its_width(finished: int, total: int, width: int) -> None:
    assert len(bar(finished, total, width)) == width


def test_a_wide_row_shows_everything() -> None:
    assert text_of(busy_board(), 105.0, 100, 10) == (
        "pages  ██▒▒▒▒▒▒▒▒ 25%    5/20  1 failed  1 retried  2 running  1.0/s  ETA 15 s\n"
        "  slowest long[5] 4.0 s  short[6] 1.0 s"
    )


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (60, "pages  ██▒▒▒▒▒▒▒▒ 25%    5/20  1 failed  1.0/s  ETA 15 s"),
        (40, "pages  ██▒▒▒▒▒▒▒▒ 25%    5/20  1 failed"),
        (25, "pages 25%   1 failed"),
        (12, "pages 25%"),
        (4, "page"),
    ],
)
def test_a_narrow_row_leaves_out_what_matters_least(width: int, shown: str) -> None:
    assert group_row(busy_board().groups["g"], 105.0, width).plain.rstrip() == shown


@given(st.integers(1, 250), st.integers(1, 60), st.text(), st.floats(100, 1e9))
def test_no_row_is_wider_and_no_board_higher_than_the_terminal(width: int, height: int, name: str, now: float) -> None:
    board = Board()
    for number in range(12):
        parent = f"g{number // 2}" if number else None
        board.apply(group_started(f"g{number}", parent=parent, name=name, total=number * 1000), 100.0)
        board.apply(member(STARTED, 7, group=f"g{number}", name=name, total=number * 1000), 100.0)
    rows = board_rows(board, now, width, height)
    assert 1 <= len(rows) <= height
    assert max(row.cell_len for row in rows) <= width
    assert all("\n" not in row.plain for row in rows)


def test_nested_groups_stand_indented_below_the_one_they_are_in() -> None:
    board = Board()
    board.apply(group_started("outer", total=3), 100.0)
    board.apply(group_started("other", total=1), 100.0)
    board.apply(group_started("inner", parent="outer", total=2), 100.0)
    board.apply(group_started("inmost", parent="inner", total=2), 100.0)
    names = [row.plain.split("▒")[0].rstrip() for row in board_rows(board, 101.0, 80, 10)]
    assert names == ["outer", "  inner", "    inmost", "other"]


def test_with_little_height_the_slowest_members_go_first_and_then_the_last_groups() -> None:
    board = Board()
    for number in range(6):
        board.apply(group_started(f"g{number}", parent="g0" if number else None, total=3), 100.0)
        board.apply(member(STARTED, 0, group=f"g{number}", total=3), 100.0)
    assert len(board_rows(board, 101.0, 80, 12)) == 12
    assert text_of(board, 101.0, 80, 7).count("slowest") == 1
    assert text_of(board, 101.0, 80, 6).count("slowest") == 0
    assert text_of(board, 101.0, 80, 4).splitlines()[-1] == "… 3 more groups"


def test_an_unknown_total_is_shown_as_a_count_and_the_time_so_far() -> None:
    board = Board()
    board.apply(group_started(name="lines"), 100.0)
    board.apply(member(STARTED), 100.0)
    board.apply(member(COMPLETED), 102.0)
    assert text_of(board, 104.0, 80, 5) == "lines  1 done  15/min  4 s"


def test_a_total_that_only_the_first_members_knew_is_not_believed() -> None:
    board = Board()
    board.apply(group_started(total=0), 100.0)
    board.apply(member(STARTED, 0, total=1), 100.0)
    board.apply(member(STARTED, 1, total=20), 100.0)
    board.apply(member(COMPLETED, 0, total=1), 101.0)
    assert known_total(board.groups["g"]) == 20


def test_a_total_smaller_than_what_was_seen_is_none() -> None:
    board = Board()
    board.apply(group_started(total=0), 100.0)
    board.apply(member(STARTED, 0), 100.0)
    assert known_total(board.groups["g"]) is None


def test_time_goes_on_without_events() -> None:
    board = busy_board()
    assert "long[5] 4.0 s" in text_of(board, 105.0, 100, 10)
    assert "long[5] 14 s" in text_of(board, 115.0, 100, 10)


def test_replayed_members_are_told_apart() -> None:
    board = Board()
    board.apply(group_started(total=2), 100.0)
    board.apply(member(RECOVERED, 0, total=2, is_replayed=True), 100.0)
    assert "1 reused" in text_of(board, 101.0, 100, 5)


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (GroupStatus.COMPLETED, "✗ pages  5/20 done  1 failed  1 retried  in 5.0 s  1.0/s"),
        (GroupStatus.FAILED, "✗ pages  5/20 done  stopped  1 failed  1 retried  in 5.0 s  1.0/s"),
        (GroupStatus.CANCELLED, "■ pages  5/20 done  cancelled  1 failed  1 retried  in 5.0 s  1.0/s"),
    ],
)
def test_the_line_of_an_ended_group_says_how_it_ended(status: GroupStatus, shown: str) -> None:
    board = busy_board()
    board.apply(group_ended(name="pages", total=20, status=status, completed=4, failed=1, retries=1), 105.0)
    assert ended_line(board.groups["g"], 200.0).plain == shown
    assert ended_line(board.groups["g"], 200.0, 20).cell_len <= 20


def test_a_group_without_members_had_nothing_to_do() -> None:
    board = Board()
    board.apply(group_started(total=0), 100.0)
    board.apply(group_ended(total=0), 100.0)
    assert ended_line(board.groups["g"], 100.0).plain == "✓ g  nothing to do  in 0 ms"


def test_lines_that_stay_have_no_bar() -> None:
    tracker = busy_board().groups["g"]
    assert started_line(tracker).plain == "▶ pages  started  20 calls  4 at a time"
    assert milestone_line(tracker, 105.0).plain == (
        "  pages  25%  5/20  1 failed  1 retried  2 running  1.0/s  ETA 15 s"
    )


def test_what_is_only_replayed_shows_no_seconds_that_look_like_the_time_left() -> None:
    board = Board()
    board.apply(group_started(total=20), 100.0)
    for index in range(5):
        board.apply(member(RECOVERED, index, total=20, is_replayed=True), 100.5)
    assert milestone_line(board.groups["g"], 100.5).plain == "  g  25%  5/20  5 reused  10/s"
    assert milestone_line(board.groups["g"], 102.0).plain.endswith("  2 s")


def test_the_board_forgets_all_but_the_last_hundred_ended_groups() -> None:
    board = Board()
    for number in range(1000):
        board.apply(group_started(f"g{number}"), 100.0)
        board.apply(group_ended(f"g{number}"), 101.0)
    assert len(board.groups) == 100
    assert list(board.groups)[-1] == "g999"
    assert board.is_idle


def test_a_group_that_runs_again_under_the_same_id_begins_anew() -> None:
    board = Board()
    for _ in range(2):
        board.apply(group_started(total=1), 100.0)
        board.apply(member(STARTED, total=1), 100.0)
        board.apply(member(COMPLETED, total=1), 101.0)
        assert not board.is_idle
        board.apply(group_ended(total=1, completed=1), 101.0)
    assert board.groups["g"].finished == 1
    assert board.is_idle


def test_a_group_whose_start_was_missed_is_shown_by_the_name_in_the_address() -> None:
    board = Board()
    board.apply(member(STARTED, 3, group="survey::pages"), 100.0)
    assert board.groups["survey::pages"].name == "pages"
