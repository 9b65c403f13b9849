"""A program that takes a stop for a failure: what it makes of that is no outcome, and the stop is not hidden by it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rh_agents import (
    Budget,
    BudgetExceeded,
    ExecutionState,
    ExecutionStatus,
    RetryPolicy,
    RunAwaiting,
    agent,
    current,
    parallel,
    tool,
)
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import RUN, World


@pytest.fixture
def world() -> World:
    return World()


async def swallow(fetch: Any, items: str) -> Any:
    given = []
    for item in items:
        try:
            given.append(await fetch(item))
        except BaseException:  # noqa: BLE001 - this is the mistake
            given.append(None)
    return given


async def gather(fetch: Any, items: str) -> Any:
    given = await asyncio.gather(*map(fetch, items), return_exceptions=True)
    return [each for each in given if not isinstance(each, BaseException)]


async def task_group(fetch: Any, items: str) -> Any:
    async def one(item: str) -> Any:
        return await fetch(item)

    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(one(item)) for item in items]
    return [each.result() for each in made]


async def translate(fetch: Any, items: str) -> Any:
    try:
        return [await fetch(item) for item in items]
    except BaseException as error:
        raise ValueError("no pages") from error


async def complain(fetch: Any, items: str) -> Any:
    given = await gather(fetch, items)
    if len(given) < len(items):
        raise ValueError("some pages are missing")
    return given


_in_a_task_group = pytest.param(
    task_group, marks=pytest.mark.lazy_tasks("a task group takes no further task when one has failed at once")
)
HOW = [swallow, gather, _in_a_task_group, translate, complain]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("where", ["alone", "in a group", "the run itself"])
def test_what_a_call_makes_of_a_stop_is_no_outcome(world: World, how: Any, where: str) -> None:
    fetch = world.make_fetch()

    @agent(retry=RetryPolicy(max_attempts=3, initial_delay=1))
    async def survey(items: str) -> Any:
        return await how(fetch, items)

    async def work() -> Any:
        if where == "the run itself":
            return await how(fetch, "abc")
        if where == "alone":
            return await survey("abc")
        async with parallel(name="pages") as p:
            p.add(survey("abc"))
            p.add(fetch("z"))
            return (await p.gather())[0].unwrap()

    async def main() -> None:
        with pytest.raises(BudgetExceeded):
            async with world.again(budget=Budget(calls=2 if where == "the run itself" else 3)):
                await work()
        assert (await world.info()).status is ExecutionStatus.STARTED
        first = world.forget()
        async with world.again(budget=Budget(calls=30)):
            assert await work() == ["a", "b", "c"]
        if how is not task_group:  # which cancels the others
            assert len(first + world.calls) == len(set(first + world.calls))
        assert [value for value in await world.values() if isinstance(value, list)] in ([], [["a", "b", "c"]])

    run_virtually(main)


@pytest.mark.parametrize("how", HOW)
def test_a_call_that_hides_that_its_budget_is_spent_costs_its_siblings_nothing(world: World, how: Any) -> None:
    fetch = world.make_fetch()
    world.seconds = {"z": 9.0}
    calls = 1

    async def survey(items: str) -> Any:
        return await how(fetch, items)

    async def work() -> Any:
        async with parallel(name="pages") as p:
            p.add(agent(budget=Budget(calls=calls))(survey)("abc"))
            p.add(fetch("z"))
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        nonlocal calls
        with pytest.raises(BudgetExceeded):
            async with world.again():
                await work()
        assert world.forget()[-1] == "z"
        calls = 10
        async with world.again():
            assert await work() == [["a", "b", "c"], "z"]
        assert "z" not in world.calls

    run_virtually(main)


def test_nothing_is_done_upon_a_question_that_nobody_has_answered(world: World) -> None:
    @tool(effect="external", on_unknown="fail")
    async def send(mail: str) -> None:
        await world.do(mail)

    @agent
    async def survey() -> Any:
        state = current().run
        assert isinstance(state, ExecutionState)
        answers = await asyncio.gather(state.ask("Who?"), state.ask("When?"), return_exceptions=True)
        await send(f"to {answers[0]}")
        async with parallel(name="mails") as p:
            p.add(send(f"on {answers[1]}"))
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        for text in ("Who?", "When?"):
            with pytest.raises(RunAwaiting):
                async with world.again():
                    await survey()
            assert world.begun == []
            for question in await world.store.questions(RUN):
                if question.text == text:
                    await world.store.answer(RUN, question.id, json.dumps(text).encode(), None)
        async with world.again():
            await survey()
        assert world.calls == ["to Who?", "on When?"]

    run_virtually(main)


@pytest.mark.parametrize("how", [task_group, translate])
def test_a_block_that_makes_an_error_of_a_stop_has_not_left_its_group(world: World, how: Any) -> None:
    fetch = world.make_fetch()
    world.seconds = {"z": 9.0}

    async def work() -> Any:
        async with parallel(name="pages", max_workers=1) as p:
            p.add(fetch("z"))
            p.add(fetch("y"))
            first = await how(fetch, "abc")
            return first, [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        with pytest.raises(BudgetExceeded):
            async with world.again(budget=Budget(calls=3)):
                await work()
        assert world.forget()[-1] == "z", "what runs comes to its end"
        async with world.again(budget=Budget(calls=30)):
            assert await work() == (["a", "b", "c"], ["z", "y"])
        assert "z" not in world.calls

    run_virtually(main)
