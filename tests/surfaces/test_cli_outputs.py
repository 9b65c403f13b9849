"""Outputs in other formats than lines of JSON: what is in them, after a kill as well, or which column is refused."""

from __future__ import annotations

import asyncio
import csv
import datetime
import decimal
import gzip
import io
import json
import math
import os
import sys
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rh_agents.cli.errors import CommandError, OutputFailed
from rh_agents.cli.output import tables
from rh_agents.cli.output.opening import open_results
from rh_agents.cli.output.protected_files import ProtectedFiles
from rh_agents.cli.output.results import LineWriter
from rh_agents.cli.output.texts import Blocks, Rows, gzip_member
from tests.surfaces.cli_kit import QUIET, Folder, command, said, started

arrow: Any = pytest.importorskip("pyarrow")
parquet: Any = pytest.importorskip("pyarrow.parquet")
ipc: Any = pytest.importorskip("pyarrow.ipc")

TABLES = ["out.parquet", "out.arrow"]
PACKED = ["out.jsonl.gz", "out.jsonl.zst"]
NAIVE = datetime.datetime.fromisoformat("2026-07-01T12:00")
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def table(name: str) -> list[dict[str, Any]]:
    """The rows of a table in a file."""
    if name.endswith(".parquet"):
        return list(parquet.read_table(name).to_pylist())
    with ipc.open_file(name) as file:
        return list(file.read_all().to_pylist())


def lines_of(name: str) -> list[dict[str, Any]]:
    """The lines of a compressed file."""
    data = Path(name).read_bytes()
    text = (
        gzip.decompress(data) if name.endswith(".gz") else arrow.CompressedInputStream(io.BytesIO(data), "zstd").read()
    )
    return [json.loads(line) for line in text.splitlines()]


def content(name: str) -> list[dict[str, Any]]:
    return table(name) if name in TABLES else lines_of(name)


def write(name: str, *results: Any, **options: Any) -> str:
    """An output with these results."""

    async def work() -> None:
        with open_results(name, force=True, protected=ProtectedFiles(), **options) as writer:
            writer.restart()
            for index, result in enumerate(results):
                record = {"id": index, "index": index, "ok": True, "result": result, "attempts": 1, "seconds": 0.5}
                await writer.write(writer.formed(record))
            await writer.finish()

    asyncio.run(work())
    return name


@dataclass
class Point:
    x: int
    tags: tuple[str, ...] = ()


# -- values -----------------------------------------------------------------------------------------------------------

KEPT = [
    [1, None, -(2**63), 2**63 - 1],
    [0.1, math.nan, -math.inf, None],
    [1, 2.5],
    ["", "ä\n", None],
    [True, None],
    [decimal.Decimal("1.10"), decimal.Decimal("-12345678901234567890.123456789")],
    [datetime.datetime(2026, 7, 1, 12, 30, 0, 123456, tzinfo=BERLIN), datetime.datetime(2026, 1, 1, tzinfo=BERLIN)],
    [NAIVE, None],
    [datetime.date(2026, 7, 1)],
    [datetime.timedelta(days=1, microseconds=1)],
    [b"\x00\xff"],
    [[1, None], [], [2.5]],
    [{"a": [{"b": "x"}]}, {"a": []}, {"a": [{"b": None}]}],
]


@pytest.mark.parametrize("together", [1, 1024], ids=["each-alone", "together"])
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("values", KEPT, ids=lambda values: type(values[0]).__name__)
def test_results_are_the_same_when_they_are_read_from_a_table(
    folder: Folder, values: list[Any], name: str, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROWS_TOGETHER", together)
    found = [row["result"] for row in table(write(name, *values))]
    for given, kept in zip(values, found, strict=True):
        assert given == kept or (math.isnan(given) and math.isnan(kept))
        assert not isinstance(given, datetime.datetime) or given.utcoffset() == kept.utcoffset()


@pytest.mark.parametrize("name", TABLES)
def test_objects_are_columns_with_fields_and_a_field_that_one_has_not_is_null(folder: Folder, name: str) -> None:
    rows = table(write(name, Point(1, ("a",)), {"x": 2, "more": True}, {3: {"y"}}))
    assert [row["result"] for row in rows] == [
        {"x": 1, "tags": ["a"], "more": None, "3": None},
        {"x": 2, "tags": None, "more": True, "3": None},
        {"x": None, "tags": None, "more": None, "3": ["y"]},
    ]
    first = {key: value for key, value in rows[0].items() if key != "result"}
    assert first == {
        "id": 0, "index": 0, "ok": True, "error": None, "attempts": 1, "seconds": 0.5, "requeued": False,
    }  # fmt: skip
    assert table(write(name)) == []


REFUSED: list[tuple[list[Any], str]] = [
    ([1, 2**63], r"column 'result' cannot keep a value \(.* too large .*; the item 1 has it\)"),
    ([1, "a"], "column 'result'|no type in common"),
    ([{"n": 2**60}, {"n": 0.5}], "column 'result'.*the item 0 has it|column 'result'.*item 1 has it"),
    ([{"at": NAIVE}, {"at": datetime.datetime(2026, 7, 1, tzinfo=BERLIN)}], "result"),
    ([datetime.datetime(2026, 7, 1, tzinfo=BERLIN), datetime.datetime(2026, 7, 1, tzinfo=datetime.UTC)], "result"),
    ([{"d": datetime.date(2026, 7, 1)}, {"d": NAIVE}], "result"),
    ([[b"a"], ["b"]], "result"),
    ([decimal.Decimal("0.1"), 0.1], "result"),
    ([decimal.Decimal("NaN")], "column 'result' cannot keep a value"),
    ([datetime.time(1, tzinfo=datetime.UTC)], r"column 'result' cannot keep a value \(would be another value there\)"),
    ([{str(number): 1 for number in range(3000)}], "more than 2,000 different fields"),
]


@pytest.mark.parametrize("together", [1, 1024], ids=["each-alone", "together"])
@pytest.mark.parametrize(("values", "problem"), REFUSED)
def test_what_a_column_would_change_is_refused_by_its_name_and_no_file_is_made(
    folder: Folder, values: list[Any], problem: str, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROWS_TOGETHER", together)
    for name in TABLES:
        with pytest.raises(OutputFailed, match=problem) as refused:
            write(name, *values)
        assert str(refused.value).startswith(f"cannot write {name}: ")
        assert "write lines of JSON instead" in str(refused.value)
        assert sorted(os.listdir()) == ["program.py"]


def test_objects_without_fields_are_refused_by_parquet_alone(folder: Folder) -> None:
    assert [row["result"] for row in table(write("out.arrow", {"a": {}}, {"a": {}}))] == [{"a": {}}, {"a": {}}]
    with pytest.raises(OutputFailed, match=r"column 'result\.a' cannot keep a value \(all objects in it are empty"):
        write("out.parquet", {"a": {}})
    assert not os.path.exists("out.parquet.part")


@pytest.mark.parametrize("name", TABLES)
def test_ids_of_several_kinds_are_texts(folder: Folder, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS_TOGETHER", 2)

    async def work() -> None:
        with open_results(name, force=False, protected=ProtectedFiles(), with_input=True) as writer:
            for given in (1, 2, "a", 3, 2**70, [4]):
                await writer.write(
                    writer.formed({"id": given, "index": 0, "ok": False, "input": {"t": 1}, "error": "e"})
                )
            await writer.finish()

    asyncio.run(work())
    assert [row["id"] for row in table(name)] == ["1", "2", "a", "3", str(2**70), "[4]"]
    assert table(name)[0]["input"] == {"t": 1}


def test_fields_of_csv_are_texts_and_json(folder: Folder) -> None:
    moment = datetime.datetime(2026, 7, 1, 12, tzinfo=datetime.UTC)
    values = ['a;\n"b"', None, 1.5, math.nan, True, 2**70, decimal.Decimal("1.10"), moment, {"a": [math.nan, "ä"]}]
    write("out.csv", *values)
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["result"] for row in rows] == [
        "a;\n\"b\"", "", "1.5", "NaN", "true", str(2**70), "1.10", "2026-07-01T12:00:00Z", '{"a":[NaN,"ä"]}',
    ]  # fmt: skip
    assert {key: value for key, value in rows[0].items() if key != "result"} == {
        "id": "0", "index": "0", "ok": "true", "error": "", "attempts": "1", "seconds": "0.5", "requeued": "false",
    }  # fmt: skip
    assert Path(write("out.tsv", 1)).read_text().splitlines()[1].split("\t")[:4] == ["0", "0", "true", "1"]
    assert gzip.decompress(Path(write("out.csv.gz", 1)).read_bytes()) == Path(write("two.csv", 1)).read_bytes()


# -- whole after a kill -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TABLES, *PACKED])
def test_an_output_is_absent_or_whole_after_a_kill_and_complete_when_the_command_is_repeated(
    folder: Folder, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = [f"t{number}" for number in range(30)]
    folder.write("in.jsonl", *texts)
    words = ("map", "program.py:rate", "in.jsonl", "--run-id", "r", "-o", name, *QUIET)
    with started(*words, DIE_AT="t20") as process:
        assert process.wait(60) == -9
    assert not os.path.exists(name) or lines_of(name) == []
    assert not os.path.exists(f"{name}.part")
    said(capfd, *words)
    assert sorted(row["id"] for row in content(name)) == sorted(texts)
    assert all(row["ok"] and row["result"] == len(row["id"]) / 10 for row in content(name))
    assert folder.ledger["rate t3"] == 1


@pytest.mark.parametrize("name", TABLES)
def test_the_table_of_an_earlier_execution_stays_until_the_new_one_is_complete(folder: Folder, name: str) -> None:
    folder.write("in.jsonl", "one", "two")
    words = ("map", "program.py:rate", "in.jsonl", "--run-id", "r", "-o", name, *QUIET)
    assert command(*words) == 0
    before = Path(name).read_bytes()
    os.chmod(name, 0o644)
    folder.write("in.jsonl", "one", "two", "three", "four")
    Path(f"{name}.part").write_bytes(b"left by a kill at the end")
    with started(*words, DIE_AT="three") as process:
        assert process.wait(60) == -9
    assert Path(name).read_bytes() == before
    assert command(*words) == 0
    assert sorted(row["id"] for row in table(name)) == ["four", "one", "three", "two"]
    assert os.stat(name).st_mode & 0o777 == 0o644
    assert not os.path.exists(f"{name}.part")


def test_an_interrupted_run_leaves_a_table_of_what_is_done(folder: Folder) -> None:
    folder.write("in.jsonl", "one", "two", "three")
    words = ("map", "program.py:rate", "in.jsonl", "--run-id", "r", "-o", "out.parquet", "-n", "1", *QUIET)
    with started(*words, INTERRUPT_AT="two") as process:
        assert process.wait(60) == 130
    assert [row["id"] for row in table("out.parquet")] == ["one", "two"]
    assert command(*words) == 0
    assert sorted(row["id"] for row in table("out.parquet")) == ["one", "three", "two"]


def test_compressed_lines_are_whole_blocks_that_are_written_when_they_are_large_or_old(tmp_path: Path) -> None:
    now = 0.0
    path = tmp_path / "out.gz"
    with Rows(LineWriter(open(path, "wb", buffering=0), "out"), blocks=Blocks(gzip_member, lambda: now)) as rows:
        asyncio.run(rows.write(b"1\n"))
        assert path.read_bytes() == b""
        now = 6.0
        asyncio.run(rows.write(b"2\n"))
        assert gzip.decompress(path.read_bytes()) == b"1\n2\n"
        asyncio.run(rows.write(b"3" * 300_000 + b"\n"))
        assert gzip.decompress(path.read_bytes())[4:6] == b"33"
        asyncio.run(rows.write(b"4\n"))
        asyncio.run(rows.finish())
        asyncio.run(rows.finish())
    assert gzip.decompress(path.read_bytes()).endswith(b"\n4\n")


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_where_a_table_cannot_be_is_said_before_anything_is_called(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "one")
    Path("full.parquet").write_text("something")
    os.mkdir("folder.parquet")
    os.link("in.jsonl", "link.parquet")
    cases: Mapping[str, str] = {
        "full.parquet": "full.parquet exists and has content",
        "none/out.parquet": "cannot write none/out.parquet: there is no directory none",
        "folder.parquet": "cannot write folder.parquet: a table can only be a file",
    }
    for name, problem in cases.items():
        assert problem in said(capfd, "map", "program.py:rate", "in.jsonl", "-o", name, *QUIET, code=2)[1]
    refused = said(capfd, "map", "program.py:rate", "in.jsonl", "-o", "link.parquet", "--force", *QUIET, code=2)[1]
    assert "link.parquet is the input as well as the output" in refused
    assert not folder.ledger


def test_a_column_that_is_refused_stops_the_job_and_costs_nothing(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("mixed.py").write_text("def mixed(n: int) -> object:\n    return n if n else 'none'\n")
    Path("in.txt").write_text("0\n1\n2\n")
    words = ("map", "mixed.py:mixed", "in.txt", "--run-id", "r", *QUIET)
    _, err = said(capfd, *words, "-o", "out.parquet", code=1)
    assert "rh-agents: cannot write out.parquet: column 'result' cannot keep a value" in err
    assert not os.path.exists("out.parquet")
    assert "output in" not in err
    assert "resume with: rh-agents resume r --output OUT.jsonl" in err, "without it, the table would be refused again"
    out, _ = said(capfd, *words)
    assert {json.loads(line)["result"] for line in out.splitlines()} == {"none", 1, 2}


def test_a_result_without_a_form_is_a_failed_item_in_a_table_as_well(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("halves.py").write_text("def half(n: int) -> object:\n    return ['\\ud800'] if n == 1 else ['ok']\n")
    Path("in.txt").write_text("0\n1\n")
    _, err = said(capfd, "map", "halves.py:half", "in.txt", "-o", "out.csv", *QUIET, code=1)
    assert "in.txt:2: the result cannot be written as CSV: " in err
    with open("out.csv", newline="") as file:
        assert sorted((row["ok"], row["result"]) for row in csv.DictReader(file)) == [("false", ""), ("true", '["ok"]')]


def test_what_is_missing_for_a_format_is_said_at_once(
    folder: Folder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name, what in [("a.parquet", "is a Parquet file"), ("a.jsonl.zst", "is compressed with zstd")]:
        with pytest.raises(CommandError, match=f"-o {name} {what}, which needs pyarrow: pip install"):
            open_results(name, force=False, protected=ProtectedFiles())


@pytest.mark.parametrize("name", [*TABLES, *PACKED])
def test_what_was_done_when_the_store_failed_is_in_the_output_as_the_summary_says(folder: Folder, name: str) -> None:
    Path("full.py").write_text(
        "from rh_agents.errors import StoreError\n\ndef work(n: int) -> int:\n"
        "    if n == 3:\n        raise StoreError('the disk is full')\n    return n\n"
    )
    Path("in.txt").write_text("1\n2\n3\n4\n")
    words = ("map", "full.py:work", "in.txt", "-n", "1", "-o", name, "--summary-json", "sum.json", *QUIET)
    assert command(*words) == 1
    assert json.loads(Path("sum.json").read_text())["ok"] == 2
    assert [row["result"] for row in content(name)] == [1, 2]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_would_be_all_there_is_of_results_is_refused_at_once(
    folder: Folder, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "one")
    words = ("map", "program.py:rate", "in.jsonl", "--store", "none", *QUIET)
    assert f"-o {name}: a table is written when the job has ended" in said(capfd, *words, "-o", name, code=2)[1]
    assert not folder.ledger
    assert command(*words, "-o", "out.csv") == 0
