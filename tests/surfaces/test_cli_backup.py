"""`rh-agents backup` and `doctor`: copies that can be restored, and what is used and what is missing."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import apsw
import pytest

from rh_agents import ExecutionState, open_store, run_sync, tool
from rh_agents.core.errors import StoreError
from rh_agents.stores import _files
from rh_agents.stores._sqlite.database import reason_of
from rh_agents.stores.backup import back_up
from rh_agents.stores.sqlite import SqliteStore
from tests.surfaces.cli_kit import Folder, command, said

CALLED: list[str] = []


@tool
async def read(name: str) -> str:
    CALLED.append(name)
    return name * 200_000


async def flow(names: list[str]) -> int:
    return sum([len(await read(name)) for name in names])


def test_a_copy_made_while_a_run_goes_on_is_restored_and_goes_on_from_there(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    CALLED.clear()

    async def main() -> None:
        async with ExecutionState(store="runs.db", run_id="monday"):
            await read("a")
            store = open_store("runs.db")
            assert isinstance(store, SqliteStore)
            done = await back_up(store, "kept/copy.db")
            await store.aclose()
            assert (done.runs, done.large_results) == (1, 1)
            await read("b")

    asyncio.run(main())
    assert sorted(path.name for path in Path("kept").iterdir()) == ["copy.db", "copy.db-artifacts"]
    for path in folder.path.glob("runs.db*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copy("kept/copy.db", "runs.db")
    shutil.copytree("kept/copy.db-artifacts", "runs.db-artifacts")

    async def again() -> None:
        async with ExecutionState(store="runs.db", run_id="monday"):
            assert len(await read("a")) == 200_000
            await read("b")

    asyncio.run(again())
    assert CALLED == ["a", "b", "b"]
    said(capfd, "check", "--store", "runs.db")


def test_a_copy_is_made_and_named_by_the_command(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    run_sync(flow, ["a", "b"], store="runs.db", run_id="monday")
    out, err = said(capfd, "backup", "copy.db", "--store", "runs.db")
    assert out.splitlines()[0].startswith("1 run, ")
    assert out.splitlines()[0].endswith(" copied to copy.db; no damage found")
    assert out.splitlines()[1] == "2 large results in copy.db-artifacts"
    assert err == ""
    assert Path("copy.db").stat().st_mode & 0o777 == 0o600
    assert said(capfd, "runs", "--store", "copy.db")[0].splitlines()[1].startswith("monday")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["copy.db", "--store", "runs.db"], "copy.db: it is there already; name another file"),
        ([".", "--store", "runs.db"], ". is a directory; name a file in it, such as ./runs.db"),
        (["new.db", "--store", "none"], "--store none keeps nothing"),
        (["new.db", "--store", "othr.db"], "there is no store othr.db: "),
    ],
)
def test_what_cannot_be_copied_so_is_said_in_one_line(
    folder: Folder, capfd: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    run_sync(flow, ["a"], store="runs.db", run_id="monday")
    Path("copy.db").touch()
    assert command("backup", *words) in (1, 2)
    out, err = capfd.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert says in err
    assert Path("copy.db").stat().st_size == 0
    assert not Path("new.db").exists()


def test_a_copy_with_damage_is_not_kept(folder: Folder) -> None:
    run_sync(flow, ["a"], store="runs.db", run_id="monday")
    (large,) = [path for path in Path("runs.db-artifacts").rglob("*") if path.is_file()]
    large.unlink()
    store = SqliteStore("runs.db", read_only=True)
    with pytest.raises(StoreError, match=r"the copy has damage, so it is not kept: .*missing"):
        asyncio.run(back_up(store, "copy.db"))
    asyncio.run(store.aclose())
    assert [path.name for path in folder.path.glob("*copy.db*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (apsw.FullError("not an error"), "the disk is full"),
        (apsw.ReadOnlyError("not an error"), "it cannot be written to"),
        (apsw.CantOpenError("unable to open database file"), "it cannot be opened (unable to open database file)"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    ],
)
def test_why_a_copy_could_not_be_made_is_said_also_where_sqlite_has_no_words_for_it(
    error: Exception, says: str
) -> None:
    assert reason_of(error) == says


def test_a_copy_that_could_not_be_made_leaves_no_large_results(folder: Folder) -> None:
    run_sync(flow, ["a", "b"], store="runs.db", run_id="monday")
    next(path for path in Path("runs.db-artifacts").rglob("*") if path.is_file()).unlink()
    Path("had.db-artifacts").mkdir()
    Path("had.db-artifacts", "of-somebody").touch()
    store = SqliteStore("runs.db", read_only=True)
    for name in ("copy.db", "had.db"):
        with pytest.raises(StoreError):
            asyncio.run(back_up(store, name))
    asyncio.run(store.aclose())
    assert not Path("copy.db-artifacts").exists()
    assert Path("had.db-artifacts", "of-somebody").exists()


@pytest.mark.parametrize("kind", ["wal", "journal"])
def test_a_copy_gets_no_name_beside_which_the_log_of_another_database_is_left(folder: Folder, kind: str) -> None:
    run_sync(flow, ["a"], store="runs.db", run_id="monday")
    Path(f"copy.db-{kind}").touch()
    store = SqliteStore("runs.db", read_only=True)
    with pytest.raises(StoreError, match=rf"copy.db-{kind}: it is the log of a database that had this name"):
        asyncio.run(back_up(store, "copy.db"))
    asyncio.run(store.aclose())
    assert not Path("copy.db").exists()


def test_a_link_that_leads_nowhere_is_not_replaced_by_a_copy(folder: Folder) -> None:
    run_sync(flow, ["a"], store="runs.db", run_id="monday")
    Path("copy.db").symlink_to("nowhere.db")
    store = SqliteStore("runs.db", read_only=True)
    with pytest.raises(StoreError, match="it is there already"):
        asyncio.run(back_up(store, "copy.db"))
    asyncio.run(store.aclose())
    assert Path("copy.db").is_symlink()


# -- doctor -----------------------------------------------------------------------------------------------------------


def findings(capfd: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, dict[str, str]]:
    out, _ = said(capfd, "doctor", "--json", *words, code=code)
    return {each["about"]: each for each in map(json.loads, out.splitlines())}


def test_what_is_used_is_shown_with_who_says_so(
    folder: Folder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sync(flow, ["a"], store="runs.db", run_id="monday")
    found = findings(capfd)
    assert found["store"]["text"] == ".rh_agents/runs.db (the usual one) is not there yet"
    assert found["store"]["state"] == "missing"
    assert found["[cli]"]["text"].startswith("typer ")
    assert "[dev]" not in found
    monkeypatch.setenv("RH_AGENTS_STORE", "runs.db")
    found = findings(capfd)
    assert found["store"]["text"] == "runs.db (by RH_AGENTS_STORE), 1 run"
    assert found["schema"]["text"].endswith(", the newest")
    assert found["results"]["text"].endswith("runs.db-artifacts")
    assert " free in " in found["disk"]["text"]
    assert findings(capfd, "--store", "none")["store"]["text"] == "none (by --store) records nothing"
    assert not Path(".rh_agents").exists()


def test_what_is_wrong_is_said_with_the_remedy_and_is_the_exit_code(
    folder: Folder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("text.db").write_text("no database, but long enough to be none")
    assert "it is not an SQLite database" in findings(capfd, "--store", "text.db", code=1)["store"]["remedy"]
    monkeypatch.setenv("RH_AGENTS_STOER", "runs.db")
    assert findings(capfd)["RH_AGENTS_STOER"]["remedy"] == "did you mean RH_AGENTS_STORE?"
    monkeypatch.setenv("RH_AGENTS_STORE", "program.py/runs.db")
    out, _ = said(capfd, "doctor", code=1)
    (line,) = [line for line in out.splitlines() if "cannot be used" in line]
    assert line.startswith("✗")
    assert "program.py is no directory" in line


def test_the_schema_of_a_file_is_read_without_opening_it(folder: Folder) -> None:
    run_sync(flow, ["a"], store="runs.db", run_id="monday")
    assert (_files.schema_of_file(Path("runs.db")) or 0) >= 7
    assert _files.schema_of_file(Path("program.py")) is None
    assert _files.schema_of_file(Path("nothing.db")) is None
