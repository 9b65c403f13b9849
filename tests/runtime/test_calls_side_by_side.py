"""Calls in tasks of the program's own, when its run is stopped: `asyncio.gather` forgets all but the first."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from rh_agents import (
    Budget,
    BudgetExceeded,
    ExecutionState,
    RetryPolicy,
    RunAwaiting,
    RunStopped,
    agent,
    current,
    parallel,
    tool,
)
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import World


async def side_by_side(there: World, *chains: list[Any]) -> list[Any]:
    fetch = there.make_fetch()

    async def chain(pages: list[Any]) -> list[Any]:
        return [await fetch(page) for page in pages]

    found: list[Any] = await asyncio.gather(*(chain(pages) for pages in chains))
    return found


def stop_after(seconds: float, state: ExecutionState, grace: float) -> None:
    asyncio.get_running_loop().call_later(seconds, functools.partial(state.request_interrupt, grace=grace))


def test_what_is_under_way_beside_the_one_that_stops_has_its_grace() -> None:
    there = World()
    there.seconds = {"slow": 10.0}

    async def main() -> None:
        state = there.again()
        stop_after(0.5, state, grace=30.0)
        with pytest.raises(RunStopped):
            async with state:
                await side_by_side(there, ["a", "b"], ["slow", "c"])
        assert there.forget() == ["a", "slow"]
        async with there.again():
            assert await side_by_side(there, ["a", "b"], ["slow", "c"]) == [["a", "b"], ["slow", "c"]]
        assert sorted(there.forget()) == ["b", "c"]

    run_virtually(main)


def test_the_run_ends_as_soon_as_the_last_call_has_also_if_its_caller_had_ended_before() -> None:
    there = World()
    there.seconds = {"slow": 10.0}
    left: list[asyncio.Task[Any]] = []

    @agent
    async def leaves_a_task() -> None:
        left.append(asyncio.create_task(side_by_side(there, ["slow"])))

    async def main() -> None:
        state = there.again()
        stop_after(0.5, state, grace=30.0)
        with pytest.raises(RunStopped):
            async with state:
                await leaves_a_task()
                await asyncio.sleep(1.0)
                await side_by_side(there, ["a"])
        assert there.forget() == ["slow"]
        assert asyncio.get_running_loop().time() == 10.0
        assert await left[0] == [["slow"]]

    run_virtually(main)


def test_it_has_no_longer_than_that() -> None:
    there = World()
    there.seconds = {"slow": 10.0}

    async def main() -> None:
        state = there.again()
        stop_after(0.5, state, grace=2.0)
        with pytest.raises(RunStopped):
            async with state:
                await side_by_side(there, ["a", "b"], ["slow", "c"])
        assert asyncio.get_running_loop().time() == 2.5
        await asyncio.sleep(10)  # the task that was forgotten ends by itself

    run_virtually(main)


def test_whoever_waits_for_a_person_lets_the_others_go_on() -> None:
    there = World()
    fetch = there.make_fetch()

    async def main() -> None:
        async def chain() -> list[Any]:
            return [await fetch(page) for page in "abc"]

        state = there.again()
        with pytest.raises(RunAwaiting):
            async with state:
                await asyncio.gather(state.ask("Why?"), chain())
        assert there.calls == ["a", "b", "c"]

    run_virtually(main)


def test_a_cancellation_meanwhile_ends_it_and_leaves_the_run_to_be_gone_on_with() -> None:
    there = World()
    there.seconds = {"slow": 10.0}

    async def main() -> None:
        async def execute() -> None:
            state = there.again()
            stop_after(0.5, state, grace=30.0)
            async with state:
                await side_by_side(there, ["a", "b"], ["slow"])

        task = asyncio.ensure_future(execute())
        await asyncio.sleep(2)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert (await there.info()).owner is None
        await asyncio.sleep(10)

    run_virtually(main)


@pytest.mark.parametrize("where", ["alone", "in a group"])
def test_a_task_group_that_fails_in_an_agent_is_the_failure_of_that_agent(where: str) -> None:
    """Up to Python 3.12 it leaves a cancellation of its own behind, which was meant for nobody else."""
    there = World()
    there.down = ["b"]
    fetch = there.make_fetch()

    async def one(page: str) -> Any:
        return await fetch(page)

    @agent(retry=RetryPolicy(max_attempts=2, initial_delay=1))
    async def survey() -> None:
        async with asyncio.TaskGroup() as tasks:
            for page in "ab":
                tasks.create_task(one(page))

    @agent
    async def report() -> None:
        failures: list[BaseException] = []
        try:
            await survey()
        except ExceptionGroup as error:
            failures += error.exceptions
        if failures:
            raise LookupError(f"no report: {failures}")

    async def work() -> Any:
        with pytest.raises(LookupError, match="b is down"):
            if where == "alone":
                await report()
            else:
                async with parallel() as p:
                    p.add(report())
                    [result] = await p.gather()
                    result.unwrap()
        return await fetch("c")

    async def main() -> None:
        for _ in range(2):
            async with there.again(retry_failed=False):
                assert await work() == "c"
        assert there.calls == ["a", "b", "b", "c"], "the second attempt gets what the first one paid for"

    run_virtually(main)


@pytest.mark.lazy_tasks("up to 3.12, a task group that fails at once leaves its own cancellation behind")
def test_a_block_that_a_task_group_has_ended_has_left_its_group() -> None:
    there = World()
    there.down, there.seconds = ["b"], {"y": 0.2}
    fetch = there.make_fetch()

    async def one(page: str) -> Any:
        return await fetch(page)

    async def work() -> None:
        with pytest.raises(ExceptionGroup):
            async with parallel(max_workers=1) as p:
                p.map(fetch, ["x", "y", "z"])
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(one("b"))

    async def main() -> None:
        async with there.again():
            await work()
        assert there.forget() == ["x", "b"]
        async with there.again(retry_failed=False):
            await work()
        assert there.begun == [], "nothing that had not begun begins"

    run_virtually(main)


# -- task groups cancel what is beside the one that stops --------------------------------------------------------------


async def all_tasks(steps: list[Any]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for step in steps:
            tasks.create_task(step)


async def the_last_one_in_the_block(steps: list[Any]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for step in steps[:-1]:
            tasks.create_task(step)
        await asyncio.sleep(0.1)
        await steps[-1]


async def in_groups(steps: list[Any]) -> None:
    async def in_a_group(step: Any) -> None:
        async with parallel() as p:
            p.add(step)
            for result in await p.gather():
                result.unwrap()

    await all_tasks([in_a_group(step) for step in steps])


@pytest.mark.parametrize("how", [all_tasks, the_last_one_in_the_block, in_groups])
@pytest.mark.parametrize("why", ["interrupted", "a question", "the budget is spent"])
def test_what_is_under_way_in_a_task_group_comes_to_its_end_when_a_task_of_it_is_stopped(how: Any, why: str) -> None:
    there = World()
    there.seconds = {"slow": 10.0, "late": 2.0}
    fetch = there.make_fetch()

    @agent
    async def flow() -> None:
        async def stops() -> None:
            await fetch("late")
            if why == "a question":
                await current().run.ask("Go on?")
            await fetch("next")

        async def chain() -> None:
            await fetch("slow")
            await fetch("after")

        await how([chain(), stops()])

    async def main() -> None:
        state = there.again(budget=Budget(calls=5 if how is in_groups else 3) if "budget" in why else None)
        with pytest.raises({"a question": RunAwaiting, "interrupted": RunStopped}.get(why, BudgetExceeded)):
            async with state:
                if why == "interrupted":
                    stop_after(1.0, state, grace=30.0)
                await flow()
        called = there.forget()
        assert called == (["late", "slow", "after"] if why == "a question" else ["late", "slow"])
        async with there.again() as state:
            state.set_answerer(yes)
            await flow()
        assert not set(called) & set(there.forget())

    async def yes(question: object) -> bool:
        return True

    run_virtually(main)


def test_a_call_that_waits_for_the_one_that_was_stopped_holds_it_up_for_a_while_and_no_longer() -> None:
    there = World()

    @tool
    async def waits_for(event: asyncio.Event) -> None:
        await event.wait()

    async def main() -> None:
        event = asyncio.Event()

        async def stops() -> None:
            await asyncio.sleep(1.0)
            await current().run.ask("Go on?")
            event.set()

        with pytest.raises(RunAwaiting):
            async with there.again(), asyncio.TaskGroup() as tasks:
                tasks.create_task(waits_for(event).with_options(key="it").outcome())
                tasks.create_task(stops())
        assert asyncio.get_running_loop().time() == 31.0

    run_virtually(main)


def test_a_stop_in_the_block_of_a_group_does_not_wait_for_what_has_not_begun_there() -> None:
    there = World()

    async def main() -> None:
        with pytest.raises(RunAwaiting):
            async with there.again() as state, parallel(max_workers=1) as p:
                p.map(there.make_fetch(), range(10))
                await asyncio.sleep(0.5)
                await state.ask("Go on?")
        assert there.forget() == [0]

    run_virtually(main)
