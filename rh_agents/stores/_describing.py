"""What happened in a run and when, put together of what a database has counted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rh_agents.core._base.latency import LatencyHistogram
from rh_agents.core.groups import ParallelEventGroup
from rh_agents.core.ports.activity import Activity, Bucket, GroupSeen, Lane, SlowCall, lane_of
from rh_agents.stores._backend.rows import RunRow
from rh_agents.stores._backend.windows import ActivityRows
from rh_agents.stores._summing import spender
from rh_agents.stores._verified import VerifiedSession


def activity(session: VerifiedSession, run: RunRow, after: int, until: int | None, width: float) -> Activity:
    """What happened from after one sequence up to another one."""
    until = max(after, run.last_sequence if until is None else min(until, run.last_sequence))
    return _made(session.inner.activity(run.number, after, until, width), after, until, width)


def _made(rows: ActivityRows, after: int, until: int, width: float) -> Activity:
    whose = _Spenders()
    durations: dict[str, LatencyHistogram] = {}
    waits: dict[str, LatencyHistogram] = {}
    for name, kind, more, seconds, bucket, count, total, largest in rows.durations:
        its = durations.setdefault(whose.of(name, kind, more), LatencyHistogram())
        if seconds is None:
            its.add(bucket, count, total, largest)
            continue
        waited = whose.waited(more)
        for _ in range(count):
            its.record(max(0.0, seconds - waited))
            waits.setdefault(whose.of(name, kind, more), LatencyHistogram()).record(waited)
    groups: dict[str, GroupSeen] = {}
    for at, text in rows.groups:
        about = json.loads(text).get("group")
        if about is not None:
            seen = GroupSeen.of(ParallelEventGroup.model_validate(about), at)
            groups[seen.group_id] = groups[seen.group_id].then(seen) if seen.group_id in groups else seen
    buckets, lanes = _in_time(rows.buckets)
    slowest = tuple(
        SlowCall(sequence, key.hex(), address, whose.of(name, kind, more), seconds, whose.waited(more))
        for sequence, key, address, name, kind, more, seconds in rows.slowest
    )
    return Activity(after, until, width, buckets, durations, slowest, groups, dict(rows.totals), lanes, waits)


def _in_time(
    rows: Iterable[tuple[str, float, int, int, int, int, int]],
) -> tuple[dict[int, Bucket], dict[str, Lane]]:
    """What happened in pieces of time, of all calls and of those in groups."""
    buckets: dict[int, Bucket] = {}
    lanes: dict[str, tuple[list[int], dict[int, Bucket]]] = {}
    for innermost, at, first, *counts in rows:
        number, bucket = int(at), Bucket(*counts)
        if not any(bucket):
            continue
        buckets[number] = buckets.get(number, Bucket()).plus(bucket)
        group, is_in_group, _ = innermost.rpartition("[")
        if is_in_group:
            firsts, lane = lanes.setdefault(lane_of(group), ([], {}))
            firsts.append(first)
            lane[number] = lane.get(number, Bucket()).plus(bucket)
    return buckets, {name: Lane(min(firsts), lane) for name, (firsts, lane) in lanes.items()}


class _Spenders:
    """Whose calls events are about; what is the same in many of them is looked into once."""

    def __init__(self) -> None:
        self._facts: dict[str | None, dict[str, Any]] = {None: {}}

    def of(self, name: str, kind: str, more: str | None) -> str:
        facts = self._of(more)
        return spender(name, facts.get("actor"), facts.get("kind", kind))

    def waited(self, more: str | None) -> float:
        """For how many seconds the call waited."""
        return float(self._of(more).get("waited", 0.0))

    def _of(self, more: str | None) -> dict[str, Any]:
        facts = self._facts.get(more)
        if facts is None:
            facts = self._facts[more] = json.loads(more or "{}")
        return facts
