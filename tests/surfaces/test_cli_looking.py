"""Commands that only look make no file and change none."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.stores.test_looking import contents
from tests.surfaces.cli_kit import Folder, command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return Folder(tmp_path)


LOOK = [
    ["runs"],
    ["show", "x"],
    ["plan", "x"],
    ["export", "x"],
    ["export", "x", "--outcomes"],
    ["check"],
    ["answer", "x"],
    ["gc", "--older-than", "1s", "--dry-run"],
    ["delete", "x", "--dry-run"],
]
CHANGE = [
    ["cancel", "x"],
    ["fork", "x", "y"],
    ["answer", "x", "q", "1"],
    ["gc", "--older-than", "1s"],
    ["resume", "x"],
    ["delete", "x", "--yes"],
]


SAYS = {
    "empty.db": "empty.db is an empty file: `rh-agents map` and `rh-agents run` make one",
    "missing.db": "there is no store missing.db: `rh-agents map` and `rh-agents run` make one",
    "no/such/runs.db": "there is no store no/such/runs.db: ",
    "text.db": "text.db: it is not an SQLite database, so no runs are recorded in it: name another file",
    "here": "--store here: no store for 'here': it is a directory; name a file in it, such as here/runs.db",
    ":memory:": "--store :memory: keeps runs until a process ends, so there is nothing to see",
    "": "--store '': no store for ''",
}


@pytest.mark.parametrize(
    ("words", "names"),
    [(["runs"], SAYS), *[(words, ["empty.db", "missing.db"]) for words in [*LOOK[1:], *CHANGE]]],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "all",
)
def test_what_is_no_store_is_left_as_it_is(
    folder: Folder, words: list[str], names: Iterable[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.path / "empty.db").touch()
    (folder.path / "text.db").write_text("text\n" * 300)
    (folder.path / "here").mkdir()
    before = contents(folder.path)
    for name in names:
        assert command(*words, "--store", name) in (1, 2)
        assert SAYS[name] in capsys.readouterr().err
        assert contents(folder.path) == before


def test_looking_at_a_store_leaves_it_as_it_is(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("run", "program.py:survey", "--run-id", "x", "--store", "a.db?mode=0640") == 0
    before = contents(folder.path)
    assert "a.db" in before
    for words in LOOK:
        assert command(*words, "--store", "sqlite:///a.db?mode=0640") == 0, words
    assert contents(folder.path) == before


def test_the_home_directory_is_meant_by_a_tilde(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(folder.path / "home"))
    assert command("run", "program.py:survey", "--run-id", "x", "--store=~/runs.db") == 0
    assert command("show", "x", "--store=~/runs.db") == 0
    assert (folder.path / "home" / "runs.db").exists()
    assert not (folder.path / "~").exists()
