"""The HTTP clients of official clients: one for each model and event loop, all with the same certificates; which of
their errors mean that a request may have been paid; and what errors say about a server that cannot be asked.

To read the certificates of the machine takes some 70 milliseconds, for which the event loop stands still. Each new
client would read them again, for servers without TLS as well.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from functools import cache

import httpx2

from rh_agents.core.errors import IncompleteAnswer, ModelTimeout, ModelUnreachable, UnreadableAnswer
from rh_agents.core.redaction import logger

UNSAID = (ModelTimeout, ModelUnreachable, IncompleteAnswer, UnreadableAnswer)
"""Errors after which the provider may have worked on the request, though no answer says so."""
_NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
"""Errors after which nobody can have worked on the request."""
_MOST = 64 * 1024
"""Bytes of the body of an error that are read. Official clients read all of it, however much comes."""
_NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)
_REMEDIES = {
    401: "the key (api_key=) and the server (base_url=)",
    403: "the key (api_key=) and the server (base_url=)",
    404: "the model's name and the server (base_url=)",
    405: "the server (base_url=)",
}
"""What to check when a server says so: these are mostly mistakes in what it was asked with."""
_PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""The variables that say where certificates are."""
_LOGGERS = ("httpx2", "openai._base_client", "anthropic._base_client")
"""Those that log the URLs of requests, with whatever is in them: the HTTP library does so at the level INFO."""


def http_client(kind: type[httpx2.AsyncClient], timeout: httpx2.Timeout) -> httpx2.AsyncClient:
    """A new client. Its kind is that of the official client, with settings of its own. What is logged of requests from
    now on has no credentials in it.
    """
    for name in _LOGGERS:
        logger(name)
    hooks = {"response": [_bound_errors]}
    return kind(timeout=timeout, verify=_certificates(*map(os.environ.get, _PLACES)), event_hooks=hooks)


class _Beginning(httpx2.AsyncByteStream):
    """The first bytes of a body."""

    def __init__(self, body: httpx2.AsyncByteStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = _MOST
        async for piece in self._body:
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return

    async def aclose(self) -> None:
        """Close the connection, if anything is left."""
        await self._body.aclose()


async def _bound_errors(response: httpx2.Response) -> None:
    if response.status_code >= 300 and isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Beginning(response.stream)


@cache
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    """What is trusted; read again if somebody says that it is elsewhere."""
    return httpx2.create_ssl_context()


def was_not_sent(error: BaseException | None, no_key: type[Exception]) -> bool:
    """Whether a request failed before anybody got it. `no_key` is what the official client raises if it has no key."""
    while error is not None:
        if isinstance(error, _NOT_SENT) or type(error) is no_key:
            return True
        error = error.__cause__
    return False


def asked(error: Exception) -> str:
    """The URL that was asked, without user, password and query; "" if the error does not know it."""
    try:
        return placed(error.request.url)  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # httpx raises the latter where there is none
        return ""


def placed(url: httpx2.URL) -> str:
    """A URL as people may read it: without user, password and query."""
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}{url.path}"


def is_not_sendable(error: Exception) -> bool:
    """Whether the request is one that cannot be sent at all. The error quotes the header, which may be the key."""
    return isinstance(error.__cause__ or error, httpx2.LocalProtocolError)


def is_not_connected(error: Exception) -> bool:
    """Whether there was no connection to the server at all."""
    return isinstance(error, _NOT_CONNECTED) or isinstance(error.__cause__, _NOT_CONNECTED)


def not_connected(error: Exception) -> str:
    """The sentence about it: which server, why, and what to do."""
    cause = error.__cause__ if isinstance(error.__cause__, _NOT_CONNECTED) else error
    why = " ".join(str(cause).split()) or type(cause).__name__
    return f"cannot connect to {asked(error) or 'the server'} ({why}): is the server running, and is base_url= right?"


def remedy_of_status(status: int, url: str) -> str:
    """What to check after a status, and where it came from; "" where what the server says is enough."""
    remedy = _REMEDIES.get(status)
    if remedy and httpx2.URL(url or "").path == "/chat/completions":
        remedy += ", which mostly ends in /v1"
    return f" (asked {url}: check {remedy})" if remedy and url else ""
