"""What a call waits is no work: it is recorded with its outcome, so that people see where time went."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest

from rh_agents import ConcurrencyLimit, ExecutionState, Injected, MemoryStore, RetryPolicy, agent, parallel, tool
from rh_agents.core.ports import RecordedEvent
from rh_agents.core.ports.control import control_of
from rh_agents.core.ports.windows import calls_of_run
from rh_agents.testing import JumpingClock

RUN = "monday"


@tool(limits=[ConcurrencyLimit(1)])
async def one_at_a_time(number: int) -> int:
    await asyncio.sleep(10)
    return number


@tool(retry=RetryPolicy(max_attempts=3, initial_delay=20.0, multiplier=1.0, jitter=False))
async def fails_once(number: int) -> int:
    await asyncio.sleep(5)
    if len(attempts) < 1:
        attempts.append(number)
        raise ConnectionError("not now")
    return number


attempts: list[int] = []


@agent
async def asks(_: int, *, state: Annotated[ExecutionState, Injected]) -> str:
    await asyncio.sleep(7)
    return str(await state.ask("May I?"))


async def waits_of(store: MemoryStore) -> dict[str, tuple[float, float]]:
    """How long each call took, and waited."""
    calls = (await calls_of_run(store, RUN)).calls
    return {call.name: (round(call.seconds or 0.0, 3), round(call.waited, 3)) for call in calls}


def test_waiting_for_a_limit_is_no_work() -> None:
    store = MemoryStore()

    async def main() -> None:
        async with ExecutionState(store=store, run_id=RUN), parallel(3) as p:
            for number in range(3):
                p.add(one_at_a_time(number), name=f"{number}")
            await p.gather()

    JumpingClock().run(main())
    assert asyncio.run(waits_of(store)) == {"0": (10.0, 0.0), "1": (20.0, 10.0), "2": (30.0, 20.0)}


def test_waiting_for_the_next_attempt_is_no_work() -> None:
    store = MemoryStore()
    attempts.clear()

    async def main() -> None:
        async with ExecutionState(store=store, run_id=RUN):
            await fails_once(1)

    JumpingClock().run(main())
    assert asyncio.run(waits_of(store)) == {"fails_once": (30.0, 20.0)}


def test_while_a_person_answers_nothing_works_that_waits_for_it() -> None:
    store = MemoryStore()

    async def main() -> None:
        async with ExecutionState(store=store, run_id=RUN) as state:

            async def answer(_: Any) -> str:
                await asyncio.sleep(3600)
                return "yes"

            state.set_answerer(answer)
            await asks(1, state=state)

    JumpingClock().run(main())
    assert asyncio.run(waits_of(store)) == {"ask": (3600.0, 3600.0), "asks": (3607.0, 3600.0)}


def test_a_pause_is_no_work_of_a_call_that_it_stops() -> None:
    store = MemoryStore()

    @agent
    async def calls_two(_: int) -> int:
        await plain(1)
        return await plain(2)

    async def main() -> None:
        async with ExecutionState(store=store, run_id=RUN):
            control = control_of(store, RUN)

            async def pauses() -> None:
                await asyncio.sleep(3)
                await control.pause()
                await asyncio.sleep(100)
                await control.unpause()

            steering = asyncio.ensure_future(pauses())
            await calls_two(1)
            await steering

    JumpingClock().run(main())
    took, waited = asyncio.run(waits_of(store))["calls_two"]
    assert took - waited == pytest.approx(10.0, abs=0.01)
    assert waited > 90


@tool
async def plain(number: int) -> int:
    await asyncio.sleep(5)
    return number


def test_a_call_that_does_not_wait_says_nothing_of_it() -> None:
    async def main() -> list[RecordedEvent]:
        store = MemoryStore()
        async with ExecutionState(store=store, run_id=RUN):
            await plain(1)
        return [recorded async for recorded in store.events(RUN)]

    assert [recorded.event.waited for recorded in JumpingClock().run(main())] == [0.0, 0.0]
