"""`rh-agents delete`: what it shows before, when it asks, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rh_agents import ExecutionState, open_store
from rh_agents.cli.kept_runs import Kept, delete_runs, kept_of
from rh_agents.core.errors import RunIsLive
from rh_agents.core.ports import Store
from tests.surfaces.cli_kit import QUIET, Folder, command, on_a_terminal, said

STORE = ".rh_agents/runs.db"


@pytest.fixture
def mapped(folder: Folder, capfd: pytest.CaptureFixture[str]) -> Folder:
    """Runs `job` and `night` over two items each, and `copy` of the first one."""
    folder.write("in.jsonl", "a", "b")
    for name in ("job", "night"):
        assert command("map", "program.py:rate", "in.jsonl", "--run-id", name, *QUIET) == 0
    assert command("fork", "job", "copy") == 0
    capfd.readouterr()
    return folder


def names() -> list[str]:
    async def read() -> list[str]:
        store = open_store(STORE)
        try:
            return sorted(info.run_id for info in await store.runs())
        finally:
            await store.aclose()

    return asyncio.run(read())


def test_a_preview_says_what_goes_and_what_stays_and_deletes_nothing(
    mapped: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    out, _ = said(capfd, "delete", "job", "--dry-run")
    first, fork, last = out.splitlines()
    assert first.startswith("job  completed  4 finished calls  ")
    assert first.endswith("would be deleted")
    assert fork == "  copy is a copy of it and stays"
    assert last == "1 run would be deleted"
    (record,) = [json.loads(line) for line in said(capfd, "delete", "job", "--dry-run", "--json")[0].splitlines()]
    assert record.pop("schema") == "rh-agents/delete/1"
    assert record.pop("bytes") > 100
    assert record == {
        "run_id": "job", "status": "completed", "calls": 4, "artifacts": 0, "artifact_bytes": 0, "forks": ["copy"],
        "deleted": False,
    }  # fmt: skip
    assert names() == ["copy", "job", "night"]


def test_named_runs_are_deleted_and_their_copies_stay(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    out, err = said(capfd, "delete", "job", "night", "job", "--yes")
    assert err == ""
    assert out.splitlines()[-2:] == ["2 runs deleted", "0 bytes of large results freed"]
    assert names() == ["copy"]
    assert command("resume", "copy", *("-o", "copy.jsonl")) == 0
    assert mapped.ledger["rate a"] == 2, "the copy has its own results"
    out, _ = said(capfd, "delete", "copy", "--yes", "--json")
    assert json.loads(out)["deleted"] is True
    assert names() == []


def test_without_a_terminal_it_needs_a_yes(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    _, err = said(capfd, "delete", "job", "night", code=2)
    assert err == (
        "rh-agents: to delete 2 runs for good needs --yes where there is no terminal to ask at; "
        "--dry-run shows what it does\n"
    )
    assert names() == ["copy", "job", "night"]


@pytest.mark.parametrize(("typed", "left"), [(b"\n", True), (b"n\n", True), (b"y\n", False), (b"YES\n", False)])
def test_a_person_at_the_terminal_is_asked(mapped: Folder, typed: bytes, left: bool) -> None:
    code, shown = on_a_terminal(typed, "delete", "night")
    assert "delete 1 run for good? [y/N]" in shown
    assert "night  completed  4 finished calls" in shown, "the preview comes before the question"
    assert (code, "night" in names()) == (1 if left else 0, left)


def test_runs_are_chosen_by_age_and_status(mapped: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    assert said(capfd, "delete", "--older-than", "1d", "--yes")[0] == "0 runs deleted\n"
    out, _ = said(capfd, "delete", "--older-than", "0s", "--dry-run")
    assert out.splitlines()[-1] == "2 runs would be deleted", "the copy has not ended"
    said(capfd, "delete", "--status", "interrupted", "--yes")
    assert names() == ["job", "night"]
    said(capfd, "delete", "--older-than", "0s", "--status", "completed", "--yes")
    assert names() == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "no run: give the names of runs, or choose them by --older-than and --status"),
        (("job", "--older-than", "1d"), "both names and --older-than or --status: give the names of runs, or choose"),
        (("--status", "running"), "cancel it first"),
        (("--older-than", "30"), "write a number and a unit"),
        (("jib",), "there is no run 'jib'; did you mean 'job'?"),
        (("job", "jib"), "there is no run 'jib'; did you mean 'job'?"),
    ],
)
def test_what_is_not_clear_is_refused(
    mapped: Folder, words: tuple[str, ...], why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    out, err = said(capfd, "delete", *words, "--yes", code=2)
    assert (out, why in err) == ("", True), err
    assert names() == ["copy", "job", "night"]


@asynccontextmanager
async def live(name: str) -> AsyncIterator[None]:
    store = open_store(STORE)
    try:
        async with ExecutionState(store=store, run_id=name):
            yield
    finally:
        await store.aclose()


def test_a_run_that_is_executed_is_refused_with_who_executes_it_and_the_remedy(
    mapped: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with live("job"):
            assert await asyncio.to_thread(command, "delete", "night", "job", "--yes") == 1
            err = capfd.readouterr().err
            assert "run 'job' cannot be deleted while it is being executed by " in err
            assert str(os.getpid()) in err
            assert "stop it with `rh-agents cancel job`" in err
            assert await asyncio.to_thread(command, "delete", "--status", "completed", "--yes") == 0

    asyncio.run(main())
    assert names() == ["copy", "job"], "the live one was not chosen"


def test_a_run_that_begins_after_the_question_is_not_deleted_and_the_others_are(mapped: Folder) -> None:
    async def main() -> tuple[list[Kept], list[RunIsLive]]:
        looked = await _looked(["job", "night"])
        async with live("job"):
            store = open_store(STORE)
            gone, refused, _ = await delete_runs(store, looked)
            await store.aclose()
        return gone, refused

    gone, (refused,) = asyncio.run(main())
    assert [kept.info.run_id for kept in gone] == ["night"]
    assert str(refused).startswith("run 'job' is being executed by ")


async def _looked(wanted: list[str]) -> list[Kept]:
    store: Store = open_store(STORE)
    try:
        return await kept_of(store, [info for name in wanted if (info := await store.find_run(name))])
    finally:
        await store.aclose()
