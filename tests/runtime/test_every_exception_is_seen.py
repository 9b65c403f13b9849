"""What goes wrong while something is being cancelled is told: in notes of the cancellation, and in the events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from rh_agents import ExecutionEvent, ExecutionState, ExecutionStatus, MemoryStore, ParallelExecutionManager, tool
from tests.properties.virtual import run_virtually

Enrol = Callable[[ParallelExecutionManager], Any]


async def fails_to_roll_back(number: int = 0) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        raise OSError("rollback failed")


@tool
async def work(number: int) -> None:
    await fails_to_roll_back()


@tool(timeout=30.0, retry=3)
async def careful_work(number: int) -> None:
    await fails_to_roll_back()


async def async_items() -> AsyncIterator[int]:
    try:
        yield 1
        await asyncio.sleep(60)
    finally:
        raise OSError("rollback failed")


def items() -> Iterator[int]:
    try:
        yield 1
        yield 2
    finally:
        raise OSError("rollback failed")


async def sleep(number: int) -> None:
    await asyncio.sleep(50)


MEMBERS: list[Enrol] = [
    lambda p: p.add(fails_to_roll_back()),
    lambda p: p.map(fails_to_roll_back, [1]),
    lambda p: p.add(work(1)),
    lambda p: p.add(careful_work(1)),
]
ITERABLES: list[Enrol] = [lambda p: p.map(sleep, async_items()), lambda p: p.map(sleep, items())]


async def cancelled(enrol: Enrol, events: list[ExecutionEvent[Any]], *, gathers: bool, store: bool) -> list[str]:
    """The notes of the cancellation of a task that has a group."""
    state = ExecutionState(store=MemoryStore() if store else None)
    state.event_bus.subscribe(events.append)

    async def flow() -> None:
        async with state, state.parallel(max_workers=1, name="g") as p:
            enrol(p)
            if gathers:
                await p.gather()

    task = asyncio.create_task(flow())
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    return getattr(raised.value, "__notes__", [])


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("gathers", [True, False])
@pytest.mark.parametrize("enrol", [*MEMBERS, *ITERABLES])
def test_an_error_in_a_cleanup_is_a_note_of_the_cancellation(enrol: Enrol, gathers: bool, store: bool) -> None:
    events: list[ExecutionEvent[Any]] = []
    (note,) = run_virtually(lambda: cancelled(enrol, events, gathers=gathers, store=store))
    assert "group 'g'" in note
    assert "OSError: rollback failed" in note
    told = [event.message for event in events if event.execution_status is ExecutionStatus.CANCELLED and event.message]
    assert enrol in ITERABLES or told == ["its cleanup failed: OSError: rollback failed"]
