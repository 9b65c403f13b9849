"""Processes with the same store share their budgets: whoever is killed, together they spend no more than is stated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROCESSES = 3
MOST = 60
WORKERS = 3

PROGRAM = f"""
import asyncio, os, sys
from rh_agents import Budget, BudgetExceeded, Tool, Usage, parallel, report_usage, run

store, ledger, name, knows = sys.argv[1:]

class Paid(Tool):
    def estimate_input(self, input_data):
        return Usage(cost=1.0) if knows == 'beforehand' else None

async def pay(number: int) -> None:
    with open(ledger, "a") as paid:
        paid.write(f"{{name}} {{number}}\\n")
    await asyncio.sleep(0.05)
    report_usage(Usage(cost=1.0))

async def main() -> None:
    async with parallel(max_workers={WORKERS}) as p:
        p.map(Paid(name="pay", handler=pay), range(1000))
        await p.gather()

try:
    asyncio.run(run(main, store=store, run_id=name, budget=Budget(cost={MOST}, shared=True, name="month")))
except BudgetExceeded as stopped:
    print(stopped)
"""


def start(url: str, ledger: Path, name: str, knows: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", PROGRAM, url, str(ledger), name, knows]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def paid(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines() if ledger.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("knows", ["beforehand", "of earlier calls"])
def test_processes_of_which_some_are_killed_spend_no_more_than_is_stated_and_lose_only_what_was_in_flight(
    kind: str, knows: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = str(tmp_path / "runs.db") if kind == "sqlite" else request.getfixturevalue("postgresql_url")
    ledger = tmp_path / "paid"
    processes = {name: start(url, ledger, name, knows) for name in "abc"}
    deadline = time.monotonic() + 60
    while len(paid(ledger)) < MOST // 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    processes["a"].send_signal(signal.SIGKILL)
    if kind == "postgresql":  # it may have the file locked, and nobody else could write then
        processes["b"].send_signal(signal.SIGSTOP)
    processes["c"].communicate(timeout=60)
    os.kill(processes["b"].pid, signal.SIGCONT)
    processes["b"].communicate(timeout=60)
    processes["a"].communicate(timeout=60)
    assert MOST - 2 * WORKERS <= len(paid(ledger)) <= MOST
    again = start(url, ledger, "a", knows)  # its calls in flight are made again, if there is something left
    again.communicate(timeout=60)
    assert len(paid(ledger)) <= MOST
