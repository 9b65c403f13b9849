"""Recorded values as text for a browser, also those whose classes this process does not have: it loads no program."""

from __future__ import annotations

from typing import Any, Final

from pydantic_core import from_json, to_json

from rh_agents.core.errors import UnstorableError
from rh_agents.core.results import Outcome
from rh_agents.core.values import UnknownValue, encode_any, encode_error, shown_value

__all__ = ["recorded_text", "value_text"]

_DEEPEST: Final = 200


def value_text(outcome: Outcome) -> str:
    """What a call returned or raised, as typed JSON text without secrets."""
    return shown_value(recorded_text(outcome))


def recorded_text(outcome: Outcome) -> bytes:
    """The same with the references that stand for secrets, so that two of them can be compared."""
    if outcome.error is not None:
        return encode_error(outcome.error)
    try:
        return encode_any(outcome.value)
    except UnstorableError:  # there is an instance of a class in it that only the program has
        return to_json(_tree(outcome.value, 0))


def _tree(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, UnknownValue):
        return {"!": "unknown", "class": value.class_name, "v": _tree(value.data, depth + 1)}
    if isinstance(value, dict):
        return {str(name): _tree(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_tree(each, depth + 1) for each in value]
    try:
        return from_json(encode_any(value))
    except UnstorableError:
        return repr(value)
