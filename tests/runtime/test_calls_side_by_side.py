"""Calls in tasks of the program's own, when its run is stopped: `asyncio.gather` forgets all but the first."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from rh_agents import ExecutionState, RunAwaiting, RunStopped
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
