"""Timers and events that outlast processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rh_agents import ExecutionState, ExecutionStatus, MemoryStore, RunAwaiting, parallel
from rh_agents.core.errors import CallTimeout, ControlRefused, InputError, StoreError, UsageError
from rh_agents.core.types import EventType, ReplayMode
from rh_agents.stores.sqlite import SqliteStore

RUN = "monday"


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


class World:
    """A store, a clock, and a run that is started again and again."""

    def __init__(self) -> None:
        self.time = Time()
        self.store = MemoryStore(clock=self.time)

    async def start(self, flow: Callable[[ExecutionState], Awaitable[Any]], **options: Any) -> Any:
        """Execute the run; what it returns, or the error of a run that waits."""
        state = ExecutionState(store=self.store, run_id=RUN, clock=self.time, **options)
        try:
            async with state:
                return await flow(state)
        except RunAwaiting as waiting:
            return waiting

    async def status(self) -> ExecutionStatus:
        info = await self.store.find_run(RUN)
        assert info is not None
        return info.status


def executing(main: Callable[[World], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(20):
            await main(World())

    asyncio.run(within())


def test_a_run_that_sleeps_is_suspended_and_goes_on_when_the_time_has_come() -> None:
    async def main(world: World) -> None:
        async def flow(state: ExecutionState) -> float:
            await state.sleep(3600, name="cool down")
            return world.time()

        waiting = await world.start(flow)
        assert isinstance(waiting, RunAwaiting)
        assert "cool down until 2001-09-09 02:46:40" in str(waiting)
        assert waiting.questions == ()
        assert await world.status() is ExecutionStatus.AWAITING
        world.time.now += 3598
        assert isinstance(await world.start(flow), RunAwaiting)
        world.time.now += 2
        assert await world.start(flow) == 1e9 + 3600
        assert await world.status() is ExecutionStatus.COMPLETED

    executing(main)


def test_the_deadline_is_that_of_the_first_time_whatever_the_program_says_later() -> None:
    async def main(world: World) -> None:
        seconds = [100.0]

        async def flow(state: ExecutionState) -> float:
            await state.sleep(seconds[0])
            await state.sleep_until(datetime.fromtimestamp(1e9 + 500, UTC))
            return world.time()

        await world.start(flow)
        seconds[0], world.time.now = 1e6, 1e9 + 100
        await world.start(flow)  # the first one is over, and recorded
        world.time.now = 1e9 + 500
        assert await world.start(flow) == 1e9 + 500

    executing(main)


def test_waits_are_told_apart_by_their_names_and_by_their_numbers() -> None:
    async def main(world: World) -> None:
        async def flow(state: ExecutionState) -> int:
            for _ in range(2):
                await state.sleep(10)
            await state.sleep(10, name="other")
            return 1

        starts = 0
        while not isinstance(await world.start(flow), int):
            starts += 1
            world.time.now += 10
        assert starts == 3
        world.time.now = 1e9
        assert await world.start(flow) == 1, "all of it is recorded"

    executing(main)


def test_a_brief_sleep_and_one_without_a_store_and_one_that_is_to_stay_wait_in_the_process() -> None:
    async def main(world: World) -> None:
        async def flow(state: ExecutionState) -> int:
            await state.sleep(0.01)
            return 1

        state = ExecutionState(store=world.store, run_id=RUN)
        async with state:
            assert await flow(state) == 1
        async with ExecutionState() as state:
            await state.sleep(1.01)
        async with ExecutionState(store=world.store, run_id="stays", wait=True) as state:
            await state.sleep(1.01)
        info = await world.store.find_run("stays")
        assert info is not None
        assert info.status is ExecutionStatus.COMPLETED

    executing(main)


async def wait_for_page(state: ExecutionState) -> Any:
    return await state.wait_for_event("page", int)


def test_a_signal_that_comes_before_the_wait_is_kept_and_each_is_delivered_once_in_its_order() -> None:
    async def main(world: World) -> None:
        async def flow(state: ExecutionState) -> list[int]:
            return [await state.wait_for_event("page", int) for _ in range(3)]

        assert isinstance(await world.start(flow), RunAwaiting)
        for value in (1, 2):
            await world.store.control(RUN).signal("page", value, author="ann")
        await world.store.control(RUN).signal("other", 99)
        assert isinstance(await world.start(flow), RunAwaiting)
        await world.store.control(RUN).signal("page", 3)
        assert await world.start(flow) == [1, 2, 3]
        open_ones = await world.store.control(RUN).requests(is_open=True)
        assert [each.arguments["event"] for each in open_ones] == ["other"]
        assert await world.start(flow) == [1, 2, 3]

    executing(main)


def test_a_signal_that_does_not_fit_is_refused_and_the_next_one_counts() -> None:
    async def main(world: World) -> None:
        await world.start(wait_for_page)
        for value in ("many", 7):
            await world.store.control(RUN).signal("page", value)
        assert await world.start(wait_for_page) == 7
        answers = [each.answer or {} for each in await world.store.control(RUN).requests()]
        assert "does not fit" in answers[0]["refused"]
        assert "delivered" in answers[1]["text"]

    executing(main)


def test_what_was_delivered_when_the_process_died_is_delivered_to_the_same_wait() -> None:
    async def main(world: World) -> None:
        await world.start(wait_for_page)
        for value in (1, 2):
            await world.store.control(RUN).signal("page", value)
        await world.start(wait_for_page)
        whole = [event.event async for event in world.store.events(RUN)]
        delivered = next(number for number, event in enumerate(whole) if event.event_type is EventType.CONTROL)
        left = world.store._runs[RUN]  # as a kill right after that entry would leave it
        del left.facts[delivered + 1 :]
        left.outcomes.clear()
        left.sequence_of.clear()
        for name, request in left.requests.items():
            left.requests[name] = type(request)(
                RUN, request.id, request.verb, request.arguments, None, "", request.asked_at
            )
        assert await world.start(wait_for_page) == 1

        async def second(state: ExecutionState) -> Any:
            return [await wait_for_page(state), await wait_for_page(state)]

        assert await world.start(second) == [1, 2]

    executing(main)


def test_a_wait_for_an_event_has_a_timeout_that_is_durable_and_a_failure_of_the_call() -> None:
    async def main(world: World) -> None:
        async def flow(state: ExecutionState) -> str:
            try:
                await state.wait_for_event("page", timeout=50)
            except CallTimeout as error:
                return str(error)
            return "in time"

        assert isinstance(await world.start(flow), RunAwaiting)
        world.time.now += 50
        assert await world.start(flow) == "there was no event 'page' within 50 s"
        assert "no event" in await world.start(flow, retry_failed=False)

    executing(main)


def test_a_run_that_stays_hears_of_a_signal() -> None:
    async def main(world: World) -> None:
        executed = asyncio.ensure_future(world.start(wait_for_page, wait=True))
        while await world.store.find_run(RUN) is None:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        await world.store.control(RUN).signal("page", 5)
        assert await executed == 5

    executing(main)


def test_only_runs_that_are_there_and_go_on_take_signals() -> None:
    async def main(world: World) -> None:
        with pytest.raises(StoreError):
            await world.store.control("unknown").signal("page")
        await world.start(wait_for_page)
        with pytest.raises(InputError):
            await world.store.control(RUN).signal("page", object())
        await world.store.control(RUN).signal("page", 1)
        await world.start(wait_for_page)
        with pytest.raises(ControlRefused, match="has ended"):
            await world.store.control(RUN).signal("page", 1)
        with pytest.raises(UsageError, match="no one to signal"):
            async with ExecutionState() as state:
                await wait_for_page(state)

    executing(main)


def test_members_of_a_group_wait_each_for_itself_and_the_others_go_on() -> None:
    async def main(world: World) -> None:
        done: list[int] = []

        async def flow(state: ExecutionState) -> int:
            async def member(number: int) -> int:
                if number % 2:
                    await state.sleep(100.0 * number, name=f"member {number}")
                done.append(number)
                return number

            async with parallel(name="members") as p:
                p.map(member, range(4))
                return sum(result.unwrap() for result in await p.gather())

        assert isinstance(await world.start(flow), RunAwaiting)
        assert sorted(done) == [0, 2]
        world.time.now += 100
        assert isinstance(await world.start(flow), RunAwaiting)
        world.time.now += 200
        assert await world.start(flow) == 6
        assert sorted(done) == [0, 1, 2, 3]

    executing(main)


def test_branches_that_wait_for_the_same_event_at_the_same_moment_get_a_signal_each(tmp_path: Path) -> None:
    """In a database, where delivering one takes a moment in which the other branch looks for signals as well."""

    async def main() -> None:
        store = SqliteStore(tmp_path / "runs.db")

        async def flow(state: ExecutionState) -> list[int]:
            async with parallel(name="pages") as p:
                for number in range(4):
                    p.add(state.wait_for_event("page", int), name=f"page {number}")
                return sorted([result.unwrap() for result in await p.gather()])

        async def start() -> list[int]:
            async with ExecutionState(store=store, run_id=RUN) as state:
                return await flow(state)

        with pytest.raises(RunAwaiting):
            await start()
        for value in range(4):
            await store.control(RUN).signal("page", value)
        assert await start() == [0, 1, 2, 3]
        await store.aclose()

    asyncio.run(main())


def test_a_validation_waits_for_nothing() -> None:
    async def main(world: World) -> None:
        async def flow(state: ExecutionState) -> int:
            await state.sleep(100)
            return int(await wait_for_page(state))

        await world.start(flow)
        world.time.now += 100
        await world.start(flow)
        await world.store.control(RUN).signal("page", 4)
        assert await world.start(flow) == 4
        world.time.now = 1e9
        assert await world.start(flow, replay_mode=ReplayMode.VALIDATION) == 4

    executing(main)
