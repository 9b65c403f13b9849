"""A store with a database behind it: all of the port but SQL."""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from rh_agents.core._base.executions import without_executions
from rh_agents.core.errors import StoreError
from rh_agents.core.policies.child_runs import NewChild
from rh_agents.core.policies.sharing.windows import SharedState
from rh_agents.core.ports import CacheEntry, Clock, Question, RunRequest
from rh_agents.core.ports.control import ControlRequest, RunControl, Verb
from rh_agents.core.ports.keeping import ErasedRun, expect_values
from rh_agents.core.redaction import redact
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.values.answers import expect_fitting, expect_json, kept_answer, kept_arguments
from rh_agents.stores._absorbing import absorbed
from rh_agents.stores._asking import cancel_unexecuted
from rh_agents.stores._backend import Backend, WriteSession
from rh_agents.stores._backend.rows import ENDED, Batch, EventRow, RunRow
from rh_agents.stores._children import left_of, new_child_row, parent_lost
from rh_agents.stores._claims import Opening, facts_when_left
from rh_agents.stores._copying import copied
from rh_agents.stores._deleting import delete, delete_expired
from rh_agents.stores._erasing import erase
from rh_agents.stores._folding import fold
from rh_agents.stores._journal import SqlJournal
from rh_agents.stores._ownership import is_held, own_runs, taken
from rh_agents.stores._queueing import QueueingStore
from rh_agents.stores._repeated import warn_of_repeated
from rh_agents.stores._rows import edit, superseding
from rh_agents.stores._verified import VerifiedSession
from rh_agents.stores.artifacts import sweep

T = TypeVar("T")

_KEEP_ON_FOR = 10.0
"""Seconds for which what runs share is tried again when there is no way to the database."""
_LOOK_EVERY = 0.1
"""Seconds between two looks whether a request has been answered."""


class SqlStore(QueueingStore):
    """Runs in a database. Connects when it is first used.

    Args:
        backend: the database.
        clock: the time of day in seconds since 1970. (How long others were silent is measured by another clock.)
    """

    def __init__(self, backend: Backend, *, clock: Clock = time.time) -> None:
        super().__init__(backend, clock=clock)
        self._journals: weakref.WeakSet[SqlJournal] = weakref.WeakSet()

    # -- runs ---------------------------------------------------------------------------------------------------------

    async def open_run(self, request: RunRequest) -> SqlJournal:
        """Begin the run, or continue it, or begin a new epoch of it if it had ended."""
        await self._get_ready()
        claimed = self._claimed.pop(request.run_id, None)
        if claimed is None:
            opening = Opening(asyncio.get_running_loop())
            before, row = await self._claims.claim(request, opening.process)
        else:
            opening, before, row = claimed
        try:
            opening.is_of(row)
            self.engine.writer.hold(opening, opening.since)
            recorded = await self.engine.read(lambda session: fold(session, row))
            warn_of_repeated(self._backend.name, row.run_id, recorded)
            info = dataclasses.replace(before.info, epoch=row.epoch)
            journal = SqlJournal(self.engine, row, info, recorded, opening.process.opening)
        except BaseException:
            self.engine.writer.drop(row.number, row.fence)
            self._claims.release_later(row)
            raise
        journal.held = self.engine.writer.hold(journal)
        own_runs[journal.opening] = journal
        self._journals.add(journal)
        return journal

    # -- changes from outside -----------------------------------------------------------------------------------------

    async def supersede(self, run_id: str, keys: Sequence[bytes]) -> None:
        """Let these calls be made again when the run is executed the next time, though they have an outcome."""
        await self._get_ready()
        async with self._claims.held_with_children(run_id, "whoever supersedes outcomes of it") as (row, children):
            expect_values(row.info, "changed")
            row = await absorbed(self.engine, row, children)
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

    async def fork_run(
        self, run_id: str, new_run_id: str, leave_out: Sequence[bytes], edited: Sequence[Outcome]
    ) -> None:
        """Copy a run under another name, without the outcomes of some keys, and with some edited ones."""
        await self._get_ready()
        source = await self.engine.run(run_id)
        expect_values(source.info, "copied")
        edits = await self.engine.in_thread(lambda: [edit(outcome, self.engine.artifacts.put) for outcome in edited])
        left_out = frozenset(leave_out)
        now = self.engine.clock()
        left = await self.engine.read(lambda session: left_of(session, source, now))
        new = RunRow(
            number=0,
            run_id=new_run_id,
            status=ExecutionStatus.STARTED.value,
            epoch=source.epoch,
            workflow=source.workflow,
            input=source.input,
            input_digest=source.input_digest,
            tags=source.tags,
            facts=without_executions(source.facts),
            created_at=now,
            updated_at=now,
            lease=source.lease,
            forked_from=run_id,
        )

        def copy(session: WriteSession) -> bool:
            with self.engine.readers.session() as reading:
                return session.add(new, copied(reading, source, left_out, edits, left))

        if not await self.engine.writer.done(copy):
            raise StoreError(f"there is a run {new_run_id!r} already: fork to another name")

    async def request_stop(self, run_id: str, reason: str) -> bool:
        """Ask whoever executes the run to stop it; True if somebody does. Else the run is ended as CANCELLED."""
        await self._get_ready()
        reason = redact(reason)
        while True:
            row = await self.engine.run(run_id)
            if is_held(row, self.engine.clock()):
                await self.engine.writer.done(partial(_request_stop, row.number, reason))
                return True
            if row.status in ENDED or await self._claims.replaced(row, self._cancelled(row, reason)):
                await self.stop_children(run_id, None, reason)
                return False

    def _cancelled(self, row: RunRow, reason: str) -> RunRow:
        now = self.engine.clock()
        return dataclasses.replace(
            row,
            status=ExecutionStatus.CANCELLED.value,
            reason=reason,
            updated_at=now,
            ended_at=now,
            facts=facts_when_left(row),
            owner=None,
            process=None,
            fence=row.fence + 1,
            stop_requested=None,
            ready_at=None,
            claims=0,
        )

    def control(self, run_id: str) -> RunControl:
        """Steers a run, see `rh_agents.core.ports.control`."""
        return RunControl(self, run_id)

    async def request_control(
        self, run_id: str, verb: Verb, arguments: Mapping[str, Any], *, author: str | None = None, reason: str = ""
    ) -> ControlRequest:
        """Leave a request for the owner of a run."""
        await self._get_ready()
        row, now = await self.engine.run(run_id), self.engine.clock()
        kept = kept_arguments(verb, arguments)
        request = ControlRequest(run_id, uuid.uuid4().hex, verb, kept, author, reason, now)
        await self.engine.writer.done(lambda session: session.ask_for(row.number, request))
        if verb in (Verb.PAUSE, Verb.UNPAUSE) and not is_held(row, now):  # its owner passes it on where it has one
            for child in await self.children(run_id):
                if child.status not in ENDED:
                    await self.request_control(child.run_id, verb, arguments, author=author, reason=reason)
        return request

    async def cancel_unexecuted(self, request: ControlRequest, answer: Mapping[str, Any], why: str) -> bool:
        """End a run for good that nobody executes; False if somebody does."""
        return await cancel_unexecuted(self, request, answer, why)

    async def wait_for_control(self, request: ControlRequest, seconds: float) -> ControlRequest:
        """The request when its owner has acted on it; as it is after so many seconds if it has not."""
        ends_at = asyncio.get_running_loop().time() + seconds
        while True:
            found = await self.control_requests(request.run_id)
            request = next((each for each in found if each.id == request.id), request)
            if not request.is_open or asyncio.get_running_loop().time() >= ends_at:
                return request
            await asyncio.sleep(_LOOK_EVERY)

    async def delete_run(self, run_id: str) -> None:
        """Forget a run."""
        await self._get_ready()
        async with self._claims.held_with_children(run_id, "whoever deletes it") as (row, children):
            await delete(self.engine, row, children)

    async def erase_values(self, run_id: str) -> ErasedRun:
        """Erase the contents of a run for good."""
        await self._get_ready()
        async with self._claims.held_with_children(run_id, "whoever erases its values") as (row, children):
            return await erase(self.engine, await absorbed(self.engine, row, children))

    # -- child runs ---------------------------------------------------------------------------------------------------

    async def add_child(self, run_id: str, child: NewChild) -> None:
        """Add a run that executes a part of one that is open here."""
        await self._get_ready()
        journal = next((each for each in self._journals if each.info.run_id == run_id and each.is_open), None)
        if journal is None:
            raise parent_lost(child.run_id)
        fence = journal.fence
        new = new_child_row(child, journal.number, sha256(child.input).digest(), self.engine.clock())
        await self.engine.writer.done(lambda session: session.create(new, fence))

    async def stop_children(self, run_id: str, group: str | None, reason: str) -> None:
        """See to it that no worker takes child runs of a run, and ask those who execute one to stop it."""
        await self._get_ready()
        number, reason = (await self.engine.run(run_id)).number, redact(reason)
        await self.engine.writer.done(lambda session: session.stop_children(number, group, reason))

    # -- questions ----------------------------------------------------------------------------------------------------

    async def answer(self, run_id: str, question_id: str, answer: bytes, by: str | None = None) -> Question:
        """Answer an open question with plain JSON text that fits its schema."""
        await self._get_ready()
        expect_json(answer)
        number, now = (await self.engine.run(run_id)).number, self.engine.clock()
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
        await self._kept_on(lambda session: session.put_cached(entry))

    async def share(self, name: str, step: Callable[[SharedState, float], T]) -> T:
        """Change what all processes with this store share under a name, in one transaction."""
        await self._get_ready()
        clock = self.engine.clock
        return await self._kept_on(lambda session: session.share(name, step, clock))

    async def _kept_on(self, work: Callable[[WriteSession], T]) -> T:
        """Do what may be done twice, for some seconds also if the way to the database breaks meanwhile."""
        return await self.engine.writer.done(work, again=work, until=time.monotonic() + _KEEP_ON_FOR)

    # -- upkeep -------------------------------------------------------------------------------------------------------

    async def collect_garbage(self, *, min_age: float = 3600.0) -> int:
        """Delete artifacts that no run refers to and that are older than so many seconds; returns the bytes freed."""
        await self._get_ready()
        await delete_expired(self.engine)
        return await self.engine.read(lambda session: sweep(self.engine.artifacts, session.used_artifacts, min_age))

    async def aclose(self) -> None:
        """Write what waits in open journals, let go of their runs, and of files and connections."""
        if self._is_closed:
            return
        self.engine.writer.expect_own_process()
        self._is_closed = True
        for journal in list(self._journals):
            await journal.leave()
        for run_id in list(self._claimed):
            await self.give_back(run_id)
        await self.engine.in_thread(self._let_go_of_queues)
        await self.engine.aclose()


def _request_stop(number: int, reason: str, session: WriteSession) -> None:
    session.request_stop(number, reason)
