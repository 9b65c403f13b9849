"""The HTTP clients of official clients: one for each model and event loop, all with the same certificates; and which of
their errors mean that a request may have been paid.

To read the certificates of the machine takes some 70 milliseconds, for which the event loop stands still. Each new
client would read them again, for servers without TLS as well.
"""

from __future__ import annotations

import os
import ssl
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
_PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""The variables that say where certificates are."""


def http_client(kind: type[httpx2.AsyncClient], timeout: httpx2.Timeout) -> httpx2.AsyncClient:
    """A new client. Its kind is that of the official client, with settings of its own."""
    return kind(timeout=timeout, verify=_certificates(*map(os.environ.get, _PLACES)))


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
