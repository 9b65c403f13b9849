"""How groups end when something outside of the ordinary ends them."""

import asyncio
import gc
import itertools
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import detangle
import pytest

from rh_agents import CallCancelled, ExecutionState, GroupStatus, MemoryStore, parallel, tool
from rh_agents.core._group import recovery
from rh_agents.core._run.frame import Frame
from rh_agents.core.errors import UsageError


async def double(number: int) -> int:
    await asyncio.sleep(0.1)
    return number * 2


def test_ctrl_c_passes_a_group_and_cancels_the_others(caplog: pytest.LogCaptureFixture) -> None:
    cancelled: list[bool] = []

    async def leave() -> None:
        raise KeyboardInterrupt

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main() -> None:
        async with parallel() as p:
            p.add(wait)
            p.add(leave)
            await p.gather()

    with caplog.at_level(logging.ERROR, "asyncio"), pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    gc.collect()
    assert cancelled == [True]
    assert [record.message for record in caplog.records] == []


def test_what_an_async_iterable_raises_when_it_is_closed_is_raised_by_the_block() -> None:
    async def rows() -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                yield number
        finally:
            raise OSError("the connection was lost already")

    async def main() -> None:
        with pytest.raises(OSError, match="lost already"):
            async with parallel(max_workers=1) as p:
                p.map(double, rows())
                async for _ in p.stream():
                    break
        assert p.group.status is GroupStatus.FAILED

    detangle.run(main)


def test_a_group_whose_reading_task_is_cancelled_by_somebody_says_so() -> None:
    async def rows() -> AsyncIterator[int]:
        await asyncio.sleep(60)
        yield 1

    async def main() -> None:
        with pytest.raises(CallCancelled, match="but not by its group"):
            async with parallel() as p:
                p.map(double, rows())
                await asyncio.sleep(1)
                (reader,) = (task for task in asyncio.all_tasks() if task.get_name() == "rh_agents: pull items")
                reader.cancel()
                await p.gather()

    detangle.run(main)


def test_a_stream_does_not_search_an_endless_iterable_for_an_item_that_has_left_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "_LOOK_AHEAD", 20)
    pulled = 0

    def numbers(first: int) -> Iterator[int]:
        nonlocal pulled
        for number in itertools.count(first):
            pulled += 1
            yield number

    async def execute(store: MemoryStore, first: int) -> int:
        async with ExecutionState(store=store, run_id="r") as state, state.parallel(max_workers=1, name="g") as p:
            p.map(double, numbers(first))
            async for result in p.stream():
                return int(result.unwrap())
        raise AssertionError("the stream ended")

    async def main() -> None:
        nonlocal pulled
        store = MemoryStore()
        assert await execute(store, -5) == -10
        pulled = 0
        assert await execute(store, 100) == 200
        assert pulled < 200

    detangle.run(main)


def test_a_group_can_be_cancelled_only_once_it_has_been_entered() -> None:
    with pytest.raises(UsageError, match="inside the block"):
        parallel().cancel()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_groups_work_in_an_event_loop_that_makes_the_first_step_of_a_task_at_once() -> None:
    async def main() -> None:
        factory: Any = asyncio.eager_task_factory  # type: ignore[attr-defined,unused-ignore]
        asyncio.get_running_loop().set_task_factory(factory)

        async def at_once(number: int) -> int:
            return number

        async with parallel(max_workers=2) as p:
            p.map(at_once, range(100))
            assert [result.unwrap() for result in await p.gather()] == list(range(100))

        async with parallel() as p:

            async def cancel_all() -> None:
                p.cancel()
                await asyncio.sleep(60)

            p.add(cancel_all)
            assert await p.gather() == []
        assert p.group.status is GroupStatus.CANCELLED

    asyncio.run(main())


def test_members_that_have_ended_leave_nothing_for_the_garbage_collector() -> None:
    """Collecting cycles of thousands of tasks took a fifth of the time of a recorded run."""

    @tool
    async def nothing(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def execute() -> None:
        async with ExecutionState(store=MemoryStore(), history_limit=0), parallel(max_workers=10) as p:
            p.map(nothing, range(50))
            async for result in p.stream():
                assert result.ok

    asyncio.run(execute())
    gc.collect()
    gc.disable()
    try:
        asyncio.run(execute())
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [found for found in gc.garbage if isinstance(found, Frame | asyncio.Task)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert len(left) < 10, "those of the run itself, not of its members"
