"""A paused run: nothing new begins, attempts in flight come to their end, and time stands still for what is measured
of the run as a whole.

Three things are hard about it.

*Where a call begins.* A call that has its turn may still wait: for a slot, for a rate limit, for room in a budget.
If the pause comes meanwhile, it must not begin when that wait is over, and it must not keep what others could use. So
there is a gate before each call and before each further attempt, and who waits for permits in a paused run leaves the
queue, gives back what it has, and queues up again later.

*Which time stands still.* Timeouts of groups and of the run, and `Budget(seconds)`, measure how long the run works.
They use `Hold.time` and `Hold.call_later`, which leave out the time of pauses. The timeout of an attempt goes on, since
the attempt does: it is in flight. But an agent waits for calls that must not begin, and that is no fault of its own. So
the timeouts around a call that waits at the gate stand still as long as it does.

*Replay.* A pause changes when calls are made, and never which: no key, no outcome and no order depends on it. So an
execution that repeats another one does not repeat its pauses. Only the newest word counts: the journal says whether the
run is paused, and an execution that finds it so begins at the gate.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator

__all__ = ["Hold", "StandingTimer", "wake"]


class StandingTimer:
    """A timer of a run, which stands still while the run is paused."""

    __slots__ = ("_due", "_handle", "_hold", "_tell")

    def __init__(self, hold: Hold, seconds: float, tell: Callable[[], None]) -> None:
        self._hold = hold
        self._tell = tell
        self._due = hold.time() + seconds
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Measure from now on."""
        seconds = max(0.0, self._due - self._hold.time())
        self._handle = asyncio.get_running_loop().call_later(seconds, self._fire)

    def stand_still(self) -> None:
        """Measure no more, for now."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def cancel(self) -> None:
        """It is not wanted any more."""
        self.stand_still()
        self._hold.forget(self)

    def _fire(self) -> None:
        self._hold.forget(self)
        self._tell()


class Hold:
    """Whether a run is paused, and its time, which stands still meanwhile."""

    def __init__(self) -> None:
        self.is_held: bool = False
        """Whether nothing new may begin."""
        self._since = 0.0
        self._stood_still = 0.0
        self._timers: dict[StandingTimer, None] = {}
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._watchers: dict[Callable[[], None], None] = {}
        self._standing: dict[asyncio.Timeout, tuple[int, float]] = {}

    def time(self) -> float:
        """The time of the event loop without the pauses, in seconds."""
        now = self._since if self.is_held else asyncio.get_running_loop().time()
        return now - self._stood_still

    def call_later(self, seconds: float, tell: Callable[[], None]) -> StandingTimer:
        """Call `tell` when so many seconds have passed by that time."""
        timer = StandingTimer(self, seconds, tell)
        self._timers[timer] = None
        if not self.is_held:
            timer.start()
        return timer

    def forget(self, timer: StandingTimer) -> None:
        """It has ended."""
        self._timers.pop(timer, None)

    def hold(self) -> None:
        """Begin nothing new."""
        if self.is_held:
            return
        self._since = asyncio.get_running_loop().time()
        self.is_held = True
        for timer in self._timers:
            timer.stand_still()
        for watcher in list(self._watchers):
            watcher()

    def release(self) -> None:
        """Go on. Who came to the gate first begins first."""
        if not self.is_held:
            return
        self._stood_still += asyncio.get_running_loop().time() - self._since
        self.is_held = False
        for timer in list(self._timers):
            timer.start()
        for waiter in list(self._waiters):
            wake(waiter)

    def close(self) -> None:
        """The run has ended: nothing is measured any more."""
        for timer in list(self._timers):
            timer.cancel()

    def watch(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the run is paused."""
        self._watchers[tell] = None

    def unwatch(self, tell: Callable[[], None]) -> None:
        """Do not call it any more."""
        self._watchers.pop(tell, None)

    @contextlib.contextmanager
    def waiter(self) -> Iterator[asyncio.Future[None]]:
        """A future that is done when the run goes on."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            yield waiter
        finally:
            del self._waiters[waiter]

    @contextlib.contextmanager
    def standing_still(self, limits: Iterable[asyncio.Timeout]) -> Iterator[None]:
        """While the block lasts, the time of these attempts does not pass. (Several calls of one agent may wait.)"""
        stopped = [limit for limit in limits if self._stop(limit)]
        try:
            yield
        finally:
            for limit in stopped:
                self._go_on(limit)

    def _stop(self, limit: asyncio.Timeout) -> bool:
        count, left = self._standing.get(limit, (0, 0.0))
        if not count:
            due = limit.when()
            if due is None or limit.expired():
                return False
            left = max(0.0, due - asyncio.get_running_loop().time())
            limit.reschedule(None)
        self._standing[limit] = (count + 1, left)
        return True

    def _go_on(self, limit: asyncio.Timeout) -> None:
        count, left = self._standing.pop(limit)
        if count > 1:
            self._standing[limit] = (count - 1, left)
            return
        with contextlib.suppress(RuntimeError):  # the attempt has ended meanwhile
            limit.reschedule(asyncio.get_running_loop().time() + left)


def wake(waiter: asyncio.Future[None]) -> None:
    """Let go on who waits for a future, if that has not happened."""
    if not waiter.done():
        waiter.set_result(None)
