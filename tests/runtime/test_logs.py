"""What runs log, and what records say of the call in which they were made."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import copy_context

import pytest
import structlog

from rh_agents import ExecutionState, MemoryStore, RetryPolicy, current, parallel, tool
from rh_agents.logs import CallFilter, add_call

LOG = logging.getLogger("program")
LEFT: list[tuple[threading.Event, threading.Thread]] = []
"""In a worker process."""


@tool(retry=RetryPolicy(max_attempts=2, initial_delay=0.0))
async def flaky(number: int) -> int:
    LOG.info("flaky")
    if current().attempt == 1:
        raise ValueError("not yet")
    return number


@tool
def in_a_thread(number: int) -> int:
    LOG.info("in a thread")
    return number


@tool(engine="process")
def in_a_process(number: int) -> None:
    """Leaves a thread behind, which logs while the next call is made."""
    go_on, context = threading.Event(), copy_context()

    def log() -> None:
        go_on.wait()
        context.run(LOG.warning, "of the first call")

    thread = threading.Thread(target=log)
    thread.start()
    LEFT.append((go_on, thread))
    LOG.warning("early")


@tool(engine="process")
def late() -> None:
    for go_on, thread in LEFT:
        go_on.set()
        thread.join()
    LOG.warning("late")


@tool
async def fails(number: int) -> None:
    raise ValueError(f"no {number}")


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.addFilter(CallFilter())
        self.seen: list[tuple[object, ...]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = record.__dict__
        self.seen.append((record.getMessage(), fields["run_id"], fields["address"], fields["attempt"]))


def test_records_made_inside_a_call_say_of_which_run_call_and_attempt_they_are() -> None:
    kept = Kept()
    LOG.addHandler(kept)
    LOG.setLevel(logging.INFO)

    async def main() -> None:
        LOG.info("outside")
        async with ExecutionState(run_id="monday"):
            await flaky(1)
            await in_a_thread(1)

    try:
        asyncio.run(main())
    finally:
        LOG.removeHandler(kept)
    assert kept.seen == [
        ("outside", "-", "-", 0),
        ("flaky", "monday", "flaky", 1),
        ("flaky", "monday", "flaky", 2),
        ("in a thread", "monday", "in_a_thread", 1),
    ]


def test_records_made_in_worker_processes_say_the_same_also_those_that_arrive_late() -> None:
    kept = Kept()
    LOG.addHandler(kept)

    async def main() -> None:
        async with ExecutionState(run_id="monday"):
            await in_a_process(1)
            await late()

    try:
        asyncio.run(main())
    finally:
        LOG.removeHandler(kept)
    assert kept.seen == [
        ("early", "monday", "in_a_process", 1),
        ("of the first call", "monday", "in_a_process", 1),
        ("late", "monday", "late", 1),
    ]


def test_the_processor_of_structlog_adds_the_same_and_overwrites_nothing() -> None:
    found: list[object] = []

    @tool
    async def note(number: int) -> None:
        found.append(dict(add_call(None, "info", {"event": "here", "attempt": "mine"})))

    async def main() -> None:
        async with ExecutionState(run_id="monday"):
            await note(1)

    asyncio.run(main())
    assert found == [{"event": "here", "attempt": "mine", "run_id": "monday", "address": "note"}]
    assert add_call(None, "info", {"event": "outside"}) == {"event": "outside"}
    structlog.wrap_logger(structlog.PrintLogger(), processors=[add_call, structlog.processors.KeyValueRenderer()])


def run_failing(count: int, clock: list[float]) -> None:
    async def main() -> None:
        async with ExecutionState(store=MemoryStore(), clock=lambda: clock[0]), parallel(max_workers=1) as p:
            p.map(fails, range(count))
            await p.gather()

    asyncio.run(main())


def test_failures_are_logged_with_their_address_at_most_twenty_a_minute_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "rh_agents.run.calls"):
        run_failing(50, [1000.0])
    said = [record.getMessage() for record in caplog.records if record.name == "rh_agents.run.calls"]
    assert said[0] == "parallel[0]::fails failed: ValueError: no 0"
    assert len(said) == 21
    assert said[-1] == "30 more calls failed within a minute of these, and are not logged"


def test_retries_are_logged_for_those_who_look_for_them(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ExecutionState(store=MemoryStore()):
            await flaky(1)

    with caplog.at_level(logging.DEBUG, "rh_agents.run.calls"):
        asyncio.run(main())
    ours = [record for record in caplog.records if record.name == "rh_agents.run.calls"]
    assert [(record.levelname, record.getMessage()) for record in ours] == [
        ("DEBUG", "flaky: attempt 1 failed (ValueError: not yet), the next one in 0 s")
    ]


def test_a_program_without_logging_is_told_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    run_failing(3, [1000.0])
    assert capfd.readouterr().err == ""
