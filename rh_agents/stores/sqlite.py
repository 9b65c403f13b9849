"""Runs in an SQLite file: WAL with `synchronous=FULL`, one connection that writes, others that read."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Admitted, CacheEntry, Clock, Question, RateWindow
from rh_agents.core.redaction import logger
from rh_agents.stores._backend import (
    ENDED,
    SLOWEST,
    Batch,
    CallRow,
    EventRow,
    Kept,
    OutcomeRow,
    RunRow,
    Standing,
    StoredOutcome,
)
from rh_agents.stores._checksums import (
    amounts_checksum,
    answer_checksum,
    cache_checksum,
    held_checksum,
    holder_checksum,
    sealed,
    status_checksum,
    ticket_checksum,
)
from rh_agents.stores._files import FILE_MODE, Identity, checked_mode, create_file, identity_of, make_directory
from rh_agents.stores._naming import expanded
from rh_agents.stores._opening_artifacts import open_artifacts
from rh_agents.stores._sql import Migration, read_migrations, read_queries
from rh_agents.stores._sqlite_looking import APPLICATION_ID, Looking, at_one_moment, expect_database_file, expect_ours
from rh_agents.stores._sqlite_migration import CHECKSUMS, Sealing, has_checksums
from rh_agents.stores._sqlite_rows import (
    NOT_MADE,
    OKS,
    PLACE_BITS,
    Row,
    as_json,
    as_text,
    event_row,
    from_text,
    kept_entry,
    kept_event,
    kept_outcome,
    kept_question,
    kept_run,
    outcome_row,
    places_of_run,
    run_facts,
    some_as_text,
    standing_of_row,
    with_number,
)
from rh_agents.stores._store import SqlStore
from rh_agents.stores._verified import CHECKSUMS_OF_QUESTION, checksums_of_question
from rh_agents.stores._windows import damaged_windows, held_until, refusal, tickets_since
from rh_agents.stores.artifacts import ArtifactStore

try:
    import apsw
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError("runs in SQLite files need the package apsw: pip install apsw", name="apsw") from _error

__all__ = ["SqliteStore"]

_LOG = logger("rh_agents.stores")

_PAGE_SIZE = 1024
"""Small, because each outcome changes some page of the index of calls, and the journal of a commit has whole pages."""
_MOST_ROWS = 256
"""Rows in one statement. Their number is rounded up, so that few statements have to be prepared."""
_EVENT_WIDTH = len(EventRow._fields) + 2
_OUTCOME_WIDTH = 14
_SEPARATOR = b"\x1e"
"""Between values that are read together: a character that no JSON text contains."""
_NO_KEY = bytes(32)


class SqliteStore(SqlStore):
    """Runs in an SQLite file, and large results in files beside it.

    Args:
        path: the file. It is made when it is first used, and so is its directory.
        artifacts: where large results are kept: a directory, or a URL that fsspec knows; by default the directory
            `<path>-artifacts`.
        busy_timeout: seconds to wait for other processes that write, before that is an error.
        wal_limit: bytes that the write-ahead log may have before it is brought into the file. It can grow beyond that
            while somebody reads.
        page_size: bytes of a page, for a new file.
        file_mode: the permissions of files that are made, whatever the umask: the database, what SQLite keeps beside
            it, and artifacts. Directories that are made let enter who may read. What is there keeps its permissions.
        read_only: make and change no file; whatever would change something raises `StoreError`.
        clock: the time of day in seconds since 1970.

    Raises:
        ValueError: the path is none, the timeout no number of seconds, or the mode none for a data file.
        StoreError: the artifacts' URL cannot be used.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        artifacts: ArtifactStore | str | None = None,
        busy_timeout: float = 30.0,
        wal_limit: int = 32 << 20,
        page_size: int = _PAGE_SIZE,
        file_mode: int = FILE_MODE,
        read_only: bool = False,
        clock: Clock = time.time,
    ) -> None:
        if not 0 <= busy_timeout < float("inf"):
            raise ValueError(f"busy_timeout is a number of seconds, not {busy_timeout!r}")
        self.path: Path = Path(expanded(os.fspath(path)))
        place = self.path.absolute()  # the working directory may be another one later
        kept = f"{place}-artifacts" if artifacts is None else artifacts
        if isinstance(kept, str):
            kept = open_artifacts(kept, file_mode=checked_mode(file_mode))
        self._database = _Database(
            place, str(path), kept, busy_timeout, wal_limit, page_size, checked_mode(file_mode), read_only
        )
        super().__init__(self._database, clock=clock)

    async def aclose(self) -> None:
        """Write what waits, and let go of all files."""
        await super().aclose()
        await asyncio.to_thread(self._database.close)


class _Database:
    """The file, for the common engine."""

    def __init__(
        self,
        path: Path,
        name: str,
        artifacts: ArtifactStore,
        busy_timeout: float,
        wal_limit: int,
        page_size: int,
        file_mode: int,
        is_read_only: bool = False,
    ) -> None:
        self.path = path
        self.name = name
        self.artifacts = artifacts
        self.busy_timeout = busy_timeout
        self.patience: float = SLOWEST + busy_timeout
        self.wal_limit = wal_limit
        self.page_size = page_size
        self.file_mode = file_mode
        self.is_read_only = is_read_only
        self._looking = Looking(path, name, busy_timeout, self._upgrade) if is_read_only else None
        self._opened: Identity | None = None
        self._log: tuple[str, Identity | None] | None = None

    def writing(self) -> _Writing:
        if self.is_read_only:
            raise StoreError(f"{self.name}: it was opened to be looked at only, so nothing in it can be changed")
        with self.errors():
            if self._opened is None:
                expect_database_file(self.path, self.name)
                self._make()
            else:
                self._expect_same(identity_of(self.path), self._opened)
            self._log = None  # whoever closes it last deletes it
            connection = self._connect(apsw.SQLITE_OPEN_READWRITE)
            session = _Writing(self, connection)
            self._opened = identity_of(self.path)
            self._log = connection.filename_wal, identity_of(connection.filename_wal)
            return session

    def reading(self) -> _Reading:
        with self.errors():
            if self._looking is not None:
                return _Reading(self, self._looking.connect())
            session = _Reading(self, self._connect(apsw.SQLITE_OPEN_READWRITE))
            try:
                self._expect_same(identity_of(self.path), self._opened)
            except BaseException:
                session.close()
                raise
            return session

    def close(self) -> None:
        """Let go of what a store keeps for itself."""
        if self._looking is not None:
            self._looking.close()

    def _upgrade(self, copy: Path) -> None:
        """Bring a copy up to date that nobody else uses."""
        _Database(
            copy, self.name, self.artifacts, self.busy_timeout, self.wal_limit, self.page_size, self.file_mode
        ).writing().close()

    def _make(self) -> None:
        """Make the file, unless it is there. SQLite gives what it keeps beside it the same permissions."""
        try:
            make_directory(self.path.parent, _sync, self.file_mode)
        except OSError as error:
            raise StoreError(f"{self.name}: its directory cannot be made: {error}") from error
        with suppress(OSError):  # it is there; or it cannot be made, and SQLite has more to say about that
            os.close(create_file(os.path.realpath(self.path), os.O_RDWR, self.file_mode))

    def expect_in_place(self) -> None:
        """See to it that the names of the database and its log still lead to the files that are open.

        Whoever deletes, renames or replaces them takes away what is written from then on: the system goes on to write
        into files that have no name any more. So this is asked after each commit, before anybody learns of it.

        Raises:
            StoreError: they do not.
        """
        if self._log is not None:
            self._expect_same(identity_of(self.path), self._opened)
            self._expect_same(identity_of(self._log[0]), self._log[1])

    def _expect_same(self, found: Identity | None, opened: Identity | None) -> None:
        if found == opened:
            return
        what = "deleted or renamed" if found is None else "replaced"
        raise StoreError(
            f"{self.name}: the database, or its log beside it, was {what} while it was in use, so what was written "
            "since may be lost; let every process that uses it end, put the file back, and start the run again"
        )

    def _connect(self, flags: int) -> apsw.Connection:
        connection = apsw.Connection(os.fspath(self.path), flags=flags)
        connection.set_busy_timeout(round(self.busy_timeout * 1000))
        return connection

    @contextmanager
    def errors(self, connection: apsw.Connection | None = None) -> Iterator[None]:
        """Say what went wrong, and where."""
        try:
            yield
        except (apsw.Error, OSError) as error:
            raise StoreError(f"{self.name}: {_cause(error, self, connection)}") from error


_CAUSES: dict[type[Exception], str] = {
    apsw.FullError: "the disk is full",
    apsw.ReadOnlyError: "it cannot be written to",
    apsw.NotADBError: "it is not an SQLite database, so no runs are recorded in it: name another file",
    apsw.CorruptError: "the file is damaged",
    apsw.CantOpenError: "it cannot be opened",
    apsw.PermissionsError: "it may not be used",
    apsw.IOError: "the system reported an error of input or output",
    apsw.ConstraintError: "what was to be written contradicts what is there",
    apsw.NoMemError: "there is not enough memory",
}


def _cause(error: Exception, database: _Database, connection: apsw.Connection | None) -> str:
    """One line that says what went wrong."""
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return f"it has been locked by another process for more than {database.busy_timeout:g} s"
    about = next((text for kind, text in _CAUSES.items() if isinstance(error, kind)), type(error).__name__)
    number = 0
    if connection is not None and isinstance(error, apsw.IOError | apsw.CantOpenError | apsw.FullError):
        number = connection.system_errno
    reason = f"; {os.strerror(number)}" if number else ""
    if isinstance(error, apsw.CantOpenError) and not number:
        reason = _why_not_opened(database.path)
    said = "" if str(error) == "not an error" else str(error)  # of some other connection
    return f"{about} ({said}{reason})" if said or reason else about


def _why_not_opened(path: Path) -> str:
    try:
        with open(path, "r+b"):
            return ""
    except OSError as error:
        return f"; {error.strerror}"


def _sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- sessions ----------------------------------------------------------------------------------------------------------


class _Session:
    """A connection, and how queries are asked."""

    def __init__(self, database: _Database, connection: apsw.Connection) -> None:
        self._database = database
        self._connection = connection
        self._queries = read_queries("sqlite")
        self._version: int | None = None

    def _ask(self, name: str, **arguments: Any) -> list[Row]:
        return list(self._connection.execute(self._queries[name], arguments))

    def _ask_one(self, name: str, **arguments: Any) -> Row | None:
        rows = self._ask(name, **arguments)
        return rows[0] if rows else None

    def has_changed(self) -> bool:
        """Whether another connection has written since the last call."""
        with self._errors():
            version = self._connection.pragma("data_version")
        before, self._version = self._version, version
        return bool(before != version)

    def close(self) -> None:
        try:
            self._connection.close()
        except apsw.Error as error:
            _LOG.warning("%s could not be closed: %s", self._database.name, error)

    def _errors(self) -> Any:
        return self._database.errors(self._connection)


class _Writing(_Session):
    """The connection that writes."""

    def __init__(self, database: _Database, connection: apsw.Connection) -> None:
        super().__init__(database, connection)
        self._wal_pages = 0
        self._checkpoint_at = 0
        self._is_news = True
        try:
            with self._errors():
                with at_one_moment(connection):  # before anything is set that stays in the file
                    expect_ours(connection, database.name)
                self._configure()
            self._migrate()
        except BaseException:
            self.close()
            raise

    def _configure(self) -> None:
        connection, database = self._connection, self._database
        connection.pragma("page_size", database.page_size)  # has an effect on an empty file only
        self._switch_to_wal()
        connection.pragma("synchronous", "FULL")
        connection.pragma("fullfsync", True)  # on macOS, where less does not survive a power cut
        connection.pragma("foreign_keys", True)
        connection.pragma("temp_store", "MEMORY")  # else statements of many rows keep their way back on disk
        connection.pragma("cache_size", -16_000)
        connection.pragma("journal_size_limit", database.wal_limit)
        connection.wal_autocheckpoint(0)
        connection.set_wal_hook(self._count_wal_pages)
        page_size = connection.pragma("page_size")
        assert isinstance(page_size, int)
        self._most_wal_pages = max(1, database.wal_limit // page_size)
        self._checkpoint_at = self._most_wal_pages

    def _switch_to_wal(self) -> None:
        """SQLite does not wait for others that do the same at the same moment, so that is done here."""
        end = time.monotonic() + self._database.busy_timeout
        while True:
            try:
                mode = self._connection.pragma("journal_mode", "WAL")
            except apsw.BusyError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
                continue
            if mode != "wal":
                raise StoreError(f"{self._database.name}: its file system cannot hold a write-ahead log")
            return

    def _count_wal_pages(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._wal_pages = pages
        return 0

    @contextmanager
    def _transaction(self, begin: str = "begin") -> Iterator[None]:
        connection, queries = self._connection, self._queries
        with self._errors():
            connection.execute(queries[begin])
            try:
                yield
                connection.execute(queries["commit"])
            except BaseException:
                with suppress(apsw.Error):  # a disk that is full or fails: what is wrong is said by the first error
                    if connection.in_transaction:
                        connection.execute(queries["rollback"])
                raise
            self._database.expect_in_place()

    # -- the schema ---------------------------------------------------------------------------------------------------

    def _migrate(self) -> None:
        migrations = read_migrations("sqlite")
        known = migrations[-1].number
        with self._transaction("begin_to_read"):  # the file as it is at one moment: another process may be making it
            version = self._schema_version(known)
        if version == known:
            return
        for migration in migrations:
            if migration.number == CHECKSUMS:
                self._migrate_to_checksums(migration)
                continue
            with self._transaction("begin_exclusive"):
                if self._schema_version(known) < migration.number:  # not done by another process meanwhile
                    self._connection.execute(migration.text)
                    self._connection.pragma("application_id", APPLICATION_ID)
                    self._connection.pragma("user_version", migration.number)

    def _migrate_to_checksums(self, migration: Migration) -> None:
        """Give every row its checksum. There may be many, so that is done in batches, and the version changes last."""
        known = migration.number
        with self._transaction("begin_exclusive"):
            if self._schema_version(known) < CHECKSUMS and not has_checksums(self._connection):
                self._connection.execute(migration.text)
        sealing = Sealing(self._connection)
        is_done = False
        while not is_done:
            with self._transaction("begin_exclusive"):
                is_done = self._schema_version(known) >= CHECKSUMS or sealing.seal_some()
                if is_done:
                    self._connection.pragma("user_version", max(CHECKSUMS, self._schema_version(known)))
            self._bound_wal()

    def _schema_version(self, known: int) -> int:
        """The version of the schema that the file has.

        Raises:
            StoreError: the file belongs to something else, or to a newer version of this library.
        """
        return expect_ours(self._connection, self._database.name, known)

    # -- batches and leases -------------------------------------------------------------------------------------------

    def write(self, batches: Sequence[Batch], now: float) -> list[Standing]:
        with self._transaction():
            standings = self._write(batches, now)
        self._bound_wal()
        return standings

    def _write(self, batches: Sequence[Batch], now: float) -> list[Standing]:
        events: list[Any] = []
        outcomes: list[Any] = []
        standings = []
        for batch in batches:
            standing = self._advance(batch, now)
            standings.append(standing)
            if standing.is_ours:
                first = batch.number << PLACE_BITS
                of_events, of_outcomes = sealed(batch.events, batch.outcomes)
                for event, checksums in zip(batch.events, of_events, strict=True):
                    events += event_row(first, event, checksums)
                for outcome, checksum in zip(batch.outcomes, of_outcomes, strict=True):
                    outcomes += outcome_row(first, batch.number, outcome, checksum)
        self._insert("insert_events", events, _EVENT_WIDTH)
        self._insert("insert_outcomes", outcomes, _OUTCOME_WIDTH)
        return standings

    def _advance(self, batch: Batch, now: float) -> Standing:
        row = self._ask_one(
            "advance",
            number=batch.number,
            fence=batch.fence,
            expected=batch.last_sequence,
            last_sequence=batch.last_sequence + len(batch.events),
            outcomes=len(batch.outcomes),
            now=now,
        )
        return standing_of_row(row)

    def _insert(self, name: str, values: list[Any], width: int) -> None:
        """Insert rows with as few statements as possible: for each the interpreter's lock has to be got back."""
        for start in range(0, len(values), _MOST_ROWS * width):
            chunk = values[start : start + _MOST_ROWS * width]
            count = len(chunk) // width
            size = _size_for(count)
            chunk += [None] * ((size - count) * width)
            self._connection.execute(_repeated(self._queries[name], size), chunk)

    def _bound_wal(self) -> None:
        """Bring the write-ahead log into the file when it is large. Nobody but our own writer waits for that."""
        if self._wal_pages < self._checkpoint_at:
            return
        with self._errors():
            pages, moved = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if pages == moved:
            self._checkpoint_at = self._most_wal_pages  # the next commit begins from its start again
        else:  # somebody reads what is older: not at every commit from now on
            self._checkpoint_at = self._wal_pages + self._most_wal_pages // 4

    def renew(self, held: Sequence[tuple[int, int]], now: float) -> list[Standing]:
        with self._transaction():
            standings = [
                standing_of_row(self._ask_one("renew", number=number, fence=fence, now=now)) for number, fence in held
            ]
        self._bound_wal()
        return standings

    def look(self, held: Sequence[tuple[int, int]]) -> list[Standing] | None:
        if not self.has_changed() and not self._is_news:
            return None
        self._is_news = False
        with self._errors():
            return [standing_of_row(self._ask_one("look", number=number, fence=fence)) for number, fence in held]

    # -- taking hold of runs ------------------------------------------------------------------------------------------

    def create(self, new: RunRow) -> RunRow | None:
        with self._transaction():
            return self._create(new)

    def _create(self, new: RunRow) -> RunRow | None:
        row = self._ask_one("create_run", created_at=new.created_at, run_id=as_text(new.run_id), **run_facts(new))
        if row is None:
            return None
        self._put_input(row[0], new.input)
        return with_number(new, row[0])

    def replace(self, expected: RunRow, new: RunRow) -> bool:
        with self._transaction():
            row = self._ask_one(
                "replace_run",
                number=expected.number,
                expected_fence=expected.fence,
                expected_heartbeat=expected.heartbeat,
                **run_facts(new),
            )
            if row is None:
                return False
            self._put_input(expected.number, new.input)
        return True

    def _put_input(self, number: int, data: bytes | None) -> None:
        if data is not None:
            self._ask("put_input", number=number, input=data)

    def release(self, number: int, fence: int, status: str | None, reason: str | None, now: float) -> bool:
        held = {"number": number, "fence": fence, "holder_checksum": holder_checksum(None, None, fence + 1)}
        with self._transaction():
            if status is None:
                return bool(self._ask("release_run", **held))
            ended_at = now if status in ENDED else None
            facts = {"status": status, "reason": as_text(reason), "now": now, "ended_at": ended_at}
            checksum = status_checksum(status, reason, ended_at)
            return bool(self._ask("release_run_as", **held, **facts, status_checksum=checksum))

    def delete(self, number: int, fence: int) -> bool:
        first, last = places_of_run(number)
        with self._transaction():
            if not self._ask("is_held", number=number, fence=fence):
                return False
            self._ask("delete_outcomes", first=first, last=last)
            self._ask("delete_events", first=first, last=last)
            self._ask("delete_questions", number=number)
            self._ask("delete_cached", number=number)
            self._ask("delete_run", number=number)
        self._bound_wal()
        return True

    def add(self, new: RunRow, parts: Iterable[tuple[list[EventRow], list[OutcomeRow]]]) -> bool:
        with self._transaction():
            made = self._create(new)
            if made is None:
                return False
            sequence = 0
            for events, outcomes in parts:
                self._write([Batch(made.number, made.fence, sequence, events, outcomes)], new.updated_at)
                sequence += len(events)
        self._bound_wal()
        return True

    # -- people -------------------------------------------------------------------------------------------------------

    def ask(self, number: int, fence: int, question: Question) -> bool:
        checksums = dict(zip(CHECKSUMS_OF_QUESTION, checksums_of_question(question), strict=True))
        with self._transaction():
            if not self._ask("is_held", number=number, fence=fence):
                return False
            self._ask(
                "ask",
                number=number,
                id=as_text(question.id),
                address=as_text(question.address),
                text=as_text(question.text),
                schema=as_text(question.schema),
                asked_at=question.asked_at,
                answer=question.answer,
                answered_at=question.answered_at,
                answered_by=as_text(question.answered_by),
                problem=as_text(question.problem),
                **checksums,
            )
            return True

    def reject_answer(self, number: int, fence: int, question_id: str, problem: str) -> bool:
        checksum = answer_checksum(question_id, None, None, None, problem)
        with self._transaction():
            if not self._ask("is_held", number=number, fence=fence):
                return False
            facts = {"problem": as_text(problem), "answer_checksum": checksum}
            self._ask("reject_answer", number=number, id=as_text(question_id), **facts)
            return True

    def answer(self, number: int, question_id: str, answer: bytes, by: str | None, now: float) -> bool:
        facts = {"answer": answer, "by": as_text(by), "now": now}
        checksum = answer_checksum(question_id, answer, now, by, None)
        with self._transaction():
            return bool(self._ask("answer", number=number, id=as_text(question_id), answer_checksum=checksum, **facts))

    def request_stop(self, number: int, reason: str) -> None:
        with self._transaction():
            self._ask("request_stop", number=number, reason=as_text(reason))
        self._is_news = True  # `data_version` tells only of what others have written

    # -- what runs and processes share --------------------------------------------------------------------------------

    def put_cached(self, entry: CacheEntry) -> None:
        with self._transaction():
            self._ask(
                "put_cached",
                key=entry.key,
                value=entry.value.decode(),
                actor=as_text(entry.actor),
                created_at=entry.created_at,
                expires_at=entry.expires_at,
                run_id=as_text(entry.run_id),
                checksum=cache_checksum(entry),
            )
        self._bound_wal()

    def delete_expired(self, now: float) -> None:
        with self._transaction():
            self._ask("delete_expired", now=now)
            self._ask("delete_old_tickets", now=now)
        self._bound_wal()

    def admit(self, window: RateWindow, amounts: Mapping[str, float], now: float) -> Admitted:
        limited = some_as_text(window.name)
        taken = as_json(dict(amounts))
        ends_at = now + window.per
        with self._transaction():
            self._ask("delete_old_tickets", now=now)
            rows = self._ask("read_tickets", limited=limited)
            tickets = tickets_since(self._database.name, limited, rows, now - window.per)
            refused = refusal(window, tickets, self._held_until(limited), amounts, now)
            if refused is not None:
                return refused
            row = self._ask_one(
                "add_ticket",
                limited=limited,
                taken_at=now,
                ends_at=ends_at,
                amounts=taken,
                checksum=ticket_checksum(limited, now, ends_at),
                amounts_checksum=amounts_checksum(limited, taken),
            )
            assert row is not None
            return Admitted(str(row[0]))

    def _held_until(self, limited: str) -> float:
        return held_until(self._database.name, limited, self._ask_one("read_hold", limited=limited))

    def settle(self, window: RateWindow, ticket: str, amounts: Mapping[str, float]) -> None:
        limited, used = some_as_text(window.name), as_json(dict(amounts))
        checksum = amounts_checksum(limited, used)
        with self._transaction():
            self._ask("settle_ticket", number=int(ticket), limited=limited, amounts=used, amounts_checksum=checksum)

    def hold(self, window: RateWindow, seconds: float, now: float) -> None:
        limited = some_as_text(window.name)
        with self._transaction():
            until = max(self._held_until(limited), now + seconds)
            self._ask("hold", limited=limited, held_until=until, checksum=held_checksum(limited, until))

    def close(self) -> None:
        # If it fails, somebody else uses the file and does it later, or others have been told what is wrong; so nobody
        # waits for it either.
        with suppress(apsw.Error):
            self._connection.set_busy_timeout(0)
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        super().close()


def _more(about: list[str] | None) -> tuple[str | None, str | None]:
    """The name and the rarer facts of an event that has any."""
    if about is None:
        return None, None
    name, more = about
    return from_text(name), from_text(more)


class _Reading(_Session):
    """A connection that reads."""

    def __init__(self, database: _Database, connection: apsw.Connection) -> None:
        super().__init__(database, connection)
        try:
            with self._errors():
                connection.pragma("query_only", True)
                connection.pragma("temp_store", "MEMORY")
        except BaseException:
            self.close()
            raise

    def _all(self, name: str, **arguments: Any) -> list[Row]:
        with self._errors():
            return self._ask(name, **arguments)

    def find_run(self, run_id: str, named: int) -> list[Kept[RunRow]]:
        return [kept_run(row) for row in self._all("find_run", run_id=as_text(run_id), named=named)]

    def runs(self, status: str | None, tag: str | None, updated_before: float | None) -> list[Kept[RunRow]]:
        part = None if tag is None else as_json(tag)
        rows = self._all("list_runs", status=status, tag=part, updated_before=updated_before)
        return [kept for kept in map(kept_run, rows) if tag is None or tag in kept.row.tags]

    def calls(self, number: int, after: int, limit: int) -> list[Kept[CallRow]]:
        first, last = number << PLACE_BITS, places_of_run(number)[1]
        ((places, statuses, keys, attempts, groups, oks, more, made_in, checksums),) = self._all(
            "read_calls", after=first + after, last=last, limit=limit
        )
        keys = keys or b""
        return [
            Kept(
                CallRow(place - first, status, key if key != _NO_KEY else None, attempt, group, ok, *about, *made),
                checksum,
            )
            for place, status, key, attempt, group, ok, about, made, checksum in zip(
                from_json(places),
                from_json(statuses),
                [keys[start : start + 32] for start in range(0, len(keys), 32)],
                from_json(attempts),
                map(from_text, from_json(groups)),
                map(OKS.__getitem__, from_json(oks)),
                map(_more, from_json(more)),
                (from_json(made) if made else NOT_MADE for made in from_json(made_in)),
                from_json(checksums),
                strict=True,
            )
        ]

    def events(self, number: int, after: int, limit: int) -> list[Kept[EventRow]]:
        first, last = number << PLACE_BITS, places_of_run(number)[1]
        ((rows,),) = self._all("read_events", after=first + after, last=last, limit=limit)
        return [kept_event(first, row) for row in from_json(rows)]

    def outcomes(self, number: int, after: int, limit: int) -> list[Kept[StoredOutcome]]:
        first, last = number << PLACE_BITS, places_of_run(number)[1]
        ((rows, values),) = self._all("read_outcomes", after=first + after, last=last, limit=limit)
        parts = [] if values is None else values.split(_SEPARATOR)
        return [kept_outcome(first, row, value) for row, value in zip(from_json(rows), parts, strict=True)]

    def sequences(self, number: int, keys: Collection[bytes]) -> dict[bytes, int]:
        first = number << PLACE_BITS
        found = {key: self._all("find_outcome", number=number, key=key) for key in keys}
        return {key: rows[0][0] - first for key, rows in found.items() if rows}

    def find_cached(self, key: bytes, now: float) -> Kept[CacheEntry] | None:
        rows = self._all("find_cached", key=key, now=now)
        return kept_entry(rows[0]) if rows else None

    def cached(self, after: bytes, limit: int) -> list[Kept[CacheEntry]]:
        return [kept_entry(row) for row in self._all("read_cached", after=after, limit=limit)]

    def find_question(self, number: int, question_id: str, named: int) -> list[Kept[Question]]:
        rows = self._all("find_question", number=number, id=as_text(question_id), named=named)
        return [kept_question(row) for row in rows]

    def questions(self, run_id: str | None, is_open: bool) -> list[Kept[Question]]:
        if run_id is not None:
            rows = self._all("questions_of_run", run_id=as_text(run_id))
        else:
            rows = self._all("open_questions" if is_open else "questions")
        return [kept for kept in map(kept_question, rows) if not is_open or kept.row.answer is None]

    def used_artifacts(self, digests: Collection[str]) -> set[str]:
        return {digest for digest in digests if self._all("is_used_artifact", artifact=bytes.fromhex(digest))}

    def all_artifacts(self, after: str, limit: int) -> list[str]:
        return [digest for (digest,) in self._all("all_artifacts", after=bytes.fromhex(after), limit=limit)]

    def findings(self) -> list[str]:
        name = self._database.name
        found = [f"{name}: {text}" for (text,) in self._all("check_integrity") if text != "ok"]
        if found:  # what a damaged file says about runs is worth nothing
            return found
        for query, tell in _FINDINGS.items():
            found += [f"{name}: {tell(*row)}" for row in self._all(query)]
        windows = damaged_windows(self._all("all_tickets"), self._all("all_holds"))
        return found + [f"{name}: {text}" for text in windows]


_FINDINGS: dict[str, Callable[..., str]] = {
    "check_foreign_keys": lambda table, row, parent, _: f"row {row} of {table} refers to a {parent} that is not there",
    "check_sequences": lambda run, last, count, *_: (
        f"run {run!r} should have the events 1 to {last}, and has {count}, not all of them of these numbers"
    ),
    "check_counts": lambda run, count, found: f"run {run!r} should have {count} outcomes, and has {found}",
    "check_events_without_run": lambda number, count: (
        f"{count} events belong to run number {number}, which is not there"
    ),
    "check_events_without_outcome": lambda run, place: (
        f"event {place} of run {run!r} reports an outcome that is missing"
    ),
    "check_outcomes": lambda run, place, what: f"outcome {place} of run {run!r} {what}",
    "check_calls": lambda run, count: f"a call of run {run!r} has {count} outcomes",
}


def _size_for(count: int) -> int:
    """So many rows, or a few more: there are few sizes, so that few statements have to be prepared."""
    power = 1 << (count - 1).bit_length()
    return power if count * 4 > power * 3 else max(1, power * 3 // 4)


_VALUES = re.compile(r"VALUES (\([?, ]+\))")
_statements: dict[tuple[str, int], str] = {}


def _repeated(query: str, count: int) -> str:
    """The query with its list of values so many times."""
    text = _statements.get((query, count))
    if text is None:
        text = _VALUES.sub(lambda found: "VALUES " + ",".join([found[1].replace(" ", "")] * count), query)
        _statements[query, count] = text
    return text
