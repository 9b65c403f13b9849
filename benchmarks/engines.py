"""What a call costs on an engine, beside Ray without us: `python -m benchmarks.engines` (needs the extra `ray`).

The function returns its argument, so all that is measured is the way there and back. Each round measures everything in
turn, with the same cluster on this machine; the figures are medians over the rounds, and the ratio is of two figures of
the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rh_agents import ExecutionState, parallel, tool

IN_FLIGHT = 100


def identity(number: int) -> int:
    """What is called."""
    return number


on_ray = tool(identity, engine="ray", name="identity")
in_a_process = tool(identity, engine="process", name="identity")


async def bare_ray(count: int) -> None:
    """Tasks, a semaphore, and Ray's own awaitables."""
    import ray  # noqa: PLC0415 - the module can be imported without it

    remote = ray.remote(identity)
    semaphore = asyncio.Semaphore(IN_FLIGHT)

    async def one(number: int) -> None:
        async with semaphore:
            assert await remote.remote(number) == number

    await asyncio.gather(*[one(number) for number in range(count)])


async def in_a_group(function: Any, count: int, executors: dict[str, Any], store: str | None) -> None:
    """The same in a group."""
    async with ExecutionState(executors=executors, store=store, run_id="bench"), parallel(IN_FLIGHT) as p:
        p.map(function, range(count))
        assert [result.unwrap() for result in await p.gather()] == list(range(count))


async def _rate(count: int, work: Callable[[], Awaitable[None]]) -> float:
    begun = time.perf_counter()
    await work()
    return count / (time.perf_counter() - begun)


async def measure(count: int, rounds: int) -> dict[str, list[float]]:
    """Calls a second of each kind, by round."""
    from rh_agents.executors.ray import RayExecutor  # noqa: PLC0415

    executors = {"ray": RayExecutor()}
    await in_a_group(on_ray, 200, executors, None)  # connects, and starts the workers
    await in_a_group(in_a_process, 200, {}, None)
    rates: dict[str, list[float]] = {}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            store = str(Path(folder) / "runs.db")
            kinds: dict[str, Callable[[], Awaitable[None]]] = {
                "Ray alone: tasks and a semaphore (= 1)": lambda: bare_ray(count),
                "a group on Ray": lambda: in_a_group(on_ray, count, executors, None),
                "the same, recorded in SQLite": lambda store=store: in_a_group(on_ray, count, executors, store),  # type: ignore[misc]
                "a group in worker processes": lambda: in_a_group(in_a_process, count, {}, None),
            }
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                rates.setdefault(kind, []).append(await _rate(count, kinds[kind]))
    return rates


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rates = asyncio.run(measure(options.count, options.rounds))
    base = next(iter(rates.values()))
    lines = [f"| {IN_FLIGHT} in flight | calls a second | ratio |", "|---|---:|---:|"]
    for kind in sorted(rates, key=lambda kind: rates[kind] is not base):
        ratio = statistics.median(ours / bare for ours, bare in zip(rates[kind], base, strict=True))
        lines.append(f"| {kind} | {statistics.median(rates[kind]):,.0f} | {ratio:.2f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
