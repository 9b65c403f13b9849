"""Runs whose owner gives no signs of life any more, though nobody can see that it is gone."""

from __future__ import annotations

import asyncio
import time

from rh_agents import open_store
from rh_agents.core.ports import RunRequest
from rh_agents.core.queueing import Submission, Wanted
from rh_agents.core.values import encode_any
from rh_agents.stores._store import SqlStore
from rh_agents.workers import Worker

__all__ = ["taken_over_after"]

CALLED: list[float] = []
FLOW = "tests.stress.gone_machine:flow"


async def flow() -> None:
    """What the runs do."""
    CALLED.append(time.monotonic())


def taken_over_after(url: str, *, runs: int, lease: float) -> float:
    """Seconds until a worker has begun all runs of an owner, from the owner's last sign of life on."""
    return asyncio.run(_taken_over_after(url, runs, lease))


async def _taken_over_after(url: str, runs: int, lease: float) -> float:
    CALLED.clear()
    gone, store = open_store(url), open_store(url)
    assert isinstance(gone, SqlStore)
    for number in range(runs):
        data, digest = encode_any({}), number.to_bytes(32, "big")
        await gone.submit(Submission(f"run{number}", "flow", FLOW, data, digest))
    journals = []
    while (info := await gone.claim_next(Wanted("default", [FLOW], "gone", lease))) is not None:
        journals.append(await gone.open_run(RunRequest(info.run_id, "gone")))
    assert len(journals) == runs
    worker = Worker(store, max_runs=runs, lease=lease)
    working = asyncio.ensure_future(worker.run())
    await asyncio.sleep(1.0)  # it watches leases that are renewed
    assert CALLED == []
    last_sign = time.monotonic()
    for number, fence in list(gone.engine.writer._held):
        gone.engine.writer.drop(number, fence)
    try:
        async with asyncio.timeout(30):
            while len(CALLED) < runs:  # noqa: ASYNC110 - what happens in a store sets no event here
                await asyncio.sleep(0.02)
        return max(CALLED) - last_sign
    finally:
        worker.stop(grace=1.0)
        await working
        await store.aclose()
        await gone.aclose()
