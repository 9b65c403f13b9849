"""LM Studio: ids that are numbers, errors that are a text, and errors in a stream as events of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rh_agents import Usage
from tests.services.dialects.kit import COMMON, REASON, Dialect, Says, Wanted, in_pieces, lines, recorded
from tests.services.model_server import Reply

_ABOUT = {"id": "chatcmpl-lm", "created": 1_764_000_000, "model": "qwen3-8b", "system_fingerprint": "qwen3-8b"}
_USAGE = {"prompt_tokens": 82, "completion_tokens": 17, "total_tokens": 99}
_COUNTED = Usage(82, 17, 0, 0, 1)


def says(text: str, finish: str | None = "stop") -> Says:
    """The role stands in every piece."""
    deltas = [{"role": "assistant", "reasoning_content": piece} for piece in in_pieces(REASON, 9)]
    deltas += [{"role": "assistant", "content": piece} for piece in in_pieces(text)]
    message = {"content": text, "reasoning_content": REASON, "tool_calls": []}
    return recorded(
        _ABOUT, message, deltas, finish, _USAGE, _COUNTED, choice={"logprobs": None}, reasoning=REASON, role=False
    )


def calls(wanted: Sequence[Wanted]) -> Says:
    """As OpenAI does."""
    made = [
        {"type": "function", "id": f"{365_174_485 + number}", "function": {"name": call.name, "arguments": call.text}}
        for number, call in enumerate(wanted)
    ]
    deltas: list[dict[str, Any]] = []
    for index, (call, wish) in enumerate(zip(made, wanted, strict=True)):
        start = {**call, "index": index, "function": {"name": wish.name, "arguments": ""}}
        deltas.append({"role": "assistant", "tool_calls": [start]})
        for piece in in_pieces(wish.text):
            part = {"index": index, "type": "function", "function": {"name": "", "arguments": piece}}
            deltas.append({"tool_calls": [part]})
    message: dict[str, Any] = {"content": "", "tool_calls": made}
    return recorded(_ABOUT, message, deltas, "tool_calls", _USAGE, _COUNTED, choice={"logprobs": None}, role=False)


def refusal(status: int, message: str) -> Reply:
    """The error is a text."""
    return Reply({"error": message}, status)


def fails_in_the_stream(message: str) -> bytes:
    """An event with a name of its own."""
    return lines([f'event: error\ndata: {{"error": {{"message": "{message}"}}}}'], done=False)


DIALECT = Dialect(
    name="LM Studio",
    base_url="http://127.0.0.1:1234/v1",
    model="qwen3-8b",
    says=says,
    calls=calls,
    sources=("lmstudio.ai/docs/developer/openai-compat (chat completions, tools, structured output)",),
    fields=COMMON | {"max_tokens", "seed", "stream_options"},
    ignored=frozenset({"parallel_tool_calls"}),
    assistant_fields=frozenset({"role", "content", "tool_calls", "reasoning_content", "name"}),
    output="excludes tools",
    endings={"stop": "stop", "tool_calls": "tool_calls", "length": "length"},
    refusal=refusal,
)
