"""The HTTP clients of official clients: one for each model and event loop, all with the same certificates; and which of
their errors mean that a request may have been paid.

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

__all__ = ["UNSAID", "http_client", "was_not_sent"]

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
_PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""The variables that say where certificates are."""


def http_client(kind: type[httpx2.AsyncClient], timeout: httpx2.Timeout) -> httpx2.AsyncClient:
    """A new client. Its kind is that of the official client, with settings of its own."""
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
