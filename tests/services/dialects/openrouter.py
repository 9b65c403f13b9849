"""OpenRouter: many providers behind one address.

It says what an answer cost, keeps a stream alive with comments, reports what broke off inside of the choice, and wants
the details of thoughts back as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rh_agents import Usage
from tests.services.dialects.kit import COMMON, REASON, Dialect, Says, Wanted, chunk, in_pieces, lines, whole
from tests.services.model_server import Reply

_ABOUT = {"id": "gen-1764000000-x", "created": 1_764_000_000, "model": "z-ai/glm-5", "provider": "Novita"}
_USAGE = {
    "prompt_tokens": 82,
    "completion_tokens": 17,
    "total_tokens": 99,
    "cost": 0.00014,
    "is_byok": False,
    "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 0, "audio_tokens": 0},
    "cost_details": {"upstream_inference_cost": None},
    "completion_tokens_details": {"reasoning_tokens": 9, "image_tokens": 0},
}
_COUNTED = Usage(82, 17, 64, 9, 1, 0.00014)
_BUSY = ": OPENROUTER PROCESSING"


def _details(text: str) -> list[dict[str, Any]]:
    return [{"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}]


def _recorded(message: dict[str, Any], deltas: Sequence[dict[str, Any]], finish: str | None) -> Says:
    native = {"native_finish_reason": None if finish is None else finish.upper(), "logprobs": None}
    thoughts = {"reasoning": REASON, "reasoning_details": _details(REASON)}
    said = [{"role": "assistant", "content": "", "reasoning": each, "reasoning_details": _details(each)}
            for each in in_pieces(REASON, 13)]  # fmt: skip
    pieces = [chunk(_ABOUT, delta, choice={"native_finish_reason": None}) for delta in [*said, *deltas]]
    end = chunk(_ABOUT, {"role": "assistant", "content": ""}, finish, native)
    told = chunk(_ABOUT, {"role": "assistant", "content": ""}, finish, native, usage=_USAGE)
    stream = lines([_BUSY, _BUSY, *pieces, _BUSY, end, told])
    return Says(whole(_ABOUT, {**message, **thoughts}, finish, _USAGE, **native), stream, _COUNTED, REASON)


def says(text: str, finish: str | None = "stop") -> Says:
    """The usage comes with a choice that says nothing more."""
    deltas = [{"role": "assistant", "content": piece} for piece in in_pieces(text)]
    return _recorded({"content": text, "refusal": None}, deltas, finish)


def calls(wanted: Sequence[Wanted]) -> Says:
    """As OpenAI does; the type and the id stand in the first piece of each call."""
    made = [
        {
            "type": "function",
            "index": number,
            "id": f"call_or{number}",
            "function": {"name": call.name, "arguments": call.text},
        }
        for number, call in enumerate(wanted)
    ]
    deltas: list[dict[str, Any]] = []
    for call, wish in zip(made, wanted, strict=True):
        start = {**call, "function": {"name": wish.name, "arguments": ""}}
        deltas.append({"role": "assistant", "content": None, "tool_calls": [start]})
        for piece in in_pieces(wish.text):
            part = {"index": call["index"], "type": "function", "function": {"arguments": piece}}
            deltas.append({"role": "assistant", "content": None, "tool_calls": [part]})
    return _recorded({"content": "", "tool_calls": made}, deltas, "tool_calls")


def broken_off(text: str) -> bytes:
    """A stream that the provider behind it left in the middle: an error at the top, and "error" in the choice."""
    half = [chunk(_ABOUT, {"role": "assistant", "content": piece}) for piece in in_pieces(text)[:2]]
    error = {"code": "server_error", "message": "Provider disconnected unexpectedly"}
    return lines([*half, chunk(_ABOUT, {"content": ""}, "error", error=error)], done=False)


def refusal(status: int, message: str) -> Reply:
    """The code is the status, as a number."""
    return Reply({"error": {"code": status, "message": message, "metadata": {"provider_name": None}}}, status)


DIALECT = Dialect(
    name="OpenRouter",
    base_url="https://openrouter.ai/api/v1",
    model="z-ai/glm-5",
    says=says,
    calls=calls,
    sources=(
        "the types of the package openrouter 1.3.84",
        "openrouter.ai/docs/api-reference/streaming",
        "openrouter.ai/docs/api-reference/errors",
    ),
    fields=COMMON
    | {"max_tokens", "max_completion_tokens", "seed", "parallel_tool_calls", "stream_options", "reasoning", "usage"},
    assistant_fields=frozenset({"role", "content", "tool_calls", "reasoning", "reasoning_details", "refusal", "name"}),
    endings={
        "stop": "stop",
        "tool_calls": "tool_calls",
        "length": "length",
        "content_filter": "content_filter",
        "error": "broken",
    },
    refusal=refusal,
)
