"""Counting what happens in a group, for its manager and for every display."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from rh_agents.core._base.latency import LatencyHistogram
from rh_agents.core.actors import BaseActor
from rh_agents.core.events import ExecutionEvent, Fact
from rh_agents.core.groups import GroupStatus, ParallelEventGroup
from rh_agents.core.policies.breaker import BreakerState
from rh_agents.core.types import EventType, ExecutionStatus

__all__ = ["ParallelGroupTracker", "RunningItem", "group_fact"]


_REPLAYED, _FAILED, _CANCELLED = 1, 2, 4
_COMPLETE = frozenset({GroupStatus.COMPLETED, GroupStatus.FAILED, GroupStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class RunningItem:
    """A member that is running: its index, its name, and when it started (seconds, the tracker's clock)."""

    index: int
    name: str
    started_at: float


_Count = Annotated[int, Field(ge=0)]


@pydantic_dataclass(slots=True, config=ConfigDict(defer_build=True, extra="forbid"))
class ParallelGroupTracker:
    """Counts what happens in one group: for its manager directly, for everybody else from events (`apply`).

    Times are seconds of whatever monotonic clock the caller uses. It is a Pydantic dataclass and no model: what it is
    made of is validated, and it can be a field or be dumped by a `TypeAdapter`, but counting sets plain attributes,
    which takes a fraction of the time.
    """

    group_id: str
    name: str = ""
    total: _Count | None = None
    """How many members there will be; None while that is not known."""
    enrolled: _Count = 0
    started: _Count = 0
    completed: _Count = 0
    failed: _Count = 0
    cancelled: _Count = 0
    recovered: _Count = 0
    """How many of the finished ones came from an earlier execution of the run."""
    retries: _Count = 0
    start_time: float | None = None
    last_update_time: float | None = None
    status: GroupStatus = GroupStatus.PENDING
    running: dict[int, tuple[str, float]] = field(default_factory=dict)
    """Name and start of the members that are running, by index."""
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    slot_wait: LatencyHistogram = field(default_factory=LatencyHistogram)
    about: ParallelEventGroup | None = None
    """What the group said of itself when it started: address, limits, strategy."""
    ends: Annotated[Any, Field(exclude=True)] = field(default=None, repr=False)
    """How members ended that failed or were cancelled, by index, for they may be made again: a byte for each; None if
    all have succeeded."""

    @property
    def finished(self) -> int:
        """How many members have ended, in whatever way."""
        return self.completed + self.failed + self.cancelled

    @property
    def is_complete(self) -> bool:
        """Whether the group has ended."""
        return self.status in _COMPLETE

    @property
    def completion_percentage(self) -> float:
        """How much of the group has finished, in whatever way, from 0.0 to 100.0; 0.0 while the total is not known."""
        if self.status is GroupStatus.COMPLETED:
            return 100.0
        return min(100.0, 100.0 * self.finished / self.total) if self.total else 0.0

    def elapsed(self, now: float) -> float:
        """Seconds since the first event, until now or, once the group has ended, until the last one."""
        if self.start_time is None:
            return 0.0
        end = self.last_update_time if self.is_complete and self.last_update_time is not None else now
        return max(0.0, end - self.start_time)

    def rate(self, now: float) -> float:
        """Finished members per second; 0.0 before the first."""
        elapsed = self.elapsed(now)
        return self.finished / elapsed if elapsed > 0 else 0.0

    def remaining_seconds(self, now: float) -> float | None:
        """The expected time to the end at the rate so far; None if the total or the rate is unknown."""
        worked = self.finished - self.recovered
        if self.total is None or worked <= 0:
            return None
        return max(0, self.total - self.finished) * self.elapsed(now) / worked

    def snapshot(
        self, now: float, enrolled: int, total: int | None, breaker: BreakerState | None
    ) -> ParallelEventGroup:
        """How the group stands now; what it is (`about`) stays."""
        about = self.about or ParallelEventGroup(group_id=self.group_id, name=self.name)
        return about.model_copy(
            update={
                "status": self.status,
                "total": total,
                "enrolled": enrolled,
                "started": self.started,
                "completed": self.completed,
                "failed": self.failed,
                "cancelled": self.cancelled,
                "recovered": self.recovered,
                "retries": self.retries,
                "elapsed": self.elapsed(now),
                "rate": self.rate(now),
                "latency": self.latency.summary(),
                "slot_wait": self.slot_wait.summary(),
                "breaker": breaker,
            }
        )

    def slowest(self, count: int) -> list[RunningItem]:
        """The members that have been running longest."""
        items = (RunningItem(index, name, started_at) for index, (name, started_at) in self.running.items())
        return nsmallest(count, items, key=lambda item: item.started_at)

    def count_start(self, now: float, waited: float = 0.0) -> None:
        """A member got a slot after `waited` seconds."""
        self.started += 1
        self.slot_wait.record(waited)
        if self.start_time is None:
            self.start_time = now
        self.last_update_time = now

    def count_end(self, status: ExecutionStatus, now: float, seconds: float | None) -> None:
        """A member ended after `seconds`, or was recovered without having run."""
        if status is ExecutionStatus.COMPLETED or status is ExecutionStatus.RECOVERED:
            self.completed += 1
        elif status is ExecutionStatus.FAILED:
            self.failed += 1
        else:
            self.cancelled += 1
        if seconds is not None:
            self.latency.record(seconds)
        if self.start_time is None:
            self.start_time = now
        self.last_update_time = now

    def apply(self, event: ExecutionEvent[Any], now: float) -> None:
        """Take in an event of the group or of one of its members."""
        if event.group is not None:
            self._apply_group(event.group, now)
            return
        index = event.parallel_index if event.parallel_index is not None else -1
        status = event.execution_status
        if event.group_total is not None:
            self.total = event.group_total
        if status is ExecutionStatus.STARTED:
            self._begins_again(index)
            self.running[index] = (event.name, now)
            self.count_start(now)
        elif status is ExecutionStatus.RETRYING:
            self.retries += 1
            self._seen(now)
        elif status.is_final:
            if self.running.pop(index, None) is None:
                self._begins_again(index)
            self.recovered += event.is_replayed
            seconds = None if event.is_replayed else event.execution_time
            ended = _how_it_ended(event)
            self.count_end(ended, now, seconds)
            self._note_end(index, ended, event.is_replayed)
        self.enrolled = max(self.enrolled, self.started + self.recovered)

    def _note_end(self, index: int, status: ExecutionStatus, is_replayed: bool) -> None:
        if index < 0 or status in (ExecutionStatus.COMPLETED, ExecutionStatus.RECOVERED):
            return
        if self.ends is None:
            self.ends = bytearray()
        if index >= len(self.ends):
            self.ends.extend(bytes(index + 1 - len(self.ends)))
        self.ends[index] = (_FAILED if status is ExecutionStatus.FAILED else _CANCELLED) | is_replayed

    def _begins_again(self, index: int) -> None:
        """A member is made again, or its newest result follows an earlier one: it is one member all the same."""
        if self.ends is None or not 0 <= index < len(self.ends):
            return
        end = self.ends[index]
        if not end:
            return
        self.ends[index] = 0
        if end & _FAILED:
            self.failed -= 1
        else:
            self.cancelled -= 1
        if end & _REPLAYED:
            self.recovered -= 1
        else:
            self.started -= 1

    def _apply_group(self, group: ParallelEventGroup, now: float) -> None:
        self.about = group
        self.name = group.name
        self.status = group.status
        self.total = group.total
        self.enrolled = max(self.enrolled, group.enrolled)
        if group.is_complete:  # members that were cancelled before their first step had no events of their own
            self.running.clear()
            self.started, self.completed, self.failed = group.started, group.completed, group.failed
            self.cancelled, self.recovered, self.retries = group.cancelled, group.recovered, group.retries
        self._seen(now)

    def _seen(self, now: float) -> None:
        if self.start_time is None:
            self.start_time = now
        self.last_update_time = now


def _how_it_ended(event: ExecutionEvent[Any]) -> ExecutionStatus:
    """A recovered failure counts as a failure."""
    if event.execution_status is ExecutionStatus.RECOVERED and event.message is not None:
        return ExecutionStatus.FAILED
    return event.execution_status


_ACTOR: BaseActor = BaseActor.model_construct(
    name="group", handler=lambda: None, description="Stands for the group in its own events."
)

_STATUS_OF_GROUP = {
    "running": ExecutionStatus.STARTED,
    "completed": ExecutionStatus.COMPLETED,
    "failed": ExecutionStatus.FAILED,
    "cancelled": ExecutionStatus.CANCELLED,
}


def group_fact(kind: EventType, group: ParallelEventGroup, run_id: str, timestamp: float) -> Fact:
    """What there is to record about a group: GROUP_STARTED, GROUP_ENDING or GROUP_COMPLETED."""
    return Fact(
        run_id,
        timestamp,
        _STATUS_OF_GROUP[group.status.value],
        kind,
        _ACTOR,
        group.name,
        group.address,
        group_id=group.group_id,
        group_total=group.total,
        seconds=group.elapsed if group.is_complete else None,
        more={"group": group},
    )
