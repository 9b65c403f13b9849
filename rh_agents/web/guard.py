"""Who may ask for what: one guard around everything, which refuses what it does not know.

A page on loopback can be reached by every program of every user of the machine, and by every page that a browser of
this user shows. So nothing is decided by the routes themselves:

- *Host*: only names that this server was told to answer to, or else a page of a stranger whose name resolves to
  loopback (DNS rebinding) could read everything.
- *Origin* and *Sec-Fetch-Site*: what another page makes the browser send is refused, whatever it is.
- *Method and path*: only pairs in the two tables below. A new route is refused until it is listed here.
- *Cookie*: HttpOnly, SameSite=Strict and named for the port (cookies know no ports: two servers would overwrite each
  other's). A browser gets it for a one-time code.

What comes back may load nothing from elsewhere and run no text as code (Content-Security-Policy with trusted types).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Sequence
from html import escape
from typing import Final
from urllib.parse import parse_qs, quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ACTS", "HEADERS", "READS", "Guard"]

READS: Final = frozenset(
    {
        "/",
        "/api/about",
        "/api/runs",
        "/api/runs/events",
        "/api/run",
        "/api/run/events",
        "/api/calls",
        "/api/calls.csv",
        "/api/call",
        "/api/call/children",
        "/api/call/text",
        "/api/call/value",
        "/api/questions",
        "/api/groups",
        "/api/plan",
        "/api/compare",
        "/api/export",
        "/api/validation",
        "/events",
    }
    | {
        f"/static/{name}"
        for name in (
            "actions.js", "api.js", "app.css", "app.js", "axis.js", "bars.js", "call.js", "calls.js", "compare.js",
            "differences.js", "dom.js", "frame.js", "groups.js", "icon.svg", "lanes.js", "plan.js", "questions.js",
            "run.js", "runs.js", "timeline.js", "values.js",
        )
    }
)  # fmt: skip
"""What may be read: with GET and HEAD."""
ACTS: Final = frozenset({"/api/answer", "/api/act"})
"""What changes something: with POST, from this page itself, and never where the page is for reading only."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
)
"""What every response has."""

_REFRESH = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=./"><title>rh_agents</title>'
    '<link rel="icon" href="data:,">'  # or else the browser looks for one where none is
)
_NEW_CODE = "Run `rh-agents web --new-code` for an address that lets you in."
_NOT_FOUND: Final = 404
_NO_SUCH_PAGE = "There is no such page."
_LARGEST_BODY: Final = 1 << 20
_OWN_SITE = (b"same-origin", b"none")


class Guard:
    """The outermost application.

    Args:
        app: what answers those who may ask.
        hosts: `name:port` of this server, as browsers write it in the Host header.
        port: for the name of the cookie.
        redeem: whether a one-time code is good; each is asked about once.
        read_only: refuse whatever changes something.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Sequence[str], port: int, redeem: Callable[[str], bool], read_only: bool = False
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower().encode() for host in hosts)
        self._cookie = f"rh_agents_{port}"
        self._token = secrets.token_urlsafe(32)
        self._redeem = redeem
        self._read_only = read_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        code = _code_of(scope)
        refusal = self._refusal(scope, has_code=code is not None)
        if refusal is not None and refusal[0] == _NOT_FOUND and _wants_page(scope):
            await _send(send, _NOT_FOUND, _no_such_page(scope), "text/html; charset=utf-8", [])
        elif refusal is not None:
            await _refuse(send, *refusal)
        elif code is not None:
            await self._let_in(send, code)
        elif not self._has_cookie(scope):
            await _refuse(send, 401, f"This page is not open to this browser. {_NEW_CODE}")
        else:
            await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, *, has_code: bool) -> tuple[int, str] | None:
        """Status and reason if this is nothing to be answered, whoever asks."""
        host = _values(scope, b"host")
        if len(host) != 1 or host[0].lower() not in self._hosts:
            return 421, "This server does not answer to this name; `--allow-host NAME:PORT` lets it."
        if not self._is_own_page(scope, host[0].lower(), has_code=has_code):
            return 403, "This was asked for by another page."
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD") and path in READS:
            return None
        if method != "POST" or path not in ACTS:
            return (405, "Not with this method.") if path in READS | ACTS else (_NOT_FOUND, _NO_SUCH_PAGE)
        if self._read_only:
            return 403, "This page is for reading only: it was started with --read-only."
        if not _values(scope, b"origin"):
            return 403, "Who asks for a change must say which page it is."
        if _values(scope, b"content-type") != [b"application/json"]:
            return 415, "A change is asked for in JSON."
        size = _values(scope, b"content-length")
        has_size = len(size) == 1 and size[0].isdigit() and not _values(scope, b"transfer-encoding")
        if not has_size or int(size[0]) > _LARGEST_BODY:
            return 413, "A change is asked for in at most a megabyte, whose size is said before."
        return None

    def _is_own_page(self, scope: Scope, host: bytes, *, has_code: bool) -> bool:
        """Whether no other page made the browser send this. A link with a code may stand anywhere, as in a chat."""
        own = (b"http://" + host, b"https://" + host)
        if any(origin.lower() not in own for origin in _values(scope, b"origin")):
            return False
        return has_code or all(site in _OWN_SITE for site in _values(scope, b"sec-fetch-site"))

    def _has_cookie(self, scope: Scope) -> bool:
        pairs = [pair.strip() for each in _values(scope, b"cookie") for pair in each.decode("latin-1").split(";")]
        given = [value for name, _, value in (pair.partition("=") for pair in pairs) if name == self._cookie]
        return any(hmac.compare_digest(value.encode(), self._token.encode()) for value in given)

    async def _let_in(self, send: Send, code: str) -> None:
        if not self._redeem(code):
            await _refuse(send, 401, f"This code has been used, or is older than ten minutes. {_NEW_CODE}")
            return
        cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        # Not a redirect: a strict cookie does not go with one that began at a link on another page.
        await _send(send, 200, _REFRESH, "text/html; charset=utf-8", [(b"set-cookie", cookie.encode())])


def _code_of(scope: Scope) -> str | None:
    if scope["path"] != "/" or scope["method"] != "GET":
        return None
    found = parse_qs(scope["query_string"].decode("latin-1")).get("code")
    return found[0] if found else None


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


def _wants_page(scope: Scope) -> bool:
    """Whether somebody has typed an address, and no program has asked."""
    return scope["method"] == "GET" and any(b"text/html" in each for each in _values(scope, b"accept"))


def _no_such_page(scope: Scope) -> str:
    """A page that leads back, and to the run that an address such as `/runs/monday` may mean.

    Its links are relative: a proxy of a notebook may serve this page below a path of its own.
    """
    parts = scope["path"].split("/", 2)
    written = scope.get("raw_path") or scope["path"].encode()  # where a slash of a name is none
    home = "../" * (written.count(b"/") - 1) or "./"
    links = f'<p><a class="button" href="{home}#/">All runs</a></p>'
    if parts[1] in ("run", "runs") and len(parts) > len(("", "runs")) and parts[2]:
        name = quote(parts[2], safe="", errors="replace")
        links = f'<p>If there is such a run, it is at <a href="{home}#/run/{name}">#/run/{escape(name)}</a>.</p>{links}'
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_NO_SUCH_PAGE}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f'<link rel="stylesheet" href="{home}static/app.css"><main><h1>{_NO_SUCH_PAGE}</h1>{links}</main></html>'
    )


async def _refuse(send: Send, status: int, why: str) -> None:
    await _send(send, status, why, "text/plain; charset=utf-8", [])


async def _send(send: Send, status: int, text: str, kind: str, more: list[tuple[bytes, bytes]]) -> None:
    body = text.encode()
    headers = [*HEADERS, (b"content-type", kind.encode()), (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in HEADERS}
            kept = [each for each in message.get("headers", ()) if each[0].lower() not in ours]
            message = {**message, "headers": [*kept, *HEADERS]}
        await send(message)

    return sending
