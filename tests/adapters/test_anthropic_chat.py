"""Anthropic's models through the official client, against a server that refuses what is documented to be."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from rh_agents import (
    Agent,
    ExecutionEvent,
    ExecutionState,
    ExecutionStatus,
    MemoryStore,
    Price,
    RetryPolicy,
    Tool,
    Usage,
    run,
    tool,
)
from rh_agents.core._base.key_generations import ENDPOINTS, fact_of_keys
from rh_agents.core.chat import (
    ChatDelta,
    ChatResponse,
    DocumentPart,
    Fallback,
    FinishReason,
    ImagePart,
    Message,
    ToolCall,
    ToolSpec,
)
from rh_agents.core.errors import (
    AccessDenied,
    AnswerTruncated,
    ContextTooLong,
    IncompleteAnswer,
    InvalidRequest,
    ModelError,
    ModelOverloaded,
    ModelRefused,
    ModelTimeout,
    PermanentModelError,
    QuotaExhausted,
    RateLimited,
    RequestTooLarge,
    UnreadableAnswer,
)
from rh_agents.core.ports import RunRequest
from tests.services.anthropic_server import (
    AnthropicServer,
    events,
    message,
    problem,
    signed,
    stream,
    text,
    thinking,
    tool_use,
)
from tests.services.model_server import Reply, model_server

pytest.importorskip("anthropic", reason="anthropic is not installed: pip install 'rh_agents[anthropic]'")

import anthropic

from rh_agents.llms import AnthropicChat
from rh_agents.llms._anthropic_answer import read_answer
from rh_agents.llms._anthropic_errors import CLIENT_ERRORS

BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


@asynccontextmanager
async def served(server: AnthropicServer, **settings: Any) -> AsyncIterator[AnthropicChat]:
    async with model_server(server) as running:
        options = {"retry": None, "idle_timeout": 2.0, "dialect": "Anthropic", **settings}
        yield AnthropicChat("claude-test", running.base_url.removesuffix("/v1"), "k", **options)


def ask(server: AnthropicServer, prompt: Any = "Hello?", *, streamed: bool = False, **settings: Any) -> ChatResponse:
    """What comes of one question. `call` are arguments of the call."""
    call = settings.pop("call", {})

    async def main() -> ChatResponse:
        async with served(server, stream=streamed, **settings) as model:
            return await model(prompt, **call)

    return asyncio.run(asyncio.wait_for(main(), 20))


def says(*blocks: dict[str, Any], **fields: Any) -> AnthropicServer:
    return AnthropicServer(lambda _: message(*blocks, **fields))


@BOTH
def test_a_question_gets_its_answer_with_its_usage(streamed: bool) -> None:
    usage = {"input_tokens": 7, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 3, "output_tokens": 5}
    server = says(text("It is "), text("blue."), usage={**usage, "output_tokens_details": {"thinking_tokens": 2}})
    found = ask(server, streamed=streamed, price=Price(1.0, 10.0, 0.1, 2.0))
    assert (found.text, found.finish_reason, found.model) == ("It is blue.", FinishReason.STOP, "claude-test")
    used = found.usage
    assert (used.input_tokens, used.cached_tokens, used.cache_write_tokens) == (30, 20, 3)
    assert (used.output_tokens, used.requests) == (5, 1)
    assert used.cost == pytest.approx((7 * 1.0 + 20 * 0.1 + 3 * 2.0 + 5 * 10.0) / 1e6)
    assert server.bodies[0] == {
        "model": "claude-test",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [text("Hello?")]}],
        **({"stream": True} if streamed else {}),
    }


@BOTH
def test_an_agent_calls_its_tools_and_gives_what_the_model_thought_back_with_its_signature(streamed: bool) -> None:
    def answering(body: dict[str, Any]) -> dict[str, Any]:
        if len(body["messages"]) == 1:
            return message(
                thinking("Two cities, two calls."), text("Let me see."), tool_use("toolu_1", "weather", city="Oslo"),
                tool_use("toolu_2", "weather", city="Rome"), tool_use("toolu_3", "clock"),
            )  # fmt: skip
        return message(thinking("Done."), text("Rome is warmer."))

    server = AnthropicServer(answering)

    @tool
    async def weather(city: str) -> str:
        """The weather in a city."""
        return f"{city}: {len(city)} degrees"

    @tool
    async def clock() -> str:
        """The time."""
        return "noon"

    async def main() -> Any:
        async with served(server, stream=streamed, thinking=2_000, max_tokens=3_000) as model:
            agent = Agent(name="guide", llm=model, tools=[weather, clock], instructions="You know the weather.")

            async def job() -> Any:
                return await agent("Where is it warmer?")

            return await run(job)

    assert asyncio.run(main()) == "Rome is warmer."
    first, second = server.bodies
    assert first["system"] == [text("You know the weather.")]
    assert first["thinking"] == {"type": "enabled", "budget_tokens": 2_000}
    assert [each["name"] for each in first["tools"]] == ["weather", "clock"]
    assert first["tools"][0]["input_schema"]["required"] == ["city"]
    assert [each["role"] for each in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == [
        thinking("Two cities, two calls."), text("Let me see."), tool_use("toolu_1", "weather", city="Oslo"),
        tool_use("toolu_2", "weather", city="Rome"), tool_use("toolu_3", "clock"),
    ]  # fmt: skip
    assert second["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("Oslo: 4 degrees")]},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": [text("Rome: 4 degrees")]},
        {"type": "tool_result", "tool_use_id": "toolu_3", "content": [text("noon")]},
    ]


def test_pieces_of_text_thoughts_and_calls_are_told_as_they_come() -> None:
    server = says(thinking("Hm, let me think."), text("One word after the other."), tool_use("t", "clock", zone="UTC"))
    told: list[Any] = []

    async def listen(event: ExecutionEvent[Any]) -> None:
        if event.progress is not None:
            told.append(event.progress)

    async def main() -> ChatResponse:
        async with served(server, stream=True) as model:

            async def job() -> ChatResponse:
                return await model("Hello?")

            return await run(job, subscribers=[listen])

    found = asyncio.run(main())
    assert "".join(each.reasoning for each in told) == found.reasoning == "Hm, let me think."
    assert "".join(each.text for each in told) == found.text == "One word after the other."
    assert json.loads("".join(each.arguments for each in told)) == {"zone": "UTC"}
    assert {each.tool_index for each in told if each.arguments} == {0}


def test_a_recorded_answer_is_replayed_with_all_that_the_provider_wants_back() -> None:
    server, store = says(thinking("Hm."), text("Blue.")), MemoryStore()

    async def main() -> ChatResponse:
        async with served(server, endpoint="here") as model, ExecutionState(store=store, run_id="r"):
            return await model("Which colour?")

    first, second = asyncio.run(main()), asyncio.run(main())
    assert first == second
    assert len(server.bodies) == 1
    assert second.message.provider == {"anthropic_content": [thinking("Hm."), text("Blue.")]}


def test_thoughts_that_were_blacked_out_and_blocks_that_are_not_known_go_back_as_they_came() -> None:
    blocks = [{"type": "redacted_thinking", "data": "xyz"}, text("Found."), {"type": "server_thing", "x": 1}]
    server = says(*blocks)
    answer = ask(server)
    ask(server, [Message.user("Hello?"), answer.message, Message.user("And?")])
    assert server.bodies[1]["messages"][1]["content"] == blocks


def test_a_message_that_was_changed_is_sent_as_it_is_now() -> None:
    server = says(thinking("Hm."), text("Blue."))
    answer = ask(server)
    changed = answer.message.model_copy(update={"content": "Red."})
    ask(server, [Message.user("Hello?"), changed, Message.user("And?")])
    assert server.bodies[1]["messages"][1]["content"] == [text("Red.")]


def test_histories_of_other_providers_and_odd_ones_are_sent_in_a_form_that_is_taken() -> None:
    server = says(text("Yes."))
    talk = [
        Message.system("Be brief."),
        Message.system("Be kind."),
        Message.user("One."),
        Message.user("Two."),
        Message.assistant(
            "", [ToolCall(id="a", name="f", arguments="{broken"), ToolCall(id="b", name="f", arguments="")]
        ),
        Message.tool("a", "Error: no JSON"),
        Message.tool("b", ""),
        Message.user("Go on."),
        Message.assistant(""),
        Message.user("Well?"),
    ]
    ask(server, talk)
    body = server.bodies[0]
    assert body["system"] == [text("Be brief."), text("Be kind.")]
    assert body["messages"] == [
        {"role": "user", "content": [text("One."), text("Two.")]},
        {"role": "assistant", "content": [tool_use("a", "f"), tool_use("b", "f")]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [text("Error: no JSON")]},
                {"type": "tool_result", "tool_use_id": "b"},
                text("Go on."),
                text("Well?"),
            ],
        },
    ]


def test_images_and_documents_are_sent_as_what_they_are() -> None:
    server = says(text("A cat."))
    said = Message.user(
        "What is this?",
        ImagePart.from_bytes(b"png", "image/png"),
        ImagePart(url="https://example.org/a.png"),
        DocumentPart.from_bytes(b"%PDF", name="a.pdf"),
        DocumentPart.from_bytes("für".encode(), "text/markdown", name="b.md"),
        DocumentPart(url="https://example.org/c.pdf"),
    )
    ask(server, said)
    assert [block.get("source") for block in server.bodies[0]["messages"][0]["content"]] == [
        None,
        {"type": "base64", "media_type": "image/png", "data": "cG5n"},
        {"type": "url", "url": "https://example.org/a.png"},
        {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
        {"type": "text", "media_type": "text/plain", "data": "für"},
        {"type": "url", "url": "https://example.org/c.pdf"},
    ]
    with pytest.raises(InvalidRequest, match="PDF and text"):
        ask(server, Message.user("This?", DocumentPart.from_bytes(b"PK", "application/zip", name="x.zip")))


def test_images_that_tools_give_stand_in_their_results() -> None:
    server = says(text("A cat."))
    call = ToolCall(id="t", name="look", arguments="{}")
    ask(
        server,
        [
            Message.user("Look."),
            Message.assistant("", [call]),
            Message.tool("t", (ImagePart(url="https://e.org/a.png"),)),
        ],
    )
    (result,) = server.bodies[0]["messages"][2]["content"]
    assert result["content"] == [{"type": "image", "source": {"type": "url", "url": "https://e.org/a.png"}}]


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("f", None, {"type": "tool", "name": "f"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
    ],
)
def test_which_tool_is_to_be_called_is_said_in_the_words_of_the_protocol(choice: Any, parallel: Any, sent: Any) -> None:
    @tool
    async def f() -> str:
        """Does something."""
        return ""

    server = says(text("Yes."))
    ask(server, call={"tools": [f], "tool_choice": choice, "parallel_tool_calls": parallel, "stop": ("END",)})
    assert server.bodies[0].get("tool_choice") == sent
    assert server.bodies[0]["stop_sequences"] == ["END"]


class Verdict(BaseModel):
    mood: str
    stars: int = Field(ge=1, le=5)


def test_an_object_is_asked_for_in_the_part_of_json_schema_that_is_understood() -> None:
    server = says(text('{"mood": "good", "stars": 4}'))
    found = ask(server, call={"output": Verdict})
    assert found.output == Verdict(mood="good", stars=4)
    config = server.bodies[0]["output_config"]["format"]
    assert config["type"] == "json_schema"
    assert config["schema"]["additionalProperties"] is False
    assert "minimum: 1" in config["schema"]["properties"]["stars"]["description"]


@BOTH
def test_an_object_can_be_asked_for_as_the_arguments_of_a_tool(streamed: bool) -> None:
    server = says(text("Well:"), tool_use("t", "Verdict", mood="good", stars=4))
    found = ask(server, call={"output": Verdict}, output_mode="tool", streamed=streamed)
    assert found.output == Verdict(mood="good", stars=4)
    assert found.finish_reason is FinishReason.STOP
    assert not found.tool_calls
    assert server.bodies[0]["tool_choice"] == {"type": "any"}
    assert "output_config" not in server.bodies[0]


def test_a_model_that_thinks_is_not_made_to_call_the_tool_that_gives_its_answer() -> None:
    server = says(thinking("Hm."), tool_use("t", "Verdict", mood="good", stars=4))
    found = ask(server, call={"output": Verdict}, output_mode="tool", thinking="adaptive")
    assert found.output == Verdict(mood="good", stars=4)
    assert "tool_choice" not in server.bodies[0]


def test_an_object_can_be_asked_for_in_words() -> None:
    server = says(text('```json\n{"mood": "good", "stars": 4}\n```'))
    found = ask(
        server, [Message.system("Be fair."), Message.user("Well?")], call={"output": Verdict}, output_mode="prompt"
    )
    assert found.output == Verdict(mood="good", stars=4)
    assert "JSON schema" in server.bodies[0]["system"][1]["text"]
    assert "output_config" not in server.bodies[0]


def test_an_answer_beside_calls_of_tools_is_none_yet_and_does_not_go_back() -> None:
    server = says(thinking("Hm."), tool_use("a", "f"), tool_use("b", "Verdict", mood="good", stars=4))
    found = ask(server, call={"output": Verdict}, output_mode="tool", thinking="adaptive")
    assert [call.name for call in found.tool_calls] == ["f"]
    server.answering = lambda _: message(text("Yes."))
    ask(server, [Message.user("Hello?"), found.message, Message.tool("a", "done")], thinking="adaptive")
    assert server.bodies[1]["messages"][1]["content"] == [thinking("Hm."), tool_use("a", "f")]


def test_what_requests_have_in_common_is_marked_for_the_cache_and_that_is_no_part_of_their_identity() -> None:
    @tool
    async def f() -> str:
        """Does something."""
        return ""

    server = says(text("Yes."))
    mark = {"type": "ephemeral", "ttl": "1h"}
    ask(server, [Message.system("Long."), Message.user("One.", "Two.")], prompt_cache="1h", call={"tools": [f]})
    body = server.bodies[0]
    assert body["system"] == [{**text("Long."), "cache_control": mark}]
    assert body["messages"][0]["content"] == [text("One."), {**text("Two."), "cache_control": mark}]
    ask(server, "One.", prompt_cache="5m", call={"tools": [f]})
    assert server.bodies[1]["tools"][0]["cache_control"] == {"type": "ephemeral"}
    plain, cached = (AnthropicChat("m", api_key="k", prompt_cache=cache) for cache in (None, "5m"))
    assert plain.request("x") == cached.request("x")
    assert plain.request("x") != AnthropicChat("m", api_key="k", thinking=2_000).request("x")


def test_an_hour_in_the_cache_costs_twice_the_price_of_the_tokens() -> None:
    usage = Usage(input_tokens=1_000_000, cache_write_tokens=1_000_000)
    caches: list[tuple[Any, float]] = [(None, 1.25), ("5m", 1.25), ("1h", 2.0)]
    for cache, times in caches:
        model = AnthropicChat("claude-opus-4-5", api_key="k", prompt_cache=cache)
        assert model.known_price is not None
        assert model.known_price.cost(usage) == pytest.approx(times * model.known_price.input)


@BOTH
def test_what_is_kept_for_an_hour_and_what_for_five_minutes_is_told_apart_in_one_answer(streamed: bool) -> None:
    kept = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}
    usage = {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 300, "cache_creation": kept}
    prices = {"claude-test": {"input": 1.0, "output": 0.0, "cache_write": 1.25}}
    extra = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}  # the provider marks by itself
    found = ask(says(text("x"), usage=usage), streamed=streamed, prices=prices, extra=extra).usage
    assert (found.input_tokens, found.cache_write_tokens, found.long_cache_write_tokens) == (310, 300, 200)
    assert found.cost == pytest.approx((10 + 100 * 1.25 + 200 * 2.0) / 1e6)


def test_an_hour_in_the_cache_has_its_price_in_long_requests_as_well() -> None:
    model = AnthropicChat("claude-sonnet-4-5", api_key="k", prompt_cache="1h")
    assert model.known_price is not None
    usage = Usage(input_tokens=300_000, cache_write_tokens=300_000)
    assert model.known_price.cost(usage) == pytest.approx(0.3 * 2 * 6.0)


def test_a_budget_reserves_what_it_costs_to_keep_the_whole_conversation() -> None:
    reserved = {}
    for cache in (None, "5m", "1h"):
        model = AnthropicChat("claude-opus-4-5", api_key="k", prompt_cache=cache, max_tokens=1)
        estimate = model.estimate(model.request("x" * 100_000))
        reserved[cache] = (estimate.cost - 25.0 / 1e6) / estimate.input_tokens * 1e6
    assert reserved == pytest.approx({None: 5.0, "5m": 6.25, "1h": 10.0})


REASONS = [
    ("end_turn", FinishReason.STOP),
    ("stop_sequence", FinishReason.STOP),
    ("max_tokens", FinishReason.LENGTH),
    ("model_context_window_exceeded", FinishReason.LENGTH),
    ("refusal", FinishReason.CONTENT_FILTER),
]


@BOTH
@pytest.mark.parametrize(("reason", "means"), REASONS)
def test_why_an_answer_ended_is_known_from_a_table(reason: str, means: FinishReason, streamed: bool) -> None:
    assert ask(says(text("So"), stop_reason=reason), streamed=streamed).finish_reason is means


@BOTH
def test_a_reason_that_is_not_known_is_a_failure_that_quotes_it_unless_somebody_says_what_it_means(
    streamed: bool,
) -> None:
    server = says(text("So"), stop_reason="pause_turn")
    with pytest.raises(PermanentModelError, match="pause_turn") as caught:
        ask(server, streamed=streamed, retry=RetryPolicy(max_attempts=3))
    assert caught.value.usage == Usage(10, 5, requests=1)
    assert len(server.bodies) == 1
    extended = {"pause_turn": FinishReason.LENGTH}
    assert ask(server, streamed=streamed, finish_reasons=extended).finish_reason is FinishReason.LENGTH


@BOTH
def test_a_refusal_says_why_and_an_answer_that_was_cut_off_is_none(streamed: bool) -> None:
    refusal = says(
        stop_reason="refusal", stop_details={"type": "refusal", "category": "bio", "explanation": "Too risky."}
    )
    cut = says(text("So"), stop_reason="max_tokens")

    async def main(server: AnthropicServer) -> str:
        async with served(server, stream=streamed) as model:
            return await model.ask("How?")

    with pytest.raises(ModelRefused, match="Too risky"):
        asyncio.run(main(refusal))
    with pytest.raises(AnswerTruncated):
        asyncio.run(main(cut))


BAD = [
    {"content": "text"},
    {"content": [{"type": "text", "text": 3}]},
    {"content": [{"type": "tool_use", "id": "t", "input": {}}], "stop_reason": "tool_use"},
    {"content": [text("I call it.")], "stop_reason": "tool_use"},
    {"content": [text("?")], "stop_reason": None},
    {"content": []},
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_an_answer_that_has_not_the_form_of_one_fails_with_what_it_used(bad: dict[str, Any]) -> None:
    server = AnthropicServer(lambda _: Reply({**message(text("")), **bad}))
    with pytest.raises(UnreadableAnswer) as caught:
        ask(server)
    assert caught.value.usage is not None
    assert caught.value.usage.output_tokens >= 5


def limit(status: int, kind: str, said: str, code: str, **headers: str) -> Reply:
    """An error with a code that names its cause."""
    reply = problem(status, kind, said, **headers)
    reply.body["error"]["details"] = {"error_code": code}
    return reply


ERRORS: list[tuple[Reply, type[ModelError]]] = [
    (problem(400, "invalid_request_error", "max_tokens: too large"), InvalidRequest),
    (problem(400, "invalid_request_error", "prompt is too long: 201000 tokens > 200000 maximum"), ContextTooLong),
    (
        problem(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
        QuotaExhausted,
    ),
    (problem(401, "authentication_error", "invalid x-api-key"), AccessDenied),
    (problem(402, "billing_error", "no"), QuotaExhausted),
    (limit(400, "invalid_request_error", "Not this month.", "enforced_spend_limit_reached"), QuotaExhausted),
    (limit(403, "permission_error", "Disabled.", "organization_on_hold"), AccessDenied),
    (limit(429, "rate_limit_error", "Not so quickly.", "ramp_limit_exceeded", retry_after="7"), RateLimited),
    (problem(403, "permission_error", "no"), AccessDenied),
    (problem(404, "not_found_error", "model: claude-x"), InvalidRequest),
    (problem(413, "request_too_large", "Request exceeds the maximum size"), RequestTooLarge),
    (problem(400, "invalid_request_error", "This model does not support the effort parameter."), InvalidRequest),
    (problem(429, "rate_limit_error", "no", retry_after="7"), RateLimited),
    (problem(500, "api_error", "no"), ModelOverloaded),
    (problem(504, "timeout_error", "no"), ModelTimeout),
    (problem(529, "overloaded_error", "Overloaded"), ModelOverloaded),
    (Reply(hang="headers"), ModelTimeout),
    (Reply("<html>Bad gateway</html>", 502, kind="text/html"), ModelOverloaded),
    (Reply("<html><title>524: A timeout occurred</title></html>", 524, kind="text/html"), ModelTimeout),
]


@BOTH
@pytest.mark.parametrize(("reply", "kind"), ERRORS, ids=range(len(ERRORS)))
def test_errors_have_their_kinds_and_say_what_the_server_said(
    reply: Reply, kind: type[ModelError], streamed: bool
) -> None:
    with pytest.raises(kind) as caught:
        ask(AnthropicServer(lambda _: reply), streamed=streamed, idle_timeout=0.2)
    if isinstance(reply.body, dict):
        assert reply.body["error"]["message"][:20] in str(caught.value)
        assert caught.value.request_id == "req_1"
        assert caught.value.code in (reply.body["error"]["type"], *reply.body["error"].get("details", {}).values())
    assert caught.value.retry_after == (7.0 if reply.status == 429 else None)


IN_ANSWERS = [
    ("overloaded_error", ModelOverloaded),
    ("api_error", ModelOverloaded),
    ("invalid_request_error", InvalidRequest),
    ("not_found_error", InvalidRequest),
    ("rate_limit_error", RateLimited),
    ("timeout_error", ModelTimeout),
    ("billing_error", QuotaExhausted),
]


@BOTH
@pytest.mark.parametrize(("kind", "expected"), IN_ANSWERS)
def test_an_error_in_an_answer_that_began_well_has_its_kind(
    kind: str, expected: type[ModelError], streamed: bool
) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "It is so."}}
    begun = events(message(text("Hello")))[:4]
    reply = stream([*begun, error]) if streamed else Reply(error)
    with pytest.raises(expected, match="It is so") as caught:
        ask(AnthropicServer(lambda _: reply), streamed=streamed)
    assert type(caught.value) is expected


def test_every_error_of_the_client_is_one_of_ours() -> None:
    theirs = {
        name: each for name, each in vars(anthropic).items() if inspect.isclass(each) and issubclass(each, Exception)
    }
    unmapped = {
        name
        for name, each in theirs.items()
        if next(kind for kind in CLIENT_ERRORS.kinds if issubclass(each, kind)) is anthropic.AnthropicError
    }
    about_keys = {"AnthropicError", "CredentialsError", "IdentityTokenFileError", "WorkloadIdentityError"}
    assert unmapped == about_keys
    kinds = list(CLIENT_ERRORS.kinds)
    for place, kind in enumerate(kinds):
        assert not any(issubclass(later, kind) for later in kinds[place + 1 :]), kind


@BOTH
@pytest.mark.parametrize("status", [408, 504, 524])
def test_a_proxy_that_has_waited_in_vain_does_not_say_that_nothing_was_done(status: int, streamed: bool) -> None:
    with pytest.raises(ModelTimeout) as caught:
        ask(AnthropicServer(lambda _: Reply("", status)), streamed=streamed, max_tokens=50)
    assert caught.value.usage is not None
    assert (caught.value.usage.output_tokens, caught.value.usage.estimates) == (50, 1)


# -- who is asked -----------------------------------------------------------------------------------------------------


def test_two_servers_that_call_a_model_by_the_same_name_answer_each_for_itself() -> None:
    store = MemoryStore()

    async def main() -> list[str]:
        async with model_server(says(text("A."))) as a, model_server(says(text("B."))) as b:
            models = [
                AnthropicChat("claude-test", each.base_url.removesuffix("/v1"), "k", retry=None, cache="store")
                for each in (a, b, a)
            ]
            async with ExecutionState(store=store, run_id="r"):
                return [await model.ask("Who?") for model in models]

    assert asyncio.run(main()) == ["A.", "B.", "A."]


def test_a_server_is_known_by_its_url_or_a_name_that_it_was_given_and_anthropics_own_by_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    own = [AnthropicChat("m", url, "k") for url in (None, "https://api.anthropic.com", "https://api.anthropic.com/v1/")]
    assert {(model.recorded_version, model.former_versions) for model in own} == {("1", ())}
    proxy = AnthropicChat("m", "https://user:secret@gate.example.com/claude/?key=secret", "k")
    assert (proxy.recorded_version, proxy.former_versions) == ("1 at https://gate.example.com/claude", ("1",))
    named = AnthropicChat("m", "http://127.0.0.1:1", "k", endpoint="my proxy")
    assert (named.recorded_version, named.keys_since) == ("1 at my proxy", 1)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
    assert AnthropicChat("m", None, "k").endpoint_identity == "http://127.0.0.1:1"


def test_what_was_recorded_before_its_server_was_a_part_of_keys_is_found() -> None:
    """Versions before kept the servers of other models in keys, and that of this one not, unless it had a name."""
    server, store = says(text("Yes.")), MemoryStore()

    async def main(**settings: Any) -> str:
        async with served(server, **settings) as model, ExecutionState(store=store, run_id="r", reuse=True):
            return await model.ask("Hello?")

    async def before() -> None:
        journal = await store.open_run(RunRequest("r", "before", facts=fact_of_keys(ENDPOINTS)))
        await journal.close(ExecutionStatus.COMPLETED)

    for settings, requests in (({}, 1), ({"endpoint": "another"}, 2)):
        store = MemoryStore()
        server.bodies.clear()
        asyncio.run(main(endpoint=""))
        asyncio.run(before())
        assert asyncio.run(main(**settings)) == "Yes."
        assert len(server.bodies) == requests


def test_objects_that_ask_one_server_with_one_key_wait_together() -> None:
    first = AnthropicChat("m", "http://127.0.0.1:1", "k")
    assert first.pause is AnthropicChat("m", "http://127.0.0.1:1/", "k", thinking=2_000).pause
    others = [("m", "http://127.0.0.1:2", "k"), ("m", "http://127.0.0.1:1", "other"), ("n", "http://127.0.0.1:1", "k")]
    assert all(first.pause is not AnthropicChat(*other).pause for other in others)


@pytest.mark.parametrize("told", ["reset", "retry-after"])
def test_a_limit_that_is_spent_is_waited_for_by_all_and_is_no_failed_attempt(told: str) -> None:
    asked: list[float] = []
    refused = asyncio.Event()

    def answering(_: dict[str, Any]) -> Any:
        asked.append(time.monotonic())
        if len(asked) > 1:
            return message(text("Yes."))
        refused.set()
        later = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat().replace("+00:00", "Z")
        reset = {"anthropic_ratelimit_requests_remaining": "0", "anthropic_ratelimit_requests_reset": later}
        return problem(429, "rate_limit_error", "no", **(reset if told == "reset" else {"retry_after": "0.3"}))

    async def main() -> list[str]:
        async with model_server(AnthropicServer(answering)) as running, ExecutionState():
            place = running.base_url.removesuffix("/v1")
            models = [AnthropicChat("m", place, "k", retry=RetryPolicy(max_attempts=1)) for _ in range(3)]
            first = asyncio.ensure_future(models[0].ask("0"))
            await refused.wait()
            await asyncio.sleep(0.05)  # its answer has come by now
            return list(await asyncio.gather(first, *(model.ask("?") for model in models[1:])))

    assert asyncio.run(asyncio.wait_for(main(), 20)) == ["Yes."] * 3
    assert len(asked) == 4
    assert min(asked[1:]) - asked[0] >= 0.25


# -- how it is asked --------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_known_is_asked_for_objects_by_a_tool_since_others_pass_over_the_field_for_them() -> None:
    server = says(tool_use("t", "Verdict", mood="good", stars=4))
    found = ask(server, call={"output": Verdict}, dialect=None)
    assert found.output == Verdict(mood="good", stars=4)
    assert "output_config" not in server.bodies[0]
    assert AnthropicChat("m", api_key="k").provider.output == "native"
    assert AnthropicChat("m", "https://api.anthropic.com", api_key="k").provider.output_with_tools == "native"
    with pytest.raises(ValueError, match="known are Anthropic"):
        AnthropicChat("m", api_key="k", dialect="vLLM")


def test_calls_that_another_model_made_are_sent_with_ids_that_are_taken() -> None:
    server = says(text("Yes."))
    calls = [ToolCall(id=f"functions.f:{number}", name="f", arguments="{}") for number in range(2)]
    results = [Message.tool(call.id, call.id) for call in calls]
    assert ask(server, [Message.user("Hello?"), Message.assistant("", calls), *results]).text == "Yes."
    said, told = server.bodies[0]["messages"][1:]
    assert [each["id"] for each in said["content"]] == [each["tool_use_id"] for each in told["content"]]
    assert len({each["id"] for each in said["content"]}) == 2


def test_calls_of_other_models_that_are_numbered_anew_in_each_answer_are_sent_with_an_id_for_each() -> None:
    """Claude's server takes no id twice in a conversation."""
    server = says(text("Yes."))
    again = [Message.assistant("", [ToolCall(id="call_0", name="f", arguments="{}")]), Message.tool("call_0", "a")]
    alike = [ToolCall(id="call_0", name=name, arguments="{}") for name in "gh"]
    both = [Message.assistant("", alike), Message.tool("call_0", "of g"), Message.tool("call_0", "of h")]
    assert ask(server, [Message.user("Hello?"), *again, *again, *both]).text == "Yes."
    turns = server.bodies[0]["messages"][1:]
    called = [(block["id"], block["name"]) for turn in turns[::2] for block in turn["content"]]
    results = [(block["tool_use_id"], block["content"][0]["text"]) for turn in turns[1::2] for block in turn["content"]]
    assert called == [("call_0", "f"), ("call_0_2", "f"), ("call_0_3", "g"), ("call_0_4", "h")]
    assert results == [("call_0", "a"), ("call_0_2", "a"), ("call_0_3", "of g"), ("call_0_4", "of h")]


def agent_after(*blocks: dict[str, Any], streamed: bool = False, **settings: Any) -> tuple[list[str], dict[str, Any]]:
    """What an agent looks up when its model answers so, and the request that follows."""
    server = AnthropicServer(lambda body: message(*blocks) if len(body["messages"]) == 1 else message(text("Done.")))
    looked_up: list[str] = []

    @tool
    async def look_up(word: str) -> str:
        """Look a word up."""
        looked_up.append(word)
        return word.upper()

    async def main() -> None:
        async with served(server, stream=streamed, **settings) as model:
            assert await run(Agent(name="reader", llm=model, tools=[look_up]), "Go.") == "Done."

    asyncio.run(asyncio.wait_for(main(), 20))
    return sorted(looked_up), server.bodies[1]


@BOTH
@pytest.mark.parametrize("thought", [[], [thinking("Two.")]], ids=["plain", "thoughtful"])
def test_two_calls_with_one_id_are_two_calls_and_one_that_is_repeated_is_one(
    thought: list[dict[str, Any]], streamed: bool
) -> None:
    calls = [tool_use("x", "look_up", word="a"), tool_use("x", "look_up", word="b"), tool_use("x", "look_up", word="a")]
    looked_up, body = agent_after(*thought, *calls, streamed=streamed)
    assert looked_up == ["a", "b"]
    said, told = body["messages"][1]["content"], body["messages"][2]["content"]
    assert said == [*thought, calls[0], {**calls[1], "id": "x_"}]
    results = [(each["tool_use_id"], each["content"][0]["text"]) for each in told]
    assert results == [("x", "A"), ("x_", "B")]


@pytest.mark.parametrize(("field", "odd"), [("id", {}), ("id", [1]), ("id", 7), ("type", {}), ("type", ["tool_use"])])
def test_a_block_whose_id_or_type_is_no_text_cannot_be_read(field: str, odd: object) -> None:
    block = {**tool_use("x", "look_up", word="a"), field: odd}
    with pytest.raises(UnreadableAnswer, match=f"{field} is "):
        read_answer(message(block), "claude", {})


def test_a_call_beside_thoughts_and_its_result_go_back_with_one_id_whatever_form_it_has() -> None:
    _, body = agent_after(thinking("One."), tool_use("call:1/2", "look_up", word="a"), thinking=2_000)
    thought, call = body["messages"][1]["content"]
    assert thought == thinking("One.")
    assert call["id"] == body["messages"][2]["content"][0]["tool_use_id"] != "call:1/2"


def test_an_agent_or_a_call_that_wants_no_thoughts_gets_none_from_a_model_that_thinks() -> None:
    server = says(tool_use("t", "Verdict", mood="good", stars=4))
    ask(server, thinking=2_000, output_mode="tool", call={"reasoning_effort": "none", "output": Verdict})
    assert server.bodies[0]["thinking"] == {"type": "disabled"}
    assert server.bodies[0]["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize("thinking_", [2_000, "adaptive"])
def test_a_turn_that_another_model_began_without_thoughts_goes_on_without_them(thinking_: Any) -> None:
    """With a budget for them that would be refused; where the model decides, it may have called without a thought."""
    server = says(text("Yes."))
    call = ToolCall(id="a", name="f", arguments="{}")
    turn = [Message.user("Hello?"), Message.assistant("", [call]), Message.tool("a", "done")]
    assert ask(server, turn, thinking=thinking_).text == "Yes."
    assert ("thinking" in server.bodies[0]) is (thinking_ == "adaptive")
    ask(server, [Message.user("Hello?")], thinking=thinking_)
    assert "thinking" in server.bodies[1]


def test_a_form_of_all_answers_is_refused_beside_tools_where_it_may_win_over_them() -> None:
    extra = {"output_config": {"format": {"type": "json_schema", "schema": {}}}}
    spec = ToolSpec(name="f")
    for dialect, tools, is_refused in ((None, (spec,), True), (None, (), False), ("Anthropic", (spec,), False)):
        model = AnthropicChat("m", "http://127.0.0.1:1", "k", extra=extra, dialect=dialect)
        request = model.request("q", tools=tools)
        if is_refused:
            with pytest.raises(InvalidRequest, match="beside tools"):
                model.body(request)
        else:
            assert model.body(request)["output_config"] == extra["output_config"]


@pytest.mark.parametrize(
    ("effort", "sent"),
    [
        ("high", {"output_config": {"effort": "high"}}),
        ("minimal", {"output_config": {"effort": "low"}}),
        ("none", {"thinking": {"type": "disabled"}}),
        (None, {}),
    ],
)
def test_how_much_it_shall_think_is_said_in_the_words_of_the_protocol(effort: str | None, sent: dict[str, Any]) -> None:
    server = says(text("Yes."))
    ask(server, reasoning_effort=effort)
    names = ("output_config", "thinking")
    assert {name: server.bodies[0][name] for name in names if name in server.bodies[0]} == sent


def test_an_agent_says_how_much_its_model_shall_think_and_more() -> None:
    server = says(text('{"mood": "good", "stars": 4}'))

    async def main() -> Any:
        async with served(server, temperature=0.1, thinking="adaptive") as model:
            agent = Agent(
                name="judge", llm=model, output=Verdict, reasoning_effort="low", temperature=1.0,
                parallel_tool_calls=False, tools=[Tool(name="f", handler=_nothing)],
            )  # fmt: skip
            return await run(agent, "Well?")

    assert asyncio.run(main()) == Verdict(mood="good", stars=4)
    body = server.bodies[0]
    assert body["temperature"] == 1.0
    assert body["thinking"] == {"type": "adaptive"}
    assert body["output_config"]["effort"] == "low"
    assert body["output_config"]["format"]["type"] == "json_schema"
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


async def _nothing(city: str) -> str:
    """Nothing."""
    return ""


def test_a_model_behind_others_thinks_as_much_as_it_is_told() -> None:
    server = says(text("Yes."))

    async def main() -> str:
        async with served(server, thinking=2_000) as model:
            both = Fallback(model, AnthropicChat("other", api_key="k"))
            return await both.ask("Hello?")

    assert asyncio.run(main()) == "Yes."
    assert server.bodies[0]["thinking"] == {"type": "enabled", "budget_tokens": 2_000}
    assert server.bodies[0]["max_tokens"] == 6_096


def test_a_model_that_writes_less_than_is_asked_for_by_default_is_asked_for_that() -> None:
    for limit_, tokens in ((1_000, 1_000), (64_000, 4_096)):
        model = AnthropicChat("m", api_key="k", max_output=limit_)
        request = model.request("Hello?")
        assert model.body(request)["max_tokens"] == model.estimate(request).output_tokens == tokens


# -- what is made of answers ------------------------------------------------------------------------------------------


@BOTH
def test_an_answer_that_cannot_be_read_is_asked_for_once_more_and_its_usage_counts(streamed: bool) -> None:
    bad = {**message(text("?")), "stop_reason": "tool_use"}
    server = AnthropicServer(lambda _: stream(events(bad)) if streamed else Reply(bad))
    spent: list[Usage] = []

    async def main() -> None:
        policy = RetryPolicy(max_attempts=3)
        async with served(server, stream=streamed, retry=policy) as model, ExecutionState() as state:
            with pytest.raises(UnreadableAnswer):
                await model.ask("Hello?")
            spent.append(state.spent.usage)

    asyncio.run(main())
    assert len(server.bodies) == 2
    assert spent == [Usage(20, 10, requests=2)]


def test_thoughts_without_a_word_are_no_answer() -> None:
    for blocks in ((), (thinking("Hm."),), (text(""), {"type": "redacted_thinking", "data": "x"})):
        with pytest.raises(UnreadableAnswer, match="empty"):
            ask(says(*blocks))


def test_the_usage_is_found_in_an_answer_that_is_damaged_behind_it() -> None:
    usage = {"input_tokens": 7, "cache_read_input_tokens": 20, "output_tokens": 5}
    damaged = json.dumps({"usage": usage, **message(text("Yes."), usage=usage)})[:-20]
    with pytest.raises(IncompleteAnswer) as caught:
        ask(AnthropicServer(lambda _: Reply(damaged)))
    assert caught.value.usage == Usage(27, 5, cached_tokens=20, requests=1)


def answering(reply: Reply) -> AnthropicServer:
    return AnthropicServer(lambda _: reply)


def test_an_answer_that_says_no_usage_is_estimated_and_of_two_reports_the_larger_one_counts() -> None:
    for usage in ({}, {"input_tokens": 0, "output_tokens": 0}):
        used = ask(answering(Reply(message(text("Yes."), usage=usage)))).usage
        assert used.estimates == 1
        assert used.output_tokens > 0
    sound = events(message(text("Yes."), usage={"input_tokens": 70, "output_tokens": 9}))
    sound[-2]["usage"] = {"input_tokens": 0, "output_tokens": 9}
    assert ask(AnthropicServer(answered(sound)), streamed=True).usage == Usage(70, 9, requests=1)


@pytest.mark.parametrize("place", ["usage", "header"])
def test_what_a_proxy_says_about_the_cost_stands_above_the_price(place: str) -> None:
    usage = {"input_tokens": 7, "output_tokens": 5, **({"cost": 0.5} if place == "usage" else {})}
    headers = {"x-litellm-response-cost": "0.5"} if place == "header" else {}
    server = AnthropicServer(lambda _: Reply(message(text("Yes."), usage=usage), headers=headers))
    assert ask(server, price=Price(1.0, 1.0)).usage.cost == 0.5


CUT_OFF = ["max_tokens", "model_context_window_exceeded", "refusal", "pause_turn", None]


@BOTH
@pytest.mark.parametrize("reason", CUT_OFF)
def test_a_tool_call_that_was_cut_off_by_whatever_is_not_made(reason: str | None, streamed: bool) -> None:
    called: list[str] = []

    @tool
    async def drop(folder: str = "all") -> str:
        """Drop it."""
        called.append(folder)
        return "done"

    cut = {**message(tool_use("t", "drop")), "stop_reason": reason}
    server = AnthropicServer(lambda _: stream(events(cut)) if streamed else Reply(cut))

    async def main() -> None:
        async with served(server, stream=streamed) as model:
            await run(Agent(name="a", llm=model, tools=[drop]), "Tidy up.")

    with pytest.raises(ModelError):
        asyncio.run(main())
    assert called == []


def test_the_pieces_of_an_answer_that_comes_to_nothing_are_void() -> None:
    told: list[ChatDelta] = []
    sound = events(message(text("Hello you.")))

    def answering(_: dict[str, Any]) -> Reply:
        return stream(sound if told else sound[:5])

    async def listen(event: ExecutionEvent[Any]) -> None:
        if event.progress is not None:
            told.append(event.progress)

    async def main() -> str:
        async with served(AnthropicServer(answering), stream=True, retry=RetryPolicy(initial_delay=0.0)) as model:
            return await run(lambda: model.ask("Hello?"), subscribers=[listen])

    assert asyncio.run(main()) == "Hello you."
    void = [number for number, each in enumerate(told) if each.void]
    assert len(void) == 1
    assert "".join(each.text for each in told[void[0] :]) == "Hello you."


def always(reply: Reply) -> Callable[[dict[str, Any]], Reply]:
    return lambda _: reply


def test_a_stream_that_breaks_off_counts_as_what_was_read_and_what_was_reserved_to_be_written() -> None:
    begun = events(
        message(text("Hello"), usage={"input_tokens": 70, "cache_read_input_tokens": 30, "output_tokens": 9})
    )
    for reply in (stream(begun[:5]), stream(begun[:5], cut_at=500, length=5_000), stream(begun, hang="body")):
        with pytest.raises(ModelError) as caught:
            ask(AnthropicServer(always(reply)), streamed=True, max_tokens=50, idle_timeout=0.2)
        used = caught.value.usage
        assert used is not None
        assert (used.input_tokens, used.cached_tokens, used.output_tokens, used.estimates) == (100, 30, 50, 1)


def test_a_stream_that_says_nothing_about_usage_and_fails_counts_as_reserved_if_it_had_begun() -> None:
    begun = events(message(text("Hello")))
    begun[0]["message"]["usage"] = {}
    failed = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    for pieces, output in ((begun[:1], None), (begun[:3], 50)):
        with pytest.raises(ModelOverloaded) as caught:
            ask(AnthropicServer(always(stream([*pieces, failed]))), streamed=True, max_tokens=50)
        assert (caught.value.usage and caught.value.usage.output_tokens) == output


def test_an_answer_that_never_came_counts_as_what_was_reserved_and_a_refused_request_as_nothing() -> None:
    with pytest.raises(ModelTimeout) as caught:
        ask(AnthropicServer(lambda _: Reply(hang="headers")), max_tokens=50, idle_timeout=0.2)
    assert caught.value.usage is not None
    assert (caught.value.usage.output_tokens, caught.value.usage.estimates) == (50, 1)
    with pytest.raises(InvalidRequest) as refused:
        ask(AnthropicServer(lambda _: problem(400, "invalid_request_error", "no")))
    assert refused.value.usage is None


def test_what_is_sent_as_the_greatest_length_is_what_budgets_reserve() -> None:
    cases: list[tuple[dict[str, Any], int]] = [({}, 4_096), ({"thinking": 10_000}, 14_096), ({"max_tokens": 100}, 100)]
    for settings, tokens in cases:
        model = AnthropicChat("m", api_key="k", **settings)
        request = model.request("Hello?")
        assert model.body(request)["max_tokens"] == model.estimate(request).output_tokens == tokens


def test_more_of_a_block_that_has_ended_belongs_to_nothing() -> None:
    sound = events(message(text("Hello"), text("you")))
    late = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "!"}}
    with pytest.raises(UnreadableAnswer, match="not open"):
        ask(AnthropicServer(answered([*sound[:-2], late, *sound[-2:]])), streamed=True)


def test_a_request_that_failed_is_made_once_since_there_is_one_layer_of_retries() -> None:
    seen: list[int] = []

    def answering(_: dict[str, Any]) -> Any:
        seen.append(1)
        return problem(529, "overloaded_error") if len(seen) < 3 else message(text("Yes."))

    with pytest.raises(ModelOverloaded):
        ask(AnthropicServer(answering))
    assert len(seen) == 1
    assert ask(AnthropicServer(answering), retry=RetryPolicy(max_attempts=3, initial_delay=0.0)).text == "Yes."


def test_limits_are_told_what_the_headers_say_is_left() -> None:
    told: list[Any] = []

    class Listening(AnthropicChat):
        def honour(self, hint: Any) -> None:
            told.append(hint)

    headers = {
        "anthropic-ratelimit-requests-remaining": "3",
        "anthropic-ratelimit-requests-reset": (datetime.now(UTC) + timedelta(minutes=2)).isoformat(),
    }

    async def main() -> None:
        async with model_server(Reply(message(text("Yes.")), headers=headers)) as running:
            model = Listening(
                model="m", base_url=running.base_url.removesuffix("/v1"), api_key=SecretStr("k"), retry=None
            )
            await model("Hello?")

    asyncio.run(main())
    (hint,) = told
    assert hint.remaining == {"requests": 3.0}
    assert 100 < hint.resets_in["requests"] <= 120


def test_keys_are_kept_out_of_everything_that_people_read() -> None:
    key = "key-0918273645"
    reply = problem(400, "invalid_request_error", f"bad key {key}")

    async def main() -> str:
        async with model_server(reply) as running:
            model = AnthropicChat("m", running.base_url.removesuffix("/v1"), key, retry=None)
            async with ExecutionState(store=MemoryStore()) as state:
                with pytest.raises(ModelError):
                    await model("Hello?")
                return "".join(str(event) for event in state.history)

    shown = asyncio.run(main())
    assert key not in shown
    assert "bad key <secret" in shown
    assert key not in repr(AnthropicChat("m", api_key=key))


def test_without_a_key_a_call_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))

    async def main() -> None:
        await AnthropicChat("m", "http://127.0.0.1:1", retry=None)("Hello?")

    with pytest.raises(AccessDenied, match="ANTHROPIC_API_KEY"):
        asyncio.run(main())


def test_settings_for_which_the_protocol_has_no_form_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no seed"):
        ask(says(text("Yes.")), seed=3)
    with pytest.raises(ValueError, match="1024"):
        AnthropicChat("m", api_key="k", thinking=5)


def test_the_length_of_an_answer_has_room_for_thoughts() -> None:
    server = says(text("Yes."))
    ask(server, thinking=10_000)
    assert server.bodies[0]["max_tokens"] == 14_096


def cut_anywhere(data: bytes, length: int) -> Reply:
    return Reply(data[:length], kind="text/event-stream")


def test_wherever_a_stream_breaks_off_it_is_no_success_and_in_whatever_pieces_it_comes_it_is_the_same() -> None:
    whole = message(thinking("Hm."), text("Hello. \u2028 ü"), tool_use("t", "clock", zone="UTC", deep={"a": [1]}))
    data = stream(events(whole)).data

    async def main() -> None:
        length = 0
        server = AnthropicServer(lambda _: cut_anywhere(data, length))
        async with served(server, stream=True) as model:
            for length in [*range(0, len(data), 23), len(data) - 2, len(data)]:
                is_over = b'"message_stop"}' in data[:length]
                try:
                    found = await model.complete(model.request("Hello?"), _nobody)
                except IncompleteAnswer:
                    assert not is_over, length
                else:
                    assert is_over, length
                    assert found.tool_calls[0].arguments == '{"zone":"UTC","deep":{"a":[1]}}'

    asyncio.run(main())


async def _nobody(_: Any) -> None:
    """Nobody wants the pieces."""


def answered(pieces: list[dict[str, Any]]) -> Callable[[dict[str, Any]], Reply]:
    return lambda _: stream(pieces)


@pytest.mark.parametrize("number", range(12))
def test_a_stream_that_misses_or_repeats_an_event_is_never_another_answer(number: int) -> None:
    whole = message(text("Hello you."), tool_use("t", "clock", zone="UTC"))
    sound = events(whole)
    for broken in (sound[:number] + sound[number + 1 :], sound[: number + 1] + sound[number:]):
        if sound[number]["type"] == "ping" or broken == sound:
            continue
        try:
            found = ask(AnthropicServer(answered(broken)), streamed=True)
        except ModelError:
            continue
        kind = sound[number]["type"]
        is_undetectable = kind == "content_block_delta" or kind in ("message_start", "message_stop", "message_delta")
        assert is_undetectable or (found.text, found.tool_calls[0].arguments) == ("Hello you.", '{"zone":"UTC"}')


def test_the_signature_of_the_test_server_is_verified() -> None:
    server = says(text("Yes."))
    forged = {**thinking("Hm."), "signature": signed("Ha.")}
    said = Message.assistant("Blue.", provider={"anthropic_content": [forged, text("Blue.")]})
    with pytest.raises(InvalidRequest, match="signature"):
        ask(server, [Message.user("Hello?"), said, Message.user("And?")])
