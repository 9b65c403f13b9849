"""Lines for people on standard output: cut to the terminal if there is one, whole and without colours elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rh_agents.core.redaction import redact
from rh_agents.display.text import crop, width_of

__all__ = ["Page", "Part", "table_lines"]

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_PLAIN_MARKS = str.maketrans("✓✗▶↻■…·→", "#x>~*.-:")
_NARROWEST = 20
_GAP = 2
_WORTH_CUTTING = 12
_SHORTEST = 8


class Part(NamedTuple):
    """A piece of a line.

    Attributes:
        style: "" or one of bold, dim, red, green, yellow, cyan.
        rank: where there is no room for all parts, those with higher ranks go first. 0 stays.
        is_elastic: it may be cut short instead.
    """

    text: str
    style: str = ""
    rank: int = 0
    is_elastic: bool = False


class Page:
    """Standard output.

    Args:
        width: columns; by default those of the terminal, and no limit where there is none.
    """

    def __init__(self, width: int | None = None) -> None:
        is_terminal = sys.stdout is not None and sys.stdout.isatty()
        self.width: int | None = width or (max(_NARROWEST, shutil.get_terminal_size().columns) if is_terminal else None)
        self._has_colours = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def line(self, *parts: Part | str, indent: int = 0) -> None:
        """Print parts with two blanks between them, as far as there is room."""
        sys.stdout.write(self.row(*parts, indent=indent)[0] + "\n")

    def row(self, *parts: Part | str, indent: int = 0) -> tuple[str, int]:
        """The same without printing it: the line with its colours, and the columns that it takes."""
        pieces = [Part(part) if isinstance(part, str) else part for part in parts]
        fitted = self._fitted(pieces, indent)
        columns = indent + sum(width_of(part.text) + _GAP for part in fitted) - (_GAP if fitted else 0)
        return self._safe(" " * indent + "  ".join(map(self._painted, fitted))), columns

    def paragraph(self, text: str, style: str = "", indent: int = 0) -> None:
        """Print a text that is never cut, on as many lines as it takes."""
        lines = (
            [text] if self.width is None else textwrap.wrap(text, max(_WORTH_CUTTING, self.width - 1 - indent)) or [""]
        )
        for line in lines:
            sys.stdout.write(self._safe(" " * indent + self._painted(Part(line, style))) + "\n")

    def _fitted(self, parts: Sequence[Part], indent: int) -> list[Part]:
        parts = [part for part in parts if part.text]
        if self.width is None:
            return list(parts)
        room = self.width - 1 - indent
        chosen: dict[int, Part] = {}
        for index in sorted(range(len(parts)), key=lambda index: parts[index].rank):
            part, gap = parts[index], _GAP if chosen else 0
            if width_of(part.text) > room - gap:
                if chosen and (not part.is_elastic or room - gap < _WORTH_CUTTING):
                    continue
                part = part._replace(text=crop(part.text, room - gap))
            chosen[index] = part
            room -= gap + width_of(part.text)
        return [chosen[index] for index in sorted(chosen)]

    def _painted(self, part: Part) -> str:
        code = _CODES.get(part.style)
        return f"\x1b[{code}m{part.text}\x1b[0m" if code and self._has_colours else part.text

    @staticmethod
    def _safe(text: str) -> str:
        """The line without secrets, in characters that the output can take."""
        text = redact(text)
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        if not encoding.lower().startswith("utf"):
            text = text.translate(_PLAIN_MARKS)
        return text.encode(encoding, "backslashreplace").decode(encoding)


def table_lines(rows: Iterable[Sequence[str]], width: int | None, whole: int = 1) -> list[str]:
    """Rows as aligned columns, two blanks between them.

    The first row has the headings; columns that are empty below theirs are left out. Where there is no room, the first
    `whole` columns stay as they are; the widest of the others are cut, and then the last ones left out.
    """
    table = [list(row) for row in rows]
    kept = [index for index in range(len(table[0])) if any(row[index] for row in table[1:])]
    table = [[row[index] for index in kept] for row in table]
    widths = [max(width_of(row[index]) for row in table) for index in range(len(kept))]
    if width is not None:
        _make_fit(widths, width - 1, whole)
    return ["  ".join(_padded(row[index], width) for index, width in enumerate(widths)).rstrip() for row in table]


def _make_fit(widths: list[int], room: int, whole: int) -> None:
    """Shorten columns, or take the last ones away."""
    while sum(widths) + _GAP * (len(widths) - 1) > room and len(widths) > whole:
        widest = max(range(whole, len(widths)), key=widths.__getitem__)
        if widths[widest] > _SHORTEST:
            widths[widest] -= 1
        else:
            widths.pop()


def _padded(text: str, width: int) -> str:
    text = crop(text, width)
    return text + " " * (width - width_of(text))
