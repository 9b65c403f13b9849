"""A job is the same job however the paths of its program and its input were written, and from wherever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rh_agents.cli.input.files import InputOptions, open_input
from rh_agents.cli.recorded_command import derived_run_id
from tests.surfaces.cli_kit import Folder, command
from tests.surfaces.test_cli_keeping import redirected

QUIET = ("--progress", "none")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A directory with the program, an input in `data` and a directory `sub`; the job has been done in it once."""
    made = tmp_path / "project"
    (made / "data").mkdir(parents=True)
    (made / "sub").mkdir()
    (tmp_path / "elsewhere").mkdir()
    os.symlink(made, tmp_path / "link")
    monkeypatch.chdir(made)
    found = Folder(made)
    found.write("data/in.jsonl", "a", "b")
    os.symlink("data/in.jsonl", "link.jsonl")
    return found


WAYS = [
    (".", "program.py:rate", "./data/in.jsonl"),
    (".", "program:rate", "sub/../data//in.jsonl"),
    (".", "./program.py:rate", "link.jsonl"),
    ("data", "../program.py:rate", "in.jsonl"),
    ("sub", "../program.py:rate", "../data/in.jsonl"),
    ("../link/sub", "../program.py:rate", "../data/in.jsonl"),
    ("../elsewhere", "../project/program.py:rate", "../link/data/in.jsonl"),
]


def test_the_same_job_is_found_again_and_nothing_is_called(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("map", "program.py:rate", "data/in.jsonl", *QUIET) == 0
    for directory, program, source in WAYS:
        capfd.readouterr()
        monkeypatch.chdir(folder.path / directory)
        assert command("map", program, source, *QUIET) == 0
        out, err = capfd.readouterr()
        assert len(out.splitlines()) == 2
        assert "2 reused, 0 called" in err
        assert ("which is used; --store overrides this" in err) == (directory != ".")
        assert not (Path.cwd() / ".rh_agents").exists() or directory == "."
    assert folder.ledger["rate a"] == 1


def test_a_store_that_is_named_is_the_only_one_looked_at(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("map", "program.py:rate", "data/in.jsonl", *QUIET) == 0
    monkeypatch.chdir(folder.path / "sub")
    for store in ".rh_agents/runs.db", "none", "other.db":
        assert command("map", "../program.py:rate", "../data/in.jsonl", "--store", store, *QUIET) == 0
    assert " reused, " not in capfd.readouterr().err
    assert folder.ledger["rate a"] == 1  # the others are in the directory in which they were made
    assert (folder.path / "sub" / "ledger").read_text().count("rate a\n") == 3


def test_another_job_goes_to_the_store_of_its_own_directory(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("map", "program.py:rate", "data/in.jsonl", *QUIET) == 0
    monkeypatch.chdir(folder.path / "sub")
    assert command("map", "../program.py:rate", "../data/in.jsonl", "--set", "bonus=1", *QUIET) == 0
    assert (folder.path / "sub" / ".rh_agents" / "runs.db").exists()


def test_a_store_of_another_user_is_not_opened(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("map", "program.py:rate", "data/in.jsonl", *QUIET) == 0
    monkeypatch.chdir(folder.path / "sub")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert command("map", "../program.py:rate", "../data/in.jsonl", *QUIET) == 0
    assert " reused, " not in capfd.readouterr().err


def test_a_flow_is_found_again_as_well(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("run", "program.py:survey", *QUIET) == 0
    monkeypatch.chdir(folder.path / "sub")
    assert command("run", "../program.py:survey", *QUIET) == 0
    assert "had returned this before, and nothing was called" in capfd.readouterr().err
    assert folder.ledger["survey"] == 1


def test_a_file_on_standard_input_is_that_file(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("map", "program.py:rate", "data/in.jsonl", *QUIET) == 0
    for source in "-", "/dev/stdin":
        with redirected(0, "link.jsonl", os.O_RDONLY):
            assert command("map", "program.py:rate", source, *QUIET) == 0
    assert capfd.readouterr().err.count("2 reused, 0 called") == 2


def test_a_job_that_was_recorded_under_its_older_name_is_found_by_that(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard input was named after the directory, also where it was a file."""
    program = str(folder.path / "program.py")
    older = derived_run_id("rate", "map", program, "-", str(folder.path), "{}")
    assert command("map", "program.py:rate", "data/in.jsonl", "--run-id", older, *QUIET) == 0
    with redirected(0, "data/in.jsonl", os.O_RDONLY):
        assert command("map", "program.py:rate", "-", *QUIET) == 0
    assert f"run {older} continues: 4 finished calls recorded" in capfd.readouterr().err


def test_of_two_names_the_run_with_the_same_output_counts(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    older = derived_run_id("rate", "map", str(folder.path / "program.py"), "-", str(folder.path), "{}")
    assert command("map", "program.py:rate", "data/in.jsonl", "--run-id", older, "-o", "piped.jsonl", *QUIET) == 0
    assert command("map", "program.py:rate", "data/in.jsonl", "-o", "named.jsonl", *QUIET) == 0
    for output in "piped.jsonl", "named.jsonl":
        with redirected(0, "data/in.jsonl", os.O_RDONLY):
            assert command("map", "program.py:rate", "-", "-o", output, *QUIET) == 0
    assert capfd.readouterr().err.count("2 reused, 0 called") == 2


def test_what_a_shell_puts_in_for_a_pipe_does_not_name_the_job(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    data = (folder.path / "data" / "in.jsonl").read_bytes()
    for _ in range(2):
        reader, writer = os.pipe()
        os.write(writer, data)
        os.close(writer)
        assert command("map", "program.py:rate", f"/dev/fd/{reader}", *QUIET) == 0
        os.close(reader)
    err = capfd.readouterr().err
    assert "2 reused, 0 called" in err


def test_a_run_goes_on_with_its_input_read_as_it_was(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    (folder.path / "lines").write_text("a\nb\n")
    (folder.path / "table.csv").write_text("id\ttext\n1\ta\n")
    assert command("map", "program.py:rate", "lines", "--run-id", "one", *QUIET) == 0
    assert command("map", "program.py:rate", "table.csv", "--run-id", "two", *QUIET) == 0
    (folder.path / "lines").write_text('a\n{"text": "b"}\n{"text": "c"}\n')  # which would now be taken for JSON lines
    capfd.readouterr()
    assert command("resume", "one") == 0
    assert '"id":"{\\"text\\": \\"b\\"}"' in capfd.readouterr().out
    assert command("plan", "one") == 0
    assert "3 items" in capfd.readouterr().out
    assert command("resume", "two") == 0
    assert '"id":"1"' in capfd.readouterr().out


def test_what_an_earlier_version_recorded_is_read_as_that_version_did(folder: Folder) -> None:
    for name, data, values in (
        ("data.bak", b'{"text": "a"}\n', ['{"text": "a"}']),
        ("a.txt", b'{"text": "a"}\n', ['{"text": "a"}']),
        ("a.tsv", b"id\ttext\n", ["id\ttext"]),
        ("a.csv", b"id,text\n1,a\n", [{"id": "1", "text": "a"}]),
        ("a.jsonl", b"1\n", [1]),
    ):
        (folder.path / name).write_bytes(data)
        with open_input(name, InputOptions(is_older=True)) as given:
            assert [item.value for item in given.items] == values


def test_a_run_that_read_a_pipe_of_the_shell_says_how_it_goes_on(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"a\n")
    os.close(writer)
    assert command("map", "program.py:rate", f"/dev/fd/{reader}", "--run-id", "one", *QUIET) == 0
    os.close(reader)
    capfd.readouterr()
    assert command("resume", "one") == 2
    err = capfd.readouterr().err
    assert f"run 'one' reads its items from /dev/fd/{reader}, which is another pipe each time" in err
    assert f"`rh-agents map program.py:rate /dev/fd/{reader} --progress none --run-id one`" in err
