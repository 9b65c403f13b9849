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


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("read_only", [False, True], ids=["migrated", "looked at"])
def test_a_migration_without_room_is_one_clear_error_and_goes_on_when_there_is_room(
    tmp_path: Path, version: int, read_only: bool
) -> None:
    path = tmp_path / "runs.db"
    with tarfile.open(GOLDEN / f"schema_{version}.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    expected = asyncio.run(content(path, read_only=True))
    before = path.read_bytes()
    for size in (1, 4096, 20_000, 40_000):
        with room_for(size), pytest.raises(StoreError) as raised:
            asyncio.run(content(path, read_only=read_only))
        said = str(raised.value)
        assert "runs.db: " in said
        assert re.search("rollback|not an error|SQLError|\\n", said) is None, said
        if read_only:
            assert size < 32_768 or "it can only be looked at in a copy, which could not be made in" in said
            assert path.read_bytes() == before
    assert asyncio.run(content(path)) == expected
