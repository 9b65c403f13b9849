"""The view model of a progress display: which groups run, how they stand, and which one is inside which."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from rh_agents.core.events import ExecutionEvent
from rh_agents.core.tracking import ParallelGroupTracker
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Usage

__all__ = ["Board", "Spent", "Wait", "known_total"]

_FINISHED_KEPT = 100


def known_total(tracker: ParallelGroupTracker) -> int | None:
    """How many members a group will have; None if it is unknown. A total smaller than what has been seen is none."""
    total = tracker.total
    if total is None or total < max(tracker.enrolled, tracker.finished + len(tracker.running)):
        return None
    return total


class Wait(NamedTuple):
    """A call waits for a limit: for which and why, and since when."""

    why: str
    since: float


@dataclass(slots=True)
class Spent:
    """What the calls in a group wait for, and what they have used: its members, and all that is called within them."""

    waits: dict[str, Wait] = field(default_factory=dict)
    """By the address of the call."""
    usage: Usage = field(default_factory=Usage)

    def apply(self, event: ExecutionEvent[Any], now: float) -> None:
        """Take in an event about a call in the group."""
        status = event.execution_status
        if status is ExecutionStatus.WAITING and event.retry_delay != 0.0:
            self.waits.setdefault(event.address, Wait(event.message or "", now))
        elif status is not ExecutionStatus.PROGRESS:
            self.waits.pop(event.address, None)
        if event.usage is not None and status is not ExecutionStatus.RECOVERED:
            self.usage = self.usage + event.usage

    @property
    def longest_wait(self) -> Wait | None:
        """The wait that began first."""
        return min(self.waits.values(), key=lambda wait: wait.since, default=None)


@dataclass(slots=True)
class Board:
    """Folds events into trackers. Holds the running groups, and the last 100 that have ended.

    Times are seconds of the clock that the caller of `apply` uses.
    """

    groups: dict[str, ParallelGroupTracker] = field(default_factory=dict)
    """By id, in the order in which they were first seen."""
    _running: dict[str, ParallelGroupTracker] = field(default_factory=dict)
    _spent: dict[str, Spent] = field(default_factory=dict)
    _by_address: dict[tuple[str, str], str] = field(default_factory=dict)
    """The running groups by their run and their address."""
    _ended: deque[str] = field(default_factory=deque)
    _has_waits: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether no group runs."""
        return not self._running

    def apply(self, event: ExecutionEvent[Any], now: float) -> ParallelGroupTracker | None:
        """Take in an event; the group that it changed, if it is about one or about a member of one."""
        if event.group is None:
            self._note_spent(event, now)
        group_id = event.group_id
        if group_id is None:
            return None
        tracker = self.groups.get(group_id)
        if tracker is None or (tracker.is_complete and event.execution_status is ExecutionStatus.STARTED):
            tracker = self._begin(group_id, event)
        was_complete, total = tracker.is_complete, tracker.total
        tracker.apply(event, now)
        if tracker.about is not None and not tracker.is_complete:
            self._by_address[event.run_id, tracker.about.address] = group_id
        if event.group is None and total is not None and tracker.total is not None:
            tracker.total = max(tracker.total, total)  # late news of a member that started before others were enrolled
        if tracker.is_complete and not was_complete:
            self._end(event.run_id, tracker)
        return tracker

    def sample(self, group: ParallelGroupTracker) -> bool:
        """Take the counts of a running group from `group`, in place of those that events gave; False if it is not one
        of these.
        """
        known = self._running.get(group.group_id)
        if known is None:
            return False
        newest = replace(group, name=known.name, about=known.about, start_time=known.start_time)
        self.groups[group.group_id] = self._running[group.group_id] = newest
        return True

    def _note_spent(self, event: ExecutionEvent[Any], now: float) -> None:
        """What a call waits for and uses counts for all groups around it."""
        may_matter = event.usage is not None or event.execution_status is ExecutionStatus.WAITING
        if not may_matter and not self._has_waits:
            return
        for group_id in self._groups_around(event):
            self.spent(self._running[group_id]).apply(event, now)
        self._has_waits = any(spent.waits for spent in self._spent.values())

    def _groups_around(self, event: ExecutionEvent[Any]) -> set[str]:
        """The running groups in which a call is made, directly or not."""
        found = {event.group_id} if event.group_id in self._running else set[str]()
        address = event.address
        while "[" in address:
            address = address.rpartition("[")[0]
            group_id = self._by_address.get((event.run_id, address))
            if group_id is not None:
                found.add(group_id)
        return found

    def spent(self, tracker: ParallelGroupTracker) -> Spent:
        """What the members of a group wait for, and what they have used."""
        found = self._spent.get(tracker.group_id)
        if found is None:
            found = self._spent[tracker.group_id] = Spent()
        return found

    def _begin(self, group_id: str, event: ExecutionEvent[Any]) -> ParallelGroupTracker:
        """A group starts; or starts once more, when its run is executed again under the same display."""
        if group_id in self._ended:
            self._ended.remove(group_id)
        self._spent.pop(group_id, None)
        tracker = ParallelGroupTracker(group_id=group_id, name=_group_name(event))
        self.groups[group_id] = self._running[group_id] = tracker
        return tracker

    def _end(self, run_id: str, tracker: ParallelGroupTracker) -> None:
        group_id = tracker.group_id
        self._running.pop(group_id, None)
        address = (run_id, "" if tracker.about is None else tracker.about.address)
        if self._by_address.get(address) == group_id:
            del self._by_address[address]
        self.spent(tracker).waits.clear()
        self._ended.append(group_id)
        if len(self._ended) > _FINISHED_KEPT:
            oldest = self._ended.popleft()
            self.groups.pop(oldest, None)
            self._spent.pop(oldest, None)

    def level(self, tracker: ParallelGroupTracker) -> int:
        """In how many running groups this one is: 0 for a group at the top."""
        level = 0
        while (parent := self._parent(tracker)) is not None:
            tracker = parent
            level += 1
        return level

    def root(self, tracker: ParallelGroupTracker) -> ParallelGroupTracker:
        """The running group at the top in which this one is; itself if it is there."""
        while (parent := self._parent(tracker)) is not None:
            tracker = parent
        return tracker

    def _parent(self, tracker: ParallelGroupTracker) -> ParallelGroupTracker | None:
        parent_id = None if tracker.about is None else tracker.about.parent_group_id
        return None if parent_id is None else self._running.get(parent_id)

    def tree(self) -> Iterator[tuple[int, ParallelGroupTracker]]:
        """The running groups with their levels, each one followed by those inside it."""
        children: dict[str | None, list[ParallelGroupTracker]] = {}
        for tracker in self._running.values():
            parent = self._parent(tracker)
            children.setdefault(None if parent is None else parent.group_id, []).append(tracker)
        waiting = [(0, tracker) for tracker in reversed(children.get(None, []))]
        while waiting:
            level, tracker = waiting.pop()
            yield level, tracker
            waiting.extend((level + 1, child) for child in reversed(children.get(tracker.group_id, [])))


def _group_name(event: ExecutionEvent[Any]) -> str:
    """The name for a group whose start was missed: a member's address ends with `group[index]::member`."""
    if event.group is not None:
        return event.group.name
    address = event.address.rpartition("[")[0]
    return address.rpartition("::")[2] or "group"
