"""A run recorded in PostgreSQL: its process dies, or the server does."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from tests.services.postgresql import PostgresqlServer
from tests.stress import databases
from tests.stress.children import Children
from tests.stress.endings import Ending
from tests.stress.sizes import rounds
from tests.stress.trial import Moment, Trial, Undisturbed
from tests.stress.work import SMALL, Plan

SEED = 20268
PLAN: Plan = {**SMALL, "large": 10, "slow": 40}


@rounds(short=2, full=100)
def test_a_run_in_postgresql_that_is_killed_at_any_moment_goes_on_where_it_was(
    rounds: int, postgresql_server: PostgresqlServer, children: Children, tmp_path: Path
) -> None:
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", PLAN)
    chance = random.Random(SEED)
    for number in range(rounds):
        trial = make_trial(children, postgresql_server, tmp_path / f"killed{number}")
        for _ in range(chance.choice([1, 2])):
            trial.live_until(Moment.draw(chance, undisturbed))
        trial.live()
        expect_nothing_wrong(trial, undisturbed, postgresql_server, f"round {number} of seed {SEED}")


@rounds(short=1, full=30)
def test_when_the_server_dies_the_run_stops_and_goes_on_when_it_is_there_again(
    rounds: int, postgresql_server: PostgresqlServer, children: Children, tmp_path: Path
) -> None:
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", PLAN)
    chance = random.Random(SEED)
    stopped = 0
    for number in range(rounds):
        trial = make_trial(children, postgresql_server, tmp_path / f"restarted{number}")
        child = trial.start()
        trial.wait_for_line(f"page:{chance.randrange(PLAN['pages'] // 2)}")
        time.sleep(chance.uniform(0, 0.02))
        postgresql_server.restart("immediate")
        ending = child.expect(Ending.WELL, Ending.STORE_ERROR)
        stopped += ending is Ending.STORE_ERROR
        trial.crashes += ending is Ending.STORE_ERROR
        trial.live()
        expect_nothing_wrong(trial, undisturbed, postgresql_server, f"round {number} of seed {SEED}")
    assert stopped > rounds // 3, "the server always died too late"


def make_trial(children: Children, server: PostgresqlServer, folder: Path) -> Trial:
    """A run in a schema of its own."""
    return Trial(children, folder, PLAN, server.url(schema=folder.name))


def expect_nothing_wrong(trial: Trial, undisturbed: Undisturbed, server: PostgresqlServer, where: str) -> None:
    """Judge a run, and throw it away."""
    psycopg = pytest.importorskip("psycopg")
    assert trial.findings(undisturbed) == [], where
    schema = trial.folder.name
    with psycopg.connect(server.url(), options=f"-c search_path={schema}") as connection:
        assert databases.findings(databases.read_postgresql(connection)) == [], where
    server.execute(f"DROP SCHEMA {schema} CASCADE")
    shutil.rmtree(trial.folder)
