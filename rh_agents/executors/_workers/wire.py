"""The wire between a parent and its worker: frames of a byte for their kind, eight for their length, and content.

The parsing does no I/O (`Inbox`), so that the parent can feed it from an event loop and the worker from a blocking
socket.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator

__all__ = ["Frame", "Inbox", "Kind", "header"]

_HEADER = struct.Struct("!cQ")
_ROOM = 64 * 1024


class Kind(bytes, enum.Enum):
    """What a frame is about."""

    SETTINGS = b"S"
    """To the worker: what has changed in the parent that its functions may depend on."""
    CALL = b"C"
    """To the worker: what is to be called; the arguments follow."""
    ARGUMENTS = b"A"
    BEGUN = b"B"
    """To the parent: the function is called now."""
    LOG = b"L"
    USAGE = b"U"
    RETURNED = b"R"
    RAISED = b"E"


Frame = tuple[Kind, bytearray]


def header(kind: Kind, length: int) -> bytes:
    """What stands before the content of a frame."""
    return _HEADER.pack(kind.value, length)


class Inbox:
    """Makes frames of the bytes that arrive: read into `space()`, then say how many with `received()`.

    Small frames share one buffer. A frame that does not fit there gets one of its own, of just its length, so that
    large contents are copied once, by the kernel.
    """

    def __init__(self) -> None:
        self._room = bytearray(_ROOM)
        self._filled = 0
        self._large: bytearray | None = None
        self._kind = Kind.CALL
        self._at = 0

    def space(self) -> memoryview:
        """Where the next bytes belong."""
        if self._large is not None:
            return memoryview(self._large)[self._at :]
        return memoryview(self._room)[self._filled :]

    def received(self, count: int) -> Iterator[Frame]:
        """So many bytes have been read into the space; gives the frames that are complete now."""
        if self._large is not None:
            self._at += count
            if self._at == len(self._large):
                content, self._large = self._large, None
                yield self._kind, content
            return
        self._filled += count
        at = 0
        while self._filled - at >= _HEADER.size:
            name, length = _HEADER.unpack_from(self._room, at)
            start = at + _HEADER.size
            if start + length > self._filled:
                if _HEADER.size + length > _ROOM:
                    self._begin_large(Kind(name), length, start)
                    return
                break
            at = start + length
            yield Kind(name), self._room[start:at]
        self._room[: self._filled - at] = self._room[at : self._filled]
        self._filled -= at

    def _begin_large(self, kind: Kind, length: int, start: int) -> None:
        have = self._filled - start
        self._large = bytearray(length)
        self._large[:have] = self._room[start : self._filled]
        self._kind, self._at, self._filled = kind, have, 0
