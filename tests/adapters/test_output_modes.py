"""Why answers ended, how they are asked for as objects, and what goes back to the provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

from rh_agents import Agent, ExecutionState, ExecutionStatus, MemoryStore, RetryPolicy, tool
from rh_agents import run as run_workflow
from rh_agents.core.chat import ChatRequest, FinishReason, Message, ToolCall, ToolSpec
from rh_agents.core.errors import (
    AnswerTruncated,
    IncompleteAnswer,
    InvalidRequest,
    ModelError,
    ModelOverloaded,
    PermanentModelError,
)
from rh_agents.core.values.inputs import canonical
from tests.services.model_server import Exchange, Reply, answer, error, model_server, streamed, tool_calls

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")

from rh_agents.llms import OpenAIChat
from rh_agents.llms._finish_reasons import FINISH_REASONS
from rh_agents.llms._openai_request import GRAMMARS
from rh_agents.llms._providers import PROVIDERS

T = TypeVar("T")
Json = dict[str, Any]


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 60))


def asked(reply: Reply | Callable[[Exchange], Reply], **settings: Any) -> tuple[Any, list[Json]]:
    """What comes of one question, and the requests that were sent."""

    async def main() -> tuple[Any, list[Json]]:
        async with model_server(reply) as server:
            model = OpenAIChat("m", base_url=server.base_url, api_key="x", **settings)
            try:
                found: Any = await model("q")
            except ModelError as failure:
                found = failure
            await model.aclose()
            return found, [exchange.body for exchange in server.exchanges]

    return run(main())


# -- why an answer ended ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", [str.lower, str.upper])
@pytest.mark.parametrize("reason", sorted(set(FINISH_REASONS) - {"tool_calls", "tool_use", "function_call"}))
def test_each_word_for_why_an_answer_ended_means_one_thing(reason: str, spelled: Callable[[str], str]) -> None:
    found, requests = asked(answer("Half", finish_reason=spelled(reason)), retry=None)
    if FINISH_REASONS[reason] == "broken off":
        assert isinstance(found, IncompleteAnswer)
        assert found.usage is not None
        assert spelled(reason) in str(found)
        assert found.usage.tokens == 15
    else:
        assert found.finish_reason is FinishReason(FINISH_REASONS[reason])
    assert len(requests) == 1


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_reason_that_nobody_knows_is_quoted_counted_and_not_tried_again(is_streamed: bool) -> None:
    ending = {
        "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "tired"}],
        "usage": {"total_tokens": 5},
    }
    reply = streamed([ending]) if is_streamed else answer("x", finish_reason="tired", usage={"total_tokens": 5})
    found, requests = asked(reply, stream=is_streamed, retry=RetryPolicy(max_attempts=4, initial_delay=0.0))
    assert isinstance(found, PermanentModelError)
    assert type(found) is PermanentModelError
    assert found.usage is not None
    assert "finish_reasons={'tired': \"stop\"}" in str(found)
    assert (len(requests), found.usage.tokens) == (1, 5)


def test_the_model_can_be_told_what_a_reason_means() -> None:
    known = {"tired": "stop", "stop": "length"}
    assert asked(answer("x", finish_reason="tired"), finish_reasons=known)[0].finish_reason is FinishReason.STOP
    assert asked(answer("x", finish_reason="stop"), finish_reasons=known)[0].finish_reason is FinishReason.LENGTH


def test_a_meaning_that_there_is_not_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="broken off"):
        OpenAIChat("m", api_key="x", finish_reasons={"eos": "finished"})


def test_an_error_inside_of_a_choice_is_that_error() -> None:
    whole = answer("Half").body
    whole["choices"][0]["error"] = {"code": 502, "message": "Provider disconnected"}
    ending: Json = {
        "choices": [{"delta": {}, "finish_reason": "error", "error": {"code": 502, "message": "Provider gone"}}]
    }
    for reply, is_streamed in ((Reply(whole), False), (streamed([ending]), True)):
        found, _ = asked(reply, stream=is_streamed, retry=None)
        assert type(found) is ModelOverloaded
        assert "Provider" in str(found)


# -- objects ----------------------------------------------------------------------------------------------------------


class Larger(BaseModel):
    larger: str
    difference: int = 0


@tool
async def population(city: str) -> int:
    """How many people live there."""
    return {"Oslo": 717_710, "Bergen": 291_940}[city]


RIGHT = Larger(larger="Oslo", difference=425_770)
WANTED = (("population", {"city": "Oslo"}), ("population", {"city": "Bergen"}))


def model_of(exchange: Exchange) -> Reply:
    """A model that looks things up, and gives its answer in the way in which it was asked for."""
    body = exchange.body
    names = [each["function"]["name"] for each in body.get("tools", ())]
    if "population" in names and not any(message["role"] == "tool" for message in body["messages"]):
        return tool_calls(*WANTED)
    if "Larger" in names:
        return tool_calls(("Larger", RIGHT.model_dump()))
    return answer(RIGHT.model_dump_json())


def conversed(
    answering: Callable[[Exchange], Reply], tools: Any = (population,), **options: Any
) -> tuple[Any, list[Json]]:
    async def main() -> tuple[Any, list[Json]]:
        async with model_server(answering) as server:
            choice, output = options.pop("tool_choice", None), options.pop("output", Larger)
            model = OpenAIChat("m", base_url=server.base_url, api_key="x", **options)
            agent = Agent(name="a", llm=model, tools=list(tools), output=output, tool_choice=choice)
            found = await run_workflow(agent, "Which is larger?")
            await model.aclose()
            return found, [exchange.body for exchange in server.exchanges]

    return run(main())


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("mode", ["native", "tool", "prompt", None])
@pytest.mark.parametrize("tools", [(population,), ()])
def test_an_agent_answers_with_an_object_in_every_mode_and_is_told_the_schema(
    mode: Any, tools: Any, is_streamed: bool
) -> None:
    def answering(exchange: Exchange) -> Reply:
        whole = model_of(exchange)
        if not exchange.body.get("stream"):
            return whole
        choice = whole.body["choices"][0]
        message = choice["message"]
        calls = [{**each, "index": number} for number, each in enumerate(message.get("tool_calls", ()))]
        delta = {"content": message["content"], "tool_calls": calls}
        return streamed([{"choices": [{"index": 0, "delta": delta, "finish_reason": choice["finish_reason"]}]}])

    found, requests = conversed(answering, tools, output_mode=mode, stream=is_streamed)
    assert found == RIGHT
    assert len(requests) == (2 if tools else 1)
    for body in requests:
        assert "difference" in json.dumps(body)
        assert ("response_format" in body) == (mode == "native" or (mode is None and not tools))
    choice = requests[0].get("tool_choice")
    assert choice == ({"type": "function", "function": {"name": "Larger"}} if mode == "tool" and not tools else None)


@pytest.mark.parametrize("choice", [None, "required", "none"])
def test_a_server_that_refuses_a_schema_beside_tools_gets_none(choice: str | None) -> None:
    def refusing(exchange: Exchange) -> Reply:
        body = exchange.body
        if body.get("tools") and body.get("response_format"):
            return error(400, "json mode cannot be combined with tool/function calling")
        return answer(RIGHT.model_dump_json()) if body.get("tool_choice") == "none" else model_of(exchange)

    assert conversed(refusing, tool_choice=choice)[0] == RIGHT


def test_a_grammar_that_would_win_over_the_tools_is_not_asked_for() -> None:
    def grammar(exchange: Exchange) -> Reply:
        return answer('{"larger": "Bergen"}') if exchange.body.get("response_format") else model_of(exchange)

    assert conversed(grammar)[0] == RIGHT


JSON_MODE = {"type": "json_object"}


@pytest.mark.parametrize("output", [Larger, None])
@pytest.mark.parametrize("field", GRAMMARS)
def test_a_grammar_of_the_programs_own_that_would_win_over_the_tools_is_refused_with_the_remedy(
    field: str, output: Any
) -> None:
    with pytest.raises(InvalidRequest, match=rf'{field} in extra= beside tools.*output=.*output_mode="native"'):
        conversed(model_of, output=output, extra={field: JSON_MODE})


def test_a_grammar_of_the_programs_own_is_sent_where_it_keeps_the_model_from_nothing() -> None:
    def sent(*tools: Any, choice: str | None = None, **settings: Any) -> Any:
        model = OpenAIChat("m", base_url="http://127.0.0.1/v1", api_key="x", extra={"response_format": JSON_MODE})
        model = model.model_copy(update=settings)
        return model.body(model.request("q", tools=tools, tool_choice=choice))["response_format"]

    assert sent() == JSON_MODE
    assert sent(population, choice="none") == JSON_MODE
    assert sent(population, output_mode="native") == JSON_MODE
    assert sent(population, dialect="OpenAI") == JSON_MODE
    for harmless in (None, {"type": "text"}):
        assert sent(population, extra={"response_format": harmless}) == harmless


def test_an_answer_beside_other_calls_is_a_guess_and_not_taken() -> None:
    def hasty(exchange: Exchange) -> Reply:
        if exchange.number == 0:
            return tool_calls(("Larger", {"larger": "Bergen"}), *WANTED)
        return model_of(exchange)

    found, requests = conversed(hasty)
    assert found == RIGHT
    assert [each["function"]["name"] for each in requests[1]["messages"][1]["tool_calls"]] == ["population"] * 2


def test_an_answer_that_is_cut_off_in_a_tool_call_is_truncated() -> None:
    half = [{"id": "a", "type": "function", "function": {"name": "Larger", "arguments": '{"larger": "Os'}}]
    with pytest.raises(AnswerTruncated):
        conversed(lambda _: answer(None, tool_calls=half, finish_reason="length"))


def test_the_tool_for_the_answer_has_a_name_of_its_own() -> None:
    @tool(name="Larger")
    async def other(city: str) -> str:
        return city

    _, (body,) = conversed(lambda _: answer(RIGHT.model_dump_json()), (other,))
    assert [each["function"]["name"] for each in body["tools"]] == ["Larger", "answer_Larger"]


def test_the_pieces_of_an_answer_in_a_tool_call_are_heard_as_text() -> None:
    async def main() -> str:
        heard: list[str] = []
        pieces: list[Json] = [
            {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "Larger", "arguments": '{"larger"'}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": ': "Oslo"}'}}]},
        ]
        chunks: list[Json] = [{"choices": [{"index": 0, "delta": piece, "finish_reason": None}]} for piece in pieces]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
        async with model_server(streamed(chunks)) as server, ExecutionState() as state:

            async def listen(event: Any) -> None:
                if event.execution_status is ExecutionStatus.PROGRESS:
                    heard.append(event.progress.text)

            state.event_bus.subscribe(listen)
            model = OpenAIChat("m", base_url=server.base_url, api_key="x", stream=True, output_mode="tool")
            assert await model.ask("q", output=Larger) == Larger(larger="Oslo")
            await model.aclose()
        return "".join(heard)

    assert run(main()) == '{"larger": "Oslo"}'


def test_a_strict_schema_is_sent_by_choice() -> None:
    _, (body,) = conversed(model_of, (), output_mode="native", strict=True)
    sent = body["response_format"]["json_schema"]
    assert (sent["strict"], sent["schema"]["required"]) == (True, ["larger", "difference"])
    _, (body,) = conversed(model_of, (), output_mode="tool", strict=True)
    assert body["tools"][0]["function"]["strict"] is True
    _, (body,) = conversed(model_of, (), output_mode="native")
    assert "strict" not in body["response_format"]["json_schema"]


def test_the_way_of_asking_is_no_part_of_the_key() -> None:
    def key(**settings: Any) -> bytes:
        call = OpenAIChat("m", api_key="x", **settings)("q", output=Larger)
        call.discard()
        return call.canonical_input().whole()

    assert key() == key(output_mode="tool") == key(strict=True, output_mode="prompt", finish_reasons={"eos": "stop"})


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.name)
def test_every_provider_is_told_the_schema_and_gets_no_grammar_beside_tools_but_where_that_works(provider: Any) -> None:
    model = OpenAIChat("m", base_url="http://127.0.0.1/v1", api_key="x", dialect=provider.name)
    spec = ToolSpec(name="f")
    schema = {"type": "object", "properties": {"zebra": {"type": "string"}}}
    for tools in ((), (spec,)):
        request = ChatRequest(
            model="m", messages=(Message.user("q"),), tools=tools, output_schema=schema, output_name="z"
        )
        body = model.body(request)
        assert "zebra" in json.dumps(body)
        if tools:
            assert ("response_format" in body) == (provider.name in ("OpenAI", "Azure"))


# -- what goes back ---------------------------------------------------------------------------------------------------

SIGNED = {"google": {"thought_signature": "S"}}
DETAILS = [{"type": "reasoning.text", "text": "h", "index": 0}, {"type": "reasoning.text", "text": "m", "index": 0},
           {"type": "reasoning.text", "text": "", "signature": "s", "index": 0},
           {"type": "reasoning.encrypted", "data": "xyz", "index": 1}]  # fmt: skip
JOINED = [{"type": "reasoning.text", "text": "hm", "signature": "s", "index": 0}, DETAILS[3]]


def thinking(exchange: Exchange) -> Reply:
    """Thinks, wants a tool, and refuses to go on without its thoughts."""
    body = exchange.body
    calls = [{"id": "a", "type": "function", "function": {"name": "population", "arguments": '{"city": "Oslo"}'},
              "extra_content": SIGNED}]  # fmt: skip
    if len(body["messages"]) == 1:
        thoughts = {"reasoning_content": "hm", "reasoning_details": JOINED}
        if not body.get("stream"):
            return answer("", tool_calls=calls, finish_reason="tool_calls", **thoughts)
        deltas: list[Json] = [{"reasoning_content": "h"}, {"reasoning_content": "m"}]
        deltas += [{"reasoning_details": [each]} for each in DETAILS]
        deltas.append({"tool_calls": [{**calls[0], "index": 0}]})
        pieces = [{"choices": [{"index": 0, "delta": each, "finish_reason": None}]} for each in deltas]
        return streamed([*pieces, {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}])
    said = body["messages"][1]
    if said.get("reasoning_content") != "hm" or said["tool_calls"][0].get("extra_content") != SIGNED:
        return error(400, "The `reasoning_content` in the thinking mode must be passed back to the API.")
    done = answer("717710")
    if not body.get("stream"):
        return done
    return streamed([{"choices": [{"index": 0, "delta": {"content": "717710"}, "finish_reason": "stop"}]}])


@pytest.mark.parametrize("is_streamed", [True, False])
def test_the_provider_gets_back_what_it_wants_back_also_after_a_restart(is_streamed: bool) -> None:
    async def main() -> list[Json]:
        store = MemoryStore()
        async with model_server(thinking) as server:
            for _ in range(2):
                model = OpenAIChat("m", base_url=server.base_url, api_key="x", stream=is_streamed)
                agent = Agent(name="a", llm=model, tools=[population])
                assert await run_workflow(agent, "q", store=store, run_id="r") == "717710"
                await model.aclose()
            return [exchange.body for exchange in server.exchanges]

    requests = run(main())
    assert len(requests) == 2
    said = requests[1]["messages"][1]
    assert said["reasoning_details"] == JOINED


def test_thoughts_can_be_read_and_are_no_part_of_the_text() -> None:
    found, _ = asked(answer("Yes.", reasoning="hm", reasoning_content="hm"))
    assert (found.text, found.reasoning) == ("Yes.", "hm")


def test_another_dialect_gets_nothing_that_it_did_not_send() -> None:
    call = ToolCall(id="a", name="f", arguments="{}", provider={"extra_content": SIGNED})
    history = [Message.user("q"), Message.assistant("", [call], {"reasoning_content": "hm", "thinking": "x"})]
    for name, fields in {"OpenAI": set(), "DeepSeek": {"reasoning_content"}, "Gemini": set(), "Mistral": set()}.items():
        model = OpenAIChat("m", base_url="http://127.0.0.1/v1", api_key="x", dialect=name)
        said = model.body(model.request(history))["messages"][1]
        assert set(said) - {"role", "content", "tool_calls"} == fields
        assert ("extra_content" in said["tool_calls"][0]) == (name == "Gemini")


def test_thoughts_of_answers_without_calls_are_not_sent_back() -> None:
    """Some providers refuse them there, and none wants them."""
    model = OpenAIChat("m", base_url="http://127.0.0.1/v1", api_key="x", dialect="DeepSeek")
    history = [Message.user("q"), Message.assistant("a", [], {"reasoning_content": "hm"}), Message.user("r")]
    assert "reasoning_content" not in json.dumps(model.body(model.request(history)))
    assert canonical(model.request(history)) != canonical(
        model.request([history[0], Message.assistant("a"), history[2]])
    )
