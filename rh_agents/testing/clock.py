"""A clock that jumps: hours of waiting, retries and limits pass in no time, and always in the same way."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

__all__ = ["JumpingClock"]

T = TypeVar("T")

_START = 1_700_000_000.0
"""A day in November 2023."""


class JumpingClock:
    """Time that stands still while anything can be done, and jumps to the next timer when all that is left is waiting.

        clock = JumpingClock()
        clock.run(workflow())           # `asyncio.sleep(3600)`, timeouts, retries, limits: at once, in their order
        assert clock.elapsed == 3600.0

    It is two clocks: that of its event loop, from which the library takes durations, and, when it is called, the time
    of day, for `ExecutionState(clock=clock)`. Both advance by the same seconds.

    The clock cannot know what other threads and sockets are about to do. While functions run in the loop's executor
    (`asyncio.to_thread`) it waits for them in earnest. For other threads, for instance those of a store in a file, and
    for servers, set `patience`; with a `MemoryStore` and scripted models nothing is needed.

    Args:
        start: the time of day at which it begins, in seconds since 1970.
        patience: real seconds for which it waits for threads and sockets before each jump.
    """

    def __init__(self, start: float = _START, *, patience: float = 0.0) -> None:
        if not patience >= 0:
            raise ValueError(f"patience={patience!r}: a number of seconds from 0 on")
        self.start = start
        self.patience = patience
        self.elapsed: float = 0.0
        """The seconds that have passed since it was made."""
        self.jumps: list[float] = []
        """How far each jump went, in seconds."""

    def __call__(self) -> float:
        """The time of day in seconds since 1970."""
        return self.start + self.elapsed

    def __repr__(self) -> str:
        return f"JumpingClock(elapsed={self.elapsed:g})"

    def advance(self, seconds: float) -> None:
        """Let time pass: the process was suspended, the computation took long.

        Raises:
            ValueError: time does not go back.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"{seconds!r}: time goes forward, by a number of seconds")
        self.elapsed += seconds

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """What `asyncio.run(main)` returns, with an event loop that takes its time from here."""
        with asyncio.Runner(loop_factory=self.new_event_loop) as runner:
            return runner.run(main)

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """An event loop that takes its time from here, for instance for a `Runner` of your own."""
        return _JumpingLoop(self)


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: JumpingClock) -> None:
        self._clock = clock
        self._selector_of_ours = _JumpingSelector(clock)
        super().__init__(self._selector_of_ours)

    def time(self) -> float:
        return self._clock.elapsed

    def run_in_executor(  # type: ignore[override, unused-ignore]  # typeshed says more about the type of the arguments
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        if not future.done():
            self._selector_of_ours.busy += 1
            future.add_done_callback(self._worked)
        return future

    async def shutdown_default_executor(self, *timeout: Any) -> None:  # from Python 3.12 on there is a timeout
        """Threads end in real time, so the time until a timeout does not pass."""
        self._selector_of_ours.busy += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._selector_of_ours.busy -= 1

    def _worked(self, future: asyncio.Future[Any]) -> None:
        self._selector_of_ours.busy -= 1


class _JumpingSelector(selectors.BaseSelector):
    """Where an event loop waits. This one lets time pass instead."""

    def __init__(self, clock: JumpingClock) -> None:
        self._clock = clock
        self._real = selectors.DefaultSelector()
        self.busy = 0
        """How many functions run in an executor: they end in real time."""

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Any:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return self._real.select(timeout)
        if self.busy:
            return self._real.select(None)  # a thread that ends wakes the loop
        ready = self._real.select(self._clock.patience)
        if not ready:
            self._clock.elapsed += timeout
            self._clock.jumps.append(timeout)
        return ready
