"""Stores of earlier versions are brought up to date once, whoever is killed meanwhile and however many begin."""

from __future__ import annotations

import asyncio
import signal
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rh_agents import open_store
from rh_agents.core.errors import StoreError
from rh_agents.stores._sql import read_migrations
from rh_agents.testing._records import listed
from tests.services.postgresql import PostgresqlServer
from tests.stores.sqlite_kit import python, sql

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")

from rh_agents.stores._postgresql_backend import PostgresqlBackend
from rh_agents.stores._postgresql_migration import Sealing

GOLDEN = Path(__file__).parents[1] / "stress" / "golden"
SCHEMA = "golden"
CURRENT = read_migrations("postgresql")[-1].number


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store in a file and one in a server, as an earlier version left them."""
    with tarfile.open(GOLDEN / "conversations_2.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def old(folder: Path, postgresql_server: PostgresqlServer) -> Iterator[str]:
    """The URL of the one in the server."""
    postgresql_server.execute((folder / "postgresql.sql").read_text())
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
        return sum([len(await listed(store.events(run.run_id))) for run in runs])
    finally:
        await store.aclose()


# -- files -------------------------------------------------------------------------------------------------------------

_OPEN = """
import asyncio, sys, time
from rh_agents import open_store
from rh_agents.stores import _sqlite_migration
if sys.argv[2] == "slowly":
    seal = _sqlite_migration.Sealing.seal_some
    def seal_some(self):
        self._batch = 3
        print("sealing", flush=True)
        time.sleep(0.01)
        return seal(self)
    _sqlite_migration.Sealing.seal_some = seal_some
async def main():
    store = open_store(sys.argv[1])
    await store.find_run("")
    assert await store.check() == []
    await store.aclose()
input()
asyncio.run(main())
"""


def test_a_file_is_brought_up_to_date_by_processes_that_are_killed_and_others_that_begin_at_once(folder: Path) -> None:
    path = folder / "runs.db"
    for steps in (1, 2, 5):
        process = python(_OPEN, path, "slowly")
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        for _ in range(steps):
            assert process.stdout.readline() == "sealing\n"
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert sql(path, "PRAGMA user_version") == [(2,)]
    processes = [python(_OPEN, path, "at once") for _ in range(4)]
    assert [process.communicate("\n", timeout=60) for process in processes] == [("", "")] * 4
    assert sql(path, "PRAGMA user_version") == [(CURRENT,)]
    assert asyncio.run(read_everything(f"sqlite:///{path}")) > 100


# -- servers -----------------------------------------------------------------------------------------------------------


def version(server: PostgresqlServer) -> list[tuple[object, ...]]:
    return server.execute(f"SELECT max(version) FROM {SCHEMA}.schema_version")


def seal_some(url: str, batches: int) -> None:
    """What a program has committed of the migration when it is killed after so many batches."""
    step = read_migrations("postgresql")[-1]
    connection = PostgresqlBackend(url).database.connect()
    sealing = Sealing(connection, batch=5)
    for _ in range(batches):
        with connection.transaction():
            assert not sealing.advance(step)
    if batches:  # and in the middle of the next one
        with connection.transaction(force_rollback=True):
            sealing.advance(step)
    connection.close()


@pytest.mark.parametrize("batches", [0, 1, 4])
def test_a_migration_of_a_server_that_was_killed_is_made_to_its_end(
    batches: int, old: str, postgresql_server: PostgresqlServer
) -> None:
    seal_some(old, batches)
    assert version(postgresql_server) == [(2,)]
    assert asyncio.run(read_everything(old)) > 100
    assert version(postgresql_server) == [(CURRENT,)]
    unsealed = f"SELECT count(*) FROM {SCHEMA}.event WHERE checksum IS NULL OR call_checksum IS NULL"
    assert postgresql_server.execute(unsealed) == [(0,)]


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


def test_who_only_looks_at_an_older_server_gets_one_sentence_and_changes_nothing(
    old: str, postgresql_server: PostgresqlServer
) -> None:
    before = dump(postgresql_server, SCHEMA)
    with pytest.raises(
        StoreError, match=r"earlier version of rh_agents \(schema 2, this one knows \d\): starting or res"
    ):
        asyncio.run(read_everything(old, read_only=True))
    assert dump(postgresql_server, SCHEMA) == before


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
