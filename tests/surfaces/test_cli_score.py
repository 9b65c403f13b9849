"""`rh-agents score`: scores over recorded outcomes, their means, and how two runs differ."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from rh_agents import ExecutionState, parallel, run, tool
from rh_agents.core.errors import RunStopped
from tests.surfaces.cli_kit import Folder, command, said

STORE = ("--store", "runs.db", "--progress", "none")
SCORERS = """
from program import note

def near(output: float, expected: float) -> float:
    note(f"near {output} {expected}")
    return 1 - abs(output - expected)

def small(output: float) -> bool:
    return output < 0.5

def odd(output: float, input: dict) -> float:
    if input["id"] == "aaa":
        raise ValueError("I will not judge this")
    return float("nan") if input["id"] == "bb" else "good" if input["id"] == "a" else 1
"""
ITEMS = [
    {"id": "a", "text": "a", "expected": 0.1, "user": "x"},
    {"id": "bb", "text": "bb", "expected": 0.4, "user": "x"},
    {"id": "bad", "text": "bad", "expected": 0.3, "user": "y"},
    {"id": "aaa", "text": "aaa", "expected": 0.2, "user": "y"},
]


def write(name: str, items: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(item) + "\n" for item in items))


@pytest.fixture
def scored(folder: Folder, capfd: pytest.CaptureFixture[str]) -> Folder:
    """A run `monday` with four items, of which `bad` failed; an input with one more; and scorers."""
    Path("scorers.py").write_text(SCORERS)
    sys.modules.pop("scorers", None)
    write("in.jsonl", ITEMS)
    folder.flag("broken")
    assert command("map", "program.py:rate", "in.jsonl", "--run-id", "monday", *STORE) == 1
    write("in.jsonl", [{"id": "new", "text": "new", "expected": 0.3, "user": "z"}, *ITEMS])
    capfd.readouterr()
    return folder


def numbers(capfd: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(capfd, "score", *words, *STORE, "--json", code=code)[0])
    return found


SCORES = [1.0, 1 - 0.2, 1 - 0.1]
"""Of a, bb and aaa: their results are a tenth of their lengths."""


def test_the_mean_is_of_recorded_outcomes_and_nothing_is_called_for_it(
    scored: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    before = scored.ledger
    found = numbers(capfd, "monday", "scorers.py:near")
    (its,) = found["runs"]
    assert its["mean"] == pytest.approx(statistics.mean(SCORES))
    assert its["stderr"] == pytest.approx(statistics.stdev(SCORES) / math.sqrt(3))
    called = scored.ledger - before
    assert sum(called.values()) == 3
    assert all(line.startswith("near ") for line in called)


def test_what_failed_or_is_missing_is_counted_and_named_and_counts_as_it_is_asked(
    scored: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    for failed in ("exclude", "zero"):
        for missing in ("exclude", "zero"):
            words = ("--failed", failed, "--missing", missing)
            (its,) = numbers(capfd, "monday", "scorers.py:near", *words)["runs"]
            counted = [*SCORES, *[0.0] * (failed == "zero"), *[0.0] * (missing == "zero")]
            assert (its["items"], its["count"]) == (5, len(counted))
            assert its["mean"] == pytest.approx(statistics.mean(counted))
            assert (its["failed"]["counted_as"], its["missing"]["counted_as"]) == (failed, missing)
            assert [each["id"] for each in its["failed"]["items"]] == ["bad"]
            assert [each["id"] for each in its["missing"]["items"]] == ["new"]
    out, _ = said(capfd, "score", "monday", "scorers.py:near", "--missing", "zero", *STORE)
    assert "3 of 5" in out
    assert "monday: 1 failed, excluded: bad\nmonday: 1 missing, counted as 0: new\n" in out


def test_what_is_no_longer_in_the_input_is_counted(scored: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    write("in.jsonl", ITEMS[1:])
    (its,) = numbers(capfd, "monday", "scorers.py:near")["runs"]
    assert (its["items"], its["gone"]) == (3, 1)
    assert (
        "monday: 1 recorded call of no item in in.jsonl" in said(capfd, "score", "monday", "scorers.py:near", *STORE)[0]
    )


def test_scores_are_recorded_and_made_again_only_by_another_scorer(
    scored: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    first = numbers(capfd, "monday", "scorers.py:near")
    before = scored.ledger
    assert numbers(capfd, "monday", "scorers.py:near") == first
    assert scored.ledger == before
    scored.flag("broken", is_set=False)
    assert command("resume", "monday", "--store", "runs.db") == 0  # `bad` and `new` have outcomes now
    capfd.readouterr()
    before = scored.ledger
    (its,) = numbers(capfd, "monday", "scorers.py:near")["runs"]
    assert (its["count"], sum((scored.ledger - before).values())) == (5, 2)
    # Of another length: Python compares the size of a file with that of its bytecode, and the time in seconds.
    Path("scorers.py").write_text(SCORERS.replace("1 - abs", "1 + 1 - abs"))
    sys.modules.pop("scorers", None)
    (other,) = numbers(capfd, "monday", "scorers.py:near")["runs"]
    assert other["mean"] == pytest.approx(its["mean"] + 1)
    assert other["scored_in"] != its["scored_in"]
    assert command("resume", its["scored_in"], "--store", "runs.db") == 0


def test_items_of_one_cluster_are_taken_together(scored: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    found = numbers(capfd, "monday", "scorers.py:near", "--cluster", "user")
    (its,) = found["runs"]
    mean = statistics.mean(SCORES)
    sums = [SCORES[0] - mean + SCORES[1] - mean, SCORES[2] - mean]
    assert its["stderr"] == pytest.approx(math.sqrt(2 * sum(each**2 for each in sums)) / 3)
    assert its["clusters"] == 2
    _, err = said(capfd, "score", "monday", "scorers.py:near", "--cluster", "usr", *STORE, code=2)
    assert "--cluster usr: item a has no such field" in err


def test_two_runs_are_compared_item_by_item_whatever_the_order_of_their_inputs(
    scored: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    write("other.jsonl", [ITEMS[3], ITEMS[1], ITEMS[0], ITEMS[0], {"id": "c", "text": "c", "expected": 0}])
    assert command("map", "program.py:rate", "other.jsonl", "--run-id", "tuesday", "--set", "bonus=0.2", *STORE) == 0
    capfd.readouterr()
    words = ("monday", "scorers.py:near", "--against", "tuesday")
    found = numbers(capfd, *words)
    with_bonus = [1 - 0.2, 1.0, 1 - 0.3]
    differences = [one - other for one, other in zip(SCORES, with_bonus, strict=True)]
    its = found["difference"]
    assert its["count"] == 3
    assert its["mean"] == pytest.approx(statistics.mean(differences))
    assert its["stderr"] == pytest.approx(statistics.stdev(differences) / math.sqrt(3))
    assert (its["only_in_run"], its["only_in_against"]) == ([], ["a", "c"])  # the second of two equal items is another
    out, _ = said(capfd, "score", *words, *STORE)
    assert "only in tuesday, and in no pair: a, c" in out
    found = numbers(capfd, *words, "--failed", "zero", "--missing", "zero")
    assert found["difference"]["only_in_run"] == ["new", "bad"]


def test_a_score_that_is_no_number_is_none_and_says_so(scored: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    (its,) = numbers(capfd, "monday", "scorers.py:odd", code=1)["runs"]
    reasons = {each["id"]: each["reason"] for each in its["unscored"]["items"]}
    is_no_score = "a score is a finite number, or True or False"
    assert reasons == {
        "a": f"the scorer gave 'good': {is_no_score}",
        "bb": f"the scorer gave nan: {is_no_score}",
        "aaa": "ValueError: I will not judge this",
    }
    assert (its["count"], its["mean"], its["stderr"]) == (0, None, None)
    write("in.jsonl", [{"text": "a"}])
    (its,) = numbers(capfd, "monday", "scorers.py:near", code=1)["runs"]
    assert its["unscored"]["items"] == [{"id": "1", "reason": "expected: Field required"}]


def test_results_of_an_earlier_version_of_the_actor_are_found(
    scored: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    program = Path("program.py").read_text()
    Path("program.py").write_text(program.replace("@tool\nasync def rate", '@tool(version="2")\nasync def rate'))
    sys.modules.pop("program", None)
    (its,) = numbers(capfd, "monday", "scorers.py:small")["runs"]
    assert (its["count"], its["gone"], its["mean"]) == (3, 0, 1.0)


def test_items_that_came_from_a_pipe_are_read_from_a_file_that_is_named(
    scored: Folder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(as_if_piped())
    _, err = said(capfd, "score", "piped", "scorers.py:near", *STORE, code=2)
    assert "read its items from standard input, which is gone: name a file that has them with --items" in err
    (its,) = numbers(capfd, "piped", "scorers.py:near", "--items", "in.jsonl")["runs"]
    assert len(its["missing"]["items"]) == 5


async def as_if_piped() -> None:
    facts = {"command": '["map", "program.py:rate", "-"]', "folder": str(Path.cwd()), "kind": "map", "target": "x:y"}
    async with ExecutionState(store="runs.db", run_id="piped", facts=facts):
        pass


# -- runs of Python code ----------------------------------------------------------------------------------------------


@tool
async def double(number: int, text: str = "") -> int:
    if number < 0:
        raise ValueError("too small")
    return 2 * number


async def flow(inputs: list[int], text: str = "") -> None:
    async with parallel(name="doubles") as p:
        for number in inputs:
            p.add(double(number, text))
        await p.gather()


DOUBLED = "def doubled(output: int, number: int) -> bool:\n    return output == 2 * number\n"


def test_members_of_a_group_of_python_code_are_items(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    Path("program.py").write_text(DOUBLED)

    async def main() -> None:
        await run(flow, [1, 2, -3], store="runs.db", run_id="monday")

    asyncio.run(main())
    (its,) = numbers(capfd, "monday", "program.py:doubled")["runs"]
    assert (its["items"], its["count"], its["mean"]) == (3, 2, 1.0)
    assert its["failed"]["items"] == [{"id": "doubles[2]::double", "reason": "ValueError: too small"}]
    _, err = said(capfd, "score", "monday", "program.py:doubled", "--group", "dubles", *STORE, code=2)
    assert "run 'monday' has no such group; there are doubles; did you mean 'doubles'?" in err


def test_an_input_that_is_not_recorded_in_full_is_refused(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    Path("program.py").write_text(DOUBLED)

    async def main() -> None:
        for name in ("brief", "full"):
            await run(flow, [1], "x" * 1000, store="runs.db", run_id=name, record_inputs=name)

    asyncio.run(main())
    _, err = said(capfd, "score", "brief", "program.py:doubled", *STORE, code=2)
    assert "doubles[0]::double was called with is not recorded in full" in err
    assert numbers(capfd, "full", "program.py:doubled")["runs"][0]["mean"] == 1.0


def test_members_without_an_outcome_are_missing(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    Path("program.py").write_text(DOUBLED)

    @tool
    async def slow(number: int) -> int:
        if number == 2:
            await asyncio.Event().wait()
        return 2 * number

    async def main() -> None:
        with pytest.raises(RunStopped):
            async with ExecutionState(store="runs.db", run_id="monday") as state, parallel(2, name="slow") as p:
                p.map(slow, [1, 2, 3])
                async for _ in p.stream():
                    state.request_interrupt("that will do", grace=0)

    asyncio.run(main())
    (its,) = numbers(capfd, "monday", "program.py:doubled")["runs"]
    assert its["count"] >= 1
    assert "slow[1]::slow" in [each["id"] for each in its["missing"]["items"]]
