"""A world for runs that are stopped, that crash and that are started again: it sees what was called."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from rh_agents import ExecutionState, ExecutionStatus, MemoryStore, tool
from rh_agents.core.events import Fact
from rh_agents.core.ports import Clock, RunInfo
from rh_agents.core.results import Outcome
from tests.doubles import HookedStore, request

__all__ = ["RUN", "Crash", "KeepingStore", "SlowlyAcknowledged", "SlowlyRead", "World", "crash", "statuses"]

RUN = "monday"


class Crash(BaseException):
    """The process dies: nothing that handles exceptions sees to it."""


class KeepingStore(HookedStore):
    """A store that can be taken back to what it was after any of its writes, as a `kill -9` there would leave it."""

    def __init__(self, *, clock: Clock = time.time) -> None:
        super().__init__(clock=clock)
        self.clock = clock
        self.entries: list[tuple[Fact, Outcome | None]] = []

    def after_adding(self, fact: Fact, outcome: Outcome | None) -> None:
        self.entries.append((fact, outcome))

    async def after_the_first(self, count: int) -> KeepingStore:
        """What a crash after so many writes leaves."""
        left = KeepingStore(clock=self.clock)
        journal = await left.open_run(request(RUN))
        for fact, outcome in self.entries[:count]:
            journal.note(fact, outcome)
        return left

    async def after_its_end(self, ended: int, count: int) -> KeepingStore:
        """What a crash after `count` writes leaves of a run that had ended after so many, and was started again."""
        left = await self.after_the_first(ended)
        state = ExecutionState(store=left, run_id=RUN)
        await state.open()
        await state.end()
        state = ExecutionState(store=left, run_id=RUN)
        await state.open()
        journal = state.journal
        assert journal is not None
        for fact, outcome in self.entries[ended:count]:
            journal.note(fact, outcome)
        await state.end(ExecutionStatus.STARTED)
        return left


class SlowlyRead(KeepingStore):
    """Reading an outcome takes longer than making it."""

    def _make_journal(self, run: Any, info: Any) -> Any:
        journal: Any = super()._make_journal(run, info)
        load = journal.load

        async def slowly(key: bytes) -> Any:
            await asyncio.sleep(5)
            return await load(key)

        journal.load, journal.load_nowait = slowly, lambda key: None
        return journal


class SlowlyAcknowledged(KeepingStore):
    """What is written down is there at once, and is acknowledged a moment later."""

    def _make_journal(self, run: Any, info: Any) -> Any:
        journal: Any = super()._make_journal(run, info)
        append = journal.append

        async def slowly(event: Any, outcome: Any = None) -> Any:
            counts = await append(event, outcome)
            await asyncio.sleep(0.05)
            return counts

        journal.append = slowly
        return journal


class World:
    """What the functions of a test have done, how long they take, and what is wrong."""

    def __init__(self) -> None:
        self.store: MemoryStore = KeepingStore()
        self.calls: list[Any] = []
        """What was called, at the end of each call."""
        self.begun: list[Any] = []
        """The same, at its beginning."""
        self.down: list[Any] = []
        """Which calls fail."""
        self.seconds: dict[Any, float] = {}
        """How long calls take that do not take one second."""

    def forget(self) -> list[Any]:
        """What was called since this was asked last."""
        calls, self.calls, self.begun = self.calls, [], []
        return calls

    def see(self, what: Any) -> Any:
        """Called, and done at once."""
        self.begun.append(what)
        return self._end(what)

    async def do(self, what: Any) -> Any:
        """Called, and done after its time."""
        self.begun.append(what)
        await asyncio.sleep(self.seconds.get(what, 1.0))
        return self._end(what)

    def _end(self, what: Any) -> Any:
        self.calls.append(what)
        if what in self.down:
            raise ConnectionError(f"{what} is down")
        return what

    def make_fetch(self, **options: Any) -> Any:
        """A tool that does what it is given."""

        @tool(name="fetch", **options)
        async def fetch(what: Any) -> Any:
            return await self.do(what)

        return fetch

    def again(self, **options: Any) -> ExecutionState:
        """The same run, as another process would open it."""
        return ExecutionState(**{"store": self.store, "run_id": RUN, **options})

    async def values(self) -> list[Any]:
        """What is recorded, in its order; of a failure, its class."""
        return [
            outcome.value if outcome.error is None else type(outcome.error)
            async for outcome in self.store.outcomes(RUN)
        ]

    async def info(self) -> RunInfo:
        """What the store knows of the run."""
        info = await self.store.find_run(RUN)
        assert info is not None
        return info


async def crash(state: ExecutionState, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Execute some of a run, then die."""
    with pytest.raises(Crash):
        async with state:
            await work()
            raise Crash


async def statuses(store: MemoryStore) -> list[str]:
    """The journal of the run, told by the statuses of its events."""
    return [entry.event.execution_status.value async for entry in store.events(RUN)]
