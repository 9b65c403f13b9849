"""What a call was called with, as its outcome says it (`record_inputs`): for people, and no part of its identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rh_agents.core.errors import UnstorableError
from rh_agents.core.redaction.excerpts import RecordInputs, cut, excerpt
from rh_agents.core.values import encode, is_large, shown_value

__all__ = ["BRIEF", "BRIEF_OF_FAILURE", "FULL", "recorded_input"]

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
