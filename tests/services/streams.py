"""Streams of answers without a socket: the official client reads them from a transport that a test fills."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import httpx2
import pytest

__all__ = ["Transport", "transport"]


class _Body(httpx2.AsyncByteStream):
    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class Transport:
    """What the next answer is.

    Attributes:
        pieces: its body, as it comes from the network.
        requests: how many were sent.
    """

    def __init__(self) -> None:
        self.pieces: Sequence[bytes] = ()
        self.requests = 0

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        """The answer to any request."""
        self.requests += 1
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Body(self.pieces))


@contextmanager
def transport() -> Iterator[Transport]:
    """Every request of the block is answered by it."""
    made = Transport()

    async def handle(self: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
        return await made.answer(request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", handle)
        yield made
