"""For how long the event loop stands still at most while large results and arguments are recorded and replayed.

A busy machine makes any loop late, so not every pause counts. What does not is the time for which the loop's thread
could have run and got no processor (which Linux tells), and what is more than the processor time that this process used
meanwhile, in whichever thread: the loop was at work, or waited for a thread that held the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rh_agents import ExecutionEvent, ExecutionState, MemoryStore, Tool, open_store, parallel, tool
from rh_agents.core.ports import Store

_KINDS: dict[str, Callable[[int], Any]] = {
    "a text": lambda size: "x" * size,
    "bytes": lambda size: b"x" * size,
    "a list of integers": lambda size: list(range(size // 8)),
    "a list of texts": lambda size: [f"{number:01000}" for number in range(size // 1000)],
    "a list of objects": lambda size: [{"id": number, "text": "x" * 100} for number in range(size // 120)],
}


class Item(BaseModel):
    """An object of a type."""

    id: int
    text: str


_TYPES: dict[str, Any] = {
    "a text": str,
    "bytes": bytes,
    "a list of integers": list[int],
    "a list of texts": list[str],
    "a list of objects": list[Item],
}


def table(*, quick: bool) -> str:
    """Milliseconds; the value itself is there before the clock starts, and stays until it has stopped."""
    size = 10_000_000 if quick else 100_000_000
    lines = [
        f"\n## Event loop lag with results of {size // 1_000_000} MB\n",
        "The longest time for which nothing else could run.\n",
        "| | SQLite: written | replayed | memory store: written | replayed |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, make in _KINDS.items():
        lags = asyncio.run(_lags(make(size)))
        lines.append(f"| {name} | " + " | ".join(f"{lag * 1e3:.0f} ms" for lag in lags) + " |")
    lines += [
        f"\n## Event loop lag with arguments of {size // 1_000_000} MB\n",
        "The same while a call finds out who it is, with the memory store.\n",
        "| | a call: made | replayed | in a group: made | replayed |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, make in _KINDS.items():
        lags = asyncio.run(_lags_of_arguments(make(size)))
        lines.append(f"| {name} | " + " | ".join(f"{lag * 1e3:.0f} ms" for lag in lags) + " |")
    lines += [
        f"\n## Event loop lag with {size // 1_000_000} MB elsewhere\n",
        "The same with the input of a run (SQLite), a result that a replay validates, an input and a result that are",
        "validated by a type, and an argument of a function in a worker process. Objects of a type are 800,000",
        "instances for Python's garbage collector, which stops everything while it looks at them: with",
        "`gc.disable()` it is 30 ms.\n",
        "| | a run: begun | resumed | compared: SQLite | memory store | of a type: input | result | to a process |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, make in _KINDS.items():
        lags = asyncio.run(_lags_elsewhere(make(size), _TYPES[name]))
        lines.append(f"| {name} | " + " | ".join(f"{lag * 1e3:.0f} ms" for lag in lags) + " |")
    return "\n".join(lines) + "\n"


async def _lags_elsewhere(value: Any, kind: Any) -> list[float]:
    @tool
    async def produce() -> Any:
        return value

    @tool
    async def little() -> int:
        return 1

    found: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        stores: list[Store] = [open_store(str(Path(folder) / "runs.db")), MemoryStore()]
        for _ in ("begun", "resumed"):
            async with _measured(found), ExecutionState(store=stores[0], run_id="input", input=value):
                await little()
        for store in stores:
            await _execute(store, produce())
            async with _measured(found):
                kept = await _execute(store, produce(), replay_mode="validation")
            del kept
            await store.aclose()

    async def same(given: Any) -> Any:
        return given

    for options in ({"input_model": kind}, {"output_model": kind}):
        actor = Tool(name="same", handler=same, **options)
        async with _measured(found):
            kept = await ExecutionEvent(actor=actor)(value, None, ExecutionState())
        del kept
    await _count("x")  # a worker is there
    async with _measured(found):
        await _count(value)
    return found


@tool(engine="process")
def _count(value: Any) -> int:
    return len(value)


async def _lags_of_arguments(value: Any) -> list[float]:
    @tool
    async def take(value: Any) -> int:
        return 1

    async def in_a_group(call: Any) -> None:
        async with parallel() as p:
            p.add(call)
            await p.gather()

    found: list[float] = []
    for is_member in (False, True):
        store = MemoryStore()
        for _ in ("made", "replayed"):
            async with _measured(found):
                await _execute(store, in_a_group(take(value)) if is_member else take(value))
    return found


async def _lags(value: Any) -> list[float]:
    @tool
    async def produce() -> Any:
        return value

    found: list[float] = []
    kept: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        stores: list[Store] = [open_store(str(Path(folder) / "runs.db")), MemoryStore()]
        for store in stores:
            for _ in ("written", "replayed"):
                async with _measured(found):
                    kept.append(await _execute(store, produce()))  # kept, since to free a large value takes time too
            await store.aclose()
    return found


async def _execute(store: Store, call: Any, **options: Any) -> Any:
    async with ExecutionState(store=store, run_id="lag", history_limit=0, **options):
        return await call


@asynccontextmanager
async def _measured(found: list[float]) -> AsyncIterator[None]:
    """Add the greatest lag within the block."""
    gaps: list[float] = []
    watching = asyncio.create_task(_watch(gaps))
    await asyncio.sleep(0.01)
    gaps.clear()
    yield
    await asyncio.sleep(0.01)
    watching.cancel()
    found.append(max(gaps))


async def _watch(gaps: list[float]) -> None:
    before, used_before, starved_before = time.perf_counter(), time.process_time(), _starved()
    while True:
        await asyncio.sleep(0.001)
        now, used, starved = time.perf_counter(), time.process_time(), _starved()
        gaps.append(min(now - before - 0.001 - (starved - starved_before), used - used_before))
        before, used_before, starved_before = now, used, starved


def _starved() -> float:
    """The seconds for which this thread could have run and got no processor; 0 where the system does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) * 1e-9
    except OSError:
        return 0.0


if __name__ == "__main__":
    sys.stdout.write(table(quick=False))
