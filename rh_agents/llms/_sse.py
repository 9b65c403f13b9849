"""Server-sent events (HTML Living Standard, section 9.2), as far as streams of answers have them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
_FIELD = re.compile(rb"[A-Za-z_-]*")
_KIND = re.compile(rb"[A-Za-z0-9_.:/ -]*")


class ServerEvent(NamedTuple):
    """One event: its kind, which is empty for most, and its data."""

    kind: str
    data: bytes


class _Lines:
    """The lines in bytes that come in pieces of any size. They end with `\\n`, `\\r\\n` or `\\r`, whatever is mixed."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._ended_with_return = False
        self._is_first = True

    def add(self, piece: bytes) -> list[bytes]:
        """The lines that this piece completes. One that is still open is not joined before its end has come."""
        if self._ended_with_return and piece:
            piece = piece.removeprefix(b"\n")  # the second half of a line end that was split
            self._ended_with_return = False
        self._ended_with_return = self._ended_with_return or piece.endswith(b"\r")
        first, *others = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest.append(first)
        if not others:
            return []
        complete = [self.close(), *others[:-1]]
        self._rest = [others[-1]]
        return complete

    def close(self) -> bytes:
        """The line that is open, without its end."""
        line = b"".join(self._rest)
        self._rest = []
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(_BOM)
        return line


async def server_events(pieces: AsyncIterator[bytes]) -> AsyncIterator[ServerEvent]:
    """The events in a stream of bytes that have data. Comments and other fields are left out.

    In two points they are read differently from what browsers do. What stands at the end without its empty line is an
    event all the same: some servers close the connection after the last line, and the reader sees by itself whether it
    is whole. And a line that cannot be a field, such as an error as bare JSON, or the name of an event that no server
    would give it, is an event of the kind "error" and not passed over: what cannot be read may have been a part of the
    answer.
    """
    lines, open_event = _Lines(), _OpenEvent()
    async for piece in pieces:
        for line in lines.add(piece):
            if line:
                open_event.add(line)
                continue
            if open_event.data:
                yield open_event.whole()
            open_event = _OpenEvent()
    open_event.add(lines.close())
    if open_event.data:
        yield open_event.whole()


class _OpenEvent:
    """An event to which lines are still added."""

    def __init__(self) -> None:
        self._kind = ""
        self.data: list[bytes] = []

    def add(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self.data.append(value)
        elif name == b"event" and _KIND.fullmatch(value):
            self._kind = value.decode()
        elif name == b"event" or not _FIELD.fullmatch(name):
            self._kind = "error"
            self.data.append(line)

    def whole(self) -> ServerEvent:
        return ServerEvent(self._kind, b"\n".join(self.data))
