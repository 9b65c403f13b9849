"""The wire between a parent and its worker: frames of a byte for their kind, eight for their length, and content.

The parsing does no I/O (`Inbox`), so that the parent can feed it from an event loop and the worker from a blocking
socket.
"""

from __future__ import annotations

import enum
import pickle
import struct
from collections.abc import Iterator, Sequence
from typing import Any

_HEADER = struct.Struct("!cQ")
_ROOM = 64 * 1024
LARGE = 1024 * 1024
"""Bytes from which on an event loop should not wait until contents have been copied."""
_COPIED_AT_ONCE = 4 * 1024 * 1024


class Kind(bytes, enum.Enum):
    """What a frame is about."""

    SETTINGS = b"S"
    """To the worker: what has changed in the parent that its functions may depend on."""
    CALL = b"C"
    """To the worker: what is to be called; the arguments follow."""
    ARGUMENTS = b"A"
    LOG = b"L"
    """To the parent."""
    USAGE = b"U"
    RETURNED = b"R"
    RAISED = b"E"


Buffer = bytes | bytearray | memoryview
Frame = tuple[Kind, bytearray]


def header(kind: Kind, length: int) -> bytes:
    """What precedes the content of a frame."""
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


# -- contents ----------------------------------------------------------------------------------------------------------


class Pieces:
    """A file that keeps what is written as it is: large bytes and texts are sent without a copy in one pickle."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Called by the pickler: with some 64 KiB of small things, or with the bytes of one large thing."""
        self.written.append(data)
        return len(data)

    @classmethod
    def of(cls, value: Any) -> list[bytes]:
        """The value, pickled; joined, these are what `pickle.dumps` gives."""
        pieces = cls()
        pickle.dump(value, pieces, pickle.HIGHEST_PROTOCOL)
        return pieces.written


def in_one_piece(begin: bytes, content: Sequence[bytes]) -> Sequence[bytes]:
    """Joined, if that copies little."""
    if sum(map(len, content)) <= _ROOM:
        return [begin + b"".join(content)]
    return [begin, *content]


def frames_in(data: Buffer) -> Iterator[tuple[Kind, memoryview]]:
    """The frames of which `data` consists."""
    view, at = memoryview(data), 0
    while at < len(view):
        name, length = _HEADER.unpack_from(view, at)
        start, at = at + _HEADER.size, at + _HEADER.size + length
        yield Kind(name), view[start:at]


def loads(content: Buffer) -> Any:
    """The value that was pickled. In a thread, others get their turn while large bytes are copied."""
    return pickle.load(_Content(content)) if len(content) >= LARGE else pickle.loads(content)


class _Content:
    """What has arrived, as a file whose large bytes the unpickler copies straight to where they belong."""

    def __init__(self, content: Buffer) -> None:
        self._content = memoryview(content)
        self._at = 0

    def read(self, count: int) -> bytes:
        found = self._content[self._at : self._at + count]
        self._at += len(found)
        return bytes(found)

    def readline(self) -> bytes:
        end = self._at  # only pickles of protocols without frames have lines
        while end < len(self._content) and self._content[end] != ord("\n"):
            end += 1
        return self.read(end + 1 - self._at)

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._content) - self._at)
        for start in range(0, count, _COPIED_AT_ONCE):
            end = min(start + _COPIED_AT_ONCE, count)
            buffer[start:end] = self._content[self._at + start : self._at + end]
        self._at += count
        return count
