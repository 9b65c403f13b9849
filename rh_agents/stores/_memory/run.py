"""A run in memory: its journal, and what stands beside that."""

from __future__ import annotations

import dataclasses
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rh_agents.core._loops.homes import Home, Waiter
from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.events import Fact
from rh_agents.core.ports import Question, RunInfo
from rh_agents.core.ports.control import ControlRequest
from rh_agents.core.ports.keeping import facts_when_erased
from rh_agents.core.ports.present import Present
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend.beside import PieceCut, PieceRow
from rh_agents.stores._memory.values import Encoded, erased_fact, erased_outcome, is_erased, read_beside
from rh_agents.stores._ownership import live
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
