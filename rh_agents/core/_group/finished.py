"""The results of a group that nobody has read yet, and which of them a stream gives next."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from typing import Any

from rh_agents.core._base.foreign import retold
from rh_agents.core._group.members import Member
from rh_agents.core._replay.order import RecordedOrder
from rh_agents.core.results import ExecutionResult

__all__ = ["FinishedResults"]


class FinishedResults:
    """Keeps results until they are read: by index, or in the order in which they were completed.

    Args:
        order: which results of an earlier execution a stream wants first.
        most: how many there may be before items are no longer pulled for want of a reader.
    """

    def __init__(self, order: RecordedOrder, most: float) -> None:
        self.order: RecordedOrder = order
        self._most = most
        self._results: dict[int, ExecutionResult[Any]] = {}
        self._completed: deque[int] = deque()
        self._keys: dict[int, bytes] = {}
        self._failed: dict[int, Member] = {}
        """Those of them that failed, and can be made again as long as nobody has read that."""

    def __bool__(self) -> bool:
        return bool(self._results)

    def __contains__(self, index: object) -> bool:
        return index in self._results

    @property
    def has_room(self) -> bool:
        """Whether the reader keeps up, so that more results may come."""
        return len(self._results) < self._most

    @property
    def by_index(self) -> list[ExecutionResult[Any]]:
        """All of them, in order of index."""
        return [self._results[index] for index in sorted(self._results)]

    @property
    def first_index(self) -> int | None:
        """The lowest index; None if there is no result."""
        return min(self._results, default=None)

    def lift_limit(self) -> None:
        """Nobody reads any more, or everything is read at the end: there is always room."""
        self._most = float("inf")

    def completed(self, index: int) -> None:
        """The outcome of this member counts: whatever it has to do until its end, this is its turn in the order."""
        self._completed.append(index)

    def keep(self, member: Member, result: ExecutionResult[Any]) -> None:
        """Keep a result until it is read."""
        self._results[member.index] = result
        if not member.is_settled:
            self._completed.append(member.index)
        if member.key is not None and self.order.knows(member.key):
            self._keys[member.index] = member.key

    def keep_failed(self, member: Member) -> None:
        """The member with this result has failed, and can be made again."""
        self._failed[member.index] = member

    def failed_among(self, keys: Container[bytes]) -> list[Member]:
        """Members with these keys whose failure nobody has read."""
        return [member for member in self._failed.values() if member.key is not None and member.key in keys]

    def withdraw(self, member: Member) -> None:
        """The member is made again: what it came to counts no more."""
        del self._failed[member.index], self._results[member.index]
        self._keys.pop(member.index, None)
        if member.index in self._completed:
            self._completed.remove(member.index)

    def has_been_read(self) -> None:
        """The program has seen all of them: its failures are not replaced any more."""
        self._failed.clear()

    def take(self, index: int) -> ExecutionResult[Any]:
        """The result of a member; it is not kept."""
        result = self._results.pop(index)
        self._failed.pop(index, None)
        key = self._keys.pop(index, None)
        if key is not None:
            self.order.passed(key)
        return result

    def next_completed(self, running: Container[int]) -> int | None:
        """Whose result was completed first, the recorded ones of an earlier execution before all others.

        None if it has to be waited for: it is not there, or one of those that run was completed before.
        """
        index = self.order.take(self._results)
        return self._oldest(running) if index is None and self.order.is_over else index

    def _oldest(self, running: Container[int]) -> int | None:
        while self._completed:
            index = self._completed[0]
            if index not in self._results and index in running:
                return None  # its outcome is recorded before those of the others, and comes in a moment
            self._completed.popleft()
            if index in self._results:
                return index
        return None

    def let_go_of(self, error: BaseException) -> None:
        """The group was left with this error: by its traceback it holds the group, which must not hold it any more."""
        for index, result in self._results.items():
            if result.error is error:
                self._results[index] = result.model_copy(update={"error": retold(error)})
