"""A run that is executed again repeats no finished call, and gives every call the result that it had.

The crash is a `kill -9` after any number of writes: the store of the second execution holds the first n entries of the
first one's journal, and nothing else is left of it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rh_agents import ExecutionState, ExecutionStatus, MemoryStore, RetryPolicy, agent, current, tool
from rh_agents.core._replay.identity import idempotency_key
from rh_agents.core.events import Fact
from rh_agents.core.results import Outcome
from tests.doubles import HookedStore, request
from tests.properties.virtual import run_virtually

RUN = "monday"
Entry = tuple[Fact, Outcome | None]


class Killed(BaseException):
    """The process is no more."""


class Boom(Exception):
    """What calls raise."""


class Journal(HookedStore):
    """A store that can be taken back to what it was after any of its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []

    def after_adding(self, fact: Fact, outcome: Outcome | None) -> None:
        self.entries.append((fact, outcome))

    async def after_the_first(self, count: int) -> Journal:
        """What a crash after so many writes leaves."""
        left = Journal()
        journal = await left.open_run(request(RUN))
        for fact, outcome in self.entries[:count]:
            journal.note(fact, outcome)
        return left

    @property
    def entries_with_outcomes(self) -> list[Outcome]:
        return [outcome for _, outcome in self.entries if outcome is not None]


# -- the world outside: what is called, and what it cost ---------------------------------------------------------------


@dataclass
class World:
    """Where calls have their effects."""

    called: list[str] = field(default_factory=list)
    """The idempotency keys of the calls that were made, in their order."""
    tried: list[str] = field(default_factory=list)
    """The same, where `called` holds only those that succeeded."""
    salt: int = 0
    """Another one makes calls take other times."""
    is_down: bool = False

    def delay(self, *what: object) -> float:
        return zlib.crc32(repr((self.salt, what)).encode()) % 5


world: ContextVar[World] = ContextVar("world")
branch: ContextVar[str] = ContextVar("branch", default="")


@tool
async def step(number: int) -> str | None:
    """Its result tells in which branch it was called: a swapped one is seen."""
    there = world.get()
    there.called.append(current().idempotency_key)
    await asyncio.sleep(there.delay(branch.get(), number))
    if number % 7 == 6:
        raise Boom(f"{branch.get()} {number}")
    return None if number % 7 == 5 else f"{branch.get()} {number}"


@agent
async def follow(label: str, plan: Any) -> list[Any]:
    """Do what the plan says, in a branch of its own."""
    world.get().called.append(current().idempotency_key)
    outer = branch.set(f"{branch.get()}/{label}")
    try:
        return [await _do(part) for part in plan]
    finally:
        branch.reset(outer)  # a call that is awaited directly shares the context of its caller


async def _do(part: Any) -> Any:
    kind, *details = part
    if kind == "step":
        try:
            return await step(details[0])
        except Boom as error:
            return f"failed: {error}"
    if kind == "branch":
        return await follow(*details)
    workers, name, parts = details
    async with _state().parallel(max_workers=workers, name=name) as p:
        for each in parts:
            p.add(step(each[1]) if each[0] == "step" else follow(*each[1:]))
        return [result.result if result.ok else result.error_message for result in await p.gather()]


def _state() -> ExecutionState:
    run = current().run
    assert isinstance(run, ExecutionState)
    return run


STEPS = st.tuples(st.just("step"), st.integers(0, 8))
LABELS = st.sampled_from("AB")


def _branches(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.just("branch"), LABELS, st.lists(parts, max_size=3))


def _groups(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    members = st.one_of(STEPS, _branches(parts))
    names = st.sampled_from([None, "one", "two"])
    return st.tuples(st.just("group"), st.integers(1, 3), names, st.lists(members, max_size=5))


PARTS = st.recursive(STEPS, lambda parts: st.one_of(_branches(parts), _groups(parts)), max_leaves=8)
PROGRAMS = st.lists(PARTS, min_size=1, max_size=4)


async def execute(store: MemoryStore, program: Any, there: World) -> Any:
    """One execution of the program, in the same run every time."""
    world.set(there)
    async with ExecutionState(store=store, run_id=RUN) as state, state.parallel(name="all") as p:
        p.add(follow("root", program))
        return (await p.gather())[0].unwrap()


def _as_keys(outcomes: Sequence[Outcome]) -> set[str]:
    return {idempotency_key(RUN, outcome.key) for outcome in outcomes}


@settings(max_examples=250)
@given(PROGRAMS, st.integers(0, 10_000), st.integers(0, 3))
def test_after_a_crash_at_any_write_no_finished_call_is_made_again_and_no_result_differs(
    program: Any, moment: int, salt: int
) -> None:
    async def main() -> None:
        whole = Journal()
        undisturbed = await execute(whole, program, World())
        left = await whole.after_the_first(moment % (len(whole.entries) + 1))
        finished = _as_keys(left.entries_with_outcomes)
        begun = {fact.key for fact, _ in left.entries if fact.status is ExecutionStatus.STARTED}
        in_flight = len(begun - {None}) - len(finished)

        again = World(salt=salt)
        assert await execute(left, program, again) == undisturbed
        assert not finished & set(again.called)
        assert len(set(again.called)) == len(again.called)
        begun_before = {idempotency_key(RUN, key) for key in begun if key is not None}
        assert len(begun_before & set(again.called)) <= in_flight
        assert _as_keys(left.entries_with_outcomes) == _as_keys(whole.entries_with_outcomes)

        third = World()
        assert await execute(left, program, third) == undisturbed
        # A run that has ended tries its failed calls again, and only these.
        failed = [outcome for outcome in left.entries_with_outcomes if outcome.error is not None]
        assert len(third.called) <= len(failed)

    run_virtually(main)


@settings(max_examples=100)
@given(PROGRAMS, st.floats(0, 30), st.integers(0, 3))
def test_a_run_that_is_killed_from_inside_goes_on_where_it_was(program: Any, moment: float, salt: int) -> None:
    async def main() -> None:
        undisturbed = await execute(Journal(), program, World())
        store = Journal()
        task = asyncio.ensure_future(execute(store, program, World()))
        await asyncio.wait([task], timeout=moment)
        if task.cancel():
            await asyncio.wait([task])
            assert task.cancelled()
        finished = _as_keys(store.entries_with_outcomes)
        again = World(salt=salt)
        assert await execute(store, program, again) == undisturbed
        assert not finished & set(again.called)

    run_virtually(main)


def test_two_chains_with_equal_steps_never_get_each_others_results() -> None:
    program = [("group", 2, None, [("branch", label, [("step", 1), ("step", 2)]) for label in "AB"])]

    async def main() -> None:
        whole = Journal()
        expected = [[["/root/A 1", "/root/A 2"], ["/root/B 1", "/root/B 2"]]]
        assert await execute(whole, program, World()) == expected
        for moment in range(len(whole.entries) + 1):
            for salt in range(4):
                left = await whole.after_the_first(moment)
                assert await execute(left, program, World(salt=salt)) == expected

    run_virtually(main)


# -- runs that ended in failure ---------------------------------------------------------------------------------------


@tool
async def weak_step(number: int) -> str:
    """Like `step`, but some of them fail only while the world is down."""
    there = world.get()
    there.tried.append(current().idempotency_key)
    await asyncio.sleep(there.delay(branch.get(), number))
    if there.is_down and number % 3 == 0:
        raise Boom(f"{branch.get()} {number}")
    there.called.append(current().idempotency_key)
    return f"{branch.get()} {number}"


@agent
async def weak(label: str, plan: Any) -> list[Any]:
    """Do what the plan says, and fail with its first failure."""
    outer = branch.set(f"{branch.get()}/{label}")
    try:
        return [await _do_or_fail(part) for part in plan]
    finally:
        branch.reset(outer)


stubborn = agent(retry=RetryPolicy(max_attempts=2, initial_delay=1))(weak.__wrapped__)


def _weak_call(part: Any) -> Any:
    kind, *details = part
    if kind == "step":
        return weak_step(details[0])
    return (stubborn if details[0] == "A" else weak)(*details)


async def _do_or_fail(part: Any) -> Any:
    if part[0] != "group":
        return await _weak_call(part)
    _, workers, name, parts = part
    async with _state().parallel(max_workers=workers, name=name) as p:
        for each in parts:
            p.add(_weak_call(each))
        results = await p.gather()
    return [result.unwrap() for result in results]


async def execute_weak(store: MemoryStore, program: Any, there: World) -> Any:
    """One execution that ends, in failure or not."""
    world.set(there)
    try:
        async with ExecutionState(store=store, run_id=RUN):
            return await weak("root", program)
    except Boom:
        return Boom


@settings(max_examples=200)
@given(PROGRAMS, st.integers(0, 3))
def test_a_run_that_ended_in_failure_is_tried_again_without_any_of_its_successes(program: Any, salt: int) -> None:
    async def main() -> None:
        fresh = World()
        undisturbed = await execute_weak(Journal(), program, fresh)
        store = Journal()
        down = World(is_down=True, salt=salt)
        first = await execute_weak(store, program, down)
        assert first in (Boom, undisturbed)

        again = World(salt=salt)
        assert await execute_weak(store, program, again) == undisturbed
        assert not set(down.called) & set(again.called)
        assert len(down.called) + len(again.called) == len(set(down.called) | set(again.called)) == len(fresh.called)

        done = World()
        assert await execute_weak(store, program, done) == undisturbed
        assert done.called == []

    run_virtually(main)


@settings(max_examples=150)
@given(PROGRAMS, st.integers(0, 10_000), st.integers(0, 3))
def test_after_a_crash_a_program_that_fails_and_retries_goes_on_as_if_nothing_had_happened(
    program: Any, moment: int, salt: int
) -> None:
    async def main() -> None:
        whole = Journal()
        undisturbed = World(is_down=True)
        ending = await execute_weak(whole, program, undisturbed)
        left = await whole.after_the_first(moment % (len(whole.entries) + 1))
        # A call that failed and is tried again by another attempt of its agent has the same idempotency key.
        recorded = Counter(
            idempotency_key(RUN, outcome.base) for outcome in left.entries_with_outcomes if outcome.name == "weak_step"
        )
        again = World(is_down=True, salt=salt)
        assert await execute_weak(left, program, again) == ending
        assert Counter(again.tried) + recorded == Counter(undisturbed.tried)

    run_virtually(main)


# -- groups whose items change -----------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(st.lists(st.integers(0, 5), max_size=8), st.lists(st.integers(0, 5), max_size=8), st.booleans(), st.booleans())
def test_items_can_be_inserted_removed_and_reordered_without_losing_the_other_results(
    before: list[int], after: list[int], by_map: bool, is_tool: bool
) -> None:
    called: list[int] = []

    async def square(number: int) -> int:
        called.append(number)
        await asyncio.sleep(number % 3)
        return number * number

    function = tool(square) if is_tool else square

    async def execute_with(store: MemoryStore, numbers: list[int]) -> list[int]:
        async with ExecutionState(store=store, run_id=RUN) as state, state.parallel(max_workers=3) as p:
            if by_map:
                p.map(function, numbers)
            else:
                for number in numbers:
                    p.add(tool(square)(number))
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        store = MemoryStore()
        assert await execute_with(store, before) == [number * number for number in before]
        called.clear()
        assert await execute_with(store, after) == [number * number for number in after]
        assert Counter(called) == Counter(after) - Counter(before)

    run_virtually(main)


def test_groups_of_other_names_never_get_each_others_results() -> None:
    async def answer(text: str) -> str:
        return text

    async def execute_groups(store: MemoryStore, names: str) -> dict[str, str]:
        given = {}
        async with ExecutionState(store=store, run_id=RUN) as state:
            for name in names:
                async with state.parallel(name=name) as p:
                    p.add(partial(answer, name))
                    given[name] = (await p.gather())[0].unwrap()
        return given

    async def main() -> None:
        store = MemoryStore()
        assert await execute_groups(store, "ab") == {"a": "a", "b": "b"}
        assert await execute_groups(store, "cba") == {"a": "a", "b": "b", "c": "c"}

    run_virtually(main)


# -- streams -----------------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(
    st.lists(st.integers(0, 6), unique=True, min_size=1, max_size=7),
    st.integers(0, 1000),
    st.integers(1, 4),
    st.integers(0, 3),
    st.booleans(),
)
def test_a_stream_gives_the_recorded_results_first_and_in_their_recorded_order(
    numbers: list[int], moment: int, workers: int, salt: int, by_map: bool
) -> None:
    async def stream(store: MemoryStore, there: World) -> list[int | None]:
        world.set(there)
        async with ExecutionState(store=store, run_id=RUN) as state, state.parallel(max_workers=workers) as p:
            if by_map:
                p.map(step, iter(numbers))
            else:
                for number in numbers:
                    p.add(step(number))
            return [result.index async for result in p.stream()]

    async def main() -> None:
        whole = Journal()
        first = await stream(whole, World())
        left = await whole.after_the_first(moment % (len(whole.entries) + 1))
        recorded = len(left.entries_with_outcomes)
        again = World(salt=salt)
        second = await stream(left, again)
        assert second[:recorded] == first[:recorded]
        assert sorted(index or 0 for index in second) == list(range(len(numbers)))
        assert len(again.called) == len(numbers) - recorded

    run_virtually(main)


# -- failures ----------------------------------------------------------------------------------------------------------


@tool
async def fragile(number: int) -> int:
    """Fails while the world is down."""
    there = world.get()
    there.called.append(str(number))
    await asyncio.sleep(1)
    if there.is_down:
        raise Boom(number)
    return number


async def fragile_all(store: MemoryStore, there: World, *, ends: bool, size: int = 3) -> list[int | str | None]:
    """What a group of fragile calls gave, in a run that ends or is killed."""
    world.set(there)
    given: list[int | str | None] = []
    try:
        async with ExecutionState(store=store, run_id=RUN) as state:
            async with state.parallel() as p:
                for number in range(size):
                    p.add(fragile(number))
                given = [result.result if result.ok else result.error_message for result in await p.gather()]
            if not ends:
                raise Killed
    except Killed:
        pass
    return given


def test_a_failure_is_repeated_after_a_crash_and_tried_again_after_the_run_has_ended() -> None:
    async def main() -> None:
        store = MemoryStore()
        failures = ["Boom: 0", "Boom: 1", "Boom: 2"]
        assert await fragile_all(store, World(is_down=True), ends=False) == failures
        after_crash = World()
        assert await fragile_all(store, after_crash, ends=True) == failures
        assert after_crash.called == []
        after_end = World()
        assert await fragile_all(store, after_end, ends=True, size=4) == [0, 1, 2, 3]
        assert after_end.called == ["0", "1", "2", "3"]
        at_last = World()
        assert await fragile_all(store, at_last, ends=True, size=4) == [0, 1, 2, 3]
        assert at_last.called == []

    run_virtually(main)


def test_a_second_try_that_crashes_repeats_what_it_had_and_tries_the_rest() -> None:
    async def main() -> None:
        store = MemoryStore()
        await fragile_all(store, World(is_down=True), ends=True)
        await fragile_all(store, World(is_down=True), ends=False, size=2)
        third = World()
        assert await fragile_all(store, third, ends=True) == ["Boom: 0", "Boom: 1", 2]
        assert third.called == ["2"]

    run_virtually(main)


def test_none_is_a_result_like_any_other() -> None:
    async def main() -> None:
        store = Journal()
        program = [("step", 5), ("group", 2, None, [("step", 5), ("step", 5)])]
        assert await execute(store, program, World()) == [None, [None, None]]
        again = World()
        assert await execute(store, program, again) == [None, [None, None]]
        assert again.called == []

    run_virtually(main)


@pytest.mark.parametrize("failing_attempts", [0, 1, 2])
def test_another_attempt_of_an_agent_reuses_its_finished_children(failing_attempts: int) -> None:
    attempts = 0

    @agent(retry=RetryPolicy(max_attempts=3))
    async def moody() -> list[Any]:
        nonlocal attempts
        attempts += 1
        async with _state().parallel() as p:
            p.map(step, range(4))
            values = [result.unwrap() for result in await p.gather()]
        values.append(await step(7))
        if attempts <= failing_attempts:
            raise Boom
        return values

    async def main() -> None:
        there = World()
        world.set(there)
        async with ExecutionState(store=MemoryStore()):
            assert await moody() == [" 0", " 1", " 2", " 3", " 7"]
        assert len(there.called) == 5
        assert attempts == failing_attempts + 1

    run_virtually(main)


def test_another_attempt_of_an_agent_makes_its_failed_children_again() -> None:
    @agent(retry=RetryPolicy(max_attempts=2))
    async def careless() -> list[int]:
        async with _state().parallel() as p:
            p.map(fragile, range(3))
            results = await p.gather()
        world.get().is_down = False
        return [result.unwrap() for result in results]

    async def main() -> None:
        there = World(is_down=True)
        world.set(there)
        async with ExecutionState(store=MemoryStore()):
            assert await careless() == [0, 1, 2]
        assert there.called == ["0", "1", "2"] * 2

    run_virtually(main)
