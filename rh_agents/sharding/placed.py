"""Shards that are on their way, as the process keeps them in mind that has their group open."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from rh_agents.core._run.frame import Frame
from rh_agents.core.errors import StopRun, WorkerLost
from rh_agents.core.results import Outcome
from rh_agents.sharding.shard import Shard

__all__ = ["Placed", "Wanted", "give"]


@dataclass(slots=True, eq=False)
class Wanted:
    """A member whose outcome is waited for."""

    frame: Frame
    item: Any
    outcome: asyncio.Future[Outcome]


@dataclass(slots=True, eq=False)
class Placed:
    """A shard that is executed, or is to be."""

    shard: Shard
    wanted: dict[bytes, Wanted]
    until: int = 0
    """Up to where its journal has been taken over."""
    is_queued: bool = False
    """Whether workers take it from a queue; else an engine of this process has it executed."""
    is_kept: bool = False
    """Of one that was found: whether it goes on as it is, and its members are not cut anew."""
    executed: asyncio.Task[None] | None = None
    """Ends when nothing more comes of it."""
    is_over: bool = False
    """Whether all of it has been taken over, so that only its run is left to be deleted."""
    ended: asyncio.Future[str | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Of one that workers execute: why it has not come to its end, when nothing more comes of it; None if it has."""
    owners: int = 0
    """How many processes of an engine have executed it."""
    keys: Collection[bytes] = ()
    """Of a shard that was found: its members, which the program may ask for."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def has_all(self) -> bool:
        """Whether all members have their outcomes, so that its process is about to end."""
        return all(each.outcome.done() and not each.outcome.cancelled() for each in self.wanted.values())

    def give_up(self, why: str) -> None:
        """Too many processes have died with it: its members fail."""
        for each in self.wanted.values():
            if not each.outcome.done():
                each.outcome.set_exception(WorkerLost(why))

    def leave(self, stop: StopRun) -> None:
        """It does not go on for now."""
        for each in self.wanted.values():
            if not each.outcome.done():
                each.outcome.set_exception(stop | stop)

    def take_back(self) -> list[Wanted]:
        """The members that have no outcome, for another shard."""
        left = [each for each in self.wanted.values() if not each.outcome.done()]
        self.wanted = {}
        return left


def give(wanted: dict[bytes, Wanted], outcomes: Iterable[Outcome | None]) -> None:
    """Let members have outcomes that are in the journal of their group."""
    for outcome in outcomes:
        its = None if outcome is None else wanted.get(outcome.key)
        if outcome is not None and its is not None and not its.outcome.done():
            its.outcome.set_result(outcome)
