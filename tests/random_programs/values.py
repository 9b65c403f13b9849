"""What calls return and raise, and how what a program sees of it is put into words.

Every value carries the nonce of the time at which it was made, wherever it can: a value that was made twice, or that
was given to somebody else, is another value.
"""

from __future__ import annotations

import enum
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from pydantic import BaseModel

from rh_agents import ExecutionResult, GroupTimeout, TooManyFailures, storable

__all__ = [
    "ERRORS",
    "KINDS",
    "Boom",
    "describe",
    "describe_result",
    "make_error",
    "make_value",
    "nonces_in",
    "without_nonces",
]

_NONCE = re.compile(r"~([^~]*)~")
_KEY = re.compile(r"its idempotency key is [0-9a-f]{40}")


def nonces_in(text: str) -> list[str]:
    """The nonces in a description."""
    return _NONCE.findall(text)


def without_nonces(text: str) -> str:
    """What a description says that does not depend on when it was made, nor on the name of the run."""
    return _KEY.sub("its key", _NONCE.sub("~", text))


@storable
class Page(BaseModel):
    """A result that is a model."""

    title: str
    links: list[str]
    parent: Page | None = None


@storable
@dataclass(frozen=True)
class Place:
    """A result that is a dataclass."""

    name: str
    at: tuple[int, float]


@storable
class Colour(enum.Enum):
    """A result that is an enum."""

    RED = "red"
    BLUE = "blue"


@storable
class Pair(NamedTuple):
    """A result that is a named tuple."""

    first: str
    second: bytes


class Boom(Exception):
    """A failure."""


class Coded(Exception):
    """A failure with attributes of its own."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


def _large(label: str, nonce: str) -> str:
    return f"{label} {nonce} " * 4_000


_VALUES: dict[str, Callable[[str, str], Any]] = {
    "text": lambda label, nonce: f"{label} {nonce}",
    "none": lambda label, nonce: None,
    "number": lambda label, nonce: len(label) * 1.5,
    "bytes": lambda label, nonce: f"{label} {nonce}".encode() + b"\0\xff",
    "set": lambda label, nonce: {label, nonce, "both"},
    "frozenset": lambda label, nonce: frozenset({(label, nonce), (nonce, label)}),
    "dict": lambda label, nonce: {(label, 1): [nonce, None, True], "when": datetime(2026, 1, 2, tzinfo=UTC)},
    "tuple": lambda label, nonce: (label, nonce, Decimal("1.50"), -0.0),
    "model": lambda label, nonce: Page(title=label, links=[nonce], parent=Page(title="", links=[])),
    "dataclass": lambda label, nonce: Place(f"{label} {nonce}", (1, 0.5)),
    "enum": lambda label, nonce: [Colour.RED, Colour.BLUE, nonce],
    "pair": lambda label, nonce: Pair(label, nonce.encode()),
    "large": _large,
    "large bytes": lambda label, nonce: nonce.encode() + b"\0" * 50_000,
    "error": lambda label, nonce: Boom(label, nonce),
    "unstorable": lambda label, nonce: object(),
}
KINDS: tuple[str, ...] = tuple(_VALUES)
"""Kinds of results."""


def make_value(kind: str, label: str, nonce: str) -> Any:
    """What a call returns."""
    return _VALUES[kind](label, f"~{nonce}~")


def _noted(text: str) -> Exception:
    error = Boom(text)
    error.add_note("a note")
    return error


def _caused(text: str) -> Exception:
    try:
        raise Coded(text, code=5) from ValueError("cause", 1)
    except Coded as error:
        return error


_ERRORS: dict[str, Callable[[str], Exception]] = {
    "boom": lambda text: Boom(text, 7),
    "value": ValueError,
    "coded": lambda text: Coded(text, code=429),
    "noted": _noted,
    "caused": _caused,
    "several": lambda text: ExceptionGroup("several", [Boom(text), KeyError("k")]),
    "timeout": TimeoutError,
}
ERRORS: tuple[str, ...] = tuple(_ERRORS)
"""Kinds of failures."""


def make_error(kind: str, label: str, nonce: str) -> Exception:
    """What a call raises."""
    return _ERRORS[kind](f"{label} ~{nonce}~")


# -- in words ----------------------------------------------------------------------------------------------------------


def describe(value: Any) -> str:
    """All that can be seen of a value, in words. Equal values of one type have equal descriptions."""
    if isinstance(value, str):
        return f"'{value}'" if len(value) < 2_000 else _brief(value)
    if isinstance(value, bytes):
        return f"b{describe(value.decode('latin-1'))}"
    if isinstance(value, ExecutionResult):
        return describe_result(value)
    if isinstance(value, BaseException):
        return _describe_error(value)
    if isinstance(value, BaseModel):
        return _with_name(value, {name: getattr(value, name) for name in type(value).model_fields})
    if is_dataclass(value) and not isinstance(value, type):
        return _with_name(value, {each.name: getattr(value, each.name) for each in fields(value)})
    if isinstance(value, dict):
        return "{" + ", ".join(f"{describe(key)}: {describe(each)}" for key, each in value.items()) + "}"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({', '.join(sorted(describe(each) for each in value))})"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(describe(each) for each in value)})"
    return f"{type(value).__name__} {value!r}"


def describe_result(result: ExecutionResult[Any], *, timeless: bool = False) -> str:
    """What can be seen of a result; `timeless` leaves out what depends on which of two equal calls came first."""
    what = describe(result.result) if result.ok else describe(result.error)
    attempts = "" if timeless else f" after {result.attempts}"
    return f"#{result.index} {result.name} {'gave' if result.ok else 'failed with'} {what}{attempts}"


def _brief(text: str) -> str:
    nonces = "".join(f"~{nonce}~" for nonce in sorted(set(nonces_in(text))))
    return f"<{len(without_nonces(text))} letters {zlib.crc32(without_nonces(text).encode())} {nonces}>"


def _with_name(value: Any, parts: dict[str, Any]) -> str:
    return f"{type(value).__name__}({', '.join(f'{name}={describe(each)}' for name, each in parts.items())})"


def _describe_error(error: BaseException) -> str:
    parts = [f"{type(error).__name__}: {error}", f"args {describe(error.args)}"] if _is_ours(error) else [str(error)]
    if isinstance(error, Coded):
        parts.append(f"code {error.code}")
    parts += [f"note {note}" for note in getattr(error, "__notes__", ())]
    if isinstance(error, GroupTimeout | TooManyFailures):
        parts += [describe_result(result) for result in error.results]
    if isinstance(error, BaseExceptionGroup):
        parts += [describe(each) for each in error.exceptions]
    if isinstance(error.__cause__, Exception):  # a cancellation is no part of what is recorded
        parts.append(f"because of {describe(error.__cause__)}")
    return f"<{type(error).__name__} {'; '.join(parts)}>"


def _is_ours(error: BaseException) -> bool:
    """Whether the arguments are data of ours, and not objects in which there would be more than can be seen."""
    return not isinstance(error, BaseExceptionGroup | GroupTimeout | TooManyFailures)
