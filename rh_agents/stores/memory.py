"""Runs recorded in memory: the reference implementation of the `Store` port."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import time
import uuid
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from rh_agents.core._base.executions import closed, opened_again
from rh_agents.core._loops.homes import Waiter
from rh_agents.core.errors import StoreError
from rh_agents.core.policies.sharing.windows import SharedState
from rh_agents.core.ports import (
    CacheEntry,
    Clock,
    JournalEntry,
    Question,
    RecordedEvent,
    RunInfo,
    RunRequest,
)
from rh_agents.core.ports.control import ControlRequest, RunControl, Verb
from rh_agents.core.ports.keeping import ErasedRun, RunSize, expect_values
from rh_agents.core.ports.present import Present
from rh_agents.core.ports.streaming import StreamedText
from rh_agents.core.ports.summary import RunSummary, SummaryFold
from rh_agents.core.results import Outcome, UnreadOutcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.values import encode
from rh_agents.core.values.answers import expect_fitting, expect_json, kept_answer, kept_arguments
from rh_agents.stores._asking import cancel_unexecuted
from rh_agents.stores._backend.rows import ENDED
from rh_agents.stores._memory.journal import MemoryJournal, MemoryRun
from rh_agents.stores._memory.values import Encoded, is_long, read_beside, read_stored, size_of, with_edit
from rh_agents.stores._memory_queues import MemoryQueues
from rh_agents.stores._repeated import repeated_finding
from rh_agents.stores._streamed import key_of, text_of_rows, time_in

__all__ = ["MemoryJournal", "MemoryStore"]

T = TypeVar("T")
_LOOK_EVERY = 0.05
"""Seconds between two looks whether a request has been answered."""


class MemoryStore(MemoryQueues):
    """Keeps runs until it is thrown away. What it gives back is a copy, as from a store on disk.

    A run whose owner has not closed it, but is gone for Python, may be opened by the next one. While the owner is
    there, it keeps the run: nothing can die without its process here, so that leases do not expire.
    """

    def __init__(self, *, clock: Clock = time.time) -> None:
        super().__init__()
        self._runs: dict[str, MemoryRun] = {}
        self.clock: Clock = clock
        self.is_closed: bool = False
        self._cached: dict[bytes, CacheEntry] = {}
        self._shared: dict[str, SharedState] = {}

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._runs)} runs)"

    async def open_run(self, request: RunRequest) -> MemoryJournal:
        """Begin the run, or continue it, or begin a new epoch of it if it had ended."""
        self.expect_open()
        claimed = self._claimed.pop(request.run_id, None)
        if claimed is not None:
            journal: MemoryJournal = claimed[1]
            return journal
        return self._open_run(request)

    def _add_run(self, info: RunInfo) -> None:
        self._runs[info.run_id] = MemoryRun(info)

    def _open_run(self, request: RunRequest, claims: int | None = None) -> MemoryJournal:
        now = self.clock()
        run = self._runs.get(request.run_id)
        if run is None:
            run = self._runs[request.run_id] = MemoryRun(RunInfo(request.run_id, created_at=now))
        run.expect_free()
        expect_values(run.info, "resumed")
        before = run.info
        epoch = before.epoch + (before.status in ENDED)
        journal = self._make_journal(run, dataclasses.replace(before, epoch=epoch))
        run.info = dataclasses.replace(
            journal.info,
            status=ExecutionStatus.STARTED,
            workflow=request.workflow or before.workflow,
            input=request.input if request.input is not None else before.input,
            input_digest=request.input_digest or before.input_digest,
            tags=request.tags or before.tags,
            facts=dict(request.facts) or before.facts,
            updated_at=now,
            ended_at=None,
            reason=None,
            owner=request.owner,
            claims=before.claims if claims is None else claims,
            executions=opened_again(
                before.executions, before.created_at, before.updated_at, len(run.facts), now, epoch
            ),
        )
        run.take(journal)
        return journal

    def _make_journal(self, run: MemoryRun, info: RunInfo) -> MemoryJournal:
        return MemoryJournal(run, info, self)

    async def find_cached(self, key: bytes, *, now: float) -> CacheEntry | None:
        """What is kept under a key and has not expired at `now`."""
        self.expect_open()
        entry = self._cached.get(key)
        return None if entry is None or (entry.expires_at is not None and entry.expires_at <= now) else entry

    async def put_cached(self, entry: CacheEntry) -> None:
        """Keep a value under its key, in place of what was there."""
        self.expect_open()
        self._cached[entry.key] = entry

    async def share(self, name: str, step: Callable[[SharedState, float], T]) -> T:
        """Change what all runs with this store share under a name."""
        self.expect_open()
        state = copy.deepcopy(self._shared.get(name, {}))
        answer = step(state, self.clock())
        self._shared[name] = state
        return answer

    async def find_run(self, run_id: str) -> RunInfo | None:
        """The run of this name, if there is one."""
        self.expect_open()
        run = self._runs.get(run_id)
        return None if run is None else run.seen()

    async def runs(
        self,
        *,
        status: ExecutionStatus | None = None,
        tag: str | None = None,
        updated_before: float | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> list[RunInfo]:
        """The runs that fit, newest first."""
        self.expect_open()
        newest_first = sorted((run.seen() for run in self._runs.values()), key=lambda info: info.created_at)[::-1]
        if before is not None:
            self._run(before)
            names = [info.run_id for info in newest_first]
            newest_first = newest_first[names.index(before) + 1 :]
        found = [
            info
            for info in newest_first
            if (status is None or info.status is status)
            and (tag is None or tag in info.tags)
            and (updated_before is None or info.updated_at < updated_before)
        ]
        return found[:limit]

    async def events(
        self, run_id: str, *, after: int = 0, follow: bool = False, values: bool = True
    ) -> AsyncIterator[RecordedEvent]:
        """The journal of a run in its order, from after the place `after`."""
        self.expect_open()
        run = self._run(run_id)
        waiter = Waiter()
        run.followers.append(waiter)
        try:
            while True:
                while after < len(run.facts):
                    after += 1
                    fact = await run.fact(after, values=values)
                    yield RecordedEvent(after, fact.event(), run.has_outcome(after))
                if not follow or run.owner() is None:
                    return
                await waiter.wait()
        finally:
            run.followers.remove(waiter)

    async def outcomes(self, run_id: str, *, unknown_ok: bool = False) -> AsyncIterator[Outcome]:
        """What the calls of a run came to, in the order in which that was recorded."""
        self.expect_open()
        for stored in list(self._run(run_id).outcomes.values()):
            yield await read_beside(stored, unknown_ok=unknown_ok)

    async def unread_outcomes(self, run_id: str) -> AsyncIterator[UnreadOutcome]:
        """The same without decoding any value."""
        self.expect_open()
        for stored in list(self._run(run_id).outcomes.values()):
            yield UnreadOutcome(stored.header, partial(read_stored, stored), is_long(stored), stored.input)

    async def journal_entries(self, run_id: str, *, after: int = 0) -> AsyncIterator[JournalEntry]:
        """The journal of a run as its owner wrote it, from after the place `after`, as it is now."""
        self.expect_open()
        run = self._run(run_id)
        for sequence, (fact, stored) in enumerate(list(run.entries()), 1):
            if sequence > after:
                outcome = None if stored is None else await read_beside(stored)
                if outcome is not None and stored is not None:
                    outcome = outcome._replace(input=stored.input)
                yield JournalEntry(sequence, fact._replace(result=None), outcome)

    async def summary(self, run_id: str, *, after: int = 0, until: int | None = None) -> RunSummary:
        """The events of a run in numbers."""
        self.expect_open()
        outcomes = self._run(run_id).outcomes.values()
        places = {each.key.hex(): each.base.hex() for each in outcomes if each.base != each.key}
        fold = SummaryFold(after, places)
        for sequence, (fact, stored) in enumerate(self._run(run_id).entries(), 1):
            if until is None or sequence <= until:
                fold.add(sequence, fact.event(), has_outcome=stored is not None)
        return fold.summary()

    async def run_size(self, run_id: str) -> RunSize:
        """How much is kept of a run."""
        self.expect_open()
        run = self._run(run_id)
        size = sum(len(key) + size_of(stored) for key, stored in run.outcomes.items())
        return RunSize(size + len(run.info.input or b""))

    async def present(self, run_id: str) -> Present | None:
        """What a run is doing now, as far as is known."""
        self.expect_open()
        return self._run(run_id).present()

    async def version(self, run_id: str) -> Hashable:
        """Another value whenever something has been added to the journal of a run, or someone else has it."""
        self.expect_open()
        run = self._run(run_id)
        return run.info.created_at, run.fence, len(run.facts)

    async def watch(self, run_id: str, key: str | None = None) -> bool:
        """Say that someone looks at text of calls under way; False if no process executes the run."""
        self.expect_open()
        run, wanted = self._run(run_id), key_of(key)
        owner = run.owner()
        if owner is None:
            return False
        run.watched = {**run.watched, wanted: run.watched.get(wanted, 0.0) + 1.0}
        return owner.home.call(partial(owner.relay.watch, run.watched))

    async def streamed(self, run_id: str, key: str | None = None, *, after: str = "") -> StreamedText:
        """What is new of the text of calls under way."""
        self.expect_open()
        run = self._run(run_id)
        wanted = None if key is None else key_of(key)
        since = time_in(after, run.fence)
        texts = run.streamed.values() if wanted is None else [run.streamed.get(wanted, ())]
        rows = sorted((row for rows in list(texts) for row in list(rows) if row.at > since), key=lambda row: row.at)
        return text_of_rows(rows, run.fence, since)

    async def supersede(self, run_id: str, keys: Sequence[bytes]) -> None:
        """Let these calls be made again when the run is executed the next time, though they have an outcome."""
        self.expect_open()
        run = self._run(run_id)
        run.expect_free()
        expect_values(run.info, "changed")
        for key in keys:
            if key not in run.sequence_of:
                continue
            run.facts.append(run.facts[run.sequence_of[key] - 1].superseding(self.clock()))

    async def fork_run(
        self, run_id: str, new_run_id: str, leave_out: Sequence[bytes], edited: Sequence[Outcome]
    ) -> None:
        """Copy a run under another name, without the outcomes of some keys, and with some edited ones."""
        self.expect_open()
        run = self._run(run_id)
        expect_values(run.info, "copied")
        if new_run_id in self._runs:
            raise StoreError(f"there is a run {new_run_id!r} already: fork to another name")
        now = self.clock()
        info = dataclasses.replace(
            run.info, run_id=new_run_id, status=ExecutionStatus.STARTED, created_at=now, updated_at=now, ended_at=None,
            owner=None, reason=None, forked_from=run_id, queue=None, flow=None, priority=0, ready_at=None, claims=0,
            executions=(),
        )  # fmt: skip
        fork = MemoryRun(info)
        left_out, changed = set(leave_out), {outcome.key: outcome for outcome in edited}
        for fact, stored in run.entries():
            if fact.key in left_out:
                continue
            copy = fact._replace(run_id=new_run_id)
            if stored is not None and stored.key in fork.outcomes:
                stored = None  # it counts for nothing, but for what it cost
            if fact.key in changed:
                if stored is None and fact.status is ExecutionStatus.SUPERSEDED:
                    continue
                if stored is not None:
                    copy, edit = with_edit(copy, changed[stored.key])
                    stored = edit._replace(input=stored.input)
            fork.add(copy, stored)
        self._runs[new_run_id] = fork

    async def erase_values(self, run_id: str) -> ErasedRun:
        """Erase the contents of a run for good."""
        self.expect_open()
        run = self._run(run_id)
        run.expect_free()
        values = {stored.value.data for stored in run.outcomes.values() if isinstance(stored.value, Encoded)}
        values |= {encode(stored.value) for stored in run.outcomes.values() if not isinstance(stored.value, Encoded)}
        kept = {key: entry for key, entry in self._cached.items() if entry.run_id != run_id}
        found = {key for key, entry in kept.items() if entry.value in values}
        self._cached = {key: entry for key, entry in kept.items() if key not in found}
        return ErasedRun(run.erase(self.clock()), cached=len(found))

    async def questions(self, run_id: str | None = None, *, is_open: bool = True) -> list[Question]:
        """The questions of a run or of all, oldest first."""
        self.expect_open()
        found = [
            question
            for name, run in self._runs.items()
            if run_id is None or name == run_id
            for question in run.questions.values()
            if not is_open or question.answer is None
        ]
        return sorted(found, key=lambda question: question.asked_at)

    async def answer(self, run_id: str, question_id: str, answer: bytes, by: str | None = None) -> Question:
        """Answer an open question with plain JSON text that fits its schema."""
        self.expect_open()
        run = self._run(run_id)
        question = run.questions.get(question_id)
        if question is None:
            raise StoreError(f"run {run_id!r} has asked no question {question_id!r}")
        if question.answer is not None:
            raise StoreError(f"question {question_id!r} of run {run_id!r} has been answered")
        expect_json(answer)
        expect_fitting(question.schema, answer)
        answered = dataclasses.replace(
            question, answer=kept_answer(answer), answered_at=self.clock(), answered_by=by, problem=None
        )
        run.questions[question_id] = answered
        if run.is_sleeping():
            run.info = dataclasses.replace(run.info, ready_at=self.clock())
            self.wake_workers()
        return answered

    async def request_stop(self, run_id: str, reason: str) -> bool:
        """Ask the process that executes the run to stop it; True if one does. Else the run is ended as CANCELLED."""
        self.expect_open()
        run = self._run(run_id)
        owner = run.owner()
        if owner is None and run.info.status in ENDED:
            return False
        if owner is None:
            now, executions = self.clock(), closed(run.info.executions, run.info.updated_at)
            run.info = dataclasses.replace(
                run.info, status=ExecutionStatus.CANCELLED, reason=reason, updated_at=now, ended_at=now, owner=None,
                ready_at=None, claims=0, executions=executions,
            )  # fmt: skip
            return False
        owner.ask_to_stop(reason)
        return True

    # -- steering ---------------------------------------------------------------------------------------------------

    def control(self, run_id: str) -> RunControl:
        """Steers a run, see `rh_agents.core.ports.control`."""
        return RunControl(self, run_id)

    async def is_executed(self, run_id: str) -> bool:
        """Whether a process executes the run."""
        self.expect_open()
        return self._run(run_id).owner() is not None

    async def request_control(
        self, run_id: str, verb: Verb, arguments: Mapping[str, Any], *, author: str | None = None, reason: str = ""
    ) -> ControlRequest:
        """Leave a request for the owner of a run."""
        self.expect_open()
        run = self._run(run_id)
        request = ControlRequest(
            run_id, uuid.uuid4().hex, verb, kept_arguments(verb, arguments), author, reason, self.clock()
        )
        run.requests[request.id] = request
        if verb is Verb.SIGNAL and run.is_sleeping():
            run.info = dataclasses.replace(run.info, ready_at=self.clock())
            self.wake_workers()
        if (owner := run.owner()) is not None:
            owner.ask_to_look()
        return request

    async def control_requests(self, run_id: str, *, is_open: bool | None = None) -> list[ControlRequest]:
        """The requests for a run, oldest first."""
        self.expect_open()
        found = self._run(run_id).requests.values()
        return [request for request in found if is_open is None or request.is_open is is_open]

    async def cancel_unexecuted(self, request: ControlRequest, answer: Mapping[str, Any], why: str) -> bool:
        """End a run for good that no process executes; False if a process does."""
        return await cancel_unexecuted(self, request, answer, why)

    async def wait_for_control(self, request: ControlRequest, seconds: float) -> ControlRequest:
        """The request when its owner has acted on it; as it is after this many seconds if it has not."""
        ends_at = asyncio.get_running_loop().time() + seconds
        while True:
            self.expect_open()
            request = self._run(request.run_id).requests[request.id]
            if not request.is_open or asyncio.get_running_loop().time() >= ends_at:
                return request
            await asyncio.sleep(_LOOK_EVERY)

    async def delete_run(self, run_id: str) -> None:
        """Forget a run."""
        self.expect_open()
        self._run(run_id).expect_free()
        del self._runs[run_id]
        self._cached = {key: entry for key, entry in self._cached.items() if entry.run_id != run_id}

    async def collect_garbage(self, *, min_age: float = 3600.0) -> int:
        """There are no artifacts here: large results are kept with their outcomes."""
        self.expect_open()
        return 0

    async def check(self) -> list[str]:
        """Look for calls with two outcomes. Memory that is damaged cannot be trusted to say so."""
        self.expect_open()
        return [
            repeated_finding(name, outcome.key.hex(), sequence, run.sequence_of[outcome.key])
            for name, run in self._runs.items()
            for sequence, outcome in run.later.items()
        ]

    async def aclose(self) -> None:
        """From now on, nothing can be read or written."""
        self.is_closed = True

    def expect_open(self) -> None:
        """See to it that the store has not been closed.

        Raises:
            StoreError: it has been.
        """
        if self.is_closed:
            raise StoreError("the store has been closed")

    def _run(self, run_id: str) -> MemoryRun:
        run = self._runs.get(run_id)
        if run is None:
            raise StoreError(f"there is no run {run_id!r}")
        return run
