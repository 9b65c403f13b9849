"""`rh-agents resume`: the recorded command again, in its directory."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from rh_agents.cli.commands.common import AsJson, RunName, StoreOfRuns, parameters_of, with_store
from rh_agents.cli.detaching import Detach, LogFile, detached, expect_output_file, is_to_detach
from rh_agents.cli.errors import CommandError
from rh_agents.cli.flow_job import SubmittedJob, factories_of
from rh_agents.cli.input.files import is_stream
from rh_agents.cli.options import (
    AcceptChanges,
    BudgetCalls,
    BudgetCost,
    BudgetName,
    BudgetTokens,
    KeepFailures,
    Otel,
    budget_of,
    budget_options,
    without_options,
)
from rh_agents.cli.output.opening import expect_output_name
from rh_agents.cli.output.protected_files import ProtectedFiles
from rh_agents.cli.program import load_program
from rh_agents.cli.recorded_command import (
    STANDARD_STREAM,
    Invocation,
    RunCommand,
    expect_items_again,
    resume_line,
)
from rh_agents.cli.stores import DEFAULT_STORE, absolute_url, existing_run
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RunInfo
from rh_agents.core.ports.keeping import expect_values

__all__ = ["resume_command"]


def resume_command(
    ctx: typer.Context,
    run: RunName,
    address: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="ADDRESS",
            help="Make this call again, and all that depends on it: an address as shown by `show`, or @ and a key.",
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="OUT.jsonl", help="For a map: another output file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an output file that is not empty.")] = False,
    no_retry_failed: KeepFailures = False,
    accept_changes: AcceptChanges = False,
    budget_cost: BudgetCost = None,
    budget_tokens: BudgetTokens = None,
    budget_calls: BudgetCalls = None,
    budget_name: BudgetName = None,
    inject: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MODULE:FUNCTION", help="For a submitted run: what makes its argument NAME. May be repeated."
        ),
    ] = None,
    otel: Otel = False,
    detach: Detach = False,
    log: LogFile = None,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Resume a run with its original command, directory and arguments. A budget replaces the earlier one.

    With --json, one object says what came of it: of a map, which then needs -o, its summary.

    A submitted run is executed here instead of by a worker: start it in the directory where workers are started.
    """
    info = with_store(store, lambda opened: existing_run(opened, run))
    expect_values(info, "resumed")
    expect_output_name(output)
    if info.flow is not None and RunCommand.of(info) is None:
        if output is not None or detach or log is not None:
            raise CommandError(f"run {run!r} was submitted: -o, --detach and --log are not for it")
        budget = budget_of(budget_cost, budget_tokens, budget_calls, budget_name)
        job = SubmittedJob(
            info,
            absolute_url(store),
            store,
            address,
            not no_retry_failed,
            budget,
            factories_of(inject or ()),
            as_json,
        )
        raise typer.Exit(job.run())
    if inject:
        raise CommandError(f"--inject is for a submitted run, and run {run!r} is none")
    command = _with_secrets(ctx, info, _command_of(info, address))
    if output is not None and command.kind != "map":
        raise CommandError(f"-o is for the output of a map, and run {run!r} is a `{command.kind}`")
    words_of_budget = budget_options(budget_of(budget_cost, budget_tokens, budget_calls, budget_name))
    words = without_options(command.words, words_of_budget)
    for option, value in words_of_budget.items():
        words[1:1] = [option, value]
    if no_retry_failed and "--no-retry-failed" not in words:
        words.insert(1, "--no-retry-failed")
    if STANDARD_STREAM in words:
        expect_items_again(run, store, are_given=sys.stdin is not None and not sys.stdin.isatty())
    source = str(parameters_of(ctx, command).get("source", "")) if command.kind == "map" else ""
    if source not in ("", STANDARD_STREAM) and is_stream(source):
        raise CommandError(
            f"run {run!r} reads its items from {source}, which is another pipe each time: give them again, as in "
            f"`{resume_line(run, store, command.words)}`"
        )
    if is_to_detach(detach, log):
        _expect_no_streams(run, command, output, [*words, source])
        outputs = ProtectedFiles({name: "the output" for name in (output, command.output) if name})
        raise typer.Exit(detached(Invocation.of(ctx), store, log, outputs, as_json=as_json))
    about = Invocation(
        owns_process=Invocation.of(ctx).owns_process,
        run_id=run,
        store=absolute_url(store),
        shown_store=store,
        resume_from=address,
        output=None if output is None else os.path.abspath(output),
        force=force,
        accept_changes=accept_changes,
        as_json=as_json,
    )
    try:
        os.chdir(command.folder)
    except OSError as error:
        raise CommandError(f"run {run!r} was started in {command.folder}: {error.strerror}") from error
    root: Any = ctx.find_root().command
    with root.make_context("rh-agents", words, obj=about) as inner:
        root.invoke(inner)


def _expect_no_streams(run: str, command: RunCommand, output: str | None, words: Sequence[str]) -> None:
    """Refuse to let a run go on in the background that needs standard input or output.

    Raises:
        CommandError: it does.
    """
    if command.kind == "map":
        expect_output_file(output or command.output)
    if STANDARD_STREAM in words or is_stream(words[-1]):
        raise CommandError(f"--detach: run {run!r} reads from standard input or a pipe, which will not be there")


def _command_of(info: RunInfo, address: str | None) -> RunCommand:
    command = RunCommand.of(info)
    if command is None:
        called = f"run({info.workflow}, ...)" if info.workflow else "ExecutionState(...)"
        again = "" if address is None else f" and resume_from={address!r}"
        raise CommandError(
            f"run {info.run_id!r} was started from Python code: start that again with the same store and "
            f"run_id={info.run_id!r}{again}, as in `{called}`"
        )
    return command


def _with_secrets(ctx: typer.Context, info: RunInfo, command: RunCommand) -> RunCommand:
    """The command with the secrets that were on its command line. Its program makes them known."""
    with contextlib.suppress(StoreError):
        return RunCommand.of(info, unknown_ok=False) or command
    if os.path.isdir(command.folder):
        with contextlib.chdir(command.folder):
            load_program(command, parameters_of(ctx, command))
    try:
        return RunCommand.of(info, unknown_ok=False) or command
    except StoreError as error:
        raise CommandError(f"run {info.run_id!r}: {error}") from error
