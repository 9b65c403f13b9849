"""Child runs in a database (see `rh_agents.core.policies.child_runs`): how they stand, and what is left of them.

How much of a child's journal its parent has, the journal of the parent says: the owner who takes entries over writes
into the last one of each batch up to where it has come (`taken_over`). So that is there or not together with them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from rh_agents.core.errors import LeaseLost
from rh_agents.core.policies.child_runs import AboutChild, ChildRun, NewChild, about_child
from rh_agents.core.ports.summary import GROUP_EVENTS
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend.rows import ENDED, ChildRow, EventRow, Queued, RunRow
from rh_agents.stores._checksums import queue_checksum
from rh_agents.stores._ownership import is_fresh, is_gone
from rh_agents.stores._parts import parts_back
from rh_agents.stores._queues import at_once
from rh_agents.stores._verified import VerifiedSession

__all__ = [
    "Left",
    "as_of_parent",
    "checksums_when_released",
    "child_of",
    "held_of",
    "left_of",
    "new_child_row",
    "parent_lost",
    "taken_over_up_to",
]

_GROUPS: Final = frozenset(kind.value for kind in GROUP_EVENTS)
_SPENT: Final = ("usage", "charges")
"""What events say of what was spent, among their rarer facts."""


class Left(NamedTuple):
    """A child run of which the journal of its parent does not have all.

    Attributes:
        row: the child.
        about: what is kept of it as a child.
        after: the last entry of its journal that its parent has.
    """

    row: RunRow
    about: AboutChild
    after: int


def child_of(row: ChildRow, now: float) -> ChildRun:
    """How a child run stands."""
    is_executed = row.owner is not None and not is_gone(row.process) and 0.0 <= now - row.heartbeat_at < row.lease
    status = ExecutionStatus(row.status)
    is_ready = row.ready_at is not None and status not in ENDED
    return ChildRun(row.run_id, status, row.reason, row.claims, is_executed, is_ready, row.last_sequence)


def left_of(session: VerifiedSession, run: RunRow, now: float) -> list[Left]:
    """The child runs of a run that has no owner with something that its journal does not have."""
    if run.owner is not None and not is_gone(run.process) and is_fresh(run, now):
        return []
    found = []
    for each in session.children(run.number):
        child = session.find_run(each.run_id) if each.last_sequence else None
        about = None if child is None else about_child(child.facts)
        if child is None or about is None:
            continue
        after = max(about.given, taken_over_up_to(session, run, child.run_id))
        if after < child.last_sequence:
            found.append(Left(child, about, after))
    return found


def taken_over_up_to(session: VerifiedSession, run: RunRow, child_id: str) -> int:
    """Up to where the journal of a child is in that of its parent. Usually the newest entries say it."""
    name = json.dumps(child_id)  # as it stands in the text that is searched
    for low, high in parts_back(0, run.last_sequence):
        until = high
        while (found := session.inner.find_mark(run.number, low, until, name)) is not None:
            more = session.events_at(run.number, run.run_id, [found])[0].more
            mark: dict[str, Any] = json.loads(more or "{}").get("taken_over") or {}
            if mark.get("run") == child_id:
                return int(mark["until"])
            until = found - 1
    return 0


def as_of_parent(row: EventRow, about: AboutChild, mark: tuple[str, int] | None = None) -> EventRow | None:
    """An event of a child as one of its parent; None if it is about the child itself.

    Args:
        row: the event.
        about: the child.
        mark: its name and the sequence of the event, if it is to say that up to there the parent has the journal.
    """
    if row.key is None and (row.event_type not in _GROUPS or row.group_id in (None, about.group)):
        return None
    if row.group_id == about.group:
        row = row._replace(group_total=None)  # the child has fewer members than the group
    more: dict[str, Any] = {} if row.more is None else json.loads(row.more)
    is_charged = bool(about.places) and (row.ok is not None or any(name in more for name in _SPENT))
    if is_charged:
        more["charges"] = {**dict.fromkeys(about.places, 0.0), **(more.get("charges") or {})}
    if mark is not None:
        more["taken_over"] = {"run": mark[0], "until": mark[1]}
    return row._replace(more=json.dumps(more)) if is_charged or mark is not None else row


def checksums_when_released(queued: Queued) -> dict[str, int | None]:
    """The checksums of a place in a queue; which one is written, the database decides: who was stopped is not ready."""
    stopped = queued._replace(ready_at=None)
    return {"queue_checksum": queue_checksum(queued), "stopped_checksum": queue_checksum(stopped)}


def parent_lost(run_id: str) -> LeaseLost:
    """The error of who makes a child of a run that it does not have any more."""
    return LeaseLost(f"the run of which {run_id!r} is a part has been taken over by somebody else meanwhile")


def new_child_row(child: NewChild, parent: int, digest: bytes, now: float) -> RunRow:
    """The row of a new child run, see `rh_agents.core.policies.child_runs.NewChild`."""
    return RunRow(
        0,
        child.run_id,
        ExecutionStatus.PENDING.value,
        workflow=child.workflow,
        input=child.input,
        input_digest=digest,
        tags=(child.about.group,),
        facts={**child.facts, **child.about.facts()},
        created_at=now,
        updated_at=now,
        queue=child.queue,
        flow=child.flow,
        ready_at=None if child.queue is None else at_once(now),
        parent=parent,
    )


def held_of(rows: Sequence[RunRow]) -> list[tuple[int, int]]:
    """Numbers and fences of runs that we hold."""
    return [(row.number, row.fence) for row in rows]
