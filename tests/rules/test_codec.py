"""The canonical form of an input: equal inputs give equal bytes, different ones different bytes."""

import dataclasses
import itertools
import math
import subprocess
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, HttpUrl, RootModel

from rh_agents.core.errors import DefinitionError
from rh_agents.core.values.inputs import canonical, canonical_arguments


class Colour(Enum):
    RED = 1


class Size(IntEnum):
    SMALL = 1


class Mood(StrEnum):
    GOOD = "good"


class Text(str):
    def __repr__(self) -> str:
        return "something else"


class Query(BaseModel):
    text: str
    limit: int = 10


class Request(BaseModel):
    text: str
    limit: int = 10


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    text: str


class Pets(RootModel[list[str]]):
    """Written as Pydantic's own documentation recommends."""

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self.root)


@dataclasses.dataclass
class Point:
    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class Spot:
    x: int
    y: int


Pair = namedtuple("Pair", "x y")
NAIVE = datetime(2026, 1, 2, 3, 4)  # noqa: DTZ001 - users have such times, too

DIFFERENT: list[Any] = [
    None, True, False, 0, 1, -1, 1.0, 0.0, 1e300, 2**70, math.inf, -math.inf, "", "1", "None", "True", "\ud800", "é",
    "e\u0301", b"", b"1", [], [1], [[1]], [1, [2]], [[1, 2]], ["1"], {}, {"a": 1}, {"a": "1"}, {"b": 1}, {1: "a"},
    {"1": "a"}, {True: "a"}, {"!": ["set", []]}, {"!": ["dict", {}]}, {"!": {"!": 1}}, ["dict", []], ["set", []], set(),
    {1}, {"1"}, Colour.RED, Size.SMALL, Mood.GOOD, "good", Text("1"), Text("2"), Query(text="1"), Request(text="1"),
    Query(text="1", limit=1), {"text": "1", "limit": 10}, Point(1, 2), Spot(1, 2), Pair(1, 2), {"x": 1, "y": 2}, [1, 2],
    NAIVE, datetime(2026, 1, 2, 3, 4, tzinfo=UTC), date(2026, 1, 2), time(3, 4),
    "2026-01-02", timedelta(seconds=1), timedelta(days=1), Decimal("1"), Decimal("1.0"), 1 + 0j, UUID(int=1),
    PurePosixPath("1"), Pets(["ab", "ac"]), Pets(["ac"]), [None], [[]], {"a": None}, {"a": {}}, {"a": []},
]  # fmt: skip


def test_no_two_different_inputs_have_the_same_bytes() -> None:
    by_bytes: dict[bytes, Any] = {}
    for value in DIFFERENT:
        other = by_bytes.setdefault(canonical(value), value)
        assert other is value, f"{value!r} and {other!r}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1: "a", "1": "b"}, {"1": "b", 1: "a"}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}),
        ({1, 2, 3}, {3, 2, 1}),
        ({1, "1", None}, {None, "1", 1}),
        ({1, 2}, frozenset({1, 2})),
        ([1, 2], (1, 2)),
        ([math.nan], [float("nan")]),
        (Query(text="a"), Query(text="a", limit=10)),
        (MappingProxyType({"a": 1, "b": 2}), MappingProxyType({"b": 2, "a": 1})),
        (bytearray(b"ab"), bytearray(b"ab")),
        (Point(1, 2), Point(y=2, x=1)),
    ],
)
def test_equal_inputs_have_equal_bytes(one: Any, other: Any) -> None:
    assert canonical(one) == canonical(other)


def test_the_order_of_a_models_extra_fields_does_not_count() -> None:
    one, other = {"text": "a", "x": 1, "y": 2}, {"y": 2, "x": 1, "text": "a"}
    assert canonical(Open.model_validate(one)) == canonical(Open.model_validate(other))


def test_a_model_that_iterates_in_its_own_way_is_read_by_its_fields() -> None:
    assert canonical(Pets(["rex"])) == canonical(Pets(["rex"]))
    assert canonical(Pets(["rex"])) != canonical(Pets(["tom"]))


def test_extra_fields_of_a_model_count() -> None:
    assert canonical(Open.model_validate({"text": "a", "x": 1})) != canonical(Open(text="a"))


def test_a_mapping_of_another_class_is_still_recognised_as_itself() -> None:
    assert canonical(OrderedDict(a=1, b=2)) == canonical(OrderedDict(a=1, b=2))
    assert canonical(OrderedDict(a=1)) != canonical(OrderedDict(a=2))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4)
        | st.frozensets(st.integers() | st.text(max_size=3), max_size=4)
    ),
    max_leaves=12,
)


def kinds(value: Any) -> Any:
    """The value with the kind of each part beside it, so that `==` tells 1, 1.0 and True apart."""
    if isinstance(value, list):
        return [kinds(item) for item in value]
    if isinstance(value, dict):
        return {(type(key), key): kinds(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return frozenset((type(item), item) for item in value)
    return (type(value), str(value))  # the text tells 0.0 from -0.0


@given(JSON, JSON)
def test_bytes_are_equal_exactly_if_the_values_and_their_kinds_are(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) is (kinds(one) == kinds(other))


@given(st.dictionaries(st.text(max_size=3) | st.integers(), JSON, max_size=6), st.randoms())
def test_the_order_of_a_mapping_never_counts(mapping: dict[Any, Any], chance: Any) -> None:
    items = list(mapping.items())
    chance.shuffle(items)
    assert canonical(dict(items)) == canonical(mapping)


def test_another_process_with_other_hashes_gives_the_same_bytes() -> None:
    code = (
        "from rh_agents.core.values.inputs import canonical\n"
        "print(canonical({'b': {'x', 'y', 'z', 1}, 'a': [1.5, None, '\\ud800'], 3: b'!'}).hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    value = {3: b"!", "a": [1.5, None, "\ud800"], "b": {1, "z", "x", "y"}}
    assert outputs == {canonical(value).hex() + "\n"}


def test_paths_have_the_same_bytes_under_every_version_of_python() -> None:
    """Their classes have moved between modules, and a run may be resumed after an upgrade."""
    assert b"_local" not in canonical(PurePosixPath("a"))
    assert b"posix" not in canonical(PurePosixPath("a")).lower()


class Client:
    """No data: it stands for a connection."""


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Client(), "test_codec.Client"),
        (object(), "builtins.object"),
        (len, "builtins.builtin_function_or_method"),
        (lambda: None, "builtins.function"),
        (Client, "builtins.type"),
        (Point, "builtins.type"),
        (iter([]), "builtins.list_iterator"),
    ],
)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: value,
        lambda value: [value],
        lambda value: {"a": [value]},
        lambda value: Point(value, 0),
    ],
    ids=["bare", "in a list", "in a mapping", "in a dataclass"],
)
def test_what_is_no_data_is_refused_with_its_type_and_the_remedy(
    value: Any, kind: str, wrap: Callable[[Any], Any]
) -> None:
    with pytest.raises(DefinitionError) as caught:
        canonical(wrap(value))
    assert f"{kind} is not data" in str(caught.value)
    assert "`Annotated[..., Injected]`" in str(caught.value)
    assert "`key=`" in str(caught.value)


def test_the_bytes_are_ascii_whatever_the_text() -> None:
    assert all(canonical(value).isascii() for value in DIFFERENT)


def test_deeply_nested_data_is_taken() -> None:
    value: Any = []
    for _ in itertools.repeat(None, 50):
        value = [value, {"next": value}] if len(repr(value)) < 2_000 else [value]
    assert canonical(value)


def test_what_python_cannot_write_down_is_refused_in_our_words() -> None:
    itself: list[object] = []
    itself.append(itself)
    with pytest.raises(DefinitionError, match="contains itself"):
        canonical(itself)
    with pytest.raises(DefinitionError, match="cannot be written down"):
        canonical_arguments({"number": 10**5000})


def test_the_urls_of_pydantic_are_data() -> None:
    one, same, other = (HttpUrl(f"https://example.org/{page}") for page in "aab")
    assert canonical(one) == canonical(same) != canonical(other)
