"""The acceptance tests: what the checklist asks for, phase by phase, in virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from functools import partial
from itertools import pairwise
from typing import Any

import detangle
import pytest

from rh_agents import (
    Budget,
    BudgetExceeded,
    CallTimeout,
    CircuitBreaker,
    ConcurrencyLimit,
    ErrorStrategy,
    ExecutionEvent,
    ExecutionState,
    GroupStatus,
    GroupTimeout,
    MemoryStore,
    ParallelExecutionManager,
    RetryPolicy,
    RunStopped,
    Tool,
    TooManyFailures,
    agent,
    parallel,
    run,
    tool,
)
from rh_agents.core.errors import DefinitionError, UsageError
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.errors import CallCancelled, CircuitOpenError, UnreadFailures


async def double(number: int) -> int:
    await asyncio.sleep(0.1)
    return number * 2


async def fail(message: str, after: float = 0.1) -> None:
    await asyncio.sleep(after)
    raise ValueError(message)


def test_everything_that_the_first_phase_names_can_be_imported_at_once() -> None:
    names: dict[str, Any] = {}
    exec("from rh_agents.core.parallel import *", names)
    expected = ("GroupStatus", "ErrorStrategy", "ParallelDisplayMode", "ParallelEventGroup", "ParallelGroupTracker")
    assert set(expected) <= set(names)
    assert {"group_id", "parallel_index", "is_parallel"} <= set(ExecutionEvent.model_fields)


def test_three_coroutines_of_a_tenth_of_a_second_take_a_tenth_of_a_second() -> None:
    async def main() -> None:
        state = ExecutionState()
        start = asyncio.get_running_loop().time()
        async with ParallelExecutionManager(state, max_workers=3) as p:
            p.add(double(1))
            p.add(double(2))
            p.add(double(3))
            results = await p.gather()
        assert [result.result for result in results] == [2, 4, 6]
        assert asyncio.get_running_loop().time() - start == pytest.approx(0.1, abs=0.01)

    detangle.run(main)


def test_never_more_members_run_than_there_are_workers() -> None:
    running = peak = 0

    async def work() -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(random.random())
        running -= 1

    async def main() -> None:
        async with ExecutionState().parallel(max_workers=4) as p:
            for _ in range(50):
                p.add(work())
            await p.gather()

    detangle.run(main)
    assert peak == 4


def test_results_come_in_the_order_of_enrolment_whoever_ends_first() -> None:
    async def main() -> None:
        async with ExecutionState().parallel(max_workers=3) as p:
            for delay in (0.3, 0.1, 0.2):
                p.add(asyncio.sleep(delay, delay))
            assert [result.unwrap() for result in await p.gather()] == [0.3, 0.1, 0.2]

    detangle.run(main)


def test_a_stream_gives_results_as_they_are_completed() -> None:
    async def main() -> None:
        async with ExecutionState().parallel(max_workers=3) as p:
            for delay in (0.3, 0.1, 0.2):
                p.add(asyncio.sleep(delay, delay))
            assert [result.unwrap() async for result in p.stream()] == [0.1, 0.2, 0.3]
            assert p.results == [], "a stream keeps nothing that it has given"

    detangle.run(main)


def test_an_ordered_stream_gives_results_in_the_order_of_enrolment() -> None:
    async def main() -> None:
        async with ExecutionState().parallel(max_workers=3) as p:
            for delay in (0.3, 0.1, 0.2):
                p.add(asyncio.sleep(delay, delay))
            assert [result.unwrap() async for result in p.stream(ordered=True)] == [0.3, 0.1, 0.2]

    detangle.run(main)


def test_members_can_be_added_while_their_results_are_streamed() -> None:
    async def visit(depth: int) -> int:
        await asyncio.sleep(0.01)
        return depth

    async def main() -> None:
        seen = []
        async with ExecutionState().parallel(max_workers=2) as p:
            p.add(visit(3))
            async for result in p.stream():
                seen.append(result.unwrap())
                for _ in range(2 if result.unwrap() else 0):
                    p.add(visit(result.unwrap() - 1))
        assert sorted(seen) == [0] * 8 + [1] * 4 + [2] * 2 + [3]

    detangle.run(main)


def test_named_results_come_in_a_dict_and_unnamed_ones_under_their_index() -> None:
    async def main() -> None:
        async with ExecutionState().parallel() as p:
            p.add(double(1), name="task1")
            p.add(double(2))
            results = await p.gather_dict()
        assert {name: result.unwrap() for name, result in results.items()} == {"task1": 2, "1": 4}

    detangle.run(main)


def test_two_members_of_one_name_are_refused_by_gather_dict_and_still_given_by_gather() -> None:
    async def main() -> None:
        async with ExecutionState().parallel(name="twins") as p:
            p.add(double(1), name="same")
            p.add(double(2), name="same")
            with pytest.raises(UsageError, match="members 0 and 1 of group 'twins' are both named 'same'"):
                await p.gather_dict()
            assert [result.unwrap() for result in await p.gather()] == [2, 4]

    detangle.run(main)


def test_one_failure_costs_its_siblings_nothing() -> None:
    async def main() -> None:
        async with ExecutionState().parallel() as p:
            p.add(fail("bad"))
            p.add(double(1))
            results = await p.gather()
        assert results[0].ok is False
        assert results[0].error_message == results[0].erro_message == "ValueError: bad"
        assert results[1].ok is True
        with pytest.raises(ValueError, match="bad") as caught:
            results[0].unwrap()
        assert caught.value is results[0].error
        assert p.group.status is GroupStatus.COMPLETED
        assert (p.group.completed, p.group.failed) == (1, 1)

    detangle.run(main)


def test_fail_fast_raises_the_members_own_exception_and_cancels_the_others() -> None:
    error = ValueError("mine")
    cancelled = []

    async def raise_it() -> None:
        await asyncio.sleep(0.1)
        raise error

    async def wait(number: int) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    async def main() -> None:
        async with ExecutionState().parallel(error_strategy=ErrorStrategy.FAIL_FAST) as p:
            p.add(double(7))
            p.add(raise_it())
            p.add(wait(1))
            p.add(wait(2))
            with pytest.raises(ValueError, match="mine") as caught:
                await p.gather()
            assert caught.value is error
            assert p.results[0].unwrap() == 14, "what had finished is not lost"
        assert p.group.status is GroupStatus.FAILED

    detangle.run(main)
    assert cancelled == [1, 2]


def test_fail_fast_says_what_else_failed_while_it_was_being_cancelled() -> None:
    async def fail_on_cancel() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            raise OSError("while closing")

    async def main() -> None:
        with pytest.raises(ValueError, match="first") as caught:
            async with ExecutionState().parallel(error_strategy="fail_fast", name="pages") as p:
                p.add(fail_on_cancel(), name="other")
                p.add(fail("first"))
                await p.gather()
        assert caught.value.__notes__ == ["group 'pages': pages[0]::other failed too: OSError: while closing"]

    detangle.run(main)


def test_fail_fast_raises_at_the_end_of_the_block_if_nobody_gathered() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="bad"):
            async with ExecutionState().parallel(error_strategy="fail_fast") as p:
                p.add(fail("bad"))

    detangle.run(main)


def test_failures_that_nobody_read_are_raised_at_the_end_of_the_block() -> None:
    async def main() -> None:
        with pytest.raises(UnreadFailures, match="1 of 2 calls of group 'pages' failed") as caught:
            async with ExecutionState().parallel(name="pages") as p:
                p.add(double(1))
                p.add(fail("bad"))
        assert [str(error) for error in caught.value.exceptions] == ["bad"]

    detangle.run(main)


@pytest.mark.parametrize(("limit", "expected"), [(3, "3 of 3"), (0.5, "10 of 10")])
def test_fail_after_stops_at_so_many_failures_or_at_this_share(limit: int | float, expected: str) -> None:
    async def main() -> None:
        with pytest.raises(TooManyFailures, match=expected) as caught:
            async with ExecutionState().parallel(max_workers=1, fail_after=limit) as p:
                for _ in range(100):
                    p.add(fail("bad"))
                await p.gather()
        assert len(caught.value.results) == int(expected.split()[0])
        assert isinstance(caught.value.__cause__, ValueError)

    detangle.run(main)


def test_a_share_of_failures_below_the_limit_stops_nothing() -> None:
    async def main() -> None:
        async with ExecutionState().parallel(fail_after=0.5) as p:
            for number in range(40):
                p.add(fail("bad") if number % 4 == 0 else double(number))
            assert len(await p.gather()) == 40

    detangle.run(main)


def test_a_group_timeout_names_the_group_and_carries_what_had_finished() -> None:
    async def main() -> None:
        start = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError) as caught:
            async with ExecutionState().parallel(timeout=1.0, name="pages") as p:
                p.add(double(1))
                p.add(asyncio.sleep(60))
                await p.gather()
        assert asyncio.get_running_loop().time() - start == pytest.approx(1.0, abs=0.01)
        assert isinstance(caught.value, GroupTimeout)
        assert str(caught.value) == "group 'pages' took longer than its timeout of 1 s: 1 of 2 members had finished"
        assert [result.unwrap() for result in caught.value.results] == [2]

    detangle.run(main)


def test_a_group_timeout_that_cuts_nothing_off_raises_nothing_but_takes_no_more_work() -> None:
    async def main() -> None:
        async with ExecutionState().parallel(timeout=1.0) as p:
            p.add(double(1))
            results = await p.gather()
            await asyncio.sleep(5)
            assert results[0].unwrap() == 2
            with pytest.raises(GroupTimeout):
                p.add(double(2))
            assert p.results == results

    detangle.run(main)


def test_an_item_timeout_fails_that_item_alone() -> None:
    async def main() -> None:
        async with ExecutionState().parallel(item_timeout=0.5) as p:
            p.add(asyncio.sleep(60), name="slow")
            p.add(double(1))
            slow, quick = await p.gather()
        assert isinstance(slow.error, CallTimeout)
        assert slow.error_message == "CallTimeout: slow took longer than its timeout of 0.5 s"
        assert quick.unwrap() == 2

    detangle.run(main)


def test_a_timeout_error_of_the_function_itself_is_not_taken_for_ours() -> None:
    async def main() -> None:
        async def raise_timeout() -> None:
            raise TimeoutError("the server said so")

        async with ExecutionState().parallel(item_timeout=5) as p:
            p.add(raise_timeout())
            (result,) = await p.gather()
        assert type(result.error) is TimeoutError

    detangle.run(main)


def test_retries_wait_exponentially_and_stop_at_the_limit() -> None:
    times = []

    async def flaky() -> None:
        times.append(asyncio.get_running_loop().time())
        raise ValueError("again")

    async def main() -> None:
        policy = RetryPolicy(max_attempts=4, initial_delay=1, jitter=False)
        async with ExecutionState().parallel(retry=policy) as p:
            p.add(flaky)
            (result,) = await p.gather()
        assert (result.ok, result.attempts) == (False, 4)
        assert p.group.retries == 3

    detangle.run(main)
    assert [later - sooner for sooner, later in pairwise(times)] == pytest.approx([1, 2, 4])


def test_jitter_is_drawn_from_the_runs_own_chance() -> None:
    times = []

    async def flaky() -> None:
        times.append(asyncio.get_running_loop().time())
        raise ValueError("again")

    async def main() -> None:
        async with ExecutionState(chance=lambda: 0.25).parallel(retry=RetryPolicy(initial_delay=4)) as p:
            p.add(flaky)
            await p.gather()

    detangle.run(main)
    assert [later - sooner for sooner, later in pairwise(times)] == pytest.approx([1, 2])


def test_a_call_that_succeeds_at_its_second_attempt_is_a_success() -> None:
    attempts = 0

    @tool(retry=2)
    async def flaky() -> str:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ValueError("again")
        return "well"

    async def main() -> None:
        async with ExecutionState().parallel() as p:
            p.add(flaky())
            (result,) = await p.gather()
        assert (result.unwrap(), result.attempts) == ("well", 2)

    detangle.run(main)


def test_a_bare_coroutine_in_a_group_that_retries_is_refused_with_the_line_to_write() -> None:
    async def main() -> None:
        async with ExecutionState().parallel(retry=3) as p:
            with pytest.raises(DefinitionError, match=r"add\(functools.partial\(double, ...\)\)"):
                p.add(double(1))

    detangle.run(main)


@pytest.mark.parametrize("work", [3, "text", None])
def test_what_cannot_run_is_refused_with_the_line_to_write(work: Any) -> None:
    async def main() -> None:
        async with ExecutionState().parallel() as p:
            with pytest.raises(DefinitionError, match="write @tool above it"):
                p.add(work)

    detangle.run(main)


def test_a_circuit_breaker_refuses_calls_after_failures_in_a_row_and_says_when_it_tries_again() -> None:
    breaker = CircuitBreaker(failure_threshold=2, reset_timeout=30, name="search")

    async def main() -> None:
        async with ExecutionState().parallel(max_workers=1, breaker=breaker) as p:
            for _ in range(3):
                p.add(fail("down"))
            results = await p.gather()
            assert [type(result.error) for result in results] == [ValueError, ValueError, CircuitOpenError]
            assert "Circuit breaker 'search' is open" in (results[2].error_message or "")
            assert "it will try again in 30.0 s" in (results[2].error_message or "")
            assert results[2].attempts == 0
            await asyncio.sleep(30)
            p.add(double(1))
            p.add(double(2))
            assert [result.ok for result in await p.gather()] == [False, False, False, True, True]

    detangle.run(main)


def test_groups_may_be_nested_and_share_no_slots() -> None:
    @agent
    async def inner(number: int) -> int:
        async with parallel(max_workers=1, name="inner") as p:
            p.map(double, range(number))
            return sum([result.unwrap() for result in await p.gather()])

    async def main() -> None:
        async with ExecutionState() as state, state.parallel(max_workers=1, name="outer") as p:
            p.map(inner, [1, 2, 3])
            results = await p.gather()
        assert [result.unwrap() for result in results] == [0, 2, 6]
        nested = [group for group in state.metrics.groups if group.name == "inner"]
        assert {group.parent_group_id for group in nested} == {p.group_id}
        assert nested[0].address == "outer[0]::inner::inner"

    detangle.run(main)


def test_an_empty_group_gives_nothing_in_every_mode() -> None:
    async def main() -> None:
        async with ExecutionState().parallel(timeout=5) as p:
            assert await p.gather() == []
            assert await p.gather_dict() == {}
            assert [result async for result in p.stream()] == []
            p.map(double, [])
            assert await p.gather() == []

    detangle.run(main)


def test_map_pulls_items_only_as_slots_become_free() -> None:
    pulled: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            pulled.append(number)
            yield number

    async def main() -> None:
        async with ExecutionState().parallel(max_workers=3) as p:
            p.map(double, items())
            assert pulled == [0, 1, 2]
            assert p.group.total is None
            async for result in p.stream():
                assert len(pulled) <= (result.index or 0) + 10
        assert len(pulled) == 1000
        assert p.group.total == 1000

    detangle.run(main)


def test_map_waits_for_a_slow_reader_of_the_stream() -> None:
    pulled = 0

    def items() -> Iterator[int]:
        nonlocal pulled
        for number in range(1000):
            pulled += 1
            yield number

    async def main() -> None:
        async with ExecutionState().parallel(max_workers=2) as p:
            p.map(double, items())
            await asyncio.sleep(3600)
            assert pulled < 25
            assert len([result async for result in p.stream()]) == 1000

    detangle.run(main)


def test_map_reads_an_async_iterable() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(5):
            await asyncio.sleep(0.01)
            yield number

    async def main() -> None:
        async with ExecutionState().parallel(max_workers=2) as p:
            p.map(double, items(), name=lambda number: f"item {number}")
            assert [result.unwrap() for result in await p.gather()] == [0, 2, 4, 6, 8]
            assert list(await p.gather_dict()) == ["item 0", "item 1", "item 2", "item 3", "item 4"]

    detangle.run(main)


def test_an_iterable_that_raises_is_the_failure_of_one_last_member() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    async def main() -> None:
        async with ExecutionState().parallel() as p:
            p.map(double, items())
            first, last = await p.gather()
        assert first.unwrap() == 2
        assert isinstance(last.error, OSError)
        assert last.error.__notes__ == ["raised by the iterable given to map(), after 1 items"]

    detangle.run(main)


def test_a_map_over_a_plain_function_says_what_to_write() -> None:
    async def main() -> None:
        async with ExecutionState().parallel() as p:
            p.map(str, [1])  # type: ignore[arg-type]
            (result,) = await p.gather()
        assert isinstance(result.error, DefinitionError)
        assert "@tool" in (result.error_message or "")

    detangle.run(main)


def test_an_exception_in_the_block_cancels_the_group_and_starts_nothing_afterwards() -> None:
    started = []

    async def work(number: int) -> None:
        started.append(number)
        await asyncio.sleep(10)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="in the block"):
            async with ExecutionState().parallel(max_workers=2) as p:
                for number in range(5):
                    p.add(work(number))
                await asyncio.sleep(1)
                raise RuntimeError("in the block")
        assert p.group.status is GroupStatus.CANCELLED
        assert asyncio.all_tasks() == {asyncio.current_task()}

    detangle.run(main)
    assert started == [0, 1]


def test_a_cancelled_group_ends_its_members_before_the_cancellation_goes_on() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(1)
            ended.append(True)

    async def group() -> None:
        async with ExecutionState().parallel() as p:
            p.add(work())
            await p.gather()

    async def main() -> None:
        task = asyncio.create_task(group())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]

    detangle.run(main)


def test_leaving_a_stream_early_cancels_the_rest() -> None:
    async def main() -> None:
        async with ExecutionState().parallel(max_workers=3) as p:
            p.map(lambda delay: asyncio.sleep(delay, delay), [5, 1, 60, 60, 60])
            async for result in p.stream():
                assert result.unwrap() == 1
                break
        assert asyncio.get_running_loop().time() < 2
        assert p.group.status is GroupStatus.CANCELLED

    detangle.run(main)


def test_a_group_is_entered_once_and_takes_work_only_inside_its_block() -> None:
    async def main() -> None:
        p = ExecutionState().parallel(name="pages")
        with pytest.raises(UsageError, match="inside the block"):
            p.add(lambda: double(1))
        async with p:
            pass
        with pytest.raises(UsageError, match="group 'pages' has ended"):
            p.add(lambda: double(1))
        with pytest.raises(UsageError, match="entered before"):
            async with p:
                pass

    detangle.run(main)


def test_the_events_of_members_carry_their_group_and_index_and_the_group_has_its_own() -> None:
    events: list[ExecutionEvent[Any]] = []

    async def main() -> None:
        async with ExecutionState() as state:
            state.event_bus.subscribe(events.append)
            async with state.parallel(name="pages") as p:
                p.add(double(1))
                p.add(fail("bad"), name="named")
                await p.gather()
            assert {event.group_id for event in events} == {p.group_id}

    detangle.run(main)
    assert events[0].event_type is EventType.GROUP_STARTED
    assert events[-1].event_type is EventType.GROUP_COMPLETED
    told = [(event.name, event.parallel_index, event.execution_status.value) for event in events if event.group is None]
    assert sorted(told) == [
        ("double", 0, "completed"),
        ("double", 0, "started"),
        ("named", 1, "failed"),
        ("named", 1, "started"),
    ]
    assert all(event.is_parallel for event in events)
    assert events[-1].group is not None
    assert events[-1].group.failed == 1


def test_an_actor_is_called_through_an_event_and_answers_with_a_result() -> None:
    async def handler(input_data: int, extra_context: Any, state: ExecutionState) -> int:
        assert extra_context == {"by": 3}
        return input_data * 3

    async def main() -> None:
        state = ExecutionState()
        times_three = Tool(name="times_three", handler=handler, input_model=int)
        result = await ExecutionEvent(actor=times_three)(2, {"by": 3}, state)
        assert (result.ok, result.result) == (True, 6)
        refused = await ExecutionEvent(actor=times_three)("two", {"by": 3}, state)
        assert "Input should be a valid integer" in (refused.error_message or "")
        async with state.parallel() as p:
            p.add(ExecutionEvent(actor=times_three)(4, {"by": 3}, state))
            assert [result.unwrap() for result in await p.gather()] == [12]
        assert state.history.has_completed_event("parallel[0]::times_three")
        assert state.history.get_event_result("parallel[0]::times_three") == 12

    detangle.run(main)


def test_a_run_that_is_started_again_repeats_no_finished_call() -> None:
    called: list[str] = []

    @tool
    async def fetch(url: str) -> str:
        called.append(url)
        await asyncio.sleep(0.1)
        if url == "down":
            raise ConnectionError(url)
        return url.upper()

    @agent
    async def survey() -> list[Any]:
        async with parallel(name="pages") as p:
            for url in ("a", "down", "b"):
                p.add(fetch(url))
            return [result.result for result in await p.gather()]

    store = MemoryStore()

    async def main() -> None:
        assert await run(survey, store=store, run_id="monday") == ["A", None, "B"]
        state = ExecutionState(store=store, run_id="monday")
        called.clear()
        async with state:
            assert await survey() == ["A", None, "B"]
        assert called == []
        assert state.metrics.replayed == 1, "the agent's own outcome was enough"

    detangle.run(main)


def test_metrics_tell_what_was_called_and_how_the_groups_went() -> None:
    quick = tool(name="quick")(double)
    failing = tool(name="failing")(fail)

    async def main() -> None:
        async with ExecutionState() as state:
            async with state.parallel(max_workers=2, name="pages") as p:
                for number in range(4):
                    p.add(quick(number))
                p.add(failing("bad"))
                await p.gather()
            metrics = state.metrics
        assert (metrics.calls, metrics.failed, metrics.retries, metrics.replayed) == (5, 1, 0, 0)
        assert metrics.actors["quick"].latency.p50 == pytest.approx(0.1, rel=0.05)
        (group,) = metrics.groups
        assert (group.name, group.total, group.completed, group.failed) == ("pages", 5, 4, 1)
        assert group.slot_wait.max == pytest.approx(0.2, rel=0.05)
        assert group.rate == pytest.approx(5 / 0.3, rel=0.05)

    detangle.run(main)


def test_a_childs_context_variables_are_invisible_to_its_siblings() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="outside")
    seen = []

    async def work(number: int) -> None:
        seen.append(variable.get())
        variable.set(f"member {number}")
        await asyncio.sleep(0.1)
        assert variable.get() == f"member {number}"

    async def main() -> None:
        variable.set("block")
        async with ExecutionState().parallel(max_workers=2) as p:
            p.map(work, range(4))
            for number in range(4, 6):
                p.add(work(number))
            await p.gather()
        assert variable.get() == "block"

    detangle.run(main)
    assert seen == ["block"] * 6


def test_a_run_says_started_while_it_goes_on_and_how_it_ended() -> None:
    async def main() -> None:
        seen = []
        async with ExecutionState() as state:
            seen.append(state.status)
        seen.append(state.status)
        with pytest.raises(KeyError):
            async with ExecutionState() as state:
                raise KeyError
        seen.append(state.status)
        assert seen == [ExecutionStatus.STARTED, ExecutionStatus.COMPLETED, ExecutionStatus.FAILED]

    detangle.run(main)


# -- groups of runs that are recorded, stopped and limited -------------------------------------------------------------


def test_failures_of_an_earlier_execution_end_the_group_as_they_did() -> None:
    store, made = MemoryStore(), list[int]()

    @tool
    async def check(number: int) -> int:
        made.append(number)
        await asyncio.sleep(number)
        if number > 1:
            raise ValueError(f"no {number}")
        return number

    async def program() -> list[str]:
        async with parallel(max_workers=4, name="checks", fail_after=2) as p:
            p.map(check, [3, 1, 2, 9])
            with pytest.raises(TooManyFailures) as caught:
                await p.gather()
            return [str(result.error_message) for result in p.results] + [str(caught.value.__cause__)]

    first = detangle.run(lambda: run(program, store=store, run_id="r"))
    assert first[-1] == "no 3"
    assert detangle.run(lambda: run(program, store=store, run_id="r", retry_failed=False)) == first
    assert sorted(made) == [1, 2, 3, 9]


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_group_that_ended_early_ends_early_when_it_is_replayed(how: str) -> None:
    store, made = MemoryStore(), list[float]()

    @tool
    async def wait(seconds: float) -> float:
        made.append(seconds)
        await asyncio.sleep(seconds)
        return seconds

    async def program() -> list[Any]:
        async with parallel(name="waits", timeout=2.0 if how == "timeout" else None) as p:
            p.map(wait, [1.0, 9.0])
            if how == "cancel":
                await anext(p.stream())
                p.cancel()
            try:
                return [result.error_message for result in await p.gather()]
            except GroupTimeout as error:
                return [str(error), [result.result for result in error.results]]

    first = detangle.run(lambda: run(program, store=store, run_id="r"))
    assert detangle.run(lambda: run(program, store=store, run_id="r", retry_failed=False)) == first
    assert made == [1.0, 9.0]


def test_a_group_with_a_budget_and_a_limit_of_its_own_stays_within_them() -> None:
    async def main() -> None:
        limit = ConcurrencyLimit(1)
        async with ExecutionState() as state:
            began = asyncio.get_running_loop().time()
            async with state.parallel(max_workers=5, limits=limit, budget=Budget(calls=5), retry=2, name="slow") as p:
                p.map(tool(double), range(3))
                assert [result.unwrap() for result in await p.gather()] == [0, 2, 4]
            assert asyncio.get_running_loop().time() - began == pytest.approx(0.3, abs=0.01)

    detangle.run(main)


def test_a_group_whose_budget_is_spent_stops_its_run() -> None:
    made: list[int] = []

    @tool
    async def count(number: int) -> None:
        made.append(number)

    async def main() -> None:
        with pytest.raises(BudgetExceeded, match="the group counts"):
            async with ExecutionState() as state, state.parallel(name="counts", budget=Budget(calls=2)) as p:
                p.map(count, range(9))
                await p.gather()

    detangle.run(main)
    assert made == [0, 1]


def test_a_group_of_a_run_that_is_interrupted_lets_its_members_end() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        await asyncio.sleep(1 + number)
        ended.append(number)

    async def main() -> None:
        state = ExecutionState()
        asyncio.get_running_loop().call_later(0.5, partial(state.request_interrupt, "deploy", grace=1.0))
        with pytest.raises(RunStopped, match="deploy"):
            async with state, state.parallel(max_workers=2, timeout=60) as p:
                p.map(work, range(9))
                await p.gather()

    detangle.run(main)
    assert ended == [0], "the other one took longer than the grace"


def test_members_within_a_call_that_holds_a_slot_use_it_while_the_call_waits() -> None:
    limit = ConcurrencyLimit(1)

    @tool(limits=limit)
    async def leaf(number: int) -> int:
        return number

    @tool(limits=limit)
    async def branch(number: int) -> int:
        async with parallel() as p:
            p.map(leaf, range(number))
            found = [result.unwrap() for result in await p.gather()]
        with pytest.raises(LookupError):
            async with parallel():
                raise LookupError
        return sum(found)

    assert detangle.run(lambda: run(branch, 4)) == 6


def test_a_member_that_waits_for_its_own_group_is_told_that_it_would_wait_for_itself() -> None:
    async def main() -> None:
        async with ExecutionState() as state, state.parallel() as p:
            p.add(p.gather)
            (result,) = await p.gather()
            assert "it would wait for itself" in str(result.error_message)

    detangle.run(main)


def test_a_group_takes_no_work_while_it_is_being_cancelled() -> None:
    async def main() -> None:
        async with ExecutionState() as state, state.parallel() as p:
            p.add(lambda: asyncio.sleep(60))
            p.cancel()
            for method in (lambda: p.add(double(1)), lambda: p.map(double, [1])):
                with pytest.raises(UsageError, match="is being cancelled and takes no more work"):
                    method()
            assert await p.gather() == [], "what had not begun has no result"

    detangle.run(main)


def test_a_cancellation_while_the_block_ends_ends_the_members_first() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("work")

    async def main() -> None:
        async def block() -> None:
            async with ExecutionState() as state, state.parallel() as p:
                p.add(work)

        task = asyncio.create_task(block())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ended.append("block")

    detangle.run(main)
    assert ended == ["work", "block"]


@pytest.mark.parametrize("options", [{"max_workers": 0}, {"max_workers": True}, {"timeout": 0.0}, {"item_timeout": -1}])
def test_numbers_that_mean_nothing_are_refused_where_they_are_given(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        parallel(**options)


def test_before_its_block_a_group_is_empty_and_says_where_its_methods_belong() -> None:
    async def main() -> None:
        p = parallel(breaker=CircuitBreaker())
        assert (p.results, p.group.status, p.group.enrolled) == ([], GroupStatus.PENDING, 0)
        for method in (p.cancel, p.stream):
            with pytest.raises(UsageError, match="inside the block"):
                method()

    detangle.run(main)


# -- handles ----------------------------------------------------------------------------------------------------------


def test_what_add_gives_is_awaited_or_asked_for_its_value() -> None:
    async def broken() -> int:
        raise ValueError("on purpose")

    async def number(value: int) -> int:
        await asyncio.sleep(value)
        return value

    async def main() -> None:
        async with ExecutionState().parallel(max_workers=2) as p:
            three, fails = p.add(number(3)), p.add(broken())
            with pytest.raises(UsageError, match="has no result yet"):
                three.result()
            assert await three == 3
            with pytest.raises(ValueError, match="on purpose"):
                await fails
            assert (three.result(), repr(p)) == (3, "group 'parallel'")
            with pytest.raises(UsageError, match="other members"):
                p.map(number, [1]).stream()
            waiting = p.add(number(100))
            p.cancel()
            with pytest.raises(CallCancelled, match="has no result"):
                await waiting

    detangle.run(main)


def test_what_map_gives_has_the_results_of_its_items() -> None:
    async def half(value: int) -> int:
        if value % 2:
            raise ValueError(value)
        return value // 2

    async def main() -> None:
        async with ExecutionState().parallel() as p:
            halves = p.map(half, [4, 5])
            p.add(half(8))
            assert [(each.item, each.result) for each in await halves] == [(4, 2), (5, None)]
        async with ExecutionState().parallel() as p:
            assert [each.item async for each in p.map(half, [4, 6]).stream(ordered=True)] == [4, 6]

    detangle.run(main)
