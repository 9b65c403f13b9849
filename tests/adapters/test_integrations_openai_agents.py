"""An agent of the OpenAI Agents SDK that is killed goes on where it was."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rh_agents import MemoryStore, run
from rh_agents.integrations import NotRecordedWarning
from tests.runtime.worlds import Crash

agents = pytest.importorskip("agents", reason="openai-agents is not installed: pip install 'rh_agents[openai-agents]'")

from agents import (  # noqa: E402
    Agent,
    GuardrailFunctionOutput,
    LocalShellTool,
    Model,
    ModelResponse,
    RunConfig,
    Runner,
    ToolOutputText,
    Usage,
    function_tool,
    input_guardrail,
)
from agents.tracing import set_tracing_disabled  # noqa: E402
from openai.types.responses import (  # noqa: E402
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

from rh_agents.integrations.openai_agents import durable  # noqa: E402

set_tracing_disabled(True)


class Script(Model):
    """A model that looks twice, and then answers; or hands over at once."""

    def __init__(self, world: World, transfer: str | None = None) -> None:
        self.world = world
        self.transfer = transfer

    async def get_response(self, *args: Any, **options: Any) -> ModelResponse:
        heard = args[1] if len(args) > 1 else options["input"]
        turn = sum(each.get("type") == "function_call_output" for each in heard) if isinstance(heard, list) else 0
        self.world.do(f"model {turn}")
        output: list[Any]
        if self.transfer is not None:
            output = [_call(self.transfer, {}, "t")]
        elif turn < 2:
            output = [_call("look", {"place": f"p{turn}"}, f"c{turn}")]
        else:
            text = ResponseOutputText(text="seen", type="output_text", annotations=[])
            output = [
                ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
            ]
        return ModelResponse(output, Usage(requests=1, input_tokens=7, output_tokens=3, total_tokens=10), None)

    def stream_response(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


def _call(name: str, arguments: dict[str, Any], call_id: str) -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        arguments=json.dumps(arguments), call_id=call_id, name=name, type="function_call", id=call_id
    )


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
        @function_tool
        async def look(place: str) -> str:
            """Look at a place."""
            self.do(f"look {place}")
            return place.upper()

        return Agent(name="watcher", model=Script(self), tools=[look])


STEPS = ["model 0", "look p0", "model 1", "look p1", "model 2"]


@pytest.mark.parametrize("dies_at", STEPS)
def test_an_agent_that_was_killed_goes_on_and_nothing_finished_is_done_again(dies_at: str) -> None:
    world, store = World(), MemoryStore()
    world.dies_at = dies_at

    async def program() -> str:
        output: str = (await Runner.run(durable(world.agent()), "Look around.")).final_output
        return output

    with pytest.raises(Crash):
        asyncio.run(run(program, store=store, run_id="r"))
    for _ in range(2):
        assert asyncio.run(run(program, store=store, run_id="r")) == "seen"
    assert world.done == [*STEPS[: STEPS.index(dies_at) + 1], *STEPS[STEPS.index(dies_at) :]]

    async def used() -> int:
        return sum([outcome.usage.tokens async for outcome in store.outcomes("r") if outcome.usage is not None])

    assert asyncio.run(used()) == 30


def test_the_agents_to_whom_it_hands_over_are_durable_too() -> None:
    world, store = World(), MemoryStore()

    async def program() -> str:
        desk = Agent(name="desk", model=Script(world, "transfer_to_watcher"), handoffs=[world.agent()])
        output: str = (await Runner.run(durable(desk), "Look around.")).final_output
        return output

    for _ in range(2):
        assert asyncio.run(run(program, store=store, run_id="r")) == "seen"
    assert world.done == ["model 0", "model 1", "look p1", "model 2"]


def test_what_acts_on_this_machine_by_itself_is_named_in_a_warning() -> None:
    agent = Agent(name="admin", tools=[LocalShellTool(executor=lambda _: "")])
    with pytest.warns(NotRecordedWarning, match="the LocalShellTool of agent 'admin' is not recorded"):
        durable(agent)


class Handle:
    def __str__(self) -> str:
        return "<handle 7>"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (Handle(), "<handle 7>"),
        ({"a": 1}, "{'a': 1}"),
        (ToolOutputText(text="hi"), [{"type": "input_text", "text": "hi"}]),
    ],
)
def test_whatever_a_tool_returns_is_recorded_as_the_model_is_told(value: Any, told: Any) -> None:
    world, store = World(), MemoryStore()
    heard: list[Any] = []

    class Listener(Script):
        async def get_response(self, *args: Any, **options: Any) -> ModelResponse:
            given = args[1] if len(args) > 1 else options["input"]
            heard.extend(each["output"] for each in given if isinstance(given, list) and "output" in each)
            return await super().get_response(*args, **options)

    @function_tool
    async def look(place: str) -> Any:
        """Look at a place."""
        world.do(f"look {place}")
        return value

    agent = durable(Agent(name="watcher", model=Listener(world), tools=[look]))

    async def program() -> Any:
        return (await Runner.run(agent, "Look around.")).final_output

    for _ in range(2):
        assert asyncio.run(run(program, store=store, run_id="r")) == "seen"
    assert heard[0] == told
    assert world.done == STEPS


def test_what_is_durable_already_stays_as_it_is() -> None:
    agent = durable(World().agent())
    assert durable(agent) is agent


def test_models_of_a_run_config_and_guardrails_are_named_in_a_warning() -> None:
    world = World()
    agent = durable(world.agent())

    async def program() -> Any:
        return (await Runner.run(agent, "Look.", run_config=RunConfig(model=Script(world)))).final_output

    with pytest.warns(NotRecordedWarning, match="the RunConfig gives to agent 'watcher'"):
        assert asyncio.run(run(program)) == "seen"

    @input_guardrail
    async def guard(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    with pytest.warns(NotRecordedWarning, match="guardrails of agent 'careful'"):
        durable(Agent(name="careful", model=Script(world), input_guardrails=[guard]))
