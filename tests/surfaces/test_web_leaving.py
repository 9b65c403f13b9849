"""Who closes the connection in the middle of a long search ends the search: nothing is looked through for nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Never
from urllib.parse import urlsplit

import httpx2
import pytest

from rh_agents import MemoryStore
from rh_agents.core.ports.windows import CallQuery, RunQuery
from tests.surfaces.web_kit import recorded, served

PATIENCE = 30.0
KEY = "0" * 64


class EndlessStore(MemoryStore):
    """Looks for windows, calls and runs without ever finding one, and knows when it was told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.looking = asyncio.Event()
        self.left = asyncio.Event()

    async def _look(self) -> Never:
        self.looking.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        raise AssertionError("it never ends")

    async def run_window(self, _: RunQuery) -> Never:
        await self._look()

    async def run_count(self, _: RunQuery) -> Never:
        await self._look()

    async def run_tags(self) -> Never:
        await self._look()

    async def call_window(self, _: str, __: CallQuery) -> Never:
        await self._look()

    async def running_window(self, _: str, __: int, ___: str | None) -> Never:
        await self._look()

    async def children_window(self, *_: Any) -> Never:
        await self._look()

    async def call_record(self, *_: Any) -> Never:
        await self._look()

    async def failure_kinds(self, _: str) -> Never:
        await self._look()


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs?text=x",
        "/api/calls?run=monday&order=seconds",
        "/api/calls?run=monday&status=running",
        "/api/calls.csv?run=monday&text=x",
        f"/api/call?run=monday&key={KEY}",
        f"/api/call/children?run=monday&key={KEY}",
        f"/api/call/value?run=monday&key={KEY}",
    ],
)
def test_a_search_ends_when_its_reader_closes_the_connection(path: str) -> None:
    async def main() -> None:
        store = EndlessStore()
        await recorded(store)
        async with asyncio.timeout(PATIENCE), served(store) as address, _asking(address, path) as writer:
            await store.looking.wait()
            assert not store.left.is_set()
            writer.close()
            await store.left.wait()

    asyncio.run(main())


@contextlib.asynccontextmanager
async def _asking(address: str, path: str) -> AsyncIterator[asyncio.StreamWriter]:
    """A connection of a browser that has got in, on which it asks for a path."""
    async with httpx2.AsyncClient() as client:
        opened = await client.get(address, follow_redirects=True)
        cookies = "; ".join(f"{name}={value}" for name, value in (opened.cookies or client.cookies).items())
    url = urlsplit(address)
    _, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nCookie: {cookies}\r\n\r\n".encode())
    await writer.drain()
    try:
        yield writer
    finally:
        writer.close()
