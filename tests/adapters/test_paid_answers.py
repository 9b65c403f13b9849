"""What was paid counts, whatever becomes of the answer; one that cannot be read is asked for once more at most."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel, PrivateAttr

from rh_agents import (
    Agent,
    Budget,
    BudgetExceeded,
    ExecutionState,
    ExecutionStatus,
    Price,
    RetryPolicy,
    Usage,
    parallel,
    tool,
)
from rh_agents import run as run_workflow
from rh_agents.core.chat import ChatDelta, ChatModel, ChatRequest, ChatResponse
from rh_agents.core.chat.model import OnDelta
from rh_agents.core.errors import (
    CallTimeout,
    IncompleteAnswer,
    ModelError,
    ModelTimeout,
    ModelUnreachable,
    UnreadableAnswer,
)
from tests.properties.virtual import run_virtually
from tests.services.model_server import Exchange, ModelServer, Reply, answer, chunks, error, model_server, streamed

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")

from rh_agents.llms import OpenAIChat
from rh_agents.llms._openai_usage import salvaged_usage, usage_in

T = TypeVar("T")
PRICE = Price(input=1.0, output=2.0)
TOLD = {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}
PAID = Usage(70, 30, 0, 0, 1, 130e-6)
IMPATIENT = RetryPolicy(max_attempts=4, initial_delay=0.0)
DEEP = "[" * 10_000 + "]" * 10_000
Answering = Callable[[Exchange], Reply]


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 60))


def spent_on(reply: Reply | Answering, prompt: Any = "Hello?", **settings: Any) -> tuple[Any, Usage, int]:
    """What comes of one question, what was counted for it, and how many requests there were."""

    async def main() -> tuple[Any, Usage, int]:
        async with model_server(reply) as server, ExecutionState() as state:
            given = {"retry": IMPATIENT, "idle_timeout": 5.0, "price": PRICE, **settings}
            model = OpenAIChat("stub", base_url=server.base_url, api_key="key", **given)
            try:
                found: Any = await model(prompt)
            except (ModelError, CallTimeout) as failure:
                found = failure
            await model.aclose()
            return found, state.spent.usage, len(server.exchanges)

    return run(main())


def test_of_several_answers_in_one_stream_the_first_is_the_answer() -> None:
    one = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in ("one ", "is ", "whole")]
    other = [{"choices": [{"index": 1, "delta": {"content": word}}]} for word in ("another ", "answer ", "")]
    other[2]["choices"][0]["delta"] = {"tool_calls": call(index=0)}
    ends = [
        {"choices": [{"index": index, "delta": {}, "finish_reason": why}]}
        for index, why in ((1, "length"), (0, "stop"))
    ]
    mixed = [piece for pair in zip(one, other, strict=True) for piece in pair]
    found, _, _ = spent_on(streamed([*mixed, *ends, PIECES[-1]]), stream=True)
    assert (found.text, found.finish_reason, found.tool_calls) == ("one is whole", "stop", ())
    together = {"choices": [other[0]["choices"][0], {"index": 0, "delta": {"content": "!"}}]}
    found, _, _ = spent_on(streamed([*mixed, together, *ends, PIECES[-1]]), stream=True)
    assert found.text == "one is whole!"


# -- what cannot be read ----------------------------------------------------------------------------------------------


def call(**fields: Any) -> list[dict[str, Any]]:
    return [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}", **fields}}]


def raw(**fields: Any) -> Reply:
    return Reply({**answer("x", usage=TOLD).body, **fields})


PIECES = [{**piece, "usage": TOLD} if not piece["choices"] else piece for piece in chunks()]
UNREADABLE: dict[str, tuple[Reply, bool]] = {
    "a number as content": (answer(7, usage=TOLD), False),  # type: ignore[arg-type]
    "a part that is none": (answer([7], usage=TOLD), False),  # type: ignore[arg-type]
    "no reason": (answer("x", usage=TOLD, finish_reason=None), False),
    "an empty reason": (answer("x", usage=TOLD, finish_reason=""), False),
    "a tool without a name": (answer(None, usage=TOLD, tool_calls=call(name="")), False),
    "arguments that are a list": (answer(None, usage=TOLD, tool_calls=call(arguments=[1])), False),
    "calls that are none": (answer(None, usage=TOLD, tool_calls={"a": 1}), False),
    "no calls where it ends with them": (answer("x", usage=TOLD, finish_reason="tool_calls"), False),
    "nothing": (answer("", usage=TOLD), False),
    "nothing but thoughts": (answer(None, usage=TOLD, reasoning_content="hm"), False),
    "no choices": (raw(choices=[]), False),
    "null for choices": (raw(choices=None), False),
    "choices that are an object": (raw(choices={"a": 1}), False),
    "no message": (raw(choices=[{"finish_reason": "stop"}]), False),
    "a name that is a number": (raw(model=7), False),
    "nested too deeply": (Reply(f'{{"usage": {json.dumps(TOLD)}, "choices": {DEEP}}}'), False),
    "streamed, no end event": (streamed(PIECES, end=False), True),
    "streamed, no reason": (streamed([*PIECES[:2], PIECES[-1]]), True),
    "streamed, no choices": (streamed([PIECES[-1]]), True),
    "streamed, another schema": (streamed([PIECES[-1], {"choices": [{"delta": {"content": 7}}]}]), True),
    "streamed, nested too deeply": (Reply(f"data: {json.dumps(PIECES[-1])}\n\ndata: {DEEP}\n\n"), True),
    "streamed, too large": (streamed([PIECES[-1], *chunks("x" * 300_000, 1000)]), True),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_answer_that_cannot_be_read_counts_and_is_asked_for_once_more(name: str) -> None:
    reply, is_streamed = UNREADABLE[name]
    failure, usage, requests = spent_on(reply, stream=is_streamed, output_retries=5, max_bytes=200_000)
    assert type(failure) is UnreadableAnswer
    assert requests == 2
    assert usage == failure.usage == PAID + PAID


def test_the_second_answer_counts_if_it_can_be_read() -> None:
    replies = {0: answer("x", usage=TOLD, finish_reason=None), 1: answer("x", usage=TOLD)}
    found, usage, requests = spent_on(lambda exchange: replies[exchange.number])
    assert (found.text, usage, requests) == ("x", PAID + PAID, 2)


def test_the_further_try_does_not_multiply_with_the_attempts() -> None:
    """An answer that cannot be read, a failure that may pass, and again one that cannot be read: no more after that."""

    def answering(exchange: Exchange) -> Reply:
        return error(503) if exchange.number == 1 else answer("x", usage=TOLD, finish_reason=None)

    failure, usage, requests = spent_on(answering)
    assert type(failure) is UnreadableAnswer
    assert requests == 3
    assert usage == PAID + PAID


def test_without_usage_the_reservation_counts_for_what_cannot_be_read() -> None:
    _, usage, requests = spent_on(answer("x", usage=None, finish_reason=None), max_tokens=50)
    assert (requests, usage.requests, usage.estimates, usage.output_tokens) == (2, 2, 2, 100)
    assert usage.cost == pytest.approx(PRICE.cost(usage))


def test_a_budget_holds_against_answers_that_cannot_be_read() -> None:
    costly = {"prompt_tokens": 100_000, "completion_tokens": 100_000}

    async def main() -> tuple[int, Usage]:
        async with model_server(answer("x", usage=costly, finish_reason=None)) as server:
            model = OpenAIChat("stub", base_url=server.base_url, api_key="key", price=Price(1, 1), max_tokens=1000)

            async def ask_all() -> None:
                async with parallel(max_workers=1) as p:
                    for number in range(5):
                        p.add(model.ask(f"{number}"))
                    await p.gather()

            with pytest.raises(BudgetExceeded) as caught:
                await run_workflow(ask_all, budget=Budget(cost=0.5))
            return len(server.exchanges), caught.value.spent.usage

    requests, usage = run(main())
    assert requests == 3
    assert usage.cost == pytest.approx(0.6)


def test_what_can_be_read_is_read() -> None:
    """Text in parts, and half of a character where an answer was cut off."""
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}, "b"]
    found, _, _ = spent_on(answer(parts, usage=TOLD))  # type: ignore[arg-type]
    assert (found.text, found.reasoning) == ("ab", "hm")
    half = json.dumps(answer("x", usage=TOLD).body).replace('"x"', '"a\\ud800"')
    found, usage, _ = spent_on(Reply(half))
    assert (found.text, usage) == ("a\ufffd", PAID)
    streamed_half = json.dumps(PIECES[1]).replace('"Hel"', '"a\\ud800"')
    lines = [json.dumps(PIECES[0]), streamed_half, *map(json.dumps, PIECES[2:]), "[DONE]"]
    found, _, _ = spent_on(Reply("".join(f"data: {line}\n\n" for line in lines)), stream=True)
    assert found.text == "a\ufffdlo."


# -- what says nothing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}])
@pytest.mark.parametrize("is_streamed", [True, False])
def test_an_answer_that_says_no_usage_is_estimated_upwards_and_marked(usage: Any, is_streamed: bool) -> None:
    text = "It is ten to nine. " * 20
    reply = streamed(chunks(text, 9, usage=False)) if is_streamed else answer(text, usage=usage)
    found, spent, _ = spent_on(reply, "What time is it? " * 10, stream=is_streamed)
    assert found.usage == spent
    assert (spent.requests, spent.estimates) == (1, 1)
    assert spent.output_tokens >= len(text) / 4
    assert spent.input_tokens >= 170 / 4
    assert spent.cost == pytest.approx(PRICE.cost(spent))


def test_usage_that_comes_after_the_end_is_heard_out_for_a_moment() -> None:
    lines = "".join(f"data: {json.dumps(piece)}\n\n" for piece in PIECES[:-1])
    late = f"{lines}data: [DONE]\n\ndata: {json.dumps(PIECES[-1])}\n\n"
    found, usage, _ = spent_on(Reply(late, kind="text/event-stream"), stream=True)
    assert (found.text, usage) == ("Hello.", PAID)
    broken = f"{lines}data: [DONE]\n\ndata: {{\n\n"
    found, usage, requests = spent_on(Reply(broken, kind="text/event-stream"), stream=True)
    assert (found.text, usage.estimates, requests) == ("Hello.", 1, 1)


@pytest.mark.parametrize(
    ("reply", "is_streamed"),
    [
        (Reply(f'{{"usage": {json.dumps(TOLD)}, "choices": [{{"mess'), False),
        (Reply(f"data: {json.dumps(PIECES[-1])}\n\ndata: {{\n\ndata: [DONE]\n\n"), True),
    ],
)
def test_what_is_damaged_counts_as_it_says_and_is_tried_again_as_often_as_wanted(
    reply: Reply, is_streamed: bool
) -> None:
    failure, usage, requests = spent_on(reply, stream=is_streamed)
    assert type(failure) is IncompleteAnswer
    assert (requests, usage.requests, usage.tokens) == (4, 4, 400)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(answer("x").body, cut_at=50), ModelUnreachable),
        (Reply(answer("x").body, hang="body"), ModelTimeout),
        (streamed(chunks()[:2], end=False), IncompleteAnswer),
        (Reply(b""), IncompleteAnswer),
    ],
)
def test_where_no_whole_answer_came_the_reservation_counts(reply: Reply, expected: type[ModelError]) -> None:
    is_streamed = reply.kind == "text/event-stream"
    failure, usage, requests = spent_on(reply, max_tokens=50, retry=None, idle_timeout=0.2, stream=is_streamed)
    assert type(failure) is expected
    assert (requests, usage.requests, usage.estimates, usage.output_tokens) == (1, 1, 1, 50)


def test_a_call_that_takes_too_long_counts_as_reserved() -> None:
    failure, usage, _ = spent_on(Reply(hang="headers"), max_tokens=50, retry=None, timeout=0.2)
    assert isinstance(failure, CallTimeout)
    assert (usage.estimates, usage.output_tokens) == (1, 50)


def test_a_stream_that_breaks_counts_as_what_it_has_said_so_far() -> None:
    pieces = [{**PIECES[0], "usage": TOLD}, {"error": {"message": "busy", "code": "server_error"}}]
    _, usage, _ = spent_on(streamed(pieces), stream=True, retry=None)
    assert usage == PAID


def test_a_stream_that_breaks_without_a_word_about_usage_counts_as_reserved_if_it_had_begun() -> None:
    failed = {"error": {"message": "busy", "code": "server_error"}}
    for begun in (chunks()[:2], [{"choices": [{"delta": {"tool_calls": call(index=0)}}]}]):
        _, usage, _ = spent_on(streamed([*begun, failed]), stream=True, retry=None, max_tokens=50)
        assert (usage.requests, usage.estimates, usage.output_tokens) == (1, 1, 50)
    _, usage, _ = spent_on(streamed([chunks()[0], failed]), stream=True, retry=None)
    assert usage == Usage()


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e400", "-7", "NaN", '"7"', "[7]", "true"])
def test_numbers_that_no_usage_can_be_are_none(number: str, is_streamed: bool) -> None:
    whole = answer("x").data.replace(b'"prompt_tokens": 10', b'"prompt_tokens": ' + number.encode())
    whole = whole.replace(b'"total_tokens": 15', b'"cost": ' + number.encode())
    stream = b"data: " + whole.replace(b'"message"', b'"delta"') + b"\n\ndata: [DONE] \n\n"
    found, usage, requests = spent_on(Reply(stream if is_streamed else whole), stream=is_streamed)
    assert (found.text, requests) == ("x", 1)
    assert (usage.input_tokens, usage.output_tokens, usage.cost) == (0, 5, 10e-6)


@pytest.mark.parametrize("reply", [error(401), error(500), error(429), Reply({"error": {"message": "no"}})])
def test_what_is_refused_costs_nothing(reply: Reply) -> None:
    _, usage, _ = spent_on(reply, retry=None)
    assert usage == Usage()


def test_nobody_at_the_address_costs_nothing() -> None:
    async def main() -> Usage:
        async with ExecutionState() as state:
            with pytest.raises(ModelUnreachable):
                await OpenAIChat("m", base_url="http://127.0.0.1:1/v1", api_key="k", retry=None)("Hello?")
            return state.spent.usage

    assert run(main()) == Usage()


# -- where usage stands -----------------------------------------------------------------------------------------------

USAGES: dict[str, tuple[dict[str, Any], Usage | None]] = {
    "OpenAI": ({"usage": TOLD}, Usage(70, 30, requests=1)),
    "thoughts in the total alone": (
        {"usage": {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 150}},
        Usage(70, 80, 0, 50, 1),
    ),
    "a total that is too small": (
        {"usage": {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 7}},
        Usage(70, 30, requests=1),
    ),
    "nothing but a total": ({"usage": {"total_tokens": 100}}, Usage(0, 100, requests=1)),
    "floats": ({"usage": {"prompt_tokens": 70.0, "completion_tokens": 29.5}}, Usage(70, 30, requests=1)),
    "Groq": ({"x_groq": {"id": "r", "usage": TOLD}}, Usage(70, 30, requests=1)),
    "Moonshot": ({"usage": None, "choices": [{"delta": {}, "usage": TOLD}]}, Usage(70, 30, requests=1)),
    "DeepSeek": ({"usage": {**TOLD, "prompt_cache_hit_tokens": 64}}, Usage(70, 30, 64, 0, 1)),
    "more hits than tokens": ({"usage": {**TOLD, "cached_tokens": 640}}, Usage(70, 30, 70, 0, 1)),
    "a cost": ({"usage": {**TOLD, "cost": 0.5}}, Usage(70, 30, requests=1, cost=0.5)),
    "a cost in parts": ({"usage": {**TOLD, "cost": {"total_cost": 0.5}}}, Usage(70, 30, requests=1, cost=0.5)),
    "a cost with the user's own key": (
        {"usage": {**TOLD, "cost": 0.25, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.5}}},
        Usage(70, 30, requests=1, cost=0.75),
    ),
    "writes to a cache": (
        {"usage": {**TOLD, "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 40}}},
        Usage(70, 30, 20, 0, 1, cache_write_tokens=40),
    ),
    "what is no number": ({"usage": {"prompt_tokens": True, "completion_tokens": "30", "total_tokens": -1}}, None),
    "not a number": ({"usage": {"prompt_tokens": float("inf"), "completion_tokens": float("nan")}}, None),
    "zeros": ({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, None),
    "a text": ({"usage": "70"}, None),
    "none": ({}, None),
}


@pytest.mark.parametrize("name", USAGES)
def test_usage_is_found_wherever_it_stands(name: str) -> None:
    data, expected = USAGES[name]
    assert usage_in(data) == expected
    if expected is not None and data.get("usage"):
        assert salvaged_usage(b'{"choices": [' + json.dumps(data).encode() + b", ...", usage_in) == expected


def test_what_the_provider_says_about_the_cost_stands_above_the_price() -> None:
    found, usage, _ = spent_on(answer("x", usage={**TOLD, "cost": 0.5}))
    assert found.usage.cost == usage.cost == 0.5


def test_what_a_proxy_says_about_the_cost_in_a_header_counts_for_whole_answers() -> None:
    """At the beginning of a stream nobody knows it: there, what comes in the answer counts."""
    for told, cost in (("0.5", 0.5), ("0.0", PAID.cost), ("None", PAID.cost), ("-1", PAID.cost), ("nan", PAID.cost)):
        headers = {"x-litellm-response-cost": told}
        found, usage, _ = spent_on(replace(answer("x", usage=TOLD), headers=headers))
        assert found.usage.cost == usage.cost == pytest.approx(cost)
    reply = replace(streamed(PIECES), headers={"x-litellm-response-cost": "0.5"})
    _, usage, _ = spent_on(reply, stream=True)
    assert usage.cost == pytest.approx(PAID.cost)


def test_what_a_proxy_says_about_the_cost_of_an_answer_that_cannot_be_read_counts() -> None:
    reply = replace(answer("x", usage=TOLD, finish_reason="odd"), headers={"x-litellm-response-cost": "0.5"})
    _, usage, _ = spent_on(reply)
    assert (usage.cost, usage.output_tokens) == (0.5, PAID.output_tokens)


@pytest.mark.parametrize("status", [408, 504, 524])
def test_a_proxy_that_has_waited_in_vain_does_not_say_that_nothing_was_done(status: int) -> None:
    failure, usage, requests = spent_on(Reply("<html>", status, kind="text/html"), max_tokens=50, retry=None)
    assert isinstance(failure, ModelTimeout)
    assert (requests, usage.requests, usage.estimates, usage.output_tokens) == (1, 1, 1, 50)


# -- streams that begin anew ------------------------------------------------------------------------------------------


def test_the_pieces_of_an_answer_that_comes_to_nothing_are_void() -> None:
    def answering(exchange: Exchange) -> Reply:
        return streamed(PIECES, end=exchange.number > 0)

    async def main() -> list[ChatDelta]:
        heard: list[ChatDelta] = []
        async with model_server(answering) as server, ExecutionState() as state:

            async def listen(event: Any) -> None:
                if event.execution_status is ExecutionStatus.PROGRESS:
                    heard.append(event.progress)

            state.event_bus.subscribe(listen)
            model = OpenAIChat("stub", base_url=server.base_url, api_key="key", stream=True)
            assert (await model("Hello?")).text == "Hello."
        return heard

    heard = run(main())
    last = max(number for number, delta in enumerate(heard) if delta.void)
    assert "".join(delta.text for delta in heard[:last]) == "Hello."
    assert "".join(delta.text for delta in heard[last:]) == "Hello."


class Slow(ChatModel):
    """Writes a word, and no more for the first `slow` times."""

    _slow: int = PrivateAttr(default=1)

    async def complete(self, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
        assert on_delta is not None
        await on_delta(ChatDelta(text="Hello."))
        self._slow -= 1
        if self._slow >= 0:
            await asyncio.sleep(1e6)
        return ChatResponse(text="Hello.")


@pytest.mark.parametrize(("attempts", "heard"), [(2, ["Hello.", "void", "Hello."]), (1, ["Hello.", "void"])])
def test_the_pieces_of_an_attempt_that_took_too_long_are_void(attempts: int, heard: list[str]) -> None:
    told: list[str] = []

    async def listen(event: Any) -> None:
        if event.execution_status is ExecutionStatus.PROGRESS:
            told.append("void" if event.progress.void else event.progress.text)

    async def main() -> None:
        model = Slow(model="slow", stream=True, timeout=10.0, retry=RetryPolicy(max_attempts=attempts))
        async with ExecutionState() as state:
            state.event_bus.subscribe(listen)
            with contextlib.suppress(CallTimeout):
                await model("Hello?")

    run_virtually(main)
    assert told == heard


class Sum(BaseModel):
    value: int


class Corrected(ChatModel):
    """Answers well when it is told what was wrong."""

    async def complete(self, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
        assert on_delta is not None
        text = "five" if len(request.messages) == 1 else '{"value":5}'
        await on_delta(ChatDelta(text=text))
        return ChatResponse(text=text)


def test_the_pieces_of_an_answer_that_does_not_fit_its_type_are_void() -> None:
    told: list[str] = []

    async def listen(event: Any) -> None:
        if event.execution_status is ExecutionStatus.PROGRESS:
            told.append("void" if event.progress.void else event.progress.text)

    async def main() -> Sum:
        async with ExecutionState() as state:
            state.event_bus.subscribe(listen)
            return await Corrected(model="corrected", stream=True).ask("Two and three?", output=Sum)

    assert run_virtually(main) == Sum(value=5)
    assert told == ["five", "void", '{"value":5}']


# -- in agents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", "content_filter", "error", "abort", "odd", None, "other"])
def test_a_tool_call_that_was_cut_off_by_whatever_is_not_made(reason: str | None) -> None:
    called: list[str] = []

    @tool
    async def send(text: str = "") -> str:
        called.append(text)
        return "sent"

    async def main(server: ModelServer) -> None:
        model = OpenAIChat("m", base_url=server.base_url, api_key="x", retry=None, finish_reasons={"other": "other"})
        with pytest.raises(ModelError):
            await run_workflow(Agent(name="a", llm=model, tools=[send]), "Send it.")

    async def serve() -> None:
        async with model_server(
            answer(None, tool_calls=call(name="send", arguments=""), finish_reason=reason)
        ) as server:
            await main(server)

    run(serve())
    assert called == []
