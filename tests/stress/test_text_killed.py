"""Text of calls under way: whoever is killed, none is left of a call that has an outcome, nor of an earlier owner."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.services.postgresql import PostgresqlServer
from tests.stress import databases
from tests.stress.children import Children
from tests.stress.endings import Ending
from tests.stress.sizes import rounds
from tests.stress.trial import Trial, Undisturbed
from tests.stress.work import Plan

SEED = 20271
LETTERS: Plan = {"letters": 60, "width": 6, "words": 20, "slow": 15}
Count = Callable[[], tuple[int, int]]


@rounds(slow=6, full=60)
def test_no_text_is_left_behind_in_a_file(rounds: int, children: Children, tmp_path: Path) -> None:
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", LETTERS, workflow="letters")
    chance = random.Random(SEED)
    for number in range(rounds):
        trial = Trial(children, tmp_path / f"{number}", LETTERS, workflow="letters")
        kill_while_it_streams(trial, chance, partial(databases.text_in_sqlite, str(trial.database)))
        assert trial.findings(undisturbed) == [], f"round {number} of seed {SEED}"
        shutil.rmtree(trial.folder)


@rounds(short=1, slow=8, full=60)
def test_no_text_is_left_behind_in_postgresql(
    rounds: int, postgresql_server: PostgresqlServer, children: Children, tmp_path: Path
) -> None:
    psycopg = pytest.importorskip("psycopg")
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", LETTERS, workflow="letters")
    chance = random.Random(SEED)
    for number in range(rounds):
        schema = f"letters{number}"
        trial = Trial(children, tmp_path / schema, LETTERS, postgresql_server.url(schema=schema), "letters")

        def count(schema: str = schema) -> tuple[int, int]:
            options = f"-c search_path={schema}"
            try:
                with psycopg.connect(postgresql_server.url(), options=options) as connection:
                    return databases.text_in_postgresql(connection)
            except psycopg.errors.UndefinedTable:
                return 0, 0

        kill_while_it_streams(trial, chance, count, postgresql_server.restart if number % 2 else None)
        assert trial.findings(undisturbed) == [], f"round {number} of seed {SEED}"
        postgresql_server.execute(f"DROP SCHEMA {schema} CASCADE")


def kill_while_it_streams(
    trial: Trial, chance: random.Random, count: Count, restart: Callable[[], None] | None = None
) -> None:
    """Kill the owner, or the server, while there is text; then execute the run to its end."""
    child = trial.start(is_looked_at=True)
    see_text(count)
    time.sleep(chance.uniform(0, 0.3))
    if restart is not None:
        restart()
    else:
        child.signal(signal.SIGKILL)
    trial.crashes += child.expect(Ending.WELL, Ending.KILLED, Ending.STORE_ERROR) is not Ending.WELL
    _, of_ended = count()
    assert of_ended == 0, "the text of a call goes with its outcome"
    next_owner = trial.start(is_looked_at=True)
    while next_owner.ends_within(0.02) is None:
        assert count()[1] == 0
    next_owner.expect(Ending.WELL)
    assert count() == (0, 0)


def see_text(count: Count) -> None:
    deadline = time.monotonic() + 30
    while count()[0] == 0:
        assert time.monotonic() < deadline, "no text is written"
        time.sleep(0.01)
