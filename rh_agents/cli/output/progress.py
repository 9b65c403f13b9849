"""What is shown on standard error while a command works."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from rh_agents.bus_handlers import ParallelEventPrinter
from rh_agents.cli.errors import BadInput
from rh_agents.cli.output.pauses import PAUSES
from rh_agents.core._run.parts import RunParts
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.execution import ExecutionState
from rh_agents.core.types import EventType

__all__ = ["Progress", "Shown", "say", "shown"]

_REPORTED_BEFORE = f"{BadInput.__name__}:"


class Progress(StrEnum):
    """How to show progress."""

    AUTO = "auto"
    BAR = "bar"
    LINES = "lines"
    NONE = "none"


_EVERY = 0.125
"""Seconds between two looks at the groups of a run."""
_MOST = 1 / 20
"""The share of the time that may go into these looks, where there are thousands of groups."""


class Shown:
    """Shows a run on standard error. What is told of every member of a group is not listened to, as there may be
    thousands of them in a second: a look at the groups several times a second gives their counts.
    """

    def __init__(self, printer: ParallelEventPrinter) -> None:
        self._printer = printer
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, state: ExecutionState) -> None:
        """Show this run from now on, until it ends."""
        state.event_bus.subscribe(self, routine=False)
        self._look(asyncio.get_running_loop(), state.parts)

    def _look(self, loop: asyncio.AbstractEventLoop, run: RunParts) -> None:
        began = loop.time()
        self._printer.sample(group.counted for group in run.open_groups.values())
        pause = max(_EVERY, (loop.time() - began) / _MOST)
        self._timer = loop.call_later(pause, self._look, loop, run)

    def close(self) -> None:
        """Look no more, and take bars away."""
        if self._timer is not None:
            self._timer.cancel()
        self._printer.close()

    def __call__(self, event: ExecutionEvent[Any]) -> None:
        if event.name in PAUSES and event.event_type is EventType.CONTROL:
            return  # that has a line of its own
        if event.message is not None and event.message.startswith(_REPORTED_BEFORE):
            event = event.model_copy(update={"message": None})  # it had a line of its own, with its position
        self._printer(event)

    def pause(self) -> None:
        """Take bars away, until the next group begins."""
        self._printer.close()


@contextmanager
def shown(progress: Progress) -> Iterator[Shown | None]:
    """What shows a run on standard error; None if nothing is to be shown.

    A bar that was asked for is drawn on any terminal, also in a build; where there is no terminal there are lines.
    """
    if progress is Progress.NONE or sys.stderr is None:
        yield None
        return
    live = {Progress.AUTO: None, Progress.LINES: False, Progress.BAR: True if sys.stderr.isatty() else None}[progress]
    printer = ParallelEventPrinter(file=sys.stderr, live=live, show_timestamp=False, show_result=False)
    found = Shown(printer)
    try:
        yield found
    finally:
        found.close()


def say(text: str) -> None:
    """A line for people, above the bar if there is one.

    If its reader has gone, that is no reason to stop: the output is somewhere else.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):  # the last one: it is None if it was closed
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
