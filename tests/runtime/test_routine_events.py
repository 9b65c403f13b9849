"""Subscribers that leave out what there is to tell of nearly every member of a group."""

from __future__ import annotations

from typing import Any

import detangle
import pytest

from rh_agents import ExecutionState, MemoryStore, RetryPolicy, parallel, tool
from rh_agents.core.context import report_usage, tell_progress
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.ports import Store
from rh_agents.core.usage import Usage

Seen = list[tuple[str, int | None]]
GROUP = [("group", None)]


@tool(retry=RetryPolicy(max_attempts=2, initial_delay=1.0))
async def step(number: int) -> int:
    """Item 1 fails, and item 2 uses something."""
    await tell_progress("a piece")
    if number == 1:
        raise ValueError("no")
    if number == 2:
        report_usage(Usage(requests=1))
    return number


def taker(seen: Seen) -> Any:
    """A subscriber that notes the status and the member of each event."""

    def take(event: ExecutionEvent[Any]) -> None:
        what = "group" if event.group is not None else event.execution_status.value
        seen.append((what, event.parallel_index))

    return take


async def job(store: Store | None, run_id: str, few: Seen, every: Seen | None = None) -> None:
    """A group of four, with a subscriber that leaves out routine events and perhaps one that does not."""
    state = ExecutionState(store=store, run_id=run_id, history_limit=0)
    state.event_bus.subscribe(taker(few), routine=False)
    if every is not None:
        state.event_bus.subscribe(taker(every))
    async with state, parallel(1) as p:
        p.map(step, range(4))
        assert [result.ok for result in await p.gather()] == [True, False, True, True]


SPECIAL = [*GROUP, ("retrying", 1), ("completed", 2), ("failed", 1), *GROUP]


@pytest.mark.parametrize("is_recorded", [False, True])
def test_what_is_special_about_a_member_is_told_and_nothing_else(is_recorded: bool) -> None:
    few: Seen = []
    detangle.run(lambda: job(MemoryStore() if is_recorded else None, "r", few))
    assert few == SPECIAL


def test_who_wants_all_events_gets_them_beside_who_does_not() -> None:
    few: Seen = []
    every: Seen = []
    detangle.run(lambda: job(None, "r", few, every))
    assert few == SPECIAL
    assert [each for each in every if each[1] == 0] == [("started", 0), ("progress", 0), ("completed", 0)]


def test_of_a_resumed_group_the_recovered_failures_are_told() -> None:
    few: Seen = []
    store = MemoryStore()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="crash"):
            async with ExecutionState(store=store, run_id="r", retry_failed=False) as state:
                async with state.parallel(1) as p:
                    p.map(step, range(4))
                    await p.gather()
                raise RuntimeError("crash")
        state = ExecutionState(store=store, run_id="r", retry_failed=False, history_limit=0)
        state.event_bus.subscribe(taker(few), routine=False)
        async with state, state.parallel(1) as p:
            p.map(step, range(4))
            assert [result.is_replayed for result in await p.gather()] == [True] * 4

    detangle.run(main)
    assert few == [*GROUP, ("recovered", 1), *GROUP]


def test_calls_outside_of_groups_are_told_and_only_what_they_say_meanwhile_is_left_out() -> None:
    few: Seen = []

    async def main() -> None:
        state = ExecutionState(history_limit=0)
        state.event_bus.subscribe(taker(few), routine=False)
        async with state:
            await step(0)

    detangle.run(main)
    assert few == [("started", None), ("completed", None)]
