"""Runs of earlier versions, of a newer one, copies and damaged ones: each has a page, or says why not."""

from __future__ import annotations

import asyncio
import contextlib
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import pytest

from rh_agents import ExecutionState, open_store, parallel, record_validation, tool
from rh_agents.core.ports import Store
from tests.services.postgresql import PostgresqlServer
from tests.surfaces.web_kit import browser, fetch, memory, recorded

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


# -- on both databases -------------------------------------------------------------------------------------------------


class Database:
    """A file, or a schema of a server, that a test can change by hand.

    Attributes:
        place: for `open_store`.
    """

    def __init__(self, place: str, server: PostgresqlServer | None = None) -> None:
        self.place = place
        self._server = server

    def change(self, statement: str) -> None:
        """Change rows; one table name stands in the statement, as `{table}`."""
        table, _, rest = statement.partition(" ")
        if self._server is None:
            with apsw.Connection(self.place) as database:
                database.execute(rest.format(table=table))
                assert database.changes() == 1
        else:
            schema = self.place.rpartition("schema=")[2]
            self._server.execute(rest.format(table=f"{schema}.{table}"))

    def make_newer(self) -> None:
        """As if a later version had written it."""
        if self._server is None:
            with apsw.Connection(self.place) as database:
                database.pragma("user_version", 99)
        else:
            self.change("schema_version INSERT INTO {table} (version, file) VALUES (99, 'later')")


@pytest.fixture(params=["file", "server"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "file":
        return Database(str(tmp_path / "runs.db"))
    return Database(request.getfixturevalue("postgresql_url"), request.getfixturevalue("postgresql_server"))


Look = Callable[[httpx2.AsyncClient], Awaitable[None]]


def looking(
    database: Database, prepare: Callable[[Store], Awaitable[None]], spoil: Callable[[], None], look: Look
) -> None:
    """Record something, change it by hand, and look at the page."""

    async def main() -> None:
        store = open_store(database.place)
        await prepare(store)
        await store.aclose()
        spoil()
        store = open_store(database.place)
        async with browser(store) as client:
            await look(client)
        await store.aclose()

    asyncio.run(main())


def nothing() -> None: ...


def test_a_store_of_a_newer_version_says_so(database: Database) -> None:
    async def look(client: httpx2.AsyncClient) -> None:
        for address in ("/api/runs", "/api/run?run=monday"):
            answer = await client.get(address)
            assert (answer.status_code, "newer version" in answer.json()["error"]) == (409, True)

    looking(database, recorded, database.make_newer, look)


def test_one_damaged_row_does_not_take_the_page_of_its_run_away(database: Database) -> None:
    async def prepare(store: Store) -> None:
        await recorded(store, urls=tuple("abcdefgh"))

    def spoil() -> None:
        database.change("journal UPDATE {table} SET address = 'x' || address WHERE ok AND address LIKE '%[3]%'")

    async def look(client: httpx2.AsyncClient) -> None:
        page = (await client.get("/api/run", params={"run": "monday"})).json()
        assert (page["problem"], page["totals"]["done"]) == (None, 9)
        calls = (await client.get("/api/calls", params={"run": "monday"})).json()["calls"]
        (damaged,) = [call for call in calls if call["is_damaged"]]
        assert "damaged" in damaged["message"]
        assert len(calls) == 9

    looking(database, prepare, spoil, look)


def test_a_damaged_run_stands_in_the_list_and_its_page_says_so(database: Database) -> None:
    async def prepare(store: Store) -> None:
        for name in ("monday", "tuesday", "wednesday"):
            await recorded(store, name)

    def spoil() -> None:
        database.change("run UPDATE {table} SET workflow = 'spoilt' WHERE run_id = 'tuesday'")

    async def look(client: httpx2.AsyncClient) -> None:
        runs = (await client.get("/api/runs")).json()["runs"]
        assert [(run["run_id"], run["status"]) for run in runs] == [
            ("wednesday", "completed"),
            ("tuesday", "damaged"),
            ("monday", "completed"),
        ]
        assert "the row of run 'tuesday' is damaged" in runs[1]["damage"]
        older = (await client.get("/api/runs", params={"before": "tuesday"})).json()
        assert ([run["run_id"] for run in older["runs"]], older["newer"]) == (["monday"], 2)
        page = await client.get("/api/run", params={"run": "tuesday"})
        assert (page.status_code, "is damaged" in page.json()["error"]) == (409, True)
        assert (await client.get("/api/run", params={"run": "monday"})).json()["problem"] is None

    looking(database, prepare, spoil, look)


def test_a_copy_says_of_which_run_it_is_one_and_that_it_has_not_been_started(database: Database) -> None:
    async def prepare(store: Store) -> None:
        await recorded(store)
        await store.fork_run("monday", "copy", (), ())

    async def look(client: httpx2.AsyncClient) -> None:
        run = (await client.get("/api/run", params={"run": "copy"})).json()["run"]
        assert (run["forked_from"], run["untouched"]) == ("monday", True)

    looking(database, prepare, nothing, look)


def test_a_validation_that_was_kept_shows_item_by_item_what_differs(database: Database) -> None:
    answers = {"a": 1, "b": 2, "c": 3}

    @tool
    async def ask(name: str) -> int:
        if answers[name] < 0:
            raise ValueError(f"no {name}")
        return answers[name]

    async def prepare(store: Store) -> None:
        async with ExecutionState(store=store, run_id="monday"):
            for name in "abc":
                await ask(name)
        answers.update(a=7, b=-1)
        async with ExecutionState(store=store, run_id="monday", replay_mode="validation") as state:
            await ask("a")
            with contextlib.suppress(ValueError):
                await ask("b")
        assert len(state.differences) == 3
        assert await record_validation(store, "monday", state.differences) == "monday-validation"
        assert await record_validation(store, "monday", ()) == "monday-validation-2"

    async def look(client: httpx2.AsyncClient) -> None:
        page = (await client.get("/api/run", params={"run": "monday-validation"})).json()
        assert (page["run"]["validates"], page["run"]["status"]) == ("monday", "failed")
        assert page["run"]["reason"] == "3 calls of monday came to something else"
        found = (await client.get("/api/validation", params={"run": "monday-validation"})).json()
        assert [row["kind"] for row in found["rows"]] == ["different", "different", "not_called"]
        different, failed, not_called = found["rows"]
        assert (different["left"]["text"], different["right"]["text"]) == ("1", "7")
        assert (failed["left"]["text"], failed["right"]["message"]) == ("2", "ValueError: no b")
        assert (not_called["left"]["text"], not_called["right"]) == ("3", None)
        same = (await client.get("/api/validation", params={"run": "monday-validation-2"})).json()
        assert (same["total"], same["rows"]) == (0, [])
        assert (await client.get("/api/validation", params={"run": "monday"})).status_code == 404
        assert (await client.get("/api/export", params={"run": "monday-validation"})).status_code == 200

    looking(database, prepare, nothing, look)


def test_a_run_that_an_earlier_version_began_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        store = open_store(unpacked("schema_1", tmp_path), read_only=True)
        async with browser(store, read_only=True) as client:
            (first, *_) = (await client.get("/api/runs")).json()["runs"]
            run = (await client.get("/api/run", params={"run": first["run_id"]})).json()["run"]
            assert run["is_older"]
        await store.aclose()
        async with browser(new := memory()) as client:
            await recorded(new)
            assert not (await client.get("/api/run", params={"run": "monday"})).json()["run"]["is_older"]

    asyncio.run(main())


def test_runs_and_groups_are_shown_a_page_at_a_time() -> None:
    async def main() -> None:
        store = memory()
        for number in range(203):
            async with ExecutionState(store=store, run_id=f"r{number:03}"):
                pass
        async with ExecutionState(store=store, run_id="many"):
            for number in range(103):
                async with parallel(name=f"g{number:03}") as group:
                    group.add(fetch("a"))
                    await group.gather()
        async with browser(store) as client:
            first = (await client.get("/api/runs")).json()
            assert (len(first["runs"]), first["total"], first["newer"]) == (200, 204, 0)
            rest = (await client.get("/api/runs", params={"before": first["older"]})).json()
            assert [run["run_id"] for run in rest["runs"]] == ["r003", "r002", "r001", "r000"]
            assert (rest["newer"], rest["older"]) == (200, None)
            assert (await client.get("/api/runs", params={"before": "never"})).status_code == 404
            groups = (await client.get("/api/groups", params={"run": "many", "from": 100})).json()
            assert [group["name"] for group in groups["groups"]] == ["g100", "g101", "g102"]
            named = (await client.get("/api/groups", params={"run": "many", "text": "G05"})).json()
            assert (named["total"], named["groups"][0]["name"]) == (10, "g050")
            assert (await client.get("/api/groups", params={"run": "never"})).status_code == 404

    asyncio.run(main())
