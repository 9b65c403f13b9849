"""Two versions of the library at one store: who has it open goes on, who opens it anew has to know its schema."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from rh_agents import open_store, parallel, run, tool
from rh_agents.core.errors import StoreError
from tests.services.postgresql import PostgresqlServer
from tests.surfaces.cli_kit import said

Upgrade = Callable[[], None]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Upgrade]:
    """The URL of a store, and what brings it to the schema of the version after this one: it only adds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'runs.db'}", lambda: _upgrade_file(tmp_path / "runs.db")
    url: str = request.getfixturevalue("postgresql_url")
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    return url, lambda: _upgrade_server(server, url.rpartition("schema=")[2])


def _upgrade_file(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(10_000)
    ((version,),) = connection.execute("PRAGMA user_version")
    connection.execute(
        "BEGIN IMMEDIATE; ALTER TABLE journal ADD COLUMN later TEXT; ALTER TABLE run ADD COLUMN later TEXT; "
        f"CREATE TABLE later (number INTEGER PRIMARY KEY); PRAGMA user_version = {version + 1}; COMMIT"
    )
    connection.close()


def _upgrade_server(server: PostgresqlServer, schema: str) -> None:
    for statement in (
        f"ALTER TABLE {schema}.journal ADD COLUMN later TEXT",
        f"ALTER TABLE {schema}.run ADD COLUMN later TEXT",
        f"CREATE TABLE {schema}.later (number INTEGER PRIMARY KEY)",
        f"INSERT INTO {schema}.schema_version (version, file) SELECT max(version) + 1, '' FROM {schema}.schema_version",
    ):
        server.execute(statement)


def test_a_run_goes_on_to_its_end_while_a_newer_version_adds_to_its_store(store: tuple[str, Upgrade]) -> None:
    url, upgrade = store
    called: list[int] = []

    @tool
    async def work(number: int) -> int:
        called.append(number)
        if number == 3:
            await asyncio.to_thread(upgrade)
        return number

    async def main() -> int:
        async with parallel(max_workers=2, name="items") as p:
            p.map(work, range(10))
            return sum(result.unwrap() for result in await p.gather())

    async def both() -> None:
        opened: Any = open_store(url)
        assert await run(main, store=opened, run_id="monday") == 45
        assert await run(main, store=opened, run_id="monday") == 45, "it is replayed as well"
        assert sorted(called) == list(range(10))
        assert await opened.check() == []
        await opened.aclose()

    asyncio.run(both())


@pytest.mark.parametrize("read_only", [False, True])
def test_who_opens_a_store_of_a_newer_version_is_told_to_upgrade_and_changes_nothing(
    store: tuple[str, Upgrade], read_only: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    url, upgrade = store

    async def nothing() -> int:
        return 1

    async def look() -> None:
        opened: Any = open_store(url, read_only=read_only)
        try:
            await opened.runs()
        finally:
            await opened.aclose()

    asyncio.run(run(nothing, store=url, run_id="monday"))
    upgrade()
    with pytest.raises(StoreError, match=r"made by a newer version of rh_agents: schema \d+, this one knows \d+"):
        asyncio.run(look())
    _, err = said(capfd, "runs", "--store", url, code=1)
    assert "made by a newer version of rh_agents" in err
    assert "Traceback" not in err
