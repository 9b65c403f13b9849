"""Machines whose clocks differ take runs from one queue."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rh_agents.core.queueing import Submission, Wanted
from rh_agents.core.values import encode_any
from rh_agents.stores.sqlite import SqliteStore

FLOW = "shop:job"
WANTED = Wanted("default", [FLOW], "worker", 15.0)


@pytest.mark.parametrize(("not_before", "is_taken"), [(None, True), (1_002.0, False)])
def test_a_worker_whose_clock_is_behind_gets_what_waits_for_no_moment(
    not_before: float | None, is_taken: bool, tmp_path: Path
) -> None:
    async def main() -> Any:
        ahead = SqliteStore(tmp_path / "runs.db", clock=lambda: 1_005.0)
        behind = SqliteStore(tmp_path / "runs.db", clock=lambda: 1_000.0)
        data, digest = encode_any({}), bytes(32)
        await ahead.submit(Submission("run", "job", FLOW, data, digest, not_before=not_before))
        found = await behind.claim_next(WANTED)
        await ahead.aclose()
        await behind.aclose()
        return found

    assert (asyncio.run(main()) is not None) == is_taken


def test_runs_are_taken_in_the_order_in_which_they_were_submitted(tmp_path: Path) -> None:
    async def main() -> list[str]:
        now = 1_000.0
        store = SqliteStore(tmp_path / "runs.db", clock=lambda: now)
        for name in ("c", "a", "b"):
            now += 1.0
            data, digest = encode_any({}), bytes(32)
            await store.submit(Submission(name, "job", FLOW, data, digest))
        taken = [await store.claim_next(WANTED) for _ in range(3)]
        await store.aclose()
        return [each.run_id for each in taken if each is not None]

    assert asyncio.run(main()) == ["c", "a", "b"]
