"""`sys.exit` in somebody's function is that function's failure, and ends neither the group nor the process.

Python raises `SystemExit`, which is no `Exception`: it passes every handler and, raised in a task, takes the event loop
with it. So a script that was made a tool, or an argument parser that does not like its arguments, would end a job of
thousands with exit code 0 and the rest of its items untouched. Wherever code of the user's is called, `FAILURES` are
caught and `failure_of` makes one of ours of it: an ordinary failure, recorded, and retried if the policy says so.

One thing is different: a handler of a signal that calls `sys.exit` runs in the middle of whatever the process is at.
That is the process being asked to end, no outcome of the function that it happened to interrupt, and it is raised on.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import signal
from collections.abc import Awaitable, Coroutine
from types import CodeType, TracebackType
from typing import Any

from rh_agents.core.errors import CalledExit

FAILURES = (Exception, SystemExit)
"""What code of the user's fails with. The other exceptions are for the event loop and the interpreter."""


def failure_of(raised: Exception | SystemExit) -> Exception:
    """What was raised, as an exception that stands for an outcome.

    Raises:
        SystemExit: a handler of a signal raised it, so that it is meant for the process.
    """
    if isinstance(raised, Exception):
        return raised
    if _is_of_a_signal(raised.__traceback__):
        raise raised
    code = "" if raised.code is None else repr(raised.code)
    error = CalledExit(f"called sys.exit({code})")
    error.__cause__ = raised
    return error


def task_of(found: Awaitable[object]) -> asyncio.Task[object]:
    """A task that awaits what somebody's function returned. It raises no SystemExit, which would end the event loop.

    Cancelled before its first step, it leaves no coroutine behind that nobody has awaited.
    """
    steps = _without_exit(found)
    try:
        task = asyncio.get_running_loop().create_task(steps)
    except BaseException:  # the task factory is somebody else's
        steps.close()
        if inspect.iscoroutine(found):
            found.close()
        raise
    if inspect.iscoroutine(found):
        task.add_done_callback(functools.partial(_close, found))
    return task


async def _without_exit(found: Awaitable[object]) -> object:
    try:
        return await found
    except SystemExit as raised:
        raise failure_of(raised) from raised


def _close(steps: Coroutine[Any, Any, object], _: object) -> None:
    steps.close()


def _is_of_a_signal(trace: TracebackType | None) -> bool:
    """Whether the function that handles a signal is among those that were left."""
    handlers = None
    while trace is not None:
        handlers = _signal_handlers() if handlers is None else handlers
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


def _signal_handlers() -> set[CodeType]:
    found: set[CodeType] = set()
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        if not callable(handler):
            continue  # SIG_DFL and SIG_IGN are members of an enumeration, whose class can be called
        while isinstance(handler, functools.partial):
            handler = handler.func
        function = getattr(handler, "__func__", handler)  # of a method
        code = getattr(function, "__code__", None) or getattr(type(handler).__call__, "__code__", None)
        if isinstance(code, CodeType):
            found.add(code)
    return found
