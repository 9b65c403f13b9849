"""A map whose shards workers make: one of them dies, or stands still, or the driver dies, or the database does.

The judge is a ledger that the called function keeps, outside of any store.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rh_agents import open_store
from tests.services.postgresql import PostgresqlServer
from tests.stress.sizes import rounds
from tests.surfaces.cli_kit import environment

SEED = 20271
WORKERS, SIDE_BY_SIDE, ITEMS, SHARD, LEASE = 4, 3, 160, 8, 3
PATIENCE = 90.0

PROGRAM = f"""
import asyncio, os, sys
from rh_agents import parallel, run, tool

def note(kind, item):
    with open("ledger", "ab", buffering=0) as file:
        file.write(f"{{kind}} {{item}} {{os.getpid()}}\\n".encode())

@tool
async def step(item: int) -> int:
    note("begun", item)
    await asyncio.sleep(0.03)
    note("done", item)
    return 2 * item

async def pages(shard: int, on: str) -> int:
    async with parallel(max_workers={SIDE_BY_SIDE}, name="items") as p:
        p.map(step, range({ITEMS}), shard=shard, on=on, workers={WORKERS})
        return sum([each.unwrap() async for each in p.stream()])

if __name__ == "__main__":
    store, shard, on = sys.argv[1:]
    print(asyncio.run(run(pages, int(shard), on, store=store, run_id="monday", reuse=True)))
"""


class Job:
    """A driver and workers in a folder of their own."""

    def __init__(self, folder: Path, url: str) -> None:
        folder.mkdir()
        (folder / "shop.py").write_text(PROGRAM)
        self.folder = folder
        self.url = url

    def start(self, *words: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, *map(str, words)]
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=self.folder, env=environment())

    def drive(self, shard: int = SHARD, on: str = "workers") -> subprocess.Popen[bytes]:
        return self.start("shop.py", self.url, shard, on)

    @contextmanager
    def workers(self) -> Iterator[list[subprocess.Popen[bytes]]]:
        words = ("-m", "rh_agents", "worker", "--store", self.url, "--lease", LEASE, "--grace", 5)
        processes = [self.start(*words) for _ in range(WORKERS)]
        try:
            yield processes
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.communicate()

    def finish(self, driver: subprocess.Popen[bytes]) -> None:
        output, _ = driver.communicate(timeout=PATIENCE)
        assert output.decode().strip() == str(ITEMS * (ITEMS - 1)), (self.folder / "log").read_text()

    def ledger(self) -> list[tuple[str, int, int]]:
        try:
            lines = (self.folder / "ledger").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(kind, int(item), int(process)) for kind, item, process in map(str.split, lines)]

    def begun(self, by: int | None = None) -> int:
        return sum(kind == "begun" and by in (None, process) for kind, _, process in self.ledger())

    def wait_for(self, calls: int) -> None:
        ends_at = time.monotonic() + PATIENCE
        while self.begun() < calls:
            assert time.monotonic() < ends_at, (self.folder / "log").read_text()
            time.sleep(0.01)

    def judge(self, at_most: int, about: str) -> None:
        begun = Counter(item for kind, item, _ in self.ledger() if kind == "begun")
        assert set(begun) == set(range(ITEMS)), about
        assert begun.total() - ITEMS <= at_most, about
        asyncio.run(self._expect_whole(about))

    async def _expect_whole(self, about: str) -> None:
        store: Any = open_store(self.url)
        keys = [each.key async for each in store.outcomes("monday")]
        assert len(keys) == len(set(keys)) == ITEMS, about
        assert [info.run_id for info in await store.runs()] == ["monday"], about
        assert await store.check() == [], about
        await store.aclose()


def _of_postgresql(server: PostgresqlServer, name: str) -> str:
    return server.url(schema=name)


@rounds(short=1, full=100)
def test_a_worker_that_is_killed_costs_no_more_than_what_it_had_in_flight(rounds: int, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    for number in range(rounds):
        job = Job(tmp_path / str(number), f"sqlite:///{tmp_path}/{number}/runs.db")
        driver = job.drive()
        with job.workers() as processes:
            job.wait_for(chance.randrange(WORKERS * SIDE_BY_SIDE, ITEMS // 2))
            chance.choice(processes).kill()
            job.finish(driver)
        job.judge(SIDE_BY_SIDE, f"round {number} of seed {SEED}")


@rounds(short=1, full=100)
def test_a_driver_that_is_killed_costs_nothing_since_workers_go_on(rounds: int, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    for number in range(rounds):
        job = Job(tmp_path / str(number), f"sqlite:///{tmp_path}/{number}/runs.db")
        driver = job.drive()
        with job.workers():
            job.wait_for(chance.randrange(1, ITEMS // 2))
            driver.kill()
            driver.communicate()
            job.finish(job.drive(chance.choice([3, SHARD, 500]), chance.choice(["workers", "process"])))
        job.judge(0, f"round {number} of seed {SEED}")


@rounds(slow=1, full=100)
def test_a_database_that_crashes_costs_no_more_than_what_was_in_flight(
    rounds: int, postgresql_server: PostgresqlServer, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    for number in range(rounds):
        job = Job(tmp_path / str(number), _of_postgresql(postgresql_server, f"crashed{number}"))
        driver = job.drive()
        with job.workers():
            job.wait_for(chance.randrange(WORKERS, ITEMS // 2))
            postgresql_server.restart("immediate")
            output, _ = driver.communicate(timeout=PATIENCE)
            job.finish(job.drive() if not output.strip() else job.start("-c", f"print({output.decode().strip()!r})"))
        job.judge(WORKERS * SIDE_BY_SIDE, f"round {number} of seed {SEED}")


@rounds(slow=1, full=20)
def test_a_worker_that_stands_still_for_longer_than_its_lease_writes_nothing_afterwards(
    rounds: int, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    for number in range(rounds):
        job = Job(tmp_path / str(number), f"sqlite:///{tmp_path}/{number}/runs.db")
        driver = job.drive()
        with job.workers() as processes:
            job.wait_for(chance.randrange(WORKERS * SIDE_BY_SIDE, ITEMS // 3))
            victim = chance.choice(processes)
            victim.send_signal(signal.SIGSTOP)
            before = job.begun(victim.pid)
            job.finish(driver)  # others have taken its shard over
            victim.send_signal(signal.SIGCONT)
            time.sleep(1.5)
            assert job.begun(victim.pid) <= before + SIDE_BY_SIDE, "it goes on as if it had its shard"
        job.judge(2 * SIDE_BY_SIDE, f"round {number} of seed {SEED}")
