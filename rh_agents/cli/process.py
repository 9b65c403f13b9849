"""The event loop of a command, and how its process ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from rh_agents.core._loops.exits import failure_of

__all__ = ["leave_without_threads", "run_to_the_end"]

T = TypeVar("T")
_PATIENCE = 2.0
"""Seconds that threads get, for those that were about to end anyway."""


def run_to_the_end(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, but `sys.exit` in a task that is not ours ends that task and not the loop.

    `SystemExit` in a task passes through the loop, which stops where it is and can be continued: what awaits the
    task gets its exception, and there it is an ordinary failure.

    Raises:
        SystemExit: a handler of a signal wants the process to end.
    """
    with asyncio.Runner() as runner:
        task = runner.get_loop().create_task(main)
        while True:
            try:
                return runner.run(_result_of(task))
            except SystemExit as raised:
                failure_of(raised)  # which raises what is addressed to the process
                if task.done():
                    raise


async def _result_of(task: asyncio.Task[T]) -> T:
    return await task


def leave_without_threads(exit_code: int, patience: float = _PATIENCE) -> None:
    """From now on the process ends within `patience` seconds, though functions that were given up still run in threads.

    Only for a process of one's own: if such threads are left by then, it ends without the usual clean-up.
    """
    threading.Thread(target=_leave, args=(exit_code, patience), name="leave", daemon=True).start()


def _leave(exit_code: int, patience: float) -> None:
    time.sleep(patience)
    main = threading.main_thread()
    if any(thread is not main and not thread.daemon for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(exit_code)
