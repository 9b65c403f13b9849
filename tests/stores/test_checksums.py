"""Every row has a checksum, and nothing that was changed is believed: column for column, in both databases."""

from __future__ import annotations

import asyncio
import dataclasses
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from rh_agents.core.errors import StoreError
from rh_agents.core.ports import CacheEntry, Question
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend.rows import CallRow, EventRow, InputRow, OutcomeRow, RunRow, StoredOutcome
from rh_agents.stores._checksums import (
    amounts_checksum,
    applied_checksum,
    cache_checksum,
    call_checksum,
    event_checksum,
    held_checksum,
    input_checksum,
    named,
    outcome_checksum,
    piece_checksum,
    present_checksum,
    request_checksum,
    sealed,
    ticket_checksum,
    watching_checksum,
)
from rh_agents.stores._folding import fold
from rh_agents.stores._sql import read_migrations
from rh_agents.stores._sqlite.sealing import Sealing
from rh_agents.stores._sqlite.versions import CHECKSUMS
from rh_agents.stores._store import SqlStore
from rh_agents.stores._verified import checksums_of_question, checksums_of_run
from rh_agents.stores.sqlite import SqliteStore
from rh_agents.testing._records import completed, fact, key, listed, outcome
from tests.services.postgresql import PostgresqlServer
from tests.stores.sqlite_kit import RUN, call, request, sql

EVENT = EventRow(
    7, 1.5, "failed", "tool_call", "fetch", "a::fetch", b"k" * 32, "g", 3, 9, 2, 0.25, "no", False, '{"usage": {}}'
)
OUTCOME = OutcomeRow(7, b"k" * 32, False, b"b" * 32, b"p" * 32, 1, 2, 3, b'{"!": "error"}', None, '{"name": "x"}', None)
STORED = StoredOutcome(OUTCOME, "fetch", "a::fetch", 0.25, 2, "g")
CALL = CallRow(7, "failed", b"k" * 32, 2, "g", False, "fetch", '{"usage": {}}', 1, 2, 3)
RUN_ROW = RunRow(
    1, "monday", "completed", 1, "flow", b"[1]", b"d", ("a", "b"), {"x": "y"}, 1.0, 2.0, 3.0, "me", "here", 4, 5, 6.0,
    15.0, 8, 9, "why", "stop", "sunday",
)  # fmt: skip
QUESTION = Question("monday", "q", "a::ask", "Go on?", "{}", 1.0, b"true", 2.0, "me", "no")
ENTRY = CacheEntry(b"k" * 32, b"1", "fetch", 1.0, 2.0, "monday")


def others(value: Any) -> list[Any]:
    """Other values that could stand in the same place."""
    if value is None or isinstance(value, bool):
        return [each for each in (None, True, False) if each is not value]
    if isinstance(value, int | float):
        return [value + 1, None]
    if isinstance(value, str):
        return [value + "x", value[:-1], value.upper(), None]
    if isinstance(value, bytes):
        return [bytes([value[0] ^ 1]) + value[1:], value[:-1], None]
    return [type(value)(list(value)[:-1])] if isinstance(value, tuple) else [{}]


def checksum_of_outcome_row(row: OutcomeRow) -> int:
    return outcome_checksum(STORED._replace(row=row))


KINDS: dict[str, tuple[Any, Callable[[Any], Any], set[str]]] = {
    "event": (EVENT, event_checksum, set()),
    "call": (CALL, call_checksum, set()),
    "outcome": (OUTCOME, checksum_of_outcome_row, {"input"}),
    "input": (InputRow(7, "x=1"), input_checksum, set()),
    "outcome with its event": (STORED, outcome_checksum, {"row"}),
    "run": (
        RUN_ROW,
        checksums_of_run,
        {"number", "updated_at", "heartbeat", "heartbeat_at", "last_sequence", "outcomes", "stop_requested"},
    ),
    "question": (QUESTION, checksums_of_question, set()),
    "cached": (ENTRY, cache_checksum, set()),
}
"""Each kind of row with what is not covered: the number of the run, and what every commit changes."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_checksum_is_another_one_if_any_column_is(kind: str) -> None:
    row, checksum, left_out = KINDS[kind]
    is_tuple = isinstance(row, tuple)
    names = row._fields if is_tuple else [each.name for each in dataclasses.fields(row)]
    for name in names:
        for other in [] if name in left_out else others(getattr(row, name)):
            if other == getattr(row, name):
                continue
            change = {name: other}
            try:
                changed = checksum(row._replace(**change) if is_tuple else dataclasses.replace(row, **change))
            except Exception:  # noqa: BLE001 - what has no checksum is not believed either
                continue
            assert changed != checksum(row), (name, other)


def test_texts_that_move_from_one_column_to_the_next_are_noticed() -> None:
    assert event_checksum(EVENT._replace(name="fetcha", address="::fetch")) != event_checksum(EVENT)
    assert outcome_checksum(STORED._replace(name="fetcha", address="::fetch")) != outcome_checksum(STORED)


def test_checksums_are_the_same_in_every_version() -> None:
    assert (event_checksum(EVENT), call_checksum(CALL), outcome_checksum(STORED)) == (
        -1335397319,
        2035463959,
        1407456410,
    )
    assert checksums_of_run(RUN_ROW) == (1149498149, -671270072, -1331233613, 321881981, None)
    assert checksums_of_question(QUESTION) == (-666646170, 14110533, -702040100)
    assert (cache_checksum(ENTRY), named("monday")) == (880150843, 1149498149)


def test_what_is_written_has_the_checksums_that_readers_expect() -> None:
    started = EVENT._replace(sequence=6, status="started", ok=None, more=None, seconds=None, message=None)
    good = EVENT._replace(sequence=8, status="completed", ok=True, name="ünusual \ud800")
    its = OUTCOME._replace(sequence=8, ok=True, base=None)
    of_events, of_outcomes = sealed([started, EVENT, good], [OUTCOME, its])
    assert [whole for _, whole in of_events] == [event_checksum(each) for each in (started, EVENT, good)]
    assert of_events[1][0] == call_checksum(CALL)
    plain = CallRow(6, "started", b"k" * 32, 2, "g", None, None, None, None, None, None)
    assert of_events[0][0] == call_checksum(plain)
    assert of_outcomes[0] == outcome_checksum(STORED)
    assert of_outcomes[1] == outcome_checksum(StoredOutcome(its, good.name, good.address, 0.25, 2, "g"))


def test_numbers_that_databases_give_back_in_another_form_have_the_same_checksum() -> None:
    assert event_checksum(EVENT._replace(timestamp=1)) == event_checksum(EVENT._replace(timestamp=1.0))
    whole = dataclasses.replace(RUN_ROW, created_at=1, ended_at=3, lease=15)
    assert checksums_of_run(whole) == checksums_of_run(RUN_ROW)


# -- in the databases --------------------------------------------------------------------------------------------------

NOT_COVERED = {
    "run.number", "run.updated_at", "run.heartbeat", "run.heartbeat_at", "run.stop_requested", "run_input.run",
    "journal.run", "journal.sequence", "journal.place", "question.run", "ticket.number", "artifact.put_at",
    "present.run", "control.run", "control.number", "streaming.run", "watching.run",
}  # fmt: skip
"""Numbers of runs and places say where a row belongs: without them it is missing. Every commit changes the others."""


async def fill(store: SqlStore) -> None:
    """A run in which every column of every table has something in it."""
    facts: dict[str, Any] = {
        "workflow": "flow",
        "input": b"[1]",
        "input_digest": b"d" * 32,
        "tags": ("a",),
        "facts": {"b": "c"},
    }
    journal = await store.open_run(request(**facts))
    await call(journal, 1, "text")
    await call(journal, 2, "x" * 40_000)
    failed = outcome(3, None, error=ValueError("no"), group_id="g", base=key(9))._replace(input="url='ü'")
    await journal.append(completed(RUN, failed)._replace(name="not its outcome's"), failed)
    journal.note(fact(RUN, ExecutionStatus.RETRYING, outcome(4), retry_delay=1.0, message="again", group_id="g"))
    await journal.ask(Question(RUN, "q", "ask", "Go on?", "{}", 1.0))
    await journal.close(ExecutionStatus.FAILED, "it did not work")
    await store.answer(RUN, "q", b"true", by="me")
    await store.put_cached(CacheEntry(b"k" * 32, b'"v"', "fetch", 1.0, 9e9, RUN))
    await store.share("rate:calls", keep_state)
    await store.engine.writer.done(write_beside)
    assert await store.check() == []


def keep_state(state: dict[str, Any], now: float) -> None:
    """Something that processes share."""
    state["held"] = 1.0


def write_beside(session: Any) -> None:
    """What stands beside the journal of the run, written by hand."""
    connection = session.connection if hasattr(session, "connection") else session._connection
    number = next(iter(connection.execute("SELECT max(number) FROM run")))[0]
    key, asked = b"k" * 32, ("e" * 32, "pause", "{}", "me", "lunch", 1.0)
    rows: dict[str, tuple[Any, ...]] = {
        "present (run, at, facts, checksum)": (number, 1.0, "{}", present_checksum(1.0, "{}")),
        "control (run, id, verb, arguments, author, reason, asked_at, applied_at, answer, checksum, answer_checksum)": (
            number, *asked, 2.0, '{"n": 1}', request_checksum(*asked), applied_checksum(asked[0], 2.0, '{"n": 1}'),
        ),
        "streaming (run, key, attempt, position, text, at, checksum)": (
            number, key, 1, 0, "Once", 1.0, piece_checksum(key, 1, 0, "Once", 1.0),
        ),
        "watching (run, key, until, checksum)": (number, key, 1.0, watching_checksum(key, 1.0)),
        "ticket (limited, taken_at, ends_at, amounts, checksum, amounts_checksum)": (
            "old", 1.0, 9e9, "{}", ticket_checksum("old", 1.0, 9e9), amounts_checksum("old", "{}"),
        ),
        "held (limited, held_until, checksum)": ("old", 1.0, held_checksum("old", 1.0)),
    }  # fmt: skip
    is_file = hasattr(session, "connection")
    connection.execute("DROP TRIGGER ticket_closed" + ("" if is_file else " ON ticket"))  # of schema 6
    mark = "?" if is_file else "%s"
    for table, values in rows.items():
        connection.execute(f"INSERT INTO {table} VALUES ({', '.join([mark] * len(values))})", values)


FOUND_BY_CHECK_ALONE = {"cached.key", "shared.name"}
"""Nothing is read where they are looked up: no result is in the cache, nothing is shared."""
BESIDE = {"present", "control", "streaming", "watching", "ticket", "held"}
"""Tables that nobody has to read who reads a journal."""


async def read_all(store: SqlStore) -> None:
    """Everything that is read of a run."""
    run = await store.engine.read(lambda session: session.find_run(RUN))
    assert run is not None, "a damaged name is no reason to begin anew"
    await store.engine.read(lambda session: fold(session, run))
    await listed(store.events(RUN))
    await listed(store.outcomes(RUN))
    await store.engine.read(lambda session: session.inputs(run.number, RUN, 0, run.last_sequence))
    await store.questions(is_open=False)
    await store.find_cached(b"k" * 32, now=1.0)
    await store.share("rate:calls", keep_state)


async def is_noticed(store: SqlStore, what: str) -> list[str]:
    """What goes wrong with a database in which something has been changed."""
    wrong = []
    try:
        findings = await store.check()
        if not findings:
            wrong.append(f"{what}: the check finds nothing")
        if what not in FOUND_BY_CHECK_ALONE and what.partition(".")[0] not in BESIDE:
            with pytest.raises(StoreError, match=r"rh-agents check|from a backup"):
                await read_all(store)
    except pytest.fail.Exception:
        wrong.append(f"{what}: everything is read as if nothing were")
    return wrong


SQLITE = {
    "TEXT": ("{} || 'x'", "'x'"),
    "INTEGER": ("({} | 1) - ({} & 1)", "1"),
    "REAL": ("{} + 1", "1.0"),
    "BLOB": ("CAST(substr('0123456789abcdef0123456789abcdef', 1, max(length({}), 1)) AS BLOB)", "x'00'"),
}
"""How a value is changed, and what it becomes if there is none."""


def test_no_value_that_was_changed_is_believed_in_any_column_of_a_file(tmp_path: Path) -> None:
    original, path = tmp_path / "original.db", tmp_path / "runs.db"
    artifacts = str(tmp_path / "artifacts")

    async def main() -> None:
        store = SqliteStore(original, artifacts=artifacts)
        await fill(store)
        await store.aclose()
        wrong = []
        tables = sql(original, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        for (table,) in tables:
            for _, name, kind, *_ in sql(original, f"PRAGMA table_info({table})"):
                if f"{table}.{name}" in NOT_COVERED:
                    continue
                path.write_bytes(original.read_bytes())
                change, instead = SQLITE[kind]
                damage = (
                    f"UPDATE {table} SET {name} = coalesce({change.replace('{}', name)}, {instead}) WHERE rowid = "
                    f"(SELECT rowid FROM {table} ORDER BY {name} IS NULL, rowid DESC LIMIT 1)"
                )
                try:
                    sql(path, damage)
                except apsw.ConstraintError:  # two of these cannot be there at once
                    continue
                store = SqliteStore(path, artifacts=artifacts)
                wrong += await is_noticed(store, f"{table}.{name}")
                await store.aclose()
        assert not wrong, "\n".join(wrong)

    asyncio.run(main())


POSTGRESQL = {
    "text": ("{} || 'x'", "left({}, -1)", "'x'"),
    "integer": ("{} + 1", "{} - 1", "1"),
    "bigint": ("{} + 1", "{} - 1", "1"),
    "double precision": ("{} + 1", "{} - 1", "1"),
    "boolean": ("NOT {}", "NOT {}", "true"),
    "ARRAY": ("array_append({}, 'x')", "trim_array({}, 1)", "NULL"),
    "bytea": ("{} || 'x'::bytea", "substr({}, 1, length({}) - 1)", "'x'"),
}
"""How a value is changed, how it becomes what it was, and what it becomes if there is none."""


def test_no_value_that_was_changed_is_believed_in_any_column_of_a_schema(
    postgresql_server: PostgresqlServer, postgresql_url: str
) -> None:
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")
    from rh_agents.stores.postgresql import PostgresqlStore  # noqa: PLC0415 - it needs an optional package

    schema = postgresql_url.rpartition("schema=")[2]
    execute = postgresql_server.execute

    async def main() -> None:
        store = PostgresqlStore(postgresql_url)
        await fill(store)
        wrong = []
        columns = execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            f"WHERE table_schema = '{schema}' AND table_name <> 'schema_version' ORDER BY 1, 2"
        )
        for table, name, kind in columns:
            if f"{table}.{name}" in NOT_COVERED:
                continue
            change, back, instead = (each.replace("{}", name) for each in POSTGRESQL[kind])
            ((place, is_null),) = execute(
                f"SELECT ctid, {name} IS NULL FROM {schema}.{table} ORDER BY {name} IS NULL, ctid DESC LIMIT 1"
            )
            update = f"UPDATE {schema}.{table} SET {name} = {{}} WHERE ctid = '{{}}' RETURNING ctid"
            try:
                ((place,),) = execute(update.format(instead if is_null else change, place))
            except psycopg.errors.IntegrityError:  # two of these cannot be there at once
                continue
            wrong += await is_noticed(store, f"{table}.{name}")
            execute(update.format("NULL" if is_null else back, place))
            assert await store.check() == [], name
        assert not wrong, "\n".join(wrong)
        await store.aclose()

    asyncio.run(main())


TABLES_OF_RUNS = ("run", "journal", "question", "cached", "present", "control", "streaming", "watching")
NOTHING_LEFT = {table: [(0,)] for table in TABLES_OF_RUNS}


def test_nothing_is_left_in_a_file_of_a_run_that_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    async def main() -> None:
        store = SqliteStore(path)
        await fill(store)
        await store.delete_run(RUN)
        await store.aclose()

    asyncio.run(main())
    assert {table: sql(path, f"SELECT count(*) FROM {table}") for table in TABLES_OF_RUNS} == NOTHING_LEFT


def test_nothing_is_left_in_a_schema_of_a_run_that_is_deleted(
    postgresql_server: PostgresqlServer, postgresql_url: str
) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")
    from rh_agents.stores.postgresql import PostgresqlStore  # noqa: PLC0415 - it needs an optional package

    async def main() -> None:
        store = PostgresqlStore(postgresql_url)
        await fill(store)
        await store.delete_run(RUN)
        await store.aclose()

    asyncio.run(main())
    schema = postgresql_url.rpartition("schema=")[2]
    left = {table: postgresql_server.execute(f"SELECT count(*) FROM {schema}.{table}") for table in TABLES_OF_RUNS}
    assert left == NOTHING_LEFT


@pytest.mark.parametrize("gone", ["max(place)", "min(place)", "max(place) - 1"])
def test_a_row_that_is_missing_is_named(tmp_path: Path, gone: str) -> None:
    path = tmp_path / "runs.db"

    async def main() -> None:
        store = SqliteStore(path)
        await fill(store)
        sql(path, f"DELETE FROM journal WHERE place = (SELECT {gone} FROM journal)")
        for read in (listed(store.events(RUN)), store.open_run(request()), store.fork_run(RUN, "copy", [], [])):
            with pytest.raises(StoreError, match=r"event \d of run 'monday'.* is missing; `rh-agents check`"):
                await read
        assert await store.find_run("copy") is None
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("gone", ["max(place)", "min(place)", "max(place) - 1"])
def test_a_row_that_is_missing_is_in_no_summary_and_no_outline(tmp_path: Path, gone: str) -> None:
    path = tmp_path / "runs.db"

    async def main() -> None:
        store = SqliteStore(path)
        await fill(store)
        events = len(await listed(store.events(RUN)))
        assert (await store.summary(RUN)).until == events
        await store.aclose()
        sql(path, f"DELETE FROM journal WHERE place = (SELECT {gone} FROM journal)")
        store = SqliteStore(path)  # one that has counted them goes on from there
        should = f"run 'monday' is damaged: it should have {events} events from after event 0, and has {events - 1}"
        with pytest.raises(StoreError, match=should):
            await store.summary(RUN)
        with pytest.raises(StoreError, match=r"event \d of run 'monday'.* is missing; `rh-agents check`"):
            await store.outline(RUN)
        await store.aclose()

    asyncio.run(main())


def test_a_copy_of_what_is_damaged_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    async def main() -> None:
        store = SqliteStore(path)
        await fill(store)
        sql(path, "UPDATE journal SET value = '\"other\"' WHERE place = (SELECT min(place) FROM journal WHERE ok)")
        with pytest.raises(StoreError, match=r"event 2 of run 'monday', or its outcome, is damaged"):
            await store.fork_run(RUN, "copy", [], [])
        assert [info.run_id for info in await store.runs()] == [RUN]
        await store.aclose()

    asyncio.run(main())


# -- rows of older versions --------------------------------------------------------------------------------------------

GOLDEN = Path(__file__).parents[1] / "stress" / "golden" / "schema_2.tar.gz"


@pytest.mark.parametrize("batches", [0, 1, 3, 1000])
def test_a_migration_that_was_killed_goes_on_where_it_was(tmp_path: Path, batches: int) -> None:
    with tarfile.open(GOLDEN) as tar:
        tar.extractall(tmp_path, filter="data")
    path = tmp_path / "runs.db"
    connection = apsw.Connection(str(path))
    connection.execute(read_migrations("sqlite")[CHECKSUMS - 1].text)
    sealing = Sealing(connection, "runs.db", batch=5)
    for _ in range(batches):
        if sealing.seal_some():
            break
    connection.close()
    assert sql(path, "PRAGMA user_version") == [(2,)]

    async def main() -> None:
        store = SqliteStore(path)
        assert await store.check() == []
        assert len(await listed(store.events("killed"))) > 20
        await store.aclose()

    asyncio.run(main())
    assert sql(path, "PRAGMA user_version") == [(read_migrations("sqlite")[-1].number,)]
    assert sql(path, "SELECT count(*) FROM journal WHERE checksum IS NULL OR call_checksum IS NULL") == [(0,)]


def test_rows_that_an_older_program_adds_during_the_migration_get_their_checksums(tmp_path: Path) -> None:
    with tarfile.open(GOLDEN) as tar:
        tar.extractall(tmp_path, filter="data")
    path = tmp_path / "runs.db"
    connection = apsw.Connection(str(path))
    connection.execute(read_migrations("sqlite")[CHECKSUMS - 1].text)
    sealing = Sealing(connection, "runs.db", batch=20)
    assert not sealing.seal_some()
    assert not sealing.seal_some()
    connection.execute(
        "UPDATE event SET checksum = NULL, call_checksum = NULL WHERE place = (SELECT min(place) FROM event)"
    )
    connection.execute("UPDATE run SET owner = 'an old program', fence = 7 WHERE run_id = 'asks'")
    while not sealing.seal_some():
        pass
    assert list(connection.execute("SELECT count(*) FROM event WHERE checksum IS NULL")) == [(0,)]
    found = list(connection.execute("SELECT owner, fence FROM run WHERE run_id = 'asks'"))
    assert found == [(None, 8)], "it can write no more: it knows of no checksums"
    connection.close()
