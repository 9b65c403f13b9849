"""Values as typed JSON: how results, errors and inputs are stored.

What JSON has is written as it is. Everything else is an object with the key `"!"`, which says what it is:

    {"!": "tuple", "v": [1, 2]}
    {"!": "model", "class": "app.Page", "v": {"url": "https://...", "links": {"!": "set", "v": []}}}

A registered secret (see `rh_agents.core.redaction`) is written as its name, and put back when it is read:

    {"!": "with-secrets", "v": ["Bearer ", {"!": "secret", "name": "api-key", "spelling": ""}]}

What is read is equal to what was written and has the same types. Reading runs no code of the user's: no constructor, no
validator, no import; only `__hash__` and `__eq__` of what stands in sets and dictionary keys. Instances are made of
classes that the program has registered (see `learn` and `storable`), and of no others.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

from pydantic_core import from_json, to_json

from rh_agents.core.errors import RecordedError, StoreError, UnstorableError, ValuesErased
from rh_agents.core.redaction import parts_of, redact, stored_needles
from rh_agents.core.redaction.described import describe_error
from rh_agents.core.values.annotations import check_annotation
from rh_agents.core.values.decoder import ERASED, ErasedValue, UnknownValue, erased_value, is_erased_value, revive
from rh_agents.core.values.encoder import ValueWriter, brief, quick, text_of, too_deep
from rh_agents.core.values.large import LARGE, is_large, pieces_of, value_in
from rh_agents.core.values.pieces import contains, joined
from rh_agents.core.values.registry import function_below, learn, learn_function, name_of, storable, unresolved_in

__all__ = [
    "ERASED",
    "LARGE",
    "ErasedValue",
    "UnknownValue",
    "check_annotation",
    "decode",
    "decode_error",
    "encode",
    "encode_any",
    "encode_error",
    "encode_large",
    "erased_value",
    "function_below",
    "is_erased_value",
    "is_large",
    "keep_text",
    "kept_text",
    "learn",
    "learn_function",
    "shown_value",
    "storable",
    "unresolved_in",
]

_TAG_IN_BYTES = b'"!"'
_TAGGED = '{"!":'
_FAR_APART = 43
_MANY_DIGITS = re.compile(rb"[0-9]{95}")
"""An integer that is too long to be read has so many digits in a row even if only each 43rd character is looked at."""


def encode(value: object) -> bytes:
    """The typed JSON text of a value, in UTF-8.

    Raises:
        UnstorableError: it is not serializable. The message says what it is, where it is, and what to do. It begins
            with "a httpx.Client at ['client'] cannot be stored", so that the caller can say whose value it is.
    """
    try:
        data = to_json(value if type(value) is str else quick(value, 0))
    except Exception:  # noqa: BLE001 - mostly NotQuick and what to_json raises, but the value is the user's
        return _encode_carefully(value)
    needles = stored_needles()
    if needles and any(needle in data for needle in needles):
        return _encode_carefully(value)
    return _encode_carefully(value) if type(value) is not str and _has_unreadable_number(data) else data


def encode_large(value: object) -> bytes:
    """The same for a value that is large, a piece at a time, so that another thread can do it beside the event loop.

    Raises:
        UnstorableError: it is not serializable.
    """
    try:
        data = joined(pieces_of(value, encode))
    except Exception:  # noqa: BLE001 - part of it is unusual, no data, or was changed meanwhile
        return encode(value)
    return encode(value) if any(contains(data, needle) for needle in stored_needles()) else data


def encode_any(value: object) -> bytes:
    """The same for any value; those who call it on the event loop does that by `beside_if_large`.

    Raises:
        UnstorableError: it is not serializable.
    """
    return encode_large(value) if is_large(value) else encode(value)


def _has_unreadable_number(data: bytes) -> bool:
    """Whether there may be a number that JSON has not or that is too long. (To look for one letter takes no time.)"""
    if (b"N" in data and b"NaN" in data) or (b"I" in data and b"Infinity" in data):
        return True
    return len(data) > 4300 and _MANY_DIGITS.search(data[::_FAR_APART]) is not None


def _encode_carefully(value: object) -> bytes:
    try:
        return to_json(ValueWriter().write(value, "", 0))
    except UnstorableError:
        raise
    except RecursionError:
        raise UnstorableError(too_deep("")) from None
    except Exception as error:
        raise UnstorableError(f"a {name_of(type(value))} cannot be stored: {describe_error(error)}") from error


def decode(data: bytes, *, unknown_ok: bool = False) -> Any:
    """The value of which `encode` made `data`.

    Args:
        unknown_ok: give an `UnknownValue` for an instance of a class that this program does not have, or that has other
            fields by now, and an `ErasedValue` for a value that was erased.

    Raises:
        StoreError: the bytes are damaged, or a class is unknown or has other fields by now.
        ValuesErased: it was erased on purpose.
    """
    try:
        if len(data) > LARGE:
            with contextlib.suppress(ValueError, LookupError):  # the text of an older version has no lines
                return value_in(data, unknown_ok)
        tree = from_json(data)
        return revive(tree, unknown_ok) if b"!" in data and _TAG_IN_BYTES in data else tree
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"a recorded value is damaged: {type(error).__name__}: {error}") from error


def keep_text(text: str) -> str:
    """A text of a run as a store keeps it: as it is, unless a registered secret stands in it. `kept_text` reads it."""
    if not text.startswith(_TAGGED) and parts_of(text) is None:
        return text
    return to_json(
        {"!": "with-secrets", "v": [text]} if parts_of(text) is None else ValueWriter().write(text, "", 0)
    ).decode()


def kept_text(text: str, *, unknown_ok: bool = False) -> str:
    """The text that was kept.

    Args:
        text: as the store has it.
        unknown_ok: put the name of a secret that this process does not have in its place.

    Raises:
        StoreError: the text has such a secret in it, or is damaged.
    """
    if not text.startswith(_TAGGED):
        return text
    found = decode(text.encode(), unknown_ok=unknown_ok)
    return found if isinstance(found, str) else text


def shown_value(data: bytes) -> str:
    """The typed JSON text of a value for people: what stands for a secret is its name."""
    try:
        text = to_json(_shown(from_json(data))).decode()
    except ValueError:
        text = data.decode("utf-8", "replace")
    return redact(text)


def _shown(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_shown(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    tag = tree.get("!")
    if tag == "secret":
        return f"<secret:{tree.get('name')}>"
    if tag in ("with-secrets", "base64") or "parts" in tree:
        return "".join(map(str, map(_shown, tree.get("v") or tree.get("parts") or [])))
    return {name: _shown(item) for name, item in tree.items()}


def encode_error(error: Exception) -> bytes:
    """The typed JSON text of an error: its class, text, arguments, notes, causes and those attributes that are data.

    Never raises: of an error that cannot be written down, the class and the text are.
    """
    try:
        data = to_json(ValueWriter().error(error, "", 0))
        if text_of(decode_error(data)) == text_of(error):
            return data
        node = ValueWriter().error(error, "", 0)
        node["reads"] = True
        return to_json(node)
    except Exception:  # noqa: BLE001 - whatever an error is made of, the failure is recorded
        return to_json(brief(error))


def decode_error(data: bytes, *, erased_ok: bool = True) -> Exception:
    """The error of which `encode_error` made `data`, or a `RecordedError` if its class is not loaded.

    One that was erased on purpose is a `RecordedError` without a text, unless `erased_ok` is False.

    Raises:
        StoreError: the bytes are damaged.
        ValuesErased: it was erased, and that is not `erased_ok`.
    """
    error = decode(data, unknown_ok=True)
    if isinstance(error, ErasedValue):
        if not erased_ok:
            raise ValuesErased("it was erased")
        return RecordedError("", kind=error.kind)
    if isinstance(error, Exception):
        return error
    raise StoreError(f"a recorded error is damaged: it is a {type(error).__name__}")
