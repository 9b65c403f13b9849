"""The timeline of a run in a browser: parts of it, single calls, groups, and what it filters."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from playwright.async_api import Page

from rh_agents import ExecutionState, Injected, MemoryStore, agent, parallel, tool
from rh_agents.core.ports import Store
from rh_agents.testing import JumpingClock
from tests.services.chromium import Seen, chromium_path, open_page
from tests.surfaces.web_kit import served

__all__ = ["chromium_path"]

Clocked = Annotated[JumpingClock, Injected]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes are made in a folder of the test."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@tool
async def read(number: int, clock: Clocked) -> int:
    clock.advance(1)
    return number


@agent
async def survey(number: int, clock: Clocked) -> int:
    async with parallel(1, name="parts") as p:
        for part in range(2):
            p.add(read(10 * number + part, clock))
        return len(await p.gather())


async def recorded(store: Store, clock: JumpingClock) -> None:
    """Two executions, an hour apart, of a run with groups in groups."""
    for first in (0, 4):
        async with ExecutionState(store=store, run_id="monday", clock=clock), parallel(1, name="pages") as p:
            for number in range(first + 4):
                p.add(survey(number, clock))
            await p.gather()
        clock.advance(0 if first else 3600)


def looking(path: str, look: Callable[[Page, str], Awaitable[None]], **size: Any) -> None:
    """Open the page of that run; nothing may complain."""

    async def main() -> None:
        clock = JumpingClock()
        store = MemoryStore(clock=clock)
        await recorded(store, clock)
        async with served(store) as address, open_page(path, address, **size) as (page, seen):
            base = address.partition("?")[0]
            await page.goto(f"{base}#/run/monday")
            await page.wait_for_selector(".bar-of", timeout=60_000)
            await look(page, base)
            assert seen == Seen()

    asyncio.run(asyncio.wait_for(main(), 180))


def test_a_part_is_chosen_with_the_keyboard_stands_in_the_address_and_filters_the_table(chromium_path: str) -> None:
    async def look(page: Page, base: str) -> None:
        timeline = page.locator(".timeline > canvas")
        await timeline.focus()
        for key in ("+", "ArrowLeft", "+"):
            await timeline.press(key)
        await page.wait_for_url(re.compile(r"#/run/monday\?from=[\d.]+&until=[\d.]+$"))
        part = page.url.partition("?")[2]
        assert "to" in (await timeline.get_attribute("aria-valuetext") or "")
        await page.reload()
        await page.wait_for_selector(".timeline > canvas", timeout=60_000)
        await page.click("a[data-key='time-calls']")
        await page.wait_for_url(re.compile("/calls"))
        await page.wait_for_selector("main [aria-busy]", state="detached")
        assert part in page.url
        await page.wait_for_function(
            "() => document.querySelector('p.quiet[role=status]').textContent.includes('call')"
        )
        some = await page.locator("a.grid-row").count()
        await page.click("button[data-key='time-Show all']")
        await page.wait_for_function(f"() => document.querySelectorAll('a.grid-row').length > {some}")
        assert "from=" not in page.url

    looking(chromium_path, look)


def test_each_of_a_few_calls_is_a_bar_that_leads_to_it(chromium_path: str) -> None:
    async def look(page: Page, base: str) -> None:
        bars = page.locator("a.bar-of")
        assert await bars.count() == 24
        label = await bars.first.get_attribute("aria-label")
        assert label is not None
        assert "completed" in label
        await bars.first.focus()
        await page.keyboard.press("Enter")
        await page.wait_for_url(re.compile(r"/call/[0-9a-f]{64}$"))

    looking(chromium_path, look)


@pytest.mark.parametrize("width", [360, 2000])
def test_starts_and_groups_have_their_bands_and_lanes_and_fit_the_window(chromium_path: str, width: int) -> None:
    async def look(page: Page, base: str) -> None:
        said = await page.inner_text(".executions")
        assert "First start" in said
        assert "no process for 1 h" in said
        assert "Start 2" in said
        assert "in all" in await page.inner_text("#part-numbers")
        assert await page.locator(".lane").count() == 1
        await page.locator(".lane button").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_function("() => document.querySelectorAll('.lane').length === 2")
        assert "8 groups" in await page.inner_text(".lanes")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    looking(chromium_path, look, width=width)


def test_calls_are_chosen_from_one_number_to_another_and_the_address_keeps_it(chromium_path: str) -> None:
    async def look(page: Page, base: str) -> None:
        await page.goto(f"{base}#/run/monday/calls")
        await page.wait_for_selector("a.grid-row", timeout=60_000)
        await page.click("summary[data-key=ranges]")
        await page.fill("input[data-key=attempts_from]", "2")
        await page.press("input[data-key=attempts_from]", "Enter")
        await page.wait_for_url(re.compile(r"attempts_from=2"))
        await page.wait_for_selector("text=No call fits.")
        await page.fill("input[data-key=attempts_from]", "1")
        await page.press("input[data-key=attempts_from]", "Enter")
        await page.wait_for_function("() => document.querySelectorAll('a.grid-row').length === 24")
        href = await page.get_attribute("a[href*='calls.csv']", "href")
        assert href is not None
        assert "attempts_from=1" in href

    looking(chromium_path, look)
