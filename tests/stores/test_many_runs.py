"""A store of many runs: what people look at of it is found by the database, and little of it is read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rh_agents.core.ports import RunInfo, RunStatus
from rh_agents.core.ports.windows import RunQuery, count_runs, list_runs
from rh_agents.stores._backend.rows import RunRow
from rh_agents.stores._opening_artifacts import open_artifacts
from rh_agents.stores._sqlite.database import Database
from rh_agents.stores.sqlite import SqliteStore
from tests.stores.sqlite_kit import sql

COUNT = 1300
"""More than are read at a time, however they are read."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of many runs, every hundredth of which has failed; the row of one of those is damaged."""
    found = tmp_path_factory.mktemp("many") / "runs.db"
    kept = open_artifacts(f"{found}-artifacts")
    session = Database(found, "runs.db", kept, 30.0, 1 << 20, 4096, 0o600).writing()
    session.connection.pragma("synchronous", "OFF")
    for number in range(COUNT):
        status = "failed" if number % 100 == 7 else "completed"
        row = RunRow(0, f"run {number}", status, tags=(f"tag {number % 3}",), created_at=1.0, updated_at=1.0)
        assert session.create(row) is not None
    session.close()
    sql(found, "UPDATE run SET workflow = 'spoilt' WHERE run_id = 'run 107'")
    return found


class SparingStore(SqliteStore):
    """Refuses to read all runs at once."""

    async def runs(self, *, limit: int | None = None, **wanted: Any) -> list[RunInfo]:
        assert limit is not None
        assert limit <= 1000
        return await super().runs(limit=limit, **wanted)


def test_of_many_runs_those_are_found_that_fit_wherever_they_stand(path: Path) -> None:
    async def main() -> None:
        store = SparingStore(path, read_only=True)
        failed = RunQuery((RunStatus.FAILED,), n=5)
        window = await list_runs(store, failed)
        assert [info.run_id for info in window.runs] == [f"run {number}07" for number in (12, 11, 10, 9, 8)]
        assert await count_runs(store, RunQuery((RunStatus.FAILED,), tag="tag 1")) == 5
        assert await count_runs(store, RunQuery(text="RUN 12")) == 111
        assert await count_runs(store, RunQuery(before="run 300")) == 300
        await store.aclose()

    asyncio.run(main())


def test_the_one_damaged_run_of_many_is_found_and_stands_where_it_is_not_ruled_out(path: Path) -> None:
    async def main() -> None:
        store = SparingStore(path, read_only=True)
        damaged = RunQuery((RunStatus.DAMAGED,))
        assert [info.run_id for info in (await list_runs(store, damaged)).runs] == ["run 107"]
        assert await count_runs(store, damaged) == 1
        assert await count_runs(store, RunQuery()) == COUNT

        async def failed(*, with_damaged: bool = False) -> list[str]:
            query = RunQuery((RunStatus.FAILED,), with_damaged=with_damaged, before="run 300")
            window = await list_runs(store, query)
            return [info.run_id for info in window.runs]

        assert await failed() == ["run 207", "run 7"]
        assert await failed(with_damaged=True) == ["run 207", "run 107", "run 7"]
        await store.aclose()

    asyncio.run(main())
