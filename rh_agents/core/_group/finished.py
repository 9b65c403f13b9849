"""The results of a group that nobody has read yet, and which of them a stream gives next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from typing import Any

from rh_agents.core._base.foreign import retold
from rh_agents.core._group.members import Member
from rh_agents.core._replay.decision import Recorded
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
        self._further = 0
        """How many of these are not the first one of their member."""
        self._completed: deque[int] = deque()
        self.completed: Callable[[int], None] = self._completed.append
        """The outcome of this member counts: whatever it has to do until its end, this is its turn in the order."""
        self._stale: dict[int, int] = {}
        """How many places in the order of completion are those of results that are gone, by index."""
        self._keys: dict[int, bytes] = {}
        self._failed: dict[int, Member] = {}
        """Those of them that failed, and can be made again."""
        self._seen: set[int] = set()
        """Of these, the ones that the program has seen, so that they are not replaced any more."""
        self._given: dict[bytes, Member] = {}
        """Members whose failure a stream has given, and after which it can give a further result, by key."""
        self._oldest_taken: int | None = None
        """Whose place in the order of completion has been given up, for its result to be taken."""
        self.given: Callable[[Member], bool] | None = None
        """Called when a stream gives the failure of a member that can be made again; says whether it is, or may be."""
        self.is_streaming: bool = False
        """Whether a stream has been begun, and has not come to its end."""

    def __bool__(self) -> bool:
        return bool(self._results)

    def __contains__(self, index: object) -> bool:
        return index in self._results

    @property
    def has_room(self) -> bool:
        """Whether the reader keeps up, so that more results may come. Further ones may wait for all first ones."""
        return len(self._results) - self._further < self._most

    @property
    def is_half_full(self) -> bool:
        """Whether half of the results that may wait for the reader do."""
        return (len(self._results) - self._further) * 2 > self._most

    @property
    def by_index(self) -> list[ExecutionResult[Any]]:
        """All of them, in order of index."""
        return [self._results[index] for index in sorted(self._results)]

    def has_first(self, index: int) -> bool:
        """Whether a result is there that is the first one of its member."""
        return index in self._results and not self._results[index].requeued

    @property
    def first_index(self) -> int | None:
        """The lowest index of such a result; None if there is none."""
        return min((index for index, result in self._results.items() if not result.requeued), default=None)

    def lift_limit(self) -> None:
        """Nobody reads any more, or everything is read at the end: there is always room."""
        self._most = float("inf")

    def keep(self, member: Member, result: ExecutionResult[Any]) -> None:
        """Keep a result until it is read."""
        self._results[member.index] = result
        self._further += result.requeued
        if not member.is_settled:
            self._completed.append(member.index)
        if member.key is not None and self.order.has_members and self.order.knows(member.key):
            self._keys[member.index] = member.key

    def keep_recovered(self, index: int, key: bytes, result: ExecutionResult[Any]) -> None:
        """The same of a member that is not there itself, since all there is of it is its recorded result."""
        self._results[index] = result
        self._completed.append(index)
        if self.order.knows(key):
            self._keys[index] = key

    def keep_failed(self, member: Member) -> None:
        """The member with this result has failed, and can be made again."""
        self._failed[member.index] = member

    def replaceable(self, keys: Container[bytes]) -> list[Member]:
        """Members with these keys whose failure nobody has read, in this execution or before."""
        return [
            member
            for index, member in self._failed.items()
            if member.recorded is Recorded.NOTHING and index not in self._seen
            if member.key is not None and member.key in keys
        ]

    def unread_failures(self, are_meant: Callable[[bytes], bool]) -> list[Member]:
        """Members that have failed, whose failure nobody has read in this execution, and whose keys are meant."""
        failed = [member for index, member in self._failed.items() if index not in self._seen]
        return [member for member in failed if member.key is not None and are_meant(member.key)]

    def withdraw(self, member: Member) -> None:
        """The member is made again: what it came to counts no more."""
        index = member.index
        del self._failed[index]
        self._further -= self._results.pop(index).requeued
        self._keys.pop(index, None)
        self._forget_place(index)

    def has_been_read(self) -> None:
        """The program has seen all of them: its failures are not replaced any more."""
        self._seen.update(self._failed)

    def is_seen(self, index: int) -> None:
        """The program has seen this one."""
        if index in self._failed:
            self._seen.add(index)

    def take(self, index: int) -> ExecutionResult[Any]:
        """The result of a member; it is not kept."""
        has_lost_its_place, self._oldest_taken = self._oldest_taken == index, None
        result = self._results.pop(index)
        self._further -= result.requeued
        key = self._keys.pop(index, None)
        if key is not None:
            self.order.passed(key)
        member = self._failed.pop(index, None)
        if member is not None:
            self._seen.discard(index)
            if self.given is not None and self.given(member) and not has_lost_its_place:
                self._forget_place(index)
        return result

    def _forget_place(self, index: int) -> None:
        """The first place of this index in the order of completion is that of a result which is gone."""
        self._stale[index] = self._stale.get(index, 0) + 1

    # -- failures after which a further result can be given -----------------------------------------------------------

    def keep_given(self, member: Member) -> None:
        """A stream has given the failure of this member, and can give what comes of another try."""
        assert member.key is not None
        member.frame = None
        self._given[member.key] = member

    def take_given(self, key: bytes) -> Member | None:
        """Such a member, which is not kept; None if there is none with this key."""
        return self._given.pop(key, None)

    def can_follow(self, key: bytes) -> bool:
        """Whether a stream has given the failure with this key, or will as an earlier execution did."""
        return key in self._given or (self.is_streaming and self.order.is_ahead(key))

    def reading_ended(self) -> None:
        """The program has been given all results: no further ones follow those that it has."""
        self.is_streaming = False
        self._given.clear()

    def close(self) -> None:
        """The group has ended."""
        self.reading_ended()
        self._failed.clear()
        self.given = None

    def next_completed(self, running: Container[int]) -> int | None:
        """Whose result was completed first, the recorded ones of an earlier execution before all others.

        None if it has to be waited for: it is not there, or one of those that run was completed before.
        """
        if not self.order.has_members:
            return self._oldest(running)
        index = self.order.take(self._results)
        return self._oldest(running) if index is None and self.order.is_over else index

    def next_recorded(self) -> int | None:
        """Whose result is the next one in the recorded order, if it is there."""
        return self.order.take(self._results)

    def next_when_idle(self) -> int | None:
        """The same when nothing runs: what has no result, or is not enrolled, is not waited for."""
        while (index := self.next_completed(())) is None and not self.order.is_over:
            self.order.skip_missing()
            if self.order.take(self._results) is None:
                self.order.skip_unfinished()
        return index

    def _oldest(self, running: Container[int]) -> int | None:
        while self._completed:
            index = self._completed[0]
            if index in self._stale:
                self._pass_stale(index)
                continue
            if index not in self._results and index in running:
                return None  # its outcome is recorded before those of the others, and comes in a moment
            self._completed.popleft()
            if index in self._results:
                self._oldest_taken = index
                return index
        return None

    def _pass_stale(self, index: int) -> None:
        self._completed.popleft()
        self._stale[index] -= 1
        if not self._stale[index]:
            del self._stale[index]

    def let_go_of(self, error: BaseException) -> None:
        """The group was left with this error: by its traceback it holds the group, which must not hold it any more."""
        for index, result in self._results.items():
            if result.error is error:
                self._results[index] = result.model_copy(update={"error": retold(error)})
