"""What looking at a run costs whoever executes it: twenty viewers, present state and summaries, beside nobody at all.

    python -m benchmarks.watched                       # an SQLite file
    python -m benchmarks.watched --store postgresql    # a server of its own on loopback
    python -m benchmarks.watched --browser-minutes 10  # and what a browser keeps in memory that shows the page

The writer is a process of its own that records calls as quickly as it can, each of which waits until it is on disk. It
is run in turn with a server whose page twenty viewers follow, two of which read nothing, and without; the figure is the
median of what the rounds cost it in processor time and in time. In both cases it resumes a run that is there, since
viewers need one, and a call of a resumed run costs more than one of a new run. Which of the two is first alternates,
since a machine that others use gets quicker or slower meanwhile. The write-ahead log of SQLite must stay bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2

from benchmarks.page import opened_stream, server, started, work
from rh_agents import ExecutionState, open_store, parallel

_VIEWERS, _STALLED = 20, 2
_ROUNDS = 6
"""An even number: each of the two is as often the first one."""
_CALLS = 20_000
_BROWSER_MINUTES = 10
_MOST_LOG = 64 << 20
"""Bytes of a write-ahead log: twice of what a store brings into its file at once by default."""


class Round(NamedTuple):
    """What recording cost the writer: seconds, seconds of its processor, and the largest log, in bytes."""

    seconds: float
    cpu: float
    log: int = 0


async def write(url: str, run_id: str, count: int) -> Round:
    """Record so many calls of one run."""
    store = open_store(url)
    began, cpu = time.perf_counter(), time.process_time()
    async with ExecutionState(store=store, run_id=run_id), parallel(max_workers=50) as group:
        group.map(work, range(count))
        async for _ in group.stream():
            pass
    await store.aclose()
    return Round(time.perf_counter() - began, time.process_time() - cpu)


async def _in_a_process(url: str, run_id: str, count: int, log: Path | None) -> Round:
    command = [sys.executable, "-m", "benchmarks.watched", "--writer", url, run_id, str(count)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    largest = 0
    assert process.stdout is not None
    reading = asyncio.create_task(process.stdout.read())
    while not reading.done():
        largest = max(largest, _size(log))
        await asyncio.wait([reading], timeout=0.05)
    if await process.wait():
        raise SystemExit("the writer has failed")
    return Round(*json.loads(await reading))._replace(log=largest)


def _size(log: Path | None) -> int:
    try:
        return 0 if log is None else log.stat().st_size
    except OSError:  # it is not there yet
        return 0


@asynccontextmanager
async def _viewers(client: httpx2.AsyncClient, run_id: str) -> AsyncIterator[list[int]]:
    """Those who follow the page of a run; how many updates each of those that read has got."""
    got = [0] * (_VIEWERS - _STALLED)

    async def read(place: int) -> None:
        response = await opened_stream(client, run_id)
        async for line in response.aiter_lines():
            got[place] += line.startswith("data: ")

    stalled = [await opened_stream(client, run_id) for _ in range(_STALLED)]
    tasks = [asyncio.create_task(read(place)) for place in range(len(got))]
    try:
        yield got
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for response in stalled:
            await response.aclose()


async def _alone(url: str, run_id: str, count: int) -> Round:
    """Nobody looks. The run is there all the same, with its first call."""
    await write(url, run_id, 1)
    return await _in_a_process(url, run_id, count, None)


async def _watched(url: str, run_id: str, count: int, log: Path | None) -> Round:
    """The same with viewers."""
    await write(url, run_id, 1)
    async with server(url) as (client, _), _viewers(client, run_id) as got:
        found = await _in_a_process(url, run_id, count, log)
        if not all(got):
            raise SystemExit(f"somebody saw nothing: {got}")
        return found


async def measure(url: str, log: Path | None, count: int, rounds: int) -> dict[str, str]:
    """The writer with and without viewers, in turn."""
    alone: list[Round] = []
    watched: list[Round] = []
    for number in range(rounds):
        if number % 2:
            watched.append(await _watched(url, f"watched-{number}", count, log))
        alone.append(await _alone(url, f"alone-{number}", count))
        if not number % 2:
            watched.append(await _watched(url, f"watched-{number}", count, log))
    time_ratio = statistics.median(one.seconds / other.seconds for one, other in zip(watched, alone, strict=True))
    cpu_ratio = statistics.median(one.cpu / other.cpu for one, other in zip(watched, alone, strict=True))
    rate = count / statistics.median(each.seconds for each in alone)
    found = {
        "calls that a writer records alone": f"{rate:,.0f} a second",
        f"its processor time with {_VIEWERS} viewers": f"{cpu_ratio - 1:+.1%}",
        f"its time with {_VIEWERS} viewers": f"{time_ratio - 1:+.1%}",
    }
    if log is not None:
        largest = max(each.log for each in watched)
        if largest > _MOST_LOG:
            raise SystemExit(f"the write-ahead log has grown to {largest / 1e6:.0f} MB while viewers looked")
        found["write-ahead log at most"] = f"{largest / 1e6:.0f} MB"
    return found


async def browser_memory(url: str, minutes: float) -> dict[str, str]:
    """The memory of a browser that shows a run which is being written: what its page keeps after a collection."""
    from tests.services.chromium import find, open_page  # noqa: PLC0415 - it needs a browser

    path = find()
    if path is None:
        return {"browser memory": "not measured: Chromium is not installed"}
    run_id = "in a browser"
    await write(url, run_id, 1)
    found: list[float] = []
    writing = asyncio.create_task(_keep_writing(url, run_id))
    try:
        async with started(url) as (address, _), open_page(path, address) as (page, _):
            await page.goto(f"{address.partition('?')[0]}#/run/{quote(run_id)}")
            session: Any = await page.context.new_cdp_session(page)
            await session.send("HeapProfiler.enable")
            ends_at = time.monotonic() + 60 * minutes
            while time.monotonic() < ends_at:
                await asyncio.sleep(10)
                await session.send("HeapProfiler.collectGarbage")
                found.append((await session.send("Runtime.getHeapUsage"))["usedSize"] / 1e6)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    third = max(1, len(found) // 3)
    first, last = statistics.median(found[:third]), statistics.median(found[-third:])
    return {
        f"memory of the page, over {minutes:g} minutes": f"{first:.1f} MB in the first third, {last:.1f} MB in the last"
    }


async def _keep_writing(url: str, run_id: str) -> None:
    """Calls, some at a time, until somebody ends it."""
    store = open_store(url)
    number = 0
    async with ExecutionState(store=store, run_id=run_id), parallel(max_workers=10) as group:
        while True:
            for _ in range(20):
                number += 1
                group.add(work(number), name=str(number))
            await asyncio.sleep(0.1)


@contextmanager
def _place(kind: str) -> Iterator[tuple[str, Path | None]]:
    """A database that is made for this: its URL, and its write-ahead log if it is one file."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            yield f"{folder}/runs.db", Path(folder) / "runs.db-wal"
            return
        from tests.services.postgresql import PostgresqlServer, find_binaries  # noqa: PLC0415 - it needs a server

        binaries = find_binaries()
        if binaries is None:
            raise SystemExit("PostgreSQL is not installed (Debian: apt install postgresql)")
        postgresql = PostgresqlServer(binaries, Path(folder))
        postgresql.create()
        try:
            yield postgresql.url(schema="watched"), None
        finally:
            postgresql.stop()


def table(*, quick: bool) -> str:
    """Both databases, as a table."""
    lines = ["\n## A run that is looked at\n", "", "| | SQLite |", "|---|---|"]
    with _place("sqlite") as (url, log):
        found = asyncio.run(measure(url, log, _CALLS // (10 if quick else 1), 1 if quick else _ROUNDS))
        found |= {} if quick else asyncio.run(browser_memory(url, _BROWSER_MINUTES))
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in found.items())]) + "\n"


def main() -> None:
    """Measure one database and print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watched", description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--calls", type=int, default=_CALLS)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--browser-minutes", type=float, default=0.0)
    parser.add_argument("--writer", nargs=3, metavar=("URL", "RUN", "CALLS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.writer:
        url, run_id, count = options.writer
        sys.stdout.write(json.dumps(asyncio.run(write(url, run_id, int(count)))))
        return
    with _place(options.store) as (url, log):
        found = asyncio.run(measure(url, log, options.calls, options.rounds)) if options.rounds else {}
        if options.browser_minutes:
            found |= asyncio.run(browser_memory(url, options.browser_minutes))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
