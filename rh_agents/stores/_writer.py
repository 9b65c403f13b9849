"""The one thread of a store that writes: group commit, signs of life, and whatever else changes the database.

While the thread writes one batch of a journal, the next one grows on the event loop. What it finds waiting from several
journals shares a transaction, and each event loop is woken once for it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import math
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from rh_agents.core._loops.sleeping import since_boot
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Clock
from rh_agents.core.redaction import logger
from rh_agents.stores._backend import Backend, ConnectionLost, WriteSession
from rh_agents.stores._backend.beside import PresentRow
from rh_agents.stores._backend.rows import LeaseState
from rh_agents.stores._delivery import Delivery, Held, Holder, Job
from rh_agents.stores._reconnecting import Fate, attempts, fate, lost_by_server

T = TypeVar("T")

_LOG = logger("rh_agents.stores")
_LOOK_EVERY = 0.5
"""Seconds between two looks for requests to stop, while there is nothing to write."""
_LOOKS = 4
"""How often it is looked whether the thread hangs, in the time after which it does."""
_PATIENCE_AT_EXIT = 2.0
"""Seconds for which the interpreter's exit waits for what is being written."""


class Writer:
    """Owns the writing session and the thread that uses it. The thread is started when there is something to do.

    Args:
        backend: the database.
        clock: the time of day in seconds since 1970, which others see.
    """

    def __init__(self, backend: Backend, clock: Clock = time.time) -> None:
        self._backend = backend
        self._clock = clock
        self._queue: queue.SimpleQueue[Delivery | Job | None] = queue.SimpleQueue()
        # Reentrant: the garbage collector may find, while the lock is held, that nobody has the store any more.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._is_stopped = False
        self._session: WriteSession | None = None
        self._held: dict[tuple[int, int], Held] = {}
        self._looked_at = 0.0
        self._looks_at = math.inf
        """When it is to be looked after the runs that are held, at the latest."""
        self._is_cut_off = False
        self.said: deque[PresentRow] = deque()
        """What owners say that their runs are doing, to be written."""
        self._busy_since: float | None = None
        self._ended: Future[None] = Future()
        self.pid: int = os.getpid()
        self.is_foreign: bool = False
        """Whether this is a child of the process that has the thread."""
        _all.add(self)

    # -- from any thread ----------------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Write a batch as soon as possible. There is at most one of a journal at a time."""
        self._put(delivery)

    def do(
        self,
        work: Callable[[WriteSession], T],
        *,
        again: Callable[[WriteSession], T] | None = None,
        until: float = 0.0,
    ) -> Future[T]:
        """Do something with the session, after what was given before.

        The future has a `StoreError` if that failed. It is done in the writer's thread.

        Args:
            work: what to do.
            again: what to do instead if the way to the database broke meanwhile, when there is one again. What was to
                be done may have been done.
            until: up to this moment by the monotonic clock that is tried.
        """
        job = Job(work, Future(), again, until)
        self._put(job)
        return job.future

    async def done(
        self,
        work: Callable[[WriteSession], T],
        *,
        again: Callable[[WriteSession], T] | None = None,
        until: float = 0.0,
    ) -> T:
        """The same, and wait for it. It is done even if nobody waits any more.

        Raises:
            StoreError: it failed.
        """
        return await result_of(self.do(work, again=again, until=until))

    def lease_ends_at(self, number: int, fence: int) -> float:
        """Until when by the monotonic clock no one can have taken a run over; 0 of one that is not held here."""
        with self._lock:
            held = self._held.get((number, fence))
            return 0.0 if held is None else held.ends_at

    def hold(self, holder: Holder, since: float = -math.inf) -> Held:
        """Give signs of life for a run from now on, as long as the holder exists.

        Args:
            holder: who has it.
            since: a moment by `since_boot` before it was claimed: the process may have stood still since then.
        """
        key = (holder.number, holder.fence)
        with self._lock:
            now, before = time.monotonic(), self._held.get(key)
            seen_at = now if before is None else before.seen_at  # who only opened it hands it on
            certain_until = since + holder.lease if before is None else before.certain_until
            self._held[key] = held = Held(
                weakref.ref(holder), key, holder.lease, seen_at, now, certain_until=certain_until
            )
            self._looks_at = min(self._looks_at, held.due_at, held.asks_at, now + _LOOK_EVERY)
        self._put(Job(_nothing, Future()))  # so that the thread sees for how long it may sleep
        return held

    def drop(self, number: int, fence: int) -> None:
        """Give no more signs of life for a run."""
        with self._lock:
            self._held.pop((number, fence), None)

    def stop(self) -> None:
        """Let the thread write what was given before, close the session, and end. Later work is refused."""
        if self.is_foreign:
            return  # the thread is not in this process, and the lock may never be free again
        with self._lock:
            self._is_stopped = True
            if self._thread is not None:
                self._queue.put(None)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended."""
        thread = self._thread
        if thread is not None and not self.is_foreign:
            thread.join(timeout)

    async def ended(self) -> None:
        """Wait until the thread has ended, if there is one, unless it hangs."""
        if self._thread is not None:
            await self.unless_it_hangs(result_of(self._ended))

    async def unless_it_hangs(self, step: Awaitable[T], *, at_most: float | None = None) -> T:
        """Wait for something that the thread does, or does first, as long as it comes forward.

        A disk or a server may have stopped answering, and then a store must still be closed one day. Who makes calls
        waits on: no commit is reported before it is known. It is looked from a thread, since an event loop
        whose time jumps knows nothing of how long a disk takes.

        Args:
            step: what is waited for.
            at_most: the seconds after which it is not waited for in any case; None for no such bound.

        Raises:
            StoreError: a single thing that the thread does takes longer than the backend's `patience`, or the step took
                longer than `at_most`. Whether it will be done is unknown.
        """
        loop = asyncio.get_running_loop()
        done = asyncio.ensure_future(step)
        done.add_done_callback(_look_at)
        hangs: asyncio.Future[None] = loop.create_future()
        over = threading.Event()
        deadline = None if at_most is None else time.monotonic() + at_most

        def watch() -> None:
            while not over.wait(self._backend.patience / _LOOKS):
                if self._is_hanging() or (deadline is not None and time.monotonic() > deadline):
                    call_on(loop, _wake, hangs)
                    return

        threading.Thread(target=watch, name="rh_agents watch", daemon=True).start()
        try:
            either: list[asyncio.Future[Any]] = [done, hangs]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
        finally:
            over.set()
            done.cancel()
        raise StoreError(
            f"{self._backend.name} has not answered for more than {self._backend.patience:g} s: it is left as it is, "
            "and what was not acknowledged may be missing"
        )

    def _is_hanging(self) -> bool:
        since = self._busy_since
        return since is not None and time.monotonic() - since > self._backend.patience

    def expect_own_process(self) -> None:
        """Refuse to be used in a process that was forked.

        Raises:
            StoreError: it is used there.
        """
        if self.is_foreign:
            raise StoreError(
                f"the store {self._backend.name} was opened by process {self.pid} and cannot be used in its child "
                f"{os.getpid()}: open it again there"
            )

    def _put(self, item: Delivery | Job) -> None:
        self.expect_own_process()
        with self._lock:
            if self._is_stopped:
                raise StoreError(f"the store {self._backend.name} has been closed")
            if self._thread is None:
                # A daemon: a store that nobody has closed must not keep the interpreter from ending.
                self._thread = threading.Thread(target=self._run, name="rh_agents writer", daemon=True)
                self._thread.start()
                _running.add(self)
            self._queue.put(item)

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            self._busy_since = time.monotonic()
            self._close_session()
            self._refuse_the_rest()
            self._ended.set_result(None)

    def _turn(self) -> bool:
        """Wait for work and do what is there; False if it was the last."""
        deliveries: list[Delivery] = []
        self._busy_since = None
        item = self._next()
        self._busy_since = time.monotonic()
        while item is not _NOTHING:
            if isinstance(item, Delivery):
                if any(item.batch.number == other.batch.number for other in deliveries):  # of an earlier owner
                    self._write(deliveries)
                    deliveries = []
                deliveries.append(item)
            else:
                self._write(deliveries)
                deliveries = []
                if item is None:
                    return False
                self._do(item)
            item = self._next_nowait()
        self._write(deliveries)
        if self.said or time.monotonic() >= self._looks_at:
            self._look_after()
        return True

    def _next(self) -> Any:
        try:
            return self._queue.get(timeout=self._pause())
        except queue.Empty:
            return _NOTHING

    def _next_nowait(self) -> Any:
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return _NOTHING

    def _pause(self) -> float | None:
        """How long there is nothing to do but to wait, in seconds; None for ever."""
        return None if self._looks_at == math.inf else max(0.0, self._looks_at - time.monotonic())

    def _refuse_the_rest(self) -> None:
        """Leave nobody waiting for a thread that has ended, for whatever reason."""
        with self._lock:
            self._is_stopped = True
        while (item := self._next_nowait()) is not _NOTHING:
            error = StoreError(f"the store {self._backend.name} has been closed")
            if isinstance(item, Delivery):
                _report([(item, error)])
            elif item is not None:
                item.future.set_exception(error)

    def _connected(self) -> WriteSession:
        if self._session is not None and not self._session.is_usable():
            self._close_session()  # it has died while nothing was under way, so that nothing is unknown
        if self._session is None:
            self._session = self._backend.writing()
        return self._session

    def _close_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _write(self, deliveries: list[Delivery]) -> None:
        ready = [each for each in deliveries if self._keep_artifacts(each)]
        if not ready:
            return
        self._busy_since = time.monotonic()
        try:
            self._write_now(ready)
        except ConnectionLost as error:
            self._close_session()
            self._write_again(ready, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the journals must learn that nothing was written
            self._close_session()
            self._refuse(ready, error)

    def _write_now(self, deliveries: list[Delivery]) -> None:
        began = time.monotonic()
        states = self._connected().write([each.batch for each in deliveries], self._clock())
        took = time.monotonic() - began
        for each in deliveries:
            each.seconds = took
        self._seen(deliveries, began)
        _report(list(zip(deliveries, states, strict=True)))

    def _seen(self, deliveries: Iterable[Delivery], at: float) -> None:
        """What was written is a sign of life."""
        self._is_cut_off = False
        with self._lock:
            for each in deliveries:
                held = self._held.get((each.batch.number, each.batch.fence))
                if held is not None:
                    held.seen_at = held.tried_at = at

    def _refuse(self, deliveries: Iterable[Delivery], error: Exception) -> None:
        failure = self._as_store_error(error)
        _report([(each, failure) for each in deliveries])

    def _write_again(self, deliveries: list[Delivery], error: ConnectionLost) -> None:
        """Find out what was written before the way to the database broke, and write the rest, while leases last."""
        left = deliveries

        def until() -> float:
            return max((self._ends_at(each) for each in left), default=0.0)

        for _ in attempts(until):
            late = [each for each in left if self._ends_at(each) <= time.monotonic()]
            self._refuse(late, error)
            left = [each for each in left if each not in late]
            try:
                left = self._open(left)
                if left:
                    self._write_now(left)
            except ConnectionLost as lost:
                self._close_session()
                error = lost
            except Exception as other:  # noqa: BLE001 - as above
                self._close_session()
                self._refuse(left, other)
                return
            else:
                return
        self._refuse(left, error)

    def _ends_at(self, delivery: Delivery) -> float:
        return self.lease_ends_at(delivery.batch.number, delivery.batch.fence)

    def _open(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Those of which nothing was written; what became of the others is reported."""
        began = time.monotonic()
        standings = self._connected().standings([each.batch.number for each in deliveries])
        left: list[Delivery] = []
        results: list[tuple[Delivery, LeaseState | StoreError]] = []
        for each, standing in zip(deliveries, standings, strict=True):
            found = fate(each.batch, standing)
            if found is Fate.NOT_WRITTEN:
                left.append(each)
            elif found is Fate.CUT_SHORT:
                results.append((each, lost_by_server(self._backend.name, each.batch, standing)))
            else:
                is_ours = found is Fate.WRITTEN
                results.append((each, LeaseState(is_ours, standing.stop_requested if standing and is_ours else None)))
                self._seen([each] if is_ours else [], began)
        _report(results)
        return left

    def _keep_artifacts(self, delivery: Delivery) -> bool:
        """Keep the large values of what was noted; False if that failed, which has been reported."""
        if not delivery.artifacts:
            return True
        try:
            for data in delivery.artifacts:
                self._busy_since = time.monotonic()
                self._backend.artifacts.put(data)
        except Exception as error:  # noqa: BLE001 - as above
            _report([(delivery, self._as_store_error(error))])
            return False
        return True

    def _do(self, job: Job) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        self._busy_since = time.monotonic()
        try:
            result = self._result_of(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits must learn of it
            self._close_session()
            job.future.set_exception(self._as_store_error(error))
        else:
            job.future.set_result(result)

    def _result_of(self, job: Job) -> Any:
        try:
            return job.work(self._connected())
        except ConnectionLost as error:
            if job.again is None:
                raise
            lost = error
        for _ in attempts(lambda: job.until):
            self._close_session()
            try:
                return job.again(self._connected())
            except ConnectionLost as error:
                lost = error
        raise lost

    def _as_store_error(self, error: Exception) -> StoreError:
        if isinstance(error, StoreError):
            return error
        wrapped = StoreError(f"{self._backend.name}: {type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return wrapped

    # -- leases -------------------------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        """Give the signs of life that are due, and see now and then whether somebody wants a run to be stopped."""
        self._busy_since = now = time.monotonic()
        with self._lock:
            for key in [key for key, held in self._held.items() if not held.is_alive]:
                del self._held[key]
            due = [held for held in self._held.values() if held.due_at <= now]
            others = (
                []
                if now < self._looked_at + _LOOK_EVERY
                else [held for held in self._held.values() if held.due_at > now]
            )
        for held in due:
            held.tried_at = now
        try:
            if due:
                began = since_boot()
                states = self._connected().renew([held.key for held in due], self._clock())
                for held, state in zip(due, states, strict=True):
                    held.seen_at = now
                    if state.is_ours:  # else calls could begin before the loop has heard that it is not
                        held.certain_until = began + held.lease
                self._report_leases(due, states)
                self._is_cut_off = False
            self._ask_and_say(now)
            if others and now >= self._looked_at + _LOOK_EVERY:
                self._looked_at = now
                self._report_leases(others, self._connected().look([held.key for held in others]) or ())
        except Exception as error:  # noqa: BLE001 - nothing is lost yet: if the run is, the next batch will be refused
            self._close_session()
            if not self._is_cut_off:
                self._is_cut_off = True
                _LOG.warning("no sign of life could be given for the runs in %s: %s", self._backend.name, error)
        with self._lock:
            times = [now + _LOOK_EVERY, *(min(held.due_at, held.asks_at) for held in self._held.values())]
            self._looks_at = min(times) if self._held else math.inf

    def _ask_and_say(self, now: float) -> None:
        """Ask owners now and then what their runs are doing, and write what they have said."""
        with self._lock:
            asked = [held for held in self._held.values() if now >= held.asks_at]
        for held in asked:
            held.asked_at = now
            holder = held.holder()
            if holder is not None:
                call_on(holder.loop, holder.look_at_run)
        rows: dict[int, PresentRow] = {}
        while self.said:
            row = self.said.popleft()
            rows[row.number] = row  # the newest of each run
        if rows:
            self._connected().say(list(rows.values()))

    def _report_leases(self, held: Iterable[Held], states: Iterable[LeaseState]) -> None:
        for each, state in zip(held, states, strict=False):  # none: nothing has changed
            holder = each.holder()
            if holder is not None and state != each.reported:
                each.reported = state
                call_on(holder.loop, holder.lease_changed, state)
            if not state.is_ours:
                each.certain_until = -math.inf
                self.drop(*each.key)


class _Nothing:
    """What a queue that is empty gives."""


_NOTHING = _Nothing()
_running: weakref.WeakSet[Writer] = weakref.WeakSet()
_all: weakref.WeakSet[Writer] = weakref.WeakSet()


def _forked() -> None:
    """This is a child of the process that has all the threads. To ask for it each time would take a system call."""
    for writer in list(_all):
        writer.is_foreign = True


if hasattr(os, "register_at_fork"):  # else processes are not forked
    os.register_at_fork(after_in_child=_forked)


def _nothing(_: WriteSession) -> None:
    """Wakes the thread up."""


@atexit.register
def _finish() -> None:
    """Let writers whose store nobody has closed finish: a thread that is ended within C code may keep a lock."""
    running = [writer for writer in _running if not writer.is_foreign]
    for writer in running:
        writer.stop()
    end = time.monotonic() + _PATIENCE_AT_EXIT
    for writer in running:
        writer.join(max(0.0, end - time.monotonic()))


async def result_of(future: Future[T]) -> T:
    """What a future of a thread comes to. Who stops waiting for it does not cancel it."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda _: call_on(loop, _wake, waiter))
    await waiter
    return future.result()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _look_at(future: asyncio.Future[Any]) -> None:
    """Perhaps nobody waits for it any more, so that nobody else sees how it ended."""
    if not future.cancelled():
        future.exception()


def again(error: StoreError) -> StoreError:
    """The same error for somebody else: each raises his own, so that tracebacks do not grow into each other."""
    copy = StoreError.__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    copy.args = error.args
    copy.__cause__ = error.__cause__
    return copy


def _report(results: list[tuple[Delivery, LeaseState | StoreError]]) -> None:
    """Wake each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Delivery, LeaseState | StoreError]]] = {}
    for delivery, result in results:
        by_loop.setdefault(delivery.loop, []).append((delivery, result))
    for loop, its in by_loop.items():
        call_on(loop, _report_all, its)


def _report_all(results: list[tuple[Delivery, LeaseState | StoreError]]) -> None:
    for delivery, result in results:
        delivery.done(result)


def call_on(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Call a function on an event loop, from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
        loop.call_soon_threadsafe(function, *args)
