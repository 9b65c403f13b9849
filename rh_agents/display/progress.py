"""Groups in progress: a live region of bars on a terminal, and few plain lines everywhere else."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import tzinfo
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from rh_agents.core.events import ExecutionEvent
from rh_agents.core.groups import ParallelDisplayMode
from rh_agents.core.policies._options import takes_options
from rh_agents.core.tracking import ParallelGroupTracker
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.display.board import Board, known_total
from rh_agents.display.lines import event_line
from rh_agents.display.milestones import Milestones
from rh_agents.display.notebook import NotebookRegion, is_in_notebook
from rh_agents.display.printer import EventPrinter
from rh_agents.display.region import Frame, LiveRegion
from rh_agents.display.rows import board_rows, ended_line, milestone_line, progress_text, started_line
from rh_agents.display.text import harmless

__all__ = ["ParallelEventPrinter", "can_be_live"]

_COLUMNS_OF_A_CELL, _ROWS_OF_A_CELL = 100, 30
_NO = frozenset({"", "0", "false", "no"})


def can_be_live(console: Console, environ: Mapping[str, str]) -> bool:
    """Whether lines may be drawn over: on a real terminal that understands it, and not in a build (CI)."""
    isatty = getattr(console.file, "isatty", None)
    return (
        isatty is not None
        and isatty()
        and console.is_interactive
        and not console.legacy_windows
        and environ.get("CI", "").lower() in _NO
    )


@takes_options("ParallelEventPrinter")
class ParallelEventPrinter(EventPrinter):
    """Shows groups while they run: `with ParallelEventPrinter() as printer: state.event_bus.subscribe(printer)`.

    PROGRESS on a terminal draws a bar for each running group at the bottom, nested ones below the group they are in,
    and leaves a line for each group at the top that has ended; so it does in the cell of a notebook. Elsewhere it
    prints when a group starts, at every tenth of it, and when it ends. Either way the first failures get a line each;
    the others are counted. Calls outside any group get a line if no group is running. REALTIME prints a line for every
    event.

    The terminal is given back whenever the last group ends, by `close()`, at the end of a `with` block, and at exit.

    Args:
        parallel_mode: "progress" or "realtime"; None chooses progress.
        show_progress: whether groups are shown between their start and their end: the bars, the lines at every tenth,
            and in real-time mode the count of finished members.
        live: whether to draw bars over each other; None does so in a notebook, and on a terminal, but not in a build
            (where CI is set).
        refresh_per_second: how often bars are drawn; 0 draws only when `refresh` is called.

    The other arguments are those of `EventPrinter`.
    """

    def __init__(
        self,
        parallel_mode: ParallelDisplayMode | str | None = None,
        show_progress: bool = True,
        *,
        console: Console | None = None,
        file: IO[str] | None = None,
        live: bool | None = None,
        refresh_per_second: float = 8.0,
        show_timestamp: bool = True,
        show_address: bool = True,
        show_result: bool = True,
        timezone: tzinfo | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            console=console,
            file=file,
            show_timestamp=show_timestamp,
            show_address=show_address,
            show_result=show_result,
            timezone=timezone,
            clock=clock,
        )
        self.parallel_mode: ParallelDisplayMode = ParallelDisplayMode(parallel_mode or ParallelDisplayMode.PROGRESS)
        self.show_progress = show_progress
        wants_bars = show_progress and self.parallel_mode is ParallelDisplayMode.PROGRESS
        is_in_a_cell = console is None and file is None and is_in_notebook()
        can_be = is_in_a_cell or can_be_live(self.console, os.environ)
        self.is_live: bool = wants_bars and (can_be if live is None else live)
        self._board = Board()
        self._board_lock = threading.Lock()  # the region's thread reads what events write
        self._milestones = Milestones()
        # The file as it is now: while the region is in use, sys.stdout is something else.
        self._region: LiveRegion | NotebookRegion
        if is_in_a_cell:
            self._region = NotebookRegion(self.console.file, self._rows_of_a_cell, clock=clock)
        else:
            self._region = LiveRegion(self.console.file, self._frame, refresh_per_second=refresh_per_second)

    @property
    def parallel_groups(self) -> dict[str, ParallelGroupTracker]:
        """The running groups, and the last ones that have ended, by id."""
        return self._board.groups

    def print_event(self, event: ExecutionEvent[Any]) -> None:
        """Count the event and show what it changed."""
        self.counts.count(event, self._clock())
        if event.execution_status is ExecutionStatus.PROGRESS:
            return
        inside = self._inside.count(event)
        if event.group_id is not None:
            self._handle_parallel_event(event, inside)
            return
        with self._board_lock:
            self._board.apply(event, self._clock())
        if self.parallel_mode is ParallelDisplayMode.REALTIME or self._board.is_idle:
            self.print_line(event_line(event, self.format, width=self.width, inside=inside))

    def sample(self, groups: Iterable[ParallelGroupTracker]) -> None:
        """Show running groups as they are in `groups`, for who subscribes without routine events and looks at the
        groups from time to time instead. What `counts` says then leaves those events out.
        """
        with self._board_lock:
            known = [group.group_id for group in groups if self._board.sample(group)]
        if isinstance(self._region, NotebookRegion):
            self._region.draw()
        elif self.show_progress and not self.is_live:
            for group_id in known:
                self._update_progress_bar(group_id)

    def refresh(self) -> None:
        """Draw the bars as they are now, if there are any."""
        self._region.draw()

    def close(self) -> None:
        """Erase the bars and give the terminal back. Groups that continue are shown again when another one starts."""
        self._region.stop()

    def _handle_parallel_event(self, event: ExecutionEvent[Any], inside: int) -> None:
        """An event about a group or one of its members."""
        with self._board_lock:
            tracker = self._board.apply(event, self._clock())
        if tracker is None:
            return
        if self.parallel_mode is ParallelDisplayMode.REALTIME:
            self._print_in_real_time(event, tracker, inside)
        elif event.event_type is EventType.GROUP_STARTED:
            self._group_started(tracker)
        elif event.event_type is EventType.GROUP_COMPLETED:
            self._group_ended(tracker, inside)
        elif event.execution_status.is_final:
            self._member_ended(event, tracker)
        if isinstance(self._region, NotebookRegion):
            self._region.draw()

    def _print_in_real_time(self, event: ExecutionEvent[Any], tracker: ParallelGroupTracker, inside: int) -> None:
        note = ""
        if self.show_progress and event.group is None and event.execution_status.is_final:
            total = known_total(tracker)
            note = f"[{tracker.finished}]" if total is None else f"[{tracker.finished:>{len(str(total))}}/{total}]"
        self.print_line(event_line(event, self.format, width=self.width, note=note, inside=inside))

    def _group_started(self, tracker: ParallelGroupTracker) -> None:
        if self.is_live:
            self._region.start()
        elif self._board.level(tracker) == 0:
            self.print_line(started_line(tracker))

    def _member_ended(self, event: ExecutionEvent[Any], tracker: ParallelGroupTracker) -> None:
        if event.message is not None and event.execution_status is not ExecutionStatus.CANCELLED:
            self._member_failed(event, tracker)
        if not self.is_live and self.show_progress:
            self._update_progress_bar(tracker.group_id)

    def _member_failed(self, event: ExecutionEvent[Any], tracker: ParallelGroupTracker) -> None:
        is_reported, is_last = self._milestones.failure(self._board.root(tracker).group_id)
        if is_reported:
            self.print_line(event_line(event, self.format, width=self.width))
        if is_last:
            self.print_line(Text("  further failures are counted", style="dim"))

    def _group_ended(self, tracker: ParallelGroupTracker, inside: int) -> None:
        if self.is_live and self._board.is_idle:
            self._region.stop()
        root = self._board.root(tracker)
        is_reported, is_last = (True, False) if root is tracker else self._nested_group_ended(root)
        if is_reported:
            spent = self._board.spent(tracker)
            self.print_line(ended_line(tracker, self._clock(), self.width, spent, inside=inside))
        if is_last:
            self.print_line(Text(f"  further groups in {harmless(root.name)} are not listed", style="dim"))
        self._milestones.forget(tracker.group_id)

    def _nested_group_ended(self, root: ParallelGroupTracker) -> tuple[bool, bool]:
        """Among bars a group inside another one simply disappears."""
        return (False, False) if self.is_live else self._milestones.nested(root.group_id)

    def _update_progress_bar(self, group_id: str) -> None:
        """Show the state of a group: draw the bars again or, where lines stay, print one if it has come far enough."""
        if self.is_live:
            self.refresh()
            return
        tracker, now = self._board.groups[group_id], self._clock()
        if self._board.level(tracker) == 0 and self._milestones.reached(tracker, now):
            self.print_line(milestone_line(tracker, now, self._board.spent(tracker)))

    def _render_progress_bar(self, completed: int, total: int | None, width: int = 10) -> str:
        """A bar of `width` columns with its percentage: "████████▒▒ 80%"."""
        return progress_text(completed, total, width)

    def _frame(self) -> Frame:
        width, height = self.console.size
        # One column less: in the last one, terminals disagree about where the cursor is.
        with self._board_lock:
            rows = board_rows(self._board, self._clock(), width - 1, height - 1)
        return Frame([self._rendered(row) for row in rows], [row.cell_len for row in rows], width)

    def _rows_of_a_cell(self) -> list[Text]:
        with self._board_lock:
            return board_rows(self._board, self._clock(), _COLUMNS_OF_A_CELL, _ROWS_OF_A_CELL)

    def _write(self, text: str) -> None:
        self._region.print_above(text)
