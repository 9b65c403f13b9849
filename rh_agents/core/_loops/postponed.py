"""A cancellation that comes when a call has finished: it waits until the caller has the result.

A call that has finished is recorded, and whoever executes the run again gets its result. If the caller's task is
cancelled meanwhile (by `asyncio.timeout`, a task group, a stop), two things would be wrong. To let the CancelledError
through: the program would see a call that was cut off, refund a payment, say, and after a crash see one that had
succeeded. To swallow it: a cancellation would be lost, and the task never end. So what happened in the other order is
what is reported: the call gives its result, and the cancellation arrives at the next await that follows it.

Until then, whoever asked for it may have taken it back: `asyncio.timeout` does so (`Task.uncancel`) if its block ends
with the call, and then no time was exceeded, as the call had finished in time. Otherwise the task is cancelled once
more with the same message, without being counted once more, so that those who count (`asyncio.timeout`, `TaskGroup`,
anyio) know it as theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from rh_agents.core.errors import StoreError

T = TypeVar("T")


class Postponed:
    """The cancellations that came while a call was being recorded, for the task that executes it."""

    __slots__ = ("_count", "_is_due", "_message")

    def __init__(self) -> None:
        self._message: tuple[object, ...] = ()
        self._count = 0
        self._is_due = False

    def add(self, error: asyncio.CancelledError) -> None:
        """One has come."""
        task = asyncio.current_task()
        self._message = error.args[:1]
        self._count = 0 if task is None else task.cancelling()
        self._is_due = True

    @property
    def is_due(self) -> bool:
        """Whether one has come that has not been delivered."""
        return self._is_due

    def raise_now(self) -> None:
        """Let it arrive at once, since the call has not finished.

        Raises:
            asyncio.CancelledError: one has come.
        """
        if self._is_due:
            self._is_due = False
            raise asyncio.CancelledError(*self._message)

    def deliver_soon(self) -> None:
        """Let it arrive when the caller, who has the result by then, waits for something else."""
        task = asyncio.current_task()
        if self._is_due and task is not None:
            self._is_due = False
            asyncio.get_running_loop().call_soon(self._deliver, task)

    def _deliver(self, task: asyncio.Task[object]) -> None:
        if task.done() or task.cancelling() < max(1, self._count):
            return
        task.cancel(*self._message)
        task.uncancel()


Postpone = Callable[[asyncio.CancelledError], Postponed]
"""Notes a cancellation; gives all that have come."""
LONGEST_WAIT = 30.0
"""Seconds for which whoever is cancelled waits for a store that does not answer."""


async def until_it_is_done(step: Awaitable[T], postponed: Postponed, *, at_most: float | None = LONGEST_WAIT) -> T:
    """Wait for a step of the store to its end, whatever cancellations come meanwhile.

    Args:
        step: what is waited for.
        postponed: where the cancellations are noted.
        at_most: the seconds for which it is waited when there is one: a disk or a server that hangs must not make a
            program that cannot be ended. None if the step comes to its end by itself.

    Raises:
        StoreError: it took longer. Whether it was done is unknown.
    """
    done = asyncio.ensure_future(step)
    loop = asyncio.get_running_loop()
    deadline: float | None = None
    while not done.done():  # whoever cancels at every turn of the event loop leaves no time for more than a look
        if postponed.is_due and deadline is None and at_most is not None:
            deadline = loop.time() + at_most
        if deadline is not None and loop.time() >= deadline:
            done.cancel()
            done.add_done_callback(look_at)
            raise StoreError(f"the store has not answered for {at_most:g} s after a call that it records was cancelled")
        try:
            await asyncio.wait([done], timeout=None if deadline is None else deadline - loop.time())
        except asyncio.CancelledError as error:
            postponed.add(error)
    return done.result()


def look_at(future: asyncio.Future[T]) -> None:
    """Nobody waits for it any more, so nobody else sees how it ended."""
    if not future.cancelled():
        future.exception()


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await something that must not be left in its middle; a cancellation meanwhile is raised when it has ended."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
