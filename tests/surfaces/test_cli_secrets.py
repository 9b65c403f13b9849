"""What was typed on a command line and is a secret of the program stands in no store, and in nothing that is shown."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_agents import Secret, forget_secret, run
from tests.surfaces.cli_kit import command

SECRET = "Can4ry-on-the-line"
PROGRAM = f"""
from rh_agents import Secret, tool
Secret("line", {SECRET!r})
calls = []

@tool
async def send(text: str, password: str = "") -> str:
    calls.append(text)
    return f"sent {{text}} as {{password}}"

@tool
async def take(password: Secret) -> str:
    return password.reveal()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "secretive.py").write_text(PROGRAM)
    (tmp_path / "in.txt").write_text("a\n")
    yield tmp_path
    forget()


def forget() -> None:
    """As another process, which has not loaded the program."""
    sys.modules.pop("secretive", None)
    forget_secret("line")


def stored(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (folder / ".rh_agents").rglob("*") if path.is_file())


COMMANDS = {
    "map": ["map", "secretive.py:send", "in.txt", "--set", f'password="{SECRET}"', "--tag", SECRET, "-o", "out.jsonl"],
    "run": ["run", "secretive.py:send", "-i", f'{{"text": "a", "password": "{SECRET}"}}', "--tag", f"x {SECRET}"],
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_secret_on_the_command_line_is_kept_by_its_name_and_the_run_is_resumed_with_it(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*COMMANDS[kind], "--run-id", "r") == 0
    assert command(*COMMANDS[kind], "--run-id", "r") == 0, "the same settings"
    forget()
    capsys.readouterr()
    assert SECRET.encode() not in stored(folder)
    for words in (["runs"], ["runs", "--json"], ["show", "r"], ["show", "r", "--json"], ["plan", "r"]):
        forget()
        assert command(*words) == 0
        shown = capsys.readouterr().out
        assert SECRET not in shown
        assert "<secret:line>" in shown
    forget()
    assert command("resume", "r", "--from", "@" + key_of(capsys)) == 0
    assert sys.modules["secretive"].calls == ["a"], "with the same settings as before"


def key_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The key of the only call of the run."""
    assert command("show", "r") == 0
    return capsys.readouterr().out.rpartition("@")[2][:8]


def test_a_run_that_needs_a_secret_which_its_program_does_not_have_any_more_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*COMMANDS["map"], "--run-id", "r") == 0
    forget()
    program = folder / "secretive.py"
    program.write_text(program.read_text().replace('Secret("line",', 'Secret("other",'))
    capsys.readouterr()
    assert command("resume", "r") == 2
    assert "run 'r': a recorded value has the secret 'line' in it" in capsys.readouterr().err
    forget_secret("other")


def test_the_input_of_a_run_is_shown_with_the_names_of_secrets(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    program = importlib.import_module("secretive")
    asyncio.run(run(program.take, Secret("line"), store=".rh_agents/runs.db", run_id="r"))
    forget()
    assert command("show", "r") == 0
    assert '{"password":"<secret:line>"}' in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["map", "--tokn=sk-0123456789abcdefghij"],
        ["--api-key=sk-0123456789abcdefghij", "map"],
        ["map", "a.py:f", "in", "--timeout", "sk-0123456789abcdefghij"],
        ["show", "r", "postgresql://me:sk-0123456789abcdefghij@host/db"],
        ["runs", "--store", "postgresql://me:sk-0123456789abcdefghij@localhost:1/db"],
        ["runs", "--store", "mysql://me:sk-0123456789abcdefghij@host/db"],
        ["sk-0123456789abcdefghij"],
    ],
)
def test_what_is_said_about_a_misspelt_command_repeats_no_credential(
    words: list[str], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(*words) in (1, 2)
    said = capfd.readouterr()
    assert said.err
    assert "0123456789" not in said.err + said.out
