"""In which order a stream gives the results of a group whose run is executed again."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Container, Sequence

__all__ = ["RecordedOrder"]

_AHEAD, _LEFT_OUT, _SKIPPED, _PASSED = range(4)
"""Of a member: its turn comes; it comes only if it is enrolled; it has no result; it is not waited for any more."""


class RecordedOrder:
    """The members that ended in an earlier execution, in the order in which they did.

    A program may have acted on that order, so a stream repeats it: of the members that have been enrolled, these come
    first. One that has not been enrolled is waited for as long as it may come by itself. One that cannot is left out
    for now: a program that adds members when it gets results (a crawler) may enrol it later, and then it has its place
    again. So what comes next follows from what has been enrolled, which follows from what has been given.

    Args:
        keys: of these members.
        further: keys under which members come back whose failure a stream has given: they follow by themselves.
    """

    def __init__(self, keys: Sequence[bytes], further: Collection[bytes] = ()) -> None:
        self._places: dict[bytes, int] = {key: place for place, key in enumerate(keys)}
        fewer, others = (further, self._places) if len(further) < len(keys) else (keys, further)
        self._further = {self._places[key] for key in fewer if key in others}
        self._states = bytearray(len(keys))
        self._indexes = array("q", [-1]) * len(keys)
        """Of the members that have been enrolled, by place; -1 for others."""
        self.has_members: bool = bool(self._places)
        """Whether any outcome of a member was recorded before."""
        self._next = 0
        """The first place whose turn is still to come."""
        self._first_missing = 0

    def knows(self, key: bytes) -> bool:
        """Whether the member with this key has a place in the order."""
        return key in self._places

    def is_ahead(self, key: bytes) -> bool:
        """Whether the turn of the member with this key is still to come."""
        place = self._places.get(key)
        return place is not None and self._states[place] == _AHEAD

    def place_of(self, key: bytes) -> int:
        """The place of the member with this key; after all others, if it has none."""
        return self._places.get(key, len(self._states))

    def misses_before(self, place: int) -> bool:
        """Whether a member before this place has not been enrolled, and is not made again under another key either."""
        missing, states, further = self._first_missing, self._states, self._further
        while missing < len(states) and (
            self._indexes[missing] >= 0 or states[missing] == _PASSED or missing in further
        ):
            missing += 1
        self._first_missing = missing
        return missing < place

    def enrolled(self, key: bytes, index: int) -> None:
        """The member with this key has been enrolled."""
        place = self._places.get(key)
        if place is None:
            return
        self._indexes[place] = index
        if self._states[place] == _LEFT_OUT:
            self._states[place] = _AHEAD
            self._next = min(self._next, place)

    def passed(self, key: bytes) -> None:
        """Wait no longer for the member with this key: it is made again under another one, or has been given."""
        place = self._places.get(key)
        if place is not None:
            self._mark(place, _PASSED)

    def _mark(self, place: int, state: int) -> None:
        self._states[place] = state
        if place == self._next:
            following = self._states.find(_AHEAD, place)
            self._next = len(self._states) if following < 0 else following

    @property
    def waits_for_enrolment(self) -> bool:
        """Whether the next one in the order has not been enrolled yet."""
        return self._next < len(self._states) and self._indexes[self._next] < 0

    @property
    def is_over(self) -> bool:
        """Whether all that can come have been given, so that results come as they are completed."""
        return self._next >= len(self._states)

    def take(self, finished: Container[int]) -> int | None:
        """The index of the next one in the order, if its result is there."""
        if self._next >= len(self._states):
            return None
        index = self._indexes[self._next]
        return index if index >= 0 and index in finished else None

    def skip_missing(self) -> None:
        """No more members come by themselves: leave out those that have not been enrolled, until they are."""
        while self.waits_for_enrolment:
            self._mark(self._next, _LEFT_OUT)

    def skip_unfinished(self) -> None:
        """Nothing runs any more: the next one has no result, because it was cancelled."""
        if not self.is_over:
            self._mark(self._next, _SKIPPED)
