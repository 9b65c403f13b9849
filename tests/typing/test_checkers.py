"""mypy and pyright read programs of users: they find each mistake at its line, and nothing where all is right."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
ROOT = Path(__file__).parents[2]


def found_by_mypy(_: Path) -> set[tuple[str, int]]:
    """With the settings and the cache of `make check`."""
    command = [sys.executable, "-m", "mypy", "--strict", *map(str, PROGRAMS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.findall(r"(\w+)\.py:(\d+): error:", done.stdout)
    return {(name, int(line)) for name, line in found}


def found_by_pyright(folder: Path) -> set[tuple[str, int]]:
    """With the settings of somebody who has none."""
    names = [Path(shutil.copy(program, folder)).name for program in PROGRAMS]
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *names]
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {
        (Path(each["file"]).stem, each["range"]["start"]["line"] + 1) for each in found if each["severity"] == "error"
    }


@pytest.mark.slow  # each reads the whole library
@pytest.mark.parametrize("find", [found_by_mypy, found_by_pyright])
def test_a_checker_finds_every_mistake_of_a_program_and_nothing_else(
    find: Callable[[Path], set[tuple[str, int]]], tmp_path: Path
) -> None:
    wrong = {
        (program.stem, number)
        for program in PROGRAMS
        for number, line in enumerate(program.read_text().splitlines(), 1)
        if "# WRONG" in line
    }
    assert {name for name, _ in wrong} == {"mistakes"}
    assert len(wrong) >= 20
    assert find(tmp_path) == wrong
