"""The picture of a trace in docs/how-to/observability.md, of real spans: `python -m tests.telemetry.make_picture`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from opentelemetry.sdk.trace import ReadableSpan

from examples import traced
from rh_agents import run
from rh_agents.telemetry.otel import OTel
from tests.telemetry.kit import Spans, context_of

__all__ = ["FILE", "drawing", "spans_of_example"]

FILE = Path(__file__).parents[2] / "docs" / "how-to" / "observability" / "trace.svg"
ROW, NAMES, BARS, NUMBERS = 24, 230, 520, 90
"""Pixels: the height of a row, and the widths of its columns."""
COLOURS = {"invoke_workflow": "#455a64", "invoke_agent": "#5c6bc0", "group": "#78909c", "execute_tool": "#00897b"}
COLOURS |= {"chat": "#8e24aa", "attempt": "#80cbc4"}
FAILED, WAITED = "#e53935", "#cfd8dc"


class Row(NamedTuple):
    """A span with its depth in the tree."""

    span: ReadableSpan
    depth: int


def spans_of_example() -> Spans:
    """The spans of examples/traced.py."""
    spans = Spans()
    traced.tried.clear()
    asyncio.run(run(traced.survey, ["a", "b", "c", "d"], tracing=OTel(spans.provider)))
    return spans


def _rows(spans: Spans, above: ReadableSpan | None = None, depth: int = 0) -> Iterator[Row]:
    for span in spans.children(above):
        yield Row(span, depth)
        yield from _rows(spans, span, depth + 1)


def drawing(spans: Spans) -> str:
    """A row for each span: its name, a bar from its beginning to its end, and how long it took."""
    rows = list(_rows(spans))
    begin = min(row.span.start_time or 0 for row in rows)
    width = (max(row.span.end_time or 0 for row in rows) - begin) or 1
    height = ROW * len(rows) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {NAMES + BARS + NUMBERS} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="100%" height="{height}" fill="#ffffff"/>',
    ]
    for number, row in enumerate(rows):
        parts += _drawn(row, number * ROW + 6, begin, BARS / width)
    parts += [*_legend(ROW * len(rows) + 14), "</svg>", ""]
    return "\n".join(parts)


def _drawn(row: Row, top: int, begin: int, scale: float) -> list[str]:
    span, middle = row.span, top + 13
    start, end = span.start_time or 0, span.end_time or 0
    failed = span.status.status_code.name == "ERROR"
    colour = FAILED if failed else COLOURS[span.name.partition(" ")[0]]
    found = [f'<text x="{8 + 12 * row.depth}" y="{middle}" fill="#263238">{escape(span.name)}</text>']
    found.append(_bar(NAMES + (start - begin) * scale, top, (end - start) * scale, colour, span.name))
    for event in span.events:
        seconds = (event.attributes or {}).get("rh_agents.seconds") if event.name == "waited" else None
        if isinstance(seconds, float):
            waited = seconds * 1e9 * scale
            found.append(_bar(NAMES + (event.timestamp - begin) * scale - waited, top, waited, WAITED, ""))
    number = f"{(end - start) / 1e6:.0f} ms"
    found.append(f'<text x="{NAMES + BARS + 8}" y="{middle}" fill="#263238">{number}</text>')
    return found


def _bar(x: float, y: int, width: float, colour: str, title: str) -> str:
    about = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect x="{x:.1f}" y="{y}" width="{max(1.0, width):.1f}" height="16" rx="2" fill="{colour}">{about}</rect>'


def _legend(top: int) -> list[str]:
    kinds = {
        "agent": COLOURS["invoke_agent"], "group": COLOURS["group"], "tool": COLOURS["execute_tool"],
        "attempt": COLOURS["attempt"], "model": COLOURS["chat"], "failed": FAILED, "waited for a limit": WAITED,
    }  # fmt: skip
    found: list[str] = []
    for number, (name, colour) in enumerate(kinds.items()):
        x = NAMES + 75 * number
        found.append(f'<rect x="{x}" y="{top}" width="10" height="10" fill="{colour}"/>')
        found.append(f'<text x="{x + 14}" y="{top + 10}" fill="#546e7a" font-size="11">{name}</text>')
    return found


def names(spans: Sequence[ReadableSpan]) -> list[str]:
    """The names of spans, sorted."""
    return sorted(span.name for span in spans if context_of(span).is_valid)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(drawing(spans_of_example()), encoding="utf-8")
