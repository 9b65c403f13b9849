"""Whether what an annotation promises can be stored, reported as soon as an actor is defined."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

import typing_extensions
from pydantic import BaseModel
from pydantic_core import MultiHostUrl, TzInfo, Url

from rh_agents.core.redaction import Secret
from rh_agents.core.values.registry import Kind, field_hints, kind_of, name_of

__all__ = ["check_annotation"]

_DATA = frozenset(
    {
        str, int, float, bool, type(None), complex, bytes, bytearray, list, tuple, dict, set, frozenset, deque,
        OrderedDict, Counter, Decimal, Fraction, UUID, date, datetime, time, timedelta, timezone, tzinfo, TzInfo, Url,
        MultiHostUrl, Secret, object,
    }
)  # fmt: skip
_WITH_DATA = frozenset({"ipaddress", "zoneinfo", "pydantic.networks"})
_ITERATORS = (Iterator, AsyncIterator, Awaitable)
_OTHER_DATA = frozenset(
    {"numpy", "ipaddress", "zoneinfo", "pathlib", "typing", "typing_extensions", "pydantic.networks"}
)
_ANYTHING = frozenset({typing.Any, typing.NoReturn, typing.Never, typing.Self, typing.LiteralString})


def check_annotation(hint: Any) -> str | None:
    """Why values of this type can never be stored, in a sentence; None if they can, or if no one can tell."""
    return _objection(hint, frozenset())


def _objection(hint: Any, seen: frozenset[Any]) -> str | None:
    if hint in _ANYTHING if isinstance(hint, type) else hint is Any:
        return None
    if isinstance(hint, type):
        return _objection_to_class(hint, seen)
    if isinstance(hint, typing.NewType):
        return _objection(hint.__supertype__, seen)
    if isinstance(hint, types.BuiltinFunctionType | types.FunctionType | types.ModuleType):
        return f"{getattr(hint, '__name__', hint)} is no type"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return None if any(map(_is_injected, hint.__metadata__)) else _objection(arguments[0], seen)
    if origin in (typing.Union, types.UnionType):
        return _objection_to_all(arguments, seen)
    if origin in (typing.ClassVar, typing.Final, typing_extensions.Required, typing_extensions.NotRequired):
        return _objection(arguments[0], seen)
    return _objection_to_generic(origin, arguments, seen) if isinstance(origin, type) else None


def _is_injected(mark: object) -> bool:
    """By name, because actors are defined in terms of this module."""
    return (mark if isinstance(mark, type) else type(mark)).__name__ == "Injected"


def _objection_to_all(hints: tuple[Any, ...], seen: frozenset[Any]) -> str | None:
    """Of a union it is enough if one of them can be stored."""
    objections = [_objection(each, seen) for each in hints]
    return None if None in objections else objections[0]


def _objection_to_generic(origin: type, arguments: tuple[Any, ...], seen: frozenset[Any]) -> str | None:
    objection = _objection_to_class(origin, seen)
    if objection is not None or origin.__module__ not in ("builtins", "collections", "collections.abc"):
        return objection
    return next(filter(None, (_objection(each, seen) for each in arguments if each is not ...)), None)


def _objection_to_class(cls: type, seen: frozenset[Any]) -> str | None:
    if cls in _DATA or cls in seen:
        return None
    if cls is type:
        return "a class is not data"
    if cls in (Callable, types.FunctionType):
        return "a function is not data"
    if issubclass(cls, _ITERATORS) and not _has_own_values(cls):
        return f"a {name_of(cls)} gives its values once, so they cannot be stored: return a list"
    if cls is defaultdict:
        return "a defaultdict has a function in it, so it cannot be stored: return `dict(...)` of it"
    if _has_own_values(cls):
        return _objection_to_fields(cls, seen | {cls})
    return None if _may_have_storable_values(cls) else f"a {name_of(cls)} is not data, so it cannot be stored"


def _has_own_values(cls: type) -> bool:
    return kind_of(cls) is not None or typing_extensions.is_typeddict(cls)


def _objection_to_fields(cls: type, seen: frozenset[Any]) -> str | None:
    if kind_of(cls) in (Kind.ENUM, Kind.FLAG, Kind.ATOM):
        return None
    hints = dict(field_hints(cls)[0])
    if issubclass(cls, BaseModel):
        hints |= {name: field.annotation for name, field in cls.model_fields.items()}
    elif dataclasses.is_dataclass(cls):
        names = {field.name for field in dataclasses.fields(cls)}
        hints = {name: hint for name, hint in hints.items() if name in names}
    for name, hint in hints.items():
        objection = _objection(hint, seen)
        if objection is not None:
            return f"`{name}` of a {name_of(cls)} cannot be stored: {objection}"
    return None


def _may_have_storable_values(cls: type) -> bool:
    """Whether values of a class that is itself no data can be: those of a derived class, or made by Pydantic."""
    if issubclass(cls, BaseException) or getattr(cls, "_is_protocol", False):
        return True
    if inspect.isabstract(cls) or hasattr(cls, "__get_pydantic_core_schema__"):
        return True
    if _is_known_elsewhere(cls):
        return True
    return any(kind_of(each) is not None or _may_have_storable_values(each) for each in type.__subclasses__(cls))


def _is_known_elsewhere(cls: type) -> bool:
    if issubclass(cls, PurePath):
        return cls.__module__.startswith("pathlib")
    if cls.__module__ in _WITH_DATA:
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and (cls is numpy.ndarray or issubclass(cls, numpy.generic))
