"""What a forked child of the server does: one job, given as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib
import io
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from rh_agents import EventBus, EventType, ExecutionEvent, ExecutionState, open_store, run
from rh_agents.core._limits.interruption import interrupt_on_signals
from rh_agents.core.errors import ControlRefused, LeaseLost, RunIsLive, RunStopped, StoreError
from rh_agents.core.ports import Store
from rh_agents.core.ports.control import RunControl
from rh_agents.core.ports.keeping import erase_values_of_run, erasure_of
from rh_agents.core.ports.streaming import watch_text
from rh_agents.core.values import ErasedValue
from rh_agents.stores.artifacts import FileArtifacts
from rh_agents.stores.sqlite import SqliteStore
from tests.stress.endings import GO, Ending, Job
from tests.stress.ledger import Pen
from tests.stress.work import WORKFLOWS, outside

__all__ = ["perform", "prepare"]


def prepare(job: Job) -> None:
    """Import what only some jobs need, before they are forked: a kill is to hit the job, not its imports."""
    for name in job.get("imports", ()):
        importlib.import_module(name)


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
    except RunStopped:
        return _tell(Ending.STOPPED)
    except SystemExit:  # a command, which has said why
        return Ending.FAILED
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
        store, looking = _store(job), None
        try:
            workflow = WORKFLOWS[job["workflow"]]
            options = {"store": store, "run_id": job["run_id"], **job["options"]}
            if job.get("dies_when_steered"):
                options["event_bus"] = _deadly_bus()
            if job.get("is_looked_at"):
                looking = asyncio.create_task(_looked_at(store, job["run_id"]))
            if not (job.get("is_interruptible") or job.get("dies_when_steered")):
                return await run(workflow, job["plan"], **options)
            state = ExecutionState(**options)
            with interrupt_on_signals(state.request_interrupt):
                async with state:
                    return await workflow(job["plan"])
        finally:
            if looking is not None:
                looking.cancel()
            await store.aclose()

    result = asyncio.run(main())
    _write(Path(job["result"]), result)


async def _looked_at(store: Store, run_id: str) -> None:
    """Somebody looks at the text of all calls. There may be no run yet."""
    while True:
        with contextlib.suppress(StoreError):
            await watch_text(store, run_id)
        await asyncio.sleep(0.5)


def _deadly_bus() -> EventBus:
    """Kill this process when a request has been applied, and before it is answered."""

    def die(event: ExecutionEvent[Any]) -> None:
        if event.event_type is EventType.CONTROL:
            os.kill(os.getpid(), signal.SIGKILL)

    bus = EventBus()
    bus.subscribe(die)
    return bus


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


def _ask(job: Job) -> None:
    """Steer the run, and write what came of it, and when that was known."""

    async def main() -> dict[str, Any]:
        store: Any = _store(job)
        try:
            return await _asked(store, job)
        finally:
            await store.aclose()

    found = asyncio.run(main())
    _write(Path(job["result"]), found)


async def _asked(store: Any, job: Job) -> dict[str, Any]:
    run_id, verb, arguments = job["run_id"], job["verb"], job["arguments"]
    try:
        if verb == "fork":
            await store.fork_run(run_id, arguments[0], (), ())
        elif verb == "delete":
            await store.delete_run(run_id)
        elif verb == "erase":
            await erase_values_of_run(store, run_id)
        else:
            control = RunControl(store, run_id, patience=job["patience"])
            result = await getattr(control, verb)(*arguments, author=job["author"], reason="a test")
            request = None if result.request is None else result.request.id
            return {"request": request, "is_applied": result.is_applied, "at": time.monotonic_ns()}
    except ControlRefused as refused:
        return {"refused": str(refused), "at": time.monotonic_ns()}
    return {"at": time.monotonic_ns()}


def _look(job: Job) -> None:
    """What is left of the run: its status, its requests, the audit trail, and the calls that have an outcome."""

    async def main() -> dict[str, Any]:
        store: Any = _store(job)
        try:
            info = await store.find_run(job["run_id"])
            if info is None:
                return {"status": None}
            return {
                "status": info.status.value,
                "owner": info.owner,
                "erased": None if (erasure := erasure_of(info)) is None else erasure.is_finished,
                "outcomes": info.outcomes,
                "values": [
                    each.header.name
                    async for each in store.unread_outcomes(job["run_id"])
                    if each.header.ok and not isinstance(each.read(unknown_ok=True).value, ErasedValue)
                ],
                "requests": [
                    {"id": each.id, "verb": each.verb.value, "author": each.author, "answer": each.answer}
                    for each in await store.control(job["run_id"]).requests()
                ],
                "controls": [
                    dict(each.event.control)
                    async for each in store.events(job["run_id"], values=False)
                    if each.event.control is not None
                ],
            }
        finally:
            await store.aclose()

    _write(Path(job["result"]), asyncio.run(main()))


def _command(job: Job) -> None:
    """A command as its user gives it. What it prints is in a file at once, however the process ends."""
    from rh_agents.cli import main  # noqa: PLC0415 - few jobs need it

    said = os.open(job["said"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), line_buffering=True)
    os.environ.update(job.get("environment", {}))
    if code := main(job["words"]):
        raise SystemExit(code)


_JOBS: dict[str, Callable[[Job], None]] = {
    "run": _run,
    "check": _check,
    "ask": _ask,
    "look": _look,
    "command": _command,
}
