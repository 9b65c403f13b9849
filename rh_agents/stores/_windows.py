"""Sliding windows that processes share: who may pass now, and when it is worth asking again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import from_json

from rh_agents.core.ports import Admitted, RateWindow
from rh_agents.stores._checksums import amounts_checksum, held_checksum, ticket_checksum
from rh_agents.stores._verified import damaged

_LEAST_WAIT = 0.001
"""Seconds: a window is never asked again at once."""


class Ticket(NamedTuple):
    """What was taken out of a window, and when."""

    taken_at: float
    amounts: Mapping[str, float]


def tickets_since(place: str, limited: str, rows: Sequence[Sequence[Any]], since: float) -> list[Ticket]:
    """What was taken out of a window since a moment, from its rows: `taken_at, ends_at, amounts` and two checksums.

    Raises:
        StoreError: a row is damaged.
    """
    for row in rows:
        if not _is_ticket(limited, *row):
            raise damaged(place, f"a ticket of the shared limit {limited!r}")
    return [Ticket(taken_at, from_json(amounts)) for taken_at, _, amounts, *_ in rows if taken_at > since]


def held_until(place: str, limited: str, row: Sequence[Any] | None) -> float:
    """Before when nobody passes, from the row of a window: that and its checksum. 0 if there is none.

    Raises:
        StoreError: the row is damaged.
    """
    if row is None or row[0] is None:
        return 0.0
    if not _is_hold(limited, *row):
        raise damaged(place, f"the row of the shared limit {limited!r}")
    return float(row[0])


def damaged_windows(tickets: Sequence[Sequence[Any]], holds: Sequence[Sequence[Any]]) -> list[str]:
    """What is damaged of all windows, from the same rows with the name of their limit before them."""
    found = [f"a ticket of the shared limit {row[0]!r} is damaged" for row in tickets if not _is_ticket(*row)]
    return found + [f"the row of the shared limit {row[0]!r} is damaged" for row in holds if not _is_hold(*row)]


def _is_ticket(limited: Any, taken_at: Any, ends_at: Any, amounts: Any, checksum: Any, of_amounts: Any) -> bool:
    try:
        found = ticket_checksum(limited, taken_at, ends_at), amounts_checksum(limited, amounts)
    except (TypeError, ValueError, AttributeError):
        return False
    return found == (checksum, of_amounts)


def _is_hold(limited: Any, until: Any, checksum: Any) -> bool:
    try:
        return bool(held_checksum(limited, until) == checksum)
    except (TypeError, ValueError, AttributeError):
        return False


def refusal(
    window: RateWindow, tickets: Sequence[Ticket], until: float, amounts: Mapping[str, float], now: float
) -> Admitted | None:
    """Why nothing can be taken now, and for how long; None if it can.

    A ticket counts as long as a window that ends now, or later, has its moment in it. An amount that is larger than its
    limit passes when nothing else is in the window, since it never would otherwise.

    Args:
        window: what may be taken.
        tickets: what has been taken in the last `window.per` seconds, oldest first.
        until: nobody passes before.
        amounts: what is wanted.
        now: the moment, by the same clock.
    """
    if now < until:
        return Admitted(None, until - now, "held")
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
