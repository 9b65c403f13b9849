"""Bars in a notebook (Jupyter, Colab): a piece of the cell's output that is replaced, where a terminal is drawn over.

It is drawn by whoever publishes events, at most so often, and never by a thread: a notebook shows what a thread of its
own displays below some other cell, or not at all. What came too soon is drawn a little later by the event loop.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import IO, Any

from rich.console import Console
from rich.text import Text

__all__ = ["NotebookRegion", "html_of", "is_in_notebook"]

_EVERY = 0.25
"""Seconds between two drawings."""


def is_in_notebook() -> bool:
    """Whether this program is executed by a notebook, which shows more than text."""
    module: Any = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return getattr(shell, "kernel", None) is not None


def html_of(lines: Iterable[Text]) -> str:
    """Styled lines in HTML, one below the other. Their text is escaped."""
    console = Console(file=sys.stdout, color_system="truecolor", force_jupyter=False)
    rows = ["".join(_span(text, style) for text, style, _ in line.render(console) if text) for line in lines]
    return '<pre style="line-height:1.3;margin:0">' + "\n".join(rows) + "</pre>"


def _span(text: str, style: Any) -> str:
    css = "" if style is None else style.get_html_style()
    return f'<span style="{escape(css)}">{escape(text)}</span>' if css else escape(text)


class NotebookRegion:
    """Shows what `rows` gives in the output of a cell, in the place of what it showed before, until it is stopped.

    Args:
        file: where lines are printed that stay.
        rows: called whenever it is drawn.
        clock: the time in seconds, of any monotonic clock.
    """

    def __init__(
        self, file: IO[str], rows: Callable[[], Sequence[Text]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_active: bool = False
        self._file = file
        self._rows = rows
        self._clock = clock
        self._handle: Any = None
        self._drawn_at = 0.0
        self._later: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take it into use. What is over before it would be drawn for the first time is never shown."""
        if not self.is_active:
            self.is_active = True
            self._drawn_at = self._clock()

    def stop(self) -> None:
        """Take it away. One that is not in use is left alone."""
        if not self.is_active:
            return
        self.is_active = False
        self._forget_later()
        if self._handle is not None:
            self._show([])
            self._handle = None

    def draw(self) -> None:
        """Show how things are, now or a little later."""
        if not self.is_active:
            return
        wait = self._drawn_at + _EVERY - self._clock()
        if wait <= 0:
            self._draw_now()
        elif self._later is None:
            try:
                self._later = asyncio.get_running_loop().call_later(wait, self._draw_now)
            except RuntimeError:  # nothing runs that could do it later: the next event does
                return

    def print_above(self, text: str) -> None:
        """Print whole lines that stay."""
        self._file.write(text)
        self._file.flush()

    def _draw_now(self) -> None:
        self._forget_later()
        if self.is_active:
            self._drawn_at = self._clock()
            self._show(self._rows())

    def _forget_later(self) -> None:
        later, self._later = self._later, None
        if later is not None:
            later.cancel()

    def _show(self, rows: Sequence[Text]) -> None:
        data = {"text/html": html_of(rows), "text/plain": "\n".join(row.plain for row in rows)}
        if self._handle is None:
            show = importlib.import_module("IPython.display").display
            self._handle = show(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
