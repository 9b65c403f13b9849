"""Runs that execute a part of another one, their parent: what a store keeps of them, and what it can do with them.

A child run is a run like any other, with an owner and a journal of its own, but it belongs to its parent: it is not
listed, it is deleted, erased and copied with it, and it can be made only by whoever has the parent open. What its
journal says becomes part of that of its parent when the owner of that takes it over; until then, who reads the parent
finds it there as well, unless the parent is being executed: then that is a matter of a moment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from rh_agents.core.types import ExecutionStatus

__all__ = [
    "GROUP_HAS_ENDED",
    "AboutChild",
    "ChildLeft",
    "ChildRun",
    "HasChildren",
    "NewChild",
    "about_child",
    "children_left",
]

GROUP_HAS_ENDED: Final = "its group has ended"
"""Why a child run is stopped whose calls no one wants any more: those in flight are cut off."""
_FACT: Final = "rh_agents.child"


class AboutChild(NamedTuple):
    """What there is to know of a child run besides what every run has.

    Attributes:
        group: the id of the group of its parent of which it makes members.
        given: how many entries at the head of its journal it was given by its parent, which has them already.
        places: the parts of the parent with a budget of their own that count what it spends.
    """

    group: str
    given: int = 0
    places: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """What is kept of it beside the run."""
        return {_FACT: json.dumps([self.group, self.given, list(self.places)])}


def about_child(facts: Mapping[str, str]) -> AboutChild | None:
    """What the facts of a run say of it as a child; None if it is none."""
    text = facts.get(_FACT)
    if text is None:
        return None
    group, given, places = json.loads(text)
    return AboutChild(group, given, tuple(places))


@dataclass(frozen=True, slots=True)
class NewChild:
    """A run that is to execute a part of another one.

    Attributes:
        run_id: its name.
        workflow, input: as in `RunRequest`.
        about: what is kept of it as a child.
        facts: what else is.
        queue, flow: from which queue workers take it, and what they import for it; None if its parent says who
            executes it.
    """

    run_id: str
    workflow: str
    input: bytes
    about: AboutChild
    facts: Mapping[str, str]
    queue: str | None = None
    flow: str | None = None


@dataclass(frozen=True, slots=True)
class ChildRun:
    """How a child run stands.

    Attributes:
        status, reason, claims: as in `RunInfo`.
        is_executed: whether a process executes it, as far as is known.
        is_ready: whether a worker may take it, now or when its owner dies.
        sequence: how many entries its journal has.
    """

    run_id: str
    status: ExecutionStatus
    reason: str | None
    claims: int
    is_executed: bool
    is_ready: bool
    sequence: int


class ChildLeft(NamedTuple):
    """A child run of which the journal of its parent does not have all: what it has, ends with the entry `after`."""

    run_id: str
    after: int


@runtime_checkable
class HasChildren(Protocol):
    """A store whose runs may have child runs, for those who look at it."""

    async def children(self, run_id: str) -> list[ChildRun]:
        """The child runs of a run, oldest first. Asked often, so it reads nothing but how they stand.

        Raises:
            StoreError: there is no such run, or the store failed.
        """
        ...

    async def children_left(self, run_id: str) -> list[ChildLeft]:
        """Those of which the journal of their parent does not have all; none while a process executes the parent.

        `events`, `outcomes` and `unread_outcomes` of the parent give what is left at their end, if they were asked for
        all of it, and so does its outline.

        Raises:
            StoreError: there is no such run, or the store failed.
        """
        ...


async def children_left(store: Any, run_id: str) -> Sequence[ChildLeft]:
    """See `HasChildren`; no one of a store without."""
    return await store.children_left(run_id) if isinstance(store, HasChildren) else ()
