"""Power cuts: whatever the program was given is on the disk, large results too.

The database lives on a file system of its own that is shut down without writing anything any more, while the ledger and
the acknowledgements are elsewhere. That this loses what is not synced is shown by a control that syncs less.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.stress.children import Children
from tests.stress.disks import PowerDisk
from tests.stress.endings import Ending
from tests.stress.sizes import rounds
from tests.stress.trial import SMALL_LOG, Moment, Trial, Undisturbed
from tests.stress.work import FULL, SMALL, Plan

SEED = 20262


@rounds(short=4, full=200)
def test_after_a_power_cut_every_acknowledged_outcome_is_there(rounds: int, children: Children, tmp_path: Path) -> None:
    plan = {**(SMALL if rounds < 100 else FULL), "large": 10}
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", plan)
    chance = random.Random(SEED)
    crashes = 0
    with PowerDisk(tmp_path / "disk") as disk:
        for number in range(rounds):
            trial = make_trial(children, tmp_path / f"{number}", plan, disk)
            trial.settings = chance.choice([{}, SMALL_LOG])
            for _ in range(chance.choice([1, 1, 2])):  # the second time it is cut while it recovers
                live_until_power_cut(trial, Moment.draw(chance, undisturbed), disk)
            trial.live()
            assert trial.findings(undisturbed) == [], f"round {number} of seed {SEED}"
            crashes += trial.crashes
            clear(trial, disk)
    assert crashes >= rounds // 2, "most moments came too late"


@rounds(short=3, full=60)
def test_after_a_power_cut_every_large_result_is_there_that_the_database_refers_to(
    rounds: int, children: Children, tmp_path: Path
) -> None:
    """They are on another disk than the database: no sync of the database's files helps them."""
    plan = {**SMALL, "large": 3}
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", plan)
    chance = random.Random(SEED)
    with PowerDisk(tmp_path / "disk") as disk:
        for number in range(rounds):
            home = disk.folder / f"{number}"
            trial = Trial(children, tmp_path / f"{number}", plan, settings={"artifacts": str(home)})
            live_until_power_cut(trial, Moment.draw(chance, undisturbed), disk)
            trial.live()
            assert trial.findings(undisturbed) == [], f"round {number} of seed {SEED}"
            clear(trial, disk)


@rounds(short=6, full=40)
def test_control_a_store_that_syncs_less_is_caught_losing_what_it_acknowledged(
    rounds: int, children: Children, tmp_path: Path
) -> None:
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", SMALL)
    chance = random.Random(SEED)
    with PowerDisk(tmp_path / "disk") as disk:
        for number in range(rounds):
            trial = make_trial(children, tmp_path / f"{number}", SMALL, disk)
            live_until_power_cut(trial, Moment.draw(chance, undisturbed), disk, syncs_less=True)
            trial.live()
            if any(finding.startswith("paid twice") for finding in trial.findings(undisturbed)):
                return
            clear(trial, disk)
    pytest.fail(f"{rounds} power cuts lost nothing even without syncing: the other test proves nothing here")


def make_trial(children: Children, folder: Path, plan: Plan, disk: PowerDisk) -> Trial:
    """A run whose store is on the disk, and whose ledger is not."""
    home = disk.folder / folder.name
    return Trial(children, folder, plan, store=f"sqlite:///{home}/runs.db")


def live_until_power_cut(trial: Trial, moment: Moment, disk: PowerDisk, **more: Any) -> None:
    """Execute the run until the power is cut; what the process does after that is cut off as well, a moment later."""
    child = trial.start(last_line=moment.line, last_acknowledgement=moment.acknowledgement, **more)
    if moment.seconds is not None:
        time.sleep(moment.seconds)
    else:
        child.expect(Ending.WELL, Ending.KILLED)
    had_ended_well = child.ends_within(0) == Ending.WELL
    trial.power_cuts[child.process] = time.monotonic_ns()
    disk.cut_power()
    child.ends_within(0.02)
    child.signal(signal.SIGKILL)
    child.expect(Ending.WELL, Ending.KILLED, Ending.STORE_ERROR, Ending.BUS_ERROR)
    trial.crashes += not had_ended_well
    disk.restore_power()


def clear(trial: Trial, disk: PowerDisk) -> None:
    """Make room for the next one."""
    shutil.rmtree(trial.folder)
    shutil.rmtree(disk.folder / trial.folder.name)
