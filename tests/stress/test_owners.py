"""One owner for a run: of two that begin at the same moment, and of two of which the first one was taken for dead."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

from tests.stress.children import PATIENCE, Child, Children
from tests.stress.endings import GO, Ending
from tests.stress.judge import is_agent
from tests.stress.ledger import BEGUN, read_lines
from tests.stress.sizes import rounds
from tests.stress.trial import RUN, Moment, Trial, Undisturbed
from tests.stress.work import SMALL, TINY, Plan

SEED = 20266
LEASE = 0.4
"""Seconds."""


@rounds(short=4, full=300)
def test_of_two_processes_that_resume_a_run_exactly_one_owns_it(
    rounds: int, children: Children, tmp_path: Path
) -> None:
    """The owner waits at a gate that opens when the other one has been refused."""
    gate = tmp_path / "gate"
    plan: Plan = {**TINY, "gate": str(gate)}
    gate.touch()
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", plan)
    gate.unlink()
    crashed = Trial(children, tmp_path / "crashed", plan)
    crashed.live_until(Moment(acknowledgement=2))
    new = Trial(children, tmp_path / "new", plan)
    for number in range(rounds):
        trial = (crashed, new)[number % 2].copy(tmp_path / f"{number}")
        racers = [trial.start_held() for _ in range(2)]
        children.signal(GO, *racers)

        loser = children.first_to_end(*racers)
        loser.expect(Ending.RUN_IS_LIVE)
        gate.touch()
        (winner,) = (racer for racer in racers if racer is not loser)
        winner.expect(Ending.WELL)
        gate.unlink()

        lines, _ = read_lines(trial.folder / "ledger")
        assert loser.process not in {line.process for line in lines}, f"race {number}: the refused one did work"
        assert trial.findings(undisturbed) == [], f"race {number}"
        shutil.rmtree(trial.folder)


def test_a_process_that_was_killed_and_that_nobody_has_reaped_yet_is_dead(children: Children, tmp_path: Path) -> None:
    """Its id is still there, as that of a zombie. The next owner need not wait for the lease."""
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", TINY)
    trial = Trial(children, tmp_path / "trial", TINY)
    dead = trial.start(unreaped=True, last_acknowledgement=2)
    dead.wait_for_state("Z")
    trial.crashes += 1
    begin = time.monotonic()
    trial.live()
    assert time.monotonic() - begin < 5, "it waited for the lease of a dead process"
    assert trial.findings(undisturbed) == []


@rounds(short=2, full=40)
def test_a_paused_owner_that_was_taken_over_cannot_write(rounds: int, children: Children, tmp_path: Path) -> None:
    """It is paused wherever it happens to be, and goes on when another process has finished the run."""
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", SMALL)
    chance = random.Random(SEED)
    for number in range(rounds):
        trial = Trial(children, tmp_path / f"{number}", SMALL, options={"retry_failed": False, "lease": LEASE})
        line = chance.randint(10, undisturbed.lines // 2)
        zombie = trial.start(last_line=line, last_signal=signal.SIGSTOP)
        zombie.wait_for_state("T")
        taken_over_at = take_over(trial, zombie)

        zombie.signal(signal.SIGCONT)
        zombie.expect(Ending.LEASE_LOST)
        trial.crashes += 2  # what was in flight when it was paused, and what it began before it knew
        found = [each for each in trial.findings(undisturbed) if f"by process {zombie.process}" not in each]
        assert found == [], f"round {number} of seed {SEED}"
        expect_nothing_new(trial, zombie, taken_over_at)
        shutil.rmtree(trial.folder)


def take_over(trial: Trial, zombie: Child) -> int:
    """Execute the run to its end as soon as the lease has expired; returns when that was.

    Whoever is paused in the middle of a transaction keeps everybody from writing. It is let go on for a moment then.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline, "nobody can take the run over"
        ending = trial.start(settings={"busy_timeout": 0.2}).expect(Ending.WELL, Ending.RUN_IS_LIVE, Ending.STORE_ERROR)
        if ending is Ending.WELL:
            lines, _ = read_lines(trial.folder / "ledger")
            return min((line.nanoseconds for line in lines if line.process != zombie.process), default=0)
        if ending is Ending.STORE_ERROR:
            zombie.signal(signal.SIGCONT)
            time.sleep(0.003)
            zombie.signal(signal.SIGSTOP)
        time.sleep(LEASE / 10)


def expect_nothing_new(trial: Trial, zombie: Child, taken_over_at: int) -> None:
    """The paused one began no more calls than it had room for until it knew, and got no outcome of any of them."""
    lines, _ = read_lines(trial.folder / "ledger")
    given, _ = read_lines(trial.folder / "acknowledgements")
    late = [line for line in lines if line.process == zombie.process and line.nanoseconds > taken_over_at]
    assert not {line.call for line in late} & {line.call for line in given if line.process == zombie.process}
    begun = [line.call for line in late if line.kind == BEGUN and not is_agent(line.call)]
    assert len(begun) <= trial.plan["width"]


def test_the_same_run_is_refused_while_its_owner_lives(children: Children, tmp_path: Path) -> None:
    """However long it takes: the owner renews its lease even when it has nothing to write."""
    gate = tmp_path / "gate"
    plan: Plan = {**TINY, "gate": str(gate)}
    trial = Trial(children, tmp_path / "trial", plan, options={"lease": LEASE})
    owner = trial.start()
    trial.wait_for_line("gate")
    until = time.monotonic() + 3 * LEASE
    while time.monotonic() < until:
        trial.start().expect(Ending.RUN_IS_LIVE)
    gate.touch()
    owner.expect(Ending.WELL)
    assert f"{owner.process}" in (trial.folder / "log").read_text(), f"the refusals of {RUN} name its owner"
