"""The events of a run, in order, with the questions that programs ask of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rh_agents.core.events import ExecutionEvent
from rh_agents.core.types import EventType, ExecutionStatus

__all__ = ["HistorySet"]


class HistorySet:
    """The events of a run, oldest first. `limit` keeps only the newest ones; None keeps all, 0 none."""

    def __init__(self, limit: int | None = None) -> None:
        self._events: deque[ExecutionEvent[Any]] = deque(maxlen=limit)
        self.add: Callable[[ExecutionEvent[Any]], None] = self._events.append
        """Add the next event."""
        self.extend: Callable[[Iterable[ExecutionEvent[Any]]], None] = self._events.extend
        """Add events in their order."""

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[ExecutionEvent[Any]]:
        return iter(tuple(self._events))

    def __contains__(self, event: object) -> bool:
        return event in self._events

    def __repr__(self) -> str:
        return f"HistorySet({len(self)} events)"

    def at(self, address: str) -> list[ExecutionEvent[Any]]:
        """The events of the call or group at this address."""
        return [event for event in self._events if event.address == address]

    def of_group(self, group_id: str) -> list[ExecutionEvent[Any]]:
        """The events of a group and of its members."""
        return [event for event in self._events if event.group_id == group_id]

    def groups(self) -> list[str]:
        """The ids of the groups, in the order in which they started."""
        started = (event.group_id for event in self._events if event.event_type is EventType.GROUP_STARTED)
        return list(dict.fromkeys(group_id for group_id in started if group_id is not None))

    def failures(self) -> list[ExecutionEvent[Any]]:
        """The events that tell the failure of a call."""
        return [
            event for event in self._events if event.execution_status is ExecutionStatus.FAILED and event.group is None
        ]

    def outcome_at(self, address: str) -> ExecutionEvent[Any] | None:
        """The newest event that tells how the call at this address ended; None while it has not."""
        final = (e for e in reversed(self._events) if e.address == address and e.execution_status.is_final)
        return next(final, None)

    def has_completed_event(self, address: str) -> bool:
        """Whether the call at this address returned a value."""
        event = self.outcome_at(address)
        return event is not None and event.message is None and event.execution_status is not ExecutionStatus.CANCELLED

    def get_event_result(self, address: str) -> Any:
        """What the call at this address returned; None if it has not."""
        event = self.outcome_at(address)
        return None if event is None else event.result
