"""Conversations in the form of OpenAI's chat protocol are read wherever messages are taken."""

from __future__ import annotations

from typing import Any

import pytest

from rh_agents import Agent, ExecutionEvent, run, tool
from rh_agents.core.chat import ChatRequest, DocumentPart, ImagePart, Message, TextPart, ToolCall
from rh_agents.core.chat.messages import messages_of
from rh_agents.core.errors import InputError
from rh_agents.core.values.inputs import canonical
from rh_agents.testing import ScriptedLLM
from tests.properties.virtual import run_virtually

HISTORY: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be short."},
    {"role": "user", "name": "ann", "content": [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk=", "filename": "a.pdf"}},
    ]},
    {"role": "assistant", "content": None, "refusal": None, "annotations": [], "reasoning_content": "I look it up.",
     "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'},
                     "extra_content": {"signature": "x"}}]},
    {"role": "tool", "tool_call_id": "c1", "name": "look", "content": "a cat"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "A cat."}]},
    {"role": "user", "content": "Sure?"},
]  # fmt: skip
CALL = ToolCall(id="c1", name="look", arguments='{"at": 1}', provider={"extra_content": {"signature": "x"}})
READ = (
    Message.system("Be short."),
    Message.user(
        "What is this?",
        ImagePart(url="https://example.com/a.png", detail="low"),
        DocumentPart(url="data:application/pdf;base64,aGk=", name="a.pdf"),
    ),
    Message(
        role="assistant",
        tool_calls=(CALL,),
        provider={"reasoning_content": "I look it up."},
    ),
    Message.tool("c1", "a cat"),
    Message(role="assistant", content=(TextPart(text="A cat."),)),
    Message.user("Sure?"),
)  # fmt: skip


def test_a_history_of_dictionaries_is_the_same_as_one_of_messages() -> None:
    assert messages_of(HISTORY) == READ
    assert ChatRequest.model_validate({"messages": HISTORY}).messages == READ
    assert [message.provider for message in messages_of(HISTORY)] == [message.provider for message in READ]
    assert canonical(ChatRequest(messages=messages_of(HISTORY))) == canonical(ChatRequest(messages=READ))


def test_messages_in_our_own_form_are_read_as_they_were_written() -> None:
    for message in READ:
        assert Message.model_validate(message.model_dump()) == message
        assert Message.model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize("how", ["call", "ask", "agent", "event", "one"])
def test_they_are_read_wherever_messages_are_taken(how: str) -> None:
    model = ScriptedLLM(["Yes."])

    async def main() -> None:
        if how == "call":
            await model(HISTORY)
        elif how == "ask":
            await model.ask(HISTORY)
        elif how == "agent":
            await Agent(name="a", llm=model)(HISTORY)
        elif how == "event":
            await ExecutionEvent(actor=model)(HISTORY)
        else:
            await model({"role": "user", "content": "Sure?"})

    run_virtually(lambda: run(main))
    assert model.requests[0].messages == (READ[-1:] if how == "one" else READ)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"role": "function", "name": "f", "content": "x"}, "old form: use tool_calls"),
        ({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}, "use tool_calls"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "'input_audio' cannot be sent"),
        ({"role": "user", "content": [{"type": "file", "file": {"file_id": "f1"}}]}, "file_data is needed"),
        ({"role": "robot", "content": "x"}, "is not a message"),
        ({"content": "x"}, "is not a message"),
        ({"role": "tool", "content": "x"}, "needs the id"),
        ("two texts", "is not a message"),
    ],
)
def test_what_is_no_message_is_refused_and_says_why(given: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        messages_of([given])


def test_what_another_library_gives_as_an_object_is_read() -> None:
    chat = pytest.importorskip("openai.types.chat")
    said = chat.ChatCompletionMessage(role="assistant", content="Yes.")
    assert messages_of([{"role": "user", "content": "?"}, said]) == (Message.user("?"), Message.assistant("Yes."))


def test_an_agent_says_how_its_model_shall_answer() -> None:
    @tool
    async def look() -> str:
        return "a cat"

    model = ScriptedLLM(["Yes.", "Yes."], temperature=1.0, reasoning_effort="low")
    careful = Agent(
        name="a", llm=model, tools=[look], temperature=0.0, reasoning_effort="high", parallel_tool_calls=False
    )

    async def main() -> None:
        await careful("?")
        await Agent(name="b", llm=model)("?")

    run_virtually(lambda: run(main))
    said = [(each.temperature, each.reasoning_effort, each.parallel_tool_calls) for each in model.requests]
    assert said == [(0.0, "high", False), (1.0, "low", None)]
