"""A store with a database behind it: all of the port but SQL."""

from __future__ import annotations

import asyncio
import dataclasses
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Admitted, CacheEntry, Clock, Question, RateWindow, RecordedEvent, RunInfo, RunRequest
from rh_agents.core.ports.summary import RunSummary
from rh_agents.core.redaction import redact
from rh_agents.core.results import Outcome, UnreadOutcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.values.answers import expect_fitting, expect_json, kept_answer
from rh_agents.stores._backend import (
    ENDED,
    Backend,
    Batch,
    EventRow,
    LeaseState,
    OutcomeRow,
    RunRow,
    StoredEvent,
    StoredOutcome,
    WriteSession,
)
from rh_agents.stores._checking import check
from rh_agents.stores._copying import copied
from rh_agents.stores._engine import Engine, Readers, releasing
from rh_agents.stores._folding import fold
from rh_agents.stores._journal import SqlJournal
from rh_agents.stores._owner import Process
from rh_agents.stores._ownership import is_dead, live, own_runs, taken
from rh_agents.stores._repeated import warn_of_repeated
from rh_agents.stores._rows import edit, event_of, header_of, outcome_of, read_artifact, superseding
from rh_agents.stores._summing import summary
from rh_agents.stores._verified import OutcomePlaces, VerifiedSession, with_outcomes
from rh_agents.stores._writer import result_of
from rh_agents.stores.artifacts import sweep

__all__ = ["SqlStore"]

T = TypeVar("T")

_CHUNK = 256
"""Events or outcomes that are read at a time; for people, so that the first ones come soon."""
_FOLLOW_EVERY = 0.05
"""Seconds between two looks whether somebody has written."""
_LOOKS = 20
"""After so many a follower sees whether the owner has died."""


class SqlStore:
    """Runs in a database. Connects when it is first used.

    Args:
        backend: the database.
        clock: the time of day in seconds since 1970. (How long others were silent is measured by another clock.)
    """

    def __init__(self, backend: Backend, *, clock: Clock = time.time) -> None:
        self.engine: Engine = Engine(backend, clock)
        self._backend = backend
        self._journals: weakref.WeakSet[SqlJournal] = weakref.WeakSet()
        self._is_closed = False
        self._is_ready = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._backend.name!r})"

    # -- runs ---------------------------------------------------------------------------------------------------------

    async def open_run(self, request: RunRequest) -> SqlJournal:
        """Begin the run, or continue it, or begin a new epoch of it if it had ended."""
        await self._get_ready()
        opening = _Opening(asyncio.get_running_loop())
        before, row = await self._claim(request, opening.process)
        try:
            opening.is_of(row)
            self.engine.writer.hold(opening)
            recorded = await self.engine.read(lambda session: fold(session, row))
            warn_of_repeated(self._backend.name, row.run_id, recorded)
            info = dataclasses.replace(before.info, epoch=row.epoch)
            journal = SqlJournal(self.engine, row, info, recorded, opening.process.opening)
        except BaseException:
            self.engine.writer.drop(row.number, row.fence)
            self._release_later(row)
            raise
        self.engine.writer.hold(journal)
        own_runs[journal.opening] = journal
        self._journals.add(journal)
        return journal

    async def _claim(self, request: RunRequest, process: Process) -> tuple[RunRow, RunRow]:
        """Get hold of a run; returns its row as it was, and as it is now."""
        while True:
            before = await self.engine.read(lambda session: session.find_run(request.run_id))
            if before is None:
                before = RunRow(0, request.run_id, ExecutionStatus.PENDING, created_at=self.engine.clock())
                row = await self._created(self._opened(before, request, process))
            else:
                await self._expect_free(before)
                row = await self._replaced(before, self._opened(before, request, process))
            if row is not None:
                return before, row

    def _opened(self, before: RunRow, request: RunRequest, process: Process) -> RunRow:
        """The row of a run that is opened."""
        now = self.engine.clock()
        return dataclasses.replace(
            before,
            status=ExecutionStatus.STARTED.value,
            epoch=before.epoch + (before.status in ENDED),
            workflow=request.workflow or before.workflow,
            input=before.input if request.input is None else request.input,
            input_digest=request.input_digest or before.input_digest,
            tags=tuple(request.tags) or before.tags,
            facts=dict(request.facts) or before.facts,
            updated_at=now,
            ended_at=None,
            owner=request.owner,
            process=process.text,
            fence=before.fence + 1,
            heartbeat=before.heartbeat + 1,
            heartbeat_at=now,
            lease=request.lease,
            reason=None,
            stop_requested=None,
        )

    async def _claimed(self, future: Future[T]) -> T:
        """Whether a run is ours now. Whoever stops waiting for the answer does not keep it."""
        try:
            return await result_of(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._give_back)
            raise

    def _give_back(self, future: Future[Any]) -> None:
        if future.exception() is None and isinstance(row := future.result(), RunRow):
            self._release_later(row)

    def _release_later(self, row: RunRow) -> None:
        with suppress(StoreError):
            self.engine.writer.do(releasing(row.number, row.fence))

    async def _created(self, new: RunRow) -> RunRow | None:
        return await self._claimed(self.engine.writer.do(lambda session: session.create(new)))

    async def _replaced(self, expected: RunRow, new: RunRow) -> RunRow | None:
        return await self._claimed(
            self.engine.writer.do(lambda session: new if session.replace(expected, new) else None)
        )

    async def _expect_free(self, row: RunRow) -> None:
        """Wait until it is certain that nobody executes a run, if that is likely.

        Raises:
            RunIsLive: somebody does, or has begun to meanwhile.
        """
        if row.owner is None or is_dead(row):
            return
        if self._is_fresh(row):
            raise live(row)
        # The owner has been silent for longer than its lease, its clock compared with ours. They may differ, so that
        # this alone proves nothing: it has to be silent for as long by ours.
        loop = asyncio.get_running_loop()
        end = loop.time() + row.lease
        while loop.time() < end:
            await asyncio.sleep(min(max(row.lease / 10, 0.01), 1.0))
            now = await self.engine.read(lambda session: session.find_run(row.run_id))
            if now is None or now.owner is None:
                return
            if (now.number, now.fence, now.heartbeat) != (row.number, row.fence, row.heartbeat):
                raise live(now)

    def _is_fresh(self, row: RunRow) -> bool:
        """Whether the owner gave a sign of life within its lease, as far as clocks can be compared."""
        return 0.0 <= self.engine.clock() - row.heartbeat_at < row.lease

    def _is_held(self, row: RunRow) -> bool:
        """Whether somebody executes the run, as far as is known."""
        return row.owner is not None and not is_dead(row) and self._is_fresh(row)

    def _info(self, row: RunRow) -> RunInfo:
        return row.info if self._is_held(row) else dataclasses.replace(row.info, owner=None)

    async def find_run(self, run_id: str) -> RunInfo | None:
        """The run of this name, if there is one."""
        await self._get_ready()
        row = await self.engine.read(lambda session: session.find_run(run_id))
        return None if row is None else self._info(row)

    async def runs(
        self, *, status: ExecutionStatus | None = None, tag: str | None = None, updated_before: float | None = None
    ) -> list[RunInfo]:
        """The runs that fit, newest first."""
        await self._get_ready()
        wanted = None if status is None else status.value
        rows = await self.engine.read(lambda session: session.runs(wanted, tag, updated_before))
        return [self._info(row) for row in rows]

    # -- journals -----------------------------------------------------------------------------------------------------

    async def events(
        self, run_id: str, *, after: int = 0, follow: bool = False, values: bool = True
    ) -> AsyncIterator[RecordedEvent]:
        """The journal of a run in its order, from after the place `after`."""
        await self._get_ready()
        number = (await self._found(run_id)).number
        places = OutcomePlaces(number, run_id)
        changes = _Changes(self.engine.readers) if follow else None
        try:
            while True:
                # Looked at before the events are read: what the owner wrote before it let go is among them.
                run = await self._found(run_id)
                may_grow = follow and self._is_held(run)
                chunk = await self.engine.read(partial(self._events, places, after, values))
                for event in chunk:
                    yield event
                if chunk:
                    after = chunk[-1].sequence
                elif after < run.last_sequence:
                    raise self.engine.missing(run_id, f"event {after + 1}")
                elif changes is None or not may_grow:
                    return
                else:
                    await changes.wait()
        finally:
            if changes is not None:
                changes.stop()

    def _events(self, places: OutcomePlaces, after: int, values: bool, session: VerifiedSession) -> list[RecordedEvent]:
        rows = session.events(places.number, places.run_id, after, _CHUNK)
        return [
            RecordedEvent(stored.row.sequence, self._event(stored, places.run_id, values), stored.row.ok is not None)
            for stored in with_outcomes(session, places, rows)
        ]

    def _event(self, stored: StoredEvent, run_id: str, values: bool) -> Any:
        try:
            data = self._data(stored.outcome) if values and stored.outcome is not None else None
            return event_of(stored, data, run_id)
        except Exception as error:
            raise self.engine.unreadable(run_id, stored.row.sequence, error) from error

    def _data(self, row: OutcomeRow) -> bytes | None:
        """The value of an outcome, from wherever it is."""
        return row.value if row.artifact is None else read_artifact(self.engine.artifacts, row)

    async def outcomes(self, run_id: str, *, unknown_ok: bool = False) -> AsyncIterator[Outcome]:
        """What the calls of a run came to, in the order in which that was recorded."""
        async for outcome in self._outcomes(run_id, partial(self._outcome, run_id, unknown_ok=unknown_ok)):
            yield outcome

    async def unread_outcomes(self, run_id: str) -> AsyncIterator[UnreadOutcome]:
        """The same without decoding any value."""
        async for outcome in self._outcomes(run_id, partial(self._unread, run_id)):
            yield outcome

    async def _outcomes(self, run_id: str, make: Callable[[StoredOutcome], T]) -> AsyncIterator[T]:
        """What `make` makes of the stored outcomes of a run, in a thread of those who read."""
        await self._get_ready()
        run = await self._found(run_id)
        later = set(await self.engine.read(lambda session: session.later_outcomes(run.number)))
        after = count = 0
        while True:
            chunk = await self.engine.read(partial(_made, make, run.number, run_id, after, later))
            for _, outcome in chunk:
                if outcome is not None:
                    yield outcome
            count += len(chunk)
            if len(chunk) < _CHUNK:
                break
            after = chunk[-1][0]
        if count < run.outcomes:  # it may be more by now
            raise self.engine.missing(run_id, f"one of {run.outcomes} outcomes")

    def _outcome(self, run_id: str, stored: StoredOutcome, *, unknown_ok: bool = False) -> Outcome:
        try:
            return outcome_of(stored, self._data(stored.row), unknown_ok=unknown_ok)
        except Exception as error:
            raise self.engine.unreadable(run_id, stored.row.sequence, error) from error

    def _unread(self, run_id: str, stored: StoredOutcome) -> UnreadOutcome:
        is_large = stored.row.artifact is not None
        return UnreadOutcome(header_of(stored), partial(self._outcome, run_id, stored), is_large)

    async def summary(self, run_id: str, *, after: int = 0, until: int | None = None) -> RunSummary:
        """The events of a run in numbers, computed by the database."""
        await self._get_ready()
        run = await self._found(run_id)
        return await self.engine.read(lambda session: summary(session, run, after, until))

    # -- changes from outside -----------------------------------------------------------------------------------------

    async def supersede(self, run_id: str, keys: Sequence[bytes]) -> None:
        """Let these calls be made again when the run is executed the next time, though they have an outcome."""
        await self._get_ready()
        async with self._held(run_id, "whoever supersedes outcomes of it") as row:
            marks = await self.engine.read(lambda session: self._marks(session, row, keys))
            batch = Batch(row.number, row.fence, row.last_sequence, marks, [])
            now = self.engine.clock()
            if marks and not (await self.engine.writer.done(lambda session: session.write([batch], now)))[0].is_ours:
                raise taken(row)

    def _marks(self, session: VerifiedSession, row: RunRow, keys: Sequence[bytes]) -> list[EventRow]:
        """The events that say so: like those that report the outcomes."""
        now = self.engine.clock()
        places = fold(session, row).finished
        return [
            superseding(session.events(row.number, row.run_id, places[key] - 1, 1)[0], row.last_sequence + count, now)
            for count, key in enumerate([key for key in keys if key in places], 1)
        ]

    @asynccontextmanager
    async def _held(self, run_id: str, owner: str) -> AsyncIterator[RunRow]:
        """Keep a run for a moment, so that nobody opens it; its row as it is now.

        Raises:
            RunIsLive: somebody executes it.
        """
        opening = _Opening(asyncio.get_running_loop())
        while True:
            row = await self._found(run_id)
            await self._expect_free(row)
            mine = dataclasses.replace(
                row,
                owner=owner,
                process=opening.process.text,
                fence=row.fence + 1,
                heartbeat=row.heartbeat + 1,
                heartbeat_at=self.engine.clock(),
            )
            if await self._replaced(row, mine):
                break
        opening.is_of(mine)
        self.engine.writer.hold(opening)
        try:
            yield mine
        finally:
            self.engine.writer.drop(mine.number, mine.fence)
            await self.engine.release(mine.number, mine.fence)

    async def fork_run(
        self, run_id: str, new_run_id: str, leave_out: Sequence[bytes], edited: Sequence[Outcome]
    ) -> None:
        """Copy a run under another name, without the outcomes of some keys, and with some edited ones."""
        await self._get_ready()
        source = await self._found(run_id)
        edits = await self.engine.in_thread(lambda: [edit(outcome, self.engine.artifacts.put) for outcome in edited])
        left_out = frozenset(leave_out)
        now = self.engine.clock()
        new = RunRow(
            number=0,
            run_id=new_run_id,
            status=ExecutionStatus.STARTED.value,
            epoch=source.epoch,
            workflow=source.workflow,
            input=source.input,
            input_digest=source.input_digest,
            tags=source.tags,
            facts=source.facts,
            created_at=now,
            updated_at=now,
            lease=source.lease,
            forked_from=run_id,
        )

        def copy(session: WriteSession) -> bool:
            with self.engine.readers.session() as reading:
                return session.add(new, copied(reading, source, left_out, edits))

        if not await self.engine.writer.done(copy):
            raise StoreError(f"there is a run {new_run_id!r} already: fork to another name")

    async def request_stop(self, run_id: str, reason: str) -> bool:
        """Ask whoever executes the run to stop it; True if somebody does. Else the run is ended as CANCELLED."""
        await self._get_ready()
        reason = redact(reason)
        while True:
            row = await self._found(run_id)
            if self._is_held(row):
                await self.engine.writer.done(partial(_request_stop, row.number, reason))
                return True
            if row.status in ENDED or await self._replaced(row, self._cancelled(row, reason)):
                return False

    def _cancelled(self, row: RunRow, reason: str) -> RunRow:
        now = self.engine.clock()
        return dataclasses.replace(
            row,
            status=ExecutionStatus.CANCELLED.value,
            reason=reason,
            updated_at=now,
            ended_at=now,
            owner=None,
            process=None,
            fence=row.fence + 1,
            stop_requested=None,
        )

    async def delete_run(self, run_id: str) -> None:
        """Forget a run."""
        await self._get_ready()
        async with self._held(run_id, "whoever deletes it") as row:
            if not await self.engine.writer.done(lambda session: session.delete(row.number, row.fence)):
                raise taken(row)

    # -- questions ----------------------------------------------------------------------------------------------------

    async def questions(self, run_id: str | None = None, *, is_open: bool = True) -> list[Question]:
        """The questions of a run or of all, oldest first."""
        await self._get_ready()
        return await self.engine.read(lambda session: session.questions(run_id, is_open))

    async def answer(self, run_id: str, question_id: str, answer: bytes, by: str | None = None) -> Question:
        """Answer an open question with plain JSON text that fits its schema."""
        await self._get_ready()
        expect_json(answer)
        number, now = (await self._found(run_id)).number, self.engine.clock()
        asked = await self.engine.read(lambda session: session.question(number, run_id, question_id))
        if asked is not None and asked.answer is None:
            expect_fitting(asked.schema, answer)
        kept = kept_answer(answer)
        is_accepted = await self.engine.writer.done(lambda session: session.answer(number, question_id, kept, by, now))
        found = await self.engine.read(lambda session: session.question(number, run_id, question_id))
        if found is None:
            raise StoreError(f"run {run_id!r} has asked no question {question_id!r}")
        if not is_accepted:
            raise StoreError(f"question {question_id!r} of run {run_id!r} has been answered")
        return found

    # -- what runs and processes share --------------------------------------------------------------------------------

    async def find_cached(self, key: bytes, *, now: float) -> CacheEntry | None:
        """What is kept under a key and has not expired at `now`."""
        await self._get_ready()
        return await self.engine.read(lambda session: session.find_cached(key, now))

    async def put_cached(self, entry: CacheEntry) -> None:
        """Keep a value under its key, in place of what was there."""
        await self._get_ready()
        await self.engine.writer.done(lambda session: session.put_cached(entry))

    async def admit(self, window: RateWindow, amounts: Mapping[str, float]) -> Admitted:
        """Take amounts out of a window that all processes with this store share, or say when to ask again."""
        await self._get_ready()
        now = self.engine.clock()
        return await self.engine.writer.done(lambda session: session.admit(window, amounts, now))

    async def settle(self, window: RateWindow, ticket: str, amounts: Mapping[str, float]) -> None:
        """Let a ticket count for what was really used instead."""
        await self._get_ready()
        await self.engine.writer.done(lambda session: session.settle(window, ticket, amounts))

    async def hold(self, window: RateWindow, seconds: float) -> None:
        """Admit nobody to the window for so many seconds from now, or for longer if that was said before."""
        await self._get_ready()
        now = self.engine.clock()
        await self.engine.writer.done(lambda session: session.hold(window, seconds, now))

    # -- upkeep -------------------------------------------------------------------------------------------------------

    async def collect_garbage(self, *, min_age: float = 3600.0) -> int:
        """Delete artifacts that no run refers to and that are older than so many seconds; returns the bytes freed."""
        await self._get_ready()
        now = self.engine.clock()
        await self.engine.writer.done(lambda session: session.delete_expired(now))
        return await self.engine.read(lambda session: sweep(self.engine.artifacts, session.used_artifacts, min_age))

    async def check(self) -> list[str]:
        """Look for damage: one line for each finding, none if all is well."""
        await self._get_ready()
        return await self.engine.read(lambda session: check(session, self.engine.artifacts))

    async def aclose(self) -> None:
        """Write what waits in open journals, let go of their runs, and of files and connections."""
        if self._is_closed:
            return
        self.engine.writer.expect_own_process()
        self._is_closed = True
        for journal in list(self._journals):
            await journal.leave()
        await self.engine.aclose()

    # -- threads ------------------------------------------------------------------------------------------------------

    async def _get_ready(self) -> None:
        """Connect and bring the schema up to date, the first time; refuse to work when that is no longer possible."""
        self.engine.writer.expect_own_process()
        if self._is_closed:
            raise StoreError(f"the store {self._backend.name} has been closed")
        if not self._is_ready:
            if self._backend.is_read_only:
                await self.engine.read(_nothing)
            else:
                await self.engine.writer.done(_connect)
            self._is_ready = True

    async def _found(self, run_id: str) -> RunRow:
        row = await self.engine.read(lambda session: session.find_run(run_id))
        if row is None:
            raise StoreError(f"there is no run {run_id!r} in {self._backend.name}")
        return row


class _Opening:
    """Holds a run while it is being opened, or changed from outside."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.process = Process.here()
        self.loop = loop
        self.number = self.fence = 0
        self.lease = 0.0
        own_runs[self.process.opening] = self

    def is_of(self, row: RunRow) -> None:
        """This is the run."""
        self.number, self.fence, self.lease = row.number, row.fence, row.lease

    def lease_changed(self, state: LeaseState) -> None:
        """It will be seen when something is written."""


class _Changes:
    """Waits until somebody may have written, with a session of its own: what is news depends on what it saw before."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._session: VerifiedSession | None = None

    async def wait(self) -> None:
        """Return after a change, or after a while: that an owner has died changes nothing in the database."""
        for _ in range(_LOOKS):
            if await self._readers.in_thread(self._has_changed):
                return
            await asyncio.sleep(_FOLLOW_EVERY)

    def _has_changed(self) -> bool:
        if self._session is None:
            self._session = self._readers.connect()
        return self._session.has_changed()

    def stop(self) -> None:
        """Let go of the session."""
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _made(
    make: Callable[[StoredOutcome], T], number: int, run_id: str, after: int, later: set[int], session: VerifiedSession
) -> list[tuple[int, T | None]]:
    """What is made of outcomes, by their places; None of those that count for nothing."""
    found = session.outcomes(number, run_id, after, _CHUNK)
    return [(stored.sequence, None if later and stored.sequence in later else make(stored)) for stored in found]


def _request_stop(number: int, reason: str, session: WriteSession) -> None:
    session.request_stop(number, reason)


def _connect(_: WriteSession) -> None:
    """The writer connects before it does anything, which is all that is wanted."""


def _nothing(_: VerifiedSession) -> None:
    """Whoever reads connects before, which says whether there is anything to be read."""
