"""What the page counts of a run in which calls were made again: by a retry, or since an actor has a new version."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from rh_agents import MemoryStore, agent, open_store, parallel, run, tool
from rh_agents.core.ports import Store
from rh_agents.decorators import ActorFunction
from rh_agents.web.reading import Reading


def job(version: str, bad: int) -> ActorFunction[[int], int]:
    """A flow whose tool has this version, and fails for the first items."""

    @tool(version=version)
    async def work(number: int) -> int:
        if number < bad:
            raise ValueError(f"item {number} is bad")
        return number

    @agent
    async def flow(count: int) -> int:
        async with parallel(name="pages") as group:
            group.map(work, range(count))
            return len(await group.gather())

    return flow


async def page(reading: Reading, run_id: str = "monday") -> dict[str, Any]:
    update = await reading.page(run_id).now()
    return {name: json.loads(text) for name, text in update.sections.items()}


def numbers(found: dict[str, Any]) -> tuple[int, ...]:
    return tuple(found[name] for name in ("done", "failed", "earlier"))


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else open_store(tmp_path / "runs.db")


def test_a_failure_that_was_made_again_with_success_counts_no_more(store: Store) -> None:
    async def main() -> None:
        reading = Reading(store)
        await run(job("1", bad=2), 20, store=store, run_id="monday")
        assert (await page(reading))["totals"]["failed"] == 2
        await run(job("1", bad=0), 20, store=store, run_id="monday", resume_from="flow")
        found = await page(reading)
        assert (found["totals"]["failed"], found["kinds"]) == (0, [])
        (group,) = found["groups"]["groups"]
        assert (group["done"], group["failed"], group["running"]) == (20, 0, 0)

    asyncio.run(main())


def test_generations_are_kept_apart_after_a_new_version(store: Store) -> None:
    async def main() -> None:
        reading = Reading(store)
        await run(job("1", bad=2), 20, store=store, run_id="monday")
        await page(reading)
        await run(job("2", bad=1), 20, store=store, run_id="monday", resume_from="flow")
        for found in (await page(reading), await page(Reading(store))):
            assert found["problem"] is None
            (group,) = found["groups"]["groups"]
            assert numbers(group) == (19, 1, 20)
            of_work = next(each for each in found["actors"] if each["name"] == "work")
            assert (of_work["done"], of_work["failed"]) == (19, 1)
            assert found["totals"]["earlier"] == 20
            assert [each["count"] for each in found["kinds"]] == [1]
        (listed,) = (await reading.groups("monday"))["groups"]
        assert numbers(listed) == (19, 1, 20)

    asyncio.run(main())


def test_a_damaged_row_hides_no_numbers_and_it_is_said_that_versions_are_not_apart(tmp_path: Path) -> None:
    async def main() -> None:
        store = open_store(tmp_path / "runs.db")
        for version in ("1", "2"):
            await run(
                job(version, bad=1), 20, store=store, run_id="monday", resume_from="flow" if version > "1" else None
            )
        await store.aclose()
        with sqlite3.connect(tmp_path / "runs.db") as database:
            database.execute("UPDATE journal SET message = 'other' WHERE ok = 0")
        found = await page(Reading(open_store(tmp_path / "runs.db")))
        assert numbers(found["totals"])[2] == 0
        assert found["totals"]["done"] >= 38
        assert found["problem"].startswith("versions are not kept apart: ")

    asyncio.run(main())
