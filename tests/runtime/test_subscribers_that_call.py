"""Subscribers that make calls, or wait for what cannot come while they are waited for: they end, or are given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rh_agents import EventBus, ExecutionEvent, ExecutionState, MemoryStore, parallel, tool
from rh_agents.core.bus import Subscription
from rh_agents.core.execution import OnFull
from tests.properties.virtual import run_virtually, tasks_besides_this_one

Handler = Callable[[ExecutionEvent[Any]], Awaitable[object]]


@tool
async def work(number: int) -> int:
    await asyncio.sleep(0.1)
    return number


@tool
async def note(text: str) -> str:
    await asyncio.sleep(0.1)
    return text


async def observed(
    handler: Handler, others: list[Handler] | None = None, store: MemoryStore | None = None, **options: Any
) -> tuple[Subscription, float]:
    """Execute something that the handler observes; how that got on, and the seconds it took."""
    began = asyncio.get_running_loop().time()
    state = ExecutionState(event_bus=EventBus(handler_timeout=10.0), store=store, run_id="one")
    subscription = state.event_bus.subscribe(handler, **options)
    for other in others or ():
        state.event_bus.subscribe(other)
    async with state, parallel(name="g") as p:
        p.map(work, range(3))
        assert [result.unwrap() for result in await p.gather()] == [0, 1, 2]
    took = asyncio.get_running_loop().time() - began
    return subscription, took


async def leaves_nothing() -> None:
    """What was given up may have to clean up, or waits for the run."""
    await asyncio.sleep(1.0)
    assert tasks_besides_this_one() == set()


async def opens_a_group(event: ExecutionEvent[Any]) -> None:
    if event.name == "work":
        async with parallel(name="sub") as p:
            p.map(note, ["a", "b"])
            await p.gather()


async def makes_calls(event: ExecutionEvent[Any]) -> None:
    if event.name == "work":
        await asyncio.gather(note("a"), note("b"))
        assert await note("c") == "c"


async def makes_calls_that_fail(event: ExecutionEvent[Any]) -> None:
    if event.name == "work":
        async with parallel(error_strategy="fail_fast") as p:
            p.add(note("a"))
            p.add(asyncio.sleep(0, 1 / 0 if event.is_replayed else 1))
            await p.gather()


@pytest.mark.parametrize(
    "options", [{}, {"buffer": 100}, {"buffer": 100, "on_full": OnFull.WAIT}], ids=["at once", "buffered", "waiting"]
)
@pytest.mark.parametrize("handler", [opens_a_group, makes_calls, makes_calls_that_fail])
@pytest.mark.parametrize("store", [False, True])
def test_a_subscriber_may_make_calls_and_groups_in_the_run_that_it_observes(
    handler: Handler, options: dict[str, Any], store: bool
) -> None:
    subscription, took = run_virtually(lambda: observed(handler, store=MemoryStore() if store else None, **options))
    assert subscription.errors == 0 or (store and options)  # what it records after the end of the run is an error
    assert subscription.dropped == 0
    assert subscription.delivered >= 6
    assert took < 10.0


@pytest.mark.parametrize("options", [{"buffer": 4}, {"buffer": 4, "on_full": OnFull.WAIT}], ids=["drops", "waits"])
def test_a_subscriber_that_makes_a_call_at_every_event_does_not_keep_the_run_from_ending(
    options: dict[str, Any],
) -> None:
    async def endless(event: ExecutionEvent[Any]) -> None:
        await note("again")

    async def main() -> float:
        subscription, took = await observed(endless, **options)
        assert subscription.delivered > 0 or subscription.errors
        await leaves_nothing()
        return took

    assert run_virtually(main) < 60.0


def test_two_subscribers_that_make_calls_do_not_wait_for_each_other() -> None:
    subscription, took = run_virtually(lambda: observed(opens_a_group, [makes_calls, opens_a_group]))
    assert subscription.errors == 0
    assert took < 10.0


def test_a_small_buffer_that_waits_for_its_own_subscriber_ends_with_its_time() -> None:
    subscription, took = run_virtually(lambda: observed(makes_calls, buffer=1, on_full=OnFull.WAIT))
    assert subscription.errors == 1
    assert took < 60.0


class Waiting:
    """Handlers that wait for what cannot come."""

    def __init__(self) -> None:
        self.completed = asyncio.Event()
        self.run: asyncio.Task[tuple[Subscription, float]] | None = None

    async def for_another_event(self, event: ExecutionEvent[Any]) -> None:
        if event.name == "work" and not event.execution_status.is_final:
            await self.completed.wait()
        elif event.name == "work":
            self.completed.set()

    async def for_the_run(self, event: ExecutionEvent[Any]) -> None:
        if event.name == "work":
            assert self.run is not None
            await self.run

    async def whatever_it_is_told(self, event: ExecutionEvent[Any]) -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(1_000_000)
            except asyncio.CancelledError:
                continue  # it does not want to end

    async def with_a_cleanup_that_makes_calls(self, event: ExecutionEvent[Any]) -> None:
        if event.name == "work":
            try:
                await asyncio.sleep(1_000_000)
            finally:
                async with parallel() as p:
                    p.add(note("cleaned up"))
                    await p.gather()


@pytest.mark.lazy_tasks("the handler is asked before anybody knows the task of the run")
@pytest.mark.parametrize("options", [{}, {"buffer": 100}], ids=["at once", "buffered"])
@pytest.mark.parametrize("what", ["for_another_event", "for_the_run", "with_a_cleanup_that_makes_calls"])
def test_a_subscriber_that_waits_for_what_cannot_come_is_given_up_after_its_time(
    what: str, options: dict[str, Any]
) -> None:
    async def main() -> tuple[Subscription, float]:
        waiting = Waiting()
        waiting.run = asyncio.create_task(observed(getattr(waiting, what), **options), name="run")
        try:
            return (await asyncio.gather(waiting.run))[0]
        finally:
            await leaves_nothing()

    subscription, took = run_virtually(main)
    assert isinstance(subscription.last_error, TimeoutError)
    assert subscription.errors == 1
    assert took <= 11.0


def test_a_subscriber_that_does_not_end_when_it_is_cancelled_is_given_up_all_the_same() -> None:
    async def main() -> None:
        handler = Waiting().whatever_it_is_told
        subscription, took = await observed(handler)
        assert subscription.errors == 1
        assert took <= 11.0
        for _ in range(2):  # it goes on alone, and still does not end
            (left,) = (task for task in asyncio.all_tasks() if task is not asyncio.current_task())
            left.cancel()
            await asyncio.sleep(0)

    run_virtually(main)


def test_a_cancellation_of_the_call_reaches_the_handler_that_it_waits_for_and_is_no_error_of_it() -> None:
    seen: list[str] = []

    async def handler(event: ExecutionEvent[Any]) -> None:
        if event.name == "work":
            try:
                await asyncio.sleep(5.0)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

    async def main() -> None:
        state = ExecutionState()
        subscription = state.event_bus.subscribe(handler)

        async def flow() -> None:
            async with state:
                await work(1)

        task = asyncio.create_task(flow())
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == ["cancelled"]
        assert subscription.errors == 0

    run_virtually(main)
