"""Parquet and Arrow files as inputs: the values that are in them, or a sentence about the column."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import os
import sys
import zoneinfo
from pathlib import Path
from typing import Any

import pytest

from rh_agents.cli.errors import CommandError
from rh_agents.cli.input.files import InputOptions, open_input
from rh_agents.cli.input.lines import Format, Item
from tests.surfaces.cli_kit import QUIET, Folder, said

arrow: Any = pytest.importorskip("pyarrow")
parquet: Any = pytest.importorskip("pyarrow.parquet")
ipc: Any = pytest.importorskip("pyarrow.ipc")

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
ROWS = [
    {
        "id": "a",
        "large": 2**63 - 1,
        "real": 0.1,
        "price": decimal.Decimal("1.10"),
        "at": datetime.datetime(2026, 7, 1, 12, 30, 0, 123456, tzinfo=BERLIN),
        "day": datetime.date(2026, 11, 30),
        "list": [1, None],
        "inner": {"x": [{"y": "ä"}]},
        "raw": b"\x00\xff",
        "is": True,
        "none": None,
    },
    dict.fromkeys(("large", "price", "at", "day", "list", "inner", "raw", "is", "none"), None)
    | {"id": "b", "real": 2.5},
]


def write(name: str, table: Any) -> str:
    """A file of the format that its name says."""
    if name.endswith(".parquet"):
        parquet.write_table(table, name, row_group_size=700)
    else:
        with ipc.new_file(name, table.schema) as file:
            file.write_table(table)
    return name


def items_of(name: str, **options: Any) -> list[Item]:
    with open_input(name, InputOptions(**options)) as given:
        return list(given.items)


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow"])
def test_rows_have_the_values_that_are_in_the_file(folder: Folder, name: str) -> None:
    items = items_of(write(name, arrow.Table.from_pylist(ROWS)))
    assert [item.value for item in items] == [{key: row.get(key) for key in ROWS[0]} for row in ROWS]
    assert [(item.position, item.id) for item in items] == [(f"{name}:1", "a"), (f"{name}:2", "b")]
    nan = items_of(write(name, arrow.table({"x": [math.nan, None]})))
    assert math.isnan(nan[0].value["x"])
    assert nan[1] == Item(f"{name}:2", 2, {"x": None})


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow"])
def test_rows_are_read_as_they_are_asked_for_and_all_of_them(folder: Folder, name: str) -> None:
    write(name, arrow.table({"x": list(range(3000))}))
    with open_input(name) as given:
        assert next(given.items).value == {"x": 0}
        assert [item.value["x"] for item in given.items] == list(range(1, 3000))
        assert given.total == (3000 if name.endswith("parquet") else None)
        assert given.found == {"form": name.rpartition(".")[2]}


def test_times_in_nanoseconds_are_read_where_python_has_them_and_else_refused_by_their_column(folder: Folder) -> None:
    moment = datetime.datetime(2026, 7, 1, 12, tzinfo=datetime.UTC)
    kind = arrow.timestamp("ns", tz="UTC")
    table = arrow.table({"at": arrow.array([moment], arrow.timestamp("us", tz="UTC")).cast(kind)})
    assert [item.value["at"] for item in items_of(write("in.parquet", table))] == [moment]
    write("in.arrow", arrow.table({"at": arrow.array([1_700_000_000_000_000_001], kind)}))
    with pytest.raises(
        CommandError, match=r"in\.arrow: column 'at' has a time with nanoseconds .*: cast them to micro"
    ):
        items_of("in.arrow")
    write("in.arrow", arrow.table({"all": arrow.array([[1]], arrow.list_(kind))}))
    with pytest.raises(CommandError, match="column 'all' has times in nanoseconds in it"):
        items_of("in.arrow")


def test_what_cannot_be_read_is_one_sentence(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Path(write("in.parquet", arrow.Table.from_pylist(ROWS))).read_bytes()
    Path("cut.parquet").write_bytes(data[:-30])
    Path("plain.jsonl").write_text("{}\n")
    Path("twice.arrow").write_bytes(Path(write("x.arrow", arrow.table([[1], [2]], names=["a", "a"]))).read_bytes())
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("cut.parquet", {}, "cut.parquet is cut or damaged: "),
        ("twice.arrow", {}, "twice.arrow has two columns that are named 'a': rename one"),
        ("in.parquet", {"id_field": "ids", "must_have_id": True}, "in.parquet has no such column; there are id, large"),
        ("in.parquet", {"form": Format.CSV}, "a file of Parquet, so --format csv cannot read it: leave that out"),
        ("plain.jsonl", {"form": Format.ARROW}, "no table of Parquet or Arrow in a file, so --format arrow cannot"),
    ]
    for name, options, said_of_it in cases:
        with pytest.raises(CommandError) as refused:
            items_of(name, **options)
        assert said_of_it in str(refused.value)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CommandError, match=r"in\.parquet is a Parquet file, which needs pyarrow: pip install"):
        items_of("in.parquet")


def test_a_row_is_the_same_item_in_whatever_format_and_order(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.write("in.jsonl", "one", "two", "three")
    said(capfd, "map", "program.py:rate", "in.jsonl", "--run-id", "r", *QUIET)
    rows = [{"id": text, "text": text} for text in ("three", "four", "one")]
    write("in.parquet", arrow.Table.from_pylist(rows))
    out, _ = said(capfd, "map", "program.py:rate", "in.parquet", "--run-id", "r", *QUIET)
    assert sorted(json.loads(line)["id"] for line in out.splitlines()) == ["four", "one", "three"]
    assert folder.ledger["rate one"] == folder.ledger["rate three"] == folder.ledger["rate four"] == 1
    assert "3 items: 3 reused, 0 new" in said(capfd, "plan", "r")[0]


# -- streams and data sets --------------------------------------------------------------------------------------------


def data_set(folder: str, *parts: list[dict[str, Any]], **state: Any) -> str:
    """A data set as `save_to_disk` of Hugging Face writes it: streams of Arrow, and a list of them."""
    os.makedirs(folder)
    names = [f"data-{number:05}-of-{len(parts):05}.arrow" for number in range(len(parts))]
    for name, rows in zip(names, parts, strict=True):
        stream_of(rows, os.path.join(folder, name))
    about = {"_data_files": [{"filename": name} for name in names], "_format_columns": None, **state}
    Path(folder, "state.json").write_text(json.dumps(about))
    Path(folder, "dataset_info.json").write_text("{}")
    return folder


def stream_of(rows: list[dict[str, Any]], path: str) -> str:
    table = arrow.Table.from_pylist(rows)
    with ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table, max_chunksize=2)
    return path


def test_a_stream_of_arrow_in_a_file_is_read_like_any_other(folder: Folder) -> None:
    assert [item.value for item in items_of(stream_of([{"a": 1}, {"a": 2}, {"a": 3}], "in.arrows"))] == [
        {"a": 1},
        {"a": 2},
        {"a": 3},
    ]


def test_a_data_set_in_a_folder_has_the_rows_of_its_files_in_their_order(folder: Folder) -> None:
    made = data_set("set", [{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "c", "n": 3}], [{"id": "d", "n": 4}])
    assert [(item.position, item.id) for item in items_of(made)] == [
        ("set:1", "a"),
        ("set:2", "b"),
        ("set:3", "c"),
        ("set:4", "d"),
    ]
    with open_input(made) as given:
        assert given.found == {}


def test_what_is_no_data_set_to_read_is_one_sentence(folder: Folder) -> None:
    data_set("parts/train", [{"a": 1}])
    Path("parts/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("parts", {}, "parts is a data set in parts (train, test): name one of them, as in parts/train"),
        ("parts/train", {"form": Format.CSV}, "a data set of Hugging Face: leave --format, --separator and"),
        (data_set("out", [{"a": 1}], _data_files=[{"filename": "../x"}]), {}, "out names a file outside of it: ../x"),
        (
            data_set("old", [{"a": 1}], _indices_data_files=[{"filename": "i"}]),
            {},
            "old is a data set of an old",
        ),
        (data_set("none"), {}, "none is a data set of Hugging Face without data"),
        (data_set("gone", [{"a": 1}], _data_files=[{"filename": "gone"}]), {}, "gone is cut or damaged"),
        (data_set("odd", _data_files=3), {}, "odd is cut or damaged"),
    ]
    for name, options, said_of_it in cases:
        with pytest.raises(CommandError) as refused:
            items_of(name, **options)
        assert said_of_it in str(refused.value)


def test_a_map_over_a_data_set_writes_nothing_into_it(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    data_set("set", [{"id": text, "text": text} for text in ("one", "two")])
    out, _ = said(capfd, "map", "program.py:rate", "set", *QUIET)
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["one", "two"]
    _, err = said(capfd, "map", "program.py:rate", "set", "-o", "set/out.jsonl", *QUIET, code=2)
    assert "set/out.jsonl is in the input: write to another file" in err
