"""What the commands say of code that has changed since its results were recorded."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from rh_agents import ExecutionState, MemoryStore, tool
from rh_agents.cli import main
from rh_agents.cli.program import Program
from rh_agents.core.plan import Plan, plan_run
from tests.surfaces.cli_kit import QUIET, Folder, said

CHANGED = (
    "run 'job': the code of 'other' has changed since: its 2 results are reused; a new version='...' in its definition "
    "makes the calls again, --accept-changes silences this"
)


def edit(folder: Folder, before: str, after: str, name: str) -> str:
    """The program under another name, as a path, since modules of a process are imported once; edited."""
    text = (folder.path / "program.py").read_text()
    assert before in text
    (folder.path / name).write_text(text.replace(before, after))
    return name


@pytest.fixture
def mapped(folder: Folder, capfd: pytest.CaptureFixture[str]) -> Folder:
    """A map over two items under the name `job`, whose program has been edited since."""
    folder.write("in.jsonl", "a", "b")
    said(capfd, "map", "program.py:other", "in.jsonl", "-o", "out.jsonl", "--run-id", "job", *QUIET)
    edit(folder, "return text\n", "return text + '!'\n", "edited.py")
    Path("edited.py").replace("program.py")
    for name in ("program", "_rh_agents_program"):  # as in a process that begins now
        sys.modules.pop(name, None)
    return folder


def test_a_map_and_a_plan_say_that_code_has_changed_until_it_is_accepted(
    mapped: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("map", "program.py:other", "in.jsonl", "--run-id", "job", "--force", "-o", "out.jsonl", *QUIET)
    _, err = said(capfd, *words)
    assert err.splitlines()[0] == CHANGED
    assert "its 2 results are reused; a new version='...'" in said(capfd, "plan", "job")[0]
    (sentence,) = json.loads(said(capfd, "plan", "job", "--json")[0])["changed"]
    assert sentence.startswith("the code of 'other' has changed since: its 2 results are reused")
    for accepts in (["--accept-changes"], []):
        _, err = said(capfd, "resume", "job", "--force", *accepts)
        assert "changed" not in err
    assert "changed" not in said(capfd, "plan", "job")[0]


VERSIONED = """
from rh_agents import tool

@tool(version="1")
async def work(text: str) -> str:
    if text in ("c", "d"):
        raise ValueError(f"item {text} is bad")
    return text
"""


def test_generations_are_kept_apart_after_a_new_version(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.write("in.jsonl", *(f"item {number}" for number in range(30)), "c", "d")
    (folder.path / "versioned.py").write_text(VERSIONED)
    words = ("map", "versioned.py:work", "in.jsonl", "--run-id", "job", "-o", "out.jsonl", *QUIET)
    main([*words])
    capfd.readouterr()
    (folder.path / "versioned.py").write_text(VERSIONED.replace('"1"', '"1.1"'))
    for name in ("versioned", "_rh_agents_program"):  # as in a process that begins now
        sys.modules.pop(name, None)
    assert "not asked      32 calls of another version" in said(capfd, "plan", "job")[0], "version 1.1 has none"
    main([*words])
    capfd.readouterr()
    shown = said(capfd, "show", "job")[0]
    assert "work  32 done  2 failed  32 of an earlier version" in shown
    assert "… 27 more completed" in shown
    assert shown.count("item c is bad") == 1
    assert said(capfd, "show", "job", "--failed")[0].count("item c is bad") == 1
    assert said(capfd, "show", "job", "--all")[0].count("of an earlier version") == 1 + 32
    (group,) = json.loads(said(capfd, "show", "job", "--json")[0])["tree"]
    assert sum(each.get("earlier", False) for each in group["calls"]) == 32
    planned = said(capfd, "plan", "job")[0]
    assert "reused         30 calls" in planned
    assert "tried again    2 calls" in planned
    assert "not asked      32 calls of another version" in planned
    assert "32 items: 30 reused, 2 tried again, 0 new\n" in planned


@tool
async def other(text: str) -> str:
    return text


def test_a_plan_says_where_nothing_is_known_of_the_code() -> None:
    async def planned() -> Plan:
        store = MemoryStore()
        async with ExecutionState(store=store, run_id="job"):
            await other("a")
        info = await store.find_run("job")
        assert info is not None
        outcomes = [each.header async for each in store.unread_outcomes("job")]
        return plan_run(info, outcomes, [each async for each in store.events("job")])

    plan = asyncio.run(planned())
    unseen = {"code": json.dumps({"other@1": [None]})}
    for facts, says in (({}, "was not recorded with its results"), (unseen, "is unknown")):
        (sentence,) = Program({"other": other.actor}, facts=facts).changed(plan)
        assert sentence.startswith(f"the code of 'other' {says}, so it may have changed")
    (sentence,) = Program({"other": tool(version="2", name="other")(other.__wrapped__).actor}, facts={}).changed(plan)
    assert sentence == "other is recorded with version 1, and has version 2 now: its calls are made again"


def test_the_usual_warnings_of_programs_are_shown_as_before(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.write("in.jsonl", "a")
    Path("program.py").write_text(
        "import warnings\nfrom rh_agents import tool\n@tool\nasync def warn(text: str) -> None:\n"
        "    warnings.warn('of the program', UserWarning)\n"
    )
    with pytest.warns(UserWarning, match="of the program"):
        said(capfd, "map", "program.py:warn", "in.jsonl", "-o", "out.jsonl", *QUIET)
