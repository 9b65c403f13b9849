"""What every part of the suite stands on: the hooks that a store's tests fill in, and how a test gets its store."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rh_agents.core.errors import RunIsLive, StoreError
from rh_agents.core.events import Fact
from rh_agents.core.ports import Journal, Store
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.testing._records import BRIEF_LEASE, RUN, STARTED, Written, completed, fact, outcome, request

__all__ = [
    "PATIENCE",
    "StoreSuite",
    "cancelled",
    "expect_refusal",
    "expect_refusals",
    "nothing",
    "on_an_event_loop",
    "opened",
    "stop_request",
    "until",
    "written_run",
]

PATIENCE = 30.0
"""Seconds until a test that waits for something in vain fails."""

T = TypeVar("T")
SuiteT = TypeVar("SuiteT", bound="StoreSuite")


class StoreSuite:
    """A part of the suite without tests. A subclass says how to make a store and, where it can, how to do harm to it.

    A test that needs a hook which gives nothing is skipped, and says so.

    Attributes:
        operations: what a part adds to the random operations of `SequenceConformance`.
    """

    operations: ClassVar[tuple[str, ...]] = ()
    _stores: list[Store]

    async def make_store(self) -> Store:
        """A new store, with nothing in it."""
        raise NotImplementedError("make_store() returns a new store with nothing in it")

    async def second_store(self, store: Store) -> Store | None:
        """Another store object with the same contents, as another process would open it; None if there is none."""
        return None

    async def crash(self, store: Store) -> Store | None:
        """Leave the store as a process would that is killed, and return what the next process finds.

        What has been opened in it is not closed; nothing here refers to it any more. By default the store is closed,
        and another one opened.
        """
        other = await self.second_store(store)
        if other is not None:
            await store.aclose()
        return other

    async def silence(self, store: Store, run_id: str) -> bool:
        """Keep the owner of a run from renewing its lease, as if its process were suspended; False if that cannot be.

        Its journal is used afterwards, as by a process that goes on.
        """
        return False

    async def plant(self, store: Store, fact: Fact, given: Outcome) -> bool:
        """Put a fact with an outcome behind the journal of `RUN`, which no process executes; False if that cannot be.

        It goes past everything that keeps a call from having two outcomes, as a fault would.
        """
        return False

    async def _open(self) -> None:
        self._stores = [await self.make_store()]

    async def _close(self) -> None:
        for store in self._stores:
            await store.aclose()

    def _try_examples(
        self, count: int, examples: st.SearchStrategy[T], compare: Callable[[str, T], Coroutine[Any, Any, None]]
    ) -> None:
        """Compare so many random examples with what they should be, each in a run of its own name in one store."""
        with asyncio.Runner() as runner:
            runner.run(self._open())
            numbers = itertools.count()

            @settings(max_examples=count, deadline=None)
            @given(examples)
            def try_one(example: T) -> None:
                runner.run(compare(f"run {next(numbers)}", example))

            try:
                try_one()
            finally:
                runner.run(self._close())

    async def _execute(self, test: Callable[[Store], Awaitable[None]]) -> None:
        await self._open()
        try:
            await test(self._stores[0])
        finally:
            await self._close()

    async def _second(self, store: Store) -> Store:
        other = await self.second_store(store)
        if other is None:
            pytest.skip("second_store() gives no other store with the same contents")
        self._stores.append(other)
        return other

    async def _crashed(self, store: Store) -> Store:
        """What the next process finds. The caller must have let go of its journals: they died."""
        other = await self.crash(store)
        if other is None:
            pytest.skip("crash() gives no store that a process left when it was killed")
        self._stores.append(other)
        return other

    async def _taken_over(self, store: Store, run_id: str = RUN) -> Journal:
        """The run of an owner who has not closed it, opened as soon as it is not taken for live any more."""

        async def opened() -> Journal | None:
            try:
                return await store.open_run(request(run_id, "successor"))
            except RunIsLive:
                return None

        return await until(opened)

    async def _zombie(self, store: Store) -> tuple[Written, Journal, Journal]:
        """What is written; the journal of an owner who was silent for too long; and that of its successor."""
        written = Written(RUN)
        zombie = await store.open_run(request(owner="zombie", lease=BRIEF_LEASE))
        await written.call(zombie, outcome(1))
        if not await self.silence(store, RUN):
            pytest.skip("silence() cannot keep an owner from giving signs of life")
        other = await self.second_store(store) or store
        if other is not store:
            self._stores.append(other)
        return written, zombie, await self._taken_over(other)


def on_an_event_loop(test: Callable[[SuiteT, Store], Awaitable[None]]) -> Callable[[SuiteT], None]:
    """A test that gets a new store, on an event loop of its own."""

    @functools.wraps(test)
    def execute(suite: SuiteT) -> None:
        asyncio.run(suite._execute(lambda store: test(suite, store)))

    del execute.__wrapped__  # pytest would take the store for a fixture
    execute.__doc__ = test.__doc__ or test.__name__.removeprefix("test_").replace("_", " ").capitalize() + "."
    return execute


async def until(condition: Callable[[], Awaitable[T | None]]) -> T:
    """What the condition gives as soon as it gives anything."""
    async with asyncio.timeout(PATIENCE):
        while (found := await condition()) is None:  # noqa: ASYNC110 - what happens in a store sets no event here
            await asyncio.sleep(0.01)
    return found


async def opened(store: Store) -> tuple[Journal, Written]:
    """A new run, and what is to be in its journal."""
    return await store.open_run(request()), Written(RUN)


async def written_run(store: Store, *numbers: int, run_id: str = RUN, status: ExecutionStatus = STARTED) -> Written:
    """A run with an outcome for each number, closed."""
    written = Written(run_id)
    journal = await store.open_run(request(run_id))
    for number in numbers:
        await written.call(journal, outcome(number, f"value {number}"))
    await journal.close(status)
    return written


async def expect_refusal(journal: Journal, kind: type[StoreError]) -> None:
    """None of the methods that write events does anything."""
    call = outcome("refused")
    with pytest.raises(kind):
        await journal.append(fact(RUN, STARTED, call))
    with pytest.raises(kind):
        await journal.append(completed(RUN, call), call)
    with pytest.raises(kind):
        journal.note(fact(RUN, STARTED, call))
    with pytest.raises(kind):
        journal.note(completed(RUN, call), call)
    with pytest.raises(kind):
        await journal.flush()


async def expect_refusals(store: Store, *attempts: Callable[[], Awaitable[object]]) -> None:
    """Each is refused, first since there is no such run, and then, when there is one, since the store is closed."""
    for attempt in attempts:
        with pytest.raises(StoreError, match=RUN):
            await attempt()
    assert await store.runs() == []
    await written_run(store, 1)
    await store.aclose()
    for attempt in attempts:
        with pytest.raises(StoreError):
            await attempt()


async def nothing() -> None:
    """What actors of events would do, if they were called; and a value that is not serializable."""


def stop_request(journal: Journal) -> str | None:
    """Read again: type checkers would remember an attribute that was compared."""
    return journal.stop_requested


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel them and wait until they have ended, in whatever way."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
