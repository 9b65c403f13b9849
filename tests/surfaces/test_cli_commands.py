"""The commands as a user meets them: arguments in, exit code, standard output and standard error out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rh_agents.cli import main

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import asyncio, os, signal, sys, time
from rh_agents import parallel, tool
@tool
async def length(text: str) -> int:
    return len(text)
@tool
async def survey(count: int = 2) -> list[int]:
    async with parallel(name="pages") as p:
        p.map(length, ["x" * n for n in range(count)])
        return [result.unwrap() for result in await p.gather()]
async def broken(text: str = "") -> None:
    raise ValueError("first line\\nsecond line")
async def unwritable() -> bytes:
    return b"\\xff"
def stuck(text: str) -> None:
    print("running", file=sys.stderr, flush=True)
    time.sleep(1000)
async def killed(text: str) -> int:
    if text == "9":
        os.kill(os.getpid(), signal.SIGKILL)
    return len(text)
async def thrice(text: str) -> None:
    for _ in range(3):
        signal.raise_signal(signal.SIGINT)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "commands_of_a_test.py").write_text(CODE)
    (tmp_path / "in.jsonl").write_text('{"id": "a", "text": "hello"}\n{"id": "b", "text": ""}\n')
    yield tmp_path
    sys.modules.pop("commands_of_a_test", None)


@contextmanager
def started(*args: str, stdin: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """The command as a process, of which nothing is left when its block has ended."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    with subprocess.Popen(
        [sys.executable, "-m", "rh_agents", *args],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# -- map --------------------------------------------------------------------------------------------------------------


def test_map_writes_a_file_and_sums_up_on_standard_error(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "commands_of_a_test:length", "in.jsonl", "-o", "out.jsonl"]) == 0
    assert [json.loads(line)["result"] for line in (folder / "out.jsonl").read_text().splitlines()] == [5, 0]
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("2 done (2 ok, 0 failed), 0 retried, ")
    assert err.splitlines()[-1].endswith(" items/s, output in out.jsonl")


def test_map_writes_to_standard_output_if_no_file_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["map", "commands_of_a_test:length", "in.jsonl", "--progress", "none", "--ordered", "--limit", "1"]) == 0
    )
    out, err = capfd.readouterr()
    assert json.loads(out)["id"] == "a"
    assert len(err.splitlines()) == 1


def test_bad_lines_are_told_once_with_and_without_progress(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "in.jsonl").write_text('{"text": 5}\n')
    for progress in "lines", "none", "auto", "bar":
        assert main(["map", "commands_of_a_test:length", "in.jsonl", "--progress", progress]) == 1
        err = capfd.readouterr().err
        assert err.count("Input should be a valid string") == 1
        assert "in.jsonl:1: text: Input should be a valid string\n" in err
        assert "\x1b" not in err


def test_the_first_failure_is_told_at_the_end_if_nothing_was_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "commands_of_a_test:broken", "in.jsonl", "--progress", "none", "-n", "1"]) == 1
    assert "first failure: in.jsonl:1: ValueError: first line\n" in capfd.readouterr().err


def test_csv_and_set_and_id_field(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "in.csv").write_text("key,text\nk1,hello\n")
    assert main(["map", "commands_of_a_test:length", "in.csv", "--id-field", "key", "--set", "text=four"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert (record["id"], record["result"]) == ("k1", 4)


def test_an_output_with_content_is_written_over_only_with_force(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["map", "commands_of_a_test:length", "in.jsonl", "-o", "out.jsonl"]
    (folder / "out.jsonl").write_text("paid for\n")
    assert main(arguments) == 2
    assert (folder / "out.jsonl").read_text() == "paid for\n"
    assert (
        "out.jsonl exists and has content: name another file, or write over it with --force" in capfd.readouterr().err
    )
    assert main([*arguments, "--force"]) == 0
    assert len((folder / "out.jsonl").read_text().splitlines()) == 2
    (folder / "empty.jsonl").touch()
    assert main(["map", "commands_of_a_test:length", "in.jsonl", "-o", "empty.jsonl"]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nosuch.jsonl"], "cannot read nosuch.jsonl: No such file or directory"),
        (["."], "cannot read .: Is a directory"),
        (["in.jsonl", "-o", "no/such/out.jsonl"], "cannot write no/such/out.jsonl: there is no directory no/such"),
        (["in.jsonl", "-o", "."], "cannot write .: Is a directory"),
        (["in.jsonl", "-o", "in.jsonl", "--force"], "in.jsonl is the input as well as the output"),
        (["in.jsonl", "--fail-after", "0"], "--fail-after 0: a number of failures from 1 on, or a share"),
        (["in.jsonl", "--fail-after", "1.5"], "--fail-after 1.5: a number of failures from 1 on, or a share"),
        (["in.jsonl", "--fail-after", "x"], "--fail-after x: a number of failures from 1 on, or a share"),
        (["in.jsonl", "--fail-after", "2", "--error-strategy", "fail_fast"], "leave --fail-after out"),
        (["in.jsonl", "--timeout", "0"], "--timeout 0: seconds must be more than 0"),
        (["in.jsonl", "--set", "text"], "--set text: write NAME=JSON"),
        (["in.jsonl", "--max-workers", "0"], "--max-workers"),
        (["in.jsonl", "--nosuch"], "No such option"),
        ([], "Missing argument"),
    ],
)
def test_usage_errors_are_sentences_and_exit_code_2(
    arguments: list[str], told: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "in.jsonl").read_text()
    assert main(["map", "commands_of_a_test:length", *arguments]) == 2
    out, err = capfd.readouterr()
    assert told in err
    assert "Traceback" not in err
    assert out == ""
    assert (folder / "in.jsonl").read_text() == before


def test_the_help_names_every_option_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("output", "max-workers", "retry", "timeout", "error-strategy", "fail-after", "limit", "progress"):
        assert f"--{word}" in text
    for word in ("ordered", "grace", "format", "id-field", "set", "force", "store", "run-id", "no-retry-failed"):
        assert f"--{word}" in text
    assert "130 interrupted" in text


def test_without_typer_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "rh_agents.cli.app", raising=False)
    assert main(["map"]) == 2
    assert capsys.readouterr().err == "rh-agents: the commands need Typer: pip install 'rh_agents[cli]'\n"


def test_a_closed_standard_output_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["map", "commands_of_a_test:length", "in.jsonl"]) == 2
    assert "standard output is closed: name a file with -o" in capsys.readouterr().err


# -- run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ['{"count": 3}', "3", "@count.json"])
def test_run_prints_the_result_of_a_flow(value: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "count.json").write_text('{"count": 3}')
    assert main(["run", "commands_of_a_test:survey", "--input", value]) == 0
    assert capfd.readouterr().out == "[0,1,2]\n"


def test_run_without_input_calls_the_flow_without_arguments(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "commands_of_a_test:survey", "--progress", "none"]) == 0
    assert capfd.readouterr() == ("[0,1]\n", "")


@pytest.mark.parametrize(
    ("flow", "value", "told"),
    [
        ("survey", '{"cuont": 3}', "--input: survey takes no 'cuont'; did you mean 'count'?"),
        ("survey", '{"count": "x"}', "--input: count: Input should be a valid integer"),
        ("survey", "{count", "--input: not valid JSON: key must be a string"),
        ("length", "hello", """a text is written --input '"hello"'"""),
        ("survey", "@nosuch.json", "cannot read nosuch.json: No such file or directory"),
        ("nosuch", "1", "commands_of_a_test has no 'nosuch'"),
    ],
)
def test_what_is_wrong_with_the_input_of_a_flow_is_a_sentence(
    flow: str, value: str, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", f"commands_of_a_test:{flow}", "--input", value]) == 2
    out, err = capfd.readouterr()
    assert told in err
    assert out == ""


def test_a_flow_that_fails_is_one_line_and_all_of_it_with_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "commands_of_a_test:broken", "--progress", "none"]) == 1
    out, err = capfd.readouterr()
    failed, again = err.splitlines()
    assert (out, failed) == ("", "rh-agents: broken failed: ValueError: first line")
    assert again.startswith("to try what failed again: rh-agents resume broken-")
    assert main(["run", "commands_of_a_test:broken", "--progress", "none", "--traceback"]) == 1
    assert "second line" in capfd.readouterr().err


def test_a_flow_whose_result_has_no_json_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "commands_of_a_test:unwritable", "--progress", "none"]) == 1
    assert "the result cannot be written as JSON" in capfd.readouterr().err


# -- as a process -----------------------------------------------------------------------------------------------------


def test_items_come_in_and_go_out_through_pipes_one_by_one() -> None:
    with started(
        "map", "commands_of_a_test:length", "-", "--format", "text", "--progress", "none", stdin=-1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in "a", "bcd":  # each is answered before the next one is asked
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["result"] == len(text)
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_a_process_that_waits_for_its_input_ends_at_a_signal() -> None:
    with started(
        "map", "commands_of_a_test:length", "-", "--format", "text", "--progress", "none", stdin=-1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("a\n")
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        assert "interrupted: 1 done, 0 cancelled, the rest of the input not read" in process.stderr.read()


def test_when_the_reader_has_gone_what_is_left_and_how_to_go_on_is_told(folder: Path) -> None:
    (folder / "in.jsonl").write_text('{"text": "a"}\n' * 20_000)
    with started("map", "commands_of_a_test:length", "in.jsonl", "--progress", "none") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        first, left, counts, how = process.stderr.read().splitlines()
        assert process.wait(timeout=60) == 1
    assert first == "rh-agents: standard output was closed"
    assert left.startswith("not finished: ")
    assert " done (" in counts
    assert how.startswith("resume with: rh-agents resume length-")


def test_after_kill_9_there_are_the_lines_of_the_items_that_were_done(folder: Path) -> None:
    (folder / "in.txt").write_text("".join(f"{n}\n" for n in range(20)))
    with started("map", "commands_of_a_test:killed", "in.txt", "-o", "out.jsonl", "-n", "1") as process:
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    text = (folder / "out.jsonl").read_text()
    assert text.endswith("\n")
    found = [json.loads(line)["id"] for line in text.splitlines()]
    assert found == [str(number) for number in range(len(found))]
    assert len(found) >= 8  # the next item may begin before the line of the last one is written


def test_nobody_waits_for_a_thread_that_cannot_be_stopped(folder: Path) -> None:
    with started("map", "commands_of_a_test:stuck", "in.jsonl", "--progress", "none", "-n", "1") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("interrupted: no more items are started; 1 in flight")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert "interrupted: 0 done, 2 not done" in process.stderr.read()


def test_ctrl_c_lets_a_flow_finish_what_it_began_and_the_second_one_cancels_it() -> None:
    with started("run", "commands_of_a_test:stuck", "--input", '"a"', "--progress", "none") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == (
            "interrupted: no more calls begin; those under way have 30 s; once more cancels them\n"
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
        interrupted, how = process.stderr.read().splitlines()
        assert interrupted == "rh-agents: interrupted"
        assert how.startswith("resume with: rh-agents resume stuck-")


def test_the_third_signal_ends_the_process_whatever_it_does() -> None:
    with started("map", "commands_of_a_test:thrice", "in.jsonl", "--limit", "1") as process:
        process.communicate()
        assert process.returncode == -signal.SIGINT


def test_no_credential_is_shown_by_a_command(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "leaky.py").write_text(
        "from rh_agents import Secret, tool\n"
        "@tool\n"
        "async def connect(url: str) -> str:\n"
        "    Secret('db', 'hush-hush-hush')\n"
        "    raise ConnectionError(f'no hush-hush-hush at {url}')\n"
    )
    words = ("--store", "runs.db", "--run-id", "r", "--traceback", "--input", '"postgresql://me:pw@host/x"')
    assert main(["run", "leaky.py:connect", *words]) == 1
    assert main(["show", "r", "--store", "runs.db"]) == 0
    assert main(["runs", "--store", "runs.db"]) == 0
    out, err = capfd.readouterr()
    assert "no <secret:db> at postgresql://me:***@host/x" in err
    assert "hush-hush" not in out + err.replace("raise ConnectionError(f'no hush-hush-hush at {url}')", "")
    assert "pw@" not in out + err


def test_a_command_imports_no_other_command() -> None:
    code = "import sys; from rh_agents.cli import main; main(['runs', '--store', 'none.db']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    modules = [name for name in done.stdout.split() if name.startswith("rh_agents.cli.commands.")]
    assert sorted(modules) == ["rh_agents.cli.commands.common", "rh_agents.cli.commands.runs"]


def test_a_command_that_is_not_there_is_told_with_one_of_a_like_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shw", "x"]) == 2
    assert "No such command 'shw'. Did you mean 'show'?" in capsys.readouterr().err
