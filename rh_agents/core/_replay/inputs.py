"""What calls and runs were called with, as it is kept: of calls for people (`record_inputs`), of runs to compare it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final

from rh_agents.core.errors import DefinitionError, UnstorableError
from rh_agents.core.redaction.excerpts import RecordInputs, cut, excerpt
from rh_agents.core.values import encode, encode_any, is_large, shown_value
from rh_agents.core.values.canonical import CanonicalInput
from rh_agents.core.values.pieces import joined

__all__ = ["BRIEF", "BRIEF_OF_FAILURE", "FULL", "kept_input", "recorded_input"]

BRIEF: Final = 256
BRIEF_OF_FAILURE: Final = 2 * 1024
"""Bytes of a call that succeeded, and of one that failed: that is the one of which somebody wants to know."""
FULL: Final = 64 * 1024
"""Bytes of one that is to be recorded as a whole."""


def recorded_input(given: Callable[[], Any], how: RecordInputs, *, ok: bool) -> str:
    """The text that is recorded of what `given` gives. Never raises: whatever that is, the outcome counts."""
    try:
        if how is RecordInputs.FULL:
            return _whole(given())
        return excerpt(given(), BRIEF if ok else BRIEF_OF_FAILURE)
    except Exception as error:  # noqa: BLE001 - it is the program's, and may be changed by another thread meanwhile
        return f"<not shown: {type(error).__name__}>"


def _whole(given: Any) -> str:
    """Typed JSON, as results are stored; of what is large, or no data, as much as there is room for."""
    if is_large(given):
        return excerpt(given, FULL)
    try:
        return cut(shown_value(encode(given)), FULL)
    except UnstorableError:
        return excerpt(given, FULL)


def kept_input(data: Any) -> tuple[bytes | None, bytes | None]:
    """The input of a run as it is kept, and what equal ones have in common. Of what is no data its type is kept."""
    if data is None:
        return None, None
    parts = data if isinstance(data, dict) else {"": data}
    digest = sha256()
    for piece in _canonical({name: joined(_described(value)) for name, value in parts.items()}):
        digest.update(piece)
    try:
        return encode_any(data), digest.digest()
    except UnstorableError:
        return encode_any({str(name): _storable(value) for name, value in parts.items()}), digest.digest()


def _canonical(value: Any) -> Sequence[bytes]:
    found = CanonicalInput(value)
    return found.pieces() if found.is_large else [found.whole()]


def _described(value: Any) -> Sequence[bytes]:
    try:
        return _canonical(value)
    except DefinitionError:
        return [f"a {type(value).__qualname__}".encode()]


def _storable(value: Any) -> Any:
    try:
        encode_any(value)
    except UnstorableError:
        return f"<{type(value).__qualname__}>"
    return value
