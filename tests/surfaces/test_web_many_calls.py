"""A run of many calls in a browser: the page is small, and the table makes only the rows that are in sight."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from rh_agents import ExecutionState, open_store, parallel, tool
from rh_agents.core.ports import Store
from tests.services.chromium import Seen, chromium_path, open_page
from tests.surfaces.web_kit import served

__all__ = ["chromium_path"]

CALLS = 20_000
FAILED = CALLS // 100


@tool
async def work(number: int) -> int:
    if number % 100 == 7:
        raise ValueError(f"item {number} has no field 'x{number}'")
    return number * number


async def record(store: Store, count: int) -> None:
    async with ExecutionState(store=store, run_id="many", durability="exit"), parallel(name="items") as group:
        group.map(work, range(count))
        async for _ in group.stream():
            pass


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_page_of_twenty_thousand_calls_is_small_and_its_table_makes_only_what_is_in_sight(
    chromium_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    asyncio.run(record(open_store(tmp_path / "runs.db"), CALLS))

    async def main() -> None:
        store = open_store(tmp_path / "runs.db")
        before = resident()
        async with served(store) as address, open_page(chromium_path, address) as (page, seen):
            base = address.partition("?")[0]
            async with page.expect_response(lambda response: "/api/run?" in response.url) as loaded:
                await page.goto(f"{base}#/run/many")
            body = await (await loaded.value).body()
            assert len(body) <= 60_000
            await page.wait_for_selector(f"#part-numbers b:text-is('{CALLS:,}')", timeout=60_000)
            kinds = await page.inner_text("#part-failures")
            assert f"{FAILED}" in kinds
            assert "ValueError: item … has no field …" in kinds
            await page.goto(f"{base}#/run/many/calls")
            for _ in range(30):
                await page.wait_for_selector("a.grid-row", timeout=60_000)
                await page.evaluate("document.querySelector('.grid-body').scrollBy(0, 4000)")
                await page.wait_for_timeout(20)
            assert await page.evaluate("document.querySelectorAll('a.grid-row').length") <= 120
            await page.goto(f"{base}#/run/many/calls?status=failed&order=seconds&descending=1")
            await page.wait_for_selector("a.grid-row >> text=item", timeout=60_000)
            assert "failed" in await page.inner_text("a.grid-row")
            assert seen == Seen()
        await store.aclose()
        assert resident() - before <= 100_000_000

    asyncio.run(asyncio.wait_for(main(), 240))
