"""What runs are doing now, and what calls were called with, in the terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rh_agents import ConcurrencyLimit, ExecutionState, Usage, agent, open_store, parallel, tool
from rh_agents.cli.commands.top import Pace, Seen, top_rows
from rh_agents.cli.output.now import now_lines, waits_of
from rh_agents.core.ports import RunInfo
from rh_agents.core.ports.present import (
    QUIET_AFTER,
    BudgetState,
    GroupState,
    OpenBreaker,
    Present,
    Retrying,
    RunningCall,
    Waiting,
    WaitingCall,
    present_of_run,
)
from rh_agents.testing.conformance.suite import until
from tests.surfaces.cli_kit import Folder, command, environment, started
from tests.surfaces.test_cli_json_schemas import SCHEMAS

BUSY = Present(
    1000.0,
    in_flight=3,
    waiting=(Waiting("openai", 4, 960.0, "requests"),),
    retrying=(Retrying("ab", "pages[7]::fetch", 1012.0, 1),),
    retries=2,
    asking=1,
    groups=(GroupState("g", "pages", "pages", 3, 5, 40, 100),),
    breakers=(OpenBreaker("gateway", "half_open", 5),),
    budgets=(BudgetState("", {"cost": 5.0, "calls": 1000}, {"cost": 1.25, "calls": 50}, {"cost": 0.5}),),
    running=(RunningCall("cd", "pages[3]::\x1b[31mfetch", 958.0, 2),),
    outcomes=50,
    failed=2,
    usage=Usage(cost=1.25),
    last_outcome_at=999.0,
    began_at=900.0,
)


def text_of(present: Present, now: float, *, is_live: bool = True) -> list[str]:
    return ["  ".join(part.text for part in line if part.text) for line in now_lines(present, now, is_live=is_live)]


def test_a_run_at_work_is_said_in_a_few_lines() -> None:
    assert text_of(BUSY, 1000.0) == [
        "now  3 in flight  4 waiting  2 to be retried  1 open question",
        "  4 calls waiting for openai (requests) for 40 s",
        "  retrying in 12 s  pages[7]::fetch  after 1 attempt",
        "  longest 42 s  pages[3]::\\x1b[31mfetch  attempt 2",
        "  breaker gateway is half-open after 5 failures",
        "  the run's budget: $1.25 of $5.00 ($0.50 reserved), 50 of 1,000 calls",
    ]


def test_that_nothing_has_finished_is_said_with_the_place() -> None:
    lines = text_of(BUSY, 999.0 + QUIET_AFTER)
    assert "  nothing has finished for 5 min: pages[3]::\\x1b[31mfetch" in lines
    assert not any("longest" in line for line in lines)


def test_what_was_said_long_ago_says_so_and_after_a_crash_it_is_what_was_last_known() -> None:
    assert text_of(BUSY, 1030.0)[0].endswith("as of 30 s ago")
    after_a_crash = text_of(BUSY, 1000.0 + 7200.0, is_live=False)
    assert after_a_crash[0].startswith("then  3 in flight")
    assert after_a_crash[0].endswith("last known, 2 h ago")
    assert "  4 calls waiting for openai (requests) for 40 s" in after_a_crash
    assert text_of(BUSY.ended(), 1000.0) == []


def test_a_call_that_waits_says_for_what_and_since_when() -> None:
    present = replace(
        BUSY, held=(WaitingCall("ef", "pages[9]::fetch", "open\x1bai", 960.0), WaitingCall(None, "x", "y", 1.0))
    )
    assert waits_of(present, 1000.0) == {
        "ef": "waiting for open\\x1bai for 40 s",
        "ab": "to be tried again in 12 s",
    }
    assert waits_of(present.ended(), 1000.0) == waits_of(None, 1000.0) == {}


def test_show_does_not_call_running_what_waits_for_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    slots = ConcurrencyLimit(1, name="slots")

    @tool(limits=[slots])
    async def slow(number: int) -> int:
        await done.wait()
        return number

    done = asyncio.Event()

    async def main() -> None:
        store = open_store("runs.db")
        async with ExecutionState(store=store, run_id="monday"), parallel(2, name="pages") as p:
            p.map(slow, [1, 2])
            gathering = asyncio.ensure_future(p.gather())

            async def is_said() -> bool | None:
                present = await present_of_run(store, "monday")
                return (present is not None and bool(present.held)) or None

            await until(is_said)
            assert await asyncio.to_thread(command, "show", "monday", "--store", "runs.db") == 0
            done.set()
            await gathering
        await store.aclose()

    asyncio.run(main())
    shown = capsys.readouterr().out.splitlines()
    (first,) = [line for line in shown if "[0] slow" in line]
    (second,) = [line for line in shown if "[1] slow" in line]
    assert "running" in first
    assert "waiting for slots for" in second


def test_the_table_of_all_runs_has_what_each_is_doing() -> None:
    info = RunInfo("monday", updated_at=998.0, owner="me", outcomes=7)
    quiet, paused = Present(100.0, in_flight=1, began_at=0.0), Present(1000.0, paused_at=990.0)
    seen = [
        Seen(info, BUSY, 1.5),
        Seen(info, quiet),
        Seen(info, paused),
        Seen(info, None),
        Seen(info, None, problem="it is damaged"),
    ]
    rows = top_rows(seen, 1000.0)[1:]
    assert rows[0] == ("monday", "asking 1", "40/100", "2", "3", "6", "1.5/s", "$1.25", "0 s")
    assert rows[1][:3] == ("monday", "quiet 17 min", "0")
    assert rows[2][1] == "paused"
    assert rows[3][:3] == ("monday", "running", "7")
    assert rows[4][1] == "it is damaged"


def test_a_rate_is_that_of_the_last_half_minute() -> None:
    pace = Pace()
    assert pace.rate("a", 0.0, 0) is None
    assert pace.rate("a", 10.0, 20) == 2.0
    assert pace.rate("b", 10.0, 20) is None
    assert [pace.rate("a", float(at), 20) for at in range(20, 101, 10)][-1] == 0.0


MAP = ("map", "program.py:rate", "in.jsonl", "-o", "out.jsonl", "--run-id", "job", "--progress", "none")

# -- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return Folder(tmp_path)


def out_of(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    assert command(*words) == 0
    return capfd.readouterr().out


def test_a_failure_is_shown_and_exported_with_what_it_was_called_with(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "a", "bad\x1b[31m")
    folder.flag("broken")
    assert (
        command("map", "program.py:rate", "in.jsonl", "-o", "out.jsonl", "--run-id", "job", "--progress", "none") == 1
    )
    capfd.readouterr()
    shown = out_of(capfd, "show", "job").splitlines()
    place = next(number for number, line in enumerate(shown) if "ValueError" in line)
    assert shown[place + 1].strip() == 'with {"text":"bad\\u001b[31m","bonus":0.0}'
    assert sum("with {" in line for line in shown) == 1, "of failures alone"
    (group,) = json.loads(out_of(capfd, "show", "job", "--json"))["tree"]
    assert group["calls"][0]["input"] == '{"text":"a","bonus":0.0}'
    events = [json.loads(line) for line in out_of(capfd, "export", "job").splitlines()]
    outcomes = [json.loads(line) for line in out_of(capfd, "export", "job", "--outcomes").splitlines()]
    for records in (events, outcomes):
        found = {record["input"] for record in records if "input" in record}
        assert found == {'{"text":"a","bonus":0.0}', '{"text":"a"}', '{"text":"bad\\u001b[31m","bonus":0.0}'}
    assert not any("input" in record for record in events if record["status"] == "started")


@pytest.mark.parametrize(("how", "given"), [("none", None), ("full", '{"text":"a","bonus":0.0}')])
def test_a_command_says_what_is_recorded_of_inputs(
    folder: Folder, capfd: pytest.CaptureFixture[str], how: str, given: str | None
) -> None:
    folder.write("in.jsonl", "a")
    assert command(*MAP, "--record-inputs", how) == 0
    capfd.readouterr()
    (group,) = json.loads(out_of(capfd, "show", "job", "--json"))["tree"]
    assert group["calls"][0]["input"] == given
    assert command("run", "program.py:survey", "-i", "1", "--run-id", "s", "--record-inputs", how) == 0
    capfd.readouterr()
    (call,) = json.loads(out_of(capfd, "show", "s", "--json"))["tree"]
    assert call["input"] == (None if how == "none" else '{"count":1}')


def test_a_run_at_work_is_shown_with_what_it_does_now_and_in_the_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "runs.db")
    done = asyncio.Event()

    @tool
    async def work(number: int) -> int:
        await done.wait()
        return number

    @agent
    async def survey() -> None:
        async with parallel(2, name="pages") as p:
            p.map(work, range(5))
            await p.gather()

    def look(*words: str) -> str:
        looked = subprocess.run(
            [sys.executable, "-m", "rh_agents", *words, "--store", url],
            capture_output=True, text=True, check=True, env=environment(),
        )  # fmt: skip
        return looked.stdout

    async def main() -> tuple[str, str, str, str]:
        looking = open_store(url)

        async def at_work() -> bool | None:
            found = await present_of_run(looking, "r")
            return True if found is not None and found.in_flight == 2 else None

        async with ExecutionState(store=url, run_id="r", lease=0.5):
            executing = asyncio.create_task(survey().outcome())
            await until(at_work)
            shown = await asyncio.gather(
                asyncio.to_thread(look, "show", "r"),
                asyncio.to_thread(look, "show", "r", "--json"),
                asyncio.to_thread(look, "top"),
                asyncio.to_thread(look, "top", "--json"),
            )
            done.set()
            await executing
        await looking.aclose()
        return shown[0], shown[1], shown[2], shown[3]

    text, record, table, line = asyncio.run(main())
    assert "now  2 in flight" in text
    assert "  longest " in text
    now = json.loads(record)["now"]
    assert [call["address"] for call in now["running"]] == ["survey::pages[0]::work", "survey::pages[1]::work"]
    head, row = table.splitlines()
    assert head.split()[:3] == ["RUN", "STATUS", "DONE"]
    assert row.split()[:4] == ["r", "running", "0/5", "2"]
    found = json.loads(line)
    assert {name: found[name] for name in ("schema", "run_id", "status", "done", "total", "in_flight", "failed")} == {
        "schema": "rh-agents/top/1",
        "run_id": "r",
        "status": "running",
        "done": 0,
        "total": 5,
        "in_flight": 2,
        "failed": 0,
    }
    assert found.keys() >= SCHEMAS["rh-agents/top/1"]
    assert command("show", "r", "--store", url) == 0
    assert "in flight" not in capfd.readouterr().out, "it is over"


class Terminal:
    """A command at a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self._ours, its = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rh_agents", *words],
            stdin=its, stdout=its, stderr=its, env=environment(NO_COLOR="1", TERM="xterm"),
        )  # fmt: skip
        os.close(its)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Read until it is shown."""
        end = time.monotonic() + 30
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            self.shown += os.read(self._ours, 65536).decode("utf-8", "replace")

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def close(self) -> int:
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            os.close(self._ours)


@pytest.fixture
def at_work(folder: Folder) -> Iterator[subprocess.Popen[str]]:
    """A run that waits until the file `patient` is gone."""
    folder.write("in.jsonl", "a", "b")
    folder.flag("patient")
    with started(
        "map", "program.py:rate", "in.jsonl", "-o", "out.jsonl", "--run-id", "job", "--progress", "none"
    ) as it:
        yield it


def test_who_follows_a_run_at_a_terminal_sees_what_it_does_now(folder: Folder, at_work: subprocess.Popen[str]) -> None:
    while not folder.ledger:  # it has begun
        time.sleep(0.05)
    terminal = Terminal("show", "job", "-f")
    terminal.wait_for("now  2 in flight")
    terminal.wait_for("longest")
    folder.flag("patient", is_set=False)
    terminal.wait_for("job: completed")
    assert terminal.close() == 0


def test_the_table_is_drawn_until_q_is_pressed(folder: Folder, at_work: subprocess.Popen[str]) -> None:
    while not folder.ledger:
        time.sleep(0.05)
    terminal = Terminal("top", "--every", "0.2")
    terminal.wait_for("job  running")
    terminal.wait_for("q ends")
    terminal.type("q")
    assert terminal.close() == 0
