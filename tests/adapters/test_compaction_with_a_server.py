"""An agent whose conversation a server refuses because of its length goes on with a shorter one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rh_agents import Agent, MemoryStore, Price, run, tool
from rh_agents.core.errors import ContextTooLong
from rh_agents.policies import ClearToolResults, Compaction, DropTurns, Summarize
from tests.services.model_server import Exchange, Reply, answer, error, model_server, tool_calls

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")

from rh_agents.llms import OpenAIChat

LIMIT = 4_000
"""Bytes that the server takes in messages."""


@tool
async def read(page: int) -> str:
    return f"page {page}: " + "word " * 150


def size_of(exchange: Exchange) -> int:
    return len(json.dumps(exchange.body["messages"]))


def served(exchange: Exchange) -> Reply:
    """Reads six pages; refuses what is too long in OpenAI's words; checks that calls and results are paired."""
    messages: list[dict[str, Any]] = exchange.body["messages"]
    called: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in called:
                return error(400, "messages with role 'tool' must be a response to a preceding message with tool_calls")
            called.remove(message["tool_call_id"])
        called |= {call["id"] for call in message.get("tool_calls", ())}
    if size_of(exchange) > LIMIT:
        return error(400, f"This model's maximum context length is {LIMIT} tokens.", "context_length_exceeded")
    usage = {"prompt_tokens": size_of(exchange) // 4, "completion_tokens": 5}
    if "You shorten" in messages[0]["content"]:
        return answer("Pages were read.", usage=usage)
    pages = [int(each["content"].split()[1][:-1]) for each in messages if str(each.get("content")).startswith("page ")]
    if max(pages, default=0) == 6:
        return answer("Done.", usage=usage)
    reply = tool_calls(("read", {"page": max(pages, default=0) + 1}))
    reply.body["choices"][0]["message"]["tool_calls"][0]["id"] = f"call_{max(pages, default=0)}"
    reply.body["usage"] = usage
    return reply


@pytest.mark.parametrize(
    "compact",
    [
        Compaction(trigger=None, keep=2),
        Compaction(trigger=800, keep=2),
        Compaction(ClearToolResults(), trigger=None, keep=2),
        Compaction(DropTurns(), trigger=None, keep=2),
    ],
    ids=["refused", "in time", "cleared", "dropped"],
)
def test_an_agent_goes_on_with_a_shorter_conversation_and_a_second_run_asks_nothing(
    compact: Compaction,
) -> None:
    async def main() -> list[Exchange]:
        store = MemoryStore()
        async with model_server(served) as server:
            price = Price(input=1.0, output=1.0)
            model = OpenAIChat("stub", server.base_url, "key", endpoint="stub", price=price)
            reader = Agent(name="reader", llm=model, tools=[read], compact=compact, max_turns=20)
            assert await run(reader, "Read all.", store=store, run_id="r") == "Done."
            asked = len(server.exchanges)
            assert await run(reader, "Read all.", store=store, run_id="r") == "Done."
            assert len(server.exchanges) == asked
            return server.exchanges

    exchanges = asyncio.run(asyncio.wait_for(main(), 60))
    refused = sum(size_of(exchange) > LIMIT for exchange in exchanges)
    assert refused == 0 if compact.trigger else refused >= 1
    assert all(exchange.body["messages"][0]["content"].startswith(("Read all.", "You")) for exchange in exchanges)
    summaries = sum("You shorten" in exchange.body["messages"][0]["content"] for exchange in exchanges)
    assert (summaries > 0) is isinstance(compact.by, Summarize)


def test_what_the_server_does_not_take_at_all_is_told_with_its_words() -> None:
    async def main() -> None:
        async with model_server(served) as server:
            model = OpenAIChat("stub", server.base_url, "key")
            reader = Agent(name="reader", llm=model, tools=[read], compact=Compaction(trigger=None))
            await run(reader, "Read all. " * LIMIT)

    with pytest.raises(ContextTooLong, match=r"^reader: the conversation cannot be .* maximum context"):
        asyncio.run(asyncio.wait_for(main(), 60))
