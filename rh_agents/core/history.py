"""The events of a run, in order, with the questions that programs ask of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rh_agents.core.events import OF_FEW, ExecutionEvent, Fact
from rh_agents.core.types import EventType, ExecutionStatus

__all__ = ["HistorySet", "fact_of_event"]

_OF_MOST = (
    "run_id", "timestamp", "execution_status", "event_type", "actor", "name", "address", "key", "group_id",
    "parallel_index", "group_total", "attempt", "execution_time", "message", "result",
)  # fmt: skip
"""The fields of an event that a fact has as well, in its order."""


class HistorySet:
    """The events of a run, oldest first. `limit` keeps only the newest ones; None keeps all, 0 none.

    It keeps facts, and makes events of those that are asked for.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit: int | None = limit
        self._facts: deque[Fact] = deque(maxlen=limit)
        self.add: Callable[[Fact], None] = self._facts.append
        """Add the next fact."""
        self.extend: Callable[[Iterable[Fact]], None] = self._facts.extend
        """Add facts in their order."""

    def __len__(self) -> int:
        return len(self._facts)

    def __iter__(self) -> Iterator[ExecutionEvent[Any]]:
        return (fact.event() for fact in tuple(self._facts))

    def __contains__(self, event: object) -> bool:
        return any(event == each for each in self)

    def __repr__(self) -> str:
        return f"HistorySet({len(self)} events)"

    def at(self, address: str) -> list[ExecutionEvent[Any]]:
        """The events of the call or group at this address."""
        return [fact.event() for fact in self._facts if fact.address == address]

    def of_group(self, group_id: str) -> list[ExecutionEvent[Any]]:
        """The events of a group and of its members."""
        return [fact.event() for fact in self._facts if fact.group_id == group_id]

    def groups(self) -> list[str]:
        """The ids of the groups, in the order in which they started."""
        started = (fact.group_id for fact in self._facts if fact.kind is EventType.GROUP_STARTED)
        return list(dict.fromkeys(group_id for group_id in started if group_id is not None))

    def failures(self) -> list[ExecutionEvent[Any]]:
        """The events that tell the failure of a call."""
        failed = ExecutionStatus.FAILED
        return [fact.event() for fact in self._facts if fact.status is failed and fact.group is None]

    def outcome_at(self, address: str) -> ExecutionEvent[Any] | None:
        """The newest event that tells how the call at this address ended; None while it has not."""
        final = (fact for fact in reversed(self._facts) if fact.address == address and fact.status.is_final)
        newest = next(final, None)
        return None if newest is None else newest.event()

    def has_completed_event(self, address: str) -> bool:
        """Whether the call at this address returned a value."""
        event = self.outcome_at(address)
        return event is not None and event.message is None and event.execution_status is not ExecutionStatus.CANCELLED

    def get_event_result(self, address: str) -> Any:
        """What the call at this address returned; None if it has not."""
        event = self.outcome_at(address)
        return None if event is None else event.result


def fact_of_event(event: ExecutionEvent[Any]) -> Fact:
    """The fact of which an event is the view: the inverse of `Fact.event`."""
    more = {name: getattr(event, name) for name, usual in OF_FEW.items() if getattr(event, name) != usual}
    fact = Fact._make([*(getattr(event, name) for name in _OF_MOST), more or None])
    return fact._replace(key=None if event.key is None else bytes.fromhex(event.key))
