"""Gemini through its endpoint for clients of OpenAI.

Errors are lists, tool calls have no indexes but signatures that it wants back, and thoughts count in the total alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rh_agents import Usage
from tests.services.dialects.kit import COMMON, Dialect, Says, Wanted, in_pieces, recorded
from tests.services.model_server import Reply

_ABOUT = {"id": "qzXq", "created": 1_764_000_000, "model": "gemini-3-flash-preview"}
_USAGE = {"prompt_tokens": 82, "completion_tokens": 17, "total_tokens": 142}
_COUNTED = Usage(82, 60, 0, 43, 1)
_STATUSES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}


def says(text: str, finish: str | None = "stop") -> Says:
    """The role stands in every piece, and so does the usage so far; the last one has the last text."""
    deltas: list[dict[str, Any]] = [{"content": piece, "role": "assistant"} for piece in in_pieces(text, 9)]
    return recorded(_ABOUT, {"content": text}, deltas, finish, _USAGE, _COUNTED, usage_in="last piece", role=False)


def calls(wanted: Sequence[Wanted]) -> Says:
    """Each call comes whole, without an index; the first one is signed. It ends with "stop", not with "tool_calls"."""
    made: list[dict[str, Any]] = [
        {"id": f"function-call-{number}", "type": "function", "function": {"name": call.name, "arguments": call.text}}
        for number, call in enumerate(wanted)
    ]
    made[0]["extra_content"] = {"google": {"thought_signature": "c2lnbmF0dXJl"}}
    deltas = [{"role": "assistant", "tool_calls": [call]} for call in made]
    return recorded(_ABOUT, {"tool_calls": made}, deltas, "stop", _USAGE, _COUNTED, usage_in="last piece", role=False)


def wants_back(messages: Sequence[dict[str, Any]]) -> str | None:
    """The first call of each message has to carry its signature."""
    for message in messages:
        made = message.get("tool_calls") or []
        if made and not (made[0].get("extra_content") or {}).get("google", {}).get("thought_signature"):
            return "Function call is missing a thought_signature in functionCall parts."
    return None


def refusal(status: int, message: str) -> Reply:
    """A list with one error in it."""
    error = {"code": status, "message": message, "status": _STATUSES.get(status, "UNKNOWN")}
    return Reply([{"error": error}], status)


DIALECT = Dialect(
    name="Gemini",
    base_url="https://generativelanguage.googleapis.com/v1beta/openai/",
    model="gemini-3-flash-preview",
    says=says,
    calls=calls,
    sources=(
        "ai.google.dev/gemini-api/docs/openai",
        "ai.google.dev/gemini-api/docs/thought-signatures",
        "open-webui/computer, issue 224; noho/dayu-agent, issue 45 (both with recorded streams)",
    ),
    fields=COMMON
    | {"max_tokens", "max_completion_tokens", "seed", "parallel_tool_calls", "stream_options", "reasoning_effort"},
    refuses_others=True,
    length_field="max_tokens",
    assistant_fields=frozenset({"role", "content", "tool_calls", "extra_content"}),
    output="refused with tools",
    wants_back=wants_back,
    endings={"stop": "stop", "length": "length", "content_filter": "content_filter", "SAFETY": "content_filter"},
    refusal=refusal,
)
