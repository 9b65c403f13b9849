"""`--no-content`: what calls were given and came to is left out, so that the rest can be shown to others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.surfaces.cli_kit import QUIET, Folder, command, environment, said

STORE = ("--store", "runs.db")
PROGRAM = """
import asyncio, os
from rh_agents import agent, current, parallel, tool

@tool
async def look(word: str) -> str:
    if word == "hush-bad":
        raise ValueError("hush-error with " + word)
    return "hush-result of " + word

@agent
async def ask(title: str) -> str:
    async with parallel(name="words") as p:
        p.map(look, ["hush-good", "hush-bad"], name=lambda word: "word")
        await p.gather()
    return await current().run.ask("hush-question?", str)

@agent
async def fail(title: str) -> str:
    raise ValueError("hush-reason")

@agent
async def last(title: str) -> str:
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    await look("hush-good")
    return await look("hush-bad")
"""


@pytest.fixture
def runs(folder: Folder, capfd: pytest.CaptureFixture[str]) -> Folder:
    """A run that waits for an answer after a failure in a group, and one that has failed itself."""
    (folder.path / "quiet.py").write_text(PROGRAM)
    for name, code in (("ask", 3), ("fail", 1)):
        given = ("-i", '{"title": "hush-input"}')
        said(capfd, "run", f"quiet.py:{name}", *given, "--run-id", name, *STORE, *QUIET, code=code)
    return folder


@pytest.mark.parametrize("more", [(), ("--json",), ("--all",), ("--failed",), ("--follow",)])
def test_a_run_is_shown_with_its_calls_and_without_what_they_were_about(
    runs: Folder, more: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    name = "fail" if more == ("--follow",) else "ask"
    whole = said(capfd, "show", name, *more, *STORE)[0]
    out = said(capfd, "show", name, *more, "--no-content", *STORE)[0]
    assert "hush" in whole
    assert "hush" not in out
    assert ("word" if name == "ask" else "fail") in out


def test_what_is_left_out_is_null_in_json_so_that_its_fields_are_the_same(
    runs: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    whole: dict[str, Any] = json.loads(said(capfd, "show", "ask", "--json", *STORE)[0])
    out: dict[str, Any] = json.loads(said(capfd, "show", "ask", "--json", "--no-content", *STORE)[0])
    assert out.keys() == whole.keys()
    assert out["open_questions"] == 1
    group = out["tree"][0]["calls"][0]
    assert (group["completed"], group["failed"]) == (1, 1)
    assert [each["result"] for each in group["calls"]] == [None, None]
    assert [each["status"] for each in group["calls"]] == ["completed", "failed"]


def test_a_question_is_named_without_its_text(runs: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    out = said(capfd, "show", "ask", "--no-content", *STORE)[0]
    assert any(line.endswith("ask::ask") for line in out.splitlines())


def test_events_that_are_followed_have_no_content_either(runs: Folder) -> None:
    def begun(*words: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "rh_agents", *words, *STORE]
        return subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with begun("run", "quiet.py:last", "-i", '"hush-input"', "--run-id", "last") as executed:
        assert executed.stderr is not None
        assert "started" in executed.stderr.readline()
        with begun("show", "last", "--follow", "--no-content") as followed:
            assert followed.stdout is not None
            head = followed.stdout.readline()
            runs.flag("go")
            out = head + followed.stdout.read()
        assert "hush-error" in executed.stderr.read()
    assert "hush" not in out
    assert "last::look" in out
    assert "failed" in out


def test_text_that_streams_is_content(runs: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("show", "ask", "--follow", "--text", "--no-content", *STORE) == 2
    assert "give one of them" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["ask", "fail"])
def test_a_file_of_a_run_has_its_page_and_none_of_what_it_was_about(
    runs: Folder, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("starlette", reason="the page is not installed: pip install 'rh_agents[web]'")
    said(capfd, "web", "--export", name, "-o", "whole.html", *STORE)
    said(capfd, "web", "--export", name, "-o", "out.html", "--no-content", *STORE)
    whole, out = Path("whole.html").read_text(encoding="utf-8"), Path("out.html").read_text(encoding="utf-8")
    words = (
        {"hush-input", "hush-reason"}
        if name == "fail"
        else {"hush-input", "hush-result", "hush-error", "hush-question"}
    )
    assert {word for word in words if word not in whole} == set()
    assert "hush" not in out
    kept = json.loads(out.partition('id="kept">')[2].partition("</script>")[0])
    assert kept["about"] == {"read_only": True, "no_content": True}
    page = kept[f"run?run={name}"]
    assert page["totals"]["failed"] == 1
    assert [(kind["text"], kind["count"]) for kind in page["kinds"]] == [("kind 1 of failure", 1)]
    assert not [each for each in kept if each.startswith("call/value?")]


def test_a_page_that_is_served_has_all_of_it(runs: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("starlette", reason="the page is not installed: pip install 'rh_agents[web]'")
    assert command("web", "--no-content", *STORE) == 2
    assert "add --export RUN and -o FILE.html" in capfd.readouterr().err
