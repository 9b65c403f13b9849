"""Summaries of runs that a database computes: what it has counted, put together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from rh_agents.core._base.failure_kinds import Failure, kind_of_message
from rh_agents.core.ports.summary import GROUP_EVENTS, NEWEST_FAILURES, KindCount, RunSummary
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Usage
from rh_agents.stores._backend.rows import RunRow
from rh_agents.stores._backend.windows import FailureRow, Tally
from rh_agents.stores._parts import Steps, parts
from rh_agents.stores._verified import VerifiedSession, damaged

_SUPERSEDED = ExecutionStatus.SUPERSEDED.value
_OF_USAGE = tuple(each.name for each in fields(Usage))


def spender(name: str | None, actor: str | None, kind: str) -> str:
    """As `spender_of` says it, of what rows have: the name of a call where it is needed, and that of an actor."""
    return name or "" if actor is None or (kind == EventType.FUNCTION_CALL and name) else actor


def tally(row: Sequence[Any]) -> Tally:
    """What the query `tallies` gives, whose texts are as they were."""
    (
        event_type, group_id, status, has_outcome, is_repeated, name, actor, kind, is_free, events, first_at, last_at,
        used, *amounts,
    ) = row  # fmt: skip
    whose = spender(name, None if actor is None else json.loads(actor), kind)
    # Rows name what is not zero, and databases sum what is not there up to nothing.
    usage = Usage(**dict(zip(_OF_USAGE, (number or 0 for number in amounts), strict=True))) if used else None
    return Tally(
        event_type,
        group_id,
        status,
        bool(has_outcome),
        bool(is_repeated),
        whose,
        bool(is_free),
        events,
        first_at,
        last_at,
        usage,
    )


def part_of(session: VerifiedSession, run: RunRow, after: int, until: int, later: Sequence[int]) -> RunSummary:
    """The events of a run from after one sequence up to another one, but for what is replaced.

    Args:
        session, run: where they are.
        after, until: which.
        later: those of them that report outcomes of calls that had one.

    Raises:
        StoreError: rows of them are missing.
    """
    found = session.inner.tallies(run.number, after, until, later)
    counted = sum(each.events for each in found)
    if counted != until - after:
        what = f"it should have {until - after} events from after event {after}, and has {counted}"
        raise damaged(session.place, f"run {run.run_id!r}", what)
    part = replace(_counted(found), after=after, until=until)
    failures: list[Failure] = []
    if any(each.has_outcome and each.status == ExecutionStatus.FAILED for each in found):
        rows = session.inner.failed_rows(run.number, after, until, until - after)
        failures = [failure_of(row.failure) for row in rows if row.failure.sequence not in later]
    kinds: dict[str, KindCount] = {}
    for each in failures:
        text, one = kind_of_message(each.message), KindCount(1, 0, each.sequence, each.sequence, each)
        kinds[text] = kinds[text].plus(one) if text in kinds else one
    return replace(part, failures=tuple(failures[: -NEWEST_FAILURES - 1 : -1]), kinds=kinds)


def mean_costs(run: RunRow) -> Steps[dict[str, float]]:
    """What calls that have succeeded cost on average: those of each group, by its id, and all others by their names."""
    calls, costs = Counter[str](), dict[str, float]()
    for low, high in parts(0, run.last_sequence):
        session = yield
        for each in session.inner.tallies(run.number, low, high, ()):
            if each.has_outcome and each.status == ExecutionStatus.COMPLETED:
                name = each.group_id or each.spender
                calls[name] += each.events
                costs[name] = costs.get(name, 0.0) + (0.0 if each.usage is None else each.usage.cost)
    return {name: costs[name] / calls[name] for name in calls}


def _counted(found: Sequence[Tally]) -> RunSummary:
    actors: dict[str, Counter[ExecutionStatus]] = {}
    groups: dict[str, Counter[ExecutionStatus]] = {}
    usage: dict[str, Usage] = {}
    outcomes = paid = 0
    for each in found:
        if each.event_type in GROUP_EVENTS:
            continue
        paid += each.events if each.has_outcome and not each.is_free else 0
        if each.usage and each.status != _SUPERSEDED:
            usage[each.spender] = usage.get(each.spender, Usage()) + each.usage
        if each.is_repeated:
            continue
        status = ExecutionStatus(each.status)
        actors.setdefault(each.spender, Counter())[status] += each.events
        if each.group_id is not None:
            groups.setdefault(each.group_id, Counter())[status] += each.events
        outcomes += each.events if each.has_outcome else 0
    return RunSummary(
        0,
        0,
        _plain(actors),
        _plain(groups),
        outcomes,
        paid,
        usage,
        (),
        min((each.first_at for each in found), default=None),
        max((each.last_at for each in found), default=None),
    )


def _plain(counts: Mapping[str, Counter[ExecutionStatus]]) -> dict[str, dict[ExecutionStatus, int]]:
    return {name: dict(its) for name, its in counts.items()}


def failure_of(row: FailureRow) -> Failure:
    """A failure of the columns that a database gives."""
    more = {} if row.more is None else json.loads(row.more)
    whose = spender(row.name, more.get("actor"), more.get("kind", row.event_type))
    return Failure(row.sequence, row.address, whose, row.message)
