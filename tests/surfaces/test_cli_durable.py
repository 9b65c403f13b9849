"""`map` and `run` as runs: the same command goes on, and nothing that is finished is called again."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from rh_agents import ExecutionState, open_store
from rh_agents.cli.recorded_command import derived_run_id
from tests.surfaces.cli_kit import Folder, command, environment, started

MAP = ("map", "program.py:rate")
QUIET = ("--progress", "none")


def names_of_runs(store: str = ".rh_agents/runs.db") -> list[str]:
    async def find() -> list[str]:
        opened = open_store(store)
        found = [info.run_id for info in await opened.runs()]
        await opened.aclose()
        return found

    return asyncio.run(find())


def status_of(run_id: str) -> str:
    async def find() -> str:
        opened = open_store(".rh_agents/runs.db")
        info = await opened.find_run(run_id)
        await opened.aclose()
        assert info is not None
        return info.status.value

    return asyncio.run(find())


# -- the same command again -------------------------------------------------------------------------------------------


def test_the_same_command_again_calls_nothing_and_writes_all_lines_anew(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "a", "b", "c")
    arguments = (*MAP, "in.jsonl", "-o", "out.jsonl", *QUIET)
    assert command(*arguments) == 0
    first, made = folder.lines(), folder.ledger
    capfd.readouterr()
    assert command(*arguments) == 0
    assert folder.lines() == first
    assert folder.ledger == made
    told = capfd.readouterr().err.splitlines()
    assert told[0].endswith(" continues: 6 finished calls recorded")
    assert told[1].startswith("3 done (3 ok, 0 failed), 3 reused, 0 called, 0 retried, ")
    assert told[2].startswith("nothing was called: all results were recorded; for new ones")


def test_standard_output_gets_all_lines_again(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.write("in.jsonl", "a", "b")
    assert command(*MAP, "in.jsonl", *QUIET) == 0
    first = capfd.readouterr().out
    assert command(*MAP, "in.jsonl", *QUIET) == 0
    assert capfd.readouterr().out == first
    assert len(first.splitlines()) == 2


def test_items_that_are_added_changed_or_moved_leave_the_others_recorded(folder: Folder) -> None:
    folder.write("in.jsonl", "a", "b", "c")
    assert command(*MAP, "in.jsonl", "-o", "out.jsonl", *QUIET) == 0
    folder.write("in.jsonl", "new", "c", "a", "changed")
    assert command(*MAP, "in.jsonl", "-o", "out.jsonl", *QUIET) == 0
    assert sorted(line["id"] for line in folder.lines()) == ["a", "c", "changed", "new"]
    assert folder.ledger["rate a"] == folder.ledger["rate c"] == folder.ledger["rate new"] == 1


def test_a_limit_does_not_make_it_another_run(folder: Folder) -> None:
    folder.write("in.jsonl", "a", "b", "c")
    assert command(*MAP, "in.jsonl", "-o", "out.jsonl", "--limit", "2", *QUIET) == 0
    assert command(*MAP, "in.jsonl", "-o", "out.jsonl", "-n", "1", *QUIET) == 0
    assert len(folder.lines()) == 3
    assert folder.ledger["rate a"] == 1
    assert len(names_of_runs()) == 1


def test_another_file_and_other_settings_are_other_runs(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write("in.jsonl", "a")
    folder.write("more.jsonl", "a")
    assert command(*MAP, "in.jsonl", *QUIET) == 0
    assert command(*MAP, "more.jsonl", *QUIET) == 0
    assert command(*MAP, "in.jsonl", "--set", "bonus=1", *QUIET) == 0
    assert command("map", "program.py:other", "in.jsonl", *QUIET) == 0
    assert len(set(names_of_runs())) == 4
    store = str(folder.path / ".rh_agents" / "runs.db")
    (folder.path / "below").mkdir()
    monkeypatch.chdir("below")
    assert command("map", "../program.py:rate", "../in.jsonl", "--store", store, *QUIET) == 0
    assert len(names_of_runs(store)) == 4, "the same file and the same function, seen from somewhere else"


def test_the_name_of_a_run_needs_no_quotes_and_tells_what_it_runs() -> None:
    name = derived_run_id("classify a/b", "map", "x")
    assert name.startswith("classify-a-b-")
    assert name == derived_run_id("classify a/b", "map", "x") != derived_run_id("classify a/b", "mapx")
    assert derived_run_id("…", "map").startswith("run-")


def test_store_none_records_nothing(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.write("in.jsonl", "a")
    for _ in range(2):
        assert command(*MAP, "in.jsonl", "--store", "none", *QUIET) == 0
    assert folder.ledger["rate a"] == 2
    assert not (folder.path / ".rh_agents").exists()
    assert "reused" not in capfd.readouterr().err


# -- the output file --------------------------------------------------------------------------------------------------


def test_the_output_of_something_else_is_not_written_over(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.write("in.jsonl", "a")
    folder.write("more.jsonl", "b")
    assert command(*MAP, "in.jsonl", "-o", "out.jsonl", *QUIET) == 0
    before = folder.lines()
    assert command(*MAP, "more.jsonl", "-o", "out.jsonl", *QUIET) == 2
    assert "out.jsonl exists and has content" in capfd.readouterr().err
    assert folder.lines() == before
    assert command(*MAP, "in.jsonl", "-o", "other.jsonl", *QUIET) == 0
    assert folder.lines("other.jsonl") == before
    assert folder.ledger["rate a"] == 1


def test_the_output_stays_as_it_is_while_another_process_executes_the_run(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "a", "b")
    arguments = (*MAP, "in.jsonl", "-o", "out.jsonl", "--run-id", "mine", *QUIET)
    assert command(*arguments) == 0
    before = folder.lines()
    capfd.readouterr()

    async def while_it_runs() -> int:
        store = open_store(".rh_agents/runs.db")
        async with ExecutionState(store=store, run_id="mine"):
            with started(*arguments) as process:
                code = await asyncio.to_thread(process.wait, 60)
                assert process.stderr is not None
                assert "rh-agents: run 'mine' is being executed by process" in process.stderr.read()
        await store.aclose()
        return code

    assert asyncio.run(while_it_runs()) == 1
    assert folder.lines() == before


# -- failures ---------------------------------------------------------------------------------------------------------


def test_failed_items_are_tried_again_unless_that_is_not_wanted(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "good", "bad")
    folder.flag("broken")
    arguments = (*MAP, "in.jsonl", "-o", "out.jsonl", *QUIET)
    assert command(*arguments) == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("to try the failed ones again: rh-agents resume rate-")
    folder.flag("broken", is_set=False)
    assert command(*arguments, "--no-retry-failed") == 1
    assert [line["ok"] for line in folder.lines()].count(False) == 1
    assert folder.ledger["rate bad"] == 1
    assert command(*arguments) == 0
    assert folder.ledger["rate bad"] == 2
    assert folder.ledger["rate good"] == 1


def test_bad_lines_are_not_recorded_so_that_mending_or_moving_them_has_its_effect(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    path = folder.write("in.jsonl", "a")
    path.write_text(path.read_text() + "no json\n" + '{"text": 5}\n')
    arguments = (*MAP, "in.jsonl", "-o", "out.jsonl", *QUIET)
    assert command(*arguments) == 1
    folder.write("in.jsonl", "a")
    path.write_text(path.read_text() + '{"text": 5}\n' + '{"text": "mended"}\n')
    capfd.readouterr()
    assert command(*arguments) == 1
    errors = [line["error"] for line in folder.lines() if not line["ok"]]
    assert errors == ["text: Input should be a valid string"], "not that of the line that stood there before"
    assert "3 done (2 ok, 1 failed), 1 reused, 1 called" in capfd.readouterr().err


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("map", "program.py:other", "in.jsonl"), "run 'mine' is `map program:rate`, and this is `map program:other`"),
        ((*MAP, "in.jsonl", "--set", "bonus=2"), "run 'mine' has the settings {}, and these are {\"bonus\": 2}"),
        (("run", "program.py:survey"), "run 'mine' is `map program:rate`, and this is `run program:survey`"),
        (("run", "program.py:survey", "--run-id", " "), "--run-id: a name is needed"),
    ],
)
def test_a_name_is_not_given_to_something_else(
    words: tuple[str, ...], told: str, folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "a")
    assert command(*MAP, "in.jsonl", "--run-id", "mine", *QUIET) == 0
    made = folder.ledger
    assert command(*words[:2], "--run-id", "mine", *words[2:], *QUIET) == 2
    assert told in capfd.readouterr().err
    assert folder.ledger == made


def test_a_named_map_takes_another_input_and_reuses_what_it_has_in_common(folder: Folder) -> None:
    folder.write("in.jsonl", "a", "b")
    folder.write("more.jsonl", "b", "c")
    assert command(*MAP, "in.jsonl", "--run-id", "mine", *QUIET) == 0
    assert command(*MAP, "more.jsonl", "--run-id", "mine", "-o", "out.jsonl", *QUIET) == 0
    assert folder.ledger["rate b"] == 1
    assert sorted(line["id"] for line in folder.lines()) == ["b", "c"]


def test_a_named_flow_refuses_another_input_and_names_both(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("run", "program.py:survey", "--run-id", "mine", *QUIET) == 0
    assert command("run", "program.py:survey", "--run-id", "mine", "-i", "2", *QUIET) == 2
    err = capfd.readouterr().err
    assert """input {"count":3}, and this is {"count":2}: name another one with --run-id""" in err
    assert "reuse=True" not in err


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ("runs.txt", "--store runs.txt: no store for 'runs.txt'"),
        ("folder.db", "folder.db"),
        ("text.db", "text.db"),
        ("mysql://user:secret@host/x", "--store mysql://user:***@host/x: no store"),
    ],
)
def test_a_store_that_does_not_work_is_a_sentence(
    store: str, told: str, folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "a")
    (folder.path / "folder.db").mkdir()
    (folder.path / "text.db").write_text("no database\n" * 1000)
    assert command(*MAP, "in.jsonl", "--store", store, *QUIET) in (1, 2)
    err = capfd.readouterr().err
    assert err.startswith("rh-agents: ")
    assert told in err
    assert len(err.splitlines()) == 1
    assert "secret" not in err
    assert folder.ledger == {}


# -- the end of a process ---------------------------------------------------------------------------------------------


def test_after_kill_9_the_same_command_goes_on_and_calls_twice_only_what_was_in_flight(folder: Folder) -> None:
    texts = [f"t{number}" for number in range(12)]
    folder.write("in.jsonl", *texts)
    arguments = (*MAP, "in.jsonl", "-o", "out.jsonl", "-n", "3", *QUIET)
    with started(*arguments, DIE_AT="t7") as process:
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    assert command(*arguments) == 0
    assert sorted(line["id"] for line in folder.lines()) == sorted(texts)
    made = folder.ledger
    twice = [text for text, count in made.items() if count > 1]
    assert "rate t7" in twice
    assert len([text for text in twice if text.startswith("rate")]) <= 3
    assert max(made.values()) == 2
    assert set(made) == {f"{name} {text}" for name in ("rate", "score") for text in texts}


def test_an_interruption_records_what_finishes_and_nothing_that_is_cut_off_and_says_how_to_go_on(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "a", "b!", "stop", "c", "d")
    folder.flag("wait")
    os.environ["INTERRUPT_AT"] = "stop"
    try:
        arguments = (*MAP, "in.jsonl", "-o", "out.jsonl", "--run-id", "my run", *QUIET)
        assert command(*arguments, "-n", "2", "--grace", "0.05") == 130
    finally:
        del os.environ["INTERRUPT_AT"]
    assert sorted(line["id"] for line in folder.lines()) == ["a", "stop"]
    told = capfd.readouterr().err.splitlines()
    assert told[0].startswith("interrupted: no more items are started; 2 in flight have 0.05 s")
    assert told[-1] == "resume with: rh-agents resume 'my run'"
    assert status_of("my run") == "started"
    folder.flag("wait", is_set=False)
    assert command("resume", "my run") == 0
    assert sorted(line["id"] for line in folder.lines()) == ["a", "b!", "c", "d", "stop"]
    assert folder.ledger["rate a"] == folder.ledger["score b!"] == 1
    assert folder.ledger["rate b!"] == 2


def test_a_job_that_a_failure_has_stopped_has_failed_and_one_whose_output_broke_has_not_ended(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "bad", "good")
    folder.flag("broken")
    fast = ("--error-strategy", "fail_fast", "-n", "1", "--run-id", "mine")
    assert command(*MAP, "in.jsonl", "-o", "out.jsonl", *fast, *QUIET) == 1
    assert capfd.readouterr().err.splitlines()[-1] == "resume with: rh-agents resume mine"
    assert status_of("mine") == "failed"
    assert command(*MAP, "in.jsonl", "-o", "/dev/full", "--run-id", "full", *QUIET) == 1
    assert "cannot write /dev/full: No space left on device; 0 lines are complete" in capfd.readouterr().err
    assert status_of("full") == "started"


# -- flows ------------------------------------------------------------------------------------------------------------


def test_a_flow_that_has_returned_is_not_executed_again(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert command("run", "program.py:survey", "-i", "2", *QUIET) == 0
    out, err = capfd.readouterr()
    assert out == "20\n20\n"
    assert "had returned this before, and nothing was called; for another one: --run-id NAME" in err
    assert folder.ledger["survey"] == 1


def test_a_flow_that_failed_goes_on_behind_what_it_had_finished(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.flag("broken")
    assert command("run", "program.py:survey", "--run-id", "mine", *QUIET) == 1
    assert status_of("mine") == "failed"
    folder.flag("broken", is_set=False)
    assert command("run", "program.py:survey", "--run-id", "mine", "--no-retry-failed", *QUIET) == 1
    assert folder.ledger["survey"] == 1
    assert command("run", "program.py:survey", "--run-id", "mine", *QUIET) == 0
    assert folder.ledger["survey"] == 2
    assert all(count == 1 for text, count in folder.ledger.items() if text.startswith("fetch"))


def test_a_flow_that_read_its_input_from_standard_input_can_be_resumed(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.flag("broken")
    done = subprocess.run(
        [sys.executable, "-m", "rh_agents", "run", "program.py:survey", "-i", "-", "--run-id", "mine"],
        input="2",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    folder.flag("broken", is_set=False)
    assert command("resume", "mine") == 0
    assert capfd.readouterr().out == "20\n"


def test_a_flow_that_asks_waits_is_answered_and_goes_on(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("run", "program.py:publish", "-i", '"a title"', "--run-id", "mine", *QUIET)
    with open(os.devnull) as nothing:
        before = os.dup(0)
        os.dup2(nothing.fileno(), 0)
        try:
            assert command(*words) == 3
        finally:
            os.dup2(before, 0)
    out, err = capfd.readouterr()
    assert out == ""
    told = err.splitlines()
    assert told[0] == "run mine waits for 1 answer:"
    question = told[1].split()[0]
    assert told[1:] == [
        f"  {question}  publish::ask: Publish?",
        "      answer: true or false",
        f"answer with: rh-agents answer mine {question} JSON",
        "then resume with: rh-agents resume mine",
    ]
    assert status_of("mine") == "awaiting"
    assert command("answer", "mine", question, "true") == 0
    assert command("resume", "mine") == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1]) == "a title is published"
    assert folder.ledger["fetch a title"] == 1


def test_on_a_terminal_the_question_is_asked_there(folder: Folder) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "rh_agents", "run", "program.py:publish", "-i", '"x"', *QUIET],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        os.close(theirs)
        os.write(ours, b"perhaps\ntrue\n")
        out, err = process.communicate(timeout=60)
    os.close(ours)
    assert (process.returncode, out) == (0, '"x is published"\n')
    assert err.count("publish::ask: Publish?") == 2
    assert "not accepted: the answer does not fit: Input should be a valid boolean" in err
