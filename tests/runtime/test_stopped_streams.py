"""What a stream gives while its run is being stopped, and after that: always in one order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rh_agents import Budget, ExecutionState, RetryPolicy, RunStopped, agent, current, parallel
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import KeepingStore, SlowlyRead, World, crash


def test_an_ordered_stream_skips_no_member_that_was_stopped() -> None:
    there = World()
    fetch = there.make_fetch()

    @agent
    async def two(first: str, second: str) -> list[Any]:
        return [await fetch(first), await fetch(second)]

    async def execute(state: ExecutionState) -> None:
        orders.append([])
        async with state, parallel() as p:
            p.add(two("a", "b"))
            p.add(fetch("c"))
            async for result in p.stream(ordered=True):
                orders[-1].append(result.unwrap())

    orders: list[list[Any]] = []

    async def main() -> None:
        state = there.again()
        asyncio.get_running_loop().call_later(0.5, state.request_interrupt)
        with pytest.raises(RunStopped):
            await execute(state)
        await execute(there.again())
        assert orders == [[], [["a", "b"], "c"]]

    run_virtually(main)


def test_a_stream_gives_no_recorded_member_before_one_that_was_to_come_first() -> None:
    there = World()
    there.seconds = {0: 2.0, 1: 0.1, 2: 5.0}
    fetch = there.make_fetch()

    async def slowly() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0.1)
            yield number

    async def execute(state: ExecutionState) -> None:
        orders.append([])
        async with state, parallel() as p:
            p.map(fetch, slowly())
            async for result in p.stream():
                orders[-1].append(result.index)

    orders: list[list[int | None]] = []

    async def main() -> None:
        for seconds in (3.0, 0.15):
            state = there.again()
            asyncio.get_running_loop().call_later(seconds, functools.partial(state.request_interrupt, grace=0.0))
            with pytest.raises(RunStopped):
                await execute(state)
        await execute(there.again())
        assert orders == [[1, 0], [], [1, 0, 2]]

    run_virtually(main)


def test_a_crawler_that_is_executed_again_gets_new_and_reused_results_in_the_same_order_each_time() -> None:
    there = World()
    there.seconds = {0: 1.0, 1: 3.0, 2: 1.0, 3: 0.5}
    fetch = there.make_fetch()
    seen: list[list[int | None]] = []

    @agent(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=False))
    async def crawl() -> None:
        """The first page fails each time, so that the second attempt makes it anew and reuses the others."""
        seen.append([])
        pages = iter(range(1, 4))
        async with parallel() as p:
            p.add(fetch(0))
            async for result in p.stream():
                seen[-1].append(result.index)
                for page in itertools.islice(pages, 2):
                    p.add(fetch(page))
        if current().attempt == 1:
            raise ConnectionError

    async def main() -> None:
        there.down = [0]
        await crash(there.again(), lambda: crawl().outcome())
        assert seen == [[0, 2, 3, 1], [0, 2, 3, 1]]
        assert isinstance(there.store, KeepingStore)
        outcomes = [outcome for _, outcome in there.store.entries if outcome is not None]
        there.store = await there.store.after_the_first(len(there.store.entries) - 1)
        assert len(outcomes) == 6, "five pages, and the agent, whose outcome is lost"
        async with there.again():
            await crawl()
        assert seen[2:] == [[0, 2, 3, 1]]

    run_virtually(main)


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_stream_whose_group_fails_while_its_run_is_stopped_gives_what_there_is_in_every_execution(
    is_ordered: bool,
) -> None:
    """The failure has ended the group, so nothing is missing any more that a larger budget would bring."""
    there = World()
    there.seconds, there.down = {"bad": 2.0}, ["bad"]
    fetch = there.make_fetch()

    @agent
    async def two(first: str, second: str) -> list[Any]:
        return [await fetch(first), await fetch(second)]

    async def execute(budget: Budget) -> list[Any]:
        given: list[Any] = []
        async with there.again(budget=budget, retry_failed=False):
            with pytest.raises(ConnectionError):
                async with parallel(error_strategy="fail_fast") as p:
                    p.add(two("a", "b"))
                    p.add(fetch("c"))
                    p.add(fetch("bad"))
                    async for result in p.stream(ordered=is_ordered):
                        given.append(result.result or result.error_message)  # noqa: PERF401 - then it raises
        return given

    async def main() -> None:
        first = await execute(Budget(calls=4))
        assert first == ["c", "ConnectionError: bad is down"]
        for calls in (4, 40):
            assert await execute(Budget(calls=calls)) == first

    run_virtually(main)


def test_a_stream_that_is_stopped_before_its_recorded_ending_gives_all_or_nothing_of_it() -> None:
    there = World()
    there.store = SlowlyRead()
    there.seconds, there.down = {"a": 5.0}, ["bad"]
    fetch = there.make_fetch()
    stories: list[list[Any]] = []

    async def execute(state: ExecutionState) -> None:
        stories.append([])
        async with state:
            with pytest.raises(ConnectionError):
                async with parallel(error_strategy="fail_fast") as p:
                    p.map(fetch, ["a", "b", "bad"])
                    async for result in p.stream(ordered=True):
                        stories[-1].append(result.index)
            stories[-1].append("failed")

    async def main() -> None:
        await execute(there.again())
        state = there.again(retry_failed=False)
        asyncio.get_running_loop().call_later(2, state.request_interrupt)
        with contextlib.suppress(RunStopped):
            await execute(state)
        assert stories[0] == [1, 2, "failed"]
        assert stories[1] in ([], stories[0])

    run_virtually(main)
