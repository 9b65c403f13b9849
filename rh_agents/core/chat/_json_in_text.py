"""The JSON in what a model wrote, whatever it wrote around it.

Models that are asked for JSON think aloud first, put it into a Markdown block, begin with "Sure!", end with wishes, or
let the marks of their chat template slip through. To ask again costs as much as the first time, so all of that is
passed over: what counts are the outermost objects and lists in the text. Three things are never done, since they would
make a wrong answer of it: a part of broken JSON is not taken for the whole, of several different values that fit none
is chosen, and what stands in the thoughts of a model is no answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_TAGS = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad"
_THOUGHTS = re.compile(rf"^.*(?:</(?:{_TAGS})>|\[/THINK\])", re.DOTALL | re.IGNORECASE)
"""Up to the end of the last thoughts. Some templates leave the opening tag to the prompt."""
_ONLY_THOUGHTS = re.compile(rf"^\s*(?:<(?:{_TAGS})>|\[THINK\])", re.IGNORECASE)
"""Thoughts that have no end."""
_OPENING = re.compile(r"[{\[]")
_STRING_OR_BRACKET = re.compile(r'"(?:\\.|[^"\\])*"|[{}\[\]"]', re.DOTALL)
_STRING_OR_LAST_COMMA = re.compile(r'"(?:\\.|[^"\\])*"|,(?=\s*[}\]])', re.DOTALL)
_MOST_VALUES = 100
_decoder = json.JSONDecoder()


def read_json_in(text: str, read: Callable[[str], T], name: str = "answer") -> T:
    """The value that the JSON in a text stands for.

    Args:
        text: what the model wrote.
        read: makes a value of JSON text, or raises a `ValueError` if it does not fit.
        name: what the value is called. An object that has nothing but this name, or "answer", stands for what is in it.

    Raises:
        ValueError: there is none that fits, or there are several different ones.
    """
    bare = text.strip("\ufeff \t\r\n")
    try:
        return read(bare)
    except ValueError as error:
        problem = error
    fitting: list[tuple[Any, T]] = []
    first: ValueError | None = None
    for candidate in _candidates(bare):
        try:
            value = _read_or_unwrap(candidate, read, name)
        except ValueError as error:
            first = first or error
            continue
        data = json.loads(candidate)
        if all(data != other for other, _ in fitting):
            fitting.append((data, value))
    if len(fitting) > 1:
        raise ValueError(f"there are {len(fitting)} different answers in the text, and exactly one is wanted")
    if fitting:
        return fitting[0][1]
    raise first or problem


def _read_or_unwrap(candidate: str, read: Callable[[str], T], name: str) -> T:
    """Read JSON, or the only thing in it. What is wrong with it is said about the whole."""
    try:
        return read(candidate)
    except ValueError as error:
        data = json.loads(candidate)
        if isinstance(data, list) and len(data) == 1:
            (inner,) = data
        elif isinstance(data, dict) and len(data) == 1 and next(iter(data)).lower() in ("answer", name.lower()):
            (inner,) = data.values()
        else:
            raise
        try:
            return read(json.dumps(inner))
        except ValueError:
            raise error from None


def _candidates(text: str) -> Iterator[str]:
    said = _THOUGHTS.sub("", text, count=1)
    if _ONLY_THOUGHTS.match(said):
        return
    try:
        quoted = json.loads(said)
    except (ValueError, RecursionError):
        quoted = None
    if isinstance(quoted, str):  # JSON in a string of JSON
        said = quoted
    for number, value in enumerate(_outermost(said)):
        if number == _MOST_VALUES:
            return
        yield value


def _outermost(text: str) -> Iterator[str]:
    """The objects and lists in a text. What is broken is passed over up to its end, or with all the rest."""
    at = 0
    while (opening := _OPENING.search(text, at)) is not None:
        start = opening.start()
        try:
            _, at = _decoder.raw_decode(text, start)
            yield text[start:at]
            continue
        except (ValueError, RecursionError):
            end = _closing(text, start)
        if end is None:
            return
        mended = _STRING_OR_LAST_COMMA.sub(lambda found: "" if found[0] == "," else found[0], text[start:end])
        if mended != text[start:end] and _is_json(mended):
            yield mended
        at = end


def _closing(text: str, start: int) -> int | None:
    """Where the bracket at this place is closed."""
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text, start):
        if found[0] == '"':
            return None  # a string without an end
        if found[0] in "{[":
            depth += 1
        elif found[0] in "}]":
            depth -= 1
            if depth == 0:
                return found.end()
    return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
