"""What calls were called with, as short texts: readable, without secrets, cut where whole letters end."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents import Secret
from rh_agents.core.redaction import forget_secret
from rh_agents.core.values.inputs import CUT, cut, excerpt


class Page(pydantic.BaseModel):
    url: str
    password: str | None = None


@dataclasses.dataclass
class Node:
    value: object


class Colour(enum.Enum):
    RED = "red"


@pytest.fixture
def secret() -> Iterator[Secret]:
    yield Secret("db-password", "correct horse")
    forget_secret("db-password")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"url": "https://example.org/é", "n": 3}, '{"url":"https://example.org/é","n":3}'),
        ({"ok": True, "none": None, "x": 1.5}, '{"ok":true,"none":null,"x":1.5}'),
        ("plain", '"plain"'),
        ([1, (2, {3})], "[1,[2,[3]]]"),
        ({1: "a", (1, 2): "b"}, '{"1":"a","<tuple>":"b"}'),
        (Page(url="https://a"), '{"url":"https://a","password":null}'),
        (Node(Node(Colour.RED)), '{"value":{"value":"red"}}'),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
        (decimal.Decimal("1.50"), '"1.50"'),
        (pathlib.PurePosixPath("a/b"), '"a/b"'),
        (b"123", '"<3 bytes>"'),
        (numpy.zeros((3, 4)), '"<ndarray (3, 4)>"'),
        (object(), '"<object>"'),
        (Page, '"<class Page>"'),
        (float("nan"), "NaN"),
        (10**400, '"<a long number>"'),
        ("\ud800", '"\\ud800"'),
        ("a\0b\x1b[31m", '"a\\u0000b\\u001b[31m"'),
    ],
)
def test_a_value_is_written_like_json(value: object, text: str) -> None:
    assert excerpt(value, 256) == text


def test_no_code_of_a_class_runs() -> None:
    class Loud(str):
        def __str__(self) -> str:
            raise AssertionError

        __repr__ = __str__

    class Many(list[int]):
        def __iter__(self) -> Any:
            raise AssertionError

        __len__ = __iter__

    class Bomb:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError

        __repr__ = __str__ = __getattr__  # type: ignore[assignment]

    assert excerpt({"text": Loud("quiet"), "bomb": Bomb(), "many": Many([1])}, 256) == (
        '{"text":"quiet","bomb":"<Bomb>","many":[1]}'
    )


@pytest.mark.parametrize(
    "value",
    [
        {"password": "hunter2"},
        {"api_key": 12345678},
        {"request": {"Authorization": ["hunter2"]}},
        Node(Page(url="https://a", password="hunter2")),
        {"url": "https://me:hunter2@example.org"},
        {"header": "Authorization: Bearer hunter2hunter2"},
        {"url": "https://a/?token=hunter2hunter2"},
    ],
)
def test_what_is_called_like_a_credential_or_looks_like_one_is_not_shown(value: object) -> None:
    text = excerpt(value, 256)
    assert "***" in text
    assert "hunter2" not in text
    assert "12345678" not in text


def test_registered_secrets_are_shown_by_name(secret: Secret) -> None:
    assert (
        excerpt({"secret_one": secret.name, "it": secret}, 256)
        == '{"secret_one":"db-password","it":"<secret:db-password>"}'
    )
    assert excerpt({"text": f"it is {secret.reveal()}!"}, 256) == '{"text":"it is <secret:db-password>!"}'


def test_a_secret_that_is_a_number_is_not_shown_once_it_is_registered() -> None:
    assert excerpt({"pin": 739_152}, 256) == '{"pin":739152}'
    secret = Secret("pin-of-the-door", "739152")
    try:
        assert "739152" not in excerpt({"pin": 739_152}, 256)
    finally:
        forget_secret(secret.name)
    assert excerpt({"pin": 739_152}, 256) == '{"pin":739152}'


def test_a_credential_in_the_place_of_a_name_is_not_shown_either() -> None:
    token = "ghp_" + "a1" * 15
    assert token not in excerpt({token: 1}, 256)


@pytest.mark.parametrize("before", range(200, 260))
def test_half_a_secret_is_never_shown(secret: Secret, before: int) -> None:
    text = excerpt({"text": "x" * before + secret.reveal() + "y" * 300}, 256)
    assert "corr" not in text
    assert len(text.encode()) <= 256


LEAVES = st.none() | st.integers() | st.text() | st.binary() | st.floats()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(VALUES, st.integers(10, 400))
def test_a_text_is_never_longer_than_it_may_be_and_is_valid_utf_8(value: object, most: int) -> None:
    text = excerpt(value, most)
    assert len(text.encode()) <= most


@pytest.mark.parametrize("most", range(4, 40))
def test_a_cut_is_seen_and_splits_no_letter(most: int) -> None:
    text = "aé漢🙂" * 4
    shown = cut(text, most)
    if shown != text:
        assert shown.endswith(CUT)
        assert text.startswith(shown.removesuffix(CUT))
    assert most - 4 <= len(shown.encode()) <= most or shown == text


def test_what_is_large_is_not_written_out_first() -> None:
    deep: Any = "end"
    for _ in range(100_000):
        deep = [deep]
    large = {
        "text": "x" * 10_000_000,
        "list": list(range(1_000_000)),
        "map": {n: n for n in range(100_000)},
        "deep": deep,
    }
    text = excerpt(large, 256)
    assert len(text) <= 256
    assert excerpt({"list": list(range(100_000))}, 2048).endswith(CUT)


def test_what_is_whole_is_json() -> None:
    value = {"page": {"url": "https://a", "links": ["b", "c"]}, "depth": 3}
    assert json.loads(excerpt(value, 256)) == value
