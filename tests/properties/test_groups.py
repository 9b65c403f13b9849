"""Groups of every shape keep their promises: nothing left running, nothing lost, nothing given twice."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rh_agents import (
    CallCancelled,
    CallTimeout,
    ExecutionEvent,
    ExecutionState,
    GroupStatus,
    GroupTimeout,
    MemoryStore,
    ParallelEventGroup,
    ParallelExecutionManager,
    RetryPolicy,
    Tool,
    TooManyFailures,
)
from rh_agents.core.results import ExecutionResult
from rh_agents.errors import UnreadFailures
from tests.properties.virtual import run_virtually, tasks_besides_this_one


class Boom(Exception):
    """What members raise."""


EXPECTED = (Boom, GroupTimeout, TooManyFailures, UnreadFailures, CallTimeout, CallCancelled)
"""What a block may raise, depending on its plan."""

ITEM_TIMEOUT = 2.0
"""As long as one of the delays, so that a timeout and the end of the work can fall on the same tick."""


@dataclass(frozen=True)
class Item:
    """What one member does: it takes `seconds` (None: it never waits), and then ..."""

    does: str
    seconds: float | None
    form: str = "call"
    nested: int = 0
    """Before that it runs a group of its own with so many members."""


@dataclass(frozen=True)
class Plan:
    """A group, how its members come to it, and how its results are read."""

    items: tuple[Item, ...]
    workers: int = 2
    ends: str = "fail_slow"
    attempts: int = 1
    timeout: float | None = None
    item_timeout: float | None = None
    enrol: str = "add"
    breaks_at: int | None = None
    """An iterable raises instead of giving this item."""
    read: str = "gather"
    leave_after: int | None = None
    """A stream is left after so many results."""
    records: bool = False
    is_watched: bool = False
    """A subscriber takes its time over every event."""


WORKS = ["value", "error", "fails once", "cancels itself", "ignores cancellation", "cleans up"]
ITEMS = st.builds(
    Item,
    does=st.sampled_from(WORKS),
    seconds=st.sampled_from([None, 0.0, 0.5, 1.0, 2.0, 5.0]),
    form=st.sampled_from(["call", "coroutine", "callable"]),
    nested=st.sampled_from([0, 0, 0, 3]),
)
PLANS = st.builds(
    Plan,
    items=st.lists(ITEMS, max_size=9).map(tuple),
    workers=st.integers(1, 4),
    ends=st.sampled_from(["fail_slow", "fail_slow", "fail_fast", "fail_after"]),
    attempts=st.sampled_from([1, 1, 3]),
    timeout=st.sampled_from([None, None, 1.0, 3.0]),
    item_timeout=st.sampled_from([None, ITEM_TIMEOUT]),
    enrol=st.sampled_from(["add", "list", "generator", "async generator"]),
    breaks_at=st.sampled_from([None, None, 0, 3]),
    read=st.sampled_from(["gather", "gather_dict", "stream", "ordered stream", "nothing", "the body raises"]),
    leave_after=st.sampled_from([None, None, 0, 2]),
    records=st.booleans(),
    is_watched=st.booleans(),
)
MOMENTS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.1, 2.0, 2.6, 4.0])

whose: ContextVar[str] = ContextVar("whose", default="the body's")


@dataclass
class Lab:
    """Carries out a plan and keeps a record of what happened."""

    plan: Plan
    attempts: Counter[int] = field(default_factory=Counter)
    raised: list[BaseException] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0
    enrolled: int = 0
    pulled: int = 0
    read_all: bool = False
    tasks_left: set[str] = field(default_factory=set)
    group: ParallelEventGroup | None = None

    # -- what members do ----------------------------------------------------------------------------------------------

    async def work(self, number: int) -> int:
        """One attempt of a member."""
        assert whose.get() == "the body's" or self.attempts[number], "a sibling's context variable is visible"
        whose.set(f"member {number}'s")
        self.attempts[number] += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await self._work(number, self.plan.items[number])
        finally:
            assert whose.get() == f"member {number}'s"
            self.in_flight -= 1

    async def _work(self, number: int, item: Item) -> int:
        if item.nested:
            await self._work_in_a_nested_group(item.nested)
        await self._take_time(item)
        if item.does == "error" or (item.does == "fails once" and self.attempts[number] == 1):
            error = Boom(number)
            self.raised.append(error)
            raise error
        if item.does == "cancels itself":
            gone = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone
        return number

    async def _take_time(self, item: Item) -> None:
        try:
            if item.seconds is not None:
                await asyncio.sleep(item.seconds)
        except asyncio.CancelledError:
            if item.does == "ignores cancellation":
                await asyncio.sleep(0.5)
                return
            if item.does == "cleans up":
                await asyncio.sleep(1.0)
            raise

    async def _work_in_a_nested_group(self, size: int) -> None:
        running = 0

        async def child(number: int) -> int:
            nonlocal running
            running += 1
            assert running == 1, "more than max_workers=1 at once"
            try:
                await asyncio.sleep(0.25)
            finally:
                running -= 1
            return number

        async with self.state.parallel(max_workers=1, name="nested") as p:
            p.map(child, range(size))
            assert [result.result for result in await p.gather()] == list(range(size))

    # -- the block ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry out the plan. Whatever the block raises is raised, after a look at what it left behind."""
        plan = self.plan
        self.state = ExecutionState(store=MemoryStore() if plan.records else None)
        if plan.is_watched:
            self.state.event_bus.subscribe(lambda event: asyncio.sleep(0.1))
        before = tasks_besides_this_one()
        manager = self.state.parallel(
            max_workers=plan.workers,
            error_strategy="fail_fast" if plan.ends == "fail_fast" else "fail_slow",
            fail_after=2 if plan.ends == "fail_after" else None,
            timeout=plan.timeout,
            item_timeout=plan.item_timeout,
            retry=RetryPolicy(max_attempts=plan.attempts, initial_delay=0.5, jitter=False),
        )
        entered = False
        try:
            async with manager as p:
                entered = True
                self._enrol(p)
                await self._read(p)
        finally:
            self.tasks_left = tasks_besides_this_one() - before
            if entered:
                self.group = manager.group

    def _enrol(self, p: ParallelExecutionManager) -> None:
        if self.plan.enrol == "list":
            p.map(self.work, range(len(self.plan.items)))
        elif self.plan.enrol == "generator":
            p.map(self.work, self._numbers())
        elif self.plan.enrol == "async generator":
            p.map(self.work, self._numbers_that_take_time())
        else:
            for number, item in enumerate(self.plan.items):
                p.add(self._as_work(number, item), name=str(number))

    def _as_work(self, number: int, item: Item) -> Any:
        if item.form == "call":
            return ExecutionEvent[int](actor=Tool(name="work", handler=self.work))(number, None, self.state)
        if item.form == "callable" or self.plan.attempts > 1:  # a bare coroutine cannot be run again
            return functools.partial(self.work, number)
        return self.work(number)

    def _numbers(self) -> Iterator[int]:
        for number in range(len(self.plan.items)):
            if number == self.plan.breaks_at:
                error = Boom("no more items")
                self.raised.append(error)
                raise error
            self.pulled += 1
            yield number

    async def _numbers_that_take_time(self) -> AsyncIterator[int]:
        for number in self._numbers():
            await asyncio.sleep(0.1 if number % 2 else 0.0)
            yield number

    async def _read(self, p: ParallelExecutionManager) -> None:
        plan = self.plan
        if plan.read == "the body raises":
            await asyncio.sleep(0.5)
            self.raised.append(Boom("the body"))
            raise self.raised[-1]
        if plan.read == "gather":
            self.given = await p.gather()
        elif plan.read == "gather_dict":
            named = await p.gather_dict()
            assert all(name in (str(result.index), "map") for name, result in named.items())
            self.given = list(named.values())
        elif plan.read != "nothing":
            if plan.leave_after == 0:
                p.stream()
                return
            async for result in p.stream(ordered=plan.read == "ordered stream"):
                self.given.append(result)
                if len(self.given) == plan.leave_after:
                    return
        self.read_all = plan.read != "nothing"

    # -- what must be true afterwards ---------------------------------------------------------------------------------

    def check_what_is_always_true(self) -> None:
        """Whatever happened: nothing runs, no limit was passed, nothing was given twice, the counts add up."""
        plan = self.plan
        assert self.tasks_left == set()
        assert self.in_flight == 0
        assert self.peak <= plan.workers
        assert max(self.attempts.values(), default=0) <= plan.attempts
        indexes = [result.index for result in self.given]
        assert len(set(indexes)) == len(indexes)
        if plan.read != "stream":
            assert indexes == sorted(index for index in indexes if index is not None)
        for result in self.given:
            self._check_result(result)
        if self.group is not None:
            self._check_counts(self.group)

    def _check_result(self, result: ExecutionResult[Any]) -> None:
        """It is what that member returned or raised, and no other one's."""
        assert result.index is not None
        error = result.error
        if result.ok:
            assert result.result == result.index
            item = self.plan.items[result.index]
            assert item.does in ("value", "fails once", "ignores cancellation", "cleans up")
            if self.plan.item_timeout is not None and item.does != "ignores cancellation":
                assert (item.seconds or 0.0) <= self.plan.item_timeout
        elif isinstance(error, Boom):
            assert any(error is raised for raised in self.raised)
            assert error.args[0] in (result.index, "no more items")
        else:
            assert isinstance(error, CallTimeout | CallCancelled)
            assert isinstance(error, CallCancelled) or self.plan.item_timeout
        assert (result.error_message is None) == result.ok

    def _check_counts(self, group: ParallelEventGroup) -> None:
        assert group.is_complete
        assert group.running == 0
        assert group.started == group.finished == group.completed + group.failed + group.cancelled
        assert group.finished + group.pending == group.enrolled
        # A task that was cancelled before its first step has been started, but its work has not.
        assert group.finished >= len(self.attempts)
        if self.read_all:
            assert group.completed == sum(result.ok for result in self.given)

    def check_a_complete_reading(self) -> None:
        """All results were read: every member's is there, once."""
        size = len(self.plan.items)
        if self.plan.enrol in ("generator", "async generator") and self.plan.breaks_at in range(size):
            size = self.pulled + 1  # the failure of the iterable is the last member
        assert sorted(result.index or 0 for result in self.given) == list(range(size))
        assert self.group is not None
        assert self.group.status is GroupStatus.COMPLETED
        assert self.group.pending == 0


def carry_out(lab: Lab) -> BaseException | None:
    """What the block raised, if anything."""

    async def main() -> BaseException | None:
        try:
            await lab.run()
        except EXPECTED as error:
            return error
        return None

    return run_virtually(main)


@settings(max_examples=350)
@given(PLANS)
def test_a_group_ends_with_all_results_or_with_the_reason_why_not(plan: Plan) -> None:
    lab = Lab(plan)
    error = carry_out(lab)
    lab.check_what_is_always_true()
    assert lab.group is not None
    if plan.timeout is not None:  # cleaning up may take a little longer
        assert lab.group.elapsed <= plan.timeout + 1.5
    if error is None:
        if lab.read_all:
            lab.check_a_complete_reading()
            assert plan.ends != "fail_fast" or all(result.ok for result in lab.given)
        if plan.read == "nothing":
            assert lab.group.finished == lab.group.completed
        return
    if isinstance(error, GroupTimeout):
        assert plan.timeout is not None
        assert lab.group.status is GroupStatus.FAILED
    elif isinstance(error, TooManyFailures):
        assert plan.ends == "fail_after"
        assert lab.group.failed + lab.group.cancelled >= 2
    elif isinstance(error, UnreadFailures):
        assert plan.read == "nothing"
        assert len(error.exceptions) == lab.group.finished - lab.group.completed
    else:
        assert plan.ends == "fail_fast" or plan.read == "the body raises"
        assert not isinstance(error, Boom) or any(error is raised for raised in lab.raised)


@settings(max_examples=250)
@given(PLANS, MOMENTS, st.sampled_from([None, 0.0, 0.5]))
def test_a_cancellation_at_any_moment_ends_the_awaiting_task_and_everything_below_it(
    plan: Plan, moment: float, again_after: float | None
) -> None:
    lab = Lab(plan)
    requests = 0

    async def main() -> None:
        task = asyncio.ensure_future(body())
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            nonlocal requests
            requests += task.cancel()

        loop.call_later(moment, cancel)
        if again_after is not None:
            loop.call_later(moment + again_after, cancel)
        await asyncio.wait([task])
        assert task.cancelled() == (requests > 0)
        if not task.cancelled() and (error := task.exception()):
            assert isinstance(error, EXPECTED)

    async def body() -> None:
        try:
            await lab.run()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == requests > 0
            raise

    run_virtually(main)
    lab.check_what_is_always_true()


@settings(max_examples=250)
@given(PLANS, MOMENTS.filter(bool))
def test_a_timeout_of_asyncio_round_a_group_is_a_timeout_and_leaves_no_cancellation_behind(
    plan: Plan, seconds: float
) -> None:
    lab = Lab(plan)

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        deadline = asyncio.timeout(seconds)
        with suppress(TimeoutError, *EXPECTED):
            async with deadline:
                await lab.run()
        assert task.cancelling() == 0
        await asyncio.sleep(10)  # would raise if a cancellation were still on its way
        assert lab.in_flight == 0

    run_virtually(main)
    lab.check_what_is_always_true()


@settings(max_examples=150)
@given(st.lists(ITEMS, min_size=1, max_size=6).map(tuple), st.integers(1, 3), MOMENTS)
def test_groups_in_groups_end_with_the_outermost_one(items: tuple[Item, ...], depth: int, moment: float) -> None:
    labs: list[Lab] = []

    async def level(number: int) -> None:
        lab = Lab(Plan(items, workers=2))
        labs.append(lab)
        if number == 0:
            return await lab.run()
        async with ExecutionState().parallel(max_workers=2) as p:
            p.map(level, [number - 1, number - 1])
            await p.gather()
        return None

    async def main() -> None:
        task = asyncio.ensure_future(level(depth))
        await asyncio.wait([task], timeout=moment)
        was_running = task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() == was_running
        assert tasks_besides_this_one() == set()

    run_virtually(main)
    for lab in labs:
        lab.tasks_left.clear()  # those of its siblings, which may begin after it; `main` has looked that none is left
        lab.check_what_is_always_true()


@settings(max_examples=150)
@given(st.integers(0, 300), st.integers(1, 5), st.integers(0, 40), st.booleans(), st.booleans())
def test_many_items_are_pulled_only_as_the_reader_takes_results(
    size: int, workers: int, taken: int, ordered: bool, is_async: bool
) -> None:
    pulled = 0
    furthest = 0

    def numbers() -> Iterator[int]:
        nonlocal pulled
        for number in range(size):
            pulled += 1
            yield number

    async def numbers_later() -> AsyncIterator[int]:
        for number in numbers():
            yield number

    async def double(number: int) -> int:
        await asyncio.sleep(number % 3)
        return 2 * number

    async def main() -> list[int]:
        nonlocal furthest
        values: list[int] = []
        async with ExecutionState().parallel(max_workers=workers) as p:
            p.map(double, numbers_later() if is_async else numbers())
            async for result in p.stream(ordered=ordered):
                values.append(result.unwrap())
                await asyncio.sleep(7)  # a slow reader
                furthest = max(furthest, pulled - len(values))
                if len(values) == taken:
                    break
        return values

    values = run_virtually(main)
    assert furthest <= max(16, 2 * workers) + workers + 1
    assert len(set(values)) == len(values)
    if taken == 0 or taken > size:
        assert sorted(values) == [2 * number for number in range(size)]
    if ordered:
        assert values == [2 * number for number in range(len(values))]


def test_an_iterable_may_add_members_while_it_is_being_pulled() -> None:
    running = 0

    async def work(number: int) -> int:
        nonlocal running
        running += 1
        assert running <= 2
        await asyncio.sleep(1)
        running -= 1
        return number

    async def main() -> None:
        async with ExecutionState().parallel(max_workers=2) as p:

            def numbers() -> Iterator[int]:
                for number in range(5):
                    p.add(functools.partial(work, number))
                    yield number + 5

            p.map(work, numbers())
            results = await p.gather()
        assert [result.index for result in results] == list(range(10))
        assert sorted(result.unwrap() for result in results) == list(range(10))

    run_virtually(main)


def test_nothing_of_all_this_is_left_to_the_garbage_collector_to_complain_about() -> None:
    async def main() -> None:
        for enrol in ("add", "list", "generator", "async generator"):
            lab = Lab(Plan((Item("value", 5.0, "coroutine"),) * 6, timeout=1.0, enrol=enrol))
            try:
                await lab.run()
            except GroupTimeout:
                lab.check_what_is_always_true()

    run_virtually(main, collect=True)
