"""What a database must be able to do to be a store: the shape between the common engine and its backends.

The engine (`_store`, `_journal`, `_writer`) knows event loops, threads, leases and the port; a backend knows SQL. All
methods here block. A `WriteSession` is used by the one writer thread of a store, each `ReadSession` by one thread at a
time, but not always by the same one. Every method is at most one transaction, and what a method of a `WriteSession` has
returned from survives power loss. Every error of the database becomes a `StoreError` that names the database and the
cause in one line (disk full, locked by another process, connection lost ...); what the error leaves behind is rolled
back. After an error the engine closes the session and connects anew when it needs one.

Times are seconds since 1970. A sequence is the place of an event in the journal of its run, from 1, without gaps. Texts
may contain NUL and lone surrogates: a backend stores them so that they come back as they were, or refuses them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from rh_agents.core.ports import Admitted, CacheEntry, Question, RateWindow, RunInfo
from rh_agents.core.ports.control import ControlRequest
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Usage
from rh_agents.stores.artifacts import ArtifactStore

T = TypeVar("T")

SLOWEST = 60.0
"""Seconds that the slowest disk or server needs for a single thing, if it answers at all."""
FORGOTTEN_AFTER: Final = 60.0
"""Seconds after which it is forgotten that somebody has looked at a call."""
ENDED = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
"""The statuses of a run that has ended."""


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


class PresentRow(NamedTuple):
    """What the owner of a run says that it is doing now.

    Attributes:
        number, fence: the run, and which of its owners says so.
        at: when, in seconds since 1970, by the owner's clock.
        facts: a JSON object, in ASCII; the fence is in it as well.
    """

    number: int
    fence: int
    at: float
    facts: str


class InputRow(NamedTuple):
    """What the call was called with whose outcome has this sequence."""

    sequence: int
    text: str


class PieceRow(NamedTuple):
    """Text of a call under way, see `_streamed`.

    Attributes:
        key: of the call.
        attempt: which attempt has published it.
        position: where it begins among all that this attempt has published.
        text: a JSON object.
        at: when it was written, in seconds since 1970; rows of one owner of a run never have the same.
    """

    key: bytes
    attempt: int
    position: int
    text: str
    at: float


class PieceCut(NamedTuple):
    """Rows of text of a call that come before this place are dropped."""

    key: bytes
    attempt: int
    position: int


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


class Tally(NamedTuple):
    """How many events of a run are alike.

    Attributes:
        is_repeated: they report outcomes of calls that had one.
        spender: whose calls they are, see `spender_of`.
        is_free: a cache had their results.
        usage: of all of them together; None if they tell of none.
    """

    event_type: str
    group_id: str | None
    status: str
    has_outcome: bool
    is_repeated: bool
    spender: str
    is_free: bool
    events: int
    first_at: float
    last_at: float
    usage: Usage | None


class FailureRow(NamedTuple):
    """An outcome that is a failure: the columns of its event that are shown."""

    sequence: int
    address: str
    name: str
    more: str | None
    event_type: str
    message: str | None


class CallsWanted(NamedTuple):
    """Which outcomes are wanted; see `rh_agents.core.ports.windows.CallQuery`.

    Attributes:
        behind: what the last call of the window before was sorted by, as `sort_calls` gave it, and its sequence.
        limit: how many at most.
    """

    status: str | None = None
    actor: str | None = None
    group_id: str | None = None
    text: str | None = None
    order: str = "journal"
    descending: bool = False
    behind: tuple[float | str, int] | None = None
    limit: int = 1

    @property
    def is_of_failures(self) -> bool:
        """Whether only calls are wanted that did not succeed, which have an index of their own."""
        return self.status in (ExecutionStatus.FAILED.value, ExecutionStatus.CANCELLED.value)


class TriedAgain(NamedTuple):
    """An outcome of a call: where it stands, its key, and the place of the call in the program."""

    sequence: int
    key: bytes
    base: bytes
    group_id: str | None


class Kinds(NamedTuple):
    """Events by what they say of calls.

    Attributes:
        events: how many there are.
        ended: the keys of those with an outcome, 32 bytes each.
        letters, others: of other events of calls, s for a start or one more attempt and e for anything else; the keys.
    """

    events: int
    ended: bytes
    letters: str
    others: bytes


class FailedRow(NamedTuple):
    """A failure with the call of which it is one."""

    failure: FailureRow
    key: bytes
    base: bytes | None


class ActivityRows(NamedTuple):
    """What happened in a part of a journal (see `rh_agents.core.ports.activity`).

    Attributes:
        buckets: pieces of time by their numbers, with how many calls succeeded, failed and were to be tried again.
        durations: `name, event_type, more`, which say whose calls these are, the number of a bucket of durations, how
            many there are, their sum and the longest one.
        slowest: outcomes that took longest: sequence, key, address, name, event_type, more, seconds.
        groups: events of groups in their order: timestamp and `more`.
        totals: how many members groups will have, by id.
    """

    buckets: Sequence[tuple[float, int, int, int]]
    durations: Sequence[tuple[str, str, str | None, int, int, float, float]]
    slowest: Sequence[tuple[int, bytes, str, str, str, str | None, float]]
    groups: Sequence[tuple[float, str]]
    totals: Sequence[tuple[str, int]]


class MemberColumns(NamedTuple):
    """Events as columns, to tell which members of groups are plain (see `rh_agents.core.ports.outline`).

    Attributes:
        last: the sequence of the last one; None if there is none.
        kinds: a letter for each: "c" for the outcome of a member that succeeded at its first try, "s" for what may come
            before that, "x" for what makes a call something else, "-" for what is about no call.
        keys: 32 bytes for each.
        groups, indexes: of members; None where there is none.
        actors: of outcomes that are values: the key of the parent in hexadecimal, the name of the call where it is
            that of the actor, and a JSON object with `actor` and `version`, as in `more`, separated by U+001F.
    """

    last: int | None
    kinds: str
    keys: bytes
    groups: Sequence[str | None]
    indexes: Sequence[int | None]
    actors: Sequence[str | None]


class Edit(NamedTuple):
    """Another outcome for a key of a copied run; `message` is the one line of its error for the event."""

    key: bytes
    ok: bool
    value: bytes | None
    artifact: str | None
    message: str | None
    size: int | None = None


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

    @property
    def info(self) -> RunInfo:
        """The run as others see it."""
        facts = {each.name: getattr(self, each.name) for each in fields(RunInfo)}
        return RunInfo(**{**facts, "status": ExecutionStatus(self.status)})


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
    """

    number: int
    fence: int
    last_sequence: int
    events: list[EventRow]
    outcomes: list[OutcomeRow]
    streamed: Sequence[bytes] = ()


class RunsWanted(NamedTuple):
    """Which runs are to be listed: those for which nothing here says otherwise.

    Attributes:
        status, tag, updated_before, limit: as in `Store.runs`.
        behind: the number of a run; only those that come behind it.
    """

    status: str | None = None
    tag: str | None = None
    updated_before: float | None = None
    behind: int | None = None
    limit: int | None = None


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


class WriteSession(Protocol):
    """The session of the writer thread."""

    # -- batches and leases -------------------------------------------------------------------------------------------

    def write(self, batches: Sequence[Batch], now: float) -> list[LeaseState]:
        """Add all batches in one transaction; returns the leases of their runs, in the same order.

        For each batch, the statement that moves the run on checks that it is still ours and where the caller thinks:
        `UPDATE run SET last_sequence = .., outcomes = outcomes + .., heartbeat = heartbeat + 1, heartbeat_at = now,
        updated_at = now WHERE number = .. AND fence = .. AND last_sequence = .. RETURNING stop_requested`. If no row is
        changed, nothing of that batch is written, its run is not ours, and the others are written all the same.
        No two batches are of one run. Few statements: the time of a release of the interpreter's lock counts. Text of
        the calls in `streamed` is deleted.
        """
        ...

    def renew(self, held: Sequence[tuple[int, int]], now: float) -> list[LeaseState]:
        """Give a sign of life for the runs (number, fence): `heartbeat + 1`, `heartbeat_at = now`.

        These states, and those that `look` gives, say who looks at which calls.
        """
        ...

    def look(self, held: Sequence[tuple[int, int]]) -> list[LeaseState] | None:
        """The same without writing: the leases as they are now; None if nothing has changed since the last time.

        Called about once a second while there is nothing to write, so it must be cheap.
        """
        ...

    def say(self, rows: Sequence[PresentRow]) -> None:
        """Write what owners say that their runs are doing, each in place of what was said before.

        What is said by somebody who does not hold the run any more is not written.
        """
        ...

    # -- taking hold of runs ------------------------------------------------------------------------------------------

    def create(self, new: RunRow) -> RunRow | None:
        """Add a run and return it with its number; None if there is one of this name. `new.number` means nothing."""
        ...

    def replace(self, expected: RunRow, new: RunRow) -> bool:
        """Change the run's row if nobody else has changed who holds it; False if somebody has.

        The columns of `REPLACED` are stored as they are in `new`, WHERE number = expected.number AND fence =
        expected.fence AND heartbeat = expected.heartbeat. (The engine uses it to open, to take over and to cancel.)
        What is there of text of calls under way, an earlier owner has left: it is deleted.
        """
        ...

    def release(self, number: int, fence: int, status: str | None, reason: str | None, now: float) -> bool:
        """Let go of a run: no owner and process, fence + 1, no stop request. False if it is not ours any more.

        Text of calls under way goes, and so do the notes of who looks at it.

        Args:
            status: that of the run from now on, with `reason`, `updated_at` and, for completed, failed and
                cancelled, `ended_at` = now (else NULL); None leaves these four as they are.
        """
        ...

    def delete(self, number: int, fence: int) -> bool:
        """Delete a run that we hold with everything that belongs to it but artifacts; False if it is not ours."""
        ...

    def add(self, new: RunRow, parts: Iterable[tuple[list[EventRow], list[OutcomeRow]]]) -> bool:
        """Add a run with a journal, in one transaction; False if there is one of this name.

        Args:
            new: its row, but for the number, `last_sequence` and `outcomes`.
            parts: events, numbered from 1 without gaps, with the outcomes that they report, a part at a time. They are
                read while they are written; an error of theirs rolls everything back.

        Raises:
            ValuesErased: the values of the run of which it is a copy have been erased meanwhile.
        """
        ...

    # -- erasing ------------------------------------------------------------------------------------------------------

    def strip(self, new: RunRow) -> bool:
        """Store the input, facts and reason of a run that we hold, and delete all that stands beside its journal.

        That is its questions, what is cached for it alone, and whatever is said, asked and shown of it while it is
        executed. False if the run is not ours: `new` has its number and our fence.
        """
        ...

    def rewrite(self, batch: Batch) -> bool:
        """Store other contents of events that are there, with their outcomes; False if the run is not ours.

        Only `message`, `more`, `value`, `artifact`, `size` and `input` may differ from what is there. What was there
        before is overwritten, as far as the database can.
        """
        ...

    def delete_cached(self, keys: Sequence[bytes]) -> None:
        """Delete results from the cache, as thoroughly."""
        ...

    def forget_old_versions(self, *, is_in_use: bool) -> str:
        """See to it that what was overwritten or deleted cannot be found in the files of the database.

        Args:
            is_in_use: other runs are executed, which have to wait meanwhile.

        Returns:
            What of it only the administrator of the database can do, as a sentence; "" if nothing is left.

        Raises:
            StoreError: it cannot be done now.
        """
        ...

    # -- people -------------------------------------------------------------------------------------------------------

    def ask(self, number: int, fence: int, question: Question) -> bool:
        """Add a question unless there is one of this id. False if the run is not ours."""
        ...

    def reject_answer(self, number: int, fence: int, question_id: str, problem: str) -> bool:
        """Take an answer away (answer, answered_at, answered_by) and say why. False if the run is not ours."""
        ...

    def answer(self, number: int, question_id: str, answer: bytes, by: str | None, now: float) -> bool:
        """Answer an open question, and forget its problem; False if there is none or it has been answered."""
        ...

    def request_stop(self, number: int, reason: str) -> None:
        """Leave a request for the holder of a run, where `write`, `renew` and `look` find it."""
        ...

    # -- text of calls under way --------------------------------------------------------------------------------------

    def watch(self, number: int, key: bytes, now: float, until: float) -> None:
        """Note that somebody looks at a call, where `renew` and `look` find it; old notes are forgotten."""
        ...

    def put_pieces(self, number: int, fence: int, rows: Sequence[PieceRow], cuts: Sequence[PieceCut]) -> None:
        """Add text of calls under way, and drop what comes before the cuts; nothing if the run is not ours."""
        ...

    def ask_for(self, number: int, request: ControlRequest) -> None:
        """Add a request to the holder of a run, which `renew` and `look` count."""
        ...

    def answer_request(self, number: int, fence: int, request_id: str, answer: Mapping[str, Any], now: float) -> bool:
        """Say what came of an open request. False if the run is not ours, or the request is not open."""
        ...

    # -- what runs and processes share --------------------------------------------------------------------------------

    def put_cached(self, entry: CacheEntry) -> None:
        """Keep a result under its key, in place of what was there."""
        ...

    def delete_expired(self, now: float) -> None:
        """Forget results that have expired, and tickets that no window has any more."""
        ...

    def admit(self, window: RateWindow, amounts: Mapping[str, float], now: float) -> Admitted:
        """Take amounts out of a window if `refusal` has nothing against it. Nobody else looks at it meanwhile.

        `now` is for backends that have no clock that all processes share.
        """
        ...

    def settle(self, window: RateWindow, ticket: str, amounts: Mapping[str, float]) -> None:
        """Let a ticket count for other amounts, if it still counts."""
        ...

    def hold(self, window: RateWindow, seconds: float, now: float) -> None:
        """Admit nobody for so many seconds, or for longer if that was said before."""
        ...

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        ...


class ReadSession(Protocol):
    """A session that only reads, and never keeps a writer waiting.

    What it gives comes with checksums and is not to be believed before they were compared. What cannot even be turned
    into such rows may raise anything.
    """

    def find_run(self, run_id: str, named: int) -> list[Kept[RunRow]]:
        """The run of this name, and those with this `name_checksum`, which may have lost their name.

        Checksums of runs are those of `run_checksum`, `status_checksum` and `holder_checksum`.
        """
        ...

    def runs(self, wanted: RunsWanted) -> list[Kept[RunRow]]:
        """The runs that fit, newest first."""
        ...

    def present(self, number: int) -> tuple[float, str, int] | None:
        """What was said last that a run is doing: when, the facts, and the checksum of both; None if nothing was."""
        ...

    def requests(self, number: int, is_open: bool | None) -> Sequence[Sequence[Any]]:
        """The requests to a run, oldest first: the columns that `_asking.request_of` wants."""
        ...

    def calls(self, number: int, after: int, limit: int) -> list[Kept[CallRow]]:
        """Events in their order from after a sequence, at most `limit`; fewer means that there are no more."""
        ...

    def events(self, number: int, after: int, limit: int) -> list[Kept[EventRow]]:
        """The same, with everything but their outcomes."""
        ...

    def outcomes(self, number: int, after: int, limit: int) -> list[Kept[StoredOutcome]]:
        """Outcomes in the order in which they were recorded, those with a sequence after `after`, at most `limit`."""
        ...

    def inputs(self, number: int, after: int, until: int) -> list[Kept[InputRow]]:
        """What calls were called with, of the outcomes from after one sequence up to another one that say it."""
        ...

    def inputs_at(self, number: int, sequences: Sequence[int]) -> list[Kept[InputRow]]:
        """The same, of the outcomes with these sequences."""
        ...

    def later_outcomes(self, number: int, after: int, until: int) -> list[int]:
        """The sequences of outcomes that count for nothing, because there is an earlier one of their key.

        Of those from after one sequence up to another one; the earlier one may be anywhere.
        """
        ...

    def tallies(self, number: int, after: int, until: int, later: Sequence[int]) -> list[Tally]:
        """The events from after one sequence up to another one, counted; `later` is what `later_outcomes` gives.

        These are the only columns that are believed without their checksums: they are counts for people.
        """
        ...

    def members(self, number: int, after: int, until: int, limit: int) -> MemberColumns:
        """What tells which members are plain, of the events after one sequence and up to another one, at most `limit`.

        Nothing of this is compared with checksums: it only decides which events are given one by one.
        """
        ...

    def addresses_at(self, number: int, sequences: Sequence[int]) -> list[tuple[str, str | None, bytes | None, str]]:
        """The type, the group, the key and the address of events, without checksums, in any order."""
        ...

    def keys_at(self, number: int, until: int, addresses: Collection[str]) -> set[bytes]:
        """The keys of the calls at some addresses, among the events up to a sequence."""
        ...

    def events_at(self, number: int, sequences: Sequence[int]) -> list[Kept[EventRow]]:
        """As `events`, those with these sequences."""
        ...

    def outcomes_at(self, number: int, sequences: Sequence[int]) -> list[Kept[StoredOutcome]]:
        """As `outcomes`, those with these sequences."""
        ...

    def activity(self, number: int, after: int, until: int, width: float) -> ActivityRows:
        """What happened in the events from after one sequence up to another one, in buckets of so many seconds.

        Nothing of this is compared with checksums: these are numbers for people.
        """
        ...

    def pieces(self, number: int, key: bytes | None, after: float) -> list[Kept[PieceRow]]:
        """Text of the calls of a run that was written after a time, of one call or (None) of all, in that order."""
        ...

    def watched_until(self, number: int, key: bytes) -> float:
        """Until when somebody looks at a call, as was said last; 0.0 if nobody has."""
        ...

    # Windows: what is found is read with its checksum afterwards, by `events_at`. All these take events from after one
    # sequence and up to another one.

    def find_calls(self, number: int, after: int, until: int, wanted: CallsWanted) -> list[int]:
        """The sequences of outcomes that may be wanted, in the order of the journal or, `descending`, the other way."""
        ...

    def sort_calls(self, number: int, after: int, until: int, wanted: CallsWanted) -> list[tuple[float | str, int]]:
        """The same in another order: each with what it is sorted by, as the database has it."""
        ...

    def failed_rows(self, number: int, after: int, until: int, limit: int) -> list[FailedRow]:
        """The failures, oldest first."""
        ...

    def tried_again(self, number: int, after: int, until: int) -> list[TriedAgain]:
        """The outcomes of calls that were made again, oldest first."""
        ...

    def outcomes_of_keys(self, number: int, until: int, keys: Collection[bytes]) -> list[TriedAgain]:
        """The outcomes of these keys among the events up to a sequence, oldest first."""
        ...

    def failures_of_keys(self, number: int, until: int, keys: Collection[bytes]) -> list[TriedAgain]:
        """Those of them that are no success, which have an index of their own."""
        ...

    def events_of_key(self, number: int, until: int, key: bytes, limit: int) -> list[int]:
        """The sequences of events of a call among those up to one, oldest first."""
        ...

    def find_children(self, number: int, after: int, until: int, parent: bytes, limit: int) -> list[int]:
        """The sequences of outcomes of calls that were made at a place in the program."""
        ...

    def ended_keys(self, number: int, after: int, until: int) -> bytes:
        """The keys of outcomes, 32 bytes each, oldest first."""
        ...

    def kinds(self, number: int, after: int, until: int) -> Kinds:
        """What events say of calls."""
        ...

    def count_groups(self, number: int, after: int, until: int) -> dict[str, int]:
        """How many outcomes there are of members of which group."""
        ...

    def find_question(self, number: int, question_id: str, named: int) -> list[Kept[Question]]:
        """The question of a run, and those of any run with this `name_checksum`.

        Checksums of questions are those of `question_checksum` and `answer_checksum`.
        """
        ...

    def find_cached(self, key: bytes, now: float) -> Kept[CacheEntry] | None:
        """The result that is kept under a key and has not expired."""
        ...

    def cached(self, after: bytes, limit: int) -> list[Kept[CacheEntry]]:
        """Results that are kept, in the order of their keys from after one, at most `limit`."""
        ...

    def questions(self, run_id: str | None, is_open: bool) -> list[Kept[Question]]:
        """Questions of one run or of all, oldest first. `is_open` leaves out those that have an answer."""
        ...

    def used_artifacts(self, digests: Collection[str]) -> set[str]:
        """Those of the digests that an outcome refers to."""
        ...

    def size_of_journal(self, number: int) -> int:
        """The bytes of the keys, texts and values in the journal of a run."""
        ...

    def own_artifacts(self, number: int) -> dict[str, int]:
        """The digests of the artifacts that this run uses and no other one does, with their bytes, 0 if unknown."""
        ...

    def findings(self) -> list[str]:
        """Look for damage; a line for each finding that names its run.

        The database's own check; damaged rows of the windows of rate limits and of what stands beside runs; runs whose
        events are not numbered 1 to `last_sequence`; runs whose `outcomes` is not their number; outcomes in events
        without `ok`, and events with it that have none; keys with two outcomes.
        """
        ...

    def has_changed(self) -> bool:
        """Whether anything may have been written by anybody since the last call; True at the first one. Cheap."""
        ...

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        ...


class Backend(Protocol):
    """A database. Nothing happens before `writing` or `reading` is called."""

    @property
    def name(self) -> str:
        """The database for people, in errors: a path, or a URL without its password."""
        ...

    @property
    def artifacts(self) -> ArtifactStore:
        """Where large values are kept."""
        ...

    @property
    def is_read_only(self) -> bool:
        """Whether it is only looked at: then `writing` raises `StoreError`, and `reading` makes and changes nothing."""
        ...

    @property
    def patience(self) -> float:
        """Seconds after which a single thing that a session does counts as hanging when a store is being closed.

        It is `SLOWEST`, and for as long as it waits for other processes of its own accord.
        """
        ...

    def writing(self) -> WriteSession:
        """Connect, and bring the schema up to date.

        Raises:
            StoreError: it cannot be reached or opened, or was made by a newer version of rh_agents.
        """
        ...

    def reading(self) -> ReadSession:
        """Connect to read. `writing` has been called before, so the schema is there, or the store is read-only.

        Raises:
            StoreError: it cannot be reached or opened, or, if it is read-only, is not there or of another version.
        """
        ...
