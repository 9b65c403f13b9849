"""Windows of use that several processes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Admitted", "RateWindow", "SharedWindows"]


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


@dataclass(frozen=True, slots=True)
class Admitted:
    """The answer of a shared window.

    Attributes:
        ticket: stands for what was taken; None if nothing was.
        wait: so many seconds from now it may be worth to ask again; 0.0 with a ticket.
        why: the limit that is in the way: a name among `limits`, or "held".
    """

    ticket: str | None
    wait: float = 0.0
    why: str = ""


class SharedWindows(Protocol):
    """Who keeps them, for all processes that use it: a store does."""

    async def admit(self, window: RateWindow, amounts: Mapping[str, float]) -> Admitted:
        """Take amounts out of a window that all processes with this store share, or say when to ask again.

        At any moment, what was taken in the last `window.per` seconds, by the clock of the store, is at most the
        limits of `window`, as far as amounts stay as they were taken. Amounts of names without a limit do not count. An
        amount greater than its limit is taken when nothing else is in the window.
        """
        ...

    async def settle(self, window: RateWindow, ticket: str, amounts: Mapping[str, float]) -> None:
        """Let a ticket count for what was really used instead. It counts from the moment at which it was given."""
        ...

    async def hold(self, window: RateWindow, seconds: float) -> None:
        """Admit nobody to the window for so many seconds from now, or for longer if that was said before."""
        ...
