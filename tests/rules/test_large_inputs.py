"""The canonical form of a large input in pieces is the same, to the byte: keys are made of it."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple
from enum import Enum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from rh_agents.core._replay.identity import identity, identity_of_item
from rh_agents.core.errors import DefinitionError
from rh_agents.core.values.inputs import CanonicalInput, canonical, canonical_arguments
from rh_agents.core.values.large import LARGE, is_large
from rh_agents.core.values.large_inputs import InPieces
from rh_agents.core.values.pieces import PIECE


class Colour(Enum):
    RED = "it's"


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    text: Any


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


@dataclasses.dataclass
class Nothing:
    pass


@dataclasses.dataclass(slots=True)
class Slim:
    text: Any


class Text(str):
    __slots__ = ()


Pair = namedtuple("Pair", "x y")

QUOTES = st.text(alphabet="ab'\"\\\n\0é😀\ud800")
ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | QUOTES | st.text() | st.binary()
KEYS = ATOMS | st.tuples(QUOTES, st.integers())
VALUES = st.recursive(
    ATOMS
    | st.sampled_from(
        [Colour.RED, PurePosixPath("a"), Nothing(), bytearray(b"'\"'\"ab'"), memoryview(b"abcdefghijkl")]
    ),
    lambda parts: (
        st.lists(parts, max_size=12)
        | st.lists(parts, max_size=3).map(tuple)
        | st.dictionaries(KEYS, parts, max_size=9)
        | st.dictionaries(QUOTES, parts, max_size=9).map(MappingProxyType)
        | st.dictionaries(QUOTES, parts, max_size=3).map(OrderedDict)
        | st.sets(KEYS, max_size=9)
        | st.builds(Point, parts, parts)
        | st.builds(Pair, parts, QUOTES.map(Text))
        | st.builds(lambda text, extra: Open.model_validate({"text": text, "e'\"": extra, "f": 1}), parts, parts)
    ),
    max_leaves=20,
)
SIZES = st.builds(InPieces, st.integers(1, 20), st.integers(1, 5))


@settings(max_examples=60)
@given(VALUES, SIZES)
@example({"a": {"b": {"c": 'it\'s "x"'}}}, InPieces(2, 1))
@example([["'" * 9, '"' * 9]] * 9, InPieces(4, 2))
@example({"it's " + '"' * 9: 1, "it's " + '"' * 8: 2}, InPieces(3, 1))
def test_the_pieces_are_together_what_is_written_at_once(value: Any, how: InPieces) -> None:
    assert b"".join(CanonicalInput(value, suffix=b" x").pieces(how)) == canonical(value) + b" x"


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from("abc"), VALUES), SIZES)
def test_so_are_those_of_arguments(arguments: dict[str, Any], how: InPieces) -> None:
    whole = canonical_arguments(arguments)
    taken_apart = CanonicalInput(arguments, are_arguments=True)
    assert b"".join(taken_apart.pieces(how)) == taken_apart.whole() == whole


@given(st.binary(), st.integers(1, 9))
def test_the_identity_is_the_same_in_pieces(data: bytes, size: int) -> None:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert identity("fetch", "1", pieces, None) == identity("fetch", "1", data, None)
    assert identity("fetch", "1", pieces, "k") == identity("fetch", "1", b"", "k")
    assert identity_of_item("g", "f", pieces) == identity_of_item("g", "f", data)


MANY = {
    "a text": "it's\n" * 300_000,
    "numbers": list(range(120_000)),
    "records": [{"id": number, "text": "x'" * 20} for number in range(5_000)],
    "a mapping": {f"key {number}": {number} for number in range(9_000)},
    "a set": set(range(30_000)),
    "deep": [[[{"a": ("x" * 2 * LARGE, b"\"'" * LARGE)}]]],
}


@pytest.mark.parametrize("what", MANY)
def test_what_is_large_is_written_in_pieces_that_are_not(what: str) -> None:
    pieces = CanonicalInput(MANY[what]).pieces()
    assert b"".join(pieces) == canonical(MANY[what])
    assert max(map(len, pieces)) < 4 * PIECE


def test_what_lies_deeper_than_anybody_looks_is_written_all_the_same() -> None:
    value: Any = {"a": ["x" * 50, b"y" * 50]}
    for _ in range(150):
        value = [value, "it's"]
    assert b"".join(CanonicalInput(value).pieces(InPieces(9, 1))) == canonical(value)


def test_what_is_no_data_is_refused_in_the_same_words() -> None:
    for value in ([1, object()], [1, 10**5000]):
        with pytest.raises(DefinitionError) as at_once:
            canonical(value)
        with pytest.raises(DefinitionError) as in_pieces:
            CanonicalInput(value).pieces(InPieces(1, 1))
        assert str(in_pieces.value) == str(at_once.value)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 2 * LARGE,
        Slim("x" * 2 * LARGE),
        OrderedDict(a="x" * 2 * LARGE),
        Text("x" * 2 * LARGE),
        {"x" * 2 * LARGE: 1},
        Pair("x" * 2 * LARGE, 1),
        [memoryview(b"x" * 2 * LARGE)],
        Open.model_validate({"text": "", "extra": "x" * 2 * LARGE}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_large_is_known_wherever_it_stands(value: Any) -> None:
    assert is_large(value)
    assert CanonicalInput({"value": value}, are_arguments=True).is_large


def test_no_code_of_the_users_runs_to_see_how_large_a_value_is() -> None:
    class Odd(dict[str, str]):
        def __len__(self) -> int:
            raise AssertionError

        def values(self) -> Any:
            raise AssertionError

        def __getattribute__(self, name: str) -> Any:
            raise AssertionError

    assert not is_large(Odd(a="b"))
