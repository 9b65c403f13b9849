"""What several commands about recorded runs have in common."""

from __future__ import annotations

import asyncio
import getpass
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer

from rh_agents.cli.errors import CommandError
from rh_agents.cli.json_text import json_line
from rh_agents.cli.output.page import Page, Part
from rh_agents.cli.output.results import expect_standard_output
from rh_agents.cli.output.wording import ago, counted
from rh_agents.cli.recorded_command import RunCommand
from rh_agents.cli.run_status import RunStatus, status_of, status_text
from rh_agents.cli.stores import existing_run, kept_store
from rh_agents.core.errors import ControlRefused, UsageError
from rh_agents.core.ports import RunInfo, Store
from rh_agents.core.ports.control import ControlResult, RunControl, control_of
from rh_agents.core.ports.keeping import Erasure, erasure_of
from rh_agents.core.ports.windows import RunQuery, every_run
from rh_agents.core.redaction import redact
from rh_agents.core.runs import validated_run
from rh_agents.core.values import kept_text, shown_value
from rh_agents.display.text import harmless
from rh_agents.stores._environment import VARIABLE

__all__ = [
    "AsJson",
    "DryRun",
    "NoContent",
    "Reason",
    "RunName",
    "StoreOfRuns",
    "info_without_content",
    "old_runs",
    "parameters_of",
    "person",
    "record_of_run",
    "show_head",
    "steer",
    "with_store",
]

T = TypeVar("T")

StoreOfRuns = Annotated[
    str,
    typer.Option(
        metavar="URL", envvar=VARIABLE, show_envvar=True, help="Where the runs are recorded: a path or a URL."
    ),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="The name of a run.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
NoContent = Annotated[
    bool, typer.Option("--no-content", help="Leave out inputs, results and texts of errors. Names and addresses stay.")
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="The reason, kept in the journal.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only show what would be done: how many calls, and what they cost.")
]

Ask = Callable[[RunControl, str | None], Awaitable[ControlResult]]
"""Asks the owner of a run; gets the name of the user."""


def with_store(url: str, work: Callable[[Store], Awaitable[T]], *, writes: bool = False) -> T:
    """Do something with a store that must be there. What only looks makes and changes no file."""
    expect_standard_output()

    async def do() -> T:
        async with kept_store(url, read_only=not writes) as store:
            return await work(store)

    return asyncio.run(do())


async def old_runs(store: Store, before: float | None, status: Sequence[RunStatus] | None) -> list[RunInfo]:
    """The runs without activity since `before`, newest first; those with one of these statuses, or that have ended."""
    wanted = tuple(status or [each for each in RunStatus if each.has_ended])
    return [info async for info in every_run(store, RunQuery(wanted, updated_before=before))]


def parameters_of(ctx: typer.Context, command: RunCommand) -> dict[str, Any]:
    """The options and arguments of a recorded command."""
    root: Any = ctx.find_root().command
    inner = root.get_command(ctx, command.words[0])
    with inner.make_context(command.words[0], list(command.words[1:])) as context:
        parameters: dict[str, Any] = context.params
        return parameters


def person() -> str | None:
    """The name of this user, for others."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None


def info_without_content(info: RunInfo) -> RunInfo:
    """The run without its input, also where that is in its command, and without the text of why it ended."""
    facts = {name: text for name, text in info.facts.items() if name not in _FACTS_WITH_CONTENT}
    return replace(info, facts=facts, input=None, reason=None)


_FACTS_WITH_CONTENT = frozenset({"command", "settings"})


def record_of_run(info: RunInfo, open_questions: int | None) -> dict[str, Any]:
    """A run for programs. `open_questions` is None if they cannot be read."""
    return {
        "run_id": info.run_id,
        "status": status_of(info).value,
        "workflow": info.workflow,
        "calls": info.outcomes,
        "open_questions": open_questions,
        "created_at": info.created_at,
        "updated_at": info.updated_at,
        "ended_at": info.ended_at,
        "epoch": info.epoch,
        "owner": info.owner,
        "reason": info.reason,
        "tags": list(info.tags),
        "forked_from": info.forked_from,
        "queue": info.queue,
        "priority": info.priority,
        "ready_at": info.ready_at,
        "claims": info.claims,
        "erased_at": None if (erasure := erasure_of(info)) is None else erasure.at,
        "facts": {name: redact(kept_text(text, unknown_ok=True)) for name, text in info.facts.items()},
        **({} if info.damage is None else {"damage": info.damage}),
    }


def _erased_text(info: RunInfo, erasure: Erasure) -> str:
    if erasure.is_finished:
        return f"{erasure}: it cannot be resumed"
    if info.owner is not None:
        return f"{erasure}, and goes on"
    return f"{erasure}, and was cut off: `rh-agents erase {harmless(shlex.quote(info.run_id))} --values` finishes it"


_STYLES = {RunStatus.COMPLETED: "green", RunStatus.FAILED: "red", RunStatus.RUNNING: "cyan"}


def show_head(page: Page, info: RunInfo, open_questions: int) -> None:
    """Print what is worth knowing of a run before its calls."""
    now = time.time()
    owner = f"by {harmless(info.owner).partition(' (')[0]}" if info.owner is not None else ""
    page.line(
        Part(harmless(info.run_id), "bold"),
        Part(status_text(info, open_questions), _STYLES.get(status_of(info), "yellow"), 1),
        Part(owner, "dim", 4),
        Part(ago(now - info.updated_at), "dim", 2),
        Part(harmless(" ".join(f"#{tag}" for tag in info.tags)), "cyan", 5),
    )
    command = RunCommand.of(info)
    if command is not None:
        page.line(Part(harmless(f"$ rh-agents {shlex.join(command.words)}", 2000), "dim", is_elastic=True))
    elif info.workflow:
        given = "" if info.input is None else shown_value(info.input)
        page.line(Part(harmless(info.workflow), "bold"), Part(harmless(given), "dim", 1, True))
    if info.reason and status_of(info) is not RunStatus.WAITING:
        page.paragraph(harmless(info.reason, 500), "yellow")
    erasure = erasure_of(info)
    if erasure is not None:
        page.paragraph(_erased_text(info, erasure), "yellow")
    restarts = f"restarted {counted(info.epoch, 'time')} after its end" if info.epoch else ""
    validated = validated_run(info)
    origin = f"a copy of {harmless(info.forked_from)}" if info.forked_from is not None else ""
    origin = origin if validated is None else f"a validation of {harmless(validated)}"
    page.line(
        Part(f"started {datetime.fromtimestamp(info.created_at).astimezone():%Y-%m-%d %H:%M:%S}", "dim"),
        Part(counted(info.outcomes, "finished call"), "dim", 1),
        Part(restarts, "dim", 2),
        Part(origin, "dim", 3),
    )
    page.line()


def steer(run: str, store: str, ask: Ask, *, as_json: bool) -> None:
    """Ask for something, and print what came of it.

    Raises:
        CommandError: it is refused, or there is no such run.
    """

    async def do(opened: Store) -> ControlResult:
        await existing_run(opened, run)
        try:
            return await ask(control_of(opened, run), person())
        except (ControlRefused, UsageError) as error:
            raise CommandError(str(error), exit_code=1) from error

    result = with_store(store, do, writes=True)
    if as_json:
        sys.stdout.write(json_line("control", _record_of_result(result)))
    else:
        Page().paragraph(harmless(result.text, 2000))


def _record_of_result(result: ControlResult) -> dict[str, object]:
    """The result for programs."""
    return {
        "run_id": result.run_id,
        "verb": result.verb.value,
        "text": result.text,
        "calls": result.calls,
        "price": result.price,
        "request": None if result.request is None else result.request.id,
        "applied": result.is_applied,
        **({} if result.now is None else {"now": result.now, "later": result.later}),
    }
