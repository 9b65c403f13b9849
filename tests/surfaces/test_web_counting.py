"""The page of a very long run comes at once, with what has been counted so far, and the rest follows."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from rh_agents import MemoryStore
from rh_agents.core.ports import RunRequest
from rh_agents.core.ports.activity import Activity
from rh_agents.core.ports.summary import RunSummary
from rh_agents.testing import JumpingClock
from rh_agents.testing._records import completed, outcome
from rh_agents.web.reading import Reading

EVENTS = 200_000
SECONDS = 0.15
"""How long a part takes."""


class LongRun(MemoryStore):
    """A store that takes its time to count a run, which is in truth a short one."""

    async def summary(self, run_id: str, *, after: int = 0, until: int | None = None) -> RunSummary:
        await asyncio.sleep(SECONDS)
        return RunSummary(after, EVENTS if until is None else min(until, EVENTS))

    async def activity(self, run_id: str, *, after: int, until: int | None, width: float) -> Activity:
        return Activity(after, EVENTS if until is None else min(until, EVENTS), width)


async def sections(reading: Reading) -> dict[str, Any]:
    update = await reading.page("monday").now()
    return {name: json.loads(text) for name, text in update.sections.items()}


def test_a_long_run_is_shown_with_what_has_been_counted_so_far_until_all_is() -> None:
    async def main() -> None:
        store = LongRun()
        journal = await store.open_run(RunRequest("monday", "me"))
        given = outcome(1)
        journal.note(completed("monday", given), given)
        reading, clock = Reading(store), asyncio.get_running_loop().time
        began = clock()
        page = await sections(reading)
        assert clock() - began <= 3 * SECONDS, "it does not wait for all of it"
        assert page["counting"] == {"outcomes": 0, "of": 1}
        looks = 1
        while page["counting"] is not None:
            page, looks = await sections(reading), looks + 1
        assert 2 <= looks < EVENTS // 10_000
        assert (await sections(reading))["counting"] is None

    JumpingClock().run(main())


def test_who_follows_a_long_run_gets_the_rest_without_asking() -> None:
    async def main() -> None:
        store = LongRun()
        await store.open_run(RunRequest("monday", "me"))
        seen: list[Any] = []
        async for update in Reading(store).page("monday").updates(None):
            assert update is not None
            seen.append(json.loads(update.sections.get("counting", b"0")))
            if seen[-1] is None:
                break
        assert len(seen) >= 2
        assert seen[0] is not None

    JumpingClock().run(main())
