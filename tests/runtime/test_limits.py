"""Limits at work: nobody gets more than is stated, nobody holds a slot while waiting for calls of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from rh_agents import (
    CircuitBreaker,
    ConcurrencyLimit,
    ExecutionEvent,
    ExecutionState,
    ExecutionStatus,
    MemoryStore,
    ModelError,
    RateLimit,
    RetryPolicy,
    RunStopped,
    Tool,
    Usage,
    agent,
    parallel,
    report_usage,
    run,
    tool,
)
from rh_agents.core._run.patience import under_limits
from rh_agents.core.context import again, report_hint
from rh_agents.core.errors import CircuitOpenError, ModelOverloaded, RateLimited
from rh_agents.core.policies.limits import Limit, RateLimitHint
from rh_agents.policies import AdaptiveConcurrency
from rh_agents.testing import ScriptedLLM
from tests.properties.virtual import run_virtually


def now() -> float:
    return asyncio.get_running_loop().time()


class Gauge:
    """Counts who is in."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0

    async def stay(self, seconds: float) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.inside -= 1


def test_a_concurrency_limit_is_kept_by_all_groups_that_share_it() -> None:
    limit, gauge = ConcurrencyLimit(3), Gauge()

    @tool(limits=limit)
    async def work(number: int) -> int:
        await gauge.stay(1.0)
        return number

    @agent
    async def half(first: int) -> int:
        async with parallel(max_workers=10) as p:
            p.map(work, range(first, first + 10))
            return len(await p.gather())

    async def program() -> list[int]:
        async with parallel(max_workers=2) as p:
            p.map(half, [0, 10])
            return [result.unwrap() for result in await p.gather()]

    assert run_virtually(lambda: run(program)) == [10, 10]
    assert gauge.most == 3


@pytest.mark.parametrize("limit", [ConcurrencyLimit(1), AdaptiveConcurrency(1, maximum=1)])
def test_with_one_slot_fifty_nested_calls_finish(limit: Limit) -> None:
    gauge = Gauge()

    @agent(limits=limit)
    async def descend(depth: int) -> int:
        await gauge.stay(0.1)
        return depth if depth == 0 else 1 + await descend(depth - 1) * 1

    assert run_virtually(lambda: run(descend, 50)) == 50
    assert gauge.most == 1


def test_with_one_slot_members_of_nested_groups_finish() -> None:
    limit = ConcurrencyLimit(1)

    @agent(limits=limit)
    async def descend(depth: int) -> int:
        if depth == 0:
            return 1
        async with parallel(max_workers=2) as p:
            p.map(descend, [depth - 1, depth - 1])
            return sum(result.unwrap() for result in await p.gather())

    assert run_virtually(lambda: run(descend, 5)) == 32


def test_a_rate_limit_admits_no_more_than_stated_in_any_window() -> None:
    limit, begun = RateLimit(requests=5, per=1.0), list[float]()

    @tool(limits=limit)
    async def work(number: int) -> int:
        begun.append(now())
        return number

    async def program() -> int:
        async with parallel(max_workers=50) as p:
            p.map(work, range(23))
            return len(await p.gather())

    assert run_virtually(lambda: run(program)) == 23
    for start in begun:
        assert sum(start <= each < start + 1.0 for each in begun) <= 5
    assert begun[-1] - begun[0] == pytest.approx(4.0, abs=0.1)


def test_who_waits_for_a_limit_says_so_with_its_name_the_reason_and_the_seconds() -> None:
    limit, told = RateLimit(requests=1, per=10.0, name="provider"), list[tuple[str, float | None]]()

    @tool(limits=limit)
    async def work(number: int) -> int:
        return number

    async def program() -> None:
        async with ExecutionState() as state:

            async def note(event: ExecutionEvent) -> None:
                if event.execution_status is ExecutionStatus.WAITING:
                    told.append((event.message or "", event.retry_delay))

            state.event_bus.subscribe(note)
            async with state.parallel(max_workers=2) as p:
                p.map(work, range(2))
                await p.gather()
            assert ExecutionStatus.WAITING not in {event.execution_status for event in state.history}

    run_virtually(lambda: program())
    assert len(told) == 2
    assert told[0][0].startswith("provider: ")
    assert told[0][1] == pytest.approx(10.0, abs=0.1)
    assert told[1] == ("provider: admitted", 0.0)


def test_a_run_that_is_stopped_does_not_wait_for_its_limits() -> None:
    limit = RateLimit(requests=1, per=3600.0)

    @tool(limits=limit)
    async def work(number: int) -> int:
        return number

    async def program() -> float:
        began = now()
        with pytest.raises(RunStopped):
            async with ExecutionState(store=MemoryStore()) as state:
                asyncio.get_running_loop().call_later(5.0, state.request_interrupt)
                async with state.parallel(max_workers=3) as p:
                    p.map(work, range(3))
                    await p.gather()
        return now() - began

    assert run_virtually(lambda: program()) == pytest.approx(5.0, abs=0.5)


def test_a_limit_that_is_raised_lets_those_pass_who_wait() -> None:
    limit, gauge = ConcurrencyLimit(1), Gauge()

    @tool(limits=limit)
    async def work(number: int) -> int:
        await gauge.stay(10.0)
        return number

    async def program() -> float:
        began = now()
        async with parallel(max_workers=4) as p:
            p.map(work, range(4))
            asyncio.get_running_loop().call_later(5.0, lambda: setattr(limit, "limit", 4))
            await p.gather()
        return now() - began

    assert run_virtually(lambda: run(program)) == pytest.approx(15.0, abs=0.1)
    assert gauge.most == 4


def test_tokens_that_were_reported_count_in_the_window_of_the_limit() -> None:
    limit, begun = RateLimit(tokens=100, per=10.0), list[float]()

    @tool(limits=limit)
    async def work(number: int) -> int:
        begun.append(now())
        report_usage(Usage(input_tokens=60, output_tokens=30))
        return number

    async def program() -> None:
        for number in range(3):
            await work(number)

    run_virtually(lambda: run(program))
    assert begun[2] - begun[0] >= 10.0


def test_what_several_requests_within_one_attempt_have_used_counts_once() -> None:
    limit, begun = RateLimit(tokens=1_000, per=60.0), list[float]()

    @tool(limits=limit)
    async def chat(requests: int) -> None:
        for _ in range(requests):
            await again(Usage(input_tokens=1))
            report_usage(Usage(input_tokens=90, output_tokens=10))

    async def program() -> None:
        await chat(9)
        begun.append(now())
        await chat(1)
        begun.append(now())
        await chat(1)
        begun.append(now())

    run_virtually(lambda: run(program))
    assert begun[1] == begun[0]
    assert begun[2] - begun[1] >= 59.0


def test_an_attempt_that_does_not_say_what_it_used_counts_as_what_it_was_granted_whatever_the_one_before_said() -> None:
    class Estimated(Tool):
        def estimate_input(self, input_data: object) -> Usage:
            return Usage(input_tokens=400)

    limit = RateLimit(tokens=1_000, per=60.0)
    begun: list[float] = []

    async def spend(number: int) -> None:
        begun.append(now())
        if len(begun) == 1:
            report_usage(Usage(input_tokens=300))
            raise ConnectionError

    actor = Estimated(name="spend", handler=spend, limits=(limit,), retry=RetryPolicy(max_attempts=2, jitter=False))

    async def program() -> None:
        await ExecutionEvent(actor=actor)(1)
        await ExecutionEvent(actor=actor)(2)

    run_virtually(lambda: run(program))
    assert begun[2] - begun[0] >= 60.0


def test_what_a_breaker_refuses_takes_nothing_of_a_rate() -> None:
    limit, breaker = RateLimit(requests=2, per=60.0), CircuitBreaker(1, reset_timeout=1_000.0)

    @tool(limits=limit, breaker=breaker)
    async def ask() -> None:
        raise ConnectionError

    async def program() -> float:
        began = now()
        with pytest.raises(ConnectionError):
            await ask()
        for _ in range(10):
            with pytest.raises(CircuitOpenError):
                await ask()
        return now() - began

    assert run_virtually(lambda: run(program)) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("how", ["by an error", "by a hint"])
def test_whoever_is_told_to_come_later_makes_all_wait_who_share_the_limit(how: str) -> None:
    limit, begun = RateLimit(requests=100, per=1.0), list[float]()

    @tool(limits=limit, retry=3)
    async def work(number: int) -> int:
        begun.append(now())
        if len(begun) == 1 and how == "by a hint":
            report_hint(RateLimitHint(retry_after=30.0))
        if len(begun) == 1 and how == "by an error":
            raise RateLimited("slow down", retry_after=30.0)
        return number

    async def program() -> None:
        async with parallel() as p:
            p.add(work(1))
            await asyncio.sleep(1.0)
            p.add(work(2))

    run_virtually(lambda: run(program))
    assert all(moment - begun[0] >= 30.0 for moment in begun[1:])


def test_adaptive_concurrency_learns_from_how_attempts_end() -> None:
    limit = AdaptiveConcurrency(4)
    failures = [ModelOverloaded("too many")] * 4

    @tool(limits=limit)
    async def work(number: int) -> int:
        await asyncio.sleep(1.0)
        if failures:
            raise failures.pop()
        return number

    async def program(count: int) -> int:
        async with parallel(max_workers=10) as p:
            p.map(work, range(count))
            return sum(result.ok for result in await p.gather())

    assert run_virtually(lambda: run(program, 4)) == 0
    assert limit.limit == 2
    assert run_virtually(lambda: run(program, 20)) == 20
    assert limit.limit > 4


def test_another_request_within_an_attempt_waits_for_the_rate_but_keeps_its_slot() -> None:
    slots, rate = ConcurrencyLimit(1), RateLimit(requests=1, per=10.0)
    model = ScriptedLLM(["many", '{"answer": 1}'], limits=[rate, slots])

    async def program() -> float:
        began = now()
        call = asyncio.ensure_future(model.ask("How many?", output=int).outcome())
        await asyncio.sleep(5.0)
        assert slots.in_use == 1
        assert (await call).unwrap() == 1
        return now() - began

    assert run_virtually(lambda: run(program)) == pytest.approx(10.0, abs=0.1)


def shared_store() -> MemoryStore:
    """A store whose clock is that of the event loop."""
    return MemoryStore(clock=now)


def processes(store: MemoryStore, *works: Callable[[], Awaitable[object]]) -> None:
    """Runs side by side, each with limits of its own that only share their name, as in processes of their own."""

    async def program() -> None:
        await asyncio.gather(*(run(work, store=store) for work in works))

    run_virtually(program)


def test_what_processes_did_not_use_is_there_for_the_others_at_once() -> None:
    begun: list[float] = []

    def process() -> Callable[[], Awaitable[object]]:
        class Estimated(Tool):
            def estimate_input(self, input_data: object) -> Usage:
                return Usage(input_tokens=60)

        async def spend(number: int) -> None:
            begun.append(now())
            report_usage(Usage(input_tokens=10))

        actor = Estimated(
            name="spend", handler=spend, limits=(RateLimit(tokens=100, per=60.0, name="account", shared=True),)
        )

        async def main() -> None:
            await asyncio.sleep(1.0)
            await ExecutionEvent(actor=actor)(1)

        return main

    processes(shared_store(), process(), process())
    assert begun[1] - begun[0] < 10.0


def test_processes_wait_together_when_the_provider_wants_to_be_left_alone() -> None:
    begun: list[float] = []

    def process(delay: float, failure: Exception | None) -> Callable[[], Awaitable[object]]:
        @tool(limits=RateLimit(requests=100, per=1.0, name="account", shared=True))
        async def ask() -> None:
            begun.append(now())
            if failure is not None:
                raise failure

        async def main() -> None:
            await asyncio.sleep(delay)
            await ask().outcome()

        return main

    processes(shared_store(), process(0.0, RateLimited("later", retry_after=30.0)), process(5.0, None))
    assert begun[1] - begun[0] >= 30.0


def test_whom_the_other_processes_leave_no_room_takes_nothing() -> None:
    begun: list[float] = []

    def process(delay: float) -> Callable[[], Awaitable[object]]:
        @tool(limits=RateLimit(requests=1, per=10.0, name="account", shared=True))
        async def ask() -> None:
            begun.append(now())

        async def main() -> None:
            await asyncio.sleep(delay)
            await ask()

        return main

    processes(shared_store(), process(0.0), process(1.0))
    assert 10.0 <= begun[1] - begun[0] <= 10.3, "it might have been used until the end of its lease"


def test_a_slot_is_free_again_however_the_attempt_ended() -> None:
    limit = ConcurrencyLimit(1)

    @tool(limits=limit, timeout=1.0)
    async def work(how: str) -> str:
        if how == "fail":
            raise ModelError("no")
        await asyncio.sleep(5.0 if how == "hang" else 0.1)
        return how

    async def program() -> list[bool]:
        async with parallel(max_workers=3) as p:
            p.map(work, ["fail", "hang", "fail", "work"])
            found = [result.ok for result in await p.gather()]
        call = asyncio.ensure_future(work("hang again").outcome())
        await asyncio.sleep(0.5)
        call.cancel()
        await asyncio.wait([call])
        return [*found, (await work("work").outcome()).ok]

    assert run_virtually(lambda: run(program)) == [False, False, False, True, True]


def test_limits_of_a_group_hold_for_plain_coroutines_as_well() -> None:
    gauge = Gauge()

    async def work(number: int) -> int:
        await gauge.stay(1.0)
        return number

    async def program() -> int:
        async with parallel(max_workers=10, limits=ConcurrencyLimit(2)) as p:
            p.map(work, range(6))
            return len(await p.gather())

    assert run_virtually(lambda: run(program)) == 6
    assert gauge.most == 2


def test_limits_are_taken_in_one_order_so_that_nobody_waits_in_a_circle() -> None:
    first, second = ConcurrencyLimit(1), ConcurrencyLimit(1)

    @tool(limits=[first, second])
    async def there() -> None:
        await asyncio.sleep(1.0)

    @tool(limits=[second, first])
    async def back() -> None:
        await asyncio.sleep(1.0)

    async def main() -> int:
        async with parallel(max_workers=20) as p:
            for call in (there, back) * 5:
                p.add(call())
            return sum(result.ok for result in await p.gather())

    assert run_virtually(lambda: run(main)) == 10


def test_a_limit_that_is_named_twice_is_taken_once() -> None:
    limit = ConcurrencyLimit(1)

    @tool(limits=[limit, limit])
    async def work() -> int:
        return limit.in_use

    assert run_virtually(lambda: run(lambda: work())) == 1
    assert limit.in_use == 0


def test_whoever_lent_a_slot_and_went_on_uncounted_keeps_others_out() -> None:
    limit = ConcurrencyLimit(1)
    began: list[float] = []

    @tool
    async def slow() -> None:
        await asyncio.sleep(100.0)

    @tool(limits=limit)
    async def impatient() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await slow()
        await asyncio.sleep(5.0)

    @tool(limits=limit)
    async def late() -> None:
        began.append(round(now() - start, 6))

    async def main() -> None:
        async with parallel(max_workers=3) as p:
            p.add(impatient())
            await asyncio.sleep(2.0)
            p.add(late())
            await p.gather()

    start = 0.0

    async def timed() -> None:
        nonlocal start
        start = now()
        await run(main)

    run_virtually(timed)
    assert began == [6.0]


def test_no_slot_is_taken_for_a_call_that_has_ended() -> None:
    limit = ConcurrencyLimit(1)
    left: list[asyncio.Task[int]] = []

    @tool
    async def slow() -> int:
        await asyncio.sleep(3.0)
        return 1

    @tool(limits=limit)
    async def careless() -> None:
        async def later() -> int:
            return await slow()

        left.append(asyncio.create_task(later()))
        await asyncio.sleep(1.0)

    async def main() -> int:
        await careless()
        await left[0]
        return limit.in_use

    assert run_virtually(lambda: run(main)) == 0


def test_calls_side_by_side_within_one_call_take_its_slot_back_once() -> None:
    limit = ConcurrencyLimit(1)

    @tool
    async def step(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @tool(limits=limit)
    async def both() -> int:
        async def after(seconds: float) -> None:
            await asyncio.sleep(seconds)
            await step(1.5)

        await asyncio.gather(*(after(seconds) for seconds in (0.0, 1.0, 1.5, 4.0)))
        return limit.in_use

    async def main() -> list[int]:
        async with parallel(max_workers=3) as p:
            for _ in range(3):
                p.add(both())
            return [result.unwrap() for result in await p.gather()]

    assert run_virtually(lambda: run(main)) == [1, 1, 1]
    assert limit.in_use == 0


def test_a_call_that_has_finished_gives_its_result_though_it_is_cut_off_while_it_takes_a_slot_back() -> None:
    limit = ConcurrencyLimit(1)
    seen: list[object] = []

    @tool
    async def step() -> str:
        await asyncio.sleep(1.0)
        return "done"

    @tool(limits=limit)
    async def impatient() -> None:
        try:
            async with asyncio.timeout(2.0):
                seen.append(await step())
                await asyncio.sleep(0.0)
        except TimeoutError:
            seen.append("too late")
        seen.append(limit.in_use)

    @tool(limits=limit)
    async def greedy() -> None:
        await asyncio.sleep(10.0)

    async def main() -> None:
        async with parallel() as p:
            p.add(impatient())
            p.add(greedy())
            await p.gather()

    run_virtually(lambda: run(main))
    assert seen == ["done", "too late", 2]
    assert limit.in_use == 0


def test_what_waits_for_its_outer_slot_again_leaves_no_permit_behind_when_it_is_cut_off() -> None:
    outer, inner = ConcurrencyLimit(1), ConcurrencyLimit(1)

    async def ask() -> None:
        raise AssertionError

    @tool(limits=outer)
    async def request() -> None:
        await asyncio.sleep(1.0)
        await under_limits((inner,), ask, Usage)

    @tool(limits=inner)
    async def has_the_inner_one() -> None:
        await asyncio.sleep(2.0)

    @tool(limits=outer)
    async def takes_the_outer_one() -> None:
        await asyncio.sleep(10.0)

    async def main() -> None:
        async with parallel() as p:
            p.add(has_the_inner_one())
            p.add(request())
            p.add(takes_the_outer_one())
            await asyncio.sleep(5.0)
            assert (outer.in_use, inner.in_use) == (1, 1)
            p.cancel()
            await p.gather()
        assert (outer.in_use, inner.in_use) == (0, 0)

    run_virtually(lambda: run(main))


def test_a_run_within_a_call_gets_the_slot_that_the_call_holds() -> None:
    limit, gauge = ConcurrencyLimit(1), Gauge()

    @tool(limits=limit)
    async def inner(number: int) -> int:
        await gauge.stay(1.0)
        return number

    @tool(limits=limit)
    async def outer(number: int) -> int:
        await gauge.stay(1.0)
        first = await run(inner, number)
        async with ExecutionState() as state:
            async with state.parallel() as p:
                p.map(inner, range(3))
                await p.gather()
            last = await inner(number)
        await gauge.stay(1.0)
        return int(first + last)

    async def main() -> list[int]:
        async with parallel() as p:
            p.map(outer, range(2))
            return [result.unwrap() for result in await p.gather()]

    assert run_virtually(lambda: run(main)) == [0, 2]
    assert gauge.most == 1
    assert limit.in_use == 0
