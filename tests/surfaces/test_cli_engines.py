"""`--executor`: further engines for the functions of a program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os

from rh_agents import agent, tool


class Here:
    def __init__(self, mark="made"):
        self.mark = mark

    async def call(self, function, args, kwargs, about):
        with open("calls.txt", "a") as file:
            print(self.mark, about.address, file=file)
        return function(*args, **kwargs)


one = Here("one")
number = 3


def broken():
    raise RuntimeError("no cluster")


@tool(engine="cluster")
def double(number: int) -> int:
    return 2 * number


@agent
async def flow(number: int) -> int:
    return await double(number)
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "items.jsonl").write_text('{"number": 1}\n{"number": 2}\n')


def rh_agents(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, in the folder."""
    environment = {**os.environ, "COLUMNS": "300"}
    command = [sys.executable, "-m", "rh_agents", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize(("spec", "mark"), [("Here", "made"), ("one", "one")])
def test_a_flow_uses_the_executor_that_is_named_or_made(tmp_path: Path, spec: str, mark: str) -> None:
    command = ["run", "program.py:flow", "--input", "4", "--executor", f"cluster=program.py:{spec}"]
    done = rh_agents(tmp_path, *command)
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr
    assert (tmp_path / "calls.txt").read_text() == f"{mark} flow::double\n"


def test_a_job_that_is_resumed_has_its_executor_again(tmp_path: Path) -> None:
    command = ["map", "program.py:double", "items.jsonl", "--run-id", "job", "--executor", "cluster=program.py:Here"]
    done = rh_agents(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(line)["result"] for line in done.stdout.splitlines()) == [2, 4]
    (tmp_path / "items.jsonl").write_text('{"number": 1}\n{"number": 3}\n')
    done = rh_agents(tmp_path, "resume", "job")
    assert sorted(json.loads(line)["result"] for line in done.stdout.splitlines()) == [2, 6], done.stderr
    assert len((tmp_path / "calls.txt").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("executors", "problem"),
    [
        ([], "double: this run has no engine 'cluster', only 'process', 'thread'; give it one with --executor"),
        (["clutser=program.py:Here"], "only 'clutser', 'process', 'thread'; did you mean 'clutser'?"),
        (["cluster"], "--executor cluster: write NAME=MODULE:FACTORY; only `ray` needs none"),
        (["cluster=program.py"], "'program.py' does not name an executor: write MODULE:NAME"),
        (["cluster=program.py:number"], "3 has no method `call`"),
        (["cluster=program.py:broken"], "--executor cluster=program.py:broken: RuntimeError: no cluster"),
        (["async=program.py:Here"], "an engine is named by a text, and not 'async'"),
    ],
)
def test_what_cannot_execute_the_program_is_refused_before_anything_is_called(
    tmp_path: Path, executors: list[str], problem: str
) -> None:
    options = [word for each in executors for word in ("--executor", each)]
    done = rh_agents(tmp_path, "run", "program.py:flow", "--input", "4", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert not (tmp_path / "calls.txt").exists()
    assert not (tmp_path / ".rh_agents").exists()
