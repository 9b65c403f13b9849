"""Workers that die: every submitted run comes to its end, and what was finished is not repeated.

The judge is a ledger that the called functions keep, outside of any store.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rh_agents import ExecutionStatus, open_store
from rh_agents.core.queueing import Submission
from rh_agents.core.values import encode_any
from tests.stress.gone_machine import taken_over_after
from tests.stress.sizes import rounds
from tests.surfaces.cli_kit import environment

SEED = 20269
WORKERS, AT_A_TIME, SIDE_BY_SIDE = 4, 2, 3
RUNS, ITEMS = 10, 8
PATIENCE = 120.0

PROGRAM = f"""
import asyncio, os
from rh_agents import agent, parallel, tool

def note(kind, item):
    with open("ledger", "ab", buffering=0) as file:
        file.write(f"{{kind}} {{item}} {{os.getpid()}}\\n".encode())

@tool
async def step(item: str) -> int:
    note("begun", item)
    await asyncio.sleep(0.02)
    note("done", item)
    return len(item)

@agent
async def job(name: str) -> int:
    async with parallel(max_workers={SIDE_BY_SIDE}, name="items") as p:
        p.map(step, [f"{{name}}:{{item}}" for item in range({ITEMS})])
        return sum(result.unwrap() for result in await p.gather())
"""


@rounds(short=1, slow=5, full=100)
def test_a_worker_that_is_killed_loses_nothing_and_repeats_only_what_was_in_flight(rounds: int, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    for number in range(rounds):
        _kill_one(tmp_path / str(number), str(tmp_path / str(number) / "runs.db"), chance, f"round {number}")


@rounds(short=1, slow=5, full=100)
def test_a_worker_that_is_killed_loses_nothing_in_postgresql(rounds: int, postgresql_url: str, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    for number in range(rounds):
        _kill_one(tmp_path / str(number), f"{postgresql_url}_killed{number}", chance, f"round {number}")


def _kill_one(folder: Path, url: str, chance: random.Random, about: str) -> None:
    folder.mkdir()
    (folder / "shop.py").write_text(PROGRAM)
    asyncio.run(submit_runs(url))
    with _workers(folder, url) as processes:
        victim = processes[chance.randrange(WORKERS)]
        lines = chance.randrange(1, RUNS * ITEMS // WORKERS)
        wait_until(lambda: begun_by(folder, victim.pid) >= lines or _is_all_done(folder))
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        in_flight = _in_flight(folder, victim.pid)
        wait_until(lambda: asyncio.run(have_all_ended(url)))
    begun = Counter(item for kind, item, _ in ledger(folder) if kind == "begun")
    assert len(begun) == RUNS * ITEMS, about
    repeated = sum(count - 1 for count in begun.values())
    assert repeated <= AT_A_TIME * SIDE_BY_SIDE, about
    # What was done just before the kill may have been on its way to the disk.
    assert repeated <= in_flight + AT_A_TIME * SIDE_BY_SIDE, about
    assert have_owners_in_turn(folder), about
    asyncio.run(expect_outcomes(url, about))


@rounds(short=1, slow=3, full=20)
def test_a_worker_that_is_stopped_for_longer_than_its_lease_writes_nothing_when_it_goes_on(
    rounds: int, postgresql_url: str, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    for number in range(rounds):
        _stop_one(tmp_path / str(number), f"{postgresql_url}_stopped{number}", chance, f"round {number}")


def _stop_one(folder: Path, url: str, chance: random.Random, about: str) -> None:
    folder.mkdir()
    (folder / "shop.py").write_text(PROGRAM)
    asyncio.run(submit_runs(url))
    with _workers(folder, url) as processes:
        lines = chance.randrange(1, RUNS * ITEMS // WORKERS)
        wait_until(lambda: any(_is_amid(folder, each.pid, lines) for each in processes) or _is_all_done(folder))
        zombie = max(processes, key=lambda each: _in_flight(folder, each.pid))
        os.kill(zombie.pid, signal.SIGSTOP)
        has_begun = begun_by(folder, zombie.pid)
        wait_until(lambda: asyncio.run(have_all_ended(url)))
        assert begun_by(folder, zombie.pid) == has_begun, about
        written = asyncio.run(_all_events(url))
        os.kill(zombie.pid, signal.SIGCONT)
        wait_until(lambda: (folder / "log").read_text().count("another process has taken it over") > 0)
        assert asyncio.run(_all_events(url)) == written, about
        assert begun_by(folder, zombie.pid) == has_begun, about
    begun = Counter(item for kind, item, _ in ledger(folder) if kind == "begun")
    assert len(begun) == RUNS * ITEMS, about
    assert sum(count - 1 for count in begun.values()) <= 2 * AT_A_TIME * SIDE_BY_SIDE, about
    asyncio.run(expect_outcomes(url, about))


def _is_amid(folder: Path, process: int, lines: int) -> bool:
    return begun_by(folder, process) >= lines and _in_flight(folder, process) > 0


async def _all_events(url: str) -> dict[str, int]:
    """How many events each run has."""
    store = open_store(url)
    try:
        return {info.run_id: len([None async for _ in store.events(info.run_id)]) for info in await store.runs()}
    finally:
        await store.aclose()


async def submit_runs(url: str, not_before: float | None = None) -> None:
    store = open_store(url)
    for number in range(RUNS):
        data = encode_any({"name": f"run{number}"})
        digest = number.to_bytes(32, "big")
        submission = Submission(f"run{number}", "job", "shop:job", data, digest, not_before=not_before)
        await store.submit(submission)  # type: ignore[attr-defined]
    await store.aclose()


@contextmanager
def _workers(folder: Path, url: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    words = ["worker", "--store", url, "--max-runs", str(AT_A_TIME), "--lease", "3", "--grace", "5"]
    with open(folder / "log", "wb") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "rh_agents", *words], cwd=folder, env=environment(), stdout=log, stderr=log
            )
            for _ in range(WORKERS)
        ]
        try:
            yield processes
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                assert process.wait(timeout=PATIENCE) in (0, -signal.SIGKILL), (folder / "log").read_text()
        finally:
            for process in processes:
                process.kill()
                process.wait()


def wait_until(condition: object) -> None:
    assert callable(condition)
    ends_at = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends_at, "it takes too long"
        time.sleep(0.02)


def ledger(folder: Path) -> list[tuple[str, str, int]]:
    try:
        lines = (folder / "ledger").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(kind, item, int(process)) for kind, item, process in map(str.split, lines)]


def begun_by(folder: Path, process: int) -> int:
    return sum(each == process and kind == "begun" for kind, _, each in ledger(folder))


def _is_all_done(folder: Path) -> bool:
    return len({item for kind, item, _ in ledger(folder) if kind == "done"}) == RUNS * ITEMS


def _in_flight(folder: Path, process: int) -> int:
    mine = [(kind, item) for kind, item, each in ledger(folder) if each == process]
    return len({item for kind, item in mine if kind == "begun"} - {item for kind, item in mine if kind == "done"})


def have_owners_in_turn(folder: Path) -> bool:
    """Whether no process called anything in a run after another one had begun to."""
    owners: dict[str, list[int]] = {}
    for kind, item, process in ledger(folder):
        its = owners.setdefault(item.partition(":")[0], [])
        if kind == "begun" and (not its or its[-1] != process):
            its.append(process)
    return all(len(its) == len(set(its)) for its in owners.values())


async def have_all_ended(url: str) -> bool:
    store = open_store(url)
    try:
        return all(info.status is ExecutionStatus.COMPLETED for info in await store.runs())
    finally:
        await store.aclose()


async def expect_outcomes(url: str, about: str) -> None:
    store = open_store(url)
    try:
        for info in await store.runs():
            assert (info.outcomes, info.owner, info.ready_at, info.claims) == (ITEMS + 1, None, None, 0), about
        assert await store.check() == [], about
    finally:
        await store.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_fifty_runs_of_a_machine_that_is_gone_are_taken_over_within_one_lease_and_two_seconds(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = str(tmp_path / "runs.db") if kind == "sqlite" else request.getfixturevalue("postgresql_url")
    lease = 2.0
    assert lease - 0.5 <= taken_over_after(url, runs=50, lease=lease) <= lease + 2.0
