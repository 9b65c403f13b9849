"""The files of a store: for their owner alone, never followed elsewhere, and missed at once when they are gone."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from rh_agents import open_store
from rh_agents.cli.output.results import open_output
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Store
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._files import directory_mode
from rh_agents.stores.artifacts import FileArtifacts
from rh_agents.stores.sqlite import SqliteStore
from tests.stores.sqlite_kit import RUN, call, request

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no permissions, and keeps open files in place")
LARGE = "x" * 100_000


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """The permissions of all that is in a folder; artifacts have the name `artifact`."""
    return {
        "artifact" if len(path.name) == 64 else path.name: oct(stat.S_IMODE(path.stat().st_mode))
        for path in folder.rglob("*")
        if len(path.name) != 2
    }


def use(store: Store, look: Callable[[], object] = lambda: None) -> None:
    """Record a large result."""

    async def main() -> None:
        try:
            journal = await store.open_run(request())
            await call(journal, 1, LARGE)
            look()
            await journal.close(ExecutionStatus.COMPLETED)
        finally:
            await store.aclose()

    asyncio.run(main())


# -- permissions -------------------------------------------------------------------------------------------------------


def test_what_is_made_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    found: dict[str, str] = {}
    use(SqliteStore(tmp_path / "new" / "runs.db"), lambda: found.update(modes(tmp_path)))
    files = ("runs.db", "runs.db-wal", "runs.db-shm", "artifact")
    assert found == {"new": "0o700", "runs.db-artifacts": "0o700", **dict.fromkeys(files, "0o600")}


def test_a_mode_in_the_url_lets_others_read(tmp_path: Path, umask: int) -> None:
    found: dict[str, str] = {}
    use(open_store(f"sqlite:///{tmp_path}/new/runs.db?mode=0640"), lambda: found.update(modes(tmp_path)))
    files = ("runs.db", "runs.db-wal", "runs.db-shm", "artifact")
    assert found == {"new": "0o750", "runs.db-artifacts": "0o750", **dict.fromkeys(files, "0o640")}


def test_a_file_that_is_there_keeps_its_mode_and_gives_it_to_what_stands_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.touch(0o600)
    path.chmod(0o664)
    found: dict[str, str] = {}
    use(SqliteStore(path), lambda: found.update(modes(tmp_path)))
    assert {found[name] for name in ("runs.db", "runs.db-wal", "runs.db-shm")} == {"0o664"}


def test_a_database_is_made_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs.db").symlink_to(tmp_path / "elsewhere" / "real.db")
    use(SqliteStore(tmp_path / "runs.db"))
    assert (tmp_path / "elsewhere" / "real.db").stat().st_size > 0


@pytest.mark.parametrize("mode", ["0888", "0440", "755", "rw", "", "-1", "0o10600"])
def test_a_mode_that_is_none_is_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ValueError, match="is not a mode of a data file: write for instance 0600 or 0640"):
        open_store(f"sqlite:///{tmp_path}/runs.db?mode={mode}")
    with pytest.raises(ValueError, match="0o755 is not a mode"):
        SqliteStore(tmp_path / "runs.db", file_mode=0o755)


@pytest.mark.parametrize(("file", "directory"), [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755), (0o660, 0o770)])
def test_who_may_read_a_file_may_enter_its_directory(file: int, directory: int) -> None:
    assert directory_mode(file) | 0o100 == directory


def test_output_files_are_for_their_owner_alone_and_keep_the_mode_that_they_have(tmp_path: Path, umask: int) -> None:
    new, old = tmp_path / "new.jsonl", tmp_path / "old.jsonl"
    old.touch()
    old.chmod(0o644)
    for path in (new, old):
        with open_output(str(path), force=True) as output:
            output.write_now(b"{}\n")
    assert modes(tmp_path) == {"new.jsonl": "0o600", "old.jsonl": "0o644"}


# -- what stands in the place of an artifact ---------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> tuple[FileArtifacts, str, Path]:
    artifacts = FileArtifacts(tmp_path / "artifacts")
    digest = artifacts.put(b"mine")
    return artifacts, digest, tmp_path / "artifacts" / digest[:2] / digest


def test_a_link_in_the_place_of_an_artifact_is_not_followed(place: tuple[FileArtifacts, str, Path]) -> None:
    artifacts, digest, path = place
    elsewhere = path.parent.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(StoreError, match="could not be read"):
        artifacts.get(digest)
    assert [each.size for each in artifacts.digests()] != [4]
    assert artifacts.put(b"mine") == digest
    assert not path.is_symlink(), "it is written in the place of the link"
    assert artifacts.get(digest) == b"mine"


def test_a_link_in_the_place_of_a_directory_of_artifacts_is_not_followed(
    place: tuple[FileArtifacts, str, Path],
) -> None:
    artifacts, digest, path = place
    elsewhere = path.parent.parent.parent / "elsewhere"
    path.parent.rename(elsewhere)
    path.parent.symlink_to(elsewhere)
    for attempt in (lambda: artifacts.get(digest), lambda: artifacts.put(b"mine")):
        with pytest.raises(StoreError, match="could not be"):
            attempt()
    assert list(artifacts.digests()) == []


def test_a_pipe_or_a_directory_in_the_place_of_an_artifact_keeps_nobody_waiting(
    place: tuple[FileArtifacts, str, Path],
) -> None:
    artifacts, digest, path = place
    for make in (os.mkfifo, os.mkdir):
        path.unlink()
        make(path)
        with pytest.raises(StoreError, match="it is no regular file"):
            artifacts.get(digest)


# -- files that are gone -----------------------------------------------------------------------------------------------


def delete(path: Path) -> None:
    path.unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def replace(path: Path) -> None:
    path.with_name("other.db").write_bytes(path.read_bytes())
    path.with_name("other.db").replace(path)


def delete_log(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def move_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize("harm", [delete, rename, replace, delete_log, move_directory])
def test_a_database_that_is_gone_is_missed_before_a_result_is_given(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "here" / "runs.db"

    async def main() -> None:
        store = SqliteStore(path)
        journal = await store.open_run(request())
        await call(journal, 1)
        harm(path)
        changes: list[Callable[[], Awaitable[object]]] = [
            lambda: call(journal, 2),
            lambda: journal.close(ExecutionStatus.COMPLETED),
            lambda: store.open_run(request(run_id="tuesday")),
            lambda: store.fork_run(RUN, "copy", [], []),
        ]
        with pytest.raises(StoreError, match=r"runs\.db: the database, or its log beside it, was (deleted|replaced)"):
            await changes[0]()
        await changes[1]()  # lets go of the run, which is what it can do
        if harm is not delete_log:  # then it goes on with a new one
            for change in changes[2:]:
                with pytest.raises(StoreError, match=r"was (deleted|replaced)"):
                    await change()
        await store.aclose()
        if harm not in (replace, delete_log):
            assert not path.exists(), "nobody makes an empty database in its place"

    asyncio.run(main())


def test_a_reader_that_connects_later_does_not_read_another_database_of_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    async def main() -> None:
        store = SqliteStore(path)
        journal = await store.open_run(request())
        await call(journal, 1)
        store.engine.readers.close()  # so that the next one connects anew
        replace(path)
        with pytest.raises(StoreError, match="was replaced"):
            await store.runs()
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("read_only", [False, True])
def test_who_looks_for_a_long_time_is_shown_no_file_that_is_there_no_more(tmp_path: Path, read_only: bool) -> None:
    path, other = tmp_path / "runs.db", tmp_path / "other.db"

    async def main() -> None:
        for file, name in ((path, RUN), (other, "another run")):
            made = SqliteStore(file)
            await (await made.open_run(request(run_id=name))).close(ExecutionStatus.COMPLETED)
            await made.aclose()
        store = SqliteStore(path, read_only=read_only)
        assert [info.run_id for info in await store.runs()] == [RUN]
        path.unlink()
        with pytest.raises(StoreError, match=r"runs\.db"):
            await store.runs()
        assert not path.exists(), "nobody makes an empty database in its place"
        other.rename(path)
        if read_only:
            assert [info.run_id for info in await store.runs()] == ["another run"]
        else:
            with pytest.raises(StoreError, match="was replaced while it was in use"):
                await store.runs()
        await store.aclose()

    asyncio.run(main())


def test_a_store_that_connects_anew_after_an_error_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "runs.db")
        journal = await store.open_run(request())
        await call(journal, 1)
        with pytest.raises(StoreError):
            await store.engine.writer.done(lambda session: session.renew([("x",)], 0.0))  # type: ignore[list-item]
        await call(journal, 2)
        await journal.close(ExecutionStatus.COMPLETED)
        await store.aclose()

    asyncio.run(main())
