"""Anthropic's Message Batches: one for many requests, found again without marks, and what comes of each request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from rh_agents import ExecutionState, MemoryStore, Price, RetryPolicy
from rh_agents.core.errors import InvalidRequest, ModelOverloaded, ModelTimeout, UnreadableAnswer
from tests.runtime.worlds import Crash
from tests.services.anthropic_server import AnthropicServer, message, problem, text, tool_use
from tests.services.model_server import Exchange, Reply, model_server

pytest.importorskip("anthropic", reason="anthropic is not installed: pip install 'rh_agents[anthropic]'")

from rh_agents.llms import AnthropicChat, Batches, in_batches


def question(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"][0]["text"])


def echo(body: dict[str, Any]) -> dict[str, Any]:
    return message(text(question(body).upper()))


def run(
    server: AnthropicServer,
    questions: list[str],
    store: MemoryStore | None = None,
    then: Callable[[], Awaitable[None]] | None = None,
    output: Any = None,
    **settings: Any,
) -> tuple[list[Any], ExecutionState]:
    """What comes of the questions, all at once."""

    async def main() -> tuple[list[Any], ExecutionState]:
        async with model_server(server) as served:
            options = {"retry": None, "idle_timeout": 0.5, "endpoint": "here", **settings}
            model = AnthropicChat("claude-test", served.base_url.removesuffix("/v1"), "k", **options)
            state = ExecutionState(store=store or MemoryStore(), run_id="r")
            with in_batches(Batches(linger=0.02, poll_every=0.01)):
                async with state, state.parallel(max_workers=100) as group:
                    for number, each in enumerate(questions):
                        group.add(model(each, output=output), key=str(number))
                    if then is not None:
                        await then()
                    return await group.gather(), state

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_many_calls_are_one_batch_at_half_the_price_whose_requests_are_as_documented() -> None:
    server = AnthropicServer(echo)
    questions = [f"q{number}" for number in range(20)]
    results, state = run(server, questions, price=Price(1.0, 1.0), prompt_cache="1h", timeout=0.001)
    assert [each.unwrap().text for each in results] == [each.upper() for each in questions]
    assert len(server.batches) == 1
    assert state.spent.usage.cost == pytest.approx(20 * 15 / 1e6 / 2)
    assert not server.bodies
    assert "stream" not in server.requests["msgbatch_0"][0]["params"]


def test_what_became_of_each_request_is_told_by_kind_and_only_what_may_succeed_is_asked_again() -> None:
    def answering(body: dict[str, Any]) -> Any:
        asked = question(body)
        first = len(server.batches) == 1
        if asked == "busy" and first:
            return problem(529, "overloaded_error", "Overloaded")
        if asked == "wrong":
            return problem(400, "invalid_request_error", "a field is wrong")
        if asked == "late" and first:
            return Reply("expired")
        if asked == "strange":
            return {"content": 3}
        return echo(body)

    server = AnthropicServer(answering)
    retry = RetryPolicy(max_attempts=2, initial_delay=0.0)
    results, _ = run(server, ["a", "busy", "wrong", "late", "strange"], retry=retry)
    assert [each.ok for each in results] == [True, True, False, True, False]
    assert isinstance(results[2].error, InvalidRequest)
    assert "a field is wrong" in str(results[2].error)
    assert isinstance(results[4].error, UnreadableAnswer)
    asked = [question(each["params"]) for each in server.requests["msgbatch_1"]]
    assert sorted(set(asked) - {"strange"}) == ["busy", "late"]
    failing, _ = run(AnthropicServer(lambda _: problem(529, "overloaded_error")), ["a"])
    assert isinstance(failing[0].error, ModelOverloaded)


def test_a_batch_that_was_made_when_the_process_died_is_found_by_its_answers() -> None:
    server, store = AnthropicServer(echo), MemoryStore()
    server.fails_before_answering = True

    async def die() -> None:
        while not server.batches:  # noqa: ASYNC110 - a server has no events
            await asyncio.sleep(0.001)
        raise Crash

    with pytest.raises(Crash):
        run(server, ["a", "b"], store, die)
    results, _ = run(server, ["a", "b", "c"], store)
    assert [each.unwrap().text for each in results] == ["A", "B", "C"]
    assert [len(server.requests[name]) for name in server.batches] == [2, 1]


def test_requests_that_expired_before_anybody_knew_of_their_batch_are_submitted_again() -> None:
    def answering(body: dict[str, Any]) -> Any:
        return Reply("expired") if question(body) == "b" and len(server.batches) == 1 else echo(body)

    server, store = AnthropicServer(answering), MemoryStore()
    server.fails_before_answering = True

    async def die() -> None:
        while not server.batches:  # noqa: ASYNC110 - a server has no events
            await asyncio.sleep(0.001)
        raise Crash

    with pytest.raises(Crash):
        run(server, ["a", "b"], store, die)
    results, _ = run(server, ["a", "b"], store)
    assert [each.unwrap().text for each in results] == ["A", "B"]
    assert [len(server.requests[name]) for name in server.batches] == [2, 1]


def test_a_batch_that_was_made_though_the_answer_was_lost_is_looked_for() -> None:
    server = AnthropicServer(echo)
    server.fails_before_answering = True
    results, _ = run(server, ["a", "b"])
    assert [each.unwrap().text for each in results] == ["A", "B"]
    assert len(server.batches) == 1


def test_a_canceled_batch_keeps_what_is_done() -> None:
    server, store = (
        AnthropicServer(lambda body: Reply("canceled") if question(body) == "b" else echo(body)),
        MemoryStore(),
    )
    results, _ = run(server, ["a", "b"], store)
    assert results[0].unwrap().text == "A"
    assert isinstance(results[1].error, ModelTimeout)
    server.answering = echo
    results, _ = run(server, ["a", "b"], store)
    assert [each.unwrap().text for each in results] == ["A", "B"]
    assert [len(server.requests[name]) for name in server.batches] == [2, 1]


class Verdict(BaseModel):
    mood: str


def test_an_object_that_is_asked_for_by_a_tool_is_read_from_a_batch_as_well() -> None:
    server = AnthropicServer(lambda _: message(tool_use("t", "Verdict", mood="good")))
    results, _ = run(server, ["a"], output=Verdict, output_mode="tool")
    assert results[0].unwrap().output == Verdict(mood="good")


def test_results_are_fetched_from_the_server_that_was_asked_wherever_they_are_said_to_be() -> None:
    """Behind a proxy, the provider names itself; its proxy has the key."""

    class Behind(AnthropicServer):
        def __call__(self, exchange: Exchange) -> Reply:
            reply = super().__call__(exchange)
            if isinstance(reply.body, dict) and reply.body.get("results_url"):
                return Reply({**reply.body, "results_url": "http://127.0.0.1:9/elsewhere"})
            return reply

    results, _ = run(Behind(echo), ["a", "b"])
    assert [each.unwrap().text for each in results] == ["A", "B"]


def test_results_that_are_not_there_yet_are_waited_for() -> None:
    class Late(AnthropicServer):
        failed = 0

        def __call__(self, exchange: Exchange) -> Reply:
            if exchange.path.endswith("/results") and self.failed < 3:
                self.failed += 1
                return problem(404, "not_found_error", "not yet")
            return super().__call__(exchange)

    server = Late(echo)
    results, _ = run(server, ["a"])
    assert results[0].unwrap().text == "A"
    assert len(server.batches) == 1
