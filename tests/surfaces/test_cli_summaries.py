"""`map --summary-json`: what became of a job, for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rh_agents.cli.errors import OutputFailed
from rh_agents.cli.output.summary import Summary, summary_record
from tests.surfaces.cli_kit import QUIET, Folder, said, started


def summary(name: str = "summary.json") -> Any:
    return json.loads(Path(name).read_text())


def test_a_summary_says_what_the_lines_for_people_say(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.write("in.jsonl", "one", "two", "bad")
    folder.flag("broken")
    words = ("map", "program.py:rate", "in.jsonl", "--run-id", "r", "--store", "runs.db", *QUIET)
    said(capfd, *words, "--summary-json", "summary.json", code=1)
    found = summary()
    assert found.pop("seconds") > 0
    assert found.pop("first_failure").startswith("in.jsonl:3: ValueError: cannot rate")
    assert found == {
        "schema": "rh-agents/map-summary/1", "run_id": "r", "store": "runs.db", "output": None, "exit_code": 1,
        "total": 3, "done": 3, "ok": 2, "failed": 1, "bad": 0, "reused": 0, "called": 3, "cancelled": 0, "retries": 0,
        "is_complete": True, "is_interrupted": False, "stopped": None, "questions": [], "error": None,
        "resume": "rh-agents resume r --store runs.db",
    }  # fmt: skip
    folder.flag("broken", is_set=False)
    out, _ = said(capfd, *words, "--summary-json", "-", "-o", "out.jsonl")
    again = json.loads(out)
    assert (again["ok"], again["reused"], again["called"], again["output"]) == (3, 2, 1, "out.jsonl")
    assert again["resume"] is None
    assert said(capfd, "resume", "r", "--store", "runs.db", "-o", "new.jsonl")[0] == ""


def test_a_summary_is_of_this_job_or_not_there(folder: Folder) -> None:
    folder.write("in.jsonl", "one", "two")
    Path("summary.json").write_text("{}")
    words = ("map", "program.py:rate", "in.jsonl", "--summary-json", "summary.json", *QUIET)
    with started(*words, DIE_AT="two") as process:
        assert process.wait(60) == -9
    assert not os.path.exists("summary.json")
    with started(*words, INTERRUPT_AT="two") as process:
        assert process.wait(60) == 130
    found = summary()
    assert (found["is_interrupted"], found["exit_code"]) == (True, 130)


def test_where_a_summary_cannot_be_is_said_before_anything_is_called(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "one")
    words = ("map", "program.py:rate", "in.jsonl", *QUIET, "--summary-json")
    cases = [("none/s.json", "there is no directory none"), ("in.jsonl", "in.jsonl is the input as well as the output")]
    for name, problem in cases:
        assert problem in said(capfd, *words, name, code=2)[1]
    assert "out.jsonl is the output as well as" in said(capfd, *words, "out.jsonl", "-o", "out.jsonl", code=2)[1]
    out, err = said(capfd, *words, "-", code=2)
    assert err == ""
    assert json.loads(out)["error"]["message"].startswith("--summary-json -: the results go to standard output")
    assert not folder.ledger


def test_a_failure_of_a_job_is_an_error_in_its_summary() -> None:
    record = summary_record(Summary(failure=OutputFailed("cannot write x: no room; try again")), None, "", "", "")
    assert record["error"] == {
        "kind": "output_failed", "message": "cannot write x: no room; try again", "remedy": "try again", "exit_code": 1,
    }  # fmt: skip
    assert (record["is_complete"], record["run_id"], record["store"]) == (False, None, None)
