"""A line for each event."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import tzinfo
from typing import IO, Any, Self

from rich.console import Console
from rich.text import Text

from rh_agents.core.events import ExecutionEvent
from rh_agents.core.policies._options import takes_options
from rh_agents.core.types import ExecutionStatus
from rh_agents.display.ansi import ansi
from rh_agents.display.counts import EventCounts
from rh_agents.display.inside import FailuresInside
from rh_agents.display.lines import LineFormat, event_line
from rh_agents.display.notebook import is_in_notebook
from rh_agents.display.summary import summary_lines

__all__ = ["EventPrinter"]

_PLAIN_MARKS = str.maketrans("█▒✓✗▶↻■×…·", "#-+x>~*x.-")


@takes_options("EventPrinter")
class EventPrinter:
    """Prints a line for each event: `state.event_bus.subscribe(EventPrinter())`.

    It needs no event loop. On a terminal a line is cut to its width; elsewhere there are no escape codes, and lines are
    as long as they are. Whatever a model wrote is shown harmlessly, see `rh_agents.display.text.harmless`.

    Args:
        console: where to print; by default one made for `file`.
        file: where to print, if there is no console; by default standard error, as the commands do, so that what a
            program writes to standard output stays its own. In a notebook it is the output of the cell.
        show_timestamp: whether lines begin with the time of day.
        show_address: whether calls are shown with their whole address; else by name.
        show_result: whether the value of a call is shown, in short.
        timezone: of the timestamps; None means the machine's own.
        clock: the time in seconds, of any monotonic clock.
    """

    def __init__(
        self,
        *,
        console: Console | None = None,
        file: IO[str] | None = None,
        show_timestamp: bool = True,
        show_address: bool = True,
        show_result: bool = True,
        timezone: tzinfo | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console: Console = console or Console(file=file or (sys.stdout if is_in_notebook() else sys.stderr))
        self.format: LineFormat = LineFormat(show_timestamp, show_address, show_result, timezone)
        self.counts: EventCounts = EventCounts()
        self._inside = FailuresInside()
        self._clock = clock

    def __call__(self, event: ExecutionEvent[Any]) -> None:
        """The same as `print_event`, so that the printer is a subscriber."""
        self.print_event(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def print_event(self, event: ExecutionEvent[Any]) -> None:
        """Count the event and print its line."""
        self.counts.count(event, self._clock())
        if event.execution_status is ExecutionStatus.PROGRESS:
            return  # every few words of a model would be a line
        self.print_line(event_line(event, self.format, width=self.width, inside=self._inside.count(event)))

    def print_summary(self) -> None:
        """Print what was done: counts, success rate, replays, retries, time, and the same by type of call."""
        for line in summary_lines(self.counts, self.width):
            self.print_line(line)

    def close(self) -> None:
        """Let go of the terminal. The counts and `print_summary` stay."""

    @property
    def width(self) -> int | None:
        """The columns of the terminal; None if the output is none."""
        return self.console.width if self.console.is_terminal else None

    def print_line(self, line: Text) -> None:
        """Print text as it is, without markup and without breaking it.

        Raises:
            OSError: it cannot be written, for example because the reader of a pipe has gone.
        """
        self._write(self._rendered(line) + "\n")

    def _write(self, text: str) -> None:
        # Not through console.print(): that ends the whole program when the reader of a pipe has gone.
        self.console.file.write(text)
        self.console.file.flush()

    def _rendered(self, line: Text) -> str:
        """The line with its colours, in characters that the output can take."""
        text = ansi(line, self.console)
        encoding = getattr(self.console.file, "encoding", None) or "utf-8"
        if encoding.lower().startswith("utf"):
            return text
        return text.translate(_PLAIN_MARKS).encode(encoding, "backslashreplace").decode(encoding)

    # -- the counts, under the names that existing code uses ----------------------------------------------------------

    @property
    def total_events(self) -> int:
        """How many events there were, of any kind."""
        return self.counts.total_events

    @property
    def started_events(self) -> int:
        """How many calls began."""
        return self.counts.started_events

    @property
    def completed_events(self) -> int:
        """How many calls were made and succeeded."""
        return self.counts.completed_events

    @property
    def failed_events(self) -> int:
        """How many calls were made and failed."""
        return self.counts.failed_events

    @property
    def recovered_events(self) -> int:
        """How many calls were not made, because an earlier execution had recorded their outcome."""
        return self.counts.recovered_events
