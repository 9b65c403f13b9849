"""In which order a stream gives the results of a group whose run is executed again."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence

__all__ = ["RecordedOrder"]


class RecordedOrder:
    """The members that ended in an earlier execution, in the order in which they did.

    A program may have acted on that order, so a stream repeats it: these members come first. One that the program does
    not enrol any more is left out as soon as it is clear that it cannot come.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = deque(keys)
        self._expected = frozenset(keys)
        self._indexes: dict[bytes, int] = {}
        self._passed: set[bytes] = set()

    def enrolled(self, key: bytes, index: int) -> None:
        """The member with this key has been enrolled."""
        if key in self._expected:
            self._indexes[key] = index

    def passed(self, key: bytes) -> None:
        """Wait no longer for the member with this key: it is made again under another one, or has been given."""
        if key in self._expected:
            self._passed.add(key)
            self._drop_passed()

    @property
    def waits_for_enrolment(self) -> bool:
        """Whether the next one in the order has not been enrolled yet."""
        return bool(self._keys) and self._keys[0] not in self._indexes

    @property
    def is_over(self) -> bool:
        """Whether all have been given, so that results come as they are completed."""
        return not self._keys

    def take(self, finished: Container[int]) -> int | None:
        """The index of the next one in the order, if its result is there."""
        if not self._keys:
            return None
        index = self._indexes.get(self._keys[0])
        return index if index is not None and index in finished else None

    def skip_missing(self) -> None:
        """No more members come by themselves: leave out those that have not been enrolled."""
        while self.waits_for_enrolment:
            self._keys.popleft()
            self._drop_passed()

    def skip_unfinished(self) -> None:
        """Nothing runs any more: the next one has no result, because it was cancelled."""
        if self._keys:
            self._keys.popleft()
            self._drop_passed()

    def _drop_passed(self) -> None:
        while self._keys and self._keys[0] in self._passed:
            self._keys.popleft()
