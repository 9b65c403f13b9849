"""OpenAI: the protocol as it was meant. Arguments come in pieces, and the usage in one of its own without choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rh_agents import Usage
from tests.services.dialects.kit import COMMON, Dialect, Says, Wanted, error_body, in_pieces, recorded

_ABOUT = {"id": "chatcmpl-B9", "created": 1_764_000_000, "model": "gpt-4.1-mini-2025-04-14", "service_tier": "default"}
_USAGE = {
    "prompt_tokens": 82,
    "completion_tokens": 17,
    "total_tokens": 99,
    "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 0, "accepted_prediction_tokens": 0},
}
_COUNTED = Usage(82, 17, 64, 3, 1)


def says(text: str, finish: str | None = "stop") -> Says:
    """Each piece has a filler of random length, so that its size tells nobody what it says."""
    deltas = [{"content": piece} for piece in in_pieces(text)]
    message: dict[str, Any] = {"content": text, "refusal": None, "annotations": []}
    return recorded({**_ABOUT, "obfuscation": "x9"}, message, deltas, finish, _USAGE, _COUNTED)


def calls(wanted: Sequence[Wanted]) -> Says:
    """The first piece of a call has its id and name, the others have its index."""
    ids = [f"call_{number}abc" for number in range(len(wanted))]
    message = {
        "content": None,
        "tool_calls": [
            {"id": each, "type": "function", "function": {"name": call.name, "arguments": call.text}}
            for each, call in zip(ids, wanted, strict=True)
        ],
    }
    deltas = []
    for index, call in enumerate(wanted):
        start = {"id": ids[index], "type": "function", "function": {"name": call.name, "arguments": ""}}
        deltas.append({"tool_calls": [{"index": index, **start}]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in in_pieces(call.text)
        ]
    return recorded(_ABOUT, message, deltas, "tool_calls", _USAGE, _COUNTED)


DIALECT = Dialect(
    name="OpenAI",
    base_url="https://api.openai.com/v1",
    model="gpt-4.1-mini",
    says=says,
    calls=calls,
    sources=(
        "the types of the package openai 3.54.0",
        "platform.openai.com/docs/api-reference/chat",
        "camel, issue 2215 (ids)",
    ),
    fields=COMMON | {"max_completion_tokens", "max_tokens", "seed", "parallel_tool_calls", "stream_options"},
    refuses_others=True,
    call_ids=".{1,40}",
    length_field="max_completion_tokens",
    assistant_fields=frozenset({"role", "content", "tool_calls", "refusal", "name", "audio"}),
    endings={"stop": "stop", "tool_calls": "tool_calls", "length": "length", "content_filter": "content_filter"},
    refusal=error_body,
)
