"""Outlines of runs that a database makes: which members of groups are plain, with all that is below them, and which
events are read one by one.

To group the events of a run by their keys would be a query, which sorts all of them: tens of megabytes for a run of
100,000 calls. Yet what belongs to a call stands close together in a journal. So columns of numbers are read from its
beginning to its end, and only the calls under way are kept in a dictionary.

A call below a member names the call that made it by its key. That one is under way, so it is found there, and from then
on it is known by the sequence of its first event, which is a number: whether a call is left out stands in an array.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import count
from typing import Final, NamedTuple

from rh_agents.core.ports.outline import CallsBelow, PlainMembers, around, in_detail, rows_without
from rh_agents.core.ports.summary import GROUP_EVENTS
from rh_agents.stores._backend.rows import RunRow
from rh_agents.stores._backend.windows import MemberColumns
from rh_agents.stores._parts import PART, Steps, parts
from rh_agents.stores._rows import actor_in

_CHUNK: Final = 4096
"""Events of which columns, or addresses, are read at a time."""
_DIGEST: Final = 32
"""Bytes of a key."""
_WORDS: Final = 4
"""Numbers of eight bytes in a key."""
_PARTS: Final = 4
"""Keys are compared a part at a time, which takes less memory."""
_HEX: Final = 2 * _DIGEST
"""Digits of a key."""


class Outlined(NamedTuple):
    """What is left out, and the sequences of the events that are not; all else as in `RunOutline`."""

    plain: list[PlainMembers]
    sequences: array[int]
    uses: bool
    below: list[CallsBelow]


def outlining(run: RunRow) -> Steps[Outlined]:
    """What is left out of a run as it is now.

    Raises:
        StoreError: rows are missing.
    """
    found = _Members()
    after = 0
    while after < run.last_sequence:
        session = yield
        for _ in range(PART // _CHUNK):
            if after < run.last_sequence:
                columns = session.inner.members(run.number, after, run.last_sequence, _CHUNK)
                end = after + len(columns.kinds)
                if columns.last != end:
                    session.events(run.number, run.run_id, after, _CHUNK)  # says which one is missing
                    raise session.missing(run.run_id, f"event {end + 1}")
                found.add(after, columns)
                after = end
    return (yield from _outlined(run, found))


class _Members:
    """The members that are plain as far as the journal has been read, and the calls below calls that are so."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, _Begun] = {}
        self._spoilt: set[bytes] = set()
        self._of: dict[tuple[str, str], _Growing] = {}
        self._below: dict[str, _Growing] = {}
        self.uses = False
        self.further: dict[int, list[int]] = {}
        """The sequences between the first and the last event of a call, by the last one, where there are any."""

    def add(self, after: int, columns: MemberColumns) -> None:
        """The next events. Nearly all the time of an outline is spent in this loop."""
        self.uses = self.uses or columns.uses
        under_way, keys = self._under_way, columns.keys
        split = (keys[at : at + _DIGEST] for at in range(0, len(keys), _DIGEST))
        rows = zip(count(after + 1), columns.kinds, split, columns.groups, columns.indexes, columns.actors)
        of_group, of_actor, growing = None, None, None
        for sequence, kind, key, group, index, actor in rows:
            if kind == "s":
                begun = under_way.setdefault(key, now := (sequence, group, index, None))
                if begun is not now:
                    self._go_on(key, begun, now)
            elif kind == "c":
                begin, began_in, began_at, further = under_way.pop(key, None) or (sequence, group, index, None)
                if began_at != index or began_in != group:
                    self._spoilt.add(key)
                if further:
                    self.further[sequence] = further
                if group is None:
                    self._add_below(key, begin, sequence, actor or "")
                    continue
                if growing is None or group is not of_group or actor is not of_actor:
                    of_group, of_actor, growing = group, actor, self._growing(group, actor)
                growing.keys.append(key)
                growing.begins.append(begin)
                growing.ends.append(sequence)
                growing.numbers.append(index or 0)
            elif kind != "-":
                self._spoilt.add(key)
                under_way.pop(key, None)
        for its in (self._of, self._below):
            for each in its.values():
                each.pack()

    def _add_below(self, key: bytes, begin: int, end: int, actor: str) -> None:
        """A call that is no member. It may be left out with the one that made it, if that was under way."""
        around = self._under_way.get(bytes.fromhex(actor[:_HEX]))
        if around is None or around[0] > begin:
            self._spoilt.add(key)
            return
        growing = self._below.get(actor[_HEX:])
        if growing is None:
            growing = self._below[actor[_HEX:]] = _Growing()
        growing.keys.append(key)
        growing.begins.append(begin)
        growing.ends.append(end)
        growing.numbers.append(around[0])

    def _go_on(self, key: bytes, begun: _Begun, now: _Begun) -> None:
        """One more event before the outcome."""
        begin, group, index, further = begun
        if (group, index) != now[1:3]:
            self._spoilt.add(key)
        self._under_way[key] = (begin, group, index, [*(further or ()), now[0]])

    def _growing(self, group: str | None, actor: str | None) -> _Growing:
        kind = (group or "", actor or "")
        found = self._of.get(kind)
        if found is None:
            found = self._of[kind] = _Growing()
        return found

    def plain(self) -> tuple[list[PlainMembers], list[_Below]]:
        """The members that are plain, and the calls that are so below other ones, but for what is below all these."""
        not_plain = self._spoilt | self._under_way.keys()
        members, below = list[PlainMembers](), list[_Below]()
        for group, actor in list(self._of):
            its = self._of.pop((group, actor)).members(group, actor)
            not_plain |= _repeated(its.keys)
            members.append(its)
        for actor in list(self._below):
            calls = self._below.pop(actor).below(actor)
            not_plain |= _repeated(calls.keys)
            below.append(calls)
        left = (each.without(_with_keys(each.keys, not_plain)) for each in members)
        return [each for each in left if each], [each.without(_with_keys(each.keys, not_plain)) for each in below]


_Begun = tuple[int, str | None, int | None, list[int] | None]
"""The sequence, the group and the index with which a call began, and the sequences of its later events."""


class _Growing:
    """Calls of one actor that are members of one group, or of none. Those that have ended lately are in lists, to which
    adding is quicker.

    `numbers` are the indexes of members, and of other calls the first sequences of the calls that made them.
    """

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.begins: list[int] = []
        self.ends: list[int] = []
        self.numbers: list[int] = []
        self._keys = bytearray()
        self._begins, self._ends, self._numbers = array("q"), array("q"), array("q")

    def pack(self) -> None:
        """Put what is in the lists where it takes less memory."""
        self._keys += b"".join(self.keys)
        self._begins.extend(self.begins)
        self._ends.extend(self.ends)
        self._numbers.extend(self.numbers)
        for new in (self.keys, self.begins, self.ends, self.numbers):
            new.clear()

    def members(self, group: str, actor: str) -> PlainMembers:
        """All of them, as members."""
        parent, name, more = _parts(actor)
        its = actor_in(name, json.loads(more))
        keys = bytes(self._keys)
        return PlainMembers(group, *its, bytes.fromhex(parent), keys, self._begins, self._ends, self._numbers)

    def below(self, actor: str) -> _Below:
        """All of them, as calls that are no members."""
        _, name, more = _parts(actor)
        its = actor_in(name, json.loads(more))
        return _Below(*its, bytes(self._keys), self._begins, self._ends, self._numbers)


class _Below(NamedTuple):
    """Calls of one actor that are no members, in columns. `arounds` has the first sequences of those that made them."""

    name: str
    version: str
    keys: bytes
    begins: array[int]
    ends: array[int]
    arounds: array[int]

    def without(self, positions: Collection[int]) -> _Below:
        """The others."""
        if not positions:
            return self
        rows = rows_without(positions, self.keys, self.begins, self.ends, self.arounds)
        return _Below(self.name, self.version, *rows)


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
        its = [head for head in heads if head % _PARTS == part]
        if len(set(its)) < len(its):
            alike.update(head for head, times in Counter(its).items() if times > 1)
    if not alike:
        return set()
    found = Counter(keys[at * _DIGEST : (at + 1) * _DIGEST] for at, head in enumerate(heads) if head in alike)
    return {key for key, times in found.items() if times > 1}


def _outlined(run: RunRow, members: _Members) -> Steps[Outlined]:
    yield  # what follows takes its time as well
    found, below = members.plain()
    chosen = in_detail(found)
    shown = {key for each, at in zip(found, chosen, strict=True) for key in map(each.key_at, at)}
    plain = [each.without(at) for each, at in zip(found, chosen, strict=True)]
    del found
    left_out = _left_out(run.last_sequence, plain, below)
    is_left_out = _events_of(run.last_sequence, plain, below, left_out, members)
    groups, outer, sequences = set[str](), set[str](), _others(is_left_out)
    while sequences:  # what is given with its events may be below something else
        more_groups, more = yield from _what_is_there(run, sequences, shown)
        groups |= more_groups
        inner: set[bytes] = set()
        for low, high in parts(0, run.last_sequence) if more - outer else ():
            session = yield
            inner |= session.inner.keys_at(run.number, low, high, more - outer)
        outer |= more
        plain = [each.without(_with_keys(each.keys, inner - shown)) for each in plain if each.group_id in groups]
        left_out, before = _left_out(run.last_sequence, plain, below), is_left_out
        is_left_out = _events_of(run.last_sequence, plain, below, left_out, members)
        sequences = _others(is_left_out, before)
    counted = _counted(plain, below, left_out)
    return Outlined([each for each in plain if each], _others(is_left_out), members.uses, counted)


def _with_keys(all_keys: bytes, keys: Collection[bytes]) -> set[int]:
    """The positions at which one of these keys stands in a column of keys."""
    starts = range(0, len(all_keys), _DIGEST) if keys else ()
    return {start // _DIGEST for start in starts if all_keys[start : start + _DIGEST] in keys}


def _left_out(last: int, plain: Sequence[PlainMembers], below: Sequence[_Below]) -> array[int]:
    """By the sequence of its first event, in which of `plain` a call is, or the member that it is below, from 1; 0 for
    other calls.
    """
    found, arounds = array("i", [0]) * (last + 1), array("q", [0]) * (last + 1 if below else 0)
    for number, members in enumerate(plain, 1):
        for begin in members.begins:
            found[begin] = number
    for calls in below:
        for begin, around_it in zip(calls.begins, calls.arounds, strict=True):
            arounds[begin] = around_it
    for begin, around_it in enumerate(arounds):
        if around_it:  # that one began before
            found[begin] = found[around_it]
    return found


def _events_of(
    last: int, plain: Sequence[PlainMembers], below: Sequence[_Below], left_out: array[int], members: _Members
) -> bytearray:
    """By the sequence of each event, 1 if it is of a call that is left out, else 0."""
    found = bytearray(last + 1)
    found[0] = 1
    columns = [(each.begins, each.ends) for each in plain] + [(each.begins, each.ends) for each in below]
    for begins, ends in columns:
        for begin, end in zip(begins, ends, strict=True):
            if left_out[begin]:
                found[begin] = found[end] = 1
                for sequence in members.further.get(end, ()) if members.further else ():
                    found[sequence] = 1
    return found


def _others(is_left_out: bytearray, before: bytearray | None = None) -> array[int]:
    """The sequences of all events that are not left out; if `before` is given, of those that were left out then."""
    others, at = array("q"), -1
    if is_left_out == before:
        return others
    while (at := is_left_out.find(0, at + 1)) >= 0:
        if before is None or before[at]:
            others.append(at)
    return others


def _counted(plain: Sequence[PlainMembers], below: Sequence[_Below], left_out: array[int]) -> list[CallsBelow]:
    """How many calls are left out that are no members, by what they are below."""
    found: dict[tuple[str, str, str], CallsBelow] = {}
    for calls in below:
        for begin in calls.begins:
            if left_out[begin]:
                kind = (plain[left_out[begin] - 1].group_id, calls.name, calls.version)
                number, first = found.get(kind, (*kind, 0, begin))[3:]
                found[kind] = CallsBelow(*kind, number + 1, min(first, begin))
    return list(found.values())


def _what_is_there(run: RunRow, sequences: Sequence[int], shown: Collection[bytes]) -> Steps[tuple[set[str], set[str]]]:
    """The groups of which there are events, and the addresses that have something below them."""
    groups, outer = set[str](), set[str]()
    for start in range(0, len(sequences), _CHUNK):
        session = yield
        chunk = sequences[start : start + _CHUNK]
        for kind, group_id, key, address in session.inner.addresses_at(run.number, chunk):
            if kind in GROUP_EVENTS and group_id is not None:
                groups.add(group_id)
            if key not in shown:
                outer |= around([address])
    return groups, outer
