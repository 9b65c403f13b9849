"""Recorded values as tables have them: mappings, lists, texts, numbers, times; and whether a table has kept one."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from rh_agents.core.values import ErasedValue, UnknownValue


def plain_value(value: Any) -> Any:
    """A value in mappings, lists and what columns can have."""
    if isinstance(value, UnknownValue):
        return plain_value(value.data)
    if isinstance(value, ErasedValue):
        return None
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, BaseModel):
        return {name: plain_value(getattr(value, name)) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain_value(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {plain_value(name): plain_value(each) for name, each in value.items()}
    if isinstance(value, tuple) and (names := getattr(value, "_fields", ())):
        return {name: plain_value(each) for name, each in zip(names, value, strict=True)}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_value(each) for each in value]
    return value


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal, NaN being equal to itself."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[name], other[name]) for name in one)
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
