"""Headers of requests that can be sent, and keys among them (RFC 9110, section 5).

What cannot be sent is refused where it is written. A client would fail with it at each attempt, and quote it: in a
traceback, where it may be the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import SecretStr

from rh_agents.core.errors import DefinitionError
from rh_agents.core.redaction import Secret

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


def key_of(given: str | SecretStr | Secret | None, where: str) -> SecretStr | None:
    """A key in the one form in which it is kept.

    Raises:
        DefinitionError: it cannot be sent.
    """
    if isinstance(given, Secret):
        given = given.reveal()
    if isinstance(given, SecretStr):
        given = given.get_secret_value()
    return SecretStr(sendable(given, where)) if isinstance(given, str) else given


def sendable_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The same headers, each with a value that can be sent.

    Raises:
        DefinitionError: one cannot be sent.
    """
    for name in headers:
        if not _NAME.fullmatch(name):
            raise DefinitionError(f"headers= has the name {name!r}, which no header can have")
    return {name: sendable(value, f"headers={{{name!r}: ...}}") for name, value in headers.items()}


def sendable(value: str, where: str) -> str:
    """The value of a header, without blanks and line ends around it: a key is often read from a file.

    Raises:
        DefinitionError: no client sends it. The message does not show it.
    """
    value = value.strip()
    if not _VALUE.fullmatch(value):
        raise DefinitionError(f"{where} has a line end or a character that no header can have")
    return value
