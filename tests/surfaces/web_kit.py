"""What the tests of the page share: a page over a store, and a browser's request to it without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rh_agents import ExecutionState, MemoryStore, agent, parallel, tool
from rh_agents.core.context import report_usage
from rh_agents.core.ports import Store
from rh_agents.core.usage import Usage

pytest.importorskip("starlette", reason="the page is not installed: pip install 'rh_agents[web]'")
import httpx2

from rh_agents.web.acting import Acting, Resuming
from rh_agents.web.app import make_app
from rh_agents.web.guard import Guard
from rh_agents.web.reading import Reading
from rh_agents.web.server import Settings, serve

PORT = 8123
ORIGIN = f"http://127.0.0.1:{PORT}"
CODE = "the-code"


def guarded(
    store: Store, *, read_only: bool = False, hosts: tuple[str, ...] = (), resuming: Resuming | None = None
) -> Guard:
    """The page over a store, which `CODE` opens once."""
    codes = {CODE}

    def redeem(code: str) -> bool:
        is_good = code in codes
        codes.discard(code)
        return is_good

    app = make_app(Reading(store), Acting(store, "ada", resuming=resuming), {"read_only": read_only}, asyncio.Event())
    names = (f"127.0.0.1:{PORT}", f"localhost:{PORT}", *hosts)
    return Guard(app, hosts=names, port=PORT, redeem=redeem, read_only=read_only)


@asynccontextmanager
async def browser(
    store: Store, *, read_only: bool = False, is_in: bool = True, resuming: Resuming | None = None
) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser that has opened the address with the code."""
    transport = httpx2.ASGITransport(app=guarded(store, read_only=read_only, resuming=resuming))
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        if is_in:
            opened = await client.get("/", params={"code": CODE})
            assert opened.status_code == 200
        yield client


async def post(client: httpx2.AsyncClient, path: str, body: Any, **headers: str) -> httpx2.Response:
    """What the page itself sends."""
    given = {"origin": ORIGIN, "content-type": "application/json", **headers}
    return await client.post(path, json=body, headers=given)


@tool(retry=2)
async def fetch(url: str) -> dict[str, str]:
    """Fails for good where the address says so."""
    if "broken" in url:
        raise ConnectionError(f"{url} is not there")
    report_usage(Usage(input_tokens=100, output_tokens=10, requests=1, cost=0.01))
    return {"url": url, "title": f"Page {url}"}


@agent
async def survey(urls: list[str]) -> int:
    """A group of fetches."""
    async with parallel(max_workers=4, name="pages") as group:
        for url in urls:
            group.add(fetch(url))
        results = await group.gather()
    return sum(result.ok for result in results)


async def recorded(store: Store, run_id: str = "monday", urls: tuple[str, ...] = ("a", "b", "broken")) -> None:
    """A run with a group in which one member has failed."""
    async with ExecutionState(store=store, run_id=run_id, tags=["nightly"]):
        await survey(list(urls))


def memory() -> MemoryStore:
    """An empty store."""
    return MemoryStore()


def cookie_of(response: httpx2.Response) -> str:
    """The name of the cookie that a response sets."""
    found = re.match(r"(\w+)=", response.headers["set-cookie"])
    assert found is not None
    return found[1]


@asynccontextmanager
async def served(store: Store, **settings: Any) -> AsyncIterator[str]:
    """The page at a port of this machine: its address with a code."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve(store, Settings(author="ada", **settings), ready.set_result))
    await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
    try:
        if serving.done():
            await serving
        yield ready.result()
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
