"""Sliding windows that processes share: who may pass now, and when it is worth asking again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rh_agents.core.ports import Admitted, RateWindow

__all__ = ["Ticket", "refusal"]

_LEAST_WAIT = 0.001
"""Seconds: a window is never asked again at once."""


class Ticket(NamedTuple):
    """What was taken out of a window, and when."""

    taken_at: float
    amounts: Mapping[str, float]


def refusal(
    window: RateWindow, tickets: Sequence[Ticket], held_until: float, amounts: Mapping[str, float], now: float
) -> Admitted | None:
    """Why nothing can be taken now, and for how long; None if it can.

    A ticket counts as long as a window that ends now, or later, has its moment in it. An amount that is larger than its
    limit passes when nothing else is in the window, since it never would otherwise.

    Args:
        window: what may be taken.
        tickets: what has been taken in the last `window.per` seconds, oldest first.
        held_until: nobody passes before.
        amounts: what is wanted.
        now: the moment, by the same clock.
    """
    if now < held_until:
        return Admitted(None, held_until - now, "held")
    worst: Admitted | None = None
    for name, limit in window.limits.items():
        wanted = min(amounts.get(name, 0.0), limit)
        if wanted <= 0:
            continue
        excess = sum(ticket.amounts.get(name, 0.0) for ticket in tickets) + wanted - limit
        wait = _until_free(tickets, name, excess, window.per, now)
        if wait is not None and (worst is None or wait > worst.wait):
            worst = Admitted(None, wait, name)
    return worst


def _until_free(tickets: Sequence[Ticket], name: str, excess: float, per: float, now: float) -> float | None:
    """Seconds until so much has left the window; None if that is nothing."""
    if excess <= 0:
        return None
    for ticket in tickets:
        excess -= ticket.amounts.get(name, 0.0)
        if excess <= 0:
            return max(_LEAST_WAIT, ticket.taken_at + per - now)
    return per
