"""What commands write with `--json`: objects that say what they are, with the fields that the documents name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from rh_agents.cli.app import app
from tests.surfaces.cli_kit import QUIET, ROOT, Folder, said

# Programs of users read these: to take one away, or to change what it means, is the next version.
SCHEMAS = {
    "rh-agents/answer/1": {"run_id", "answered", "open"},
    "rh-agents/backup/1": {"target", "runs", "bytes", "large_results"},
    "rh-agents/check/1": {"runs", "findings", "limitations"},
    "rh-agents/control/1": {"run_id", "verb", "text", "calls", "price", "request", "applied"},
    "rh-agents/delete/1": {"run_id", "status", "bytes", "deleted"},
    "rh-agents/detached/1": {"run_id", "store", "show", "stop", "pid", "log"},
    "rh-agents/doctor/1": {"about", "text", "state", "remedy"},
    "rh-agents/erase/1": {"run_id", "erased", "erased_at", "cached", "left"},
    "rh-agents/error/1": {"error"},
    "rh-agents/event/1": {"sequence", "timestamp", "status", "kind", "name", "actor", "address"},
    "rh-agents/gc/1": {"runs", "deleted", "freed_bytes"},
    "rh-agents/map-summary/1": {"run_id", "exit_code", "done", "ok", "failed", "is_complete", "resume", "error"},
    "rh-agents/outcome/1": {"key", "parent", "name", "address", "ok", "seconds", "attempts"},
    "rh-agents/plan/1": {"run_id", "counts", "calls", "groups", "input", "expected_cost", "requests", "changed"},
    "rh-agents/result/1": {
        "run_id",
        "store",
        "status",
        "exit_code",
        "result",
        "reused",
        "error",
        "stopped",
        "questions",
        "resume",
    },
    "rh-agents/run/1": {"run_id", "status", "workflow", "calls", "open_questions"},
    "rh-agents/score/1": set(),
    "rh-agents/show/1": {"run_id", "status", "usage", "usage_by_actor", "now", "tree"},
    "rh-agents/spans/1": {"run_id", "spans", "url"},
    "rh-agents/top/1": {
        "run_id",
        "status",
        "workflow",
        "owner",
        "calls",
        "done",
        "total",
        "failed",
        "in_flight",
        "waiting",
        "usage",
        "seen_at",
        "problem",
    },
    "rh-agents/web/1": {"address"},
    "rh-agents/web-export/1": {"run_id", "file", "bytes", "has_content"},
    "rh-agents/worker/1": {"what", "text", "run_id", "workflow", "version"},
}

COMMANDS: list[tuple[tuple[str, ...], int, str]] = [
    (("answer", "p"), 0, "answer"),
    (("backup", "copy.db"), 0, "backup"),
    (("check",), 0, "check"),
    (("requeue", "r", "bad", "--dry-run"), 0, "control"),
    (("delete", "r", "--dry-run"), 0, "delete"),
    (("doctor",), 0, "doctor"),
    (("erase", "r", "--values", "--dry-run"), 0, "erase"),
    (("show", "nothing"), 2, "error"),
    (("export", "r"), 0, "event"),
    (("export", "r", "--outcomes"), 0, "outcome"),
    (("export", "r", "--outcomes", "--no-content"), 0, "outcome"),
    (("gc", "--older-than", "1d", "--dry-run"), 0, "gc"),
    (("plan", "r"), 0, "plan"),
    (("fork", "r", "copy"), 0, "run"),
    (("runs",), 0, "run"),
    (("show", "r"), 0, "show"),
    (("run", "program.py:survey", *QUIET), 1, "result"),
]


@pytest.fixture
def runs(folder: Folder, capfd: pytest.CaptureFixture[str]) -> Folder:
    """A map with a failure, and a run that waits for an answer."""
    folder.flag("broken")
    folder.write("in.jsonl", "one", "bad")
    said(capfd, "map", "program.py:rate", "in.jsonl", "--run-id", "r", "--store", "runs.db", *QUIET, code=1)
    said(capfd, "run", "program.py:publish", "-i", '{"title": "x"}', "--run-id", "p", "--store", "runs.db", code=3)
    return folder


@pytest.mark.parametrize(("words", "code", "kind"), COMMANDS, ids=lambda each: each if isinstance(each, str) else "")
def test_each_line_says_what_it_is_and_has_the_fields_that_are_promised(
    runs: Folder, words: tuple[str, ...], code: int, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    out, err = said(capfd, *words, "--json", "--store", "runs.db", code=code)
    assert err == ""
    for line in out.splitlines():
        found = json.loads(line)
        assert next(iter(found)) == "schema"
        assert found["schema"] == f"rh-agents/{kind}/1"
        assert SCHEMAS[found["schema"]] <= found.keys()


def test_a_summary_of_a_map_has_its_fields_as_well(runs: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("map", "program.py:rate", "in.jsonl", "-o", "out.jsonl", "--summary-json", "-", *QUIET)
    found: Any = json.loads(said(capfd, *words, code=1)[0])
    assert SCHEMAS[found["schema"]] <= found.keys()


def test_the_documents_name_every_schema_and_no_other() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    assert set(re.findall(r"rh-agents/[a-z-]+/[0-9]+", page)) == SCHEMAS.keys()


def commands() -> Iterator[Any]:
    import typer  # noqa: PLC0415 - the commands are made when they are asked for

    group: Any = typer.main.get_command(app)
    for name in group.list_commands(None):
        yield group.get_command(None, name)


def test_every_command_has_json() -> None:
    has = {each.name: any("--json" in parameter.opts for parameter in each.params) for each in commands()}
    assert [name for name, is_there in has.items() if not is_there] == []


@pytest.mark.parametrize("what", [(), ("--outcomes",)], ids=["events", "outcomes"])
def test_an_export_without_content_has_nothing_of_what_calls_were_given_or_came_to(
    runs: Folder, what: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    whole = said(capfd, "export", "r", *what, "--store", "runs.db")[0]
    out = said(capfd, "export", "r", *what, "--no-content", "--store", "runs.db")[0]
    assert "cannot rate" in whole
    assert "0.3" in whole
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == len(whole.splitlines())
    assert all(line["seconds"] != 0.3 for line in lines if "seconds" in line)
    names = {"result", "input", "error", "message", "metadata", "tag", "control"}
    assert not names & {name for line in lines for name in line}
    assert "cannot rate" not in out
