"""What event loops of several threads share: whom to wake where, what the time is, and which loop is gone.

A limit or a breaker belongs to the program. So it may be used by a web application that has an event loop in each of
its threads, or by one `asyncio.run` after the other, the first of which was left in the middle. Three things follow.

*Waking.* A future belongs to its loop, and setting it from another thread wakes nobody. A `Waiter` is a future that any
thread may wake.

*The dead.* A loop that was closed runs no `finally`: what its calls held is never given back, and those that waited
never leave. A loop says that it is closed; one that nobody refers to any more is as dead. Neither is announced,
so who waits for another loop looks from time to time. One that was only stopped may run again, so it is passed over.
A forked child has copies of its parent's loops, which say that they run: for the child they are gone.

*Time.* Loops of threads read the same monotonic clock. One with a clock of its own (in tests) may begin at zero after
another one has come to a thousand: for what they share, time goes on from there instead of standing still that long.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

from rh_agents.core._base.errors import UsageError


class CallsBegun:
    """How many calls have begun on an event loop. Another thread may look, so these are numbers and nothing else.

    Attributes:
        calls: all of them.
        outermost: those that no other call of the same task awaits.
    """

    __slots__ = ("calls", "outermost")

    def __init__(self) -> None:
        self.calls: int = 0
        self.outermost: int = 0


class Home:
    """An event loop, known without being kept alive.

    Attributes:
        thread: the thread in which it was seen running.
        begun: how many calls have begun on it.
        loop: gives the loop itself; None if there is none any more.
    """

    __slots__ = ("_process", "begun", "loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: weakref.ref[asyncio.AbstractEventLoop] = weakref.ref(loop)
        self._process = os.getpid()
        self.thread: int = threading.get_ident()
        self.begun: CallsBegun = CallsBegun()

    def is_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it is that one."""
        return self.loop() is loop

    @property
    def is_gone(self) -> bool:
        """Whether it will never run again."""
        loop = self.loop()
        return loop is None or loop.is_closed() or self._process != os.getpid()

    @property
    def is_running(self) -> bool:
        """Whether some thread runs it now."""
        loop = self.loop()
        return loop is not None and loop.is_running() and not self.is_gone

    @property
    def cannot_run(self) -> bool:
        """Whether it does not run, and will not while the caller waits: its thread has ended, or is the caller's.

        One that is gone holds nobody up. That is looked at last: its thread may close it, and end, at this moment.
        """
        here = self.thread == threading.get_ident()
        if not here and any(thread.ident == self.thread for thread in threading.enumerate()):
            return False
        return not self.is_running and not self.is_gone

    @property
    def task(self) -> int | None:
        """Which task makes a step on it now, as a number, since a task that is held cannot be freed.

        Any thread may ask, and the number may be another one's when that task has ended.
        """
        loop = self.loop()
        task = None if loop is None else asyncio.current_task(loop)
        return None if task is None else id(task)

    def call(self, function: Callable[[], None]) -> bool:
        """Call a function on this loop: at once if it is the one that runs here. False if it is gone."""
        loop = self.loop()
        if loop is None or self.is_gone:
            return False
        if loop is running_loop():
            function()
            return True
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:  # it is closed
            return False
        return True


_NO_LOOP = (
    "rh_agents needs the event loop of asyncio, and none runs here: start the program with asyncio.run(main()), or use "
    "run_sync(workflow); trio, and anyio on trio, have another kind of loop: there, await "
    "trio.to_thread.run_sync(run_sync, workflow)"
)


class _Local(threading.local):
    home: Home | None = None


_local = _Local()


def home() -> Home:
    """The event loop that runs here: the same object each time, as long as no other one runs in this thread."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(_NO_LOOP) from None
    mine = _local.home
    if mine is None or mine.loop() is not loop:
        mine = _local.home = Home(loop)
    return mine


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread; None if there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Waiter:
    """A task of this loop that waits, to be woken from any thread, any number of times."""

    __slots__ = ("_future", "_is_woken", "home")

    def __init__(self) -> None:
        self.home: Home = home()
        self._is_woken = False
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> bool:
        """Let it look again; False if its loop is gone."""
        return self.home.call(self._wake)

    def _wake(self) -> None:
        self._is_woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Wait until it has been woken since this was waited for last."""
        if not self._is_woken:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._is_woken = False


class Waiters:
    """Tasks of several loops that wait for the same thing, first come, first served. Used under a lock.

    The first one is the first whose loop runs. One whose loop is gone is forgotten when it is met.
    """

    def __init__(self) -> None:
        self._queue: deque[Waiter] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def homes(self) -> set[Home]:
        """Where they wait."""
        return {waiter.home for waiter in self._queue}

    def enter(self) -> Waiter:
        """The task that calls this waits behind all others."""
        waiter = Waiter()
        self._queue.append(waiter)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """It waits no more."""
        if waiter in self._queue:
            self._queue.remove(waiter)

    def is_first(self, waiter: Waiter | None) -> bool:
        """Whether nobody who is there has waited for longer; None comes after all of them."""
        for other in list(self._queue):
            if other is waiter:
                return True
            if other.home.is_gone:
                self._queue.remove(other)
            elif other.home.is_running:
                return False
        return waiter is None

    def wake_first(self) -> None:
        """Let the first one look again."""
        for waiter in list(self._queue):
            if not waiter.wake():
                self._queue.remove(waiter)
            elif waiter.home.is_running:
                return


class SharedClock:
    """The time for what several loops share: that of the loop that asks, and it never goes back. Ask under a lock."""

    def __init__(self) -> None:
        self._last = float("-inf")
        self._ahead: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, float] = weakref.WeakKeyDictionary()

    def now(self) -> float:
        """Seconds. Outside of any loop, where the garbage collector may end a call, the last one that was given."""
        loop = running_loop()
        if loop is None:
            return max(self._last, 0.0)
        ahead = self._ahead.get(loop)
        time = loop.time()
        if ahead is None:
            ahead = self._ahead[loop] = max(0.0, self._last - time)
        self._last = max(self._last, time + ahead)
        return self._last


def reentrant_lock() -> AbstractContextManager[object]:
    """A lock to be held briefly, between two awaits.

    Its thread may take it again: the garbage collector may end an abandoned call at any moment, also while another call
    holds the lock.
    """
    return threading.RLock()
