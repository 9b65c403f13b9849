"""`RH_AGENTS_STORE` names the store of who names none, for the commands and for programs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rh_agents import agent, open_store, run, run_sync
from rh_agents.core.errors import OptionError
from rh_agents.stores._environment import VARIABLE, named_by_environment
from tests.surfaces.cli_kit import Folder, command


@agent
async def survey(text: str = "a") -> str:
    return text


def runs_in(store: str) -> list[str]:
    async def names() -> list[str]:
        opened = open_store(store)
        try:
            return [info.run_id for info in await opened.runs()]
        finally:
            await opened.aclose()

    return asyncio.run(names())


WRONG = [
    ("", "RH_AGENTS_STORE is empty: let it name a store, such as runs.db, or unset it"),
    ("redis://host", "RH_AGENTS_STORE: no store for 'redis://…': there are"),
    ("program.py/runs.db", "program.py is no directory"),
]


def test_a_program_records_where_the_variable_says(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sync(survey, run_id="not recorded", store=None)
    monkeypatch.setenv(VARIABLE, "here.db")
    run_sync(survey, run_id="one")
    asyncio.run(run(survey, run_id="two"))
    asyncio.run(run.submit(survey, run_id="three"))
    run_sync(survey, run_id="not this one", store=None)
    run_sync(survey, run_id="nor this one", store="other.db")
    assert sorted(runs_in("here.db")) == ["one", "three", "two"]
    assert runs_in("other.db") == ["nor this one"]


def test_who_submits_a_run_and_names_no_store_is_told_both_ways() -> None:
    with pytest.raises(OptionError, match="name one with store=, or by the variable RH_AGENTS_STORE"):
        asyncio.run(run.submit(survey))


@pytest.mark.parametrize(("given", "says"), WRONG)
def test_what_the_variable_cannot_say_is_refused_with_its_name_and_an_option_wins(
    given: str, says: str, folder: Folder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "a")
    run_sync(survey, run_id="monday", store="good.db")
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(OptionError, match=VARIABLE):
        run_sync(survey)
    run_sync(survey, store="good.db")
    for words in (("runs",), ("map", "program.py:rate", "in.jsonl")):
        assert command(*words) == 2
        out, err = capfd.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        assert VARIABLE in err
        assert says in err
    assert command("runs", "--store", "good.db") == 0


def test_a_file_that_may_not_be_written_is_refused_before_anything_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "runs.db"
    there.touch()
    may_do: list[Callable[[str, int], bool]] = [lambda _, __: False, lambda _, how: not how & os.W_OK]
    for path in (there, tmp_path / "deep" / "er" / "runs.db"):
        monkeypatch.setenv(VARIABLE, str(path))
        assert named_by_environment() == str(path)
        for access in may_do:
            with pytest.raises(OptionError, match=f"^{VARIABLE}={path}: no permission to .*{path}; name a file that"):
                named_by_environment(access)


def test_the_commands_look_where_the_variable_says_and_their_hints_hold_without_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "there.db")
    folder.flag("broken")
    assert command("run", "program.py:survey", "--progress", "none") == 1
    _, err = capfd.readouterr()
    (line,) = [line for line in err.splitlines() if "resume" in line]
    assert line.endswith("--store there.db")
    assert command("runs") == 0
    assert "survey" in capfd.readouterr().out
    assert command("run", "program.py:survey", "--store", "none", "--progress", "none") == 1


def test_a_store_that_is_beside_the_one_that_is_not_there_is_named(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    run_sync(survey, run_id="monday", store="other.db")
    Path("notes.db").write_text("no database")
    assert command("show", "monday") == 2
    assert "there is other.db: --store other.db" in capfd.readouterr().err
    assert command("show", "monday", "--store", "othr.db") == 2
    assert "there is other.db: --store other.db" in capfd.readouterr().err


def test_a_run_that_is_not_in_one_store_may_be_in_one_beside_it(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    run_sync(survey, run_id="monday", store="one.db")
    run_sync(survey, run_id="tuesday", store="two.db")
    assert command("show", "tuesday", "--store", "one.db") == 2
    assert "there is no run 'tuesday' in one.db; there is one in two.db: --store two.db" in capfd.readouterr().err
    Path("a.db").write_bytes(Path("one.db").read_bytes())  # a copy, whose name comes before
    assert command("show", "tuesday", "--store", "one.db") == 2
    assert "there is one in two.db: --store two.db" in capfd.readouterr().err
    assert command("show", "wednesday", "--store", "one.db") == 2
    assert "another store is there: --store a.db" in capfd.readouterr().err


def test_of_a_store_and_its_copy_the_one_in_which_the_run_went_on_is_named(
    folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    run_sync(survey, run_id="monday", store="one.db")
    run_sync(survey, run_id="tuesday", store="two.db")
    Path("a.db").write_bytes(Path("two.db").read_bytes())
    run_sync(survey, "another text", run_id="tuesday", store="two.db", reuse=True)
    assert command("show", "tuesday", "--store", "one.db") == 2
    assert "there is one in two.db: --store two.db" in capfd.readouterr().err


def test_run_says_where_the_run_is_and_how_to_try_again(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.flag("broken")
    assert command("run", "program.py:survey", "--run-id", "monday", "--progress", "lines") == 1
    err = capfd.readouterr().err
    assert "run monday is recorded; look at it with: rh-agents show monday" in err
    assert "to try what failed again: rh-agents resume monday" in err
