"""A run as events of AG-UI: each is of the protocol, and together they are a stream that its clients accept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from rh_agents import Agent, ExecutionState, MemoryStore, RetryPolicy, current, parallel, tell_progress, tool
from rh_agents.core.chat import ChatDelta, ChatModel, ChatRequest, ChatResponse, ToolCall
from rh_agents.core.chat.model import OnDelta
from rh_agents.core.errors import ModelUnreachable
from rh_agents.core.redaction import forget_secret, register_secret
from rh_agents.integrations.ag_ui import AgUi
from rh_agents.stores.following import follow
from rh_agents.testing import JumpingClock, ScriptedLLM, tool_call

pytest.importorskip("ag_ui", reason="needs ag-ui-protocol, which says what is of the protocol")
from ag_ui.core import Event as ProtocolEvent

RUN = "monday"
KNOWN: TypeAdapter[Any] = TypeAdapter(ProtocolEvent)


async def translated(store: MemoryStore) -> AsyncIterator[dict[str, Any]]:
    translator = AgUi(RUN)
    async for each in follow(store, RUN):
        for event in translator.text(each.pieces) if each.event is None else translator.event(each.event):
            yield event
    for event in translator.end(await store.find_run(RUN), await store.questions(RUN)):
        yield event


def streamed(program: Callable[[], Awaitable[Any]], *, is_seen_later: bool = False) -> list[dict[str, Any]]:
    """The events of a program that is followed from its beginning, or after its end."""
    clock = JumpingClock()

    async def main() -> list[dict[str, Any]]:
        store = MemoryStore(clock=clock)
        events: list[dict[str, Any]] = []

        async def take() -> None:
            events.extend([event async for event in translated(store)])

        taking: asyncio.Task[None] | None = None
        try:
            async with ExecutionState(store=store, run_id=RUN, clock=clock):
                if not is_seen_later:
                    taking = asyncio.create_task(take())
                    await asyncio.sleep(0.01)
                await program()
        except Exception:
            if not await store.find_run(RUN):
                raise
        await (take() if taking is None else taking)
        return events

    events = clock.run(main())
    expect_a_stream(events)
    return events


def expect_a_stream(events: list[dict[str, Any]]) -> None:
    """Every event is of the protocol, and what begins ends, once, inside of the run."""
    open_: set[tuple[str, str]] = set()
    seen: set[tuple[str, str]] = set()
    for event in events:
        model = KNOWN.validate_python(event)
        assert not model.model_extra, f"the protocol has no {sorted(model.model_extra)} in {event['type']}"
        assert model.model_dump(mode="json", by_alias=True) == event
        kind, _, what = event["type"].rpartition("_")
        name = event.get("stepName") or event.get("messageId") or event.get("toolCallId") or ""
        if what in ("START", "STARTED") and kind != "RUN":
            assert (kind, name) not in open_
            assert kind == "STEP" or (kind, name) not in seen
            open_.add((kind, name))
            seen.add((kind, name))
        elif what in ("END", "FINISHED") and kind != "RUN":
            open_.remove((kind, name))
        elif what in ("CONTENT", "ARGS"):
            assert (kind, name) in open_
            assert event["delta"]
    assert open_ == set()
    assert events[0]["type"] == "RUN_STARTED"
    assert [event["type"] in ("RUN_FINISHED", "RUN_ERROR") for event in events] == [False] * (len(events) - 1) + [True]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def texts(events: list[dict[str, Any]], kind: str = "TEXT_MESSAGE_CONTENT", of: str = "messageId") -> dict[str, str]:
    found: dict[str, str] = {}
    for event in events:
        if event["type"] == kind:
            found[event[of]] = found.get(event[of], "") + event["delta"]
    return found


class Writer(ChatModel):
    """Writes slowly what it is told, and fails where it is told."""

    def __init__(self, *answers: list[ChatDelta | Exception | ChatResponse], **settings: Any) -> None:
        super().__init__(model="writer", stream=True, **settings)
        self._answers = list(answers)

    async def complete(self, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
        assert on_delta is not None
        for step in self._answers.pop(0):
            if isinstance(step, Exception):
                raise step
            if isinstance(step, ChatResponse):
                return step
            await on_delta(step)
            await asyncio.sleep(1)
        raise AssertionError("an answer ends with a response or an error")


def test_an_answer_is_a_message_that_comes_as_it_is_written_and_is_whole_when_it_ends() -> None:
    words = [ChatDelta(reasoning="Hm, "), *(ChatDelta(text=word) for word in ("The sky ", "is ", "blue"))]
    model = Writer([*words, ChatResponse(text="The sky is blue.", reasoning="Hm, ")])
    events = streamed(lambda: model("What colour is the sky?"))
    assert list(texts(events).values()) == ["The sky is blue."]
    assert list(texts(events, "REASONING_MESSAGE_CONTENT").values()) == ["Hm, "]
    assert kinds(events).count("TEXT_MESSAGE_CONTENT") >= 3
    assert kinds(events)[:3] == ["RUN_STARTED", "REASONING_START", "REASONING_MESSAGE_START"]
    assert kinds(events)[-2:] == ["TEXT_MESSAGE_END", "RUN_FINISHED"]


@pytest.mark.parametrize("is_seen_later", [False, True])
def test_an_answer_that_does_not_stream_or_is_there_already_is_one_message(is_seen_later: bool) -> None:
    events = streamed(lambda: ScriptedLLM(["It is blue."])("What?"), is_seen_later=is_seen_later)
    assert list(texts(events).values()) == ["It is blue."]


def test_what_an_agent_wants_to_be_called_is_a_tool_call_with_its_result() -> None:
    @tool
    async def weather(city: str) -> str:
        await asyncio.sleep(1)
        return f"{city} is sunny"

    asked = ChatResponse(
        text="I look. ",
        tool_calls=(
            ToolCall(id="a", name="weather", arguments='{"city": "Rome"}'),
            ToolCall(id="a", name="weather", arguments='{"city": "Oslo"}'),
        ),
    )
    model = Writer(
        [
            ChatDelta(text="I look. "),
            ChatDelta(tool_index=0, tool_name="weather"),
            ChatDelta(tool_index=0, arguments='{"city": "Ro'),
            asked,
        ],
        [ChatDelta(text="Both are "), ChatResponse(text="Both are sunny.")],
    )
    agent = Agent(name="guide", llm=model, tools=[weather])
    events = streamed(lambda: agent("Where is it sunny?"))
    arguments = texts(events, "TOOL_CALL_ARGS", "toolCallId")
    assert list(arguments.values()) == ['{"city": "Rome"}', '{"city": "Oslo"}']
    results = {event["toolCallId"]: event["content"] for event in events if event["type"] == "TOOL_CALL_RESULT"}
    assert results == dict(zip(arguments, ["Rome is sunny", "Oslo is sunny"], strict=True))
    assert list(texts(events).values()) == ["I look. ", "Both are sunny."]
    steps = [event["stepName"] for event in events if event["type"] == "STEP_STARTED"]
    assert steps[0] == "guide"
    assert len([name for name in steps if name.endswith("weather")]) == 2


def test_results_of_tools_are_not_told_where_it_is_not_sure_which_call_they_are_of() -> None:
    @tool
    async def weather(city: str) -> str:
        return f"{city} is sunny"

    script = [[tool_call("weather", town="Rome"), tool_call("weather", city="Oslo")], "Sunny."]
    events = streamed(lambda: Agent(name="guide", llm=ScriptedLLM(script), tools=[weather])("Where?"))
    assert "TOOL_CALL_RESULT" not in kinds(events)
    assert kinds(events).count("TOOL_CALL_END") == 2


def test_an_attempt_that_fails_ends_its_message_and_the_next_one_is_another() -> None:
    model = Writer(
        [ChatDelta(text="The sea "), ModelUnreachable("broken off")],
        [ChatDelta(text="The sky "), ChatResponse(text="The sky is.")],
        retry=RetryPolicy(max_attempts=2, initial_delay=1.0),
    )
    events = streamed(lambda: model("What?"))
    first, second = texts(events).items()
    assert (first[1], second[1]) == ("The sea ", "The sky is.")
    (void,) = [event for event in events if event.get("name") == "rh_agents.void"]
    assert void["value"] == {"messageId": first[0]}


def test_text_that_is_missing_is_marked_and_the_whole_answer_follows() -> None:
    whole = ChatResponse(text="The sky is so very.")
    answer = Writer([ChatDelta(text="The sky "), ChatDelta(text="is so very "), whole])
    clock = JumpingClock()

    async def main() -> list[dict[str, Any]]:
        store = MemoryStore(clock=clock)
        async with ExecutionState(store=store, run_id=RUN, clock=clock):
            asking = asyncio.ensure_future(answer("What?"))
            await asyncio.sleep(0.5)
            taking = asyncio.ensure_future(_all(translated(store)))
            await asking
        return await taking

    events = clock.run(main())
    expect_a_stream(events)
    assert list(texts(events).values()) == [" so very ", "The sky is so very."]
    assert [event["name"] for event in events if event["type"] == "CUSTOM"] == ["rh_agents.gap", "rh_agents.void"]


async def _all(events: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event async for event in events]


def test_calls_and_groups_are_steps_also_where_they_have_the_same_address() -> None:
    @tool
    async def fetch(number: int) -> int:
        await asyncio.sleep(1)
        await tell_progress("half")
        return number

    async def program() -> None:
        async with parallel(2, name="pages") as p:
            p.map(fetch, [1, 2])
            await p.gather()
        await asyncio.gather(fetch(3), fetch(4))

    events = streamed(program)
    started = [event["stepName"] for event in events if event["type"] == "STEP_STARTED"]
    assert started[0] == "pages"
    assert len(started) == 5
    assert list(texts(events).values()) == []


def test_a_run_that_fails_is_an_error_and_one_that_waits_for_people_is_interrupted() -> None:
    async def fail() -> None:
        raise ValueError("no way")

    events = streamed(fail)
    assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "failed")

    async def ask() -> None:
        await current().run.ask("May it go on?", bool)

    events = streamed(ask)
    assert events[-1]["outcome"]["type"] == "interrupt"
    (interrupt,) = events[-1]["outcome"]["interrupts"]
    assert (interrupt["message"], interrupt["responseSchema"]) == ("May it go on?", {"type": "boolean"})


def test_no_secret_is_in_any_event() -> None:
    register_secret("door", "open sesame 99")
    try:
        answer = ChatResponse(text="say open sesame 99 twice", reasoning="open sesame 99")
        model = Writer([ChatDelta(text="say open ses"), ChatDelta(text="ame 99 "), answer])
        events = streamed(lambda: model("open sesame 99"))
    finally:
        forget_secret("door")
    assert "sesame" not in str(events)
    assert list(texts(events).values()) == ["say <secret:door> twice"]


def test_parts_of_an_answer_that_are_written_in_turn_are_whole_all_the_same() -> None:
    calls = (ToolCall(id="a", name="one", arguments='{"a": 1}'), ToolCall(id="b", name="two", arguments='{"b": 2}'))
    in_turn: list[ChatDelta | Exception | ChatResponse] = [
        ChatDelta(tool_index=0, tool_name="one"),
        ChatDelta(tool_index=1, tool_name="two"),
        ChatDelta(tool_index=0, arguments='{"a": '),
        ChatDelta(tool_index=1, arguments='{"b": '),
        ChatResponse(text="", tool_calls=calls),
    ]
    events = streamed(lambda: Writer(in_turn)("What?"))
    assert list(texts(events, "TOOL_CALL_ARGS", "toolCallId").values()) == ['{"a": 1}', '{"b": 2}']
    assert "CUSTOM" not in kinds(events)
    again: list[ChatDelta | Exception | ChatResponse] = [
        ChatDelta(text="First. "),
        in_turn[0],
        ChatDelta(text="Then. "),
    ]
    again.append(ChatResponse(text="First. Then. ", tool_calls=calls[:1]))
    events = streamed(lambda: Writer(again)("What?"))
    assert list(texts(events).values()) == ["First. ", "First. Then. "]
    assert kinds(events).count("CUSTOM") == 1
