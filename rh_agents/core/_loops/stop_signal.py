"""Whether a run is being stopped: all that code which waits in it has to know of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rh_agents.core.errors import StopRun

__all__ = ["StopSignal"]


class StopSignal(Protocol):
    """Whether a run is being stopped, for whatever waits in it."""

    def expect_running(self) -> None:
        """Raise `StopRun` if the run is being stopped, so that nothing new begins."""
        ...

    def watch(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the run is to be stopped, and again when the grace has passed."""
        ...

    def unwatch(self, tell: Callable[[], None]) -> None:
        """Do not call it any more."""
        ...

    def budget_spent(self, stop: StopRun) -> None:
        """A budget does not suffice for another call: if it is that of the run, nothing new begins in it."""
        ...

    @property
    def is_held(self) -> bool:
        """Whether the run is paused, so that nothing new begins for now."""
        ...

    def watch_hold(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the run is paused."""
        ...

    def unwatch_hold(self, tell: Callable[[], None]) -> None:
        """Do not call it any more."""
        ...
