"""A run is steered, and who executes it, who asks, or the database server is killed in the middle of that."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.services.postgresql import PostgresqlServer
from tests.stress.children import Child, Children
from tests.stress.endings import Ending
from tests.stress.sizes import rounds
from tests.stress.steering import Ask, Desk, plan_of

SEED = 20270
BAD = 2, 11, 23
WAITS = 5
VERBS = "pause", "unpause", "set", "cancel", "cancel all", "requeue", "interrupt"
VICTIMS = "owner", "owner that has applied it", "asker", "both"
MOST = 0.8
"""Seconds after which a request is surely on its way to its owner, which looks twice a second."""


@dataclass
class Case:
    """One run: what is asked of it, and who is killed then."""

    desk: Desk
    verb: str
    victim: str
    chance: random.Random
    restart: Callable[[], None] | None = None
    """Kills the server, and starts it again."""

    def arguments(self) -> tuple[str, list[Any]]:
        """The verb, and what it is asked with."""
        item = f"job:{self.chance.randrange(self.desk.plan['jobs'])}"
        asked: dict[str, tuple[str, list[Any]]] = {
            "set": ("set", [{"max-workers": 1}]),
            "cancel": ("cancel", [[item, f"job:{self.desk.plan['jobs'] - 1}"]]),
            "cancel all": ("cancel", []),
            "requeue": ("requeue", [[f"job:{BAD[0]}"]]),
        }
        return asked.get(self.verb, (self.verb, []))

    def play(self) -> None:
        """Execute the run, ask, kill, and execute it to its end."""
        desk, is_deadly = self.desk, self.victim == "owner that has applied it"
        owner = desk.start(dies_when_steered=is_deadly and self.verb != "unpause", is_interruptible=True)
        desk.wait_for_lines(self.chance.randint(1, desk.plan["jobs"]))
        if self.verb == "unpause":
            assert desk.asked("pause").is_applied
            if is_deadly:
                desk.kill(owner)
                owner = desk.start(dies_when_steered=True)
        if self.verb == "requeue":
            desk.wait_for_line(f"job:{BAD[0] + desk.plan['width']}")  # then that one has failed
            Path(desk.plan["mended"]).touch()
        asked = self._asked_and_killed(owner)
        if self.verb == "cancel all":  # a run that is cancelled is not started again, which would be its next epoch
            assert asked is not None
            desk.answered(asked)
            if desk.look()["status"] == "started":
                desk.ended(desk.start())
            return
        second = desk.start()
        if asked is not None:
            desk.answered(asked)
        self._go_on_if_paused()
        desk.ended(second)
        desk.ended(desk.start())  # what is for the next start

    def _asked_and_killed(self, owner: Child) -> Ask | None:
        """When this comes back, the process that executed the run has ended."""
        desk = self.desk
        if self.verb == "interrupt":
            owner.signal(signal.SIGINT)
            time.sleep(self.chance.uniform(0, 0.15))
            self._kill_server()
            desk.kill(owner)
            self._let_it_end()
            return None
        verb, arguments = self.arguments()
        asked = desk.ask(verb, *arguments, patience=1.0 if self.verb == "cancel all" else 10.0)
        if self.victim != "owner that has applied it":
            time.sleep(self.chance.uniform(0, MOST))
            self._kill_server()
            if self.victim in ("asker", "both"):
                asked.child.signal(signal.SIGKILL)
            if self.victim in ("owner", "both"):
                owner.signal(signal.SIGKILL)
            else:
                desk.answered(asked)
                self._go_on_if_paused()
        else:
            owner.ends_within(5.0)  # or it was not asked for anything
        self._let_it_end()
        desk.ended(owner)
        return asked

    def _let_it_end(self) -> None:
        Path(self.desk.plan["gate"]).touch()

    def _kill_server(self) -> None:
        if self.restart is not None:
            self.restart()

    def _go_on_if_paused(self) -> None:
        """It may be paused, and begin nothing."""
        if self.verb in ("pause", "unpause"):
            time.sleep(self.chance.uniform(0.1, 0.3))
            self.desk.asked("unpause")

    def findings(self) -> list[str]:
        """What is wrong."""
        found = self.desk.judged()
        if self.verb != "cancel all":
            found += self._wrong_results()
        return found

    def _wrong_results(self) -> list[str]:
        cancelled = {
            item
            for control in self.desk.look()["controls"]
            if control["verb"] == "cancel" and "refused" not in control["answer"]
            for item in control["arguments"]["items"]
        }
        found = []
        requeued = any("keys" in control["arguments"] for control in self.desk.look()["controls"])
        for number, result in enumerate(self.desk.result()):
            name = f"job:{number}"
            is_bad = number in BAD and not (requeued and number == BAD[0])
            may_be_cancelled = name in cancelled
            if "cancelled" in result:
                if not may_be_cancelled:
                    found.append(f"{name} is cancelled, and nobody asked for that")
            elif result["call"] != name:
                found.append(f"{name} has the result of {result['call']}")
            elif is_bad is not result.get("failed", False) and self.verb != "requeue":
                found.append(f"{name} has failed: {result.get('failed', False)}")
        return found


def play(desk: Desk, verb: str, victim: str, chance: random.Random, **more: Any) -> Desk:
    """One round; the run is thrown away if nothing is wrong with it."""
    case = Case(desk, verb, victim, chance, **more)
    case.play()
    assert case.findings() == [], f"{verb}, {victim}, in {desk.folder}"
    return desk


def cases(rounds: int, chance: random.Random) -> list[tuple[str, str]]:
    """Which verb and which victim, so that few rounds see all verbs, and many see all pairs."""
    every = [(verb, victim) for verb in VERBS for victim in VICTIMS]
    chance.shuffle(every)
    first = [next(each for each in every if each[0] == verb) for verb in VERBS]
    rest = [each for each in every if each not in first]
    return [(first + rest)[number % len(every)] for number in range(rounds)]


@rounds(short=2, slow=28, full=400)
def test_what_is_asked_is_applied_once_whoever_is_killed_in_the_middle(
    rounds: int, children: Children, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    crashes = 0
    for number, (verb, victim) in enumerate(cases(rounds, chance)):
        folder = tmp_path / f"{number}"
        desk = play(Desk(children, folder, plan_of(folder, bad=BAD, waits=WAITS)), verb, victim, chance)
        crashes += desk.crashes
        shutil.rmtree(folder)
    assert crashes >= rounds // 3, "most kills came too late"


@rounds(short=1, slow=10, full=100)
def test_the_same_in_postgresql(
    rounds: int, postgresql_server: PostgresqlServer, children: Children, tmp_path: Path
) -> None:
    chance = random.Random(SEED + 1)
    for number, (verb, victim) in enumerate(cases(rounds, chance)):
        folder = tmp_path / f"steered{number}"
        desk = Desk(children, folder, plan_of(folder, bad=BAD, waits=WAITS), postgresql_server.url(schema=folder.name))
        play(desk, verb, victim, chance)
        postgresql_server.execute(f"DROP SCHEMA {folder.name} CASCADE")


@rounds(slow=7, full=40)
def test_the_same_when_the_server_is_killed(
    rounds: int, postgresql_server: PostgresqlServer, children: Children, tmp_path: Path
) -> None:
    chance = random.Random(SEED + 2)
    for number, (verb, _) in enumerate(cases(rounds, chance)):
        folder = tmp_path / f"cut{number}"
        desk = Desk(children, folder, plan_of(folder, bad=BAD, waits=WAITS), postgresql_server.url(schema=folder.name))
        play(desk, verb, "server", chance, restart=postgresql_server.restart)
        postgresql_server.execute(f"DROP SCHEMA {folder.name} CASCADE")


# -- deleting and erasing ---------------------------------------------------------------------------------------------


@rounds(short=1, slow=10, full=200)
@pytest.mark.parametrize("verb", ["delete", "erase"])
def test_who_deletes_or_erases_a_run_is_killed_and_the_next_one_finishes_it(
    verb: str, rounds: int, children: Children, tmp_path: Path
) -> None:
    remove(verb, Desk(children, tmp_path / "runs", plan_of(tmp_path, jobs=100) | {"slow": 0}), rounds)


@rounds(slow=6, full=60)
@pytest.mark.parametrize("verb", ["delete", "erase"])
def test_the_same_of_runs_in_postgresql_while_the_server_is_killed_as_well(
    verb: str, rounds: int, postgresql_server: PostgresqlServer, children: Children, tmp_path: Path
) -> None:
    schema = f"removing_{verb}"
    plan = plan_of(tmp_path, jobs=100) | {"slow": 0}
    desk = Desk(children, tmp_path / "runs", plan, postgresql_server.url(schema=schema))
    remove(verb, desk, rounds, postgresql_server.restart)
    postgresql_server.execute(f"DROP SCHEMA {schema} CASCADE")


def remove(verb: str, desk: Desk, rounds: int, restart: Callable[[], None] | None = None) -> None:
    """Make copies of a run, kill who removes them, and see to it that they are whole, or can be removed."""
    desk.live()
    whole = desk.look()
    assert len(whole["values"]) == whole["outcomes"] == 100
    chance, interrupted = random.Random(SEED + 3), 0
    begun = time.monotonic()
    desk.asked("fork", "first")
    desk.run_id = "first"
    desk.asked(verb)
    seconds = (time.monotonic() - begun) / 2
    for number in range(rounds):
        desk.run_id = "monday"
        desk.asked("fork", f"copy{number}")
        desk.run_id = f"copy{number}"
        asked = desk.ask(verb)
        time.sleep(chance.uniform(0, seconds))
        if restart is not None and number % 2:
            restart()
        else:
            asked.child.signal(signal.SIGKILL)
        interrupted += desk.answered(asked) is not Ending.WELL
        left = desk.look()
        if left["status"] is not None and left["erased"] is None:
            assert (left["values"], left["outcomes"]) == (whole["values"], whole["outcomes"])
        if left["status"] is not None:
            desk.asked(verb)
            left = desk.look()
        if verb == "delete":
            assert left["status"] is None
        else:
            assert (left["erased"], left["values"], left["outcomes"]) == (True, [], whole["outcomes"])
            desk.start().expect(Ending.STORE_ERROR)
            assert "were erased" in desk.last_error()
    desk.run_id = "monday"
    assert desk.look() == whole
    assert desk._what_the_store_finds() == []
    assert interrupted >= rounds // 3
