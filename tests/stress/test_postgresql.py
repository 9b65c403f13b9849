"""A run recorded in PostgreSQL: its process dies, or the server does."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from tests.services.lossy_proxy import LossyProxy
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


@rounds(short=1, slow=20, full=100)
def test_when_the_server_dies_or_another_one_takes_over_the_run_goes_on_and_no_call_is_made_twice(
    rounds: int, postgresql_server: PostgresqlServer, children: Children, tmp_path: Path
) -> None:
    """Every other time the server crashes and is back at once, or its data come up at another port."""
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", PLAN)
    chance = random.Random(SEED)
    home = postgresql_server.port
    with LossyProxy(home) as proxy:
        try:
            for number in range(rounds):
                folder = tmp_path / f"restarted{number}"
                url = postgresql_server.url(schema=folder.name).replace(
                    f":{postgresql_server.port}/", f":{proxy.port}/"
                )
                trial = Trial(children, folder, PLAN, url)
                child = trial.start()
                trial.wait_for_line(f"page:{chance.randrange(PLAN['pages'] // 2)}")
                time.sleep(chance.uniform(0, 0.02))
                if number % 2:
                    postgresql_server.restart("immediate")
                else:
                    postgresql_server.move()
                    proxy.lead_to(postgresql_server.port)
                child.expect(Ending.WELL)
                expect_nothing_wrong(trial, undisturbed, postgresql_server, f"round {number} of seed {SEED}")
        finally:
            postgresql_server.move(home)


@rounds(short=1, slow=5, full=30)
def test_when_the_server_is_away_for_longer_than_the_lease_the_run_stops_and_goes_on_when_it_is_there_again(
    rounds: int, postgresql_server: PostgresqlServer, children: Children, tmp_path: Path
) -> None:
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", PLAN)
    chance = random.Random(SEED)
    for number in range(rounds):
        trial = make_trial(children, postgresql_server, tmp_path / f"away{number}")
        trial.options = {**trial.options, "lease": 0.5}
        child = trial.start()
        trial.wait_for_line(f"page:{chance.randrange(PLAN['pages'] // 2)}")
        postgresql_server.stop("immediate")
        child.expect(Ending.STORE_ERROR)
        trial.crashes += 1
        postgresql_server.start()
        trial.live()
        expect_nothing_wrong(trial, undisturbed, postgresql_server, f"round {number} of seed {SEED}")


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
