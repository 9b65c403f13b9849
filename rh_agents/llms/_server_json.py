"""JSON from a server, which may be any program: it has the form that is asked for, or is an error."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from rh_agents.core.errors import IncompleteAnswer, UnreadableAnswer

_HALF = re.compile("[\ud800-\udfff]")


def unreadable(problem: str) -> UnreadableAnswer:
    """The error for an answer that has not the form of one."""
    return UnreadableAnswer(problem)


def read_json(data: bytes) -> dict[str, Any]:
    """An answer, or a piece of one.

    A lone half of a surrogate pair, which is left where an answer was cut off in the middle of a character, becomes a
    replacement character: it is legal JSON, but no text that could be sent or stored.

    Raises:
        UnreadableAnswer: it is JSON, but no object, or is nested too deeply.
        IncompleteAnswer: it is no JSON: cut off, damaged on its way, or the page of somebody in between.
    """
    try:
        value = from_json(data)
    except ValueError as error:
        value = _with_halves(data, error)
    if not isinstance(value, dict):
        raise unreadable(f"the answer is not a JSON object, but {kind_of(value)}")
    return value


def _with_halves(data: bytes, error: ValueError) -> Any:
    try:
        return _replaced(json.loads(data))
    except RecursionError:
        raise unreadable("the answer is nested too deeply") from error
    except ValueError:
        raise IncompleteAnswer(f"the answer is not JSON: {error}; it begins with {_beginning(data)}") from error


def _beginning(data: bytes) -> str:
    """Enough to see what it is, for instance somebody's page."""
    return repr(data.decode("utf-8", "replace").strip()[:60])


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_replaced(each) for each in value]
    if isinstance(value, dict):
        return {_HALF.sub("\ufffd", name): _replaced(each) for name, each in value.items()}
    return value


def object_at(value: Any, path: str) -> Mapping[str, Any]:
    """An object.

    Raises:
        UnreadableAnswer: it is something else.
    """
    if not isinstance(value, dict):
        raise unreadable(f"{path} is {kind_of(value)}, not an object")
    return value


def listed(value: Any, path: str) -> Sequence[Any]:
    """A list; nothing is an empty one.

    Raises:
        UnreadableAnswer: it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise unreadable(f"{path} is {kind_of(value)}, not a list")
    return value


def text_at(value: Any, path: str) -> str:
    """A text; nothing is an empty one.

    Raises:
        UnreadableAnswer: it is something else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise unreadable(f"{path} is {kind_of(value)}, not a text")
    return value


def kind_of(value: Any) -> str:
    """What a value is, for people."""
    return "null" if value is None else f"a {type(value).__name__}"
