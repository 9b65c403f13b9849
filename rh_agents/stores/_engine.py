"""What a store and its open journals share: the database, the thread that writes, and those that read."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from rh_agents.core.errors import StoreError, ValuesErased
from rh_agents.core.ports import Clock
from rh_agents.core.ports.keeping import erasure_of
from rh_agents.stores._backend import Backend, WriteSession
from rh_agents.stores._backend.rows import RunRow
from rh_agents.stores._delivery import Holder
from rh_agents.stores._ownership import own_runs
from rh_agents.stores._parts import Steps
from rh_agents.stores._verified import REMEDY, VerifiedSession, damaged
from rh_agents.stores._writer import Writer, result_of
from rh_agents.stores.artifacts import ArtifactStore

T = TypeVar("T")

_READERS = 4
"""Threads that read, each with a connection of its own."""
_AT_ONCE = 2
"""Of these, so many work for one reader who has to look through a whole journal."""


class Engine:
    """The database behind a store, for the store and for its journals. It stops writing when nothing refers to it.

    Args:
        backend: the database.
        clock: the time of day in seconds since 1970.
    """

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self.clock: Clock = clock
        self.artifacts: ArtifactStore = backend.artifacts
        self.writer: Writer = Writer(backend, clock)
        self.readers: Readers = Readers(backend)
        self._backend = backend
        self._stop = weakref.finalize(self, self.writer.stop)

    def forget(self, holder: Holder, opening: str) -> bool:
        """A journal is done with its run; False if that was known."""
        self.writer.drop(holder.number, holder.fence)
        return own_runs.pop(opening, None) is not None

    async def release(self, number: int, fence: int) -> None:
        """Let go of a run if that is possible, leaving its status as it is."""
        with suppress(StoreError):  # then another process takes it over when the lease has expired
            await self.writer.unless_it_hangs(self.writer.done(releasing(number, fence)))

    async def read(self, work: Callable[[VerifiedSession], T]) -> T:
        """Do something with a reading session, in another thread."""
        return await result_of(self.begin_to_read(work))

    async def read_in_steps(self, steps: Steps[T]) -> T:
        """Do a reading in steps, each in another thread, with a session of its own. See `_parts.Steps`."""
        try:
            next(steps)
        except StopIteration as end:  # there is nothing to read
            return end.value  # type: ignore[no-any-return]
        while True:
            found = await self.read(partial(_step, steps))
            if found is not None:
                return found[0]

    async def read_each(self, works: Iterable[Callable[[VerifiedSession], T]]) -> AsyncGenerator[T, None]:
        """Do things with reading sessions, `_AT_ONCE` at a time; gives what they come to, in their order."""
        waiting: deque[Future[T]] = deque()
        left = iter(works)
        try:
            while True:
                waiting.extend(map(self.begin_to_read, islice(left, _AT_ONCE - len(waiting))))
                if not waiting:
                    return
                yield await result_of(waiting[0])
                waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()  # what has begun comes to its end: it is short

    async def expect_unchanged(self, run: RunRow) -> None:
        """See to it that what was read of a run, a part at a time, was all of one journal.

        Args:
            run: its row before the first part was read.

        Raises:
            StoreError: its values have been erased, or it has been deleted, since then.
        """
        now = await self.read(lambda session: session.find_run(run.run_id))
        if now is None or (now.number, now.created_at) != (run.number, run.created_at):
            raise StoreError(f"{self._backend.name}: run {run.run_id!r} was deleted while it was read")
        if erasure_of(now.info) != erasure_of(run.info):
            raise StoreError(f"{self._backend.name}: the values of run {run.run_id!r} were erased while it was read")

    def begin_to_read(self, work: Callable[[VerifiedSession], T]) -> Future[T]:
        self.writer.expect_own_process()
        return self.readers.begin(work)

    async def run(self, run_id: str) -> RunRow:
        """The row of the run of this name.

        Raises:
            StoreError: there is none.
        """
        row = await self.read(lambda session: session.find_run(run_id))
        if row is None:
            raise self.no_run(run_id)
        return row

    def no_run(self, run_id: str) -> StoreError:
        """The error that says that there is no run of this name."""
        return StoreError(f"there is no run {run_id!r} in {self._backend.name}")

    async def in_thread(self, work: Callable[..., T], *args: Any) -> T:
        """Do something that blocks and needs no session."""
        return await self.readers.in_thread(work, *args)

    def is_erased(self, run_id: str) -> bool:
        """Whether the values of a run are being erased or were. To be asked in a thread that reads."""
        with self.readers.session() as session:
            row = session.find_run(run_id)
        return row is not None and erasure_of(row.info) is not None

    def unreadable(self, run_id: str, sequence: int, error: Exception) -> StoreError:
        """The error that says of which event the value cannot be read, though its row is as it was written."""
        if isinstance(error, ValuesErased):
            return ValuesErased(f"{self._backend.name}: the values of run {run_id!r} were erased")
        why = str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
        return StoreError(f"{self._backend.name}: event {sequence} of run {run_id!r}: {why}")

    def missing(self, run_id: str, what: str) -> StoreError:
        """The error that says that a row is not there."""
        return StoreError(f"{self._backend.name}: {what} of run {run_id!r} is missing; {REMEDY}")

    async def aclose(self) -> None:
        """Write what waits, then let go of files, connections and threads.

        Raises:
            StoreError: the disk or the server does not answer.
        """
        self._stop.detach()
        self.writer.stop()
        try:
            closing = self.readers.in_thread(self.readers.close)
            await self.writer.unless_it_hangs(closing, at_most=self._backend.patience)
            await self.writer.ended()
        finally:
            self.readers.stop()


class Readers:
    """Threads that read, and the sessions they share: never more than there are threads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="rh_agents reader")
        self._idle: list[VerifiedSession] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def begin(self, work: Callable[[VerifiedSession], T]) -> Future[T]:
        return self._submit(self._do, work)

    async def in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await result_of(self._submit(work, *args))

    def _submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        try:
            return self._threads.submit(work, *args)
        except RuntimeError as error:  # it, or the interpreter, has been shut down
            raise StoreError(f"the store {self._backend.name} has been closed") from error

    def connect(self) -> VerifiedSession:
        """A session of one's own."""
        return VerifiedSession(self._backend.reading(), self._backend.name)

    def _do(self, work: Callable[[VerifiedSession], T]) -> T:
        with self.session() as session:
            try:
                return work(session)
            except StoreError:
                raise
            except Exception as error:
                # Where a disk has changed a byte, anything may be raised: this is where that ends.
                raise damaged(self._backend.name, "what was read", error) from error

    @contextmanager
    def session(self) -> Iterator[VerifiedSession]:
        """A session that nobody else uses meanwhile."""
        with self._lock:
            session = self._idle.pop() if self._idle else None
        if session is not None and not session.inner.is_in_place():
            session.close()  # who looks at a store for days must not be shown a file that is there no more
            session = None
        if session is None:
            session = self.connect()
        try:
            yield session
        except BaseException:
            session.close()
            raise
        with self._lock:
            if not self._is_closed:
                self._idle.append(session)
                return
        session.close()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    def stop(self) -> None:
        self._threads.shutdown(wait=False)


def releasing(number: int, fence: int) -> Callable[[WriteSession], bool]:
    return lambda session: session.release(number, fence, None, None, 0.0)


def _step(steps: Steps[T], session: VerifiedSession) -> tuple[T] | None:
    """The next step of a reading; its result if that was the last one."""
    try:
        steps.send(session)
    except StopIteration as end:
        return (end.value,)
    return None
