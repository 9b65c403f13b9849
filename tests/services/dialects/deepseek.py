"""DeepSeek: wants its thoughts back with the calls that came of them, and knows JSON but no schema.

It counts cache hits in its own words. While it is busy, it sends comments in a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rh_agents import Usage
from tests.services.dialects.kit import COMMON, REASON, Dialect, Says, Wanted, error_body, in_pieces, received, recorded

_ABOUT = {"id": "930c60df", "created": 1_764_000_000, "model": "deepseek-flash", "system_fingerprint": "fp_1"}
_USAGE = {
    "prompt_tokens": 82,
    "completion_tokens": 17,
    "total_tokens": 99,
    "prompt_cache_hit_tokens": 64,
    "prompt_cache_miss_tokens": 18,
    "completion_tokens_details": {"reasoning_tokens": 9},
}
_COUNTED = Usage(82, 17, 64, 9, 1)
_BUSY = ": keep-alive"


def says(text: str, finish: str | None = "stop") -> Says:
    """Thoughts first, as `reasoning_content`; in those pieces the content is null, and the other way round."""
    deltas = [{"content": None, "reasoning_content": piece} for piece in in_pieces(REASON, 9)]
    deltas += [{"content": piece, "reasoning_content": None} for piece in in_pieces(text)]
    message = {"content": text, "reasoning_content": REASON}
    return recorded(
        _ABOUT,
        message,
        deltas,
        finish,
        _USAGE,
        _COUNTED,
        usage_in="last piece",
        first=[_BUSY, _BUSY],
        choice={"logprobs": None},
        reasoning=REASON,
    )


def calls(wanted: Sequence[Wanted]) -> Says:
    """As OpenAI does, after the thoughts."""
    made = [
        {
            "index": number,
            "id": f"call_{number}_ds",
            "type": "function",
            "function": {"name": call.name, "arguments": call.text},
        }
        for number, call in enumerate(wanted)
    ]
    deltas: list[dict[str, object]] = [{"content": None, "reasoning_content": REASON}]
    for call, wish in zip(made, wanted, strict=True):
        deltas.append({"tool_calls": [{**call, "function": {"name": wish.name, "arguments": ""}}]})
        deltas += [
            {"tool_calls": [{"index": call["index"], "function": {"arguments": piece}}]}
            for piece in in_pieces(wish.text)
        ]
    message = {"content": "", "reasoning_content": REASON, "tool_calls": made}
    return recorded(
        _ABOUT, message, deltas, "tool_calls", _USAGE, _COUNTED, usage_in="last piece", first=[_BUSY], reasoning=REASON
    )


DIALECT = Dialect(
    name="DeepSeek",
    base_url="https://api.deepseek.com",
    model="deepseek-flash",
    says=says,
    calls=calls,
    sources=(
        "api-docs.deepseek.com/guides/thinking_mode",
        "api-docs.deepseek.com/api/create-chat-completion",
        "the module litellm.llms.deepseek of the package litellm 1.110.2",
    ),
    fields=COMMON | {"max_tokens", "stream_options", "thinking", "reasoning_effort"},
    ignored=frozenset({"seed", "parallel_tool_calls"}),
    assistant_fields=frozenset({"role", "content", "tool_calls", "reasoning_content", "prefix", "name"}),
    output="unknown",
    wants_back=partial(received, field="reasoning_content"),
    endings={
        "stop": "stop",
        "tool_calls": "tool_calls",
        "length": "length",
        "content_filter": "content_filter",
        "insufficient_system_resource": "broken",
    },
    refusal=error_body,
)
