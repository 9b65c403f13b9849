"""How many more calls several workers make than one: `python -m benchmarks.workers --store postgresql://…`.

Calls wait for 0.1 s, each run has ten of them at a time, and each worker executes one run after the other: so one
worker makes 100 calls a second at most. What is measured is the time from the first call to the last one, as the
called functions themselves note it. Figures are medians over the rounds, and the ratio is of two of the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rh_agents import ExecutionStatus, open_store, run

CALLS = 50
PROGRAM = """
import asyncio, os, time
from rh_agents import agent, parallel, tool

@tool
async def step(item: int) -> int:
    with open(os.environ["LEDGER"], "ab", buffering=0) as ledger:
        ledger.write(f"{time.time()}\\n".encode())
    await asyncio.sleep(0.1)
    return item

@agent
async def job(number: int, calls: int) -> int:
    async with parallel(max_workers=10, name="steps") as p:
        p.map(step, range(calls))
        return len(await p.gather())
"""


async def _submit(url: str, count: int) -> None:
    from jobs import job  # type: ignore[import-not-found]  # noqa: PLC0415 - it has just been written

    store = open_store(url)
    for number in range(count):
        await run.submit(job, number, CALLS, store=store, run_id=f"run{number}")
    await store.aclose()


async def _wait(url: str) -> None:
    store = open_store(url)
    while any(info.status is not ExecutionStatus.COMPLETED for info in await store.runs()):  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    await store.aclose()


def _calls_a_second(folder: Path, url: str, workers: int, runs: int) -> float:
    """With so many workers, which are waited for before there is anything to do."""
    ledger = folder / f"ledger-{time.monotonic_ns()}"
    environment = os.environ | {"LEDGER": str(ledger), "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    words = [sys.executable, "-m", "rh_agents", "worker", "--store", url]
    with (folder / "log").open("wb+") as log:
        processes = [subprocess.Popen(words, cwd=folder, env=environment, stderr=log) for _ in range(workers)]
        try:
            while (folder / "log").read_text().count("worker of queue") < workers:
                time.sleep(0.1)
            asyncio.run(_submit(url, runs))
            asyncio.run(_wait(url))
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
    times = sorted(map(float, ledger.read_text().split()))
    assert len(times) == runs * CALLS, "a call was made twice"
    return len(times) / (times[-1] + 0.1 - times[0])


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", default="", help="a PostgreSQL database; by default a file (schemas are left)")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=10, help="of 50 calls, for each worker")
    options = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], options.workers: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "jobs.py").write_text(PROGRAM)
        sys.path.insert(0, name)
        for number in range(options.rounds):
            for workers, found in rates.items():
                place = f"{number}_{workers}"
                url = f"{options.store}?schema=workers_{place}" if options.store else f"{folder}/{place}.db"
                found.append(_calls_a_second(folder, url, workers, workers * options.runs))
    for workers, found in rates.items():
        shown = ", ".join(f"{each:.0f}" for each in found)
        print(f"{workers} workers: {statistics.median(found):.0f} calls a second ({shown})")
    one, many = rates.values()
    print(f"ratio: {statistics.median([b / a for a, b in zip(one, many, strict=True)]):.2f}")


if __name__ == "__main__":
    main()
