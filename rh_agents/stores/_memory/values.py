"""Outcomes as they are kept in memory: what could be changed from outside is text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rh_agents.core.events import Fact
from rh_agents.core.ports.keeping import kind_of_error
from rh_agents.core.results import Outcome, describe_error
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.values import (
    ERASED,
    decode,
    decode_error,
    encode,
    encode_error,
    erased_value,
    is_erased_value,
)
from rh_agents.core.values.large import LARGE
from rh_agents.stores._repeated import says_the_same

AS_THEY_ARE: Final = frozenset({str, int, float, bool, type(None), bytes})
"""What cannot be changed from outside."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value as typed JSON text in UTF-8."""

    data: bytes


def written(outcome: Outcome, encode: Callable[[object], bytes] = encode) -> Outcome:
    """The outcome as it is kept: what could be changed from outside is turned into text."""
    if outcome.error is None and type(outcome.value) in AS_THEY_ARE:
        return outcome
    error: Any = None if outcome.error is None else encode_error(outcome.error)
    return outcome._replace(value=Encoded(encode(outcome.value)), error=error)


def is_erased(stored: Outcome) -> bool:
    return isinstance(stored.value, Encoded) and is_erased_value(stored.value.data)


def erased_outcome(stored: Outcome) -> Outcome:
    error: Any = stored.error
    if error is not None and not isinstance(error, bytes):
        error = encode_error(error)
    kind = "" if error is None else kind_of_error(describe_error(decode_error(error))) or "Exception"
    erased: Any = None if error is None else erased_value(kind)
    return stored._replace(value=Encoded(ERASED), error=erased, input=None)


def erased_fact(fact: Fact) -> Fact:
    """The fact without what the program has put there, and without texts of errors."""
    more = {name: value for name, value in (fact.more or {}).items() if name != "metadata"}
    group = more.get("group")
    if group is not None and group.ending is not None:
        more["group"] = group.model_copy(update={"ending": group.ending.model_copy(update={"message": None})})
    has_failed = fact.status in (ExecutionStatus.FAILED, ExecutionStatus.RETRYING, ExecutionStatus.CANCELLED)
    has_failed = has_failed and fact.kind is not EventType.CONTROL  # its message is a reason of a person
    message = kind_of_error(fact.message or "") if has_failed else ""
    return fact._replace(result=None, message=message or None, more=more or None)


def size_of(stored: Outcome) -> int:
    """Bytes of the text of an outcome."""
    if not isinstance(stored.value, Encoded):
        return len(encode(stored.value))
    error: Any = stored.error
    return len(stored.value.data if error is None else error)


def is_long(stored: Outcome) -> bool:
    """Whether an outcome is kept as text that is to be read in a thread."""
    if not isinstance(stored.value, Encoded):
        return False
    error: Any = stored.error
    return len(stored.value.data) > LARGE or (error is not None and len(error) > LARGE)


def read_stored(stored: Outcome, *, unknown_ok: bool = False) -> Outcome:
    if stored.input is not None:
        stored = stored._replace(input=None)  # as other stores, which keep it apart
    if not isinstance(stored.value, Encoded):
        return stored
    error: Any = stored.error
    value = decode(stored.value.data, unknown_ok=unknown_ok)
    return stored._replace(value=value, error=None if error is None else decode_error(error, erased_ok=unknown_ok))


def is_same(stored: Outcome, other: Outcome) -> bool:
    """Whether two outcomes, as they are kept, have the same value or the same error."""
    if isinstance(stored.value, Encoded) and isinstance(other.value, Encoded):
        return stored.error == other.error and says_the_same(stored.value.data, other.value.data)
    return repr((stored.value, stored.error)) == repr((other.value, other.error))


def with_edit(fact: Fact, outcome: Outcome) -> tuple[Fact, Outcome]:
    """The fact about a call with another outcome than it had, and that outcome as it is kept."""
    error = outcome.error
    changed = fact._replace(
        status=ExecutionStatus.COMPLETED if error is None else ExecutionStatus.FAILED,
        result=outcome.value if error is None else None,
        message=None if error is None else describe_error(error),
        seconds=outcome.seconds,
        attempt=outcome.attempts,
    )
    return changed, written(outcome)


async def read_beside(stored: Outcome, *, unknown_ok: bool = False) -> Outcome:
    """The same; what is long is read in a thread."""
    if is_long(stored):
        return await asyncio.to_thread(read_stored, stored, unknown_ok=unknown_ok)
    return read_stored(stored, unknown_ok=unknown_ok)
