"""LangChain chains and LangGraph agents that are killed go on where they were."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rh_agents import MemoryStore, run
from rh_agents.integrations import NotRecordedWarning
from tests.runtime.worlds import Crash

pytest.importorskip("langgraph", reason="langgraph is not installed: pip install 'rh_agents[langchain]'")

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from rh_agents.integrations.langchain import durable


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


class Script(BaseChatModel):
    """A model that looks twice, and then answers."""

    world: Any

    @property
    def _llm_type(self) -> str:
        return "script"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self.bind(tools=[each.name for each in tools])

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **given: Any) -> ChatResult:
        turn = sum(isinstance(message, ToolMessage) for message in messages)
        self.world.do(f"model {turn}")
        usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        if turn < 2 and given.get("tools"):
            calls = [{"name": "look", "args": {"place": f"p{turn}"}, "id": f"c{turn}"}]
            message = AIMessage(content="", tool_calls=calls, usage_metadata=usage)
        else:
            message = AIMessage(content="seen", usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])


def graph(world: World) -> Any:
    """A graph of a model and its tools, as LangGraph's own documents build it."""

    @tool
    async def look(place: str) -> str:
        """Look at a place."""
        world.do(f"look {place}")
        return place.upper()

    tools = [durable(look)]
    model = durable(Script(world=world)).bind_tools(tools)

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def where(state: MessagesState) -> str:
        return "tools" if getattr(state["messages"][-1], "tool_calls", ()) else END

    built = StateGraph(MessagesState)
    built.add_node("think", think)
    built.add_node("tools", ToolNode(tools))
    built.add_edge(START, "think")
    built.add_conditional_edges("think", where, ["tools", END])
    built.add_edge("tools", "think")
    return built.compile()


STEPS = ["model 0", "look p0", "model 1", "look p1", "model 2"]


@pytest.mark.parametrize("dies_at", STEPS)
def test_a_graph_that_was_killed_goes_on_and_nothing_finished_is_done_again(dies_at: str) -> None:
    world, store = World(), MemoryStore()
    world.dies_at = dies_at

    async def program() -> str:
        found = await graph(world).ainvoke({"messages": [("user", "Look around.")]})
        text: str = found["messages"][-1].content
        return text

    with pytest.raises(Crash):
        asyncio.run(run(program, store=store, run_id="r"))
    for _ in range(2):
        assert asyncio.run(run(program, store=store, run_id="r")) == "seen"
    assert world.done == [*STEPS[: STEPS.index(dies_at) + 1], *STEPS[STEPS.index(dies_at) :]]

    async def used() -> int:
        return sum([outcome.usage.tokens async for outcome in store.outcomes("r") if outcome.usage is not None])

    assert asyncio.run(used()) == 30


def test_the_model_in_a_chain_is_recorded() -> None:
    world, store = World(), MemoryStore()
    prompt = ChatPromptTemplate.from_messages([("user", "Look at {place}.")])
    chain = durable(prompt | Script(world=world) | StrOutputParser())

    async def program() -> str:
        text: str = await chain.ainvoke({"place": "the sea"})
        return text

    for _ in range(2):
        assert asyncio.run(run(program, store=store, run_id="r")) == "seen"
    assert world.done == ["model 0"]


@pytest.mark.filterwarnings("ignore:the model script cannot stream")
def test_a_stream_is_one_step() -> None:
    world, store = World(), MemoryStore()
    model = durable(Script(world=world))

    async def program() -> str:
        return "".join([str(chunk.content) async for chunk in model.astream("Hello?")])

    for _ in range(2):
        assert asyncio.run(run(program, store=store, run_id="r")) == "seen"
    assert world.done == ["model 0"]


def test_what_cannot_be_seen_through_is_named_in_a_warning() -> None:
    with pytest.warns(NotRecordedWarning, match="CompiledStateGraph"):
        durable(graph(World()))
    with pytest.warns(NotRecordedWarning, match="synchronous"):
        durable(Script(world=World())).invoke("Hello?")
