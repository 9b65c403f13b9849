"""Durable agents of the OpenAI Agents SDK: each answer of a model and each call of a function tool is a recorded step.

from agents import Agent, Runner
from rh_agents.integrations.openai_agents import durable

agent = durable(Agent(name="researcher", model="gpt-4.1-mini", tools=[search]))

async def research(question: str) -> str:
    return (await Runner.run(agent, question)).final_output

await run(research, "…", store="runs.db", run_id="r")
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from pydantic import TypeAdapter

from rh_agents.core._loops.beside import beside_if_large
from rh_agents.core.chat.messages import ChatDelta
from rh_agents.core.context import report_usage
from rh_agents.core.usage import Listing, Price, Usage
from rh_agents.core.values import learn
from rh_agents.core.values.large_validation import validate
from rh_agents.integrations._steps import Step, is_storable, model_actor, plain, tool_actor, warn_not_recorded
from rh_agents.integrations._streams import REPLAYED, Pieces, streamed, warn_not_streamed

try:
    from agents import (
        Agent,
        FunctionTool,
        Handoff,
        Model,
        ModelResponse,
        ToolOutputFileContent,
        ToolOutputImage,
        ToolOutputText,
    )
    from agents.models.default_models import get_default_model
    from agents.models.multi_provider import MultiProvider
    from openai.types.responses import (
        Response,
        ResponseCompletedEvent,
        ResponseFunctionCallArgumentsDeltaEvent,
        ResponseReasoningSummaryTextDeltaEvent,
        ResponseReasoningTextDeltaEvent,
        ResponseRefusalDeltaEvent,
        ResponseTextDeltaEvent,
        ResponseUsage,
    )
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"durable agents of the OpenAI Agents SDK need the package {_error.name}: "
        "pip install 'rh_agents[openai-agents]'",
        name=_error.name,
    ) from _error

__all__ = ["durable"]

for _kind in (ToolOutputText, ToolOutputImage, ToolOutputFileContent):
    learn(_kind)

ContextT = TypeVar("ContextT")
_VOLATILE = frozenset({"created_at"})
# They act on this machine, and the SDK carries them out itself.
_LOCAL_TOOLS = frozenset({"ComputerTool", "LocalShellTool", "ShellTool", "ApplyPatchTool", "CustomTool"})
_RESPONSES: TypeAdapter[ModelResponse] = TypeAdapter(ModelResponse)
_STREAMED: TypeAdapter[Response] = TypeAdapter(Response)


def durable(agent: Agent[ContextT], *, price: Price | None = None, max_output: int | None = None) -> Agent[ContextT]:
    """The agent with recorded steps, and so for those to whom it hands over. The given one stays as it is.

    A stream gives its events as they come, and is recorded as one step; replayed, it is its last event, whose response
    has `rh_agents_replayed` in its `metadata`. Tools that the provider carries out are part
    of the model's answer. What a tool returns that is not serializable is recorded as the text that the model gets. The
    name of a model is looked up by the SDK's own providers; for others, give the agent a `Model`.

    What else is not recorded is named by a `NotRecordedWarning`: tools that act on this machine by themselves, MCP
    servers (use `rh_agents.tools.mcp_tools` for those), guardrails, and a model in the `RunConfig`.

    `price` is what its models cost, for budgets of money, and `max_output` the most tokens that they can write, which
    budgets reserve where no settings bound an answer; by default what the library's tables say of their names.
    """
    return _durable(agent, {}, Listing(price, max_output))


_Made = dict[int, tuple[Any, Any]]
"""The durable copies by the id of what they were made of, which is kept so that no other object gets its id."""


def _durable(agent: Agent[ContextT], made: _Made, known: Listing) -> Agent[ContextT]:
    if isinstance(agent.model, _DurableModel):
        return agent
    if id(agent) in made:
        found: Agent[ContextT] = made[id(agent)][1]
        return found
    if agent.mcp_servers:
        warn_not_recorded(f"what agent {agent.name!r} calls on its MCP servers", "use rh_agents.tools.mcp_tools")
    if agent.input_guardrails or agent.output_guardrails:
        warn_not_recorded(
            f"what the guardrails of agent {agent.name!r} do by themselves", "let them run durable(...) agents"
        )
    copy = agent.clone(
        model=_DurableModel(agent.model, known), tools=[_durable_tool(agent.name, each) for each in agent.tools]
    )
    made[id(agent)] = (agent, copy)  # before the others: agents may hand over to each other
    copy.handoffs = [_durable_handoff(agent.name, each, made, known) for each in agent.handoffs]
    return copy


def _durable_handoff(name: str, handoff: Any, made: _Made, known: Listing) -> Any:
    if isinstance(handoff, Agent):
        return _durable(handoff, made, known)
    if not isinstance(handoff, Handoff):
        return handoff
    invoke = handoff.on_invoke_handoff

    async def hand_over(context: Any, data: str) -> Any:
        return _durable(await invoke(context, data), made, known)

    return dataclasses.replace(handoff, on_invoke_handoff=hand_over)


def _durable_tool(agent: str, tool: Any) -> Any:
    if not isinstance(tool, FunctionTool):
        if type(tool).__name__ in _LOCAL_TOOLS:
            warn_not_recorded(f"the {type(tool).__name__} of agent {agent!r}", "write a function tool for it")
        return tool
    invoke, actor = tool.on_invoke_tool, tool_actor(tool.name)

    async def call(context: Any, arguments: str) -> Any:
        config = getattr(context, "run_config", None)
        if config is not None and config.model is not None:
            warn_not_recorded(f"the model that the RunConfig gives to agent {agent!r}", "give it to the agent itself")

        async def make() -> Any:
            value = await invoke(context, arguments)
            return value if await is_storable(value) else str(value)  # that is what the SDK tells the model

        return await Step(actor, [_read_arguments(arguments), getattr(context, "tool_call_id", None)], make)

    return dataclasses.replace(tool, on_invoke_tool=call)


def _read_arguments(arguments: str) -> Any:
    try:
        return plain(json.loads(arguments or "{}"))
    except ValueError:
        return arguments


class _DurableModel(Model):
    """Each answer is a step, identified by the conversation, the instructions, the settings and the tools."""

    def __init__(self, model: str | Model | None, known: Listing) -> None:
        self._given = model
        name = model if isinstance(model, str) else getattr(model, "model", None)
        self._actor = model_actor(
            str(name or (type(model).__name__ if model is not None else get_default_model())), known
        )
        self._model: Model | None = model if isinstance(model, Model) else None

    async def get_response(self, *args: Any, **options: Any) -> ModelResponse:
        """Ask the model, or find what it answered."""

        async def ask() -> Any:
            return _written(await self._inner().get_response(*args, **options))

        found = await Step(self._actor, _about(args, options), ask)
        return await beside_if_large(found, validate, _RESPONSES, found)

    async def stream_response(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        """The events of the stream as they come. The last one, which has all of the answer, comes when it is recorded;
        a replayed stream has only that one.
        """
        last: ResponseCompletedEvent | None = None

        async def produce(pieces: Pieces) -> Any:
            nonlocal last
            has_begun = False
            try:
                async for event in self._inner().stream_response(*args, **options):
                    has_begun = True
                    if isinstance(event, ResponseCompletedEvent):
                        last = event
                    else:
                        await pieces.give(event)
            except NotImplementedError:
                if has_begun:
                    raise
                warn_not_streamed(self._actor.name)
                return await self._whole(pieces, args, options)
            if last is None:
                raise RuntimeError("the stream of the model ended before its answer did")
            if last.response.usage is not None:
                pieces.count(_usage(last.response.usage))
            return last.response.model_dump(mode="json")

        async with streamed(self._actor, ["stream", _about(args, options)], produce, _published) as pieces:
            async for event in pieces:
                yield event
            if last is None:
                response = await beside_if_large(pieces.value, validate, _STREAMED, pieces.value)
                if pieces.is_replayed:
                    response.metadata = {**(response.metadata or {}), REPLAYED: "true"}
                last = ResponseCompletedEvent(response=response, sequence_number=0, type="response.completed")
            yield last

    async def _whole(self, pieces: Pieces, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The answer of a model that cannot stream, in the form of the end of a stream."""
        found = await self._inner().get_response(*args, **options)
        pieces.count(_usage(found.usage))
        response = Response.model_construct(
            id=found.response_id or "",
            created_at=0.0,
            model=self._actor.name,
            object="response",
            output=found.output,
            parallel_tool_calls=True,
            tool_choice="auto",
            tools=[],
            usage=_response_usage(found.usage),
        )
        return response.model_dump(mode="json")

    def _inner(self) -> Model:
        if self._model is None:
            self._model = MultiProvider().get_model(self._given if isinstance(self._given, str) else None)
        return self._model


_NAMES = ("system_instructions", "input", "model_settings", "tools", "output_schema", "handoffs", "tracing")


def _about(args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    given = {**dict(zip(_NAMES, args, strict=False)), **options}
    schema = given.get("output_schema")
    return [
        given.get("system_instructions"),
        plain(given.get("input"), _VOLATILE),
        plain(given["model_settings"].to_json_dict()) if given.get("model_settings") is not None else None,
        [[tool.name, plain(getattr(tool, "params_json_schema", None))] for tool in given.get("tools") or ()],
        None if schema is None or schema.is_plain_text() else plain(schema.json_schema()),
        [handoff.tool_name for handoff in given.get("handoffs") or ()],
        given.get("previous_response_id"),
    ]


def _published(event: Any) -> ChatDelta | None:
    if isinstance(event, ResponseTextDeltaEvent):
        return ChatDelta(text=event.delta)
    if isinstance(event, ResponseReasoningTextDeltaEvent | ResponseReasoningSummaryTextDeltaEvent):
        return ChatDelta(reasoning=event.delta)
    if isinstance(event, ResponseRefusalDeltaEvent):
        return ChatDelta(refusal=event.delta)
    if isinstance(event, ResponseFunctionCallArgumentsDeltaEvent):
        return ChatDelta(tool_index=event.output_index, arguments=event.delta)
    return None


def _written(response: ModelResponse) -> Any:
    report_usage(_usage(response.usage))
    return _RESPONSES.dump_python(response, mode="json")


def _response_usage(used: Any) -> ResponseUsage:
    """The same as it stands in a response. Which details belong there, differs between versions of the SDK."""
    return ResponseUsage.model_construct(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        total_tokens=used.total_tokens,
        input_tokens_details=used.input_tokens_details,
        output_tokens_details=used.output_tokens_details,
    )


def _usage(used: Any) -> Usage:
    details = getattr(used, "input_tokens_details", None)
    return Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cached_tokens=getattr(details, "cached_tokens", 0) or 0,
        requests=1,
    )
