"""Who only looks at a store makes no file and changes none, whatever is there; and gets the runs, or one sentence."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import sys
import tarfile
import types
from pathlib import Path
from typing import Any, cast

import pytest

from rh_agents import fork, open_store
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Store
from rh_agents.core.ports.outline import outline_of_run
from rh_agents.core.ports.summary import summary_of_run
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores.sqlite import SqliteStore
from tests.stores.sqlite_kit import RUN, call, python, request, sql

GOLDEN = Path(__file__).parents[1] / "stress" / "golden"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it keeps open files in place")


def contents(folder: Path) -> dict[str, Any]:
    """All that is in a folder, but the index of a log: it holds nothing, and SQLite makes it anew after a crash."""
    return {
        str(path.relative_to(folder)): (
            stat.S_IMODE(path.stat().st_mode),
            None if not path.is_file() else (path.read_bytes(), path.stat().st_mtime_ns),
        )
        for path in folder.rglob("*")
        if not path.name.endswith("-shm")
    }


async def expect_what_the_database_computes(store: Store, run_id: str) -> None:
    """It is what the events say one by one."""
    journals = types.SimpleNamespace(events=store.events, unread_outcomes=store.unread_outcomes)
    said = await summary_of_run(cast("Store", journals), run_id)
    assert said.outcomes > 0
    assert await summary_of_run(store, run_id) == said
    made = await outline_of_run(cast("Store", journals), run_id)
    outline = await outline_of_run(store, run_id)
    assert list(outline.plain) == list(made.plain)
    assert outline.uses >= made.uses
    assert [each.recorded.sequence async for each in outline.read(True)] == [
        each.recorded.sequence async for each in made.read(True)
    ]


async def looked_at(path: Path | str) -> list[str]:
    """Everything that can be looked at; the names of the runs."""
    store = open_store(path, read_only=True)
    try:
        runs = await store.runs()
        for run in runs:
            assert [event async for event in store.events(run.run_id)]
            assert [outcome async for outcome in store.unread_outcomes(run.run_id)]
            await store.questions(run.run_id)
            await expect_what_the_database_computes(store, run.run_id)
        assert await store.check() == []
        return [run.run_id for run in runs]
    finally:
        await store.aclose()


def record(path: Path | str, end: ExecutionStatus = ExecutionStatus.COMPLETED) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        journal = await store.open_run(request())
        await call(journal, 1, "x" * 100_000)
        await journal.close(end)
        await store.aclose()

    asyncio.run(main())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files of a test are."""
    path = tmp_path / "kept"
    path.mkdir()
    return path


def test_a_store_that_was_closed_is_left_as_it_is(folder: Path) -> None:
    record(folder / "runs.db")
    before = contents(folder)
    assert asyncio.run(looked_at(folder / "runs.db")) == [RUN]
    assert contents(folder) == before
    assert not (folder / "runs.db-shm").exists()


def test_a_store_that_is_in_use_shows_what_is_written_meanwhile(folder: Path) -> None:
    async def main() -> None:
        writing, looking = SqliteStore(folder / "runs.db"), open_store(folder / "runs.db", read_only=True)
        journal = await writing.open_run(request())
        for count in (1, 2):
            await call(journal, count, count)
            assert len([outcome async for outcome in looking.outcomes(RUN)]) == count
        await looking.aclose()
        await call(journal, 3, 3)
        await journal.close(ExecutionStatus.COMPLETED)
        await writing.aclose()

    asyncio.run(main())
    assert asyncio.run(looked_at(folder / "runs.db")) == [RUN]


CRASHED = """
import asyncio, os, sys
from tests.stores.sqlite_kit import call, request
from rh_agents.stores.sqlite import SqliteStore
async def main():
    journal = await SqliteStore(sys.argv[1]).open_run(request())
    for number in range(3):
        await call(journal, number, number)
    os._exit(0)
asyncio.run(main())
"""


@pytest.mark.parametrize("has_index", [True, False], ids=["as it was left", "copied without the index"])
def test_the_log_that_a_crash_left_is_read_and_left_where_it_is(folder: Path, has_index: bool) -> None:
    child = python(CRASHED, folder / "runs.db")
    assert child.communicate(timeout=60)[1] == ""
    assert (folder / "runs.db-wal").stat().st_size
    if not has_index:
        (folder / "runs.db-shm").unlink()
    before = contents(folder)
    assert asyncio.run(looked_at(folder / "runs.db")) == [RUN]
    assert contents(folder) == before
    assert (folder / "runs.db-shm").exists() == has_index


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_store_of_an_earlier_version_is_read_as_it_is(
    folder: Path, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with tarfile.open(GOLDEN / f"schema_{version}.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    before = contents(folder)
    assert {"ended", "killed", "asks"} <= set(asyncio.run(looked_at(folder / "runs.db")))
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["kept"], "there is no copy"
    assert sql(folder / "runs.db", "PRAGMA user_version") == [(version,)]


AS_NOBODY = """
import asyncio, os, sys
from tests.stores.test_looking import looked_at, record
record(sys.argv[2])  # so that everything is imported: the files of this library may be closed to others
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
print(asyncio.run(looked_at(sys.argv[1])))
"""


@pytest.mark.parametrize("is_crashed", [False, True], ids=["closed", "with a log"])
def test_what_may_not_be_written_can_be_looked_at(is_crashed: bool, tmp_path: Path) -> None:
    folder = Path(f"/tmp/rh_agents-looking-{os.getpid()}-{is_crashed}")  # where everybody may go
    folder.mkdir()
    try:
        if is_crashed:
            assert python(CRASHED, folder / "runs.db").communicate(timeout=60)[1] == ""
        else:
            record(folder / "runs.db")
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = contents(folder)
        child = python(AS_NOBODY, folder / "runs.db", tmp_path / "runs.db")
        assert child.communicate(timeout=60) == (f"['{RUN}']\n", "")
        assert contents(folder) == before
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(folder)


def make(path: Path, what: str) -> None:
    """Something that is no store."""
    if what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "of another program":
        sql(path, "CREATE TABLE a(b)")
    elif what == "log without a database":
        Path(f"{path}-wal").write_bytes(b"x" * 100)
    elif what == "emptied":
        path.touch()
        Path(f"{path}-wal").write_bytes(b"x" * 100)
    elif what != "missing":
        path.write_text({"empty": "", "text": "no database\n" * 100, "short": "x"}[what])


NO_DATABASE = "it is not an SQLite database, so no runs are recorded in it: name another file"
SAYS: dict[str, str | None] = {
    "missing": None,
    "empty": None,
    "text": NO_DATABASE,
    "short": NO_DATABASE,
    "directory": "it is a directory: name a file in it, such as .*runs.db/runs.db$",
    "pipe": "it is no regular file, so it cannot be a database: name another file",
    "of another program": "it is a database of another program: name another file",
    "log without a database": "the database is missing or empty, though there is a log beside it",
    "emptied": "the database is missing or empty, though there is a log beside it",
}
NOT_THERE = {
    "missing": "there is no such file, so no runs are recorded in it",
    "empty": "the file is empty, so no runs are recorded in it",
}


@pytest.mark.parametrize("is_read_only", [False, True], ids=["to write", "to look"])
@pytest.mark.parametrize("what", SAYS)
def test_what_is_no_store_is_refused_in_one_sentence_and_left_as_it_is(
    folder: Path, what: str, is_read_only: bool
) -> None:
    make(folder / "runs.db", what)
    before = contents(folder)
    says = SAYS[what] or (NOT_THERE[what] if is_read_only else None)

    async def main() -> None:
        store = open_store(folder / "runs.db", read_only=is_read_only)
        try:
            await store.runs()
        finally:
            await store.aclose()

    if says is None:
        asyncio.run(main())
        return
    with pytest.raises(StoreError, match=says) as raised:
        asyncio.run(main())
    assert "\n" not in str(raised.value)
    assert contents(folder) == before


def test_a_folder_that_is_a_file_is_named(folder: Path) -> None:
    (folder / "a").touch()
    with pytest.raises(StoreError, match=r"its directory cannot be made: .*/a is a file$"):
        asyncio.run(SqliteStore(folder / "a" / "b" / "runs.db").runs())


def test_nothing_can_be_changed_by_who_only_looks(folder: Path) -> None:
    record(folder / "runs.db")
    before = contents(folder)

    async def main() -> None:
        store = open_store(folder / "runs.db", read_only=True)
        for change in (
            store.open_run(request()),
            store.delete_run(RUN),
            fork(store, RUN, "copy"),
            store.collect_garbage(min_age=0),
            store.supersede(RUN, []),
        ):
            with pytest.raises(StoreError, match="opened to be looked at only"):
                await change
        await store.aclose()

    asyncio.run(main())
    assert contents(folder) == before
