"""Keys in little memory: what a long run has to remember of each call.

A run of 150,000 calls must remember each of them as long as it lasts: its key, since a second outcome for the key would
pay for the call twice, and its identity, since the next identical call gets the next number. In dictionaries that is
340 bytes a call, most of it the headers of small objects. Here it is 80.

Keys are digests, so any of their bytes are random. The first 12 bits of a key say to which of 4,096 *rows* it belongs.
A row is one array of bytes, with a record for each key: some bytes of the key, and a number. A key is looked for as
text, which C does at several bytes a nanosecond. Nothing is ever sorted or copied as a whole, so no call waits for it:
a hash table of our own would have to be built anew each time it doubles, in Python, and hold up the event loop.

    DigestTable   16 bytes of each key with a number. Of a billion random keys, two begin with the same 16 bytes with a
                  chance of 10**-21.
    KeyTable      all bytes of each key, in the order in which they came, with a number; the rows hold its place there,
                  and only four bytes of it to look for.
    KeyList       some of its keys: their places.
    KeyMarks      whether something is to be said of each of its keys: a byte for each.

Few keys are in a dictionary, which is faster, and smaller than so many rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import overload

__all__ = ["DigestTable", "KeyList", "KeyMarks", "KeyTable"]

_DIGEST = 32
"""Bytes of a key."""
_FEW = 1000
"""Keys that may be in a dictionary."""
_ROWS = 4096

_SHORT = 16
_RECORD = _SHORT + 8
_ONE = (1).to_bytes(8, "little")

_TAG = 4
"""Bytes of a key after those that tell its row."""
_ENTRY = _TAG + 4
_NUMBER = 5
_LINE = _DIGEST + _NUMBER


def _rows() -> list[bytearray | None]:
    return [None] * _ROWS


class DigestTable:
    """Numbers (0 to 2**64 - 1) by key, of which there may be many. What is not there has the number 0."""

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
        self._few, self._rows = None, _rows()
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


class KeyTable(Mapping[bytes, int]):
    """Keys of 32 bytes with their numbers (0 to 2**40 - 1), in the order in which they were added.

    What becomes of a call is asked for its key several times in a row, so the answer to the last question is kept.
    """

    __slots__ = ("_few", "_last", "_lines", "_rows")

    def __init__(self, numbers: Mapping[bytes, int] | None = None) -> None:
        self._last: tuple[bytes, int] = (b"", -1)
        self._lines = bytearray()
        self._few: dict[bytes, int] | None = {}
        self._rows: list[bytearray | None] = []
        for key, number in (numbers or {}).items():
            self.add(key, number)

    def add(self, key: bytes, number: int) -> int:
        """Give a key its number, unless it has one; returns its place in the order, from 0, or -1 if it has one.

        Raises:
            ValueError: it has not 32 bytes.
        """
        if (key in self._few) if self._few is not None else (self.place_of(key) >= 0):
            return -1
        if len(key) != _DIGEST:
            raise ValueError(f"{key!r} is no digest of {_DIGEST} bytes")
        place = len(self._lines) // _LINE
        self._last = (key, place)
        self._lines += key + number.to_bytes(_NUMBER, "little")
        if self._few is None:
            self._enter(key, place)
        else:
            self._few[key] = place
            if place >= _FEW:
                self._few, self._rows = None, _rows()
                for its_place, each in enumerate(self):
                    self._enter(each, its_place)
        return place

    def _enter(self, key: bytes, place: int) -> None:
        index = key[0] << 4 | key[1] >> 4
        row = self._rows[index]
        if row is None:
            row = self._rows[index] = bytearray()
        row += key[2 : 2 + _TAG] + place.to_bytes(_ENTRY - _TAG, "little")

    def place_of(self, key: bytes) -> int:
        """The place of a key in the order; -1 if it is not there."""
        if self._few is not None:
            return self._few.get(key, -1)
        last, place = self._last
        if last == key:
            return place
        place = self._search(key)
        self._last = (key, place)
        return place

    def _search(self, key: bytes) -> int:
        row = self._rows[key[0] << 4 | key[1] >> 4] if len(key) == _DIGEST else None
        if row is None:
            return -1
        tag, at = key[2 : 2 + _TAG], -1
        while (at := row.find(tag, at + 1)) >= 0:
            if at % _ENTRY == 0:  # else it is the end of one entry with the beginning of the next
                place = int.from_bytes(row[at + _TAG : at + _ENTRY], "little")
                if self._lines.startswith(key, place * _LINE):
                    return place
        return -1

    def key_at(self, place: int) -> bytes:
        """The key at a place in the order."""
        return bytes(self._lines[place * _LINE : place * _LINE + _DIGEST])

    def __contains__(self, key: object) -> bool:
        if self._few is not None:
            return key in self._few
        return isinstance(key, bytes) and self.place_of(key) >= 0

    def __getitem__(self, key: bytes) -> int:
        place = self.place_of(key)
        if place < 0:
            raise KeyError(key)
        at = place * _LINE + _DIGEST
        return int.from_bytes(self._lines[at : at + _NUMBER], "little")

    def __len__(self) -> int:
        return len(self._lines) // _LINE

    def __iter__(self) -> Iterator[bytes]:
        return map(self.key_at, range(len(self)))

    def __repr__(self) -> str:
        return f"<KeyTable of {len(self)}>"


class KeyMarks:
    """Whether keys are marked: those of a table, and others, of which there are to be few."""

    __slots__ = ("_marks", "_others", "_table")

    def __init__(self, table: KeyTable) -> None:
        self._table = table
        self._marks = bytearray()
        self._others: set[bytes] = set()

    def add(self, key: bytes) -> None:
        """Mark a key."""
        place = self._table.place_of(key)
        if place < 0:
            self._others.add(key)
            return
        if place >= len(self._marks):
            self._marks.extend(bytes(len(self._table) - len(self._marks)))
        self._marks[place] = 1

    def __contains__(self, key: bytes) -> bool:
        place = self._table.place_of(key)
        return (0 <= place < len(self._marks) and self._marks[place] == 1) or key in self._others


class KeyList(Sequence[bytes]):
    """Some of the keys of a table, in an order of their own."""

    __slots__ = ("_places", "_table")

    def __init__(self, table: KeyTable) -> None:
        self._table = table
        self._places = array("I")

    def append(self, place: int) -> None:
        """Add the key at this place of the table."""
        self._places.append(place)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self._table.key_at(place) for place in self._places[index]]
        return self._table.key_at(self._places[index])

    def __iter__(self) -> Iterator[bytes]:
        return map(self._table.key_at, self._places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyList | list) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return f"<KeyList of {len(self)}>"
