"""Whether code that ended with an error was cancelled from outside by then, so that this is no failure of its own.

`Task.cancelling()` alone does not tell. Up to Python 3.12, an `asyncio.TaskGroup` that fails while it is being left
cancels its own task once and never takes that back: an agent whose pages were down would look cancelled, and its caller
would be told so, who has cancelled nothing. So it takes more: that whoever cancelled it is one of us, or that the error
was raised while a CancelledError was being handled. A TimeoutError and a group of exceptions are what timeouts and task
groups make of their own cancellations; what lies behind them says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Protocol, Self

__all__ = ["OwnTask", "absorb_cancellation", "cancellations", "is_cut_off", "is_only_withdrawn", "says_only"]


class Cancellable(Protocol):
    """What a frame says of the call that it is about, or of the root of a run."""

    @property
    def is_under_way(self) -> bool: ...
    @property
    def is_cancelled(self) -> bool: ...
    @property
    def is_dismissed(self) -> bool: ...
    @property
    def has_settled(self) -> bool: ...
    @property
    def parent(self) -> Self: ...
    @property
    def run(self) -> Any:
        """The parts of its run."""


def cancellations() -> int:
    """How often the task has been told to end, and has not been told otherwise."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def is_cut_off(frame: Cancellable, error: BaseException, before: int) -> bool:
    """Whether code of a call, or of the run itself, that ended with `error` was cancelled meanwhile by somebody else.

    Args:
        frame: the call, or the root of its run.
        error: what it raised.
        before: how often its task had been told to end when the code began.
    """
    if cancellations() <= before:
        return False
    return _was_cancelled_by_us(frame) or _comes_of_a_cancellation(error)


def is_only_withdrawn(frame: Cancellable) -> bool:
    """Whether somebody has cancelled the call by name, and nothing else has: then it has an outcome, and goes on."""
    task = asyncio.current_task()
    is_ours = not (frame.is_cancelled or frame.is_dismissed or frame.has_settled or frame.run.interruption.is_cut_off)
    return is_ours and task is not None and task.uncancel() == 0


def _was_cancelled_by_us(frame: Cancellable) -> bool:
    if frame.run.interruption.is_cut_off:
        return True
    while frame.is_under_way:
        if frame.is_cancelled:
            return True
        frame = frame.parent
    return False


def says_only(message: str, error: BaseException | None) -> bool:
    """Whether an error comes of a cancellation with this message, and of no other one."""
    found = list(_cancellations_behind(error))
    return bool(found) and all(each.args == (message,) for each in found)


def _comes_of_a_cancellation(error: BaseException) -> bool:
    return next(_cancellations_behind(error), None) is not None


def _cancellations_behind(error: BaseException | None) -> Iterator[asyncio.CancelledError]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen and not isinstance(error, TimeoutError | BaseExceptionGroup):
        if isinstance(error, asyncio.CancelledError):
            yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


_CUT_OFF = "the run is being stopped"
"""What our own cancellation of a run's task says."""


class OwnTask:
    """The task that executes a run, which is cancelled once when the grace of an interruption has passed."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._before = 0
        self._with_ours = 0
        self._has_cut_off = False

    def enter(self) -> asyncio.Task[Any] | None:
        """The run is executed by the task that calls this, which is returned."""
        self._task = asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()
        return self._task

    def cut_off(self) -> None:
        """The grace has passed."""
        if self._task is not None and not self._has_cut_off:
            self._has_cut_off = True
            self._task.cancel(_CUT_OFF)
            self._with_ours = self._task.cancelling()

    def leave(self, error: BaseException | None) -> bool:
        """Cut nothing off any more. Returns whether it was us, and nobody else, who cancelled the task.

        If it was cancelled more often, one of these may be what an `asyncio.TaskGroup` has left behind. So it counts
        which cancellation has come here, and that none came later.
        """
        task, self._task = self._task, None
        if task is None or not self._has_cut_off:
            return False
        is_last = task.cancelling() <= self._with_ours
        is_the_only_one = task.uncancel() <= self._before
        return is_the_only_one or (is_last and says_only(_CUT_OFF, error))


async def absorb_cancellation() -> None:
    """Let a cancellation arrive that was on its way when the call returned, before the outcome is being recorded."""
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        return
