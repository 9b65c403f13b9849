"""Random programs whose processes are killed, ended and interrupted at random moments, also while they recover.

A trial that fails is printed with its seed, the command that repeats exactly it, and a smaller program that fails too.
`RANDOM_PROGRAMS_FROM=1234 make stress ARGS="-k random_programs"` begins with another seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.random_programs.additions import ADDED_FROM
from tests.services.postgresql import PostgresqlServer
from tests.stress.sizes import rounds

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("RANDOM_PROGRAMS_FROM", "0"))


def try_programs(kind: str, count: int, log: Path, *more: str, seed: int = SEED) -> None:
    """Try so many, in a process that forks and therefore has no threads."""
    command = [
        sys.executable,
        "-m",
        "tests.random_programs",
        kind,
        "--seed-from",
        str(seed),
        "--count",
        str(count),
        *more,
    ]
    with log.open("wb") as output:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    assert done.returncode == 0, f"{log}:\n{log.read_text()[-20_000:]}"


@rounds(short=10, full=5000)
def test_random_programs_tell_the_same_story_after_their_processes_were_killed(rounds: int, tmp_path: Path) -> None:
    try_programs("sqlite", rounds, tmp_path / "log")


@rounds(short=3, full=1000)
def test_programs_that_ask_people_and_use_worker_processes_tell_the_same_story_too(rounds: int, tmp_path: Path) -> None:
    try_programs("sqlite", rounds, tmp_path / "log", seed=ADDED_FROM + SEED)


@rounds(short=2, full=1000)
def test_random_programs_in_postgresql_tell_the_same_story_after_their_processes_were_killed(
    rounds: int, postgresql_server: PostgresqlServer, tmp_path: Path
) -> None:
    try_programs("postgresql", rounds, tmp_path / "log", "--store", postgresql_server.url())
