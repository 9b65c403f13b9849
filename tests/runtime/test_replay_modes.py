"""Ways to execute a recorded run again: to check it, to tell of it, from one place on, and with another input."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import pytest

from rh_agents import (
    CallCancelled,
    ExecutionEvent,
    ExecutionState,
    ExecutionStatus,
    GroupTimeout,
    Injected,
    MemoryStore,
    RetryPolicy,
    TooManyFailures,
    agent,
    current,
    parallel,
    run,
    tool,
)
from rh_agents.core.errors import RunAwaiting, RunMismatchError, RunStopped, StoreError, UsageError
from rh_agents.core.execution import Difference
from tests.doubles import HookedStore
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import RUN, Crash, World, crash


@pytest.fixture
def world() -> World:
    return World()


async def contents(world: World) -> list[Any]:
    """All that a store has of the run."""
    store = world.store
    return [
        await store.find_run(RUN),
        [entry async for entry in store.events(RUN)],
        [(outcome.key, outcome.value, repr(outcome.error)) async for outcome in store.outcomes(RUN)],
        await store.questions(RUN, is_open=False),
    ]


async def validate(world: World, work: Callable[[], Any]) -> list[str]:
    """The differences that a validation finds, as text. Nothing of the store may change."""
    before = await contents(world)
    state = world.again(replay_mode="validation")
    try:
        async with state:
            await work()
    finally:
        assert await contents(world) == before
    return [str(difference) for difference in state.differences]


# -- validation -------------------------------------------------------------------------------------------------------


def test_a_validation_makes_every_call_again_and_finds_nothing_if_nothing_has_changed(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["b"]

    @agent
    async def survey(pages: str) -> list[bool]:
        async with parallel(max_workers=2, name="pages") as p:
            p.map(fetch, list(pages))
            return [result.ok for result in await p.gather()]

    async def work() -> None:
        assert await survey("abc") == [True, False, True]
        await fetch("d")

    async def main() -> None:
        async with world.again():
            await work()
        assert world.forget() == ["a", "b", "c", "d"]
        assert await validate(world, work) == []
        assert world.forget() == ["a", "b", "c", "d"]
        async with world.again(replay_mode="validation") as state:
            await work()
        assert (state.differences, state.epoch) == ([], 0)

    run_virtually(main)


def test_a_validation_finds_what_is_changed_what_is_new_and_what_is_gone(world: World) -> None:
    results = {"same": 1, "changed": 1}

    @tool
    async def look(what: str) -> int:
        world.begun.append(what)
        return results.get(what, 0)

    async def main() -> None:
        async with world.again():
            for what in ("same", "changed", "gone"):
                await look(what)
        results["changed"] = 2
        before = await contents(world)
        async with world.again(replay_mode="validation") as state:
            assert await look("same") == 1
            assert await look("changed") == 1, "the recorded one counts, so that not everything after it differs too"
            assert await look("new") == 0
        assert await contents(world) == before
        assert [str(difference) for difference in state.differences] == [
            "look: recorded 1, now 2",
            "look: not recorded, now 0",
            "look: recorded 0, now not called",
        ]
        changed = state.differences[0]
        assert isinstance(changed, Difference)
        assert changed.recorded is not None
        assert changed.found is not None
        assert (changed.address, changed.recorded.value, changed.found.value) == ("look", 1, 2)

    run_virtually(main)


def test_a_validation_compares_failures_by_what_they_say(world: World) -> None:
    messages = {"a": "old", "b": "old", "c": None, "d": "old"}

    @tool
    async def look(what: str) -> str:
        message = messages[what]
        if message is not None:
            raise ConnectionError(message)
        return what

    async def work() -> None:
        for what in "abcd":
            await look(what).outcome()

    async def main() -> None:
        async with world.again():
            await work()
        messages.update(b="new", c="new", d=None)
        assert await validate(world, work) == [
            "look: recorded ConnectionError: old, now ConnectionError: new",
            "look: recorded 'c', now ConnectionError: new",
            "look: recorded ConnectionError: old, now 'd'",
        ]

    run_virtually(main)


def test_a_validation_finds_a_failed_call_that_is_gone(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["a"]

    async def work() -> None:
        await fetch("a").outcome()

    async def nothing() -> None:
        pass

    async def main() -> None:
        async with world.again():
            await work()
        assert await validate(world, nothing) == ["fetch: recorded ConnectionError: a is down, now not called"]

    run_virtually(main)


def test_a_validation_knows_failures_that_led_to_another_try(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["a"]

    async def work() -> None:
        await fetch("a").outcome()
        await fetch("b")

    async def main() -> None:
        async with world.again():
            await work()
        world.down.clear()
        async with world.again():
            await work()
        assert await validate(world, work) == []
        world.down = ["a"]
        assert await validate(world, work) == ["fetch: recorded 'a', now ConnectionError: a is down"]

    run_virtually(main)


def test_a_validation_repeats_the_attempts_of_a_call_and_of_an_agent(world: World) -> None:
    fetch = world.make_fetch(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=False))
    attempts = 0

    @agent(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=False))
    async def moody() -> str:
        nonlocal attempts
        attempts += 1
        page = await fetch("a")
        await fetch("b").outcome()
        if current().attempt == 1:
            raise ConnectionError("not yet")
        return str(page)

    world.down = ["b"]

    async def main() -> None:
        async with world.again():
            assert await moody() == "a"
        assert await validate(world, moody) == []
        assert attempts == 4

    run_virtually(main)


def test_a_validation_does_not_make_calls_with_an_external_effect(world: World) -> None:
    pay = world.make_fetch(effect="external", on_unknown="fail")

    async def work() -> None:
        assert await pay("a") == "a"

    async def main() -> None:
        async with world.again():
            await work()
        assert world.forget() == ["a"]
        assert await validate(world, work) == []
        assert world.begun == []

    run_virtually(main)


def test_a_validation_does_not_even_make_new_calls_with_an_external_effect(world: World) -> None:
    pay = world.make_fetch(effect="external", on_unknown="fail")

    async def work() -> None:
        await pay("a").outcome()
        await pay("new").outcome()

    async def main() -> None:
        async with world.again():
            await pay("a")
        world.forget()
        (difference,) = await validate(world, work)
        assert difference.startswith("fetch: not recorded")
        assert world.begun == []

    run_virtually(main)


def test_what_an_external_agent_called_is_not_gone_because_it_is_not_entered_again(world: World) -> None:
    fetch = world.make_fetch()

    @agent(effect="external", on_unknown="fail")
    async def publish() -> Any:
        return await fetch("a")

    async def main() -> None:
        async with world.again():
            await publish()
        assert await validate(world, publish) == []
        assert world.begun == ["a"]

    run_virtually(main)


def test_a_validation_asks_nobody_and_uses_the_recorded_answers(world: World) -> None:
    async def work() -> Any:
        state = current().run
        assert isinstance(state, ExecutionState)
        return await state.ask("Well?", bool)

    async def main() -> None:
        state = world.again()
        state.set_answerer(lambda question: asyncio.sleep(1, True))
        async with state:
            await work()
        assert await validate(world, work) == []

    run_virtually(main)


def test_a_validation_of_a_run_that_waits_for_an_answer_waits_there_too(world: World) -> None:
    fetch = world.make_fetch()

    async def work() -> Any:
        await fetch("a")
        state = current().run
        assert isinstance(state, ExecutionState)
        return await state.ask("Well?", bool)

    async def main() -> None:
        with pytest.raises(RunAwaiting):
            async with world.again():
                await work()
        with pytest.raises(RunAwaiting):
            await validate(world, work)

    run_virtually(main)


def test_a_result_that_no_store_can_keep_is_no_difference_when_it_comes_again(world: World) -> None:
    @tool
    async def connect() -> Any:
        return object()

    async def work() -> None:
        assert not (await connect().outcome()).ok

    async def main() -> None:
        async with world.again():
            await work()
        assert await validate(world, work) == []

    run_virtually(main)


def test_a_validation_gives_what_a_group_cut_off_the_same_end(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}
    world.down = ["b"]

    async def work() -> None:
        with pytest.raises(ConnectionError, match="b is down"):
            async with parallel(error_strategy="fail_fast") as p:
                p.map(fetch, ["slow", "a", "b"])
                await p.gather()

    async def main() -> None:
        async with world.again():
            await work()
        assert await validate(world, work) == []

    run_virtually(main)


def test_there_must_be_a_run_to_validate(world: World) -> None:
    async def main() -> None:
        with pytest.raises(StoreError, match="there is no run 'monday' to validate"):
            async with world.again(replay_mode="validation"):
                pass

    run_virtually(main)


# -- telling of it again ----------------------------------------------------------------------------------------------


def test_subscribers_get_all_recorded_events_first_and_then_those_of_now(world: World) -> None:
    fetch = world.make_fetch()
    told: list[ExecutionEvent[Any]] = []

    async def slow_subscriber(event: ExecutionEvent[Any]) -> None:
        await asyncio.sleep(0.1)
        told.append(event)

    async def main() -> None:
        async with world.again():
            await fetch("a")
        before = [entry.event async for entry in world.store.events(RUN)]
        state = world.again(replay_mode="republish_all")
        state.event_bus.subscribe(slow_subscriber)
        async with state:
            await fetch("a")
            await fetch("b")
        assert [event.model_copy(update={"is_replayed": False}) for event in told[:2]] == before
        assert [(event.execution_status.value, event.is_replayed) for event in told] == [
            ("started", True),
            ("completed", True),
            ("recovered", True),
            ("started", False),
            ("completed", False),
        ]
        assert world.calls == ["a", "b"]
        assert len([entry async for entry in world.store.events(RUN)]) == 4, "nothing is recorded twice"

    run_virtually(main)


def test_calls_side_by_side_wait_until_the_recorded_events_have_been_told(world: World) -> None:
    fetch = world.make_fetch()
    told: list[bool] = []

    async def slow_subscriber(event: ExecutionEvent[Any]) -> None:
        await asyncio.sleep(0.1)
        told.append(event.is_replayed)

    async def main() -> None:
        async with world.again():
            await fetch("a")
            await fetch("b")
        state = world.again(replay_mode="republish_all")
        state.event_bus.subscribe(slow_subscriber)

        async def group(name: str) -> None:
            async with state.parallel(name=name) as p:
                p.add(fetch(name))
                await p.gather()

        await asyncio.gather(group("x"), group("y"))
        await state.end()
        assert told == sorted(told, reverse=True)

    run_virtually(main)


# -- again from one place on ------------------------------------------------------------------------------------------


def test_a_call_is_made_again_with_the_calls_around_it_and_nothing_else(world: World) -> None:
    fetch = world.make_fetch()

    @agent
    async def chain(name: str) -> str:
        world.see(f"chain {name}")
        return str(await fetch(f"{name}1")) + str(await fetch(f"{name}2").with_options(key=f"{name}2"))

    @agent
    async def survey() -> list[str]:
        async with parallel(name="chains") as p:
            p.map(chain, list("ab"))
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        async with world.again():
            assert await survey() == ["a1a2", "b1b2"]
        world.forget()
        (second,) = [outcome async for outcome in world.store.outcomes(RUN) if outcome.value == "a2"]
        target = f"@{second.key.hex()[:10]}"
        for _ in range(2):
            async with world.again(resume_from=target):
                assert await survey() == ["a1a2", "b1b2"]
            assert sorted(world.forget()) == ["a2", "chain a"]
        async with world.again():
            assert await survey() == ["a1a2", "b1b2"]
        assert world.calls == []

    run_virtually(main)


def test_an_agent_is_made_again_with_all_that_it_calls(world: World) -> None:
    fetch = world.make_fetch()

    @agent
    async def chain(name: str) -> str:
        async with parallel(name="steps") as p:
            p.map(fetch, [f"{name}1", f"{name}2"])
            return "".join([result.unwrap() for result in await p.gather()])

    async def work() -> None:
        async with parallel(name="chains") as p:
            p.map(chain, list("ab"))
            await p.gather()
        await fetch("after")

    async def main() -> None:
        async with world.again():
            await work()
        world.forget()
        async with world.again(resume_from="chains[1]::chain"):
            await work()
        assert sorted(world.forget()) == ["b1", "b2"]

    run_virtually(main)


def test_a_member_whose_input_cannot_be_seen_is_made_again_if_it_came_later(world: World) -> None:
    fetch = world.make_fetch()

    async def step(what: str) -> Any:
        return await world.do(what)

    async def work() -> None:
        for name in ("one", "two", "three"):
            async with parallel(name=name) as p:
                p.add(lambda name=name: step(name), name=name)
                p.add(fetch(f"{name} seen"))
                await p.gather()

    async def main() -> None:
        async with world.again():
            await work()
        world.forget()
        async with world.again(resume_from="two[0]::two"):
            await work()
        assert world.forget() == ["two", "three"]

    run_virtually(main)


def test_a_crash_in_the_middle_of_going_back_goes_on_from_there(world: World) -> None:
    fetch = world.make_fetch()

    @agent
    async def chain() -> str:
        return "".join([await fetch(what) for what in "abc"])

    async def main() -> None:
        async with world.again():
            await chain()
        world.forget()
        with pytest.raises(Crash):
            async with world.again(resume_from="chain"):
                task = asyncio.ensure_future(chain().outcome())
                await asyncio.sleep(1.5)
                task.cancel()
                await asyncio.wait([task])
                raise Crash
        assert world.forget() == ["a"]
        async with world.again():
            assert await chain() == "abc"
        assert world.forget() == ["b", "c"]

    run_virtually(main)


def test_a_call_can_be_made_again_from_its_address_and_gives_its_new_result(world: World) -> None:
    results = ["old", "new"]

    @tool
    async def draw() -> str:
        return results.pop(0)

    async def main() -> None:
        async with world.again():
            assert await draw() == "old"
        async with world.again(resume_from="draw"):
            assert await draw() == "new"
        async with world.again() as state:
            assert await draw() == "new"
            assert await state.unused_outcomes() == []

    run_virtually(main)


def test_going_back_to_a_call_below_one_whose_result_is_no_data_makes_the_calls_around_both_again(
    world: World,
) -> None:
    results = ["old", "new"]

    @tool
    async def draw() -> str:
        return results.pop(0)

    class Client:
        def __init__(self, name: str) -> None:
            self.name = name

    @agent
    async def connect() -> Annotated[Client, Injected]:
        return Client(await draw())

    @agent
    async def survey() -> str:
        return (await connect()).name

    async def main() -> None:
        async with world.again():
            assert await survey() == "old"
        async with world.again(resume_from="survey::connect::draw"):
            assert await survey() == "new"

    run_virtually(main)


def test_a_question_can_be_asked_again(world: World) -> None:
    async def work() -> Any:
        state = current().run
        assert isinstance(state, ExecutionState)
        return await state.ask("Well?")

    async def main() -> None:
        answers = ["yes", "no"]
        for resume_from in (None, "ask"):
            state = world.again(resume_from=resume_from)
            state.set_answerer(lambda question: asyncio.sleep(1, answers.pop(0)))
            async with state:
                await work()
        async with world.again():
            assert await work() == "no"

    run_virtually(main)


def test_an_address_that_no_call_has_is_refused_with_the_nearest_one(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again(), parallel(name="pages") as p:
            p.map(fetch, list("ab"))
            await p.gather()
        before = await contents(world)
        with pytest.raises(UsageError, match=r"no finished call at 'page\[1\]::fetch'; did you mean 'pages\[1\]::fet"):
            async with world.again(resume_from="page[1]::fetch"):
                pass
        assert await contents(world) == before

    run_virtually(main)


def test_an_address_that_several_calls_have_is_refused_with_their_keys(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again():
            await fetch("a")
            await fetch("b")
        with pytest.raises(UsageError, match="has 2 calls at 'fetch': name one of them by its key: @"):
            async with world.again(resume_from="fetch"):
                pass
        first = await anext(world.store.outcomes(RUN))
        async with world.again(resume_from=f"@{first.key.hex()}"):
            await fetch("a")
            await fetch("b")
        assert world.calls == ["a", "b", "a"]

    run_virtually(main)


def test_going_back_makes_failed_calls_below_again_and_reuses_the_finished_ones_beside(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["b"]

    @agent
    async def survey() -> list[bool]:
        return [(await fetch(what).outcome()).ok for what in "abc"]

    async def main() -> None:
        async with world.again():
            assert await survey() == [True, False, True]
        world.down.clear()
        world.forget()
        outcomes = [outcome async for outcome in world.store.outcomes(RUN)]
        async with world.again(resume_from=f"@{outcomes[0].key.hex()}"):
            assert await survey() == [True, True, True]
        assert world.forget() == ["a", "b"]

    run_virtually(main)


# -- another input ----------------------------------------------------------------------------------------------------


def test_a_run_is_not_continued_with_another_input_or_another_workflow(world: World) -> None:
    fetch = world.make_fetch()

    async def survey(first: str, second: str = "b", *rest: str) -> list[Any]:
        return [await fetch(what) for what in (first, second, *rest)]

    async def other(first: str) -> None:
        await fetch(first)

    async def main() -> None:
        assert await run(survey, "a", store=world.store, run_id=RUN) == ["a", "b"]
        before = await contents(world)
        with pytest.raises(
            RunMismatchError, match=r"run 'monday' was started with the input .*\"a\".* this is .*\"x\""
        ):
            await run(survey, "x", store=world.store, run_id=RUN)
        with pytest.raises(RunMismatchError, match="was started with the workflow survey, and this is other"):
            await run(other, "a", store=world.store, run_id=RUN)
        assert await contents(world) == before
        assert world.forget() == ["a", "b"]
        assert await run(survey, first="a", second="b", store=world.store, run_id=RUN) == ["a", "b"]
        assert world.forget() == []
        assert await run(survey, "a", "c", store=world.store, run_id=RUN, reuse=True) == ["a", "c"]
        assert world.forget() == ["c"]
        with pytest.raises(RunMismatchError):
            await run(survey, "a", store=world.store, run_id=RUN)

    run_virtually(main)


def test_another_input_is_refused_after_a_crash_too(world: World) -> None:
    async def survey(first: str) -> None:
        raise Crash

    async def main() -> None:
        with pytest.raises(Crash):
            await run(survey, "a", store=world.store, run_id=RUN)
        with pytest.raises(RunMismatchError):
            await run(survey, "b", store=world.store, run_id=RUN)

    run_virtually(main)


class Client:
    """No data."""


def test_what_is_injected_is_no_part_of_the_input_of_a_run(world: World) -> None:
    fetch = world.make_fetch()

    async def survey(what: str, client: Annotated[Client, Injected]) -> Any:
        return await fetch(what)

    async def main() -> None:
        for workflow in (survey, agent(survey)):
            for _ in range(2):
                assert await run(workflow, "a", Client(), store=world.store, run_id=RUN) == "a"
            with pytest.raises(RunMismatchError):
                await run(workflow, "b", Client(), store=world.store, run_id=RUN)

    run_virtually(main)


def test_arguments_that_are_no_data_are_not_compared(world: World) -> None:
    fetch = world.make_fetch()

    async def survey(client: Client) -> Any:
        return await fetch("a")

    async def main() -> None:
        for _ in range(2):
            assert await run(survey, Client(), store=world.store, run_id=RUN) == "a"
        assert world.calls == ["a"]

    run_virtually(main)


def test_arguments_that_are_no_data_do_not_hide_that_another_one_differs(world: World) -> None:
    async def survey(what: str, client: Client) -> str:
        return what

    async def main() -> None:
        await run(survey, "a", Client(), store=world.store, run_id=RUN)
        with pytest.raises(RunMismatchError):
            await run(survey, "b", Client(), store=world.store, run_id=RUN)

    run_virtually(main)


def test_workflows_without_a_name_are_told_apart_by_their_arguments(world: World) -> None:
    async def main() -> None:
        async def value(number: int) -> int:
            return number

        assert await run(lambda: value(1), store=world.store, run_id=RUN) == 1
        assert await run(lambda: value(2), store=world.store, run_id=RUN) == 2
        assert await run(lambda number: value(number), 3, store=world.store, run_id="tuesday") == 3
        with pytest.raises(RunMismatchError):
            await run(lambda number: value(number), 4, store=world.store, run_id="tuesday")

    run_virtually(main)


# -- results that are no data -----------------------------------------------------------------------------------------


def test_a_call_whose_result_is_no_data_is_made_again_and_what_it_calls_is_not(world: World) -> None:
    fetch = world.make_fetch()
    made: list[Client] = []

    @agent
    async def connect(host: str) -> Annotated[Client, Injected]:
        await fetch(host)
        made.append(Client())
        return made[-1]

    async def work() -> None:
        assert await connect("a") is made[-1]
        async with parallel(name="clients") as p:
            p.map(connect, list("bc"))
            assert [result.unwrap() for result in await p.gather()] == made[-2:]

    async def main() -> None:
        await crash(world.again(), work)
        for executions in (2, 3):
            async with world.again() as state:
                await work()
                assert await state.unused_outcomes() == []
            assert len(made) == 3 * executions
        assert sorted(world.calls) == ["a", "b", "c"]
        assert sorted(await world.values()) == ["a", "b", "c"]

    run_virtually(main)


def test_a_stream_of_results_that_are_no_data_waits_for_none_that_cannot_come(world: World) -> None:
    @tool
    async def connect(host: str) -> Annotated[Client, Injected]:
        await world.do(host)
        return Client()

    async def main() -> None:
        for _ in range(2):
            async with world.again(), parallel(max_workers=2) as p:
                p.map(connect, list("ab"))
                p.add(world.make_fetch()("c"))
                assert len([result async for result in p.stream()]) == 3
        assert sorted(world.calls) == ["a", "a", "b", "b", "c"]

    run_virtually(main)


# -- what ended early -------------------------------------------------------------------------------------------------


async def ending_of(work: Callable[[], Any]) -> Any:
    """What the program came to: its value, or the class and the text of what it raised."""
    try:
        return await work()
    except Exception as error:  # noqa: BLE001 - what the program does is under test
        return type(error), str(error), sorted(getattr(error, "__notes__", []))


async def expect_the_same_ending(world: World, work: Callable[[], Any]) -> Any:
    """After a crash right after it, the program comes to the same, and nothing is called again."""
    endings: list[Any] = []

    async def see() -> None:
        endings.append(await ending_of(work))

    await crash(world.again(), see)
    world.forget()
    for _ in range(2):
        await crash(world.again(), see)
        assert world.begun == []
    assert endings[1:] == endings[:1] * 2
    return endings[0]


def test_a_group_that_was_cancelled_gives_the_same_results_again(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def work() -> list[tuple[int | None, Any]]:
        async with parallel(max_workers=3, name="pages") as p:
            p.map(fetch, ["a", "slow", "b", "slow", "never"])
            await asyncio.sleep(10)
            p.cancel()
            return [(result.index, result.result) for result in await p.gather()]

    async def main() -> None:
        assert await expect_the_same_ending(world, work) == [(0, "a"), (2, "b"), (4, "never")]

    run_virtually(main)


def test_a_stream_that_was_cancelled_gives_the_same_results_again(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def work() -> list[Any]:
        given = []
        async with parallel(max_workers=3, name="pages") as p:
            p.map(fetch, ["slow", "a", "slow"])
            async for result in p.stream():
                given.append((result.index, result.result))
                p.cancel()
        return given

    async def main() -> None:
        assert await expect_the_same_ending(world, work) == [(1, "a")]

    run_virtually(main)


def test_a_stream_that_was_left_early_gives_the_same_again(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100, "b": 2}

    async def work() -> Any:
        async with parallel(max_workers=3, name="pages") as p:
            p.map(fetch, ["slow", "a", "b"])
            async for result in p.stream():
                return result.unwrap()
        return "unreachable"

    async def main() -> None:
        assert await expect_the_same_ending(world, work) == "a"

    run_virtually(main)


def test_a_group_that_failed_fast_raises_its_original_failure_again(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}
    world.down = ["b"]

    async def work() -> None:
        async with parallel(max_workers=2, error_strategy="fail_fast", name="pages") as p:
            p.map(fetch, ["slow", "a", "b", "never"])
            await p.gather()

    async def main() -> None:
        kind, text, _ = await expect_the_same_ending(world, work)
        assert (kind, text) == (ConnectionError, "b is down")

    run_virtually(main)


def test_a_group_that_failed_fast_raises_its_original_failure_again_and_not_that_of_a_cleanup(world: World) -> None:
    @tool
    async def untidy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            raise ValueError("the cleanup failed too")

    fetch = world.make_fetch()
    world.down = ["b"]

    async def work() -> None:
        async with parallel(error_strategy="fail_fast", name="pages") as p:
            p.add(untidy())
            p.add(fetch("b"))
            await p.gather()

    async def main() -> None:
        kind, text, _ = await expect_the_same_ending(world, work)
        assert (kind, text) == (ConnectionError, "b is down")

    run_virtually(main)


def test_a_group_that_took_too_long_takes_too_long_again(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def work() -> None:
        async with parallel(max_workers=2, timeout=10, name="pages") as p:
            p.map(fetch, ["slow", "a", "b", "slow", "never"])
            await p.gather()

    async def main() -> None:
        kind, text, _ = await expect_the_same_ending(world, work)
        assert (kind, text) == (
            GroupTimeout,
            "group 'pages' took longer than its timeout of 10 s: 2 of 5 members had finished",
        )

    run_virtually(main)


def test_a_group_that_stopped_after_so_many_failures_stops_after_the_same_ones(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"x": 3, "y": 2, "z": 1, "slow": 100}
    world.down = ["x", "y", "z"]

    async def work() -> None:
        async with parallel(max_workers=9, fail_after=2, name="pages") as p:
            p.map(fetch, ["x", "y", "z", "slow"])
            await p.gather()

    async def main() -> None:
        kind, text, _ = await expect_the_same_ending(world, work)
        assert kind is TooManyFailures
        assert "y is down" in text

    run_virtually(main)


def test_a_share_of_failures_is_judged_in_the_recorded_order(world: World) -> None:
    """The failures came last, when enough had succeeded; in the order of enrolment they come first."""
    fetch = world.make_fetch()
    world.down = [f"bad {number}" for number in range(6)]
    world.seconds = dict.fromkeys(world.down, 2.0)

    async def work() -> int:
        async with parallel(max_workers=100, fail_after=0.5, name="pages") as p:
            p.map(fetch, [*world.down, *range(14)])
            return sum(result.ok for result in await p.gather())

    async def main() -> None:
        assert await expect_the_same_ending(world, work) == 14

    run_virtually(main)


def test_a_program_that_waited_for_the_rest_after_a_timeout_goes_on_the_same_way(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def work() -> Any:
        try:
            async with parallel(timeout=10, name="pages") as p:
                p.map(fetch, ["a", "slow"])
                await p.gather()
        except GroupTimeout as error:
            return [result.result for result in error.results], await fetch("fallback")
        return "no fallback"

    async def main() -> None:
        assert await expect_the_same_ending(world, work) == (["a"], "fallback")

    run_virtually(main)


@pytest.mark.parametrize("why", ["cancel", "fail fast", "timeout", "stream"])
def test_what_was_cut_off_is_made_again_when_a_run_that_has_ended_is_started_again(world: World, why: str) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}
    world.down = ["b"] if why == "fail fast" else []

    async def work() -> None:
        strategy = "fail_fast" if why == "fail fast" else "fail_slow"
        limit = 10 if why == "timeout" else None
        async with parallel(max_workers=9, error_strategy=strategy, timeout=limit, name="pages") as p:
            p.map(fetch, ["slow", "a", "b"])
            if why == "stream":
                async for _ in p.stream():
                    break
                return
            await asyncio.sleep(5)
            if why == "cancel":
                p.cancel()
            await p.gather()

    async def main() -> None:
        state = world.again()
        try:
            async with state:
                await work()
        except (ConnectionError, GroupTimeout):
            pass
        assert CallCancelled in await world.values()
        world.down.clear()
        world.seconds.clear()
        world.forget()
        async with world.again():
            await work()
        assert "a" not in world.begun
        if why != "stream":
            assert "slow" in world.calls

    run_virtually(main)


@pytest.mark.parametrize("limit", [None, 1000.0])
def test_a_group_that_one_of_its_members_cancelled_gives_the_same_results_again(
    world: World, limit: float | None
) -> None:
    """The member is not called again, so it cannot cancel the group again."""
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def work() -> list[Any]:
        async with parallel(max_workers=3, timeout=limit, name="search") as p:

            @tool
            async def search(what: str) -> str:
                value = await world.do(what)
                p.cancel()
                return str(value)

            p.add(fetch("slow"))
            p.add(search("found"))
            p.add(fetch("b"))
            return [result.result for result in await p.gather()]

    async def main() -> None:
        world.seconds["b"] = 2
        assert await expect_the_same_ending(world, work) == ["found"]

    run_virtually(main)


@pytest.mark.parametrize("limit", [None, 1000.0])
def test_a_group_that_another_task_cancels_is_cancelled_again(world: World, limit: float | None) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def work() -> list[Any]:
        async with parallel(timeout=limit, name="pages") as p:
            asyncio.get_running_loop().call_later(10, p.cancel)
            p.map(fetch, ["slow", "a"])
            return [result.result for result in await p.gather()]

    async def main() -> None:
        ending: list[Any] = []
        for _ in range(3):

            async def see() -> None:
                ending.append(await ending_of(work))

            await crash(world.again(), see)
        assert ending == [["a"]] * 3
        assert world.calls == ["a"]

    run_virtually(main)


def test_what_a_group_that_is_cancelled_again_counts(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}
    counts: list[tuple[int, int, int]] = []

    async def work() -> None:
        async with parallel(max_workers=3, name="pages") as p:
            p.map(fetch, ["slow", "a", "slow"])
            await asyncio.sleep(10)
            assert p.group.running in (0, 2)
            p.cancel()
            await p.gather()
        counts.append((p.group.completed, p.group.failed, p.group.cancelled))

    async def main() -> None:
        await crash(world.again(), work)
        await crash(world.again(), work)
        assert counts == [(1, 0, 2)] * 2

    run_virtually(main)


@pytest.mark.parametrize("limit", [None, 10.0])
@pytest.mark.parametrize("grace", [0.0, 30.0])
def test_a_run_can_be_stopped_while_a_recorded_member_waits_to_be_cancelled_again(
    world: World, limit: float | None, grace: float
) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}
    is_stopped = False

    async def work(state: ExecutionState) -> None:
        async with state.parallel(timeout=limit, name="pages") as p:
            p.map(fetch, ["slow", "a"])
            await asyncio.sleep(5)
            if is_stopped:
                state.request_interrupt("a deploy", grace=grace)
                p.add(fetch("another"))
            if limit is None:
                p.cancel()
            await p.gather()

    async def main() -> None:
        nonlocal is_stopped
        with pytest.raises(Crash):
            async with world.again() as state:
                await ending_of(lambda: work(state))
                raise Crash
        world.forget()
        is_stopped = True
        with pytest.raises(RunStopped):
            async with world.again() as state:
                await work(state)
        assert world.begun == []
        is_stopped = False
        with pytest.raises(Crash):
            async with world.again() as state:
                ending = await ending_of(lambda: work(state))
                assert ending is None or ending[0] is GroupTimeout
                raise Crash
        assert world.begun == []

    run_virtually(main)


def test_a_program_that_no_longer_cancels_its_group_calls_what_was_cut_off(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}
    world.down = ["b"]

    async def work(strategy: str) -> list[Any]:
        async with parallel(max_workers=3, error_strategy=strategy, name="pages") as p:
            p.map(fetch, ["slow", "a", "b"])
            return [result.result for result in await p.gather()]

    async def main() -> None:
        async def fast() -> None:
            with pytest.raises(ConnectionError):
                await work("fail_fast")

        async def slow() -> None:
            assert await work("fail_slow") == ["slow", "a", None]

        await crash(world.again(), fast)
        world.forget()
        await crash(world.again(), slow)
        assert world.forget() == ["slow"]
        await crash(world.again(), slow)
        assert world.forget() == []

    run_virtually(main)


def test_work_that_comes_after_a_failure_never_begins_and_is_refused_when_the_block_has_been_told(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["a"]

    async def work() -> list[str]:
        told: list[str] = []
        async with parallel(error_strategy="fail_fast", name="pages") as p:
            p.add(fetch("a"))
            await asyncio.sleep(5)
            p.add(fetch("b"))
            p.map(fetch, ["c", "d"])
            try:
                await p.gather()
            except ConnectionError as error:
                told.append(f"gather: {error}")
            try:
                p.add(fetch("e"))
            except ConnectionError as error:
                told.append(f"add: {error}")
        return told

    async def main() -> None:
        assert await expect_the_same_ending(world, work) == ["gather: a is down", "add: a is down"]
        assert world.calls == []

    run_virtually(main)


def test_a_stream_of_a_group_that_failed_fast_gives_the_same_before_it_raises(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100, "b": 2, "c": 3}
    world.down = ["b"]
    given: list[list[Any]] = []

    async def work() -> None:
        given.append([])
        async with parallel(max_workers=9, error_strategy="fail_fast", name="pages") as p:
            p.map(fetch, ["slow", "c", "b", "a"])
            async for result in p.stream():
                given[-1].append(result.result)

    async def main() -> None:
        kind, text, _ = await expect_the_same_ending(world, work)
        assert (kind, text) == (ConnectionError, "b is down")
        assert given == [["a", None]] * 3

    run_virtually(main)


def test_a_validation_takes_no_cut_off_call_for_one_that_its_group_cancelled(world: World) -> None:
    pay = world.make_fetch(effect="external", on_unknown="retry")

    async def work() -> list[bool]:
        async with parallel(name="payments") as p:
            p.map(pay, list("ab"))
            return [result.ok for result in await p.gather()]

    async def main() -> None:
        task = asyncio.ensure_future(_in_a_run(world, work))
        await asyncio.wait([task], timeout=0.5)
        task.cancel()
        await asyncio.wait([task])
        world.down = ["b"]
        async with world.again():
            assert await work() == [True, False]
        world.forget()

        async def compare() -> None:
            assert await work() == [True, False]

        assert await validate(world, compare) == []
        assert world.begun == []

    run_virtually(main)


async def _in_a_run(world: World, work: Callable[[], Any]) -> None:
    async with world.again():
        await work()


def test_replaying_a_group_that_failed_fast_begins_no_call_that_was_never_begun() -> None:
    """Its failure is known before anything else could be asked for, however long the store takes to find it."""
    world = World()

    class SlowStore(HookedStore):
        def _make_journal(self, run: Any, info: Any) -> Any:
            journal: Any = super()._make_journal(run, info)
            load = journal.load

            async def slow_load(key: bytes) -> Any:
                await asyncio.sleep(1)
                return await load(key)

            journal.load = slow_load
            if hasattr(journal, "load_nowait"):
                journal.load_nowait = lambda key: None
            return journal

    world.store = SlowStore()
    fetch = world.make_fetch()
    world.down = ["a"]

    async def work() -> None:
        async with parallel(max_workers=1, error_strategy="fail_fast", name="pages") as p:
            p.map(fetch, list("abc"))
            await p.gather()

    async def main() -> None:
        kind, text, _ = await expect_the_same_ending(world, work)
        assert (kind, text) == (ConnectionError, "a is down")

    run_virtually(main)


def test_the_status_of_a_run_that_is_started_again_after_its_end(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        for epoch in range(3):
            async with world.again() as state:
                assert state.epoch == epoch
                assert (await world.info()).status is ExecutionStatus.STARTED
                await fetch("a")
            info = await world.info()
            assert (info.status, info.epoch, info.owner) == (ExecutionStatus.COMPLETED, epoch, None)
        assert world.calls == ["a"]
        assert isinstance(world.store, MemoryStore)

    run_virtually(main)


def test_a_run_whose_recorded_events_could_not_be_told_is_free_for_the_next_one(world: World) -> None:
    fetch = world.make_fetch()

    class Unplugged(BaseException):
        pass

    async def main() -> None:
        async with world.again():
            await fetch("a")
        state = world.again(replay_mode="republish_all")

        async def publish(event: ExecutionEvent[Any]) -> None:
            raise Unplugged

        state.event_bus.publish = publish  # type: ignore[method-assign]
        with pytest.raises(Unplugged):
            async with state:
                pass
        async with world.again():
            assert await fetch("a") == "a"
        assert world.calls == ["a"]

    run_virtually(main)
