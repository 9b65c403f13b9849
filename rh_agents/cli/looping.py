"""The event loop of a command, which goes on until the command has come to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from rh_agents.core._loops.exits import failure_of

__all__ = ["run_to_the_end"]

T = TypeVar("T")


def run_to_the_end(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, but `sys.exit` in a task of somebody else's ends that task and not the loop.

    `SystemExit` in a task passes through the loop, which stops where it is and can be continued: whoever awaits the
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
                failure_of(raised)  # which raises what is meant for the process
                if task.done():
                    raise


async def _result_of(task: asyncio.Task[T]) -> T:
    return await task
