"""What somebody else decides (task factories, iterables, errors of other people) ends a group; it never hangs it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from rh_agents import ConcurrencyLimit, ExecutionState, GroupStatus, RateLimit, RetryPolicy, parallel, run, tool
from rh_agents.core._loops.postponed import LONGEST_WAIT
from rh_agents.core.errors import CallCancelled, StoreError, UsageError
from rh_agents.core.ports import RunInfo
from rh_agents.stores.memory import MemoryJournal
from tests.doubles import HookedStore
from tests.properties.virtual import run_virtually, tasks_besides_this_one


@tool
async def same(number: int) -> int:
    return number


def old_factory(loop: asyncio.AbstractEventLoop, steps: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A factory of tasks as it was written before Python 3.11."""
    return asyncio.Task(steps, loop=loop)


class FullFactory:
    """Makes so many tasks, then no more."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(
        self, loop: asyncio.AbstractEventLoop, steps: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        self.left -= 1
        if self.left < 0:
            raise MemoryError("no room for another task")
        return asyncio.Task(steps, loop=loop, **options)


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@pytest.mark.parametrize("items", [lambda: [1, 2], lambda: numbers(2)])
def test_a_task_factory_that_does_not_take_a_context_ends_the_group_with_its_error(items: Callable[[], Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(old_factory)  # type: ignore[arg-type]
        try:
            with pytest.raises(TypeError, match="context") as raised:
                async with parallel() as p:
                    p.map(same, items())
                    await p.gather()
        finally:
            loop.set_task_factory(before)
        assert "a task factory takes `context=`" in str(raised.value.__notes__)
        assert p.group.status is GroupStatus.FAILED
        assert tasks_besides_this_one() == set()

    run_virtually(main, collect=True)


@pytest.mark.parametrize("left", range(6))
def test_a_task_factory_that_fails_at_any_member_ends_the_group_with_its_error(left: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(FullFactory(left))  # type: ignore[arg-type, unused-ignore]
        try:
            with pytest.raises(MemoryError, match="no room"):
                async with parallel(max_workers=2) as p:
                    p.map(same, range(7))
                    await p.gather()
        finally:
            loop.set_task_factory(before)
        assert len(p.results) <= left
        assert tasks_besides_this_one() == set()

    run_virtually(main, collect=True)


def test_an_iterable_that_raises_a_cancellation_between_two_members_is_one_failed_member() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise asyncio.CancelledError  # it looked at a future that somebody had cancelled

    async def main() -> None:
        async with parallel(max_workers=1) as p:
            p.map(same, items())
            *good, last = await p.gather()
        assert [result.unwrap() for result in good] == [0, 1, 2]
        assert isinstance(last.error, CallCancelled)

    run_virtually(main)


def test_a_call_that_cannot_be_prepared_fails_alone() -> None:
    @tool(cache="run")
    async def cached(thing: object) -> object:
        return thing

    async def main() -> None:
        async with parallel(max_workers=1) as p:
            p.add(same(1))
            p.add(cached(object()))
            p.add(same(2))
            first, wrong, last = await p.gather()
        assert (first.result, last.result) == (1, 2)
        assert "object" in str(wrong.error_message)

    run_virtually(main)


HEADERS: dict[str, float] = {}


class Unreadable(Exception):
    """An error whose hint, text and truth are all made of what is missing."""

    @property
    def retry_after(self) -> float:
        return float(HEADERS["retry-after"])

    def __str__(self) -> str:
        raise KeyError("text")


class TextOfItsOwn(str):
    def splitlines(self, keepends: bool = False) -> list[str]:
        raise KeyError("lines")


class Oddly(Exception):
    """Its hint is a number that cannot be compared, its text a text that cannot be read."""

    class Odd(float):
        def __le__(self, other: object) -> bool:
            raise KeyError("compared")

        __lt__ = __gt__ = __ge__ = __le__

    retry_after = Odd(1.0)

    def __str__(self) -> str:
        return TextOfItsOwn("odd")


@dataclass(frozen=True)
class Frozen(Exception):
    """Nothing can be set of it, not even a note or a traceback."""

    code: int = 1


@pytest.mark.parametrize("kind", [Unreadable, Oddly, Frozen])
def test_whatever_an_error_answers_its_slot_is_free_again_and_its_call_is_retried(kind: type[Exception]) -> None:
    limits = ConcurrencyLimit(1), RateLimit(requests=2, per=1.0)
    error, tries = kind(), []

    @tool(limits=limits, retry=RetryPolicy(max_attempts=3, initial_delay=0.0))
    async def ask(number: int) -> int:
        tries.append(number)
        if number == 0:
            raise error
        return number

    @tool(limits=limits)
    async def around() -> int:
        return await ask(0)

    async def flow() -> None:
        async with parallel() as p:
            p.add(ask(0))
            (first,) = await p.gather()
        assert first.error is error
        assert first.attempts == 3
        with pytest.raises(kind) as raised:
            await around()
        assert raised.value is error
        assert await ask(1) == 1
        assert limits[0].in_use == 0

    run_virtually(lambda: run(flow))
    assert tries == [0] * 6 + [1]


@pytest.mark.parametrize("kind", [Unreadable, Oddly, Frozen])
def test_whatever_an_error_answers_a_group_that_fails_fast_raises_that_very_error(kind: type[Exception]) -> None:
    error = kind()

    async def fail() -> None:
        raise error

    async def fail_too() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("it cannot be closed either")

    def items() -> Iterator[int]:
        yield 1
        raise error

    async def flow() -> None:
        with pytest.raises(kind) as raised:
            async with parallel(error_strategy="fail_fast") as p:
                p.add(fail_too)
                p.add(fail)
                await p.gather()
        assert raised.value is error
        async with parallel() as p:
            p.map(same, items())
            assert (await p.gather())[-1].error is error
        assert "raised by the iterable given to map(), after 1 items" in error.__notes__

    run_virtually(lambda: run(flow))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks")
def test_a_member_that_gathers_its_own_group_is_refused_also_if_tasks_are_eager() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, arg-type, unused-ignore]
        async with parallel() as p:

            async def gathers() -> Any:
                return await p.gather()

            p.add(gathers)
            (result,) = await p.gather()
        assert isinstance(result.error, UsageError)
        async with parallel(max_workers=2) as p:
            p.map(same, numbers(5))
            assert [result.unwrap() for result in await p.gather()] == [0, 1, 2, 3, 4]

    asyncio.run(main())


class StillStore(HookedStore):
    """A store whose disk stands still from some moment on."""

    stands_still = False

    async def before_waiting(self) -> None:
        if self.stands_still:
            await asyncio.Event().wait()

    def _make_journal(self, run: Any, info: RunInfo) -> MemoryJournal:
        journal = super()._make_journal(run, info)
        close = journal.close

        async def close_when_it_answers(*how: Any) -> None:
            await self.before_waiting()
            await close(*how)

        journal.close = close_when_it_answers  # type: ignore[method-assign, assignment]
        return journal


def test_a_program_that_is_cancelled_ends_though_its_store_stands_still() -> None:
    """It is an error of the store, since nobody knows what is on disk; without a cancellation it is waited for."""
    store = StillStore()
    seconds: list[float] = []

    async def program() -> None:
        loop = asyncio.get_running_loop()
        async with ExecutionState(store=store, run_id="r"):
            await same(1)
            store.stands_still = True
            loop.call_later(100.0, seconds.append, 100.0)
            loop.call_later(101.0, asyncio.current_task().cancel)  # type: ignore[union-attr]
            started = loop.time()
            try:
                await same(2)
            finally:
                seconds.append(loop.time() - started)

    async def main() -> None:
        with pytest.raises(StoreError, match="has not answered for 30 s after a call"):
            async with asyncio.timeout(1000):
                await program()
        assert seconds == [100.0, 101.0 + LONGEST_WAIT]

    run_virtually(main)
