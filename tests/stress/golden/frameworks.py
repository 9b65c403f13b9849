"""Conversations of other frameworks, made durable, as the golden journals have them. They never change either."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from agents import Agent as SdkAgent
from agents import Model as SdkModel
from agents import ModelResponse as SdkResponse
from agents import Runner, function_tool
from agents import Usage as SdkUsage
from agents.tracing import set_tracing_disabled
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool as langchain_tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from pydantic import BaseModel
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import ModelRetry
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from rh_agents.integrations import langchain, openai_agents, pydantic_ai
from tests.stress.golden.conversations import made

__all__ = ["PROGRAMS"]

set_tracing_disabled(True)


class Place(BaseModel):
    name: str
    people: int


# -- Pydantic AI -------------------------------------------------------------------------------------------------------


def _think(messages: list[Any], info: Any) -> ModelResponse:
    turn = sum(isinstance(message, ModelResponse) for message in messages)
    made.append(f"pydantic_ai model {turn}")
    if turn == 0:
        return ModelResponse(parts=[ToolCallPart("look_at", {"place": place}) for place in ("Oslo", "nowhere")])
    if turn == 1:
        return ModelResponse(parts=[ToolCallPart("look_at", {"place": "Bergen"})])
    if info.output_tools:
        return ModelResponse(parts=[ToolCallPart(info.output_tools[0].name, {"name": "Oslo", "people": 717_710})])
    return ModelResponse(parts=[TextPart("seen")])


async def _stream(messages: list[Any], info: Any) -> AsyncIterator[str]:
    made.append("pydantic_ai stream")
    for piece in ("Hel", "lo."):
        yield piece


async def look_at(place: str) -> Place:
    """Looks at a place."""
    made.append(f"pydantic_ai look {place}")
    if place == "nowhere":
        raise ModelRetry("there is no such place")
    return Place(name=place, people=len(place))


async def pydantic_ai_agents() -> Any:
    """With tools, one of which asks for another try; with a type; as a stream."""
    plain = pydantic_ai.durable(PydanticAgent(FunctionModel(_think), name="watcher", tools=[look_at]))
    typed = pydantic_ai.durable(
        PydanticAgent(FunctionModel(_think), name="counter", tools=[look_at], output_type=Place, instructions="Count.")
    )
    talker = pydantic_ai.durable(PydanticAgent(FunctionModel(stream_function=_stream), name="talker"))
    said = (await plain.run("Look around.", model_settings={"temperature": 0.5})).output
    found = (await typed.run("Look around.")).output
    async with talker.run_stream("Hi.") as stream:
        pieces = [text async for text in stream.stream_text(delta=True)]
    return [said, found.model_dump(), "".join(pieces)]


# -- OpenAI Agents SDK -------------------------------------------------------------------------------------------------


class _Script(SdkModel):
    """Hands over, or looks twice and answers."""

    def __init__(self, transfer: str | None = None) -> None:
        self.transfer = transfer

    async def get_response(self, *args: Any, **options: Any) -> SdkResponse:
        heard = args[1] if len(args) > 1 else options["input"]
        turn = sum(each.get("call_id", "").startswith("c") for each in heard if each["type"] == "function_call_output")
        made.append(f"openai_agents model {turn}")
        output: list[Any]
        if self.transfer is not None:
            output = [_call(self.transfer, {}, "t")]
        elif turn < 2:
            output = [_call("look", {"place": f"p{turn}"}, f"c{turn}")]
        else:
            text = ResponseOutputText(text="seen", type="output_text", annotations=[])
            message = ResponseOutputMessage(
                id="m", content=[text], role="assistant", status="completed", type="message"
            )
            output = [message]
        return SdkResponse(output, SdkUsage(requests=1, input_tokens=7, output_tokens=3, total_tokens=10), None)

    def stream_response(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


def _call(name: str, arguments: dict[str, Any], call_id: str) -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        arguments=json.dumps(arguments), call_id=call_id, name=name, type="function_call", id=call_id
    )


async def openai_agents_sdk() -> Any:
    """An agent that hands over to one with a tool."""

    @function_tool
    async def look(place: str) -> str:
        """Looks at a place."""
        made.append(f"openai_agents look {place}")
        return place.upper()

    watcher = SdkAgent(name="watcher", model=_Script(), tools=[look], instructions="Look well.")
    desk = SdkAgent(name="desk", model=_Script("transfer_to_watcher"), handoffs=[watcher])
    return (
        await Runner.run(openai_agents.durable(desk), [{"type": "message", "role": "user", "content": "Look."}])
    ).final_output


# -- LangChain and LangGraph -------------------------------------------------------------------------------------------


class _Chat(BaseChatModel):
    """Looks twice if it has a tool, and answers."""

    @property
    def _llm_type(self) -> str:
        return "script"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self.bind(tools=[each.name for each in tools])

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **given: Any) -> ChatResult:
        turn = sum(isinstance(message, ToolMessage) for message in messages)
        made.append(f"langchain model {turn}")
        usage: Any = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        if turn < 2 and given.get("tools"):
            calls = [{"name": "look", "args": {"place": f"p{turn}"}, "id": f"c{turn}"}]
            message = AIMessage(content="", tool_calls=calls, usage_metadata=usage)
        else:
            message = AIMessage(content="seen", usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])


@langchain_tool
async def look(place: str) -> str:
    """Looks at a place."""
    made.append(f"langchain look {place}")
    return place.upper()


def _graph() -> Any:
    tools = [langchain.durable(look)]
    model = langchain.durable(_Chat()).bind_tools(tools)

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


async def langchain_graphs() -> Any:
    """A graph with tools, a chain, and a stream."""
    said = (await _graph().ainvoke({"messages": [("user", "Look around.")]}))["messages"][-1].content
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "Look at {place}.")])
    chain: Any = langchain.durable(prompt | _Chat() | StrOutputParser())
    streamed = "".join([str(chunk.content) async for chunk in langchain.durable(_Chat()).astream("Hello?")])
    return [said, await chain.ainvoke({"place": "the sea"}), streamed]


PROGRAMS: dict[str, Callable[[], Awaitable[Any]]] = {
    program.__name__: program for program in (pydantic_ai_agents, openai_agents_sdk, langchain_graphs)
}
