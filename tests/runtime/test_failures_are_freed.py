"""What has failed is freed like what has succeeded: at once, not when the garbage collector comes."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from rh_agents import (
    CallTimeout,
    CircuitBreaker,
    ConcurrencyLimit,
    ExecutionEvent,
    GroupTimeout,
    MemoryStore,
    RateLimit,
    RetryPolicy,
    Tool,
    TooManyFailures,
    agent,
    parallel,
    run,
    tool,
)
from rh_agents.core.errors import CalledExit
from rh_agents.testing import JumpingClock


@pytest.fixture(autouse=True)
def collects_nothing() -> Iterator[None]:
    """The garbage collector does not come."""
    gc.disable()
    yield
    gc.enable()


class Held:
    """What a call holds while it runs, for instance some megabytes."""

    def of(self, number: int) -> int:
        return number


@dataclass(frozen=True)
class Frozen(Exception):
    """Nothing of it can be set."""

    code: int = 1


class World:
    def __init__(self) -> None:
        self._held: list[weakref.ref[Held]] = []

    def held(self) -> Held:
        held = Held()
        self._held.append(weakref.ref(held))
        return held

    @property
    def kept(self) -> int:
        """How much of it is kept, though everything has been let go of."""
        return sum(ref() is not None for ref in self._held)

    @property
    def made(self) -> int:
        return len(self._held)


Body = Callable[[World, int], Awaitable[int]]


async def returns(world: World, number: int) -> int:
    held = world.held()
    await asyncio.sleep(1.0)
    return held.of(number)


async def raises(world: World, number: int) -> int:
    held = world.held()
    await asyncio.sleep(1.0)
    raise ValueError(held.of(number))


async def raises_because(world: World, number: int) -> int:
    held = world.held()
    try:
        await raises(world, number)
    except ValueError as error:
        raise Frozen(held.of(number)) from error
    return 0


async def raises_meanwhile(world: World, number: int) -> int:
    held = world.held()
    try:
        return await raises(world, number)
    finally:
        [][held.of(number)]


async def exits(world: World, number: int) -> int:
    held = world.held()
    raise SystemExit(held.of(number))


async def takes_too_long(world: World, number: int) -> int:
    held = world.held()
    await asyncio.sleep(1_000.0)
    return held.of(number)


async def cleans_up_badly(world: World, number: int) -> int:
    held = world.held()
    try:
        await asyncio.sleep(1_000.0)
    finally:
        raise OSError(held.of(number))


async def calls(world: World, number: int) -> int:
    held = world.held()

    @tool(retry=RetryPolicy(max_attempts=2, jitter=False))
    async def inner(number: int) -> int:
        return await raises(world, number)

    return await inner(held.of(number))


async def opens_a_group(world: World, number: int) -> int:
    held = world.held()
    async with parallel() as p:
        p.add(lambda: raises(world, number))
        p.add(lambda: raises_because(world, number))
        for result in await p.gather():
            assert not result.ok
    raise ValueError(held.of(number))


FAILS = [raises, raises_because, raises_meanwhile, exits, takes_too_long, cleans_up_badly, calls]
BODIES: list[Body] = [returns, *FAILS, opens_a_group]
OPTIONS: dict[str, dict[str, Any]] = {
    "simple": {},
    "retried": {"retry": RetryPolicy(max_attempts=3, jitter=False), "timeout": 5.0},
    "limited": {"limits": [ConcurrencyLimit(2), RateLimit(requests=1_000, per=1.0)], "timeout": 5.0},
    "guarded": {"breaker": CircuitBreaker(1_000_000), "timeout": 5.0, "retry": 2},
    "cached": {"cache": "run", "timeout": 5.0},
}


WAYS = [*((kind, None) for kind in OPTIONS), ("simple", MemoryStore)]


def execute(flow: Callable[[], Awaitable[Any]], **options: Any) -> None:
    JumpingClock().run(run(flow, **options))


@pytest.mark.parametrize(("kind", "store"), WAYS)
@pytest.mark.parametrize("body", BODIES)
def test_failed_calls_are_freed(body: Body, kind: str, store: Callable[[], Any] | None) -> None:
    world = World()

    @tool(**OPTIONS[kind])
    async def call(number: int) -> int:
        return await body(world, number)

    @agent
    async def around(number: int) -> int:
        return await call(number)

    async def flow() -> None:
        for number in range(3):
            try:
                async with asyncio.timeout(30.0):
                    await around(number)
            except (ValueError, Frozen, LookupError, CalledExit, TimeoutError, OSError):
                assert body is not returns
            await asyncio.sleep(0)  # the event loop holds an exception for as long as the step lasts that it begins
            assert world.kept == 0

    execute(flow, store=None if store is None else store())
    assert world.made >= 3


@pytest.mark.lazy_tasks("frames of what fails at once lead to those of whoever started it, which go on")
@pytest.mark.parametrize(("kind", "store"), WAYS)
@pytest.mark.parametrize("body", BODIES)
def test_failed_members_are_freed_when_their_results_are(
    body: Body, kind: str, store: Callable[[], Any] | None
) -> None:
    world = World()

    @tool(**OPTIONS[kind])
    async def call(number: int) -> int:
        return await body(world, number)

    async def flow() -> None:
        async with parallel(max_workers=2, item_timeout=30.0) as p:
            p.map(call, range(3))
            p.map(lambda number: body(world, number), range(3))
            async for result in p.stream():
                assert result.ok is (body is returns)
                del result
        assert world.kept == 0
        async with parallel(max_workers=2, item_timeout=30.0) as p:
            p.map(call, range(3, 6))
            p.add(call(7))
            await p.gather()
        del p
        assert world.kept == 0

    execute(flow, store=None if store is None else store())
    assert world.made >= 6


@pytest.mark.parametrize("body", [takes_too_long, cleans_up_badly])
def test_members_that_were_cancelled_are_freed(body: Body) -> None:
    world = World()

    @tool
    async def call(number: int) -> int:
        return await body(world, number)

    async def cancelled() -> None:
        async with parallel() as p:
            p.map(call, range(3))
            p.map(lambda number: body(world, number), range(3))
            await asyncio.sleep(1.0)
            p.cancel()
            await p.gather()

    async def flow() -> None:
        await cancelled()
        assert world.kept == 0
        task = asyncio.create_task(cancelled())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        del task
        assert world.kept == 0

    execute(flow)
    assert world.made == 10


def test_a_failed_call_of_an_actor_is_freed() -> None:
    world = World()

    async def handler(number: int) -> int:
        return await raises(world, number)

    actor = Tool(name="call", handler=handler)

    async def flow() -> None:
        result = await ExecutionEvent(actor=actor)(1)
        assert not result.ok
        assert world.kept == 1
        del result
        assert world.kept == 0

    execute(flow)


def test_an_error_keeps_the_frames_of_the_program_and_loses_those_of_the_library() -> None:
    @tool(timeout=1.0)
    async def call() -> None:
        await asyncio.sleep(60)

    @tool
    async def fail() -> None:
        raise ValueError

    async def flow() -> None:
        async with parallel() as p:
            p.add(call())
            p.add(fail())
            slow, failed = await p.gather()
        assert isinstance(slow.error, CallTimeout)
        assert failed.error is not None
        assert failed.error.__traceback__ is not None
        assert failed.error.__traceback__.tb_frame.f_code.co_name == "fail"

    execute(flow)


# -- groups that are left with an error: its traceback leads to their block, which holds the group -------------------


async def fails_fast(world: World) -> None:
    async with parallel(error_strategy="fail_fast") as p:
        p.map(lambda number: raises(world, number), range(3))
        p.add(lambda: takes_too_long(world, 3))
        await p.gather()


async def fails_fast_at_its_end(world: World) -> None:
    async with parallel(error_strategy="fail_fast", retry=RetryPolicy(max_attempts=2, jitter=False)) as p:
        p.map(lambda number: raises_because(world, number), range(3))
        p.add(lambda: takes_too_long(world, 3))


async def has_no_more_time(world: World) -> None:
    async with parallel(timeout=5.0) as p:
        p.map(lambda number: raises(world, number), range(3))
        p.add(lambda: takes_too_long(world, 3))
        await p.gather()


async def fails_too_often(world: World) -> None:
    async with parallel(fail_after=2) as p:
        p.map(lambda number: raises(world, number), range(3))
        p.add(lambda: takes_too_long(world, 3))
        await p.gather()


async def is_left_by_an_error(world: World) -> None:
    held = world.held()
    async with parallel() as p:
        p.map(lambda number: raises(world, number), range(3))
        p.add(lambda: takes_too_long(world, 3))
        await asyncio.sleep(2.0)
        raise KeyError(held.of(1))


async def nobody_reads_its_failures(world: World) -> None:
    async with parallel() as p:
        p.map(lambda number: raises(world, number), range(4))


ENDINGS = [
    fails_fast, fails_fast_at_its_end, has_no_more_time, fails_too_often, is_left_by_an_error, nobody_reads_its_failures
]  # fmt: skip


@pytest.mark.parametrize("store", [None, MemoryStore])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_the_members_of_a_group_held_is_freed_with_the_error_that_ended_it(
    ending: Callable[[World], Awaitable[None]], store: Callable[[], Any] | None
) -> None:
    world = World()

    @agent
    async def around() -> None:
        await ending(world)

    async def flow() -> None:
        for attempt in (lambda: ending(world), around):
            try:
                await attempt()
            except (ValueError, Frozen, KeyError, ExceptionGroup, GroupTimeout, TooManyFailures):
                pass
            else:
                raise AssertionError
            await asyncio.sleep(0)
            assert world.kept == 0

    execute(flow, store=None if store is None else store())
    assert world.made >= 8


@pytest.mark.parametrize("error", [ValueError(3), OSError(2, "it is gone"), Frozen(3)])
def test_results_of_a_group_that_failed_fast_tell_of_the_error_that_was_raised(error: Exception) -> None:
    async def fail() -> None:
        try:
            raise LookupError
        except LookupError as cause:
            raise error from cause

    async def flow() -> None:
        with pytest.raises(type(error)) as found:
            async with parallel(error_strategy="fail_fast") as p:
                p.add(fail)
                await p.gather()
        assert found.value is error
        (result,) = p.results
        told = result.error
        assert told is not None
        assert (type(told), told.args, told.__dict__) == (type(error), error.args, error.__dict__)
        assert isinstance(told.__cause__, LookupError)
        assert told.__traceback__ is not None
        assert told.__traceback__.tb_frame.f_code.co_name == "fail"

    execute(flow)
