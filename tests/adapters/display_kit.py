"""Events, consoles and clocks for the tests of the display."""

from __future__ import annotations

import io
import re
from typing import Any

from rich.console import Console

from rh_agents import EventType, ExecutionEvent, ExecutionStatus, GroupStatus, ParallelEventGroup, Tool
from rh_agents.core.tracking import group_fact

FETCH = Tool(name="fetch", handler=lambda url: url)
NOON = 1_750_000_000.25


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def terminal(width: int = 80, height: int = 24) -> Console:
    """A console without colours, so that its text can be compared."""
    return Console(file=Terminal(), width=width, height=height, force_terminal=True, color_system=None)


def written(console: Console) -> str:
    """What has been written to the console so far."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def screen(text: str) -> list[str]:
    """The lines that a terminal shows after `text`: a small emulation of what the live region writes."""
    lines = [""]
    row = 0
    for piece in re.findall(r"\033\[[?\d]*[A-Za-z]|\r|\n|[^\033\r\n]+", text):
        if piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif move := re.fullmatch(r"\033\[(\d+)A", piece):
            row = max(0, row - int(move[1]))
        elif piece == "\033[J":
            lines[row:] = [""]
        elif not piece.startswith(("\033", "\r")):
            lines[row] = piece
    return lines[:-1] if not lines[-1] else lines


def member(
    status: ExecutionStatus, index: int = 0, *, group: str = "g", name: str = "", total: int | None = None, **facts: Any
) -> ExecutionEvent[Any]:
    """An event about a member of a group."""
    return ExecutionEvent(
        actor=FETCH,
        name=name or "fetch",
        event_type=FETCH.event_type,
        execution_status=status,
        address=f"{group}[{index}]::{name or 'fetch'}",
        timestamp=NOON,
        group_id=group,
        parallel_index=index,
        is_parallel=True,
        group_total=total,
        **facts,
    )


def call(status: ExecutionStatus, **facts: Any) -> ExecutionEvent[Any]:
    """An event about a call outside any group."""
    return ExecutionEvent(actor=FETCH, execution_status=status, address="survey::fetch", timestamp=NOON, **facts)


def group_started(
    group: str = "g", *, parent: str | None = None, name: str | None = None, total: int | None = None
) -> ExecutionEvent[Any]:
    """A group begins."""
    facts = ParallelEventGroup(
        group_id=group,
        name=group if name is None else name,
        parent_group_id=parent,
        status=GroupStatus.RUNNING,
        max_workers=4,
        total=total,
    )
    return group_fact(EventType.GROUP_STARTED, facts, "run", NOON).event()


def group_ended(
    group: str = "g",
    *,
    parent: str | None = None,
    name: str | None = None,
    total: int | None = None,
    status: GroupStatus = GroupStatus.COMPLETED,
    **counts: int,
) -> ExecutionEvent[Any]:
    """A group has ended, with these counts of `ParallelEventGroup`."""
    facts = ParallelEventGroup(
        group_id=group,
        name=group if name is None else name,
        parent_group_id=parent,
        status=status,
        max_workers=4,
        total=total,
        elapsed=1.5,
    )
    return group_fact(EventType.GROUP_COMPLETED, facts.model_copy(update=counts), "run", NOON).event()
