"""A resumed run says so when its models are asked at another server than the one whose answers are recorded."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from rh_agents import ChatModel, MemoryStore, parallel, run
from rh_agents.core.chat import ChatRequest, ChatResponse, Fallback


class Echo(ChatModel):
    """Answers with the question."""

    async def complete(self, request: ChatRequest, on_delta: Any) -> ChatResponse:
        return ChatResponse(text=request.messages[-1].text)


def told(caplog: pytest.LogCaptureFixture, *runs: tuple[ChatModel, int]) -> list[str]:
    """What is logged while one run is executed with each of these models, for so many questions."""

    async def main() -> None:
        store = MemoryStore()
        for model, questions in runs:

            async def ask(asked: ChatModel = model, numbers: int = questions) -> None:
                async with parallel(name="questions") as p:
                    for number in range(numbers):
                        p.add(asked.ask(f"question {number}"))
                    await p.gather()

            await run(ask, store=store, run_id="monday", reuse=True)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    return [record.getMessage() for record in caplog.records]


def at(endpoint: str | None, version: str = "1") -> ChatModel:
    return Echo(model="qwen", endpoint=endpoint, version=version)


def test_a_run_that_is_resumed_at_another_server_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    (said,) = told(caplog, (at("http://one/v1"), 5), (at("http://two/v1"), 5))
    assert said == (
        "qwen is asked at http://two/v1, and run 'monday' has its answers from http://one/v1: they are not used, and "
        "its calls are made and paid for again. If it is the same model, say so with endpoint='http://one/v1'."
    )


def test_a_name_that_is_given_to_a_server_later_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    (said,) = told(caplog, (at(None), 3), (at("my vLLM"), 3))
    assert "qwen is asked at my vLLM, and run 'monday' has its answers from its provider's own server" in said
    assert said.endswith("say so with endpoint=''.")
    caplog.clear()
    assert told(caplog, (at(None), 3), (at(""), 3)) == []


@pytest.mark.parametrize(
    "models",
    [
        (at("http://one/v1"), at("http://one/v1")),  # new questions at the same server
        (at("http://one/v1"), at("http://two/v1", "2")),  # a version that was changed on purpose
        (Fallback(at("a"), at("b")), Fallback(at("a"), at("c"))),  # its version says much more
    ],
)
def test_nothing_is_said_where_no_server_has_changed(
    caplog: pytest.LogCaptureFixture, models: tuple[ChatModel, ChatModel]
) -> None:
    assert told(caplog, (models[0], 2), (models[1], 4)) == []


def test_who_has_moved_before_is_not_reminded(caplog: pytest.LogCaptureFixture) -> None:
    assert len(told(caplog, (at("one"), 2), (at("two"), 2), (at("two"), 3))) == 1
