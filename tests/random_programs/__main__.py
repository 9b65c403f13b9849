"""Random programs at large: `python -m tests.random_programs sqlite --seed-from 0 --count 5000`.

Each program that fails is printed with the command that repeats exactly it, and a smaller one that fails as well. A run
that was broken off goes on with --seed-from.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from tests.random_programs.additions import draw_any_program
from tests.random_programs.oracle import kind_of
from tests.random_programs.programs import Program, source_of
from tests.random_programs.real import RealMoment, RealTrial, draw_real_moments
from tests.random_programs.shrink import shrink
from tests.random_programs.virtual import Moment, VirtualTrial, draw_moments
from tests.services.postgresql import PostgresqlServer, find_binaries

__all__: list[str] = []

_IN_ONE_SCHEMA = 50
"""Trials that share a schema in PostgreSQL, and one check of it."""


class Trial(Protocol):
    """What both kinds of trials have."""

    def findings(self) -> list[str]: ...


Make = Callable[[Program, int, int], Trial]
"""Makes the trial of a program with a seed; another number disturbs it at other moments."""


def main(arguments: list[str]) -> int:
    """Try programs. Returns how many failed, at most 100."""
    given = _parser().parse_args(arguments)
    os.environ.setdefault("RH_AGENTS_CHECK", "keys")  # as in all other tests: see tests/conftest.py
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped
    with contextlib.ExitStack() as stack:
        folder = Path(
            given.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="rh-random-", dir=_memory()))
        )
        store = given.store
        if given.kind == "postgresql" and store is None:
            store = stack.enter_context(_postgresql())
        return min(100, _try_all(given, folder, store))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.random_programs", description=__doc__)
    parser.add_argument("kind", choices=["virtual", "sqlite", "postgresql"], help="where, and how, programs are tried")
    parser.add_argument("--seed-from", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many")
    parser.add_argument("--size", type=int, default=10, help="about how many functions a program calls")
    parser.add_argument("--store", help="the URL of a PostgreSQL database; by default a server is started")
    parser.add_argument("--folder", help="where ledgers and databases are")
    parser.add_argument("--shrink", type=float, default=30.0, help="seconds to look for a smaller program that fails")
    return parser


def _try_all(given: argparse.Namespace, folder: Path, store: str | None) -> int:
    begin = time.monotonic()
    failed = crashes = 0
    for seed in range(given.seed_from, given.seed_from + given.count):
        make = _maker(given.kind, folder, store, seed)
        program = draw_any_program(seed, given.size)
        trial = make(program, seed, 0)
        found = trial.findings()
        crashes += getattr(trial, "crashes", 0)
        is_last = seed == given.seed_from + given.count - 1
        if (
            isinstance(trial, RealTrial)
            and trial.is_shared
            and (is_last or seed % _IN_ONE_SCHEMA == _IN_ONE_SCHEMA - 1)
        ):
            found += trial.check()
        if found:
            failed += 1
            _tell(given, seed, found, program, make)
        done = seed - given.seed_from + 1
        if is_last or done % 100 == 0:
            took = f"{time.monotonic() - begin:.0f} s, {crashes} processes died"
            print(f"{done} programs up to seed {seed}: {failed} failed, {took}", flush=True)
    return failed


def _maker(kind: str, folder: Path, store: str | None, seed: int) -> Make:
    def make(program: Program, seed: int, number: int) -> Trial:
        chance = random.Random(f"moments {seed}" + f" {number}" * (number > 0))
        if kind == "virtual":
            moments: list[Moment] = draw_moments(chance)
            return VirtualTrial(program, moments, seed)
        url = None if store is None else f"{store}?schema=random_{seed // _IN_ONE_SCHEMA}_{os.getpid()}"
        real_moments: list[RealMoment] = draw_real_moments(chance)
        return RealTrial(program, real_moments, seed, folder / f"{seed}-{number}", url)

    return make


def _tell(given: argparse.Namespace, seed: int, found: list[str], program: Program, make: Make) -> None:
    print(f"\nseed {seed} fails: python -m tests.random_programs {given.kind} --seed-from {seed} --size {given.size}")
    for line in found[:8]:
        print(f"  {line[:1500]}")
    kinds = {kind_of(line) for line in found}

    def fails(smaller: Program) -> bool:
        return any(kinds & {kind_of(line) for line in make(smaller, seed, number).findings()} for number in range(6))

    if given.shrink:
        program = shrink(program, fails, given.shrink)
    print(f"  {source_of(program, '  ')}", flush=True)


def _memory() -> str | None:
    """Where files live in memory, if there is such a place: processes that are killed need no disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextlib.contextmanager
def _postgresql() -> Iterator[str]:
    binaries = find_binaries()
    assert binaries is not None, "PostgreSQL is not installed (Debian: apt install postgresql)"
    with tempfile.TemporaryDirectory(prefix="rh-postgresql-") as folder:
        server = PostgresqlServer(binaries, Path(folder))
        server.create()
        try:
            yield server.url()
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
