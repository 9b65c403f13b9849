"""One map after the other through a pipe, as processes: whatever happens to either, each item is done in the end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rh_agents import ExecutionState, MemoryStore, tool
from rh_agents.cli.input.items import results_of
from rh_agents.cli.input.lines import Item
from tests.surfaces.cli_kit import QUIET, Folder, environment, said

STAGES = """
import os, signal
from rh_agents import tool

def note(text):
    with open("ledger", "ab", buffering=0) as file:
        file.write((text + "\\n").encode())

def strike(stage, text):
    if os.environ.get("KILL_AT") == f"{stage} {text}":
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("INTERRUPT_AT") == f"{stage} {text}":
        os.killpg(0, signal.SIGINT)

@tool
def first(text: str) -> str:
    strike("first", text)
    note("first " + text)
    if text == "bad":
        raise ValueError("it is bad")
    return text.upper()

@tool
def second(text: str) -> int:
    strike("second", text)
    note("second " + text)
    return len(text)
"""
TEXTS = [f"t{number:02}" for number in range(40)]
PIPELINE = (
    "{0} -m rh_agents map stages.py:first in.txt -n 2 --progress none |"
    " {0} -m rh_agents map stages.py:second - --results -n 2 -o out.jsonl {1}; echo ${{PIPESTATUS[*]}}"
)


@pytest.fixture
def pipeline(folder: Folder) -> Folder:
    (folder.path / "stages.py").write_text(STAGES)
    (folder.path / "in.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    return folder


def run_pipeline(**more: str) -> list[int]:
    """Both processes, in a session of their own. Returns what they end with."""
    shell = PIPELINE.format(sys.executable, " ".join(QUIET))
    done = subprocess.run(
        ["bash", "-c", f"trap : INT; {shell}"],
        env=environment(**more), capture_output=True, text=True, check=False, start_new_session=True,
        stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    return [int(code) for code in done.stdout.split()]


def assert_each_once(folder: Folder) -> None:
    """The output has each item once, and nothing was done twice but what was in flight when a process ended."""
    assert sorted(line["id"] for line in folder.lines()) == TEXTS
    assert all(line["ok"] and line["result"] == 3 for line in folder.lines())
    wanted = {f"first {text}" for text in TEXTS} | {f"second {text.upper()}" for text in TEXTS}
    assert set(folder.ledger) == wanted
    assert sum(folder.ledger.values()) - len(wanted) <= 4


def test_a_second_map_gets_the_results_of_the_first_one(pipeline: Folder) -> None:
    assert run_pipeline() == [0, 0]
    assert_each_once(pipeline)
    assert run_pipeline() == [0, 0]
    assert_each_once(pipeline)
    assert sum(pipeline.ledger.values()) == 2 * len(TEXTS)


@pytest.mark.parametrize(
    ("strike", "codes"),
    [
        ({"KILL_AT": "second T20"}, (1, 137)),
        ({"KILL_AT": "first t20"}, (137, 0)),
        ({"INTERRUPT_AT": "second T20"}, (130, 130)),
    ],
    ids=["second-killed", "first-killed", "interrupted"],
)
def test_after_a_death_or_an_interruption_the_same_command_completes_both(
    pipeline: Folder, strike: dict[str, str], codes: tuple[int, int]
) -> None:
    found = run_pipeline(**strike)
    # A first stage that had written all before the second one died has ended well.
    assert tuple(found) == codes or found == [0, codes[1]]
    assert run_pipeline() == [0, 0]
    assert_each_once(pipeline)


def test_what_failed_in_the_first_stage_fails_in_the_second_one_without_a_call(
    pipeline: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("in.txt").write_text("t00\nbad\n")
    assert run_pipeline() == [1, 1]
    lines = {line["id"]: line for line in pipeline.lines()}
    assert lines["t00"]["result"] == 3
    assert lines["bad"] == {
        "id": "bad", "index": lines["bad"]["index"], "ok": False, "error": "it failed before: ValueError: it is bad",
        "attempts": 0, "seconds": lines["bad"]["seconds"],
    }  # fmt: skip
    assert "second BAD" not in pipeline.ledger
    said(capfd, "map", "stages.py:first", "in.txt", "-o", "first.parquet", *QUIET, code=1)
    out, _ = said(capfd, "map", "stages.py:second", "first.parquet", "--results", *QUIET, code=1)
    assert sorted((line["id"], line["ok"]) for line in map(json.loads, out.splitlines())) == [
        ("bad", False),
        ("t00", True),
    ]


def test_what_no_map_wrote_is_a_failed_item() -> None:
    lines = [Item("a:1", 1, {"id": 7, "ok": True}), Item("a:2", 2, {"x": 1}), Item("a:3", 3, None, "broken")]
    found = list(results_of(iter(lines)))
    assert found[0] == Item("a:1", 7, None)
    assert found[1].problem == "no line that map wrote: one has id, ok, and result or error"
    assert found[2] == lines[2]


def test_in_python_the_stream_of_one_group_is_what_the_next_one_maps_over() -> None:
    calls: list[str] = []

    @tool
    async def load(number: int) -> str:
        calls.append(f"load {number}")
        if number == 3:
            raise ValueError("lost")
        return f"page {number}"

    @tool
    async def rate(page: str) -> int:
        calls.append(f"rate {page}")
        return len(page)

    async def main() -> list[int]:
        async with (
            ExecutionState(store=store, run_id="r") as state,
            state.parallel(max_workers=2, name="load") as first,
            state.parallel(max_workers=2, name="rate") as second,
        ):
            first.map(load, range(10))
            second.map(rate, (each.unwrap() async for each in first.stream() if each.ok))
            return [each.unwrap() for each in await second.gather()]

    store = MemoryStore()
    assert asyncio.run(main()) == [6] * 9
    assert len(calls) == 19
    assert asyncio.run(main()) == [6] * 9
    assert len(calls) == 20  # the one that failed, again, since the run had ended


@pytest.mark.parametrize(("given", "is_said"), [("1\n2\n", True), ('{"text": "a"}\n', False), ('"a"\n', False)])
def test_numbers_on_standard_input_are_said_to_be_read_as_json(pipeline: Folder, given: str, is_said: bool) -> None:
    """They may be meant as texts, for a function that takes one: each would fail, and nothing would say why."""
    words = [sys.executable, "-m", "rh_agents", "map", "stages.py:first", "-", "--store", "none", *QUIET]
    done = subprocess.run(words, input=given, env=environment(), capture_output=True, text=True, check=False)
    assert ("<stdin> is read as JSON lines, since it contains them; --format overrides this" in done.stderr) == is_said
    assert done.returncode == is_said


def test_a_run_of_standard_input_is_not_resumed_without_its_items(pipeline: Folder) -> None:
    """Where nobody gives any, as in a cron job: its output would be emptied, and the command would have succeeded."""
    started = [sys.executable, "-m", "rh_agents", "map", "stages.py:first", "-", "-o", "out.jsonl", "--run-id", "piped"]
    resumed = [sys.executable, "-m", "rh_agents", "resume", "piped"]

    def done(words: list[str], given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, input=given, env=environment(), capture_output=True, text=True, check=False)

    assert done([*started, *QUIET], "a\nb\n").returncode == 0
    before = pipeline.lines()
    refused = done(resumed, "")
    assert refused.returncode == 2
    assert "give them again, as in `... | rh-agents resume piped`" in refused.stderr
    assert pipeline.lines() == before
    assert done(resumed, "a\nb\nc\n").returncode == 0
    assert sorted(line["id"] for line in pipeline.lines()) == ["a", "b", "c"]
