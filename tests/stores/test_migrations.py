"""Stores of earlier versions are brought up to date once, whoever is killed meanwhile and however many begin."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from rh_agents import open_store
from rh_agents.core.errors import RunIsLive, StoreError
from rh_agents.core.policies.sharing.rates import RateAsk, ask_for_permits
from rh_agents.core.policies.sharing.windows import RateWindow
from rh_agents.core.ports.summary import summary_of_run
from rh_agents.stores._backend.rows import InputRow
from rh_agents.stores._checksums import amounts_checksum, input_checksum, ticket_checksum
from rh_agents.stores._moving import Moving
from rh_agents.stores._ownership import Owned, expect_no_newcomer, expect_nobody_executes
from rh_agents.stores._progress import Progress
from rh_agents.stores._sql import read_migrations
from rh_agents.stores._sqlite.looking import expect_ours
from rh_agents.stores._sqlite.moving import SqliteTables
from rh_agents.stores._sqlite.schema import bring_up_to_date
from rh_agents.stores._sqlite.sealing import Sealing as SqliteSealing
from rh_agents.stores._sqlite.session import TransactionSession
from rh_agents.stores._sqlite.versions import JOURNAL
from rh_agents.stores.sqlite import SqliteStore
from rh_agents.testing._records import listed
from tests.services.postgresql import PostgresqlServer
from tests.stores.sqlite_kit import change_runs, python, sql

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")

from rh_agents.stores._postgresql.backend import PostgresqlBackend
from rh_agents.stores._postgresql.moving import PostgresqlTables
from rh_agents.stores._postgresql.schema import bring_up_to_date as bring_server_up_to_date
from rh_agents.stores._postgresql.sealing import Sealing

GOLDEN = Path(__file__).parents[1] / "stress" / "golden"
SCHEMA = "golden"
CURRENT = read_migrations("postgresql")[-1].number


def unpack(name: str, folder: Path) -> None:
    """A store as an earlier version left it."""
    with tarfile.open(GOLDEN / f"{name}.tar.gz") as tar:
        tar.extractall(folder, filter="data")


@pytest.fixture
def old(tmp_path: Path, postgresql_server: PostgresqlServer) -> Iterator[str]:
    """The URL of one in a server."""
    unpack("conversations_2", tmp_path)
    postgresql_server.execute((tmp_path / "postgresql.sql").read_text())
    yield postgresql_server.url(schema=SCHEMA)
    postgresql_server.execute(f"DROP SCHEMA {SCHEMA} CASCADE")


async def read_everything(url: str, *, read_only: bool = False) -> int:
    """How many events there are, when all of them and all values have been compared with their checksums."""
    store = open_store(url, read_only=read_only)
    try:
        assert await store.check() == []
        runs = await store.runs()
        for run in runs:
            assert len(await listed(store.unread_outcomes(run.run_id))) == run.outcomes
            assert (await summary_of_run(store, run.run_id)).outcomes == run.outcomes
        return sum([len(await listed(store.events(run.run_id))) for run in runs])
    finally:
        await store.aclose()


# -- files -------------------------------------------------------------------------------------------------------------

_OPEN = """
import asyncio, sys, time
from rh_agents import open_store
from rh_agents.stores._moving import Moving
from rh_agents.stores._sqlite.sealing import Sealing
if sys.argv[2] == "slowly":
    def slowed(do, word):
        def slowly(self):
            self._batch = 3
            print(word, flush=True)
            time.sleep(0.01)
            return do(self)
        return slowly
    Sealing.seal_some = slowed(Sealing.seal_some, "sealing")
    Moving.advance = slowed(Moving.advance, "moving")
async def main():
    store = open_store(sys.argv[1])
    await store.find_run("")
    assert await store.check() == []
    await store.aclose()
input()
asyncio.run(main())
"""


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_file_is_brought_up_to_date_by_processes_that_are_killed_and_others_that_begin_at_once(
    tmp_path: Path, version: int
) -> None:
    unpack(f"schema_{version}", tmp_path)
    path = tmp_path / "runs.db"
    everything = asyncio.run(read_everything(f"sqlite:///{path}", read_only=True))
    for word, steps in (("sealing", 1), ("sealing", 5), ("moving", 1), ("moving", 4), ("moving", 29)):
        if word == "sealing" and version == 3:
            continue
        process = python(_OPEN, path, "slowly")
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        lines = iter(process.stdout.readline, "")
        for _ in range(steps):
            assert word in (line.strip() for line in lines), "it comes to that"
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert sql(path, "PRAGMA user_version") == [(JOURNAL if word == "moving" else 2,)]
        assert asyncio.run(read_everything(f"sqlite:///{path}", read_only=True)) == everything, "as it is meanwhile"
    processes = [python(_OPEN, path, "at once") for _ in range(3)]
    assert [process.communicate("\n", timeout=60) for process in processes] == [("", "")] * 3
    assert sql(path, "PRAGMA user_version") == [(CURRENT,)]
    assert sql(path, "SELECT name FROM sqlite_schema WHERE name LIKE '%\\_3' ESCAPE '\\'") == []
    assert asyncio.run(read_everything(f"sqlite:///{path}")) == everything


def test_a_row_that_was_copied_wrongly_is_noticed_before_anything_is_deleted(tmp_path: Path) -> None:
    unpack("schema_3", tmp_path)
    path = tmp_path / "runs.db"
    connection = apsw.Connection(str(path))
    connection.execute(read_migrations("sqlite")[JOURNAL - 1].text)
    connection.pragma("user_version", JOURNAL)
    moving = Moving(SqliteTables(connection), "runs.db", batch=7)
    for _ in range(3):
        assert not moving.advance()
    ((before,),) = list(connection.execute("SELECT count(*) FROM event_3"))
    for damage in (
        "UPDATE journal SET value = 'x' WHERE place = (SELECT min(place) FROM journal WHERE ok)",
        "UPDATE journal SET group_total = 7 WHERE place = (SELECT min(place) FROM journal)",
        "DELETE FROM journal WHERE place = (SELECT min(place) FROM journal)",
    ):
        connection.execute("SAVEPOINT damage")
        connection.execute(damage)
        with pytest.raises(StoreError, match=r"1 of 7 rows are not as they were; nothing was deleted"):
            while not moving.advance():
                pass
        connection.execute("ROLLBACK TO damage; RELEASE damage")
    connection.execute("INSERT INTO journal SELECT * FROM journal WHERE false")
    connection.execute("UPDATE journal SET place = place + 1000 WHERE place = (SELECT max(place) FROM journal)")
    connection.close()
    with pytest.raises(StoreError, match=r"have become|are not as they were"):
        asyncio.run(read_everything(f"sqlite:///{path}"))
    assert sql(path, "SELECT count(*) FROM event_3") == [(before,)]


def test_what_was_damaged_before_is_copied_as_it_is_and_named_as_before(tmp_path: Path) -> None:
    unpack("schema_3", tmp_path)
    path = tmp_path / "runs.db"
    sql(path, "UPDATE outcome SET value = replace(value, 'a', 'b') WHERE place = (SELECT min(place) FROM outcome)")

    async def findings(**options: bool) -> list[str]:
        store = open_store(path, **options)
        try:
            return await store.check()
        finally:
            await store.aclose()

    before = asyncio.run(findings(read_only=True))
    assert len(before) == 1
    assert asyncio.run(findings()) == before


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_file_with_a_run_that_is_being_executed_is_left_as_it_is(tmp_path: Path, version: int) -> None:
    unpack(f"schema_{version}", tmp_path)
    path = tmp_path / "runs.db"
    hold = "UPDATE run SET owner = 'process 7 on Ada', process = NULL, heartbeat_at = ?, lease = ? "
    hold += "WHERE run_id = 'killed'"
    for heartbeat_at, lease in ((time.time(), 15.0), (time.time() + 20, 10.0)):
        (change_runs if version == 3 else sql)(path, hold, heartbeat_at, lease)
        stop = threading.Event()
        beating = threading.Thread(target=beat, args=(path, stop))
        beating.start()
        try:
            with pytest.raises(RunIsLive, match=r"cannot be brought up to date while run 'killed' .* process 7 on Ada"):
                asyncio.run(read_everything(f"sqlite:///{path}"))
        finally:
            stop.set()
            beating.join()
        assert sql(path, "PRAGMA user_version") == [(version,)]
        assert asyncio.run(read_everything(f"sqlite:///{path}", read_only=True)) > 10
    (change_runs if version == 3 else sql)(path, hold, time.time() + 20, 0.1)
    assert asyncio.run(read_everything(f"sqlite:///{path}")) > 10, "its owner is silent now, for as long as its lease"


def test_a_run_that_is_being_executed_goes_on_while_what_rewrites_nothing_is_done(tmp_path: Path) -> None:
    unpack("schema_4", tmp_path)
    path = tmp_path / "runs.db"
    change_runs(path, "UPDATE run SET owner = 'process 7 on Ada', process = NULL, heartbeat_at = ?", time.time())
    old = apsw.Connection(str(path))
    ((number, fence, last),) = old.execute("SELECT number, fence, last_sequence FROM run WHERE run_id = 'killed'")
    everything = asyncio.run(read_everything(f"sqlite:///{path}"))
    assert sql(path, "PRAGMA user_version") == [(CURRENT,)]
    # What a program of schema 4 writes, which has the file open: it names its columns.
    columns = [name for _, name, *_ in old.execute("PRAGMA table_info(journal)")][:-2]
    assert columns[-1] == "value"
    copied = ", ".join(columns[1:])
    old.execute(f"INSERT INTO journal ({', '.join(columns)}) SELECT place + 1, {copied} FROM journal WHERE place = ?",
                ((number << 40) + last,))  # fmt: skip
    old.execute("UPDATE run SET last_sequence = last_sequence + 1 WHERE number = ? AND fence = ?", (number, fence))
    assert list(old.execute("SELECT input, input_checksum FROM journal ORDER BY place DESC LIMIT 1")) == [(None, None)]
    with pytest.raises(StoreError, match=f"made by a newer version of rh_agents: schema {CURRENT}, this one knows 4"):
        expect_ours(old, "runs.db", 4)
    old.close()
    assert len(sql(path, "SELECT place FROM journal")) == everything + 1


def test_where_to_make_an_index_takes_long_nobody_may_execute_a_run(tmp_path: Path) -> None:
    unpack("schema_4", tmp_path)
    path = tmp_path / "runs.db"
    change_runs(path, "UPDATE run SET owner = 'process 7 on Ada', process = NULL, heartbeat_at = ?", time.time())
    session = Interrupted(path, 0, int)
    with pytest.raises(RunIsLive, match=r"cannot be brought up to date while run .* process 7 on Ada"):
        bring_up_to_date(session, indexed_soon=1000)
    assert sql(path, "PRAGMA user_version") == [(4,)]
    bring_up_to_date(session, indexed_soon=10**9)
    assert sql(path, "PRAGMA user_version") == [(CURRENT,)]
    session.connection.close()


def test_who_looks_at_a_file_while_it_is_brought_up_to_date_sees_what_is_new(tmp_path: Path) -> None:
    unpack("schema_4", tmp_path)
    path = tmp_path / "runs.db"

    async def main() -> None:
        looking = open_store(f"sqlite:///{path}", read_only=True)
        assert isinstance(looking, SqliteStore)
        assert await looking.engine.read(lambda session: session.inner.inputs(1, 0, 1000)) == []
        await read_everything(f"sqlite:///{path}")
        ((place,),) = sql(path, "SELECT max(place) FROM journal WHERE place < 2 << 40 AND ok")
        sequence = place - (1 << 40)
        checksum = input_checksum(InputRow(sequence, "n=1"))
        sql(path, "UPDATE journal SET input = 'n=1', input_checksum = ? WHERE place = ?", checksum, place)
        found = await looking.engine.read(lambda session: session.inputs(1, "ended", 0, 1000))
        assert found == {sequence: "n=1"}
        await looking.aclose()

    asyncio.run(main())


class Interrupted(TransactionSession):
    """A session that brings a file up to date; before one of its transactions, `meanwhile` is called."""

    def __init__(self, path: Path, at: int, meanwhile: Callable[[], object]) -> None:
        super().__init__(SqliteStore(path).engine.writer._backend, apsw.Connection(str(path)))  # type: ignore[arg-type]
        self.configure()
        self._left = at
        self._meanwhile = meanwhile

    @contextmanager
    def transaction(self, begin: str = "begin") -> Iterator[None]:
        self._left -= begin == "begin_exclusive"
        if self._left == 0:
            self._meanwhile()
        with super().transaction(begin):
            yield


@pytest.mark.parametrize(("version", "at", "left_at"), [(1, 3, 2), (2, 4, 2), (2, 6, 2), (3, 5, 3)])
def test_a_program_that_begins_while_a_file_is_brought_up_to_date_goes_first(
    tmp_path: Path, version: int, at: int, left_at: int
) -> None:
    unpack(f"schema_{version}", tmp_path)
    path = tmp_path / "runs.db"
    change: Callable[[Path, str], object] = change_runs if version == 3 else sql
    hold = "UPDATE run SET owner = 'process 7 on Ada', process = NULL, fence = 70 WHERE run_id = 'killed'"
    session = Interrupted(path, at, lambda: change(path, hold))
    with pytest.raises(RunIsLive, match=r"cannot be brought up to date while run 'killed' is .* process 7 on Ada"):
        bring_up_to_date(session)
    session.connection.close()
    assert sql(path, "PRAGMA user_version") == [(left_at,)]
    assert sql(path, "SELECT owner FROM run WHERE run_id = 'killed'") == [("process 7 on Ada",)]
    change(path, "UPDATE run SET owner = NULL WHERE run_id = 'killed'")
    assert asyncio.run(read_everything(f"sqlite:///{path}")) > 10, "it goes on where that stood"


def test_an_owner_that_was_silent_and_is_not_any_more_is_a_newcomer() -> None:
    def owned(**changes: Any) -> Owned:
        return Owned("monday", 1, "process 7 on Ada", None, 3, 40, 0.0, 15.0)._replace(**changes)

    silent = expect_nobody_executes("runs.db", lambda: [owned()])  # for years
    expect_no_newcomer("runs.db", [owned()], silent)
    expect_no_newcomer("runs.db", [], silent)
    for changes in ({"heartbeat": 41}, {"fence": 4}, {"number": 2}):
        with pytest.raises(RunIsLive, match="process 7 on Ada"):
            expect_no_newcomer("runs.db", [owned(**changes)], silent)


def test_waiting_for_an_owner_that_is_silent_is_not_done_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    beats = iter(range(100))

    def read() -> list[Owned]:
        return [Owned("monday", 1, "process 7 on Ada", None, 3, next(beats), time.time() - 20, 15.0)]

    with pytest.raises(RunIsLive):
        expect_nobody_executes("runs.db", read)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "it takes 15 s to see that run 'monday' is no longer being executed by process 7 on Ada" in said


def beat(path: Path, stop: threading.Event) -> None:
    """Give signs of life as the owner of a run does, whose clock is another one."""
    while not stop.wait(0.02):
        sql(path, "UPDATE run SET heartbeat = heartbeat + 1 WHERE run_id = 'killed'")


def test_what_has_the_file_open_in_an_earlier_version_can_write_no_more(tmp_path: Path) -> None:
    unpack("schema_3", tmp_path)
    path = tmp_path / "runs.db"
    old = apsw.Connection(str(path))
    assert list(old.execute("SELECT count(*) > 0 FROM event"))
    asyncio.run(read_everything(f"sqlite:///{path}"))
    with pytest.raises(apsw.SQLError, match="no such table"):
        old.execute("INSERT INTO event (place) VALUES (1)")
    old.close()
    connection = apsw.Connection(str(path))
    with pytest.raises(StoreError, match=f"made by a newer version of rh_agents: schema {CURRENT}, this one knows 3"):
        expect_ours(connection, "runs.db", 3)
    connection.close()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_without_room_for_two_copies_nothing_is_begun(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack(f"schema_{version}", tmp_path)
    path = tmp_path / "runs.db"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=path.stat().st_size))
    with pytest.raises(StoreError, match=r"takes 0\.\d MB more on its disk for a while, and there are 0\.\d MB"):
        asyncio.run(read_everything(f"sqlite:///{path}"))
    assert sql(path, "PRAGMA user_version") == [(version,)], "it is as it was"
    monkeypatch.undo()
    assert asyncio.run(read_everything(f"sqlite:///{path}")) > 10


def test_what_takes_longer_than_a_second_says_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    progress = Progress("runs.db", "one table", 1000, lambda: now[0])
    for seconds in (0.3, 0.6, 0.9, 1.2, 1.5, 2.3):
        now[0] = seconds
        progress.add(100)
    assert [record.getMessage() for record in caplog.records] == [
        "runs.db is being brought up to date for this version of rh_agents: one table, 40 %",
        "runs.db is being brought up to date for this version of rh_agents: one table, 60 %",
    ]


def test_giving_rows_their_checksums_says_how_far_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    unpack("schema_2", tmp_path)
    connection = apsw.Connection(str(tmp_path / "runs.db"))
    connection.execute(read_migrations("sqlite")[2].text)
    ((count,),) = list(connection.execute("SELECT count(*) FROM event"))
    sealing = SqliteSealing(connection, "runs.db", batch=1, clock=itertools.count().__next__)
    while not sealing.seal_some():
        pass
    connection.close()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == count
    assert said[0].startswith("runs.db is being brought up to date for this version of rh_agents: checksums, ")
    assert said[-1].endswith(" 100 %")


# -- servers -----------------------------------------------------------------------------------------------------------


def version(server: PostgresqlServer) -> list[tuple[object, ...]]:
    return server.execute(f"SELECT max(version) FROM {SCHEMA}.schema_version")


def take_steps(url: str, sealed: int, moved: int) -> None:
    """What a program has committed of the migration when it is killed after so many batches of each step."""
    steps = read_migrations("postgresql")
    connection = PostgresqlBackend(url).database.connect()
    sealing, moving = Sealing(connection, "golden", batch=5), Moving(PostgresqlTables(connection), "golden", batch=5)
    for _ in range(sealed):
        with connection.transaction():
            sealing.advance(steps[2])
    if moved:
        with connection.transaction():
            while not sealing.advance(steps[2]):
                pass
            connection.execute(steps[3].text.encode())
            connection.execute("INSERT INTO schema_version (version, file) VALUES (3, ''), (4, '')")
    for _ in range(moved):
        with connection.transaction():
            assert not moving.advance()
    with connection.transaction(force_rollback=True):  # and in the middle of the next one
        moving.advance() if moved else sealing.advance(steps[2])
    connection.close()


@pytest.mark.parametrize(("sealed", "moved"), [(0, 0), (1, 0), (4, 0), (4, 1), (4, 7), (4, 70)])
def test_a_migration_of_a_server_that_was_killed_is_made_to_its_end(
    sealed: int, moved: int, old: str, postgresql_server: PostgresqlServer
) -> None:
    everything = asyncio.run(read_everything(old, read_only=True))
    take_steps(old, sealed, moved)
    assert version(postgresql_server) == [(4 if moved else 2,)]
    assert asyncio.run(read_everything(old, read_only=True)) == everything, "as it is meanwhile"
    assert asyncio.run(read_everything(old)) == everything > 100
    assert version(postgresql_server) == [(CURRENT,)]
    tables = f"SELECT tablename FROM pg_tables WHERE schemaname = '{SCHEMA}' AND tablename LIKE '%\\_3'"
    assert postgresql_server.execute(tables) == []


def test_a_server_with_a_run_that_is_being_executed_is_left_as_it_is(
    old: str, postgresql_server: PostgresqlServer
) -> None:
    hold = f"UPDATE {SCHEMA}.run SET owner = 'process 7 on Ada', process = NULL, heartbeat_at = %s WHERE number = 1"
    postgresql_server.execute(hold, (time.time(),))
    with pytest.raises(RunIsLive, match=r"cannot be brought up to date while run .* by process 7 on Ada"):
        asyncio.run(read_everything(old))
    assert version(postgresql_server) == [(2,)]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_program_that_begins_while_a_server_is_brought_up_to_date_goes_first(
    at: int, old: str, postgresql_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = PostgresqlBackend(old).database
    connection = database.connect()
    begin, steps = connection.transaction, itertools.count(1)
    hold = f"UPDATE {SCHEMA}.run SET owner = 'process 7 on Ada', process = NULL, fence = 70 WHERE number = 1"

    def transaction() -> Any:
        if next(steps) == at:
            postgresql_server.execute(hold)
        return begin()

    monkeypatch.setattr(connection, "transaction", transaction)
    with pytest.raises(RunIsLive, match=r"cannot be brought up to date while run .* by process 7 on Ada"):
        bring_server_up_to_date(database, connection)
    connection.close()
    assert version(postgresql_server) == [(2,)]
    owners = f"SELECT owner FROM {SCHEMA}.run WHERE number = 1"
    assert postgresql_server.execute(owners) == [("process 7 on Ada",)]
    postgresql_server.execute(f"UPDATE {SCHEMA}.run SET owner = NULL WHERE number = 1")
    assert asyncio.run(read_everything(old)) > 100, "it goes on where that stood"


def test_a_row_that_was_copied_wrongly_to_a_server_is_noticed_before_anything_is_deleted(
    old: str, postgresql_server: PostgresqlServer
) -> None:
    take_steps(old, 1, 3)
    postgresql_server.execute(f"UPDATE {SCHEMA}.journal SET name = 'x' WHERE sequence = 2")
    with pytest.raises(StoreError, match="rows are not as they were; nothing was deleted"):
        asyncio.run(read_everything(old))
    assert postgresql_server.execute(f"SELECT count(*) > 100 FROM {SCHEMA}.event_3") == [(True,)]


def test_a_server_of_the_version_before_is_brought_up_to_date_while_a_run_is_being_executed(
    tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    unpack("conversations_4", tmp_path)
    postgresql_server.execute((tmp_path / "postgresql.sql").read_text())
    url = postgresql_server.url(schema=SCHEMA)
    try:
        everything = asyncio.run(read_everything(url, read_only=True))
        hold = f"UPDATE {SCHEMA}.run SET owner = 'process 7 on Ada', process = NULL, heartbeat_at = %s WHERE number = 1"
        postgresql_server.execute(hold, (time.time(),))
        database = PostgresqlBackend(url).database
        connection = database.connect()
        with pytest.raises(RunIsLive, match="process 7 on Ada"):
            bring_server_up_to_date(database, connection, indexed_soon=1000)
        assert version(postgresql_server) == [(4,)]
        bring_server_up_to_date(database, connection)
        connection.close()
        assert version(postgresql_server) == [(CURRENT,)]
        found = postgresql_server.execute(f"SELECT count(*) FROM {SCHEMA}.journal WHERE input IS NULL")
        assert found == [(everything,)]
    finally:
        postgresql_server.execute(f"DROP SCHEMA {SCHEMA} CASCADE")


def test_of_many_that_bring_a_server_up_to_date_at_once_one_does_it(
    old: str, postgresql_server: PostgresqlServer
) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: asyncio.run(read_everything(old)), range(4)))
    assert len(set(found)) == 1
    steps = postgresql_server.execute(f"SELECT version FROM {SCHEMA}.schema_version ORDER BY 1")
    assert steps == [(number,) for number in range(1, CURRENT + 1)]


# -- who only looks at a server ----------------------------------------------------------------------------------------


def dump(server: PostgresqlServer, schema: str) -> list[object]:
    """All tables of a schema, and all that is in them."""
    tables = server.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", (schema,))
    return [(name, sorted(map(str, server.execute(f'SELECT * FROM {schema}."{name}"')))) for (name,) in tables]


def test_who_only_looks_at_an_older_server_reads_it_as_it_is_and_changes_nothing(
    old: str, postgresql_server: PostgresqlServer
) -> None:
    before = dump(postgresql_server, SCHEMA)
    everything = asyncio.run(read_everything(old, read_only=True))
    assert dump(postgresql_server, SCHEMA) == before
    assert asyncio.run(read_everything(old)) == everything > 100


def test_who_only_looks_makes_no_schema(postgresql_url: str, postgresql_server: PostgresqlServer) -> None:
    schema = postgresql_url.rpartition("=")[2]
    with pytest.raises(StoreError, match=f"schema '{schema}' has no tables of rh_agents"):
        asyncio.run(read_everything(postgresql_url, read_only=True))
    assert postgresql_server.execute("SELECT count(*) FROM pg_namespace WHERE nspname = %s", (schema,)) == [(0,)]


def test_who_only_looks_at_a_server_sees_everything_and_can_change_nothing(
    old: str, postgresql_server: PostgresqlServer
) -> None:
    everything = asyncio.run(read_everything(old))
    before = dump(postgresql_server, SCHEMA)

    async def main() -> None:
        assert await read_everything(old, read_only=True) == everything
        store = open_store(old, read_only=True)
        run_id = (await store.runs())[0].run_id
        for change in (
            store.delete_run(run_id),
            store.fork_run(run_id, "copy", [], []),
            store.collect_garbage(min_age=0),
            store.supersede(run_id, []),
        ):
            with pytest.raises(StoreError, match="opened to be looked at only"):
                await change
        await store.aclose()

    asyncio.run(main())
    assert dump(postgresql_server, SCHEMA) == before


# -- what earlier versions had taken out of windows --------------------------------------------------------------------

TAKEN = RateWindow("account", 3600.0, {"requests": 5.0})


async def left_of_window(url: str) -> tuple[int, int]:
    """For how many more calls there is room in two windows that are shared."""
    store = open_store(url)

    def fill(window: RateWindow, state: dict[str, Any], now: float) -> int:
        asks = (RateAsk(window, f"p{number}", f"b{number}", {"requests": 1.0}) for number in range(9))
        return sum(ask_for_permits(state, each, now).count for each in asks)

    names = ("account", "another")
    windows = [dataclasses.replace(TAKEN, name=name) for name in names]
    left = [await store.share(f"rate:{each.name}", partial(fill, each)) for each in windows]
    await store.aclose()
    return left[0], left[1]


def taken_before(mark: str, table: str) -> tuple[str, tuple[Any, ...]]:
    """A ticket as schema 6 had it."""
    now = time.time()
    row = ("account", now - 60, now + 3540, '{"requests": 3.0}')
    checksums = ticket_checksum(*row[:3]), amounts_checksum(row[0], row[3])
    columns = "limited, taken_at, ends_at, amounts, checksum, amounts_checksum"
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join([mark] * 6)})", (*row, *checksums)


def test_what_was_taken_out_of_a_window_before_still_counts_and_an_older_program_can_take_no_more(
    tmp_path: Path,
) -> None:
    unpack("schema_6", tmp_path)
    path = tmp_path / "runs.db"
    statement, row = taken_before("?", "ticket")
    sql(path, statement, *row)
    assert asyncio.run(left_of_window(f"sqlite:///{path}")) == (2, 5)
    with pytest.raises(apsw.ConstraintError, match="shared limits are kept in another way since schema 7"):
        sql(path, statement, *row)


def test_the_same_holds_in_a_server(tmp_path: Path, postgresql_server: PostgresqlServer) -> None:
    unpack("conversations_6", tmp_path)
    postgresql_server.execute((tmp_path / "postgresql.sql").read_text())
    statement, row = taken_before("%s", f"{SCHEMA}.ticket")
    try:
        postgresql_server.execute(statement, row)
        assert asyncio.run(left_of_window(postgresql_server.url(schema=SCHEMA))) == (2, 5)
        with pytest.raises(Exception, match="shared limits are kept in another way since schema 7"):
            postgresql_server.execute(statement, row)
    finally:
        postgresql_server.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
