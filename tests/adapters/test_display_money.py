"""What calls wait for and what they cost is seen: in lines, in bars, in the summary."""

from __future__ import annotations

import io
from typing import Any

from rh_agents import ExecutionEvent, ExecutionStatus, GroupStatus, ParallelEventGroup, Usage
from rh_agents.bus_handlers import EventPrinter
from rh_agents.core.actors import Tool
from rh_agents.core.events import call_event, group_event
from rh_agents.core.types import EventType
from rh_agents.display.board import Board
from rh_agents.display.rows import board_rows


async def _ask() -> None: ...


ACTOR = Tool(name="ask", handler=_ask)


def told(status: ExecutionStatus, index: int = 0, **facts: Any) -> ExecutionEvent[Any]:
    return call_event(
        ACTOR, "ask", status, "r", f"pages[{index}]::ask", None, 1_700_000_000.0, "g", index, 8, facts=facts
    )


def board(*events: ExecutionEvent[Any]) -> Board:
    found = Board()
    about = ParallelEventGroup(group_id="g", name="pages", max_workers=8, total=8, status=GroupStatus.RUNNING)
    found.apply(group_event(EventType.GROUP_STARTED, about, "r", 1_700_000_000.0), 0.0)
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
