"""A single flow: its input, its result on standard output."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import Any

from pydantic_core import from_json

from rh_agents.cli.arguments import Callee
from rh_agents.cli.errors import BadInput, CommandError, one_line
from rh_agents.cli.outputs import OutputClosed, open_output, to_line
from rh_agents.cli.progress import say
from rh_agents.core.execution import ExecutionState
from rh_agents.core.ports import Subscriber
from rh_agents.core.results import describe_error

__all__ = ["read_value", "run_flow"]


def read_value(text: str | None) -> Any:
    """The input of a flow: JSON, `@file.json`, or `-` for JSON on standard input. None means no arguments.

    Raises:
        CommandError: it cannot be read, or is not JSON.
    """
    if text is None:
        return {}
    where, data = "--input", text.encode(errors="surrogateescape")
    try:
        if text == "-":
            where, data = "<stdin>", sys.stdin.buffer.read()
        elif text.startswith("@"):
            where = text[1:]
            with open(where, "rb") as file:
                data = file.read()
    except OSError as error:
        raise CommandError(f"cannot read {where}: {error.strerror}") from error
    try:
        return from_json(data.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        hint = f"""; a text is written --input '"{text}"'""" if text.isalnum() else ""
        raise CommandError(f"{where}: not valid JSON: {error}{hint}") from error


async def run_flow(callee: Callee, value: Any, subscriber: Subscriber | None, *, show_traceback: bool) -> int:
    """Execute the flow and print its result. Returns what the process ends with.

    Raises:
        CommandError: the input does not fit, or the result cannot be printed.
    """
    async with ExecutionState() as state:
        if subscriber is not None:
            state.event_bus.subscribe(subscriber)
        try:
            call = callee.call(value, state)
        except BadInput as error:
            raise CommandError(f"--input: {one_line(str(error))}") from error
        result = await call.outcome()
    if result.error is not None:
        if show_traceback:
            say("".join(traceback.format_exception(result.error)).rstrip())
        say(f"rh-agents: {callee.name} failed: {one_line(describe_error(result.error))}")
        return 1
    _print(result.result)
    return 0


def _print(value: Any) -> None:
    try:
        line = to_line(value, indent=2 if sys.stdout.isatty() else None)
    except Exception as error:
        raise CommandError(f"the result cannot be written as JSON: {one_line(str(error))}", exit_code=1) from error
    with open_output(None, force=False) as writer, contextlib.suppress(OutputClosed):
        writer.write_now(line)
