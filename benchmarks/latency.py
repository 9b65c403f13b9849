"""How soon the first result is there when there are 10,000 items."""

from __future__ import annotations

import asyncio
import statistics
import time

from rh_agents import parallel

_ITEMS = 10_000
_ROUNDS = 9
_SECONDS = 0.010


async def _work(number: int) -> int:
    await asyncio.sleep(_SECONDS)
    return number


async def _first_of_group() -> float:
    start = time.perf_counter()
    async with parallel(20) as p:
        p.map(_work, range(_ITEMS))
        async for _ in p.stream():
            break
        return time.perf_counter() - start


async def _first_of_tasks() -> float:
    start = time.perf_counter()
    semaphore = asyncio.Semaphore(20)

    async def one(item: int) -> int:
        async with semaphore:
            return await _work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in range(_ITEMS)]
    for first in asyncio.as_completed(tasks):
        await first
        break
    seconds = time.perf_counter() - start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return seconds


def table() -> str:
    """Milliseconds from the first line to the first result; the item itself takes ten of them."""
    ours, theirs = [], []
    for _ in range(_ROUNDS):
        ours.append(asyncio.run(_first_of_group()))
        theirs.append(asyncio.run(_first_of_tasks()))
    ratio = statistics.median([one / other for one, other in zip(ours, theirs, strict=True)])
    return "\n".join(
        [
            "\n## The first result of 10,000\n",
            "Each item takes 10 ms.\n",
            "| | first result after | ratio |",
            "|---|---:|---:|",
            f"| `as_completed` over tasks and a semaphore | {statistics.median(theirs) * 1e3:.1f} ms | 1 |",
            f"| group, `map` streamed | {statistics.median(ours) * 1e3:.1f} ms | {ratio:.2f} × |",
            "",
        ]
    )
