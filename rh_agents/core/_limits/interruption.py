"""Stopping a run from outside: nothing new begins, what is under way has some time to finish, nothing is lost.

A run that is being stopped raises `StopRun` wherever a new call would begin. That unwinds the program, while the calls
that were under way come to their end and are recorded. What is still running after the grace is cancelled, and records
nothing, so that it is made again when the run goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import math
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from rh_agents.core._limits.holding import Hold, wake
from rh_agents.core._loops.exits import task_of
from rh_agents.core.errors import StopRun
from rh_agents.core.usage import Shortfall

InterruptChecker = Callable[[], Awaitable[object] | object]
"""Tells whether a run is to be stopped: what gives something to await is awaited once, and comes back when it is time;
any other function is asked before each call. What comes back is the reason; nothing or False if there is none."""


_LONGEST_WAIT = 30.0
"""Seconds for calls that nobody waits for, where no grace is stated."""
_NOBODY = object()


class CallsUnderWay:
    """Calls that are being made in a run, or from one place in it, by whichever tasks."""

    __slots__ = ("callers", "watchers")

    def __init__(self) -> None:
        self.callers: dict[object, object] = {}
        """The task that makes each call; those that began first come first. None for one of which it is being found
        out who it is. Who executes a call enters it here, and takes it out."""
        self.watchers: set[Callable[[], None]] = set()

    def wake(self) -> None:
        """One has ended."""
        for watcher in list(self.watchers):
            watcher()

    @contextlib.contextmanager
    def with_one_more(self) -> Iterator[None]:
        """While the block lasts, there is one more, of which it is being found out who it is."""
        call = object()
        self.callers[call] = None
        try:
            yield
        finally:
            del self.callers[call]
            self.wake()

    def has_any(self, *, but_of: object = _NOBODY) -> bool:
        """Whether there is one that another task makes."""
        return any(caller is not but_of for caller in self.callers.values())

    async def wait(self, interruption: Interruption, *, but_of: object = _NOBODY) -> None:
        """Wait until there is none of another task, at most as long as the grace of the interruption lasts.

        Groups wait for their members. But `asyncio.gather` raises what the first of its tasks raises, and forgets the
        others, and `asyncio.TaskGroup` cancels them; and they have paid for what they are waiting for.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LONGEST_WAIT

        def is_over() -> bool:
            return not self.has_any(but_of=but_of) or interruption.is_cut_off or loop.time() >= deadline

        while not is_over():
            woken = loop.create_future()

            def wake(woken: asyncio.Future[None] = woken) -> None:
                if not woken.done() and is_over():
                    woken.set_result(None)

            timer = loop.call_at(deadline, wake)
            self.watchers.add(wake)
            interruption.watch(wake)
            try:
                await woken
            finally:
                timer.cancel()
                self.watchers.discard(wake)
                interruption.unwatch(wake)
            await asyncio.sleep(0)  # whoever waited for the last one may make another one, if it may


class Interruption:
    """Whether a run is being stopped, and who wants to know of it.

    Args:
        when_cut_off: called when the grace has passed.
    """

    def __init__(self, when_cut_off: Callable[[], None] | None = None) -> None:
        self.is_cut_off: bool = False
        """Whether the run is being stopped, and what is under way has had its grace."""
        self.under_way: CallsUnderWay = CallsUnderWay()
        self.hold: Hold = Hold()
        """Whether the run is paused, and how long it has worked."""
        self.when_cut_off: Callable[[], None] | None = when_cut_off
        self.stop: StopRun | None = None
        """Raised by every call that would begin now; None while the run goes on."""
        self.is_final: bool = False
        """Whether somebody cancelled the run, so that it ends instead of waiting to go on."""
        self._is_closed = False
        self._watchers: set[Callable[[], None]] = set()
        self.checker: Callable[[], None] | None = None
        """Asks before each call whether the run is to be stopped; None if nobody wants to be asked."""
        self._task: asyncio.Future[object] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    def request(
        self,
        reason: str,
        grace: float,
        *,
        is_final: bool = False,
        shortfall: Shortfall | None = None,
    ) -> None:
        """Stop the run; what is under way is cut off after `grace` seconds. A second request can only shorten that.
        `shortfall` is given if a budget has been spent.

        After the end of the run there is nothing to stop.
        """
        if self._is_closed:
            return
        self.is_final = self.is_final or is_final
        if self.stop is None:
            self.stop = StopRun(reason, shortfall=shortfall)
        if grace != math.inf:
            self.after(max(0.0, grace), self.cut_off)
        self._wake_watchers()

    def budget_spent(self, stop: StopRun) -> None:
        """A budget does not suffice for another call: if it is that of the run, nothing new begins in it."""
        if stop.shortfall is not None and not stop.shortfall.place:
            self.request(stop.reason, math.inf, shortfall=stop.shortfall)

    def cut_off(self) -> None:
        """The grace has passed, perhaps before the run has been opened."""
        self.is_cut_off = True
        self._wake_watchers()
        if self.when_cut_off is not None:
            self.when_cut_off()

    def _wake_watchers(self) -> None:
        """The run is to be stopped, or its grace has passed."""
        for watcher in list(self._watchers):
            watcher()

    def expect_running(self) -> None:
        """Raise `StopRun` if the run is being stopped."""
        if self.checker is not None and self.stop is None:
            self.checker()
        if self.stop is not None:
            self._raise_stop()

    def _raise_stop(self) -> None:
        if self.stop is not None:
            raise StopRun(self.stop.reason, shortfall=self.stop.shortfall)

    def watch(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the run is to be stopped; at once, if it is already."""
        self._watchers.add(tell)
        if self.stop is not None:
            tell()

    def unwatch(self, tell: Callable[[], None]) -> None:
        self._watchers.discard(tell)

    @property
    def is_held(self) -> bool:
        """Whether the run is paused, so that nothing new begins for now."""
        return self.hold.is_held

    def watch_hold(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the run is paused."""
        self.hold.watch(tell)

    def unwatch_hold(self, tell: Callable[[], None]) -> None:
        self.hold.unwatch(tell)

    async def sleep(self, seconds: float) -> None:
        """Wait so long. Raises `StopRun` as soon as the run is to be stopped."""
        await self.sleep_until(asyncio.get_running_loop().create_future(), seconds)

    async def sleep_until(self, woken: asyncio.Future[None], seconds: float | None) -> None:
        """The same, or until the future is done; None waits for that alone."""
        timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, wake, woken)
        try:
            await self._either(woken)
        finally:
            if timer is not None:
                timer.cancel()
        self._raise_stop()

    async def wait_while_held(self, limits: Iterable[asyncio.Timeout] = ()) -> None:
        """Wait until the run is not paused any more; the time of these attempts stands still meanwhile.

        Raises:
            StopRun: the run is being stopped.
        """
        hold = self.hold
        with hold.standing_still(limits):
            while hold.is_held:
                with hold.waiter() as waiter:
                    await self._either(waiter)
                self._raise_stop()

    async def _either(self, waiter: asyncio.Future[None]) -> None:
        """Wait until the future is done, or the run is to be stopped."""
        stopped = functools.partial(wake, waiter)
        self.watch(stopped)
        try:
            await waiter
        finally:
            self.unwatch(stopped)

    def check_with(self, checker: InterruptChecker, request: Callable[[str], None]) -> None:
        """Let `checker` tell when to stop, in place of the one before; `request` is called with the reason."""
        self._forget_checker()

        def ask() -> None:
            found = checker()
            if inspect.isawaitable(found):
                self._await(found, request)
            elif found:
                request(_text(found))

        if inspect.iscoroutinefunction(checker) or inspect.iscoroutinefunction(type(checker).__call__):
            ask()
        else:
            self.checker = ask

    def _await(self, found: Awaitable[object], request: Callable[[str], None]) -> None:
        """From now on the checker tells by itself."""
        self.checker = None
        self._task = task = task_of(found)

        def done(_: object) -> None:
            if inspect.iscoroutine(found):
                found.close()  # a task that is cancelled before its first step has not begun to await it
            if task.cancelled():
                return
            error = task.exception()
            if error is not None:
                request(f"the interrupt checker failed: {error!r}")
            elif task.result():
                request(_text(task.result()))

        task.add_done_callback(done)

    def _forget_checker(self) -> asyncio.Future[object] | None:
        task, self._task = self._task, None
        self.checker = None
        if task is not None:
            task.cancel()
        return task

    def after(self, seconds: float, tell: Callable[[], None]) -> None:
        """Call `tell` after so many seconds, unless the run has ended by then."""
        if not self._is_closed:
            self._timers.append(asyncio.get_running_loop().call_later(seconds, tell))

    def after_working(self, seconds: float, tell: Callable[[], None]) -> None:
        """The same after so many seconds in which the run is not paused."""
        if not self._is_closed:
            self.hold.call_later(seconds, tell)

    async def aclose(self) -> None:
        """The run has ended: nothing is awaited any more.

        Raises:
            Exception: what an awaited checker raised.
        """
        self._is_closed = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.hold.close()
        task = self._forget_checker()
        if task is not None:
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error


def _text(reason: object) -> str:
    return reason if isinstance(reason, str) else "the interrupt checker said so"


@contextlib.contextmanager
def interrupt_on_signals(*steps: Callable[[str], object], hangup: bool = False) -> Iterator[None]:
    """While the block lasts, Ctrl-C and SIGTERM call `steps` on the event loop, each signal the next one, by its name.

    With `hangup`, so does SIGHUP, which comes when the terminal is closed, unless `nohup` has it ignored.
    A signal after the last step ends the process as if nobody had listened. With `signal.signal` rather than
    `loop.add_signal_handler`, which does not exist on Windows and is not heard while code blocks the loop. Outside of
    the main thread, where Python allows no handlers, signals do what they did before.
    """
    loop = asyncio.get_running_loop()
    count = 0
    signals = [signal.SIGINT, signal.SIGTERM]
    if hangup and hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count <= len(steps):
            loop.call_soon_threadsafe(steps[count - 1], signal.Signals(number).name)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    previous: dict[signal.Signals, Any] = {}
    with contextlib.suppress(ValueError):
        for number in signals:
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
