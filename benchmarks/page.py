"""What `rh-agents web` takes for a long run: the page, windows of calls, memory, and how late viewers learn of a call.

The server is a process of its own, as it is in use; times are what a client measures, the median of a few requests.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from rh_agents import ExecutionState, open_store, parallel, tool

_CALLS = 100_000
_VIEWERS, _STALLED = 20, 2
_WINDOWS = {
    "calls in the order of the journal": {},
    "failed calls": {"status": "failed"},
    "calls in flight": {"status": "running"},
    "slowest calls": {"order": "seconds", "descending": "1"},
    "calls with a word in their address": {"text": "[4242]"},
}


@tool
async def work(number: int) -> int:
    """Fails for one item of a hundred."""
    if number % 100 == 7:
        raise ValueError(f"item {number} has no field 'x{number}'")
    return number * number


async def record(path: Path, count: int, run_id: str = "long") -> None:
    """A run of so many calls."""
    store = open_store(path)
    async with ExecutionState(store=store, run_id=run_id, durability="async"), parallel(max_workers=50) as group:
        group.map(work, range(count))
        async for _ in group.stream():
            pass
    await store.aclose()


@asynccontextmanager
async def started(store: Path | str) -> AsyncIterator[tuple[str, int]]:
    """A server: the address that it prints, which is good once, and its process id."""
    command = [sys.executable, "-m", "rh_agents", "web", "--store", str(store)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip(), process.pid
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def server(store: Path | str) -> AsyncIterator[tuple[httpx2.AsyncClient, int]]:
    """A client that has opened the page of a server, and the server's process id."""
    async with (
        started(store) as (address, process),
        httpx2.AsyncClient(base_url=address.partition("/?")[0], timeout=60) as client,
    ):
        await client.get(address)
        yield client, process


async def _timed(client: httpx2.AsyncClient, path: str, **params: str) -> tuple[float, int]:
    """Seconds until the whole answer was there, and its bytes."""
    began = time.perf_counter()
    answer = await client.get(path, params=params)
    answer.raise_for_status()
    return time.perf_counter() - began, len(answer.content)


async def _median(client: httpx2.AsyncClient, path: str, **params: str) -> float:
    return statistics.median([(await _timed(client, path, **params))[0] for _ in range(5)])


def resident_megabytes(process: int) -> float:
    """What a process has had in memory at most."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e3


async def measure_pages(path: Path) -> dict[str, str]:
    """The page of a long run and its windows."""
    async with server(path) as (client, process):
        cold, size = await _timed(client, "/api/run", run="long")
        began = time.perf_counter()
        while (await client.get("/api/run", params={"run": "long"})).json()["counting"] is not None:
            pass
        found = {
            "page, cold": f"{cold:.2f} s",
            "page, all counted": f"{cold + time.perf_counter() - began:.2f} s",
            "page, warm": f"{await _median(client, '/api/run', run='long') * 1e3:.0f} ms",
            "its data": f"{size / 1e3:.0f} KB",
        }
        for name, wanted in _WINDOWS.items():
            first, _ = await _timed(client, "/api/calls", run="long", **wanted)
            again = await _median(client, "/api/calls", run="long", **wanted)
            found[name] = f"{first * 1e3:.0f} ms first, {again * 1e3:.0f} ms again"
        if sys.platform == "linux":
            found["memory of the server"] = f"{resident_megabytes(process):.0f} MB"
        return found


async def measure_following(path: Path, calls: int) -> dict[str, str]:
    """How late viewers learn of what is recorded, while some of them read nothing."""
    async with server(path) as (client, _):
        store, run_id = open_store(path), f"followed-{time.time_ns()}"
        delays: list[float] = []
        recorded: dict[int, float] = {}
        async with ExecutionState(store=store, run_id=run_id):
            await work(0)
            stalled = [await opened_stream(client, run_id) for _ in range(_STALLED)]
            readers = [
                asyncio.create_task(_read(await opened_stream(client, run_id), recorded, delays))
                for _ in range(_VIEWERS - _STALLED)
            ]
            await asyncio.sleep(1)
            for number in range(calls):
                await work(number * 100 + 1)
                recorded[number + 2] = time.perf_counter()
                await asyncio.sleep(0.3)
            await asyncio.sleep(1)
        for reader in readers:
            reader.cancel()
        for response in stalled:
            await response.aclose()
        await store.aclose()
    p95 = sorted(delays)[int(0.95 * len(delays))]
    return {
        f"from a recorded call to {_VIEWERS} viewers of which {_STALLED} stall": (
            f"p50 {statistics.median(delays) * 1e3:.0f} ms, p95 {p95 * 1e3:.0f} ms"
        )
    }


async def opened_stream(client: httpx2.AsyncClient, run_id: str) -> httpx2.Response:
    """The updates of a run's page, of which nothing has been read yet."""
    request = client.build_request("GET", "/api/run/events", params={"run": run_id})
    return await client.send(request, stream=True)


async def _read(response: httpx2.Response, recorded: dict[int, float], delays: list[float]) -> None:
    seen = 0
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            outcomes = _outcomes(json.loads(line[6:]))
            now = time.perf_counter()
            delays += [now - recorded[each] for each in range(seen + 1, outcomes + 1) if each in recorded]
            seen = max(seen, outcomes)


def _outcomes(data: dict[str, Any]) -> int:
    return int(data.get("totals", {}).get("outcomes", 0))


async def _measure(path: Path, count: int) -> dict[str, str]:
    await record(path, count)
    return await measure_pages(path) | await measure_following(path, 40 if count == _CALLS else 10)


def table(*, quick: bool) -> str:
    """What a client measures."""
    count = _CALLS // 10 if quick else _CALLS
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.page", f"{folder}/runs.db", str(count)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    lines = ["\n## The page\n", f"`rh-agents web` over a run of {count:,} calls with {count // 100:,} failures.\n"]
    return "\n".join([*lines, "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in found.items())]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_measure(Path(sys.argv[1]), int(sys.argv[2])))))
