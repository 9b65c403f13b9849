"""What the checklist asks for from outside: its own commands, and the names at the top of the package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import rh_agents
from rh_agents.cli import main

ROOT = Path(__file__).parents[2]


def test_the_checklists_own_command_counts_nearly_all_of_the_module_of_groups(tmp_path: Path) -> None:
    pytest.importorskip("pytest_cov", reason="pytest-cov is not installed")
    outer = {name for name in os.environ if name.startswith(("COV_CORE", "COVERAGE", "PYTEST_"))}
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    command = [sys.executable, "-m", "pytest", "--cov=rh_agents.core.parallel", "tests/test_parallel_execution.py"]
    done = subprocess.run(
        [*command, "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**environment, "COVERAGE_FILE": str(tmp_path / "coverage")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    total = re.search(r"^TOTAL .* (\d+)%$", done.stdout, re.MULTILINE)
    assert total is not None, done.stdout
    assert int(total[1]) >= 90, done.stdout


@pytest.mark.parametrize("name", ["EventPrinter", "ParallelEventPrinter", "EventStreamer"])
def test_what_shows_events_is_at_the_top_of_the_package_and_imported_when_it_is_asked_for(name: str) -> None:
    assert name in rh_agents.__all__
    code = (
        "import sys, rh_agents\n"
        "assert 'rich' not in sys.modules\n"
        f"from rh_agents import {name}\n"
        "from rh_agents import bus_handlers\n"
        f"assert {name} is bus_handlers.{name}\n"
        "from rh_agents import *\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'rh_agents' has no attribute 'nonsense'"):
        getattr(rh_agents, "nonsense")  # noqa: B009 - type checkers know that it does not exist


def test_the_version_is_that_of_the_package_wherever_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert rh_agents.__version__ == version("rh_agents")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rh-agents {rh_agents.__version__}\n"
