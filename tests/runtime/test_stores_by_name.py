"""A store may be given as such, by its URL or by its path, wherever one is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rh_agents import ExecutionState, fork, open_store, run, tool
from rh_agents.core.errors import OptionError, RunMismatchError, StoreError, UsageError
from rh_agents.testing import assert_no_paid_calls_on_resume

made: list[int] = []


@tool
async def double(n: int) -> int:
    made.append(n)
    return 2 * n


@pytest.fixture(autouse=True)
def nothing_made() -> None:
    made.clear()


@pytest.fixture(params=[str, lambda path: f"sqlite:///{path}", Path], ids=["path", "url", "Path"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return request.param(tmp_path / "runs.db")


async def ended(name: Any, **options: Any) -> ExecutionState:
    async with ExecutionState(store=name, run_id="r", **options) as state:
        assert await double(1) == 2
    return state


def test_a_run_takes_the_name_of_its_store_and_closes_what_it_opened(store: Any) -> None:
    async def main() -> None:
        await ended(store)
        state = await ended(store)
        assert made == [1]
        assert await run(lambda: double(1), store=store, run_id="r") == 2
        assert made == [1]
        with pytest.raises(StoreError, match="has been closed"):
            assert state.store is not None
            await state.store.runs()

    asyncio.run(main())


def test_a_run_that_could_not_be_opened_closes_its_store(store: Any) -> None:
    async def main() -> None:
        await ended(store, workflow="one")
        state = ExecutionState(store=store, run_id="r", workflow="another")
        with pytest.raises(RunMismatchError):
            await state.__aenter__()
        with pytest.raises(StoreError, match="has been closed"):
            assert state.store is not None
            await state.store.runs()

    asyncio.run(main())


def test_a_store_that_was_given_stays_open(tmp_path: Path) -> None:
    async def main() -> None:
        opened = open_store(tmp_path / "runs of today")  # a path may have any ending
        await ended(opened)
        await fork(opened, "r", "copy")
        assert len(await opened.runs()) == 2
        await opened.aclose()

    asyncio.run(main())


def test_fork_takes_the_name_of_a_store(store: Any) -> None:
    async def main() -> None:
        await ended(store)
        await fork(store, "r", "edited", address="double", result=7)
        async with ExecutionState(store=store, run_id="edited"):
            assert await double(1) == 7

    asyncio.run(main())


def test_fork_closes_what_it_opened(tmp_path: Path) -> None:
    """The last connection that is closed takes SQLite's log along."""
    path = tmp_path / "runs.db"
    asyncio.run(ended(path))
    asyncio.run(fork(path, "r", "copy"))
    assert path.exists()
    assert not Path(f"{path}-wal").exists()


def test_the_testing_kit_takes_the_name_of_a_store(store: Any) -> None:
    async def main() -> None:
        assert await assert_no_paid_calls_on_resume(lambda: double(4), store=store) == 8

    asyncio.run(main())


@pytest.mark.parametrize(
    "take",
    [
        lambda name: ExecutionState(store=name),
        lambda name: asyncio.run(fork(name, "a", "b")),
        lambda name: asyncio.run(run(double, 1, store=name)),
    ],
)
def test_a_name_that_is_no_store_is_refused(take: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="no store for"):
        take("runs.xlsx")


def test_a_run_has_the_store_that_the_environment_names_and_a_call_outside_of_runs_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_AGENTS_STORE", str(tmp_path / "named.db"))

    async def main() -> None:
        async with ExecutionState(run_id="r") as state:
            assert await double(1) == 2
            assert state.store is not None
        async with ExecutionState(store=None, run_id="r") as state:
            assert state.store is None
            assert await double(1) == 2
        async with ExecutionState(run_id="r"):
            assert await double(1) == 2
        assert await double(1) == 2

    asyncio.run(main())
    assert made == [1, 1, 1], "one recorded, one without a store, one outside of runs"


def test_none_in_the_environment_records_nothing_in_programs_as_in_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_AGENTS_STORE", "none")

    async def main() -> None:
        async with ExecutionState() as state:
            assert state.store is None
        assert await run(double, 1) == 2
        with pytest.raises(OptionError, match=r"run.submit needs a store: name one with store="):
            await run.submit(double, 1)

    asyncio.run(main())


def test_to_resume_from_a_call_of_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no run 'new' yet, so resume_from='double' names no call"):
        asyncio.run(run(lambda: double(1), store=tmp_path / "runs.db", run_id="new", resume_from="double"))
    with pytest.raises(OptionError, match=r"resume_from='double' names a recorded call, so it needs store="):
        asyncio.run(run(lambda: double(1), store=None, resume_from="double"))
    assert made == []
