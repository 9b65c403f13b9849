"""JSON as people write it: an object that has a key twice is refused, since its value is ambiguous."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json

__all__ = ["RepeatedKey", "read_json"]


class RepeatedKey(ValueError):
    """The text is JSON, and one of its objects has a key twice."""


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON.
        RepeatedKey: one of its objects has a key twice, of which parsers take the last in silence.
    """
    value = from_json(text)
    if isinstance(value, dict | list) and not _has_no_repetition(text, value):
        _decode(text if isinstance(text, str) else text.decode("utf-8", "surrogatepass"))
    return value


def _has_no_repetition(text: str | bytes, value: dict[str, Any] | list[Any]) -> bool:
    """Whether that can be seen at once: each pair has a colon, so there are no more pairs than colons."""
    colons = text.count(":") if isinstance(text, str) else text.count(b":")
    return colons == (len(value) if isinstance(value, dict) else 0)


def _without_repetition(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) == len(pairs):
        return
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise RepeatedKey(f"the key {name!r:.80} appears twice in one object, so its value is ambiguous")
        seen.add(name)


_decode = json.JSONDecoder(object_pairs_hook=_without_repetition).decode
