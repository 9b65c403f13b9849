"""Whether an answer fits the JSON schema of its question."""

from __future__ import annotations

import enum
import json
from decimal import Decimal
from typing import Any, Literal

import pytest
from pydantic import BaseModel, TypeAdapter

from rh_agents.cli.questions import parse_answer
from rh_agents.core.errors import InputError
from rh_agents.core.values.answers import expect_fitting, why_not_fitting


class Colour(enum.StrEnum):
    RED = "red"


class Page(BaseModel):
    title: str
    pages: int = 1
    colour: Colour | None = None
    below: list[Page] = []


def schema(kind: Any) -> str:
    return json.dumps(TypeAdapter(kind).json_schema())


@pytest.mark.parametrize(
    ("kind", "fitting", "wrong"),
    [
        (bool, [True], ["true", 1, None]),
        (int, [5, 5.0], ["5", 5.5, True]),
        (str, ["", "true"], [5]),
        (Literal["a", "b"], ["a"], ["c", None]),
        (Decimal, [1.5, "1.5"], [None]),
        (Page, [{"title": "a"}, {"title": "a", "below": [{"title": "b", "colour": "red"}]}], [{}, "a", {"title": 1}]),
        (list[Page], [[]], [[{"title": "a", "below": [{}]}], {}]),
        (dict[str, float], [{"a": 1}], [{"a": "b"}]),
    ],
)
def test_an_answer_is_held_against_the_schema(kind: Any, fitting: list[Any], wrong: list[Any]) -> None:
    for value in fitting:
        assert why_not_fitting(schema(kind), value) is None
        expect_fitting(schema(kind), json.dumps(value).encode())
    for value in wrong:
        with pytest.raises(InputError, match=r"^the answer does not fit: "):
            expect_fitting(schema(kind), json.dumps(value).encode())


def test_the_place_that_is_wrong_is_named_and_long_values_are_cut() -> None:
    value = {"title": "a", "below": [{"title": 5}]}
    assert why_not_fitting(schema(Page), value) == "below.0.title: 5 is not of type 'string'"
    assert len(why_not_fitting(schema(bool), "x" * 10_000) or "") < 250


def test_without_a_schema_or_with_one_that_cannot_be_checked_any_answer_fits() -> None:
    expect_fitting(None, b"5")
    for about in (
        '{"type": "nothing"}',
        "no json",
        '{"$ref": "http://localhost:1/x"}',
        '{"$ref": "#/$defs/none"}',
        "true",
    ):
        assert why_not_fitting(about, 5) is None


def test_what_is_typed_counts_as_text_where_only_text_fits() -> None:
    assert (parse_answer("true"), parse_answer("true", schema(bool)), parse_answer("true", schema(str))) == (
        True, True, "true",
    )  # fmt: skip
    assert (parse_answer(" 5 ", schema(str)), parse_answer("5", schema(int)), parse_answer("x", schema(int))) == (
        "5", 5, "x",
    )  # fmt: skip
