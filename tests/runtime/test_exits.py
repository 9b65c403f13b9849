"""`sys.exit` in a function of the user's is that function's failure; what a signal asks for is not."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from enum import Enum
from types import FrameType
from typing import Any

import pytest

from rh_agents import (
    CircuitBreaker,
    ExecutionEvent,
    ExecutionState,
    MemoryStore,
    RetryPolicy,
    Tool,
    agent,
    parallel,
    run,
    run_sync,
    tool,
)
from rh_agents.errors import CalledExit

CALLED = "CalledExit: called sys.exit(0)"


def leave(_: object = None) -> Any:
    sys.exit(0)


class Colour(Enum):
    RED = "red"

    @classmethod
    def _missing_(cls, value: object) -> Any:
        leave()


async def leave_in_an_enumeration(number: int) -> int:
    return number if number else Colour("blue")  # type: ignore[return-value]


@tool
async def leave_in_a_coroutine(number: int) -> int:
    return number if number else leave()


@tool
def leave_in_a_thread(number: int) -> int:
    return number if number else leave()


@tool(timeout=60)
async def leave_under_a_timeout(number: int) -> int:
    return number if number else leave()


async def leave_in_plain_code(number: int) -> int:
    return number if number else leave()


@pytest.mark.parametrize(
    "function",
    [leave_in_a_coroutine, leave_in_a_thread, leave_under_a_timeout, leave_in_plain_code, leave_in_an_enumeration],
)
@pytest.mark.parametrize("is_recorded", [False, True])
def test_an_exit_is_the_failure_of_its_call_and_costs_its_siblings_nothing(
    function: Callable[[int], Any], is_recorded: bool
) -> None:
    async def main() -> list[str | None]:
        state = ExecutionState(store=MemoryStore() if is_recorded else None)
        async with state, state.parallel(max_workers=2) as p:
            p.map(function, range(5))
            return [result.error_message or str(result.result) for result in await p.gather()]

    assert asyncio.run(main()) == [CALLED, "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("code", "told"), [(None, "sys.exit()"), (3, "sys.exit(3)"), ("no such file", "sys.exit('no such file')")]
)
def test_the_failure_says_with_what_it_was_called(code: Any, told: str) -> None:
    @tool
    async def work() -> None:
        raise SystemExit(code)

    with pytest.raises(CalledExit, match=rf"^called {told.replace('(', '[(]').replace(')', '[)]')}$") as caught:
        run_sync(work)
    assert isinstance(caught.value.__cause__, SystemExit)


def test_an_exit_is_recorded_and_told_again_without_a_call() -> None:
    calls: list[int] = []

    @tool
    async def work() -> None:
        calls.append(1)
        leave()

    @agent
    async def flow() -> str:
        try:
            await work()
        except CalledExit as error:
            return str(error)
        return ""

    async def main() -> None:
        store = MemoryStore()
        for _ in range(2):
            assert await run(flow, store=store, run_id="one") == "called sys.exit(0)"

    asyncio.run(main())
    assert calls == [1]


def test_an_exit_is_retried_and_counted_by_breakers_as_any_failure_is() -> None:
    calls: list[int] = []
    breaker = CircuitBreaker(failure_threshold=2)

    @tool(retry=RetryPolicy(max_attempts=2, initial_delay=0), breaker=breaker)
    async def work() -> None:
        calls.append(1)
        leave()

    with pytest.raises(CalledExit):
        run_sync(work)
    assert (len(calls), breaker.state) == (2, "open")


@pytest.mark.parametrize("where", ["preconditions", "postconditions"])
def test_an_exit_in_a_condition_is_the_failure_of_its_call(where: str) -> None:
    async def work(value: int) -> int:
        return value

    def condition(*_: object) -> None:
        leave()

    async def main() -> str | None:
        conditions: dict[str, Any] = {where: [condition]}
        actor = Tool(name="work", handler=work, **conditions)
        async with ExecutionState() as state:
            return (await ExecutionEvent(actor=actor)(1, "", state)).error_message

    assert asyncio.run(main()) == CALLED


def one_then_exit() -> Iterator[int]:
    yield 1
    leave()


async def one_then_exit_async() -> AsyncIterator[int]:
    yield 1
    leave()


@pytest.mark.parametrize("items", [one_then_exit, one_then_exit_async])
def test_an_exit_in_an_iterable_given_to_map_is_the_failure_of_one_member(items: Callable[[], Any]) -> None:
    async def main() -> list[str | None]:
        async with parallel() as p:
            p.map(leave_in_plain_code, items())
            return [result.error_message for result in await p.gather()]

    assert asyncio.run(main()) == [None, CALLED]


def test_an_exit_in_a_function_that_map_names_items_with_is_the_failure_of_the_item() -> None:
    async def main() -> list[str | None]:
        async with parallel() as p:
            p.map(leave_in_plain_code, [1], name=leave)
            p.map(leave, [1])
            return [result.error_message for result in await p.gather()]

    assert asyncio.run(main()) == [CALLED, CALLED]


@pytest.mark.parametrize("buffer", [0, 10])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_exit_in_a_subscriber_is_counted_and_the_run_goes_on(buffer: int, is_async: bool) -> None:
    async def handle(event: object) -> None:
        leave()

    async def main() -> None:
        async with ExecutionState() as state:
            subscription = state.event_bus.subscribe(handle if is_async else leave, buffer=buffer)
            assert await leave_in_a_coroutine(1) == 1
        assert (subscription.errors, type(subscription.last_error)) == (2, CalledExit)

    asyncio.run(main())


def test_an_exit_in_what_tells_when_to_stop_is_the_error_of_the_run() -> None:
    async def checker() -> bool:
        return bool(leave())

    async def main() -> None:
        async with ExecutionState() as state:
            state.set_interrupt_checker(checker)
            while True:
                await leave_in_a_coroutine(1)
                await asyncio.sleep(0)

    with pytest.raises(CalledExit):
        asyncio.run(main())


def handler(*_: object) -> None:
    sys.exit(3)


class Service:
    def stop(self, number: int, frame: FrameType | None) -> None:
        sys.exit(3)

    __call__ = stop


@pytest.mark.parametrize("stop", [handler, Service().stop, Service(), functools.partial(handler), lambda *_: handler()])
@pytest.mark.parametrize("wants_a_timeout", [False, True])
def test_an_exit_that_a_handler_of_a_signal_asks_for_ends_the_process_and_records_nothing(
    stop: Any, wants_a_timeout: bool
) -> None:
    store = MemoryStore()

    @tool(timeout=60 if wants_a_timeout else None)
    async def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(60)

    async def outcomes() -> list[Any]:
        return [outcome async for outcome in store.outcomes("one")]

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(SystemExit) as caught:
            run_sync(work, store=store, run_id="one")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 3
    assert asyncio.run(outcomes()) == []
