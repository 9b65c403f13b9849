"""Durable Pydantic AI agents: each request to the model and each call of a tool is a recorded step.

from rh_agents.integrations.pydantic_ai import durable

agent = durable(Agent("openai:gpt-4.1-mini", tools=[search]))

async def research(question: str) -> str:
    return (await agent.run(question)).output

await run(research, "…", store="runs.db", run_id="r")
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from pydantic import TypeAdapter

from rh_agents.core._loops.beside import beside_if_large
from rh_agents.core.chat.messages import ChatDelta
from rh_agents.core.context import report_usage
from rh_agents.core.usage import Listing, Price, Usage
from rh_agents.core.values.large_validation import validate
from rh_agents.integrations._steps import Step, is_storable, model_actor, plain, tool_actor, warn_not_recorded
from rh_agents.integrations._streams import REPLAYED, Pieces, streamed, warn_not_streamed

try:
    from pydantic_ai import ModelRetry
    from pydantic_ai.agent import AbstractAgent, WrapperAgent
    from pydantic_ai.messages import (
        FinalResultEvent,
        ModelMessage,
        ModelMessagesTypeAdapter,
        ModelResponse,
        ModelResponseStreamEvent,
        PartDeltaEvent,
        PartStartEvent,
        TextPart,
        TextPartDelta,
        ThinkingPart,
        ThinkingPartDelta,
        ToolCallPart,
        ToolCallPartDelta,
        ToolReturn,
        ToolReturnContent,
    )
    from pydantic_ai.models import (
        CompletedStreamedResponse,
        Model,
        ModelRequestParameters,
        StreamedResponse,
        infer_model,
    )
    from pydantic_ai.models.wrapper import WrapperModel
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.tools import RunContext
    from pydantic_ai.toolsets import ToolsetTool
    from pydantic_ai.toolsets.wrapper import WrapperToolset
    from pydantic_ai.usage import RequestUsage
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"durable Pydantic AI agents need the package {_error.name}: pip install 'rh_agents[pydantic-ai]'",
        name=_error.name,
    ) from _error

__all__ = ["durable"]

DepsT = TypeVar("DepsT")
OutputT = TypeVar("OutputT")
_VOLATILE = frozenset({"timestamp", "run_id", "conversation_id", "provider_response_id"})
_RETRY = "rh_agents retry"
_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    "return": TypeAdapter(ToolReturn),
    "content": TypeAdapter(ToolReturnContent),
}


def durable(
    agent: AbstractAgent[DepsT, OutputT], *, price: Price | None = None, max_output: int | None = None
) -> WrapperAgent[DepsT, OutputT]:
    """The agent with recorded steps. It is used like the one that is given, which stays as it is.

    A stream gives its events as they come, and is recorded as one step; replayed, its parts come at once, and the
    `metadata` of the response has `rh_agents_replayed`. What a tool returns that is no plain data, such
    as a model of yours, is recorded as the JSON that the model gets. Models and toolsets that are given to a single
    `run` are not recorded: a `NotRecordedWarning` says so.

    Args:
        agent: the agent.
        price: what its model costs, for budgets of money; by default what the library's table says of its name.
        max_output: the most tokens that it can write, which budgets reserve where no settings bound an answer;
            likewise.

    Raises:
        UserError: the agent has no model.
    """
    return agent if isinstance(agent, _DurableAgent) else _DurableAgent(agent, Listing(price, max_output))


class _DurableAgent(WrapperAgent[DepsT, OutputT]):
    def __init__(self, wrapped: AbstractAgent[DepsT, OutputT], known: Listing) -> None:
        super().__init__(wrapped)
        model = wrapped.model
        self._durable_model: Model | None = None if model is None else _DurableModel(infer_model(model), known)
        self._durable_toolsets = [each.visit_and_replace(_DurableToolset) for each in wrapped.toolsets]

    @asynccontextmanager
    async def iter(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        """As the agent's own, with its model and its tools recorded."""
        for name in ("model", "toolsets", "spec"):
            if options.get(name):
                warn_not_recorded(f"the {name} given to this run of the agent", "give it to the agent itself")
        overrides: dict[str, Any] = {}
        if self._durable_model is not None and not options.get("model"):
            overrides["model"] = self._durable_model
        with super().override(toolsets=self._durable_toolsets, tools=[], **overrides):
            async with super().iter(*args, **options) as run:
                yield run


class _DurableModel(WrapperModel):
    """Each request is a step, identified by the conversation, the settings and the tools."""

    def __init__(self, wrapped: Model, known: Listing) -> None:
        super().__init__(wrapped)
        self._actor = model_actor(wrapped.model_name, known)

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask the model, or find what it answered."""

        async def ask() -> Any:
            response = await super(_DurableModel, self).request(messages, model_settings, model_request_parameters)
            return _written(response)

        return await _read(await Step(self._actor, _about(messages, model_settings, model_request_parameters), ask))

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse, None]:
        """The same for a stream, whose pieces are given as they come."""

        async def produce(pieces: Pieces) -> Any:
            opened = super(_DurableModel, self).request_stream(
                messages, model_settings, model_request_parameters, run_context
            )
            try:
                inner = await opened.__aenter__()
            except NotImplementedError:
                warn_not_streamed(self.model_name)
                response = await super(_DurableModel, self).request(messages, model_settings, model_request_parameters)
                return _written(response, pieces.count)
            raised: tuple[Any, ...] = (None, None, None)
            try:
                await pieces.give(inner)
                async for event in inner:
                    await pieces.give(event)
                return _written(inner.get(), pieces.count)
            except BaseException as error:
                raised = (type(error), error, error.__traceback__)
                pieces.usage_so_far = _usage(inner.usage)
                raise
            finally:
                await opened.__aexit__(*raised)

        about = _about(messages, model_settings, model_request_parameters)
        async with streamed(self._actor, about, produce, _published) as pieces:
            inner = await anext(pieces, None)
            if inner is not None:
                yield _LiveResponse(inner, pieces, model_request_parameters)
                return
            response = await _read(pieces.value)
            if pieces.is_replayed:
                response.metadata = {**(response.metadata or {}), REPLAYED: True}
            yield CompletedStreamedResponse(
                response, model_request_parameters=model_request_parameters, replay_events=True
            )


class _LiveResponse(StreamedResponse):
    """What the model is writing, as the program reads it."""

    def __init__(self, inner: StreamedResponse, pieces: Pieces, parameters: ModelRequestParameters) -> None:
        super().__init__(parameters)
        self._inner = inner
        self._pieces = pieces
        self._response: ModelResponse | None = None

    def __aiter__(self) -> AsyncIterator[ModelResponseStreamEvent]:
        # Those of the inner stream are complete; the base class would add the ends of parts once more.
        if self._event_iterator is None:
            self._event_iterator = self._get_event_iterator()
        return self._event_iterator

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        async for event in self._pieces:
            if isinstance(event, FinalResultEvent):
                self.final_result_event = event
            else:
                self._parts_manager.apply_event(event)
            yield event
        if self._cancelled:
            return
        self._finished = True
        self._response = await _read(self._pieces.value)

    async def close_stream(self) -> None:
        """The program wants no more of it."""
        await self._pieces.leave()

    def get(self) -> ModelResponse:
        return super().get() if self._response is None else self._response

    @property
    def usage(self) -> RequestUsage:
        """What it has used so far."""
        return self._inner.usage if self._response is None else self._response.usage

    @property
    def model_name(self) -> str:
        return self._inner.model_name

    @property
    def provider_name(self) -> str | None:
        return self._inner.provider_name

    @property
    def provider_url(self) -> str | None:
        return self._inner.provider_url

    @property
    def timestamp(self) -> datetime:
        return self._inner.timestamp


def _published(event: Any) -> ChatDelta | None:
    if isinstance(event, PartStartEvent):
        return _published_of(event.index, event.part)
    return _published_of(event.index, event.delta) if isinstance(event, PartDeltaEvent) else None


def _published_of(index: int, part: Any) -> ChatDelta | None:
    if isinstance(part, TextPart | TextPartDelta):
        return ChatDelta(text=part.content if isinstance(part, TextPart) else part.content_delta)
    if isinstance(part, ThinkingPart | ThinkingPartDelta):
        return ChatDelta(reasoning=(part.content if isinstance(part, ThinkingPart) else part.content_delta) or "")
    if isinstance(part, ToolCallPart):
        return ChatDelta(tool_index=index, tool_name=part.tool_name, arguments=_arguments(part.args))
    if isinstance(part, ToolCallPartDelta):
        name, arguments = part.tool_name_delta or "", _arguments(part.args_delta)
        return ChatDelta(tool_index=index, tool_name=name, arguments=arguments)
    return None


def _arguments(given: str | dict[str, Any] | None) -> str:
    return given if isinstance(given, str) else json.dumps(given, default=str) if given else ""


@dataclasses.dataclass
class _DurableToolset(WrapperToolset[DepsT]):
    """Each call is a step, identified by the tool, its arguments, and the id that the model gave the call."""

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[DepsT], tool: ToolsetTool[DepsT]
    ) -> Any:
        """Call the tool, or find what it returned."""

        async def call() -> Any:
            try:
                return await _returned(await super(_DurableToolset, self).call_tool(name, tool_args, ctx, tool))
            except ModelRetry as retry:  # an answer to the model, and no failure
                return {_RETRY: retry.message}

        found = await Step(tool_actor(name), [plain(tool_args), ctx.tool_call_id], call)
        if _RETRY in found:
            raise ModelRetry(found[_RETRY])
        for kind, adapter in _ADAPTERS.items():
            if kind in found:
                return await beside_if_large(found[kind], validate, adapter, found[kind])
        return found["value"]


async def _returned(value: Any) -> dict[str, Any]:
    """What a tool returned, as data. What only the program's own classes can hold becomes what the model sees of it."""
    if await is_storable(value):
        return {"value": value}
    kind = "return" if isinstance(value, ToolReturn) else "content"
    return {kind: await beside_if_large(value, partial(_ADAPTERS[kind].dump_python, mode="json"), value)}


def _about(messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters) -> Any:
    conversation = [_unmarked(each) for each in ModelMessagesTypeAdapter.dump_python(messages, mode="json")]
    tools = [
        [tool.name, tool.description, plain(tool.parameters_json_schema)]
        for tool in (*parameters.function_tools, *parameters.output_tools)
    ]
    return [plain(conversation, _VOLATILE), plain(dict(settings or {})), tools, parameters.output_mode]


def _unmarked(message: Any) -> Any:
    """A message of the conversation as it was when it was new, whether it comes from a journal or not."""
    metadata = message.get("metadata")
    if not isinstance(metadata, dict) or REPLAYED not in metadata:
        return message
    return {**message, "metadata": {name: each for name, each in metadata.items() if name != REPLAYED} or None}


def _written(response: ModelResponse, count: Callable[[Usage], None] = report_usage) -> Any:
    count(_usage(response.usage))
    return ModelMessagesTypeAdapter.dump_python([response], mode="json")[0]


def _usage(used: RequestUsage) -> Usage:
    return Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cached_tokens=used.cache_read_tokens,
        requests=1,
    )


async def _read(data: Any) -> ModelResponse:
    (response,) = await beside_if_large(data, validate, ModelMessagesTypeAdapter, [data])
    assert isinstance(response, ModelResponse)
    return response
