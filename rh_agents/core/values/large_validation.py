"""Validating large values so that it can be done beside the event loop.

Pydantic validates in one long step of compiled code, which keeps the interpreter's lock: in a thread that holds up the
event loop just as well. It lets go of the lock where it calls a function of Python. So for large values there is a
second validator, made of the same schema, which calls one that does nothing for each element of a list, a set or a
mapping. It takes a little longer and comes to the same.

What no one can help: Python's garbage collector looks at everything that there is in one step, wherever a million
objects are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import TypeAdapter
from pydantic_core import SchemaValidator, core_schema

from rh_agents.core._base.sizes import is_large

__all__ = ["validate"]

_ELEMENTS = {"list": "items_schema", "set": "items_schema", "frozenset": "items_schema", "dict": "values_schema"}
"""Where the schema of what a container holds stands."""
_NOT_SCHEMAS = frozenset({"default", "metadata", "serialization", "expected"})
_pausing: WeakKeyDictionary[TypeAdapter[Any], Any] = WeakKeyDictionary()


def validate(adapter: TypeAdapter[Any], value: Any) -> Any:
    """What `adapter.validate_python(value)` gives; for a large value a thread lets others go on meanwhile.

    Raises:
        pydantic.ValidationError: it does not fit.
    """
    if not is_large(value):
        return adapter.validate_python(value)
    validator = _pausing.get(adapter)
    if validator is None:
        validator = _pausing[adapter] = _with_pauses(adapter)
    return validator.validate_python(value)


def _with_pauses(adapter: TypeAdapter[Any]) -> Any:
    """The validator; the adapter itself if this version of Pydantic makes none of such a schema."""
    try:
        schema = _pausing_schema(adapter.core_schema)
        return SchemaValidator(schema, _use_prebuilt=False)  # nested models have validators of their own
    except Exception:  # noqa: BLE001 - how schemas look is Pydantic's own affair; without pauses it is right as well
        return adapter


def _pausing_schema(schema: Any) -> Any:
    """The schema with a function around the schema of each element."""
    if isinstance(schema, list):
        return [_pausing_schema(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    copy = {name: part if name in _NOT_SCHEMAS else _pausing_schema(part) for name, part in schema.items()}
    where = _ELEMENTS.get(schema.get("type", ""))
    if where in copy:
        copy[where] = core_schema.no_info_before_validator_function(_same, copy[where])
    return copy


def _same(value: Any) -> Any:
    return value
