"""Runs of earlier versions, of a newer one, copies and damaged ones: each has a page, or says why not."""

from __future__ import annotations

import asyncio
import tarfile
from pathlib import Path

import pytest

from rh_agents import open_store
from tests.surfaces.web_kit import browser, memory, recorded

apsw = pytest.importorskip("apsw")

GOLDEN = Path(__file__).parents[1] / "stress" / "golden"


def unpacked(name: str, folder: Path) -> Path:
    """The database in a recorded archive."""
    with tarfile.open(GOLDEN / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return next(iter(sorted(folder.rglob("*.db"))))


@pytest.mark.parametrize("kind", ["schema", "conversations"])
@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("read_only", [True, False])
def test_runs_of_each_version_have_their_pages(tmp_path: Path, kind: str, version: int, read_only: bool) -> None:
    if not (GOLDEN / f"{kind}_{version}.tar.gz").exists():
        pytest.skip("none was recorded")
    path = unpacked(f"{kind}_{version}", tmp_path)

    async def main() -> None:
        store = open_store(path, read_only=read_only)
        async with browser(store, read_only=read_only) as client:
            runs = [run["run_id"] for run in (await client.get("/api/runs")).json()["runs"]]
            assert runs
            seen = 0
            for run in runs:
                page = (await client.get("/api/run", params={"run": run})).json()
                assert page["problem"] is None
                assert page["totals"]["outcomes"] == page["run"]["outcomes"]
                calls = (await client.get("/api/calls", params={"run": run})).json()["calls"]
                for call in calls[:20]:
                    wanted = {"run": run, "key": call["key"]}
                    record = (await client.get("/api/call", params=wanted)).json()
                    assert record["call"]["address"] == call["address"]
                    value = await client.get("/api/call/value", params=wanted)
                    assert value.status_code == (200 if record["has_value"] else 404)
                    seen += record["has_value"]
                for view in ("plan", "export"):
                    assert (await client.get(f"/api/{view}", params={"run": run})).status_code == 200
            assert seen
        await store.aclose()

    asyncio.run(main())


def test_a_store_of_a_newer_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    async def main() -> None:
        store = open_store(path)
        await recorded(store)
        await store.aclose()
        with apsw.Connection(str(path)) as database:
            database.pragma("user_version", 99)
        store = open_store(path, read_only=True)
        async with browser(store) as client:
            for address in ("/api/runs", "/api/run?run=monday"):
                answer = await client.get(address)
                assert (answer.status_code, "newer version" in answer.json()["error"]) == (409, True)
        await store.aclose()

    asyncio.run(main())


def test_one_damaged_row_does_not_take_the_page_of_its_run_away(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    async def main() -> None:
        store = open_store(path)
        await recorded(store, urls=tuple("abcdefgh"))
        await store.aclose()
        with apsw.Connection(str(path)) as database:
            database.execute("UPDATE journal SET address = 'x' || address WHERE ok = 1 AND address LIKE '%[3]%'")
            assert database.changes() == 1
        store = open_store(path)
        async with browser(store) as client:
            page = (await client.get("/api/run", params={"run": "monday"})).json()
            assert (page["problem"], page["totals"]["done"]) == (None, 9)
            calls = (await client.get("/api/calls", params={"run": "monday"})).json()["calls"]
            (damaged,) = [call for call in calls if call["is_damaged"]]
            assert "damaged" in damaged["message"]
            assert len(calls) == 9
        await store.aclose()

    asyncio.run(main())


def test_a_copy_says_of_which_run_it_is_one_and_that_it_has_not_been_started() -> None:
    async def main() -> None:
        store = memory()
        await recorded(store)
        await store.fork_run("monday", "copy", (), ())
        async with browser(store) as client:
            run = (await client.get("/api/run", params={"run": "copy"})).json()["run"]
            assert (run["forked_from"], run["untouched"]) == ("monday", True)

    asyncio.run(main())
