"""What a display has seen so far, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rh_agents.core.events import ExecutionEvent
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Usage

__all__ = ["CallCounts", "EventCounts"]

_KINDS_KEPT = 20
_OTHER_KINDS = "others"


@dataclass(slots=True)
class CallCounts:
    """Calls of one type. Replayed calls are among the succeeded and failed ones; `seconds` leaves them out."""

    started: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    replayed: int = 0
    retries: int = 0
    seconds: float = 0.0
    """The sum of the calls' own times."""

    @property
    def finished(self) -> int:
        """How many have ended, in whatever way."""
        return self.succeeded + self.failed + self.cancelled

    @property
    def success_rate(self) -> float | None:
        """The share (0 to 1) of successes among those with an outcome; None if there are none."""
        outcomes = self.succeeded + self.failed
        return self.succeeded / outcomes if outcomes else None

    def add(self, other: CallCounts) -> None:
        """Add the numbers of another type."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class EventCounts:
    """Counts events. Those named after a status are events about calls; events about groups only count as `groups`.

    Times are seconds of the clock that the caller of `count` uses.
    """

    total_events: int = 0
    started_events: int = 0
    completed_events: int = 0
    failed_events: int = 0
    cancelled_events: int = 0
    recovered_events: int = 0
    retrying_events: int = 0
    cached_events: int = 0
    """Calls that got the result of an equal one."""
    usage: Usage = field(default_factory=Usage)
    """What was used now; what replayed and cached calls once used is not in it."""
    groups: int = 0
    """Groups that have ended."""
    calls: dict[EventType, CallCounts] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    """How many calls failed with each kind of error; the first 20 kinds by name, the rest as "others"."""
    first_seen: float | None = None
    last_seen: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds from the first event to the last."""
        return 0.0 if self.first_seen is None or self.last_seen is None else self.last_seen - self.first_seen

    @property
    def all_calls(self) -> CallCounts:
        """The calls of all types together."""
        total = CallCounts()
        for counts in self.calls.values():
            total.add(counts)
        return total

    def count(self, event: ExecutionEvent[Any], now: float) -> None:
        """Take in one event."""
        self.total_events += 1
        self.last_seen = now
        if self.first_seen is None:
            self.first_seen = now
        if event.event_type is EventType.CONTROL:
            return
        if event.group is not None:
            self.groups += event.group.is_complete
            return
        calls = self.calls.get(event.event_type)
        if calls is None:
            calls = self.calls[event.event_type] = CallCounts()
        status = event.execution_status
        if event.usage is not None and status is not ExecutionStatus.RECOVERED:
            self.usage = self.usage + event.usage
        if event.from_cache and status is ExecutionStatus.COMPLETED:
            self.cached_events += 1
        if status is ExecutionStatus.STARTED:
            self.started_events += 1
            calls.started += 1
        elif status is ExecutionStatus.RETRYING:
            self.retrying_events += 1
            calls.retries += 1
        elif status.is_final:
            self._count_end(event, status, calls)

    def _count_end(self, event: ExecutionEvent[Any], status: ExecutionStatus, calls: CallCounts) -> None:
        if status is ExecutionStatus.COMPLETED:
            self.completed_events += 1
            calls.succeeded += 1
        elif status is ExecutionStatus.CANCELLED:
            self.cancelled_events += 1
            calls.cancelled += 1
        elif status is ExecutionStatus.FAILED:
            self.failed_events += 1
            self._count_failure(event, calls)
        else:
            self.recovered_events += 1
            calls.replayed += 1
            if event.message is None:
                calls.succeeded += 1
            else:
                self._count_failure(event, calls)
            return
        calls.seconds += event.execution_time or 0.0

    def _count_failure(self, event: ExecutionEvent[Any], calls: CallCounts) -> None:
        calls.failed += 1
        kind = (event.message or "").partition(":")[0] or "unknown"
        if kind not in self.failures and len(self.failures) >= _KINDS_KEPT:
            kind = _OTHER_KINDS
        self.failures[kind] = self.failures.get(kind, 0) + 1
