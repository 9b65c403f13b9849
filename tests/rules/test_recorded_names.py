"""What journals have of our own classes stays as it is, whatever happens to the classes."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pkgutil
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import pytest
from pydantic import BaseModel, Field

import rh_agents.integrations
from rh_agents.core.errors import StoreError
from rh_agents.core.values import decode, decode_error, encode, encode_error, learn
from rh_agents.core.values.inputs import canonical
from rh_agents.core.values.names import FIELDS, MOVED, OTHERS, form_of, recorded_name
from tests.rules.recorded_samples import DATA, FILE, SLOW_TO_IMPORT, forms, our_classes

OLD = "app.old.Thing"
"""The name under which the classes of these tests are recorded."""
T = TypeVar("T")


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the classes of these tests were ours, and had the fields `a` and `b` from the beginning."""
    monkeypatch.setitem(FIELDS, OLD, "a b")
    monkeypatch.setitem(MOVED, f"{__name__}.Thing", OLD)


def place(cls: Any, module: str = __name__) -> Any:
    """The class as if it stood in a module, named Thing."""
    cls.__module__, cls.__qualname__ = module, "Thing"
    learn(cls)
    return cls


def make(kind: str, module: str = __name__, **later: Any) -> Any:
    """A class with the fields `a` and `b`, and those that came later; each with its default."""
    if kind == "model":
        fields: dict[str, Any] = {"a": 1, "b": Field(default_factory=list), **later}
        hints = dict.fromkeys(fields, Any)
        return place(type("Thing", (BaseModel,), {"__annotations__": hints, "__module__": module, **fields}), module)
    if kind == "dataclass":
        first = [("a", Any, 1), ("b", Any, dataclasses.field(default_factory=list))]
        return place(
            dataclasses.make_dataclass("Thing", [*first, *((name, Any, later[name]) for name in later)]), module
        )
    named = NamedTuple("Thing", [(name, Any) for name in ("a", "b", *later)])  # type: ignore[misc]
    named.__new__.__defaults__ = (1, [], *later.values())
    named._field_defaults = {"a": 1, "b": [], **later}
    return place(named, module)


KINDS = ("model", "dataclass", "namedtuple")


def is_other(cls: type) -> bool:
    """Whether it is an enum or an error, of which only the name matters."""
    return issubclass(cls, Enum | Exception)


def test_every_class_that_can_be_recorded_has_its_line_in_the_table() -> None:
    missing = [cls for cls in our_classes() if recorded_name(cls) not in OTHERS and recorded_name(cls) not in FIELDS]
    assert not missing, (
        "they need lines in rh_agents/core/values/names.py: in MOVED if they have moved, else "
        + ", ".join(
            f'"{recorded_name(cls)}"' + ("" if is_other(cls) else f': "{" ".join(form_of(cls).always)}"')
            for cls in missing
        )
    )


def test_integrations_have_no_classes_of_their_own_that_could_be_recorded() -> None:
    for found in pkgutil.iter_modules(rh_agents.integrations.__path__, SLOW_TO_IMPORT):
        spec = importlib.util.find_spec(found.name)
        assert spec is not None
        assert spec.origin is not None
        public = re.findall(r"^class ([A-Za-z]\w*)", Path(spec.origin).read_text(), re.MULTILINE)
        assert set(public) <= {"AgUi", "NotRecordedWarning", "NotStreamedWarning", "Pieces", "Step"}


def test_every_line_of_the_table_has_its_class() -> None:
    now = {recorded: name for name, recorded in MOVED.items()}
    for name in [*FIELDS, *OTHERS]:
        module, _, qualname = now.get(name, name).rpartition(".")
        cls = getattr(importlib.import_module(module), qualname)
        assert recorded_name(cls) == name
        if name in FIELDS:
            assert set(FIELDS[name].split()) <= set(form_of(cls).always)


def test_every_class_with_fields_has_a_sample() -> None:
    assert {recorded_name(type(sample)) for sample in DATA} == set(FIELDS)


def test_what_stands_for_our_classes_in_keys_and_in_stores_is_what_it_always_was() -> None:
    recorded = json.loads(FILE.read_text())
    found = forms()
    assert set(found) == set(recorded), "python -m tests.rules.recorded_samples adds what is new"
    for name, (key, stored) in recorded.items():
        assert found[name][0] == key
        assert json.loads(found[name][1]) == json.loads(stored)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_has_moved_is_written_as_before_and_found_where_it_is(kind: str, ours: None) -> None:
    before = make(kind, "app.old")
    key, stored = canonical(before(a=2, b=[3])), encode(before(a=2, b=[3]))
    thing = make(kind)
    assert canonical(thing(a=2, b=[3])) == key
    assert encode(thing(a=2, b=[3])) == stored
    assert type(decode(stored)) is thing
    assert decode(stored) == thing(a=2, b=[3])


class Lost(Exception):
    """An error that was called otherwise, elsewhere."""


def test_an_error_that_has_moved_is_written_as_before_and_found_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOVED, f"{__name__}.Lost", "app.old.Gone")
    stored = encode_error(Lost("away"))
    assert json.loads(stored) == {"!": "error", "module": "app.old", "class": "Gone", "text": "away"}
    found = decode_error(stored)
    assert type(found) is Lost
    assert str(found) == "away"


class Box(BaseModel, Generic[T]):
    item: T


def test_a_class_that_has_moved_keeps_its_name_within_generic_ones(ours: None) -> None:
    thing = make("model")
    box = Box[list[thing]]  # type: ignore[valid-type]
    learn(box)
    full = box(item=[thing()])
    assert f"Box[list[{OLD}]]".encode() in encode(full)
    assert __name__.encode() + b".Thing" not in canonical(full) + encode(full)
    assert decode(encode(full)) == full


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("default", [None, 7, "", ()])
def test_a_field_that_came_later_is_written_only_where_it_is_set(kind: str, default: Any, ours: None) -> None:
    before = make(kind)
    key, stored = canonical(before(a=2, b=[3])), encode(before(a=2, b=[3]))
    thing = make(kind, c=default)
    assert canonical(thing(a=2, b=[3])) == key
    assert canonical(thing(a=2, b=[3], c=default)) == key
    assert encode(thing(a=2, b=[3])) == stored
    assert decode(stored) == thing(a=2, b=[3])
    other = thing(a=2, b=[3], c=[1])
    assert canonical(other) not in (key, canonical(thing(a=2, b=[3], c=[2])))
    assert decode(encode(other)) == other


def test_a_default_that_is_made_anew_each_time_is_a_default(ours: None) -> None:
    key = canonical(make("model")())
    thing = make("model", c=Field(default_factory=lambda: [1, {"a": 2}]))
    assert canonical(thing()) == key
    assert decode(encode(thing())) == thing()


def test_numbers_that_are_equal_but_of_another_kind_are_no_default(ours: None) -> None:
    thing = make("model", c=1)
    assert len({canonical(thing(c=c)) for c in (1, 1.0, True)}) == 3
    assert [type(decode(encode(thing(c=c))).c) for c in (1, 1.0, True)] == [int, float, bool]


def test_fields_that_came_later_are_written_in_one_order_whatever_the_order_of_the_class(ours: None) -> None:
    one, other = make("model", c=None, d=None), make("model", d=None, c=None)
    assert canonical(one(c=1, d=2)) == canonical(other(c=1, d=2))
    first = make("dataclass", c=None)
    assert canonical(first(c=1)) == canonical(make("dataclass", d=None, c=None)(c=1))


def test_what_was_set_of_a_model_is_remembered_with_a_field_that_came_later(ours: None) -> None:
    stored = encode(make("model")(a=2, b=[]))
    thing = make("model", c=None)
    assert decode(stored).model_fields_set == {"a", "b"}
    assert decode(encode(thing(a=2, c=3))).model_fields_set == {"a", "c"}


@pytest.mark.parametrize("kind", ["model", "dataclass"])
def test_a_users_class_that_is_derived_from_ours_keeps_its_keys_too(kind: str, ours: None) -> None:
    def derive(base: Any) -> Any:
        cls = type("Mine", (base,), {"__annotations__": {"c": Any}, "c": 5, "__module__": __name__})
        cls = cls if kind == "model" else dataclass(cls)
        learn(cls)
        return cls

    before = derive(make(kind))
    key, stored = canonical(before()), encode(before())
    assert b"'c', 5" in key, "its own fields are always written"
    after = derive(make(kind, d=None))
    assert canonical(after()) == key
    assert decode(stored) == after()
    assert canonical(derive(make(kind, c=None))()) == key, "also if ours gets one of the same name"


@pytest.mark.parametrize("kind", ["model", "dataclass"])
def test_all_fields_of_users_own_classes_are_written(kind: str) -> None:
    before, after = make(kind), make(kind, c=None)
    assert canonical(before()) != canonical(after())
    with pytest.raises(StoreError, match="had the fields a, b and has a, b, c now"):
        decode(encode(before()))
