"""Sheets of Excel as inputs."""

from __future__ import annotations

import datetime
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rh_agents.cli.errors import CommandError
from rh_agents.cli.input.files import InputOptions, open_input
from rh_agents.cli.input.lines import Format, Item
from tests.surfaces.cli_kit import QUIET, Folder, said

openpyxl: Any = pytest.importorskip("openpyxl")

MOMENT = datetime.datetime.fromisoformat("2026-07-01T12:30")


def book(name: str = "book.xlsx", **sheets: list[list[Any]]) -> str:
    """A workbook of these sheets, as rows."""
    made = openpyxl.Workbook()
    made.remove(made.active)
    for title, rows in sheets.items():
        sheet = made.create_sheet(title)
        for number, row in enumerate(rows, start=1):
            for place, value in enumerate(row, start=1):
                if value is not None:
                    sheet.cell(number, place, value)
    made.save(name)
    return name


def items_of(name: str, **options: Any) -> list[Item]:
    with open_input(name, InputOptions(**options)) as given:
        return list(given.items)


def test_rows_below_the_names_are_items_with_the_values_of_their_cells(folder: Folder) -> None:
    rows: list[list[Any]] = [[], ["id", "text", None, "n"], ["a", "x", None, 1.5], [], ["b", None, None, True]]
    rows.append([None, "z", None, MOMENT])
    found = items_of(book(Reviews=rows))
    assert [item.value for item in found] == [
        {"id": "a", "text": "x", "n": 1.5},
        {"id": "b", "text": None, "n": True},
        {"id": None, "text": "z", "n": MOMENT},
    ]
    assert [(item.position, item.id) for item in found] == [
        ("book.xlsx:Reviews:3", "a"),
        ("book.xlsx:Reviews:5", "b"),
        ("book.xlsx:Reviews:6", 6),
    ]


def test_a_cell_with_an_error_or_without_a_name_is_a_failed_item(folder: Folder) -> None:
    found = items_of(book(S=[["n", "m"], ["#N/A", 1], [1, 2, 3], [4]]))
    assert [(item.value, item.problem) for item in found] == [
        (None, "column 'n' has the error #N/A"),
        (None, "column 3 has a value and no name in the first row"),
        ({"n": 4, "m": None}, None),
    ]


def test_of_several_sheets_one_is_named_and_of_one_that_is_used_none(folder: Folder) -> None:
    assert [item.value for item in items_of(book(Empty=[], Used=[["a"], [1]]))] == [{"a": 1}]
    name = book(One=[["a"], [1]], Two=[["b"], [2]])
    assert [item.value for item in items_of(name, sheet="Two")] == [{"b": 2}]
    with open_input(name, InputOptions(sheet="Two")) as given:
        assert given.found == {"form": "excel", "sheet": "Two"}
    with pytest.raises(CommandError, match=r"book\.xlsx has 2 sheets, 'One', 'Two': say which with --sheet"):
        items_of(name)
    with pytest.raises(CommandError, match=r"--sheet Twoo: .* has no such sheet; .*; did you mean 'Two'"):
        items_of(name, sheet="Twoo")


def test_what_cannot_be_read_is_one_sentence(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Path(book("whole.xlsx", S=[["a"], [1]])).read_bytes()
    Path("cut.xlsx").write_bytes(data[: len(data) // 2])
    Path("plain.csv").write_text("a\n1\n")
    with zipfile.ZipFile("large.xlsx", "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("xl/workbook.xml", b" " * 70_000_000)
    with zipfile.ZipFile("odd.xlsx", "w") as parts:
        parts.writestr("xl/workbook.xml", b"<")
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("odd.xlsx", {}, "odd.xlsx is cut or damaged: "),
        ("cut.xlsx", {}, "cut.xlsx is a workbook of Excel: save it as CSV"),
        ("large.xlsx", {}, "large.xlsx expands to more than 200 times its size, so it is not read"),
        ("whole.xlsx", {"form": Format.CSV}, "is a workbook of Excel, so --format csv cannot read it: leave that out"),
        ("whole.xlsx", {"id_field": "b", "must_have_id": True}, "whole.xlsx has no such column; there are a"),
        ("plain.csv", {"form": Format.EXCEL}, "no workbook of Excel, so --format excel cannot read it: leave that out"),
        ("plain.csv", {"sheet": "x"}, "--sheet x: plain.csv is no workbook of Excel"),
        (book("none.xlsx", S=[]), {}, "none.xlsx has no sheet with something in it"),
        (book("twice.xlsx", S=[["a", "a"]]), {}, "twice.xlsx:S:1: two columns are named 'a': rename one"),
    ]
    for name, options, said_of_it in cases:
        with pytest.raises(CommandError) as refused:
            items_of(name, **options)
        assert said_of_it in str(refused.value)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(CommandError, match=r"whole\.xlsx is a workbook of Excel, which needs openpyxl: pip install"):
        items_of("whole.xlsx")


def test_a_row_is_the_same_item_as_in_lines_of_json_and_a_plan_reads_the_sheet(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "one", "two")
    said(capfd, "map", "program.py:rate", "in.jsonl", "--run-id", "r", *QUIET)
    rows = [["id", "text"], ["two", "two"], ["three", "three"]]
    words = ("map", "program.py:rate", book(A=rows, B=[["x"], [1]]), "--sheet", "A", *QUIET)
    out, _ = said(capfd, *words, "--run-id", "r")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["two", "three"]
    assert folder.ledger["rate two"] == folder.ledger["rate three"] == 1
    assert "2 items: 2 reused, 0 new" in said(capfd, "plan", "r")[0]
    assert said(capfd, "resume", "r")[0].count("\n") == 2
