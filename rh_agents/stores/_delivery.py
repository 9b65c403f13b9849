"""What the thread that writes is given: batches, other work, and runs whose owners are to be kept alive."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from rh_agents.core.errors import StoreError
from rh_agents.stores._backend import WriteSession
from rh_agents.stores._backend.rows import Batch, LeaseState

__all__ = ["Delivery", "Held", "Holder", "Job"]

ASK_EVERY: Final = 1 / 15
"""Of its lease: so often, once a second as a rule, an owner is asked what its run does."""
_FRESH: Final = LeaseState(True, None)


class Holder(Protocol):
    """Who holds a run, as far as its writer needs to know. The attributes never change."""

    number: int
    fence: int
    lease: float
    loop: asyncio.AbstractEventLoop

    def look_at_run(self) -> None:
        """Called on its event loop about once a second: let others know what the run is doing."""
        ...

    def lease_changed(self, state: LeaseState) -> None:
        """Called on its event loop when the state of its lease has changed."""
        ...


@dataclass(slots=True)
class Delivery:
    """A batch on its way to the database.

    Attributes:
        batch: what to write.
        artifacts: large values of its outcomes, which have to be kept before it is written.
        loop, done: `done` is called on the loop with what became of it.
        seconds: how long the transaction took in which it was written; the thread says so before it calls `done`.
    """

    batch: Batch
    loop: asyncio.AbstractEventLoop
    done: Callable[[LeaseState | StoreError], None]
    artifacts: list[bytes] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True)
class Job:
    """Anything else that is to be done with the session.

    Attributes:
        work: what to do.
        future: gets what comes of it.
        again: what to do instead if the way to the database broke meanwhile, when there is one again.
        until: up to this moment by the monotonic clock that is tried.
    """

    work: Callable[[WriteSession], Any]
    future: Future[Any]
    again: Callable[[WriteSession], Any] | None = None
    until: float = 0.0


@dataclass(slots=True)
class Held:
    """A run whose owner is to be kept alive."""

    holder: weakref.ref[Holder]
    key: tuple[int, int]
    lease: float
    seen_at: float
    """Before the last sign of life was sent that has arrived. No one can take the run over until a lease later."""
    asked_at: float
    """When it was asked last what it does; at first when it came."""
    tried_at: float = 0.0
    """When a sign of life was given last, whether it has arrived or not."""
    certain_until: float = -math.inf
    """Up to then by `since_boot` it is certain that no one has taken the run over."""
    reported: LeaseState = _FRESH

    @property
    def is_alive(self) -> bool:
        """Whether anybody can still use it."""
        holder = self.holder()
        return holder is not None and not holder.loop.is_closed()

    @property
    def due_at(self) -> float:
        """When its next sign of life is due. One that has not arrived is given again soon."""
        return max(self.seen_at + self.lease / 3, self.tried_at + self.lease * ASK_EVERY)

    @property
    def ends_at(self) -> float:
        """Until when it is certain that no one has taken the run over."""
        return self.seen_at + self.lease

    @property
    def asks_at(self) -> float:
        """When it is to be asked next what its run does."""
        return self.asked_at + self.lease * ASK_EVERY
