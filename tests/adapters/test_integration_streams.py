"""Streams of durable agents of other frameworks: live, recorded, replayed, left, failed, and read slowly."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rh_agents import ExecutionEvent, ExecutionStatus, MemoryStore, run
from rh_agents.core.chat import ChatDelta
from rh_agents.integrations import NotStreamedWarning

pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed: pip install 'rh_agents[pydantic-ai]'")
pytest.importorskip("agents", reason="openai-agents is not installed: pip install 'rh_agents[openai-agents]'")
pytest.importorskip("langchain_core", reason="langchain is not installed: pip install 'rh_agents[langchain]'")

import agents as sdk
from agents.tracing import set_tracing_disabled
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

from rh_agents.integrations import langchain, openai_agents, pydantic_ai
from rh_agents.integrations._streams import HELD_PIECES

set_tracing_disabled(True)

Source = Callable[[], AsyncIterator[str]]
"""What a provider sends, when it sends it."""


class Read:
    """What a program got: the pieces, and whether they are marked as replayed."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.is_replayed = False


class WithPydanticAI:
    """A Pydantic AI agent."""

    def __init__(self, source: Source | None, *, whole: str = "") -> None:
        async def stream(messages: Any, info: Any) -> AsyncIterator[str]:
            assert source is not None
            async for piece in source():
                yield piece

        def answer(messages: Any, info: Any) -> ModelResponse:
            return ModelResponse(parts=[TextPart(whole)])

        model = FunctionModel(answer) if source is None else FunctionModel(stream_function=stream)
        if source is None:
            model.request_stream = _not_implemented  # type: ignore[method-assign]
        self.agent = pydantic_ai.durable(PydanticAgent(model, name="a"))

    async def read(self, into: Read) -> AsyncIterator[str]:
        async with self.agent.run_stream("Hi.") as stream:
            async for piece in stream.stream_text(delta=True, debounce_by=None):
                yield piece
            into.is_replayed = "rh_agents_replayed" in (stream.all_messages()[-1].metadata or {})


def _not_implemented(*_: Any, **__: Any) -> Any:
    raise NotImplementedError


class SdkModel(sdk.Model):
    def __init__(self, source: Source | None, whole: str) -> None:
        self.source, self.whole = source, whole

    def response(self, text: str) -> Response:
        content = ResponseOutputText(text=text, type="output_text", annotations=[])
        message = ResponseOutputMessage(id="m", content=[content], role="assistant", status="completed", type="message")
        return Response(
            id="r",
            created_at=1.0,
            model="m",
            object="response",
            output=[message],
            parallel_tool_calls=True,
            tool_choice="auto",
            tools=[],
            usage=ResponseUsage(
                input_tokens=7,
                input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
                output_tokens=3,
                output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
                total_tokens=10,
            ),
        )

    async def get_response(self, *args: Any, **options: Any) -> Any:
        used = sdk.Usage(requests=1, input_tokens=7, output_tokens=3, total_tokens=10)
        return sdk.ModelResponse(self.response(self.whole).output, used, None)

    def stream_response(self, *args: Any, **options: Any) -> Any:
        if self.source is None:
            raise NotImplementedError
        return self._events()

    async def _events(self) -> AsyncIterator[Any]:
        assert self.source is not None
        text = ""
        async for piece in self.source():
            text += piece
            yield ResponseTextDeltaEvent(
                content_index=0,
                delta=piece,
                item_id="m",
                logprobs=[],
                output_index=0,
                sequence_number=1,
                type="response.output_text.delta",
            )
        yield ResponseCompletedEvent(response=self.response(text), sequence_number=2, type="response.completed")


class WithOpenAIAgents:
    """An agent of the OpenAI Agents SDK."""

    def __init__(self, source: Source | None, *, whole: str = "") -> None:
        self.agent = openai_agents.durable(sdk.Agent(name="a", model=SdkModel(source, whole)))

    async def read(self, into: Read) -> AsyncIterator[str]:
        model: Any = self.agent.model
        stream = model.stream_response("", "Hi.", sdk.ModelSettings(), [], None, [], None)
        has_pieces = False
        try:
            async for event in stream:
                if isinstance(event, ResponseTextDeltaEvent):
                    has_pieces = True
                    yield event.delta
                elif isinstance(event, ResponseCompletedEvent):
                    into.is_replayed = "rh_agents_replayed" in (event.response.metadata or {})
                    if not has_pieces:
                        yield event.response.output_text
        finally:
            await stream.aclose()


class Chat(BaseChatModel):
    source: Any = None
    whole: str = ""

    @property
    def _llm_type(self) -> str:
        return "chat"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **given: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=self.whole))])


class StreamingChat(Chat):
    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **given: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for piece in self.source():
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))


class WithLangChain:
    """A chat model of LangChain."""

    def __init__(self, source: Source | None, *, whole: str = "") -> None:
        kind = Chat if source is None else StreamingChat
        self.model = langchain.durable(kind(source=source, whole=whole))

    async def read(self, into: Read) -> AsyncIterator[str]:
        stream: Any = self.model.astream("Hi.")
        try:
            async for chunk in stream:
                into.is_replayed = into.is_replayed or "rh_agents_replayed" in chunk.response_metadata
                if chunk.content:
                    yield chunk.content
        finally:
            await stream.aclose()


EACH = pytest.mark.parametrize("kind", [WithPydanticAI, WithOpenAIAgents, WithLangChain])


class World:
    """A store, and the events of the model in the runs that are kept there."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.told: list[ChatDelta] = []
        self.ended: list[ExecutionEvent[Any]] = []

    def run(self, program: Callable[[], Awaitable[Any]], **options: Any) -> Any:
        async def listen(event: ExecutionEvent[Any]) -> None:
            if event.execution_status is ExecutionStatus.PROGRESS:
                self.told.append(event.progress)
            elif event.usage is not None:
                self.ended.append(event)

        given = {"store": self.store, "run_id": "r", "subscribers": [listen], **options}
        return asyncio.run(asyncio.wait_for(run(program, **given), 30))

    def outcomes(self) -> list[Any]:
        async def all_of_them() -> list[Any]:
            return [outcome async for outcome in self.store.outcomes("r")]

        return asyncio.run(all_of_them())


@EACH
def test_a_piece_arrives_before_the_next_one_is_sent_and_the_whole_is_recorded_and_replayed(kind: Any) -> None:
    world = World()
    sent: list[str] = []

    async def program() -> Read:
        has_arrived = asyncio.Event()

        async def source() -> AsyncIterator[str]:
            for piece in ("one ", "two ", "three"):
                sent.append(piece)
                has_arrived.clear()
                yield piece
                await has_arrived.wait()  # the provider sends no more until the program has this

        found = Read()
        async for piece in kind(source).read(found):
            found.pieces.append(piece)
            has_arrived.set()
        return found

    first = world.run(program)
    assert first.pieces == ["one ", "two ", "three"]
    assert not first.is_replayed
    assert "".join(delta.text for delta in world.told) == "one two three"
    assert not any(delta.void for delta in world.told)
    (outcome,) = world.outcomes()
    assert outcome.error is None
    again = world.run(program)
    assert again.pieces == ["one two three"]
    assert again.is_replayed
    assert sent == ["one ", "two ", "three"]


@EACH
def test_a_reader_that_leaves_early_cancels_the_call_and_what_it_used_counts(kind: Any) -> None:
    world = World()
    ended: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "x" * 3000
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def program() -> str:
        reading = kind(source).read(Read())
        async for piece in reading:
            assert piece
            break
        await reading.aclose()
        return "left"

    assert world.run(program) == "left"
    assert ended == ["cancelled"]
    assert world.outcomes() == []  # so that the next execution asks again
    (event,) = world.ended
    assert event.execution_status is ExecutionStatus.CANCELLED
    assert event.usage is not None
    assert event.usage.requests == event.usage.estimates == 1
    assert event.usage.input_tokens > 0
    assert event.usage.output_tokens >= 500


@EACH
def test_a_stream_that_fails_says_so_to_its_reader_and_its_pieces_are_void(kind: Any) -> None:
    world = World()

    async def source() -> AsyncIterator[str]:
        yield "half"
        raise ConnectionError("reset by peer")

    async def program() -> None:
        found = Read()
        try:
            async for piece in kind(source).read(found):
                found.pieces.append(piece)
        finally:
            assert found.pieces == ["half"]

    with pytest.raises(ConnectionError, match="reset by peer"):
        world.run(program)
    assert [delta.void for delta in world.told] == [False, True]
    (outcome,) = world.outcomes()
    assert outcome.error is not None
    assert outcome.usage.estimates == 1


@EACH
def test_a_slow_reader_holds_so_many_pieces_and_no_more(kind: Any) -> None:
    sent: list[int] = []
    most: list[int] = []

    async def source() -> AsyncIterator[str]:
        for number in range(500):
            sent.append(number)
            yield f"{number} "

    async def program() -> None:
        got = 0
        async for piece in kind(source).read(Read()):
            got += piece.count(" ")
            for _ in range(100 if got < 5 else 1):
                await asyncio.sleep(0)
            most.append(len(sent) - got)

    World().run(program)
    assert len(sent) == 500
    assert HELD_PIECES <= max(most) <= HELD_PIECES + 4


@EACH
def test_what_cannot_stream_warns_and_gives_its_answer_as_one_piece(kind: Any) -> None:
    world = World()

    async def program() -> Read:
        found = Read()
        found.pieces = [piece async for piece in kind(None, whole="all of it").read(found)]
        return found

    with pytest.warns(NotStreamedWarning, match="cannot stream"):
        first = world.run(program)
    assert first.pieces == ["all of it"]
    assert not first.is_replayed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = world.run(program)
    assert again.pieces == ["all of it"]
    assert again.is_replayed


@EACH
def test_equal_streams_one_after_the_other_have_an_order(kind: Any) -> None:
    world = World()
    sent: list[str] = []

    async def source() -> AsyncIterator[str]:
        sent.append("asked")
        yield f"{len(sent)}"

    async def program() -> list[str]:
        agent = kind(source)
        return ["".join([piece async for piece in agent.read(Read())]) for _ in range(3)]

    for _ in range(2):
        assert world.run(program, strict=True) == ["1", "2", "3"]
    assert len(sent) == 3


@EACH
def test_a_stream_outside_of_a_run_is_just_a_stream(kind: Any) -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    async def program() -> list[str]:
        return [piece async for piece in kind(source).read(Read())]

    assert asyncio.run(program()) == ["a", "b"]


def test_a_stream_and_a_plain_question_have_an_order_and_the_mark_of_a_replay_changes_no_key() -> None:
    world = World()
    asked: list[int] = []

    async def stream(messages: Any, info: Any) -> AsyncIterator[str]:
        asked.append(len(messages))
        yield "streamed"

    def answer(messages: Any, info: Any) -> ModelResponse:
        asked.append(len(messages))
        return ModelResponse(parts=[TextPart("answered")])

    agent = pydantic_ai.durable(PydanticAgent(FunctionModel(answer, stream_function=stream), name="a"))

    async def program() -> list[str]:
        plain = (await agent.run("Hi.")).output
        async with agent.run_stream("Hi.") as found:
            streamed = await found.get_output()
        more = await agent.run("And?", message_history=found.all_messages())
        return [plain, streamed, more.output]

    for _ in range(2):
        assert world.run(program, strict=True) == ["answered", "streamed", "answered"]
    assert asked == [1, 1, 3]


def test_the_runner_of_the_sdk_gets_the_pieces_as_they_come() -> None:
    world = World()

    async def program() -> tuple[list[str], str]:
        has_arrived = asyncio.Event()

        async def source() -> AsyncIterator[str]:
            yield "one "
            await has_arrived.wait()
            yield "two"

        agent = openai_agents.durable(sdk.Agent(name="a", model=SdkModel(source, "")))
        result = sdk.Runner.run_streamed(agent, "Hi.")
        pieces = []
        async for event in result.stream_events():
            if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
                pieces.append(event.data.delta)
                has_arrived.set()
        return pieces, result.final_output

    assert world.run(program) == (["one ", "two"], "one two")
    assert world.run(program) == ([], "one two")


def test_two_equal_streams_that_one_program_reads_by_turns_have_an_order() -> None:
    world = World()
    asked: list[str] = []

    async def source() -> AsyncIterator[str]:
        asked.append("asked")
        for piece in (f"{len(asked)}", "!"):
            yield piece

    async def program() -> list[str]:
        model = WithLangChain(source)
        first: Any = model.read(Read())
        second: Any = model.read(Read())
        beginnings = [await anext(first), await anext(second)]
        return [
            "".join([begun, *[piece async for piece in each]])
            for begun, each in zip(beginnings, (first, second), strict=True)
        ]

    for _ in range(2):
        assert world.run(program, strict=True) == ["1!", "2!"]
    assert len(asked) == 2


def test_a_stream_whose_answer_is_there_is_recorded_though_its_reader_leaves(tmp_path: Path) -> None:
    asked: list[str] = []
    left: list[str] = []

    async def program() -> None:
        has_ended = asyncio.Event()

        async def source() -> AsyncIterator[str]:
            asked.append("asked")
            yield "all"
            has_ended.set()

        reading: Any = WithLangChain(source).read(Read())
        async for piece in reading:
            assert piece == "all"
            if asked and not left:
                await has_ended.wait()  # the outcome is on its way to the disk
            break
        await reading.aclose()
        left.append("left")

    for _ in range(2):
        World().run(program, store=str(tmp_path / "runs.db"))
    assert asked == ["asked"]


def test_the_sdk_is_told_what_a_model_used_that_cannot_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    world = World()

    async def program() -> int:
        reading = sdk.Runner.run_streamed(WithOpenAIAgents(None, whole="all of it").agent, "Hi.")
        async for _ in reading.stream_events():
            pass
        return reading.context_wrapper.usage.total_tokens

    with pytest.warns(NotStreamedWarning):
        assert world.run(program) == 10
    assert world.run(program) == 10
