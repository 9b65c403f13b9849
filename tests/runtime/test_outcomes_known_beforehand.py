"""A call knows whether the journal says what becomes of it, before it is made, and nothing is made for that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rh_agents import ExecutionState, MemoryStore, tool
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import RUN

made: list[object] = []


@tool
async def fetch(what: str) -> int:
    made.append(what)
    if what == "broken":
        raise ConnectionError("down")
    return len(what)


@pytest.fixture(autouse=True)
def _nothing_was_made() -> None:
    made.clear()


async def known(what: str) -> bool:
    call = fetch(what)
    found = await call.has_outcome()
    call.discard()
    return found


def execute(body: Callable[[], Awaitable[Any]], store: MemoryStore | None, **options: Any) -> Any:
    async def main() -> Any:
        async with ExecutionState(store=store, run_id=RUN, **options):
            return await body()

    return run_virtually(main)


def test_what_was_recorded_before_is_known_and_of_this_execution_nothing() -> None:
    store = MemoryStore()

    async def program() -> list[bool]:
        seen = []
        for what in ("a", "a", "b"):
            seen.append(await known(what))
            await fetch(what)
        return [*seen, await known("a"), await known("c")]

    assert execute(program, store) == [False] * 5
    assert execute(program, store) == [True, True, True, False, False], "the third equal call is another one"
    assert execute(program, None) == [False] * 5
    assert made == ["a", "a", "b"] * 2


def test_a_failure_is_known_as_long_as_it_is_not_tried_again() -> None:
    store = MemoryStore()

    async def program() -> bool:
        found = await known("broken")
        await fetch("broken").outcome()
        return found

    assert [execute(program, store, retry_failed=retry) for retry in (True, False, True, False)] == [
        False, True, False, True,
    ]  # fmt: skip
    assert len(made) == 2


def test_calls_of_another_task_are_counted() -> None:
    store = MemoryStore()

    async def program() -> list[bool]:
        seen = []
        await fetch("mine")
        for _ in range(3):
            seen.append(await known("a"))
            await asyncio.create_task(fetch_in_a_task())
        return [*seen, await known("a")]

    async def fetch_in_a_task() -> int:
        return await fetch("a")

    assert execute(program, store) == [False] * 4
    assert execute(program, store) == [True, True, True, False]


def test_a_large_input_is_looked_up_in_a_thread() -> None:
    store, large = MemoryStore(), "x" * 3_000_000

    async def program() -> bool:
        found = await known(large)
        await fetch(large)
        return found

    async def main() -> bool:
        async with ExecutionState(store=store, run_id=RUN):
            return await program()

    assert [asyncio.run(main()) for _ in range(2)] == [False, True]
    assert made == [large]
