"""The commands about recorded runs: what they show, what they change, and what they say when they cannot."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from rh_agents import (
    Budget,
    BudgetExceeded,
    ExecutionState,
    MemoryStore,
    RetryPolicy,
    current,
    open_store,
    parallel,
    run,
    tool,
)
from rh_agents.cli.options import parse_age
from rh_agents.cli.output.page import Page, Part, table_lines
from rh_agents.cli.output.tree import Node, RunTree, TreeView
from rh_agents.cli.output.wording import age, counted, size
from rh_agents.core._replay.identity import idempotency_key
from rh_agents.core.plan import Fate, plan_run
from rh_agents.core.ports import Store
from rh_agents.core.types import ExecutionStatus
from tests.surfaces.cli_kit import Folder, command, environment, started

QUIET = ("--progress", "none")


@pytest.fixture
def mapped(folder: Folder, capfd: pytest.CaptureFixture[str]) -> Folder:
    """A map over three items, of which one failed, under the name `job`."""
    folder.write("in.jsonl", "a", "bad", "c")
    folder.flag("broken")
    words = ("map", "program.py:rate", "in.jsonl", "-o", "out.jsonl", "--run-id", "job", "--tag", "night", *QUIET)
    assert command(*words) == 1
    capfd.readouterr()
    return folder


def out_of(capfd: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Standard output of a command that ends so."""
    found = command(*words)
    out, err = capfd.readouterr()
    assert (found, err if code == 0 else "") == (code, "")
    return out


def error_of(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a command says when it cannot do its work."""
    assert command(*words) in (1, 2)
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


# -- runs -------------------------------------------------------------------------------------------------------------


def test_runs_are_listed_with_how_they_stand(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    (head, line) = out_of(capfd, "runs").splitlines()
    assert head.split() == ["RUN", "STATUS", "WORKFLOW", "CALLS", "AGE", "TAGS"]
    assert line.split()[:5] == ["job", "completed", "map", "rate", "5"]
    assert line.split()[-1] == "night"
    (record,) = [json.loads(line) for line in out_of(capfd, "runs", "--json").splitlines()]
    assert (record["run_id"], record["status"], record["calls"], record["tags"]) == ("job", "completed", 5, ["night"])


@pytest.mark.parametrize(
    ("words", "is_listed"),
    [
        (("--status", "completed"), True),
        (("--status", "failed", "--status", "completed"), True),
        (("--status", "running"), False),
        (("--tag", "night"), True),
        (("--tag", "day"), False),
        (("--older-than", "1h"), False),
        (("--newer-than", "1h"), True),
    ],
)
def test_runs_are_chosen_by_status_tag_and_age(
    words: tuple[str, ...], is_listed: bool, mapped: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    out = out_of(capfd, "runs", *words)
    assert ("job" in out) is is_listed
    assert is_listed or out == "no such runs\n"


def test_of_many_runs_people_see_the_newest_and_programs_get_all(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    async def record() -> None:
        store = open_store(".rh_agents/runs.db")
        for number in range(203):
            async with ExecutionState(store=store, run_id=f"r{number:03}", durability="exit"):
                pass
        await store.aclose()

    asyncio.run(record())
    head, *lines, more = out_of(capfd, "runs").splitlines()
    assert head.startswith("RUN")
    assert [line.split()[0] for line in lines] == [f"r{number:03}" for number in range(202, 2, -1)]
    assert more == "… 3 older ones: --limit 203 lists all, --status and --tag choose"
    assert len(out_of(capfd, "runs", "--limit", "203").splitlines()) == 204
    assert len(out_of(capfd, "runs", "-n", "1").splitlines()) == 3
    records = [json.loads(line)["run_id"] for line in out_of(capfd, "runs", "--json").splitlines()]
    assert records == [f"r{number:03}" for number in range(202, -1, -1)]
    assert len(out_of(capfd, "runs", "--json", "-n", "201").splitlines()) == 201


def test_looking_never_makes_a_store(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["runs"], ["show", "x"], ["resume", "x"], ["plan", "x"], ["fork", "x", "y"], ["cancel", "x"], ["answer", "x"],
        ["export", "x"], ["gc", "--older-than", "1d"], ["check"],
    ):  # fmt: skip
        assert error_of(capfd, *words).startswith("rh-agents: there is no store .rh_agents/runs.db: `rh-agents map`")
    assert list(folder.path.glob(".rh_agents*")) == []


def test_every_command_says_so_if_there_is_no_such_run(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["show"], ["resume"], ["plan"], ["cancel"], ["answer"], ["export"]):
        assert error_of(capfd, *words, "jobb") == "rh-agents: there is no run 'jobb'; did you mean 'job'?"
    assert error_of(capfd, "fork", "zzz", "new") == "rh-agents: there is no run 'zzz'; `rh-agents runs` lists them"


def test_a_store_of_a_newer_version_and_a_file_that_is_none_are_refused(
    mapped: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    apsw = pytest.importorskip("apsw")
    connection = apsw.Connection(".rh_agents/runs.db")
    connection.pragma("user_version", 999)
    connection.close()
    assert "newer version" in error_of(capfd, "runs")
    (mapped.path / "text.db").write_text("no database\n" * 1000)
    assert "text.db" in error_of(capfd, "runs", "--store", "text.db")
    assert error_of(capfd, "runs", "--store", "none") == (
        "rh-agents: --store none keeps nothing, so there is nothing to see"
    )


# -- show -------------------------------------------------------------------------------------------------------------


def test_a_run_is_shown_as_a_tree_with_times_errors_and_keys(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    lines = out_of(capfd, "show", "job").splitlines()
    assert lines[0].startswith("job  completed  0 s ago  #night") or lines[0].startswith("job  completed")
    assert lines[1] == "$ rh-agents map program.py:rate in.jsonl --output out.jsonl --tag night --progress none"
    tree = lines[lines.index("") + 1 :]
    assert tree[0].startswith("✗ rate  3 done  1 failed  in ")
    assert tree[1].startswith("  ✓ [0] a  ")
    assert tree[1].endswith("→ 0.1")
    assert tree[2].startswith("    ✓ score  ")
    assert tree[3].startswith("  ✗ [1] bad  ")
    assert tree[4] == "    ValueError: cannot rate \\x1b[31mbad", "what came from a model or from data is harmless"
    assert " @" in tree[1]


def test_only_failures_or_only_some_levels_can_be_shown(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    failed = out_of(capfd, "show", "job", "--failed")
    assert "[1] bad" in failed
    assert "[0] a" not in failed
    assert "score" not in failed
    (group,) = json.loads(out_of(capfd, "show", "job", "--failed", "--json"))["tree"]
    assert [(call["address"], call["status"]) for call in group["calls"]] == [(f"{group['address']}[1]::bad", "failed")]
    flat = out_of(capfd, "show", "job", "--depth", "1")
    assert "(5 below)" in flat
    assert "[1] bad" not in flat


def test_what_was_reused_is_marked(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("resume", "job") == 1
    capfd.readouterr()
    lines = out_of(capfd, "show", "job").splitlines()
    assert any(line.startswith("✗ rate  3 done  1 failed  2 reused") for line in lines)
    (good,) = [line for line in lines if "[0] a" in line]
    (bad,) = [line for line in lines if "[1] bad" in line]
    assert "reused" in good
    assert "reused" not in bad
    assert "try 2" in bad


def test_a_shown_run_is_json_for_programs(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    record = json.loads(out_of(capfd, "show", "job", "--json"))
    (group,) = record["tree"]
    assert (group["kind"], group["completed"], group["failed"]) == ("group", 2, 1)
    assert [call["status"] for call in group["calls"]] == ["completed", "failed", "completed"]
    assert group["calls"][0]["calls"][0]["name"] == "score"


async def tree_of(store: Store, run_id: str) -> list[Node]:
    tree = RunTree()
    async for recorded in store.events(run_id):
        tree.add(recorded)
    parents = {outcome.key.hex(): outcome.parent.hex() async for outcome in store.outcomes(run_id)}
    return tree.roots(parents if tree.is_ambiguous else None)


def test_of_thousands_of_calls_the_first_ones_are_shown_and_every_failure(capsys: pytest.CaptureFixture[str]) -> None:
    @tool
    async def odd(number: int) -> int:
        if number % 1000 == 999:
            raise ValueError(f"no {number}")
        return number

    async def many() -> None:
        async with parallel(name="many", max_workers=50) as p:
            p.map(odd, range(5000))
            await p.gather()

    async def go() -> list[Node]:
        store = MemoryStore()
        await run(many, store=store, run_id="r")
        return await tree_of(store, "r")

    TreeView(Page()).show(asyncio.run(go()))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("✗ many  5,000 done  5 failed")
    assert sum("✓" in line for line in lines) == 3
    assert sum("ValueError: no" in line for line in lines) == 5
    assert lines[-1] == "  … 4,992 more completed"


def test_members_that_a_budget_kept_from_beginning_are_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    @tool
    async def step(number: int) -> int:
        return number

    async def many() -> None:
        async with parallel(name="many", max_workers=1) as p:
            p.map(step, range(5))
            await p.gather()

    async def go() -> list[Node]:
        store = MemoryStore()
        with pytest.raises(BudgetExceeded):
            await run(many, store=store, run_id="r", budget=Budget(calls=2))
        return await tree_of(store, "r")

    TreeView(Page()).show(asyncio.run(go()))
    assert capsys.readouterr().out.startswith("■ many  2 done  incomplete")


def test_calls_of_one_address_are_told_apart_by_who_made_them() -> None:
    @tool
    async def step(of: str) -> str:
        await asyncio.sleep(0)
        return of

    @tool
    async def chain(name: str) -> str:
        for number in range(2):
            await step(f"{name}{number}")
        return name

    async def side_by_side() -> None:
        await asyncio.gather(chain("A"), chain("B"))

    async def go() -> list[Node]:
        store = MemoryStore()
        await run(side_by_side, store=store, run_id="r")
        return await tree_of(store, "r")

    a, b = asyncio.run(go())
    assert a.address == b.address == "chain"
    assert [child.result for child in a.children] == ["'A0'", "'A1'"]
    assert [child.result for child in b.children] == ["'B0'", "'B1'"]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_no_error_is_cut(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    @tool
    async def a_tool_with_quite_a_long_name(text: str) -> str:
        if text == "bad":
            raise ValueError("wrong " * 20 + "end")
        return text * 50

    async def flow() -> None:
        async with parallel(name="a group with a long name, too") as p:
            p.add(a_tool_with_quite_a_long_name("日本語"), name="日本語" * 10)
            p.add(a_tool_with_quite_a_long_name("bad"), name="\x1b[31m\u202e")
            await p.gather()

    async def go() -> list[Node]:
        store = MemoryStore()
        await run(flow, store=store, run_id="r")
        return await tree_of(store, "r")

    TreeView(Page(width)).show(asyncio.run(go()))
    out = capsys.readouterr().out
    from rich.cells import cell_len  # noqa: PLC0415

    assert max(cell_len(line) for line in out.splitlines()) < width
    assert out.count("wrong") == 20
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_a_run_can_be_followed_while_it_is_executed(folder: Folder) -> None:
    store_name = ".rh_agents/runs.db"

    async def go() -> str:
        store = open_store(store_name)
        async with ExecutionState(store=store, run_id="r") as state:
            await _double(1)
            assert state.journal is not None
            await state.journal.flush()
            with started("show", "r", "--follow") as process:
                assert process.stdout is not None
                first = await asyncio.to_thread(process.stdout.readline)
                assert first.startswith("r  running  by process ")
                await _double(2)
                await state.end()
                rest = await asyncio.to_thread(process.stdout.read)
        await store.aclose()
        return rest

    rest = asyncio.run(go())
    assert "_double  completed" in rest
    assert rest.splitlines()[-1] == "r: completed"


@tool
async def _double(number: int) -> int:
    return 2 * number


def test_a_reader_that_has_gone_is_no_error(mapped: Folder) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "rh_agents", "export", "job"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        process.wait(60)


# -- plan -------------------------------------------------------------------------------------------------------------


def test_a_plan_tells_what_would_be_reused_and_what_would_run(
    mapped: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    made = mapped.ledger
    out = out_of(capfd, "plan", "job")
    assert "reused         2 calls with a recorded value" in out
    assert "tried again    1 call that failed\n               rate[1]::bad  @" in out
    assert "not reached    2 calls below other calls" in out
    assert "input in.jsonl as it is now: 3 items: 2 reused, 1 tried again, 0 new" in out
    out = out_of(capfd, "plan", "job", "--no-retry-failed")
    assert "repeated       1 call with a recorded failure" in out
    assert "no recorded call would be made again" in out
    assert mapped.ledger == made, "nothing was called"


def test_the_actors_of_the_program_count_before_those_of_other_modules_that_have_their_names(
    mapped: Folder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = ModuleType("a_module_that_was_imported_before")

    @tool(version="2")
    async def rate(text: str) -> int:
        return len(text)

    vars(other)["rate"] = rate
    del sys.modules["program"]
    monkeypatch.setitem(sys.modules, other.__name__, other)
    assert "version" not in out_of(capfd, "plan", "job")


def test_a_plan_looks_at_the_input_and_at_the_code_as_they_are_now(
    mapped: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    mapped.write("in.jsonl", "a", "a", "new")
    with (mapped.path / "in.jsonl").open("a") as file:
        file.write("no json\n")
    out = out_of(capfd, "plan", "job")
    assert "4 items: 1 reused, 2 new, 1 that do not fit; 2 recorded items no longer in it" in out
    program = mapped.path / "program.py"
    program.write_text(program.read_text().replace("@tool\nasync def rate", '@tool(version="2")\nasync def rate'))
    sys.modules.pop("program")
    out = out_of(capfd, "plan", "job")
    assert "rate is recorded with version 1, and has version 2 now: its calls are made again" in out
    assert "4 items: 3 new, 1 that do not fit\n" in out
    program.unlink()
    sys.modules.pop("program")
    out = out_of(capfd, "plan", "job")
    assert "the code was not examined: there is no file program.py" in out


def test_a_plan_counts_identical_items_each_once_however_many_there_are(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers = [str(number) for number in range(20)]
    folder.write("in.jsonl", *numbers, "0", "0", "1")
    assert command("map", "program.py:other", "in.jsonl", "-o", "out.jsonl", "--run-id", "job", *QUIET) == 0
    capfd.readouterr()
    out = out_of(capfd, "plan", "job")
    assert "reused         23 calls with a recorded value" in out
    assert "input in.jsonl as it is now: 23 items: 23 reused, 0 new" in out
    folder.write("in.jsonl", "0", "0", "0", "0", "30", "1", "1", "1", "31", *numbers[2:18], "30")
    out = out_of(capfd, "plan", "job")
    assert "input in.jsonl as it is now: 26 items: 21 reused, 5 new; 2 recorded items no longer in it" in out


def test_what_is_shown_of_many_items_is_what_is_shown_of_all_but_for_those_between(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", *[str(number) for number in range(40)])
    assert command("map", "program.py:other", "in.jsonl", "-o", "out.jsonl", "--run-id", "job", *QUIET) == 0
    capfd.readouterr()
    head, *whole = out_of(capfd, "show", "job", "--all").splitlines()
    its_head, *short = out_of(capfd, "show", "job").splitlines()
    assert head.split("  ")[:2] == its_head.split("  ")[:2] == ["job", "completed"]  # behind that stands how long ago
    assert len(whole) == 44
    assert short == [*whole[:7], "  … 37 more completed"]
    assert out_of(capfd, "show", "job", "--depth", "1").splitlines()[-1].endswith("(40 below)")


def test_a_plan_is_json_for_programs(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    record = json.loads(out_of(capfd, "plan", "job", "--json"))
    assert record["counts"]["reused"] == 2
    assert [call["fate"] for call in record["calls"]] == ["tried_again"]
    assert record["input"] == {
        "name": "in.jsonl", "reused": 2, "tried_again": 1, "new": 0, "bad": 0, "gone": 0, "problem": None,
    }  # fmt: skip


class Died(BaseException):
    """As if the process had died: nobody handles it."""


@pytest.mark.parametrize("retry_failed", [True, False])
@pytest.mark.parametrize("ends", [True, False])
def test_a_plan_comes_true_wherever_the_program_died(ends: bool, retry_failed: bool) -> None:
    """Executed as it is, the program makes the calls that the plan says, and no others that were recorded."""
    made: list[str] = []
    limit = 0

    async def begin() -> None:
        made.append(current().idempotency_key)
        await asyncio.sleep(0)
        if len(made) > limit:
            raise Died

    @tool
    async def leaf(name: str) -> str:
        await begin()
        if name.startswith("bad"):
            raise ValueError(name)
        return name

    @tool(retry=RetryPolicy(max_attempts=2, initial_delay=0.0))
    async def branch(name: str) -> str:
        await begin()
        await leaf(f"{name} first")
        result = await leaf(f"bad {name}").outcome()
        if current().attempt == 1:
            raise ConnectionError("again")
        if name == "n1":
            raise ValueError("no")
        return f"{name} {result.ok}"

    async def program() -> None:
        async with parallel(name="group", max_workers=2) as p:
            p.map(branch, [f"n{number}" for number in range(3)])
            await p.gather()
        await leaf("last")

    async def once(store: MemoryStore, allowed: int, **options: Any) -> None:
        nonlocal limit
        limit = allowed
        made.clear()
        with contextlib.suppress(Died):
            await run(program, store=store, run_id="r", **options)

    async def check(died_after: int) -> bool:
        """Whether the program died."""
        store = MemoryStore()
        await once(store, died_after)
        has_died = len(made) > died_after
        if ends:
            await once(store, 1000)
        info = await store.find_run("r")
        assert info is not None
        assert (info.status is ExecutionStatus.COMPLETED) is (ends or not has_died)
        outcomes = [outcome.header async for outcome in store.unread_outcomes("r")]
        events = [event async for event in store.events("r")]
        plan = plan_run(info, outcomes, events, retry_failed=retry_failed)
        await once(store, 1000, retry_failed=retry_failed)
        runs = plan.of(Fate.TRIED_AGAIN, Fate.UNKNOWN, Fate.CONTINUED)
        others = plan.of(Fate.REUSED, Fate.REPEATED, Fate.NOT_REACHED)
        assert len(runs) + len(others) == len(plan.calls)
        assert {idempotency_key("r", call.place) for call in runs} <= set(made)
        assert not {idempotency_key("r", call.place) for call in others} & set(made)
        return has_died

    died = [asyncio.run(check(died_after)) for died_after in range(20)]
    assert died.index(False) > 10


# -- resume, fork, cancel ---------------------------------------------------------------------------------------------


def test_resume_repeats_the_command_in_its_directory(
    mapped: Folder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mapped.flag("broken", is_set=False)
    (mapped.path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert command("resume", "job", "--store", "../.rh_agents/runs.db") == 0
    assert len(mapped.lines()) == 3
    assert mapped.ledger["rate a"] == 1
    assert mapped.ledger["rate bad"] == 2


def test_resume_from_an_address_makes_that_call_again(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("resume", "job", "--from", "rate[0]::a::score", "--no-retry-failed") == 1
    assert mapped.ledger["score a"] == mapped.ledger["rate a"] == 2
    assert mapped.ledger["score c"] == mapped.ledger["rate bad"] == 1
    capfd.readouterr()
    assert error_of(capfd, "resume", "job", "--from", "rate[0]::a::scor") == (
        "rh-agents: run 'job' has no finished call at 'rate[0]::a::scor'; did you mean 'rate[0]::a::score'?"
    )


def test_a_run_of_python_code_says_how_it_is_resumed(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    (folder.path / ".rh_agents").mkdir()

    async def go() -> None:
        await run(_double, 2, store=".rh_agents/runs.db", run_id="python")

    asyncio.run(go())
    line = error_of(capfd, "resume", "python")
    assert "was started from Python code" in line
    assert "run_id='python', as in" in line
    assert "run_id='python' and resume_from='_double'" in error_of(capfd, "resume", "python", "--from", "_double")
    assert "_double" in out_of(capfd, "show", "python")
    assert "the code was not examined: the run was started from Python code, not by a command" in out_of(
        capfd, "plan", "python"
    )


def test_a_map_of_standard_input_needs_its_items_again(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    words = [sys.executable, "-m", "rh_agents", "map", "program.py:rate", "-", "--format", "text", "--run-id", "piped"]
    for _ in range(2):
        done = subprocess.run(
            [*words, *QUIET], input="a\nb\n", env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) == 2
    assert folder.ledger["rate a"] == 1


def test_a_fork_is_a_copy_that_does_not_write_over_the_output_of_the_other_one(
    mapped: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    out = out_of(capfd, "fork", "job", "copy", "--at", "rate[0]::a::score", "--result", "9.5")
    assert out == "copy: a copy with 4 finished calls; resume with: rh-agents resume copy -o OUT.jsonl\n"
    assert "copy  forked, not started" in out_of(capfd, "show", "copy")
    before = mapped.lines()
    assert "out.jsonl exists and has content" in error_of(capfd, "resume", "copy")
    assert command("resume", "copy", "-o", "copy.jsonl", "--no-retry-failed") == 1
    assert mapped.lines() == before
    assert {line["id"]: line.get("result") for line in mapped.lines("copy.jsonl")} == {"a": 9.5, "bad": None, "c": 0.1}
    assert mapped.ledger["score a"] == 1
    assert command("resume", "copy", "--no-retry-failed") == 1
    assert len(mapped.lines("copy.jsonl")) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--at", "nosuch"), "run 'job' has no finished call at 'nosuch'"),
        (("--at", "rate[0]::a", "--result", "x"), """--result x: not valid JSON"""),
        (("--at", "rate[0]::a", "--result", '"x"'), "--result: Input should be a valid number"),
        (("--result", "1"), "needs the address"),
    ],
)
def test_a_fork_that_cannot_be_says_why_and_leaves_nothing(
    words: tuple[str, ...], told: str, mapped: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    assert told in error_of(capfd, "fork", "job", "copy", *words)
    assert "copy" not in out_of(capfd, "runs")


def test_a_run_is_cancelled_once_it_has_not_ended(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert error_of(capfd, "cancel", "job") == (
        "rh-agents: run 'job' has ended: it is completed; start it again to make what failed again"
    )
    out_of(capfd, "fork", "job", "copy")
    assert out_of(capfd, "cancel", "copy", "--reason", "enough") == "copy is cancelled\n"
    assert "cancelled by" in out_of(capfd, "show", "copy")


def test_a_running_job_is_told_to_stop(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.write("in.jsonl", "a", "b", "c")
    folder.flag("patient")
    with started("map", "program.py:rate", "in.jsonl", "-n", "1", "--run-id", "job", *QUIET) as process:
        while not folder.ledger["waiting a"]:
            assert process.poll() is None
        assert " running " in out_of(capfd, "runs", "--status", "running")
        assert out_of(capfd, "cancel", "job", "--reason", "enough").startswith("job is being stopped for good")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(out.splitlines()) == 1, "what was under way is done"
    assert ": enough: 1 done, 2 not done" in err
    assert folder.ledger["rate b"] == 0
    assert "cancelled" in out_of(capfd, "runs")


# -- answer -----------------------------------------------------------------------------------------------------------


def asking(folder: Folder) -> str:
    """A run that waits; the id of its question."""
    with open(os.devnull) as nothing:
        done = subprocess.run(
            [sys.executable, "-m", "rh_agents", "run", "program.py:publish", "-i", '"x"', "--run-id", "asks", *QUIET],
            stdin=nothing,
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
    assert done.returncode == 3
    return done.stderr.splitlines()[1].split()[0]


def test_questions_are_listed_and_answered_and_an_answer_that_does_not_fit_is_refused(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    question = asking(folder)
    listed = out_of(capfd, "answer", "asks").splitlines()
    assert listed[0] == "asks waits for 1 answer:"
    assert listed[1] == f"  {question}  publish::ask: Publish?"
    assert "waiting for 1 answer" in out_of(capfd, "runs")
    assert "asked          1 question for a person" in out_of(capfd, "plan", "asks")
    assert f"has no open question 'zzz'; open are {question}" in error_of(capfd, "answer", "asks", "zzz", "true")
    told = error_of(capfd, "answer", "asks", question, "perhaps")
    assert told == "rh-agents: the answer does not fit: 'perhaps' is not of type 'boolean'; it is true or false"
    assert "waiting for 1 answer" in out_of(capfd, "runs")
    assert out_of(capfd, "answer", "asks", question[:5], "false").splitlines() == [
        "answered: Publish?",
        "resume with: rh-agents resume asks",
    ]
    assert "answered, to be resumed" in out_of(capfd, "runs")
    assert f"question '{question}' of run 'asks' has been answered" in error_of(capfd, "answer", "asks", question, "1")
    assert command("resume", "asks") == 0
    assert capfd.readouterr().out.endswith('"not published"\n')
    assert out_of(capfd, "answer", "asks") == "asks has no open questions\n"
    assert folder.ledger["fetch x"] == 1


# -- export, gc, check ------------------------------------------------------------------------------------------------


def test_the_journal_is_exported_as_json_lines(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    events = [json.loads(line) for line in out_of(capfd, "export", "job").splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    finished = [event for event in events if event["status"] == "completed" and event["name"] == "a"]
    assert (finished[0]["address"], finished[0]["result"]) == ("rate[0]::a", 0.1)
    outcomes = [json.loads(line) for line in out_of(capfd, "export", "job", "--outcomes").splitlines()]
    assert len(outcomes) == 5
    assert [outcome["error"] for outcome in outcomes if not outcome["ok"]] == ["ValueError: cannot rate \\x1b[31mbad"]


def test_old_runs_are_deleted_and_only_told_of_in_a_dry_run(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    out_of(capfd, "fork", "job", "copy")
    assert out_of(capfd, "gc", "--older-than", "1d").startswith("0 runs deleted")
    assert "job  completed  would be deleted\n1 run would be deleted\n" in out_of(
        capfd, "gc", "--older-than", "0s", "--dry-run"
    )
    assert out_of(capfd, "gc", "--older-than", "0s").splitlines()[0] == "job  completed  deleted"
    assert "copy" in out_of(capfd, "runs"), "it has not ended"
    out_of(capfd, "gc", "--older-than", "0s", "--status", "interrupted")
    assert out_of(capfd, "runs") == "no runs\n"
    assert "cancel it first" in error_of(capfd, "gc", "--older-than", "0s", "--status", "running")
    assert "write a number and a unit" in error_of(capfd, "gc", "--older-than", "30")


def test_damage_is_found_and_told(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert out_of(capfd, "check") == "1 run, no damage found\n"
    apsw = pytest.importorskip("apsw")
    connection = apsw.Connection(".rh_agents/runs.db")
    connection.execute("UPDATE run SET outcomes = outcomes + 1")
    connection.close()
    assert "job" in out_of(capfd, "check", code=1)


# -- words ------------------------------------------------------------------------------------------------------------


def test_numbers_and_ages_are_words() -> None:
    assert [counted(number, "call") for number in (0, 1, 1234)] == ["0 calls", "1 call", "1,234 calls"]
    assert [age(seconds) for seconds in (-1, 0, 59, 60, 7200, 200_000)] == ["0 s", "0 s", "59 s", "1 min", "2 h", "2 d"]
    assert [size(number) for number in (1, 1023, 1024, 3 * 1024**2)] == ["1 byte", "1,023 bytes", "1.0 KiB", "3.0 MiB"]
    assert [parse_age("-", text) for text in ("90s", "1.5m", "2h", "1d", "1w")] == [90, 90, 7200, 86400, 604800]


def test_a_table_leaves_out_empty_columns_and_cuts_the_widest_one() -> None:
    rows = [("A", "B", "C"), ("x" * 30, "", "1"), ("y", "", "22")]
    assert table_lines(rows, None) == ["A" + " " * 31 + "C", "x" * 30 + "  1", "y" + " " * 31 + "22"]
    assert table_lines(rows, 20, whole=0) == ["A" + " " * 16 + "C", "x" * 14 + "…  1", "y" + " " * 16 + "22"]
    assert table_lines(rows, 20) == ["A", "x" * 30, "y"], "what names a run is never cut"


def test_parts_that_have_no_room_are_left_out_by_rank(capsys: pytest.CaptureFixture[str]) -> None:
    parts = [
        Part("name"),
        Part("unimportant", rank=2),
        Part("key", rank=1),
        Part("result " * 9, rank=3, is_elastic=True),
    ]
    for width, told in [(80, "name  unimportant  key  result"), (30, "name  unimportant  key"), (12, "name  key")]:
        Page(width).line(*parts)
        assert capsys.readouterr().out.startswith(told)


# -- results of classes that only the program of the run has -----------------------------------------------------------

RECORDER = """
import asyncio
from pydantic import BaseModel
from rh_agents import run, tool

class Page(BaseModel):
    n: int

@tool
async def page(n: int) -> Page:
    return Page(n=n)

async def main():
    await page(1)
    await page(2)

asyncio.run(run(main, store="runs.db", run_id="pages"))
"""


def test_commands_need_no_class_of_the_programs_results(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    (folder.path / "recorder.py").write_text(RECORDER)
    subprocess.run([sys.executable, "recorder.py"], check=True, env=environment(), cwd=folder.path)
    store = ("--store", "runs.db")
    records = [json.loads(line) for line in out_of(capfd, "export", "pages", "--outcomes", *store).splitlines()]
    assert [record["result"] for record in records] == [{"n": 1}, {"n": 2}]
    events = [json.loads(line) for line in out_of(capfd, "export", "pages", *store).splitlines()]
    assert [event["result"] for event in events if "result" in event] == [{"n": 1}, {"n": 2}]
    assert "2 calls with a recorded value" in out_of(capfd, "plan", "pages", *store)
    place = f"@{records[0]['key'][:8]}"
    out_of(capfd, "fork", "pages", "again", "--at", place, *store)
    assert len(out_of(capfd, "export", "again", "--outcomes", *store).splitlines()) == 1
    assert "page" in out_of(capfd, "show", "pages", *store)
