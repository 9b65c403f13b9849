"""Whoever listens to the pieces of an answer gets it also if it is there already: as one piece, with a mark."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from rh_agents import ExecutionEvent, ExecutionStatus, MemoryStore, parallel, run
from rh_agents.core.chat import ChatDelta, ChatModel, Fallback
from rh_agents.core.errors import InvalidRequest
from rh_agents.testing import ScriptedLLM, tool_call
from tests.properties.virtual import run_virtually


class Verdict(BaseModel):
    mood: str


class Listener:
    """What subscribers hear of a program in a first execution, and in a second one."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    def hear(
        self, program: Callable[[], Awaitable[Any]], run_id: str = "r", **options: Any
    ) -> tuple[list[ChatDelta], list[ExecutionEvent[Any]]]:
        events: list[ExecutionEvent[Any]] = []
        run_virtually(lambda: run(program, store=self.store, run_id=run_id, subscribers=[events.append], **options))
        return [event.progress for event in events if event.execution_status is ExecutionStatus.PROGRESS], events


def test_a_recorded_answer_is_one_piece_that_is_marked_and_comes_before_the_end() -> None:
    listener, model = Listener(), ScriptedLLM(["One word after the other."], stream=True)

    async def program() -> str:
        return await model.ask("?")

    pieces, _ = listener.hear(program)
    assert len(pieces) > 1
    assert not any(piece.replayed for piece in pieces)
    again, events = listener.hear(program)
    assert again == [ChatDelta(text="One word after the other.", replayed=True)]
    assert [event.execution_status.value for event in events] == ["progress", "recovered"]
    assert all(event.is_replayed for event in events)
    assert events[0].address == events[1].address
    assert len(model.requests) == 1


def test_tool_calls_thoughts_and_objects_are_told_as_well() -> None:
    listener = Listener()
    caller = ScriptedLLM([[tool_call("look", at=1), tool_call("look", at=2)]], stream=True, name="caller")
    judge = ScriptedLLM([Verdict(mood="good")], stream=True, name="judge")

    async def program() -> None:
        await caller("?")
        await judge.ask("?", output=Verdict)

    listener.hear(program)
    assert listener.hear(program)[0] == [
        ChatDelta(tool_index=0, tool_name="look", arguments='{"at": 1}', replayed=True),
        ChatDelta(tool_index=1, tool_name="look", arguments='{"at": 2}', replayed=True),
        ChatDelta(text='{"mood":"good"}', replayed=True),
    ]


@pytest.mark.parametrize("stream", [True, False])
def test_members_of_groups_and_cached_answers_are_told_if_the_model_streams(stream: bool) -> None:
    listener, model = Listener(), ScriptedLLM(lambda _: "Yes.", stream=stream, cache="store")

    async def program() -> None:
        async with parallel(name="g") as p:
            for number in range(3):
                p.add(model.ask(f"{number}?"))
            await p.gather()

    told = [ChatDelta(text="Yes.", replayed=True)] * 3 if stream else []
    listener.hear(program)
    assert listener.hear(program)[0] == told
    assert listener.hear(program, run_id="another")[0] == told
    assert len(model.requests) == 3


def test_a_recorded_failure_has_no_pieces() -> None:
    listener, model = Listener(), ScriptedLLM([InvalidRequest("no")], stream=True)

    async def program() -> None:
        with pytest.raises(InvalidRequest):
            await model.ask("?")

    listener.hear(program)
    assert listener.hear(program, retry_failed=False)[0] == []


def test_several_models_as_one_tell_pieces_if_one_of_them_does() -> None:
    listener = Listener()
    models: list[ChatModel] = [ScriptedLLM(["Yes."], stream=True, name="a"), ScriptedLLM([], name="b")]
    model = Fallback(*models)

    async def program() -> None:
        await model("?")

    listener.hear(program)
    assert listener.hear(program)[0] == [ChatDelta(text="Yes.", replayed=True)]
