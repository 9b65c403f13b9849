"""The canonical form of an input: equal inputs give equal bytes, on every machine and in every process.

Numbers keep their kind (`1`, `1.0` and `True` differ), mappings and sets are sorted, models and dataclasses carry their
class name, so that two models with equal fields are two different inputs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from uuid import UUID

from pydantic import BaseModel

from rh_agents.core.errors import DefinitionError

__all__ = ["canonical"]

_encode = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=True).encode
_PLAIN = frozenset({str, int, float, bool, type(None)})
_TEXTUAL = (datetime, date, time, timedelta, Decimal, UUID, PurePath, complex)


def canonical(value: object) -> bytes:
    """The bytes that stand for `value` in a key.

    Raises:
        DefinitionError: the value is not data (a client, a connection, a function). The message names its type.
    """
    return _encode(_plain(value)).encode("ascii")


def _plain(value: object) -> object:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list or kind is tuple:
        return [_plain(item) for item in value]  # type: ignore[attr-defined]
    if kind is dict and all(type(key) is str for key in value):  # type: ignore[attr-defined]
        return _escaped({key: _plain(item) for key, item in value.items()})  # type: ignore[attr-defined]
    return _tagged(value)


def _escaped(members: dict[str, object]) -> dict[str, object]:
    """A user's own mapping with the key "!" must not pass for one of our tags."""
    return {"!": ["dict", members]} if "!" in members else members


def _tagged(value: object) -> object:
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, Enum):
        return {"!": [name, _plain(value.value)]}
    if isinstance(value, BaseModel):
        return {"!": [name, {key: _plain(item) for key, item in value}]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"!": [name, {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}]}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"!": ["bytes", bytes(value).hex()]}
    if isinstance(value, Mapping):
        return {"!": ["mapping", sorted(_encode([_plain(key), _plain(item)]) for key, item in value.items())]}
    if isinstance(value, Set):
        return {"!": ["set", sorted(_encode(_plain(item)) for item in value)]}
    if isinstance(value, _TEXTUAL):
        return {"!": [name, str(value)]}
    if isinstance(value, str | int | float):
        return {"!": [name, value]}
    if isinstance(value, list | tuple):
        return {"!": [name, [_plain(item) for item in value]]}
    raise DefinitionError(
        f"a {name} is not data, so a call with it cannot be recognised when the run is started again; mark the "
        "parameter `Annotated[..., Injected]` to leave it out of the key, or give the call `key=`"
    )
