"""Calls with more than one outcome: how they are kept from coming about, and what is said if there are any.

The owner of a run sees to it that a call gets one outcome (`SqlJournal._enter`), and every batch proves that it is the
owner. Nothing else is needed. An index over keys would say less, since it says nothing about who wrote, and being an
index over random values it cost more than everything else that is written for a call. If there are two outcomes all the
same (a fault, or somebody has changed the database), the first one counts for everybody, opening the run says so, and
`check` fails.
"""

from __future__ import annotations

import os

from pydantic_core import from_json

from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.errors import StoreError
from rh_agents.core.redaction import logger
from rh_agents.core.results import Outcome

_LOG = logger("rh_agents.stores")


def warn_of_repeated(place: str, run_id: str, recorded: RecordedCalls) -> None:
    """Log it if calls have more than one outcome: that was a fault, though it does no harm from here on."""
    if not recorded.repeated:
        return
    later, key = next(iter(recorded.repeated.items()))
    others = f", and so have {len(recorded.repeated) - 1} others" if len(recorded.repeated) > 1 else ""
    _LOG.warning(
        "%s: run %r has two outcomes for the call with the key %s, at events %d and %d%s: the first one counts",
        place,
        run_id,
        key.hex(),
        recorded.finished[key],
        later,
        others,
    )


def made_twice(run_id: str, outcome: Outcome, sequence: int) -> StoreError:
    """The error that says that a call has come to an outcome, though it has another one at this place."""
    return StoreError(
        f"run {run_id!r}: call {outcome.address!r} has come to another result than is recorded at event {sequence} "
        f"under the same key {outcome.key.hex()}: it was made twice, which is a fault of rh_agents"
    )


def says_the_same(text: bytes, other: bytes) -> bool:
    """Whether two typed JSON texts are of the same value: that of a large one has line feeds between its parts."""
    return text == other or repr(from_json(text)) == repr(from_json(other))


def repeated_finding(run_id: str, key: str, sequence: int, first: int) -> str:
    """The finding that says that a call has more than one outcome."""
    return (
        f"run {run_id!r}: the call with the key {key.lower()} has another outcome at event {sequence} than at event "
        f"{first}, which is the one that counts"
    )


def not_once(place: str) -> StoreError:
    """The error that says that a database cannot hold by an index what is not so in it."""
    return StoreError(
        f"{place}: RH_AGENTS_CHECK=keys is to hold that a call has one outcome, and there is a call that has two: "
        "`rh-agents check` names it; without that variable the first outcome counts"
    )


def is_wanted(check: str) -> bool:
    """Whether the environment variable `RH_AGENTS_CHECK` asks for a check, one word among others.

    `keys`: the database holds, by a unique index, that a call has one outcome. The owner of a run sees to that without
    it, at a fraction of the cost (see `SqlJournal`); our own tests have both.
    """
    return check in os.environ.get("RH_AGENTS_CHECK", "").replace(",", " ").split()
