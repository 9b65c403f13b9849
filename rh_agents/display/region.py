"""A part at the bottom of the terminal that is drawn again and again, while everything else scrolls past above it."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import IO, Any, NamedTuple

from rh_agents.display.text import crop, harmless, width_of

__all__ = ["Frame", "LiveRegion"]

_UP = "\033[{}A"
_ERASE_TO_END_OF_LINE = "\033[K"
_ERASE_BELOW = "\033[J"
_NO_WRAP, _WRAP = "\033[?7l", "\033[?7h"


class Frame(NamedTuple):
    """What to draw: rows with their colours, and the columns that each one takes on a terminal of `width` columns."""

    rows: Sequence[str]
    lengths: Sequence[int]
    width: int


class LiveRegion:
    """Draws what `frame` returns, from a thread of its own, until it is stopped.

    The cursor is never hidden and is always at the beginning of the line below the region, so whatever ends the
    program, its terminal is left in order. While the region is there, whole lines that are printed to a terminal appear
    above it; the beginning of a line is its first row until the line ends. (rich's own Live hides the cursor, breaks
    long lines that others print, may read markup in them, and takes a standard output that goes elsewhere.)

    Args:
        file: the terminal.
        frame: called whenever the region is drawn.
        refresh_per_second: how often the thread draws; 0 for no thread, so that only `draw` does.
    """

    def __init__(self, file: IO[str], frame: Callable[[], Frame], *, refresh_per_second: float) -> None:
        self.is_active: bool = False
        self._file = file
        self._frame = frame
        self._interval = 1 / refresh_per_second if refresh_per_second else None
        self.lock: AbstractContextManager[Any] = threading.RLock()
        self._drawn: Sequence[int] = ()
        self._stopped = threading.Event()
        self._redirected: list[tuple[str, _LinesAbove]] = []

    def start(self) -> None:
        """Take the region into use; it is drawn at the first refresh, so what is over sooner never flickers."""
        with self.lock:
            if self.is_active:
                return
            self.is_active = True
            self._stopped = threading.Event()
            self._redirect()
            atexit.register(self.stop)
            if self._interval is not None:
                threading.Thread(
                    target=self._refresh, args=(self._stopped, self._interval), name="rh_agents display", daemon=True
                ).start()

    def stop(self) -> None:
        """Erase the region and give the terminal back. A region that is not in use is left alone."""
        with self.lock:
            if not self.is_active:
                return
            self.is_active = False
            self._stopped.set()
            atexit.unregister(self.stop)
            rest = self._restore()
            self._write(self._erase(self._frame().width) + rest)

    def draw(self) -> None:
        """Draw the region as it is now."""
        with self.lock:
            if self.is_active:
                self._write(self._redraw(self._frame()))

    def print_above(self, text: str) -> None:
        """Write whole lines above the region (or simply write them if it is not in use)."""
        with self.lock:
            if self.is_active and self._drawn:
                frame = self._frame()
                self._write(self._erase(frame.width) + text + self._redraw(frame))
            else:
                self._write(text)

    def _refresh(self, stopped: threading.Event, interval: float) -> None:
        while not stopped.wait(interval):
            try:
                self.draw()
            except (OSError, ValueError):  # the terminal is gone
                return

    def _up(self, width: int) -> str:
        """To the beginning of the first row; in a window that was made narrower, the rows have been broken."""
        rows = sum(max(1, -(-length // max(1, width))) for length in self._drawn)
        return "\r" + _UP.format(rows) if rows else ""

    def _erase(self, width: int) -> str:
        up, self._drawn = self._up(width), ()
        return up + _ERASE_BELOW if up else ""

    def _redraw(self, frame: Frame) -> str:
        """Over the rows that are there, without erasing them first, so that nothing flickers."""
        up = self._up(frame.width)
        begun = [crop(harmless(proxy.rest), frame.width - 1) for _, proxy in self._redirected if proxy.rest]
        self._drawn = [*map(width_of, begun), *frame.lengths]
        rows = "".join(f"{row}{_ERASE_TO_END_OF_LINE}\n" for row in (*begun, *frame.rows))
        return f"{up}{_NO_WRAP}{rows}{_WRAP}{_ERASE_BELOW}"

    def _write(self, text: str) -> None:
        if text:
            self._file.write(text)
            self._file.flush()

    # -- what others print --------------------------------------------------------------------------------------------

    def _redirect(self) -> None:
        """Only streams that are terminals: what goes to a file has nothing to do with the region."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, _LinesAbove) and stream.isatty():
                proxy = _LinesAbove(stream, self)
                setattr(sys, name, proxy)
                _move_log_handlers(stream, proxy)
                self._redirected.append((name, proxy))

    def _restore(self) -> str:
        """Put the streams back, unless they have been replaced since. Returns what was waiting for a line end."""
        rest = ""
        for name, proxy in self._redirected:
            if getattr(sys, name) is proxy:
                setattr(sys, name, proxy.stream)
            _move_log_handlers(proxy, proxy.stream)
            rest += proxy.take_rest()
        self._redirected.clear()
        return rest


def _move_log_handlers(before: object, after: object) -> None:
    """Log handlers keep the stream that was there when they were made."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                handler.setStream(after)


class _LinesAbove:
    """Replaces a standard stream while a region is in use. A reference to it can still be used afterwards."""

    def __init__(self, stream: IO[str], region: LiveRegion) -> None:
        self.stream = stream
        self.rest = ""
        """The beginning of a line."""
        self._region = region

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Print the whole lines above the region, and keep the beginning of the next one."""
        if not self._region.is_active:
            return self.stream.write(text)
        with self._region.lock:
            lines, newline, self.rest = (self.rest + text).rpartition("\n")
            if newline:
                self._region.print_above(lines + newline)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As for any stream."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Lines are flushed as they are printed; the beginning of one cannot be."""
        self.stream.flush()

    def take_rest(self) -> str:
        """What waits for the end of its line."""
        rest, self.rest = self.rest, ""
        return rest
