"""The workers of this process, which all executors share, and the slots that bound how many of them work at a time."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time

from rh_agents.core._loops.homes import Home, Waiter, Waiters, home, reentrant_lock
from rh_agents.executors._workers.idle import IdleReader
from rh_agents.executors._workers.worker import Worker

_LONGEST_IDLE = 300.0
"""Seconds after which an idle worker is not kept any more: what its functions have loaded may be large."""
_TIME_AT_EXIT = 3.0
_LOOK_AFTER_OTHERS = 0.2
"""Seconds after which a waiter checks whether the event loops of the others are still there."""


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


class Slots:
    """So many may be inside at a time, first come, first served; from event loops of several threads.

    An event loop may be gone, or left in the middle, and a forked child has copies of its parent's: see `_loops`. What
    those hold is taken from them when it is needed, and those that wait there are passed over. (They may run again;
    then for a while more are inside than should be, which is better than to wait for ever.)
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._lock = reentrant_lock()
        self._holders: dict[Slot, Home] = {}
        self._queue = Waiters()

    def one(self) -> Slot:
        """Be inside: `async with slots.one()`."""
        return Slot(self)

    async def take(self, slot: Slot) -> None:
        """Wait until it is this one's turn."""
        if self._admit(slot, None):
            return
        with self._lock:
            waiter = self._queue.enter()
        try:
            while not self._admit(slot, waiter):
                await self._wait(waiter)
        finally:
            with self._lock:
                self._queue.leave(waiter)
                self._queue.wake_first()

    def release(self, slot: Slot) -> None:
        """It is free for others, if it was not taken from this one meanwhile."""
        with self._lock:
            self._holders.pop(slot, None)
            self._queue.wake_first()

    def _admit(self, slot: Slot, waiter: Waiter | None) -> bool:
        with self._lock:
            if len(self._holders) >= self.count:
                self._holders = {
                    each: home for each, home in self._holders.items() if not (home.is_gone or home.cannot_run)
                }
            if len(self._holders) >= self.count or not self._queue.is_first(waiter):
                return False
            self._holders[slot] = home()
            return True

    async def _wait(self, waiter: Waiter) -> None:
        timer = None
        with self._lock:
            homes = {*self._holders.values(), *self._queue.homes}
        if homes != {waiter.home}:  # the end of another waiter's loop is not announced
            timer = asyncio.get_running_loop().call_later(_LOOK_AFTER_OTHERS, waiter.wake)
        try:
            await waiter.wait()
        finally:
            if timer is not None:
                timer.cancel()


class Slot:
    """A context manager: inside of it, one of the slots is taken."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    async def __aenter__(self) -> None:
        await self._slots.take(self)

    async def __aexit__(self, *_: object) -> None:
        self._slots.release(self)


class Pool:
    """Workers that are idle, to be used again; and all others, to be ended with this process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._reader = IdleReader()

    def take(self) -> Worker:
        """The worker that was used last, or a new one."""
        with self._lock:
            self._leave_old_ones()
            while self._idle:
                worker = self._no_longer_idle(self._idle.pop())
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
            with worker.reading:
                worker.is_idle = True
            self._reader.watch(worker)
            self._leave_old_ones()
            surplus = self._idle[: max(0, len(self._idle) - most)]
            del self._idle[: len(surplus)]
        for each in surplus:
            self._no_longer_idle(each).retire()

    def _no_longer_idle(self, worker: Worker) -> Worker:
        with worker.reading:
            worker.is_idle = False
        self._reader.leave(worker)
        return worker

    def _leave_old_ones(self) -> None:
        oldest = time.monotonic() - _LONGEST_IDLE
        while self._idle and self._idle[0].idle_since < oldest:
            self._no_longer_idle(self._idle.pop(0)).retire()

    def _forget(self, worker: Worker) -> None:
        with self._lock:
            self._all.discard(worker)
            if worker in self._idle:
                self._idle.remove(worker)
                self._no_longer_idle(worker).let_go()

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
            for worker in idle:
                worker.read_while_idle()  # what it has sent before it is let go
                self._no_longer_idle(worker)
        for worker in workers:
            worker.let_go() if worker in idle else worker.kill()  # no thread can be started at the end of a program
        deadline = time.monotonic() + _TIME_AT_EXIT
        for worker in workers:
            if not worker.join(max(0.0, deadline - time.monotonic())):
                worker.kill()
                worker.join(1.0)

    def hold_still(self) -> None:
        """Let no worker be made while this process forks: its descriptors would belong to no one in the child.

        By one of them the worker learns when its parent is gone, which it would then not learn before the child ends.
        """
        self._lock.acquire()

    def go_on(self) -> None:
        """The fork has been made; in the parent."""
        self._lock.release()

    def forget_after_fork(self) -> None:
        """In a forked child: the workers are those of its parent."""
        self._lock = threading.RLock()
        self._reader.forget_after_fork()
        for worker in self._all:
            worker.forget_after_fork()
        self._all.clear()
        self._idle.clear()


pool = Pool()
atexit.register(pool.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=pool.hold_still, after_in_parent=pool.go_on, after_in_child=pool.forget_after_fork)
