"""Processes that make the items of a `map` are killed, and so is the one that has the group open; a ledger judges."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from rh_agents import open_store

COUNT = 120
_AT_A_TIME = 5


class _Program:
    """Starts and kills the program of `sharded_work`."""

    def __init__(self, place: Path) -> None:
        self.ledger = place / "ledger"
        self.ledger.touch()
        self._store = place / "runs.db"

    def start(self, shard: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.runtime.sharded_work", self._store, self.ledger, str(COUNT), str(shard)]
        return subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def called(self) -> Counter[tuple[str, str]]:
        return Counter((name, number) for name, number, *_ in map(str.split, self.ledger.read_text().splitlines()))

    def wait_for(self, calls: int, process: subprocess.Popen[str]) -> None:
        """Until so many calls have been made, or the program has ended."""
        while self.called().total() < calls and process.poll() is None:
            time.sleep(0.01)

    def judge(self, killed: int) -> None:
        called = self.called()
        assert set(called) == {(name, str(number)) for name in ("look", "step") for number in range(COUNT)}
        repeated = called.total() - len(called)
        assert repeated <= killed * _AT_A_TIME * 2, "no more is made again than was in flight"
        keys = {line.split()[2] for line in self.ledger.read_text().splitlines()}
        assert len(keys) == 2 * COUNT, "a call that is made again has its idempotency key"


def _children(process: subprocess.Popen[str]) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    return list(map(int, found.stdout.split()))


def _finished(process: subprocess.Popen[str]) -> None:
    output, errors = process.communicate(timeout=300)
    assert output.strip() == str(COUNT * (COUNT - 1)), errors


def _kill_a_worker(program: _Program, process: subprocess.Popen[str], chance: random.Random) -> int:
    workers = _children(process)
    if not workers or process.poll() is not None:
        return 0
    os.kill(chance.choice(workers), signal.SIGKILL)
    return 1


def test_a_worker_that_is_killed_costs_no_more_than_what_it_had_in_flight(tmp_path: Path) -> None:
    program, chance = _Program(tmp_path), random.Random(1)
    process = program.start(40)
    program.wait_for(30, process)
    killed = _kill_a_worker(program, process, chance)
    _finished(process)
    assert killed
    program.judge(killed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_workers_that_are_killed_again_and_again_cost_no_more_than_what_they_had_in_flight(
    tmp_path: Path, seed: int
) -> None:
    program, chance = _Program(tmp_path), random.Random(seed)
    process, killed = program.start(chance.choice([10, 25, 60])), 0
    for calls in range(20, 200, 30):
        program.wait_for(calls, process)
        killed += _kill_a_worker(program, process, chance)
    _finished(process)
    program.judge(killed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_driver_that_is_killed_goes_on_with_other_shards_and_repeats_what_was_in_flight(
    tmp_path: Path, seed: int
) -> None:
    program, chance = _Program(tmp_path), random.Random(seed)
    killed = 0
    for calls in (30, 90, 150):
        process = program.start(chance.choice([0, 7, 20, 60]) if killed else 20)
        program.wait_for(calls, process)
        process.kill()
        process.communicate()
        killed += 1
    _finished(program.start(chance.choice([0, 15])))
    program.judge(2 * killed)  # each had two workers


def test_nothing_is_left_of_shards_when_a_run_has_ended(tmp_path: Path) -> None:
    async def names() -> list[str]:
        store = open_store(str(tmp_path / "runs.db"))
        found = [info.run_id for info in await store.runs()]
        await store.aclose()
        return found

    program = _Program(tmp_path)
    _finished(program.start(50))
    assert asyncio.run(names()) == ["monday"]
    program.judge(0)
