"""Commands that steer a run which another process executes: `pause`, `unpause`, `set`, `requeue`, `cancel`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.surfaces.cli_kit import Folder, command, started

QUIET = ("--progress", "none")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield Folder(tmp_path)
    sys.modules.pop("program", None)


def told(capfd: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What a command says; its exit code is expected."""
    capfd.readouterr()
    assert command(*words) == code
    out, err = capfd.readouterr()
    return (err if code else out).strip()


def test_a_job_that_another_process_executes_is_paused_gets_more_workers_and_goes_on(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.flag("wait")
    folder.write("in.jsonl", "a!", "b!", "c!", "d!")
    with started("map", "program.py:rate", "in.jsonl", "-n", "1", "--run-id", "job", *QUIET) as process:
        while not folder.ledger["waiting a!"]:
            assert process.poll() is None
        preview = told(capfd, "set", "job", "max-workers=3", "--dry-run")
        assert preview == "set job: now max-workers=3"
        assert told(capfd, "set", "job", "max-workers=3", "--reason", "faster") == "max-workers=3 from now on"
        while not folder.ledger["waiting c!"]:
            assert process.poll() is None
        assert not folder.ledger["waiting d!"]
        assert "is paused: nothing new begins" in told(capfd, "pause", "job")
        assert "is paused already" in told(capfd, "pause", "job", code=1)
        done = json.loads(told(capfd, "unpause", "job", "--json"))
        assert (done["run_id"], done["verb"], done["applied"]) == ("job", "unpause", True)


def test_what_cannot_be_asked_is_one_sentence(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.write("in.jsonl", "a")
    told(capfd, "map", "program.py:rate", "in.jsonl", "--run-id", "job", *QUIET)
    assert "run 'job' has ended: it is completed" in told(capfd, "pause", "job", code=1)
    assert "a setting is written NAME=NUMBER" in told(capfd, "set", "job", "max-workers", code=2)
    assert "did you mean max-workers" in told(capfd, "set", "job", "max-worker=3", code=1)
    assert "there is no run 'jobs'; did you mean 'job'" in told(capfd, "pause", "jobs", code=2)


def test_items_are_cancelled_and_made_again_by_name(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.flag("wait")
    folder.flag("broken")
    folder.write("in.jsonl", "a!", "bad", "c", "d!")
    with started("map", "program.py:rate", "in.jsonl", "-n", "1", "--run-id", "job", *QUIET) as process:
        while not folder.ledger["waiting a!"]:
            assert process.poll() is None
        assert told(capfd, "cancel", "job", "a!", "d!", "--dry-run") == "cancel job: 2 items"
        assert told(capfd, "cancel", "job", "a!", "d!") == "1 cancelled now, the others when their turn comes"
        out, _ = process.communicate(timeout=60)
    lines = {line["id"]: line for line in map(json.loads, out.splitlines())}
    assert [lines[name]["ok"] for name in ("a!", "bad", "c", "d!")] == [False, False, True, False]
    assert "d! was cancelled by" in lines["d!"]["error"]
    assert not folder.ledger["rate d!"]
    folder.flag("wait", is_set=False)
    folder.flag("broken", is_set=False)
    preview = json.loads(told(capfd, "requeue", "job", "--failed", "--dry-run", "--json"))
    assert (preview["calls"], preview["price"]) == (1, 0.0), "what was cancelled has to be named"
    assert "from its next start on 1 call is made again" in told(capfd, "requeue", "job", "d!")
    assert "'c' has succeeded" in told(capfd, "requeue", "job", "c", code=1)
    told(capfd, "resume", "job", code=1)
    made = folder.ledger
    assert (made["rate d!"], made["rate bad"], made["rate a!"], made["rate c"]) == (1, 2, 1, 1)
