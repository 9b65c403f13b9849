"""Outlines of runs that a database makes: which members of groups are plain, with all that is below them, and which
events are read one by one.

To group the events of a run by their keys would be a query, which sorts all of them: tens of megabytes for a run of
100,000 calls. Yet what belongs to a call stands close together in a journal. So columns of numbers are read from its
beginning to its end, and only the calls under way are kept in a dictionary.

A call below a member names the call that made it by its key. That one is under way, so it is found there, and from then
on it is known by the sequence of its first event, which is a number: whether a call is left out stands in an array.

So do the members of a group that such a call made. There may be as many groups as calls, so that none has columns of
its own: when a group ends, the rows of its members go to those of their actor, where they stand side by side. Of the
group itself it is known where it and its rows begin and end. Its name is read when it is to be shown.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from itertools import count, pairwise
from math import inf
from typing import Final, NamedTuple

from rh_agents.core.ports.outline import FIRST, CallsBelow, PlainMembers, around, in_detail, rows_without
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
_PARTS: Final = 8
"""Keys are compared a part at a time, which takes less memory."""
_HEX: Final = 2 * _DIGEST
"""Digits of a key."""


class Outlined(NamedTuple):
    """What is left out, and the sequences of the events that are not; all else as in `RunOutline`."""

    plain: list[PlainMembers]
    sequences: array[int]
    uses: bool
    below: list[CallsBelow]
    groups_below: dict[str, int]


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
        self._of: dict[str, dict[str, _Growing]] = {}
        self._below: dict[str, _Growing] = {}
        self._open: dict[str, int] = {}
        """The sequences with which groups have begun; 0 if more is said of one."""
        self._inside = _Inside()
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
                    of_group, of_actor, growing = group, actor, self._growing(group, actor or "")
                growing.keys.append(key)
                growing.begins.append(begin)
                growing.ends.append(sequence)
                growing.numbers.append(index or 0)
            elif kind == "x":
                self._spoilt.add(key)
                under_way.pop(key, None)
            elif group is not None:
                self._add_group(kind, sequence, group)
                growing = None
        for actors in (*self._of.values(), self._below):
            for each in actors.values():
                each.pack()
        self._inside.pack()

    def _add_group(self, kind: str, sequence: int, group: str) -> None:
        """An event of a group."""
        if kind == "b":
            self._inside.note(group)
        begin = self._open.pop(group, 0 if kind != "b" else sequence)
        if kind != "e":
            self._open[group] = begin if begin == sequence else 0
        elif begin:
            self._end_group(group, begin, sequence)

    def _end_group(self, group: str, begin: int, end: int) -> None:
        """Put the members of a group to those of others, if the call that made it has been under way all the time."""
        its = self._of.get(group, {})
        parents = {actor.partition("\x1f")[0] for actor in its}
        around = self._under_way.get(bytes.fromhex(parents.pop())) if len(parents) == 1 else None
        if around is not None and around[0] < begin and all(each.first > begin for each in its.values()):
            self._inside.add(group, begin, end, around[0], its)
            del self._of[group]

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

    def _growing(self, group: str, actor: str) -> _Growing:
        its = self._of.get(group)
        if its is None:
            its = self._of[group] = {}
        found = its.get(actor)
        if found is None:
            found = its[actor] = _Growing()
        return found

    def plain(self) -> tuple[list[PlainMembers], list[_Rows], _Inside]:
        """The members that are plain, and the calls that are so below other ones, but for what is below all these."""
        inside, not_plain = self._inside, self._spoilt | self._under_way.keys()
        for group in self._of:  # it may have ended before these members of it have
            inside.note(group)
        inside.finish()
        members, below = list[PlainMembers](), list[_Rows]()
        for group in list(self._of):
            members += [each.members(group, actor) for actor, each in self._of.pop(group).items()]
        for actor in list(self._below):
            below.append(self._below.pop(actor).rows(actor))
        columns = [each.keys for each in members] + [each.keys for each in (*below, *inside.columns)]
        not_plain |= _repeated(columns)
        inside.leave_out(not_plain)
        left = (each.without(_with_keys(each.keys, not_plain)) for each in members)
        calls = [each.without(_with_keys(each.keys, not_plain)) for each in below]
        return [each for each in left if each], calls, inside


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

    @property
    def first(self) -> float:
        """The least sequence of a first event."""
        return min(min(self.begins, default=inf), min(self._begins, default=inf))

    def __len__(self) -> int:
        return len(self.ends) + len(self._ends)

    def pack(self) -> None:
        """Put what is in the lists where it takes less memory."""
        self._keys += b"".join(self.keys)
        self._begins.extend(self.begins)
        self._ends.extend(self.ends)
        self._numbers.extend(self.numbers)
        for new in (self.keys, self.begins, self.ends, self.numbers):
            new.clear()

    def take(self, other: _Growing) -> None:
        """Add the rows of another one."""
        if other._ends:
            other.pack()
            self.pack()
            self._keys += other._keys
            self._begins += other._begins
            self._ends += other._ends
            self._numbers += other._numbers
            return
        self.keys += other.keys
        self.begins += other.begins
        self.ends += other.ends
        self.numbers += other.numbers

    def members(self, group: str, actor: str) -> PlainMembers:
        """All of them, as members."""
        parent, name, more = _parts(actor)
        its = actor_in(name, json.loads(more))
        keys = bytes(self._keys)
        return PlainMembers(group, *its, bytes.fromhex(parent), keys, self._begins, self._ends, self._numbers)

    def rows(self, actor: str) -> _Rows:
        """All of them, as rows."""
        _, name, more = _parts(actor)
        its = actor_in(name, json.loads(more))
        return _Rows(*its, bytes(self._keys), self._begins, self._ends, self._numbers)


class _Rows(NamedTuple):
    """Calls of one actor, in columns. For `numbers` see `_Growing`."""

    name: str
    version: str
    keys: bytes
    begins: array[int]
    ends: array[int]
    numbers: array[int]

    def without(self, positions: Collection[int]) -> _Rows:
        """The others."""
        if not positions:
            return self
        return _Rows(self.name, self.version, *rows_without(positions, self.keys, self.begins, self.ends, self.numbers))

    def members(self, group: str, parent: bytes, first: int, end: int) -> PlainMembers:
        """Some of them that stand side by side, as members of a group."""
        keys = self.keys[first * _DIGEST : end * _DIGEST]
        columns = (self.begins[first:end], self.ends[first:end], self.numbers[first:end])
        return PlainMembers(group, self.name, self.version, parent, keys, *columns)


class _Part(NamedTuple):
    """Where members of a group stand: in which columns, from which row on and up to which one."""

    column: int
    first: int
    end: int


class _Inside:
    """Groups that began and ended while the call that made them was under way, and all their members that succeeded.

    Attributes:
        begins, ends: the sequences of the first and of the last event of each.
        arounds: the sequences of the first events of the calls that made them.
        columns: the members, when all have been added.
        shown: which of them are not left out.
    """

    def __init__(self) -> None:
        self.begins, self.ends, self.arounds = array("q"), array("q"), array("q")
        self.columns: list[_Rows] = []
        self.shown = bytearray()
        self._growing: dict[str, _Growing] = {}
        self._begun, self._names = array("q"), array("q")
        """Numbers made of their names, which take less memory: of all groups that begin, and of these."""
        self._kinds: dict[str, int] = {}
        self._owners, self._parts = array("i"), array("i")
        self._not_plain: list[set[int]] = []

    def __bool__(self) -> bool:
        return bool(self.begins)

    def note(self, group: str) -> None:
        """Something is said of a group. One of which it is said twice is shown."""
        self._begun.append(hash(group))

    def add(self, group: str, begin: int, end: int, around: int, its: Mapping[str, _Growing]) -> None:
        """A group that has ended, and its members, by their actors."""
        number = len(self.begins)
        self.begins.append(begin)
        self.ends.append(end)
        self.arounds.append(around)
        self._names.append(hash(group))
        for actor, members in its.items():
            name = actor[_HEX:]
            rows = self._growing.get(name)
            if rows is None:
                rows = self._growing[name] = _Growing()
                self._kinds[name] = len(self._kinds)
            first = len(rows)
            rows.take(members)
            self._owners.append(number)
            self._parts.extend((self._kinds[name], first, len(rows)))

    def pack(self) -> None:
        """Put what was added where it takes less memory."""
        for rows in self._growing.values():
            rows.pack()

    def finish(self) -> None:
        """All have been added."""
        self.columns = [self._growing.pop(name).rows(name) for name in self._kinds]
        again = {name for name, other in pairwise(sorted(self._begun)) if name == other}
        self.shown = bytearray(name in again for name in self._names)

    def leave_out(self, keys: Collection[bytes]) -> None:
        """Members that are not plain."""
        self._not_plain = [_with_keys(rows.keys, keys) for rows in self.columns]

    def parts(self, wanted: Collection[int] | None = None) -> Iterator[tuple[int, _Part]]:
        """Where the members of groups stand: of some of them, or of all that are not shown."""
        parts = iter(self._parts)
        for number, column, first, end in zip(self._owners, parts, parts, parts, strict=True):
            if not self.shown[number] if wanted is None else number in wanted:
                yield number, _Part(column, first, end)

    def mark(self, arounds: array[int]) -> None:
        """Note for the members of groups that are not shown, by their first sequences, what is around them."""
        for number, (column, first, end) in self.parts():
            around = self.arounds[number]
            for begin in self.columns[column].begins[first:end]:
                arounds[begin] = around
        for rows, positions in zip(self.columns, self._not_plain, strict=True):
            for position in positions:
                arounds[rows.begins[position]] = 0

    @property
    def all_shown(self) -> set[int]:
        """The groups that are not left out."""
        return {number for number, is_shown in enumerate(self.shown) if is_shown}

    def to_be_shown(self, left_out: array[int]) -> set[int]:
        """The groups that have to be shown, since the calls that made them are. They are from now on."""
        hidden = (number for number, is_shown in enumerate(self.shown) if not is_shown)
        found = {number for number in hidden if not left_out[self.arounds[number]]}
        for number in found:
            self.shown[number] = 1
        return found

    def members(self, number: int, part: _Part, group: str, parent: bytes) -> PlainMembers:
        """The plain ones of the members of a group that stand together."""
        column, first, end = part
        positions = {at - first for at in self._not_plain[column] if first <= at < end}
        return self.columns[column].members(group, parent, first, end).without(positions)


def _parts(actor: str) -> tuple[str, str, str]:
    """The parent, the name, which may be any text, and the rest."""
    parent, _, rest = actor.partition("\x1f")
    name, _, more = rest.rpartition("\x1f")
    return parent, name, more


def _repeated(columns: Sequence[bytes]) -> set[bytes]:
    """The keys that are there more than once: few agree in their first eight bytes, so that only these are compared."""
    heads = array("Q")
    for keys in columns:
        for start in range(0, len(keys), _CHUNK * _DIGEST):
            heads += array("Q", keys[start : start + _CHUNK * _DIGEST])[::_WORDS]
    alike: set[int] = set()
    for part in range(_PARTS):
        its = [head for head in heads if head % _PARTS == part]
        if len(set(its)) < len(its):
            alike.update(head for head, times in Counter(its).items() if times > 1)
    if not alike:
        return set()
    all_keys = (keys[at : at + _DIGEST] for keys in columns for at in range(0, len(keys), _DIGEST))
    found = Counter(key for head, key in zip(heads, all_keys, strict=True) if head in alike)
    return {key for key, times in found.items() if times > 1}


def _outlined(run: RunRow, members: _Members) -> Steps[Outlined]:
    yield  # what follows takes its time as well
    found, below, inside = members.plain()
    found += yield from _groups_inside(run, inside, inside.all_shown)
    chosen = in_detail(found)
    shown = {key for each, at in zip(found, chosen, strict=True) for key in map(each.key_at, at)}
    plain = [each.without(at) for each, at in zip(found, chosen, strict=True)]
    del found
    left_out = yield from _with_groups_inside(run, plain, below, inside, shown)
    is_left_out = _events_of(plain, below, inside, left_out, members.further)
    groups, outer, inner, sequences = set[str](), set[str](), set[bytes](), _others(is_left_out)
    while sequences:  # what is given with its events may be below something else
        more_groups, more = yield from _what_is_there(run, sequences, shown)
        groups |= more_groups
        for low, high in parts(0, run.last_sequence) if more - outer else ():
            session = yield
            inner |= session.inner.keys_at(run.number, low, high, more - outer)
        outer |= more
        plain = [each for each in plain if each.group_id in groups]
        left_out = yield from _with_groups_inside(run, plain, below, inside, shown, inner)
        before, is_left_out = is_left_out, _events_of(plain, below, inside, left_out, members.further)
        sequences = _others(is_left_out, before)
    counted = _counted(plain, below, inside, left_out)
    return Outlined([each for each in plain if each], _others(is_left_out), members.uses, *counted)


def _with_keys(all_keys: bytes, keys: Collection[bytes]) -> set[int]:
    """The positions at which one of these keys stands in a column of keys."""
    starts = range(0, len(all_keys), _DIGEST) if keys else ()
    return {start // _DIGEST for start in starts if all_keys[start : start + _DIGEST] in keys}


def _with_groups_inside(
    run: RunRow,
    plain: list[PlainMembers],
    below: Sequence[_Rows],
    inside: _Inside,
    shown: set[bytes],
    inner: Set[bytes] = frozenset(),
) -> Steps[array[int]]:
    """What is left out, as `_left_out` says it, when the groups in calls that are given have been added to `plain`.

    Args:
        shown: takes the keys of members that are given.
        inner: those of calls that have something below them that is given.
    """
    new = plain[:]
    plain.clear()
    while True:
        not_plain = inner - shown
        plain += [each.without(_with_keys(each.keys, not_plain)) for each in new]
        left_out = _left_out(run.last_sequence, plain, below, inside)
        numbers = inside.to_be_shown(left_out)
        if not numbers:
            return left_out
        found = yield from _groups_inside(run, inside, numbers, least=FIRST + 1)
        chosen = in_detail(found)
        shown |= {key for each, at in zip(found, chosen, strict=True) for key in map(each.key_at, at)}
        new = [each.without(at) for each, at in zip(found, chosen, strict=True)]


def _groups_inside(
    run: RunRow, inside: _Inside, numbers: Collection[int], *, least: int = 1
) -> Steps[list[PlainMembers]]:
    """The plain members of groups inside of calls, of those that have so many members at least."""
    sizes = Counter[int]()
    for number, (_, first, end) in inside.parts(numbers):
        sizes[number] += end - first
    large = sorted(number for number, size in sizes.items() if size >= least)
    groups, parents = dict[int, str](), dict[int, bytes]()
    for start in range(0, len(large), _CHUNK):
        session = yield
        some = large[start : start + _CHUNK]
        wanted = sorted({inside.begins[at] for at in some} | {inside.arounds[at] for at in some})
        rows = {row.sequence: row for row in session.events_at(run.number, run.run_id, wanted)}
        groups |= {at: rows[inside.begins[at]].group_id or "" for at in some}
        parents |= {at: rows[inside.arounds[at]].key or b"" for at in some}
    its = inside.parts(groups)
    found = [inside.members(number, part, groups[number], parents[number]) for number, part in its]
    return [each for each in found if each]


def _left_out(last: int, plain: Sequence[PlainMembers], below: Sequence[_Rows], inside: _Inside) -> array[int]:
    """By the sequence of its first event, in which of `plain` a call is, or the member that it is below, from 1; 0 for
    other calls.
    """
    found, arounds = array("i", [0]) * (last + 1), array("q", [0]) * (last + 1 if below or inside else 0)
    for number, members in enumerate(plain, 1):
        for begin in members.begins:
            found[begin] = number
    for calls in below:
        for begin, around_it in zip(calls.begins, calls.numbers, strict=True):
            arounds[begin] = around_it
    inside.mark(arounds)
    for begin, around_it in enumerate(arounds):
        if around_it:  # that one began before
            found[begin] = found[around_it]
    return found


def _events_of(
    plain: Sequence[PlainMembers],
    below: Sequence[_Rows],
    inside: _Inside,
    left_out: array[int],
    further: Mapping[int, Sequence[int]],
) -> bytearray:
    """By the sequence of each event, 1 if it is of a call or a group that is left out, else 0."""
    found = bytearray(len(left_out))
    found[0] = 1
    columns = [(each.begins, each.ends) for each in plain]
    columns += [(each.begins, each.ends) for each in (*below, *inside.columns)]
    for begins, ends in columns:
        for begin, end in zip(begins, ends, strict=True):
            if left_out[begin]:
                found[begin] = found[end] = 1
                for sequence in further.get(end, ()) if further else ():
                    found[sequence] = 1
    for begin, end, is_shown in zip(inside.begins, inside.ends, inside.shown, strict=True):
        found[begin] = found[end] = not is_shown
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


def _counted(
    plain: Sequence[PlainMembers], below: Sequence[_Rows], inside: _Inside, left_out: array[int]
) -> tuple[list[CallsBelow], dict[str, int]]:
    """How many calls are left out that are below others, by what they are below, and in how many groups."""
    found: dict[tuple[str, str, str], CallsBelow] = {}

    def count_calls(calls: _Rows, begins: Iterable[int]) -> None:
        for begin in begins:
            if left_out[begin]:
                kind = (plain[left_out[begin] - 1].group_id, calls.name, calls.version)
                number, first, last = found.get(kind, (*kind, 0, begin, begin))[3:]
                found[kind] = CallsBelow(*kind, number + 1, min(first, begin), max(last, begin))

    for calls in below:
        count_calls(calls, calls.begins)
    for _, (column, first, end) in inside.parts():
        count_calls(inside.columns[column], inside.columns[column].begins[first:end])
    outer = [around for around, is_shown in zip(inside.arounds, inside.shown, strict=True) if not is_shown]
    groups = Counter(plain[left_out[around] - 1].group_id for around in outer)
    return list(found.values()), dict(groups)


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
