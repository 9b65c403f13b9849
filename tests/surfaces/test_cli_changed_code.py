"""What the commands say of code that has changed since its results were recorded."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from rh_agents import ExecutionState, MemoryStore, tool
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
