"""A run without what there is too much of: the journal of a map of 100,000 items, as a few events and some numbers.

Most of a large journal says of one member of a group after the other that it began and succeeded, with nothing below
it. Such members are *plain*. Who shows or plans a run has to know how many there are, under which keys and where in the
journal, and nothing else of them. So a store that can gives them as columns of numbers, read by the database, and only
the other events one by one: those of groups, of calls that are no members, of members that failed or have not ended, of
members with calls of their own, and of a few plain ones of each group, the first of which are shown.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

from rh_agents.core._replay.ancestry import addresses_around
from rh_agents.core.types import ExecutionStatus

if TYPE_CHECKING:
    from rh_agents.core.events import ExecutionEvent
    from rh_agents.core.ports import RecordedEvent, Store
    from rh_agents.core.results import OutcomeHeader

__all__ = ["OutlinedEvent", "Outlining", "PlainMembers", "RunOutline", "around", "in_detail", "outline_of_run"]

_DIGEST: Final = 32
"""Bytes of a key."""
_FIRST: Final = 10
"""Plain members of each group that are given with their events all the same."""
_FEW: Final = 100
"""So many are cheaper taken out of columns than the others are picked."""
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
        if len(positions) > _FEW:
            return self.only([at for at in range(len(self)) if at not in positions])
        bounds = [-1, *sorted(positions), len(self)]
        spans = [(before + 1, at) for before, at in pairwise(bounds)]
        keys = memoryview(self.keys)
        left = b"".join([keys[start * _DIGEST : end * _DIGEST] for start, end in spans])
        columns = [array("q") for _ in range(3)]
        for column, whole in zip(columns, (self.begins, self.ends, self.indexes), strict=True):
            for start, end in spans:
                column += whole[start:end]
        return PlainMembers(self.group_id, self.name, self.version, self.parent, left, *columns)

    def only(self, positions: Sequence[int]) -> PlainMembers:
        """Those at these positions."""
        keys = b"".join([self.key_at(position) for position in positions])
        columns = (self.begins, self.ends, self.indexes)
        picked = [array("q", [column[position] for position in positions]) for column in columns]
        return PlainMembers(self.group_id, self.name, self.version, self.parent, keys, *picked)


class OutlinedEvent(NamedTuple):
    """An event that is given by itself, with the outcome that it reports, but for its value.

    Of several outcomes of a call the first one counts; others may be given with their events, or that one once more.
    """

    recorded: RecordedEvent
    outcome: OutcomeHeader | None


@dataclass(frozen=True, slots=True)
class RunOutline:
    """A run without its plain members, and these as numbers.

    Attributes:
        plain: the members that are left out.
        last: the sequence of the last event that it covers.
        read: gives all other events, in their order, as often as it is called. Those of calls that ended have their
            `result` if its argument is True.
    """

    plain: Sequence[PlainMembers]
    last: int
    read: Callable[[bool], AsyncIterator[OutlinedEvent]]


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
    """What the events of a call say about whether it is a plain member; `last` is the last of them."""

    begins: int
    last: ExecutionEvent[Any]
    ends: int = 0
    is_plain: bool = True

    def add(self, sequence: int, event: ExecutionEvent[Any], has_outcome: bool) -> None:
        """The next event."""
        before, self.last = self.last, event
        facts = (event.group_id, event.parallel_index)
        if self.ends or None in facts or facts != (before.group_id, before.parallel_index):
            self.is_plain = False
        elif has_outcome and event.execution_status is ExecutionStatus.COMPLETED:
            self.ends = sequence
        elif event.execution_status not in _ON_THE_WAY:
            self.is_plain = False


async def _made_of_events(store: Store, run_id: str) -> RunOutline:
    headers = {outcome.header.key.hex(): outcome.header async for outcome in store.unread_outcomes(run_id)}
    calls: dict[str, _Call] = {}
    groups, addresses, last = set[str](), set[str](), 0
    async for recorded in store.events(run_id, values=False):
        last, event = recorded.sequence, recorded.event
        if event.group is not None:
            groups.add(event.group.group_id)
        if event.key is None:
            addresses.add(event.address)
        else:
            call = calls.setdefault(event.key, _Call(last, event))
            call.add(last, event, recorded.has_outcome)
    members = {key: call for key, call in calls.items() if _is_plain(call, headers.get(key), groups)}
    plain = _as_columns(members, headers)
    chosen = {each.key_at(at).hex() for each, its in zip(plain, in_detail(plain), strict=True) for at in its}
    addresses.update(call.last.address for key, call in calls.items() if key not in members)
    outer = around(addresses)
    members = {key: call for key, call in members.items() if key not in chosen and call.last.address not in outer}

    async def read(values: bool) -> AsyncIterator[OutlinedEvent]:
        async for recorded in store.events(run_id, values=values):
            key = recorded.event.key
            if recorded.sequence > last or key in members:
                continue
            yield OutlinedEvent(recorded, headers.get(key or "") if recorded.has_outcome else None)

    return RunOutline(_as_columns(members, headers), last, read)


def _is_plain(call: _Call, header: OutcomeHeader | None, groups: Collection[str]) -> bool:
    is_first_try = header is not None and header.ok and header.base == header.key
    return bool(call.is_plain and call.ends and is_first_try and call.last.group_id in groups)


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
    return await store.outline(run_id) if isinstance(store, Outlining) else await _made_of_events(store, run_id)
