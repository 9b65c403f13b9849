"""A process that makes many recorded calls, and prints what it grew by: `python -m ... growing FOLDER FIRST ALL`."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw

from rh_agents import ExecutionState, tool


@tool
async def fetch(number: int) -> int:
    return number


@tool(effect="external", on_unknown="retry")
async def wait_for_the_disk() -> None:
    """An external call begins only after all that was recorded before it is on disk: what waits in memory is gone."""


def _memory() -> tuple[int, int]:
    """How many blocks Python has allocated, and bytes of memory but for what SQLite keeps, which has its own bound."""
    gc.collect()
    status = Path("/proc/self/statm")
    pages = int(status.read_text().split()[1]) if status.exists() else 0
    return sys.getallocatedblocks(), pages * os.sysconf("SC_PAGESIZE") - apsw.memory_used()


async def _streamed(state: ExecutionState, numbers: range) -> None:
    async with state.parallel(max_workers=50, name="pages") as p:
        p.map(fetch, numbers)
        async for result in p.stream():
            assert result.ok


async def _awaited(numbers: range) -> None:
    for number in numbers:
        await fetch(number)


async def _in_tasks(numbers: range) -> None:
    for start in numbers[::50]:
        await asyncio.gather(*[fetch(number) for number in range(start, start + 50)])


async def _make_calls(state: ExecutionState, numbers: range) -> None:
    """In three ways, which remember different things."""
    third = len(numbers) // 150 * 50
    await _streamed(state, numbers[:third])
    await _awaited(numbers[third : 2 * third])
    await _in_tasks(numbers[2 * third : 3 * third])


def _spans(first: int, every: int) -> Iterator[range]:
    yield range(first)
    yield range(first, every)


async def main(folder: str, first: int, every: int) -> None:
    """Make `first` calls, and as many more as there are to be `every`; print the growth from then on."""
    seen = []
    async with ExecutionState(store=f"{folder}/runs.db", run_id="r", history_limit=0, durability="async") as state:
        for numbers in _spans(first, every):
            await _make_calls(state, numbers)
            await wait_for_the_disk()
            seen.append(_memory())
    (blocks, size), (more_blocks, larger) = seen
    sys.stdout.write(json.dumps({"blocks": more_blocks - blocks, "bytes": larger - size}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
