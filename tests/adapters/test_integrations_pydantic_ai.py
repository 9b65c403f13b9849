"""A Pydantic AI agent that is killed goes on where it was, without asking its model or its tools again."""

from __future__ import annotations

import asyncio
import dataclasses
import warnings
from typing import Any

import pytest
from pydantic import BaseModel

from rh_agents import MemoryStore, parallel, run
from rh_agents.integrations import NotRecordedWarning
from tests.runtime.worlds import Crash

pydantic_ai = pytest.importorskip(
    "pydantic_ai", reason="pydantic-ai is not installed: pip install 'rh_agents[pydantic-ai]'"
)

from pydantic_ai import Agent, ModelRetry  # noqa: E402
from pydantic_ai.messages import ImageUrl, ModelResponse, TextPart, ToolCallPart, ToolReturn  # noqa: E402
from pydantic_ai.models.function import FunctionModel  # noqa: E402
from pydantic_ai.models.test import TestModel  # noqa: E402

from rh_agents.integrations.pydantic_ai import durable  # noqa: E402


class World:
    """What was really done, and when the process dies."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.dies_at: str | None = None

    def do(self, what: str) -> None:
        self.done.append(what)
        if what == self.dies_at:
            self.dies_at = None
            raise Crash

    def agent(self) -> Any:
        def think(messages: list[Any], info: Any) -> ModelResponse:
            turn = sum(isinstance(message, ModelResponse) for message in messages)
            self.do(f"model {turn}")
            if turn == 0:
                calls = [ToolCallPart("look", {"place": place}) for place in ("a", "b")]
                return ModelResponse(parts=calls)
            if turn == 1:
                return ModelResponse(parts=[ToolCallPart("look", {"place": "c"})])
            return ModelResponse(parts=[TextPart("seen")])

        agent = Agent(FunctionModel(think), name="watcher")

        @agent.tool_plain
        async def look(place: str) -> str:
            self.do(f"look {place}")
            return place.upper()

        return durable(agent)


STEPS = ["model 0", "look a", "look b", "model 1", "look c", "model 2"]


@pytest.mark.parametrize("dies_at", STEPS)
def test_an_agent_that_was_killed_goes_on_and_nothing_finished_is_done_again(dies_at: str) -> None:
    world, store = World(), MemoryStore()
    world.dies_at = dies_at

    async def program() -> str:
        output: str = (await world.agent().run("Look around.")).output
        return output

    with pytest.raises(Crash):
        asyncio.run(run(program, store=store, run_id="r"))
    assert asyncio.run(run(program, store=store, run_id="r")) == "seen"
    twice = {what for what in world.done if world.done.count(what) > 1}
    assert twice <= {
        dies_at,
        "look a",
        "look b",
    }  # those two run side by side
    assert set(world.done) == set(STEPS)
    before = len(world.done)
    assert asyncio.run(run(program, store=store, run_id="r")) == "seen"
    assert len(world.done) == before


def test_usage_is_reported_and_a_stream_is_one_step() -> None:
    agent = durable(Agent(TestModel(custom_output_text="Hello there."), name="talker"))
    store = MemoryStore()

    async def program() -> str:
        async with agent.run_stream("Hi.") as stream:
            return "".join([text async for text in stream.stream_text(delta=True)])

    for _ in range(2):
        assert asyncio.run(run(program, store=store, run_id="r")) == "Hello there."

    async def usage() -> list[Any]:
        return [outcome.usage async for outcome in store.outcomes("r")]

    (used,) = asyncio.run(usage())
    assert used is not None
    assert used.requests == 1
    assert used.tokens > 0


def test_a_retry_that_a_tool_asks_for_is_replayed_as_one() -> None:
    asked: list[str] = []

    def think(messages: list[Any], info: Any) -> ModelResponse:
        turn = sum(isinstance(message, ModelResponse) for message in messages)
        asked.append(f"{turn}")
        if turn < 2:
            return ModelResponse(parts=[ToolCallPart("guess", {"number": turn})])
        return ModelResponse(parts=[TextPart("found")])

    inner = Agent(FunctionModel(think), name="guesser")

    @inner.tool_plain
    async def guess(number: int) -> str:
        if number == 0:
            raise ModelRetry("higher")
        return "right"

    agent, store = durable(inner), MemoryStore()

    async def program() -> str:
        return (await agent.run("Guess.")).output

    for _ in range(2):
        assert asyncio.run(run(program, store=store, run_id="r")) == "found"
    assert asked == ["0", "1", "2"]


def test_agents_side_by_side_keep_their_steps_apart() -> None:
    def think(messages: list[Any], info: Any) -> ModelResponse:
        return ModelResponse(parts=[TextPart(messages[0].parts[-1].content.upper())])

    agent, store = durable(Agent(FunctionModel(think), name="crier")), MemoryStore()

    async def cry(word: str) -> str:
        return (await agent.run(word)).output

    async def program() -> list[str]:
        async with parallel(max_workers=10) as p:
            p.map(cry, ["a", "b", "a", "c"])
            return [result.unwrap() for result in await p.gather()]

    for _ in range(2):
        assert asyncio.run(run(program, store=store, run_id="r")) == ["A", "B", "A", "C"]


def test_a_model_given_to_a_single_run_is_not_recorded_and_that_is_said() -> None:
    agent = durable(Agent(TestModel(), name="talker"))

    async def program() -> None:
        await agent.run("Hi.", model=TestModel())

    with pytest.warns(NotRecordedWarning, match="the model given to this run"):
        asyncio.run(run(program))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asyncio.run(agent.run("Hi.")).output  # outside of a run it is just the agent


def test_other_settings_are_another_question() -> None:
    asked: list[Any] = []

    def think(messages: list[Any], info: Any) -> ModelResponse:
        asked.append((info.model_settings or {}).get("temperature"))
        return ModelResponse(parts=[TextPart("hm")])

    agent, store = durable(Agent(FunctionModel(think), name="thinker")), MemoryStore()

    async def program(temperature: float) -> str:
        output: str = (await agent.run("Hi.", model_settings={"temperature": temperature})).output
        return output

    for temperature in (0.0, 0.0, 1.0):
        assert asyncio.run(run(program, temperature, store=store, run_id="r", reuse=True)) == "hm"
    assert asked == [0.0, 1.0]


class Place(BaseModel):
    name: str


@dataclasses.dataclass
class Size:
    metres: int


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (Place(name="Oslo"), {"name": "Oslo"}),
        (Size(7), {"metres": 7}),
        ([Place(name="Oslo")], [{"name": "Oslo"}]),
        (ImageUrl("https://example.org/a.png"), ImageUrl("https://example.org/a.png")),
        (ToolReturn(return_value=Place(name="Oslo"), content="look", metadata={"a": 1}), {"name": "Oslo"}),
    ],
)
def test_whatever_a_tool_returns_is_recorded_as_the_model_is_told(value: Any, told: Any) -> None:
    done: list[Any] = []

    def think(messages: list[Any], info: Any) -> ModelResponse:
        if not any(isinstance(message, ModelResponse) for message in messages):
            return ModelResponse(parts=[ToolCallPart("look", {})])
        done.append(messages[-1].parts[0].content)
        if len(done) == 2:
            raise Crash  # so that another process gets the result from the journal
        return ModelResponse(parts=[TextPart("seen")])

    inner = Agent(FunctionModel(think), name="watcher")

    @inner.tool_plain
    def look() -> Any:
        done.append("looked")
        return value

    agent, store = durable(inner), MemoryStore()

    async def program() -> str:
        output: str = (await agent.run("Look.")).output
        return output

    with pytest.raises(Crash):
        asyncio.run(run(program, store=store, run_id="r"))
    assert asyncio.run(run(program, store=store, run_id="r")) == "seen"
    assert done == ["looked", told, told]


def test_what_is_durable_already_stays_as_it_is() -> None:
    agent = durable(Agent(TestModel(), name="talker"))
    assert durable(agent) is agent
