"""`rh-agents web --allow-resume`: what the page may start, and what it shows before."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rh_agents.cli.resuming import Resuming
from rh_agents.core.errors import UsageError
from rh_agents.core.ports import RunInfo, RunRequest
from rh_agents.core.types import ExecutionStatus
from tests.surfaces.web_kit import browser, memory, post

WORDS = ["map", "flow.py:rate", "items.jsonl"]


def run_of(folder: Path, words: list[str] = WORDS, target: str = "flow:rate") -> RunInfo:
    facts = {"command": json.dumps(words), "folder": str(folder), "kind": words[0], "target": target}
    return RunInfo("monday", ExecutionStatus.STARTED, facts=facts, created_at=1.0, updated_at=2.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a program and a store."""
    (tmp_path / "flow.py").write_text("")
    (tmp_path / "runs.db").write_text("")
    return tmp_path


def test_what_would_be_started_is_the_resume_of_the_recorded_command_as_a_list_of_arguments(folder: Path) -> None:
    resuming = Resuming(str(folder / "runs.db"))
    words = resuming.words(run_of(folder, [*WORDS, "--set", "x=$(rm -rf /); `id`"]))
    assert words[1:4] == ["-m", "rh_agents", "resume"]
    assert words[-2:] == ["--", "monday"], "a name may begin as an option does"
    assert "$(rm" not in " ".join(words), "the recorded command itself is read from the store by that process"
    assert f"starts in {folder}: rh-agents map flow.py:rate items.jsonl" in resuming.about(run_of(folder))


def test_a_run_of_python_code_and_a_program_that_is_not_found_are_refused(folder: Path) -> None:
    resuming = Resuming(str(folder / "runs.db"))
    with pytest.raises(UsageError, match="from Python code"):
        resuming.words(RunInfo("monday"))
    with pytest.raises(UsageError, match="is not found"):
        resuming.words(run_of(folder, ["map", "os:remove", "items.jsonl"], "os:remove"))


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["flow.py", "runs.db", "."])
def test_a_file_of_another_user_is_not_started(folder: Path, name: str) -> None:
    os.chown(folder / name, 12345, -1)
    with pytest.raises(UsageError, match="another user"):
        Resuming(str(folder / "runs.db")).words(run_of(folder))


class Started:
    """Starts nothing, and notes what it is asked for."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.what = "starts monday"

    def words(self, info: RunInfo) -> list[str]:
        return ["rh_agents", "resume", info.run_id, "--store", "postgresql://ada:lovelace1815@db.example/runs"]

    def about(self, info: RunInfo) -> str:
        return self.what

    async def start(self, info: RunInfo) -> str:
        self.started.append(info.run_id)
        return "started"


def asking(resuming: Any, work: Callable[[httpx2.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        store = memory()
        journal = await store.open_run(RunRequest("monday", "me"))
        await journal.close(ExecutionStatus.STARTED)
        async with browser(store, resuming=resuming) as client:
            await work(client)

    asyncio.run(main())


def test_a_page_starts_nothing_unless_it_was_told_that_it_may() -> None:
    async def work(client: httpx2.AsyncClient) -> None:
        refused = await post(client, "/api/act", {"run": "monday", "verb": "resume", "dry_run": True})
        assert (refused.status_code, "--allow-resume" in refused.json()["error"]) == (422, True)

    asking(None, work)


def test_only_what_was_shown_is_started() -> None:
    started = Started()

    async def work(client: httpx2.AsyncClient) -> None:
        wanted = {"run": "monday", "verb": "resume"}
        seen = (await post(client, "/api/act", {**wanted, "dry_run": True})).json()
        assert seen["preview"] == "starts monday"
        assert "lovelace1815" not in seen["command"]
        for spoilt in ({"command": "rh_agents resume other"}, {"preview": "starts something else"}):
            refused = await post(client, "/api/act", {**wanted, **seen, **spoilt})
            assert (refused.status_code, "look at it again" in refused.json()["error"]) == (422, True)
        started.what = "starts a command that was recorded since"
        assert (await post(client, "/api/act", {**wanted, **seen})).status_code == 422
        started.what = "starts monday"
        assert started.started == []
        assert (await post(client, "/api/act", {**wanted, **seen})).json()["done"] == "started"
        assert started.started == ["monday"]

    asking(started, work)
