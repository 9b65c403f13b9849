"""Making values again of the trees that `rh_agents.core.values.encoder` made of them."""

from __future__ import annotations

import contextlib
import enum
import importlib
import math
import pathlib
import types
from base64 import b64encode, urlsafe_b64encode
from binascii import a2b_base64
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Set
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeVar, cast
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import MultiHostUrl, PydanticUndefined, TzInfo, Url, to_json

from rh_agents.core.errors import RecordedError, StoreError, ValuesErased
from rh_agents.core.redaction import SPELLINGS, Secret, registered_value
from rh_agents.core.values.encoder import ADDRESSES, ATOMS, DTYPE, PATHS, TAG, Node
from rh_agents.core.values.registry import (
    Kind,
    Shape,
    class_named,
    loaded_exception,
    shape_of,
    slots_of,
    why_unknown,
)

__all__ = ["ERASED", "ErasedValue", "Ready", "UnknownValue", "erased_value", "is_erased_value", "revive"]

_COPIED_AT_ONCE = 1 << 20
"""Bytes of an array."""

T = TypeVar("T")
TimeT = TypeVar("TimeT", datetime, time)


class Ready:
    """A part of a tree that is a value already."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value: Any = value


class UnknownValue:
    """Stands for an instance of a class that this program does not have, or has with other fields.

    It is not serializableclass: those are written by what is in them, and this one stands for something else.
    """

    __slots__ = ("class_name", "data")

    def __init__(self, class_name: str, data: Any) -> None:
        self.class_name: str = class_name
        self.data: Any = data

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UnknownValue):
            return NotImplemented
        return (self.class_name, self.data) == (other.class_name, other.data)

    def __repr__(self) -> str:
        return f"<{self.class_name} {self.data!r}>"

    def __hash__(self) -> int:
        return hash(self.class_name)


class ErasedValue:
    """Stands for a value that was erased on purpose. It is equal to nothing but itself.

    Attributes:
        kind: of an error, the name of its class; "" of a value.
    """

    __slots__ = ("kind",)

    def __init__(self, kind: str = "") -> None:
        self.kind: str = kind

    def __repr__(self) -> str:
        return "<erased>"


ERASED: bytes = b'{"!":"erased"}'
"""The typed JSON text of a value that was erased."""


def erased_value(kind: str = "") -> bytes:
    """The typed JSON text that stands for a value that was erased, or for an error of a class of this name."""
    return to_json({TAG: "erased", "kind": kind}) if kind else ERASED


def is_erased_value(data: bytes | None) -> bool:
    """Whether a typed JSON text stands for something that was erased."""
    return data is not None and data.startswith(ERASED[:-1])


def _read_erased(node: Node, unknown_ok: bool) -> ErasedValue:
    if not unknown_ok:
        raise ValuesErased("it was erased")
    return ErasedValue(_checked(node.get("kind", ""), str))


# -- reading -----------------------------------------------------------------------------------------------------------


def revive(node: Any, unknown_ok: bool) -> Any:
    """The value of a JSON tree. How deep it can be is bounded by the parser.

    Raises:
        StoreError: it is damaged, or was written by a newer version.
    """
    kind = type(node)
    if kind is list:
        if ATOMS.issuperset(map(type, node)):
            return node
        return [item if type(item) in ATOMS else revive(item, unknown_ok) for item in node]
    if kind is not dict:
        return node.value if kind is Ready else node
    if TAG in node:
        return _reader(node[TAG])(node, unknown_ok)
    if ATOMS.issuperset(map(type, node.values())):
        return node
    return {name: item if type(item) in ATOMS else revive(item, unknown_ok) for name, item in node.items()}


def _reader(tag: object) -> Callable[[Node, bool], Any]:
    reader = _READERS.get(tag) if isinstance(tag, str) else None
    if reader is None:
        raise StoreError(f"a recorded value is damaged, or was written by a newer version: it has a {tag!r:.60}")
    return reader


def _text(node: Node, name: str = "v") -> str:
    return _checked(revive(node[name], False), str)


def _checked(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise StoreError(f"a recorded value is damaged: a {type(value).__name__} where a {kind.__name__} is expected")
    return value


def _bytes_in(node: Node) -> bytes:
    """What stands in base64; of a large value, which is read a piece at a time, the bytes are here already."""
    value = node["v"]
    if type(value) is Ready and type(value.value) is bytes:
        return value.value
    return a2b_base64(_text(node), strict_mode=True)


def _list(node: Node, unknown_ok: bool, name: str = "v") -> list[Any]:
    return _checked(revive(node[name], unknown_ok), list)


def _object(node: Node, unknown_ok: bool, name: str) -> dict[str, Any]:
    """A part whose keys are names, {} if it is not there."""
    part = node.get(name, {})
    if type(part) is dict and TAG not in part:
        return cast("dict[str, Any]", revive(part, unknown_ok))
    return {_checked(key, str): item for key, item in _checked(revive(part, unknown_ok), dict).items()}


def _pairs(node: Node, unknown_ok: bool) -> list[Any]:
    return [_checked(pair, list) for pair in _list(node, unknown_ok)]


def _read_bytes(node: Node, unknown_ok: bool) -> bytes:
    if "parts" not in node:
        return _bytes_in(node)
    parts = _list(node, unknown_ok, "parts")
    return b"".join(part.encode() if isinstance(part, str) else _checked(part, bytes) for part in parts)


def _texts(node: Node, unknown_ok: bool) -> list[str]:
    return [_checked(part, str) for part in _list(node, unknown_ok)]


def _read_secret(node: Node, unknown_ok: bool) -> object:
    """A `Secret`, or its value as it was spelt in a text."""
    name = _text(node, "name")
    value = registered_value(name)
    if value is None:
        if unknown_ok:
            return f"<secret:{name}>" if "spelling" in node else UnknownValue("Secret", name)
        raise StoreError(
            f"a recorded value has the secret {name!r} in it, and this process has none of that name: make it, with "
            f"Secret({name!r}, value), before the run is started"
        )
    return SPELLINGS[_text(node, "spelling")](value) if "spelling" in node else Secret(name)


def _read_base64(node: Node, unknown_ok: bool) -> str:
    encode = urlsafe_b64encode if node.get("url") is True else b64encode
    text = encode(_read_bytes(node, unknown_ok)).decode("ascii")
    return text if node.get("padded") is True else text.rstrip("=")


def _read_counter(node: Node, unknown_ok: bool) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    for key, count in _pairs(node, unknown_ok):
        counter[key] = count
    return counter


def _read_complex(node: Node, unknown_ok: bool) -> complex:
    real, imaginary = _list(node, unknown_ok)
    return complex(_checked(real, float), _checked(imaginary, float))


def _read_fraction(node: Node, unknown_ok: bool) -> Fraction:
    numerator, denominator = _list(node, unknown_ok)
    return Fraction(_checked(numerator, int), _checked(denominator, int))


def _in_zone(value: TimeT, node: Node, unknown_ok: bool) -> TimeT:
    if "zone" in node:
        value = value.replace(tzinfo=revive(node["zone"], unknown_ok))
    return value.replace(fold=1) if node.get("fold") else value


def _read_timedelta(node: Node, unknown_ok: bool) -> timedelta:
    days, seconds, microseconds = (_checked(each, int) for each in _list(node, unknown_ok))
    return timedelta(days, seconds, microseconds)


def _read_offset(node: Node, _: bool) -> tzinfo:
    seconds = _checked(node["v"], float)
    try:
        return TzInfo(seconds)
    except TypeError:  # an older version of Pydantic keeps its constructor to itself
        return timezone(timedelta(seconds=seconds))


def _read_zone(node: Node, _: bool) -> tzinfo:
    name = _text(node)
    try:
        return cast(tzinfo, importlib.import_module("zoneinfo").ZoneInfo(name))
    except (LookupError, OSError, ValueError) as error:
        raise StoreError(f"a recorded time is in the zone {name!r}, and this machine does not know it") from error


_PURE = {"PosixPath": pathlib.PurePosixPath, "WindowsPath": pathlib.PureWindowsPath}


def _read_path(node: Node, _: bool) -> pathlib.PurePath:
    name = _text(node, "class")
    try:
        return PATHS[name](_text(node))
    except NotImplementedError:  # it was recorded on another operating system
        return _PURE[name](_text(node))


def _read_address(node: Node, _: bool) -> Any:
    name = _text(node, "class")
    if name not in ADDRESSES:
        raise StoreError(f"a recorded value is damaged: {name!r:.60} is no kind of address")
    return getattr(importlib.import_module("ipaddress"), name)(_text(node))


def _read_url(node: Node, _: bool) -> Any:
    name = _text(node, "class")
    if name in ("Url", "MultiHostUrl"):
        return (Url if name == "Url" else MultiHostUrl)(_text(node))
    kind = vars(importlib.import_module("pydantic.networks")).get(name)
    if not isinstance(kind, type) or not hasattr(kind, "unicode_string"):
        raise StoreError(f"a recorded value is damaged: {name!r:.60} is no kind of URL")
    return kind(_text(node))


def _read_array(node: Node, unknown_ok: bool) -> Any:
    shape = tuple(_checked(each, int) for each in _checked(node["shape"], list))
    found = _array(node, shape, unknown_ok)
    return found.copy() if found.nbytes <= _COPIED_AT_ONCE else _copied(found)


def _copied(array: Any) -> Any:
    """A copy of a large array, a part at a time: other threads need the interpreter's lock in between."""
    copy = importlib.import_module("numpy").empty_like(array)
    source, target = array.reshape(-1), copy.reshape(-1)
    step = max(1, _COPIED_AT_ONCE // array.itemsize)
    for start in range(0, source.size, step):
        target[start : start + step] = source[start : start + step]
    return copy


def _array(node: Node, shape: tuple[int, ...], unknown_ok: bool) -> Any:
    name = _text(node, "dtype")
    if not DTYPE.fullmatch(name):
        raise StoreError(f"a recorded array is damaged: {name!r:.60} is no kind of number")
    numpy = importlib.import_module("numpy")
    if "texts" in node:  # with secrets among them, which may be longer by now than the array had room for
        texts = numpy.array(_list(node, unknown_ok, "texts"))
        wider = texts.dtype.newbyteorder(name[0])
        return texts.astype(max(numpy.dtype(name), wider, key=lambda each: each.itemsize)).reshape(shape)
    return numpy.ndarray(shape, numpy.dtype(name), _bytes_in(node) or b"\0")


# -- reading instances -------------------------------------------------------------------------------------------------

_set_values = BaseModel.__dict__["__dict__"].__set__
_set_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


class _Changed(Exception):
    """The class is not what it was when the value was recorded. The text says in which way."""


def _read_instance(node: Node, unknown_ok: bool) -> Any:
    name = _text(node, "class")
    data = revive(node["v"], unknown_ok)  # once: what is nested would be read twice at every level
    cls = class_named(name)
    shape = None if cls is None else shape_of(cls)
    try:
        if cls is None or shape is None:
            remedy = "import its module, or decorate it with `@storable`"
            raise _Changed(f"is not known to this program: {remedy}{why_unknown(name)}")
        if shape.kind != node[TAG]:
            raise _Changed(f"was a {node[TAG]} and is a {shape.kind.value} now{_REMEDY}")
        return _INSTANCES[shape.kind](data, node, cls, shape, unknown_ok)
    except _Changed as change:
        if unknown_ok:
            return UnknownValue(name, data)
        raise StoreError(f"a recorded value is a {name}, which {change}") from None


_REMEDY = "; raise the actor's `version=`, so that the call is made again, or let the class be what it was"


def _check_fields(recorded: set[str], shape: Shape) -> None:
    if recorded != shape.field_set:
        was, now = (", ".join(sorted(names)) or "none" for names in (recorded, shape.field_set))
        raise _Changed(f"had the fields {was} and has {now} now{_REMEDY}")


def _member(cls: Any, name: object) -> Any:
    member = cls._member_map_.get(name)
    if member is None:
        raise _Changed(f"had a member {name!r} and has none of this name now{_REMEDY}")
    return member


def _read_flag(data: Any, node: Node, cls: Any, shape: Shape, unknown_ok: bool) -> Any:
    bits = _checked(node["rest"], int)
    for name in _checked(data, list):
        bits |= _member(cls, _checked(name, str))._value_
    found = cls._value2member_map_.get(bits)
    if found is not None:
        return found
    try:
        found = enum.Flag._missing_.__func__(cls, bits)  # type: ignore[attr-defined]  # and not the class's own
    except ValueError as error:
        raise _Changed(f"has no member {bits} now{_REMEDY}") from error
    return found if isinstance(found, cls) else _checked(found, cls)


def _read_namedtuple(data: Any, node: Node, cls: Any, shape: Shape, unknown_ok: bool) -> Any:
    recorded: dict[str, Any] = _checked(data, dict)
    fields = {**_missing(recorded.keys(), shape), **recorded}
    _check_fields(set(fields), shape)
    instance = tuple.__new__(cls, [fields[name] for name in shape.fields])
    return _restored(instance, _object(node, unknown_ok, "more"), shape)


def _read_atom(data: Any, node: Node, cls: Any, shape: Shape, unknown_ok: bool) -> Any:
    if type(data) is not shape.base:
        raise _Changed(f"was derived from {type(data).__name__} and is from {shape.base.__name__} now{_REMEDY}")
    instance = shape.base.__new__(cls, data)
    return _restored(instance, _object(node, unknown_ok, "more"), shape)


def _missing(recorded: Set[str], shape: Shape) -> dict[str, Any]:
    """The defaults of those fields that came later than the value was recorded, or were not set in it."""
    return {name: default() for name, default in shape.late.items() if name not in recorded}


def _read_fields(data: Any, node: Node, shape: Shape, unknown_ok: bool) -> dict[str, Any]:
    """What an instance held, with what it had besides its fields."""
    fields: dict[str, Any] = _checked(data, dict)
    unset = {_checked(name, str) for name in _checked(node.get("unset", []), list)}
    fields |= _missing(fields.keys() | unset, shape)
    _check_fields(fields.keys() | unset, shape)
    if "more" in node:
        fields |= _object(node, unknown_ok, "more")
    return fields


def _restored(instance: Any, state: dict[str, Any], shape: Shape) -> Any:
    for name in shape.slots:
        if name in state:
            object.__setattr__(instance, name, state.pop(name))
    if state:
        try:
            object.__getattribute__(instance, "__dict__").update(state)
        except AttributeError:
            raise _Changed(f"had {', '.join(state)}, for which it has no field now{_REMEDY}") from None
    return instance


def _read_model(data: Any, node: Node, cls: Any, shape: Shape, unknown_ok: bool) -> Any:
    missing = _missing(_checked(data, dict).keys(), shape)
    fields = _read_fields(data, node, shape, unknown_ok)
    private = _object(node, unknown_ok, "private") if "private" in node else None
    _check_private(cls, private)
    instance = object.__new__(cls)
    if shape.slots:
        _restored(instance, {name: fields.pop(name) for name in shape.slots if name in fields}, shape)
    _set_values(instance, fields)
    extra = _object(node, unknown_ok, "extra") if "extra" in node else None
    if "set" in node:
        _set_fields_set(instance, {_checked(name, str) for name in _list(node, unknown_ok, "set")})
    else:
        _set_fields_set(instance, {*shape.fields, *(extra or ())} - missing.keys())
    if not cls.__pydantic_root_model__:
        _set_extra(instance, extra)
        _set_private(instance, private)
    return instance


def _check_private(cls: type[BaseModel], recorded: dict[str, Any] | None) -> None:
    """Private attributes without a default may be unset; all others have been recorded."""
    if cls.__pydantic_root_model__:
        return
    attributes = cls.__private_attributes__
    needed = {
        name
        for name, each in attributes.items()
        if each.default is not PydanticUndefined or each.default_factory is not None
    }
    names = set(recorded or ())
    if not needed <= names <= set(attributes):
        was, now = (", ".join(sorted(each)) or "none" for each in (names, attributes))
        raise _Changed(f"had the private attributes {was} and has {now} now{_REMEDY}")


_INSTANCES: dict[Kind, Callable[[Any, Node, Any, Shape, bool], Any]] = {
    Kind.ENUM: lambda data, _, cls, *__: _member(cls, _checked(data, str)),
    Kind.FLAG: _read_flag,
    Kind.MODEL: _read_model,
    Kind.DATACLASS: lambda data, node, cls, shape, unknown_ok: _restored(
        object.__new__(cls), _read_fields(data, node, shape, unknown_ok), shape
    ),
    Kind.NAMEDTUPLE: _read_namedtuple,
    Kind.ATOM: _read_atom,
}


# -- reading errors ----------------------------------------------------------------------------------------------------

# A class may have its own ways to get and set attributes, so it is not asked.
_attributes: Callable[[BaseException], dict[str, Any]] = vars(BaseException)["__dict__"].__get__
_set_args = vars(BaseException)["args"].__set__
_set_cause = vars(BaseException)["__cause__"].__set__


def _read_error(node: Node, unknown_ok: bool) -> Exception:
    text = _text(node, "text")
    members = [_error_in(each) for each in _list(node, True, "members")] if "members" in node else None
    state = _object(node, True, "state")
    error = _blank_error(node, members)
    if error is None:
        error = RecordedError(text, kind=_text(node, "class").rpartition(".")[2])
        state["kind"] = error.kind
    elif members is None:
        _set_args(error, tuple(_list(node, True, "args")) if "args" in node else (text,))
    _set_state(error, state)
    _set_notes(error, node, text)
    if "cause" in node:
        _set_cause(error, None if node["cause"] is None else _error_in(revive(node["cause"], True)))
    return error


def _set_notes(error: Exception, node: Node, text: str) -> None:
    notes = [_checked(note, str) for note in _list(node, True, "notes")] if "notes" in node else []
    if node.get("reads"):
        notes.append(f"when it was recorded, it read: {text}")
    if notes:
        _attributes(error)["__notes__"] = notes


def _error_in(value: object) -> Exception:
    return value if isinstance(value, Exception) else _checked(value, Exception)


def _blank_error(node: Node, members: list[Exception] | None) -> Exception | None:
    """An instance that no constructor of the class has seen; None if there is no such class, or it is not in Python."""
    cls = loaded_exception(_text(node, "module"), _text(node, "class"))
    if cls is None or issubclass(cls, BaseExceptionGroup) != (members is not None):
        return None
    if members is not None:
        return cast(
            Exception, cast(Any, BaseExceptionGroup).__new__(cls, _checked(revive(node["message"], True), str), members)
        )
    base: type = cls
    while "__new__" not in vars(base) or not isinstance(vars(base)["__new__"], types.BuiltinFunctionType):
        base = cast(type, base.__base__)
    if base.__module__ != "builtins":
        return None
    return cast(Exception, cast(Any, base).__new__(cls))


def _set_state(error: Exception, state: dict[str, Any]) -> None:
    for name in slots_of(type(error)):
        if name in state:
            value = state.pop(name)
            with contextlib.suppress(AttributeError, TypeError):  # some cannot be set
                object.__setattr__(error, name, value)
    _attributes(error).update(state)


_READERS: dict[str, Callable[[Node, bool], Any]] = {
    "str": lambda node, _: _bytes_in(node).decode("utf-8", "surrogatepass"),
    "int": lambda node, _: int(_text(node), 16),
    "float": lambda node, _: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[_text(node)],
    "dict": lambda node, unknown_ok: {key: item for key, item in _pairs(node, unknown_ok)},  # noqa: C416 - two each
    "OrderedDict": lambda node, unknown_ok: OrderedDict(_pairs(node, unknown_ok)),
    "Counter": _read_counter,
    "tuple": lambda node, unknown_ok: tuple(_list(node, unknown_ok)),
    "set": lambda node, unknown_ok: set(_list(node, unknown_ok)),
    "frozenset": lambda node, unknown_ok: frozenset(_list(node, unknown_ok)),
    "deque": lambda node, unknown_ok: deque(_list(node, unknown_ok), node["maxlen"]),
    "bytes": _read_bytes,
    "bytearray": lambda node, unknown_ok: bytearray(_read_bytes(node, unknown_ok)),
    "secret": _read_secret,
    "with-secrets": lambda node, unknown_ok: "".join(_texts(node, unknown_ok)),
    "base64": _read_base64,
    "complex": _read_complex,
    "Decimal": lambda node, _: Decimal(_text(node)),
    "Fraction": _read_fraction,
    "UUID": lambda node, _: UUID(_text(node)),
    "date": lambda node, _: date.fromisoformat(_text(node)),
    "datetime": lambda node, unknown_ok: _in_zone(datetime.fromisoformat(_text(node)), node, unknown_ok),
    "time": lambda node, unknown_ok: _in_zone(time.fromisoformat(_text(node)), node, unknown_ok),
    "timedelta": _read_timedelta,
    "timezone": lambda node, unknown_ok: timezone(*_list(node, unknown_ok)),
    "ZoneInfo": _read_zone,
    "offset": _read_offset,
    "path": _read_path,
    "address": _read_address,
    "url": _read_url,
    "ndarray": _read_array,
    "scalar": lambda node, unknown_ok: _array(node, (), unknown_ok)[()],
    "error": _read_error,
    "erased": _read_erased,
    **dict.fromkeys(Kind, _read_instance),
}
