"""`rh-agents fork`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from rh_agents.cli.commands.common import AsJson, RunName, StoreOfRuns, parameters_of, record_of_run, with_store
from rh_agents.cli.errors import CommandError, describe_validation
from rh_agents.cli.json_text import RepeatedKey, json_line, read_json
from rh_agents.cli.output.page import Page
from rh_agents.cli.output.wording import counted
from rh_agents.cli.program import Program, load_program
from rh_agents.cli.recorded_command import RunCommand, resume_line
from rh_agents.cli.stores import DEFAULT_STORE, existing_run
from rh_agents.core.ports import RunInfo, Store, is_untouched_fork
from rh_agents.core.ports.keeping import expect_values
from rh_agents.core.runs import UNCHANGED, affected_by, fork
from rh_agents.display.text import harmless

__all__ = ["fork_command"]


def fork_command(
    ctx: typer.Context,
    run: RunName,
    new: Annotated[str, typer.Argument(metavar="NEW", help="The name of the copy.", show_default=False)],
    address: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="ADDRESS", help="A finished call, which the copy makes again, and all that depends on it."
        ),
    ] = None,
    result: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="Take this as the result of that call: what depends on it runs, and what had failed."
        ),
    ] = None,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Copy a run under another name, to continue it differently. The original is unchanged."""
    if not new.strip():
        raise CommandError("NEW: a name is needed")

    async def copy(opened: Store) -> RunInfo:
        info = await existing_run(opened, run)
        expect_values(info, "copied")
        command = RunCommand.of(info)
        code = (
            Program()
            if address is None
            else load_program(command, {} if command is None else parameters_of(ctx, command))
        )
        value = UNCHANGED
        if result is not None:
            value = await _edited(opened, run, address, result, code)
        await fork(opened, run, new, address=address, result=value)
        return await existing_run(opened, new)

    info = with_store(store, copy, writes=True)
    if as_json:
        sys.stdout.write(json_line("run", record_of_run(info, None)))
        return
    resume = ""
    if RunCommand.of(info) is not None:
        other = " -o OUT.jsonl" if _writes_file(info) else ""
        resume = f"; resume with: {resume_line(new, store)}{other}"
    Page().line(f"{harmless(new)}: a copy with {counted(info.outcomes, 'finished call')}{resume}")


def _writes_file(info: RunInfo) -> bool:
    command = RunCommand.of(info)
    return command is not None and bool(command.output) and is_untouched_fork(info)


async def _edited(store: Store, run: str, address: str | None, text: str, code: Program) -> Any:
    """The result as the function that is called would return it, if its type is known; else as JSON has it."""
    try:
        value = read_json(text)
    except RepeatedKey as error:
        raise CommandError(f"--result: {error}") from error
    except ValueError as error:
        raise CommandError(f"""--result {text}: not valid JSON: {error}; a text is written '"{text}"'""") from error
    if address is None:
        return value
    key = (await affected_by(store, run, address))[0].key.hex()
    events = store.events(run, values=False)
    names = [recorded.event.actor.name async for recorded in events if recorded.event.key == key]
    actor = code.actors.get(names[0]) if names else None
    hint = None if actor is None else actor.output_model or actor.signature.hints.get("return")
    if hint is None:
        return value
    try:
        return TypeAdapter(hint).validate_python(value)
    except PydanticSchemaGenerationError:
        return value
    except ValidationError as error:
        raise CommandError(f"--result: {describe_validation(error)}") from error
