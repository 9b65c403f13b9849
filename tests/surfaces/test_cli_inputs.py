"""Inputs of all kinds are read as they are meant, or refused before anything is called, with the remedy."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rh_agents.cli.errors import CommandError
from rh_agents.cli.input.detection import looks_like_json
from rh_agents.cli.input.files import InputOptions, is_stream, open_input
from rh_agents.cli.input.lines import Format, Item
from tests.surfaces.cli_kit import Folder, command

JSONL = b'{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n'
CSV = b"id,text\n1,a\n2,b\n"
TEXT = b"a\nb\n"


class Given:
    """An input that has been read: its items, and what was told of it."""

    def __init__(self, path: str, **options: Any) -> None:
        self.told: list[str] = []
        with open_input(path, InputOptions(report=self.told.append, **options)) as given:
            self.items: list[Item] = list(given.items)
            if given.may_block:
                given.stream.close()

    @property
    def values(self) -> list[Any]:
        return [item.value for item in self.items]

    @property
    def problems(self) -> list[str]:
        return [f"{item.position}: {item.problem}" for item in self.items if item.problem is not None]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(name: str, data: bytes, **options: Any) -> Given:
    Path(name).write_bytes(data)
    return Given(name, **options)


def refusal(name: str, data: bytes, **options: Any) -> str:
    """Why it is refused, before there is a single item."""
    Path(name).write_bytes(data)
    with pytest.raises(CommandError) as caught:
        open_input(name, InputOptions(**options))
    assert caught.value.exit_code == 2
    return str(caught.value)


# -- no text ----------------------------------------------------------------------------------------------------------


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "<xml/>")
    return file.getvalue()


def in_a_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return file.getvalue()


BINARY = {
    "bz2": (bz2.compress(JSONL), "compressed with bzip2: unpack it, as in `bzip2 -dc NAME | rh-agents map … -`"),
    "xz": (lzma.compress(JSONL), "compressed with xz: unpack it"),
    "zip": (zipped("a.csv"), "a zip archive: unpack it"),
    "xlsb": (zipped("[Content_Types].xml", "xl/workbook.bin"), "a workbook of Excel: save it as CSV in UTF-8"),
    "docx": (zipped("[Content_Types].xml", "word/document.xml"), "an Office document: save it as plain text"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "an Office document: save it as CSV in UTF-8"),
    "tar": (in_a_tar(), "a tar archive: unpack it, as in `tar -xOf NAME"),
    "orc": (b"ORC\x80\xff", "an ORC file: convert it to JSON lines, as in"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n\x00", "a PDF document: take its text out"),
    "pickle": (b"\x80\x04\x95\x05\x00\x00\x00", "a pickle: convert it"),
    "db": (b"SQLite format 3\x00" + bytes(80), "a database of SQLite: say what to read of it, as in --query"),
    "png": (b"\x89PNG\r\n\x1a\n\x00\x00", "an image"),
}


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("ending", ["", ".jsonl", ".csv", ".txt", ".json"])
def test_what_is_no_text_is_refused_whatever_it_is_called(kind: str, ending: str) -> None:
    data, told = BINARY[kind]
    name = f"a.{kind}{ending}"
    assert f"{name} is {told.replace('NAME', name)}" in refusal(name, data)
    assert refusal(name, data, form=Format.TEXT)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a"])
@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-16", "UTF-16: convert it to UTF-8 first, with iconv -f utf-16 -t utf-8 NAME"),
        ("utf-16-le", "UTF-16, without a mark that says so: convert it to UTF-8 first, with iconv -f utf-16le"),
        ("utf-16-be", "UTF-16, without a mark that says so: convert it to UTF-8 first, with iconv -f utf-16be"),
        ("utf-32", "UTF-32: convert it to UTF-8 first, with iconv -f utf-32"),
    ],
)
def test_wide_characters_are_refused_with_and_without_a_mark(name: str, encoding: str, told: str) -> None:
    message = refusal(name, "id,text\n1,zwölf\n2,ok\n".encode(encoding))
    assert message.startswith(f"{name} is written in {told.replace('NAME', name)}")


def test_an_old_encoding_is_refused_and_single_broken_lines_are_items() -> None:
    data = "caf\xe9\nna\xefve\nplain\n".encode("latin-1")
    assert "a.txt is not in UTF-8 (line 1 is not, for one): convert it, with iconv -f windows-1252" in refusal(
        "a.txt", data
    )
    assert "is not in UTF-8" in refusal("a.csv", b"id,text\n1,caf\xe9\n")
    assert len(read("a.txt", data, form=Format.TEXT).problems) == 2
    assert len(read("b.txt", "ä\nö\nü\n".encode() + b"\xe9\n").problems) == 1
    assert len(read("c.txt", b"a\nb\nc\n\xe9\nd\n").problems) == 1


def test_a_character_that_the_look_cuts_in_its_middle_is_no_fault() -> None:
    assert len(read("a.txt", b"x" * 65_535 + "ä\n".encode()).items) == 1
    assert len(read("b.txt", ("ä" * 40_000 + "\n" + "b\n").encode()).items) == 2


def test_nul_bytes_are_no_text_unless_somebody_says_so() -> None:
    assert "a.log contains NUL bytes, so it is not text" in refusal("a.log", b"line one\nline \0 two\n")
    assert read("a.log", b"a\0b\n", form=Format.TEXT).values == ["a\0b"]


def test_lines_that_end_with_cr_alone_are_refused_and_cr_within_lines_is_not() -> None:
    for name in "a.txt", "a.csv", "a.jsonl", "a":
        message = refusal(name, b"id,text\r1,a\r2,b\r")
        assert (
            f"lines that end with CR alone, as old Macs wrote them: convert them, as in `tr '\\r' '\\n' < {name}"
            in message
        )
    assert read("b.txt", b"10%\r20%\ndone\n").values == ["10%\r20%", "done"]
    assert read("c.txt", b"one line\r").values == ["one line"]


# -- the format -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data.jsonl.bak", "data.jsonl~", "data.ndjson.1", "data.jsonl.old.bak"])
def test_what_is_put_behind_a_name_does_not_hide_it(name: str) -> None:
    assert [item.id for item in read(name, JSONL).items] == [1, 2]
    assert read(name.replace("jsonl", "csv").replace("ndjson", "csv"), CSV).values[0] == {"id": "1", "text": "a"}


@pytest.mark.parametrize("name", ["data", "data.bak", "data.out", "data.2026-11-28"])
def test_where_no_name_tells_the_content_does(name: str) -> None:
    found = read(name, JSONL)
    assert [item.id for item in found.items] == [1, 2]
    assert found.told == [f"{name} is read as JSON lines, since it contains them; --format overrides this"]
    assert (read(name, TEXT).values, read(name, b"1\n2\n").values) == (["a", "b"], ["1", "2"])
    assert "looks like a table whose fields are separated by ',': say --format csv" in refusal(name, CSV)
    assert "looks like a table whose fields are separated by tab" in refusal(name, CSV.replace(b",", b"\t"))


def through_a_pipe(data: bytes) -> Iterator[str]:
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    yield f"/dev/fd/{reader}"
    os.close(reader)


def test_a_pipe_is_looked_at_as_a_file_is() -> None:
    for data, values in {JSONL: [1, 2], TEXT: ["a", "b"], b"": []}.items():
        for path in through_a_pipe(data):
            assert [item.id for item in Given(path).items] == values
            assert is_stream(path)
    for data in (gzip.compress(JSONL), CSV, TEXT.decode().encode("utf-16-le"), b'[\n{"a": 1}\n]\n'):
        for path in through_a_pipe(data):
            with pytest.raises(CommandError):
                open_input(path)


def test_a_named_pipe_is_looked_at_when_its_first_line_has_come(folder: Path) -> None:
    os.mkfifo("fifo")

    def write() -> None:
        with open("fifo", "wb", buffering=0) as file:
            for part in (b'{"te', b'xt": "a"}\n', JSONL):
                file.write(part)

    thread = threading.Thread(target=write)
    thread.start()
    assert [item.value["text"] for item in Given("fifo").items] == ["a", "a", "b"]
    thread.join()
    assert not is_stream("fifo")


@pytest.mark.parametrize("name", ["a.txt", "a.log", "a.md", "a.txt.bak"])
def test_json_lines_that_are_called_plain_text_are_not_sent_as_such(name: str) -> None:
    message = refusal(name, JSONL)
    assert message == (
        f"{name} is named like plain text, and its lines look like JSON: say --format jsonl, or --format text to send "
        "each line as it is"
    )
    assert read(name, JSONL, form=Format.JSONL).values[0] == {"id": 1, "text": "a"}
    assert read(name, JSONL, form=Format.TEXT).values[0] == '{"id": 1, "text": "a"}'


@pytest.mark.parametrize("name", ["a.txt", "a"])
def test_single_lines_of_json_in_plain_text_are_told(name: str) -> None:
    found = read(name, b"hello\nworld\n[INFO] {x}\n" + JSONL)
    assert len(found.items) == 5
    assert [line.partition(":")[2].partition(",")[0] for line in found.told] == [
        "4: looks like JSON and is sent as plain text"
    ]
    assert read(name, b"hello\nworld\n[INFO] {x}\n" + JSONL, form=Format.TEXT).told == []


def test_what_looks_like_json() -> None:
    for line in '{"a": 1}', '{"a": ', "[1, 2]", ' {"a"', "{}":
        assert looks_like_json(line)
    for line in "[INFO] x", "{name}", "hello", "[1] a footnote", "5", '"quoted" word', "{{ template }}":
        assert not looks_like_json(line)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a", "a.ndjson"])
@pytest.mark.parametrize("data", ['[\n{"a": 1},\n{"a": 2}\n]\n', '[{"a": 1},\n{"a": 2}]\n', '\ufeff[\r\n{"a": 1}\r\n]'])
def test_a_list_over_several_lines_is_refused(name: str, data: str) -> None:
    other = "a-lines.jsonl" if name == "a.jsonl" else "a.jsonl"  # never the input itself
    told = f"{name} contains a list, and map reads JSON lines, one value a line: convert it with "
    assert refusal(name, data.encode()) == f"{told}jq -c '.[]' {name} > {other}"


def test_a_remedy_can_be_pasted_into_a_shell() -> None:
    assert refusal("my file.json", b"[1]").endswith("jq -c '.[]' 'my file.json' > 'my file.jsonl'")
    assert "`bzip2 -dc 'a b.bz2' | rh-agents map … -`" in refusal("a b.bz2", bz2.compress(JSONL))


def test_a_list_of_objects_on_one_line_is_an_item_only_where_its_name_says_so() -> None:
    data = b'[{"a": 1}, {"a": 2}]\n'
    assert "contains a list" in refusal("a", data)
    assert "contains a list" in refusal("a.json", data)
    assert read("a.jsonl", data).values == [[{"a": 1}, {"a": 2}]]
    assert read("a", data, form=Format.JSONL).values == [[{"a": 1}, {"a": 2}]]
    assert read("a", b"[1, 2]\n[3]\n").values == [[1, 2], [3]]


def test_an_object_over_several_lines_is_refused_and_a_broken_first_line_is_an_item() -> None:
    assert "contains one object over several lines" in refusal("a", b'{\n  "a": 1\n}\n')
    assert read("a.jsonl", b'{"a": \n{"a": 2}\n').values == [None, {"a": 2}]


def test_json_lines_that_are_called_a_table_are_refused() -> None:
    found = open_input(str(_written("a.csv", JSONL)))
    with pytest.raises(
        CommandError, match=r"a.csv:1: this is JSON, not the header of a table: --format jsonl reads it"
    ):
        list(found.items)
    found.stream.close()


def _written(name: str, data: bytes) -> Path:
    path = Path(name)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl", "a", "a.json"])
@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\n\n", b"\r\n"])
def test_an_empty_input_has_no_items(name: str, data: bytes) -> None:
    assert read(name, data).items == []


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize(("separator", "shown"), [(",", "','"), (";", "';'"), ("\t", "tab"), ("|", "'|'")])
def test_the_separator_of_a_table_is_found_out(name: str, separator: str, shown: str) -> None:
    text = 'id;text\n1;"a;b"\n2;c, d\n\n3;e\n'.replace(";", separator)
    found = read(name, text.encode())
    assert found.values[0] == {"id": "1", "text": f"a{separator}b"} if separator != "," else found.values
    usual = "\t" if name == "a.tsv" else ","
    told = [f"{name}: the fields are separated by {shown}; --separator overrides this"]
    assert found.told == ([] if separator == usual else told)


def test_a_separator_that_is_not_clear_is_asked_for() -> None:
    data = b"id,text;more\n1,a;b\n"
    assert refusal("a.csv", data) == (
        "the fields of a.csv may be separated by ',' or by ';': say which with --separator"
    )
    assert read("a.csv", data, separator=";").values == [{"id,text": "1,a", "more": "b"}]
    assert read("a.csv", b"id,text;more\n1,a\n2,b\n").values[0] == {"id": "1", "text;more": "a"}
    assert read("a.txt", b"id;text\n1;a\n", separator=";").values == [{"id": "1", "text": "a"}]


def test_one_column_is_a_table_as_well_and_commas_in_numbers_do_not_count() -> None:
    assert read("a.csv", b"text\nhello | world\na;b\n").values == [{"text": "hello | world"}, {"text": "a;b"}]
    assert read("a.csv", b"id;price\n1;2,5\n2;3,5\n").values[0] == {"id": "1", "price": "2,5"}
    assert read("a.csv", b"id,text\n").items == []


def test_the_line_for_excel_is_no_header() -> None:
    assert read("a.csv", b"sep=;\nid;text\n1;a\n").values == [{"id": "1", "text": "a"}]
    assert [item.position for item in read("a.csv", b"\xef\xbb\xbfsep=|\r\nid|text\r\n1|a\r\n").items] == ["a.csv:3"]


def test_a_column_without_a_name_is_given_by_its_number_and_told_once() -> None:
    found = read("a.csv", b",id,text\n0,1,a\n1,2,b\n")
    assert found.values == [{"column 1": "0", "id": "1", "text": "a"}, {"column 1": "1", "id": "2", "text": "b"}]
    assert found.told == ["a.csv:2: column 1 has no name; its values are given as 'column 1'"]


def test_separators_at_the_end_of_lines_are_no_columns() -> None:
    wanted = [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]
    for data in (b"id,text,\n1,a,\n2,b,\n", b"id,text,,,\n1,a\n2,b,,,\n", b"id,text\n1,a,\n2,b,,\n"):
        found = read("a.csv", data)
        assert (found.values, found.told) == (wanted, [])
    found = read("a.csv", b"id,text,\n1,a,x\n2,b\n3\n")
    assert found.values[:2] == [{"id": "1", "text": "a", "column 3": "x"}, {"id": "2", "text": "b"}]
    assert found.problems == ["a.csv:4: 1 field, but the header names 2"]


def test_a_number_among_the_names_of_columns_is_told() -> None:
    found = read("a.csv", b"1,hello\n2,world\n")
    assert found.told == [
        "a.csv:1: this line is taken for the names of the columns, and '1' is one of them: if it is a record, write a "
        "line of names above it"
    ]
    assert read("a.csv", b"id,text\n1,2\n").told == []


def test_two_columns_of_one_name_are_refused_with_the_remedy() -> None:
    given = open_input(str(_written("a.csv", b"id,text,text\n1,a,b\n")))
    with pytest.raises(CommandError, match="two columns are named 'text': rename one"):
        list(given.items)
    given.stream.close()


@pytest.mark.parametrize("quoted", [b'2,"5 inch disk', b'2,"5 inch, disk', b'"2,5 inch disk'])
def test_a_quote_that_is_not_closed_is_told_with_where_it_begins_and_how_far_it_went(quoted: bytes) -> None:
    rest = b"".join(b"%d,hello %d\n" % (number, number) for number in range(3, 1000))
    found = read("a.csv", b"id,text\n1,fine\n" + quoted + b"\n" + rest)
    assert found.values == [{"id": "1", "text": "fine"}, None]
    assert found.problems == [
        "a.csv:3: not valid CSV: a quote is not closed; the record begins here and goes to the end of the input, line "
        "1000: 997 lines were taken for a part of it; close it, or double it if it belongs to the text"
    ]


def test_a_record_whose_lines_look_like_records_is_not_sent() -> None:
    rest = "".join(f"{number},hello {number}\n" for number in range(3, 100))
    found = read("a.csv", f'id,text\n1,fine\n2,"5 inch disk\n{rest}100,3.5 inch"\n101,fine\n'.encode())
    assert [item.id for item in found.items] == ["1", 3, "101"]
    assert found.problems == [
        "a.csv:3: the record goes from line 3 to line 101, and 97 of its lines look like records of their own: a quote "
        "in line 3 is probably not closed; if it is one field, give JSON lines"
    ]
    found = read("a.csv", f'id,text\n2,"5 inch disk\n{rest}100,a 3.5" disk\n101,fine\n'.encode())
    assert found.problems == [
        "a.csv:2: not valid CSV: ',' expected after '\"', in a record that goes from line 2 to line 100: a quote is "
        "probably not closed"
    ]


def test_a_field_may_have_many_lines_and_very_many_are_told() -> None:
    poem = "\n".join(["roses are red, violets, too", "blue"] * 20)
    found = read("a.csv", f'id,name,text\n1,x,"{poem}"\n2,y,z\n'.encode())
    assert (len(found.items), found.told, found.problems) == (2, [], [])
    words = "word\n" * 60
    found = read("a.csv", ("id,text\n" + f'1,"{words}"\n' * 5).encode())
    assert len(found.items) == 5
    assert [line.partition(":")[2] for line in found.told] == [
        "2: the record continues to line 62: is a quote not closed in line 2?",
        "63: the record continues to line 123: is a quote not closed in line 63?",
        "124: the record continues to line 184: is a quote not closed in line 124?; others like it are not reported",
    ]


# -- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "fields"),
    [
        ("a.jsonl", b'{"key": 1, "text": "a"}\n', "there are key, text; did you mean 'key'?"),
        ("a.csv", b"key,text\n1,a\n", "there are key, text; did you mean 'key'?"),
        ("a.csv", b"key;text\n1;a\n", "there are key, text; did you mean 'key'?"),
        ("a.jsonl", b'"a"\n', "there are none"),
        ("a.txt", b"a\n", "--id-field keyy: lines of plain text have no fields; a line is its own id"),
    ],
)
def test_an_id_field_that_is_not_there_is_refused_with_those_that_are(name: str, data: bytes, fields: str) -> None:
    message = refusal(name, data, id_field="keyy", must_have_id=True)
    assert message.endswith(fields)
    assert message.startswith("--id-field keyy: ")
    assert read(name, data, id_field="keyy").items


def test_an_id_field_that_some_records_have_is_enough() -> None:
    found = read("a.jsonl", b'{"a": 1}\n{"key": "k"}\n', id_field="key", must_have_id=True)
    assert [item.id for item in found.items] == [1, "k"]


def test_a_plain_line_is_its_own_id() -> None:
    assert [(item.position, item.id) for item in read("a.txt", b"one\n\ntwo \r\n").items] == [
        ("a.txt:1", "one"),
        ("a.txt:3", "two "),
    ]


# -- as commands ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[dict[str, Any]], str]]:
    """`map` over something: the exit code, the lines that it wrote, and what it said."""
    Folder(tmp_path)

    def run_map(*words: str) -> tuple[int, list[dict[str, Any]], str]:
        code = command("map", "program.py:other", *words, "--progress", "none")
        out, err = capfd.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return run_map


def test_with_input_writes_what_an_item_was(run: Any) -> None:
    _written("a.csv", b"id,text\nk1,hello\n")
    _, [line], _ = run("a.csv", "--with-input")
    assert (line["id"], line["input"], line["result"]) == ("k1", {"id": "k1", "text": "hello"}, "hello")
    assert "input" not in run("a.csv")[1][0]


def test_what_is_wrong_with_an_input_is_one_sentence_and_nothing_is_recorded(run: Any, folder: Path) -> None:
    _written("a.csv", CSV)
    _written("a.bz2", bz2.compress(CSV))
    for words, told in {
        ("a.bz2",): "a.bz2 is compressed with bzip2",
        (
            "a.csv",
            "--id-field",
            "idd",
        ): "--id-field idd: a.csv has no such field; there are id, text; did you mean 'id'?",
        ("a.csv", "--separator", ",,"): "--separator ,,: one character is needed, such as , ; | or tab",
    }.items():
        code, lines, err = run(*words)
        assert (code, lines, len(err.splitlines())) == (2, [], 1)
        assert told in err
    assert not (folder / ".rh_agents").exists()


def test_a_separator_and_an_id_field_belong_to_the_command_that_resume_repeats(run: Any) -> None:
    _written("a.csv", b"id\tn;text\n1\t1;a\n")
    assert run("a.csv", "--separator", "tab", "--id-field", "id", "--run-id", "one")[0] == 1
    assert command("resume", "one") == 1
    assert run("a.csv", "--separator", ";", "--run-id", "two")[0] == 0
    assert command("resume", "two") == 0
    assert command("plan", "two") == 0
