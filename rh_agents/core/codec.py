"""The canonical form of an input: equal inputs give equal bytes, on every machine and in every process.

It is the ASCII text of a Python literal (`ascii()` does not depend on the Unicode version, as `repr()` does). Numbers
keep their kind (`1`, `1.0` and `True` differ), mappings and sets are sorted, models and dataclasses carry the recorded
name of their class (`rh_agents.core._names`), so that two models with equal fields are two different inputs. Lists and
tuples are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from rh_agents.core._names import FIELDS, form_of, recorded_name
from rh_agents.core.errors import DefinitionError
from rh_agents.core.redaction import Secret

__all__ = ["canonical", "canonical_arguments"]

_ATOMS = frozenset({str, int, float, bool, type(None), bytes})
_TEXTUAL = (datetime, date, time, timedelta, Decimal, UUID, complex)


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


def _literal(value: object) -> object:
    """The value as nested lists of atoms. A tuple marks everything that is neither an atom nor a list."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, list | tuple) and kind in (list, tuple):
        return [_literal(item) for item in value]
    if isinstance(value, dict) and kind is dict:
        return ("dict", sorted([ascii(_literal(key)), ascii(_literal(item))] for key, item in value.items()))
    return _tagged(value)


def _tagged(value: object) -> object:
    if isinstance(value, Secret):
        return ("secret", value.name)  # a changed password is the same input
    if isinstance(value, Enum):
        return (recorded_name(type(value)), _literal(value.value))
    if isinstance(value, BaseModel):
        return (*_named_fields(value), _extra(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _named_fields(value)
    name = recorded_name(type(value))
    if isinstance(value, bytearray | memoryview):
        return (name, bytes(value))
    if isinstance(value, Mapping):
        return (name, sorted([ascii(_literal(key)), ascii(_literal(item))] for key, item in value.items()))
    if isinstance(value, Set):
        return ("set", sorted(ascii(_literal(item)) for item in value))
    if isinstance(value, PurePath):
        return ("path", str(value))  # its class has changed its module between versions of Python
    if isinstance(value, _TEXTUAL) or type(value).__module__ == "pydantic.networks":
        return (name, str(value))
    if isinstance(value, str | int | float | bytes):
        return (name, _as_atom(value))
    if isinstance(value, tuple) and name in FIELDS:
        return _named_items(value)
    if isinstance(value, list | tuple):
        return (name, [_literal(item) for item in value])
    raise DefinitionError(
        f"a {name} is not data, so a call with it cannot be recognised when the run is started again; mark the "
        "parameter `Annotated[..., Injected]` to leave it out of the key, or give the call `key=`"
    )


def _named_fields(value: object) -> tuple[str, list[object]]:
    """The name of a class and the fields of an instance: a field that came later, only if it is set."""
    name, always, late = form_of(type(value))
    return name, [*([field, _literal(getattr(value, field))] for field in always), *_set_fields(value, late)]


def _named_items(value: tuple[Any, ...]) -> object:
    """The same for a named tuple of ours, whose fields have no names here."""
    name, always, late = form_of(type(value))
    found = _set_fields(value, late)
    items = [_literal(getattr(value, field)) for field in always]
    return (name, items, found) if found else (name, items)


def _set_fields(value: object, late: Mapping[str, Callable[[], Any]]) -> list[object]:
    found: list[object] = []
    for field, default in late.items():
        item, unset = getattr(value, field), default()
        if item is not unset:
            literal = _literal(item)
            if ascii(literal) != ascii(_literal(unset)):
                found.append([field, literal])
    return found


def _extra(model: BaseModel) -> object:
    """Fields beyond the declared ones come in whatever order the input had."""
    return sorted([field, ascii(_literal(item))] for field, item in (model.model_extra or {}).items())


def _as_atom(value: str | int | float | bytes) -> object:
    """A subclass of an atom may write itself in its own way; only its value counts."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    return int(value) if isinstance(value, int) else float(value)
