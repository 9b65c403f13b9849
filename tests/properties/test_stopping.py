"""A run that is stopped at any event, or that waits for answers in any order, comes to what it would have come to.

Nothing hangs and no task is left; every call that came to its end is recorded and made once; nothing is recorded of
what was cut off; and whoever starts the run again gets the result of a run that nobody disturbed.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rh_agents import (
    ExecutionState,
    ExecutionStatus,
    GroupTimeout,
    MemoryStore,
    RetryPolicy,
    RunAwaiting,
    RunStopped,
    agent,
    current,
    tool,
)
from rh_agents.core.errors import InputError
from rh_agents.core.events import Fact
from rh_agents.core.results import Outcome
from tests.properties.virtual import run_virtually, tasks_besides_this_one
from tests.runtime.worlds import RUN, KeepingStore


class Boom(Exception):
    """What calls raise."""


class TellingStore(KeepingStore):
    """Counts the events of an execution, and tells of one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.tell_at = 0
        self.tell: Callable[[], object] = lambda: None

    def after_adding(self, fact: Fact, outcome: Outcome | None) -> None:
        super().after_adding(fact, outcome)
        self.count += 1
        if self.count == self.tell_at:
            self.tell()


@dataclass
class World:
    """What was called."""

    begun: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    store: TellingStore = field(default_factory=TellingStore)


world: ContextVar[World] = ContextVar("world")


def state() -> ExecutionState:
    run = current().run
    assert isinstance(run, ExecutionState)
    return run


# -- one program of every shape, stopped at every event ---------------------------------------------------------------


async def _work(what: str, seconds: float) -> str:
    there = world.get()
    there.begun[what] += 1
    await asyncio.sleep(seconds)
    there.ended[what] += 1
    return what


@tool
async def step(what: str, seconds: float = 1.0) -> str:
    return await _work(what, seconds)


@tool
async def failing(what: str) -> str:
    await _work(what, 1.0)
    raise Boom(what)


@tool(retry=RetryPolicy(max_attempts=3, initial_delay=4, jitter=False), timeout=50)
async def flaky(what: str) -> str:
    await _work(f"{what}, attempt {current().attempt}", 1.0)
    if current().attempt < 3:
        raise Boom(what)
    return what


@agent
async def branch(name: str) -> list[Any]:
    first = await step(f"{name} first")
    async with state().parallel(max_workers=2, name="inner") as p:
        for number in range(3):
            p.add(step(f"{name} {number}", 1.0 + number))
        p.add(flaky(f"{name} flaky"))
        return [first, *[result.unwrap() for result in await p.gather()]]


@agent(retry=RetryPolicy(max_attempts=2, initial_delay=3, jitter=False))
async def moody() -> str:
    page = await step("child of moody")
    if current().attempt == 1:
        raise Boom("moody")
    return page + await step("second child of moody")


async def items() -> AsyncIterator[str]:
    for number in range(3):
        await asyncio.sleep(0.5)
        yield f"item {number}"


async def plain() -> str:
    return await step("from a plain callable")


@agent
async def in_parallel() -> list[Any]:
    async with state().parallel(max_workers=3, name="all") as p:
        p.map(branch, ["left", "right"])
        p.add(plain, name="plain")
        p.map(step, items())
        return [result.unwrap() for result in await p.gather()]


@agent
async def failing_fast() -> str:
    try:
        async with state().parallel(error_strategy="fail_fast", name="fast") as p:
            p.add(step("endless 1", 1000.0))
            p.add(failing("fails"))
            await p.gather()
    except Boom as error:
        return f"failed: {error}"
    return "unreachable"


@agent
async def too_slow() -> str:
    try:
        async with state().parallel(timeout=20, name="slow") as p:
            p.add(step("endless 2", 1000.0))
            p.add(step("in time"))
            await asyncio.sleep(5)
            p.add(step("added"))
            await p.gather()
    except GroupTimeout as error:
        return f"timed out with {len(error.results)}"
    return "unreachable"


@agent
async def streaming() -> list[str]:
    async with state().parallel(max_workers=2, name="stream") as p:
        for number in range(4):
            p.add(step(f"streamed {number}", 4.0 - number))
        return sorted([result.unwrap() async for result in p.stream()])


@agent
async def first_of_two() -> str:
    async with state().parallel(name="race") as p:
        p.add(step("endless 3", 1000.0))
        p.add(step("winner"))
        async for result in p.stream():
            return str(result.unwrap())
    return "unreachable"


@agent
async def carefully() -> str:
    """Handles what ordinary programs handle, and cleans up with a call."""
    try:
        return await step("careful")
    except Exception:  # noqa: BLE001 - what the program does is under test
        return "hidden"
    finally:
        await step("cleanup")


PARTS: dict[str, Any] = {
    part.actor.name: part for part in (in_parallel, moody, failing_fast, too_slow, streaming, first_of_two, carefully)
}


async def execute(there: World, part: str, stop_at: int = 0, grace: float = 0.0, **options: Any) -> Any:
    """One execution of a part of the program; RunStopped if it was stopped before its end."""
    world.set(there)
    run = ExecutionState(store=there.store, run_id=RUN, **options)
    there.store.count, there.store.tell_at = 0, stop_at
    clock = asyncio.get_running_loop().time
    asked_at: list[float] = []

    def stop() -> None:
        asked_at.append(clock())
        run.request_interrupt("a test", grace=grace)

    there.store.tell = stop
    try:
        async with run:
            value = await PARTS[part]()
    except RunStopped:
        assert run.is_interrupted
        assert clock() - asked_at[0] <= grace
        value = RunStopped
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert tasks_besides_this_one() == set()
    return value


async def recorded(store: MemoryStore) -> Counter[str]:
    """The values of the calls of `step` that are recorded."""
    outcomes = [outcome async for outcome in store.outcomes(RUN)]
    return Counter(outcome.value for outcome in outcomes if outcome.name == "step" and outcome.error is None)


def without_endless(calls: Counter[str]) -> Counter[str]:
    return Counter({what: count for what, count in calls.items() if not what.startswith("endless")})


@pytest.mark.parametrize("grace", [0.0, 2.5, 60.0])
@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_run_that_is_stopped_at_any_event_goes_on_to_the_same_end(part: str, grace: float) -> None:
    async def main() -> None:
        undisturbed = World()
        expected = await execute(undisturbed, part)
        events = undisturbed.store.count
        assert events > 3
        for stop_at in range(1, events + 1, 1 if grace == 2.5 or events < 30 else 3):
            there = World()
            value = await execute(there, part, stop_at, grace)
            assert value in (expected, RunStopped)
            steps = Counter({what: count for what, count in there.ended.items() if _is_step(what)})
            assert steps == await recorded(there.store), f"stopped at event {stop_at}"
            if grace == 60.0:
                assert without_endless(there.begun) == without_endless(there.ended), "whatever had begun has ended"
            again = await execute(there, part, stop_at // 2, grace)
            if again is RunStopped:
                again = await execute(there, part)
            assert again == expected, f"stopped at event {stop_at}"
            assert without_endless(there.ended) == without_endless(undisturbed.ended), f"stopped at event {stop_at}"
            assert (await there.store.runs())[0].status is ExecutionStatus.COMPLETED

    run_virtually(main)


def _is_step(what: str) -> bool:
    return "attempt" not in what and what != "fails"


def _tell(there: World) -> None:
    there.store.tell()


@pytest.mark.parametrize("durability", ["async", "exit"])
@pytest.mark.parametrize("part", ["in_parallel", "moody", "streaming"])
def test_a_run_that_is_written_behind_loses_nothing_when_it_is_stopped(part: str, durability: str) -> None:
    async def main() -> None:
        undisturbed = World()
        expected = await execute(undisturbed, part)
        for seconds in range(0, 12, 2):
            there = World()
            timer = asyncio.get_running_loop().call_later(seconds, _tell, there)
            first = await execute(there, part, grace=1.5, durability=durability)
            timer.cancel()
            value = await execute(there, part, durability=durability)
            assert value == expected
            assert first in (RunStopped, expected)
            assert without_endless(there.ended) == without_endless(undisturbed.ended)

    run_virtually(main)


@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_cancellation_from_outside_at_any_event_is_a_cancellation_and_the_run_goes_on_next_time(part: str) -> None:
    async def main() -> None:
        undisturbed = World()
        expected = await execute(undisturbed, part)
        for moment in range(1, undisturbed.store.count + 1, 1 if undisturbed.store.count < 30 else 3):
            there = World()
            task = asyncio.ensure_future(_bare(there, part))
            there.store.tell_at, there.store.tell = moment, task.cancel
            await asyncio.wait([task])
            assert task.cancelled() or task.result() == expected
            assert tasks_besides_this_one() == set()
            assert await execute(there, part) == expected, f"cancelled at event {moment}"
            assert without_endless(there.ended) == without_endless(undisturbed.ended)

    run_virtually(main)


async def _bare(there: World, part: str) -> Any:
    world.set(there)
    async with ExecutionState(store=there.store, run_id=RUN):
        return await PARTS[part]()


# -- programs of any shape, stopped or asked ---------------------------------------------------------------------------


@agent
async def follow(label: str, plan: Any) -> list[Any]:
    """Do what the plan says."""
    return [await _do(label, part) for part in plan]


async def _do(label: str, part: Any) -> Any:
    kind, *details = part
    if kind == "step":
        return await step(f"{label} {details[0]}", float(details[0]))
    if kind == "ask":
        return await state().ask(f"{label} {details[0]}?", int)
    if kind == "branch":
        return await follow(f"{label}/{details[0]}", details[1])
    workers, streams, parts = details
    async with state().parallel(max_workers=workers, name="group") as p:
        for number, each in enumerate(parts):
            p.add(follow(f"{label}/{number}", [each]))
        if streams:
            return sorted([json.dumps(result.unwrap()) async for result in p.stream()])
        return [result.unwrap() for result in await p.gather()]


def _plans(*leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    parts = st.recursive(
        st.one_of(*leaves),
        lambda inner: st.one_of(
            st.tuples(st.just("branch"), st.sampled_from("AB"), st.lists(inner, max_size=3)),
            st.tuples(st.just("group"), st.integers(1, 3), st.booleans(), st.lists(inner, max_size=4)),
        ),
        max_leaves=8,
    )
    return st.lists(parts, min_size=1, max_size=4)


STEPS = st.tuples(st.just("step"), st.integers(0, 4))
QUESTIONS = st.tuples(st.just("ask"), st.integers(0, 2))


async def follow_in_a_run(there: World, plan: Any, prepare: Callable[[ExecutionState], object]) -> Any:
    """One execution of the plan."""
    world.set(there)
    run = ExecutionState(store=there.store, run_id=RUN)
    there.store.count = there.store.tell_at = 0
    prepare(run)
    try:
        async with run:
            return await follow("root", plan)
    except RunStopped as stopped:
        return type(stopped)
    finally:
        assert tasks_besides_this_one() == set()


@settings(max_examples=40)
@given(_plans(STEPS), st.lists(st.tuples(st.integers(1, 30), st.sampled_from([0.0, 1.5, 100.0])), max_size=3))
def test_a_run_that_is_stopped_several_times_makes_each_finished_call_once(
    plan: Any, stops: list[tuple[int, float]]
) -> None:
    async def main() -> None:
        undisturbed, there = World(), World()
        expected = await follow_in_a_run(undisturbed, plan, lambda run: None)
        for moment, grace in stops:

            def stop_at(run: ExecutionState, moment: int = moment, grace: float = grace) -> None:
                there.store.tell_at = moment
                there.store.tell = lambda: run.request_interrupt("a test", grace=grace)

            assert await follow_in_a_run(there, plan, stop_at) in (RunStopped, expected)
            assert there.ended == await recorded(there.store)
        assert await follow_in_a_run(there, plan, lambda run: None) == expected
        assert there.ended == undisturbed.ended

    run_virtually(main)


@settings(max_examples=40)
@given(_plans(STEPS, QUESTIONS), st.randoms(use_true_random=False), st.booleans())
def test_questions_can_be_answered_in_any_order_and_some_at_a_time(
    plan: Any, chance: random.Random, is_wrong_first: bool
) -> None:
    async def person(question: Any) -> object:
        return len(question.text)

    async def main() -> None:
        undisturbed, there = World(), World()
        expected = await follow_in_a_run(undisturbed, plan, lambda run: run.set_answerer(person))
        assert expected is not RunAwaiting
        asked = await undisturbed.store.questions(RUN, is_open=False)
        is_wrong, value = is_wrong_first, None
        for _ in range(2 * len(asked) + 2):
            value = await follow_in_a_run(there, plan, lambda run: None)
            if value is not RunAwaiting:
                break
            questions = await there.store.questions(RUN)
            chance.shuffle(questions)
            for question in questions[: chance.randint(1, len(questions))]:
                if is_wrong:  # it is refused, and the question stays open
                    with pytest.raises(InputError, match="does not fit"):
                        await there.store.answer(RUN, question.id, b'"wrong"')
                    is_wrong = False
                await there.store.answer(RUN, question.id, str(len(question.text)).encode())
        assert value == expected
        assert there.ended == undisturbed.ended
        answered = await there.store.questions(RUN, is_open=False)
        assert Counter(question.id for question in answered) == Counter(question.id for question in asked)
        assert await there.store.questions(RUN) == []

    run_virtually(main)


@settings(max_examples=30)
@given(_plans(STEPS, QUESTIONS), st.integers(1, 30))
def test_a_stop_and_open_questions_do_not_hinder_each_other(plan: Any, moment: int) -> None:
    async def person(question: Any) -> object:
        await asyncio.sleep(2)
        return len(question.text)

    async def main() -> None:
        undisturbed, there = World(), World()
        expected = await follow_in_a_run(undisturbed, plan, lambda run: run.set_answerer(person))

        def stop_at(run: ExecutionState) -> None:
            there.store.tell_at = moment
            there.store.tell = lambda: run.request_interrupt("a test", grace=1.0)

        assert await follow_in_a_run(there, plan, stop_at) in (RunStopped, RunAwaiting, expected)
        assert await follow_in_a_run(there, plan, lambda run: run.set_answerer(person)) == expected
        assert there.ended == undisturbed.ended

    run_virtually(main)


# -- groups that end early ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupPlan:
    """A group, and what ends it."""

    members: tuple[tuple[int, bool], ...]
    """For each member how many seconds it takes, and whether it fails."""
    workers: int
    options: tuple[tuple[str, Any], ...]
    streams: bool
    leaves_after: int
    """So many results of the stream, or seconds, are enough; 0: all are wanted."""
    cancels: bool
    """How it leaves: by `cancel`, or by leaving the loop or the block."""


@tool
async def member(number: int, seconds: int, fails: bool) -> int:
    await _work(str(number), float(seconds))
    if fails:
        raise Boom(number)
    return number


GROUPS = st.builds(
    GroupPlan,
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, 5, 100]), st.booleans()), max_size=7).map(tuple),
    st.integers(1, 4),
    st.sampled_from(
        [
            (),
            (("error_strategy", "fail_fast"),),
            (("fail_after", 2),),
            (("fail_after", 0.5),),
            (("timeout", 4.5),),
            (("timeout", 4.5), ("error_strategy", "fail_fast")),
        ]
    ),
    st.booleans(),
    st.integers(0, 4),
    st.booleans(),
)


async def run_group(plan: GroupPlan) -> list[Any]:
    """What the program got: results, and how the group ended."""
    given: list[Any] = []
    p = state().parallel(max_workers=plan.workers, name="group", **dict(plan.options))
    try:
        async with p:
            for number, (seconds, fails) in enumerate(plan.members):
                p.add(member(number, seconds, fails))
            if plan.streams:
                async for result in p.stream():
                    given.append((result.index, result.result, result.error_message))
                    if len(given) == plan.leaves_after:
                        if plan.cancels:
                            p.cancel()
                        else:
                            break
            else:
                if plan.leaves_after:
                    await asyncio.sleep(plan.leaves_after + 0.25)
                    if plan.cancels:
                        p.cancel()
                results = await p.gather()
                given.extend((result.index, result.result, result.error_message) for result in results)
    except Exception as error:  # noqa: BLE001 - what the program does is under test
        given.append((type(error), str(error)))
    assert p.group.running == 0
    given.append((p.group.status, p.group.completed, p.group.failed))
    return given


async def execute_group(there: World, plan: GroupPlan) -> list[Any]:
    """One execution of the group, and then the process dies."""
    world.set(there)
    endings = []
    try:
        async with ExecutionState(store=there.store, run_id=RUN):
            endings.append(await run_group(plan))
            raise Killed
    except Killed:
        assert tasks_besides_this_one() == set()
        return endings[0]


class Killed(BaseException):
    """The process is no more."""


@settings(max_examples=100)
@given(GROUPS)
def test_a_group_that_has_ended_ends_in_the_same_way_again_and_calls_nothing(plan: GroupPlan) -> None:
    async def main() -> None:
        there = World()
        first = await execute_group(there, plan)
        for _ in range(2):
            again = World(store=there.store)
            assert await execute_group(again, plan) == first
            assert again.begun == Counter()

    run_virtually(main)


@settings(max_examples=60)
@given(GROUPS, st.integers(0, 1000))
def test_a_group_that_a_crash_cut_off_makes_no_finished_call_again_and_then_ends_in_one_way(
    plan: GroupPlan, moment: int
) -> None:
    async def main() -> None:
        there = World()
        await execute_group(there, plan)
        entries = there.store.entries
        left = TellingStore()
        left._runs = (await there.store.after_the_first(moment % (len(entries) + 1)))._runs
        finished = {outcome.name + str(outcome.value) async for outcome in left.outcomes(RUN) if not outcome.error}
        again = World(store=left)
        second = await execute_group(again, plan)
        assert not finished & {f"member{number}" for number in again.begun}
        assert set(again.begun.values()) <= {1}
        third = World(store=left)
        assert await execute_group(third, plan) == second
        assert third.begun == Counter()

    run_virtually(main)
