"""Processes with the same store share their rate limits: together they make no more requests than one may."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.shared_limits import RATE, reached, share_of

PROCESSES = 3
CALLS = 8
LIMIT = 6
PER = 1.0
LEAST = 0.75
"""Of a limit. Where processors are busy, the store answers late, and permits lapse: see `benchmarks.shared_limits`."""
SLACK = 0.6
"""Seconds from the moment at which a call was admitted to that at which it says so."""

PROGRAM = f"""
import asyncio, sys, time
from rh_agents import RateLimit, parallel, run, tool

@tool(limits=RateLimit(requests={LIMIT}, per={PER}, name="account", shared=True))
async def ask(number: int) -> None:
    print(time.time(), flush=True)

async def main() -> None:
    async with parallel(max_workers={CALLS}) as p:
        p.map(ask, range({CALLS}))
        assert all(result.ok for result in await p.gather())

asyncio.run(run(main, store=sys.argv[1]))
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_window_admits_more_to_several_processes_than_to_one(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = str(tmp_path / "runs.db") if kind == "sqlite" else request.getfixturevalue("postgresql_url")
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, url], stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    moments = sorted(float(line) for process in processes for line in process.communicate(timeout=60)[0].splitlines())
    assert [process.returncode for process in processes] == [0] * PROCESSES
    assert len(moments) == PROCESSES * CALLS
    for first, last in zip(moments, moments[LIMIT:], strict=False):
        assert last - first > PER - SLACK, [round(moment - moments[0], 2) for moment in moments]
    assert moments[-1] - moments[0] < 3 * PER * (PROCESSES * CALLS / LIMIT), "waiting is not for longer than it must be"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_four_processes_reach_most_of_a_limit_and_never_more(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = str(tmp_path / "runs.db") if kind == "sqlite" else request.getfixturevalue("postgresql_url")
    shares = []
    for _ in range(3):  # another program may have had the processors
        moments = reached(url)
        ordered = sorted(moment for each in moments for moment in each)
        for first, last in zip(ordered, ordered[int(RATE) :], strict=False):
            assert last - first > 1.0 - SLACK / 3
        assert min(map(len, moments)) > max(map(len, moments)) / 3, "each gets its share"
        shares.append(share_of(moments))
        if shares[-1] >= LEAST:
            return
    raise AssertionError(f"of {RATE:g} a second they reach only {shares}")
