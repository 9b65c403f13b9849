"""However a job of `map` ends, it says what is done and how to go on, and it ends with 0 only if all is done."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.surfaces.cli_kit import command, environment

PROGRAM = """
import asyncio, os, signal, sys
from rh_agents import tool
@tool
def leave(text: str) -> str:
    return sys.exit(0) if text == "b" else text
async def leave_in_a_task(text: str) -> str:
    async def task():
        sys.exit(0)
    if text == "b":
        await asyncio.create_task(task())
    await asyncio.sleep(0)
    return text
async def left_behind(text: str) -> str:
    async def task():
        sys.exit(0)
    left_behind.task = asyncio.create_task(task())
    await asyncio.sleep(0.01)
    return text
async def keyboard(text: str) -> str:
    if text == "b":
        raise KeyboardInterrupt
    return text
async def by_signal(text: str) -> str:
    if text == "b":
        def handle(number, frame):
            sys.exit(0)
        signal.signal(signal.SIGUSR1, handle)
        signal.raise_signal(signal.SIGUSR1)
    return text
async def fill(text: str) -> str:
    return text * 3000
def twice(text: str) -> str:
    for number in signal.SIGINT, signal.SIGTERM:
        os.kill(os.getpid(), number)
    return text
async def hangup(text: str) -> str:
    if text == "b":
        for number in HANGUPS:
            signal.raise_signal(number)
            await asyncio.sleep(0)
    return text
HANGUPS = [signal.SIGHUP]
async def stopped(names: str) -> str:
    for name in names.split(","):
        signal.raise_signal(getattr(signal, name))
        await asyncio.sleep(0)
    await later()
@tool
async def later() -> None:
    await asyncio.sleep(1000)
class Unwritable:
    def __repr__(self):
        sys.exit(0)
async def unwritable(text: str) -> object:
    return Unwritable()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "leaving.py").write_text(PROGRAM)
    (tmp_path / "in.txt").write_text("a\nb\nc\nd\n")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests themselves run under `nohup`
    yield tmp_path
    signal.signal(signal.SIGHUP, before)
    sys.modules.pop("leaving", None)


Ended = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def ended(capfd: pytest.CaptureFixture[str]) -> Ended:
    """Runs a function over the input: the exit code, the lines of standard output, and those of standard error."""

    def run(function: str, *options: str) -> tuple[int, list[str], list[str]]:
        code = command("map", f"leaving.py:{function}", "in.txt", "--progress", "none", "-n", "1", *options)
        out, err = capfd.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.mark.parametrize("function", ["leave", "leave_in_a_task"])
def test_an_exit_of_a_function_fails_its_item_only(function: str, ended: Ended) -> None:
    code, out, err = ended(function)
    assert (code, len(out)) == (1, 4)
    assert err[0] == "first failure: in.txt:2: CalledExit: called sys.exit(0)"
    assert err[1].startswith("4 done (3 ok, 1 failed)")
    assert err[2].startswith(f"to try the failed ones again: rh-agents resume {function}-")


def test_an_exit_in_a_task_that_nobody_awaits_costs_no_item(ended: Ended) -> None:
    code, out, err = ended("left_behind")
    assert (code, len(out)) == (0, 4), err


def test_an_exit_in_the_repr_of_a_result_fails_its_item_only(ended: Ended) -> None:
    code, out, _ = ended("unwritable", "--store", "none")
    assert (code, len(out)) == (1, 4)
    assert "the result cannot be written as JSON" in out[0]


@pytest.mark.parametrize(("function", "code"), [("keyboard", 130), ("by_signal", 1), ("twice", 130), ("hangup", 130)])
def test_what_ends_the_process_is_told_with_what_is_left_and_how_to_go_on(
    function: str, code: int, ended: Ended
) -> None:
    found, out, err = ended(function)
    assert found == code
    at = next(place for place, line in enumerate(err) if " done (" in line)
    assert err[at - 1] == f"interrupted: {len(out)} done, {4 - len(out)} not done"
    assert err[at].startswith(f"{len(out)} done ({len(out)} ok, 0 failed)")
    assert err[at + 1].startswith(f"resume with: rh-agents resume {function}-")


def test_a_store_that_fails_is_told_with_what_is_done_and_how_to_go_on(folder: Path, ended: Ended) -> None:
    (folder / "in.txt").write_text("".join(f"{number}\n" for number in range(100)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        code, out, err = ended("fill", "-o", os.devnull)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1
    assert err[0].startswith("rh-agents: ")
    assert err[1].startswith("not finished: ")
    assert " done (" in err[2]
    assert err[3].startswith("resume with: rh-agents resume fill-")
    code, out, err = ended("fill")
    assert (code, len(out)) == (0, 100)
    assert " reused, " in err[-1]


def test_a_hangup_that_nohup_has_ignored_means_nothing(ended: Ended) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        code, out, _ = ended("hangup")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (code, len(out)) == (0, 4)


@pytest.mark.parametrize("signals", [["SIGHUP"], ["SIGTERM"], ["SIGINT", "SIGINT"], ["SIGTERM", "SIGHUP"]])
def test_a_flow_that_is_stopped_by_a_signal_says_how_to_go_on(
    signals: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    names = ",".join(signals)
    assert command("run", "leaving.py:stopped", "-i", json.dumps(names), "--progress", "none") == 130
    lines = capfd.readouterr().err.splitlines()
    assert lines[-2] == "rh-agents: interrupted"
    assert lines[-1].startswith("resume with: rh-agents resume stopped-")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["map", "leaving.py:fill", "in.txt"], "standard output is closed: name a file with -o"),
        (["run", "leaving.py:fill", "-i", '"a"'], "standard output is closed, and there is nowhere else to write to"),
        (["runs"], "standard output is closed, and there is nowhere else to write to"),
    ],
)
def test_nothing_is_called_or_looked_for_if_standard_output_is_closed(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert command(*words) == 2
    assert says in capfd.readouterr().err
    assert "leaving" not in sys.modules or words[0] == "map"


@pytest.mark.parametrize("words", [["runs"], ["show", "r"], ["export", "r"], ["run", "leaving.py:fill", "-i", '"a"']])
def test_an_output_that_takes_nothing_is_told_in_a_sentence(words: list[str], folder: Path) -> None:
    assert command("run", "leaving.py:fill", "-i", '"a"', "--run-id", "r", "--progress", "none") == 0
    with open("/dev/full", "w") as full:
        child = subprocess.run(
            [sys.executable, "-m", "rh_agents", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    assert child.returncode == 1
    assert "standard output: No space left on device" in child.stderr.splitlines()[-1]
    assert "Traceback" not in child.stderr


@pytest.mark.parametrize("name", ["", " "])
def test_an_output_without_a_name_is_refused_before_anything_is_called(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("map", "leaving.py:fill", "in.txt", "-o", name) == 2
    assert (
        f"-o {name!r}: the name of a file is needed; leave -o out to write to standard output" in capfd.readouterr().err
    )
    assert not os.path.exists(".rh_agents")


@pytest.mark.parametrize(
    ("name", "said_of_it"),
    [
        (
            "table.xlsx",
            "results are written as .jsonl or .csv (also .gz or .zst), .parquet or .arrow: name it table.csv",
        ),
        ("T.ODS", "results are written as .jsonl or .csv (also .gz or .zst), .parquet or .arrow: name it T.csv"),
        ("table.parquet.gz", "such a file is compressed by itself: name it table.parquet"),
    ],
)
def test_an_output_with_the_name_of_what_is_not_written_is_refused_before_anything_is_called(
    name: str, said_of_it: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("map", "leaving.py:fill", "in.txt", "-o", name) == 2
    assert f"-o {name}: {said_of_it}" in capfd.readouterr().err
    assert not os.path.exists(".rh_agents")
