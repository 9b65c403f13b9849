"""`OpenAIChat`: what it sends, what it makes of answers, and what it makes of everything that is no answer."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import re
import ssl
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import httpx2
import pytest
from pydantic import BaseModel

from rh_agents import (
    ConcurrencyLimit,
    ExecutionState,
    ExecutionStatus,
    MemoryStore,
    Price,
    RateLimit,
    RetryPolicy,
    Secret,
    Usage,
    forget_secret,
    parallel,
    redact,
    tool,
)
from rh_agents.core.chat import ChatRequest, ChatResponse, DocumentPart, FinishReason, ImagePart, Message, ToolCall
from rh_agents.core.errors import (
    AccessDenied,
    AnswerTruncated,
    CallTimeout,
    ContextTooLong,
    IncompleteAnswer,
    InputError,
    InvalidRequest,
    ModelError,
    ModelOverloaded,
    ModelRefused,
    ModelTimeout,
    ModelUnreachable,
    PermanentModelError,
    QuotaExhausted,
    RateLimited,
    RequestTooLarge,
    UnreadableAnswer,
)
from tests.services.model_server import (
    Exchange,
    ModelServer,
    Reply,
    answer,
    chunks,
    error,
    model_server,
    streamed,
    tool_calls,
)

openai = pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")

from rh_agents.llms import OpenAIChat  # noqa: E402
from rh_agents.llms._openai_errors import ERRORS, NEVER_RAISED  # noqa: E402
from rh_agents.llms._providers import PROVIDERS  # noqa: E402
from rh_agents.llms._waits import hint_in, seconds_to_wait  # noqa: E402
from rh_agents.llms.prices import price_of  # noqa: E402

T = TypeVar("T")


def chat(server: ModelServer, **settings: Any) -> OpenAIChat:
    """A model that tries once, and waits for nothing long."""
    settings = {"retry": None, "idle_timeout": 5.0, "timeout": 10.0, **settings}
    return OpenAIChat("stub", base_url=server.base_url, api_key="key", **settings)


def asked(reply: Reply, prompt: Any = "Hello?", **settings: Any) -> ChatResponse:
    """What comes of one question to a server that answers so."""

    async def main() -> ChatResponse:
        async with model_server(reply) as server:
            return await chat(server, **settings)(prompt)

    return run(main())


def run(main: Coroutine[Any, Any, T], *, seconds: float = 60) -> T:
    return asyncio.run(asyncio.wait_for(main, seconds))


class Verdict(BaseModel):
    good: bool
    why: str


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_everything_that_a_request_can_say_is_sent() -> None:
    @tool
    async def look_up(word: str) -> str:
        """Look a word up."""
        return word

    async def main() -> Exchange:
        async with model_server(answer()) as server:
            model = chat(server, temperature=0.5, max_tokens=7, seed=3, headers={"X-Own": "1"}, extra={"top_k": 4})
            talk = [
                Message.user("Look.", ImagePart(url="https://example.org/a.png", detail="low")),
                Message.assistant("", [ToolCall(id="c1", name="look_up", arguments='{"word":"a"}')]),
                Message.tool("c1", "A"),
            ]
            await model(talk, system="Be brief.", tools=[look_up], tool_choice="look_up", parallel_tool_calls=False)
            return server.exchanges[0]

    sent = run(main())
    assert sent.path == "/v1/chat/completions"
    assert (sent.headers["authorization"], sent.headers["x-own"]) == ("Bearer key", "1")
    body = sent.body
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool"]
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}
    assert body["messages"][1]["content"] == [{"type": "text", "text": "Look."}, image]
    assert body["messages"][2]["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"word":"a"}'}
    assert body["messages"][3]["tool_call_id"] == "c1"
    assert body["tools"][0]["function"]["description"] == "Look a word up."
    assert body["tool_choice"] == {"type": "function", "function": {"name": "look_up"}}
    wanted = {"model": "stub", "temperature": 0.5, "max_tokens": 7, "seed": 3, "top_k": 4, "parallel_tool_calls": False}
    assert {name: body[name] for name in wanted} == wanted
    assert "stream" not in body


def test_documents_are_sent_as_files_and_text_files_as_text() -> None:
    async def main() -> Any:
        async with model_server(answer()) as server:
            pdf, text = (
                DocumentPart.from_bytes(b"%PDF", name="a.pdf"),
                DocumentPart.from_bytes(b"hi", "text/plain", "b"),
            )
            model = chat(server)
            await model(Message.user("Read.", pdf, text))
            with pytest.raises(InputError, match="from_bytes"):
                await model(Message.user(DocumentPart(url="https://example.org/a.pdf")))
            return [exchange.body["messages"][0]["content"] for exchange in server.exchanges]

    ((_, file, text),) = run(main())
    assert file == {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}}
    assert text == {"type": "text", "text": "b:\nhi"}


def test_the_provider_is_found_by_its_host_and_a_setting_stands_above_it() -> None:
    def length(base_url: str | None, **settings: Any) -> str:
        return OpenAIChat("m", base_url=base_url, api_key="k", **settings).length_name

    assert length(None) == length("https://api.openai.com/v1") == "max_completion_tokens"
    assert length("https://mine.openai.azure.com/openai/v1/") == "max_completion_tokens"
    assert length("https://api.mistral.ai/v1") == length("http://127.0.0.1:8000/v1") == "max_tokens"
    assert length("https://notapi.openai.com.example.org/v1") == "max_tokens"
    assert length(None, length_field="n") == "n"
    assert len({provider.name for provider in PROVIDERS}) == len(PROVIDERS)


def test_the_key_is_never_shown() -> None:
    model = OpenAIChat("m", api_key="secret-key")
    assert "secret-key" not in repr(model) + str(model) + model.model_dump_json(include={"api_key", "model"})


def test_without_a_key_the_error_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    async def main() -> None:
        await OpenAIChat("m", base_url="http://127.0.0.1:1/v1")("Hello?")

    with pytest.raises(AccessDenied, match="OPENAI_API_KEY"):
        run(main())


# -- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_comes_with_its_usage_its_cost_and_why_it_ended() -> None:
    usage = {
        "prompt_tokens": 1_000_000,
        "completion_tokens": 100_000,
        "prompt_tokens_details": {"cached_tokens": 500_000},
        "completion_tokens_details": {"reasoning_tokens": 9},
    }
    response = asked(answer("Yes.", usage=usage, model="gpt-4.1-mini-2025-04-14", finish_reason="length"))
    assert (response.text, response.finish_reason) == ("Yes.", FinishReason.LENGTH)
    cost = response.usage.cost
    assert response.usage == Usage(1_000_000, 100_000, 500_000, 9, 1, cost)
    assert cost == pytest.approx(0.2 + 0.05 + 0.16)
    assert asked(answer(usage=usage), price=Price(input=1.0, output=10.0)).usage.cost == pytest.approx(2.0)
    assert price_of("no such model") is None


def test_tool_calls_come_side_by_side() -> None:
    response = asked(tool_calls(("a", {"x": 1}), ("b", {})))
    assert [(call.name, json.loads(call.arguments)) for call in response.tool_calls] == [("a", {"x": 1}), ("b", {})]
    assert response.finish_reason is FinishReason.TOOL_CALLS


def test_a_stream_is_told_piece_by_piece_and_recorded_once() -> None:
    async def main() -> tuple[list[str], list[ExecutionStatus], ChatResponse]:
        store, heard = MemoryStore(), list[str]()
        async with model_server(streamed(chunks("How do you do?"))) as server, ExecutionState(store=store) as state:

            async def listen(event: Any) -> None:
                if event.execution_status is ExecutionStatus.PROGRESS:
                    heard.append(event.progress.text)

            state.event_bus.subscribe(listen)
            response = await chat(server, stream=True)("Hello?")
        recorded = [each.event.execution_status async for each in store.events(state.run_id)]
        return heard, recorded, response

    heard, recorded, response = run(main())
    assert "".join(heard) == response.text == "How do you do?"
    assert len(heard) == 5
    assert recorded == [ExecutionStatus.STARTED, ExecutionStatus.COMPLETED]
    assert response.usage.tokens == 15


def test_tool_calls_are_put_together_from_the_pieces_of_a_stream() -> None:
    def piece(*calls: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": list(calls)}, "finish_reason": reason}]}

    pieces = [
        piece({"index": 0, "id": "c0", "function": {"name": "a", "arguments": ""}}),
        piece({"index": 1, "id": "c1", "function": {"name": "b", "arguments": '{"y"'}}),
        piece({"index": 0, "function": {"arguments": '{"x":1}'}}, {"index": 1, "function": {"arguments": ":2}"}}),
        piece(reason="tool_calls"),
    ]
    response = asked(streamed(pieces), stream=True)
    assert response.tool_calls == (
        ToolCall(id="c0", name="a", arguments='{"x":1}'),
        ToolCall(id="c1", name="b", arguments='{"y":2}'),
    )


def in_pieces(*calls: dict[str, Any]) -> tuple[ToolCall, ...]:
    """The tool calls of a stream in which each of these comes in a piece of its own."""

    def piece(calls: list[dict[str, Any]], reason: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": reason}]}

    return asked(streamed([*(piece([call]) for call in calls), piece([], "tool_calls")]), stream=True).tool_calls


def named(name: str, arguments: Any, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"name": name, "arguments": arguments}}


def more(arguments: str, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"arguments": arguments}}


TWO = (ToolCall(id="p", name="purge", arguments=""), ToolCall(id="r", name="read", arguments='{"f":"docs"}'))
TWO_WHOLE = (
    ToolCall(id="call_0", name="purge", arguments='{"f":"tmp"}'),
    ToolCall(id="call_1", name="read", arguments='{"f":"docs"}'),
)

CALLS_IN_PIECES: dict[str, tuple[list[dict[str, Any]], tuple[ToolCall, ...]]] = {
    "all of them have the number 0": (
        [named("purge", "", id="p", index=0), named("read", '{"f":"docs"}', id="r", index=0)],
        TWO,
    ),
    "none of them has a number": (
        [named("purge", "", id="p"), named("read", '{"f":', id="r"), more('"docs"}')],
        TWO,
    ),
    "the number is null, and ids are repeated": (
        [
            named("purge", "", id="p", index=None),
            named("read", '{"f":', id="r", index=None),
            named("read", '"docs"}', id="r", index=None),
        ],
        TWO,
    ),
    "the same number, and pieces without an id follow the second one": (
        [named("purge", "", id="p", index=0), named("read", "", id="r", index=0), more('{"f":"docs"}', index=0)],
        TWO,
    ),
    "an empty id goes on with the call": (
        [named("purge", "", id="p", index=0), named("read", '{"f":', id="r", index=1), more('"docs"}', id="", index=1)],
        TWO,
    ),
    "neither ids nor different numbers, but whole calls": (
        [named("purge", '{"f":"tmp"}', index=0), named("read", '{"f":"docs"}', index=0)],
        TWO_WHOLE,
    ),
    "neither ids nor numbers, and arguments that were read already": (
        [named("purge", {"f": "tmp"}), named("read", {"f": "docs"})],
        TWO_WHOLE,
    ),
    "the name comes with each piece": (
        [
            named("purge", '{"f":', index=0),
            named("purge", '"tmp"}', index=0),
            named("purge", "", index=0),
            named("read", '{"f":"docs"}', index=1),
        ],
        TWO_WHOLE,
    ),
    "the id comes after the name": (
        [named("purge", "", index=0), more("", id="p", index=0), named("read", '{"f":"docs"}', id="r", index=1)],
        TWO,
    ),
    "one tool twice": (
        [named("purge", '{"f":"tmp"}', id="p", index=0), named("purge", '{"f":"tmp"}', id="q", index=0)],
        (
            ToolCall(id="p", name="purge", arguments='{"f":"tmp"}'),
            ToolCall(id="q", name="purge", arguments='{"f":"tmp"}'),
        ),
    ),
}


@pytest.mark.parametrize("name", CALLS_IN_PIECES)
def test_no_tool_gets_the_arguments_of_another_one(name: str) -> None:
    pieces, expected = CALLS_IN_PIECES[name]
    assert in_pieces(*pieces) == expected


def test_an_answer_that_does_not_fit_goes_back_with_what_is_wrong_a_stated_number_of_times() -> None:
    async def main() -> tuple[Verdict, list[Exchange], Usage]:
        replies = iter([answer('{"good": "perhaps"}'), answer("no JSON"), answer('{"good": true, "why": "it is"}')])
        async with model_server(lambda _: next(replies)) as server, ExecutionState() as state:
            verdict = await chat(server).ask("Is it good?", output=Verdict)
            return verdict, server.exchanges, state.spent.usage

    verdict, exchanges, usage = run(main())
    assert verdict == Verdict(good=True, why="it is")
    assert exchanges[0].body["response_format"]["json_schema"]["schema"]["required"] == ["good", "why"]
    assert "why: Field required" in exchanges[1].body["messages"][-1]["content"]
    assert (usage.requests, usage.tokens) == (3, 45)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer(None, refusal="I will not."), ModelRefused),
        (answer("", finish_reason="content_filter"), ModelRefused),
        (answer('{"good": tr', finish_reason="length"), AnswerTruncated),
    ],
)
def test_refusals_and_truncation_are_failures_of_their_own(reply: Reply, expected: type[ModelError]) -> None:
    async def main() -> None:
        async with model_server(reply) as server:
            await chat(server).ask("Is it good?", output=Verdict)

    with pytest.raises(expected):
        run(main())


# -- what is no answer ------------------------------------------------------------------------------------------------

DEEP = "[" * 10_000 + "]" * 10_000
BROKEN: dict[str, tuple[Reply, type[ModelError]]] = {
    "no JSON": (Reply("{broken"), IncompleteAnswer),
    "nothing": (Reply(b""), IncompleteAnswer),
    "a list": (Reply([1]), UnreadableAnswer),
    "another schema": (Reply({"choices": {"a": 1}}), UnreadableAnswer),
    "no choices": (Reply({"choices": []}), UnreadableAnswer),
    "no message": (Reply({"choices": [{"finish_reason": "stop"}]}), UnreadableAnswer),
    "no reason": (answer("Hello", finish_reason=None), UnreadableAnswer),
    "a number as text": (answer(7), UnreadableAnswer),  # type: ignore[arg-type]
    "nested too deeply": (Reply(f'{{"choices": {DEEP}}}'), UnreadableAnswer),
    "no UTF-8": (Reply(b'{"choices": "\xff"}'), IncompleteAnswer),
    "a page": (Reply("<html>", kind="text/html"), IncompleteAnswer),
    "bad compression": (Reply(b"no gzip", headers={"content-encoding": "gzip"}), UnreadableAnswer),
    "an error with status 200": (Reply({"error": {"message": "busy", "code": "server_error"}}), ModelOverloaded),
    "too large": (Reply(b'{"a": "' + b"x" * 300_000 + b'"}'), UnreadableAnswer),
    "cut off": (Reply(answer().body, cut_at=50), ModelUnreachable),
    "reset": (Reply(answer().body, cut_at=50, reset=True), ModelUnreachable),
    "no headers ever": (Reply(hang="headers"), ModelTimeout),
    "half a body": (Reply(answer().body, hang="body"), ModelTimeout),
    "400": (error(400, "a field is wrong"), InvalidRequest),
    "too long": (error(400, "too long", "context_length_exceeded"), ContextTooLong),
    "filtered": (error(400, "filtered", "content_filter"), ModelRefused),
    "401": (error(401), AccessDenied),
    "402": (error(402), QuotaExhausted),
    "403": (error(403), AccessDenied),
    "404": (error(404), InvalidRequest),
    "408": (error(408), ModelTimeout),
    "409": (error(409), ModelOverloaded),
    "413": (error(413), RequestTooLarge),
    "422": (error(422), InvalidRequest),
    "429": (error(429), RateLimited),
    "no money": (error(429, "pay", "insufficient_quota"), QuotaExhausted),
    "500": (error(500), ModelOverloaded),
    "502": (Reply("<html>bad gateway</html>", 502, kind="text/html"), ModelOverloaded),
    "503": (error(503), ModelOverloaded),
    "529": (error(529), ModelOverloaded),
    "an error that is deep": (Reply(DEEP, 500), ModelOverloaded),
    "a status that nobody knows": (error(418), InvalidRequest),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_answer_is_an_error_by_kind(name: str) -> None:
    reply, expected = BROKEN[name]
    with pytest.raises(ModelError) as caught:
        asked(reply, idle_timeout=0.2, max_bytes=200_000)
    assert type(caught.value) is expected
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


BROKEN_STREAMS: dict[str, tuple[Reply, type[ModelError]]] = {
    "without its end": (streamed(end=False), UnreadableAnswer),
    "without a reason": (streamed(chunks()[:2]), UnreadableAnswer),
    "empty": (streamed([], end=False), IncompleteAnswer),
    "only its end": (streamed([]), UnreadableAnswer),
    "broken JSON": (Reply("data: {\n\ndata: [DONE]\n\n"), IncompleteAnswer),
    "another schema": (streamed([{"choices": [{"delta": {"content": 7}}]}]), UnreadableAnswer),
    "calls without names": (
        streamed([{"choices": [{"delta": {"tool_calls": [{}]}, "finish_reason": "stop"}]}]),
        UnreadableAnswer,
    ),
    "broken off": (streamed([*chunks()[:2]], end=False), IncompleteAnswer),
    "an error in its middle": (streamed([*chunks()[:2], {"error": {"message": "busy"}}]), ModelOverloaded),
    "nested too deeply": (Reply(f"data: {DEEP}\n\n"), UnreadableAnswer),
    "cut off": (streamed(cut_at=100), ModelUnreachable),
    "half": (streamed(hang="body"), ModelTimeout),
    "too large": (streamed(chunks("x" * 300_000, 1000)), UnreadableAnswer),
}


@pytest.mark.parametrize("name", BROKEN_STREAMS)
def test_a_stream_that_is_not_whole_is_an_error_by_kind(name: str) -> None:
    reply, expected = BROKEN_STREAMS[name]
    with pytest.raises(ModelError) as caught:
        asked(reply, stream=True, idle_timeout=0.2, max_bytes=200_000)
    assert type(caught.value) is expected


def test_an_answer_that_comes_too_slowly_is_given_up_in_the_end() -> None:
    with pytest.raises(CallTimeout):
        asked(Reply(answer().body, byte_every=0.05), timeout=0.3)


def test_nobody_at_the_address_is_an_error_that_may_pass() -> None:
    async def main() -> None:
        await OpenAIChat("m", base_url="http://127.0.0.1:1/v1", api_key="k", retry=None)("Hello?")

    with pytest.raises(ModelUnreachable):
        run(main())


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("step", [pytest.param(31, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_wherever_a_stream_of_four_kilobytes_breaks_it_is_no_success(reset: bool, step: int) -> None:
    """A stream that is cut at each of its bytes; whole only when all but the last line end is there.

    In the short form it is cut around each end of a line, and at each 31st byte.
    """

    async def main() -> tuple[int, list[int]]:
        data = streamed(chunks("x" * 66, 3)).data
        size = len(data)
        ends = {end.start() + shift for end in re.finditer(rb"\n\n", data) for shift in range(4)}
        places = [at for at in range(size) if at % step == 0 or at in ends or at >= size - 20]
        order = iter(places)
        successes: list[int] = []
        cuts: dict[str, int] = {}

        def cut(exchange: Exchange) -> Reply:
            at = cuts[exchange.body["messages"][0]["content"]] = next(order)
            return streamed(chunks("x" * 66, 3), cut_at=at, reset=reset)

        async with model_server(cut) as server, parallel(max_workers=50) as p:
            model = chat(server, stream=True)
            p.map(lambda number: model(f"cut {number}"), range(len(places)))
            for result in await p.gather():
                assert result.ok or isinstance(result.error, ModelUnreachable | IncompleteAnswer)
                if result.ok:
                    successes.append(cuts[f"cut {result.index}"])
        return size, successes

    size, successes = run(main(), seconds=600)
    assert size > 4_000
    assert all(at >= size - 1 for at in successes)


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("count", [500, pytest.param(5_000, marks=pytest.mark.slow)])
def test_five_thousand_calls_with_a_third_of_faults_come_to_their_end(is_streamed: bool, count: int) -> None:
    """At most as many as chance explains fail; none is recorded twice, no slot is lost."""
    chance = random.Random(7)
    whole = streamed() if is_streamed else answer()
    size = len(whole.data)

    def fault(_: Exchange) -> Reply:
        if chance.random() >= 0.3:
            return whole
        kind = chance.randrange(6)
        if kind == 0:
            return error(429, retry_after=chance.choice(["0", "-1", "1e9", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"]))
        if kind == 1:
            return error(chance.choice([500, 502, 503, 529]))
        if kind == 2:
            return Reply(whole.body, kind=whole.kind, cut_at=chance.randrange(size - 1), reset=True)
        if kind == 3:
            return Reply(whole.data[: chance.randrange(size - 16)], kind=whole.kind)
        if kind == 4:
            return Reply("{broken")
        return Reply(hang="headers")

    async def main() -> None:
        limit, store = ConcurrencyLimit(40), MemoryStore()
        retry = RetryPolicy(max_attempts=5, initial_delay=0.001, max_delay=0.01)
        async with model_server(fault) as server, ExecutionState(store=store) as state:
            model = chat(server, stream=is_streamed, retry=retry, idle_timeout=0.5, limits=limit)
            async with state.parallel(max_workers=60) as p:
                p.map(lambda number: model(f"{number}"), range(count))
                results = await p.gather()
        failed = [result.error for result in results if not result.ok]
        assert len(failed) <= max(5, count // 1000 * 2 + 12), Counter(map(repr, failed))
        outcomes = [outcome.key async for outcome in store.outcomes(state.run_id)]
        assert len(outcomes) == len(set(outcomes)) == count
        assert server.most <= 40
        assert limit.in_use == 0

    run(main(), seconds=600)


# -- the table --------------------------------------------------------------------------------------------------------


def test_every_error_of_the_client_is_one_of_ours() -> None:
    theirs = {
        name: value
        for name, value in dict(vars(openai)).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    unmapped = {name for name, value in theirs.items() if value not in ERRORS} - NEVER_RAISED
    assert unmapped == set()
    assert set(theirs) >= NEVER_RAISED, "what the client does not have any more"


def test_special_errors_stand_before_general_ones_in_the_table() -> None:
    kinds = list(ERRORS)
    for place, kind in enumerate(kinds):
        assert not any(issubclass(later, kind) for later in kinds[place + 1 :]), kind


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=30), usegmt=True)}, 30.0),
        ({"retry-after": format_datetime(NOW - timedelta(days=1), usegmt=True)}, None),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1e308"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_a_server_is_believed_about_when_to_come_again_if_that_makes_sense(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert seconds_to_wait(headers, NOW) == seconds


def test_headers_tell_what_is_left_of_the_limits() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "20ms",
    }
    hint = hint_in(headers)
    assert hint is not None
    assert hint.remaining == {"requests": 9.0, "tokens": 100.0}
    assert hint.resets_in == {"requests": 360.0, "tokens": 0.02}
    assert hint_in({"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "1s"}) is None
    assert hint_in({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "whenever"}) is None


# -- as an actor ------------------------------------------------------------------------------------------------------


def test_a_question_is_paid_for_once_and_replayed_with_its_usage() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with model_server(answer()) as server:
            for _ in range(2):
                async with ExecutionState(store=store, run_id="r") as state:
                    response = await chat(server)("Hello?")
                    assert response.usage.tokens == 15
                    assert state.spent.usage.tokens == 15
                    assert state.spent.calls == 1
            assert len(server.exchanges) == 1

    run(main())


def test_another_attempt_waits_as_long_as_the_server_says_and_so_do_all_who_share_the_limit() -> None:
    async def main() -> float:
        replies = iter([error(429, retry_after="0.3"), answer(), answer()])
        limit = RateLimit(requests=1000, per=60.0)
        async with model_server(lambda _: next(replies)) as server:
            model = chat(server, retry=RetryPolicy(max_attempts=2, initial_delay=0.0), limits=limit)
            began = asyncio.get_running_loop().time()
            await model("Hello?")
            return asyncio.get_running_loop().time() - began

    assert run(main()) >= 0.3


@pytest.mark.parametrize("per", [0.2, pytest.param(2.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("objects", [1, 3])
def test_sixty_questions_to_a_server_that_takes_ten_at_a_time_are_answered_at_its_pace(
    per: float, objects: int
) -> None:
    """Without any configuration, also with several objects for the same model, at 80 % of the server's pace.

    What the machine needs for as many answers without a limit is not the server's to answer for. Nor is it if other
    programs have the processor just then, so the best of three times counts.
    """
    taken: dict[int, int] = {}
    is_limited = False

    def take(_: Exchange) -> Reply:
        now = asyncio.get_running_loop().time()
        window = int(now // per)
        if is_limited and taken.get(window, 0) >= 10:
            return error(429, retry_after_ms=str(((window + 1) * per - now) * 1000))
        taken[window] = taken.get(window, 0) + 1
        return answer()

    async def ask_all(models: list[OpenAIChat]) -> tuple[int, float]:
        began = asyncio.get_running_loop().time()
        async with parallel(max_workers=30) as p:
            p.map(lambda number: models[number % objects](f"{number}"), range(60))
            results = await p.gather()
        return sum(result.ok for result in results), asyncio.get_running_loop().time() - began

    async def main() -> tuple[int, float, float]:
        nonlocal is_limited
        async with model_server(take) as server:
            models = [OpenAIChat("stub", base_url=server.base_url, api_key="key") for _ in range(objects)]
            _, unlimited = await ask_all(models)
            is_limited = True
            return *(await ask_all(models)), unlimited

    took = unlimited = 0.0
    for _ in range(3):
        taken.clear()
        is_limited = False
        answered, took, unlimited = run(main(), seconds=60)
        assert answered == 60
        if took <= 6 * per / 0.8 + 3 * unlimited:
            return
    raise AssertionError(f"took {took:.2f} s, and {unlimited:.2f} s without a limit")


def test_what_will_not_pass_is_not_tried_again() -> None:
    async def main() -> int:
        async with model_server(error(401)) as server:
            with pytest.raises(PermanentModelError):
                await chat(server, retry=RetryPolicy(max_attempts=5, initial_delay=0.0))("Hello?")
            return len(server.exchanges)

    assert run(main()) == 1


def test_one_model_serves_one_event_loop_after_the_other() -> None:
    async def main(model: OpenAIChat | None) -> OpenAIChat:
        async with model_server(answer()) as server:
            model = model or chat(server)
            used = model.model_copy(update={"base_url": server.base_url})
            assert (await used("Hello?")).text == "Hello."
            return model

    model = run(main(None))
    run(main(model))


def test_the_certificates_of_the_machine_are_read_once_for_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes 70 ms each time, in which nothing else happens."""
    read: list[ssl.SSLContext] = []

    def reading() -> ssl.SSLContext:
        read.append(ssl.create_default_context())
        return read[-1]

    monkeypatch.setattr(httpx2, "create_ssl_context", reading)
    monkeypatch.setenv("SSL_CERT_DIR", "/somewhere/else")  # so that what other tests have read does not count

    async def main() -> None:
        async with model_server(answer()) as server:
            for _ in range(3):
                async with chat(server) as model:
                    await model("Hello?")

    run(main())
    assert len(read) == 1


def test_a_request_that_is_given_whole_is_sent_as_it_is() -> None:
    async def main() -> dict[str, Any]:
        async with model_server(answer()) as server:
            await chat(server, temperature=1.0)(ChatRequest(messages=(Message.user("Hi."),), stop=("\n",)))
            return server.exchanges[0].body

    assert run(main()) == {"model": "stub", "messages": [{"role": "user", "content": "Hi."}], "stop": ["\n"]}


def test_keys_are_registered_as_secrets() -> None:
    OpenAIChat(
        "m", base_url="http://127.0.0.1:1/v1", api_key="key-0123456789", headers={"X-Api-Key": "other-0123456789"}
    )
    OpenAIChat("m", api_key=Secret("given", "given-0123456789"))
    OpenAIChat("m", base_url="http://127.0.0.1:1/v1", api_key="no-key-needed")
    try:
        assert redact("key-0123456789") == "<secret:api key for http://127.0.0.1:1/v1>"
        assert redact("other-0123456789") == "<secret:X-Api-Key for http://127.0.0.1:1/v1>"
        assert redact("given-0123456789") == "<secret:given>"
        assert redact("no-key-needed") == "no-key-needed"
    finally:
        for name in ("api key for http://127.0.0.1:1/v1", "X-Api-Key for http://127.0.0.1:1/v1", "given"):
            forget_secret(name)


def test_what_a_url_says_about_who_asks_is_registered_as_a_secret() -> None:
    url = "https://me:pass-0123456789@proxy.example/v1?api-version=1&api_key=query-0123456789"
    OpenAIChat("m", base_url=url, api_key="key-0123456789")
    server = "https://proxy.example/v1"
    try:
        assert redact("pass-0123456789") == f"<secret:password for {server}>"
        assert redact("query-0123456789") == f"<secret:api_key for {server}>"
        assert redact("key-0123456789") == f"<secret:api key for {server}>"
    finally:
        for name in ("password", "api_key", "api key"):
            forget_secret(f"{name} for {server}")


def test_the_key_of_the_environment_is_registered_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "env-0123456789")

    async def main() -> None:
        await OpenAIChat("m", base_url="http://127.0.0.1:1/v1", retry=None)("Hello?")

    try:
        with pytest.raises(ModelUnreachable):
            run(main())
        assert redact("sent env-0123456789") == "sent <secret:OPENAI_API_KEY>"
    finally:
        forget_secret("OPENAI_API_KEY")
