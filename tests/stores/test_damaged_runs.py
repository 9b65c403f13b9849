"""The row of a run is damaged: it stands in every list with the reason, and hides no other run."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import apsw
import pytest

from rh_agents import ExecutionState, open_store, tool
from rh_agents.cli import main as command
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RunStatus, status_of
from tests.services.postgresql import PostgresqlServer

NAMES = ("monday", "tuesday", "wednesday")
COLUMNS = ["workflow = 'spoilt'", "status = 'spoilt'", "facts = '{'", "epoch = 7", "owner = 'spoilt'"]
OF_A_FILE = [*COLUMNS, "workflow = CAST(x'66ff' AS TEXT)"]
WHAT_IS_LOOKED_UP = ["tags = '['", "tags = '7'", "tags = CAST(x'5b22ff225d' AS TEXT)", "run_id = CAST(x'ff' AS TEXT)"]


@tool
async def fetch(url: str) -> str:
    return url


async def record(place: str) -> None:
    store = open_store(place)
    for name in NAMES:
        async with ExecutionState(store=store, run_id=name, tags=["nightly"]):
            await fetch("a")
    await store.aclose()


async def look(place: str) -> None:
    store = open_store(place)
    try:
        wednesday, tuesday, monday = await store.runs()
        assert await store.runs(tag="nightly") == [wednesday, tuesday, monday]
        assert [status_of(each) for each in (wednesday, tuesday, monday)] == [
            *(RunStatus.COMPLETED, RunStatus.DAMAGED, RunStatus.COMPLETED)
        ]
        assert (wednesday.damage, monday.damage, tuesday.tags, tuesday.workflow) == (None, None, (), "")
        assert "is damaged: its checksum does not fit" in (tuesday.damage or "")
        assert [each.run_id for each in await store.runs(before=tuesday.run_id)] == ["monday"]
        assert [each.run_id for each in await store.runs(before="wednesday", limit=1)] == [tuesday.run_id]
        with pytest.raises(StoreError, match="damaged"):
            await store.find_run("tuesday")
        assert any("damaged" in finding for finding in await store.check())
    finally:
        await store.aclose()


def spoil_file(path: Path, what: str) -> None:
    with apsw.Connection(str(path)) as database:
        database.execute(f"UPDATE run SET {what} WHERE run_id = 'tuesday'")
        assert database.changes() == 1


@pytest.mark.parametrize("what", OF_A_FILE)
def test_a_damaged_run_in_a_file_hides_no_other(tmp_path: Path, what: str) -> None:
    place = str(tmp_path / "runs.db")
    asyncio.run(record(place))
    spoil_file(tmp_path / "runs.db", what)
    asyncio.run(look(place))


@pytest.mark.parametrize("what", WHAT_IS_LOOKED_UP)
def test_a_run_whose_name_or_tags_are_damaged_hides_no_other(tmp_path: Path, what: str) -> None:
    place = str(tmp_path / "runs.db")
    asyncio.run(record(place))
    spoil_file(tmp_path / "runs.db", what)

    async def main() -> None:
        store = open_store(place)
        assert [each.damage is None for each in await store.runs()] == [True, False, True]
        assert [each.run_id for each in await store.runs(before="wednesday")][1:] == ["monday"]
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("what", COLUMNS)
def test_a_damaged_run_in_a_database_server_hides_no_other(
    what: str, postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    schema = postgresql_url.rpartition("schema=")[2].partition("&")[0]
    asyncio.run(record(postgresql_url))
    postgresql_server.execute(f"UPDATE {schema}.run SET {what} WHERE run_id = 'tuesday'")
    asyncio.run(look(postgresql_url))


def test_commands_show_a_damaged_run_among_the_others_and_never_delete_it_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asyncio.run(record("runs.db"))
    spoil_file(tmp_path / "runs.db", "workflow = 'spoilt'")

    def said(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        assert command([*words, "--store", "runs.db"]) == code
        return capsys.readouterr().out

    listed = said("runs")
    assert [line.split()[1] for line in listed.splitlines()[1:4]] == ["completed", "damaged", "completed"]
    assert "the row of run 'tuesday' is damaged" in listed
    records = [json.loads(line) for line in said("runs", "--json").splitlines()]
    assert [(each["run_id"], each["status"], "damage" in each) for each in records] == [
        ("wednesday", "completed", False),
        ("tuesday", "damaged", True),
        ("monday", "completed", False),
    ]
    assert [json.loads(line)["run_id"] for line in said("runs", "--json", "--status", "damaged").splitlines()] == [
        "tuesday"
    ]
    said("top", "--once")
    deleted = [json.loads(line) for line in said("delete", "--older-than", "0s", "--yes", "--json").splitlines()]
    assert {each["run_id"] for each in deleted} == {"monday", "wednesday"}
    problem = json.loads(said("show", "tuesday", "--json", code=1))["error"]
    assert (problem["kind"], problem["remedy"]) == ("store", "put the database back from a backup")


def test_a_damaged_question_hides_no_run_from_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def ask() -> None:
        async with ExecutionState(store="runs.db", run_id="asking") as state:
            await state.ask("Go on?", bool)

    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match="asking"):
        asyncio.run(ask())
    with apsw.Connection("runs.db") as database:
        database.execute("UPDATE question SET text = 'spoilt'")
    assert command(["runs", "--store", "runs.db"]) == 0
    listed = capsys.readouterr().out
    assert "waiting for answers" in listed
    assert "open questions cannot be read" in listed
