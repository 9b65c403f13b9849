"""`rh-agents worker`: executes submitted runs."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import Annotated

import typer

from rh_agents.cli.commands.common import AsJson
from rh_agents.cli.engines import ExecutorsGiven, engines_for
from rh_agents.cli.errors import CommandError, one_line
from rh_agents.cli.flow_job import factories_of, load_flow_of
from rh_agents.cli.json_text import json_line
from rh_agents.cli.options import Grace, Otel, StoreUrl
from rh_agents.cli.output.progress import say
from rh_agents.cli.process import leave_without_threads, run_to_the_end
from rh_agents.cli.recorded_command import Invocation
from rh_agents.cli.stores import DEFAULT_STORE, NO_STORE, made_store
from rh_agents.core._limits.interruption import interrupt_on_signals
from rh_agents.core.errors import UsageError
from rh_agents.core.ports.keeping import limitations_of
from rh_agents.core.queueing import DEFAULT_QUEUE
from rh_agents.workers.worker import Worker, WorkerReport

__all__ = ["worker_command"]


def worker_command(
    ctx: typer.Context,
    store: StoreUrl = DEFAULT_STORE,
    queue: Annotated[str, typer.Option(metavar="NAME", help="The queue to take runs from.")] = DEFAULT_QUEUE,
    max_runs: Annotated[int, typer.Option(min=1, metavar="N", help="How many runs at a time, in this process.")] = 1,
    inject: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MODULE:FUNCTION",
            help="What makes the argument NAME of flows that want it injected; called once. May be repeated.",
        ),
    ] = None,
    require_same_code: Annotated[
        bool,
        typer.Option("--require-same-code", help="Leave runs whose function had another source when submitted."),
    ] = False,
    max_claims: Annotated[
        int, typer.Option(min=1, metavar="N", help="End a run as failed when N workers have died with it.")
    ] = 5,
    lease: Annotated[
        float,
        typer.Option(
            min=0.1, metavar="SECONDS", help="After this long without a sign of life, another worker takes its runs."
        ),
    ] = 15.0,
    executor: ExecutorsGiven = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when nothing is left that can be executed now.")
    ] = False,
    grace: Grace = 30.0,
    otel: Otel = False,
    as_json: AsJson = False,
) -> None:
    """Execute submitted runs until stopped.

    Ctrl-C or SIGTERM takes no more runs and stops those under way, which the next worker resumes where they were; once
    more cancels what is in flight. If the process is killed, another worker takes its runs over and makes only those
    calls again that were in flight.

    With --json, each line is an object that names the run and what became of it.
    """
    if store == NO_STORE:
        raise CommandError(f"--store {NO_STORE} keeps nothing, so there is nothing to execute")
    factories, executors = factories_of(inject or ()), engines_for(None, executor)

    def note(text: str) -> None:
        (_write if as_json else _say)(WorkerReport("note", text))

    async def work() -> None:
        async with made_store(store) as opened:
            assert opened is not None
            worker = Worker(
                opened,
                queue=queue,
                max_runs=max_runs,
                lease=lease,
                max_claims=max_claims,
                inject=factories,
                require_same_code=require_same_code,
                executors=executors,
                load=load_flow_of,
                notify=_write if as_json else _say,
            )

            def ask() -> None:
                note(f"no more runs are taken; calls in flight have {grace:g} s; once more cancels them")
                worker.stop(grace=grace)

            with interrupt_on_signals(lambda _: ask(), lambda _: worker.stop(grace=0), hangup=True):
                note(f"worker of queue {queue}, {max_runs} at a time")
                for line in await limitations_of(opened):
                    note(line)
                await worker.run(until_empty=until_empty)

    try:
        run_to_the_end(work())
    except UsageError as error:
        raise CommandError(one_line(str(error))) from error
    if Invocation.of(ctx).owns_process:
        leave_without_threads(0)


def _say(report: WorkerReport) -> None:
    say(report.text)


def _write(report: WorkerReport) -> None:
    """A line for programs. If its reader has gone, that is no reason to stop, as with lines for people."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.write(json_line("worker", dataclasses.asdict(report)))
        sys.stdout.flush()
