"""Large bytes a piece at a time: a thread that works on them must let go of the interpreter's lock in between.

A single operation in C keeps the lock until it is done, and the event loop waits for it: to join a hundred megabytes
takes a tenth of a second. So nothing here touches more than a piece at once. `BytesIO` grows in place and gives what it
has without a copy, which `bytes` can do in no other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO

__all__ = ["PIECE", "contains", "joined", "spans"]

PIECE = 3 << 17
"""Bytes, about 400,000: a few tenths of a millisecond. Three and four divide it, as base64 needs it."""


def joined(parts: Iterable[bytes]) -> bytes:
    """All of them one after the other."""
    buffer = BytesIO()
    for part in parts:
        buffer.write(part)
    return buffer.getvalue()


def contains(data: bytes, needle: bytes) -> bool:
    """Whether the needle is somewhere in it."""
    overlap = len(needle) - 1
    return any(data.find(needle, start, start + PIECE + overlap) >= 0 for start in range(0, len(data), PIECE))


def spans(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each line begins and ends, without its line feed."""
    start = position = 0
    while position < len(data):
        found = data.find(b"\n", position, position + PIECE)
        if found < 0:
            position += PIECE
            continue
        yield start, found
        start = position = found + 1
    yield start, len(data)
