"""A whole agent turn through a dialect: a question, two tool calls side by side, their results, the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from rh_agents import Agent, ExecutionState, ExecutionStatus, Usage, tool
from rh_agents.core.chat import ChatDelta, ImagePart
from rh_agents.llms import AnthropicChat, AzureChat, OpenAIChat
from rh_agents.llms._clients import ClientModel
from tests.services.dialects.kit import CITIES, Dialect, play
from tests.services.model_server import Exchange, ModelServer, Reply, model_server

__all__ = ["Larger", "Turn", "model_of", "run", "turn"]

T = TypeVar("T")
QUESTION = f"Which is larger, {' or '.join(CITIES)}?"


class Larger(BaseModel):
    """Which of two cities is larger."""

    larger: str
    difference: int


@dataclass
class Turn:
    """What became of a turn.

    Attributes:
        value: what the agent answered.
        exchanges: the requests.
        spent: what was counted.
        deltas: the pieces of answers that subscribers got.
        called: the cities that the tool was asked for.
    """

    value: Any
    exchanges: list[Exchange]
    spent: Usage
    deltas: list[ChatDelta]
    called: list[str]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The requests as JSON."""
        return [exchange.body for exchange in self.exchanges]


def model_of(dialect: Dialect, server: ModelServer, **settings: Any) -> ClientModel:
    """A model that takes the server on loopback for the provider."""
    settings = {"retry": None, "timeout": 10.0, **settings}
    place = server.base_url.removesuffix("/v1")
    if dialect.name == "Azure":
        return AzureChat(dialect.model, place, "key", api_version="2024-10-21", **settings)
    if dialect.name == "Anthropic":
        return AnthropicChat(dialect.model, place, "key", dialect=dialect.name, thinking="adaptive", **settings)
    return OpenAIChat(dialect.model, f"{place}/v1", "key", dialect=dialect.name, **settings)


def turn(
    dialect: Dialect,
    *,
    is_streamed: bool = False,
    output: Any = None,
    tool_choice: str | None = None,
    shows: ImagePart | None = None,
    answering: Callable[[Exchange], Reply] | None = None,
    **settings: Any,
) -> Turn:
    """Which of the two cities is larger, asked of an agent with one tool, which may show an image beside a number."""
    called: list[str] = []
    deltas: list[ChatDelta] = []

    @tool
    async def population(city: str) -> Any:
        """How many people live there."""
        called.append(city)
        return CITIES[city] if shows is None else [str(CITIES[city]), shows]

    async def hear(event: Any) -> None:
        if event.execution_status is ExecutionStatus.PROGRESS:
            deltas.append(event.progress)

    async def main() -> Turn:
        async with model_server(answering or play(dialect)) as server:
            async with model_of(dialect, server, stream=is_streamed, **settings) as model:
                agent = Agent(name="geographer", llm=model, tools=[population], output=output, tool_choice=tool_choice)
                async with ExecutionState() as state:
                    state.event_bus.subscribe(hear)
                    value = await agent(QUESTION)
            return Turn(value, server.exchanges, state.spent.usage, deltas, called)

    return run(main())


def run(main: Coroutine[Any, Any, T]) -> T:
    """The value of it, which may take a minute at most."""
    return asyncio.run(asyncio.wait_for(main, 60))
