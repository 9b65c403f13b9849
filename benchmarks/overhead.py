"""Processor time for each item, beside tasks with a semaphore."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable

from benchmarks.peers import CASES, REFERENCE

_ROUNDS = {1_000: 41, 10_000: 9, 100_000: 3}


def table(*, quick: bool) -> str:
    """A row for each way to run items, a column for each number of items."""
    rounds = {1_000: 11, 10_000: 3} if quick else _ROUNDS
    columns = {count: _measure(count, times) for count, times in rounds.items()}
    lines = [
        "\n## Time for each item\n",
        "Microseconds of processor time, and the ratio to tasks with a semaphore: the median over the rounds.\n",
        "| 20 at a time | " + " | ".join(f"{count:,} items" for count in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name in CASES:
        cells = []
        for measured in columns.values():
            ratios = [ours / peer for ours, peer in zip(measured[name], measured[REFERENCE], strict=True)]
            cells.append(f"{statistics.median(measured[name]) * 1e6:.1f} µs, {statistics.median(ratios):.2f} ×")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _measure(count: int, rounds: int) -> dict[str, list[float]]:
    """Seconds for each item: the cases in turn, again and again, so that all meet the same machine."""
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, case in CASES.items():
            seconds[name].append(_time(case, count) / count)
    return seconds


def _time(case: Callable[[int], Awaitable[None]], count: int) -> float:
    gc.collect()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        start = time.process_time()
        loop.run_until_complete(case(count))
        return time.process_time() - start
