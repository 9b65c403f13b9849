"""What a process keeps of the calls that it has made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def _growth(folder: Path, first: int, every: int) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.stress.growing", str(folder), str(first), str(every)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_no_object_stays_of_a_recorded_call(tmp_path: Path) -> None:
    """There were four for each. What comes here are rows of tables, of which there is a fixed number."""
    first, every = 3000, 9000
    grown: list[int] = []
    for number in range(3):  # one process in twenty has another 20,000 blocks at its second count
        folder = tmp_path / str(number)
        folder.mkdir()
        grown.append(_growth(folder, first, every)["blocks"])
        if grown[-1] < 2 * (every - first):
            return
    pytest.fail(f"grown by {grown} blocks")


@pytest.mark.stress
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells the memory of a process on Linux only")
def test_memory_stays_flat_over_150_000_recorded_calls(tmp_path: Path) -> None:
    first, every = 20_000, 150_000
    grown = _growth(tmp_path, first, every)["bytes"]
    assert grown / (every - first) < 160, f"{grown / 1e6:.1f} MB"
