"""Windows of a run that goes on while they are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

from rh_agents import ExecutionState, MemoryStore, tool
from rh_agents.core.ports import RecordedEvent, Store
from rh_agents.core.ports.windows import calls_of_run, failure_kinds
from rh_agents.core.results import UnreadOutcome


@tool
async def fetch(number: int) -> int:
    if number == 2:
        raise ValueError("no")
    return number


def test_a_window_shows_a_run_as_it_was_at_one_moment_though_calls_end_meanwhile() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with ExecutionState(store=store, run_id="monday"):
            await fetch(1)

            async def unread_outcomes(run_id: str) -> AsyncIterator[UnreadOutcome]:
                async for outcome in store.unread_outcomes(run_id):
                    yield outcome

            async def events(run_id: str, **options: Any) -> AsyncIterator[RecordedEvent]:
                await asyncio.gather(fetch(2), return_exceptions=True)
                async for recorded in store.events(run_id, **options):
                    yield recorded

            slow = cast("Store", SimpleNamespace(unread_outcomes=unread_outcomes, events=events))
            assert [call.status.value for call in (await calls_of_run(slow, "monday")).calls] == ["completed"]
            assert [kind.count for kind in await failure_kinds(store, "monday")] == [1]

    asyncio.run(main())
