"""A program is cut off at each of its awaits: nothing is left taken, and nothing finished is paid for twice."""

from __future__ import annotations

import asyncio
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from rh_agents import (
    Budget,
    CircuitBreaker,
    ConcurrencyLimit,
    ExecutionState,
    RateLimit,
    RetryPolicy,
    Usage,
    agent,
    parallel,
    report_usage,
    tool,
)
from rh_agents.core.context import again
from rh_agents.policies import AdaptiveConcurrency
from tests.doubles import HookedStore
from tests.properties.virtual import run_virtually, tasks_besides_this_one

RUN = "cut off"
BUDGET = Budget(tokens=1_000_000, calls=1_000)


class SlowStore(HookedStore):
    """Whatever it is asked takes a moment, before and after it is done."""

    async def before_waiting(self) -> None:
        await asyncio.sleep(0.01)

    async def share(self, *args: Any) -> Any:
        return await self._slowly(super().share, *args)

    async def put_cached(self, *args: Any) -> Any:
        return await self._slowly(super().put_cached, *args)

    async def _slowly(self, step: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        await asyncio.sleep(0.01)
        found = await step(*args)
        await asyncio.sleep(0.01)
        return found


@types.coroutine
def stepping(steps: Coroutine[Any, Any, Any], waits: Callable[[Any], None]) -> Generator[Any, Any, Any]:
    """Await `steps`, and tell `waits` of each future that is awaited in it."""
    raised: BaseException | None = None
    while True:
        try:
            future = steps.send(None) if raised is None else steps.throw(raised)
        except StopIteration as end:
            return end.value
        raised = None
        waits(future)
        try:
            yield future
        except BaseException as error:  # noqa: BLE001 - it is handed on
            raised = error


class Cut:
    """Cuts a task off when it waits for the n-th time: at once, or when what it waits for is there already."""

    def __init__(self, count: int, *, late: bool) -> None:
        self.count = count
        self.waits = 0
        self._late = late

    def __call__(self, future: Any) -> None:
        self.waits += 1
        if self.waits != self.count:
            return
        task = asyncio.current_task()
        assert task is not None
        if self._late and future is not None:
            future.add_done_callback(lambda _: task.cancel())
        else:
            asyncio.get_running_loop().call_soon(task.cancel)


class World:
    def __init__(self) -> None:
        self.store = SlowStore()
        self.slots = ConcurrencyLimit(1)
        self.adaptive = AdaptiveConcurrency(2)
        self.shared = RateLimit(requests=100, tokens=10_000, per=60.0, name="account", shared=True)
        self.breaker = CircuitBreaker(50)
        self.finished: list[tuple[str, int]] = []
        self.failed: set[int] = set()
        self.flow = self._make_flow()

    def _make_flow(self) -> Any:
        policies: dict[str, Any] = {
            "retry": RetryPolicy(max_attempts=4, jitter=False),
            "timeout": 5.0,
            "limits": [self.slots, self.shared, self.adaptive],
            "breaker": self.breaker,
        }

        @tool(**policies)
        async def work(number: int) -> int:
            report_usage(Usage(10, 1, requests=1))
            await asyncio.sleep(0.1)
            await again(Usage(10, 0, requests=1))
            report_usage(Usage(10, 1, requests=1))
            if number not in self.failed:
                self.failed.add(number)
                raise ConnectionError
            self.finished.append(("work", number))
            return number

        @tool(cache="run", timeout=3.0)
        async def cached(number: int) -> int:
            await asyncio.sleep(0.1)
            self.finished.append(("cached", number))
            return number

        @agent(budget=Budget(tokens=1_000), limits=[self.slots], retry=2, timeout=60.0)
        async def flow(number: int) -> list[int]:
            first = [await work(number), await cached(number), await cached(number)]
            async with parallel(max_workers=2, limits=[self.adaptive]) as p:
                p.add(work(number + 1))
                p.add(cached(number + 1))
                p.add(cached(number + 1))
                p.add(lambda: work(number + 2))
                return [*first, *(result.unwrap() for result in await p.gather())]

        return flow

    async def execute(self, cut: Cut) -> Any:
        """Execute the flow, cut it off, and see what is left of it."""
        async with ExecutionState(store=self.store, run_id=RUN, budget=BUDGET) as state:
            task = asyncio.create_task(self._cut_off(cut))
            await asyncio.wait([task])
            await asyncio.sleep(1.0)
            ledger = state.parts.budgets.of_run
            assert ledger is not None
            assert (self.slots.in_use, self.adaptive.in_use, self.breaker._probing) == (0, 0, 0)
            assert not ledger.reserved
            assert tasks_besides_this_one() <= {"main"}
            return None if task.cancelled() else task.result()

    async def _cut_off(self, cut: Cut) -> Any:
        return await stepping(self._flow(), cut)

    async def _flow(self) -> Any:
        return await self.flow(1)

    async def recorded(self) -> set[tuple[str, Any]]:
        outcomes = [outcome async for outcome in self.store.outcomes(RUN) if outcome.error is None]
        return {(outcome.name, outcome.value) for outcome in outcomes if outcome.name != "flow"}


def waits_of_the_flow() -> int:
    cut = Cut(0, late=False)
    assert run_virtually(lambda: World().execute(cut)) == [1, 1, 1, 2, 2, 2, 3]
    return cut.waits


@pytest.mark.parametrize("late", [False, True])
def test_wherever_a_program_is_cut_off_nothing_is_left_taken_and_nothing_is_paid_for_twice(late: bool) -> None:
    async def main(count: int) -> None:
        world = World()
        await world.execute(Cut(count, late=late))
        assert set(world.finished) <= await world.recorded()
        assert await world.execute(Cut(0, late=False)) == [1, 1, 1, 2, 2, 2, 3]
        assert max(Counter(world.finished).values()) == 1

    for count in range(1, waits_of_the_flow() + 1):
        run_virtually(lambda count=count: main(count))  # type: ignore[misc]
