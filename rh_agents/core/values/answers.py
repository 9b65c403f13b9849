"""Whether an answer fits the question, seen by someone who has only the question's JSON schema.

The program that asks may be on another machine, or not running at all; when it goes on it reads the answer as the type
that it asked for. Until then an answer that does not fit would stand there as one. So it is held against the schema
when it is given. That is a little stricter than Pydantic is, which also takes `"5"` for a number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rh_agents.core.errors import InputError, StoreError
from rh_agents.core.redaction import stored_needles
from rh_agents.core.values import decode, encode

__all__ = ["expect_fitting", "expect_json", "given_answer", "kept_answer", "kept_arguments", "why_not_fitting"]

_SHOWN = 3
_LONGEST = 200


def expect_json(answer: bytes) -> None:
    """Refuse an answer that is no JSON text at all, which no store takes.

    Raises:
        StoreError: it is none.
    """
    try:
        json.loads(answer)
    except ValueError as error:
        raise StoreError(f"an answer is JSON text, and this is not: {error}") from error


def expect_fitting(schema: str | None, answer: bytes) -> None:
    """Refuse an answer that does not fit the schema of its question. Both are JSON.

    Raises:
        InputError: it does not, or it is no JSON.
    """
    if schema is None:
        return
    try:
        value = json.loads(answer)  # also takes halves of surrogate pairs, which an answer may have in it
    except ValueError as error:
        raise InputError(f"the answer is not JSON: {error}") from error
    problem = why_not_fitting(schema, value)
    if problem is not None:
        raise InputError(f"the answer does not fit: {problem}")


_TYPED = b'{"!":"answer","v":'
"""How an answer begins that is kept as typed JSON (see `rh_agents.core.values`), and not as plain JSON."""

_REFERENCE = b'{"!":"secret"'
"""What typed JSON has in the place of a secret. It stands in no text, where quotes would be escaped."""


def kept_answer(answer: bytes) -> bytes:
    """An answer as a store keeps it: as it is, unless a registered secret stands in it.

    What only looks like typed JSON is written so as well: no one gets a secret by answering with a reference to it.
    """
    if not stored_needles() and b'"!"' not in answer:
        return answer
    data = encode(json.loads(answer))
    return _TYPED + data + b"}" if _REFERENCE in data or b'"!"' in answer else answer


def kept_arguments(verb: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked of a run as a store keeps it: the value of a signal, which is JSON text, as an answer."""
    if verb != "signal":
        return dict(arguments)
    return {**arguments, "value": kept_answer(str(arguments["value"]).encode()).decode()}


def given_answer(kept: bytes) -> bytes:
    """The answer as it was given, with the secrets that this process has.

    Raises:
        StoreError: a secret in it is not registered here.
    """
    return json.dumps(decode(kept[len(_TYPED) : -1])).encode() if kept.startswith(_TYPED) else kept


def why_not_fitting(schema: str, value: Any) -> str | None:
    """What is wrong with a value; None if it fits, or if the schema is none that can be checked."""
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415 - takes time, and few programs ask
    from referencing import Registry  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    try:
        about = json.loads(schema)
        Draft202012Validator.check_schema(about)
        # An empty registry: nothing that a schema refers to is ever fetched.
        found = sorted(Draft202012Validator(about, registry=Registry()).iter_errors(value), key=lambda each: each.path)
    except (ValueError, SchemaError, Unresolvable):
        return None
    if not found:
        return None
    texts = [": ".join(filter(None, [".".join(map(str, each.path)), _shown(each.message)])) for each in found[:_SHOWN]]
    return "; ".join(texts)


def _shown(message: str) -> str:
    return message if len(message) <= _LONGEST else f"…{message[-_LONGEST:]}"
