"""Rows of data frames as items: plain values, read as they are needed, the same items as mappings with these values."""

from __future__ import annotations

import datetime
import decimal
import zoneinfo
from typing import Any

import pytest

from rh_agents import ExecutionState, MemoryStore, tool
from rh_agents.core.errors import DefinitionError
from tests.properties.virtual import run_virtually

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
MOMENT = datetime.datetime(2026, 7, 1, 12, 30, 0, 5, tzinfo=BERLIN)
ROWS: list[dict[str, Any]] = [
    {
        "id": "a", "n": 2**60, "real": 0.5, "is": True, "at": MOMENT, "wait": datetime.timedelta(seconds=1),
        "price": decimal.Decimal("1.10"), "tags": ["x"],
    },
    {
        "id": None, "n": -1, "real": None, "is": False, "at": None, "wait": None, "price": None, "tags": None,
    },
]  # fmt: skip


def frame_of(package: str, rows: list[dict[str, Any]]) -> Any:
    frame: Any = pytest.importorskip(package).DataFrame(rows)
    return frame


def items_of(frame: Any) -> list[Any]:
    """What a function gets of a data frame."""

    async def same(row: Any) -> Any:
        return row

    async def main() -> list[Any]:
        async with ExecutionState() as state, state.parallel(max_workers=2) as group:
            group.map(same, frame)
            return [each.unwrap() for each in await group.gather()]

    return run_virtually(main)


def kinds(value: Any) -> Any:
    return {name: type(each) for name, each in value.items()} if isinstance(value, dict) else type(value)


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_rows_are_mappings_of_plain_values(package: str) -> None:
    found = items_of(frame_of(package, ROWS))
    assert found == ROWS
    assert [kinds(row) for row in found] == [kinds(row) for row in ROWS]
    assert found[0]["at"].utcoffset() == MOMENT.utcoffset()


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_row_is_the_same_item_as_a_mapping_with_its_values(package: str) -> None:
    calls: list[Any] = []

    @tool
    async def rate(row: dict[str, Any]) -> int:
        calls.append(row["id"])
        return len(row)

    async def rate_all(items: Any) -> None:
        async with ExecutionState(store=store, run_id="r", reuse=True) as state, state.parallel(name="all") as group:
            group.map(rate, items)
            assert [each.unwrap() for each in await group.gather()] == [8, 8]

    store = MemoryStore()
    run_virtually(lambda: rate_all(ROWS))
    run_virtually(lambda: rate_all(frame_of(package, list(reversed(ROWS)))))
    assert calls == ["a", None]


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_rows_are_made_as_they_are_needed_and_all_of_them(package: str) -> None:
    frame = frame_of(package, [{"n": number} for number in range(3000)])
    made: list[int] = []

    async def number(row: dict[str, int]) -> int:
        made.append(row["n"])
        return row["n"]

    async def main() -> None:
        async with ExecutionState() as state, state.parallel(max_workers=2) as group:
            group.map(number, frame)
            stream = group.stream()
            assert (await anext(stream)).unwrap() == 0
            assert len(made) < 20
            assert [each.unwrap() async for each in stream] == list(range(1, 3000))

    run_virtually(main)


def test_numpy_in_cells_and_integers_of_which_some_are_missing_are_plain_as_well() -> None:
    pandas: Any = pytest.importorskip("pandas")
    numpy: Any = pytest.importorskip("numpy")
    frame = pandas.DataFrame({"cell": [numpy.array([1, 2]), numpy.int64(3)], "n": pandas.array([1, None], "Int64")})
    frame["kind"] = pandas.Categorical(["u", None])
    found = items_of(frame)
    assert found == [{"cell": [1, 2], "n": 1, "kind": "u"}, {"cell": 3, "n": None, "kind": None}]
    assert type(found[1]["cell"]) is int


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_time_with_nanoseconds_is_refused_by_its_column(package: str) -> None:
    module: Any = pytest.importorskip(package)
    late = [1_700_000_000_000_000_000, 1_700_000_000_000_000_001]
    if package == "pandas":
        frame = module.DataFrame({"at": module.to_datetime(late)})
    else:
        frame = module.DataFrame({"at": module.Series(late).cast(module.Datetime("ns"))})
    with pytest.raises(DefinitionError, match=r"column 'at' has a time with nanoseconds, .* cast it to microseconds"):
        items_of(frame)
    assert len(items_of(frame[:1])) == 1


def test_columns_need_names_of_their_own() -> None:
    pandas: Any = pytest.importorskip("pandas")
    with pytest.raises(DefinitionError, match="need names that are texts, and 0 is none"):
        items_of(pandas.DataFrame([[1, 2]]))
    with pytest.raises(DefinitionError, match="two columns of the data frame are named 'a'"):
        items_of(pandas.DataFrame([[1, 2]], columns=["a", "a"]))
