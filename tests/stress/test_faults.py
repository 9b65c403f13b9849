"""Disks that are full, databases that are locked: a clear error or a wait, and nothing that is not recorded."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import apsw

from tests.stress.children import Child, Children
from tests.stress.disks import SmallDisk
from tests.stress.endings import Ending
from tests.stress.sizes import rounds
from tests.stress.trial import Trial, Undisturbed
from tests.stress.work import SMALL, TINY

SEED = 20267


@rounds(short=3, full=60)
def test_when_the_disk_is_full_the_run_stops_and_goes_on_when_there_is_room(
    rounds: int, children: Children, tmp_path: Path
) -> None:
    plan = {**SMALL, "large": 10, "text": 2_000}
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", plan)
    chance = random.Random(SEED)
    stopped = 0
    for number in range(rounds):
        with SmallDisk(tmp_path / f"disk{number}", kilobytes=chance.randint(4, 350)) as disk:
            trial = Trial(children, tmp_path / f"{number}", plan, f"sqlite:///{disk.folder}/runs.db")
            ending = trial.start().expect(Ending.WELL, Ending.STORE_ERROR)
            if ending is Ending.STORE_ERROR:
                trial.crashes += 1
                stopped += 1
                error = trial.last_error()
                assert str(disk.folder) in error, error
                assert "full" in error or "No space left" in error, error
            disk.make_room(kilobytes=64_000)
            trial.live()
            assert trial.findings(undisturbed) == [], f"round {number} of seed {SEED}"
        shutil.rmtree(trial.folder)
    assert stopped > rounds // 2


def lock(other: apsw.Connection, child: Child) -> None:
    """Lock the database for a process that is paused, and that may just hold the lock itself."""
    while True:
        try:
            other.execute("BEGIN EXCLUSIVE")
            return
        except apsw.BusyError:
            child.signal(signal.SIGCONT)
            time.sleep(0.003)
            child.signal(signal.SIGSTOP)


def test_a_run_waits_for_another_process_that_locks_the_database_for_a_moment(
    children: Children, tmp_path: Path
) -> None:
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", SMALL)
    trial = Trial(children, tmp_path / "trial", SMALL)
    child = trial.start(last_line=30, last_signal=signal.SIGSTOP)
    child.wait_for_state("T")
    other = apsw.Connection(str(trial.database))
    lock(other, child)
    child.signal(signal.SIGCONT)
    assert child.ends_within(0.5) is None
    other.execute("COMMIT")
    other.close()
    child.expect(Ending.WELL)
    assert trial.findings(undisturbed) == []


def test_a_database_that_stays_locked_is_a_clear_error(children: Children, tmp_path: Path) -> None:
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", TINY)
    trial = Trial(children, tmp_path / "trial", TINY)
    child = trial.start(last_line=4, last_signal=signal.SIGSTOP, settings={"busy_timeout": 0.3})
    child.wait_for_state("T")
    other = apsw.Connection(str(trial.database))
    lock(other, child)
    child.signal(signal.SIGCONT)
    child.expect(Ending.STORE_ERROR)
    assert "lock" in trial.last_error()
    assert str(trial.database) in trial.last_error()
    trial.start(settings={"busy_timeout": 0.3}).expect(Ending.STORE_ERROR)
    other.execute("COMMIT")
    other.close()
    trial.crashes += 1
    trial.live()
    assert trial.findings(undisturbed) == []
