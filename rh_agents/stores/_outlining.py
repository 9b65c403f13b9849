"""Outlines of runs that a database makes: which members of groups are plain, and which events are read one by one.

To group the events of a run by their keys would be a query, which sorts all of them: tens of megabytes for a run of
100,000 calls. Yet what belongs to a call stands close together in a journal. So columns of numbers are read from its
beginning to its end, and only the calls under way are kept in a dictionary.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import count, pairwise
from typing import Final, NamedTuple

from rh_agents.core.ports.outline import PlainMembers, around, in_detail
from rh_agents.core.ports.summary import GROUP_EVENTS
from rh_agents.stores._backend import MemberColumns, RunRow
from rh_agents.stores._rows import actor_in
from rh_agents.stores._verified import VerifiedSession

_CHUNK: Final = 4096
"""Events of which columns, or addresses, are read at a time."""
_DIGEST: Final = 32
"""Bytes of a key."""
_WORDS: Final = 4
"""Numbers of eight bytes in a key."""
_PARTS: Final = 4
"""Keys are compared a part at a time, which takes less memory."""


class Outlined(NamedTuple):
    """The members that are left out, and the sequences of the events that are not."""

    plain: list[PlainMembers]
    sequences: array[int]


def outlined(session: VerifiedSession, run: RunRow) -> Outlined:
    """What is left out of a run as it is now.

    Raises:
        StoreError: rows are missing.
    """
    found = _Members()
    after = 0
    while after < run.last_sequence:
        columns = session.inner.members(run.number, after, run.last_sequence, _CHUNK)
        end = after + len(columns.kinds)
        if columns.last != end:
            session.events(run.number, run.run_id, after, _CHUNK)  # says which one is missing
            raise session.missing(run.run_id, f"event {end + 1}")
        found.add(after, columns)
        after = end
    return _outlined(session, run, found)


class _Members:
    """The members that are plain as far as the journal has been read."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, _Begun] = {}
        self._spoilt: set[bytes] = set()
        self._of: dict[tuple[str, str], _Growing] = {}
        self.further: dict[int, list[int]] = {}
        """The sequences between the first and the last event of a call, by the last one, where there are any."""

    def add(self, after: int, columns: MemberColumns) -> None:
        """The next events."""
        under_way, keys = self._under_way, columns.keys
        rows = zip(count(after + 1), columns.kinds, columns.groups, columns.indexes, columns.actors)
        for at, (sequence, kind, group, index, actor) in enumerate(rows):
            if kind == "-":
                continue
            key = keys[at * _DIGEST : (at + 1) * _DIGEST]
            if kind == "s":
                begun = under_way.get(key)
                if begun is None:
                    under_way[key] = (sequence, group, index, None)
                else:
                    self._go_on(key, begun, (sequence, group, index))
            elif kind == "c":
                begin, *facts, further = under_way.pop(key, (sequence, group, index, None))
                if facts != [group, index]:
                    self._spoilt.add(key)
                if further:
                    self.further[sequence] = further
                self._growing(group, actor).add(key, begin, sequence, index)
            else:
                self._spoilt.add(key)

    def _go_on(self, key: bytes, begun: _Begun, now: tuple[int, str | None, int | None]) -> None:
        """One more event before the outcome."""
        begin, group, index, further = begun
        if (group, index) != now[1:]:
            self._spoilt.add(key)
        self._under_way[key] = (begin, group, index, [*(further or ()), now[0]])

    def _growing(self, group: str | None, actor: str | None) -> _Growing:
        kind = (group or "", actor or "")
        found = self._of.get(kind)
        if found is None:
            found = self._of[kind] = _Growing()
        return found

    def plain(self) -> Iterator[PlainMembers]:
        """The members that are plain, but for what is below them."""
        not_plain = self._spoilt | self._under_way.keys()
        for group, actor in list(self._of):
            members = self._of.pop((group, actor)).members(group, actor)
            not_plain |= _repeated(members.keys)
            left = members.without(_with_keys(members, not_plain))
            if left:
                yield left


_Begun = tuple[int, str | None, int | None, list[int] | None]
"""The sequence, the group and the index with which a call began, and the sequences of its later events."""


class _Growing:
    """Members of one actor of one group."""

    def __init__(self) -> None:
        self._keys = bytearray()
        self._begins, self._ends, self._indexes = array("q"), array("q"), array("q")

    def add(self, key: bytes, begin: int, end: int, index: int | None) -> None:
        """The next one that has ended."""
        self._keys += key
        self._begins.append(begin)
        self._ends.append(end)
        self._indexes.append(index or 0)

    def members(self, group: str, actor: str) -> PlainMembers:
        """All of them."""
        parent, name, more = _parts(actor)
        its = actor_in(name, json.loads(more))
        keys = bytes(self._keys)
        return PlainMembers(group, *its, bytes.fromhex(parent), keys, self._begins, self._ends, self._indexes)


def _parts(actor: str) -> tuple[str, str, str]:
    """The parent, the name, which may be any text, and the rest."""
    parent, _, rest = actor.partition("\x1f")
    name, _, more = rest.rpartition("\x1f")
    return parent, name, more


def _repeated(keys: bytes) -> set[bytes]:
    """The keys that are there more than once: few agree in their first eight bytes, so that only these are compared."""
    heads = array("Q")
    for start in range(0, len(keys), _CHUNK * _DIGEST):
        heads += array("Q", keys[start : start + _CHUNK * _DIGEST])[::_WORDS]
    alike: set[int] = set()
    for part in range(_PARTS):
        its = sorted([head for head in heads if head % _PARTS == part])
        alike.update(one for one, next_one in pairwise(its) if one == next_one)
    if not alike:
        return set()
    found = Counter(keys[at * _DIGEST : (at + 1) * _DIGEST] for at, head in enumerate(heads) if head in alike)
    return {key for key, times in found.items() if times > 1}


def _outlined(session: VerifiedSession, run: RunRow, members: _Members) -> Outlined:
    found = list(members.plain())
    chosen = in_detail(found)
    shown = {key for each, at in zip(found, chosen, strict=True) for key in map(each.key_at, at)}
    plain = [each.without(at) for each, at in zip(found, chosen, strict=True)]
    del found
    sequences = _others(run, plain, members)
    groups, outer = _what_is_there(session, run, sequences, shown)
    inner = session.inner.keys_at(run.number, run.last_sequence, outer) if outer else set()
    kept = [each.without(_with_keys(each, inner)) for each in plain if each.group_id in groups]
    if sum(map(len, kept)) != sum(map(len, plain)):
        sequences = _others(run, kept, members)
    return Outlined([each for each in kept if each], sequences)


def _with_keys(members: PlainMembers, keys: Collection[bytes]) -> set[int]:
    return {at for at, key in enumerate(members.all_keys()) if key in keys} if keys else set()


def _others(run: RunRow, plain: Sequence[PlainMembers], members: _Members) -> array[int]:
    """The sequences of all events but those of these members."""
    is_left_out = bytearray(run.last_sequence + 1)
    is_left_out[0] = 1
    for each in plain:
        for column in (each.begins, each.ends):
            for sequence in column:
                is_left_out[sequence] = 1
        if members.further:
            for end in each.ends:
                for sequence in members.further.get(end, ()):
                    is_left_out[sequence] = 1
    others, at = array("q"), -1
    while (at := is_left_out.find(0, at + 1)) >= 0:
        others.append(at)
    return others


def _what_is_there(
    session: VerifiedSession, run: RunRow, sequences: Sequence[int], shown: Collection[bytes]
) -> tuple[set[str], set[str]]:
    """The groups of which there are events, and the addresses that have something below them."""
    groups, outer = set[str](), set[str]()
    for start in range(0, len(sequences), _CHUNK):
        chunk = sequences[start : start + _CHUNK]
        for kind, group_id, key, address in session.inner.addresses_at(run.number, chunk):
            if kind in GROUP_EVENTS and group_id is not None:
                groups.add(group_id)
            if key not in shown:
                outer |= around([address])
    return groups, outer
