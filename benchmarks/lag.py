"""For how long the event loop stands still at most while large results are recorded and replayed."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rh_agents import ExecutionState, MemoryStore, open_store, tool
from rh_agents.core.ports import Store

_KINDS: dict[str, Callable[[int], Any]] = {
    "a text": lambda size: "x" * size,
    "bytes": lambda size: b"x" * size,
    "a list of integers": lambda size: list(range(size // 8)),
    "a list of texts": lambda size: [f"{number:01000}" for number in range(size // 1000)],
    "a list of objects": lambda size: [{"id": number, "text": "x" * 100} for number in range(size // 120)],
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
    return "\n".join(lines) + "\n"


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


async def _execute(store: Store, call: Any) -> Any:
    async with ExecutionState(store=store, run_id="lag", history_limit=0):
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
    before = time.perf_counter()
    while True:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        gaps.append(now - before - 0.001)
        before = now


if __name__ == "__main__":
    sys.stdout.write(table(quick=False))
