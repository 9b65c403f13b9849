"""A proxy of LiteLLM: the answers of all providers in OpenAI's form, and what they sent besides in its own fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rh_agents import Usage
from tests.services.dialects.kit import COMMON, REASON, Dialect, Says, Wanted, chunk, in_pieces, lines, whole
from tests.services.model_server import Reply

_ABOUT = {"id": "chatcmpl-ll", "created": 1_764_000_000, "model": "claude-sonnet"}
_USAGE = {
    "completion_tokens": 17,
    "prompt_tokens": 82,
    "total_tokens": 99,
    "completion_tokens_details": {"reasoning_tokens": 9, "text_tokens": 8},
    "prompt_tokens_details": {"cached_tokens": 64, "cache_creation_tokens": 10},
    "cache_creation_input_tokens": 10,
    "cache_read_input_tokens": 64,
}
_COUNTED = Usage(82, 17, 64, 9, 1, cache_write_tokens=10)
_BLOCKS = [{"type": "thinking", "thinking": REASON, "signature": "c2ln"}]


def _recorded(message: dict[str, Any], deltas: Sequence[dict[str, Any]], finish: str | None) -> Says:
    thoughts = {"reasoning_content": REASON, "thinking_blocks": _BLOCKS}
    body = whole(_ABOUT, {**message, **thoughts, "function_call": None}, finish, _USAGE)
    first = {"provider_specific_fields": None, "role": "assistant", "content": "", **thoughts}
    pieces = [chunk(_ABOUT, first), *(chunk(_ABOUT, delta) for delta in deltas)]
    end = chunk(_ABOUT, {"provider_specific_fields": None}, finish)
    told = chunk(_ABOUT, {"content": "", "role": None}, None, usage=_USAGE)
    return Says(body, lines([*pieces, end, told]), _COUNTED, REASON)


def says(text: str, finish: str | None = "stop") -> Says:
    """The usage comes last, with a choice in which nothing is said, nor why it ended."""
    return _recorded({"content": text}, [{"content": piece} for piece in in_pieces(text)], finish)


def calls(wanted: Sequence[Wanted]) -> Says:
    """Fields that have no value are null."""
    made = [
        {"index": number, "id": f"toolu_{number}", "type": "function",
         "function": {"name": call.name, "arguments": call.text}}
        for number, call in enumerate(wanted)
    ]  # fmt: skip
    deltas: list[dict[str, Any]] = []
    for call, wish in zip(made, wanted, strict=True):
        deltas.append({"tool_calls": [{**call, "function": {"name": wish.name, "arguments": ""}}]})
        for piece in in_pieces(wish.text):
            part = {
                "index": call["index"],
                "id": None,
                "type": "function",
                "function": {"name": None, "arguments": piece},
            }
            deltas.append({"content": None, "tool_calls": [part]})
    return _recorded({"content": None, "tool_calls": made}, deltas, "tool_calls")


def refusal(status: int, message: str) -> Reply:
    """The code is the status, as a text."""
    error = {"message": f"litellm.BadRequestError: {message}", "type": None, "param": None, "code": str(status)}
    return Reply({"error": error}, status)


DIALECT = Dialect(
    name="LiteLLM",
    base_url="http://127.0.0.1:4000/v1",
    model="claude-sonnet",
    says=says,
    calls=calls,
    sources=("docs.litellm.ai/docs/reasoning_content", "the types of the package litellm 1.110.2"),
    fields=COMMON
    | {"max_completion_tokens", "max_tokens", "seed", "parallel_tool_calls", "stream_options", "reasoning_effort"},
    assistant_fields=frozenset({"role", "content", "tool_calls", "reasoning_content", "thinking_blocks", "name"}),
    endings={"stop": "stop", "tool_calls": "tool_calls", "length": "length", "content_filter": "content_filter"},
    refusal=refusal,
)
