"""Whatever is data comes back as it was, and whatever is damaged is refused in one way only."""

import contextlib
import dataclasses
import enum
import functools
import json
import math
from collections import Counter, OrderedDict, deque
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr
from pydantic.dataclasses import dataclass as pydantic_dataclass

from rh_agents.core.errors import StoreError
from rh_agents.core.values import decode, decode_error, encode, encode_error, storable
from rh_agents.core.values.decoder import _READERS


@storable
class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


@storable
class Access(enum.Flag):
    READ = 1
    WRITE = 2
    EXECUTE = 4


@storable
class Bits(enum.IntFlag, boundary=enum.KEEP):
    ONE = 1
    FOUR = 4


@storable
class Url(str):
    __slots__ = ()


@storable
class Pair(NamedTuple):
    left: Any
    right: Any


@storable
@dataclasses.dataclass
class Plain:
    first: Any
    second: Any = None
    third: Any = dataclasses.field(default=None, init=False)


@storable
@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    first: Any
    second: Any = dataclasses.field(init=False, repr=False)


@storable
@pydantic_dataclass
class Checked:
    first: Any


@storable
class Page(BaseModel):
    first: Any
    second: Any = None
    _hidden: Any = PrivateAttr(default=None)


@storable
class Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    first: Any


def page(first: Any, hidden: Any) -> Page:
    model = Page(first=first)
    model._hidden = hidden
    return model


def plain(first: Any, third: Any, more: dict[str, Any]) -> Plain:
    instance = Plain(first)
    instance.third = third
    vars(instance).update(more)
    return instance


zones = st.none() | st.just(UTC) | st.timezones() | st.builds(
    timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), st.text()
)  # fmt: skip
any_text = st.text(st.characters(exclude_categories=()))
names = st.text(min_size=1) | any_text | st.just("!")
hashable_atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers().map(lambda number: number << 5000)
    | st.floats()
    | any_text
    | st.binary()
    | st.complex_numbers()
    | st.decimals().filter(lambda number: not number.is_snan())  # has no hash
    | st.fractions()
    | st.uuids()
    | st.dates()
    | st.datetimes(timezones=zones)
    | st.times(timezones=zones)
    | st.timedeltas()
    | zones
    | st.ip_addresses()
    | st.builds(PurePosixPath, any_text)
    | st.builds(PureWindowsPath, any_text)
    | st.sampled_from(Colour)
    | st.builds(Access, st.integers(0, 7))
    | st.builds(Bits, st.integers(0, 255))
    | st.builds(Url, any_text)
)


def containers_of_hashables(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(values, values) | st.frozensets(values, max_size=3) | st.builds(Pair, values, values)


hashables = st.recursive(hashable_atoms, containers_of_hashables, max_leaves=4)


def containers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    items = st.lists(values, max_size=4)
    by_name = st.dictionaries(names, values, max_size=4)
    by_anything = st.dictionaries(hashables, values, max_size=4)
    return (
        items
        | items.map(tuple)
        | by_name
        | by_anything
        | by_name.map(OrderedDict)
        | by_anything.map(Counter)
        | st.sets(hashables, max_size=3)
        | st.builds(deque, items, st.none() | st.integers(4, 9))
        | st.builds(plain, values, values, st.dictionaries(st.sampled_from(["a", "é"]), values))
        | st.builds(Slotted, values)
        | st.builds(Checked, values)
        | st.builds(page, values, values)
        | st.builds(Open, first=values, extra=values)
        | st.builds(Page.model_construct, st.just({"first"}), first=values)
        | st.builds(Pair, values, values)
    )


anything = st.recursive(hashable_atoms | st.builds(bytearray, st.binary()), containers, max_leaves=12)


def same(one: Any, other: Any) -> bool:
    """Equal, of the same types at every depth, in the same order; and NaN is NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, deque) and one.maxlen != other.maxlen:
        return False
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, BaseModel):
        return all(same(getattr(one, name), getattr(other, name)) for name in PARTS_OF_A_MODEL)
    if isinstance(one, Slotted):
        return same(one.first, other.first) and hasattr(one, "second") == hasattr(other, "second")
    if dataclasses.is_dataclass(one):
        return same(vars(one), vars(other))
    if isinstance(one, datetime) and (one.tzinfo, one.fold) != (other.tzinfo, other.fold):
        return False
    return repr(one) == repr(other) if "NaN" in repr(one) else one == other and repr(one) == repr(other)


PARTS_OF_A_MODEL = ["__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"]


@given(anything)
def test_what_is_read_is_what_was_written(value: Any) -> None:
    data = encode(value)
    back = decode(data)
    assert same(back, value)
    assert decode(data, unknown_ok=True) is not None or value is None
    json.loads(data, parse_constant=pytest.fail), "any reader of JSON can read it"


plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text().filter(lambda name: name != "!"), values),
)


@given(plain_json)
def test_what_json_has_is_written_as_it_is(value: Any) -> None:
    assert json.loads(encode(value)) == value


@given(st.text() | st.integers(), st.integers(0, 9000))
def test_an_integer_of_any_length_comes_back_wherever_it_stands(before: Any, digits: int) -> None:
    value = [before, "." * (digits % 97), {"n": int("9" * 4000) * 10**digits}]
    assert decode(encode(value)) == value


# -- errors ------------------------------------------------------------------------------------------------------------


class Refused(Exception):
    def __init__(self, text: str, *, status_code: Any) -> None:
        super().__init__(text)
        self.status_code = status_code


def noted(error: Exception, notes: list[str], cause: Exception | None) -> Exception:
    for note in notes:
        error.add_note(note)
    error.__cause__ = cause
    return error


values = st.deferred(lambda: anything)
simple_errors = (
    st.builds(ValueError, any_text, st.integers())
    | st.builds(KeyError, any_text)
    | st.builds(OSError, st.integers(1, 40), any_text, any_text)
    | st.builds(Refused, any_text, status_code=values)
    | st.builds(ValueError, st.just(object()))
)
errors = st.recursive(
    st.deferred(lambda: st.builds(noted, simple_errors, st.lists(st.text(), max_size=2), st.none() | simple_errors)),
    lambda members: st.builds(ExceptionGroup, any_text, st.lists(members, min_size=1, max_size=3)),
    max_leaves=4,
)


@given(errors)
def test_an_error_comes_back_with_its_class_text_notes_and_causes(error: Exception) -> None:
    back = decode_error(encode_error(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert getattr(back, "__notes__", []) == getattr(error, "__notes__", [])
    assert type(back.__cause__) is type(error.__cause__)
    if isinstance(error, Refused) and isinstance(back, Refused):
        assert same(back.status_code, error.status_code)


# -- damage ------------------------------------------------------------------------------------------------------------


def read(data: bytes) -> None:
    """A value, or a StoreError, and nothing else."""
    for attempt in (decode, functools.partial(decode, unknown_ok=True), decode_error):
        with contextlib.suppress(StoreError):
            attempt(data)


CLASSES = [
    f"{__name__}.{cls.__name__}" for cls in (Colour, Access, Bits, Url, Pair, Plain, Slotted, Checked, Page, Open)
]
tags = st.sampled_from(sorted(_READERS)) | st.text(max_size=3)
parts = ["v", "class", "zone", "fold", "rest", "maxlen", "shape", "dtype", "more", "unset", "set", "extra", "private"]
parts += [
    "text",
    "module",
    "args",
    "state",
    "notes",
    "cause",
    "members",
    "message",
    "first",
    "second",
    "third",
    "reads",
]
texts = st.sampled_from(
    ["builtins", "ValueError", "OSError", "ExceptionGroup", "Refused", "nan", "1", "<f8", "RED", "UTC"]
)
hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(-9, 9)
    | st.text(max_size=5)
    | st.sampled_from(CLASSES)
    | texts,
    lambda values: (
        st.lists(values, max_size=4)
        | st.dictionaries(st.sampled_from(parts) | st.text(max_size=3), values, max_size=4)
        | st.builds(
            lambda tag, name, fields: {"!": tag, "class": name, **fields},
            tags,
            st.sampled_from(CLASSES) | texts,
            st.dictionaries(st.sampled_from(parts), values, max_size=6),
        )
    ),
    max_leaves=15,
)


@given(hostile)
@example({"!": "set", "v": [[]]})
@example({"!": "tuple", "v": "abc"})
@example({"!": "dict", "v": ["ab"]})
@example({"!": []})
@example({"!": "flag", "class": f"{__name__}.Access", "v": [], "rest": 64})
@example({"!": "deque", "v": [], "maxlen": -1})
@example({"!": "ndarray", "v": "", "dtype": "<f8", "shape": [-1]})
@example({"!": "ndarray", "v": "", "dtype": "|O8", "shape": [1]})
@example({"!": "error", "class": "ValidationError", "module": "pydantic_core", "text": ""})
@example({"!": "error", "class": "ExceptionGroup", "module": "builtins", "text": "", "message": "", "members": []})
def test_a_document_that_somebody_else_has_written_is_read_or_refused(tree: Any) -> None:
    read(json.dumps(tree).encode())


@given(anything, st.data())
def test_bytes_that_were_damaged_are_read_or_refused(value: Any, data: Any) -> None:
    damaged = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not damaged:
            break
    read(bytes(damaged))


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read(data)


@pytest.mark.parametrize("levels", [100, 190, 191, 200, 201, 5_000, 1_000_000])
@pytest.mark.parametrize("opening", ["[", '{"a":', '{"!":"tuple","v":[', '{"!":"error","cause":'])
def test_however_deep_a_document_is_it_is_read_or_refused(opening: str, levels: int) -> None:
    closing = {"[": "]", "{": "}"}
    end = "".join(closing[each] for each in reversed(opening) if each in closing)
    read((opening * levels + "1" + end * levels).encode())


def test_a_fraction_is_a_fraction() -> None:
    assert decode(encode(Fraction(1, 3))) == Fraction(1, 3)
