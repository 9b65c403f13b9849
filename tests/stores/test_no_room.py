"""A disk without room: one clear error wherever it happens, nothing lost, and with room again things go on."""

from __future__ import annotations

import asyncio
import re
import resource
import signal
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rh_agents import open_store
from rh_agents.core.errors import StoreError
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores.sqlite import SqliteStore
from tests.stores.sqlite_kit import RUN, call, python, request
from tests.stores.test_looking import CRASHED

GOLDEN = Path(__file__).parents[1] / "stress" / "golden"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no such limits")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes meanwhile."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


async def content(path: Path, *, read_only: bool = False) -> list[object]:
    """All that is recorded, and what `check` says."""
    store = open_store(path, read_only=read_only)
    try:
        found: list[object] = []
        for run in await store.runs():
            found.append((run.run_id, run.status))
            found += [(each.sequence, each.event.execution_status) async for each in store.events(run.run_id)]
            found += [(each.key, repr(each.value)) async for each in store.outcomes(run.run_id, unknown_ok=True)]
        return [*found, await store.check()]
    finally:
        await store.aclose()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_migration_without_room_is_one_clear_error_and_goes_on_when_there_is_room(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "runs.db"
    with tarfile.open(GOLDEN / f"schema_{version}.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    expected = asyncio.run(content(path, read_only=True))
    for size in (1, 4096, 20_000, 40_000):
        with room_for(size), pytest.raises(StoreError) as raised:
            asyncio.run(content(path))
        said = str(raised.value)
        assert "runs.db: " in said
        assert re.search("rollback|not an error|SQLError|\\n", said) is None, said
        assert asyncio.run(content(path, read_only=True)) == expected
    assert asyncio.run(content(path)) == expected


def test_a_fork_without_room_for_its_temporary_file_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    async def main() -> None:
        store = SqliteStore(path)
        journal = await store.open_run(request())
        for number in range(300):
            await call(journal, number, "x" * 20_000)
        await journal.close(ExecutionStatus.STARTED)
        with (
            room_for(1_000_000),
            pytest.raises(StoreError, match=r"runs\.db: a copy of a run is made in a temporary file .* TMPDIR"),
        ):
            await store.fork_run(RUN, "copy", [], [])
        assert await store.find_run("copy") is None
        await store.fork_run(RUN, "copy", [], [])
        assert await store.check() == []
        await store.aclose()

    asyncio.run(main())


def test_a_copy_that_is_needed_to_look_at_a_log_and_has_no_room_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    assert python(CRASHED, path).communicate(timeout=60)[1] == ""
    Path(f"{path}-shm").unlink()
    with (
        room_for(1000),
        pytest.raises(StoreError, match=r"it can only be looked at in a copy, which could not be made in") as raised,
    ):
        asyncio.run(content(path, read_only=True))
    assert "\n" not in str(raised.value)
    assert len(asyncio.run(content(path, read_only=True))) > 5
