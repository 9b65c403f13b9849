"""Two machines that share nothing but PostgreSQL: one is switched off, and the other one does what is left.

Both have the same name, the same process ids, and clocks that differ by ten seconds. The judge is a ledger that the
called functions keep (the file system is the same for both, which nothing but the ledger uses).
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from pathlib import Path

from tests.services.machines import Machine, expect_machines
from tests.services.postgresql import PostgresqlServer
from tests.stress import test_shards_of_workers_killed as shards
from tests.stress import test_workers_killed as kit
from tests.stress.sizes import rounds
from tests.surfaces.cli_kit import environment

SEED = 20270
LEASE = 2.0
AT_A_TIME = 2

WORKER = f"""
import asyncio, sys, time
sys.path.insert(0, ".")
from rh_agents.stores.postgresql import PostgresqlStore
from rh_agents.workers import Worker

async def main():
    store = PostgresqlStore(sys.argv[1], clock=lambda: time.time() + float(sys.argv[2]))
    report = lambda line: print(sys.argv[3], line, flush=True)
    await store.runs()
    report("is ready")
    await Worker(store, max_runs={AT_A_TIME}, lease={LEASE}, report=report).run()

asyncio.run(main())
"""


@rounds(short=1, slow=5, full=30)
def test_what_a_machine_was_doing_that_is_switched_off_is_done_by_another_one(
    rounds: int, postgresql_server: PostgresqlServer, postgresql_url: str, tmp_path: Path
) -> None:
    expect_machines()
    chance = random.Random(SEED)
    for number in range(rounds):
        url = f"{postgresql_url.rpartition('=')[0]}=machines{number}"
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            _switch_one_off(folder, url, postgresql_server.port, chance, f"round {number} of seed {SEED}")
        finally:
            postgresql_server.execute(f"DROP SCHEMA IF EXISTS machines{number} CASCADE")


@rounds(short=1, slow=5, full=30)
def test_shards_that_a_machine_had_that_is_switched_off_are_made_by_another_one(
    rounds: int, postgresql_server: PostgresqlServer, postgresql_url: str, tmp_path: Path
) -> None:
    expect_machines()
    chance = random.Random(SEED)
    for number in range(rounds):
        url = f"{postgresql_url.rpartition('=')[0]}=shards{number}"
        job = shards.Job(tmp_path / str(number), url)
        program = shards.PROGRAM.replace("os.getpid()", "int(os.environ.get('MACHINE', 0))")
        (job.folder / "shop.py").write_text(program.replace("sleep(0.03)", "sleep(0.1)"))
        try:
            _switch_one_off_with_shards(job, postgresql_server.port, chance, f"round {number} of seed {SEED}")
        finally:
            postgresql_server.execute(f"DROP SCHEMA IF EXISTS shards{number} CASCADE")


def _switch_one_off_with_shards(job: shards.Job, port: int, chance: random.Random, about: str) -> None:
    """The driver is on a third machine, and stays."""
    clocks = [-5.0, 5.0]
    chance.shuffle(clocks)
    with Machine(port) as first, Machine(port) as second:
        for name, (machine, offset) in enumerate(zip((first, second), clocks, strict=True), 1):
            command = [sys.executable, "-c", WORKER, machine.reached_at(job.url), str(offset), str(name)]
            machine.start(command, folder=job.folder, environment={**environment(), "MACHINE": str(name)})
        kit.wait_until(lambda: _text(job.folder / "log").count("is ready") == 2)
        driver = job.drive()
        calls = chance.randrange(1, shards.ITEMS // 4)
        kit.wait_until(lambda: job.begun(1) >= calls and job.begun(2) > 0)
        first.cut()
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, 0.2))
        first.kill()
        job.finish(driver)
    assert {machine for _, _, machine in job.ledger()} == {1, 2}, about
    job.judge(AT_A_TIME * shards.SIDE_BY_SIDE, about)


def _switch_one_off(folder: Path, url: str, port: int, chance: random.Random, about: str) -> None:
    program = kit.PROGRAM.replace("os.getpid()", "int(os.environ['MACHINE'])").replace("sleep(0.02)", "sleep(0.2)")
    (folder / "shop.py").write_text(program)
    clocks = [-5.0, 5.0]
    chance.shuffle(clocks)
    with Machine(port) as first, Machine(port) as second:
        for name, (machine, offset) in enumerate(zip((first, second), clocks, strict=True), 1):
            command = [sys.executable, "-c", WORKER, machine.reached_at(url), str(offset), str(name)]
            machine.start(command, folder=folder, environment={**environment(), "MACHINE": str(name)})
        kit.wait_until(lambda: _text(folder / "log").count("is ready") == 2)
        asyncio.run(kit.submit_runs(url, time.time() - 60))  # for whom it is earlier, it is time as well
        lines = chance.randrange(1, kit.RUNS * kit.ITEMS // 4)
        kit.wait_until(lambda: kit.begun_by(folder, 1) >= lines and kit.begun_by(folder, 2) > 0)
        first.cut()
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, 0.2))
        first.kill()
        kit.wait_until(lambda: asyncio.run(kit.have_all_ended(url)))
    begun = Counter(item for kind, item, _ in kit.ledger(folder) if kind == "begun")
    assert len(begun) == kit.RUNS * kit.ITEMS, about
    assert sum(count - 1 for count in begun.values()) <= AT_A_TIME * kit.SIDE_BY_SIDE, about
    assert {machine for _, _, machine in kit.ledger(folder)} == {1, 2}, about
    assert kit.have_owners_in_turn(folder), about
    asyncio.run(kit.expect_outcomes(url, about))


def test_machines_have_the_same_process_ids_and_see_nothing_of_each_other(
    postgresql_server: PostgresqlServer, tmp_path: Path
) -> None:
    expect_machines()
    program = "import os, pathlib; pathlib.Path(f'{os.environ[\"MACHINE\"]}.pid').write_text(f'{os.getpid()}')"
    with Machine(postgresql_server.port) as first, Machine(postgresql_server.port) as second:
        for name, machine in (("a", first), ("b", second)):
            command = [sys.executable, "-c", program]
            machine.start(command, folder=tmp_path, environment={**environment(), "MACHINE": name})
        kit.wait_until(lambda: all(_text(tmp_path / f"{name}.pid") for name in "ab"))
    assert _text(tmp_path / "a.pid") == _text(tmp_path / "b.pid") == "1"


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
