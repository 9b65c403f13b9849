"""Which server a model asks, as part of what the model is: two servers may call different models by the same name.

The identity of an endpoint is its URL in one form (RFC 3986, section 6.2): scheme, host, port and path. Letters of
scheme and host are small, a default port and a trailing slash are left out, and so is everything that says who asks
rather than who is asked: user, password, query, fragment. The endpoint of the provider whose protocol it is has none,
since it is what everybody means who says nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from rh_agents.core.errors import DefinitionError
from rh_agents.core.redaction import is_credential_name

_PORTS = {"http": 80, "https": 443}


def given_or_environment(base_url: str | None, variable: str) -> str | None:
    """The URL that a client will ask, which reads this variable; None for its provider's own."""
    return base_url or os.environ.get(variable) or None


def expect_url(base_url: str | None, where: str, added: str = "") -> None:
    """Refuse what no request can be sent to, before a call fails again and again because of it.

    Args:
        base_url: the URL; None for the provider's own.
        where: what is wrong if it is, for the error.
        added: the last part of the path of requests, which the client adds. People paste it with the rest.

    Raises:
        DefinitionError: it is no http or https URL with a host, or that part is in it already.
    """
    if base_url is None:
        return
    if not _is_url(base_url):  # credentials in it are not shown
        rest = base_url.rpartition("://")[2].rpartition("@")[2].partition("?")[0].lstrip("/")
        raise DefinitionError(f"{where} must be a URL with its scheme, such as http://{rest} or https://{rest}")
    if added and urlsplit(base_url).path.rstrip("/").endswith(added):
        raise DefinitionError(f"{where} ends in {added}, which is added to it: leave that out")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme.lower() in _PORTS and bool(parts.hostname)
    except ValueError:
        return False


def without_query(base_url: str) -> tuple[str, dict[str, str]]:
    """A URL without query and fragment, and its query: a path can be added to the first, and the second to requests."""
    parts = urlsplit(base_url)
    return urlunsplit((*parts[:3], "", "")), dict(parse_qsl(parts.query, keep_blank_values=True))


def endpoint_of(base_url: str | None, own: str) -> str:
    """The identity of the endpoint at a URL.

    Args:
        base_url: the URL; None for the provider's own.
        own: what matches the provider's own, which has none, as a regular expression.
    """
    if base_url is None:
        return ""
    parts = urlsplit(base_url if "://" in base_url else f"//{base_url}")
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower().rstrip(".")
    try:
        port = parts.port
    except ValueError:  # it is none; whoever asks there will say so
        port = None
    host = f"[{host}]" if ":" in host else host
    place = host if port is None or port == _PORTS.get(scheme) else f"{host}:{port}"
    path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
    found = f"{scheme}://{place}{path}"
    return "" if re.fullmatch(own, found) else found


def credentials_in(base_url: str | None) -> Iterator[tuple[str, str]]:
    """What in a URL says who asks, and is nobody else's business: each with its name."""
    parts = urlsplit(base_url or "")
    if parts.password:
        yield "password", unquote(parts.password)
    yield from ((name, value) for name, value in parse_qsl(parts.query) if is_credential_name(name))
