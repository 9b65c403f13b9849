"""`--json`: what is refused, or fails, is one JSON object on standard output, with the same exit code as without."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest

from rh_agents import ExecutionState, open_store, tool
from rh_agents.cli.errors import CommandError, Interrupted, error_record
from rh_agents.core.errors import ControlRefused, RunIsLive
from tests.surfaces.cli_kit import Folder, command

STORE = ("--store", "runs.db")


@tool
async def fetch(url: str) -> str:
    return url


def record() -> None:
    async def main() -> None:
        store = open_store("runs.db")
        async with ExecutionState(store=store, run_id="monday"):
            await fetch("a")
        await store.aclose()

    asyncio.run(main())


REFUSED = [
    (("show", "mondy"), 2, "no_such_run", "did you mean 'monday'?"),
    (("plan", "never"), 2, "no_such_run", "`rh-agents runs` lists them"),
    (("pause", "monday"), 1, "control_refused", "start it again to make what failed again"),
    (("unpause", "monday"), 1, "control_refused", "start it again to make what failed again"),
    (("set", "monday", "retry=2"), 1, "control_refused", "start it again to make what failed again"),
    (("set", "monday", "retry"), 2, "usage", None),
    (("cancel", "monday"), 1, "control_refused", "start it again to make what failed again"),
    (("requeue", "monday", "--failed"), 1, "control_refused", None),
    (("requeue", "monday", "fetsh"), 1, "control_refused", "did you mean 'fetch'?"),
    (("delete",), 2, "usage", None),
    (("erase", "monday"), 2, "usage", "`rh-agents delete` deletes a run"),
    (("erase", "monday", "--values"), 2, "usage", "--dry-run shows what it does"),
    (("runs", "--older-than", "soon"), 2, "usage", None),
    (("runs", "--colour"), 2, "usage", "rh-agents runs --help"),
    (("show",), 2, "usage", "rh-agents show --help"),
    (("runs", "--status", "sleepy"), 2, "usage", "rh-agents runs --help"),
]


@pytest.mark.parametrize(("words", "code", "kind", "remedy"), REFUSED, ids=lambda each: str(each)[:40])
def test_what_is_refused_is_one_object_and_says_what_the_sentence_says(
    folder: Folder,
    capfd: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    kind: str,
    remedy: str | None,
) -> None:
    record()
    capfd.readouterr()
    assert command(*words, *STORE) == code
    plain = capfd.readouterr()
    assert command(*words, *STORE, "--json") == code
    out, err = capfd.readouterr()
    assert err == ""
    (line,) = out.splitlines()
    schema, problem = json.loads(line).values()
    assert schema == "rh-agents/error/1"
    assert (problem["kind"], problem["remedy"], problem["exit_code"]) == (kind, remedy, code)
    if not (remedy or "").endswith("--help"):  # Typer draws a frame around its sentence
        assert plain.err == f"rh-agents: {problem['message']}\n"


def test_a_store_that_is_not_there_or_is_of_a_newer_version_is_said_as_json(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("runs", *STORE, "--json") == 2
    assert json.loads(capfd.readouterr().out)["error"]["kind"] == "no_such_store"
    record()
    with sqlite3.connect("runs.db") as database:
        database.execute("PRAGMA user_version = 99")
    capfd.readouterr()
    assert command("runs", *STORE, "--json") == 1
    problem = json.loads(capfd.readouterr().out)["error"]
    assert (problem["kind"], problem["remedy"]) == ("store", "upgrade rh_agents")


def test_a_word_behind_two_dashes_is_no_option(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    record()
    capfd.readouterr()
    assert command("show", *STORE, "--", "--json") == 2
    assert "there is no run '--json'" in capfd.readouterr().err


def test_the_kind_is_the_error_behind_the_one_of_the_command() -> None:
    def kind(error: BaseException, code: int) -> object:
        found = error_record(error, code)["error"]
        assert isinstance(found, dict)
        return found["kind"]

    wrapped = CommandError("no", exit_code=1)
    wrapped.__cause__ = ControlRefused("no")
    assert kind(wrapped, 1) == "control_refused"
    assert kind(RunIsLive("no", owner="me"), 1) == "run_is_live"
    assert kind(CommandError("no"), 2) == "usage"
    assert kind(CommandError("no", exit_code=1), 1) == "failed"
    assert kind(Interrupted(), 130) == "interrupted"
