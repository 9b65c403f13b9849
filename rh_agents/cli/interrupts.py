"""Ctrl-C and SIGTERM, counted: the first asks, the second insists, the third ends the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While its block lasts, signals call `steps` on the event loop, one after the other; then all is as before.

    With `signal.signal` rather than `loop.add_signal_handler`, which does not exist on Windows and is not heard while
    code blocks the loop: a signal after the last step ends the process even then. Outside of the main thread, where
    Python allows no handlers, signals do what they did before.
    """

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps: Sequence[Callable[[], object]] = steps
        self._previous: dict[signal.Signals, Any] = {}
        self.count: int = 0
        """How many signals have come."""

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        with contextlib.suppress(ValueError):
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count <= len(self._steps):
            self._loop.call_soon_threadsafe(self._steps[self.count - 1])
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
