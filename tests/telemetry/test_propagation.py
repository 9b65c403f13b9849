"""Traces go on where other processes and servers do the work."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rh_agents import ExecutionEvent, ExecutionState, MemoryStore

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from opentelemetry import baggage
from opentelemetry.context import attach
from opentelemetry.trace import format_span_id, format_trace_id

from rh_agents.telemetry.otel import OTel
from tests.services.anthropic_server import AnthropicServer, message, text
from tests.services.model_server import answer, model_server
from tests.telemetry.kit import Spans, context_of
from tests.telemetry.work import in_a_process, step


def test_a_function_in_a_worker_process_finds_its_span_there() -> None:
    spans = Spans()

    async def main() -> tuple[str, str, str]:
        attach(baggage.set_baggage("user", "ann"))
        async with ExecutionState(tracing=OTel(spans.provider, detail="calls")):
            return await in_a_process(1)

    current, told, user = asyncio.run(main())
    span = context_of(spans.one("execute_tool in_a_process"))
    assert current == format_span_id(span.span_id)
    assert user == "ann"
    assert told.split("-")[1:3] == [format_trace_id(span.trace_id), format_span_id(span.span_id)]


def test_shards_are_below_the_span_of_their_group(tmp_path: Path) -> None:
    file = tmp_path / "spans"
    command = [sys.executable, "-m", "tests.telemetry.work", str(tmp_path / "runs.db")]
    environment = {**os.environ, "TEST_SPANS": str(file)}
    subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, check=True, timeout=120)
    lines = [line.split(" ", 3) for line in file.read_text().splitlines()]
    group = next(line for line in lines if line[3] == "group items" and line[2] != "-")
    runs = [line for line in lines if line[3] == "invoke_workflow shard"]
    assert len([line for line in lines if line[3] == "execute_tool step"]) == 6
    assert {line[0] for line in lines} == {group[0]}
    assert len(runs) == 2
    ids = {line[1]: line for line in lines}
    assert {ids[line[2]][3] for line in runs} == {"group items"}


def test_a_shard_that_is_executed_again_is_below_the_group_that_wants_it_then() -> None:
    spans, store = Spans(), MemoryStore()
    driver = spans.provider.get_tracer("driver")

    async def start(number: int) -> None:
        with driver.start_as_current_span(f"group of start {number}"):
            state = ExecutionState(store=store, run_id="monday/1", workflow="shard", tracing=OTel(spans.provider))
            state.parts.identity = "monday"  # as `rh_agents.sharding.executing` does it
            async with state:
                await step(number)

    asyncio.run(start(1))
    asyncio.run(start(2))
    assert spans.tree() == [
        "group of start 1",
        ["invoke_workflow shard", ["execute_tool step"]],
        "group of start 2",
        ["invoke_workflow shard", ["execute_tool step"]],
    ]


def model_of(kind: str, url: str) -> Any:
    llms = pytest.importorskip("rh_agents.llms")
    if kind == "openai":
        pytest.importorskip("openai")
        return llms.OpenAIChat("stub", url, "key")
    pytest.importorskip("anthropic")
    return llms.AnthropicChat("claude-test", url.removesuffix("/v1"), "k", dialect="Anthropic")


@pytest.mark.parametrize(
    ("kind", "answering"), [("openai", answer("hi")), ("anthropic", AnthropicServer(lambda _: message(text("hi"))))]
)
def test_requests_to_models_carry_the_span_of_their_question(kind: str, answering: Any) -> None:
    spans = Spans()

    async def main() -> str:
        async with model_server(answering) as server:
            async with model_of(kind, server.base_url) as model, ExecutionState(tracing=OTel(spans.provider)):
                await model("Hello?")
            return server.exchanges[0].headers["traceparent"]

    told = asyncio.run(main())
    (chat,) = [span for span in spans.all if span.name.startswith("chat")]
    (attempt,) = spans.children(chat)
    assert told.split("-")[1:3] == [
        format_trace_id(context_of(chat).trace_id),
        format_span_id(context_of(attempt).span_id),
    ]
    assert (chat.attributes or {})["gen_ai.usage.output_tokens"]


def test_tools_of_mcp_servers_get_the_trace_with_their_call() -> None:
    pytest.importorskip("mcp")
    from mcp.server.lowlevel import Server  # noqa: PLC0415 - an extra
    from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool  # noqa: PLC0415 - an extra

    from rh_agents.tools import mcp_tools  # noqa: PLC0415 - an extra

    spans, seen = Spans(), []

    async def listed(*_: Any) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="look", input_schema={"type": "object"})])

    async def called(_: Any, params: Any) -> CallToolResult:
        seen.append(dict(params.meta or {})["traceparent"])
        return CallToolResult(content=[TextContent(type="text", text="ok")])

    async def main() -> None:
        server: Any = Server("seen", on_list_tools=listed, on_call_tool=called)
        async with mcp_tools(server) as (look,), ExecutionState(tracing=OTel(spans.provider)) as state:
            assert (await ExecutionEvent(actor=look)({}, None, state)).ok

    asyncio.run(main())
    call = spans.one("execute_tool look")
    assert [each.split("-")[1] for each in seen] == [format_trace_id(context_of(call).trace_id)]
