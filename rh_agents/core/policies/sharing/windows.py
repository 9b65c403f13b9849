"""What processes share through their store: one small object under a name, which each changes by a step of its own.

A store knows nothing of limits and budgets. It reads the object, lets a pure function make the next one of it, writes
that, and gives the function's answer back, all in one transaction and with the time of one clock. What the objects mean
is decided in one place for all stores, beside this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

__all__ = ["Amounts", "RateWindow", "SharedState", "SharedStates", "moment_of"]

T = TypeVar("T")
SharedState = dict[str, Any]
"""What is shared under one name, as plain JSON; empty before anybody has changed it."""
Amounts = Mapping[str, float]
"""How much of what, by its name: of "requests" and "tokens" of a limit, of "cost", "tokens" and "calls" of a budget."""


@dataclass(frozen=True, slots=True)
class RateWindow:
    """What processes may use together in any period of `per` seconds.

    Attributes:
        name: who uses the same name shares the window.
        per: the length of the window, in seconds.
        limits: how much of what: of "requests", "tokens", "input_tokens" and "output_tokens".
    """

    name: str
    per: float
    limits: Mapping[str, float]


class SharedStates(Protocol):
    """Who keeps them, for all processes that use it: a store does."""

    async def share(self, name: str, step: Callable[[SharedState, float], T]) -> T:
        """Change what is shared under a name, and return what `step` returns.

        No other process sees or changes it meanwhile, and the change survives a crash. One row is read and one is
        written, whatever has happened under this name before.

        Args:
            name: any text.
            step: changes the object that it is given, in place, and gets the time in seconds by the clock that all
                processes with this store have in common (a server's own). It is pure, calls nothing of the store, may
                be called in another thread, and bears to be made twice: if the connection is lost while the change is
                committed, no one knows whether it was.

        Raises:
            StoreError: it cannot be read or written, or is damaged. Nothing has changed then, as far as is known.
        """
        ...


def moment_of(state: SharedState, now: float) -> float:
    """The time for a shared object, which never goes back: if the clock was set back, it continues where it was.

    Without that, what was counted before such a step would count for as long as the step was wide, or for years.
    """
    ahead = float(state.get("ahead", 0.0))
    last = float(state.get("at", now + ahead))
    moment = now + ahead
    if moment < last:
        state["ahead"] = ahead + last - moment
        moment = last
    state["at"] = moment
    return moment
