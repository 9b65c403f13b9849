"""What calls wait for and what they cost is seen: in lines, in bars, in the summary."""

from __future__ import annotations

import io
from typing import Any

from rh_agents import ExecutionEvent, ExecutionStatus, GroupStatus, ParallelEventGroup, Usage
from rh_agents.bus_handlers import EventPrinter
from rh_agents.core.actors import Tool
from rh_agents.core.events import Fact
from rh_agents.core.tracking import group_fact
from rh_agents.core.types import EventType
from rh_agents.display.board import Board
from rh_agents.display.rows import board_rows, ended_line, milestone_line


async def _ask() -> None: ...


ACTOR = Tool(name="ask", handler=_ask)


def told(status: ExecutionStatus, index: int = 0, **facts: Any) -> ExecutionEvent[Any]:
    address = f"pages[{index}]::ask"
    made = Fact("r", 1_700_000_000.0, status, ACTOR.event_type, ACTOR, "ask", address, None, "g", index, 8)
    return made._replace(message=facts.pop("message", None), more=facts).event()


def board(*events: ExecutionEvent[Any]) -> Board:
    found = Board()
    about = ParallelEventGroup(
        group_id="g", name="pages", address="pages", max_workers=8, total=8, status=GroupStatus.RUNNING
    )
    found.apply(group_fact(EventType.GROUP_STARTED, about, "r", 1_700_000_000.0).event(), 0.0)
    for event in events:
        found.apply(event, 1.0)
    return found


def row(found: Board, width: int = 160) -> str:
    return board_rows(found, 13.0, width, 10)[0].plain


WAITING = told(ExecutionStatus.WAITING, 1, message="provider: 3 requests in 60 s", retry_delay=20.0)


def test_a_bar_says_how_many_wait_for_what_and_how_long_until_they_need_not() -> None:
    assert "1 waiting 12 s for provider: 3 requests in 60 s" in row(board(WAITING))
    admitted = told(ExecutionStatus.WAITING, 1, message="provider: admitted", retry_delay=0.0)
    assert "waiting" not in row(board(WAITING, admitted))
    assert "waiting" not in row(board(WAITING, told(ExecutionStatus.COMPLETED, 1)))
    assert "1 waiting" in row(board(WAITING, told(ExecutionStatus.PROGRESS, 1, progress="x")))


def test_a_bar_says_what_was_used_and_not_what_was_replayed() -> None:
    usage = Usage(input_tokens=1_000, output_tokens=200, cost=0.0125)
    spent = [told(ExecutionStatus.RETRYING, usage=usage), told(ExecutionStatus.COMPLETED, usage=usage)]
    found = row(board(*spent, told(ExecutionStatus.RECOVERED, 1, usage=usage)))
    assert "2,400 tokens $0.0250" in found


def test_what_is_called_within_members_counts_for_all_groups_around_it() -> None:
    found = board()
    inner = ParallelEventGroup(
        group_id="i", name="steps", address="pages[2]::plan::steps", parent_group_id="g", status=GroupStatus.RUNNING
    )
    found.apply(group_fact(EventType.GROUP_STARTED, inner, "r", 1_700_000_000.0).event(), 1.0)

    def nested(status: ExecutionStatus, run_id: str = "r", **facts: Any) -> None:
        address = "pages[2]::plan::steps[0]::ask::model"
        made = Fact(run_id, 0.0, status, ACTOR.event_type, ACTOR, "ask", address)
        found.apply(made._replace(message=facts.pop("message", None), more=facts).event(), 2.0)

    nested(ExecutionStatus.WAITING, message="openai: 8 requests in 60 s", retry_delay=9.0)
    nested(ExecutionStatus.WAITING, "another run", message="openai: 8 requests in 60 s", retry_delay=9.0)
    outer, nested_row = (line.plain for line in board_rows(found, 13.0, 160, 3))
    assert "1 waiting 11 s for openai: 8 requests in 60 s" in outer
    assert "1 waiting 11 s for openai: 8 requests in 60 s" in nested_row
    nested(ExecutionStatus.COMPLETED, "another run", usage=Usage(input_tokens=7_000))
    nested(ExecutionStatus.COMPLETED, usage=Usage(input_tokens=70))
    assert all(" 70 tokens" in line.plain and "waiting" not in line.plain for line in board_rows(found, 13.0, 160, 3))


def test_with_a_second_row_there_is_room_for_them_at_any_width() -> None:
    found = board(told(ExecutionStatus.STARTED, 1), WAITING, told(ExecutionStatus.COMPLETED, 2, usage=Usage(70)))
    shown = [board_rows(found, 13.0, width, 10)[1].plain for width in (40, 60, 80, 120)]
    assert shown == [
        "  1 waiting 12 s  70 tokens",
        "  1 waiting 12 s for provider: 3 requests in 60 s  70 tokens",
        "  1 waiting 12 s for provider: 3 requests in 60 s  70 tokens",
        "  1 waiting 12 s for provider: 3 requests in 60 s  70 tokens  slowest ask[1] 12 s",
    ]


def test_what_a_group_used_is_told_when_it_ends_and_where_lines_stay_on_its_way() -> None:
    found = board(WAITING, told(ExecutionStatus.COMPLETED, 2, usage=Usage(input_tokens=70, cost=0.5)))
    group = found.groups["g"]
    assert ended_line(group, 13.0, 100, found.spent(group)).plain.endswith("70 tokens $0.5000")
    line = milestone_line(group, 13.0, found.spent(group)).plain
    assert line.endswith("70 tokens $0.5000  1 waiting 12 s for provider: 3 requests in 60 s")


def test_a_bar_never_takes_more_columns_than_it_is_given() -> None:
    usage = Usage(input_tokens=1_000_000, cost=123.0)
    for width in (20, 40, 80, 120, 200):
        found = board(WAITING, told(ExecutionStatus.COMPLETED, 2, usage=usage))
        assert all(len(line.plain) <= width for line in board_rows(found, 13.0, width, 10))


def test_what_a_limit_is_called_reaches_no_terminal_unescaped() -> None:
    evil = told(ExecutionStatus.WAITING, 1, message="\x1b[2Jevil", retry_delay=1.0)
    assert "\x1b" not in row(board(evil))


def test_lines_tell_of_waiting_and_usage_and_are_silent_about_progress() -> None:
    file = io.StringIO()
    printer = EventPrinter(file=file)
    printer(WAITING)
    printer(told(ExecutionStatus.PROGRESS, progress="a word"))
    printer(told(ExecutionStatus.COMPLETED, usage=Usage(input_tokens=10, cost=0.5), execution_time=1.0))
    printer(told(ExecutionStatus.COMPLETED, 3, from_cache=True))
    printer.print_summary()
    waiting, completed, _, *summary = file.getvalue().splitlines()
    assert "waiting  20 s at least  provider: 3 requests in 60 s" in waiting
    assert "10 tokens $0.5000" in completed
    assert any("1 from the cache, 10 tokens, $0.5000" in line for line in summary)
