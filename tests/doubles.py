"""Stores for tests that want to see, delay or spoil what is recorded."""

from __future__ import annotations

from typing import Any

from rh_agents import MemoryStore
from rh_agents.core.events import Fact
from rh_agents.core.ports import RunInfo, RunRequest
from rh_agents.core.ports.control import ControlRequest
from rh_agents.core.results import Outcome
from rh_agents.stores.memory import MemoryJournal


class HookedStore(MemoryStore):
    """A store that asks before it does anything. What a hook raises is what the store raises."""

    async def before_opening(self) -> None:
        """A run is about to be opened."""

    async def before_waiting(self) -> None:
        """Somebody waits for an entry to be on disk."""

    async def before_reading_requests(self) -> None:
        """It is about to be looked for what was asked of a run."""

    def before_adding(self) -> None:
        """An entry is about to be added."""

    def after_adding(self, fact: Fact, outcome: Outcome | None) -> None:
        """An entry has been added."""

    async def open_run(self, request: RunRequest) -> MemoryJournal:
        await self.before_opening()
        return await super().open_run(request)

    def _make_journal(self, run: Any, info: RunInfo) -> MemoryJournal:
        return _HookedJournal(run, info, self)


class _HookedJournal(MemoryJournal):
    def __init__(self, run: Any, info: RunInfo, store: HookedStore) -> None:
        super().__init__(run, info, store)
        self.hooks = store

    def note(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        self.hooks.before_adding()
        counts = super().note(fact, outcome)
        self.hooks.after_adding(fact, outcome)
        return counts

    async def requests(self) -> list[ControlRequest]:
        await self.hooks.before_reading_requests()
        return await super().requests()

    async def append(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        await self.hooks.before_waiting()
        return self.note(fact, outcome)


def request(run_id: str, owner: str = "a test") -> RunRequest:
    """What a store is asked to open."""
    return RunRequest(run_id, owner)
