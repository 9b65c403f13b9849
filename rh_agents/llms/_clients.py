"""Clients of providers: one for each event loop, since connections belong to the loop on which they were made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any
from weakref import WeakKeyDictionary

from rh_agents.core.errors import UnreadableAnswer

__all__ = ["Clients", "bounded"]


class Clients:
    """The clients of one model."""

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Client] = WeakKeyDictionary()

    async def get(self, make: Callable[[], Any]) -> Any:
        """The client of this event loop."""
        loop = asyncio.get_running_loop()
        client = self._by_loop.get(loop)
        if client is None:
            client = self._by_loop[loop] = _Client(make())
            await client.open()
        return client.sdk

    async def aclose(self) -> None:
        """Close the connections that this event loop uses."""
        client = self._by_loop.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


class _Client:
    """The client of one event loop, which closes with it: `asyncio.run` closes async generators that are left open."""

    def __init__(self, sdk: Any) -> None:
        self.sdk = sdk
        self._life: AsyncGenerator[None, None] = self._live()

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.sdk.close()

    async def open(self) -> None:
        """From now on the event loop knows that there is something to be closed."""
        await anext(self._life)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._life.aclose()


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
