"""A thread that the process does not wait for when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["DaemonThread"]

T = TypeVar("T")


class DaemonThread:
    """Executes functions one after the other, away from the event loop; the process does not wait for it when it ends.

    The pools of the standard library would: a read that waits for standard input would keep the process from exiting.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Execute `function`; the future gets what it returns or raises, unless something else sets it first."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((function, future))
        if not self._thread.is_alive():
            self._thread.start()
        return future

    def _work(self) -> None:
        while True:
            function, future = self._jobs.get()
            value, error = None, None
            try:
                value = function()
            except BaseException as caught:  # noqa: BLE001 - raised where the future is awaited
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop has been closed: no one waits any more
                future.get_loop().call_soon_threadsafe(_deliver, future, value, error)


def _deliver(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
