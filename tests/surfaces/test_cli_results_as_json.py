"""`run --json` and `resume --json`: one object says what came of a flow, however it ended; of a map, its summary."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.surfaces.cli_kit import QUIET, Folder, command, environment, said

STORE = ("--store", "runs.db")
SURVEY = ("run", "program.py:survey", "--run-id", "s", *STORE, *QUIET)


def found(capfd: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    """The one object that a command writes, which says nothing else."""
    out, err = said(capfd, *words, "--json", code=code)
    assert err == ""
    (line,) = out.splitlines()
    record: dict[str, Any] = json.loads(line)
    assert record["schema"] == "rh-agents/result/1"
    assert record["exit_code"] == code
    return record


def test_a_flow_that_succeeds_gives_its_result_and_says_the_second_time_that_nothing_was_called(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    first = found(capfd, *SURVEY)
    assert (first["status"], first["result"], first["reused"]) == ("completed", 30, False)
    assert (first["run_id"], first["store"], first["error"], first["resume"]) == ("s", "runs.db", None, None)
    again = found(capfd, *SURVEY)
    assert (again["result"], again["reused"]) == (30, True)
    assert folder.ledger["survey"] == 1


def test_a_flow_that_fails_says_why_and_how_to_resume(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.flag("broken")
    failed = found(capfd, *SURVEY, code=1)
    assert failed["status"] == "failed"
    assert failed["error"] == {
        "kind": "failed",
        "message": "ValueError: the survey is broken",
        "remedy": None,
        "exit_code": 1,
    }
    assert failed["resume"] == "rh-agents resume s --store runs.db"
    folder.flag("broken", is_set=False)
    assert found(capfd, "resume", "s", *STORE)["result"] == 30


def test_an_error_of_the_library_keeps_its_kind(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    (folder.path / "slow.py").write_text(
        "import asyncio\nfrom rh_agents import agent\n\n"
        "@agent(timeout=0.01)\nasync def wait():\n    await asyncio.Event().wait()\n"
    )
    assert found(capfd, "run", "slow.py:wait", *STORE, *QUIET, code=1)["error"]["kind"] == "call_timeout"


def test_what_a_program_says_has_no_remedy(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    (folder.path / "rude.py").write_text(
        "from rh_agents import agent\n\n@agent\nasync def refuse():\n    raise ValueError('no; never')\n"
    )
    error = found(capfd, "run", "rude.py:refuse", *STORE, *QUIET, code=1)["error"]
    assert (error["message"], error["remedy"]) == ("ValueError: no; never", None)


def test_a_flow_that_waits_gives_its_questions(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("run", "program.py:publish", "-i", '{"title": "x"}', "--run-id", "p", *STORE, *QUIET)
    waiting = found(capfd, *words, code=3)
    (question,) = waiting["questions"]
    assert (waiting["status"], waiting["result"]) == ("waiting", None)
    assert (question["text"], question["answer_schema"]) == ("Publish?", {"type": "boolean"})
    said(capfd, "answer", "p", question["id"], "true", *STORE)
    assert found(capfd, "resume", "p", *STORE)["result"] == "x is published"


def test_a_flow_whose_budget_is_spent_says_so_with_the_option_to_raise_it(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    stopped = found(capfd, *SURVEY, "--budget-calls", "2", code=1)
    assert stopped["status"] == "stopped"
    assert "budget" in stopped["stopped"]
    assert "--budget-calls" in stopped["resume"]


def test_a_flow_that_is_interrupted_says_so(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    (folder.path / "signal_flow.py").write_text(
        "import asyncio, signal\nfrom rh_agents import agent, current, tool\n\n"
        "@tool\nasync def one() -> int:\n    return 1\n\n"
        "@agent\nasync def flow():\n    signal.raise_signal(signal.SIGINT)\n"
        "    while not current().run.is_interrupted:\n        await asyncio.sleep(0)\n    return await one()\n"
    )
    out, err = said(capfd, "run", "signal_flow.py:flow", "--run-id", "i", *STORE, *QUIET, "--json", code=130)
    record = json.loads(out)
    assert (record["status"], record["exit_code"]) == ("interrupted", 130)
    assert record["resume"] == "rh-agents resume i --store runs.db"
    assert err.startswith("interrupted: no more calls begin")  # at once, for the person who pressed Ctrl-C


def test_a_flow_that_is_not_recorded_has_no_name_and_no_way_back(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.flag("broken")
    failed = found(capfd, "run", "program.py:survey", "--store", "none", *QUIET, code=1)
    assert (failed["run_id"], failed["store"], failed["resume"]) == (None, None, None)


def test_what_is_refused_is_an_error_as_in_other_commands(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("run", "program.py:survay", *STORE, "--json") == 2
    record = json.loads(capfd.readouterr().out)
    assert record["schema"] == "rh-agents/error/1"
    assert record["error"]["kind"] == "usage"


def test_that_json_was_wanted_once_is_not_kept_with_the_run(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    found(capfd, *SURVEY)
    assert said(capfd, "resume", "s", *STORE)[0] == "30\n"
    assert "--json" not in said(capfd, "show", "s", *STORE)[0]


def test_a_submitted_run_is_executed_here_with_the_same_object(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    said(capfd, "submit", "program.py:survey", "--run-id", "q", *STORE)
    assert found(capfd, "resume", "q", *STORE)["result"] == 30


def test_a_map_gives_its_summary_and_needs_another_place_for_its_results(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "one", "two")
    words = ("map", "program.py:rate", "in.jsonl", "--run-id", "m", *STORE, *QUIET, "--json")
    assert command(*words) == 2
    refused = json.loads(capfd.readouterr().out)["error"]
    assert "--summary-json FILE" in refused["remedy"]
    assert folder.ledger.total() == 0
    for each in (words, ("resume", "m", *STORE, "--json")):
        more = ("-o", "out.jsonl") if each is words else ()
        summary = json.loads(said(capfd, *each, *more)[0])
        assert (summary["schema"], summary["ok"], summary["exit_code"]) == ("rh-agents/map-summary/1", 2, 0)
    assert len(folder.lines()) == 2
    assert command(*words, "-o", "out.jsonl", "--summary-json", "sum.json") == 2
    assert "give one of them" in capfd.readouterr().out


def rh_agents(*words: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, which may start itself once more."""
    line = [sys.executable, "-m", "rh_agents", *words]
    return subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)


def test_a_job_in_the_background_says_what_its_line_is_or_why_there_is_no_job(folder: Folder) -> None:
    started = rh_agents(*SURVEY, "--detach", "--json")
    about = json.loads(started.stdout)
    assert about["schema"] == "rh-agents/detached/1"
    log, ends_at = Path(about["log"]), time.monotonic() + 60
    while "result" not in (text := log.read_text()):
        assert time.monotonic() < ends_at, text
        time.sleep(0.01)
    assert json.loads(text.splitlines()[-1])["result"] == 30
    refused = rh_agents("run", "program.py:survay", *STORE, "--detach", "--json")
    assert (refused.returncode, refused.stderr) == (2, "")
    assert json.loads(refused.stdout)["error"]["kind"] == "usage"
