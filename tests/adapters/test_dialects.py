"""A whole agent turn through the dialect of every provider: what is sent is checked, not only what comes of answers.

The turn: a question, two tool calls side by side, their results, the answer; streamed and not, as text and as object.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")
pytest.importorskip("anthropic", reason="anthropic is not installed: pip install 'rh_agents[anthropic]'")

from rh_agents import Price, Usage
from rh_agents.core.chat import ChatResponse, ImagePart, Message, TextPart, ToolCall, ToolSpec
from rh_agents.core.chat.schema import AnswerType
from rh_agents.core.errors import (
    AnswerTruncated,
    IncompleteAnswer,
    ModelError,
    ModelOverloaded,
    ModelRefused,
    UnreadableAnswer,
)
from rh_agents.llms import OpenAIChat
from tests.services.dialects import llama_cpp, lm_studio, openrouter
from tests.services.dialects.all_of_them import DIALECTS
from tests.services.dialects.kit import ANSWER, CITIES, REASON, Dialect, Says, Wanted, play
from tests.services.dialects.table import ADDRESSES, PAGE, PROVIDERS, addresses, marked, table
from tests.services.dialects.turn import Larger, model_of, run, turn
from tests.services.model_server import Exchange, Reply, model_server

ALL = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
STREAMED = pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
WANTED = Wanted("population", {"city": "Oslo"})
MEANINGS: dict[str, type[str | ModelError]] = {
    "stop": str,
    "tool_calls": ModelError,  # there are none in it
    "length": AnswerTruncated,
    "content_filter": ModelRefused,
    "broken": ModelError,
}


def asked(dialect: Dialect, says: Says, *, is_streamed: bool, **settings: Any) -> ChatResponse:
    """What comes of one answer."""
    reply = Reply(says.stream, kind="text/event-stream") if is_streamed else Reply(says.whole)

    async def main() -> ChatResponse:
        async with model_server(reply) as server, model_of(dialect, server, stream=is_streamed, **settings) as model:
            return await model("Hello?")

    return run(main())


# -- what is sent -----------------------------------------------------------------------------------------------------


@ALL
@STREAMED
@pytest.mark.parametrize("output", [None, Larger], ids=["text", "object"])
def test_a_request_in_a_batch_is_the_one_that_is_sent_alone(dialect: Dialect, is_streamed: bool, output: Any) -> None:
    """A message of the user follows an image that a tool returned, which Mistral takes only with one in between."""
    calls = [ToolCall(id="abcdefgh1", name="population", arguments='{"city": "Oslo"}')]
    said = [
        Message.user("Which is larger?"),
        Message.assistant("", calls, {"reasoning_content": REASON}),
        Message.tool("abcdefgh1", (TextPart(text="717,710"), ImagePart.from_bytes(b"dot"))),
        Message.user("And now?"),
    ]
    settings: dict[str, Any] = {**dialect.sampling, "max_tokens": 100}
    answer = None if output is None else AnswerType(output)

    async def main() -> None:
        async with (
            model_server(play(dialect)) as server,
            model_of(dialect, server, stream=is_streamed, **settings) as model,
        ):
            request = model.request(said, tools=[ToolSpec(name="population")], answer=answer)
            await model(request)
            api = cast("Any", model).batch_api()
            assert (api is None) is (dialect.name == "Azure")
            alone = server.exchanges[0].body
            assert alone.pop("stream", False) is is_streamed
            alone.pop("stream_options", None)
            in_batch = model.body if api is None else api.body
            assert json.loads(json.dumps(in_batch(request))) == alone
            roles = [message["role"] for message in dialect.asks(alone)["messages"]]
            assert (("tool", "user") in pairwise(roles)) is dialect.user_after_tool

    run(main())


@ALL
@STREAMED
def test_a_turn_sends_what_the_provider_documents_and_comes_to_its_answer(dialect: Dialect, is_streamed: bool) -> None:
    settings: dict[str, Any] = {**dialect.sampling, "max_tokens": 100, "price": Price(0, 0)}
    made = turn(dialect, is_streamed=is_streamed, tool_choice=dialect.tool_choice, **settings)
    assert made.value == ANSWER
    assert sorted(made.called) == sorted(CITIES)
    first, second = made.bodies
    for body in (first, second):
        assert set(body) <= dialect.fields | dialect.ignored
        assert body[dialect.length_field] == 100
        assert body["model"] == dialect.model
        assert body.get("stream", False) is is_streamed
    assert dialect.asks(first)["tool_choice"] == dialect.tool_choice
    name, value = dialect.key_header
    assert made.exchanges[0].headers[name] == value
    assert made.exchanges[0].path.endswith(dialect.path)
    said, *results = dialect.asks(second)["messages"][1:]
    assert set(said) <= dialect.assistant_fields
    calls = {call["id"]: call["function"] for call in said["tool_calls"]}
    assert len(calls) == len(CITIES)
    for result in results:
        city = json.loads(calls[result["tool_call_id"]]["arguments"])["city"]
        assert json.loads(result["content"]) == CITIES[city]
    expected = sum((says.used(is_streamed) for says in (dialect.calls([WANTED]), dialect.says(ANSWER))), Usage())
    assert replace(made.spent, cost=0.0) == replace(expected, cost=0.0)
    assert made.spent.cost == pytest.approx(expected.cost)


@ALL
@STREAMED
def test_an_object_beside_tools_is_what_the_tools_said_and_not_invented(dialect: Dialect, is_streamed: bool) -> None:
    made = turn(dialect, is_streamed=is_streamed, output=Larger)
    assert made.value == Larger(larger="Oslo", difference=425_770)
    assert sorted(made.called) == sorted(CITIES)
    for body in made.bodies:
        assert set(body) <= dialect.fields | dialect.ignored
        seen = dialect.asks(body)
        assert dialect.output == "native" or not (seen.get("response_format") and seen.get("tools"))
    assert "difference" in json.dumps(made.bodies[-1])  # the model was told what is wanted, one way or another


@ALL
def test_an_object_without_tools_is_asked_for_in_a_way_that_the_provider_knows(dialect: Dialect) -> None:
    async def main() -> tuple[Larger, dict[str, Any]]:
        async with model_server(play(dialect)) as server, model_of(dialect, server) as model:
            value = await model.ask("Which is larger, Oslo or Bergen?", output=Larger)
            return value, dialect.asks(server.exchanges[0].body)

    value, body = run(main())
    assert value == Larger(larger="Oslo", difference=425_770)
    kind = (body.get("response_format") or {}).get("type")
    assert kind != "json_schema" or dialect.output != "unknown"
    assert "difference" in json.dumps(body)


@ALL
@STREAMED
def test_what_the_provider_wants_back_it_gets_back_and_nothing_else(dialect: Dialect, is_streamed: bool) -> None:
    """The server refuses a conversation without it, and strict ones refuse fields that they do not know."""
    (_, second) = turn(dialect, is_streamed=is_streamed).bodies
    said = dialect.asks(second)["messages"][1]
    sent = dialect.tells(dialect.calls([Wanted("population", {"city": city}) for city in CITIES]).whole)
    for name in set(said) - {"role", "content", "tool_calls"}:
        assert said[name] == sent[name]
    for mine, theirs in zip(said["tool_calls"], sent["tool_calls"], strict=True):
        assert mine["id"] == theirs["id"]
        for name in set(mine) - {"id", "type", "function"}:
            assert mine[name] == theirs[name]


@ALL
def test_images_that_tools_show_are_sent_in_an_order_of_messages_that_the_provider_takes(dialect: Dialect) -> None:
    made = turn(dialect, shows=ImagePart.from_bytes(b"png"))
    assert made.value == ANSWER
    messages = dialect.asks(made.bodies[-1])["messages"]
    assert json.dumps(messages).count("data:image/png;base64,") == len(CITIES)
    in_results = [not isinstance(each["content"], str) for each in messages if each["role"] == "tool"]
    assert in_results == [dialect.images_in_results] * len(CITIES)


@ALL
def test_a_conversation_of_another_provider_is_taken_with_its_ids(dialect: Dialect) -> None:
    """Such as those of vLLM, which are longer than OpenAI takes, and contain what Mistral does not."""
    calls = [
        ToolCall(id=f"chatcmpl-tool-{number:032}", name="population", arguments=json.dumps({"city": city}))
        for number, city in enumerate(CITIES)
    ]
    if dialect.name == "DeepSeek":  # it wants thoughts back that nobody has
        return
    results = [Message.tool(call.id, "1") for call in calls]
    talk = [Message.user("Which is larger?"), Message.assistant("", calls), *results]

    async def main() -> list[dict[str, Any]]:
        async with model_server(play(dialect)) as server, model_of(dialect, server) as model:
            assert await model.ask(talk) == ANSWER
            return list(dialect.asks(server.exchanges[0].body)["messages"])

    _, said, *told = run(main())
    assert [call["id"] for call in said["tool_calls"]] == [each["tool_call_id"] for each in told]
    assert len({each["tool_call_id"] for each in told}) == len(CITIES)


# -- what is read -----------------------------------------------------------------------------------------------------


@ALL
@STREAMED
def test_thoughts_are_read_and_are_no_part_of_the_text(dialect: Dialect, is_streamed: bool) -> None:
    says = dialect.says(ANSWER)
    response = asked(dialect, says, is_streamed=is_streamed)
    assert response.text == ANSWER
    assert response.reasoning == says.reasoning
    assert says.reasoning in ("", REASON)


@ALL
@STREAMED
def test_why_it_ended_is_what_the_provider_means(dialect: Dialect, is_streamed: bool) -> None:
    now = ""

    def answering(exchange: Exchange) -> Reply:
        says = dialect.says("Half of it", now)
        return Reply(says.stream, kind="text/event-stream") if is_streamed else Reply(says.whole)

    async def main() -> None:
        nonlocal now
        async with model_server(answering) as server, model_of(dialect, server, stream=is_streamed) as model:
            for now, meaning in dialect.endings.items():
                try:
                    outcome: Any = await model.ask("Hello?")
                except ModelError as error:
                    outcome = error
                assert isinstance(outcome, MEANINGS[meaning]), (now, outcome)

    run(main())


def test_an_error_in_the_last_piece_of_openrouter_is_told_in_its_words() -> None:
    says = replace(DIALECTS["OpenRouter"].says(ANSWER), stream=openrouter.broken_off("Half of it"))
    with pytest.raises(ModelError, match="Provider disconnected"):
        asked(DIALECTS["OpenRouter"], says, is_streamed=True)


def test_an_error_event_of_lm_studio_is_told_in_its_words() -> None:
    says = replace(DIALECTS["LM Studio"].says(ANSWER), stream=lm_studio.fails_in_the_stream("The model has crashed."))
    with pytest.raises(ModelError, match="has crashed"):
        asked(DIALECTS["LM Studio"], says, is_streamed=True)


def test_a_call_that_llama_cpp_cannot_read_itself_is_not_made() -> None:
    says = replace(DIALECTS["llama.cpp"].says(ANSWER), stream=llama_cpp.fails_in_a_call())
    with pytest.raises((ModelOverloaded, IncompleteAnswer), match="Invalid diff"):
        asked(DIALECTS["llama.cpp"], says, is_streamed=True)


def test_an_error_that_groq_tells_beside_the_answer_is_an_error() -> None:
    stream = DIALECTS["Groq"].says(ANSWER).stream
    late = stream.replace(b'"x_groq": {"id": "req_01", "usage"', b'"x_groq": {"error": "over capacity", "usage"')
    assert late != stream
    with pytest.raises(ModelError, match="over capacity"):
        asked(DIALECTS["Groq"], replace(DIALECTS["Groq"].says(ANSWER), stream=late), is_streamed=True)


def test_two_calls_with_the_same_id_are_two_and_one_that_is_said_again_is_one() -> None:
    """Gemini gave all calls of an answer the same id; other servers send a call once more when it is whole."""
    gemini = DIALECTS["Gemini"]
    wanted = [Wanted("population", {"city": city}) for city in CITIES]
    one_id = replace(gemini.calls(wanted), stream=gemini.calls(wanted).stream.replace(b"call-1", b"call-0"))
    calls = asked(gemini, one_id, is_streamed=True).tool_calls
    assert [json.loads(call.arguments)["city"] for call in calls] == list(CITIES)
    first, second, *rest = gemini.calls(wanted).stream.split(b"\n\n")
    said_again = replace(gemini.calls(wanted), stream=b"\n\n".join([first, second, second, first, *rest]))
    calls = asked(gemini, said_again, is_streamed=True).tool_calls
    assert [json.loads(call.arguments)["city"] for call in calls] == list(CITIES)


def test_where_the_pieces_of_two_calls_were_mixed_none_is_made() -> None:
    """What one call has too much, another one lacks: it would be made with half of its arguments."""
    openai = DIALECTS["OpenAI"]
    says = openai.calls([Wanted("population", {"city": city}) for city in CITIES])
    mixed = says.stream.replace(
        b'{"index": 1, "function": {"arguments": "rgen"}}', b'{"index": 0, "function": {"arguments": "rgen"}}'
    )
    assert mixed != says.stream
    with pytest.raises(UnreadableAnswer, match="mixed"):
        asked(openai, replace(says, stream=mixed), is_streamed=True)


def test_a_field_to_give_back_that_changes_its_kind_is_an_answer_that_cannot_be_read() -> None:
    says = DIALECTS["DeepSeek"].says(ANSWER)
    for odd in (b'["x"]', b'{"a": 1}'):
        changed = says.stream.replace(b'"reasoning_content": "I need bo"', b'"reasoning_content": ' + odd)
        assert changed != says.stream
        with pytest.raises(UnreadableAnswer, match="reasoning_content"):
            asked(DIALECTS["DeepSeek"], replace(says, stream=changed), is_streamed=True)


# -- whose dialect it is ----------------------------------------------------------------------------------------------


@ALL
def test_a_dialect_belongs_to_a_host_or_is_named(dialect: Dialect) -> None:
    by_host = OpenAIChat("m", base_url=dialect.base_url, api_key="key").provider.name
    assert by_host in (dialect.name, "unknown")
    assert by_host == dialect.name or "127.0.0.1" in dialect.base_url
    named = OpenAIChat("m", base_url="https://proxy.example/v1", api_key="key", dialect=dialect.name.upper())
    assert named.provider.name == dialect.name


def test_a_dialect_that_nobody_speaks_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ValueError, match=r"klingon.*OpenAI.*LM Studio"):
        OpenAIChat("m", api_key="key", dialect="klingon")


@pytest.mark.parametrize(("name", "made"), [(PROVIDERS, table), (ADDRESSES, addresses)], ids=[PROVIDERS, ADDRESSES])
def test_the_tables_in_the_documentation_are_what_is_sent_and_counted(name: str, made: Callable[[], str]) -> None:
    """If they are not: python -m tests.services.dialects.table."""
    _, written, _ = marked(PAGE.read_text(encoding="utf-8"), name)
    assert written == made()
