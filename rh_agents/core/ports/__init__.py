"""The shapes through which the core meets the rest of the world. Any object that fits will do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from rh_agents.core._base.executions import Execution
from rh_agents.core._loops.stop_signal import StopSignal
from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.events import ExecutionEvent, Fact, Subscriber
from rh_agents.core.policies.child_runs import AboutChild, ChildLeft, ChildRun, HasChildren, NewChild
from rh_agents.core.policies.sharing.windows import SharedState, SharedStates
from rh_agents.core.ports.executors import CallContext, Executor
from rh_agents.core.results import Outcome, UnreadOutcome
from rh_agents.core.types import Clock, ExecutionStatus

__all__ = [
    "NOT_RESUMED",
    "AboutChild",
    "CacheEntry",
    "CallContext",
    "ChildLeft",
    "ChildRun",
    "Clock",
    "Execution",
    "Executor",
    "HasChildren",
    "Journal",
    "JournalEntry",
    "LeasedJournal",
    "NewChild",
    "Question",
    "RecordedEvent",
    "Resumption",
    "RunInfo",
    "RunRequest",
    "RunStatus",
    "SharedState",
    "SharedStates",
    "SharedStore",
    "StopSignal",
    "Store",
    "Subscriber",
    "is_untouched_fork",
    "status_of",
]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a store is asked to open.

    Attributes:
        run_id: the name of the run.
        owner: who will execute it, different for every execution; people see it when someone else wants to.
        workflow: the name of what is executed, "" if there is no one function.
        input: its arguments, as typed JSON; None if they are not known or are not serializable.
        input_digest: what two equal inputs have in common; None as above.
        tags: words by which people find the run.
        facts: anything else that is worth knowing about it, for instance the command that started it.
        lease: after this many seconds without a sign of life from its owner, another one may take the run over.
    """

    run_id: str
    owner: str
    workflow: str = ""
    input: bytes | None = None
    input_digest: bytes | None = None
    tags: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    lease: float = 15.0


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run as a store knows it.

    Attributes:
        run_id, workflow, input, input_digest, tags, facts: as in the request that opened it last.
        status: PENDING for a run that has never been seen, STARTED also for one whose process died.
        epoch: how often it has been started again after it had ended.
        created_at, updated_at, ended_at: seconds since 1970; `ended_at` is None while it has not.
        owner: who executes it now, as far as is known; None if no one does.
        outcomes: how many calls have one.
        reason: why it was stopped, if it was.
        forked_from: the run of which it is a copy.
        queue, flow: from which queue workers take it, and what they import to execute it, as MODULE:FUNCTION or
            MODULE:FUNCTION@FINGERPRINT; None if it was never submitted.
        priority: of those in its queue, the ones with a higher priority come first.
        ready_at: from when on a worker may take it, in seconds since 1970. None if none may: it was never submitted,
            has ended, or waits for something that no clock tells.
        claims: how many workers have taken it since one last let go of it: what is more than one has died with it.
        damage: why its row cannot be believed; then nothing else is known of it but the name that stands there. Only
            lists of runs have such: `find_run` raises.
        executions: when it was executed, oldest first; the times between them are those in which no process did. Of a
            copy, its own. Empty if it was not opened since stores note them.
    """

    run_id: str
    status: ExecutionStatus = ExecutionStatus.PENDING
    epoch: int = 0
    workflow: str = ""
    input: bytes | None = None
    input_digest: bytes | None = None
    tags: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    created_at: float = 0.0
    updated_at: float = 0.0
    ended_at: float | None = None
    owner: str | None = None
    outcomes: int = 0
    reason: str | None = None
    forked_from: str | None = None
    queue: str | None = None
    flow: str | None = None
    priority: int = 0
    ready_at: float | None = None
    claims: int = 0
    damage: str | None = None
    executions: tuple[Execution, ...] = ()


@dataclass(frozen=True, slots=True)
class Resumption:
    """When a run that has not ended goes on, if it is one that workers take from a queue.

    Attributes:
        ready_at: from then on, in seconds since 1970; None: not because of the time.
        questions: as soon as one of the questions with these ids has an answer, which may be so already.
        events: the same of signals for these events.
    """

    ready_at: float | None = None
    questions: tuple[str, ...] = ()
    events: tuple[str, ...] = ()


NOT_RESUMED: Final = Resumption()
"""No worker takes it up before someone says so."""


class RunStatus(StrEnum):
    """The status of a run, as people think of it."""

    PENDING = "pending"
    """It was submitted, and no worker has begun it."""
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """It has not ended, and no process executes it: it was stopped, or its process died."""
    WAITING = "waiting"
    """For the answers of people."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DAMAGED = "damaged"
    """Its row is not as it was written, so nothing is known of it."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to do."""
        return self in ("completed", "failed", "cancelled")


def status_of(info: RunInfo) -> RunStatus:
    """The status of a run."""
    if info.damage is not None:
        return RunStatus.DAMAGED
    if info.owner is not None:
        return RunStatus.RUNNING
    if info.status is ExecutionStatus.AWAITING:
        return RunStatus.WAITING
    if info.status is ExecutionStatus.PENDING and info.queue is not None:
        return RunStatus.PENDING
    if info.status.value in RunStatus.__members__.values():
        return RunStatus(info.status.value)
    return RunStatus.INTERRUPTED


def is_untouched_fork(info: RunInfo) -> bool:
    """Whether a run is the copy of another one and has never been executed: its facts are those of the other one."""
    return info.forked_from is not None and info.updated_at == info.created_at


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event with its place in the journal of its run; places are counted from 1, without gaps.

    Attributes:
        has_outcome: whether it reports an outcome of its call; where a shutdown has cut it off, it does not. Of several
            outcomes of one key the first one counts.
    """

    sequence: int
    event: ExecutionEvent[Any]
    has_outcome: bool = False


class JournalEntry(NamedTuple):
    """An entry of a journal as its owner wrote it, so that another journal can take it over.

    Attributes:
        sequence: its place in its journal.
        fact: without its value, which the outcome has.
        outcome: what it reports, with what the call was called with; None if it reports nothing. Of several outcomes of
            one key the first one counts.
    """

    sequence: int
    fact: Fact
    outcome: Outcome | None


@runtime_checkable
class SharedStore(HasChildren, Protocol):
    """A store that other processes can open by its name, so that parts of a run can be executed there."""

    @property
    def url(self) -> str:
        """What `open_store` takes for the same store. It may hold a password."""
        ...

    def journal_entries(self, run_id: str, *, after: int = 0) -> AsyncIterator[JournalEntry]:
        """The journal of a run from after the place `after`, as it is now.

        Raises:
            StoreError: there is no such run, the store failed, or this program does not know the class of a value.
        """
        ...

    async def add_child(self, run_id: str, child: NewChild) -> None:
        """Add a run that executes a part of one that is open here. One of this name that is there is left as it is.

        Raises:
            LeaseLost: the parent is not open here any more.
            StoreError: the store failed.
        """
        ...

    async def take_from_queue(self, run_id: str) -> bool:
        """See to it that no worker takes a run any more; False if one has it, as far as is known.

        Raises:
            StoreError: there is no such run, or the store failed.
        """
        ...

    async def stop_children(self, run_id: str, group: str | None, reason: str) -> None:
        """See to it that no worker takes child runs of a run, and ask those who execute one to stop it.

        The journal does the same for the group whose ending is written, in the same transaction.

        Args:
            run_id: the parent.
            group: only those that make members of this group; None for all.
            reason: why. With `GROUP_HAS_ENDED` what is in flight is cut off, else it may come to its end.
        """
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What a run wants to know from a person.

    Attributes:
        id: the same at every execution of the run.
        address: the readable place where it is asked.
        text: for the person.
        schema: the JSON schema of the answer, as JSON text; None takes anything.
        asked_at: seconds since 1970.
        answer: the answer as plain JSON text; None while there is none.
        answered_by: who gave it.
        problem: why an earlier answer was not accepted.
    """

    run_id: str
    id: str
    address: str
    text: str
    schema: str | None = None
    asked_at: float = 0.0
    answer: bytes | None = None
    answered_at: float | None = None
    answered_by: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """The result of a call, kept for calls that are equal to it.

    Attributes:
        key: what equal calls have in common.
        value: the result as typed JSON text (see `rh_agents.core.values`).
        actor: the name of what was called, for people.
        run_id: the run for which alone it is kept; None for all.
        created_at: seconds since 1970.
        expires_at: from when on it does not count any more; None for never.
    """

    key: bytes
    value: bytes
    actor: str
    created_at: float
    expires_at: float | None = None
    run_id: str | None = None


class Journal(Protocol):
    """A run that is open for one owner. From the moment another one has taken it over, every method raises."""

    @property
    def info(self) -> RunInfo:
        """The run as it was before it was opened, but for `epoch`, which is that of this execution."""
        ...

    @property
    def recorded(self) -> RecordedCalls:
        """What is recorded, by key; kept up to date with what is appended."""
        ...

    async def load(self, key: bytes) -> Outcome:
        """The outcome of a key in `recorded.finished`.

        Raises:
            StoreError: it cannot be read, or what is there is damaged.
        """
        ...

    def load_nowait(self, key: bytes) -> Outcome | None:
        """The same if it can be had without waiting, else None: so thousands of recorded calls need no task each."""
        ...

    def note(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        """Add to the journal without waiting until it is on disk: that happens soon, and before anything later does.

        Returns, raises: as `append`.
        """
        ...

    async def append(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        """Add a fact together with the outcome it reports, both or neither, and wait until they survive a power cut.

        Returns:
            The outcome that counts: the given one, or, if the key has the same one already, that; then the fact is left
            out.

        Raises:
            UnstorableError: the outcome's value is not serializable; nothing was added, and the journal goes on.
            StoreError: it could not be recorded, now or before, or the key has come to another outcome: the journal is
                broken for good.
        """
        ...

    @property
    def waiting(self) -> int:
        """How many entries have been noted and are not on disk yet."""
        ...

    async def flush(self) -> None:
        """Wait until everything that has been noted survives a power cut."""
        ...

    async def ask(self, question: Question) -> Question:
        """Record that a question is open, or find it as it stands, perhaps with its answer."""
        ...

    async def reject_answer(self, question_id: str, problem: str) -> None:
        """Open the question again: the answer was not what it should be."""
        ...

    @property
    def stop_requested(self) -> str | None:
        """Why someone outside has asked for the run to be stopped; None if no one has."""
        ...

    def when_stop_requested(self, tell: Callable[[str], None]) -> None:
        """Call `tell` on the event loop when someone outside asks for the run to be stopped."""
        ...

    async def close(
        self, status: ExecutionStatus, reason: str | None = None, resumption: Resumption = NOT_RESUMED
    ) -> None:
        """Write what waits, record how the run stands, and let go of it for the next owner.

        COMPLETED, FAILED and CANCELLED end the run. After STARTED and AWAITING it goes on when it is opened again, and
        a worker does that as `resumption` says, if the run is in a queue. A broken journal is only let go of.
        """
        ...


@runtime_checkable
class LeasedJournal(Protocol):
    """A journal whose owner may be replaced when it has given no sign of life for the length of its lease.

    Before a call begins, its run asks whether it is ours. So a process that was stopped for long (by a signal, a
    sleeping laptop, a machine that was moved) begins nothing in a run that may be another's by now.
    """

    @property
    def is_ours(self) -> bool:
        """Whether no other process can have taken the run over, by a clock that goes on while the machine sleeps.

        It is asked for each call, so it compares numbers and nothing else.
        """
        ...

    async def prove(self) -> None:
        """Find out whether the run is still ours, and give a sign of life if it is.

        Raises:
            LeaseLost: another process has taken it over.
            StoreError: that could not be found out for as long as a lease lasts.
        """
        ...


class Store(SharedStates, Protocol):
    """Where runs are recorded. Every method raises `StoreError` if it cannot do its work; none of them retries."""

    async def open_run(self, request: RunRequest) -> Journal:
        """Begin the run, or continue it, or begin a new epoch of it if it had ended.

        Raises:
            RunIsLive: another process executes it.
        """
        ...

    async def find_run(self, run_id: str) -> RunInfo | None:
        """The run of this name, if there is one."""
        ...

    async def runs(
        self,
        *,
        status: ExecutionStatus | None = None,
        tag: str | None = None,
        updated_before: float | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> list[RunInfo]:
        """The runs that fit, newest first. One whose row is damaged hides no other: its `damage` says what is wrong.

        Args:
            status: only those with this status.
            tag: only those with this word among their tags.
            updated_before: only those in which nothing has happened since, in seconds since 1970.
            before: only those behind the run of this name: the last one of those that were listed before.
            limit: at most so many; None for all.

        Raises (besides the usual):
            StoreError: there is no run of the name `before`.
        """
        ...

    def events(
        self, run_id: str, *, after: int = 0, follow: bool = False, values: bool = True
    ) -> AsyncIterator[RecordedEvent]:
        """The journal of a run in its order, from after the place `after`.

        The events of calls that ended have their `result`, unless `values` is False: then none is read. `follow` waits
        for what is added, until the run is closed. Classes that this program does not know are shown as `UnknownValue`.
        """
        ...

    def outcomes(self, run_id: str, *, unknown_ok: bool = False) -> AsyncIterator[Outcome]:
        """What the calls of a run came to, in the order in which that was recorded.

        Raises (besides the usual):
            StoreError: a value is of a class that this program does not know; with `unknown_ok`, an `UnknownValue`
                stands for it instead.
        """
        ...

    def unread_outcomes(self, run_id: str) -> AsyncIterator[UnreadOutcome]:
        """The same without decoding any value: for those who need keys and addresses, or few of the values."""
        ...

    async def supersede(self, run_id: str, keys: Sequence[bytes]) -> None:
        """Let these calls be made again when the run is executed the next time, though they have an outcome.

        Adds a SUPERSEDED event for each to the journal. Keys without an outcome are left alone.

        Raises:
            RunIsLive: a process executes the run.
        """
        ...

    async def fork_run(
        self, run_id: str, new_run_id: str, leave_out: Sequence[bytes], edited: Sequence[Outcome]
    ) -> None:
        """Copy a run under another name, without the outcomes of some keys, and with some edited ones.

        Raises:
            StoreError: there is no such run, or there is one of the new name.
        """
        ...

    async def questions(self, run_id: str | None = None, *, is_open: bool = True) -> list[Question]:
        """The questions of a run or of all, oldest first."""
        ...

    async def answer(self, run_id: str, question_id: str, answer: bytes, by: str | None = None) -> Question:
        """Answer an open question with plain JSON text.

        Raises:
            StoreError: there is no such question, or it has been answered, or this is no JSON.
            InputError: it does not fit the schema of the question, which stays open.
        """
        ...

    async def request_stop(self, run_id: str, reason: str) -> bool:
        """Ask the process that executes the run to stop it; True if one does. Else the run is ended as CANCELLED."""
        ...

    async def find_cached(self, key: bytes, *, now: float) -> CacheEntry | None:
        """What is kept under a key and has not expired at `now`."""
        ...

    async def put_cached(self, entry: CacheEntry) -> None:
        """Keep a value under its key, in place of what was there. That it survives a crash is not waited for."""
        ...

    async def delete_run(self, run_id: str) -> None:
        """Forget a run, and what is cached for it.

        Raises:
            RunIsLive: a process executes it.
        """
        ...

    async def collect_garbage(self, *, min_age: float = 3600.0) -> int:
        """Delete artifacts that no run refers to and that are older than this many seconds; returns the bytes freed.

        Cached values that have expired go as well.
        """
        ...

    async def check(self) -> list[str]:
        """Look for damage: one line for each finding, none if all is well."""
        ...

    async def aclose(self) -> None:
        """Let go of files and connections."""
        ...
