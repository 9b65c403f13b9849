"""Tasks of an event loop that was given up are destroyed by Python, in whatever context, and without a word."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rh_agents import ExecutionState, MemoryStore, agent, parallel, run, tool
from rh_agents.core.types import ExecutionStatus
from rh_agents.llms import in_batches


@tool
async def stuck(number: int) -> int:
    """Never ends, and nobody waits for it: its event loop is stopped."""
    for _ in range(20):  # turns, until all others have begun
        await asyncio.sleep(0)
    asyncio.get_running_loop().stop()
    await asyncio.Event().wait()
    return number


@agent
async def one() -> int:
    return await stuck(1)


@agent
async def several() -> int:
    async with parallel() as p:
        p.map(stuck, range(3))
        return len(await p.gather())


@agent
async def streamed() -> None:
    async with parallel(max_workers=2) as p:
        p.map(stuck, range(3))
        async for _ in p.stream():
            pass


async def numbers() -> AsyncIterator[int]:
    try:
        for number in range(3):
            yield number
            await asyncio.sleep(0)
    finally:
        await asyncio.sleep(0)


@agent
async def pulled() -> int:
    async with parallel(max_workers=2) as p:
        p.map(stuck, numbers())
        return len(await p.gather())


@agent
async def nested() -> int:
    async with parallel(timeout=60) as p:
        p.add(several())
        p.add(one())
        return len(await p.gather())


def left_behind(work: Awaitable[Any]) -> None:
    """Begin something on an event loop that is given up in the middle of it."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(_awaited(work))
    loop.run_forever()
    loop.close()
    del task


async def _awaited(work: Awaitable[Any]) -> None:
    await work


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Python could not raise anywhere."""
    found: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda about: found.append(f"{about.exc_value!r} in {about.object!r}"))
    return found


@pytest.mark.parametrize("workflow", [one, several, streamed, pulled, nested])
@pytest.mark.parametrize("has_store", [False, True])
def test_what_a_loop_has_left_that_was_given_up_is_destroyed_without_a_word(
    workflow: Callable[[], Any], has_store: bool, said: list[str]
) -> None:
    options: dict[str, Any] = {"store": MemoryStore(), "run_id": "monday"} if has_store else {}
    left_behind(run(workflow, **options))
    gc.collect()
    assert said == []


_PROGRAM = """
import asyncio
from rh_agents import agent, run

@agent
async def one() -> int:
    return 1

loop = asyncio.new_event_loop()
task = loop.create_task(run(one, store="runs.db", run_id="monday"))
loop.call_soon(loop.stop)
loop.run_forever()
loop.close()
"""


def test_a_run_that_was_being_opened_by_a_loop_that_was_given_up_is_forgotten_without_a_word(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    said = [line for line in done.stderr.splitlines() if not line.lower().startswith("task")]
    assert (said, done.stdout) == ([], "")


def test_the_block_of_a_run_may_be_left_by_another_task_than_entered_it() -> None:
    async def main() -> None:
        store = MemoryStore()
        state = ExecutionState(store=store, run_id="monday")
        await asyncio.create_task(state.__aenter__())
        await asyncio.create_task(state.__aexit__(None, None, None))
        (info,) = await store.runs()
        assert info.status is ExecutionStatus.COMPLETED

    asyncio.run(main())


def test_a_block_in_which_requests_go_through_batches_is_left_without_a_word(said: list[str]) -> None:
    async def batched() -> None:
        with in_batches():
            await stuck(1)

    left_behind(batched())
    gc.collect()
    assert said == []
