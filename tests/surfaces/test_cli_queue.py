"""`rh-agents submit` and `rh-agents worker`."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.surfaces.cli_kit import Folder, command, started
from tests.surfaces.test_cli_json_schemas import SCHEMAS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_a_submitted_flow_waits_is_listed_and_is_executed_by_a_worker(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", "program.py:survey", "--input", "2", "--run-id", "a", "--priority", "3", "--tag", "shop"]
    assert command(*words) == 0
    out = capsys.readouterr()
    assert out.out == "a\n"
    assert "rh-agents worker" in out.err
    assert command(*words) == 0, "it is the same run"
    assert command("submit", "program.py:survey", "--run-id", "later", "--not-before", "2999-01-01T00:00") == 0
    shown(capsys)
    assert command("runs", "--status", "pending") == 0
    table = shown(capsys)
    assert "pending in queue default, priority 3" in table
    assert "not before 2999-01-01" in table
    assert folder.ledger == {}
    assert command("worker", "--until-empty") == 0
    assert "run a (survey, version 1): completed" in capsys.readouterr().err
    assert folder.ledger == {"survey": 1, "fetch http://x/0": 1, "fetch http://x/1": 1}
    assert command("runs", "--json") == 0
    infos = {each["run_id"]: each for each in map(json.loads, shown(capsys).splitlines())}
    assert (infos["a"]["status"], infos["a"]["queue"], infos["a"]["ready_at"]) == ("completed", "default", None)
    assert (infos["later"]["status"], infos["later"]["priority"]) == ("pending", 0)
    assert command("cancel", "later") == 0
    assert command("delete", "later", "--yes") == 0


def test_a_worker_says_for_programs_what_became_of_each_run(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.flag("broken")
    assert command("submit", "program.py:survey", "--run-id", "a") == 0
    assert command("submit", "program.py:publish", "--input", '{"title": "x"}', "--run-id", "b") == 0
    capsys.readouterr()
    assert command("worker", "--until-empty", "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [json.loads(line) for line in out.splitlines()]
    assert {line["schema"] for line in lines} == {"rh-agents/worker/1"}
    assert all(line.keys() == {"schema", *SCHEMAS["rh-agents/worker/1"]} for line in lines)
    assert lines[0]["what"] == "note"
    assert [(each["run_id"], each["what"]) for each in lines if each["run_id"] is not None] == [
        ("a", "begun"),
        ("a", "failed"),
        ("b", "begun"),
        ("b", "waiting"),
    ]
    assert [each["workflow"] for each in lines if each["what"] == "failed"] == ["survey"]
    folder.flag("broken", is_set=False)
    assert command("requeue", "a") == 0
    capsys.readouterr()
    assert command("worker", "--until-empty", "--json") == 0
    said = [json.loads(line)["what"] for line in capsys.readouterr().out.splitlines()]
    assert said == ["note", "resumed", "completed"]


def test_what_does_not_fit_is_refused_when_it_is_submitted(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["program.py:survey", "--input", '{"number": 2}'], "survey takes no 'number'"),
        (["program.py:survey", "--input", '"many"'], "--input"),
        (["program.py:nothing"], "has no 'nothing'"),
        (["program.py:survey", "--store", "none"], "keeps nothing"),
        (["program.py:survey", "--not-before", "soon"], "write a time"),
    ):
        assert command("submit", *words) == 2
        assert said in capsys.readouterr().err
    assert command("submit", "program.py:survey", "--run-id", "a", "--input", "1") == 0
    assert command("submit", "program.py:survey", "--run-id", "a", "--input", "2") == 1
    assert "another input" in capsys.readouterr().err


def test_a_failed_run_is_requeued(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.flag("broken")
    assert command("submit", "program.py:survey", "--run-id", "a") == 0
    assert command("worker", "--until-empty") == 0
    assert "failed: ValueError: the survey is broken" in capsys.readouterr().err
    folder.flag("broken", is_set=False)
    assert command("requeue", "a") == 0
    assert "waits for a worker of queue default" in shown(capsys)
    assert command("worker", "--until-empty") == 0
    assert folder.ledger["survey"] == 2
    assert folder.ledger["fetch http://x/0"] == 1


@pytest.mark.parametrize("option", ["client", "client=", "=program:fetch", "client=program.py:PROGRAM"])
def test_a_factory_that_is_none_is_refused(folder: Folder, option: str) -> None:
    assert command("worker", "--inject", option, "--until-empty") == 2


def test_a_worker_that_is_told_to_end_hands_its_run_on(folder: Folder) -> None:
    folder.flag("patient")
    (folder.path / "shop.py").write_text(
        "from program import rate\nasync def job(text: str) -> float:\n"
        "    return await rate(text) + await rate(text + '2')\n"
    )
    assert command("submit", "shop:job", "--run-id", "a", "--input", "hello") == 2, "a text is JSON"
    assert command("submit", "shop:job", "--run-id", "a", "--input", '"hello"') == 0
    with started("worker") as process:
        ends_at = time.monotonic() + 60
        while not folder.ledger["waiting hello"]:
            assert time.monotonic() < ends_at
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "no more runs are taken" in said
    folder.flag("patient", is_set=False)
    assert command("worker", "--until-empty") == 0
    assert (folder.ledger["rate hello"], folder.ledger["rate hello2"]) == (1, 1)


def test_a_submitted_run_is_resumed_with_the_command_instead_of_by_a_worker(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.flag("broken")
    assert command("submit", "program.py:survey", "--input", "2", "--run-id", "a") == 0
    assert command("resume", "a") == 1
    assert "failed" in capfd.readouterr().err
    folder.flag("broken", is_set=False)
    assert command("resume", "a") == 0
    out = capfd.readouterr()
    assert json.loads(out.out) == 20
    assert "started from Python code" not in out.err
    assert command("runs", "--json") == 0
    (info,) = map(json.loads, capfd.readouterr().out.splitlines())
    assert (info["status"], info["ready_at"]) == ("completed", None)
    before = folder.ledger
    assert command("resume", "a") == 0
    assert command("worker", "--until-empty") == 0
    assert folder.ledger == before, "there is nothing left to call"


def test_what_a_submitted_run_needs_to_be_resumed_is_said(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("submit", "program.py:survey", "--run-id", "a") == 0
    assert command("resume", "a", "-o", "out.jsonl") == 2
    assert "-o, --detach and --log are not for it" in capsys.readouterr().err
    (folder.path / "program.py").rename(folder.path / "elsewhere.py")
    assert command("resume", "a") == 2
    assert "run 'a':" in capsys.readouterr().err


SHOP = """
from contextlib import asynccontextmanager
from typing import Annotated, Any
from rh_agents import Injected
from program import note, fetch, rate, survey

class Client:
    greeting = "hello"

@asynccontextmanager
async def client():
    note("client made")
    yield Client()
    note("client left")

async def greet(name: str, client: Annotated[Any, Injected]) -> str:
    note(f"greet {name}")
    return f"{client.greeting} {name}"

async def twice(text: str) -> float:
    return await rate(text) + await rate(text + "2")
"""


@pytest.fixture
def shop(folder: Folder) -> Folder:
    (folder.path / "florist.py").write_text(SHOP)
    return folder


def test_options_of_a_resume_hold_for_a_submitted_run(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.flag("broken")
    assert command("submit", "program.py:survey", "--input", "2", "--run-id", "a") == 0
    assert command("resume", "a", "--budget-calls", "2") == 1
    said = capfd.readouterr().err
    assert "calls=2, does not suffice" in said
    assert "--budget-calls MORE" in said
    assert command("resume", "a") == 1, "it goes on, and fails"
    fetched = sum(count for text, count in folder.ledger.items() if text.startswith("fetch"))
    assert fetched == 2
    surveyed = folder.ledger["survey"]
    folder.flag("broken", is_set=False)
    assert command("resume", "a", "--no-retry-failed") == 1
    assert folder.ledger["survey"] == surveyed, "its failure is repeated"
    assert command("resume", "a") == 0
    assert command("resume", "a", "--from", "survey::pages[1]::fetch") == 0
    assert (folder.ledger["fetch http://x/0"], folder.ledger["fetch http://x/1"]) == (1, 2)


def test_what_is_injected_into_a_submitted_run_is_made_here_and_left_at_the_end(
    shop: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("submit", "florist:greet", "--input", '"Ada"', "--run-id", "a") == 0
    assert command("resume", "a") == 2
    assert "--inject client=MODULE:FUNCTION" in capfd.readouterr().err
    assert not shop.ledger
    assert command("resume", "a", "--inject", "client=florist:client") == 0
    assert json.loads(capfd.readouterr().out) == "hello Ada"
    assert list(shop.ledger) == ["client made", "greet Ada", "client left"]


def test_a_submitted_run_whose_code_is_another_one_by_now_is_executed_as_it_is_here_and_says_so(
    shop: Folder,
) -> None:
    assert command("submit", "florist:twice", "--input", '"good"', "--run-id", "a") == 0
    (shop.path / "florist.py").write_text(SHOP.replace("text + ", "'once more ' + text + "))
    with started("resume", "a") as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "florist:twice has another source here than where it was submitted" in said
    assert shop.ledger["rate once more good2"] == 1


def test_a_submitted_run_asks_and_says_how_to_answer(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("submit", "program.py:publish", "--input", '"a title"', "--run-id", "a") == 0
    assert command("resume", "a") == 3
    said = capfd.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith("answer with: ")]
    words = line.removeprefix("answer with: rh-agents ").split()
    assert words[:2] == ["answer", "a"]
    assert command(*words[:-1], "true") == 0
    assert command("resume", "a") == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1]) == "a title is published"
    assert folder.ledger["fetch a title"] == 1


def test_a_submitted_run_that_a_worker_executes_is_not_executed_here(
    shop: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    shop.flag("patient")
    assert command("submit", "florist:twice", "--input", '"good"', "--run-id", "a") == 0
    with started("worker"):
        ends_at = time.monotonic() + 60
        while not shop.ledger["waiting good"]:
            assert time.monotonic() < ends_at
            time.sleep(0.02)
        assert command("resume", "a") == 1
    said = capfd.readouterr().err
    assert "run 'a' is being executed by" in said
    assert "Traceback" not in said
