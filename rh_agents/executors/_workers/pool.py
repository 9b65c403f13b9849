"""The workers of this process, which all executors share, and the slots that bound how many of them work at a time."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections import deque
from types import TracebackType

from rh_agents.executors._workers.worker import Worker

__all__ = ["Slots", "pool", "processors"]

_LONGEST_IDLE = 300.0
"""Seconds after which an idle worker is not kept any more: what its functions have loaded may be large."""
_TIME_AT_EXIT = 3.0


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


class _Waiter:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.has_slot = False


class Slots:
    """So many may be inside at a time, first come, first served; from event loops of several threads."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = count
        self._waiting: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return
            waiter = _Waiter()
            self._waiting.append(waiter)
        try:
            await waiter.future
        except BaseException:
            with self._lock:
                if waiter.has_slot:
                    self._pass_on()
                else:
                    self._waiting.remove(waiter)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            waiter.has_slot = True
            try:
                if waiter.loop is asyncio._get_running_loop():  # which need not be woken through a pipe
                    _wake(waiter.future)
                else:
                    waiter.loop.call_soon_threadsafe(_wake, waiter.future)
            except RuntimeError:  # its loop has been closed, and nobody waits there any more
                continue
            return
        self._free += 1


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Pool:
    """Workers that are idle, to be used again; and all others, to be ended with this process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()

    def take(self) -> Worker:
        """The worker that was used last, or a new one."""
        with self._lock:
            self._leave_old_ones()
            while self._idle:
                worker = self._idle.pop()
                if not worker.is_dead:
                    return worker
                worker.let_go()
            worker = Worker(self._forget)
            self._all.add(worker)
            return worker

    def give_back(self, worker: Worker, most: int) -> None:
        """It has made its call. `most` idle ones are kept."""
        with self._lock:
            worker.idle_since = time.monotonic()
            self._idle.append(worker)
            self._leave_old_ones()
            surplus = self._idle[: max(0, len(self._idle) - most)]
            del self._idle[: len(surplus)]
        for each in surplus:
            each.retire()

    def _leave_old_ones(self) -> None:
        oldest = time.monotonic() - _LONGEST_IDLE
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.pop(0).retire()

    def _forget(self, worker: Worker) -> None:
        with self._lock:
            self._all.discard(worker)
            if worker in self._idle:
                self._idle.remove(worker)
                worker.let_go()

    @property
    def workers(self) -> list[Worker]:
        """All whose processes have not ended."""
        with self._lock:
            return list(self._all)

    def close(self) -> None:
        """End them all: idle ones in good order, those at work at once."""
        with self._lock:
            workers, idle = list(self._all), list(self._idle)
            self._idle.clear()
        for worker in workers:
            worker.let_go() if worker in idle else worker.kill()  # no thread can be started at the end of a program
        deadline = time.monotonic() + _TIME_AT_EXIT
        for worker in workers:
            if not worker.join(max(0.0, deadline - time.monotonic())):
                worker.kill()
                worker.join(1.0)

    def forget_after_fork(self) -> None:
        """In a forked child: the workers are those of its parent."""
        self._lock = threading.RLock()
        for worker in self._all:
            worker.forget_after_fork()
        self._all.clear()
        self._idle.clear()


pool = Pool()
atexit.register(pool.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.forget_after_fork)
