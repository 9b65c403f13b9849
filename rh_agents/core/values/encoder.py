"""Writing a value as a tree of what JSON has. See `rh_agents.core.values` for what it looks like."""

from __future__ import annotations

import contextlib
import enum
import math
import pathlib
import re
import sys
from binascii import b2a_base64
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, cast
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import MultiHostUrl, TzInfo, Url

from rh_agents.core._base.mistakes import Unstarted
from rh_agents.core.errors import GroupError, UnstorableError
from rh_agents.core.redaction import Encoded, Reference, Secret, parts_of, redact, registered
from rh_agents.core.values.names import PlainInt, is_default
from rh_agents.core.values.registry import (
    Kind,
    Shape,
    kind_of,
    late_shape_of,
    name_of,
    recorded_place,
    shape_of,
    slots_of,
    why_unknown,
)

__all__ = [
    "ADDRESSES",
    "ATOMS",
    "DTYPE",
    "PATHS",
    "TAG",
    "Node",
    "NotQuick",
    "ValueWriter",
    "brief",
    "desugared",
    "is_object",
    "quick",
    "text_of",
    "too_deep",
]

Node = dict[str, Any]

TAG = "!"
ATOMS = frozenset({str, int, float, bool, type(None)})
_TEXT = frozenset({str})
_MOST_LEVELS = 190  # from_json reads 200
_MOST_ERRORS = 1000
"""So many errors are written that hang together. (If each names the one below it twice, there is no end to them.)"""
_LARGE = 1 << 4096  # from_json reads integers of 4300 digits


# -- writing -----------------------------------------------------------------------------------------------------------


class NotQuick(Exception):
    """The value has to be written with more care, or is not serializable."""


def quick(value: Any, depth: int) -> Any:
    """The JSON tree of a value. Plain parts of it are left as they are, which is nearly all the work there is.

    Raises:
        UnstorableError: it is not serializable.
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    if depth >= _MOST_LEVELS:
        raise NotQuick
    depth += 1
    if kind is list:
        if ATOMS.issuperset(map(type, value)):
            return value
        return [item if type(item) in ATOMS else quick(item, depth) for item in value]
    node = value if kind is dict and _TEXT.issuperset(map(type, value)) and TAG not in value else desugared(value)
    if node is None:
        raise NotQuick
    if ATOMS.issuperset(map(type, node.values())):
        return node
    return {name: item if type(item) in ATOMS else quick(item, depth) for name, item in node.items()}


def is_object(value: dict[Any, Any]) -> bool:
    """Whether a dictionary can be a JSON object and is not taken for anything else then."""
    return _TEXT.issuperset(map(type, value)) and TAG not in value


class ValueWriter:
    """Writes what `quick` cannot: texts that are no UTF-8, numbers that JSON has not, errors; refuses the rest.

    A part of a value is written with its path, for people, and its depth in the JSON text.
    """

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.errors: int = 0

    def write(self, value: Any, path: str, depth: int) -> Any:
        """The JSON value of a value; `path` says where in the whole it is, for errors.

        Raises:
            UnstorableError: the value, or a part of it, is not serializable.
        """
        kind = type(value)
        if kind in ATOMS and _is_plain(value):
            return value
        if depth >= _MOST_LEVELS:
            raise UnstorableError(too_deep(path))
        if kind is str and (parts := parts_of(value)) is not None:
            return {TAG: "with-secrets", "v": [self.write(part, path, depth + 2) for part in parts]}
        if kind is list:
            return [self.write(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        if kind is dict and is_object(value) and all(map(_is_plain, value)):
            return {name: self.write(item, f"{path}[{name!r}]", depth + 1) for name, item in value.items()}
        if isinstance(value, Exception):
            return self.error(value, path, depth)
        if isinstance(value, PlainInt):
            return int(value)
        node = desugared(value)
        if node is None:
            raise UnstorableError(_refusal(value, path))
        return {name: self._part(name, part, node, path, depth + 1) for name, part in node.items()}

    def _part(self, name: str, part: Any, node: Node, path: str, depth: int) -> Any:
        """A part of a tagged object; only in the path does it differ from any other value."""
        if type(part) is dict and is_object(part) and all(map(_is_plain, part)):
            return {field: self.write(item, f"{path}.{field}", depth + 1) for field, item in part.items()}
        if name == "v" and node[TAG] in _PAIRED:
            return [
                [
                    self.write(key, f"{path} key {key!r:.40}", depth + 2),
                    self.write(item, f"{path}[{key!r:.40}]", depth + 2),
                ]
                for key, item in part
            ]
        return self.write(part, path, depth)

    def error(self, error: Exception, path: str, depth: int) -> Node:
        """The same for an error. What it carries and is not serializable is left out.

        Raises:
            UnstorableError: it is nested too deeply, or carries too many errors.
        """
        self.errors = self.errors + 1 if self.inside else 0
        if id(error) in self.inside or depth >= _MOST_LEVELS or self.errors > _MOST_ERRORS:
            raise UnstorableError(too_deep(path))
        self.inside.add(id(error))
        try:
            return self._error(error, depth + 1)
        finally:
            self.inside.remove(id(error))

    def _error(self, error: Exception, depth: int) -> Node:
        node = brief(error)
        node["text"] = self.write(text_of(error), "", depth)
        if isinstance(error, BaseExceptionGroup):
            node["message"] = self.write(str.__str__(error.message), "", depth)
            node["members"] = [self._error_or_brief(cast(Exception, each), depth + 1) for each in error.exceptions]
        else:
            arguments = list(_args_of(error))
            if list(map(type, arguments)) != [str] or arguments != [node["text"]]:
                self._add(node, "args", arguments, depth)
        state: Node = {}
        for name, value in _state_of_error(error):
            self._add(state, name, value, depth + 1)
        notes = getattr(error, "__notes__", None)
        if notes:
            self._add(node, "notes", notes, depth)
        if state:
            node["state"] = state
        if isinstance(error.__cause__, Exception):
            node["cause"] = self._error_or_brief(error.__cause__, depth)
        elif error.__suppress_context__:
            node["cause"] = None
        return node

    def _add(self, node: Node, name: str, value: object, depth: int) -> None:
        with contextlib.suppress(UnstorableError):
            node[name] = self.write(value, "", depth)

    def _error_or_brief(self, error: Exception, depth: int) -> Node:
        try:
            return self.error(error, "", depth)
        except UnstorableError:
            return brief(error)


def _is_plain(value: Any) -> bool:
    """Whether JSON, and the way in which it is read here, has this text or number."""
    kind = type(value)
    if kind is float:
        return math.isfinite(cast(float, value))
    if kind is int:
        return -_LARGE < cast(int, value) < _LARGE
    if kind is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return False
        return parts_of(value) is None
    return True


def too_deep(path: str) -> str:
    """Not the whole path, which would have a hundred parts."""
    where = f" at {path[:60]}..." if path else ""
    return f"the value{where} cannot be stored: it contains itself, or is nested more than {_MOST_LEVELS} levels deep"


def _refusal(value: object, path: str) -> str:
    kind = type(value)
    where = f" at {path}" if path else ""
    if kind_of(kind) is not None:
        remedy = "annotate the function's return type with its class, or decorate the class with `@storable`"
        remedy += why_unknown(name_of(kind))
    elif isinstance(value, Unstarted):
        remedy = "it has not started: await it, or give it to a group"
    else:
        remedy = "return data (text, numbers, lists, dictionaries, models, dataclasses)"
    return f"a {name_of(kind)}{where} cannot be stored: {remedy}"


def desugared(value: Any) -> Node | None:
    """One level of what JSON has not: a tagged object, whose parts may be anything again. None: it is not serializable.

    Raises:
        UnstorableError: it is not serializable.
    """
    kind = type(value)
    write = _WRITERS.get(kind)
    if write is not None:
        return write(value)
    shape = shape_of(kind)
    if shape is None:
        node = _foreign_node(value, kind)
        if node is not None:
            return node
        shape = late_shape_of(kind)
    return None if shape is None else _WRITERS_BY_KIND[shape.kind](value, shape)


# -- builtin data ------------------------------------------------------------------------------------------------------


def _base64(data: Any) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


def _bytes_node(tag: str, value: bytes | bytearray) -> Node:
    """Secrets in bytes are found as in a text of which each character is a byte."""
    parts = parts_of(value.decode("latin-1"), is_bytes=True)
    if parts is None:
        return {TAG: tag, "v": _base64(value)}
    return {TAG: tag, "parts": [part.encode("latin-1") if isinstance(part, str) else part for part in parts]}


def _datetime_node(value: datetime | time) -> Node:
    zone = value.tzinfo
    is_in_text = zone is None or (type(zone) is timezone and len(_initargs(zone)) == 1)
    node: Node = {TAG: type(value).__name__, "v": (value if is_in_text else value.replace(tzinfo=None)).isoformat()}
    if not is_in_text:
        node["zone"] = zone
    if value.fold:
        node["fold"] = value.fold
    return node


def _initargs(zone: timezone) -> tuple[Any, ...]:
    """The offset, and the name if it was given one."""
    return cast("tuple[Any, ...]", zone.__getinitargs__())  # type: ignore[attr-defined]


def _fixed_offset(zone: TzInfo) -> float:
    offset = zone.utcoffset(None)
    return 0.0 if offset is None else offset.total_seconds()


_WRITERS: dict[type, Callable[[Any], Node]] = {
    # of texts, integers and floats only what JSON has not
    str: lambda value: {TAG: "str", "v": _base64(value.encode("utf-8", "surrogatepass"))},
    int: lambda value: {TAG: "int", "v": hex(value)},
    float: lambda value: {TAG: "float", "v": repr(value)},
    dict: lambda value: {TAG: "dict", "v": [[key, item] for key, item in value.items()]},
    OrderedDict: lambda value: {TAG: "OrderedDict", "v": [[key, item] for key, item in value.items()]},
    Counter: lambda value: {TAG: "Counter", "v": [[key, item] for key, item in value.items()]},
    tuple: lambda value: {TAG: "tuple", "v": list(value)},
    set: lambda value: {TAG: "set", "v": list(value)},
    frozenset: lambda value: {TAG: "frozenset", "v": list(value)},
    deque: lambda value: {TAG: "deque", "v": list(value), "maxlen": value.maxlen},
    bytes: lambda value: _bytes_node("bytes", value),
    bytearray: lambda value: _bytes_node("bytearray", value),
    Secret: lambda value: {TAG: "secret", "name": value.name},
    Encoded: lambda value: {
        TAG: "base64",
        "parts": list(value.parts),
        "url": value.is_url,
        "padded": value.is_padded,
    },
    Reference: lambda value: {TAG: "secret", "name": value.name, "spelling": value.spelling},
    complex: lambda value: {TAG: "complex", "v": [value.real, value.imag]},
    Decimal: lambda value: {TAG: "Decimal", "v": str(value)},
    Fraction: lambda value: {TAG: "Fraction", "v": [value.numerator, value.denominator]},
    UUID: lambda value: {TAG: "UUID", "v": str(value)},
    date: lambda value: {TAG: "date", "v": value.isoformat()},
    datetime: _datetime_node,
    time: _datetime_node,
    timedelta: lambda value: {TAG: "timedelta", "v": [value.days, value.seconds, value.microseconds]},
    timezone: lambda value: {TAG: "timezone", "v": list(_initargs(value))},
    TzInfo: lambda value: {TAG: "offset", "v": _fixed_offset(value)},
    Url: lambda value: {TAG: "url", "class": "Url", "v": str(value)},
    MultiHostUrl: lambda value: {TAG: "url", "class": "MultiHostUrl", "v": str(value)},
}
PATHS: dict[str, type[pathlib.PurePath]] = {
    each.__name__: each
    for each in (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
}
for _each in PATHS.values():
    _WRITERS[_each] = lambda value: {TAG: "path", "class": type(value).__name__, "v": str(value)}
_PAIRED = frozenset({"dict", "OrderedDict", "Counter"})
ADDRESSES = frozenset({"IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network", "IPv4Interface", "IPv6Interface"})


def _foreign_node(value: Any, kind: type) -> Node | None:
    """Data of modules that are imported only when someone uses them."""
    if _is_from(kind, "zoneinfo") and kind.__name__ == "ZoneInfo":
        return None if value.key is None else {TAG: "ZoneInfo", "v": value.key}
    if _is_from(kind, "ipaddress") and kind.__name__ in ADDRESSES:
        return {TAG: "address", "class": kind.__name__, "v": str(value)}
    if _is_from(kind, "pydantic.networks") and hasattr(value, "_url"):
        return {TAG: "url", "class": kind.__name__, "v": str(value)}
    numpy = sys.modules.get("numpy")
    return None if numpy is None else _numpy_node(value, kind, numpy)


def _is_from(kind: type, module: str) -> bool:
    return vars(sys.modules[module]).get(kind.__name__) is kind if module in sys.modules else False


def _numpy_node(value: Any, kind: type, numpy: Any) -> Node | None:
    is_array = kind is numpy.ndarray
    if not is_array and not (isinstance(value, numpy.generic) and kind.__module__ == "numpy"):
        return None
    dtype = value.dtype
    if not DTYPE.fullmatch(dtype.str) or numpy.dtype(dtype.str) != dtype:
        return None
    node: Node = {TAG: "ndarray" if is_array else "scalar", "dtype": dtype.str}
    texts = value.ravel().tolist() if dtype.kind in "SU" and registered.anything else []
    if any(map(_has_secret, texts)):
        node["texts"] = texts
    else:
        node["v"] = _base64(value.tobytes())
    if is_array:
        node["shape"] = list(value.shape)
    return node


def _has_secret(text: str | bytes) -> bool:
    if isinstance(text, bytes):
        return parts_of(text.decode("latin-1"), is_bytes=True) is not None
    return parts_of(text) is not None


DTYPE = re.compile(r"[<>|=][biufcmMSUV]\d+(\[\d*[A-Za-z]+(/\d+)?\])?")


# -- classes -----------------------------------------------------------------------------------------------------------


def _flag_node(value: enum.Flag, shape: Shape) -> Node:
    """A combination is written as the names of its parts, and what bits have no name."""
    members = type(value)._member_map_
    if value._name_ in members:
        return {TAG: "flag", "class": shape.name, "v": [value._name_], "rest": 0}
    bits: int = value._value_
    parts = {
        name: each._value_ for name, each in members.items() if each._value_ and each._value_ & bits == each._value_
    }
    for each in parts.values():
        bits &= ~each
    return {TAG: "flag", "class": shape.name, "v": list(parts), "rest": bits}


def _namedtuple_node(value: Any, shape: Shape) -> Node:
    fields = _without_unset(dict(zip(shape.fields, value, strict=True)), shape)
    return _with_more({TAG: "namedtuple", "class": shape.name, "v": fields}, value, shape)


def _atom_node(value: Any, shape: Shape) -> Node:
    return _with_more({TAG: "atom", "class": shape.name, "v": _bare(value, shape.base)}, value, shape)


def _bare(value: Any, base: type) -> object:
    """The value as what its class is derived from; the class may have its own idea of that."""
    if base is str:
        return str.__str__(value)
    if base is int:
        return int.__pos__(value)
    return float.__pos__(value) if base is float else bytes(memoryview(value))


def _with_more(node: Node, value: object, shape: Shape) -> Node:
    state = _state(value, shape)
    if state:
        node["more"] = state
    return node


def _model_node(value: BaseModel, shape: Shape) -> Node:
    node = _with_fields({TAG: "model", "class": shape.name}, value, shape)
    extra = value.__pydantic_extra__
    names = value.__pydantic_fields_set__
    fields = shape.field_set if not shape.late else frozenset(node["v"]).union(node.get("unset", ()))
    if names != (fields.union(extra) if extra else fields):
        node["set"] = sorted(names)
    if type(value).__pydantic_root_model__:  # it has no extra fields, and keeps its private attributes among the others
        return node
    if extra is not None:
        node["extra"] = extra
    if value.__pydantic_private__ is not None:
        node["private"] = value.__pydantic_private__
    return node


def _with_fields(node: Node, value: object, shape: Shape) -> Node:
    state = _state(value, shape)
    if state.keys() == shape.field_set:
        node["v"] = _without_unset(state, shape)
        return node
    node["v"] = _without_unset({name: state.pop(name) for name in shape.fields if name in state}, shape)
    unset = [name for name in shape.fields if name not in node["v"] and name not in shape.late]
    if unset:
        node["unset"] = unset
    if state:
        node["more"] = state
    return node


def _without_unset(fields: Node, shape: Shape) -> Node:
    """The same without the fields that came later and have their default: what reads it fills them in."""
    if not shape.late:
        return fields
    late = shape.late
    return {name: item for name, item in fields.items() if name not in late or not is_default(item, late[name]())}


def _state(value: object, shape: Shape) -> Node:
    """What an instance holds, as it is stored: no property is asked."""
    state = dict(getattr(value, "__dict__", ()))
    for name in shape.slots:
        with contextlib.suppress(AttributeError):  # a slot that was never set
            state[name] = object.__getattribute__(value, name)
    for name in shape.left_out:
        state.pop(name, None)
    return state


_WRITERS_BY_KIND: dict[Kind, Callable[[Any, Shape], Node]] = {
    Kind.ENUM: lambda value, shape: {TAG: "enum", "class": shape.name, "v": value._name_},
    Kind.FLAG: _flag_node,
    Kind.MODEL: _model_node,
    Kind.DATACLASS: lambda value, shape: _with_fields({TAG: "dataclass", "class": shape.name}, value, shape),
    Kind.NAMEDTUPLE: _namedtuple_node,
    Kind.ATOM: _atom_node,
}


# -- errors ------------------------------------------------------------------------------------------------------------

_args_of: Callable[[BaseException], tuple[Any, ...]] = vars(BaseException)["args"].__get__
_NOTES = frozenset({"__notes__"})
_PARTS_OF_A_GROUP = frozenset({"__notes__", "message", "exceptions"})


def text_of(error: BaseException) -> str:
    """Its text, whatever it does when it is asked for it."""
    try:
        return str.__str__(str(error))
    except Exception:  # noqa: BLE001 - the error is the user's, and so is the way in which it tells its text
        return ""


def brief(error: Exception) -> Node:
    """An error of which only the text can be kept, for instance because of what it carries; without its secrets."""
    module, name = recorded_place(type(error))
    names = {"module": module, "class": name, "text": text_of(error)}
    return {TAG: "error", **{name: _plain(text) for name, text in names.items()}}


def _plain(text: str) -> str:
    text = text if _is_plain(text) else redact(text)
    return text if _is_plain(text) else ascii(text)


def _state_of_error(error: BaseException) -> Iterator[tuple[str, Any]]:
    """The attributes of an error, also those that Python keeps in C, where None stands for nothing."""
    left_out = _PARTS_OF_A_GROUP if isinstance(error, BaseExceptionGroup) else _NOTES
    state = dict(vars(error))
    for name in slots_of(type(error)):
        with contextlib.suppress(AttributeError, TypeError):
            value = object.__getattribute__(error, name)
            if value is not None:
                state.setdefault(name, value)
    if isinstance(error, GroupError):
        state["results"] = ()  # they have been recorded, each with its call
    return ((name, value) for name, value in state.items() if name not in left_out)
