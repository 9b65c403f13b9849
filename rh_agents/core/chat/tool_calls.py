"""Calling the tools that a model wants: side by side, with arguments that fit, allowed by a person if need be."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json, to_json

from rh_agents.core._base.key_generations import ENDPOINTS
from rh_agents.core._loops.exits import FAILURES, failure_of
from rh_agents.core._run.frame import current_frame
from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import BaseActor, Tool
from rh_agents.core.calls import ActorCall, Call, FunctionCall, default_run
from rh_agents.core.chat.messages import Message, ToolCall
from rh_agents.core.chat.schema import problems
from rh_agents.core.chat.tool_results import MAX_RESULT, content_of, cut, returns_images, without_lone_surrogates
from rh_agents.core.errors import ToolError
from rh_agents.core.parallel import ParallelExecutionManager
from rh_agents.core.results import ExecutionResult, describe_error

__all__ = ["call_tools"]

_REFUSED = "A person did not allow this call."


async def call_tools(
    calls: Sequence[ToolCall],
    tools: Sequence[BaseActor],
    *,
    max_workers: int = 8,
    name: str = "tools",
    max_result: int | None = None,
) -> list[Message]:
    """Call what a model wants to be called, side by side, and return what it is to get, in the order of `calls`.

    Arguments that are no JSON or do not fit, and tools that do not exist, are problems of the model: nothing is called,
    and it learns what is wrong. What a tool raises is reported to the model as well, unless its `on_error` is "raise".
    A tool that needs approval asks a person first, for exactly these arguments.

    Args:
        calls: what the model wants.
        tools: what it may want.
        max_workers: how many run at the same time.
        name: the name of the group, part of the identity and the address of its calls.
        max_result: how many characters of each result the model gets, where the tool itself does not say (50,000).

    Raises:
        ToolError: a tool raised it whose `on_error` is "raise".
        Exception: what a tool raised whose `on_error` is "raise": of several, the first in the order of `calls`.
    """
    frame = current_frame.get()
    run = default_run() if frame is None else frame.run
    by_name = {tool.name: tool for tool in tools}
    answers: dict[int, Message] = {}
    indexes: list[int] = []
    async with ParallelExecutionManager(run.state, max_workers, name=name) as group:
        for index, wanted in enumerate(calls):
            try:
                work, key = _work(run, by_name, wanted)
            except ToolError as error:
                answers[index] = Message.tool(wanted.id, cut(f"Error: {error}", _limit(run, max_result)))
            else:
                group.add(work, name=wanted.name, key=key)
                indexes.append(index)
        results = await group.gather()
    for index, result in zip(indexes, results, strict=True):
        answers[index] = _answer(run, calls[index], by_name[calls[index].name], result, max_result)
    return [answers[index] for index in range(len(calls))]


def _work(
    run: RunParts, tools: dict[str, BaseActor], wanted: ToolCall
) -> tuple[Call[Any] | Callable[[], Awaitable[Any]], str | None]:
    """What is to be executed for a tool call, and the identity of it if that cannot be seen.

    Raises:
        ToolError: nothing can; it says why, to the model.
    """
    tool = tools.get(wanted.name)
    if tool is None:
        known = ", ".join(sorted(tools)) or "there are none"
        raise ToolError(f"there is no tool named {wanted.name!r}; the tools are: {known}")
    arguments = _arguments(wanted, _as_written if run.recording.keys_generation < ENDPOINTS else _as_meant)
    call = _call(run, tool, arguments)
    if not (isinstance(tool, Tool) and tool.is_approved_first):
        return call, None
    call.discard()  # it fits; it is made when a person has allowed it
    digest = _digest(tool, arguments)
    return functools.partial(_call_if_allowed, run, tool, arguments, digest), digest


def _arguments(wanted: ToolCall, read: Callable[[str], Any]) -> dict[str, Any]:
    """What the model gives the tool.

    Raises:
        ToolError: it is no JSON object.
    """
    try:
        arguments = read(wanted.arguments)
    except ValueError as error:
        raise ToolError(f"the arguments of {wanted.name} are no JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise ToolError(f"the arguments of {wanted.name} must be a JSON object with an entry for each parameter")
    return arguments


def _as_meant(text: str) -> Any:
    """Nothing, however it is written (``, `null`, `[]`), is an object without entries.

    Some models write an object into a JSON string, which can only mean the object.
    """
    arguments = from_json(text.strip() or "{}", allow_inf_nan=False)
    if isinstance(arguments, str):
        arguments = from_json(arguments.strip() or "{}", allow_inf_nan=False)
    return {} if arguments is None or arguments == [] else arguments


def _as_written(text: str) -> Any:
    """How earlier versions read arguments, which told the model what is wrong with any other form."""
    return from_json(text or "{}", allow_inf_nan=False)


def _call(run: RunParts, tool: BaseActor, arguments: dict[str, Any]) -> Call[Any]:
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


def _started(run: RunParts, tool: BaseActor, value: Any) -> Call[Any]:
    return ActorCall(tool, value, None, run)


def _model_of(tool: BaseActor) -> type[BaseModel]:
    tool.signature.expect_names(tool.name)
    return tool.signature.input_model(f"{tool.name}_input")


def _validated(tool: BaseActor, model: Any, arguments: dict[str, Any]) -> Any:
    try:
        return TypeAdapter(model).validate_python(arguments)
    except ValueError as error:
        raise ToolError(f"the arguments of {tool.name} do not fit:\n{problems(error)}") from error
    except FAILURES as raised:  # a validator of the program's own
        what = describe_error(failure_of(raised), is_cut=False)
        raise ToolError(f"the arguments of {tool.name} do not fit: {what}") from raised


def _digest(tool: BaseActor, arguments: dict[str, Any]) -> str:
    """What a person allows: this tool with these arguments, whatever the order in which they were written."""
    ordered = to_json(dict(sorted(arguments.items())))
    return sha256(tool.name.encode() + b"\0" + ordered).hexdigest()


async def _call_if_allowed(run: RunParts, tool: BaseActor, arguments: dict[str, Any], digest: str) -> Any:
    """Ask a person, and call the tool if it is allowed.

    Raises:
        ToolError: it is not.
    """
    shown = to_json(arguments).decode()
    if not await run.state.ask(f"May {tool.name} be called with {shown}?", bool, key=f"{tool.name} {digest}"):
        raise ToolError(_REFUSED)
    result = await _call(run, tool, arguments)
    return result.unwrap() if isinstance(result, ExecutionResult) else result


def _limit(run: RunParts, stated: int | None) -> int | None:
    """How many characters a model gets: as many as is stated; else None, which is all, in a run of before."""
    if stated is None and run.recording.keys_generation >= ENDPOINTS:
        return MAX_RESULT
    return stated


def _answer(
    run: RunParts, wanted: ToolCall, tool: BaseActor, result: ExecutionResult[Any], max_result: int | None
) -> Message:
    """What the model learns about a call."""
    own = tool.max_result if isinstance(tool, Tool) else None
    most = _limit(run, max_result if own is None else own)
    if result.ok:
        return Message.tool(wanted.id, content_of(result.result, most, are_bytes_images=returns_images(tool)))
    if isinstance(tool, Tool) and tool.on_error == "raise":
        result.unwrap()
    error = result.error
    text = str(error) if isinstance(error, ToolError) else describe_error(error, is_cut=False) if error else "it failed"
    return Message.tool(wanted.id, cut(f"Error: {without_lone_surrogates(text)}", most))
