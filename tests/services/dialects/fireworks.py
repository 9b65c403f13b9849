"""Fireworks: thoughts as `reasoning_content`, which it takes back, and the usage in the last piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rh_agents import Usage
from tests.services.dialects.kit import COMMON, REASON, Dialect, Says, Wanted, in_pieces, recorded
from tests.services.model_server import Reply

_ABOUT = {"id": "b2f0", "created": 1_764_000_000, "model": "accounts/fireworks/models/glm-4p7"}
_USAGE = {
    "prompt_tokens": 82,
    "completion_tokens": 17,
    "total_tokens": 99,
    "prompt_tokens_details": {"cached_tokens": 64},
}
_COUNTED = Usage(82, 17, 64, 0, 1)


def says(text: str, finish: str | None = "stop") -> Says:
    """Thoughts before the text."""
    deltas = [{"reasoning_content": piece} for piece in in_pieces(REASON, 9)]
    deltas += [{"content": piece} for piece in in_pieces(text)]
    message = {"content": text, "reasoning_content": REASON}
    return recorded(_ABOUT, message, deltas, finish, _USAGE, _COUNTED, usage_in="last piece", reasoning=REASON)


def calls(wanted: Sequence[Wanted]) -> Says:
    """The name and the arguments of a call come in pieces, all with its id."""
    made = [
        {
            "index": number,
            "id": f"call_fw{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.text},
        }
        for number, call in enumerate(wanted)
    ]
    deltas: list[dict[str, Any]] = [{"reasoning_content": REASON}]
    for call, wish in zip(made, wanted, strict=True):
        deltas.append({"tool_calls": [{**call, "function": {"name": wish.name}}]})
        deltas += [{"tool_calls": [{**call, "function": {"arguments": piece}}]} for piece in in_pieces(wish.text)]
    message = {"content": None, "reasoning_content": REASON, "tool_calls": made}
    return recorded(_ABOUT, message, deltas, "tool_calls", _USAGE, _COUNTED, usage_in="last piece", reasoning=REASON)


def refusal(status: int, message: str) -> Reply:
    """The code is a word."""
    error = {"object": "error", "type": "invalid_request_error", "code": "invalid_request_error", "message": message}
    return Reply({"error": error}, status)


DIALECT = Dialect(
    name="Fireworks",
    base_url="https://api.fireworks.ai/inference/v1",
    model="accounts/fireworks/models/glm-4p7",
    says=says,
    calls=calls,
    sources=("the types of the package fireworks-ai 1.2.30",),
    fields=COMMON | {"max_tokens", "max_completion_tokens", "seed", "parallel_tool_calls", "reasoning_effort"},
    ignored=frozenset({"stream_options"}),
    assistant_fields=frozenset({"role", "content", "tool_calls", "reasoning_content", "name"}),
    endings={"stop": "stop", "tool_calls": "tool_calls", "length": "length"},
    refusal=refusal,
)
