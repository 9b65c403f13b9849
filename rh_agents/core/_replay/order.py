"""In which order a stream gives the results of a group whose run is executed again."""

from __future__ import annotations

import heapq
from collections.abc import Container, Sequence

__all__ = ["RecordedOrder"]


class RecordedOrder:
    """The members that ended in an earlier execution, in the order in which they did.

    A program may have acted on that order, so a stream repeats it: of the members that have been enrolled, these come
    first. One that has not been enrolled is waited for as long as it may come by itself. One that cannot is left out
    for now: a program that adds members when it gets results (a crawler) may enrol it later, and then it has its place
    again. So what comes next follows from what has been enrolled, which follows from what has been given.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self._places: dict[bytes, int] = {key: place for place, key in enumerate(keys)}
        self._ahead: list[int] = list(range(len(keys)))
        """A heap of the places that are still to come."""
        self._left_out: set[int] = set()
        self._indexes: dict[bytes, int] = {}
        self._passed: set[bytes] = set()
        self._first_missing = 0

    def knows(self, key: bytes) -> bool:
        """Whether the member with this key has a place in the order."""
        return key in self._places

    def place_of(self, key: bytes) -> int:
        """The place of the member with this key; after all others, if it has none."""
        return self._places.get(key, len(self._keys))

    def misses_before(self, place: int) -> bool:
        """Whether a member before this place has not been enrolled, and is not made again under another key either."""
        while self._first_missing < len(self._keys):
            key = self._keys[self._first_missing]
            if key not in self._indexes and key not in self._passed:
                break
            self._first_missing += 1
        return self._first_missing < place

    def enrolled(self, key: bytes, index: int) -> None:
        """The member with this key has been enrolled."""
        place = self._places.get(key)
        if place is None:
            return
        self._indexes[key] = index
        if place in self._left_out:
            self._left_out.discard(place)
            heapq.heappush(self._ahead, place)
            self._drop_passed()

    def passed(self, key: bytes) -> None:
        """Wait no longer for the member with this key: it is made again under another one, or has been given."""
        if key in self._places:
            self._passed.add(key)
            self._drop_passed()

    @property
    def waits_for_enrolment(self) -> bool:
        """Whether the next one in the order has not been enrolled yet."""
        return bool(self._ahead) and self._keys[self._ahead[0]] not in self._indexes

    @property
    def has_members(self) -> bool:
        """Whether any outcome of a member was recorded before."""
        return bool(self._places)

    @property
    def is_over(self) -> bool:
        """Whether all that can come have been given, so that results come as they are completed."""
        return not self._ahead

    def take(self, finished: Container[int]) -> int | None:
        """The index of the next one in the order, if its result is there."""
        if not self._ahead:
            return None
        index = self._indexes.get(self._keys[self._ahead[0]])
        return index if index is not None and index in finished else None

    def skip_missing(self) -> None:
        """No more members come by themselves: leave out those that have not been enrolled, until they are."""
        while self.waits_for_enrolment:
            self._left_out.add(heapq.heappop(self._ahead))
            self._drop_passed()

    def skip_unfinished(self) -> None:
        """Nothing runs any more: the next one has no result, because it was cancelled."""
        if self._ahead:
            heapq.heappop(self._ahead)
            self._drop_passed()

    def _drop_passed(self) -> None:
        while self._ahead and self._keys[self._ahead[0]] in self._passed:
            heapq.heappop(self._ahead)
