"""Durable Pydantic AI agents: each request to the model and each call of a tool is a recorded step.

from rh_agents.integrations.pydantic_ai import durable

agent = durable(Agent("openai:gpt-4.1-mini", tools=[search]))

async def research(question: str) -> str:
    return (await agent.run(question)).output

await run(research, "…", store="runs.db", run_id="r")
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic import TypeAdapter

from rh_agents.core._flow import report_usage
from rh_agents.core.usage import Price, Usage
from rh_agents.integrations._steps import Step, is_storable, model_actor, plain, tool_actor, warn_not_recorded

try:
    from pydantic_ai import ModelRetry
    from pydantic_ai.agent import AbstractAgent, WrapperAgent
    from pydantic_ai.messages import (
        ModelMessage,
        ModelMessagesTypeAdapter,
        ModelResponse,
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


def durable(agent: AbstractAgent[DepsT, OutputT], *, price: Price | None = None) -> WrapperAgent[DepsT, OutputT]:
    """The agent with recorded steps. It is used like the one that is given, which stays as it is.

    A stream is recorded as one step; replayed, its parts come at once. What a tool returns that is no plain data, such
    as a model of yours, is recorded as the JSON that the model is told. Models and toolsets that are given to a single
    `run` are not recorded: a `NotRecordedWarning` says so.

    Args:
        agent: the agent.
        price: what its model costs, for budgets of money; by default what the library's table says of its name.

    Raises:
        UserError: the agent has no model.
    """
    return agent if isinstance(agent, _DurableAgent) else _DurableAgent(agent, price)


class _DurableAgent(WrapperAgent[DepsT, OutputT]):
    def __init__(self, wrapped: AbstractAgent[DepsT, OutputT], price: Price | None = None) -> None:
        super().__init__(wrapped)
        model = wrapped.model
        self._durable_model: Model | None = None if model is None else _DurableModel(infer_model(model), price)
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

    def __init__(self, wrapped: Model, price: Price | None = None) -> None:
        super().__init__(wrapped)
        self._actor = model_actor(wrapped.model_name, price)

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

        return _read(await Step(self._actor, _about(messages, model_settings, model_request_parameters), ask))

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse, None]:
        """The same for a stream, which is read to its end before anybody gets a part of it."""

        async def ask() -> Any:
            async with super(_DurableModel, self).request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as stream:
                async for _ in stream:
                    pass
            return _written(stream.get())

        about = _about(messages, model_settings, model_request_parameters)
        response = _read(await Step(self._actor, about, ask))
        yield CompletedStreamedResponse(response, model_request_parameters=model_request_parameters, replay_events=True)


@dataclasses.dataclass
class _DurableToolset(WrapperToolset[DepsT]):
    """Each call is a step, identified by the tool, its arguments, and the id that the model gave the call."""

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[DepsT], tool: ToolsetTool[DepsT]
    ) -> Any:
        """Call the tool, or find what it returned."""

        async def call() -> Any:
            try:
                return _returned(await super(_DurableToolset, self).call_tool(name, tool_args, ctx, tool))
            except ModelRetry as retry:  # an answer to the model, and no failure
                return {_RETRY: retry.message}

        found = await Step(tool_actor(name), [plain(tool_args), ctx.tool_call_id], call)
        if _RETRY in found:
            raise ModelRetry(found[_RETRY])
        for kind, adapter in _ADAPTERS.items():
            if kind in found:
                return adapter.validate_python(found[kind])
        return found["value"]


def _returned(value: Any) -> dict[str, Any]:
    """What a tool returned, as data. What only the program's own classes can hold becomes what the model sees of it."""
    if is_storable(value):
        return {"value": value}
    kind = "return" if isinstance(value, ToolReturn) else "content"
    return {kind: _ADAPTERS[kind].dump_python(value, mode="json")}


def _about(messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters) -> Any:
    conversation = ModelMessagesTypeAdapter.dump_python(messages, mode="json")
    tools = [
        [tool.name, tool.description, plain(tool.parameters_json_schema)]
        for tool in (*parameters.function_tools, *parameters.output_tools)
    ]
    return [plain(conversation, _VOLATILE), plain(dict(settings or {})), tools, parameters.output_mode]


def _written(response: ModelResponse) -> Any:
    used = response.usage
    report_usage(
        Usage(
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cached_tokens=used.cache_read_tokens,
            requests=1,
        )
    )
    return ModelMessagesTypeAdapter.dump_python([response], mode="json")[0]


def _read(data: Any) -> ModelResponse:
    (response,) = ModelMessagesTypeAdapter.validate_python([data])
    assert isinstance(response, ModelResponse)
    return response
