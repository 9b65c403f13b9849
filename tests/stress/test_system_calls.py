"""Every system call of a small run can be the last one, and every sync can fail."""

from __future__ import annotations

import itertools
import random
import shutil
from pathlib import Path

import pytest

from tests.stress.children import Children
from tests.stress.disks import PowerDisk
from tests.stress.endings import Ending
from tests.stress.sizes import ALL, rounds
from tests.stress.traced import CHANGES, count_calls, traced
from tests.stress.trial import SMALL_LOG, Moment, Trial, Undisturbed
from tests.stress.work import TINY

SEED = 20263
ENDINGS = (Ending.WELL, Ending.KILLED)


@pytest.mark.parametrize("recovers", [False, True], ids=["from the start", "while it recovers"])
@rounds(short=4, full=ALL)
def test_a_run_can_be_killed_at_every_system_call(
    rounds: int, recovers: bool, children: Children, tmp_path: Path
) -> None:
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", TINY)
    template = Trial(children, tmp_path / "template", TINY, settings=SMALL_LOG)
    if recovers:
        template.live_until(Moment(acknowledgement=3))
    number = itertools.count()

    def kill_at(call: str, when: int) -> bool:
        """Whether the run makes so many such calls. If it does it is killed as it makes this one."""
        trial = template.copy(tmp_path / f"{next(number)}")
        child = trial.start_held()
        with traced(child, "-o", "/dev/null", "-e", f"inject={call}:signal=SIGKILL:when={when}"):
            pass
        was_killed = child.expect(*ENDINGS) is Ending.KILLED
        trial.crashes += was_killed
        trial.live()
        assert trial.findings(undisturbed) == [], f"killed at {call} number {when}"
        shutil.rmtree(trial.folder)
        return was_killed

    counted = count_of_calls(template.copy(tmp_path / "counted"))
    assert sum(counted.values()) > 50, counted
    if rounds == ALL:  # their number may be another one the next time
        for call in counted:
            assert sum(1 for _ in itertools.takewhile(lambda when: kill_at(call, when), itertools.count(1))) > 0  # noqa: B023
    else:
        every = [(call, when) for call, count in counted.items() for when in range(1, count + 1)]
        killed = [kill_at(call, when) for call, when in random.Random(SEED).sample(every, rounds)]
        assert sum(killed) > rounds // 2


@rounds(short=4, full=ALL)
def test_when_a_sync_fails_the_run_stops_and_acknowledges_nothing_that_is_not_on_disk(
    rounds: int, children: Children, tmp_path: Path
) -> None:
    """A sync that strace lets fail has not been made, and the power cut after it shows what relied on it."""
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", TINY)
    counted = count_of_calls(Trial(children, tmp_path / "counted", TINY, settings=SMALL_LOG))
    every = [(call, when) for call in ("fsync", "fdatasync") for when in range(1, counted.get(call, 0) + 1)]
    chosen = every if rounds == ALL else random.Random(SEED).sample(every, rounds)
    crashes = 0
    with PowerDisk(tmp_path / "disk") as disk:
        for number, (call, when) in enumerate(chosen):
            trial = Trial(
                children, tmp_path / f"{number}", TINY, f"sqlite:///{disk.folder}/{number}/runs.db", settings=SMALL_LOG
            )
            child = trial.start_held()
            with traced(child, "-o", "/dev/null", "-e", f"inject={call}:error=EIO:when={when}"):
                pass
            trial.crashes += child.expect(Ending.WELL, Ending.STORE_ERROR) is Ending.STORE_ERROR
            disk.cut_power()
            disk.restore_power()
            trial.live()
            assert trial.findings(undisturbed) == [], f"{call} number {when} failed"
            crashes += trial.crashes
            shutil.rmtree(trial.folder)
    assert crashes >= len(chosen) // 2, "hardly any failure was noticed"


def count_of_calls(trial: Trial) -> dict[str, int]:
    """How many system calls of each kind a thread of this run makes."""
    child = trial.start_held()
    trace = trial.folder / "trace"
    with traced(child, "-o", trace, "-e", f"trace={','.join(f'?{call}' for call in CHANGES)}"):
        pass
    child.expect(Ending.WELL)
    return dict(count_calls(trace))
