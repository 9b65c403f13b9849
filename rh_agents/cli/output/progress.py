"""What is shown on standard error while a command works."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from rh_agents.bus_handlers import ParallelEventPrinter
from rh_agents.cli.errors import BadInput
from rh_agents.core.events import ExecutionEvent

__all__ = ["Progress", "Shown", "say", "shown"]

_REPORTED_BEFORE = f"{BadInput.__name__}:"


class Progress(StrEnum):
    """How to show progress."""

    AUTO = "auto"
    BAR = "bar"
    LINES = "lines"
    NONE = "none"


class Shown:
    """Shows events on standard error. It is a subscriber."""

    def __init__(self, printer: ParallelEventPrinter) -> None:
        self._printer = printer

    def __call__(self, event: ExecutionEvent[Any]) -> None:
        if event.message is not None and event.message.startswith(_REPORTED_BEFORE):
            event = event.model_copy(update={"message": None})  # it had a line of its own, with its position
        self._printer(event)

    def pause(self) -> None:
        """Take bars away, until the next group begins."""
        self._printer.close()


@contextmanager
def shown(progress: Progress) -> Iterator[Shown | None]:
    """A subscriber that shows events on standard error; None if nothing is to be shown.

    A bar that was asked for is drawn on any terminal, also in a build; where there is no terminal there are lines.
    """
    if progress is Progress.NONE or sys.stderr is None:
        yield None
        return
    live = {Progress.AUTO: None, Progress.LINES: False, Progress.BAR: True if sys.stderr.isatty() else None}[progress]
    printer = ParallelEventPrinter(file=sys.stderr, live=live, show_timestamp=False, show_result=False)
    try:
        yield Shown(printer)
    finally:
        printer.close()


def say(text: str) -> None:
    """A line for people, above the bar if there is one.

    If its reader has gone, that is no reason to stop: the output is somewhere else.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):  # the last one: it is None if it was closed
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
