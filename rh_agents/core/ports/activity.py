"""When calls of a run ended, how long they took, and its groups: what a timeline and tables of times are drawn from.

It adds up like a summary (`rh_agents.core.ports.summary`): whoever looks at a run as it goes on asks for what is new.

    so_far = await activity_of_run(store, "monday", width=1.0)
    so_far = so_far.merge(await activity_of_run(store, "monday", after=so_far.until, width=so_far.width))
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

from rh_agents.core._base.latency import LatencyHistogram
from rh_agents.core.events import spender_of
from rh_agents.core.ports.summary import GROUP_EVENTS
from rh_agents.core.types import ExecutionStatus

if TYPE_CHECKING:
    from rh_agents.core.events import ExecutionEvent
    from rh_agents.core.groups import ParallelEventGroup
    from rh_agents.core.ports import RecordedEvent, Store

__all__ = [
    "MOST_BUCKETS",
    "MOST_LANES",
    "OTHER_GROUPS",
    "SLOWEST",
    "Activity",
    "ActivityFold",
    "Bucket",
    "Describing",
    "GroupSeen",
    "Lane",
    "SlowCall",
    "activity_of_run",
    "lane_of",
    "width_for",
]

SLOWEST: Final = 20
"""Calls that are named because they took longest."""
MOST_BUCKETS: Final = 512
MOST_LANES: Final = 64
"""Lanes of a run that is looked at as it goes on; what happens in further ones is put together."""
OTHER_GROUPS: Final = "…"
"""The name of the lane for that."""
_CLOSE: Final = 3
"""Buckets: a shorter time without anything is drawn as it is."""
_INDEX: Final = re.compile(r"\[\d+\]")


class Bucket(NamedTuple):
    """What happened to calls in a piece of time.

    Attributes:
        done, failed: how many succeeded, and failed.
        retried: how many attempts failed after which there is another one.
        waited: how many calls ended that had waited, see `ExecutionEvent.waited`, and how many began to wait for the
            answer of a person.
    """

    done: int = 0
    failed: int = 0
    retried: int = 0
    waited: int = 0

    def plus(self, other: Bucket) -> Bucket:
        """Both together."""
        return Bucket._make(map(int.__add__, self, other))


class Lane(NamedTuple):
    """What happened in the groups at one place of the program, whichever members of other groups they belong to.

    Attributes:
        first: the sequence of the first event that counts.
        buckets: as those of the run.
    """

    first: int
    buckets: Mapping[int, Bucket]

    def plus(self, other: Lane) -> Lane:
        """Both together."""
        return Lane(min(self.first, other.first), _sums(self.buckets, other.buckets))


def lane_of(innermost: str) -> str:
    """The name of a lane: the address of a group without indexes.

    `innermost` is the address of a call up to the last "[": that of the innermost group in which it was made.
    """
    return _INDEX.sub("", innermost)


class SlowCall(NamedTuple):
    """A call that took long: the sequence of its outcome, its key in hexadecimal, address, actor, how many seconds it
    took, and for how many of those it waited.
    """

    sequence: int
    key: str
    address: str
    actor: str
    seconds: float
    waited: float = 0.0


class GroupSeen(NamedTuple):
    """What the newest event of a group says of it.

    Attributes:
        group_id, name, address: as in its events.
        parent: the group around it, if there is one.
        status: as in its newest event.
        began_at: the time of its first event, in seconds since 1970.
        total: how many members it will have, as far as any event says.
        seconds: how long it took; None while it has not ended.
        ending: why it ended early; None if it did not.
    """

    group_id: str
    name: str
    address: str
    parent: str | None
    status: str
    began_at: float
    total: int | None = None
    seconds: float | None = None
    ending: str | None = None

    def then(self, later: GroupSeen) -> GroupSeen:
        """The same after further events."""
        total = self.total if later.total is None else later.total
        return later._replace(began_at=self.began_at, total=total)

    @classmethod
    def of(cls, group: ParallelEventGroup, timestamp: float) -> GroupSeen:
        """What an event of a group says."""
        return cls(
            group.group_id,
            group.name,
            group.address,
            group.parent_group_id,
            group.status.value,
            timestamp,
            group.total,
            group.elapsed if group.is_complete else None,
            None if group.ending is None else group.ending.cause.value,
        )


@dataclass(frozen=True, slots=True)
class Activity:
    """What happened in a run from after one sequence to another one. All outcomes count, replaced ones as well.

    Attributes:
        after, until: it covers the events after the first sequence, up to the second one.
        width: seconds of a bucket: a power of two.
        buckets: what happened in the piece of time from `number * width` on, in seconds since 1970, by that number.
        durations: how long calls worked, by the name of the actor as summaries have it: without what they waited.
        slowest: the outcomes that worked longest, at most `SLOWEST`.
        groups: by id, in the order in which they began.
        totals: the most members that groups will have, by id, as their members say.
        lanes: what happened in groups, by `lane_of`. In no order; `first` tells which came first.
        waits: how long those waited that did, by the name of the actor.
    """

    after: int = 0
    until: int = 0
    width: float = 1.0
    buckets: Mapping[int, Bucket] = field(default_factory=dict)
    durations: Mapping[str, LatencyHistogram] = field(default_factory=dict)
    slowest: tuple[SlowCall, ...] = ()
    groups: Mapping[str, GroupSeen] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    lanes: Mapping[str, Lane] = field(default_factory=dict)
    waits: Mapping[str, LatencyHistogram] = field(default_factory=dict)

    def merge(self, later: Activity) -> Activity:
        """Both together, with buckets as wide as those of the wider one.

        Raises:
            ValueError: `later` does not begin where this one ends.
        """
        if later.after != self.until:
            raise ValueError(f"what happened up to event {self.until} and from after event {later.after} do not meet")
        width = max(self.width, later.width)
        before, after = self.widened(width), later.widened(width)
        groups = dict(self.groups)
        for group_id, seen in later.groups.items():
            groups[group_id] = groups[group_id].then(seen) if group_id in groups else seen
        return Activity(
            self.after,
            later.until,
            width,
            _sums(before.buckets, after.buckets),
            _together(self.durations, later.durations),
            _slowest_of((*self.slowest, *later.slowest)),
            groups,
            _largest(self.totals, later.totals),
            _lanes_of(before.lanes, after.lanes),
            _together(self.waits, later.waits),
        )

    def widened(self, width: float) -> Activity:
        """The same with buckets of this width, which is not less than it was."""
        factor = round(width / self.width)
        if factor <= 1:
            return self
        lanes = {name: Lane(lane.first, _wider(lane.buckets, factor)) for name, lane in self.lanes.items()}
        return replace(self, width=width, buckets=_wider(self.buckets, factor), lanes=lanes)

    def spans(self, owned: Sequence[tuple[float, float]] = ()) -> list[tuple[int, int]]:
        """The pieces of time that are drawn, as the numbers of their first and last buckets: those in which something
        happened, and all between the two moments of each pair in `owned`. What is close together is one.
        """
        parts = [(math.floor(began / self.width), math.floor(ended / self.width)) for began, ended in owned]
        parts += [(number, number) for number in self.buckets]
        found: list[tuple[int, int]] = []
        for first, last in sorted(parts):
            if found and first - found[-1][1] <= _CLOSE:
                found[-1] = found[-1][0], max(found[-1][1], last)
            else:
                found.append((first, last))
        return found

    def fitted(self, owned: Sequence[tuple[float, float]] = ()) -> Activity:
        """The same with so few buckets and lanes that they can be drawn; `owned` as for `spans`."""
        found = replace(self, lanes=_lanes_of({}, self.lanes, MOST_LANES))
        while sum(1 + last - first for first, last in found.spans(owned)) > MOST_BUCKETS:
            found = found.widened(found.width * 2)
        return found


def width_for(seconds: float) -> float:
    """A width of buckets for a run that lasts this long; it can be widened as the run goes on."""
    return 2.0 ** max(-6, math.ceil(math.log2(max(seconds, 1e-3) / MOST_BUCKETS)))


def _slowest_of(calls: Iterable[SlowCall]) -> tuple[SlowCall, ...]:
    """Those that worked longest; of equal ones, the first."""
    return tuple(heapq.nsmallest(SLOWEST, calls, key=lambda call: (call.waited - call.seconds, call.sequence)))


def _sums(some: Mapping[int, Bucket], more: Mapping[int, Bucket]) -> dict[int, Bucket]:
    found = dict(some)
    for number, bucket in more.items():
        known = found.get(number)
        found[number] = bucket if known is None else known.plus(bucket)
    return found


def _wider(buckets: Mapping[int, Bucket], factor: int) -> dict[int, Bucket]:
    found: dict[int, Bucket] = {}
    for number, bucket in buckets.items():
        known = found.get(number // factor)
        found[number // factor] = bucket if known is None else known.plus(bucket)
    return found


def _lanes_of(some: Mapping[str, Lane], more: Mapping[str, Lane], most: int | None = None) -> dict[str, Lane]:
    """Both together. If there are too many, or were before, those that come later become one."""
    found = dict(some)
    for name, lane in sorted(more.items(), key=lambda each: each[1].first):
        is_over = OTHER_GROUPS in found or (most is not None and len(found) >= most)
        its = OTHER_GROUPS if is_over and name not in found else name
        found[its] = found[its].plus(lane) if its in found else lane
    return found


def _largest(some: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {
        name: max(some.get(name, 0), more.get(name, 0)) for name in [*some, *(new for new in more if new not in some)]
    }


def _together(
    some: Mapping[str, LatencyHistogram], more: Mapping[str, LatencyHistogram]
) -> dict[str, LatencyHistogram]:
    found = dict(some)
    for name, histogram in more.items():
        known = found.get(name)
        found[name] = histogram if known is None else known.plus(histogram)
    return found


class ActivityFold:
    """The same, made of events one after the other."""

    def __init__(self, after: int, width: float) -> None:
        self._after = self._until = after
        self._width = width
        self._buckets: dict[int, Bucket] = {}
        self._durations: dict[str, LatencyHistogram] = {}
        self._slowest: list[SlowCall] = []
        self._groups: dict[str, GroupSeen] = {}
        self._totals: dict[str, int] = {}
        self._lanes: dict[str, tuple[int, dict[int, Bucket]]] = {}
        self._waits: dict[str, LatencyHistogram] = {}

    def add(self, recorded: RecordedEvent) -> None:
        """The next event."""
        event, self._until = recorded.event, recorded.sequence
        if event.group is not None and event.event_type in GROUP_EVENTS:
            seen = GroupSeen.of(event.group, event.timestamp)
            known = self._groups.get(seen.group_id)
            self._groups[seen.group_id] = seen if known is None else known.then(seen)
        elif event.key is not None:
            if event.group_id is not None and event.group_total is not None:
                self._totals[event.group_id] = max(event.group_total, self._totals.get(event.group_id, 0))
            self._add_call(recorded.sequence, event, recorded.has_outcome)

    def _add_call(self, sequence: int, event: ExecutionEvent, has_outcome: bool) -> None:
        status = event.execution_status
        is_done = has_outcome and status in (ExecutionStatus.COMPLETED, ExecutionStatus.RECOVERED)
        is_failed = has_outcome and status is ExecutionStatus.FAILED
        has_waited = status is ExecutionStatus.AWAITING or (has_outcome and event.waited > 0)
        bucket = Bucket(is_done, is_failed, status is ExecutionStatus.RETRYING, has_waited)
        if any(bucket):
            self._add_to_buckets(sequence, event, bucket)
        if has_outcome and event.execution_time is not None:
            actor, seconds, waited = spender_of(event.actor, event.name), event.execution_time, event.waited
            self._durations.setdefault(actor, LatencyHistogram()).record(max(0.0, seconds - waited))
            if waited:
                self._waits.setdefault(actor, LatencyHistogram()).record(waited)
            self._slowest.append(SlowCall(sequence, event.key or "", event.address, actor, seconds, waited))
            if len(self._slowest) > 50 * SLOWEST:
                self._slowest = list(_slowest_of(self._slowest))

    def _add_to_buckets(self, sequence: int, event: ExecutionEvent, bucket: Bucket) -> None:
        number = math.floor(event.timestamp / self._width)
        self._buckets[number] = self._buckets.get(number, Bucket()).plus(bucket)
        innermost, is_in_group, _ = event.address.rpartition("[")
        if is_in_group:
            _, lane = self._lanes.setdefault(lane_of(innermost), (sequence, {}))
            lane[number] = lane.get(number, Bucket()).plus(bucket)

    def activity(self) -> Activity:
        """What happened in the events that have been added."""
        return Activity(
            self._after,
            self._until,
            self._width,
            dict(self._buckets),
            dict(self._durations),
            _slowest_of(self._slowest),
            dict(self._groups),
            dict(self._totals),
            {name: Lane(first, dict(buckets)) for name, (first, buckets) in self._lanes.items()},
            dict(self._waits),
        )


@runtime_checkable
class Describing(Protocol):
    """A store that computes this itself."""

    async def activity(self, run_id: str, *, after: int, until: int | None, width: float) -> Activity:
        """See `activity_of_run`."""
        ...


async def activity_of_run(
    store: Store, run_id: str, *, after: int = 0, until: int | None = None, width: float = 1.0
) -> Activity:
    """What happened in a run and when; values are never read.

    A store that can computes it (`Describing`), and else its events are read one after the other.

    Args:
        after: the sequence before the first event that is covered; 0 for all from the beginning.
        until: the last one that is covered, if there are so many; None for all that there are.
        width: seconds of a bucket of time: a power of two, see `width_for`.

    Raises:
        StoreError: there is no such run, or rows of it are missing.
    """
    if isinstance(store, Describing):
        return await store.activity(run_id, after=after, until=until, width=width)
    fold = ActivityFold(after, width)
    async for recorded in store.events(run_id, after=after, values=False):
        if until is not None and recorded.sequence > until:
            break
        fold.add(recorded)
    return fold.activity()
