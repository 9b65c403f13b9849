"""A run that is stopped: nothing new begins, what is under way may end, nothing is lost, and nothing is swallowed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rh_agents import (
    EventType,
    ExecutionState,
    ExecutionStatus,
    GroupTimeout,
    MemoryStore,
    RetryPolicy,
    agent,
    parallel,
    run,
    tool,
)
from rh_agents.core._limits.interruption import interrupt_on_signals
from rh_agents.core.errors import RunIsLive, RunStopped, StopRun, StoreError, UsageError
from tests.doubles import HookedStore
from tests.properties.virtual import run_virtually, tasks_besides_this_one
from tests.runtime.worlds import RUN, Crash, World, crash, statuses


@pytest.fixture
def world() -> World:
    return World()


def at(seconds: float, function: Callable[..., object], *args: Any) -> None:
    """Call the function so many seconds from now."""
    asyncio.get_running_loop().call_later(seconds, function, *args)


def now() -> float:
    return asyncio.get_running_loop().time()


def expect_no_trace_of_a_cancellation() -> None:
    """The stop was ours, so that whoever executed the run can go on as if nobody had cancelled anything."""
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert tasks_besides_this_one() == set()


# -- what is under way, and what would begin --------------------------------------------------------------------------


def test_a_stopped_run_begins_no_call_and_records_those_that_end_within_the_grace(world: World) -> None:
    fetch = world.make_fetch()

    async def pages(state: ExecutionState) -> list[Any]:
        async with state.parallel(max_workers=2, name="pages") as p:
            p.map(fetch, list("abcd"))
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped, match="run 'monday' was stopped: a deploy") as caught:
            async with state:
                at(1.5, state.request_interrupt, "a deploy")
                await pages(state)
        assert (caught.value.run_id, caught.value.reason) == ("monday", "a deploy")
        assert now() == 2.0
        assert world.forget() == ["a", "b", "c", "d"]
        assert (state.status, state.is_interrupted) == (ExecutionStatus.CANCELLED, True)
        info = await world.info()
        assert (info.status, info.owner, info.epoch) == (ExecutionStatus.STARTED, None, 0), "it goes on next time"
        expect_no_trace_of_a_cancellation()
        async with world.again() as state:
            assert await pages(state) == ["a", "b", "c", "d"]
        assert world.calls == []

    run_virtually(main)


def test_what_is_cut_off_has_no_outcome_and_is_made_again(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def pages() -> list[Any]:
        async with parallel(name="pages") as p:
            p.map(fetch, ["quick", "slow"])
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                at(0.5, lambda: state.request_interrupt("a deploy", grace=10))
                await pages()
        assert now() == 10.5
        assert await world.values() == ["quick"]
        assert world.forget() == ["quick"]
        expect_no_trace_of_a_cancellation()
        async with world.again():
            assert await pages() == ["quick", "slow"]
        assert world.calls == ["slow"]

    run_virtually(main)


def test_a_grace_of_nothing_cuts_off_at_once(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                at(0.5, lambda: state.request_interrupt("now", grace=0))
                await fetch("a")
        assert (now(), await world.values()) == (0.5, [])
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_an_endless_grace_never_cuts_off(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"a": 1e6}

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                at(0.5, lambda: state.request_interrupt("later", grace=float("inf")))
                await fetch("a")
                await fetch("b")
        assert (now(), await world.values()) == (1e6, ["a"])

    run_virtually(main)


@pytest.mark.parametrize(("first", "second", "end"), [(30, 0, 1.0), (30, 5, 6.0), (5, 30, 5.5), (float("inf"), 2, 3.0)])
def test_a_second_request_can_only_shorten_the_grace(world: World, first: float, second: float, end: float) -> None:
    fetch = world.make_fetch()
    world.seconds = {"a": 100}

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped, match="the first reason"):
            async with state:
                at(0.5, lambda: state.request_interrupt("the first reason", grace=first))
                at(1.0, lambda: state.request_interrupt("the second reason", grace=second))
                await fetch("a")
        assert now() == end
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_recorded_outcomes_are_still_given_while_a_run_is_being_stopped(world: World) -> None:
    fetch = world.make_fetch()

    async def work() -> None:
        assert await fetch("a") == "a"

    async def main() -> None:
        await crash(world.again(), work)
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                state.request_interrupt("early")
                assert await fetch("a") == "a"
                await fetch("b")
        assert world.begun == ["a"]

    run_virtually(main)


def test_a_call_that_ends_while_the_slow_store_is_asked_to_keep_it_is_kept() -> None:
    class SlowStore(HookedStore):
        async def before_waiting(self) -> None:
            await asyncio.sleep(5)

    world = World()
    world.store = SlowStore()
    fetch = world.make_fetch()

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state, state.parallel() as p:
                p.map(fetch, list("ab"))
                at(3, lambda: state.request_interrupt("a deploy", grace=10))
                await p.gather()
        assert (now(), sorted(await world.values())) == (6.0, ["a", "b"])

    run_virtually(main)


# -- when it is asked for ---------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_before_its_first_call_makes_none(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state = world.again()
        state.request_interrupt("too early")
        with pytest.raises(RunStopped, match="too early"):
            async with state:
                await fetch("a")
        assert world.begun == []
        expect_no_trace_of_a_cancellation()
        async with world.again():
            await fetch("a")

    run_virtually(main)


@pytest.mark.parametrize("grace", [0.0, 5.0])
def test_a_run_that_makes_no_call_after_the_request_has_come_to_its_end(world: World, grace: float) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state = world.again()
        async with state:
            await fetch("a")
            state.request_interrupt("too late", grace=grace)
        assert (await world.info()).status is ExecutionStatus.COMPLETED
        await asyncio.sleep(100)  # nothing of it is left that could cut off what follows
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


@pytest.mark.parametrize("grace", [0.0, 5.0])
def test_a_request_after_the_end_does_nothing(world: World, grace: float) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again() as state:
            await fetch("a")
        at(1, lambda: state.request_interrupt("much too late", grace=grace))
        await asyncio.sleep(100)
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


@pytest.mark.parametrize("grace", [0.0, 5.0])
def test_a_second_request_while_the_run_is_being_closed_does_not_hide_that_it_was_stopped(
    world: World, grace: float
) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state = world.again()

        async def slow_subscriber(event: Any) -> None:
            await asyncio.sleep(20)

        with pytest.raises(RunStopped, match="first"):
            async with state:
                state.event_bus.subscribe(slow_subscriber, buffer=10)
                at(0.5, state.request_interrupt, "first")
                at(2, lambda: state.request_interrupt("second", grace=grace))
                await fetch("a")
                await fetch("b")
        assert (await world.info()).owner is None
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_a_run_can_be_stopped_from_another_thread(world: World) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        has_begun = asyncio.Event()

        @tool
        async def wait() -> None:
            has_begun.set()
            await asyncio.Event().wait()

        state = world.again()

        def stop() -> None:
            loop.call_soon_threadsafe(lambda: state.request_interrupt("from a thread", grace=0))

        async def stop_soon() -> None:
            await has_begun.wait()
            thread = threading.Thread(target=stop)
            thread.start()
            thread.join()

        stopper = asyncio.ensure_future(stop_soon())
        with pytest.raises(RunStopped, match="from a thread"):
            async with state:
                await wait()
        await stopper
        expect_no_trace_of_a_cancellation()

    asyncio.run(main())


def test_a_call_can_stop_the_run_in_which_it_is_made(world: World) -> None:
    async def main() -> None:
        state = world.again()

        @tool
        async def enough() -> str:
            state.request_interrupt("that is enough")
            return "the last one"

        with pytest.raises(RunStopped, match="that is enough"):
            async with state:
                assert await enough() == "the last one"
                await enough()
        assert await world.values() == ["the last one"]

    run_virtually(main)


def test_set_timeout_stops_a_run_and_says_so(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped, match=r"it took longer than its timeout of 2\.5 s"):
            async with state:
                state.set_timeout(2.5)
                for number in range(10):
                    await fetch(number)
        assert (now(), await world.values()) == (3.0, [0, 1, 2])
        with pytest.raises(ValueError, match="they must be more than 0"):
            state.set_timeout(0)

    run_virtually(main)


def test_a_timeout_that_does_not_pass_leaves_nothing_behind(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again() as state:
            state.set_timeout(2.5, grace=0)
            await fetch("a")
        await asyncio.sleep(10)
        assert not state.is_interrupted
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_a_run_that_has_ended_is_not_kept_by_what_would_have_stopped_it(world: World) -> None:
    async def work() -> weakref.ref[ExecutionState]:
        async with world.again() as state:
            state.set_timeout(1e6)
            state.set_interrupt_checker(asyncio.Event().wait)
        state.request_interrupt()
        return weakref.ref(state)

    async def main() -> None:
        state = await work()
        gc.collect()
        assert state() is None

    asyncio.run(main())  # whose loop keeps nothing of what was cancelled


def test_a_run_that_records_nothing_is_stopped_in_the_same_way(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state = ExecutionState()
        with pytest.raises(RunStopped):
            async with state:
                at(0.5, state.request_interrupt)
                await fetch("a")
                await fetch("b")
        assert world.calls == ["a"]
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


# -- checkers ---------------------------------------------------------------------------------------------------------


def test_a_checker_that_is_a_coroutine_function_is_awaited_beside_the_run(world: World) -> None:
    fetch = world.make_fetch()

    async def disk_is_full() -> str:
        await asyncio.sleep(1.5)
        return "the disk is full"

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped, match="the disk is full"):
            async with state:
                state.set_interrupt_checker(disk_is_full)
                for number in range(9):
                    await fetch(number)
        assert (now(), await world.values()) == (2.0, [0, 1])
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_the_method_of_an_event_can_be_the_checker(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state, stop = world.again(), asyncio.Event()
        with pytest.raises(RunStopped, match="the interrupt checker said so"):
            async with state:
                state.set_interrupt_checker(stop.wait)
                await fetch("a")
                stop.set()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await fetch("b")
        assert world.begun == ["a"]
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_a_checker_that_says_no_does_not_stop_the_run_and_one_that_waits_ends_with_it(world: World) -> None:
    fetch = world.make_fetch()

    async def no() -> bool:
        return False

    async def main() -> None:
        for checker in (no, asyncio.Event().wait, lambda: None, lambda: False):
            async with world.again() as state:
                state.set_interrupt_checker(checker)
                assert await fetch("a") == "a"
            expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_a_checker_that_is_a_plain_function_is_asked_before_each_call(world: World) -> None:
    fetch = world.make_fetch()
    asked: list[int] = []

    def checker() -> str | None:
        asked.append(len(world.begun))
        return "two are enough" if len(world.begun) == 2 else None

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped, match="two are enough"):
            async with state:
                state.set_interrupt_checker(checker)
                for number in range(9):
                    await fetch(number)
        assert (asked, world.calls) == ([0, 1, 2], [0, 1])

    run_virtually(main)


def test_the_grace_of_a_checker_that_is_a_plain_function_passes(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                state.set_interrupt_checker(lambda: len(world.begun) >= 2, grace=5)
                async with state.parallel(max_workers=2) as p:
                    p.map(fetch, ["slow", "quick", "never"])
                    await p.gather()
        assert (now(), await world.values()) == (6.0, ["quick"])
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_a_function_that_gives_something_to_await_is_a_checker_too(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state, stop = world.again(), asyncio.Event()
        with pytest.raises(RunStopped):
            async with state:
                state.set_interrupt_checker(lambda: stop.wait())
                await fetch("a")
                stop.set()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await fetch("b")
        assert world.begun == ["a"]
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_a_checker_takes_the_place_of_the_one_before(world: World) -> None:
    fetch = world.make_fetch()

    async def first() -> str:
        await asyncio.sleep(0.5)
        return "the first"

    async def main() -> None:
        async with world.again() as state:
            state.set_interrupt_checker(first)
            state.set_interrupt_checker(asyncio.Event().wait)
            await fetch("a")
            await fetch("b")
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


class CheckerError(Exception):
    """What a checker raises."""


def test_a_checker_that_raises_stops_the_run_with_its_own_error(world: World) -> None:
    fetch = world.make_fetch()

    async def broken() -> str:
        await asyncio.sleep(0.5)
        raise CheckerError("the checker is broken")

    async def main() -> None:
        with pytest.raises(CheckerError, match="the checker is broken"):
            async with world.again() as state:
                state.set_interrupt_checker(broken)
                await fetch("a")
                await fetch("b")
        assert await world.values() == ["a"]
        info = await world.info()
        assert (info.owner, info.status) == (None, ExecutionStatus.STARTED)
        assert "the checker is broken" in (info.reason or "")
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_a_plain_checker_that_raises_ends_the_run_with_its_own_error_and_records_no_failure_of_a_call(
    world: World,
) -> None:
    fetch = world.make_fetch()

    def broken() -> str:
        raise CheckerError("the checker is broken")

    async def main() -> None:
        for grouped in (False, True):
            with pytest.raises(CheckerError, match="the checker is broken"):
                async with world.again() as state:
                    state.set_interrupt_checker(broken)
                    if grouped:
                        async with state.parallel() as p:
                            p.map(fetch, list("ab"))
                            await p.gather()
                    else:
                        await fetch("a")
            assert (world.begun, await world.values(), (await world.info()).owner) == ([], [], None)
            expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_a_run_that_cannot_be_entered_leaves_no_checker_behind(world: World) -> None:
    async def main() -> None:
        async with world.again():
            other = world.again()
            other.set_interrupt_checker(asyncio.Event().wait)
            other.set_timeout(5)
            with pytest.raises(RunIsLive):
                async with other:
                    pass
        await asyncio.sleep(0)
        assert tasks_besides_this_one() == set()

    run_virtually(main)


# -- cancellations of one's own ---------------------------------------------------------------------------------------


def test_a_cancellation_from_outside_during_the_grace_is_a_cancellation(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"a": 100}

    async def work() -> None:
        state = world.again()
        async with state:
            at(1, lambda: state.request_interrupt("a deploy", grace=10))
            await fetch("a")

    async def main() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.wait([task], timeout=5)
        task.cancel("somebody else")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (now(), task.cancelled(), await world.values()) == (5.0, True, [])
        assert (await world.info()).status is ExecutionStatus.STARTED
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


@pytest.mark.parametrize("moments", [(5.0, 5.0), (5.0, 5.5), (5.5, 5.0)])
def test_a_cancellation_from_outside_at_the_moment_of_the_cut_is_not_swallowed(
    world: World, moments: tuple[float, float]
) -> None:
    stubborn_for, cut, cancelled = 1.0, *moments

    @tool
    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(stubborn_for)

    async def work() -> None:
        state = world.again()
        async with state:
            at(cut, lambda: state.request_interrupt("a deploy", grace=0))
            async with state.parallel() as p:
                p.add(stubborn())
                await p.gather()

    async def main() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.wait([task], timeout=cancelled)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await world.info()).owner is None
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


@pytest.mark.parametrize("limit", [0.5, 1.0, 5.0, 11.0, 11.5])
def test_a_timeout_around_a_run_that_is_being_stopped_is_kept(world: World, limit: float) -> None:
    @tool
    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)

    async def main() -> None:
        state = world.again()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(limit):
                async with state:
                    at(1, lambda: state.request_interrupt("a deploy", grace=10))
                    await stubborn()
        assert await world.values() == []
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_a_timeout_around_a_run_that_was_cut_off_in_time_does_not_pass(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"a": 100}

    async def main() -> None:
        state = world.again()
        async with asyncio.timeout(20):
            with pytest.raises(RunStopped):
                async with state:
                    at(1, lambda: state.request_interrupt("a deploy", grace=10))
                    await fetch("a")
            expect_no_trace_of_a_cancellation()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(2)

    run_virtually(main)


async def _raise_something() -> None:
    raise LookupError("of the program itself")


@pytest.mark.parametrize("how", ["by another call", "by an error of its own", "by nothing"])
def test_a_cut_that_the_program_replaces_leaves_no_trace_in_the_task(world: World, how: str) -> None:
    fetch = world.make_fetch()
    world.seconds = {"a": 100}
    expected = {"by another call": RunStopped, "by an error of its own": LookupError, "by nothing": None}[how]

    async def body(state: ExecutionState) -> None:
        async with state:
            at(1, lambda: state.request_interrupt("a deploy", grace=2))
            try:
                await fetch("a")
            except asyncio.CancelledError:
                if how == "by another call":
                    await fetch("cleanup")
                elif how == "by an error of its own":
                    await _raise_something()

    async def main() -> None:
        state = world.again()
        if expected is None:
            await body(state)
        else:
            with pytest.raises(expected):
                await body(state)
        expect_no_trace_of_a_cancellation()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(2)

    run_virtually(main)


def test_a_run_within_the_cleanup_of_a_cancelled_task_is_stopped_like_any_other(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"a": 100}
    seen: list[type[BaseException]] = []

    async def work() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            state = world.again()
            at(1, lambda: state.request_interrupt("a deploy", grace=2))
            try:
                async with state:
                    await fetch("a")
            except BaseException as error:  # noqa: BLE001 - all that can come of it
                seen.append(type(error))
            raise

    async def main() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.wait([task], timeout=1)
        task.cancel()
        await asyncio.wait([task])
        assert seen == [RunStopped]
        assert task.cancelled()

    run_virtually(main)


# -- programs of every kind -------------------------------------------------------------------------------------------


def test_handlers_of_ordinary_exceptions_do_not_see_a_stop(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 3}
    hidden: list[str] = []

    @agent
    async def careless(name: str) -> str:
        try:
            async with parallel(name="inner") as p:
                p.map(fetch, [f"{name}1", "slow"])
                await p.gather()
            return str(await fetch(f"{name}2"))
        except Exception as error:  # noqa: BLE001 - what the program does is under test
            hidden.append(repr(error))
            return "hidden"

    async def survey() -> list[Any]:
        async with parallel(name="outer") as p:
            for name in "ab":
                p.add(careless(name))
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                at(0.5, state.request_interrupt)
                await survey()
        assert hidden == []
        assert sorted(world.forget()) == ["a1", "b1", "slow", "slow"]
        async with world.again():
            assert await survey() == ["a2", "b2"]
        assert world.forget() == ["a2", "b2"]

    run_virtually(main)


def test_a_stop_ends_the_wait_before_another_attempt_and_the_attempts_made_count(world: World) -> None:
    fetch = world.make_fetch(retry=RetryPolicy(max_attempts=3, initial_delay=20, multiplier=1, jitter=False))
    world.down = ["a"]

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                at(15, state.request_interrupt)
                await fetch("a")
        assert (now(), world.forget()) == (15.0, ["a"])
        async with world.again():
            result = await fetch("a").outcome()
        assert (result.ok, result.attempts, world.calls) == (False, 3, ["a", "a"])

    run_virtually(main)


def test_a_stream_gives_what_ends_within_the_grace_and_then_stops(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {number: number + 1.0 for number in range(9)}
    given: list[Any] = []

    async def read() -> None:
        async with parallel(max_workers=3) as p:
            p.map(fetch, range(6))
            async for result in p.stream():
                given.append(result.unwrap())  # noqa: PERF401 - what was given before it stops is kept

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                at(0.5, state.request_interrupt)
                await read()
        assert given == world.calls == [0, 1, 2]
        given.clear()
        async with world.again():
            await read()
        assert given == world.calls == [0, 1, 2, 3, 4, 5]

    run_virtually(main)


@pytest.mark.parametrize("how", ["stop", "question"])
def test_a_block_that_cannot_go_on_lets_its_members_come_to_their_end(world: World, how: str) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 10}

    async def work(state: ExecutionState) -> list[Any]:
        async with state.parallel(max_workers=2) as p:
            p.map(fetch, ["slow", "a"])
            await fetch("of the block")
            if how == "stop":
                await fetch("another")
            else:
                await state.ask("Well?")
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                if how == "stop":
                    at(0.5, state.request_interrupt)
                await work(state)
        assert now() == 10.0
        assert sorted(await world.values()) == ["a", "of the block", "slow"]
        for question in await world.store.questions(RUN):
            await world.store.answer(RUN, question.id, b"1")
        async with world.again() as state:
            assert await work(state) == ["slow", "a"]
        assert len(world.calls) == len(set(world.calls))

    run_virtually(main)


def test_an_async_iterable_is_let_go_of_when_its_run_is_stopped(world: World) -> None:
    fetch = world.make_fetch()
    closed: list[str] = []

    async def items() -> AsyncIterator[int]:
        try:
            for number in range(1000):
                await asyncio.sleep(0.25)
                yield number
        finally:
            await asyncio.sleep(0.25)
            closed.append("closed")

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state, state.parallel(max_workers=2) as p:
                at(2.1, state.request_interrupt)
                p.map(fetch, items())
                await p.gather()
        assert closed == ["closed"]
        assert len(await world.values()) == len(world.begun)
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


@pytest.mark.parametrize("how", ["stop", "question"])
def test_an_async_iterable_that_cannot_go_on_costs_no_member_that_is_under_way(world: World, how: str) -> None:
    """It makes calls of its own, which are refused, or it asks somebody who is not there."""
    fetch = world.make_fetch()
    world.seconds = {0: 10, 1: 10}
    state = world.again()

    async def items() -> AsyncIterator[int]:
        for number in range(3):
            await fetch(f"page {number}")
            yield number
            if number == 1 and how == "question":
                await state.ask("More?")

    async def work() -> list[Any]:
        async with state.parallel(max_workers=3) as p:
            p.map(fetch, items())
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        nonlocal state
        with pytest.raises(RunStopped):
            async with state:
                if how == "stop":
                    at(2.5, state.request_interrupt)
                await work()
        assert {0, 1} <= set(await world.values())
        for question in await world.store.questions(RUN):
            await world.store.answer(RUN, question.id, b"1")
        state = world.again()
        async with state:
            assert await work() == [0, 1, 2]
        assert len(world.calls) == len(set(world.calls)) == 6

    run_virtually(main)


def test_a_group_that_is_entered_after_the_request_starts_nothing(world: World) -> None:
    fetch = world.make_fetch()

    async def one_more() -> None:
        world.see("one more")

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                state.request_interrupt("early")
                async with state.parallel() as p:
                    with pytest.raises(StopRun):
                        p.add(one_more())
                    with pytest.raises(StopRun):
                        p.map(fetch, list("abc"))
                    await p.gather()
        assert world.begun == []

    run_virtually(main)


def test_the_timeout_of_a_group_that_passes_within_the_grace_is_not_recorded_as_if_the_program_had_seen_it(
    world: World,
) -> None:
    """The block has been left because of the stop, so the program has not been told; the next time it has to be."""
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def work() -> str:
        async with parallel(timeout=10, name="pages") as p:
            p.map(fetch, ["quick", "slow"])
            await asyncio.sleep(5)
            p.add(fetch("another"))
            try:
                await p.gather()
            except GroupTimeout:
                return "timed out"
        return "done"

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                at(2, lambda: state.request_interrupt("a deploy", grace=60))
                await work()
        async with world.again():
            assert await work() == "timed out"

    run_virtually(main)


@pytest.mark.parametrize("how", ["task group", "gather"])
def test_tasks_of_ones_own_do_not_hide_a_stop(world: World, how: str) -> None:
    fetch = world.make_fetch()

    async def twice(what: str) -> None:
        await fetch(what + "1")
        await fetch(what + "2")

    async def work() -> None:
        if how == "gather":
            await asyncio.gather(twice("a"), twice("b"))
        else:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(twice("a"))
                tasks.create_task(twice("b"))

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                at(0.5, state.request_interrupt)
                await work()
        assert sorted(await world.values()) == ["a1", "b1"]
        assert (await world.info()).status is ExecutionStatus.STARTED

    run_virtually(main)


@pytest.mark.lazy_tasks("up to 3.12, a task group that fails at once leaves a cancellation that is still to be raised")
def test_what_a_task_group_leaves_behind_does_not_make_a_stop_a_cancellation(world: World) -> None:
    """Up to Python 3.12 a task group that has failed leaves its task cancelled for good."""
    fetch = world.make_fetch()

    async def fail() -> None:
        raise ValueError

    async def work() -> None:
        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
        await fetch("a")

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                at(0.5, functools.partial(state.request_interrupt, "enough", grace=0.0))
                await work()
        assert (await world.info()).status is ExecutionStatus.STARTED

    run_virtually(main)


@pytest.mark.parametrize("moment", [0.4, 0.5, 0.6])
def test_whoever_cancels_a_run_that_is_cut_off_gets_the_cancellation(world: World, moment: float) -> None:
    fetch = world.make_fetch()

    async def work(state: ExecutionState) -> None:
        async with state:
            at(0.5, functools.partial(state.request_interrupt, "enough", grace=0.0))
            try:
                await fetch("a")
            finally:
                await asyncio.sleep(0.2)

    async def main() -> None:
        task = asyncio.create_task(work(world.again()))
        at(moment, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()

    run_virtually(main)


def test_run_raises_what_stopped_it(world: World) -> None:
    @agent
    async def survey() -> None:
        raise StopRun("from inside")

    async def main() -> None:
        with pytest.raises(RunStopped, match="from inside"):
            await run(survey, store=world.store, run_id=RUN)
        assert await world.values() == []

    run_virtually(main)


def test_the_groups_of_a_stopped_run_are_told_as_cancelled(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state, state.parallel(max_workers=1) as p:
                p.map(fetch, list("abc"))
                at(0.5, state.request_interrupt)
                await p.gather()
        ends = [event for event in state.history if event.event_type is EventType.GROUP_COMPLETED]
        assert [event.execution_status for event in ends] == [ExecutionStatus.CANCELLED]

    run_virtually(main)


# -- asked for by somebody else ---------------------------------------------------------------------------------------


def test_a_run_that_somebody_cancels_in_its_store_ends_and_begins_a_new_epoch_next_time(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped, match="not needed any more"):
            async with state:
                await fetch("a")
                assert await world.store.request_stop(RUN, "not needed any more")
                await fetch("b")
        info = await world.info()
        assert (info.status, info.reason) == (ExecutionStatus.CANCELLED, "not needed any more")
        assert info.ended_at is not None
        async with world.again() as state:
            assert state.epoch == 1
            await fetch("a")
            await fetch("b")
        assert world.calls == ["a", "b"]

    run_virtually(main)


def test_a_run_that_nobody_executes_is_cancelled_at_once(world: World) -> None:
    async def nothing() -> None:
        pass

    async def main() -> None:
        await crash(world.again(), nothing)
        assert not await world.store.request_stop(RUN, "not needed any more")
        assert (await world.info()).status is ExecutionStatus.CANCELLED

    run_virtually(main)


def test_an_interrupt_that_becomes_a_cancellation_is_one(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                state.request_interrupt("a deploy")
                await world.store.request_stop(RUN, "not needed any more")
                await fetch("a")
        assert (await world.info()).status is ExecutionStatus.CANCELLED

    run_virtually(main)


# -- runs without a block, and runs that have ended -------------------------------------------------------------------


def test_a_run_without_a_block_that_is_stopped_has_not_come_to_its_end(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state = world.again()
        async with state.parallel() as p:
            p.add(fetch("a"))
            await p.gather()
        state.request_interrupt("a deploy")
        with contextlib.suppress(StopRun):
            async with state.parallel() as p:
                p.add(fetch("b"))
        await state.end()
        assert (await world.info()).status is ExecutionStatus.STARTED

    run_virtually(main)


def test_the_grace_passes_in_a_run_without_a_block_too(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def main() -> None:
        state = world.again()
        with pytest.raises(StopRun):
            async with state.parallel() as p:
                p.map(fetch, ["a", "slow"])
                at(2, lambda: state.request_interrupt("a deploy", grace=3))
                await p.gather()
        await state.end()
        assert (now(), await world.values()) == (5.0, ["a"])
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_a_grace_that_passed_while_the_run_was_being_opened_has_passed() -> None:
    class SlowStore(HookedStore):
        async def before_opening(self) -> None:
            await asyncio.sleep(10)

    world = World()
    world.store = SlowStore()

    async def main() -> None:
        state = world.again()
        state.set_timeout(1, grace=1)
        with pytest.raises(RunStopped):
            async with state:
                await asyncio.sleep(1000)  # no call, so that nothing else would notice
        assert now() == 10.0
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_a_cancellation_while_the_run_is_being_closed_is_kept_and_leaves_the_run_free() -> None:
    class SlowStore(HookedStore):
        def _make_journal(self, run: Any, info: Any) -> Any:
            journal: Any = super()._make_journal(run, info)
            close = journal.close

            async def slow_close(*how: Any) -> None:
                await asyncio.sleep(10)
                await close(*how)

            journal.close = slow_close
            return journal

    world = World()
    world.store = SlowStore()
    fetch = world.make_fetch()
    states: list[ExecutionState] = []

    async def work() -> None:
        states.append(world.again())
        async with states[-1]:
            await fetch("a")

    async def main() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.wait([task], timeout=5)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await work()
        assert world.calls == ["a"]

    run_virtually(main)


def test_a_run_can_be_ended_twice(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        state = world.again()
        async with state.parallel() as p:
            p.add(fetch("a"))
            await p.gather()
        await state.end(ExecutionStatus.FAILED)
        await state.end()
        assert (state.status, (await world.info()).status) == (ExecutionStatus.FAILED, ExecutionStatus.FAILED)

    run_virtually(main)


def test_nothing_is_called_in_a_recorded_run_after_its_end(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again() as state:
            await fetch("a")
        for _ in range(2):
            with pytest.raises(StoreError, match="run 'monday' is closed: nothing can be recorded after its end"):
                async with state.parallel() as p:
                    p.add(fetch("b"))
                    await p.gather()
        assert world.begun == ["a"]
        expect_no_trace_of_a_cancellation()

    run_virtually(main)


def test_a_run_is_entered_once_at_a_time(world: World) -> None:
    async def main() -> None:
        async with world.again() as state:
            with pytest.raises(UsageError, match="is under way: a run is entered once"):
                async with state:
                    pass
            await world.make_fetch()("a")
        assert await world.values() == ["a"]

    run_virtually(main)


def test_a_run_that_cannot_be_closed_does_not_say_that_it_is_completed(world: World) -> None:
    class BurningStore(HookedStore):
        is_burning = False

        def before_adding(self) -> None:
            if self.is_burning:
                raise StoreError("the disk is full")

    store = BurningStore()
    world.store = store
    fetch = world.make_fetch()

    async def main() -> None:
        state = world.again()
        with pytest.raises(StoreError):
            async with state:
                await fetch("a")
                store.is_burning = True
                with pytest.raises(StoreError):
                    await fetch("b")
        assert state.status is not ExecutionStatus.COMPLETED
        store.is_burning = False
        with contextlib.suppress(StoreError):
            await state.end()
        assert (await world.info()).status is ExecutionStatus.STARTED

    run_virtually(main)


# -- the process is told to end ---------------------------------------------------------------------------------------


def test_a_process_that_is_told_to_end_records_no_outcome_of_what_it_cuts_off(world: World) -> None:
    fetch = world.make_fetch()

    async def work() -> None:
        async with world.again(), parallel() as p:
            p.map(fetch, list("ab"))
            await p.gather()

    async def main() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.wait([task], timeout=0.5)
        task.cancel()
        await asyncio.wait([task])
        assert await world.values() == []
        assert (await statuses(world.store)).count("cancelled") == 3, "two calls and their group"
        info = await world.info()
        assert (info.status, info.reason) == (ExecutionStatus.STARTED, "the process was asked to end")

    run_virtually(main)


def test_a_crash_in_the_block_is_no_end_of_the_run(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        with pytest.raises(Crash):
            async with world.again(), parallel() as p:
                p.map(fetch, list("ab"))
                await asyncio.sleep(0.5)
                raise Crash
        assert await world.values() == []
        assert (await world.info()).status is ExecutionStatus.STARTED

    run_virtually(main)


def test_signals_stop_a_run_first_gently_and_then_at_once(world: World) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    async def main() -> None:
        state = world.again()

        @tool
        async def wait() -> None:
            signal.raise_signal(signal.SIGTERM)
            while not state.is_interrupted:  # noqa: ASYNC110 - it is the loop that hears of signals
                await asyncio.sleep(0)
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

        steps = (state.request_interrupt, lambda name: state.request_interrupt(name, grace=0))
        with interrupt_on_signals(*steps), pytest.raises(RunStopped, match="SIGTERM"):
            async with state:
                await wait()
        expect_no_trace_of_a_cancellation()

    asyncio.run(main())
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_signals_in_another_thread_are_left_alone(world: World) -> None:
    async def main() -> str:
        with interrupt_on_signals(print):
            return "done"

    done: list[str] = []
    thread = threading.Thread(target=lambda: done.append(asyncio.run(main())))
    thread.start()
    thread.join()
    assert done == ["done"]


def test_a_stop_in_memory_is_seen_by_whoever_follows_the_run(world: World) -> None:
    fetch = world.make_fetch()

    async def follow() -> list[str]:
        store = world.store
        assert isinstance(store, MemoryStore)
        return [entry.event.execution_status.value async for entry in store.events(RUN, follow=True)]

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                follower = asyncio.ensure_future(follow())
                at(0.5, state.request_interrupt)
                await fetch("a")
                await fetch("b")
        assert await follower == ["started", "completed"]

    run_virtually(main)
