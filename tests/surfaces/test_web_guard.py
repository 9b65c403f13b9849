"""Who may ask the page for what: everything else is refused, route by route."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.surfaces.web_kit import CODE, ORIGIN, PORT, browser, cookie_of, guarded, memory, post, recorded

pytest.importorskip("starlette")
import httpx2

from rh_agents.web.acting import Acting
from rh_agents.web.app import make_app
from rh_agents.web.guard import ACTS, HEADERS, READS
from rh_agents.web.reading import Reading


def routes() -> set[tuple[str, str]]:
    """Every method and path that the application answers."""
    store = memory()
    app = make_app(Reading(store), Acting(store, None), {}, asyncio.Event())
    return {(method, route.path) for route in app.routes for method in route.methods or ()}  # type: ignore[attr-defined]


ROUTES = sorted(routes())


def test_the_guard_lists_every_route_with_its_method_and_nothing_else() -> None:
    listed = {(method, path) for path in READS for method in ("GET", "HEAD")} | {("POST", path) for path in ACTS}
    assert set(ROUTES) == listed


def test_a_route_that_is_not_listed_is_refused_also_with_the_cookie() -> None:
    async def work() -> None:
        async with browser(memory()) as client:
            assert (await client.get("/api/unlisted")).status_code == 404
            for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
                for _, path in ROUTES:
                    assert (await client.request(method, path)).status_code == 405, (method, path)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("path", "links"),
    [
        ("/runs/monday", ["../#/run/monday", "../#/"]),
        ("/run/a%2Fb%22%3E%3Cscript%3E", ["../#/run/a%2Fb%22%3E%3Cscript%3E", "../#/"]),
        ("/runs/", ["../#/"]),
        ("/nowhere", ["./#/"]),
        ("//", ["../#/"]),
    ],
)
def test_who_types_an_address_of_no_page_is_told_so_and_led_to_the_runs(path: str, links: list[str]) -> None:
    async def work() -> None:
        async with browser(memory(), is_in=False) as client:
            answer = await client.get(f"{ORIGIN}{path}", headers={"accept": "text/html,*/*"})
            assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
            assert re.findall('<a[^>]* href="([^"]*)">', answer.text) == links
            assert "<script>" not in answer.text
            assert (await client.get(f"{ORIGIN}{path}")).text == "There is no such page.", "for programs"

    asyncio.run(work())


OWN = {"origin": ORIGIN, "content-type": "application/json", "sec-fetch-site": "same-origin"}
BAD: dict[str, tuple[dict[str, str], bool, int]] = {
    "no cookie": ({}, False, 401),
    "the host of a stranger": ({"host": f"evil.example:{PORT}"}, True, 421),
    "this host at another port": ({"host": "127.0.0.1:1"}, True, 421),
    "the origin of a stranger": ({"origin": "http://evil.example"}, True, 403),
    "no origin at all, as from a file": ({"origin": "null"}, True, 403),
    "the origin of another port": ({"origin": "http://127.0.0.1:1"}, True, 403),
    "asked for by another site": ({"sec-fetch-site": "cross-site"}, True, 403),
    "asked for by another port of this machine": ({"sec-fetch-site": "same-site"}, True, 403),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_each_route_refuses(case: str) -> None:
    headers, is_in, status = BAD[case]

    async def work() -> None:
        async with browser(memory(), is_in=is_in) as client:
            for method, path in ROUTES:
                body = b"{}" if method == "POST" else b""
                answer = await client.request(method, path, headers={**OWN, **headers}, content=body)
                assert (method, path, answer.status_code) == (method, path, status)
                assert "set-cookie" not in answer.headers

    asyncio.run(work())


@pytest.mark.parametrize("path", sorted(ACTS))
def test_a_change_is_refused_without_origin_in_another_form_or_for_reading_only(path: str) -> None:
    async def work() -> None:
        async with browser(memory()) as client:
            no_origin = await client.post(path, json={}, headers={"content-type": "application/json"})
            assert no_origin.status_code == 403
            as_form = await client.post(path, content=b"{}", headers={**OWN, "content-type": "text/plain"})
            assert as_form.status_code == 415
        async with browser(memory(), read_only=True) as client:
            refused = await post(client, path, {})
            assert refused.status_code == 403
            assert "--read-only" in refused.text

    asyncio.run(work())


def test_every_answer_has_the_headers_that_keep_text_from_becoming_code() -> None:
    wanted = {name.decode(): value.decode() for name, value in HEADERS}
    assert "require-trusted-types-for 'script'" in wanted["content-security-policy"]
    assert "unsafe" not in wanted["content-security-policy"]

    async def work() -> None:
        store = memory()
        await recorded(store)
        async with browser(store) as client:
            for path in ("/", "/static/app.js", "/api/runs", "/api/run?run=monday", "/api/run?run=none", "/nowhere"):
                headers = (await client.get(path)).headers
                assert {name: headers.get_list(name) for name in wanted} == {
                    name: [value] for name, value in wanted.items()
                }
        async with browser(store, is_in=False) as client:
            assert (await client.get("/")).headers["content-security-policy"] == wanted["content-security-policy"]

    asyncio.run(work())


def test_a_code_opens_the_page_once_with_a_strict_cookie_named_for_the_port() -> None:
    async def work() -> None:
        transport = httpx2.ASGITransport(app=guarded(memory()))
        async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as first:
            opened = await first.get("/", params={"code": CODE}, headers={"sec-fetch-site": "cross-site"})
            assert opened.status_code == 200
            assert cookie_of(opened) == f"rh_agents_{PORT}"
            assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(opened.headers["set-cookie"].split("; "))
            assert (await first.get("/")).status_code == 200
        async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as second:
            again = await second.get("/", params={"code": CODE})
            assert again.status_code == 401
            assert "--new-code" in again.text
            assert (await second.get("/")).status_code == 401

    asyncio.run(work())


def test_a_code_does_not_open_the_page_under_the_name_of_a_stranger() -> None:
    async def work() -> None:
        async with browser(memory(), is_in=False) as client:
            refused = await client.get("/", params={"code": CODE}, headers={"host": "evil.example"})
            assert refused.status_code == 421
            assert (await client.get("/", params={"code": CODE})).status_code == 200, "it is still good"

    asyncio.run(work())


def test_a_name_that_was_allowed_is_answered_also_behind_a_proxy_that_encrypts() -> None:
    async def work() -> None:
        transport = httpx2.ASGITransport(app=guarded(memory(), hosts=("hub.example:443",)))
        async with httpx2.AsyncClient(transport=transport, base_url="http://hub.example:443") as client:
            headers = {"host": "hub.example:443", "origin": "https://hub.example:443"}
            assert (await client.get("/", params={"code": CODE}, headers=headers)).status_code == 200

    asyncio.run(work())


def test_a_body_that_is_too_large_is_not_read() -> None:
    async def work() -> None:
        async with browser(memory()) as client:
            assert (await post(client, "/api/answer", {"run": "x" * (2 << 20)})).status_code == 413

            async def pieces() -> AsyncIterator[bytes]:
                yield b"{}"

            unsized = await client.post("/api/answer", content=pieces(), headers=OWN)
            assert unsized.status_code == 413

    asyncio.run(work())


def test_no_websocket_is_accepted() -> None:
    async def work() -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        await guarded(memory())({"type": "websocket", "path": "/", "headers": []}, receive, send)
        assert [message["type"] for message in sent] == ["websocket.close"]

    asyncio.run(work())


def test_the_files_of_the_page_are_those_that_the_guard_lists() -> None:
    folder = Path(str(files("rh_agents.web"))) / "static"
    names = {f"/static/{path.name}" for path in folder.iterdir() if path.name != "index.html"}
    assert names == {path for path in READS if path.startswith("/static/")}
