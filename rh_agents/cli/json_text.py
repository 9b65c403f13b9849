"""JSON as people write it, in which a key that stands twice is refused, and as commands write it for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

__all__ = ["RepeatedKey", "json_line", "read_json", "schema_of"]


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


def json_line(kind: str, record: Mapping[str, Any]) -> str:
    """A line for programs: an object that says first what it is, and in which version.

    Fields may be added to a version; where one is taken away or means something else, it is the next one.
    """
    return json.dumps({"schema": schema_of(kind), **record}) + "\n"


def schema_of(kind: str) -> str:
    """The name of what a command writes with `--json`."""
    return f"rh-agents/{kind}/1"
