"""kill -9 at random moments: nothing is lost, nothing is paid twice, and what runs again is only what was in flight."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.stress.children import Children
from tests.stress.sizes import rounds
from tests.stress.trial import SMALL_LOG, Moment, Trial, Undisturbed
from tests.stress.work import FULL, SMALL

SEED = 20261


@rounds(short=8, full=1000)
def test_a_run_that_is_killed_at_any_moment_goes_on_where_it_was(
    rounds: int, children: Children, tmp_path: Path
) -> None:
    plan = SMALL if rounds < 100 else FULL
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", plan)
    chance = random.Random(SEED)
    crashes = 0
    for number in range(rounds):
        trial = Trial(children, tmp_path / f"{number}", plan, settings=chance.choice([{}, SMALL_LOG]))
        moments = [Moment.draw(chance, undisturbed) for _ in range(chance.choice([1, 1, 2, 3]))]
        for moment in moments:  # from the second one on it dies while it recovers
            trial.live_until(moment)
        trial.live()
        assert trial.findings(undisturbed) == [], (f"round {number} of seed {SEED}", moments)
        crashes += trial.crashes
        shutil.rmtree(trial.folder)
    assert crashes >= rounds // 2, "most moments came too late"
