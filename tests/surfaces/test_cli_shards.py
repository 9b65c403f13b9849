"""`rh-agents map --shard`: items of a job are made in other processes, and the output is the same as without them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.surfaces.cli_kit import QUIET, Folder, command, started

PAID = """
import asyncio, os
from rh_agents import Tool, Usage, report_usage

class Paid(Tool):
    def estimate_input(self, input_data):
        return Usage(cost=1.0)

async def pay(item: dict) -> str:
    text = item["text"]
    with open("ledger", "ab", buffering=0) as file:
        file.write(f"{text} {os.getpid()}\\n".encode())
    await asyncio.sleep(0.1)
    report_usage(Usage(cost=1.0))
    return text.upper()

paid = Paid(name="paid", handler=pay)
"""
ITEMS, SIDE_BY_SIDE = 40, 3


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


@pytest.mark.slow
def test_items_of_shards_are_called_once_whatever_the_next_command_says_of_shards(folder: Folder) -> None:
    folder.write("in.jsonl", "good", "bad", "fine", "well")
    folder.flag("broken")
    words = ("map", "program.py:rate", "in.jsonl", "-o", "out.jsonl", "--set", "bonus=1")
    assert command(*words, "--shard", "2", "--workers", "2") == 1
    assert sorted((line["id"], line["ok"]) for line in folder.lines()) == [
        ("bad", False), ("fine", True), ("good", True), ("well", True),
    ]  # fmt: skip
    assert {line["id"]: line.get("result") for line in folder.lines()}["good"] == 1.4
    assert set(folder.ledger.values()) == {1}
    folder.flag("broken", is_set=False)
    assert command(*words) == 0
    assert {text: count for text, count in folder.ledger.items() if count > 1} == {"rate bad": 2}


@pytest.mark.parametrize("words", [("--workers", "3"), ("--on", "ray")])
def test_what_is_about_shards_is_refused_without_them(
    folder: Folder, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "good")
    assert command("map", "program.py:rate", "in.jsonl", *words) == 2
    assert "add --shard N" in capsys.readouterr().err
    assert not folder.ledger


def test_an_engine_that_there_is_not_is_named_with_those_there_are(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "good")
    assert command("map", "program.py:rate", "in.jsonl", "--shard", "2", "--on", "proces") == 1
    assert "did you mean 'process'?" in capsys.readouterr().err
    assert not folder.ledger


def by_worker(folder: Folder) -> dict[str, list[str]]:
    """What each worker has begun, by its process."""
    found: dict[str, list[str]] = {}
    for line in folder.ledger.elements():
        text, _, pid = line.rpartition(" ")
        found.setdefault(pid, []).append(text)
    return found


def wait_until(is_so: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


@pytest.mark.slow
def test_two_workers_make_the_items_of_a_command_though_one_is_killed_and_its_budget_holds_in_both(
    folder: Folder,
) -> None:
    (folder.path / "shop.py").write_text(PAID)
    texts = [f"t{number}" for number in range(ITEMS)]
    folder.write("in.jsonl", *texts)
    worker = ("worker", "--store", "runs.db", "--lease", "3")
    words = (
        "map", "shop.py:paid", "in.jsonl", "-o", "out.jsonl", "--store", "runs.db", *QUIET,
        "--max-workers", str(SIDE_BY_SIDE), "--shard", "4", "--on", "workers", "--workers", "3",
        "--budget-name", "month", "--budget-cost",
    )  # fmt: skip
    with ExitStack() as stack:
        workers = {str(each.pid): each for each in [stack.enter_context(started(*worker)) for _ in range(2)]}
        job = stack.enter_context(started(*words, "20"))
        wait_until(lambda: len(by_worker(folder)) == 2 and sum(map(len, by_worker(folder).values())) >= 8)
        victim = min(by_worker(folder))
        workers[victim].kill()
        _, said = job.communicate(timeout=60)
        assert "the shared budget 'month', cost=20, does not suffice" in said
        assert "--budget-cost MORE" in said
        assert job.returncode != 0
        begun = Counter(text for each in by_worker(folder).values() for text in each)
        assert 20 - 2 * SIDE_BY_SIDE <= begun.total() <= 20, "what was in flight counts as spent"
        again = stack.enter_context(started(*words, "200"))
        assert again.wait(60) == 0, again.communicate()
    begun = Counter(text for each in by_worker(folder).values() for text in each)
    assert set(begun) == set(texts)
    assert begun.total() - ITEMS <= SIDE_BY_SIDE, "what was in flight is called again"
    assert len(by_worker(folder)) == 2, "workers have made all of them"
    assert {line["id"]: line["result"] for line in folder.lines()} == {text: text.upper() for text in texts}


def test_a_name_alone_is_no_budget(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write("in.jsonl", "good")
    assert command("map", "program.py:rate", "in.jsonl", "--budget-name", "month") == 2
    assert "--budget-name month: say how much there is, with --budget-cost" in capsys.readouterr().err
    assert not folder.ledger
