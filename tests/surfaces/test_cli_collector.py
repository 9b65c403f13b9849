"""A job's own process spares the garbage collector; a program that calls the command line keeps its settings."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.surfaces.cli_kit import ROOT, command

_PROGRAM = """
import gc
from rh_agents import tool

@tool
async def settings(text: str) -> list[int]:
    return [gc.get_threshold()[0], gc.get_freeze_count()]
"""


@pytest.fixture(autouse=True)
def _program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(_PROGRAM)
    (tmp_path / "in.txt").write_text("one\n")


def test_in_the_process_of_the_command_the_collector_looks_seldom_and_not_at_modules() -> None:
    words = [sys.executable, "-m", "rh_agents", "map", "program.py:settings", "in.txt", "--store", "none"]
    ran = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert '"result":[20000,' in ran.stdout
    assert '"result":[20000,0]' not in ran.stdout


def test_in_the_process_of_another_program_its_settings_are_kept() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    assert command("map", "program.py:settings", "in.txt", "--store", "none") == 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
