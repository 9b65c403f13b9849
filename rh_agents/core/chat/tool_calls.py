"""Calling the tools that a model wants: side by side, with arguments that fit, allowed by a person if need be."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json, to_json, to_jsonable_python

from rh_agents.core.actors import BaseActor, Tool
from rh_agents.core.calls import Call, FunctionCall, default_run
from rh_agents.core.chat.messages import Message, ToolCall
from rh_agents.core.chat.schema import problems
from rh_agents.core.errors import ToolError
from rh_agents.core.parallel import ParallelExecutionManager
from rh_agents.core.ports import RunHandle
from rh_agents.core.results import ExecutionResult, describe_error
from rh_agents.core.scope import current_scope

__all__ = ["call_tools"]

_REFUSED = "A person did not allow this call."


async def call_tools(
    calls: Sequence[ToolCall], tools: Sequence[BaseActor], *, max_workers: int = 8, name: str = "tools"
) -> list[Message]:
    """Call what a model wants to be called, side by side, and return what it is to be told, in the order of `calls`.

    Arguments that are no JSON or do not fit, and tools that do not exist, are problems of the model: nothing is called,
    and it is told what is wrong. What a tool raises is told to the model as well, unless its `on_error` is "raise".
    A tool that needs approval asks a person first, for exactly these arguments.

    Args:
        calls: what the model wants.
        tools: what it may want.
        max_workers: how many run at the same time.
        name: the name of the group, part of the identity and the address of its calls.

    Raises:
        Exception: what a tool raised whose `on_error` is "raise": of several, the first in the order of `calls`.
    """
    scope = current_scope.get()
    run = default_run() if scope is None else scope.run
    by_name = {tool.name: tool for tool in tools}
    answers: dict[int, Message] = {}
    indexes: list[int] = []
    async with ParallelExecutionManager(run, max_workers, name=name) as group:
        for index, wanted in enumerate(calls):
            try:
                work, key = _work(run, by_name, wanted)
            except ToolError as error:
                answers[index] = Message.tool(wanted.id, f"Error: {error}")
            else:
                group.add(work, name=wanted.name, key=key)
                indexes.append(index)
        results = await group.gather()
    for index, result in zip(indexes, results, strict=True):
        answers[index] = _answer(calls[index], by_name[calls[index].name], result)
    return [answers[index] for index in range(len(calls))]


def _work(
    run: RunHandle, tools: dict[str, BaseActor], wanted: ToolCall
) -> tuple[Call[Any] | Callable[[], Awaitable[Any]], str | None]:
    """What is to be executed for a tool call, and the identity of it if that cannot be seen.

    Raises:
        ToolError: nothing can; it says why, to the model.
    """
    tool = tools.get(wanted.name)
    if tool is None:
        known = ", ".join(sorted(tools)) or "there are none"
        raise ToolError(f"there is no tool named {wanted.name!r}; the tools are: {known}")
    arguments = _arguments(wanted)
    call = _call(run, tool, arguments)
    if not (isinstance(tool, Tool) and tool.is_approved_first):
        return call, None
    call.discard()  # it fits; it is made when a person has allowed it
    digest = _digest(tool, arguments)
    return functools.partial(_call_if_allowed, run, tool, arguments, digest), digest


def _arguments(wanted: ToolCall) -> dict[str, Any]:
    try:
        arguments = from_json(wanted.arguments or "{}", allow_inf_nan=False)
    except ValueError as error:
        raise ToolError(f"the arguments of {wanted.name} are no JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise ToolError(f"the arguments of {wanted.name} must be a JSON object with an entry for each parameter")
    return arguments


def _call(run: RunHandle, tool: BaseActor, arguments: dict[str, Any]) -> Call[Any]:
    """The call of a tool with arguments that fit."""
    if isinstance(tool, Tool) and tool.parameters is not None:
        return _started(run, tool, arguments)
    if tool.input_model is not None:
        return _started(run, tool, _validated(tool, tool.input_model, arguments))
    model = _model_of(tool)
    unknown = sorted(set(arguments) - set(model.model_fields))
    if unknown:
        raise ToolError(
            f"{tool.name} has no parameter {', '.join(unknown)}; it has: {', '.join(model.model_fields) or 'none'}"
        )
    fitting = _validated(tool, model, arguments)
    return FunctionCall(tool, (), {field: getattr(fitting, field) for field in model.model_fields})


def _started(run: RunHandle, tool: BaseActor, value: Any) -> Call[Any]:
    call = run.start(tool, value, None)
    assert isinstance(call, Call)
    return call


def _model_of(tool: BaseActor) -> type[BaseModel]:
    return tool.signature.input_model(f"{tool.name}_input")


def _validated(tool: BaseActor, model: Any, arguments: dict[str, Any]) -> Any:
    try:
        return TypeAdapter(model).validate_python(arguments)
    except ValueError as error:
        raise ToolError(f"the arguments of {tool.name} do not fit:\n{problems(error)}") from error


def _digest(tool: BaseActor, arguments: dict[str, Any]) -> str:
    """What a person allows: this tool with these arguments, whatever the order in which they were written."""
    ordered = to_json(dict(sorted(arguments.items())))
    return sha256(tool.name.encode() + b"\0" + ordered).hexdigest()


async def _call_if_allowed(run: RunHandle, tool: BaseActor, arguments: dict[str, Any], digest: str) -> Any:
    """Ask a person, and call the tool if it is allowed.

    Raises:
        ToolError: it is not.
    """
    shown = to_json(arguments).decode()
    if not await run.ask(f"May {tool.name} be called with {shown}?", bool, key=f"{tool.name} {digest}"):
        raise ToolError(_REFUSED)
    result = await _call(run, tool, arguments)
    return result.unwrap() if isinstance(result, ExecutionResult) else result


def _answer(wanted: ToolCall, tool: BaseActor, result: ExecutionResult[Any]) -> Message:
    """What the model is told about a call."""
    if result.ok:
        return Message.tool(wanted.id, _told(result.result))
    if isinstance(tool, Tool) and tool.on_error == "raise":
        result.unwrap()
    error = result.error
    text = str(error) if isinstance(error, ToolError) else describe_error(error) if error else "it failed"
    return Message.tool(wanted.id, f"Error: {_unicode(text)}")


def _told(value: Any) -> str:
    """The result of a tool as text: as JSON, or what Python shows of it if it is no data."""
    if isinstance(value, str):
        return _unicode(value)
    try:
        data = to_jsonable_python(value, fallback=str, bytes_mode="base64")
        return _unicode(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
    except (ValueError, RecursionError):  # it contains itself, or is nested too deeply
        return _unicode(repr(value))


def _unicode(text: str) -> str:
    """The same with a replacement character for each lone half of a surrogate pair, which no server takes."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
