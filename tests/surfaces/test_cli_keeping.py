"""No output is written over the input, the store or the program, however any of them is named."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.surfaces.cli_kit import command

PROGRAM = """
from rh_agents import tool
calls = []
@tool
async def upper(text: str) -> str:
    calls.append(text)
    return text.upper()
"""
LINES = "a\nb\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "keeping.py").write_text(PROGRAM)
    (tmp_path / "in.txt").write_text(LINES)
    os.link("in.txt", "hard.txt")
    os.symlink("in.txt", "soft.txt")
    os.symlink(tmp_path, "here")
    yield tmp_path
    sys.modules.pop("keeping", None)


@contextmanager
def redirected(descriptor: int, path: str, flags: int) -> Iterator[None]:
    """As a shell redirects standard input or output."""
    kept, opened = os.dup(descriptor), os.open(path, flags)
    os.dup2(opened, descriptor)
    os.close(opened)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


NAMES = ["in.txt", "./in.txt", "hard.txt", "soft.txt", "here/in.txt", "here/hard.txt"]


def test_an_output_that_is_the_input_is_refused_and_the_input_kept(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for output in NAMES:
        assert command("map", "keeping.py:upper", "in.txt", "-o", output, "--force") == 2
        assert f"{output} is the input as well as the output: write to another file" in capfd.readouterr().err
    assert (folder / "in.txt").read_text() == LINES


def test_standard_input_is_an_input_like_any_other(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for output in (*NAMES, "/dev/stdin", "/dev/fd/0"):
        with redirected(0, "in.txt", os.O_RDONLY):
            assert command("map", "keeping.py:upper", "-", "--format", "text", "-o", output, "--force") == 2
        assert f"{output} is the input as well as the output: write to another file" in capfd.readouterr().err
    assert (folder / "in.txt").read_text() == LINES


def test_standard_output_is_an_output_like_any_other(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("map", "keeping.py:upper", "in.txt", "--limit", "1") == 0
    before = (folder / ".rh_agents" / "runs.db").read_bytes()
    capfd.readouterr()
    for path, what in {"hard.txt": "the input", ".rh_agents/runs.db": "the store", "keeping.py": "the program"}.items():
        with redirected(1, path, os.O_WRONLY | os.O_APPEND):
            assert command("map", "keeping.py:upper", "in.txt") == 2
        assert f"standard output is {what} as well as the output" in capfd.readouterr().err
    assert (folder / "in.txt").read_text() == LINES
    assert (folder / ".rh_agents" / "runs.db").read_bytes() == before


STORE = [
    "runs.db",
    "../here/.rh_agents/runs.db",
    "../.rh_agents/runs.db",
    "runs.db-wal",
    "runs.db-shm",
    "runs.db-journal",
    "runs.db-artifacts/ab/x",
    "../hard.db",
    "../soft.db",
]


@pytest.mark.parametrize("store", ["sqlite:///.rh_agents/runs.db", "soft.db"])
def test_the_store_in_use_is_no_output(store: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("map", "keeping.py:upper", "in.txt", "--limit", "1") == 0
    os.link(".rh_agents/runs.db", "hard.db")
    os.symlink(".rh_agents/runs.db", "soft.db")
    for name in STORE:
        output = "soft.db-artifacts/ab/x" if store == "soft.db" and "artifacts" in name else f".rh_agents/{name}"
        capfd.readouterr()
        assert command("map", "keeping.py:upper", "in.txt", "--store", store, "-o", output, "--force") == 2
        assert "the store" in capfd.readouterr().err
    assert command("check", "--store", store) == 0
    assert not (folder / ".rh_agents" / "runs.db-artifacts").exists()


def test_a_store_that_is_not_there_yet_is_no_output_either(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("map", "keeping.py:upper", "in.txt", "-o", ".rh_agents/runs.db") == 2
    assert "is the store as well as the output" in capfd.readouterr().err
    assert not (folder / ".rh_agents").exists()


def test_another_database_is_not_written_over_even_with_force(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("map", "keeping.py:upper", "in.txt", "--store", "other.db") == 0
    before = (folder / "other.db").read_bytes()
    assert command("map", "keeping.py:upper", "in.txt", "-o", "other.db", "--force") == 2
    assert "other.db is a database of SQLite, and results are not written over one" in capfd.readouterr().err
    assert (folder / "other.db").read_bytes() == before


def test_the_program_is_no_output(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("map", "keeping:upper", "in.txt", "-o", "here/keeping.py", "--force") == 2
    assert "here/keeping.py is the program as well as the output" in capfd.readouterr().err
    assert (folder / "keeping.py").read_text() == PROGRAM


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what may block is not closed
def test_the_null_device_may_be_both() -> None:
    assert command("map", "keeping:upper", os.devnull, "-o", os.devnull) == 0


def test_another_output_of_a_resumed_job_is_looked_at_as_well(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("map", "keeping.py:upper", "in.txt", "--run-id", "one", "-o", "out.jsonl") == 0
    assert command("resume", "one", "-o", "hard.txt", "--force") == 2
    assert "is the input as well as the output" in capfd.readouterr().err
    assert (folder / "in.txt").read_text() == LINES
