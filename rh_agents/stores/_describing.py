"""What happened in a run and when, put together of what a database has counted."""

from __future__ import annotations

import json
from typing import Any

from rh_agents.core._base.latency import LatencyHistogram
from rh_agents.core.groups import ParallelEventGroup
from rh_agents.core.ports.activity import Activity, Bucket, GroupSeen, SlowCall
from rh_agents.stores._backend import ActivityRows, RunRow
from rh_agents.stores._summing import spender
from rh_agents.stores._verified import VerifiedSession


def activity(session: VerifiedSession, run: RunRow, after: int, until: int | None, width: float) -> Activity:
    """What happened from after one sequence up to another one."""
    until = max(after, run.last_sequence if until is None else min(until, run.last_sequence))
    return _made(session.inner.activity(run.number, after, until, width), after, until, width)


def _made(rows: ActivityRows, after: int, until: int, width: float) -> Activity:
    whose = _Spenders()
    durations: dict[str, LatencyHistogram] = {}
    for name, kind, more, bucket, count, total, largest in rows.durations:
        durations.setdefault(whose.of(name, kind, more), LatencyHistogram()).add(bucket, count, total, largest)
    groups: dict[str, GroupSeen] = {}
    for at, text in rows.groups:
        about = json.loads(text).get("group")
        if about is not None:
            seen = GroupSeen.of(ParallelEventGroup.model_validate(about), at)
            groups[seen.group_id] = groups[seen.group_id].then(seen) if seen.group_id in groups else seen
    return Activity(
        after,
        until,
        width,
        {int(number): Bucket(*counts) for number, *counts in rows.buckets},
        durations,
        tuple(
            SlowCall(sequence, key.hex(), address, whose.of(name, kind, more), seconds)
            for sequence, key, address, name, kind, more, seconds in rows.slowest
        ),
        groups,
        dict(rows.totals),
    )


class _Spenders:
    """Whose calls events are about; what is the same in many of them is looked into once."""

    def __init__(self) -> None:
        self._facts: dict[str | None, dict[str, Any]] = {None: {}}

    def of(self, name: str, kind: str, more: str | None) -> str:
        facts = self._facts.get(more)
        if facts is None:
            facts = self._facts[more] = json.loads(more or "{}")
        return spender(name, facts.get("actor"), facts.get("kind", kind))
