"""The event loop of a command, and how its process ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from rh_agents.core._loops.exits import failure_of
from rh_agents.telemetry import send_what_waits

__all__ = ["begin_sparely", "leave_without_threads", "run_to_the_end", "spare_the_collector"]

T = TypeVar("T")
_NEW_OBJECTS = 20_000
"""So many containers more than before, before the collector looks: some megabytes."""
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


def begin_sparely() -> None:
    """The same as `spare_the_collector` at the very beginning of a process, when there is no garbage to be found."""
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])


def spare_the_collector() -> None:
    """Let Python's garbage collector look less often, and never again at what is there now.

    Only for a process of one's own, once the program has been imported: modules and classes stay until its end. Calls
    let go of each other when they end, so there is little to be found: by the collector's own settings (it looks after
    700 new containers) it took a tenth to a quarter of the time of a job.
    """
    gc.collect()
    begin_sparely()


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
        send_what_waits()
        os._exit(exit_code)
