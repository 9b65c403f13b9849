"""PostgreSQL for the common engine: what `rh_agents.stores._backend` asks for, said in SQL."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from hashlib import sha256
from itertools import chain
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool

from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Admitted, CacheEntry, Question, RateWindow
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
from rh_agents.stores._files import checked_mode, read_mode
from rh_agents.stores._opening_artifacts import open_artifacts
from rh_agents.stores._postgresql_artifacts import TableArtifacts
from rh_agents.stores._postgresql_driver import Array, Database, from_text, plain_text, read_url
from rh_agents.stores._postgresql_migration import CHECKSUMS, Sealing
from rh_agents.stores._sql import read_migrations, read_queries
from rh_agents.stores._verified import (
    CHECKSUMS_OF_QUESTION,
    CHECKSUMS_OF_RUN,
    checksums_of_question,
    checksums_of_run,
)
from rh_agents.stores._windows import damaged_windows, held_until, refusal, tickets_since
from rh_agents.stores.artifacts import ArtifactStore

__all__ = ["PostgresqlBackend"]

Connection = psycopg.Connection[Any]

_EVENT_KINDS: Final = {
    "sequence": "int8",
    "timestamp": "float8",
    "status": "text",
    "event_type": "text",
    "name": "text",
    "address": "text",
    "key": "bytea",
    "group_id": "text",
    "parallel_index": "int8",
    "group_total": "int8",
    "attempt": "int4",
    "seconds": "float8",
    "message": "text",
    "ok": "bool",
    "more": "text",
    "call_checksum": "int4",
    "checksum": "int4",
}
_OUTCOME_KINDS: Final = {
    "sequence": "int8",
    "key": "bytea",
    "ok": "bool",
    "base": "bytea",
    "parent": "bytea",
    "epoch": "int4",
    "tries": "int4",
    "parent_attempt": "int4",
    "value": "bytea",
    "artifact": "bytea",
    "more": "text",
    "size": "int8",
    "checksum": "int4",
}
assert tuple(_EVENT_KINDS)[:-2] == EventRow._fields
assert tuple(_OUTCOME_KINDS)[:-1] == OutcomeRow._fields
_ARTIFACT: Final = OutcomeRow._fields.index("artifact")


class PostgresqlBackend:
    """A schema in a PostgreSQL database.

    Args:
        url: `postgresql://user:password@host:port/database`; as a query come options of the driver, `schema` (where the
            tables are), `artifacts` (where large values are kept, if not in a table) and `mode` (the permissions of
            files that are made there, 0600 by default).
        schema, artifacts, file_mode: the same, instead of what the URL says.
        is_read_only: whether nothing in the database is made or changed.

    Raises:
        StoreError: it is no such URL.
        ValueError: the mode is none for a data file.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str | None = None,
        artifacts: str | None = None,
        file_mode: int | None = None,
        is_read_only: bool = False,
    ) -> None:
        self.is_read_only: bool = is_read_only
        self.patience: float = SLOWEST
        self._database, options = read_url(url, schema)
        self._queries: dict[str, str] = read_queries("postgresql")
        self._lock = threading.Lock()
        self._pool: ConnectionPool[Connection] | None = None
        self._news = _News(self)
        self._is_checked = False
        where = artifacts or options.get("artifacts")
        mode = read_mode(options.get("mode", "0600")) if file_mode is None else checked_mode(file_mode)
        self._artifacts: ArtifactStore = (
            TableArtifacts(self.borrow, self._queries, self.name)
            if where is None
            else open_artifacts(where, file_mode=mode)
        )

    def __repr__(self) -> str:
        return f"PostgresqlBackend({self.name!r}, schema={self.database.schema!r})"

    @property
    def database(self) -> Database:
        """Which database it is."""
        return self._database

    @property
    def name(self) -> str:
        """The database for people: its URL without the password."""
        return self._database.place

    @property
    def artifacts(self) -> ArtifactStore:
        """Where large values are kept: in a table, unless the URL names another place."""
        return self._artifacts

    def writing(self) -> PostgresqlWriting:
        """Connect, and bring the schema up to date."""
        if self.is_read_only:
            raise StoreError(f"{self.name}: it was opened to be looked at only, so nothing in it can be changed")
        connection = self._database.connect()
        try:
            if not self._is_checked:
                self._database.warn_if_unsafe(connection)
                migrate(self._database, connection)
                self._is_checked = True
            return PostgresqlWriting(self._database, connection, self._queries)
        except BaseException:
            connection.close()
            raise

    def reading(self) -> PostgresqlReading:
        """A session that has a connection only while it reads."""
        if self.is_read_only and not self._is_checked:
            with self.borrow("the schema could not be read") as connection:
                expect_current(self._database, connection)
            self._is_checked = True
        return PostgresqlReading(self, self._queries, self._news)

    @contextmanager
    def borrow(self, what: str) -> Iterator[Connection]:
        """A connection of those that all share; an error inside says that `what` could not be done."""
        with self._database.errors(what), self.pool().connection() as connection:
            yield connection

    def pool(self) -> ConnectionPool[Connection]:
        """The connections that all share."""
        with self._lock:
            if self._pool is None:
                self._pool = self._database.pool()
            return self._pool

    def close(self) -> None:
        """Let go of the connections that sessions have shared."""
        self._news.close()
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


# --- the schema ------------------------------------------------------------------------------------------------------


def migrate(database: Database, connection: Connection) -> None:
    """Bring the schema up to date. Of several who do that at once, one does it, and the others wait.

    Raises:
        StoreError: it was made by a newer version, or may not be changed.
    """
    queries = read_queries("postgresql")
    migrations = read_migrations("postgresql")
    known = migrations[-1].number
    with database.errors("the schema could not be brought up to date"):
        version = _version(connection)
        sealing = Sealing(connection)
        while version < known:
            with connection.transaction():
                connection.execute(queries["lock_migrations"].encode(), {"lock": _lock_number(database)})
                _create_schema(database, connection)
                version = _version(connection)
                step = next((step for step in migrations if step.number > version), None)
                if step is not None and (step.number != CHECKSUMS or sealing.advance(step)):
                    if step.number != CHECKSUMS:
                        connection.execute(step.text.encode())
                    facts = {"version": step.number, "file": step.file}
                    connection.execute(queries["add_migration"].encode(), facts)
                    version = step.number
    if version > known:
        raise _newer(database, version, known)


def expect_current(database: Database, connection: Connection) -> None:
    """See to it that the schema is there and of this version, without making or changing it.

    Raises:
        StoreError: it is not.
    """
    version, known = _version(connection), read_migrations("postgresql")[-1].number
    where = f"{database.place}: schema {database.schema!r}"
    if version == 0:
        raise StoreError(f"{where} has no tables of rh_agents, so no runs are recorded in it")
    if version < known:
        raise StoreError(
            f"{where} was made by an earlier version of rh_agents (schema {version}, this one knows {known}): starting "
            "or resuming a run brings it up to date, looking at it does not"
        )
    if version > known:
        raise _newer(database, version, known)


def _newer(database: Database, version: int, known: int) -> StoreError:
    return StoreError(
        f"{database.place}: schema {database.schema!r} was made by a newer version of rh_agents: "
        f"schema {version}, this one knows {known}"
    )


def _version(connection: Connection) -> int:
    """The number of the last migration that was applied, 0 if none was."""
    queries = read_queries("postgresql")
    found = connection.execute(queries["schema_version"].encode()).fetchone()
    if found is None or found[0] is None:
        return 0
    row = connection.execute(queries["last_migration"].encode()).fetchone()
    return 0 if row is None else int(row[0])


def _create_schema(database: Database, connection: Connection) -> None:
    queries = read_queries("postgresql")
    row = connection.execute(queries["schema_exists"].encode(), {"schema": database.schema}).fetchone()
    if row != (True,):  # IF NOT EXISTS wants the right to create one even where there is one
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(database.schema)))
    connection.execute(queries["create_schema_version"].encode())


def _lock_number(database: Database) -> int:
    """What stands for the schema among the database's advisory locks."""
    return int.from_bytes(_digest(database)[:8], "big", signed=True)


def _digest(database: Database) -> bytes:
    return sha256(b"rh_agents " + database.schema.encode()).digest()


# --- sessions --------------------------------------------------------------------------------------------------------


def _channels(database: Database) -> dict[str, str]:
    """The channels of a schema: `changes` for those who read, `requests` for those who execute runs."""
    name = "rh_agents_" + _digest(database).hex()[:32]
    return {"changes": name + "_changes", "requests": name + "_requests"}


def _rows(connection: Connection, query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    cursor = connection.execute(query.encode(), parameters, binary=True, prepare=True)
    return cursor.fetchall() if cursor.description is not None else []


class _Ear:
    """Hears the notifications of a channel that come to a connection."""

    def __init__(self, connection: Connection, channel: str) -> None:
        self._connection = connection
        self._has_heard = True
        connection.add_notify_handler(self._hear)
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def _hear(self, notification: psycopg.Notify) -> None:
        self._has_heard = True

    def has_heard(self) -> bool:
        """Whether there was one since the last call; True at the first one. Asks the socket, not the server."""
        wire = self._connection.pgconn
        wire.consume_input()
        while wire.notifies() is not None:
            self._has_heard = True
        has_heard, self._has_heard = self._has_heard, False
        return has_heard


class _News:
    """Counts what happens in a schema, with one connection for all who want to know."""

    def __init__(self, backend: PostgresqlBackend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._ear: _Ear | None = None
        self._count = 0

    def count(self) -> int:
        """A number that is another one when anybody may have written since the last call."""
        with self._lock, self._backend.database.errors("no news of other processes"):
            try:
                self._count += self._listening().has_heard()
            except BaseException:
                self._let_go()
                raise
            return self._count

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._let_go()

    def _listening(self) -> _Ear:
        if self._ear is None:
            self._connection = self._backend.pool().getconn()
            self._ear = _Ear(self._connection, _channels(self._backend.database)["changes"])
        return self._ear

    def _let_go(self) -> None:
        connection, self._connection, self._ear = self._connection, None, None
        if connection is not None:
            connection.close()
            self._backend.pool().putconn(connection)


class PostgresqlWriting:
    """The session of the writer thread. Every method is one statement or one transaction."""

    def __init__(self, database: Database, connection: Connection, queries: Mapping[str, str]) -> None:
        self._database = database
        self._connection = connection
        self._queries = queries
        self._channels = _channels(database)
        with database.errors("no news of other processes"):
            self._ear = _Ear(connection, self._channels["requests"])

    def __repr__(self) -> str:
        return f"PostgresqlWriting({self._database.place!r})"

    def _rows(self, name: str, what: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with self._database.errors(what):
            return _rows(self._connection, self._queries[name], parameters)

    def _changes(self, name: str, what: str, **parameters: Any) -> bool:
        """Whether a query that changes something has found what to change; it tells those who listen."""
        return bool(self._rows(name, what, **parameters, **self._channels))

    # -- batches and leases -------------------------------------------------------------------------------------------

    def write(self, batches: Sequence[Batch], now: float) -> list[Standing]:
        """Add all batches in one transaction, but for those of runs that are not ours any more."""
        both = [(batch.number, *_with_checksums(batch)) for batch in batches]
        events = _columns("event", _EVENT_KINDS, [(number, rows) for number, rows, _ in both])
        outcomes = _columns("outcome", _OUTCOME_KINDS, [(number, rows) for number, _, rows in both])
        rows = self._rows(
            "write",
            "the journal could not be written (if the connection broke, the last batch may be there all the same)",
            number=Array("int8", [batch.number for batch in batches]),
            fence=Array("int8", [batch.fence for batch in batches]),
            before=Array("int8", [batch.last_sequence for batch in batches]),
            after=Array("int8", [batch.last_sequence + len(batch.events) for batch in batches]),
            added=Array("int8", [len(batch.outcomes) for batch in batches]),
            now=now,
            changes=self._channels["changes"],
            **events,
            **outcomes,
        )
        return _standings([batch.number for batch in batches], rows)

    def renew(self, held: Sequence[tuple[int, int]], now: float) -> list[Standing]:
        """Give a sign of life for the runs (number, fence)."""
        rows = self._rows("renew", "the lease could not be renewed", now=now, **_held(held))
        return _standings([number for number, _ in held], rows)

    def look(self, held: Sequence[tuple[int, int]]) -> list[Standing] | None:
        """How the runs stand now; None if nobody has notified since the last time."""
        with self._database.errors("no news of other processes"):
            if not self._ear.has_heard():
                return None
        rows = self._rows("look", "the state of the runs could not be read", **_held(held))
        return _standings([number for number, _ in held], rows)

    # -- taking hold of runs ------------------------------------------------------------------------------------------

    def create(self, new: RunRow) -> RunRow | None:
        """Add a run and return it with its number; None if there is one of this name."""
        rows = self._rows(
            "create",
            f"run {new.run_id!r} could not be created",
            **_run_columns(new),
            last_sequence=new.last_sequence,
            outcomes=new.outcomes,
            created_at=new.created_at,
            run_id=new.run_id,
            changes=self._channels["changes"],
        )
        return None if not rows else replace(new, number=rows[0][0])

    def replace(self, expected: RunRow, new: RunRow) -> bool:
        """Change the run's row if nobody else has changed who holds it; False if somebody has."""
        return self._changes(
            "replace",
            f"run {expected.run_id!r} could not be changed",
            **_run_columns(new),
            number=expected.number,
            expected_fence=expected.fence,
            expected_heartbeat=expected.heartbeat,
        )

    def release(self, number: int, fence: int, status: str | None, reason: str | None, now: float) -> bool:
        """Let go of a run, and say how it stands if `status` is given. False if it is not ours any more."""
        what = "the run could not be let go of"
        held = {"number": number, "fence": fence, "holder_checksum": holder_checksum(None, None, fence + 1)}
        if status is None:
            return self._changes("release", what, **held)
        ended_at = now if status in ENDED else None
        facts = {"status": status, "reason": reason, "now": now, "ended_at": ended_at}
        checksum = status_checksum(status, reason, ended_at)
        return self._changes("release_with_status", what, **held, **facts, status_checksum=checksum)

    def delete(self, number: int, fence: int) -> bool:
        """Delete a run that we hold with everything that belongs to it but artifacts; False if it is not ours."""
        return self._changes("delete", "the run could not be deleted", number=number, fence=fence)

    def add(self, new: RunRow, parts: Iterable[tuple[list[EventRow], list[OutcomeRow]]]) -> bool:
        """Add a run with a journal; False if there is one of this name."""
        with self._database.errors(f"run {new.run_id!r} could not be made"), self._connection.transaction():
            made = self.create(new)
            if made is None:
                return False
            sequence = 0
            for events, outcomes in parts:
                self.write([Batch(made.number, made.fence, sequence, events, outcomes)], new.updated_at)
                sequence += len(events)
        return True

    # -- people -------------------------------------------------------------------------------------------------------

    def ask(self, number: int, fence: int, question: Question) -> bool:
        """Add a question unless there is one of this id. False if the run is not ours."""
        what = "a question could not be recorded"
        columns = asdict(question)
        del columns["run_id"]
        checksums = dict(zip(CHECKSUMS_OF_QUESTION, checksums_of_question(question), strict=True))
        with self._database.errors(what), self._connection.transaction():
            self._changes("ask", what, number=number, fence=fence, **columns, **checksums)
            return bool(self._rows("is_held", what, number=number, fence=fence))

    def reject_answer(self, number: int, fence: int, question_id: str, problem: str) -> bool:
        """Take an answer away and say why. False if the run is not ours."""
        facts = {"number": number, "fence": fence, "id": question_id, "problem": problem}
        checksum = answer_checksum(question_id, None, None, None, problem)
        return self._changes("reject_answer", "an answer could not be rejected", **facts, answer_checksum=checksum)

    def answer(self, number: int, question_id: str, answer: bytes, by: str | None, now: float) -> bool:
        """Answer an open question, and forget its problem; False if there is none or it has been answered."""
        facts = {"number": number, "id": question_id, "answer": answer, "by": by, "now": now}
        checksum = answer_checksum(question_id, answer, now, by, None)
        return self._changes("answer", "an answer could not be recorded", **facts, answer_checksum=checksum)

    def request_stop(self, number: int, reason: str) -> None:
        """Leave a request for the holder of a run."""
        self._changes("request_stop", "the run could not be asked to stop", number=number, reason=reason)

    # -- what runs and processes share --------------------------------------------------------------------------------

    def put_cached(self, entry: CacheEntry) -> None:
        """Keep a result under its key, in place of what was there."""
        self._rows(
            "put_cached",
            "a result could not be kept",
            key=entry.key,
            value=entry.value,
            actor=entry.actor,
            created_at=entry.created_at,
            expires_at=entry.expires_at,
            run_id=entry.run_id,
            checksum=cache_checksum(entry),
        )

    def delete_expired(self, now: float) -> None:
        """Forget results that have expired, and tickets that no window has any more."""
        self._rows("delete_expired", "expired results could not be deleted", now=now)

    def admit(self, window: RateWindow, amounts: Mapping[str, float], now: float) -> Admitted:
        """Take amounts out of a window, by the clock of the server: those of machines differ."""
        what, place, limited = "a shared rate limit could not be asked", self._database.place, window.name
        with self._database.errors(what), self._connection.transaction():
            now, until = self._lock_window(limited, what)
            self._rows("delete_old_tickets", what, limited=limited, now=now)
            rows = self._rows("read_tickets", what, limited=limited)
            tickets = tickets_since(place, limited, rows, now - window.per)
            refused = refusal(window, tickets, until, amounts, now)
            if refused is not None:
                return refused
            taken, ends_at = json.dumps(dict(amounts)), now + window.per
            facts = {"limited": limited, "taken_at": now, "ends_at": ends_at, "amounts": taken}
            checksum = ticket_checksum(limited, now, ends_at)
            of_amounts = amounts_checksum(limited, taken)
            ((number,),) = self._rows("add_ticket", what, **facts, checksum=checksum, amounts_checksum=of_amounts)
        return Admitted(str(number))

    def _lock_window(self, limited: str, what: str) -> tuple[float, float]:
        """Let nobody else look at a window until the transaction ends; its time, and before when nobody passes."""
        lock = sha256(_digest(self._database) + limited.encode("utf-8", "surrogatepass")).digest()
        self._rows("lock_window", what, lock=int.from_bytes(lock[:8], "big", signed=True))
        ((now, *row),) = self._rows("read_window", what, limited=limited)
        return now, held_until(self._database.place, limited, row)

    def settle(self, window: RateWindow, ticket: str, amounts: Mapping[str, float]) -> None:
        """Let a ticket count for other amounts, if it still counts."""
        limited, used = window.name, json.dumps(dict(amounts))
        facts = {"limited": limited, "number": int(ticket), "amounts": used}
        checksum = amounts_checksum(limited, used)
        self._rows("settle_ticket", "a shared rate limit could not be settled", **facts, amounts_checksum=checksum)

    def hold(self, window: RateWindow, seconds: float, now: float) -> None:
        """Admit nobody for so many seconds, or for longer if that was said before."""
        what, limited = "a shared rate limit could not be held", window.name
        with self._database.errors(what), self._connection.transaction():
            now, until = self._lock_window(limited, what)
            until = max(until, now + seconds)
            self._rows("hold", what, limited=limited, until=until, checksum=held_checksum(limited, until))

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


class PostgresqlReading:
    """A session that only reads. PostgreSQL's readers never keep a writer waiting."""

    def __init__(self, backend: PostgresqlBackend, queries: Mapping[str, str], news: _News) -> None:
        self._backend = backend
        self._queries = queries
        self._news = news
        self._seen: int | None = None

    def __repr__(self) -> str:
        return f"PostgresqlReading({self._backend.name!r})"

    def _rows(self, name: str, what: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with self._backend.borrow(what) as connection:
            return _rows(connection, self._queries[name], parameters)

    def find_run(self, run_id: str, named: int) -> list[Kept[RunRow]]:
        """The run of this name, and those whose name has this checksum."""
        rows = self._rows("find_run", f"run {run_id!r} could not be read", run_id=run_id, named=named)
        return [_kept_run(row) for row in rows]

    def runs(self, status: str | None, tag: str | None, updated_before: float | None) -> list[Kept[RunRow]]:
        """The runs that fit, newest first."""
        name = "runs" if tag is None else "runs_with_tag"
        tags = {} if tag is None else {"tag": Array("text", [tag])}
        rows = self._rows(name, "the runs could not be read", status=status, updated_before=updated_before, **tags)
        return [_kept_run(row) for row in rows]

    def calls(self, number: int, after: int, limit: int) -> list[Kept[CallRow]]:
        """Events in their order from after a sequence, at most `limit`."""
        with self._backend.borrow("the journal could not be read") as connection:
            cursor = connection.cursor(binary=True)
            # Hundreds of thousands of rows: their texts are words and digests, in which there is nothing to restore.
            plain_text(cursor)
            query = self._queries["calls"].encode()
            cursor.execute(query, {"number": number, "after": after, "limit": limit}, prepare=True)
            return [Kept(_call_row(row[:-1]), row[-1]) for row in cursor.fetchall()]

    def events(self, number: int, after: int, limit: int) -> list[Kept[EventRow]]:
        """The same, with everything but their outcomes."""
        rows = self._rows("events", "the journal could not be read", number=number, after=after, limit=limit)
        return [Kept(EventRow._make(row[:-1]), row[-1]) for row in rows]

    def outcomes(self, number: int, after: int, limit: int) -> list[Kept[StoredOutcome]]:
        """Outcomes in the order in which they were recorded, those with a sequence after `after`, at most `limit`."""
        rows = self._rows("outcomes", "the outcomes could not be read", number=number, after=after, limit=limit)
        width = len(OutcomeRow._fields)
        return [Kept(StoredOutcome(_outcome_row(row[:width]), *row[width:-1]), row[-1]) for row in rows]

    def sequences(self, number: int, keys: Collection[bytes]) -> dict[bytes, int]:
        """Where the outcomes of these keys are recorded; those that have none are left out."""
        what = "the outcomes could not be looked up"
        return {row[0]: row[1] for row in self._rows("sequences", what, number=number, keys=Array("bytea", list(keys)))}

    def find_cached(self, key: bytes, now: float) -> Kept[CacheEntry] | None:
        """The result that is kept under a key and has not expired."""
        rows = self._rows("find_cached", "a kept result could not be read", key=key, now=now)
        return kept_entry(rows[0]) if rows else None

    def cached(self, after: bytes, limit: int) -> list[Kept[CacheEntry]]:
        """Results that are kept, in the order of their keys."""
        rows = self._rows("cached", "the kept results could not be read", after=after, limit=limit)
        return [kept_entry(row) for row in rows]

    def find_question(self, number: int, question_id: str, named: int) -> list[Kept[Question]]:
        """The question of a run, and those of any run whose id has this checksum."""
        facts = {"number": number, "id": question_id, "named": named}
        rows = self._rows("question", "a question could not be read", **facts)
        return [Kept(Question(*row[:-3]), row[-3:]) for row in rows]

    def questions(self, run_id: str | None, is_open: bool) -> list[Kept[Question]]:
        """Questions of one run or of all, oldest first."""
        rows = self._rows("questions", "the questions could not be read", run_id=run_id, is_open=is_open)
        return [Kept(Question(*row[:-3]), row[-3:]) for row in rows]

    def used_artifacts(self, digests: Collection[str]) -> set[str]:
        """Those of the digests that an outcome refers to."""
        names = Array("bytea", [bytes.fromhex(digest) for digest in digests])
        return {row[0].hex() for row in self._rows("used_artifacts", "the outcomes could not be read", digests=names)}

    def all_artifacts(self, after: str, limit: int) -> list[str]:
        """The digests that outcomes refer to, each once, in order from after one, at most `limit`."""
        what = "the outcomes could not be read"
        rows = self._rows("all_artifacts", what, after=bytes.fromhex(after), limit=limit)
        return [row[0].hex() for row in rows]

    def findings(self) -> list[str]:
        """Look for damage; a line for each finding that names its run."""
        what = "the check could not be made"
        return [
            *(
                f"run {run_id!r} should have events 1 to {last}, and has {count}, the last of them {highest or 0}"
                for run_id, last, count, highest in self._rows("finding_gaps", what)
            ),
            *(
                f"run {run_id!r} should have {counted} outcomes, and has {found}"
                for run_id, counted, found in self._rows("finding_counts", what)
            ),
            *(
                f"run {run_id!r}: {_unlike(has_outcome, has_event)} at {sequence}"
                for run_id, sequence, has_outcome, has_event in self._rows("finding_pairs", what)
            ),
            *(
                f"run {run_id!r} has {count} outcomes for key {key.hex()}"
                for run_id, key, count in self._rows("finding_keys", what)
            ),
            *damaged_windows(self._rows("all_tickets", what), self._rows("all_holds", what)),
        ]

    def has_changed(self) -> bool:
        """Whether anybody may have written since the last call; True at the first one."""
        seen, self._seen = self._seen, self._news.count()
        return seen != self._seen

    def close(self) -> None:
        """There is nothing to let go of."""


# --- rows ------------------------------------------------------------------------------------------------------------


def _columns(
    table: str, kinds: Mapping[str, str], parts: Sequence[tuple[int, Sequence[tuple[Any, ...]]]]
) -> dict[str, Array]:
    """The rows of several runs as parameters, one for each column."""
    runs = list(chain.from_iterable([number] * len(rows) for number, rows in parts))
    rows = list(chain.from_iterable(rows for _, rows in parts))
    columns = zip(*rows, strict=True) if rows else [()] * len(kinds)
    arrays = {
        f"{table}_{name}": Array(kind, values) for (name, kind), values in zip(kinds.items(), columns, strict=True)
    }
    arrays[f"{table}_run"] = Array("int8", runs)
    return arrays


def _with_checksums(batch: Batch) -> tuple[Sequence[tuple[Any, ...]], Sequence[tuple[Any, ...]]]:
    """The events and outcomes of a batch as the tables have them: digests of artifacts as bytes, and checksums."""
    of_events, of_outcomes = sealed(batch.events, batch.outcomes)
    events = [(*row, *checksums) for row, checksums in zip(batch.events, of_events, strict=True)]
    outcomes = [(*_with_bytes(row), checksum) for row, checksum in zip(batch.outcomes, of_outcomes, strict=True)]
    return events, outcomes


def _with_bytes(row: OutcomeRow) -> tuple[Any, ...]:
    if row.artifact is None:
        return row
    return (*row[:_ARTIFACT], bytes.fromhex(row.artifact), *row[_ARTIFACT + 1 :])


def _held(held: Sequence[tuple[int, int]]) -> dict[str, Array]:
    return {
        "number": Array("int8", [number for number, _ in held]),
        "fence": Array("int8", [fence for _, fence in held]),
    }


def _standings(numbers: Sequence[int], rows: Sequence[tuple[Any, ...]]) -> list[Standing]:
    """How runs stand, in the order of `numbers`: those of which there is no row are not ours."""
    found = {row[0]: Standing(True, row[1]) for row in rows}
    return [found.get(number, Standing(False, None)) for number in numbers]


def _run_columns(run: RunRow) -> dict[str, Any]:
    """The columns of a run that its holder may change."""
    return {
        "status": run.status,
        "epoch": run.epoch,
        "workflow": run.workflow,
        "input": run.input,
        "input_digest": run.input_digest,
        "tags": Array("text", run.tags),
        "facts": json.dumps(dict(run.facts), ensure_ascii=False),
        "updated_at": run.updated_at,
        "ended_at": run.ended_at,
        "owner": run.owner,
        "process": run.process,
        "fence": run.fence,
        "heartbeat": run.heartbeat,
        "heartbeat_at": run.heartbeat_at,
        "lease": run.lease,
        "reason": run.reason,
        "stop_requested": run.stop_requested,
        "forked_from": run.forked_from,
        **dict(zip(CHECKSUMS_OF_RUN, checksums_of_run(run), strict=True)),
    }


_TAGS: Final = tuple(RunRow.__slots__).index("tags")
_FACTS: Final = tuple(RunRow.__slots__).index("facts")


def _kept_run(row: tuple[Any, ...]) -> Kept[RunRow]:
    return Kept(_run_row(row[:-4]), row[-4:])


def kept_entry(row: tuple[Any, ...]) -> Kept[CacheEntry]:
    """A result that is kept, with its checksum."""
    key, value, actor, created_at, expires_at, run_id, checksum = row
    return Kept(CacheEntry(bytes(key), bytes(value), actor, created_at, expires_at, run_id), checksum)


def _run_row(row: tuple[Any, ...]) -> RunRow:
    values = list(row)
    values[_TAGS] = tuple(values[_TAGS])
    values[_FACTS] = json.loads(values[_FACTS])
    return RunRow(*values)


def _call_row(row: tuple[Any, ...]) -> CallRow:
    """Its texts come as they are stored."""
    made = CallRow._make(row)
    if made.group_id is not None and "\\" in made.group_id:
        made = made._replace(group_id=from_text(made.group_id))
    if made.more is None or made.name is None:
        return made
    return made._replace(name=from_text(made.name), more=from_text(made.more))


def _outcome_row(row: tuple[Any, ...]) -> OutcomeRow:
    made = OutcomeRow._make(row)
    return made if made.artifact is None else made._replace(artifact=_artifact_text(row[_ARTIFACT]))


def _artifact_text(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()


def _unlike(has_outcome: bool, has_event: bool) -> str:
    if has_outcome and has_event:
        return "the outcome and the event that reports it do not belong together"
    return "there is an outcome without its event" if has_outcome else "there is an event without its outcome"
