"""Rows of queues as the databases give them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rh_agents.core.ports.control import Verb
from rh_agents.stores._backend.rows import HeldRow

__all__ = ["has_signal", "looked_at"]


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
