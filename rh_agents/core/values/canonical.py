"""The canonical form of an input: equal inputs give equal bytes, on every machine and in every process.

It is the ASCII text of a Python literal (`ascii()` does not depend on the Unicode version, as `repr()` does). Numbers
keep their kind (`1`, `1.0` and `True` differ), mappings and sets are sorted, models and dataclasses carry the recorded
name of their class (`rh_agents.core.values.names`), so that two models with equal fields are two different inputs.
Lists and tuples are the same.

The form of a large input is written in pieces (`CanonicalInput.pieces`), which together are the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from rh_agents.core.errors import DefinitionError
from rh_agents.core.redaction import Secret
from rh_agents.core.values.large import is_large
from rh_agents.core.values.large_inputs import InPieces
from rh_agents.core.values.names import FIELDS, form_of, recorded_name

__all__ = ["CanonicalInput", "canonical", "canonical_arguments"]

_ATOMS = frozenset({str, int, float, bool, type(None), bytes})
_FIXED = frozenset({int, float, bool, type(None)})
"""Arguments of these types alone are not large; most calls have few others."""
_TEXTUAL = (datetime, date, time, timedelta, Decimal, UUID, complex)


class CanonicalInput:
    """The input of a call, whose canonical form can be had at once or in pieces.

    Args:
        value: the input; or the arguments of a function, in the order of its parameters.
        are_arguments: whether it is those.
        suffix: what else the key is to hold.
    """

    __slots__ = ("_are_arguments", "_suffix", "_value", "is_large")

    def __init__(self, value: Any, *, are_arguments: bool = False, suffix: bytes = b"") -> None:
        self._value = value
        self._are_arguments = are_arguments
        self._suffix = suffix
        self.is_large: bool = not (are_arguments and _FIXED.issuperset(map(type, value.values()))) and is_large(value)
        """Whether to write it takes so long that others would notice. That is so for all equal inputs, or for none."""

    def whole(self) -> bytes:
        """The canonical form.

        Raises:
            DefinitionError: it is not data.
        """
        data = canonical_arguments(self._value) if self._are_arguments else canonical(self._value)
        return data + self._suffix if self._suffix else data

    def pieces(self, how: InPieces | None = None) -> list[bytes]:
        """The same in pieces. A thread that makes them lets the others go on meanwhile.

        Raises:
            DefinitionError: it is not data.
        """
        with _refusals():
            how = how or InPieces()
            texts = self._argument_pieces(how) if self._are_arguments else how.pieces(_literal(self._value, how))
            return [*(text.encode("ascii") for text in texts), self._suffix]

    def _argument_pieces(self, how: InPieces) -> Iterator[str]:
        start = "{"
        for name, value in self._value.items():
            yield f"{start}{name!a}: "
            yield from how.pieces(_literal(value, how))
            start = ", "
        yield "{}" if start == "{" else "}"


class _AtOnce:
    """How the parts of a literal are made; see `InPieces` for large ones."""

    text = staticmethod(ascii)
    in_order = staticmethod(sorted)
    content = staticmethod(bytes)

    @staticmethod
    def items(value: Iterable[Any], literal: Callable[[Any], object]) -> Any:
        """The literals of the elements of a list or a tuple."""
        return [literal(item) for item in value]


_AT_ONCE = _AtOnce()


def canonical(value: object) -> bytes:
    """The bytes that stand for `value` in a key.

    Raises:
        DefinitionError: the value is not data (a client, a connection, a function). The message names its type.
    """
    with _refusals():
        return ascii(_literal(value)).encode("ascii")


def canonical_arguments(arguments: Mapping[str, object]) -> bytes:
    """The same for the arguments of a function, in the order of its parameters.

    Raises:
        DefinitionError: an argument is not data.
    """
    if _ATOMS.issuperset(map(type, arguments.values())):
        try:
            return ascii(arguments).encode("ascii")
        except ValueError:  # an integer with thousands of digits; what follows says so
            pass
    with _refusals():
        return ascii({name: _literal(value) for name, value in arguments.items()}).encode("ascii")


@contextmanager
def _refusals() -> Iterator[None]:
    """Say it in our own words where Python itself refuses to write a value down."""
    try:
        yield
    except RecursionError as error:
        raise DefinitionError("an input contains itself, or is nested too deeply to be written down") from error
    except ValueError as error:
        raise DefinitionError(f"an input cannot be written down: {error}") from error


def _literal(value: object, how: Any = _AT_ONCE) -> object:
    """The value as nested lists of atoms. A tuple marks everything that is neither an atom nor a list."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, list | tuple) and kind in (list, tuple):
        # With all arguments: Python 3.13.0 does not look at the recursion limit when it fills in defaults.
        return [_literal(item, how) for item in value] if how is _AT_ONCE else _items(value, how)
    if isinstance(value, dict) and kind is dict:
        return ("dict", _pairs(value, how))
    return _tagged(value, how)


def _items(value: list[Any] | tuple[Any, ...], how: Any) -> object:
    return how.items(value, lambda item: _literal(item, how))


def _pairs(value: Mapping[Any, Any], how: Any) -> object:
    text = how.text
    return how.in_order([text(_literal(key, how)), text(_literal(item, how))] for key, item in value.items())


def _tagged(value: object, how: Any) -> object:
    if isinstance(value, Secret):
        return ("secret", value.name)  # a changed password is the same input
    if isinstance(value, Enum):
        return (recorded_name(type(value)), _literal(value.value, how))
    if isinstance(value, BaseModel):
        return (*_named_fields(value, how), _extra(value, how))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _named_fields(value, how)
    name = recorded_name(type(value))
    if isinstance(value, bytearray | memoryview):
        return (name, how.content(value))
    if isinstance(value, Mapping):
        return (name, _pairs(value, how))
    if isinstance(value, Set):
        return ("set", how.in_order(how.text(_literal(item, how)) for item in value))
    if isinstance(value, PurePath):
        return ("path", str(value))  # its class has changed its module between versions of Python
    if isinstance(value, _TEXTUAL) or type(value).__module__ == "pydantic.networks":
        return (name, str(value))
    if isinstance(value, str | int | float | bytes):
        return (name, _as_atom(value))
    if isinstance(value, tuple) and name in FIELDS:
        return _named_items(value, how)
    if isinstance(value, list | tuple):
        return (name, _items(value, how))
    raise DefinitionError(
        f"a {name} is not data, so a call with it cannot be recognised when the run is started again; mark the "
        "parameter `Annotated[..., Injected]` to leave it out of the key, or give the call `key=`"
    )


def _named_fields(value: object, how: Any) -> tuple[str, list[object]]:
    """The name of a class and the fields of an instance: a field that came later, only if it is set."""
    name, always, late = form_of(type(value))
    return name, [*([field, _literal(getattr(value, field), how)] for field in always), *_set_fields(value, late, how)]


def _named_items(value: tuple[Any, ...], how: Any) -> object:
    """The same for a named tuple of ours, whose fields have no names here."""
    name, always, late = form_of(type(value))
    found = _set_fields(value, late, how)
    items = [_literal(getattr(value, field), how) for field in always]
    return (name, items, found) if found else (name, items)


def _set_fields(value: object, late: Mapping[str, Callable[[], Any]], how: Any) -> list[object]:
    found: list[object] = []
    for field, default in late.items():
        item, unset = getattr(value, field), default()
        if item is not unset and how.text(_literal(item, how)) != ascii(_literal(unset)):
            found.append([field, _literal(item, how)])
    return found


def _extra(model: BaseModel, how: Any) -> object:
    """Fields beyond the declared ones come in whatever order the input had."""
    return how.in_order([field, how.text(_literal(item, how))] for field, item in (model.model_extra or {}).items())


def _as_atom(value: str | int | float | bytes) -> object:
    """A subclass of an atom may write itself in its own way; only its value counts."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    return int(value) if isinstance(value, int) else float(value)
