"""Rows of queues as the databases give them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rh_agents.core.ports.control import Verb
from rh_agents.stores._backend.rows import HeldRow

__all__ = ["at_once", "has_signal", "looked_at"]

_CLOCKS_MAY_DIFFER: Final = 60.0
"""Seconds between the clocks of two machines that make no run wait which need not."""


def at_once(now: float) -> float:
    """From when on a worker may take a run that waits for no moment.

    Each worker compares it with its own clock. One whose clock is a few seconds behind would see every run only after
    the others, and get none of the shards of a `map`, which are made one after the other. Such runs keep
    their order among each other.
    """
    return now - _CLOCKS_MAY_DIFFER


def has_signal(requests: Iterable[Sequence[Any]], events: Sequence[str]) -> bool:
    """Whether one of the open requests to a run, as the columns `id, verb, arguments, …`, is a signal for these."""
    return any(
        verb == Verb.SIGNAL and json.loads(arguments).get("event") in events for _, verb, arguments, *_ in requests
    )


def looked_at(rows: Iterable[Iterable[Any]]) -> tuple[list[str], list[HeldRow]]:
    """What `look_at_queue` gives: flows of runs without an owner, and the leases of the others."""
    flows, held = list[str](), list[HeldRow]()
    for number, *rest in rows:
        if number is None:
            flows.append(rest[-1])
        else:
            held.append(HeldRow._make((number, *rest)))
    return flows, held
