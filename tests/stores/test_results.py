"""`rh_agents.results`: what a run came to, read in one line, and as tables that change no value."""

from __future__ import annotations

import asyncio
import datetime
import enum
import math
import sys
import zoneinfo
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel

import rh_agents
from rh_agents import parallel, run_sync, storable, tool
from rh_agents.core.errors import StoreError
from rh_agents.core.usage import Usage
from rh_agents.stores.results import RecordedResult, Results


@tool
async def rate(text: str) -> int:
    if not text:
        raise ValueError("there is nothing to rate")
    return len(text)


@tool
async def total(numbers: list[int]) -> int:
    return sum(numbers)


async def survey(texts: list[str]) -> int:
    async with parallel(name="reviews", max_workers=1) as p:
        p.map(rate, texts)
        found = [result.result or 0 for result in await p.gather()]
    return await total(found)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    run_sync(survey, ["good", "", "very good"], store=tmp_path / "runs.db", run_id="monday")
    return tmp_path / "runs.db"


def test_each_call_is_there_once_with_its_value_or_its_error(store: Path) -> None:
    run_sync(survey, ["good", "", "very good"], store=store, run_id="monday")  # what failed is made again, and fails
    found = rh_agents.results(store, "monday")
    assert repr(found) == "<4 results of run 'monday', 1 failed>"
    members = found.in_group("reviews")
    assert [(each.index, each.value, each.ok) for each in members] == [(0, 4, True), (1, None, False), (2, 9, True)]
    assert members[0].input == '{"text":"good"}'
    assert [str(each.error) for each in found.failed] == ["there is nothing to rate"]
    (last,) = [each for each in found if each.group is None]
    assert (last.address, last.value, last.index) == ("total", 13, None)
    assert [each.address for each in members[1:]] == ["reviews[1]::rate", "reviews[2]::rate"]


def test_what_is_of_a_version_that_is_past_is_there_only_if_asked_for(store: Path) -> None:
    """Who takes the mean of a column would else take it over the results of both versions."""

    @tool(name="rate", version="2")
    async def rate_anew(text: str) -> int:
        return -len(text)

    async def survey_anew(texts: list[str]) -> None:
        async with parallel(name="reviews", max_workers=1) as p:
            p.map(rate_anew, texts)
            await p.gather()

    run_sync(survey_anew, ["good", "", "very good"], store=store, run_id="monday", reuse=True)
    found = rh_agents.results(store, "monday")
    assert [each.value for each in found.in_group("reviews")] == [-4, 0, -9]
    assert len(found) == 4  # and what it called once, the total
    assert "earlier" not in found.columns()
    both = rh_agents.results(store, "monday", earlier=True)
    assert [each.earlier for each in both.in_group("reviews")] == [True, False] * 3
    assert both.columns()["earlier"].count(True) == 3


def test_it_can_be_called_in_a_running_loop_as_in_a_notebook(store: Path) -> None:
    async def cell() -> int:
        return len(rh_agents.results(str(store), "monday"))

    assert asyncio.run(cell()) == 4


def test_what_is_not_there_is_said_and_nothing_is_made(store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no run 'mondy' in .*runs\.db; `rh-agents runs` lists them"):
        rh_agents.results(store, "mondy")
    with pytest.raises(StoreError):
        rh_agents.results(tmp_path / "other.db", "monday")
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize(("method", "package"), [("to_pandas", "pandas"), ("to_polars", "polars")])
def test_a_package_that_is_not_installed_is_named_with_the_remedy(
    method: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ModuleNotFoundError, match=rf"{method}\(\) needs {package}, which is not installed: pip install"
    ):
        getattr(made(1), method)()


# -- tables -----------------------------------------------------------------------------------------------------------


def made(*values: Any) -> Results:
    """Results with these values; an exception stands for a call that failed."""
    return Results(
        "monday",
        [
            RecordedResult(
                f"{number:02x}",
                f"g[{number}]::f",
                "f",
                "g",
                number,
                None,
                None if isinstance(value, Exception) else value,
                value if isinstance(value, Exception) else None,
                0.5,
                1,
                Usage(10, 5, cost=0.25) if number == 0 else None,
            )
            for number, value in enumerate(values)
        ],
    )


@storable
class Color(enum.Enum):
    RED = "red"


class Rating(BaseModel):
    stars: int
    color: Color = Color.RED
    words: tuple[str, ...] = ()


@dataclass
class Point:
    x: float
    inner: dict[str, int]


class Pair(NamedTuple):
    one: int
    two: str


def test_objects_become_a_column_for_each_field() -> None:
    columns = made(Rating(stars=4, words=("a", "b")), ValueError("no"), Rating(stars=2)).columns()
    assert columns["value.stars"] == [4, None, 2]
    assert columns["value.color"] == ["red", None, "red"]
    assert columns["value.words"] == [["a", "b"], None, []]
    assert columns["error"] == [None, "ValueError: no", None]
    assert (columns["ok"], columns["cost"]) == ([True, False, True], [0.25, 0.0, 0.0])
    assert "value" not in columns
    assert made(Point(1.5, {"a": 1}), Pair(1, "b")).columns()["value.one"] == [None, 1]
    assert made(1, {"a": 2}).columns()["value"] == [1, {"a": 2}]


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
EXACT = [
    [1, 2, 3],
    [1, None, 2**53 + 1],
    [2**63 - 1, -(2**63)],
    [True, False, None],
    ["a", None, "ä"],
    [0.1, math.inf],
    [Decimal("1.10"), Decimal("3.14159")],
    [datetime.date(2026, 11, 30), None],
    [datetime.datetime(2026, 7, 1, 12, 30, 0, 123456, tzinfo=datetime.UTC)],
    [datetime.datetime(2026, 7, 1, 12, 30, tzinfo=BERLIN)],
    [[1, 2], [3]],
    [b"\x00\xff"],
]


@pytest.mark.parametrize("values", EXACT, ids=repr)
def test_values_are_in_both_tables_what_they_were(values: list[Any]) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    given = [ValueError("no") if each is None else each for each in values]
    frame = made(*given).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    for value, found in zip(values, frame["value"].tolist(), strict=True):
        assert (value is None and pandas.isna(found)) or found == value
    table = made(*given).to_polars()
    assert isinstance(table, polars.DataFrame)
    assert table["value"].to_list() == values


def test_numbers_too_large_are_kept_by_pandas_and_refused_by_polars_or_kept() -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    large = made(2**200, ValueError("no"))
    assert large.to_pandas()["value"].tolist()[0] == 2**200
    with pytest.raises(ValueError, match=r"column 'value' cannot be a column of polars|polars would change"):
        large.to_polars()


@pytest.mark.parametrize("values", [(1, "a"), (True, 2), (1, {"a": 2}), ({"a": [1]}, {"a": ["b"]})], ids=repr)
def test_values_without_a_type_in_common_are_refused_by_polars_with_their_column(values: tuple[Any, ...]) -> None:
    pytest.importorskip("polars")
    with pytest.raises(ValueError, match=r"column 'value(\.a)?' "):
        made(*values).to_polars()


@pytest.mark.parametrize(
    "values", [([{"a": 1}], [{"b": 2}]), (1 + 2j,), (object(),)], ids=["ragged", "complex", "object"]
)
def test_values_that_polars_would_change_are_refused(values: tuple[Any, ...]) -> None:
    pytest.importorskip("polars")
    with pytest.raises(ValueError, match="column 'value' has values that polars would change: use to_pandas"):
        made(*values).to_polars()


def test_not_a_number_is_no_missing_value_in_polars() -> None:
    pytest.importorskip("polars")
    column = made(math.nan, ValueError("no"), 1.0).to_polars()["value"]
    assert column.is_null().to_list() == [False, True, False]
    assert math.isnan(column[0])


def test_a_run_becomes_a_table(store: Path) -> None:
    pytest.importorskip("pandas")
    frame = rh_agents.results(store, "monday").in_group("reviews").to_pandas()
    assert frame["value"].sum() == 13
    assert list(frame["ok"]) == [True, False, True]
    assert len(made().to_pandas()) == 0
