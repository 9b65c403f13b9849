"""Inputs that are compressed with gzip or zstd: the same items, and what is said about cut ones."""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from rh_agents.cli.errors import CommandError
from rh_agents.cli.input.archives import Unpacked
from rh_agents.cli.input.files import open_input
from rh_agents.cli.input.items import read_items
from rh_agents.cli.input.lines import Format
from tests.surfaces.cli_kit import QUIET, Folder, command, said


def packed(name: str, text: str) -> Path:
    path = Path(name)
    path.write_bytes(gzip.compress(text.encode()))
    return path


CHANCE = random.Random(18)
LINES = [json.dumps({"id": f"n{number}", "text": f"{CHANCE.random()}"}) + "\n" for number in range(6_000)]
CONTENTS = [("a.jsonl", "".join(LINES)), ("a.csv", 'text;n\nx;1\n"y\nz";2\n'), ("a.txt", "one\n\ntwo"), ("a.jsonl", "")]


@pytest.mark.parametrize(("name", "text"), CONTENTS, ids=["jsonl", "csv", "txt", "empty"])
def test_an_archive_has_the_items_of_what_is_in_it(folder: Folder, name: str, text: str) -> None:
    Path(name).write_text(text)
    with open_input(name) as given:
        plain, form = list(given.items), given.form
    with open_input(str(packed(f"{name}.gz", text))) as given:
        assert [(each.id, each.value) for each in given.items] == [(each.id, each.value) for each in plain]
        assert given.form is form


def test_the_format_of_an_archive_without_a_telling_name_is_found_by_what_is_in_it(folder: Folder) -> None:
    with open_input(str(packed("dump", '{"a": 1}\n{"a": 2}\n'))) as given:
        assert [each.value for each in given.items] == [{"a": 1}, {"a": 2}]
    with pytest.raises(CommandError, match=r"dump\.jsonl\.gz contains a list, and map reads JSON lines"):
        open_input(str(packed("dump.jsonl.gz", '[\n{"a": 1},\n{"a": 2}\n]')))


def test_several_archives_in_one_file_are_read_one_after_the_other(folder: Folder) -> None:
    Path("two.txt.gz").write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    with open_input("two.txt.gz") as given:
        assert [each.value for each in given.items] == ["one", "two"]


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9999])
def test_a_cut_archive_gives_what_is_whole_and_says_in_which_line_it_is_cut(folder: Folder, share: float) -> None:
    data = packed("in.jsonl.gz", "".join(LINES)).read_bytes()
    Path("in.jsonl.gz").write_bytes(data[: int(len(data) * share)])
    found: list[str] = []
    with open_input("in.jsonl.gz") as given, pytest.raises(CommandError) as refused:
        found.extend(item.id for item in given.items)
    assert found == [f"n{number}" for number in range(len(found))]
    assert str(refused.value) == f"in.jsonl.gz:{len(found) + 1}: the archive is cut here: get it again"
    assert len(found) > (len(LINES) * share) * 0.9 - 1000
    assert refused.value.exit_code == 1


def test_a_damaged_archive_is_said_to_be_damaged(folder: Folder) -> None:
    data = bytearray(packed("in.jsonl.gz", "".join(LINES)).read_bytes())
    data[-6] ^= 1  # in the checksum
    Path("in.jsonl.gz").write_bytes(data)
    with open_input("in.jsonl.gz") as given, pytest.raises(CommandError, match=r"the archive is damaged here \(CRC"):
        list(given.items)


def test_an_archive_that_expands_beyond_what_texts_do_is_read_no_further() -> None:
    line = b'{"text": "the same again"}\n'
    data = gzip.compress(line * 200_000)
    stream = io.BufferedReader(Unpacked(io.BufferedReader(io.BytesIO(data)), never_too_much=1 << 20))
    read = 0
    with pytest.raises(CommandError, match=r"in:\d+: the archive expands to more than 200 times its size"):
        for _ in read_items(stream, "in", Format.JSONL):
            read += 1
    assert (1 << 20) / len(line) - 1 <= read < 100_000
    allowed = Unpacked(io.BufferedReader(io.BytesIO(data)), most_times=2000, never_too_much=0)
    assert len(list(read_items(io.BufferedReader(allowed), "in", Format.JSONL))) == 200_000


def test_a_map_over_an_archive_continues_with_the_file_that_was_in_it(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    text = folder.write("in.jsonl", "one", "two", "three").read_text()
    data = packed("in.jsonl.gz", text).read_bytes()
    Path("cut.jsonl.gz").write_bytes(data[:-12])
    command("map", "program.py:rate", "cut.jsonl.gz", "--run-id", "r", *QUIET)
    out, err = capfd.readouterr()
    assert "the archive is cut here: get it again" in err
    done = len(out.splitlines())
    out, err = said(capfd, "map", "program.py:rate", "in.jsonl.gz", "--run-id", "r", *QUIET)
    assert [json.loads(line)["ok"] for line in out.splitlines()] == [True] * 3
    said(capfd, "map", "program.py:rate", "in.jsonl", "--run-id", "r", *QUIET)
    assert done < 3
    assert all(count == 1 for count in folder.ledger.values())
    out, _ = said(capfd, "plan", "r")
    assert "3 items: 3 reused, 0 new" in out


# -- zstd -------------------------------------------------------------------------------------------------------------


def frame(text: str) -> bytes:
    """What is compressed with zstd."""
    arrow: Any = pytest.importorskip("pyarrow")
    data: bytes = arrow.compress(text.encode(), codec="zstd", asbytes=True)
    return data


@pytest.mark.parametrize(("name", "text"), CONTENTS, ids=["jsonl", "csv", "txt", "empty"])
def test_what_is_compressed_with_zstd_has_the_same_items(folder: Folder, name: str, text: str) -> None:
    Path(name).write_text(text)
    with open_input(name) as given:
        plain, form = list(given.items), given.form
    Path(f"{name}.zst").write_bytes(frame(text))
    with open_input(f"{name}.zst") as given:
        assert [(each.id, each.value) for each in given.items] == [(each.id, each.value) for each in plain]
        assert given.form is form
    Path("two.txt.zst").write_bytes(frame("one\n") + frame("two\n"))
    with open_input("two.txt.zst") as given:
        assert [each.value for each in given.items] == ["one", "two"]


@pytest.mark.parametrize("share", [0.001, 0.5, 0.9999])
def test_a_cut_frame_of_zstd_gives_what_is_whole_and_says_in_which_line_it_is_cut(folder: Folder, share: float) -> None:
    data = frame("".join(LINES))
    Path("in.jsonl.zst").write_bytes(data[: int(len(data) * share)])
    found: list[str] = []
    with open_input("in.jsonl.zst") as given, pytest.raises(CommandError) as refused:
        found.extend(item.id for item in given.items)
    assert found == [f"n{number}" for number in range(len(found))]
    assert str(refused.value) == f"in.jsonl.zst:{len(found) + 1}: the archive is cut here: get it again"
    assert refused.value.exit_code == 1
    assert len(found) > 3000 or share < 0.9


def test_a_damaged_frame_of_zstd_is_said_to_be_damaged(folder: Folder) -> None:
    data = bytearray(frame("".join(LINES)))
    data[4:40] = b"\xff" * 36
    Path("in.jsonl.zst").write_bytes(data)
    with open_input("in.jsonl.zst") as given, pytest.raises(CommandError, match=r"1: the archive is damaged here \("):
        list(given.items)


def test_a_frame_of_zstd_that_expands_beyond_what_texts_do_is_read_no_further() -> None:
    line = '{"text": "the same again"}\n'
    data = frame(line * 400_000)
    stream = io.BufferedReader(Unpacked(io.BufferedReader(io.BytesIO(data)), never_too_much=1 << 20))
    read = 0
    with pytest.raises(CommandError, match=r"in:\d+: the archive expands to more than 200 times its size"):
        for _ in read_items(stream, "in", Format.JSONL):
            read += 1
    assert read < 200_000


def test_without_pyarrow_zstd_is_refused_with_what_it_needs(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in.jsonl.zst").write_bytes(frame("1\n"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CommandError, match=r"in\.jsonl\.zst is compressed with zstd, which needs pyarrow: pip install"):
        open_input("in.jsonl.zst")
