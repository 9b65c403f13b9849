"""What was once found to be wrong, by thinking as an attacker: each of these failed before its cause was mended."""

from __future__ import annotations

import asyncio
import gc
import itertools
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import pytest

from rh_agents import (
    CallCancelled,
    EventBus,
    EventType,
    ExecutionEvent,
    ExecutionState,
    GroupStatus,
    GroupTimeout,
    MemoryStore,
    RetryPolicy,
    TooManyFailures,
    agent,
    current,
    parallel,
    run,
    tool,
)
from tests.doubles import HookedStore
from tests.properties.virtual import run_virtually, tasks_besides_this_one


class Boom(Exception):
    """What calls raise."""


async def later(value: Any, seconds: float = 1.0) -> Any:
    await asyncio.sleep(seconds)
    return value


async def cancel_itself() -> None:
    gone = asyncio.get_running_loop().create_future()
    gone.cancel()
    await gone


# -- paid twice --------------------------------------------------------------------------------------------------------


def test_a_second_try_of_an_ended_run_does_not_make_the_finished_children_of_a_failed_agent_again() -> None:
    fetched: list[str] = []
    is_down = True

    @tool
    async def fetch(url: str) -> str:
        fetched.append(url)
        return url

    @agent
    async def survey(urls: list[str]) -> list[str]:
        async with parallel() as p:
            p.map(fetch, urls)
            pages = [page.unwrap() for page in await p.gather()]
        if is_down:
            raise Boom
        return pages

    async def main() -> None:
        nonlocal is_down
        store = MemoryStore()
        with pytest.raises(Boom):
            await run(survey, ["a", "b"], store=store, run_id="monday")
        is_down = False
        assert await run(survey, ["a", "b"], store=store, run_id="monday") == ["a", "b"]
        assert fetched == ["a", "b"]

    run_virtually(main)


def test_another_attempt_of_an_outer_agent_does_not_make_the_finished_children_of_an_inner_one_again() -> None:
    fetched: list[str] = []
    attempts = 0

    @tool
    async def fetch(url: str) -> str:
        fetched.append(url)
        return url

    @agent
    async def inner() -> str:
        nonlocal attempts
        attempts += 1
        page = await fetch("a")
        if attempts == 1:
            raise Boom
        return page

    @agent(retry=2)
    async def outer() -> str:
        return await inner()

    async def main() -> None:
        assert await run(outer, store=MemoryStore()) == "a"
        assert fetched == ["a"]

    run_virtually(main)


def test_attempts_before_a_crash_count() -> None:
    made = 0

    @tool(retry=RetryPolicy(max_attempts=3, initial_delay=10, multiplier=1, jitter=False))
    async def fail() -> None:
        nonlocal made
        made += 1
        raise Boom

    async def main() -> None:
        store = MemoryStore()
        first = asyncio.ensure_future(run(fail, store=store, run_id="r"))
        await asyncio.wait([first], timeout=15)
        first.cancel()
        await asyncio.wait([first])
        assert made == 2
        with pytest.raises(Boom):
            await run(fail, store=store, run_id="r")
        assert made == 3

    run_virtually(main)


class SlowStore(HookedStore):
    """Takes a second for everything."""

    async def before_opening(self) -> None:
        await asyncio.sleep(1)

    async def before_waiting(self) -> None:
        await asyncio.sleep(1)


def test_calls_made_while_the_run_is_being_opened_wait_for_that() -> None:
    made: list[int] = []

    @tool
    async def note(number: int) -> int:
        made.append(number)
        return number

    async def main() -> None:
        store = SlowStore()
        for _ in range(2):
            state = ExecutionState(store=store, run_id="r")

            async def group(name: str, number: int, state: ExecutionState = state) -> Any:
                async with state.parallel(name=name) as p:
                    p.add(note(number))
                    return (await p.gather())[0].unwrap()

            tasks = [asyncio.ensure_future(group("a", 1)), asyncio.ensure_future(group("b", 2))]
            await asyncio.wait(tasks)
            assert [task.exception() or task.result() for task in tasks] == [1, 2]
            await state.end()
        assert made == [1, 2]

    run_virtually(main)


def test_a_result_that_has_been_given_is_recorded() -> None:
    made = 0

    async def work() -> int:
        nonlocal made
        made += 1
        await asyncio.sleep(0.5)
        return made

    async def main() -> None:
        store = SlowStore()
        given: list[int] = []
        for cancelled_after in (2.0, 9.0):
            async with ExecutionState(store=store, run_id="r") as state, state.parallel() as p:
                p.add(work, name="work")
                await asyncio.sleep(cancelled_after)  # at first, while the outcome is being written
                p.cancel()
                given += [result.unwrap() for result in await p.gather()]
        assert made == 1 or given == [2]

    run_virtually(main)


# -- swapped -----------------------------------------------------------------------------------------------------------


def test_two_groups_with_equal_items_and_lambdas_never_get_each_others_results() -> None:
    async def upper(letter: str) -> str:
        return letter.upper()

    async def double(letter: str) -> str:
        return letter * 2

    async def execute(store: MemoryStore, wanted: int) -> tuple[list[str], list[str]]:
        first: list[str] = []
        async with ExecutionState(store=store, run_id="r") as state:
            async with state.parallel(max_workers=1) as p:
                p.map(lambda letter: upper(letter), list("abcdef"))
                async for result in p.stream():
                    first.append(result.unwrap())
                    if len(first) == wanted:
                        break
            async with state.parallel(max_workers=1) as p:
                p.map(lambda letter: double(letter), list("abcdef"))
                return first, [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        store = MemoryStore()
        doubled = ["aa", "bb", "cc", "dd", "ee", "ff"]
        assert await execute(store, 1) == (["A"], doubled)
        assert await execute(store, 4) == (["A", "B", "C", "D"], doubled)

    run_virtually(main)


# -- never ends --------------------------------------------------------------------------------------------------------


def test_a_block_that_reads_no_results_still_does_all_the_work() -> None:
    async def main() -> None:
        async with parallel(max_workers=2) as p:
            p.map(later, range(100))
        assert p.group.completed == 100

    run_virtually(main)


@pytest.mark.parametrize("answers", ["with an error", "with an item"])
def test_an_async_iterable_may_answer_a_cancellation_in_its_own_way(answers: str) -> None:
    async def rows() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            if answers == "with an error":
                raise OSError("connection lost") from None
        yield 2

    async def main() -> None:
        with pytest.raises(GroupTimeout):
            async with parallel(timeout=5) as p:
                p.map(later, rows())
                await p.gather()
        assert tasks_besides_this_one() == set()

    run_virtually(main, collect=True)


def test_a_generator_that_raises_when_it_is_closed_does_not_stop_the_group_from_ending() -> None:
    def rows() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            raise OSError("close")

    async def main() -> None:
        with pytest.raises(GroupTimeout):
            async with parallel(max_workers=2, timeout=3.5) as p:
                p.map(later, rows())
                await p.gather()

    run_virtually(main)


def test_an_iterable_may_cancel_its_group() -> None:
    def rows() -> Iterator[int]:
        for number in range(10):
            if number == 3:
                p.cancel()
            yield number

    async def main() -> None:
        async with p:
            p.map(later, rows())
            results = await p.gather()
        assert [result.error for result in results if not result.ok] == []
        assert p.group.elapsed == 0.0

    p = parallel(max_workers=5)
    run_virtually(main)


def test_a_second_stream_goes_on_where_the_first_was_left_when_a_run_is_executed_again() -> None:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise AssertionError("the event loop is blocked")

    async def execute(store: MemoryStore) -> list[int]:
        async with ExecutionState(store=store, run_id="r") as state, state.parallel(max_workers=3) as p:
            for number in range(3):
                p.add(partial(later, number), name=str(number))
            values = []
            async for result in p.stream(ordered=True):
                values.append(result.unwrap())
                break
            return values + [result.unwrap() async for result in p.stream()]

    async def main() -> None:
        store = MemoryStore()
        assert await execute(store) == [0, 1, 2]
        assert await execute(store) == [0, 1, 2]

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 20)
    try:
        run_virtually(main)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_failed_call_that_is_tried_again_does_not_make_a_stream_read_its_whole_iterable_first() -> None:
    is_down = True

    @tool
    async def fetch(number: int) -> int:
        await asyncio.sleep(1)
        if is_down and number == 0:
            raise Boom
        return number

    async def execute(store: MemoryStore) -> int:
        pulled = 0

        def numbers() -> Iterator[int]:
            nonlocal pulled
            while pulled < 1000:
                pulled += 1
                yield pulled - 1

        async with ExecutionState(store=store, run_id="r") as state, state.parallel(max_workers=2) as p:
            p.map(fetch, numbers())
            async for result in p.stream():
                if result.result == 3:
                    break
        return pulled

    async def main() -> None:
        nonlocal is_down
        store = MemoryStore()
        assert await execute(store) < 30
        is_down = False
        assert await execute(store) < 30

    run_virtually(main)


def test_a_member_that_waits_for_its_own_group_is_told_so() -> None:
    async def main() -> None:
        async with parallel() as p:

            async def wait_for_myself() -> None:
                await p.gather()

            p.add(wait_for_myself)
            assert isinstance((await p.gather())[0].error, RuntimeError)

    run_virtually(main)


def test_a_closed_event_stream_ends() -> None:
    async def main() -> None:
        stream = EventBus().stream()
        stream.close()
        assert [event async for event in stream] == []

    run_virtually(main)


# -- cancellation ------------------------------------------------------------------------------------------------------


def test_a_cancelled_call_is_not_retried_even_if_its_cleanup_fails() -> None:
    made = 0

    @tool(retry=RetryPolicy(max_attempts=5, jitter=False))
    async def query() -> None:
        nonlocal made
        made += 1
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise OSError("rollback failed") from None

    async def main() -> None:
        task = asyncio.ensure_future(query().outcome())
        await asyncio.wait([task], timeout=1)
        task.cancel()
        await asyncio.wait([task])
        assert made == 1

    run_virtually(main)


def test_a_group_that_has_timed_out_does_not_retry_a_member_whose_cleanup_fails() -> None:
    made = 0

    async def query() -> None:
        nonlocal made
        made += 1
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise OSError("rollback failed") from None

    async def main() -> None:
        with pytest.raises(GroupTimeout):
            async with parallel(timeout=1, retry=5) as p:
                p.add(query)
                await p.gather()
        assert made == 1

    run_virtually(main)


def test_a_subscriber_that_swallows_a_cancellation_does_not_keep_the_member_running() -> None:
    begun = 0

    async def deaf(event: ExecutionEvent[Any]) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(5)

    @tool
    async def work() -> None:
        nonlocal begun
        begun += 1

    async def main() -> None:
        state = ExecutionState()
        state.event_bus.subscribe(deaf)
        with pytest.raises(GroupTimeout):
            async with state.parallel(timeout=3) as p:  # passes while the subscriber hears that the member has started
                p.add(work())
                await p.gather()
        assert begun == 0

    run_virtually(main)


def test_a_subscriber_whose_own_work_is_cancelled_changes_no_result() -> None:
    @tool
    async def work() -> int:
        return 1

    async def main() -> None:
        state = ExecutionState()
        subscription = state.event_bus.subscribe(lambda event: cancel_itself())
        async with state, state.parallel() as p:
            p.add(work())
            assert (await p.gather())[0].result == 1
        assert subscription.errors == len(state.history)

    run_virtually(main)


def test_a_buffered_subscriber_whose_own_work_is_cancelled_gets_all_other_events() -> None:
    seen: list[ExecutionEvent[Any]] = []

    async def handle(event: ExecutionEvent[Any]) -> None:
        seen.append(event)
        if len(seen) == 2:
            await cancel_itself()

    async def main() -> None:
        state = ExecutionState()
        subscription = state.event_bus.subscribe(handle, buffer=100)
        async with state, state.parallel() as p:
            p.map(tool(later), range(5))
            await p.gather()
        assert subscription.delivered + subscription.errors == len(state.history) == len(seen)

    run_virtually(main)


def test_a_subscriber_that_hangs_delays_calls_once() -> None:
    async def hang(event: ExecutionEvent[Any]) -> None:
        await asyncio.sleep(1000)

    async def main() -> None:
        state = ExecutionState(event_bus=EventBus(handler_timeout=10))
        subscription = state.event_bus.subscribe(hang, buffer=1, on_full="wait")
        async with state, state.parallel(max_workers=5) as p:
            p.map(tool(later), range(5))
            await p.gather()
        assert asyncio.get_running_loop().time() < 20
        assert subscription.errors == 1

    run_virtually(main)


# -- lost or hidden ----------------------------------------------------------------------------------------------------


def test_an_async_iterable_that_is_cancelled_is_a_failure_and_no_silent_end() -> None:
    async def rows() -> AsyncIterator[int]:
        yield 1
        await cancel_itself()

    async def main() -> None:
        async with parallel() as p:
            p.map(later, rows())
            results = await p.gather()
        assert [result.ok for result in results] == [True, False]
        assert isinstance(results[1].error, CallCancelled)

    run_virtually(main)


def test_a_failure_that_only_a_member_was_told_of_is_raised_by_the_block() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise Boom

    async def main() -> None:
        with pytest.raises(Boom):
            async with parallel(error_strategy="fail_fast") as p:

                async def report_when_cancelled() -> None:
                    try:
                        await asyncio.sleep(10)
                    finally:
                        with pytest.raises(Boom):
                            p.add(later("the report"))

                p.add(fail)
                p.add(report_when_cancelled)

    run_virtually(main)


def test_an_error_that_cannot_be_shown_costs_its_siblings_nothing() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async def fail() -> None:
        raise Unprintable

    async def main() -> None:
        async with parallel() as p:
            p.add(fail)
            p.add(lambda: later(1))
            results = await p.gather()
        assert [type(result.error) for result in results] == [Unprintable, type(None)]
        assert results[0].error_message == "Unprintable"

    run_virtually(main)


def test_an_absurd_retry_after_does_not_replace_the_error_that_carries_it() -> None:
    class Limited(Exception):
        retry_after = 10**400

    async def fail() -> None:
        raise Limited

    async def main() -> None:
        async with parallel(retry=2) as p:
            p.add(fail)
            assert isinstance((await p.gather())[0].error, Limited)

    run_virtually(main)


class Stop(BaseException):
    """Neither an Exception nor one that the event loop treats in its own way."""


def test_what_no_group_may_swallow_is_raised_once_and_not_logged_as_never_retrieved() -> None:
    async def stop() -> None:
        raise Stop

    async def main() -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        with pytest.raises(Stop):
            async with parallel() as p:
                p.add(stop)
                await p.gather()
        del p
        gc.collect()
        assert complaints == []

    asyncio.run(main())


# -- what people see ---------------------------------------------------------------------------------------------------


def test_counts_add_up_when_a_recovered_group_is_cancelled_at_once() -> None:
    async def main() -> None:
        store = MemoryStore()
        for is_cancelled in (False, True):
            async with ExecutionState(store=store, run_id="r") as state, state.parallel() as p:
                p.map(later, range(3))
                if is_cancelled:
                    p.cancel()
                await p.gather()
            assert p.group.running == 0
            assert p.group.finished + p.group.pending == p.group.enrolled

    run_virtually(main)


def test_a_group_that_is_cancelled_while_it_tells_of_its_start_also_tells_of_its_end() -> None:
    async def main() -> None:
        state = ExecutionState()
        state.event_bus.subscribe(lambda event: asyncio.sleep(1))

        async def block() -> None:
            async with state.parallel():
                pass

        task = asyncio.ensure_future(block())
        await asyncio.wait([task], timeout=0.5)
        task.cancel()
        await asyncio.wait([task])
        kinds = [event.event_type for event in state.history]
        assert kinds in ([], [EventType.GROUP_STARTED, EventType.GROUP_COMPLETED])

    run_virtually(main)


def test_a_group_whose_results_were_all_read_is_completed() -> None:
    async def main() -> None:
        async with parallel(max_workers=2) as p:
            p.map(later, range(4))
            async for _ in p.stream():
                break
            assert len(await p.gather()) == 3
        assert p.group.status is GroupStatus.COMPLETED

    run_virtually(main)


def test_fail_after_counts_every_result_that_is_not_ok() -> None:
    async def main() -> None:
        with pytest.raises(TooManyFailures):
            async with parallel(fail_after=2, max_workers=1) as p:
                p.map(lambda number: cancel_itself(), range(5))
                await p.gather()

    run_virtually(main)


def test_an_error_of_the_block_is_not_buried_under_notes() -> None:
    async def fail() -> None:
        raise Boom

    async def main() -> None:
        with pytest.raises(KeyError) as caught:
            async with parallel(max_workers=100) as p:
                for _ in range(1000):
                    p.add(fail)
                await asyncio.sleep(1)
                raise KeyError("the body's own")
        assert len(caught.value.__notes__) <= 20

    run_virtually(main)


def test_a_group_that_has_not_been_entered_can_be_looked_at() -> None:
    p = parallel()
    assert p.group.status is GroupStatus.PENDING
    assert p.results == []


@pytest.mark.parametrize("asked", ["name", "key"])
def test_an_item_that_cannot_be_named_leaves_no_coroutine_behind_that_was_never_awaited(asked: str) -> None:
    def ask(number: int) -> str:
        return {0: "zero", 2: "two"}[number]

    async def main() -> None:
        asking: dict[str, Any] = {asked: ask}
        async with parallel() as p:
            p.map(later, range(3), **asking)
            results = await p.gather()
        assert [result.ok for result in results] == [True, False, True]

    run_virtually(main, collect=True)


# -- places and cleanup ------------------------------------------------------------------------------------------------


def test_an_async_generator_that_is_left_in_the_middle_is_closed_before_the_group_ends() -> None:
    is_closed = False

    async def rows() -> AsyncIterator[int]:
        nonlocal is_closed
        try:
            for number in range(1000):
                yield number
        finally:
            await asyncio.sleep(0.1)
            is_closed = True

    async def main() -> None:
        source = rows()  # held, so that it is not up to the garbage collector when it is closed
        async with parallel(max_workers=2) as p:
            p.map(later, source)
            async for _ in p.stream():
                break
        assert is_closed
        assert tasks_besides_this_one() == set()

    run_virtually(main)


def test_an_async_iterable_runs_at_the_place_where_map_was_called() -> None:
    @tool
    async def page() -> str:
        return current().address

    async def pages() -> AsyncIterator[str]:
        yield await page()

    async def main() -> None:
        async with ExecutionState() as state, state.parallel(max_workers=1) as p:
            p.map(later, ["first"])
            p.map(later, pages())
            assert [result.result for result in await p.gather()] == ["first", "page"]

    run_virtually(main)
