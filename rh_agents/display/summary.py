"""What was done, as a few lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from rh_agents.display.counts import CallCounts, EventCounts
from rh_agents.display.text import crop, duration, harmless, width_of

__all__ = ["summary_lines"]

_WIDTH_OF_TABLE = 60
_COLUMNS = ("finished", "succeeded", "failed", "reused", "mean time")


def summary_lines(counts: EventCounts, width: int | None = None) -> list[Text]:
    """Counts, success rate, replays, retries, time, and the same by type of call; each line in `width` columns."""
    calls = counts.all_calls
    lines = [Text("Summary", style="bold")]
    for facts in (_totals(calls, counts), _extras(calls), _money(counts), _times(calls, counts)):
        lines += _joined(facts, width)
    lines += _failures(counts)
    lines += _by_type(counts, width)
    for line in lines:
        if width is not None:
            line.truncate(width, overflow="ellipsis")
    return lines


def _joined(facts: Sequence[str], width: int | None) -> list[Text]:
    """The facts on one line if they fit, else each on its own."""
    line = "  " + ", ".join(facts)
    if width is None or width_of(line) <= width:
        return [Text(line)] if facts else []
    return [Text(f"  {fact}") for fact in facts]


def _totals(calls: CallCounts, counts: EventCounts) -> list[str]:
    facts = [_number(calls.finished, "call")]
    if counts.groups:
        facts.append(_number(counts.groups, "group"))
    if calls.success_rate is not None:
        facts.append(f"{_percent(calls.success_rate)} succeeded")
    return facts


def _money(counts: EventCounts) -> list[str]:
    facts = [f"{counts.cached_events:,} from the cache"] if counts.cached_events else []
    usage = counts.usage
    if usage.tokens:
        facts.append(f"{usage.tokens:,} tokens")
    if usage.cost:
        facts.append(f"${usage.cost:,.4f}")
    return facts


def _percent(share: float) -> str:
    """Rounded, but 100 % and 0 % only if it is so."""
    if 0.0 < share < 1.0:
        share = min(0.999, max(0.001, share))
    return f"{share:.1%}" if 0.0 < share < 1.0 else f"{share:.0%}"


def _number(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _extras(calls: CallCounts) -> list[str]:
    unfinished = calls.started - (calls.finished - calls.replayed)
    facts = [
        (calls.failed, "failed"),
        (calls.cancelled, "cancelled"),
        (calls.replayed, "reused"),
        (calls.retries, "retried"),
        (unfinished, "unfinished"),
    ]
    return [f"{number:,} {word}" for number, word in facts if number > 0]


def _times(calls: CallCounts, counts: EventCounts) -> list[str]:
    facts = [f"took {duration(counts.elapsed)}"]
    if calls.seconds > 0:
        facts.append(f"all calls together {duration(calls.seconds)}")
    return facts


def _failures(counts: EventCounts) -> list[Text]:
    kinds = sorted(counts.failures.items(), key=lambda kind: -kind[1])
    return [Text(f"  {number:,} × {harmless(kind, 60)}", style="red") for kind, number in kinds]


def _by_type(counts: EventCounts, width: int | None) -> list[Text]:
    """A table; on a narrow terminal a line for each type."""
    if not counts.calls:
        return []
    rows = [(kind.value, _row(calls)) for kind, calls in counts.calls.items()]
    if width is not None and width < _WIDTH_OF_TABLE:
        return [Text(f"  {kind}: {values[0]}, {values[2]} failed") for kind, values in rows]
    head = _table_line("", _COLUMNS)
    head.stylize("dim")
    return [head, *(_table_line(kind, values) for kind, values in rows)]


def _row(calls: CallCounts) -> Sequence[str]:
    executed = calls.finished - calls.replayed
    mean = duration(calls.seconds / executed) if executed else "-"
    return (f"{calls.finished:,}", f"{calls.succeeded:,}", f"{calls.failed:,}", f"{calls.replayed:,}", mean)


def _table_line(kind: str, values: Sequence[str]) -> Text:
    return Text(f"  {crop(kind, 14):<14}" + "".join(f"{value:>10}" for value in values))
