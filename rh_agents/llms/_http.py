"""The HTTP clients of official clients: one for each model and event loop, all with the same certificates.

To read the certificates of the machine takes some 70 milliseconds, for which the event loop stands still. Each new
client would read them again, for servers without TLS as well.
"""

from __future__ import annotations

import os
import ssl
from functools import cache

import httpx2

__all__ = ["http_client"]

_PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""The variables that say where certificates are."""


def http_client(kind: type[httpx2.AsyncClient], timeout: httpx2.Timeout) -> httpx2.AsyncClient:
    """A new client. Its kind is that of the official client, with settings of its own."""
    return kind(timeout=timeout, verify=_certificates(*map(os.environ.get, _PLACES)))


@cache
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    """What is trusted; read again if somebody says that it is elsewhere."""
    return httpx2.create_ssl_context()
