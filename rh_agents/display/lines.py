"""Events as single lines of text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from rich.text import Text

from rh_agents.core.events import ExecutionEvent
from rh_agents.core.types import ExecutionStatus
from rh_agents.display.labels import label_of
from rh_agents.display.text import amount, brief, brief_result, duration, harmless

__all__ = ["PARTLY_FAILED", "LineFormat", "event_line"]

_MARKS = {
    ExecutionStatus.STARTED: ("▶", "dim"),
    ExecutionStatus.RETRYING: ("↻", "yellow"),
    ExecutionStatus.COMPLETED: ("✓", "green"),
    ExecutionStatus.FAILED: ("✗", "red"),
    ExecutionStatus.CANCELLED: ("■", "yellow"),
    ExecutionStatus.RECOVERED: ("=", "cyan"),
    ExecutionStatus.WAITING: ("…", "yellow"),
}
PARTLY_FAILED = ("!", "yellow")
"""The mark of what ended well, though calls inside of it failed."""
_ROOM_FOR_TIME = 60
_ROOM_FOR_ADDRESS = 40
_MESSAGE_LENGTH = 500
_TAG_LENGTH = 80


@dataclass(frozen=True, slots=True)
class LineFormat:
    """Which columns a line has.

    Attributes:
        timestamp: the time of the event.
        address: the whole address instead of the name alone.
        result: the value of a call that succeeded, in short.
        timezone: of the timestamps; None means the machine's own.
    """

    timestamp: bool = True
    address: bool = True
    result: bool = True
    timezone: tzinfo | None = None


def event_line(
    event: ExecutionEvent[Any], how: LineFormat, *, width: int | None = None, note: str = "", inside: int = 0
) -> Text:
    """The line of an event, cut to `width` columns (None: as long as it is). What went wrong is never cut.

    Args:
        event: what happened.
        how: which columns there are.
        width: of the line.
        note: follows the mark: how far the group of the call is.
        inside: how many calls failed inside of what has ended.
    """
    mark, style = _mark(event, inside)
    room = 10_000 if width is None else width
    line = Text()
    if how.timestamp and room >= _ROOM_FOR_TIME:
        line.append(f"{_time_of(event, how)} ", "dim")
    line.append(f"{mark} ", style)
    if note:
        line.append(f"{note} ", "dim")
    line.append(_name(event, how.address and room >= _ROOM_FOR_ADDRESS), "bold")
    if event.tag:
        line.append(f" #{harmless(event.tag, _TAG_LENGTH)}", "cyan")
    # What it says beside that tells what it waits for, which may be no answer.
    is_awaiting = event.execution_status is ExecutionStatus.AWAITING and bool(event.message)
    line.append(f"  {'stopped' if is_awaiting else label_of(event.execution_status)}", style)
    _append_facts(line, event)
    if inside:
        line.append(f"  {inside} failed inside", "yellow")
    if event.usage and (event.usage.tokens or event.usage.cost):
        line.append(f"  {amount(event.usage)}", "dim")
    if event.metadata:
        line.append(f"  {brief(dict(event.metadata))}", "dim")
    if event.message is not None:
        line.append(f"  {harmless(event.message, _MESSAGE_LENGTH)}", style)
        return line
    if how.result and event.result is not None:
        line.append(f"  {brief_result(event.result)}", "dim")
    if width is not None:
        line.truncate(width, overflow="ellipsis")
    return line


def _mark(event: ExecutionEvent[Any], inside: int) -> tuple[str, str]:
    """The mark of an event and its style: a green tick only where nothing failed."""
    if event.execution_status is ExecutionStatus.COMPLETED:
        if event.group is not None and event.group.failed:
            return _MARKS[ExecutionStatus.FAILED]
        if inside:
            return PARTLY_FAILED
    return _MARKS.get(event.execution_status, ("·", ""))


def _time_of(event: ExecutionEvent[Any], how: LineFormat) -> str:
    moment = datetime.fromtimestamp(event.timestamp, how.timezone).astimezone(how.timezone)
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"


def _name(event: ExecutionEvent[Any], with_address: bool) -> str:
    if with_address and event.address:
        return harmless(event.address)
    index = "" if event.parallel_index is None else f"[{event.parallel_index}]"
    return f"{harmless(event.name)}{index}"


def _append_facts(line: Text, event: ExecutionEvent[Any]) -> None:
    if event.group is not None:
        line.append(_group_facts(event))
    if event.execution_time is not None:
        line.append(f"  {duration(event.execution_time)}")
    if event.execution_status is ExecutionStatus.RETRYING:
        again = "" if event.retry_delay is None else f", again in {duration(event.retry_delay)}"
        line.append(f"  attempt {event.attempt}{again}")
    elif event.execution_status is ExecutionStatus.WAITING:
        if event.retry_delay:
            line.append(f"  {duration(event.retry_delay)} at least")
    elif event.attempt > 1:
        line.append(f"  {event.attempt} attempts")


def _group_facts(event: ExecutionEvent[Any]) -> str:
    group = event.group
    assert group is not None
    if not group.is_complete:
        total = f"  {group.total} calls" if group.total else ""
        return f"{total}  {group.max_workers} at a time" if group.max_workers else total
    counts = [(group.completed, "succeeded"), (group.failed, "failed"), (group.cancelled, "cancelled")]
    return "".join(f"  {number} {word}" for number, word in counts if number)
