"""Makes the pictures of docs/how-to/web.md: `python -m tests.surfaces.make_web_pictures`; it needs a Chromium.

The run that is shown is made in memory, by functions that only wait; numbers come from a fixed seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel

from rh_agents import ExecutionState, MemoryStore, agent, llm, parallel, report_usage, tool
from rh_agents.core.errors import RunAwaiting
from rh_agents.core.usage import Usage
from tests.services.chromium import Theme, find, open_page
from tests.surfaces.web_kit import served

FOLDER: Final = Path(__file__).parents[2] / "docs" / "how-to" / "web"
SIZE: Final = (1180, 760)
CHANCE: Final = random.Random(7)


class Decision(BaseModel):
    """What a person is asked for."""

    publish: bool
    section: Literal["news", "science", "opinion"]
    note: str | None = None


@tool(retry=3)
async def fetch(url: str) -> dict[str, str]:
    """A page, in most cases."""
    await asyncio.sleep(CHANCE.random() * 0.03)
    if CHANCE.random() < 0.08:
        raise ConnectionError(f"connection to {url} reset by peer after {CHANCE.randint(300, 399)} ms")
    return {"url": url, "title": f"About {url.rpartition('/')[2]}", "language": "en"}


@llm
async def summarize(title: str) -> str:
    """What a model would say."""
    await asyncio.sleep(CHANCE.random() * 0.06)
    report_usage(Usage(input_tokens=700 + CHANCE.randint(0, 500), output_tokens=110, requests=1, cost=0.0031))
    if CHANCE.random() < 0.03:
        raise ValueError(f"the answer has no field 'summary' (request req_{CHANCE.randint(1000, 9999)})")
    return f"{title}: three sentences."


@agent
async def survey(url: str) -> str:
    """One page, read and summed up."""
    page = await fetch(url)
    return await summarize(page["title"])


async def record(store: MemoryStore) -> None:
    """A run that has failures, and one that asks."""
    async with ExecutionState(store=store, run_id="survey-2026-11", tags=["nightly"]):
        for name, size in (("pages", 300), ("second look", 60)):
            async with parallel(max_workers=20, name=name) as group:
                group.map(survey, [f"https://site{number % 13}.example/{name[:3]}{number}" for number in range(size)])
                await group.gather()
    try:
        async with ExecutionState(store=store, run_id="report", tags=["weekly"]) as state:
            await state.ask("Publish the report of this week?", Decision)
    except RunAwaiting:
        pass


async def picture(path: str, address: str, view: str, name: str, theme: Theme) -> None:
    """One view as a file."""
    width, height = SIZE
    async with open_page(path, address, width=width, height=height, theme=theme) as (page, _):
        await page.goto(f"{address.partition('?')[0]}#{view}")
        await page.wait_for_selector("main [aria-busy]", state="detached")
        await page.wait_for_timeout(500)
        await page.screenshot(path=FOLDER / name)


async def main(path: str) -> None:
    """All pictures."""
    store = MemoryStore()
    await record(store)
    FOLDER.mkdir(exist_ok=True)
    views: tuple[tuple[str, str, Theme], ...] = (
        ("/run/survey-2026-11", "run.png", "light"),
        ("/run/survey-2026-11/calls?status=failed", "calls.png", "dark"),
        ("/run/report", "question.png", "light"),
    )
    for view, name, theme in views:
        async with served(store) as address:
            await picture(path, address, view, name, theme)


if __name__ == "__main__":
    found = find()
    if found is None:
        sys.exit("there is no Chromium on this machine")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        asyncio.run(main(found))
