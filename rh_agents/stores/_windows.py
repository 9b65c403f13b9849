"""What processes share in a database: rows of JSON, and what earlier versions had taken out of windows.

Until schema 7 each call that was admitted had a row of its own, a ticket. They count until their window is over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rh_agents.core.policies.sharing.windows import SharedState
from rh_agents.stores._checksums import amounts_checksum, held_checksum, shared_checksum, ticket_checksum
from rh_agents.stores._verified import damaged

RATE = "rate:"
"""Before the name of a window, among all that is shared."""


def shared_state(place: str, name: str, state: str | None, checksum: Any) -> SharedState:
    """What is shared under a name, from its row.

    Raises:
        StoreError: the row is damaged.
    """
    if state is None:
        return {}
    if not _is_shared(name, state, checksum):
        raise damaged(place, f"the row of {name!r}, which processes share,")
    found: SharedState = json.loads(state)
    return found


def state_of_tickets(place: str, limited: str, rows: Sequence[Sequence[Any]], until: float, now: float) -> SharedState:
    """What earlier versions had taken out of a window and still counts, from rows as they are in `ticket`.

    Raises:
        StoreError: a row is damaged.
    """
    for row in rows:
        if not _is_ticket(limited, *row):
            raise damaged(place, f"a ticket of the shared limit {limited!r}")
    used = [[taken_at, json.loads(amounts)] for taken_at, ends_at, amounts, *_ in rows if ends_at > now]
    state: SharedState = {"used": used} if used else {}
    return {**state, "held": until} if until > now else state


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


def damaged_windows(
    tickets: Sequence[Sequence[Any]], holds: Sequence[Sequence[Any]], shared: Sequence[Sequence[Any]]
) -> list[str]:
    """What is damaged of all that processes share, from the same rows with their names before them."""
    found = [f"a ticket of the shared limit {row[0]!r} is damaged" for row in tickets if not _is_ticket(*row)]
    found += [f"the row of the shared limit {row[0]!r} is damaged" for row in holds if not _is_hold(*row)]
    return found + [f"what processes share as {row[0]!r} is damaged" for row in shared if not _is_shared(*row)]


def _is_shared(name: Any, state: Any, checksum: Any) -> bool:
    try:
        return bool(shared_checksum(name, state) == checksum)
    except (TypeError, ValueError, AttributeError):
        return False


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
