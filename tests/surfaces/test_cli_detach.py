"""`--detach`: real processes in the background, found by a line of JSON, and ended by their id alone."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.surfaces.cli_kit import Folder, command, environment, on_a_terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sessions of processes")
MAP = ("map", "program.py:rate", "in.jsonl", "-o", "out.jsonl", "--run-id", "job")
_STARTS_A_CHILD = """
import subprocess, sys
code = "import os, time; print(os.environ.get('RH_AGENTS_DETACHED'), flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", code], close_fds=False)
open("child", "w").write(str(child.pid))
"""
_PATIENCE = 30.0
"""Seconds after which a test fails instead of waiting on."""


@pytest.fixture
def pids() -> Iterator[list[int]]:
    """The processes that a test has started in the background: none is left behind."""
    found: list[int] = []
    yield found
    for pid in found:
        if is_there(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    made = Folder(tmp_path)
    made.write("in.jsonl", "a", "b")
    return made


def is_there(pid: int) -> bool:
    """Whether it runs; one that has ended and that nobody has asked about does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def until(holds: Callable[[], object], what: str) -> None:
    """Look again and again, and fail when that takes too long."""
    end = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < end, f"{what}, in {_PATIENCE:g} s"
        time.sleep(0.02)


def ran(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command as a process; it ends, though what it started goes on."""
    return subprocess.run(
        [sys.executable, "-m", "rh_agents", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(**more), timeout=60, check=False,
    )  # fmt: skip


def found_by(output: str, pids: list[int]) -> dict[str, Any]:
    (line,) = output.splitlines()
    record: dict[str, Any] = json.loads(line)
    pids.append(record["pid"])
    return record


def test_a_map_goes_on_in_a_session_of_its_own_and_is_found_and_stopped_by_its_name(
    folder: Folder, pids: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    folder.flag("patient")
    done = ran(*MAP, "--detach")
    assert (done.returncode, done.stderr) == (0, "")
    record = found_by(done.stdout, pids)
    pid = record["pid"]
    assert os.getsid(pid) == pid
    assert record["run_id"] == "job"
    assert record["store"] == str(folder.path / ".rh_agents" / "runs.db")
    assert (record["show"], record["stop"]) == ("rh-agents show job --follow", "rh-agents cancel job")
    log = Path(record["log"])
    assert log.parent == folder.path / ".rh_agents" / "runs.db-logs"
    assert log.name.startswith("job-")
    assert log.stat().st_mode & 0o077 == 0
    assert os.readlink(f"/proc/{pid}/fd/0") == os.devnull

    assert command("runs", "--json") == 0, "it is really open"
    info = json.loads(capfd.readouterr().out)
    assert info["status"] == "running"
    assert f"process {pid}" in info["owner"] or str(pid) in info["owner"]
    assert command("cancel", "job") == 0
    until(lambda: not is_there(pid), "the process has not ended")
    assert command("runs", "--json") == 0
    capfd.readouterr()
    assert "stopped" in log.read_text()


@pytest.mark.parametrize("name", ["it's; touch hacked $(date)", "\U00020000" * 60])
def test_a_run_of_any_name_is_found_by_commands_that_a_shell_takes_as_they_are(
    folder: Folder, pids: list[int], name: str
) -> None:
    done = ran(*MAP[:-1], name, "--detach")
    assert (done.returncode, done.stderr) == (0, "")
    record = found_by(done.stdout, pids)
    assert shlex.split(record["show"]) == ["rh-agents", "show", name, "--follow"]
    assert shlex.split(record["stop"]) == ["rh-agents", "cancel", name]
    assert Path(record["log"]).exists()


def test_it_outlives_its_terminal_and_writes_its_output(folder: Folder, pids: list[int]) -> None:
    folder.flag("patient")
    code, shown = on_a_terminal(b"", *MAP, "-n", "1", "--detach")  # which has hung up when this returns
    assert code == 0, shown
    record = found_by(shown.strip(), pids)
    assert is_there(record["pid"])
    folder.flag("patient", is_set=False)
    until(lambda: not is_there(record["pid"]), "the process has not ended")
    assert [(line["id"], line["result"]) for line in sorted(folder.lines(), key=str)] == [("a", 0.1), ("b", 0.1)]
    assert "2 done (2 ok, 0 failed)" in Path(record["log"]).read_text()


def test_a_flow_waits_for_its_answers_and_a_resume_goes_on_in_the_background_too(
    folder: Folder, pids: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    first = ran("run", "program.py:publish", "--input", '"x"', "--run-id", "asks", "--detach", "--log", "it.log")
    record = found_by(first.stdout, pids)
    assert record["log"] == str(folder.path / "it.log")
    until(lambda: not is_there(record["pid"]), "the process has not ended")
    log = Path("it.log").read_text()
    assert "run asks waits for 1 answer" in log
    question = log.split("answer with: rh-agents answer asks ")[1].split()[0]
    assert command("answer", "asks", question, "true") == 0
    capfd.readouterr()
    second = ran("resume", "asks", "--detach", "--log", "it.log")
    record = found_by(second.stdout, pids)
    assert record["run_id"] == "asks"
    until(lambda: not is_there(record["pid"]), "the process has not ended")
    text = Path("it.log").read_text()
    assert text.startswith(log), "a log is never written over"
    assert text.endswith('"x is published"\n')
    assert folder.ledger["fetch x"] == 1
    assert command("show", "asks") == 0
    assert "--detach" not in capfd.readouterr().out, "how it was started once is no part of the job"


def test_why_it_could_not_be_opened_is_shown_with_the_exit_code(folder: Folder, pids: list[int]) -> None:
    done = ran("map", "program.py:nosuch", "in.jsonl", "-o", "out.jsonl", "--detach")
    assert (done.returncode, done.stdout) == (2, "")
    assert "program has no 'nosuch'" in done.stderr
    assert not list(folder.path.glob(".rh_agents/runs.db-logs/*")), "nothing is left of it"
    folder.flag("patient")
    found_by(ran(*MAP, "--detach").stdout, pids)
    again = ran(*MAP, "--detach", "--log", "again.log")
    assert (again.returncode, again.stdout) == (1, "")
    assert "run 'job' is being executed by" in again.stderr
    assert Path("again.log").read_text() == again.stderr, "a log that has a name is kept"


def test_a_process_that_dies_before_its_run_is_open_is_told(folder: Folder) -> None:
    (folder.path / "program.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    done = ran(*MAP, "--detach")
    assert (done.returncode, done.stdout) == (128 + signal.SIGKILL, "")
    assert done.stderr == "rh-agents: the process ended before its run was open, with -9\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("map", "program.py:rate", "in.jsonl"), "name a file with -o OUT.jsonl"),
        (("map", "program.py:rate", "in.jsonl", "-o", "-"), "name a file with -o OUT.jsonl"),
        (("map", "program.py:rate", "-", "-o", "out.jsonl"), "- will not be there to read from; write the items to"),
        (("map", "program.py:rate", "/dev/stdin", "-o", "out.jsonl"), "/dev/stdin will not be there to read from"),
        (("run", "program.py:survey", "--input", "-"), "no standard input to read from; give the arguments in a file"),
        ((*MAP, "--store", "none"), "can only be found in a store that stays"),
        ((*MAP, "--store", ":memory:"), "can only be found in a store that stays"),
        ((*MAP, "--log", "out.jsonl"), "out.jsonl is the output as well as the output"),
        ((*MAP, "--log", "in.jsonl"), "in.jsonl is the input as well as the output"),
        ((*MAP, "--log", "no/such/it.log"), "--log no/such/it.log: No such file or directory"),
        (("resume", "nosuch"), "there is no store"),
    ],
)
def test_what_cannot_be_done_in_the_background_is_refused(folder: Folder, words: tuple[str, ...], why: str) -> None:
    before = (folder.path / "in.jsonl").read_text()
    done = ran(*words, "--detach")
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert (folder.path / "in.jsonl").read_text() == before
    assert not (folder.path / ".rh_agents").exists()


def test_a_log_needs_a_run_in_the_background_and_that_a_process_of_its_own(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(*MAP, "--log", "it.log") == 2
    assert capfd.readouterr().err == "rh-agents: --log is for a run in the background: it needs --detach\n"
    assert command(*MAP, "--detach") == 2
    assert "it is for the command rh-agents itself" in capfd.readouterr().err


def test_a_map_that_wrote_to_standard_output_is_resumed_in_the_background_with_another_output(
    folder: Folder, pids: list[int]
) -> None:
    assert ran("map", "program.py:rate", "in.jsonl", "--run-id", "job").returncode == 0
    refused = ran("resume", "job", "--detach")
    assert (refused.returncode, "name a file with -o OUT.jsonl" in refused.stderr) == (2, True)
    record = found_by(ran("resume", "job", "--detach", "-o", "out.jsonl").stdout, pids)
    until(lambda: not is_there(record["pid"]), "the process has not ended")
    assert len(folder.lines()) == 2
    assert folder.ledger["rate a"] == 1


def test_what_the_background_process_starts_does_not_keep_the_command_waiting(folder: Folder, pids: list[int]) -> None:
    """A child that outlives it has neither the pipe nor the variable, though it was started before the run was open."""
    (folder.path / "program.py").write_text(_STARTS_A_CHILD)
    done = ran(*MAP, "--detach", "--log", "it.log")
    child = int(Path("child").read_text())
    pids.append(child)
    assert is_there(child), "the command did not wait for its end"
    assert (done.returncode, "program has no 'rate'" in done.stderr) == (2, True)
    until(lambda: "None" in Path("it.log").read_text(), "the child has said nothing")
