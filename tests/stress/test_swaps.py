"""No call ever gets the result of another one, whatever the order in which they ended, and whatever came between."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from tests.stress.children import Children
from tests.stress.ledger import BEGUN, read_lines
from tests.stress.sizes import ALL, rounds
from tests.stress.trial import Moment, Trial, Undisturbed
from tests.stress.work import Plan

SEED = 20264
CHAINS: Plan = {"names": ["A", "B"], "width": 2}


@rounds(short=4, full=ALL)
def test_two_chains_side_by_side_get_their_own_results_after_a_crash_at_any_point(
    rounds: int, children: Children, tmp_path: Path
) -> None:
    undisturbed = Undisturbed.measure(children, tmp_path / "undisturbed", CHAINS, workflow="chains")
    moments = [Moment(line=line) for line in range(1, undisturbed.lines + 1)]
    moments += [Moment(acknowledgement=line) for line in range(1, undisturbed.acknowledgements + 1)]
    if rounds < len(moments):
        moments = random.Random(SEED).sample(moments, rounds)
    for number, moment in enumerate(moments):
        trial = Trial(children, tmp_path / f"{number}", CHAINS, workflow="chains")
        trial.live_until(moment)
        trial.live()
        assert trial.findings(undisturbed) == [], moment
        assert [[link["call"] for link in chain["links"]] for chain in trial.result()] == [
            ["link:A1", "link:A2"],
            ["link:B1", "link:B2"],
        ]
        assert trial.crashes == 1, moment


@rounds(short=4, full=200)
def test_when_items_are_inserted_removed_and_reordered_after_a_crash_only_new_ones_run(
    rounds: int, children: Children, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    options: dict[str, Any] = {"reuse": True}
    for number in range(rounds):
        before = [f"{name}" for name in chance.sample(range(30), chance.randint(5, 20))]
        after = edited(before, chance)
        trial = Trial(children, tmp_path / f"{number}", {"names": before, "width": 3}, "", "items", options)
        trial.live_until(Moment(acknowledgement=chance.randint(1, len(before))))
        given, _ = read_lines(trial.folder / "acknowledgements")
        called_before = len(read_lines(trial.folder / "ledger")[0])

        trial.plan = {"names": after, "width": 3}
        trial.live()
        assert [each["call"] for each in trial.result()] == [f"item:{name}" for name in after]
        called = {line.call for line in read_lines(trial.folder / "ledger")[0][called_before:] if line.kind == BEGUN}
        assert not called & {line.call for line in given}, f"round {number} of seed {SEED}"
        assert called <= {f"item:{name}" for name in after}
        new = {f"item:{name}" for name in after if name not in before}
        assert len(called - new) <= len(before) - len(given)
        shutil.rmtree(trial.folder)


def edited(names: list[str], chance: random.Random) -> list[str]:
    """Some removed, some inserted, and all in another order."""
    left = [name for name in names if chance.random() > 0.25]
    names = left + [f"new{number}" for number in range(chance.randint(1, 4))]
    chance.shuffle(names)
    return names
