"""Records of the input: what is an item, what is a bad one, and where it stands."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from rh_agents.cli.errors import CommandError
from rh_agents.cli.input import lines
from rh_agents.cli.input.files import InputOptions, open_input
from rh_agents.cli.input.items import read_items
from rh_agents.cli.input.lines import Format, Item


def read(data: bytes, form: Format = Format.JSONL, id_field: str = "id") -> list[Item]:
    return list(read_items(io.BytesIO(data), "in", form, id_field))


def problems(data: bytes, form: Format = Format.JSONL) -> dict[str, str | None]:
    return {item.position: item.problem for item in read(data, form)}


def test_a_json_line_is_an_item_named_by_its_id_field() -> None:
    assert read(b'{"id": "a", "n": 1}\n') == [Item("in:1", "a", {"id": "a", "n": 1})]
    assert read(b'{"key": 7}\n', id_field="key")[0].id == 7


def test_without_an_id_an_item_is_named_by_the_number_of_its_line() -> None:
    assert [item.id for item in read(b'{"id": null}\n5\n\n{"id": 0}')] == [1, 2, 0]


def test_blank_lines_are_no_items_but_count_as_lines() -> None:
    for form in Format.JSONL, Format.TEXT:
        assert [item.position for item in read(b"1\n\n  \t\r\n2\n", form)] == ["in:1", "in:4"]


def test_a_byte_order_mark_crlf_and_a_missing_last_line_end_are_tolerated() -> None:
    assert [item.value for item in read(b"\xef\xbb\xbf1\r\n2\r\n3")] == [1, 2, 3]
    assert [item.value for item in read(b"\xef\xbb\xbfa \r\n b", Format.TEXT)] == ["a ", " b"]
    assert [item.value for item in read(b"\xef\xbb\xbfa\r\n1\r\n2", Format.CSV)] == [{"a": "1"}, {"a": "2"}]


def test_what_is_not_json_is_told_with_the_column_and_the_next_line_is_read() -> None:
    assert problems(b"{x\n1\n") == {"in:1": "not valid JSON: key must be a string at column 2", "in:2": None}


def test_a_nul_is_no_json_but_may_stand_in_a_plain_line() -> None:
    assert "control character" in (problems(b'"a\x00b"')["in:1"] or "")
    assert read(b"a\x00b", Format.TEXT)[0].value == "a\x00b"


@pytest.mark.parametrize("form", [Format.JSONL, Format.TEXT])
def test_invalid_utf8_is_a_bad_item_with_its_column(form: Format) -> None:
    assert problems(b"1\na\xffb\n2", form) == {
        "in:1": None,
        "in:2": "not valid UTF-8: byte 0xff at column 2",
        "in:3": None,
    }


@pytest.mark.parametrize("form", [Format.JSONL, Format.TEXT, Format.CSV])
def test_a_line_beyond_the_limit_is_a_bad_item_and_is_not_kept(form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 10)
    found = read(b"1\n" + b"9" * 1000 + b"\n2\n", form)
    by_line = {item.position: item.problem for item in found}
    assert by_line["in:2"] is not None
    assert "longer than" in by_line["in:2"]
    assert by_line["in:3"] is None


def test_a_line_of_ten_megabytes_is_a_line_like_any_other() -> None:
    assert len(read(b'"' + b"x" * 10_000_000 + b'"')[0].value) == 10_000_000
    assert len(read(b"x" * 10_000_000, Format.TEXT)[0].value) == 10_000_000
    assert len(read(b"a\n" + b"x" * 10_000_000, Format.CSV)[0].value["a"]) == 10_000_000


def test_the_csv_header_gives_the_names() -> None:
    assert read(b"id, text\n1,hello\n", Format.CSV) == [Item("in:2", "1", {"id": "1", "text": "hello"})]


def test_a_quoted_field_may_hold_line_ends_and_the_record_stands_where_it_begins() -> None:
    assert [(item.position, item.value["b"]) for item in read(b'a,b\n1,"x\ny"\n2,z\n', Format.CSV)] == [
        ("in:2", "x\ny"),
        ("in:4", "z"),
    ]


def test_csv_records_that_do_not_fit_the_header_are_bad_items() -> None:
    assert problems(b'a,b\n1\n\n1,2,3\n\xff,2\n1,2\n"1"x,2\n3,"open\n', Format.CSV) == {
        "in:2": "1 field, but the header names 2",
        "in:4": "3 fields, but the header names 2",
        "in:5": "not valid UTF-8: byte 0xff at column 1",
        "in:6": None,
        "in:7": "not valid CSV: ',' expected after '\"'",
        "in:8": "not valid CSV: a quote is not closed; close it, or double it if it belongs to the text",
    }


@pytest.mark.parametrize("header", [b"a,a", b",", b"\xff,b", b'"a'])
def test_a_header_that_names_no_columns_ends_the_job_before_it_begins(header: bytes) -> None:
    with pytest.raises(CommandError, match=r"^in:1: the first line of a CSV file names its columns: ") as caught:
        read(header + b"\n1,2\n", Format.CSV)
    assert caught.value.exit_code == 2


def test_records_are_read_only_when_they_are_asked_for() -> None:
    stream = io.BytesIO(b"1\n2\n3\n")
    items = read_items(stream, "in", Format.JSONL)
    next(items)
    assert stream.tell() == 2


def test_the_extension_tells_the_format_and_an_unknown_one_means_plain_lines(tmp_path: Path) -> None:
    for name, value in {"a.jsonl": 1, "a.NDJSON": 1, "a.log": "1", "a": "1"}.items():
        path = tmp_path / name
        path.write_text("1\n")
        with open_input(str(path)) as given:
            assert next(given.items).value == value
    with open_input(str(tmp_path / "a.jsonl"), InputOptions(Format.TEXT)) as given:
        assert next(given.items).value == "1"


def test_the_records_of_a_file_are_counted_before_they_are_read(tmp_path: Path) -> None:
    def total(name: str, text: str) -> int | None:
        path = tmp_path / name
        path.write_text(text)
        with open_input(str(path)) as given:
            assert given.total in (None, len(list(given.items)))
            return given.total

    assert total("a.jsonl", "1\n2\n3") == 3
    assert total("a.csv", "a\n1\n2\n") == 2
    assert total("empty.csv", "a\n") == 0
    assert total("quoted.csv", 'a\n"1"\n') is None


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.json", b' [{"a": 1}]', "contains a list, and map reads JSON lines"),
        ("a.json", b'{\n"a": 1\n}', "contains one object over several lines, and map reads JSON lines"),
        ("a.txt", "ä".encode("utf-16"), "is written in UTF-16"),
    ],
)
def test_a_file_of_which_every_line_would_be_wrong_is_refused(
    name: str, data: bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CommandError, match=told):
        open_input(str(path))


def test_a_json_file_that_holds_json_lines_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    with open_input(str(path)) as given:
        assert len(list(given.items)) == 2


def test_files_that_cannot_be_read_are_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^cannot read .*none.jsonl: No such file or directory$"):
        open_input(str(tmp_path / "none.jsonl"))
    with pytest.raises(CommandError, match=r"^cannot read .*: Is a directory$"):
        open_input(str(tmp_path))


def test_only_what_is_no_regular_file_may_block(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.touch()
    with open_input(str(path)) as given:
        assert not given.may_block
    given = open_input(os.devnull, InputOptions(Format.TEXT))
    assert given.may_block
    given.stream.close()
