"""`rh-agents erase`: contents go from every file, counts stay, and what needs the contents says so."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from rh_agents import open_store
from tests.surfaces.cli_kit import QUIET, Folder, command, on_a_terminal, said

PATIENT = "a patient by name"


@pytest.fixture
def asked(folder: Folder, capfd: pytest.CaptureFixture[str]) -> Folder:
    """A run `job` of a flow with an input, a result, a question and its answer, and a copy of it."""
    words = ("run", "program.py:publish", "--input", json.dumps(PATIENT), "--run-id", "job", "--tag", "night", *QUIET)
    assert command(*words) == 3
    capfd.readouterr()
    question = _question()
    assert command("answer", "job", question, "true") == 0
    assert command("resume", "job") == 0
    capfd.readouterr()
    return folder


def _question() -> str:
    async def read() -> str:
        store = open_store(".rh_agents/runs.db")
        try:
            (question,) = await store.questions("job")
            return question.id
        finally:
            await store.aclose()

    return asyncio.run(read())


def files_with(text: str) -> list[str]:
    """The files of the store in which a text stands."""
    return [
        path.name for path in Path(".rh_agents").rglob("*") if path.is_file() and text.encode() in path.read_bytes()
    ]


def test_contents_go_from_every_file_and_counts_stay(asked: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert files_with(PATIENT)
    before = json.loads(said(capfd, "runs", "--json")[0])
    out, err = said(capfd, "erase", "job", "--values", "--yes")
    assert err == ""
    assert "job  completed  3 finished calls" in out
    assert out.splitlines()[-1].startswith("3 values erased, 0 bytes of large results freed")
    assert files_with(PATIENT) == []
    after = json.loads(said(capfd, "runs", "--json")[0])
    assert after.pop("erased_at") > 0
    del before["erased_at"], before["facts"], after["facts"]
    assert after == before
    out, _ = said(capfd, "show", "job")
    assert "its values were erased on 20" in out
    assert "it cannot be resumed" in out
    assert "publish" in out
    assert "fetch" in out
    assert "its values were erased on 20" in said(capfd, "plan", "job")[0]
    assert said(capfd, "check")[0] == "1 run, no damage found\n"


def test_a_preview_erases_nothing(asked: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    said(capfd, "fork", "job", "copy")
    first, fork = said(capfd, "erase", "job", "--values", "--dry-run")[0].splitlines()
    assert first.startswith("job  completed  3 finished calls")
    assert first.endswith("would lose its values")
    assert fork == "  copy is a copy of it and stays"
    record = json.loads(said(capfd, "erase", "job", "--values", "--dry-run", "--json")[0])
    assert (record["run_id"], record["erased"], record["erased_at"], record["forks"]) == ("job", False, None, ["copy"])
    assert "needs --yes where there is no terminal" in said(capfd, "erase", "job", "--values", code=2)[1]
    assert "say what to erase: --values" in said(capfd, "erase", "job", "--yes", code=2)[1]
    assert files_with(PATIENT)


@pytest.mark.parametrize(("typed", "is_done"), [(b"\n", False), (b"y\n", True)])
def test_a_person_at_the_terminal_is_asked(asked: Folder, typed: bytes, is_done: bool) -> None:
    code, shown = on_a_terminal(typed, "erase", "job", "--values")
    assert "erase the values of run job for good? [y/N]" in shown
    assert (code, bool(files_with(PATIENT))) == (0 if is_done else 1, not is_done)


def test_what_needs_the_values_says_that_they_were_erased(asked: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    said(capfd, "fork", "job", "copy")
    said(capfd, "erase", "job", "--values", "--yes", "--json")
    ledger = asked.ledger
    again = ("run", "program.py:publish", "--input", json.dumps(PATIENT), "--run-id", "job", *QUIET)
    for words in (("resume", "job"), again, ("resume", "job", "--from", "publish"), ("fork", "job", "other")):
        out, err = said(capfd, *words, code=1)
        what = "copied" if words[0] == "fork" else "resumed"
        assert out == ""
        assert err.startswith(f"rh-agents: run 'job' cannot be {what}: its values were erased on 20")
        assert err.endswith("is gone; start it again under another name, or delete it first\n")
    for words in (("export", "job"), ("export", "job", "--outcomes")):
        out, err = said(capfd, *words)
        assert "its values were erased on 20" in err
        records = [json.loads(line) for line in out.splitlines()]
        assert sum(record.get("erased", False) for record in records) == 3
        assert all("result" not in record for record in records)
    assert "nothing to do: its values were erased on 20" in said(capfd, "erase", "job", "--values", "--yes")[0]
    assert said(capfd, "resume", "copy")[0].endswith(' is published"\n'), "the copy has its own"
    assert asked.ledger == ledger, "nothing was called"
    said(capfd, "delete", "job", "--yes")
    assert said(capfd, *again, code=3)[1]


def test_an_output_of_a_map_is_not_touched_when_its_run_cannot_be_resumed(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "a", "b")
    words = ("map", "program.py:rate", "in.jsonl", "-o", "out.jsonl", "--run-id", "job", *QUIET)
    said(capfd, *words)
    lines = folder.lines()
    said(capfd, "erase", "job", "--values", "--yes")
    _, err = said(capfd, *words, code=1)
    assert "run 'job' cannot be resumed: its values were erased on 20" in err
    assert folder.lines() == lines
