"""What is known of a long run between two windows of it, so that the next one is quick: numbers, and no values.

A journal has no index over keys or groups, which would cost every call. So who looks at a run reads its columns once,
from the beginning to the end, and from then on only what is new. What is kept is small: how many outcomes of which
group each part of the journal has, the first four bytes of the keys of each part, which say in which parts to look for
a call, and the first eight bytes of the key of each outcome. Two that are equal there are nearly always a call with two
outcomes, which nothing but a fault makes: then the journal is read once more to find which of them count for nothing.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Final

from rh_agents.core.ports.call_views import Within
from rh_agents.stores._backend.windows import TriedAgain
from rh_agents.stores._parts import PART, Steps, parts
from rh_agents.stores._under_way import UnderWay, split
from rh_agents.stores._verified import VerifiedSession

GRAIN: Final = 4096
"""Events of which groups and keys are known together."""
_WORDS: Final = 4
"""Numbers of eight bytes in a key; there are twice as many of four."""
_FEW: Final = 20_000
"""So many new ones are looked up one by one among those that are sorted; more are sorted with them."""
_PIECES: Final = 4
"""Keys are sorted a piece at a time, which takes less memory."""


class _Heads:
    """The beginnings of keys, as numbers.

    Attributes:
        twice: those that are there more than once.
        doublings: how often one was added that was there.
    """

    def __init__(self) -> None:
        self.twice: set[int] = set()
        self.doublings: int = 0
        self._pairs = [0] * _PIECES
        self._sorted: list[array[int]] = [array("Q") for _ in range(_PIECES)]
        self._newest: set[int] = set()

    def has(self, head: int) -> bool:
        """Whether a key begins so."""
        its = self._sorted[head % _PIECES]
        return head in self._newest or _has(its, head)

    def add(self, heads: array[int]) -> None:
        """Add some. Few are kept beside the others until they are many: whoever follows a run adds a few at a time."""
        if len(self._newest) + len(heads) < _FEW:
            for head in heads:
                if self.has(head):
                    self.twice.add(head)
                    self.doublings += 1
                self._newest.add(head)
            return
        newest, self._newest = self._newest, set()
        for piece in range(_PIECES):
            mixed = [*self._sorted[piece], *sorted([head for head in newest if head % _PIECES == piece])]
            mixed += sorted([head for head in heads if head % _PIECES == piece])
            mixed.sort()  # of three parts that are in order
            pairs = [one for one, another in pairwise(mixed) if one == another]
            self.twice.update(pairs)
            self.doublings += len(pairs) - self._pairs[piece]
            self._pairs[piece] = len(pairs)
            self._sorted[piece] = array("Q", mixed)


def _heads_of(keys: bytes) -> array[int]:
    return array("Q", keys)[::_WORDS]


class Ended:
    """Which keys have an outcome. Several may read on at a time, in whatever threads: each goes on behind the others.

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
        self._looked_at = 0
        self._lock = threading.Lock()

    def extend(self, until: int) -> Steps[None]:
        """Read on, up to an event."""
        while self.until < until:
            session = yield
            with self._lock:
                self._read(session, until)
        while self._looked_at != self._heads.doublings:
            doublings, twice = self._heads.doublings, frozenset(self._heads.twice)
            self.repeated = yield from self._find_repeated(until, twice)
            self._looked_at = doublings

    def _read(self, session: VerifiedSession, until: int) -> None:
        end = min(self.until + PART, until)
        if end > self.until:
            self._new += _heads_of(session.inner.ended_keys(self._number, self.until, end))
        if end == until:
            heads, self._new = self._new, array("Q")
            self._heads.add(heads)
        self.until = max(self.until, end)

    def _find_repeated(self, until: int, twice: Collection[int]) -> Steps[set[int]]:
        """Which outcomes come behind others of their keys. Rare: the journal is read twice more."""
        found: Counter[bytes] = Counter()
        for low, high in parts(0, until):
            session = yield
            keys = session.inner.ended_keys(self._number, low, high)
            found.update(key for key, head in zip(split(keys), _heads_of(keys), strict=True) if head in twice)
        keys_found = [key for key, times in found.items() if times > 1]
        seen: set[bytes] = set()
        repeated: set[int] = set()
        for low, high in parts(0, until) if keys_found else ():
            session = yield
            for each in session.inner.outcomes_of_keys(self._number, low, high, keys_found):
                if each.key in seen:
                    repeated.add(each.sequence)
                seen.add(each.key)
        return repeated

    def may_have(self, key: bytes) -> bool:
        """Whether a call may have an outcome. If not, it has none."""
        return self._heads.has(_heads_of(key)[0])


class RunIndex:
    """In which parts of a journal there is something about a call, or how much about a group, and what is under way.

    Args:
        number, run_id: the run.
        ended: which keys have an outcome, known as far as this is to be.

    Attributes:
        under_way: calls without an outcome, as far as `until`.
    """

    def __init__(self, number: int, run_id: str, ended: Ended) -> None:
        self.under_way: UnderWay = UnderWay()
        self._number = number
        self._run_id = run_id
        self._ended = ended
        self._lock = threading.Lock()
        self._groups: dict[str, list[tuple[int, int]]] = {}
        self._keys: dict[int, array[int]] = {}
        """The first four bytes of the keys of each part, as numbers, sorted, by where the part begins."""

    @property
    def until(self) -> int:
        """The sequence up to which that has been read."""
        return self.under_way.until

    def extend(self, until: int) -> Steps[None]:
        """Read on, up to an event.

        Raises:
            StoreError: rows are missing.
        """
        while self.until < until:
            session = yield
            with self._lock:
                for _ in range(PART // GRAIN):
                    if self.until < until:
                        self._read(session, min(until, self.until - self.until % GRAIN + GRAIN))
        yield from leave_out_ended(self._number, self.under_way, self._ended)

    def _read(self, session: VerifiedSession, end: int) -> None:
        after = self.until
        kinds = session.inner.kinds(self._number, after, end)
        if kinds.events != end - after:
            session.events(self._number, self._run_id, after, end - after)  # says which one is missing
            raise session.missing(self._run_id, f"an event between {after + 1} and {end}")
        groups = session.inner.count_groups(self._number, after, end)
        for group, count in groups.items():
            self._groups.setdefault(group, []).append((after, count))
        start = after - after % GRAIN
        new = [*self._keys.get(start, ()), *_short_heads(kinds.ended), *_short_heads(kinds.others)]
        self._keys[start] = array("I", sorted(new))
        self.under_way.add(end, kinds)

    def parts_with(self, keys: Collection[bytes]) -> list[tuple[int, int]]:
        """The parts of the journal in which there may be something about these calls, as far as it has been read."""
        heads = [head for key in keys for head in _short_heads(key)]
        with self._lock:
            return [
                (start, min(start + GRAIN, self.until))
                for start, its in self._keys.items()
                if any(_has(its, head) for head in heads)
            ]

    def parts_of(self, group: str, left_out: Collection[int]) -> Iterator[tuple[int, int]]:
        """The parts of the journal with outcomes of a group: after which event each begins, and how many there are.

        Args:
            group: its id.
            left_out: sequences of its outcomes that do not count.
        """
        fewer: dict[int, int] = {}
        for sequence in left_out:
            start = (sequence - 1) // GRAIN * GRAIN
            fewer[start] = fewer.get(start, 0) + 1
        counts: dict[int, int] = {}
        for after, count in self._groups.get(group, ()):  # a part may have been read in several steps
            start = after - after % GRAIN
            counts[start] = counts.get(start, 0) + count
        for start, count in counts.items():
            yield start, count - fewer.get(start, 0)


def read_on(number: int, under_way: UnderWay, until: int) -> Steps[None]:
    """Read on which calls of a run are under way, up to an event."""
    while under_way.until < until:
        session = yield
        under_way.read_on(until, partial(session.inner.kinds, number))


def leave_out_ended(number: int, under_way: UnderWay, ended: Ended) -> Steps[None]:
    """Forget calls that have an outcome further up: what follows it says nothing of them. `ended` knows as much."""
    doubtful = [key for key in under_way.take_new() if ended.may_have(key)]
    for low, high in parts(0, under_way.until) if doubtful else ():
        session = yield
        under_way.forget(each.key for each in session.inner.outcomes_of_keys(number, low, high, doubtful))


def _has(its: array[int], head: int) -> bool:
    at = bisect_left(its, head)
    return at < len(its) and its[at] == head


def _short_heads(keys: bytes) -> array[int]:
    return array("I", keys)[:: 2 * _WORDS]


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


class Moments:
    """When the calls were under way whose outcomes stand in the parts of a journal: of all but the last part.

    Clocks of machines differ, and may be set, so the order of the journal says nothing certain about times.

    Args:
        number: the run.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._parts: list[tuple[float | None, float | None]] = []

    @property
    def until(self) -> int:
        """Up to which event it is known."""
        return len(self._parts) * PART

    def extend(self, session: VerifiedSession) -> None:
        """Look at one further part, which must be whole."""
        self._parts.append(session.inner.moments(self._number, self.until, self.until + PART))

    def may_fit(self, after: int, until: int, within: Sequence[Within]) -> bool:
        """Whether calls that fit may end between two events."""
        times = [each for each in within if each.name == "time"]
        if not times or until > self.until:
            return True
        parts = self._parts[after // PART : -(-until // PART)]
        return any(all(_may_fit(part, each) for each in times) for part in parts)


def _may_fit(part: tuple[float | None, float | None], within: Within) -> bool:
    began, ended = part
    if began is None or ended is None:
        return False
    return (within.least is None or ended >= within.least) and (within.most is None or began <= within.most)
