"""What tests of steering share: who asks, when, and what stands in the journal of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from rh_agents import EventType, MemoryStore
from rh_agents.core.plan import Fate, Planner
from rh_agents.core.ports.control import RunControl
from tests.runtime.worlds import RUN, World

__all__ = ["control", "controls", "later", "planned"]


def control(world: World) -> RunControl:
    """Steers the run of a world."""
    return world.store.control(RUN)


def later(seconds: float, *steps: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[list[Any]]:
    """Do these things so many seconds from now, one after the other; each waits as long again."""

    async def do() -> list[Any]:
        found = []
        for step in steps:
            await asyncio.sleep(seconds)
            found.append(await step())
        return found

    return asyncio.create_task(do())


async def controls(store: MemoryStore) -> list[dict[str, Any]]:
    """The audit trail of the run."""
    return [dict(e.event.control or {}) async for e in store.events(RUN) if e.event.event_type is EventType.CONTROL]


async def planned(store: MemoryStore) -> dict[str, Fate]:
    """What would become of the calls of the run at its next start, if failures were repeated."""
    info = await store.find_run(RUN)
    assert info is not None
    planner = Planner(info, retry_failed=False)
    async for outcome in store.unread_outcomes(RUN):
        planner.add_outcome(outcome.header)
    async for entry in store.events(RUN, values=False):
        planner.add(entry)
    return {call.address: call.fate for call in planner.plan().calls}
