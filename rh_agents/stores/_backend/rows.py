"""What a database keeps of runs and their journals, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Generic, NamedTuple, TypeVar

from rh_agents.core._base.executions import executions_in, without_executions
from rh_agents.core.ports import RunInfo
from rh_agents.core.types import ExecutionStatus

T = TypeVar("T")

ENDED = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
"""The statuses of a run that has ended."""


class Queued(NamedTuple):
    """The place of a run in a queue, from which workers take it.

    Attributes:
        queue: the name of the queue; None if the run was never submitted to one.
        flow: what a worker has to import to execute it, as MODULE:FUNCTION.
        priority: those with a higher one come first.
        ready_at: from when on a worker may take it; None: not before somebody says so again.
        claims: how often a worker has taken it since it was last let go of.
        parent: the run of which it is a part.
    """

    queue: str | None = None
    flow: str | None = None
    priority: int = 0
    ready_at: float | None = None
    claims: int = 0
    parent: int | None = None


NOT_QUEUED: Final = Queued()


class HeldRow(NamedTuple):
    """The lease of a run in a queue which somebody executes."""

    number: int
    fence: int
    heartbeat: int
    lease: float
    process: str | None
    run_id: str
    flow: str


class ChildRow(NamedTuple):
    """How a run stands that is a part of another one; without checksums, since it is asked ten times a second."""

    number: int
    run_id: str
    status: str
    reason: str | None
    claims: int
    owner: str | None
    process: str | None
    fence: int
    heartbeat: int
    heartbeat_at: float
    lease: float
    last_sequence: int
    ready_at: float | None


class NextWanted(NamedTuple):
    """Which run a worker wants.

    Attributes:
        queue, flows: only from this queue, and only what needs one of these.
        silent: owners that are gone, by number, fence and heartbeat: their runs may be taken, too.
    """

    queue: str
    flows: Sequence[str]
    silent: Sequence[tuple[int, int, int]] = ()


class EventRow(NamedTuple):
    """An event as it is stored.

    Attributes:
        ok: of an event that reports an outcome, whether the call succeeded; None of all others.
        key: 32 bytes, or None.
        seconds: how long the call took, in events that tell its end.
        more: JSON text of what few events have, see `_rows`; None if there is nothing.
    """

    sequence: int
    timestamp: float
    status: str
    event_type: str
    name: str
    address: str
    key: bytes | None
    group_id: str | None
    parallel_index: int | None
    group_total: int | None
    attempt: int
    seconds: float | None
    message: str | None
    ok: bool | None
    more: str | None


class OutcomeRow(NamedTuple):
    """What an outcome has in addition to the event that reports it, which has the same sequence.

    Attributes:
        key: the same as in its event. Of several outcomes for one key of a run the first one counts.
        base: None if it equals `key`, which is so for all that never failed.
        epoch, tries, parent_attempt: `Outcome.made_in`.
        value: typed JSON text in UTF-8, of the value or of the error; None if it is an artifact.
        artifact: SHA-256 of that text in hexadecimal, if it is kept elsewhere.
        size: how many bytes it has there; None also in rows that older versions wrote.
        more: JSON text of what differs from the event (name, address, seconds, attempts, group_id); nearly always None.
        input: what the call was called with, for people (see `record_inputs`); None where that was not recorded, and
            where an outcome is read: `ReadSession.inputs` gives it.
    """

    sequence: int
    key: bytes
    ok: bool
    base: bytes | None
    parent: bytes
    epoch: int
    tries: int
    parent_attempt: int
    value: bytes | None
    artifact: str | None
    more: str | None
    size: int | None = None
    input: str | None = None


class InputRow(NamedTuple):
    """What the call was called with whose outcome has this sequence."""

    sequence: int
    text: str


class CallRow(NamedTuple):
    """What the fold over a journal needs of an event.

    `name` is there if `more` is: that may tell of something that was spent. The last three are of a failure's outcome,
    None elsewhere.
    """

    sequence: int
    status: str
    key: bytes | None
    attempt: int
    group_id: str | None
    ok: bool | None
    name: str | None
    more: str | None
    epoch: int | None
    tries: int | None
    parent_attempt: int | None


class StoredEvent(NamedTuple):
    """An event with the outcome that it reports; RECOVERED events with the one that is recorded for their key."""

    row: EventRow
    outcome: OutcomeRow | None


class StoredOutcome(NamedTuple):
    """An outcome with what its event tells of it."""

    row: OutcomeRow
    name: str
    address: str
    seconds: float | None
    attempts: int
    group_id: str | None

    @property
    def sequence(self) -> int:
        """Where it stands in the journal."""
        return self.row.sequence


class Kept(NamedTuple, Generic[T]):
    """What a row says, and its checksums as they are stored (see `_checksums`). Only `_verified` may believe it."""

    row: T
    checksum: Any


class Edit(NamedTuple):
    """Another outcome for a key of a copied run; `message` is the one line of its error for the event."""

    key: bytes
    ok: bool
    value: bytes | None
    artifact: str | None
    message: str | None
    size: int | None = None


_MADE: Final = ("damage", "executions")
"""What a run says of itself that its row does not have under that name."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as it is stored: what `RunInfo` says, and who holds it.

    Attributes:
        number: its primary key, by which everything else refers to it.
        process: which process holds the run, as `_owner.Process` writes it; None if none does.
        fence: grows by one whenever the run gets another holder or loses it.
        heartbeat: grows with every sign of life of the holder: with each batch and each renewal.
        heartbeat_at: when that was by the holder's clock.
        lease: seconds without a sign of life after which another one may take the run over.
        last_sequence: how many events there are.
        stop_requested: why somebody wants it to be stopped; forgotten when it is opened again.
        queue, flow, priority, ready_at, claims: see `Queued`.
        parent: the number of the run of which it is a part; such runs are not listed.
    """

    number: int
    run_id: str
    status: str
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
    process: str | None = None
    fence: int = 0
    heartbeat: int = 0
    heartbeat_at: float = 0.0
    lease: float = 15.0
    last_sequence: int = 0
    outcomes: int = 0
    reason: str | None = None
    stop_requested: str | None = None
    forked_from: str | None = None
    queue: str | None = None
    flow: str | None = None
    priority: int = 0
    ready_at: float | None = None
    claims: int = 0
    parent: int | None = None

    @property
    def queued(self) -> Queued:
        """Its place in a queue."""
        return Queued(self.queue, self.flow, self.priority, self.ready_at, self.claims, self.parent)

    @property
    def info(self) -> RunInfo:
        """The run as others see it."""
        facts = {each.name: getattr(self, each.name) for each in fields(RunInfo) if each.name not in _MADE}
        executions = executions_in(self.facts)
        about = {"status": ExecutionStatus(self.status), "facts": without_executions(self.facts)}
        return RunInfo(**{**facts, **about, "executions": executions})


_NEVER_REPLACED: Final = ("number", "run_id", "created_at", "last_sequence", "outcomes")


REPLACED: Final = tuple(each.name for each in fields(RunRow) if each.name not in _NEVER_REPLACED)
"""The columns of a run that `Writing.replace` stores."""


@dataclass(slots=True)
class Batch:
    """What is added to one run in one transaction.

    Attributes:
        number, fence: the run, and the fence that its holder got.
        last_sequence: how many events the run has before. The events here continue from there.
        streamed: the keys of calls whose text goes, since they have their outcome now.
        ended: the groups whose ending is among the events: their child runs are stopped.
    """

    number: int
    fence: int
    last_sequence: int
    events: list[EventRow]
    outcomes: list[OutcomeRow]
    streamed: Sequence[bytes] = ()
    ended: Sequence[str] = ()


class RunsWanted(NamedTuple):
    """Which runs are to be listed: those for which nothing here says otherwise.

    Attributes:
        status, tag, updated_before, limit: as in `Store.runs`.
        behind: the number of a run; only those that come behind it.
        parts: whether runs are among them that are part of another one.
        kinds: as `RunStatus` of what stands in the row. With "running" all that have an owner are among them: who asks
            knows which of those are alive.
        text, updated_since, forks_of: as in `rh_agents.core.ports.windows.RunQuery`.
        owned: whether they have an owner, alive or not.
    """

    status: str | None = None
    tag: str | None = None
    updated_before: float | None = None
    behind: int | None = None
    limit: int | None = None
    parts: bool = False
    kinds: tuple[str, ...] | None = None
    text: str | None = None
    updated_since: float | None = None
    forks_of: tuple[str, ...] | None = None
    owned: bool | None = None


class Standing(NamedTuple):
    """Who may write to a run, and how far its journal is.

    Attributes:
        fence: another one for each owner.
        last_sequence: how many events it has.
        status: its status.
        owner: who executes it; None if no one does.
        stop_requested: why somebody wants it to be stopped.
    """

    fence: int
    last_sequence: int
    status: str
    owner: str | None
    stop_requested: str | None


class LeaseState(NamedTuple):
    """The lease of a run, as its holder needs it.

    Attributes:
        is_ours: False from the moment the fence is another one.
        watched: which calls are looked at, as `watched_in` reads it; None where that was not asked for.
        asked: how many requests there ever were to the run; 0 where that was not asked for.
    """

    is_ours: bool
    stop_requested: str | None
    watched: str | None = None
    asked: int = 0
