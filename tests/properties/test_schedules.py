"""The same promises under thousands of interleavings: `detangle` decides which task goes on, and replays what fails.

Explorations are seeded, so that every run of the tests explores the same ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import detangle
import pytest

from rh_agents import (
    CircuitBreaker,
    EventBus,
    ExecutionEvent,
    ExecutionState,
    MemoryStore,
    ParallelExecutionManager,
    RetryPolicy,
    Tool,
    tool,
)
from rh_agents.core.execution import OnFull
from rh_agents.core.policies import BreakerState
from rh_agents.errors import CircuitOpenError
from tests.properties.virtual import tasks_besides_this_one

Scenario = Callable[[], Coroutine[Any, Any, None]]


class Boom(Exception):
    """What members raise."""


class Gauge:
    """How many are inside at the same time; more than `limit` is a bug, whenever it happens."""

    def __init__(self, limit: int) -> None:
        self.now = 0
        detangle.invariant(lambda: self.now <= limit, f"at most {limit} in flight")

    async def hold(self, seconds: float = 0.0) -> None:
        self.now += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.now -= 1


async def a_limit_is_held_while_members_add_members() -> None:
    gauge = Gauge(2)

    async def crawl(depth: int) -> int:
        await gauge.hold()
        if depth:
            p.add(lambda: crawl(depth - 1))
            p.add(lambda: crawl(depth - 1))
        return depth

    async with ExecutionState().parallel(max_workers=2) as p:
        p.add(lambda: crawl(3))
        depths = [result.unwrap() async for result in p.stream()]
    assert sorted(depths) == [0] * 8 + [1] * 4 + [2] * 2 + [3]


async def fail_fast_raises_a_failure_of_its_own_and_leaves_nothing_running() -> None:
    gauge = Gauge(3)
    raised: list[Boom] = []

    async def fail(number: int) -> None:
        await gauge.hold(detangle.choice([0.0, 1.0]))
        raised.append(Boom(number))
        raise raised[-1]

    with pytest.raises(Boom) as caught:
        async with ExecutionState().parallel(max_workers=3, error_strategy="fail_fast") as p:
            p.map(fail, range(6))
            await p.gather()
    assert caught.value is raised[0]
    assert gauge.now == 0
    assert not tasks_besides_this_one()


async def a_timeout_and_the_end_of_the_work_may_fall_on_the_same_tick() -> None:
    gauge = Gauge(2)
    group = ExecutionState().parallel(max_workers=2, timeout=1.0, item_timeout=1.0)
    try:
        async with group as p:
            for _ in range(3):
                p.add(lambda: gauge.hold(1.0))
            results = await p.gather()
            assert [result.index for result in results] == [0, 1, 2]
    except TimeoutError:
        pass
    assert group.group.running == gauge.now == 0
    assert group.group.finished + group.group.pending == 3
    assert not tasks_besides_this_one()


async def two_groups_share_a_breaker_that_lets_no_more_than_its_probes_through() -> None:
    breaker = CircuitBreaker(failure_threshold=2, reset_timeout=5.0, probes=2, name="shared")
    inside: dict[bool, int] = {True: 0, False: 0}
    is_down = True

    async def call(number: int) -> int:
        is_probe = breaker.state is BreakerState.HALF_OPEN
        inside[is_probe] += 1
        try:
            await asyncio.sleep(detangle.choice([0.0, 1.0]))
            if is_down:
                raise Boom(number)
            return number
        finally:
            inside[is_probe] -= 1

    detangle.invariant(lambda: inside[True] <= 2, "at most 2 probes")

    async def group(name: str) -> list[BaseException | None]:
        nonlocal is_down
        async with ExecutionState().parallel(max_workers=3, name=name, breaker=breaker) as p:
            p.map(call, range(4))
            errors = [result.error for result in await p.gather()]
            assert all(isinstance(error, Boom | CircuitOpenError) for error in errors)
            await asyncio.sleep(20)
            is_down = False
            while breaker.state is not BreakerState.CLOSED:
                p.map(call, range(2))
                await p.gather()
                await asyncio.sleep(1)
            p.add(lambda: call(0))
            return [result.error for result in await p.gather()]

    errors = await asyncio.gather(group("a"), group("b"))
    assert [each[-1] for each in errors] == [None, None]
    assert inside == {True: 0, False: 0}


async def a_probe_that_is_cancelled_or_a_report_that_comes_late_says_nothing_to_the_breaker() -> None:
    breaker = CircuitBreaker(failure_threshold=1, reset_timeout=5.0)
    state = ExecutionState()

    async def take(seconds: float, error: Boom | None = None) -> None:
        await asyncio.sleep(seconds)
        if error is not None:
            raise error

    async with state.parallel(name="late", breaker=breaker) as late:
        late.add(lambda: take(7.0))  # admitted while all is well; ends while a probe is under way
        await asyncio.sleep(0.5)
        async with state.parallel(name="failing", breaker=breaker) as failing:
            failing.add(lambda: take(0.0, Boom()))
            await failing.gather()
        assert_state(breaker, BreakerState.OPEN)
        await asyncio.sleep(6)
        async with state.parallel(name="probing", breaker=breaker) as probing:
            probing.add(lambda: take(100.0))
            await late.gather()
            assert_state(breaker, BreakerState.HALF_OPEN)
            probing.cancel()
            await probing.gather()
        async with state.parallel(name="healthy", breaker=breaker) as healthy:
            healthy.add(lambda: take(detangle.choice([0.0, 1.0])))
            assert (await healthy.gather())[0].ok
        assert_state(breaker, BreakerState.CLOSED)


def assert_state(breaker: CircuitBreaker, state: BreakerState) -> None:
    assert breaker.state is state


async def _events_reach_a_buffered_subscriber(on_full: OnFull) -> None:
    bus = EventBus()
    state = ExecutionState(event_bus=bus)
    seen: list[ExecutionEvent[Any]] = []
    handling = Gauge(1)

    async def handle(event: ExecutionEvent[Any]) -> None:
        await handling.hold(detangle.choice([0.0, 1.0]))
        seen.append(event)

    subscription = bus.subscribe(handle, buffer=2, on_full=on_full)
    work = Tool(name="work", handler=pause)
    async with state, state.parallel(max_workers=3, name="g") as p:
        for number in range(4):
            p.add(ExecutionEvent[None](actor=work)(number, None, state))
        assert all(result.ok for result in await p.gather())
    assert subscription.delivered == len(seen)
    assert subscription.delivered + subscription.dropped == len(state.history) == 10
    assert subscription.errors == 0
    if on_full is OnFull.WAIT:
        assert subscription.dropped == 0
    told = list(state.history)
    for number in range(4):
        of_one_call = [event for event in seen if event.parallel_index == number]
        assert of_one_call == [event for event in told if event in of_one_call]


async def pause(number: int) -> None:
    await asyncio.sleep(number % 2)


async def a_subscriber_that_drops_events_gets_each_other_one_once_and_in_order() -> None:
    await _events_reach_a_buffered_subscriber(OnFull.DROP_OLDEST)


async def a_subscriber_that_makes_calls_wait_gets_every_event() -> None:
    await _events_reach_a_buffered_subscriber(OnFull.WAIT)


async def an_async_iterable_is_pulled_only_as_results_are_read() -> None:
    gauge = Gauge(2)
    pulled = given = 0
    detangle.invariant(lambda: pulled - given <= 16 + 2 + 1, "backpressure")

    async def numbers() -> AsyncIterator[int]:
        nonlocal pulled
        for number in range(24):
            await asyncio.sleep(0)
            pulled += 1
            yield number

    async def work(number: int) -> int:
        await gauge.hold()
        return number

    ordered = detangle.flip()
    values: list[int] = []
    async with ExecutionState().parallel(max_workers=2) as p:
        p.map(work, numbers())
        async for result in p.stream(ordered=ordered):
            values.append(result.unwrap())
            given += 1
            await asyncio.sleep(0)
    assert (values if ordered else sorted(values)) == list(range(24))


async def two_readers_of_one_stream_share_its_results() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        return number

    values: list[int] = []
    async with ExecutionState().parallel(max_workers=3) as p:
        p.map(work, range(12))
        stream = p.stream(ordered=detangle.flip())

        async def read() -> None:
            async for result in stream:
                values.append(result.unwrap())
                await asyncio.sleep(0)

        readers = [asyncio.create_task(read()) for _ in range(2)]
        await asyncio.wait(readers)
    assert [reader.exception() for reader in readers] == [None, None]
    assert sorted(values) == list(range(12))


async def _enrol_some_of_everything(p: ParallelExecutionManager, gauge: Gauge) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    async def work(number: int) -> int:
        async with ExecutionState().parallel(max_workers=1) as inner:
            inner.add(gauge.hold())
            inner.add(gauge.hold(0.5))
            await inner.gather()
        return number

    for number in range(2):
        p.add(partial(work, number))
    p.map(work, numbers())


async def a_cancellation_at_the_worst_await_leaves_nothing_behind() -> None:
    gauge = Gauge(2)
    state = ExecutionState(store=MemoryStore() if detangle.flip() else None)
    state.event_bus.subscribe(lambda event: asyncio.sleep(0))
    read = detangle.choice(["gather", "stream", "nothing"])
    group = state.parallel(max_workers=2)

    async def body() -> str:
        async with group as p:
            await _enrol_some_of_everything(p, gauge)
            if read == "gather":
                await p.gather()
            elif read == "stream":
                async for _ in p.stream():
                    await asyncio.sleep(0)
        return "done"

    with suppress(TimeoutError):
        assert await detangle.maybe_timeout(body(), points=40) == "done"
    assert gauge.now == 0
    assert not tasks_besides_this_one()
    if group.group_id and group.group.is_complete:
        assert group.group.running == 0


async def a_call_cancelled_at_the_worst_await_is_either_recorded_or_made_again() -> None:
    store = MemoryStore()
    made = 0

    @tool(retry=RetryPolicy(max_attempts=2, initial_delay=1.0))
    async def flaky() -> int:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        if made == 1:
            raise Boom
        return made

    async def execute() -> int:
        state = ExecutionState(store=store, run_id="r")
        state.event_bus.subscribe(lambda event: asyncio.sleep(0))
        async with state:
            return await flaky()

    first: int | None = None
    with suppress(TimeoutError):
        first = await detangle.maybe_timeout(execute(), points=12)
    recorded = [outcome.value async for outcome in store.outcomes("r")]
    made_before = made
    second = await execute()
    assert first in (None, second)
    if recorded:
        assert [second] == recorded
        assert made == made_before
    assert not tasks_besides_this_one()


async def a_full_buffer_takes_one_event_for_each_that_is_handled() -> None:
    bus = EventBus()
    handled = 0

    async def handle(event: ExecutionEvent[Any]) -> None:
        nonlocal handled
        await asyncio.sleep(1)
        handled += 1

    bus.subscribe(handle, buffer=2, on_full="wait")
    event: ExecutionEvent[Any] = ExecutionEvent(actor=Tool(name="work", handler=pause))
    publishers = [asyncio.create_task(bus.publish(event)) for _ in range(6)]
    detangle.invariant(lambda: sum(each.done() for each in publishers) <= handled + 1 + 2, "a bounded buffer")
    await asyncio.wait(publishers)
    await bus.drain()
    assert handled == 6


SCENARIOS: list[Scenario] = [
    a_limit_is_held_while_members_add_members,
    fail_fast_raises_a_failure_of_its_own_and_leaves_nothing_running,
    a_timeout_and_the_end_of_the_work_may_fall_on_the_same_tick,
    two_groups_share_a_breaker_that_lets_no_more_than_its_probes_through,
    a_probe_that_is_cancelled_or_a_report_that_comes_late_says_nothing_to_the_breaker,
    a_subscriber_that_drops_events_gets_each_other_one_once_and_in_order,
    a_subscriber_that_makes_calls_wait_gets_every_event,
    a_full_buffer_takes_one_event_for_each_that_is_handled,
    an_async_iterable_is_pulled_only_as_results_are_read,
    two_readers_of_one_stream_share_its_results,
    a_cancellation_at_the_worst_await_leaves_nothing_behind,
    a_call_cancelled_at_the_worst_await_is_either_recorded_or_made_again,
]


def _explore(scenario: Scenario, runs: int, seed: int) -> None:
    detangle.explore(scenario, runs=runs, seed=seed, database=False, timer_jitter=0.1)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_under_every_schedule_tried(scenario: Scenario) -> None:
    _explore(scenario, runs=400, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_under_many_more_schedules(scenario: Scenario) -> None:
    _explore(scenario, runs=3000, seed=2)
