"""A run without what there is too much of: the journal of a map of 100,000 items, as a few events and some numbers.

Most of a large journal says of one member of a group after the other that it began and succeeded, and the same of the
calls below it. Such members are *plain*. Who shows or plans a run has to know how many there are, under which keys and
where in the journal, and how many calls are below them, and nothing else. So a store that can gives them as columns of
numbers, read by the database, and only the other events one by one: those of groups, of calls outside of groups, of
members that failed or have not ended, of members with such a call below, and of a few plain ones of each group, the
first of which are shown.

A group inside of a plain member is left out with it if all is well with it, too: it began and ended once, while the
call that made it was under way, and so did its members. If that call is given, its groups are like any others.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

from rh_agents.core._replay.ancestry import addresses_around
from rh_agents.core.types import EventType, ExecutionStatus

if TYPE_CHECKING:
    from rh_agents.core.events import ExecutionEvent
    from rh_agents.core.ports import RecordedEvent, Store
    from rh_agents.core.results import OutcomeHeader

__all__ = [
    "FIRST",
    "CallsBelow",
    "OutlinedEvent",
    "Outlining",
    "PlainMembers",
    "RunOutline",
    "around",
    "in_detail",
    "outline_of_events",
    "outline_of_run",
    "rows_without",
]

_DIGEST: Final = 32
"""Bytes of a key."""
FIRST: Final = 10
"""Plain members of each group that are given with their events all the same."""
_ON_THE_WAY: Final = (ExecutionStatus.STARTED, ExecutionStatus.RETRYING)


@dataclass(frozen=True, slots=True)
class PlainMembers:
    """Plain members of one group, all of one actor: each began, and has succeeded at its first try.

    Attributes:
        group_id: the group.
        name, version: of the actor.
        parent: the key of the call that made the group; b"" for the run itself.
        keys: 32 bytes for each member; each is the place of its call as well.
        begins, ends: the sequences of its first and of its last event, which reports its outcome.
        indexes: its place in the group.
    """

    group_id: str
    name: str
    version: str
    parent: bytes
    keys: bytes
    begins: array[int]
    ends: array[int]
    indexes: array[int]

    def __len__(self) -> int:
        return len(self.ends)

    def key_at(self, position: int) -> bytes:
        """The key of one of them."""
        return self.keys[position * _DIGEST : (position + 1) * _DIGEST]

    def all_keys(self) -> Iterator[bytes]:
        """The keys of all of them."""
        return map(self.key_at, range(len(self)))

    def without(self, positions: Collection[int]) -> PlainMembers:
        """The others."""
        if not positions:
            return self
        keys, *columns = rows_without(positions, self.keys, self.begins, self.ends, self.indexes)
        return PlainMembers(self.group_id, self.name, self.version, self.parent, keys, *columns)


def rows_without(
    positions: Collection[int], keys: bytes, *columns: array[int]
) -> tuple[bytes, array[int], array[int], array[int]]:
    """The other rows of three columns of numbers, with their keys: whole spans at a time, which takes little memory."""
    left_keys, left = list[memoryview](), (array("q"), array("q"), array("q"))
    start = 0
    for at in (*sorted(positions), len(keys) // _DIGEST):
        if start < at:
            left_keys.append(memoryview(keys)[start * _DIGEST : at * _DIGEST])
            for column, whole in zip(left, columns, strict=True):
                column.frombytes(memoryview(whole)[start:at].cast("B"))
        start = at + 1
    return b"".join(left_keys), *left


class CallsBelow(NamedTuple):
    """Calls below plain members, at whatever depth, and in groups or not: each began while the one around it was under
    way, and succeeded at its first try before that one ended.

    Attributes:
        group_id: the group of the members.
        name, version: of the actor of these calls.
        number: how many there are.
        begins: the sequence of the first event of the first one.
        last: that of the last one; 0 if it is not known.
    """

    group_id: str
    name: str
    version: str
    number: int
    begins: int
    last: int = 0


class OutlinedEvent(NamedTuple):
    """An event that is given by itself, with the outcome that it reports, but for its value.

    Of several outcomes of a call the first one counts; others may be given with their events, or that one once more.
    """

    recorded: RecordedEvent
    outcome: OutcomeHeader | None


@dataclass(frozen=True, slots=True)
class RunOutline:
    """A run without its plain members and what is below them, and these as numbers.

    Attributes:
        plain: the members that are left out.
        last: the sequence of the last event that it covers.
        uses: whether something may have used a model. If not, nothing has, and a summary need not be asked for that.
        read: gives all other events, in their order, as often as it is called. Those of calls that ended have their
            `result` if its argument is True.
        below: the calls below the members that are left out, which are left out as well.
        groups_below: how many groups are below them, by the id of the group of the members.
    """

    plain: Sequence[PlainMembers]
    last: int
    uses: bool
    read: Callable[[bool], AsyncIterator[OutlinedEvent]]
    below: Sequence[CallsBelow] = ()
    groups_below: Mapping[str, int] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        """How many calls are left out. All of them have an outcome."""
        return sum(map(len, self.plain)) + sum(each.number for each in self.below)


def in_detail(plain: Sequence[PlainMembers]) -> list[set[int]]:
    """Which plain members are given with their events, in each of these: the first ones of each group, as it has them,
    and the one that ended last, whose event says how many members the group has.
    """
    chosen: list[set[int]] = [set() for _ in plain]
    by_group: dict[str, list[int]] = {}
    for place, members in enumerate(plain):
        by_group.setdefault(members.group_id, []).append(place)
    for places in by_group.values():
        rows = (zip(plain[at].indexes, plain[at].begins, repeat(at), count()) for at in places)
        for _, _, at, position in heapq.nsmallest(FIRST, (row for each in rows for row in each)):
            chosen[at].add(position)
        last, at = max((max(plain[at].ends), at) for at in places)
        chosen[at].add(plain[at].ends.index(last))
    return chosen


def around(addresses: Iterable[str]) -> set[str]:
    """The addresses of whatever has one of these below it."""
    return {outer for address in addresses for outer in addresses_around(address)}


# -- made of events, where a store has nothing better ------------------------------------------------------------------


@dataclass(slots=True)
class _Call:
    """What the events of a call say about whether it may be left out; `last` is the last of them."""

    begins: int
    last: ExecutionEvent[Any]
    ends: int = 0
    is_plain: bool = True
    around: str = ""
    """The key of the call that made it, or its group, if that one was under way from its beginning to its end."""

    def add(self, sequence: int, event: ExecutionEvent[Any], has_outcome: bool) -> None:
        """The next event."""
        before, self.last = self.last, event
        facts = (event.group_id, event.parallel_index)
        is_either = (event.group_id is None) is (event.parallel_index is None)
        if self.ends or not is_either or facts != (before.group_id, before.parallel_index):
            self.is_plain = False
        elif has_outcome and event.execution_status is ExecutionStatus.COMPLETED:
            self.ends = sequence
        elif event.execution_status not in _ON_THE_WAY:
            self.is_plain = False


@dataclass(slots=True)
class _Group:
    """What the events of a group say: `around` is the key of the call that made it, if it may be left out with that."""

    address: str
    begins: int = 0
    ends: int = 0
    is_odd: bool = False
    members: list[str] = field(default_factory=list)
    around: str = ""

    def add(self, sequence: int, event: ExecutionEvent[Any]) -> bool:
        """The next event; True if it ends the group, of which nothing else was said but that it began."""
        kind = (event.event_type, event.execution_status)
        if kind == (EventType.GROUP_STARTED, ExecutionStatus.STARTED) and not self.begins:
            self.begins = sequence
        elif kind == (EventType.GROUP_COMPLETED, ExecutionStatus.COMPLETED) and self.begins and not self.ends:
            self.ends = sequence
            return True
        else:
            self.is_odd = True
        return False


class _Journal:
    """The calls and the groups of a journal."""

    def __init__(self, headers: Mapping[str, OutcomeHeader]) -> None:
        self.headers = headers
        self.calls: dict[str, _Call] = {}
        self.groups: dict[str, _Group] = {}
        self.addresses: set[str] = set()
        """Those of events of no call and no group."""
        self.uses = False
        self.last = 0

    def add(self, recorded: RecordedEvent) -> None:
        """The next event."""
        self.last, event = recorded.sequence, recorded.event
        self.uses = self.uses or bool(event.usage)
        if event.key is not None:
            self._add_to_call(event.key, event, recorded.has_outcome)
        elif event.group is None:
            self.addresses.add(event.address)
        else:
            group = self.groups.setdefault(event.group.group_id, _Group(event.address))
            if group.add(self.last, event):
                group.around = self._around(group)

    def _add_to_call(self, key: str, event: ExecutionEvent[Any], has_outcome: bool) -> None:
        call = self.calls.setdefault(key, _Call(self.last, event))
        call.add(self.last, event, has_outcome)
        if call.ends != self.last:
            return
        if event.group_id is None:
            maker = self._maker(key)
            call.around = maker if self._is_under_way(maker, call.begins) else ""
        elif (group := self.groups.get(event.group_id)) is not None:
            group.members.append(key)
            group.is_odd = group.is_odd or bool(group.ends)

    def _around(self, group: _Group) -> str:
        makers = {self._maker(key) for key in group.members}
        begin = min((self.calls[key].begins for key in group.members), default=0)
        maker = makers.pop() if len(makers) == 1 else ""
        return maker if begin > group.begins and self._is_under_way(maker, group.begins) else ""

    def _maker(self, key: str) -> str:
        header = self.headers.get(key)
        return "" if header is None else header.parent.hex()

    def _is_under_way(self, key: str, since: int) -> bool:
        call = self.calls.get(key)
        return call is not None and not call.ends and call.begins < since

    def is_first_try(self, key: str) -> bool:
        """Whether a call began, and succeeded at its first try, with which all is said."""
        call, header = self.calls[key], self.headers.get(key)
        return bool(call.is_plain and call.ends and header is not None and header.ok and header.base == header.key)

    def plain(self) -> tuple[dict[str, str], dict[str, str]]:
        """What may be left out: members of groups, with their groups, and other calls, with those that made them."""
        members, below = dict[str, str](), dict[str, str]()
        for key in filter(self.is_first_try, self.calls):
            call = self.calls[key]
            if call.last.group_id in self.groups:
                members[key] = call.last.group_id
            elif call.around and call.last.group_id is None:
                below[key] = call.around
        return members, below

    def inside(self) -> dict[str, str]:
        """The groups that may be left out with the call that made them, with that call."""
        may = {name: group for name, group in self.groups.items() if group.ends and not group.is_odd}
        return {name: group.around for name, group in may.items() if group.around}


@dataclass(slots=True)
class _LeftOut:
    """What is left out of a journal.

    Attributes:
        members: the keys of members of groups that are given.
        below: the calls below these, each with the group of the member.
        groups: the groups below these, each with the group of the member.
    """

    members: list[str]
    below: dict[str, str]
    groups: dict[str, str]


async def outline_of_events(store: Any, run_id: str) -> RunOutline:
    """An outline that is made of the events of a run, one after the other."""
    headers = {outcome.header.key.hex(): outcome.header async for outcome in store.unread_outcomes(run_id)}
    journal = _Journal(headers)
    async for recorded in store.events(run_id, values=False):
        journal.add(recorded)
    left_out = _left_out(journal)
    calls = left_out.below.keys() | set(left_out.members)

    async def read(values: bool) -> AsyncIterator[OutlinedEvent]:
        async for recorded in store.events(run_id, values=values):
            key, group = recorded.event.key, recorded.event.group
            is_inside = key is None and group is not None and group.group_id in left_out.groups
            if recorded.sequence > journal.last or key in calls or is_inside:
                continue
            yield OutlinedEvent(recorded, headers.get(key or "") if recorded.has_outcome else None)

    plain = _as_columns({key: journal.calls[key] for key in left_out.members}, headers)
    groups = dict(Counter(left_out.groups.values()))
    return RunOutline(plain, journal.last, journal.uses, read, _below(journal, left_out.below), groups)


def _left_out(journal: _Journal) -> _LeftOut:
    """What is left out: nothing that is around what is given with its events."""
    members, below = journal.plain()
    inside, chosen = journal.inside(), _chosen(journal, members)
    given = journal.calls.keys() - members.keys() - below.keys()
    addresses = journal.addresses | {journal.calls[key].last.address for key in given}
    addresses |= {group.address for name, group in journal.groups.items() if name not in inside}
    outer, before = set[str](), -1
    while True:
        outer |= around(addresses)
        found = _LeftOut([], {}, {})
        of = dict[str, str]()
        for key in sorted(members.keys() | below.keys(), key=lambda key: journal.calls[key].begins):
            maker = below.get(key) or inside.get(members.get(key, ""), "")
            if maker in of:
                of[key] = found.below[key] = of[maker]
            elif key in members and key not in chosen and journal.calls[key].last.address not in outer:
                of[key] = members[key]
                found.members.append(key)
        found.groups = {name: of[maker] for name, maker in inside.items() if maker in of}
        addresses |= {journal.groups[name].address for name in inside.keys() - found.groups.keys()}
        addresses |= {journal.calls[key].last.address for key in (members.keys() | below.keys()) - of.keys() - chosen}
        if len(outer) == before:
            return found
        before = len(outer)


def _chosen(journal: _Journal, members: Mapping[str, str]) -> set[str]:
    """The plain members that are given with their events all the same, if their group is."""
    plain = _as_columns({key: journal.calls[key] for key in members}, journal.headers)
    return {each.key_at(at).hex() for each, its in zip(plain, in_detail(plain), strict=True) for at in its}


def _below(journal: _Journal, below: Mapping[str, str]) -> list[CallsBelow]:
    found: dict[tuple[str, str, str], CallsBelow] = {}
    for key, group_id in below.items():  # in the order in which they began
        call = journal.calls[key]
        kind = (group_id, call.last.actor.name, call.last.actor.recorded_version)
        known = found.get(kind, CallsBelow(*kind, 0, call.begins))
        found[kind] = known._replace(number=known.number + 1, last=call.begins)
    return list(found.values())


def _as_columns(members: Mapping[str, _Call], headers: Mapping[str, OutcomeHeader]) -> list[PlainMembers]:
    found: dict[tuple[str, str, str, bytes], list[tuple[str, _Call]]] = {}
    for key, call in members.items():
        actor = call.last.actor
        kind = (call.last.group_id or "", actor.name, actor.recorded_version, headers[key].parent)
        found.setdefault(kind, []).append((key, call))
    return [
        PlainMembers(
            *kind,
            b"".join([bytes.fromhex(key) for key, _ in its]),
            array("q", [call.begins for _, call in its]),
            array("q", [call.ends for _, call in its]),
            array("q", [call.last.parallel_index or 0 for _, call in its]),
        )
        for kind, its in found.items()
    ]


@runtime_checkable
class Outlining(Protocol):
    """A store that makes outlines itself."""

    async def outline(self, run_id: str) -> RunOutline:
        """See `outline_of_run`."""
        ...


async def outline_of_run(store: Store, run_id: str) -> RunOutline:
    """A run without what there is too much of; values are not read.

    A store that can makes it (`Outlining`), and else its events are read one after the other.

    Raises:
        StoreError: there is no such run, or something in it is damaged or missing.
    """
    return await store.outline(run_id) if isinstance(store, Outlining) else await outline_of_events(store, run_id)
