"""`rh-agents run`: one flow."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer

from rh_agents.cli.arguments import Callee, make_callee
from rh_agents.cli.commands.common import AsJson
from rh_agents.cli.detaching import Detach, LogFile, announce, detached, is_to_detach
from rh_agents.cli.engines import ExecutorsGiven, engines_for
from rh_agents.cli.errors import CommandError, one_line
from rh_agents.cli.flow_job import FlowJob, flow_call, input_of, read_value
from rh_agents.cli.options import (
    TARGET_HELP,
    AcceptChanges,
    BudgetCalls,
    BudgetCost,
    BudgetName,
    BudgetTokens,
    Grace,
    InputsRecorded,
    KeepFailures,
    Otel,
    ProgressMode,
    RunId,
    StoreUrl,
    Tags,
    budget_of,
)
from rh_agents.cli.output.pauses import report_pauses
from rh_agents.cli.output.progress import Progress, Shown, say, shown
from rh_agents.cli.output.protected_files import ProtectedFiles
from rh_agents.cli.output.results import expect_standard_output
from rh_agents.cli.process import leave_without_threads, run_to_the_end, spare_the_collector
from rh_agents.cli.questions import PersonAtTheTerminal
from rh_agents.cli.recorded_command import (
    STANDARD_STREAM,
    Invocation,
    RunCommand,
    command_line,
    derived_run_id,
    here,
    resume_line,
)
from rh_agents.cli.run_options import RunOptions
from rh_agents.cli.store_search import locate_run, search_folders
from rh_agents.cli.stores import DEFAULT_STORE, made_store, store_option
from rh_agents.cli.targets import file_of, load_actor, short_name
from rh_agents.core.errors import RunMismatchError
from rh_agents.core.execution import ExecutionState
from rh_agents.core.types import RecordInputs
from rh_agents.decorators import agent

__all__ = ["run_command"]

_TRACEBACK = "Show the traceback of a failure: the lines of the program; with RH_AGENTS_DEBUG=1, all of it."


def run_command(
    ctx: typer.Context,
    flow: Annotated[str, typer.Argument(metavar="MODULE:FLOW", help=TARGET_HELP, show_default=False)],
    arguments: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="JSON|@FILE|-",
            help="A JSON object gives arguments by name, another value the single argument.",
        ),
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
    run_id: RunId = None,
    tags: Tags = None,
    no_retry_failed: KeepFailures = False,
    accept_changes: AcceptChanges = False,
    budget_cost: BudgetCost = None,
    budget_tokens: BudgetTokens = None,
    budget_calls: BudgetCalls = None,
    budget_name: BudgetName = None,
    record_inputs: InputsRecorded = RecordInputs.BRIEF,
    executor: ExecutorsGiven = None,
    grace: Grace = 30.0,
    otel: Otel = False,
    progress: ProgressMode = Progress.AUTO,
    traceback: Annotated[bool, typer.Option("--traceback", help=_TRACEBACK)] = False,
    detach: Detach = False,
    log: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Run one flow and print its result as JSON.

    Every call is recorded as it ends. Repeating the command resumes the run: finished calls are not made again, failed
    ones are if the run had ended. Questions of the flow are asked on the terminal; without a terminal, the run waits
    for `rh-agents answer`.

    With --json, one object has the result, or why there is none, and the command that resumes the run.

    Exit codes: 0 ok; 1 failed, or stopped; 2 usage; 3 waiting for answers; 130 interrupted.
    """
    expect_standard_output()
    if is_to_detach(detach, log):
        if arguments == STANDARD_STREAM:
            raise CommandError("--detach: there will be no standard input to read from; give the arguments in a file")
        used = ProtectedFiles({file_of(flow): "the program"})
        raise typer.Exit(detached(Invocation.of(ctx), store, log, used, as_json=as_json))
    loaded = load_actor(flow, agent)
    callee = make_callee(loaded, knows_all_names=True)
    executors = engines_for(loaded, executor)
    value = read_value(arguments)
    text = json.dumps(value)
    words = command_line(ctx, **({"arguments": text} if arguments == STANDARD_STREAM else {}))
    command = RunCommand(words, here(), "run", f"{short_name(flow)}:{callee.name}")
    name = derived_run_id(callee.name, "run", file_of(flow), json.dumps(value, sort_keys=True))
    budget = budget_of(budget_cost, budget_tokens, budget_calls, budget_name)
    options = RunOptions.of(
        ctx,
        command,
        name,
        store,
        run_id,
        tags,
        retry_failed=not no_retry_failed,
        budget=budget,
        record_inputs=record_inputs,
        executors=executors,
        target=loaded,
        accept_changes=accept_changes,
    )
    options = asyncio.run(locate_run(options, search_folders(ctx, file_of(flow))))
    if options.owns_process:
        spare_the_collector()
    with shown(progress) as display:
        job = _FlowStart(callee, value, grace, traceback, as_json or Invocation.of(ctx).as_json)
        code = run_to_the_end(job.run(options, display))
    raise typer.Exit(code)


@dataclass(frozen=True, slots=True)
class _FlowStart:
    """A job of `run` before its run is opened."""

    callee: Callee
    value: Any
    grace: float
    show_traceback: bool
    as_json: bool

    async def run(self, options: RunOptions, display: Shown | None) -> int:
        """Do it. Returns what the process ends with."""
        data = input_of(flow_call(self.callee, self.value, ExecutionState(store=None, history_limit=0)))
        async with made_store(options.store) as store:
            known = None if store is None else await store.find_run(options.run_id)
            if known is not None:
                options.command.check_same(known)
            state = options.state(store, None if store is None else data, reuse=False)
            if display is not None:
                display.follow(state)
            if sys.stdin is not None and sys.stdin.isatty():
                state.set_answerer(PersonAtTheTerminal(say, _nothing if display is None else display.pause))
            job = FlowJob(self.callee.name, flow_call(self.callee, self.value, state), state, say)
            job.grace, job.show_traceback = self.grace, self.show_traceback
            job.opened, job.as_json = partial(_opened, state, options), self.as_json
            if store is not None:
                job.shown_store = options.shown_store
                job.resume_command_line = resume_line(options.run_id, options.shown_store)
                named = f"{shlex.quote(options.run_id)}{store_option(options.shown_store)}"
                job.how_to_answer = f"rh-agents answer {named}"
                job.how_to_look = "" if display is None else f"rh-agents show {named}"
            try:
                code = await job.run()
            except RunMismatchError as error:
                reason = str(error).partition(": name another run")[0]
                raise CommandError(f"{one_line(reason)}: name another one with --run-id") from error
        if job.is_interrupted and options.owns_process:
            leave_without_threads(code)
        return code


def _nothing() -> None:
    """There are no bars."""


def _opened(state: ExecutionState, options: RunOptions) -> None:
    announce(options.run_id, options.shown_store)
    report_pauses(state, say, options.shown_store)
