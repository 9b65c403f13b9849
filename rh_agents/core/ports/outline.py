"""A run without what there is too much of: the journal of a map of 100,000 items, as a few events and some numbers.

Most of a large journal says of one member of a group after the other that it began and succeeded, and the same of the
calls below it. Such members are *plain*. Who shows or plans a run has to know how many there are, under which keys and
where in the journal, and how many calls are below them, and nothing else. So a store that can gives them as columns of
numbers, read by the database, and only the other events one by one: those of groups, of calls outside of groups, of
members that failed or have not ended, of members with such a call or a group below, and of a few plain ones of each
group, the first of which are shown.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

from rh_agents.core._replay.ancestry import addresses_around
from rh_agents.core.types import ExecutionStatus

if TYPE_CHECKING:
    from rh_agents.core.events import ExecutionEvent
    from rh_agents.core.ports import RecordedEvent, Store
    from rh_agents.core.results import OutcomeHeader

__all__ = [
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
_FIRST: Final = 10
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
    left_keys, left = bytearray(), (array("q"), array("q"), array("q"))
    start = 0
    for at in (*sorted(positions), len(keys) // _DIGEST):
        if start < at:
            left_keys += memoryview(keys)[start * _DIGEST : at * _DIGEST]
            for column, whole in zip(left, columns, strict=True):
                column.frombytes(memoryview(whole)[start:at].cast("B"))
        start = at + 1
    return bytes(left_keys), *left


class CallsBelow(NamedTuple):
    """Calls below plain members, at whatever depth: each began while the one around it was under way, and succeeded at
    its first try before that one ended.

    Attributes:
        group_id: the group of the members.
        name, version: of the actor of these calls.
        number: how many there are.
        begins: the sequence of the first event of the first one.
    """

    group_id: str
    name: str
    version: str
    number: int
    begins: int


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
    """

    plain: Sequence[PlainMembers]
    last: int
    uses: bool
    read: Callable[[bool], AsyncIterator[OutlinedEvent]]
    below: Sequence[CallsBelow] = ()

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
        for _, _, at, position in heapq.nsmallest(_FIRST, (row for each in rows for row in each)):
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
    """The key of the call that made it, if it is no member and that one was under way from its beginning to its end."""

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


async def outline_of_events(store: Any, run_id: str) -> RunOutline:
    """An outline that is made of the events of a run, one after the other."""
    headers = {outcome.header.key.hex(): outcome.header async for outcome in store.unread_outcomes(run_id)}
    calls: dict[str, _Call] = {}
    groups, addresses, last, uses = set[str](), set[str](), 0, False
    async for recorded in store.events(run_id, values=False):
        last, event = recorded.sequence, recorded.event
        uses = uses or bool(event.usage)
        if event.group is not None:
            groups.add(event.group.group_id)
        if event.key is None:
            addresses.add(event.address)
        else:
            call = calls.setdefault(event.key, _Call(last, event))
            call.add(last, event, recorded.has_outcome)
            if call.ends == last and event.group_id is None:
                call.around = _under_way_around(headers.get(event.key), call, calls)
    members = {key: call for key, call in calls.items() if _is_plain(call, headers.get(key), groups)}
    plain = _as_columns(members, headers)
    chosen = {each.key_at(at).hex() for each, its in zip(plain, in_detail(plain), strict=True) for at in its}
    inner = {key: call for key, call in calls.items() if call.around and _is_first_try(call, headers.get(key))}
    addresses.update(calls[key].last.address for key in calls.keys() - members.keys() - inner.keys())
    members = {key: call for key, call in members.items() if key not in chosen}
    members, inner = _without_what_is_around(addresses, members, inner)
    left_out = members.keys() | inner.keys()

    async def read(values: bool) -> AsyncIterator[OutlinedEvent]:
        async for recorded in store.events(run_id, values=values):
            key = recorded.event.key
            if recorded.sequence > last or key in left_out:
                continue
            yield OutlinedEvent(recorded, headers.get(key or "") if recorded.has_outcome else None)

    return RunOutline(_as_columns(members, headers), last, uses, read, _below(members, inner))


def _under_way_around(header: OutcomeHeader | None, call: _Call, calls: Mapping[str, _Call]) -> str:
    """The key of the call that made one which ends now, if it began before that one and has not ended; else ""."""
    around = "" if header is None else header.parent.hex()
    outer = calls.get(around)
    return around if outer is not None and not outer.ends and outer.begins < call.begins else ""


def _is_first_try(call: _Call, header: OutcomeHeader | None) -> bool:
    return bool(call.is_plain and call.ends and header is not None and header.ok and header.base == header.key)


def _is_plain(call: _Call, header: OutcomeHeader | None, groups: Collection[str]) -> bool:
    return call.last.group_id in groups and _is_first_try(call, header)


def _without_what_is_around(
    addresses: Iterable[str], members: dict[str, _Call], inner: dict[str, _Call]
) -> tuple[dict[str, _Call], dict[str, _Call]]:
    """What is left out of members and calls below them: nothing that is around one of these addresses.

    They are those of what is given with its events. A call below is given so, too, if the one that made it is.
    """
    outer: set[str] = set()
    while True:
        outer |= around(addresses)
        left = {key: call for key, call in members.items() if call.last.address not in outer}
        below = dict[str, _Call]()
        for key, call in sorted(inner.items(), key=lambda item: item[1].begins):
            if call.around in left or call.around in below:
                below[key] = call
        addresses = {call.last.address for key, call in members.items() if key not in left}
        addresses |= {call.last.address for key, call in inner.items() if key not in below}
        if len(left) == len(members) and len(below) == len(inner):
            return left, below
        members, inner = left, below


def _below(members: Mapping[str, _Call], inner: Mapping[str, _Call]) -> list[CallsBelow]:
    groups = {key: call.last.group_id or "" for key, call in members.items()}
    found: dict[tuple[str, str, str], CallsBelow] = {}
    for key, call in inner.items():  # in the order in which they began
        groups[key] = groups[call.around]
        kind = (groups[key], call.last.actor.name, call.last.actor.recorded_version)
        known = found.get(kind, CallsBelow(*kind, 0, call.begins))
        found[kind] = known._replace(number=known.number + 1)
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
