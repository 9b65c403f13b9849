"""What a forked child of the server does: one job, given as JSON."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from rh_agents import open_store, run
from rh_agents.core.errors import LeaseLost, RunIsLive, StoreError
from rh_agents.core.ports import Store
from rh_agents.stores.artifacts import FileArtifacts
from rh_agents.stores.sqlite import SqliteStore
from tests.stress.endings import GO, Ending, Job
from tests.stress.ledger import Pen
from tests.stress.work import WORKFLOWS, outside

__all__ = ["perform"]


def perform(job: Job) -> int:
    """Do the job, and return the exit status. What goes wrong is written to the job's log."""
    log = os.open(job["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 2)
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # where it hangs, if it does
    if "held" in job:
        Path(job["held"]).touch()
        signal.sigwait([GO])
    try:
        _JOBS[job["job"]](job)
    except RunIsLive:
        return _tell(Ending.RUN_IS_LIVE)
    except LeaseLost:
        return _tell(Ending.LEASE_LOST)
    except StoreError:
        return _tell(Ending.STORE_ERROR)
    except BaseException:  # noqa: BLE001 - this is the end of the process, and the log tells the test
        return _tell(Ending.FAILED)
    return Ending.WELL


def _tell(ending: Ending) -> int:
    traceback.print_exc()
    sys.stderr.flush()
    return ending


def _store(job: Job) -> Store:
    """The store of the run; a job may have settings of its own for a database."""
    if job.get("syncs_less"):
        apsw.connection_hooks.append(_sync_less)
    if job.get("settings"):
        settings = dict(job["settings"])
        if "artifacts" in settings:
            settings["artifacts"] = FileArtifacts(Path(settings["artifacts"]))
        return SqliteStore(job["store"].removeprefix("sqlite:///"), **settings)
    return open_store(job["store"])


def _sync_less(connection: apsw.Connection) -> None:
    """For the control: whatever the store wants, commits are not synced."""

    def authorize(operation: int, what: str | None, *_: str | None) -> int:
        is_it = operation == apsw.SQLITE_PRAGMA and what == "synchronous"
        return apsw.SQLITE_IGNORE if is_it else apsw.SQLITE_OK

    connection.pragma("synchronous", "NORMAL")
    connection.authorizer = authorize


def _run(job: Job) -> None:
    """Execute a workflow of `tests.stress.work` with the plan."""
    last_signal = job.get("last_signal", signal.SIGKILL)
    outside.open(
        Pen(Path(job["ledger"]), last_line=job.get("last_line", 0), last_signal=last_signal),
        Pen(Path(job["acknowledgements"]), last_line=job.get("last_acknowledgement", 0), last_signal=last_signal),
    )

    async def main() -> Any:
        store = _store(job)
        try:
            workflow = WORKFLOWS[job["workflow"]]
            return await run(workflow, job["plan"], store=store, run_id=job["run_id"], **job["options"])
        finally:
            await store.aclose()

    result = asyncio.run(main())
    _write(Path(job["result"]), result)


def _check(job: Job) -> None:
    """What the store says of itself."""

    async def main() -> list[str]:
        store = _store(job)
        try:
            return await store.check()
        finally:
            await store.aclose()

    _write(Path(job["result"]), asyncio.run(main()))


def _write(path: Path, value: Any) -> None:
    """All of it or nothing: a kill may come at any moment."""
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(value))
    draft.replace(path)


_JOBS: dict[str, Callable[[Job], None]] = {"run": _run, "check": _check}
