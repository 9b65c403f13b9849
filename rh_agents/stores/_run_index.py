"""What is known of a long run between two windows of it, so that the next one is quick: counts, and no values.

A journal has no index over keys or groups, which would cost every call. So who looks at a run reads its columns once,
from the beginning to the end, and from then on only what is new. What is kept is small: how many outcomes of which
group each part of the journal has, which calls are under way, and the first eight bytes of the key of each outcome. Two
that are equal there are nearly always a call with two outcomes, which nothing but a fault makes: then the database is
asked which of them count for nothing.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from typing import Final

from rh_agents.stores._backend import TriedAgain
from rh_agents.stores._verified import VerifiedSession

PART: Final = 4096
"""Events of which groups are counted together."""
_DIGEST: Final = 32
_WORDS: Final = 4
"""Numbers of eight bytes in a key."""
_FEW: Final = 20_000
"""So many new ones are looked up one by one among those that are sorted; more are sorted with them."""
_PIECES: Final = 4
"""Keys are sorted a piece at a time, which takes less memory."""


class _Heads:
    """The beginnings of keys, as numbers, of which one says whether it was there before."""

    def __init__(self) -> None:
        self._sorted: list[array[int]] = [array("Q") for _ in range(_PIECES)]

    def has(self, head: int) -> bool:
        """Whether a key begins so."""
        its = self._sorted[head % _PIECES]
        at = bisect_left(its, head)
        return at < len(its) and its[at] == head

    def add(self, heads: array[int]) -> bool:
        """Add some; whether one of them was there before, or is there twice."""
        if len(heads) < _FEW:
            new = set(heads)
            is_repeated = len(new) < len(heads) or any(map(self.has, new))
        else:
            is_repeated = False
        for piece in range(_PIECES):
            mixed = [*self._sorted[piece], *sorted([head for head in heads if head % _PIECES == piece])]
            mixed.sort()  # of two parts that are in order
            is_repeated = is_repeated or any(one == another for one, another in pairwise(mixed))
            self._sorted[piece] = array("Q", mixed)
        return is_repeated


def _split(keys: bytes) -> list[bytes]:
    return [keys[start : start + _DIGEST] for start in range(0, len(keys), _DIGEST)]


class Ended:
    """Which keys have an outcome.

    Args:
        number: the run.

    Attributes:
        until: the sequence up to which that is known.
        repeated: outcomes that count for nothing, since their calls had one before.
    """

    def __init__(self, number: int) -> None:
        self.until: int = 0
        self.repeated: set[int] = set()
        self._number = number
        self._heads = _Heads()
        self._new = array("Q")

    def extend(self, session: VerifiedSession, until: int, most: int) -> None:
        """Read on, up to an event, but so many parts of the journal at most."""
        end = min(until, self.until + most * PART)
        if end > self.until:
            self._new += array("Q", session.inner.ended_keys(self._number, self.until, end))[::_WORDS]
            self.until = end
        if end == until and self._new:
            heads, self._new = self._new, array("Q")
            if self._heads.add(heads):
                self.repeated = set(session.later_outcomes(self._number, 0, self.until))

    def may_have(self, key: bytes) -> bool:
        """Whether a call may have an outcome. If not, it has none."""
        return self._heads.has(array("Q", key)[0])


class RunIndex:
    """Which calls are under way, and how many outcomes of a group there are in which part of the journal.

    Args:
        number, run_id: the run.
        ended: which keys have an outcome, known as far as this is to be.

    Attributes:
        until: the sequence up to which that has been read.
    """

    def __init__(self, number: int, run_id: str, ended: Ended) -> None:
        self.until: int = 0
        self._number = number
        self._run_id = run_id
        self._ended = ended
        self._groups: dict[str, list[tuple[int, int]]] = {}
        self._under_way: dict[bytes, bool] = {}
        self._new_keys: set[bytes] = set()

    @property
    def under_way(self) -> list[bytes]:
        """The keys of calls that have begun and have no outcome, in the order of their first events."""
        return [key for key, has_begun in self._under_way.items() if has_begun]

    def extend(self, session: VerifiedSession, until: int, most: int) -> None:
        """Read on, up to an event, but so many parts of the journal at most.

        Raises:
            StoreError: rows are missing.
        """
        end = min(until, self.until - self.until % PART + most * PART)
        while self.until < end:
            self._read(session, min(end, self.until - self.until % PART + PART))
        if end == until:
            self._compare(session)

    def _read(self, session: VerifiedSession, end: int) -> None:
        kinds = session.inner.kinds(self._number, self.until, end)
        if kinds.events != end - self.until:
            session.events(self._number, self._run_id, self.until, end - self.until)  # says which one is missing
            raise session.missing(self._run_id, f"an event between {self.until + 1} and {end}")
        self._note(set(_split(kinds.ended)), zip(_split(kinds.others), kinds.letters, strict=True))
        for group, count in session.inner.count_groups(self._number, self.until, end).items():
            self._groups.setdefault(group, []).append((self.until, count))
        self.until = end

    def _note(self, ended: set[bytes], others: Iterable[tuple[bytes, str]]) -> None:
        """The calls that have ended in the next part, and what else it says of calls."""
        under_way = self._under_way
        for key in ended & under_way.keys():
            del under_way[key]
        for key, letter in others:
            if key not in ended:
                under_way[key] = under_way.get(key, False) or letter == "s"
                self._new_keys.add(key)

    def _compare(self, session: VerifiedSession) -> None:
        """Leave out what follows an outcome: that says nothing of its call."""
        keys, self._new_keys = self._new_keys & self._under_way.keys(), set()
        doubtful = [key for key in keys if self._ended.may_have(key)]
        if doubtful:
            for each in session.inner.outcomes_of_keys(self._number, self.until, doubtful):
                self._under_way.pop(each.key, None)

    def parts_of(self, group: str, left_out: Collection[int]) -> Iterator[tuple[int, int]]:
        """The parts of the journal with outcomes of a group: after which event each begins, and how many there are.

        Args:
            group: its id.
            left_out: sequences of its outcomes that do not count.
        """
        fewer: dict[int, int] = {}
        for sequence in left_out:
            start = (sequence - 1) // PART * PART
            fewer[start] = fewer.get(start, 0) + 1
        counts: dict[int, int] = {}
        for after, count in self._groups.get(group, ()):  # a part may have been read in several steps
            start = after - after % PART
            counts[start] = counts.get(start, 0) + count
        for start, count in counts.items():
            yield start, count - fewer.get(start, 0)


class Tries:
    """Which calls of a run were made again, by their places in the program.

    Attributes:
        until: the sequence up to which that has been read.
    """

    def __init__(self) -> None:
        self.until: int = 0
        self._at: dict[bytes, list[TriedAgain]] = {}
        self._place: dict[int, bytes] = {}
        self._place_of_key: dict[bytes, bytes] = {}
        self._first: dict[bytes, TriedAgain | None] = {}

    def add(self, found: list[TriedAgain], until: int) -> None:
        """The next ones."""
        for each in found:
            if each.key not in self._place_of_key:  # else it has a second outcome, which counts for nothing
                self._place_of_key[each.key] = each.base
                self._at.setdefault(each.base, []).append(each)
                self._place[each.sequence] = each.base
        self.until = until

    def place_of(self, key: bytes) -> bytes:
        """The place in the program of the call with a key."""
        return self._place_of_key.get(key, key)

    def newest(self, place: bytes) -> int:
        """The sequence of the last outcome of a place that was made again; 0 if none was."""
        its = self._at.get(place)
        return its[-1].sequence if its else 0

    def is_replaced(self, sequence: int, key: bytes) -> bool:
        """Whether an outcome counts no more, because the call was made again."""
        return self.newest(self.place_of(key)) > sequence

    def unknown(self, places: Collection[bytes]) -> list[bytes]:
        """Those of these places where a call was made again, of which it is not known where the first try stands."""
        return [place for place in places if place in self._at and place not in self._first]

    def all_unknown(self) -> list[bytes]:
        """The same of all places."""
        return self.unknown(self._at.keys())

    def add_first(self, places: Collection[bytes], found: list[TriedAgain]) -> None:
        """Where the first tries of these places stand, as far as they are recorded."""
        self._first.update(dict.fromkeys(places))
        for each in reversed(found):
            self._first[each.key] = each

    def chain(self, place: bytes) -> list[TriedAgain]:
        """All outcomes of a place that was made again, in the order in which they were recorded."""
        first = self._first.get(place)
        its = [*([] if first is None else [first]), *self._at.get(place, ())]
        return sorted(its, key=lambda each: each.sequence)

    def replaced_between(self, after: int, until: int) -> list[int]:
        """The outcomes that others replace which stand from after one sequence up to another one.

        Where the first tries stand must be known (`add_first`).
        """
        found: list[int] = []
        for place, its in self._at.items():
            if its[-1].sequence > after and its[0].sequence <= until:
                pairs = pairwise(self.chain(place))
                found += [one.sequence for one, by in pairs if by.key != place and after < by.sequence <= until]
        return found

    def left_out_of(self, group: str) -> set[int]:
        """The sequences of outcomes of a group that count no more. Where first tries stand must be known."""
        return {each.sequence for place in self._at for each in self.chain(place)[:-1] if each.group_id == group}
