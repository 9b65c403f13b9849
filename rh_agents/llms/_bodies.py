"""The body of an answer while it comes: no more of it than is allowed, and what it turns out to be.

Servers do not always answer as they are asked to: some send a whole answer where a stream was asked for, or a stream
where it was not, and not all name the kind in the header that is made for it. Either has to be paid, so either is read.
The first sign tells: a JSON value begins with a brace, and no line of a stream of events does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from rh_agents.core.errors import UnreadableAnswer

_BLANKS = b" \t\r\n\xef\xbb\xbf"
"""What may stand before everything else; the last three bytes are a BOM."""
_BEGINNINGS = (b"data:", b"event:", b":", b"id:", b"retry:")
"""How a stream of events begins."""
_ENDS_WITHIN = 0.1
"""Seconds within which the body of a stream ends that has said so. Some servers leave it open."""


class Body(NamedTuple):
    """A body of which the beginning has come.

    Attributes:
        pieces: all of it, as it comes.
        is_whole: whether it is a JSON value, and no stream.
        is_stream: whether it is a stream of events. If it is neither, the reader will see what it is.
    """

    pieces: AsyncIterator[bytes]
    is_whole: bool
    is_stream: bool


async def bounded(pieces: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """The same, up to so many bytes.

    Raises:
        UnreadableAnswer: there are more.
    """
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > most:
            raise UnreadableAnswer(f"the answer is larger than max_bytes={most:,}")
        yield piece


async def opened(pieces: AsyncIterator[bytes]) -> Body:
    """The body, when enough of it has come to say what it is."""
    begun: list[bytes] = []
    first = b""
    async for piece in pieces:
        begun.append(piece)
        first = (first + piece.lstrip(_BLANKS)) if not first else first + piece
        if first and not any(each.startswith(first) and each != first for each in _BEGINNINGS):
            break
    return Body(_joined(begun, pieces), first.startswith(b"{"), first.startswith(_BEGINNINGS))


async def _joined(begun: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for piece in begun:
        yield piece
    async for piece in rest:
        yield piece


async def read_off(pieces: AsyncIterator[bytes]) -> None:
    """Read what is left of a body of which all has come that is needed: mostly its end. Only then its connection can be
    used again; otherwise each streamed answer would need a new one.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ENDS_WITHIN):
            async for _ in pieces:
                pass
