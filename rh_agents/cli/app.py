"""The commands and their options, on Typer."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rh_agents import __version__
from rh_agents.cli import store_commands
from rh_agents.cli.arguments import make_callee, read_settings
from rh_agents.cli.budgets import BudgetCalls, BudgetCost, BudgetTokens, budget_of
from rh_agents.cli.errors import CommandError, one_line
from rh_agents.cli.finding import located
from rh_agents.cli.inputs import Reading, file_of_input, is_stream, open_input
from rh_agents.cli.keeping import Kept, files_of_store
from rh_agents.cli.leaving import leave_without_threads
from rh_agents.cli.lines import Format
from rh_agents.cli.looping import run_to_the_end
from rh_agents.cli.mapping import Limits
from rh_agents.cli.outputs import expect_output_name, expect_standard_output
from rh_agents.cli.progress import Progress, say, shown
from rh_agents.cli.recorded import (
    STANDARD_STREAM,
    Invocation,
    RunCommand,
    absolute_path,
    command_line,
    derived_run_id,
    here,
    settings_text,
)
from rh_agents.cli.running import read_value
from rh_agents.cli.starting import FlowStart, MapStart, RunOptions
from rh_agents.cli.stores import DEFAULT_STORE
from rh_agents.cli.summary import INTERRUPTED
from rh_agents.cli.targets import file_of, load_actor, short_name
from rh_agents.core.parallel import ErrorStrategy
from rh_agents.decorators import agent, tool
from rh_agents.llms import Batches, in_batches

__all__ = ["app"]

_AT_ONCE_IN_A_BATCH = 10_000
"""Items; each takes some kilobytes while it waits for its batch."""


class _Commands(TyperGroup):
    """The context's object tells whether the process is the command's own, so that it may end without its threads."""

    def invoke(self, ctx: Any) -> Any:
        """Older versions of Typer take Ctrl-C for a failure. And no code of the user's decides how the command ends."""
        try:
            return super().invoke(ctx)
        except SystemExit as raised:
            code = "" if raised.code is None else repr(raised.code)
            raise CommandError(f"ended by sys.exit({one_line(code)})", exit_code=1) from raised
        except KeyboardInterrupt:
            say("rh-agents: interrupted")
            if Invocation.of(ctx).owns_process:
                leave_without_threads(INTERRUPTED)
            raise typer.Exit(INTERRUPTED) from None


def _read_separator(text: str | None) -> str | None:
    """One character, or `tab` in any of the ways in which it can be typed.

    Raises:
        CommandError: it is more than one, or can separate nothing.
    """
    found = "\t" if text in ("tab", "TAB", "\\t") else text
    if found is not None and (len(found) != 1 or found in '"\r\n'):
        raise CommandError(f"--separator {text}: one character is needed, such as , ; | or tab")
    return found


app: typer.Typer = typer.Typer(
    name="rh-agents",
    cls=_Commands,
    help="Run agents, tools and model calls: one flow, or one actor over thousands of items in parallel. Finished work "
    "is recorded and never repeated.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"rh-agents {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What holds for every command."""


_TARGET = "A dotted module or the path of a .py file, a colon, and the name of a function or an actor in it."
_PROGRESS = "On standard error: a bar on a terminal and lines elsewhere (auto), or what is named here."

_Store = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="Where the run is recorded: a path, a URL such as postgresql://host/database, or none to record nothing.",
    ),
]
_RunId = Annotated[
    str | None,
    typer.Option(
        "--run-id",
        metavar="NAME",
        help="Defaults to a name derived from the command, so repeating the command resumes the run.",
    ),
]
_Tag = Annotated[
    list[str] | None, typer.Option("--tag", metavar="WORD", help="A word to find the run by. May be repeated.")
]
_NoRetryFailed = Annotated[
    bool, typer.Option("--no-retry-failed", help="If the run has ended: keep its recorded failures, do not retry them.")
]
_Grace = Annotated[
    float,
    typer.Option(min=0, metavar="SECONDS", help="How long calls in flight may take to finish after Ctrl-C or SIGTERM."),
]


@app.command("map")
def map_command(
    ctx: typer.Context,
    actor: Annotated[str, typer.Argument(metavar="MODULE:ACTOR", help=_TARGET, show_default=False)],
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="A file of JSON lines, CSV or plain lines, or - for standard input.")
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="OUT.jsonl", help="Where the results go; standard output if left out."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an output file that is not empty.")] = False,
    max_workers: Annotated[
        int, typer.Option("--max-workers", "-n", min=1, metavar="N", help="Items that run at the same time.")
    ] = 5,
    retry: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Attempts for each item, including the first; overrides the actor's own."
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For each attempt; overrides the actor's own.")
    ] = None,
    error_strategy: Annotated[
        ErrorStrategy, typer.Option(help="Run all items whatever fails, or stop at the first failure.")
    ] = ErrorStrategy.FAIL_SLOW,
    fail_after: Annotated[
        str | None,
        typer.Option(
            metavar="5|0.1",
            help="Stop after this number of failed items, or this share of them. Bad lines count as well.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, metavar="N", help="Only the first N items.")] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Write in the order of the input; otherwise as items complete.")
    ] = False,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="If left out, taken from the name of INPUT (.jsonl .ndjson .json .csv .tsv .txt) or from its content.",
        ),
    ] = Format.AUTO,
    id_field: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The field that identifies an item in the output; without it, the line number does."
        ),
    ] = "id",
    separator: Annotated[
        str | None,
        typer.Option(
            metavar="CHARACTER",
            help="Separates the fields of a table: , ; | or tab. If left out, it is detected from the first lines.",
            callback=_read_separator,
        ),
    ] = None,
    with_input: Annotated[
        bool, typer.Option("--with-input", help="Write the item beside its result, as `input`.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=JSON", help="An argument for every item; overrides the item's own. May be repeated."
        ),
    ] = None,
    store: _Store = DEFAULT_STORE,
    run_id: _RunId = None,
    tags: _Tag = None,
    no_retry_failed: _NoRetryFailed = False,
    budget_cost: BudgetCost = None,
    budget_tokens: BudgetTokens = None,
    budget_calls: BudgetCalls = None,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="Send the requests of OpenAIChat and AnthropicChat models as batches: half the price, up to a day. "
            "Up to 10,000 items then run at the same time, unless --max-workers is given.",
        ),
    ] = False,
    grace: _Grace = 30.0,
    progress: Annotated[Progress, typer.Option(help=_PROGRESS)] = Progress.AUTO,
) -> None:
    """Run an actor over every item of INPUT and write a JSON line for each.

    Every result is recorded as it arrives. Repeating the command resumes the run: finished items are not called again,
    changed and new ones are, and failed ones are retried if the run had ended.

    Every line has id, index, ok, result or error, attempts and seconds. An input line that does not fit is reported on
    standard error with its position and becomes a failed item; it does not end the job.

    Ctrl-C once: no more items are started, those in flight get --grace seconds to finish. Twice: they are cancelled.

    Exit codes: 0 all items ok; 1 some failed, or stopped; 2 usage; 3 waiting for answers; 130 interrupted.
    """
    about = Invocation.of(ctx)
    output, force = about.output or output, about.force or force
    expect_output_name(output)
    fixed = read_settings(settings or [])
    callee = make_callee(load_actor(actor, tool), retry=retry, timeout=_seconds("--timeout", timeout), fixed=fixed)
    if batch and not about.asks_for(ctx, "max_workers"):
        max_workers = _AT_ONCE_IN_A_BATCH
    limits = Limits(max_workers, error_strategy, _failure_limit(fail_after, error_strategy), ordered, grace)
    target = "" if output in (None, STANDARD_STREAM) else absolute_path(str(output))
    command = RunCommand((), here(), "map", f"{short_name(actor)}:{callee.name}", settings_text(fixed), target)
    ways = _ways_to_name(source)
    names = [derived_run_id(callee.name, "map", file_of(actor), *way, command.settings) for way in ways]
    budget = budget_of(budget_cost, budget_tokens, budget_calls)
    options = RunOptions.of(
        ctx, command, names[0], store, run_id, tags, retry_failed=not no_retry_failed, budget=budget, older=names[1:]
    )
    is_older = about.run_id is not None and form is Format.AUTO and separator is None
    reading = Reading(form, id_field, about.asks_for(ctx, "id_field"), separator, say, is_older)
    with open_input(source, reading) as given:
        # With what was found out: when the run goes on, the same file is read in the same way.
        words = command_line(ctx, **given.found, **({} if output is None else {"output": output}))
        options = dataclasses.replace(options, command=dataclasses.replace(command, words=words))
        used: dict[str | int, str] = {given.stream.fileno(): "the input", file_of(actor): "the program"}
        if source != STANDARD_STREAM:
            used[source] = "the input"
        options = asyncio.run(located(options, _places(ctx, file_of(actor), file_of_input(source))))
        kept = Kept(used) | files_of_store(options.store)
        if output is not None:
            kept.refuse_name(output)
        work = MapStart(callee, given, limit, output, force, limits, progress, source, kept, with_input)
        with _batches() if batch else nullcontext():
            raise typer.Exit(run_to_the_end(work.run(options)))


@app.command("run")
def run_command(
    ctx: typer.Context,
    flow: Annotated[str, typer.Argument(metavar="MODULE:FLOW", help=_TARGET, show_default=False)],
    arguments: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="JSON|@FILE|-",
            help="A JSON object gives arguments by name, another value the single argument.",
        ),
    ] = None,
    store: _Store = DEFAULT_STORE,
    run_id: _RunId = None,
    tags: _Tag = None,
    no_retry_failed: _NoRetryFailed = False,
    budget_cost: BudgetCost = None,
    budget_tokens: BudgetTokens = None,
    budget_calls: BudgetCalls = None,
    grace: _Grace = 30.0,
    progress: Annotated[Progress, typer.Option(help=_PROGRESS)] = Progress.AUTO,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the whole traceback of a failure.")] = False,
) -> None:
    """Run one flow and print its result as JSON.

    Every call is recorded as it ends. Repeating the command resumes the run: finished calls are not made again, failed
    ones are if the run had ended. Questions of the flow are asked on the terminal; without a terminal, the run waits
    for `rh-agents answer`.

    Exit codes: 0 ok; 1 failed, or stopped; 2 usage; 3 waiting for answers; 130 interrupted.
    """
    expect_standard_output()
    callee = make_callee(load_actor(flow, agent), knows_all_names=True)
    value = read_value(arguments)
    text = json.dumps(value)
    words = command_line(ctx, **({"arguments": text} if arguments == STANDARD_STREAM else {}))
    command = RunCommand(words, here(), "run", f"{short_name(flow)}:{callee.name}")
    name = derived_run_id(callee.name, "run", file_of(flow), json.dumps(value, sort_keys=True))
    budget = budget_of(budget_cost, budget_tokens, budget_calls)
    options = RunOptions.of(ctx, command, name, store, run_id, tags, retry_failed=not no_retry_failed, budget=budget)
    options = asyncio.run(located(options, _places(ctx, file_of(flow))))
    with shown(progress) as subscriber:
        job = FlowStart(callee, value, grace, traceback)
        code = run_to_the_end(job.run(options, subscriber))
    raise typer.Exit(code)


def _ways_to_name(source: str) -> list[list[str]]:
    """What stands for an input in the name of its run, and what stood for it in earlier versions."""
    piped = [STANDARD_STREAM, here()]
    if not is_stream(source):
        return [[absolute_path(source)]]
    file = file_of_input(source)
    return [piped] if file is None else [[file], piped]


def _places(ctx: typer.Context, *files: str | None) -> list[str]:
    """Around what the job may be recorded: nothing, if its user says where."""
    about = Invocation.of(ctx)
    if about.store is not None or about.asks_for(ctx, "store"):
        return []
    return [here(), *(os.path.dirname(file) for file in files if file is not None and os.path.isabs(file))]


def _batches() -> AbstractContextManager[Any]:
    """While the block lasts, questions to models go through the batches of their providers."""
    poll_every = float(os.environ.get("RH_AGENTS_POLL_EVERY", "30"))
    return in_batches(Batches(tell=say, poll_every=poll_every))


def _failure_limit(text: str | None, strategy: ErrorStrategy) -> float | None:
    """`5` is a number of failures, `0.1` a share."""
    if text is None:
        return None
    if strategy is ErrorStrategy.FAIL_FAST:
        raise CommandError("--error-strategy fail_fast stops at the first failure: leave --fail-after out")
    try:
        limit = int(text) if text.isdecimal() else float(text)
    except ValueError:
        limit = 0
    if limit >= 1 if isinstance(limit, int) else 0 < limit <= 1:
        return limit
    raise CommandError(f"--fail-after {text}: a number of failures from 1 on, or a share between 0.0 and 1.0")


def _seconds(option: str, value: float | None) -> float | None:
    if value is not None and not value > 0:
        raise CommandError(f"{option} {value:g}: seconds must be more than 0")
    return value


store_commands.register(app)
