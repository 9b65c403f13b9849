"""What people write without a group, and the same with one: each runs `count` items, twenty at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from rh_agents import ExecutionEvent, ExecutionState, MemoryStore, parallel, tool

WIDTH = 20


async def work(number: int) -> int:
    """An item that lets go of the event loop once, as every call that waits for something does."""
    await asyncio.sleep(0)
    return number


work_as_tool = tool(name="work")(work)


async def pull_workers(count: int) -> None:
    """Twenty workers that pull from one iterator: the floor. One failure ends a worker, and nothing says which item."""
    items = iter(range(count))
    results: list[int] = []

    async def worker() -> None:
        for item in items:
            results.append(await work(item))  # noqa: PERF401 - the iterator is shared by all workers

    await asyncio.gather(*[worker() for _ in range(WIDTH)])


async def semaphore_tasks(count: int) -> None:
    """A task for each item, and a semaphore: what most people write."""
    semaphore = asyncio.Semaphore(WIDTH)

    async def one(item: int) -> int:
        async with semaphore:
            return await work(item)

    await asyncio.gather(*[one(item) for item in range(count)], return_exceptions=True)


async def group_add(count: int) -> None:
    """A group, each coroutine added by hand."""
    async with parallel(WIDTH) as p:
        for item in range(count):
            p.add(work(item))
        await p.gather()


async def group_map(count: int) -> None:
    """A group that pulls the items itself."""
    async with parallel(WIDTH) as p:
        p.map(work, range(count))
        await p.gather()


async def recorded_tool(count: int) -> None:
    """A decorated tool: each call with its key, its two events and its outcome recorded in memory."""
    async with ExecutionState(store=MemoryStore()) as state, state.parallel(WIDTH) as p:
        p.map(work_as_tool, range(count))
        await p.gather()


async def observed_tool(count: int) -> None:
    """The same, with a subscriber that counts the events."""
    seen = 0

    def count_event(event: ExecutionEvent) -> None:
        nonlocal seen
        seen += 1

    async with ExecutionState(store=MemoryStore()) as state:
        state.event_bus.subscribe(count_event)
        async with state.parallel(WIDTH) as p:
            p.map(work_as_tool, range(count))
            await p.gather()
    assert seen == 2 * count + 2


async def streamed_map(count: int) -> None:
    """A group whose results are streamed, so that none is kept."""
    async with parallel(WIDTH) as p:
        p.map(work, iter(range(count)))
        async for result in p.stream():
            assert result.ok


CASES: dict[str, Callable[[int], Awaitable[None]]] = {
    "pull-workers over an iterator": pull_workers,
    "tasks and a semaphore (= 1)": semaphore_tasks,
    "group, coroutines added": group_add,
    "group, `map` over a function": group_map,
    "recorded tool: key, events, outcome": recorded_tool,
    "recorded tool with a subscriber": observed_tool,
}
REFERENCE = "tasks and a semaphore (= 1)"
