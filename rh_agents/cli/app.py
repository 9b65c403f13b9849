"""The commands and their options, on Typer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from pydantic_core import from_json
from typer.core import TyperGroup

from rh_agents.cli.arguments import make_callee
from rh_agents.cli.errors import CommandError
from rh_agents.cli.inputs import open_input
from rh_agents.cli.leaving import leave_without_threads
from rh_agents.cli.mapping import Limits, MapJob
from rh_agents.cli.outputs import open_output, refuse_to_overwrite
from rh_agents.cli.progress import Progress, say, shown
from rh_agents.cli.records import Format
from rh_agents.cli.running import read_value, run_flow
from rh_agents.cli.sources import make_source
from rh_agents.cli.summary import INTERRUPTED, describe
from rh_agents.cli.targets import load_actor
from rh_agents.core.parallel import ErrorStrategy
from rh_agents.decorators import agent, tool

__all__ = ["app"]


class _Commands(TyperGroup):
    """`ctx.obj` tells whether the process is the command's own, so that it may end without waiting for threads."""

    def invoke(self, ctx: Any) -> Any:
        """Older versions of Typer take Ctrl-C for a failure."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("rh-agents: interrupted")
            if ctx.obj:
                leave_without_threads(INTERRUPTED)
            raise typer.Exit(INTERRUPTED) from None


app: typer.Typer = typer.Typer(
    name="rh-agents",
    cls=_Commands,
    help="Run agents, tools and model calls: one flow, or one actor over thousands of items, side by side.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_TARGET = "A dotted module or the path of a .py file, a colon, and the name of a function or an actor in it."
_PROGRESS = "On standard error: a bar on a terminal and lines elsewhere (auto), or what is named here."


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
    force: Annotated[bool, typer.Option("--force", help="Write over an output file that has content.")] = False,
    max_workers: Annotated[
        int, typer.Option("--max-workers", "-n", min=1, metavar="N", help="Items that run at the same time.")
    ] = 5,
    retry: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Attempts for each item, the first included; in place of the actor's own."
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For each attempt; in place of the actor's own.")
    ] = None,
    error_strategy: Annotated[
        ErrorStrategy, typer.Option(help="Run all items whatever fails, or stop at the first failure.")
    ] = ErrorStrategy.FAIL_SLOW,
    fail_after: Annotated[
        str | None,
        typer.Option(
            metavar="5|0.1",
            help="Stop after so many failed items, or after this share of them. Bad lines count as well.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, metavar="N", help="Only the first N items.")] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Write in the order of the input; else as items are completed.")
    ] = False,
    form: Annotated[
        Format,
        typer.Option(
            "--format", help="By extension (.jsonl .ndjson .json .csv, else text; JSON lines from standard input)."
        ),
    ] = Format.AUTO,
    id_field: Annotated[
        str, typer.Option(metavar="NAME", help="The field that names an item in the output; else its line number does.")
    ] = "id",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=JSON", help="An argument for every item, in place of its own. May be repeated."
        ),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="For items in flight after Ctrl-C or SIGTERM.")
    ] = 30.0,
    progress: Annotated[Progress, typer.Option(help=_PROGRESS)] = Progress.AUTO,
) -> None:
    """Run an actor over every item of INPUT and write a JSON line for each.

    Every line has id, index, ok, result or error, attempts and seconds. A line of the input that does not fit is told
    on standard error with its place and becomes a failed item; it does not end the job.

    Ctrl-C once: no more items are started, those in flight have the grace to finish. Twice: they are cancelled.

    Exit codes: 0 all items are ok; 1 some failed, or the job was stopped; 2 usage; 130 interrupted.
    """
    callee = make_callee(
        load_actor(actor, tool), retry=retry, timeout=_seconds("--timeout", timeout), fixed=_fixed(settings or [])
    )
    limits = Limits(max_workers, error_strategy, _failure_limit(fail_after, error_strategy), ordered, grace)
    with open_input(source, form, id_field) as given:
        if output is not None:
            refuse_to_overwrite(output, force=force, source=source)
        with open_output(output, force=force) as writer:
            job = MapJob(callee, make_source(given, limit), writer, say, limits)
            raise typer.Exit(asyncio.run(_map(job, progress, owns_process=bool(ctx.obj))))


async def _map(job: MapJob, progress: Progress, *, owns_process: bool) -> int:
    with shown(progress) as job.subscriber:
        summary = await job.run()
    for line in describe(summary, job.writer.name, is_shown=job.subscriber is not None):
        say(line)
    if summary.left_threads and owns_process:  # now, because the end of the loop may wait for them as well
        leave_without_threads(summary.exit_code)
    return summary.exit_code


@app.command("run")
def run_command(
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
    progress: Annotated[Progress, typer.Option(help=_PROGRESS)] = Progress.AUTO,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the whole traceback of a failure.")] = False,
) -> None:
    """Run one flow and print its result as JSON.

    Exit codes: 0 it is ok; 1 it failed; 2 usage; 130 interrupted.
    """
    callee = make_callee(load_actor(flow, agent), knows_all_names=True)
    value = read_value(arguments)
    with shown(progress) as subscriber:
        code = asyncio.run(run_flow(callee, value, subscriber, show_traceback=traceback))
    raise typer.Exit(code)


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


def _fixed(settings: Sequence[str]) -> dict[str, Any]:
    """`name=JSON`. What is not JSON is text, so that `language=de` needs no quotes within quotes."""
    fixed: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise CommandError(f"--set {setting}: write NAME=JSON")
        try:
            fixed[name] = from_json(text)
        except ValueError:
            fixed[name] = text
    return fixed
