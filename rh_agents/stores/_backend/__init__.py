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

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol, TypeVar

from rh_agents.core.errors import StoreError
from rh_agents.core.policies.sharing.windows import SharedState
from rh_agents.core.ports import CacheEntry, Clock
from rh_agents.stores._backend.beside import ReadsBeside, WritesBeside
from rh_agents.stores._backend.rows import (
    NOT_QUEUED,
    Batch,
    CallRow,
    ChildRow,
    EventRow,
    HeldRow,
    InputRow,
    Kept,
    LeaseState,
    NextWanted,
    OutcomeRow,
    Queued,
    RunRow,
    RunsWanted,
    Standing,
    StoredOutcome,
)
from rh_agents.stores._backend.windows import FindsWindows
from rh_agents.stores.artifacts import ArtifactStore

T = TypeVar("T")
SLOWEST = 60.0
"""Seconds that the slowest disk or server needs for a single thing, if it answers at all."""


class ConnectionLost(StoreError):
    """The way to the database broke, or there is none now: what was asked for may have been done, or not."""


class WriteSession(WritesBeside, Protocol):
    """The session of the writer thread."""

    def is_usable(self) -> bool:
        """Whether the way to the database is open, as far as can be seen without asking the database."""
        ...

    def standings(self, numbers: Sequence[int]) -> list[Standing | None]:
        """Who may write to these runs, and how far their journals are, in the same order; None of one that is gone."""
        ...

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

    # -- taking hold of runs ------------------------------------------------------------------------------------------

    def create(self, new: RunRow, parent_fence: int | None = None) -> RunRow | None:
        """Add a run and return it with its number; None if there is one of this name. `new.number` means nothing.

        Args:
            new: its row.
            parent_fence: the fence that the owner of its parent has, if it has one.

        Raises:
            LeaseLost: that is not the owner any more.
        """
        ...

    def stop_children(self, number: int, group: str | None, reason: str) -> None:
        """Let no worker take the child runs of a run, and ask those who execute one to stop it.

        `write` does this for each group in `Batch.ended`, in its transaction, for the reason `GROUP_HAS_ENDED`.

        Args:
            number: of the parent.
            group: only those that have this among their tags; None for all.
            reason: what the owners of those that are executed are told.
        """
        ...

    def replace(self, expected: RunRow, new: RunRow) -> bool:
        """Change the run's row if nobody else has changed who holds it; False if somebody has.

        The columns of `REPLACED` are stored as they are in `new`, WHERE number = expected.number AND fence =
        expected.fence AND heartbeat = expected.heartbeat. (The engine uses it to open, to take over and to cancel.)
        What is there of text of calls under way, an earlier owner has left: it is deleted.
        """
        ...

    def release(
        self,
        number: int,
        fence: int,
        status: str | None,
        reason: str | None,
        now: float,
        queued: Queued = NOT_QUEUED,
        questions: Sequence[str] = (),
        events: Sequence[str] = (),
    ) -> bool:
        """Let go of a run: no owner and process, fence + 1, no stop request. False if it is not ours any more.

        Text of calls under way goes, and so do the notes of who looks at it.

        Args:
            status: that of the run from now on, with `reason`, `updated_at` and, for completed, failed and
                cancelled, `ended_at` = now (else NULL), and with `queued`; None leaves all this as it is.
            queued: its place in a queue from now on.
            questions, events: if one of these has an answer, or an open signal, the run is ready now, whatever `queued`
                says.
        """
        ...

    def claim(self, wanted: NextWanted, take: Callable[[RunRow], RunRow], now: float) -> tuple[RunRow, RunRow] | None:
        """Take the next run of a queue: its row as it was and as it is now; None if there is none.

        Of the runs that are ready and have not ended, the one with the highest priority, among those the one that was
        ready first. `take` says what becomes of its row. Several workers neither wait for each other here, nor do two
        get the same run.

        Raises:
            StoreError: the row is damaged, and so are the next few.
        """
        ...

    def shorten(self, number: int, fence: int, last: int, before: int | None = None) -> bool:
        """Delete the rows behind this sequence of a run that is being deleted; False if it is not ours any more.

        `before` is the sequence behind which they were deleted in the part before this one, if there was one.
        """
        ...

    def delete(
        self, number: int, fence: int, children: Sequence[tuple[int, int]] = (), *, is_empty: bool = False
    ) -> bool:
        """Delete a run that we hold with everything that belongs to it but artifacts; False if it is not ours.

        `children` are its child runs, by number and fence: they go with it, in one transaction, or nothing does.
        `is_empty` says that all journals have been shortened until nothing was left.
        """
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

    # -- what runs and processes share --------------------------------------------------------------------------------

    def put_cached(self, entry: CacheEntry) -> None:
        """Keep a result under its key, in place of what was there."""
        ...

    def delete_expired(self, now: float, limit: int) -> int:
        """Forget results that have expired, at most so many, and tickets that no window has any more.

        Returns how many results were forgotten.
        """
        ...

    def share(self, name: str, step: Callable[[SharedState, float], T], clock: Clock) -> T:
        """Change what processes share under a name. Nobody else looks at it meanwhile.

        `clock` is for backends that have no clock that all processes share; it is asked when nobody else can.
        """
        ...

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        ...


class ReadSession(FindsWindows, ReadsBeside, Protocol):
    """A session that only reads, and never keeps a writer waiting.

    What it gives comes with checksums and is not to be believed before they were compared. What cannot even be turned
    into such rows may raise anything.

    Each method is a transaction, as long as it takes to look through the rows that it is asked about. While it lasts, a
    database keeps what it would have cleared away (SQLite its write-ahead log), so whoever asks asks about a part of a
    journal at a time: `PART` rows, a few hundredths of a second. Reads of one run fit together, though they are of
    different moments, since a journal is only added to: `last_sequence`, read first, says how far it goes for all of
    them. Only erasing and deleting change it, and `_engine.Engine.expect_unchanged` notices that afterwards. `findings`
    alone looks at everything at once: what a database says about itself is of one moment.
    """

    def find_run(self, run_id: str, named: int) -> list[Kept[RunRow]]:
        """The run of this name, and those with this `name_checksum`, which may have lost their name.

        Checksums of runs are those of `run_checksum`, `status_checksum` and `holder_checksum`.
        """
        ...

    def runs(self, wanted: RunsWanted) -> list[Kept[RunRow]]:
        """The runs that fit, newest first."""
        ...

    def count_runs(self, wanted: RunsWanted) -> int:
        """How many fit, whatever `limit` says."""
        ...

    def tags_of_runs(self) -> set[str]:
        """All tags of runs that are part of no other one; what is damaged is left out."""
        ...

    def children(self, number: int) -> list[ChildRow]:
        """How the child runs of a run stand, oldest first."""
        ...

    def find_mark(self, number: int, after: int, until: int, text: str) -> int | None:
        """The sequence of the last event from after one sequence up to another one with a text in its `more`."""
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

    def find_cached(self, key: bytes, now: float) -> Kept[CacheEntry] | None:
        """The result that is kept under a key and has not expired."""
        ...

    def cached(self, after: bytes, limit: int) -> list[Kept[CacheEntry]]:
        """Results that are kept, in the order of their keys from after one, at most `limit`."""
        ...

    def used_artifacts(self, digests: Collection[str]) -> set[str]:
        """Those of the digests that an outcome refers to."""
        ...

    def size_of_journal(self, number: int, after: int, until: int) -> int:
        """The bytes of the keys, texts and values of the events from after one sequence up to another one."""
        ...

    def own_artifacts(self, number: int, after: int, until: int) -> dict[str, int]:
        """The artifacts that these events use and no other run does: digests with their bytes, 0 if unknown."""
        ...

    def findings(self) -> list[str]:
        """Look for damage; a line for each finding that names its run.

        The database's own check; damaged rows of the windows of rate limits and of what stands beside runs; runs whose
        events are not numbered 1 to `last_sequence`; runs whose `outcomes` is not their number; outcomes in events
        without `ok`, and events with it that have none; keys with two outcomes.
        """
        ...

    def look_at_queue(self, queue: str, now: float, without: Sequence[str]) -> tuple[Sequence[str], Sequence[HeldRow]]:
        """What there is to do in a queue, but for some flows, with one query.

        Returns:
            What the runs need that are ready and that no one executes, of many such runs the first few hundred; and the
            leases of those that somebody executes.
        """
        ...

    def queue_has_news(self) -> bool:
        """As `has_changed`, of runs that have become ready alone, where the database can tell."""
        ...

    def has_changed(self) -> bool:
        """Whether anything may have been written by anybody since the last call; True at the first one. Cheap."""
        ...

    def is_in_place(self) -> bool:
        """Whether the name of the database still leads to what this session reads. Cheap."""
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
