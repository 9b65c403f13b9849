"""Numbering the calls that one call makes, so that identical ones have keys of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from rh_agents.core._replay.key_table import DigestTable

__all__ = ["ENDED", "Claim", "Claimant", "Numbering"]

Claimant = object
"""Whoever numbers calls: a task for those that it makes itself, a group for its members."""


ENDED: Claimant = object()
"""Stands for a task that has ended. The task itself would hold its frame, and be held by it."""


class Claim(NamedTuple):
    """The number of a call among the identical ones that are made from one place.

    `is_ordered` is False if an identical call was numbered for another claimant, so that nothing says which of the two
    comes first when the run is executed again.
    """

    occurrence: int
    is_ordered: bool


def _never(_: Claimant) -> bool:
    return False


class _Others:
    """Whoever makes calls beside the owner of a frame, numbered from 1, and forgotten when there is no such task any
    more: a program may start one for each of its calls.
    """

    __slots__ = ("_by_number", "_last", "_numbers")

    def __init__(self) -> None:
        self._numbers: WeakKeyDictionary[Claimant, int] = WeakKeyDictionary()
        self._by_number: WeakValueDictionary[int, Claimant] = WeakValueDictionary()
        self._last = 0

    def number_of(self, claimant: Claimant) -> int:
        number = self._numbers.get(claimant)
        if number is None:
            number = self._last = self._last + 1
            self._numbers[claimant] = number
            self._by_number[number] = claimant
        return number

    def find(self, number: int) -> Claimant | None:
        """Who has this number; None if that is over."""
        return self._by_number.get(number)


_new_tuple = tuple.__new__  # a third of the time that a NamedTuple takes to be called
_CLAIMS = 2**32
"""More calls with one identity than there will be in a frame."""


class Numbering:
    """Numbers the calls that are made from one place, those that are identical in the order of the program.

    Attributes:
        owner: the task that executes the call. What this task calls is numbered in program order.
    """

    owner: Claimant | None = None
    _counts: DigestTable | None = None
    """For each identity, how often it was counted; above that, the number of the claimant that did it last."""
    _others: _Others | None = None
    _open_groups: dict[str, Claimant] | None = None

    def begin_anew(self) -> None:
        """Another attempt makes the same calls again, and gets their recorded outcomes."""
        self._counts = self._others = self._open_groups = None

    def count(self, same: bytes) -> int:
        """The number of the next call with the identity `same`, from 0."""
        counts = self._counts
        if counts is None:
            counts = self._counts = DigestTable()
        return counts.count(same)

    def peek(self, same: bytes) -> int:
        """The number that the next call with this identity will get. It is not counted."""
        return 0 if self._counts is None else self._counts.get(same) % _CLAIMS

    def claim(self, same: bytes, claimant: Claimant, has_ended: Callable[[Claimant], bool] = _never) -> Claim:
        """Number a call with the identity `same` that the task `claimant` makes.

        `has_ended` tells of a task that made one before whether it is over, so that what follows comes after it.
        """
        if self.owner is None:
            self.owner = claimant
        if claimant is self.owner and self._others is None:
            counts = self._counts
            if counts is None:
                counts = self._counts = DigestTable()
            return _new_tuple(Claim, (counts.count(same), True))
        return self._claim_beside(same, claimant, has_ended)

    def _claim_beside(self, same: bytes, claimant: Claimant, has_ended: Callable[[Claimant], bool]) -> Claim:
        """The same when others than the owner make calls as well: calls with this identity are in order if they have
        been numbered for one claimant, or for one after the other.
        """
        others, counts = self._others, self._counts
        if others is None:
            others = self._others = _Others()
        if counts is None:
            counts = self._counts = DigestTable()
        mine = 0 if claimant is self.owner else others.number_of(claimant)
        before, occurrence = divmod(counts.get(same), _CLAIMS)
        counts.set(same, mine * _CLAIMS + occurrence + 1)
        if not occurrence or before == mine:
            return Claim(occurrence, True)
        earlier = others.find(before) if before else self.owner
        return Claim(occurrence, earlier is None or has_ended(earlier))

    def group_began(self, name: str, group: Claimant) -> None:
        """A group of this name takes calls from now on."""
        if self._open_groups is None:
            self._open_groups = {}
        self._open_groups.setdefault(name, group)

    def group_ended(self, name: str, group: Claimant) -> None:
        """No further calls come from this group, so that the next one of its name follows it in a defined order."""
        if self._open_groups is not None and self._open_groups.get(name) is group:
            del self._open_groups[name]

    def has_other_open_group(self, name: str, group: Claimant) -> bool:
        """Whether another group of the same name takes calls at the same time."""
        return self._open_groups is not None and self._open_groups.get(name, group) is not group
