"""Runs recorded in memory: the reference implementation of the `Store` port."""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rh_agents.core._loops.homes import Home, Waiter, home
from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.errors import LeaseLost, RunIsLive, StoreError
from rh_agents.core.events import Fact
from rh_agents.core.ports import Admitted, CacheEntry, Clock, Question, RateWindow, RecordedEvent, RunInfo, RunRequest
from rh_agents.core.ports.control import ControlRequest, RunControl, Verb
from rh_agents.core.ports.keeping import ErasedRun, RunSize, expect_values, facts_when_erased, kind_of_error
from rh_agents.core.ports.present import Present
from rh_agents.core.ports.streaming import StreamedText, TextSink
from rh_agents.core.ports.summary import RunSummary, SummaryFold
from rh_agents.core.results import Outcome, UnreadOutcome, describe_error
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.values import (
    ERASED,
    decode,
    decode_error,
    encode,
    encode_error,
    encode_large,
    erased_value,
    is_erased_value,
)
from rh_agents.core.values.answers import expect_fitting, expect_json, kept_answer
from rh_agents.core.values.large import LARGE
from rh_agents.stores._backend import PieceCut, PieceRow
from rh_agents.stores._repeated import made_twice, repeated_finding, says_the_same, warn_of_repeated
from rh_agents.stores._streamed import TextRelay, key_of, text_of_rows, time_in
from rh_agents.stores._windows import Ticket, refusal

__all__ = ["MemoryJournal", "MemoryStore"]

_ENDED = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
_LOOK_EVERY = 0.05
"""Seconds between two looks whether a request has been answered."""
_AS_THEY_ARE = frozenset({str, int, float, bool, type(None), bytes})


class MemoryStore:
    """Keeps runs until it is thrown away. What it gives back is a copy, as from a store on disk.

    A run whose owner has not closed it, but is gone for Python, may be opened by the next one. While the owner is
    there, it keeps the run: nothing can die without its process here, so that leases do not expire.
    """

    def __init__(self, *, clock: Clock = time.time) -> None:
        self._runs: dict[str, _Run] = {}
        self._clock = clock
        self._is_closed = False
        self._cached: dict[bytes, CacheEntry] = {}
        self._windows: dict[str, _Window] = {}

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._runs)} runs)"

    async def open_run(self, request: RunRequest) -> MemoryJournal:
        """Begin the run, or continue it, or begin a new epoch of it if it had ended."""
        self._expect_open()
        now = self._clock()
        run = self._runs.get(request.run_id)
        if run is None:
            run = self._runs[request.run_id] = _Run(RunInfo(request.run_id, created_at=now))
        run.expect_free()
        expect_values(run.info, "resumed")
        before = run.info
        epoch = before.epoch + (before.status in _ENDED)
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
        )
        run.take(journal)
        return journal

    def _make_journal(self, run: _Run, info: RunInfo) -> MemoryJournal:
        return MemoryJournal(run, info, self)

    async def find_cached(self, key: bytes, *, now: float) -> CacheEntry | None:
        """What is kept under a key and has not expired at `now`."""
        self._expect_open()
        entry = self._cached.get(key)
        return None if entry is None or (entry.expires_at is not None and entry.expires_at <= now) else entry

    async def put_cached(self, entry: CacheEntry) -> None:
        """Keep a value under its key, in place of what was there."""
        self._expect_open()
        self._cached[entry.key] = entry

    async def admit(self, window: RateWindow, amounts: Mapping[str, float]) -> Admitted:
        """Take amounts out of a window, or say when to ask again."""
        self._expect_open()
        return self._windows.setdefault(window.name, _Window()).admit(window, amounts, self._clock())

    async def settle(self, window: RateWindow, ticket: str, amounts: Mapping[str, float]) -> None:
        """Let a ticket count for what was really used instead."""
        self._expect_open()
        self._windows.setdefault(window.name, _Window()).settle(ticket, amounts)

    async def hold(self, window: RateWindow, seconds: float) -> None:
        """Admit nobody to the window for so many seconds from now, or for longer if that was said before."""
        self._expect_open()
        kept = self._windows.setdefault(window.name, _Window())
        kept.held_until = max(kept.held_until, self._clock() + seconds)

    async def find_run(self, run_id: str) -> RunInfo | None:
        """The run of this name, if there is one."""
        self._expect_open()
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
        self._expect_open()
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
        self._expect_open()
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
        self._expect_open()
        for stored in list(self._run(run_id).outcomes.values()):
            yield await _read_beside(stored, unknown_ok=unknown_ok)

    async def unread_outcomes(self, run_id: str) -> AsyncIterator[UnreadOutcome]:
        """The same without decoding any value."""
        self._expect_open()
        for stored in list(self._run(run_id).outcomes.values()):
            yield UnreadOutcome(stored.header, partial(_read, stored), _is_long(stored), stored.input)

    async def summary(self, run_id: str, *, after: int = 0, until: int | None = None) -> RunSummary:
        """The events of a run in numbers."""
        self._expect_open()
        outcomes = self._run(run_id).outcomes.values()
        places = {each.key.hex(): each.base.hex() for each in outcomes if each.base != each.key}
        fold = SummaryFold(after, places)
        for sequence, (fact, stored) in enumerate(self._run(run_id).entries(), 1):
            if until is None or sequence <= until:
                fold.add(sequence, fact.event(), has_outcome=stored is not None)
        return fold.summary()

    async def run_size(self, run_id: str) -> RunSize:
        """How much is kept of a run."""
        self._expect_open()
        run = self._run(run_id)
        size = sum(len(key) + _size_of(stored) for key, stored in run.outcomes.items())
        return RunSize(size + len(run.info.input or b""))

    async def present(self, run_id: str) -> Present | None:
        """What a run is doing now, as far as is known."""
        self._expect_open()
        return self._run(run_id).present()

    async def watch(self, run_id: str, key: str | None = None) -> bool:
        """Say that somebody looks at text of calls under way; False if nobody executes the run."""
        self._expect_open()
        run, wanted = self._run(run_id), key_of(key)
        owner = run.owner()
        if owner is None:
            return False
        run.watched = {**run.watched, wanted: run.watched.get(wanted, 0.0) + 1.0}
        return owner.home.call(partial(owner.relay.watch, run.watched))

    async def streamed(self, run_id: str, key: str | None = None, *, after: str = "") -> StreamedText:
        """What is new of the text of calls under way."""
        self._expect_open()
        run = self._run(run_id)
        wanted = None if key is None else key_of(key)
        since = time_in(after, run.fence)
        texts = run.streamed.values() if wanted is None else [run.streamed.get(wanted, ())]
        rows = sorted((row for rows in list(texts) for row in list(rows) if row.at > since), key=lambda row: row.at)
        return text_of_rows(rows, run.fence, since)

    async def supersede(self, run_id: str, keys: Sequence[bytes]) -> None:
        """Let these calls be made again when the run is executed the next time, though they have an outcome."""
        self._expect_open()
        run = self._run(run_id)
        run.expect_free()
        expect_values(run.info, "changed")
        for key in keys:
            if key not in run.sequence_of:
                continue
            run.facts.append(run.facts[run.sequence_of[key] - 1].superseding(self._clock()))

    async def fork_run(
        self, run_id: str, new_run_id: str, leave_out: Sequence[bytes], edited: Sequence[Outcome]
    ) -> None:
        """Copy a run under another name, without the outcomes of some keys, and with some edited ones."""
        self._expect_open()
        run = self._run(run_id)
        expect_values(run.info, "copied")
        if new_run_id in self._runs:
            raise StoreError(f"there is a run {new_run_id!r} already: fork to another name")
        now = self._clock()
        info = dataclasses.replace(
            run.info, run_id=new_run_id, status=ExecutionStatus.STARTED, created_at=now, updated_at=now, ended_at=None,
            owner=None, reason=None, forked_from=run_id,
        )  # fmt: skip
        fork = _Run(info)
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
                    copy, edit = _edited(copy, changed[stored.key])
                    stored = edit._replace(input=stored.input)
            fork.add(copy, stored)
        self._runs[new_run_id] = fork

    async def erase_values(self, run_id: str) -> ErasedRun:
        """Erase the contents of a run for good."""
        self._expect_open()
        run = self._run(run_id)
        run.expect_free()
        values = {stored.value.data for stored in run.outcomes.values() if isinstance(stored.value, _Encoded)}
        values |= {encode(stored.value) for stored in run.outcomes.values() if not isinstance(stored.value, _Encoded)}
        kept = {key: entry for key, entry in self._cached.items() if entry.run_id != run_id}
        found = {key for key, entry in kept.items() if entry.value in values}
        self._cached = {key: entry for key, entry in kept.items() if key not in found}
        return ErasedRun(run.erase(self._clock()), cached=len(found))

    async def questions(self, run_id: str | None = None, *, is_open: bool = True) -> list[Question]:
        """The questions of a run or of all, oldest first."""
        self._expect_open()
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
        self._expect_open()
        run = self._run(run_id)
        question = run.questions.get(question_id)
        if question is None:
            raise StoreError(f"run {run_id!r} has asked no question {question_id!r}")
        if question.answer is not None:
            raise StoreError(f"question {question_id!r} of run {run_id!r} has been answered")
        expect_json(answer)
        expect_fitting(question.schema, answer)
        answered = dataclasses.replace(
            question, answer=kept_answer(answer), answered_at=self._clock(), answered_by=by, problem=None
        )
        run.questions[question_id] = answered
        return answered

    async def request_stop(self, run_id: str, reason: str) -> bool:
        """Ask whoever executes the run to stop it; True if somebody does. Else the run is ended as CANCELLED."""
        self._expect_open()
        run = self._run(run_id)
        owner = run.owner()
        if owner is None and run.info.status in _ENDED:
            return False
        if owner is None:
            now = self._clock()
            run.info = dataclasses.replace(
                run.info, status=ExecutionStatus.CANCELLED, reason=reason, updated_at=now, ended_at=now, owner=None
            )
            return False
        owner.ask_to_stop(reason)
        return True

    # -- steering ---------------------------------------------------------------------------------------------------

    def control(self, run_id: str) -> RunControl:
        """Steers a run, see `rh_agents.core.ports.control`."""
        return RunControl(self, run_id)

    async def is_executed(self, run_id: str) -> bool:
        """Whether somebody executes the run."""
        self._expect_open()
        return self._run(run_id).owner() is not None

    async def request_control(
        self, run_id: str, verb: Verb, arguments: Mapping[str, Any], *, author: str | None = None, reason: str = ""
    ) -> ControlRequest:
        """Leave a request for the owner of a run."""
        self._expect_open()
        run = self._run(run_id)
        request = ControlRequest(run_id, uuid.uuid4().hex, verb, dict(arguments), author, reason, self._clock())
        run.requests[request.id] = request
        if (owner := run.owner()) is not None:
            owner.ask_to_look()
        return request

    async def control_requests(self, run_id: str, *, is_open: bool | None = None) -> list[ControlRequest]:
        """The requests for a run, oldest first."""
        self._expect_open()
        found = self._run(run_id).requests.values()
        return [request for request in found if is_open is None or request.is_open is is_open]

    async def wait_for_control(self, request: ControlRequest, seconds: float) -> ControlRequest:
        """The request when its owner has acted on it; as it is after so many seconds if it has not."""
        ends_at = asyncio.get_running_loop().time() + seconds
        while True:
            self._expect_open()
            request = self._run(request.run_id).requests[request.id]
            if not request.is_open or asyncio.get_running_loop().time() >= ends_at:
                return request
            await asyncio.sleep(_LOOK_EVERY)

    async def delete_run(self, run_id: str) -> None:
        """Forget a run."""
        self._expect_open()
        self._run(run_id).expect_free()
        del self._runs[run_id]
        self._cached = {key: entry for key, entry in self._cached.items() if entry.run_id != run_id}

    async def collect_garbage(self, *, min_age: float = 3600.0) -> int:
        """There are no artifacts here: large results are kept with their outcomes."""
        self._expect_open()
        return 0

    async def check(self) -> list[str]:
        """Look for calls with two outcomes. Memory that is damaged cannot be trusted to say so."""
        self._expect_open()
        return [
            repeated_finding(name, outcome.key.hex(), sequence, run.sequence_of[outcome.key])
            for name, run in self._runs.items()
            for sequence, outcome in run.later.items()
        ]

    async def aclose(self) -> None:
        """From now on, nothing can be read or written."""
        self._is_closed = True

    def _expect_open(self) -> None:
        if self._is_closed:
            raise StoreError("the store has been closed")

    def _run(self, run_id: str) -> _Run:
        run = self._runs.get(run_id)
        if run is None:
            raise StoreError(f"there is no run {run_id!r}")
        return run


@dataclass(slots=True)
class _Run:
    info: RunInfo
    facts: list[Fact] = field(default_factory=list)
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)
    sequence_of: dict[bytes, int] = field(default_factory=dict)
    """Of the first outcome of each key, which is the one that counts."""
    later: dict[int, Outcome] = field(default_factory=dict)
    """Outcomes of keys that had one, by their sequences; there are none unless something has gone wrong."""
    questions: dict[str, Question] = field(default_factory=dict)
    requests: dict[str, ControlRequest] = field(default_factory=dict)
    fence: int = 0
    last_present: Present | None = None
    watched: Mapping[bytes, float] = field(default_factory=dict)
    streamed: dict[bytes, deque[PieceRow]] = field(default_factory=dict)
    """Text of calls under way, by key."""
    followers: list[Waiter] = field(default_factory=list)
    """Who reads the journal and waits for more, on whatever event loop."""
    _owner: weakref.ref[MemoryJournal] | None = None

    def owner(self) -> MemoryJournal | None:
        journal = None if self._owner is None else self._owner()
        return None if journal is None or journal.home.is_gone else journal

    def present(self) -> Present | None:
        """What it is doing now; once nobody can say it any more, what was said last."""
        journal = self.owner()
        if journal is not None:
            return journal.look()
        last = self.last_present
        return last if last is None or self.info.owner is not None else last.ended()

    def take(self, journal: MemoryJournal | None) -> None:
        self._owner = None if journal is None else weakref.ref(journal)
        if journal is not None:
            self.last_present = None  # an earlier owner said it
        self.watched, self.streamed = {}, {}
        self.wake_followers()

    def expect_free(self) -> None:
        if self.owner() is not None:
            owner = self.info.owner or "somebody"
            raise RunIsLive(f"run {self.info.run_id!r} is being executed by {owner}", owner=owner)

    def seen(self) -> RunInfo:
        return dataclasses.replace(
            self.info, outcomes=len(self.outcomes), owner=None if self.owner() is None else self.info.owner
        )

    def add(self, fact: Fact, stored: Outcome | None) -> None:
        self.facts.append(fact)
        if stored is not None and stored.key in self.outcomes:
            self.later[len(self.facts)] = stored
        elif stored is not None:
            self.outcomes[stored.key] = stored
            self.sequence_of[stored.key] = len(self.facts)

    def has_outcome(self, sequence: int) -> bool:
        """Whether the fact at a place reports an outcome."""
        key = self.facts[sequence - 1].key
        return sequence in self.later or (key is not None and self.sequence_of.get(key) == sequence)

    async def fact(self, sequence: int, *, values: bool) -> Fact:
        """The fact at a place, with the result of its call if values are wanted."""
        fact = self.facts[sequence - 1]
        if not values:
            return fact._replace(result=None)
        if fact.key is None or not fact.status.is_final:
            return fact
        key = fact.key
        stored = self.outcomes.get(key) if self.sequence_of.get(key) == sequence else self.later.get(sequence)
        if stored is None or not isinstance(stored.value, _Encoded):
            return fact
        return fact._replace(result=(await _read_beside(stored, unknown_ok=True)).value)

    def entries(self) -> Iterator[tuple[Fact, Outcome | None]]:
        """The facts, each with the outcome that it reports."""
        by_sequence = {self.sequence_of[key]: outcome for key, outcome in self.outcomes.items()} | self.later
        for sequence, fact in enumerate(self.facts, 1):
            yield fact, by_sequence.get(sequence)

    def fold(self) -> RecordedCalls:
        recorded = RecordedCalls()
        for sequence, (fact, outcome) in enumerate(self.entries(), 1):
            _add(recorded, sequence, fact, outcome)
        return recorded

    def erase(self, now: float) -> int:
        """Take the contents away; how many values there were."""
        before = [stored for stored in (*self.outcomes.values(), *self.later.values()) if not _is_erased(stored)]
        self.facts = [_erased_fact(fact) for fact in self.facts]
        self.outcomes = {key: _erased_outcome(stored) for key, stored in self.outcomes.items()}
        self.later = {sequence: _erased_outcome(stored) for sequence, stored in self.later.items()}
        self.questions.clear()
        self.requests.clear()
        self.last_present = None
        facts = facts_when_erased(self.info.facts, now, is_finished=True)
        self.info = dataclasses.replace(self.info, facts=facts, input=None, reason=None)
        return len(before)

    def wake_followers(self) -> None:
        """Wake those who follow the journal."""
        for follower in list(self.followers):
            follower.wake()


class MemoryJournal:
    """A run of a `MemoryStore` that is open for one owner."""

    def __init__(self, run: _Run, info: RunInfo, store: MemoryStore) -> None:
        self._run = run
        self._store = store
        self._on_stop_requested: Callable[[str], None] | None = None
        self._on_asked: Callable[[], None] | None = None
        self.home: Home = home()
        run.fence += 1
        self._fence = run.fence
        self._broken: StoreError | None = None
        self.info: RunInfo = info
        self.recorded: RecordedCalls = run.fold()
        warn_of_repeated("memory", info.run_id, self.recorded)
        self.stop_requested: str | None = None
        self.waiting: int = 0
        self._sample: Callable[[], Present | None] | None = None
        self.relay: TextRelay = TextRelay(store._clock, partial(_write_text, run, run.fence), self.recorded.finished)

    async def load(self, key: bytes) -> Outcome:
        """The outcome of a key in `recorded.finished`."""
        self._expect_mine()
        stored = self._run.outcomes.get(key)
        if stored is None:
            raise StoreError(f"run {self.info.run_id!r} has no outcome for key {key.hex()}")
        return await _read_beside(stored)

    def load_nowait(self, key: bytes) -> Outcome | None:
        """The same: memory has nothing to wait for, but for large values, which are read beside the event loop."""
        self._expect_mine()
        stored = self._run.outcomes.get(key)
        return None if stored is None or _is_long(stored) else _read(stored)

    def note(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        """Add a fact with its outcome. One that its key has already leaves no fact; another one stops the run."""
        return self._add(fact, outcome, None)

    def _add(self, fact: Fact, outcome: Outcome | None, stored: Outcome | None) -> Outcome | None:
        """The same; `stored` is the outcome as it is kept, if that is known."""
        self._expect_mine()
        run = self._run
        if outcome is not None:
            first = run.outcomes.get(outcome.key)
            stored = stored or _written(outcome)
            if first is not None:
                return self._earlier(first, stored)
            if stored is not outcome and fact.result is not None:
                fact = fact._replace(result=None)  # it may be changed from outside
        run.add(fact, stored)
        _add(self.recorded, len(run.facts), fact, outcome)
        if outcome is not None and self.relay.texts:
            for key in self.relay.ended([outcome]):
                run.streamed.pop(key, None)
        if run.followers:
            run.wake_followers()
        return outcome

    def _earlier(self, first: Outcome, stored: Outcome) -> Outcome:
        """The outcome that a key has already, which must be the same."""
        if not _is_same(first, stored):
            self._broken = made_twice(self.info.run_id, stored, self._run.sequence_of[stored.key])
            raise self._broken
        return _read(first)

    async def append(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        """The same as `note`: memory has nothing to wait for, but for large values, written beside the event loop."""
        stored = None
        if (
            outcome is not None
            and outcome.is_large
            and (outcome.error is not None or type(outcome.value) not in _AS_THEY_ARE)
        ):
            self._expect_mine()
            stored = await asyncio.to_thread(_written, outcome, encode_large)
        return self._add(fact, outcome, stored)

    async def flush(self) -> None:
        """Nothing waits."""
        self._expect_mine()

    async def ask(self, question: Question) -> Question:
        """Record that a question is open, or find it as it stands."""
        self._expect_mine()
        return self._run.questions.setdefault(question.id, question)

    async def reject_answer(self, question_id: str, problem: str) -> None:
        """Open the question again."""
        self._expect_mine()
        question = self._run.questions.get(question_id)
        if question is None:
            raise StoreError(f"run {self.info.run_id!r} has asked no question {question_id!r}")
        self._run.questions[question_id] = dataclasses.replace(
            question, answer=None, answered_at=None, answered_by=None, problem=problem
        )

    def when_stop_requested(self, tell: Callable[[str], None]) -> None:
        """Call `tell` when somebody asks for the run to be stopped."""
        self._on_stop_requested = tell
        if self.stop_requested is not None:
            tell(self.stop_requested)

    def present_with(self, sample: Callable[[], Present | None]) -> None:
        """Let those know what the run is doing who ask."""
        self._sample = sample

    def stream_with(self, changed: Callable[[TextSink | None], None]) -> None:
        """Call `changed` when somebody begins to look at text of calls, and with None when no one does."""
        self.relay.stream_with(changed)

    def look(self) -> Present | None:
        """What the run is doing now; on another event loop, what it was doing when that was asked last."""
        self.home.call(self._take_a_look)
        return self._run.last_present

    def _take_a_look(self) -> None:
        present = None if self._sample is None else self._sample()
        if present is not None and self._run.fence == self._fence:
            self._run.last_present = present

    def ask_to_stop(self, reason: str) -> None:
        """Somebody asks."""
        self.stop_requested = reason
        if self._on_stop_requested is not None:
            self._on_stop_requested(reason)

    async def requests(self) -> list[ControlRequest]:
        """The requests that are open, oldest first."""
        self._expect_mine()
        return [request for request in self._run.requests.values() if request.is_open]

    async def answer_request(self, request_id: str, answer: Mapping[str, Any]) -> None:
        """The event that applies a request is there."""
        self._expect_mine()
        requests, now = self._run.requests, self._store._clock()
        requests[request_id] = dataclasses.replace(requests[request_id], applied_at=now, answer=dict(answer))

    def when_asked(self, tell: Callable[[], None]) -> None:
        """Call `tell` when there is another request."""
        self._on_asked = tell

    def ask_to_look(self) -> None:
        """There is another request."""
        if self._on_asked is not None:
            self._on_asked()

    async def close(self, status: ExecutionStatus, reason: str | None = None) -> None:
        """Record how the run stands, and let go of it."""
        run = self._run
        if run.fence != self._fence:
            return
        self.relay.close()
        now = self._store._clock()
        ended_at = now if status in _ENDED else None
        run.info = dataclasses.replace(
            run.info, status=status, reason=reason, updated_at=now, ended_at=ended_at, owner=None
        )
        run.fence += 1
        run.take(None)

    def _expect_mine(self) -> None:
        self._store._expect_open()
        if self._broken is not None:
            raise self._broken
        if self._run.fence != self._fence:
            raise LeaseLost(f"run {self.info.run_id!r} is closed here, or somebody else has taken it over")


def _write_text(
    run: _Run, fence: int, rows: Sequence[PieceRow], cuts: Sequence[PieceCut], done: Callable[[], None]
) -> None:
    if run.fence == fence:
        for row in rows:
            run.streamed.setdefault(row.key, deque()).append(row)
        for key, *first in cuts:
            kept = run.streamed[key]
            while [kept[0].attempt, kept[0].position] < first:
                kept.popleft()
    done()


class _Window:
    """What was taken out of a shared window."""

    def __init__(self) -> None:
        self.held_until: float = 0.0
        self._tickets: dict[str, Ticket] = {}
        self._count = 0

    def admit(self, window: RateWindow, amounts: Mapping[str, float], now: float) -> Admitted:
        self._tickets = {name: each for name, each in self._tickets.items() if each.taken_at > now - window.per}
        refused = refusal(window, list(self._tickets.values()), self.held_until, amounts, now)
        if refused is not None:
            return refused
        self._count += 1
        self._tickets[str(self._count)] = Ticket(now, dict(amounts))
        return Admitted(str(self._count))

    def settle(self, ticket: str, amounts: Mapping[str, float]) -> None:
        if ticket in self._tickets:
            self._tickets[ticket] = self._tickets[ticket]._replace(amounts=dict(amounts))


def _add(recorded: RecordedCalls, sequence: int, fact: Fact, outcome: Outcome | None) -> None:
    failed_in = None if outcome is None or outcome.error is None else outcome.made_in
    recorded.add_fact(sequence, fact, outcome is not None, failed_in)


def _written(outcome: Outcome, encode: Callable[[object], bytes] = encode) -> Outcome:
    """The outcome as it is kept: what could be changed from outside is turned into text."""
    if outcome.error is None and type(outcome.value) in _AS_THEY_ARE:
        return outcome
    error: Any = None if outcome.error is None else encode_error(outcome.error)
    return outcome._replace(value=_Encoded(encode(outcome.value)), error=error)


def _is_erased(stored: Outcome) -> bool:
    return isinstance(stored.value, _Encoded) and is_erased_value(stored.value.data)


def _erased_outcome(stored: Outcome) -> Outcome:
    error: Any = stored.error
    if error is not None and not isinstance(error, bytes):
        error = encode_error(error)
    kind = "" if error is None else kind_of_error(describe_error(decode_error(error))) or "Exception"
    erased: Any = None if error is None else erased_value(kind)
    return stored._replace(value=_Encoded(ERASED), error=erased, input=None)


def _erased_fact(fact: Fact) -> Fact:
    """The fact without what the program has put there, and without texts of errors."""
    more = {name: value for name, value in (fact.more or {}).items() if name != "metadata"}
    group = more.get("group")
    if group is not None and group.ending is not None:
        more["group"] = group.model_copy(update={"ending": group.ending.model_copy(update={"message": None})})
    has_failed = fact.status in (ExecutionStatus.FAILED, ExecutionStatus.RETRYING, ExecutionStatus.CANCELLED)
    has_failed = has_failed and fact.kind is not EventType.CONTROL  # its message is a reason of a person
    message = kind_of_error(fact.message or "") if has_failed else ""
    return fact._replace(result=None, message=message or None, more=more or None)


def _size_of(stored: Outcome) -> int:
    """Bytes of the text of an outcome."""
    if not isinstance(stored.value, _Encoded):
        return len(encode(stored.value))
    error: Any = stored.error
    return len(stored.value.data if error is None else error)


def _is_long(stored: Outcome) -> bool:
    """Whether an outcome is kept as text that is to be read in a thread."""
    if not isinstance(stored.value, _Encoded):
        return False
    error: Any = stored.error
    return len(stored.value.data) > LARGE or (error is not None and len(error) > LARGE)


def _read(stored: Outcome, *, unknown_ok: bool = False) -> Outcome:
    if stored.input is not None:
        stored = stored._replace(input=None)  # as other stores, which keep it apart
    if not isinstance(stored.value, _Encoded):
        return stored
    error: Any = stored.error
    value = decode(stored.value.data, unknown_ok=unknown_ok)
    return stored._replace(value=value, error=None if error is None else decode_error(error, erased_ok=unknown_ok))


def _is_same(stored: Outcome, other: Outcome) -> bool:
    """Whether two outcomes, as they are kept, have the same value or the same error."""
    if isinstance(stored.value, _Encoded) and isinstance(other.value, _Encoded):
        return stored.error == other.error and says_the_same(stored.value.data, other.value.data)
    return repr((stored.value, stored.error)) == repr((other.value, other.error))


def _edited(fact: Fact, outcome: Outcome) -> tuple[Fact, Outcome]:
    """The fact about a call with another outcome than it had, and that outcome as it is kept."""
    error = outcome.error
    changed = fact._replace(
        status=ExecutionStatus.COMPLETED if error is None else ExecutionStatus.FAILED,
        result=outcome.value if error is None else None,
        message=None if error is None else describe_error(error),
        seconds=outcome.seconds,
        attempt=outcome.attempts,
    )
    return changed, _written(outcome)


async def _read_beside(stored: Outcome, *, unknown_ok: bool = False) -> Outcome:
    """The same; what is long is read in a thread."""
    if _is_long(stored):
        return await asyncio.to_thread(_read, stored, unknown_ok=unknown_ok)
    return _read(stored, unknown_ok=unknown_ok)


@dataclass(frozen=True, slots=True)
class _Encoded:
    data: bytes
