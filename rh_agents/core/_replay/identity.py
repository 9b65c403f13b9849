"""Who a call is: its key, from which replay works; its number among identical calls; its address, for people.

A key is a SHA-256 digest over length-prefixed parts, so that no two lists of parts have the same bytes. It holds what
makes a call *this* call and nothing else: its parent's key, the name of its group, its actor and version, its input or
explicit key, and its occurrence. In particular it does not hold the index in a group, so that items can be inserted,
removed and reordered without losing the outcomes of the others.

The *occurrence* counts identical calls that are made from one place, in the order of the program (`Numbering`). Which
order that is, one task alone can say; where several tasks make identical calls, nothing does, and a claim says so. A
run may make a million calls from one place and has to remember how many there were of each, so these numbers stand in
few bytes (`DigestTable`).

An address (`survey::pages[3]::fetch`) is readable, and no identity: calls with different inputs may share one. A
registered secret in a name is replaced there by its own name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from rh_agents.core.redaction import without_secrets

__all__ = [
    "ENDED",
    "ROOT_KEY",
    "SEPARATOR",
    "Canonical",
    "Claim",
    "Claimant",
    "DigestTable",
    "Numbering",
    "address_of_member",
    "again_key",
    "child_address",
    "child_key",
    "child_prefix",
    "group_key",
    "idempotency_key",
    "identity",
    "identity_of_item",
    "identity_of_unseen",
    "identity_prefix",
    "place_of_members",
    "tried_key",
]

_new_tuple = tuple.__new__  # a third of the time that a NamedTuple takes to be called

# -- keys -------------------------------------------------------------------------------------------------------------

ROOT_KEY = b""
"""The key of a run itself: the same for every run, so that a call keeps its key when its run is forked."""


Canonical = bytes | list[bytes]
"""The canonical form of an input: all of it, or the pieces of a large one."""


def identity(actor: str, version: str, data: Canonical, explicit: str | None) -> bytes:
    """What two calls of one parent have in common when they are the same call: `key=` replaces the input."""
    if explicit is not None:
        return _digest(b"explicit", _text(actor), _text(version), _text(explicit))
    prefix = identity_prefix(actor, version)
    return sha256(prefix + data).digest() if isinstance(data, bytes) else _digest_of_pieces(prefix, data)


def identity_of_unseen(group_id: str, name: str | None, explicit: str | None, index: int) -> bytes:
    """The same for work whose input cannot be seen (a coroutine, a lambda): its key, else its name, else its index.

    What the work does cannot be seen either, so it belongs to one group: the id tells apart groups of one name.
    """
    if explicit is not None:
        return _digest(b"unseen-key", _text(group_id), _text(explicit))
    if name is not None:
        return _digest(b"unseen-name", _text(group_id), _text(name))
    return _digest(b"unseen-index", _text(group_id), b"%d" % index)


def identity_of_item(group_id: str, function: str, data: Canonical) -> bytes:
    """The same for an item to which `map` applies a plain function: the group, the function's name and the item."""
    if isinstance(data, bytes):
        return _digest(b"item", _text(group_id), _text(function), data)
    prefix = _parts(b"item", _text(group_id), _text(function)) + b"%d:" % sum(map(len, data))
    return _digest_of_pieces(prefix, data)


def child_key(parent: bytes, group: str, same: bytes, occurrence: int) -> bytes:
    """The key of a call: its parent's key, the name of its group ("" outside of one), its identity, its occurrence."""
    return sha256(b"%b%b%d" % (child_prefix(parent, group), same, occurrence)).digest()


def group_key(parent: bytes, name: str, occurrence: int) -> bytes:
    """The key of a group, from which its id is made."""
    return _digest(b"group", parent, _text(name), b"%d" % occurrence)


def again_key(key: bytes) -> bytes:
    """The key of a call that is made again after it failed for good: an outcome is never overwritten."""
    return _digest(b"again", key)


def tried_key(base: bytes, tries: int) -> bytes:
    """The key of a call whose first try has the key `base` when it has been made so often before."""
    for _ in range(tries):
        base = again_key(base)
    return base


def idempotency_key(run_id: str, key: bytes) -> str:
    """What a called function can hand to a service, so that a repeated attempt is recognised there."""
    return _digest(b"idempotency", _text(run_id), key).hex()[:40]


@lru_cache(maxsize=1024)
def identity_prefix(actor: str, version: str) -> bytes:
    """With what the identity of each call of an actor begins that has no `key=`. What follows needs no length."""
    return _parts(b"call", _text(actor), _text(version))


@lru_cache(maxsize=1024)
def child_prefix(parent: bytes, group: str) -> bytes:
    """The same for all members of a group. An identity of 32 bytes and the occurrence follow it."""
    return _parts(b"child", parent, _text(group))


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _parts(*parts: bytes) -> bytes:
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def _digest(*parts: bytes) -> bytes:
    return sha256(_parts(*parts)).digest()


def _digest_of_pieces(prefix: bytes, pieces: list[bytes]) -> bytes:
    digest = sha256(prefix)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


# -- addresses --------------------------------------------------------------------------------------------------------

SEPARATOR = "::"


def child_address(parent: str, shown: str, occurrence: int) -> str:
    """The address of a call: `survey::fetch`, and `survey::fetch#2` for the second identical call.

    Args:
        parent: the address of the call that makes it; "" for none.
        shown: the name of what is called, without secrets.
        occurrence: its number among identical calls, from 0.
    """
    own = shown if occurrence == 0 else f"{shown}#{occurrence + 1}"
    return f"{parent}{SEPARATOR}{own}" if parent else own


def place_of_members(parent: str, group: str) -> str:
    """What the addresses of all members of a group begin with: `survey::pages`."""
    group = without_secrets(group)
    return f"{parent}{SEPARATOR}{group}" if parent else group


def address_of_member(place: str, index: int, shown: str) -> str:
    """The address of the member `index` of the group at a place: `survey::pages[3]::fetch`.

    Args:
        place: what `place_of_members` gives.
        index: counted from 0.
        shown: the name of the member, without secrets.
    """
    return f"{place}[{index}]{SEPARATOR}{shown}" if shown else f"{place}[{index}]"


# -- numbers among identical calls ------------------------------------------------------------------------------------

_DIGEST = 32
"""Bytes of a key."""
_FEW = 1000
"""Keys that may be in a dictionary."""
_ROWS = 4096
_SHORT = 16
_RECORD = _SHORT + 8
_ONE = (1).to_bytes(8, "little")


class DigestTable:
    """Numbers (0 to 2**64 - 1) by key, of which there may be many. What is not there has the number 0.

    Few are in a dictionary. Many are in 4,096 rows, as keys are in a `KeyTable`
    (`rh_agents.core._replay.recorded`), with 16 bytes of each: of a billion random keys, two begin with the same 16
    bytes with a chance of 10**-21.
    """

    __slots__ = ("_few", "_rows")

    def __init__(self) -> None:
        self._few: dict[bytes, int] | None = {}
        self._rows: list[bytearray | None] = []

    def get(self, key: bytes) -> int:
        """The number of a key."""
        if self._few is not None:
            return self._few.get(key, 0)
        row, place = self._find(key if len(key) == _DIGEST else sha256(key).digest())
        return int.from_bytes(row[place + _SHORT : place + _RECORD], "little") if place >= 0 else 0

    def set(self, key: bytes, number: int) -> None:
        """Give a key another number."""
        if self._few is not None:
            self._few[key] = number
            if len(self._few) > _FEW:
                self._spread(self._few)
        else:
            key = key if len(key) == _DIGEST else sha256(key).digest()
            self._write(key, *self._find(key), number)

    def count(self, key: bytes) -> int:
        """Add one to the number of a key; returns the number that it had."""
        if self._few is not None:
            number = self._few.get(key, 0)
            self._few[key] = number + 1
            if len(self._few) > _FEW:
                self._spread(self._few)
            return number
        key = key if len(key) == _DIGEST else sha256(key).digest()
        row, place = self._find(key)
        if place < 0:  # as nearly always: most calls are like no other one
            row += key[:_SHORT] + _ONE
            return 0
        number = int.from_bytes(row[place + _SHORT : place + _RECORD], "little")
        self._write(key, row, place, number + 1)
        return number

    def _spread(self, few: dict[bytes, int]) -> None:
        self._few, self._rows = None, [None] * _ROWS
        for key, number in few.items():
            self.set(key, number)

    def _write(self, key: bytes, row: bytearray, place: int, number: int) -> None:
        if place >= 0:
            row[place + _SHORT : place + _RECORD] = number.to_bytes(8, "little")
        else:
            row += key[:_SHORT] + number.to_bytes(8, "little")

    def _find(self, key: bytes) -> tuple[bytearray, int]:
        """The row of a key, and the place of its record there; -1 if there is none."""
        index = key[0] << 4 | key[1] >> 4
        row = self._rows[index]
        if row is None:
            row = self._rows[index] = bytearray()
            return row, -1
        short = key[:_SHORT]
        place = row.find(short)
        while place % _RECORD and place >= 0:  # it may also be the end of one record with the beginning of the next
            place = row.find(short, place + 1)
        return row, place


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
