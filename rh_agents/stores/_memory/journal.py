"""A run in memory that is open for one owner."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from rh_agents.core._loops.homes import Home, home
from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.errors import LeaseLost, StoreError
from rh_agents.core.events import Fact
from rh_agents.core.groups import NOTHING_COUNTED
from rh_agents.core.ports import NOT_RESUMED, Clock, Question, Resumption, RunInfo
from rh_agents.core.ports.control import ControlRequest, Verb
from rh_agents.core.ports.present import Present
from rh_agents.core.ports.streaming import TextSink
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus, Generation
from rh_agents.core.values import encode_large
from rh_agents.stores._backend.rows import ENDED
from rh_agents.stores._memory.run import MemoryRun, write_text
from rh_agents.stores._memory.values import AS_THEY_ARE, is_long, is_same, read_beside, read_stored, written
from rh_agents.stores._repeated import made_twice, warn_of_repeated
from rh_agents.stores._streamed import TextRelay


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
