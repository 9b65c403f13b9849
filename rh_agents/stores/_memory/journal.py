"""Runs in memory: each with its journal, what stands beside that, and the owner that has it open."""

from __future__ import annotations

import asyncio
import dataclasses
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from rh_agents.core._loops.homes import Home, Waiter, home
from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.errors import LeaseLost, StoreError
from rh_agents.core.events import Fact
from rh_agents.core.groups import NOTHING_COUNTED
from rh_agents.core.ports import NOT_RESUMED, Clock, Question, Resumption, RunInfo
from rh_agents.core.ports.control import ControlRequest, Verb
from rh_agents.core.ports.keeping import facts_when_erased
from rh_agents.core.ports.present import Present
from rh_agents.core.ports.streaming import TextSink
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus, Generation
from rh_agents.core.values import encode_large
from rh_agents.stores._backend.beside import PieceCut, PieceRow
from rh_agents.stores._backend.rows import ENDED
from rh_agents.stores._memory.values import (
    AS_THEY_ARE,
    Encoded,
    erased_fact,
    erased_outcome,
    is_erased,
    is_long,
    is_same,
    read_beside,
    read_stored,
    written,
)
from rh_agents.stores._ownership import live
from rh_agents.stores._repeated import made_twice, warn_of_repeated
from rh_agents.stores._streamed import TextRelay


class Owner(Protocol):
    """A journal that is open: who executes the run."""

    @property
    def home(self) -> Home:
        """The event loop on which it was opened."""
        ...

    @property
    def relay(self) -> TextRelay:
        """Passes text of calls under way on."""
        ...

    def look(self) -> Present | None:
        """What the run is doing now."""
        ...

    def ask_to_stop(self, reason: str) -> None:
        """Somebody wants the run to be stopped."""
        ...

    def ask_to_look(self) -> None:
        """There is another request."""
        ...


@dataclass(slots=True)
class MemoryRun:
    """A run, its journal and who executes it."""

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
    _owner: weakref.ref[Owner] | None = None

    def owner(self) -> Owner | None:
        journal = None if self._owner is None else self._owner()
        return None if journal is None or journal.home.is_gone else journal

    def present(self) -> Present | None:
        """What it is doing now; once nobody can say it any more, what was said last."""
        journal = self.owner()
        if journal is not None:
            return journal.look()
        last = self.last_present
        return last if last is None or self.info.owner is not None else last.ended()

    def take(self, journal: Owner | None) -> None:
        self._owner = None if journal is None else weakref.ref(journal)
        if journal is not None:
            self.last_present = None  # an earlier owner said it
        self.watched, self.streamed = {}, {}
        self.wake_followers()

    def is_sleeping(self) -> bool:
        """Whether it is in a queue, waits for something, and is executed by no one."""
        return self.info.queue is not None and self.owner() is None and self.info.status is ExecutionStatus.AWAITING

    def expect_free(self) -> None:
        if self.owner() is not None:
            owner = self.info.owner or "somebody"
            raise live(self.info.run_id, owner, owner)

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
        if stored is None or not isinstance(stored.value, Encoded):
            return fact
        return fact._replace(result=(await read_beside(stored, unknown_ok=True)).value)

    def entries(self) -> Iterator[tuple[Fact, Outcome | None]]:
        """The facts, each with the outcome that it reports."""
        by_sequence = {self.sequence_of[key]: outcome for key, outcome in self.outcomes.items()} | self.later
        for sequence, fact in enumerate(self.facts, 1):
            yield fact, by_sequence.get(sequence)

    def fold(self) -> RecordedCalls:
        recorded = RecordedCalls()
        for sequence, (fact, outcome) in enumerate(self.entries(), 1):
            add_to(recorded, sequence, fact, outcome)
        return recorded

    def erase(self, now: float) -> int:
        """Take the contents away; how many values there were."""
        before = [stored for stored in (*self.outcomes.values(), *self.later.values()) if not is_erased(stored)]
        self.facts = [erased_fact(fact) for fact in self.facts]
        self.outcomes = {key: erased_outcome(stored) for key, stored in self.outcomes.items()}
        self.later = {sequence: erased_outcome(stored) for sequence, stored in self.later.items()}
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


def write_text(
    run: MemoryRun, fence: int, rows: Sequence[PieceRow], cuts: Sequence[PieceCut], done: Callable[[], None]
) -> None:
    if run.fence == fence:
        for row in rows:
            run.streamed.setdefault(row.key, deque()).append(row)
        for key, *first in cuts:
            kept = run.streamed[key]
            while [kept[0].attempt, kept[0].position] < first:
                kept.popleft()
    done()


def add_to(recorded: RecordedCalls, sequence: int, fact: Fact, outcome: Outcome | None) -> None:
    failed_in = None if outcome is None or outcome.error is None else outcome.made_in
    recorded.add_fact(sequence, fact, outcome is not None, failed_in)


class Memory(Protocol):
    """The store, as far as a journal needs it."""

    @property
    def clock(self) -> Clock:
        """The time of day in seconds since 1970."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be read or written any more."""
        ...

    def expect_open(self) -> None:
        """Raise `StoreError` if it has been closed."""
        ...

    def wake_workers(self) -> None:
        """Let those who wait for something to do look again."""
        ...


class MemoryJournal:
    """A run of a `MemoryStore` that is open for one owner."""

    def __init__(self, run: MemoryRun, info: RunInfo, store: Memory) -> None:
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
        self.relay: TextRelay = TextRelay(store.clock, partial(write_text, run, run.fence), self.recorded.finished)

    async def load(self, key: bytes) -> Outcome:
        """The outcome of a key in `recorded.finished`."""
        self._expect_mine()
        stored = self._run.outcomes.get(key)
        if stored is None:
            raise StoreError(f"run {self.info.run_id!r} has no outcome for key {key.hex()}")
        return await read_beside(stored)

    def load_nowait(self, key: bytes) -> Outcome | None:
        """The same: memory has nothing to wait for, but for large values, which are read beside the event loop."""
        self._expect_mine()
        stored = self._run.outcomes.get(key)
        return None if stored is None or is_long(stored) else read_stored(stored)

    def note(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        """Add a fact with its outcome. One that its key has already leaves no fact; another one stops the run."""
        if outcome is not None:
            return self._add(fact, outcome, None)
        self._expect_mine()
        self._enter(fact, None, None)
        return None

    def _add(self, fact: Fact, outcome: Outcome, stored: Outcome | None) -> Outcome:
        """The same; `stored` is the outcome as it is kept, if that is known."""
        self._expect_mine()
        first = self._run.outcomes.get(outcome.key)
        stored = stored or written(outcome)
        if first is not None:
            return self._earlier(first, stored)
        if stored is not outcome and fact.result is not None:
            fact = fact._replace(result=None)  # it may be changed from outside
        self._enter(fact, stored, None if outcome.error is None else outcome.made_in)
        if self.relay.texts:
            for key in self.relay.ended([outcome]):
                self._run.streamed.pop(key, None)
        return outcome

    def _enter(self, fact: Fact, stored: Outcome | None, failed_in: Generation | None) -> None:
        run = self._run
        run.add(fact, stored)
        counted = NOTHING_COUNTED if fact.more is None else fact.counted
        about = (fact.status, fact.key, fact.attempt, fact.group_id, stored is not None, failed_in)
        self.recorded.add(len(run.facts), *about, *counted)
        if run.followers:
            run.wake_followers()

    def _earlier(self, first: Outcome, stored: Outcome) -> Outcome:
        """The outcome that a key has already, which must be the same."""
        if not is_same(first, stored):
            self._broken = made_twice(self.info.run_id, stored, self._run.sequence_of[stored.key])
            raise self._broken
        return read_stored(first)

    async def append(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        """The same as `note`: memory has nothing to wait for, but for large values, written beside the event loop."""
        if outcome is None:
            return self.note(fact)
        stored: Outcome | None = outcome
        if outcome.error is not None or type(outcome.value) not in AS_THEY_ARE:
            stored = None
            if outcome.is_large:
                self._expect_mine()
                stored = await asyncio.to_thread(written, outcome, encode_large)
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
        requests, now = self._run.requests, self._store.clock()
        requests[request_id] = dataclasses.replace(requests[request_id], applied_at=now, answer=dict(answer))

    def when_asked(self, tell: Callable[[], None]) -> None:
        """Call `tell` when there is another request."""
        self._on_asked = tell

    def ask_to_look(self) -> None:
        """There is another request."""
        if self._on_asked is not None:
            self._on_asked()

    async def close(
        self, status: ExecutionStatus, reason: str | None = None, resumption: Resumption = NOT_RESUMED
    ) -> None:
        """Record how the run stands, and let go of it."""
        run = self._run
        if run.fence != self._fence:
            return
        self.relay.close()
        now = self._store.clock()
        ended_at = now if status in ENDED else None
        run.info = dataclasses.replace(
            run.info,
            status=status,
            reason=reason,
            updated_at=now,
            ended_at=ended_at,
            owner=None,
            ready_at=self._ready_at(resumption, now) if ended_at is None else None,
            claims=0,
        )
        run.fence += 1
        run.take(None)
        self._store.wake_workers()

    def _ready_at(self, resumption: Resumption, now: float) -> float | None:
        """From when on a worker may take the run again."""
        found = [self._run.questions.get(each) for each in resumption.questions]
        if self._run.info.queue is None:
            return None
        is_answered = any(each is not None and each.answer is not None for each in found)
        signals = [each for each in self._run.requests.values() if each.is_open and each.verb is Verb.SIGNAL]
        has_signal = any(each.arguments["event"] in resumption.events for each in signals)
        return now if is_answered or has_signal else resumption.ready_at

    def _expect_mine(self) -> None:
        if self._store.is_closed:
            self._store.expect_open()
        if self._broken is not None:
            raise self._broken
        if self._run.fence != self._fence:
            raise LeaseLost(f"run {self.info.run_id!r} is closed here, or another process has taken it over")
