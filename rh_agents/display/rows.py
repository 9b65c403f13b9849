"""What a progress display draws: pure functions of trackers, a time and a width.

A row never takes more columns than it is given: it leaves parts out, the least important ones first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text

from rh_agents.core.groups import GroupStatus
from rh_agents.core.tracking import ParallelGroupTracker, RunningItem
from rh_agents.display.board import Board, Spent, known_total
from rh_agents.display.lines import PARTLY_FAILED
from rh_agents.display.text import amount, crop, duration, frequency, harmless, whole_seconds, width_of

__all__ = ["bar", "board_rows", "ended_line", "group_row", "milestone_line", "progress_text", "started_line"]

_FULL, _EMPTY = "█", "▒"
_INDENT = 2
_SLOWEST = 3
_ROOM_FOR_LABEL = 40
_NAME_LENGTH = 60


class _Part(NamedTuple):
    """A piece of a row. Those with the lowest ranks are shown first when there is little room."""

    text: str
    rank: int
    style: str = ""
    gap: int = 2
    """Columns between it and the part before."""


def bar(finished: int, total: int | None, width: int) -> str:
    """The bar alone. It is full only when nothing is missing, and empty if the total is not known."""
    filled = min(width, finished * width // total) if total else 0
    return _FULL * filled + _EMPTY * (width - filled)


def progress_text(finished: int, total: int | None, width: int = 10) -> str:
    """The bar with its percentage, such as "████████▒▒ 80%"; with a plain count if the total is not known."""
    return f"{bar(finished, total, width)} {_share(finished, total)}"


def _share(finished: int, total: int | None) -> str:
    """100% only when nothing is missing."""
    if total is None:
        return str(finished)
    return f"{min(100, finished * 100 // total) if total else 0}%"


def board_rows(board: Board, now: float, width: int, height: int) -> list[Text]:
    """All running groups in at most `height` rows: a bar for each, and below it what it waits for, what it has used,

    and the members that run longest.
    """
    groups = list(board.tree())
    with_slowest = _levels_with_slowest(groups, height)
    names = max((width_of(harmless(tracker.name)) + _INDENT * level for level, tracker in groups), default=0)
    room = max(1, height)
    rows: list[Text] = []
    shown = 0
    for level, tracker in groups:
        needed = 2 if level in with_slowest and tracker.running else 1
        is_last = shown == len(groups) - 1
        if len(rows) + needed + (not is_last) > room:
            break
        spent = board.spent(tracker)
        in_row = spent if needed == 1 else None
        rows.append(group_row(tracker, now, width, level=level, name_width=names, spent=in_row))
        if needed == 2:
            rows.append(_detail_row(tracker, spent, now, width, level))
        shown += 1
    if shown < len(groups):
        rows.append(Text(crop(f"… {len(groups) - shown} more groups", width), style="dim"))
    return rows


def _levels_with_slowest(groups: Sequence[tuple[int, ParallelGroupTracker]], height: int) -> set[int]:
    """The levels whose groups may take a second row: all if there is room for it, else those at the top, else none."""
    tops = sum(level == 0 for level, _ in groups)
    if 2 * len(groups) <= height:
        return {level for level, _ in groups}
    return {0} if len(groups) + tops <= height else set()


def group_row(
    tracker: ParallelGroupTracker,
    now: float,
    width: int,
    *,
    level: int = 0,
    name_width: int = 0,
    spent: Spent | None = None,
) -> Text:
    """One running group: name, bar, percentage, counts, rate, time left; what it waits for, and what it has used."""
    indent = min(_INDENT * level, width // 4)
    column = min(max(name_width, width_of(tracker.name)), max(9, width // 4))
    name = " " * indent + crop(harmless(tracker.name), max(3, column - indent))
    parts = [_Part(name.ljust(len(name) + column - width_of(name)), 0, "bold"), *_progress(tracker, width)]
    money = [] if spent is None else [*_usage(spent), *_waits(spent, now)]
    return _fitted([*parts, *_counts(tracker), *_speed(tracker, now), *money], width)


def _progress(tracker: ParallelGroupTracker, width: int) -> list[_Part]:
    total = known_total(tracker)
    finished = tracker.finished
    if total is None:
        return [_Part(f"{finished} done", 1)]
    columns = 10 + max(0, min(30, (width - 100) // 3))
    style = "red" if tracker.failed else "green"
    digits = len(str(total))
    return [
        _Part(bar(finished, total, columns), 4, style),
        _Part(f"{_share(finished, total):<4}", 1, gap=1),
        _Part(f"{finished:>{digits}}/{total}", 3),
    ]


def _counts(tracker: ParallelGroupTracker) -> list[_Part]:
    """Only what there is any of."""
    counts = [
        (tracker.failed, "failed", 2, "red"),
        (tracker.cancelled, "cancelled", 6, "yellow"),
        (tracker.retries, "retried", 8, "yellow"),
        (len(tracker.running), "running", 7, ""),
        (tracker.recovered, "reused", 9, "cyan"),
    ]
    return [_Part(f"{number} {word}", rank, style) for number, word, rank, style in counts if number]


def _speed(tracker: ParallelGroupTracker, now: float) -> list[_Part]:
    rate = tracker.rate(now)
    parts = [_Part(frequency(rate), 6)] if rate else []
    left, elapsed = tracker.remaining_seconds(now), tracker.elapsed(now)
    if known_total(tracker) is not None and left:
        parts.append(_Part(f"ETA {whole_seconds(max(1.0, left))}", 5, "cyan"))
    elif elapsed >= 1.0:  # what was only replayed took no time, and a bare "0 s" looks like the time left
        parts.append(_Part(whole_seconds(elapsed), 5, "dim"))
    return parts


def _usage(spent: Spent) -> list[_Part]:
    return [_Part(amount(spent.usage), 10, "dim")] if spent.usage.tokens or spent.usage.cost else []


def _waits(spent: Spent, now: float) -> list[_Part]:
    """How many wait for limits, for which, why, and how long the first of them has waited."""
    longest = spent.longest_wait
    if longest is None:
        return []
    why = harmless(longest.why, _NAME_LENGTH)
    return [
        _Part(f"{len(spent.waits)} waiting {whole_seconds(max(1.0, now - longest.since))}", 11, "yellow"),
        _Part(f"for {why}", 12, "yellow", gap=1),
    ]


def _detail_row(tracker: ParallelGroupTracker, spent: Spent, now: float, width: int, level: int) -> Text:
    """What a group waits for, what it has used, and which of its members run longest, as far as there is room."""
    indent = min(_INDENT * (level + 1), width // 4)
    label = "slowest " if width >= _ROOM_FOR_LABEL else ""
    room = max(1, width - indent - len(label))
    items = [_running_item(item, now, room) for item in tracker.slowest(_SLOWEST)]
    slowest = [_Part(f"{'' if index else label}{item}", 0) for index, item in enumerate(items)]
    details = [*_waits(spent, now), *_usage(spent), *slowest]
    ranked = [part._replace(rank=rank, gap=part.gap if rank else 1) for rank, part in enumerate(details)]
    row = _fitted([_Part(" " * (indent - 1), -1), *ranked], width)
    row.stylize("dim")
    return row


def _running_item(item: RunningItem, now: float, width: int) -> str:
    time = duration(now - item.started_at)
    name = crop(f"{harmless(item.name, _NAME_LENGTH)}[{item.index}]", max(1, width - len(time) - 1))
    return f"{name} {time}"


def _fitted(parts: Sequence[_Part], width: int) -> Text:
    """The parts in their order, without those for which there is no room. The first one is always there."""
    chosen: set[int] = set()
    left = width
    for index in sorted(range(len(parts)), key=lambda index: parts[index].rank):
        part = parts[index]
        needed = width_of(part.text) + (part.gap if index else 0)
        if not chosen or needed <= left:
            chosen.add(index)
            left -= needed
    row = Text(no_wrap=True, overflow="crop", end="")
    for index, part in enumerate(parts):
        if index in chosen:
            row.append(" " * part.gap if index else "").append(part.text, part.style)
    row.truncate(max(0, width))
    return row


# -- lines that stay ---------------------------------------------------------------------------------------------------


def started_line(tracker: ParallelGroupTracker) -> Text:
    """A group begins."""
    line = Text().append("▶ ", "dim").append(harmless(tracker.name), "bold").append("  started")
    if tracker.total:
        line.append(f"  {tracker.total} calls")
    if tracker.about is not None and tracker.about.max_workers:
        line.append(f"  {tracker.about.max_workers} at a time")
    return line


def milestone_line(tracker: ParallelGroupTracker, now: float, spent: Spent | None = None) -> Text:
    """The state of a group, for output that keeps every line."""
    total = known_total(tracker)
    line = Text("  ").append(harmless(tracker.name), "bold")
    finished = tracker.finished
    line.append(f"  {finished} done" if total is None else f"  {_share(finished, total)}  {finished}/{total}")
    money = [] if spent is None else [*_usage(spent), *_waits(spent, now)]
    return _with(line, [*_counts(tracker), *_speed(tracker, now), *money])


_ENDS = {
    GroupStatus.COMPLETED: ("✓", "green", ""),
    GroupStatus.FAILED: ("✗", "red", "stopped"),
    GroupStatus.CANCELLED: ("■", "yellow", "cancelled"),
}


def ended_line(
    tracker: ParallelGroupTracker, now: float, width: int | None = None, spent: Spent | None = None, *, inside: int = 0
) -> Text:
    """A group has ended. With a `width`, the name and what has room after it.

    `inside`: how many calls failed that its members made.
    """
    mark, style, word = _ENDS.get(tracker.status, ("▶", "", ""))
    if tracker.status is GroupStatus.COMPLETED and tracker.failed:
        mark, style = "✗", "red"
    elif tracker.status is GroupStatus.COMPLETED and inside:
        mark, style = PARTLY_FAILED
    name = harmless(tracker.name)
    if width is not None:
        name = crop(name, max(9, width // 4))
    parts = [_Part(mark, 0, style), _Part(name, 0, "bold", gap=1), *_done(tracker)]
    if word:
        parts.append(_Part(word, 1, style))
    parts += [part for part in _counts(tracker) if not part.text.endswith("running")]
    if inside:
        parts.append(_Part(f"{inside} failed inside", 1, "yellow"))
    parts.append(_Part(f"in {duration(tracker.elapsed(now))}", 4))
    rate = tracker.rate(now)
    if rate:
        parts.append(_Part(frequency(rate), 5))
    parts += [] if spent is None else _usage(spent)
    return _with(Text(), parts) if width is None else _fitted(parts, width)


def _done(tracker: ParallelGroupTracker) -> list[_Part]:
    if not tracker.finished:
        return [_Part("nothing to do" if tracker.status is GroupStatus.COMPLETED else "nothing done", 3)]
    total = known_total(tracker)
    of = f"/{total}" if total is not None and total != tracker.finished else ""
    return [_Part(f"{tracker.finished}{of} done", 3)]


def _with(line: Text, parts: Sequence[_Part]) -> Text:
    for part in parts:
        line.append(" " * part.gap if line else "").append(part.text, part.style)
    return line
