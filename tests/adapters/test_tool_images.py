"""Images in the results of tools, as a server of the chat protocol gets them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rh_agents import Agent, run, tool
from rh_agents.core.chat import DocumentPart, ImagePart, Message, TextPart, ToolCall
from tests.services.model_server import answer, model_server, tool_calls

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")

from rh_agents.llms import OpenAIChat
from rh_agents.llms._providers import CHAT

DOT = ImagePart.from_bytes(b"dot")
PAGE = DocumentPart.from_bytes(b"%PDF-", name="a.pdf")


def sent(messages: list[Message], **options: Any) -> list[dict[str, Any]]:
    """The messages of a request."""
    model = OpenAIChat("m", api_key="x", **options)
    found: list[dict[str, Any]] = model.body(model.request(messages))["messages"]
    return found


def asking(*ids: str) -> Message:
    return Message.assistant("", [ToolCall(id=each, name=f"tool_{each}", arguments="{}") for each in ids])


TURN = [
    Message.user("Look."),
    asking("a", "b"),
    Message.tool("a", (TextPart(text="first"), DOT)),
    Message.tool("b", (PAGE, DOT)),
]


@pytest.mark.parametrize("following", [[], [Message.user("And?")], [Message.assistant("Seen."), Message.user("And?")]])
def test_images_of_a_turn_come_in_one_message_of_the_user_behind_its_last_answer(following: list[Message]) -> None:
    _, _, first, second, user, *rest = sent([*TURN, *following])
    assert first == {"role": "tool", "tool_call_id": "a", "content": "first\n[image 1: see below]"}
    assert second["content"] == "[document 1: see below]\n[image 1: see below]"
    assert user["role"] == "user"
    assert [part.get("text") or part["type"] for part in user["content"]] == [
        "Image 1 of the result of tool_a (a):",
        "image_url",
        "Document 1 of the result of tool_b (b):",
        "file",
        "Image 1 of the result of tool_b (b):",
        "image_url",
    ]
    assert rest == sent(following)


def test_a_conversation_without_images_in_results_is_sent_as_it_is() -> None:
    messages = [Message.user("Look.", DOT), asking("a"), Message.tool("a", "x"), Message.user("And?")]
    assert [message["role"] for message in sent(messages)] == ["user", "assistant", "tool", "user"]


def test_a_server_that_insists_gets_words_of_the_assistant_between_tools_and_the_user() -> None:
    for messages in (TURN, [Message.user("Look."), asking("a"), Message.tool("a", "x"), Message.user("And?")]):
        roles = [message["role"] for message in sent(messages, assistant_after_tools=True)]
        assert roles[-3:] == ["tool", "assistant", "user"]
    plain = [Message.user("Look."), asking("a"), Message.tool("a", "x")]
    assert [message["role"] for message in sent(plain, assistant_after_tools=True)] == ["user", "assistant", "tool"]
    assert CHAT.at("https://api.mistral.ai/v1").assistant_after_tools
    assert OpenAIChat("m", base_url="http://127.0.0.1:1/v1", assistant_after_tools=True).says_something_after_tools
    assert not OpenAIChat("m", api_key="x").says_something_after_tools


def test_an_agent_shows_its_model_the_image_that_a_tool_returned() -> None:
    @tool
    async def draw() -> ImagePart:
        return DOT

    async def main() -> list[dict[str, Any]]:
        async with model_server(lambda x: tool_calls(("draw", {})) if x.number == 0 else answer("A dot.")) as server:
            model = OpenAIChat("m", base_url=server.base_url, api_key="x")
            async with model:
                assert await run(Agent(name="a", llm=model, tools=[draw]), "What is it?") == "A dot."
            found: list[dict[str, Any]] = server.exchanges[-1].body["messages"]
            return found

    *_, told, user = asyncio.run(main())
    assert told["role"] == "tool"
    assert isinstance(told["content"], str)
    assert user["content"][1] == {"type": "image_url", "image_url": {"url": DOT.url}}
