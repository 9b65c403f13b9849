"""Commands that steer a run which another process executes: `pause`, `unpause`, `set`, `requeue`, `cancel`."""

from __future__ import annotations

import json

import pytest

from tests.surfaces.cli_kit import Folder, command, started

QUIET = ("--progress", "none")


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
        while "instead" not in (preview := told(capfd, "set", "job", "max-workers=3", "--dry-run")):
            assert process.poll() is None, "the owner says about once a second what its numbers are"
        assert preview == "set job: max-workers=3 instead of 1 at once"
        done = told(capfd, "set", "job", "max-workers=3", "--reason", "faster")
        assert done == "max-workers=3 instead of 1 from now on"
        while not folder.ledger["waiting c!"]:
            assert process.poll() is None
        assert not folder.ledger["waiting d!"]
        assert "is paused: nothing new begins" in told(capfd, "pause", "job")
        assert "is paused already" in told(capfd, "pause", "job", code=1)
        done = json.loads(told(capfd, "unpause", "job", "--json"))
        assert (done["run_id"], done["verb"], done["applied"]) == ("job", "unpause", True)


def test_a_run_that_begins_paused_says_so_whatever_its_program_does_with_its_log(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.flag("wait")
    folder.write("in.jsonl", "a!", "b")
    with (folder.path / "program.py").open("a") as program:
        program.write('import logging\nlogging.getLogger("rh_agents").setLevel(logging.CRITICAL)\n')
    with started("map", "program.py:rate", "in.jsonl", "-n", "1", "--run-id", "job", *QUIET) as process:
        while not folder.ledger["waiting a!"]:
            assert process.poll() is None
        told(capfd, "pause", "job")
        process.kill()
        _, err = process.communicate(timeout=60)
        assert ": nothing new begins until `rh-agents unpause job`" in err
    folder.flag("wait", is_set=False)
    with started("resume", "job") as process:
        while not told(capfd, "runs", "--status", "running", "--json"):
            assert process.poll() is None
        told(capfd, "unpause", "job")
        _, err = process.communicate(timeout=60)
    first, *rest = err.splitlines()
    assert first == "run job begins paused: nothing new begins until `rh-agents unpause job`"
    assert any(line.startswith("unpaused") and line.endswith(": it goes on") for line in rest)
    assert "pause  completed" not in err


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
        preview = told(capfd, "cancel", "job", "a!", "d!", "--dry-run")
        assert preview.startswith("cancel job: 2 items")
        assert told(capfd, "cancel", "job", "a!", "d!") == "1 cancelled now, the others when their turn comes"
        out, _ = process.communicate(timeout=60)
    lines = {line["id"]: line for line in map(json.loads, out.splitlines())}
    assert [lines[name]["ok"] for name in ("a!", "bad", "c", "d!")] == [False, False, True, False]
    assert "d! was cancelled by" in lines["d!"]["error"]
    assert not folder.ledger["rate d!"]
    assert "4 done  1 failed  2 cancelled" in told(capfd, "show", "job")
    folder.flag("wait", is_set=False)
    folder.flag("broken", is_set=False)
    preview = json.loads(told(capfd, "requeue", "job", "--failed", "--dry-run", "--json"))
    assert (preview["calls"], preview["price"]) == (1, 0.0), "what was cancelled has to be named"
    assert "from its next start on 1 call is made again" in told(capfd, "requeue", "job", "d!")
    plan = told(capfd, "plan", "job")
    assert "1 call, as was asked for" in plan
    assert "1 made again" in plan.split("as it is now: ")[1]
    assert "'c' has succeeded" in told(capfd, "requeue", "job", "c", code=1)
    told(capfd, "resume", "job", code=1)
    made = folder.ledger
    assert (made["rate d!"], made["rate bad"], made["rate a!"], made["rate c"]) == (1, 2, 1, 1)


def test_a_failed_item_of_a_job_is_made_again_at_once_has_another_line_and_counts_once(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.flag("wait")
    folder.flag("broken")
    folder.write("in.jsonl", "bad", "c", "d!")
    job = ("map", "program.py:rate", "in.jsonl", "-o", "out.jsonl", "--run-id", "job")

    def written() -> list[tuple[str, bool, bool]]:
        lines = map(json.loads, (folder.path / "out.jsonl").read_text().splitlines())
        return [(line["id"], line["ok"], line.get("requeued", False)) for line in lines]

    with started(*job, *QUIET) as process:
        while not folder.ledger["waiting d!"] or not (folder.path / "out.jsonl").exists() or len(written()) < 2:
            assert process.poll() is None
        assert "1 call" in told(capfd, "requeue", "job", "bad", "--dry-run")
        folder.flag("broken", is_set=False)
        answer = json.loads(told(capfd, "requeue", "job", "--failed", "--json"))
        assert (answer["text"], answer["now"], answer["later"]) == ("1 now, 0 at the next start", 1, 0)
        while len(written()) < 3:
            assert process.poll() is None
        process.kill()
    first = [("bad", False, False), ("c", True, False), ("bad", True, True)]
    assert sorted(written()[:2]) == first[:2]
    assert written()[2] == first[2]
    folder.flag("wait", is_set=False)
    assert command(*job, "--force", *QUIET) == 0, "the newest line of the item is a good one"
    assert "3 done (3 ok, 0 failed), 2 reused, 1 called" in capfd.readouterr().err
    assert written() == [*written()[:2], first[2], ("d!", True, False)]
    assert folder.ledger["rate bad"] == 2
    told(capfd, *job, "--force", *QUIET)
    assert sorted(written()) == [("bad", True, False), ("c", True, False), ("d!", True, False)]
