"""`rh-agents submit`: a flow for whichever worker comes first."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime
from typing import Annotated, Any

import typer

from rh_agents.cli.arguments import arguments_for
from rh_agents.cli.commands.common import AsJson, record_of_run
from rh_agents.cli.errors import BadInput, CommandError, one_line
from rh_agents.cli.flow_job import read_value
from rh_agents.cli.json_text import json_line
from rh_agents.cli.options import TARGET_HELP, StoreUrl, Tags, parse_age
from rh_agents.cli.output.progress import say
from rh_agents.cli.output.results import expect_standard_output
from rh_agents.cli.stores import DEFAULT_STORE, NO_STORE, made_store, store_option
from rh_agents.cli.targets import load_actor, load_value
from rh_agents.core.errors import DefinitionError, RunMismatchError, UnstorableError, UsageError
from rh_agents.core.ports import RunInfo
from rh_agents.core.queueing import DEFAULT_QUEUE, Submission, queues_of
from rh_agents.decorators import ActorFunction, agent, arguments_of, submission_of

__all__ = ["submit_command"]


def submit_command(
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
    queue: Annotated[str, typer.Option(metavar="NAME", help="Only workers of this queue take it.")] = DEFAULT_QUEUE,
    priority: Annotated[int, typer.Option(help="Higher ones are taken first.")] = 0,
    not_before: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="No worker takes it before: 2026-12-24T18:00, or +2h from now."),
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option("--run-id", metavar="NAME", help="Submitted again with the same input, it is the same run."),
    ] = None,
    tags: Tags = None,
    as_json: AsJson = False,
) -> None:
    """Queue a flow for a worker (`rh-agents worker`), and print the name of the run.

    The flow is imported here to see whether its input fits. Workers import it under the same name, so start them in the
    same directory. What is injected is given by the worker.
    """
    expect_standard_output()
    if store == NO_STORE:
        raise CommandError(f"--store {NO_STORE} keeps nothing, so no worker could find the run")
    function = _function(flow)
    try:
        args, kwargs = arguments_for(function, read_value(arguments))
        submission = submission_of(
            load_value(flow, "a flow", "shop/flows.py:survey"),
            flow,
            arguments_of(function, args, kwargs, needs_injected=False),
            queue=queue,
            priority=priority,
            not_before=None if not_before is None else _read_time(not_before, time.time()),
            run_id=run_id,
            tags=tags or (),
        )
    except (UnstorableError, DefinitionError) as error:
        raise CommandError(one_line(str(error))) from error
    except (BadInput, TypeError) as error:
        raise CommandError(f"--input: {one_line(str(error))}") from error
    try:
        info = asyncio.run(_submit(store, submission))
    except (RunMismatchError, UsageError) as error:
        raise CommandError(one_line(str(error)), exit_code=1) from error
    if as_json:
        sys.stdout.write(json_line("run", record_of_run(info, 0)))
    else:
        sys.stdout.write(f"{info.run_id}\n")
        say(f"execute it with: rh-agents worker{_queue_option(queue)}{store_option(store)}")


def _function(flow: str) -> ActorFunction[..., Any]:
    found = load_actor(flow, agent)
    if not isinstance(found, ActorFunction):
        raise CommandError(f"{flow} is an actor that takes an input of its own: submit a function that calls it")
    return found


def _queue_option(queue: str) -> str:
    return "" if queue == DEFAULT_QUEUE else f" --queue {queue}"


async def _submit(store: str, submission: Submission) -> RunInfo:
    async with made_store(store) as opened:
        return await queues_of(opened).submit(submission)


def _read_time(text: str, now: float) -> float:
    """A time in seconds since 1970: of ISO 8601, in the zone of this machine if it says none, or `+` and an age.

    Raises:
        CommandError: it is neither.
    """
    if text.startswith("+"):
        return now + parse_age("--not-before", text[1:])
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise CommandError(f"--not-before {text}: write a time such as 2026-12-24T18:00, or +2h") from error
