"""Groq: the usage of a stream in `x_groq`, thoughts beside the text, and no JSON schema beside tools."""

from __future__ import annotations

from collections.abc import Sequence

from rh_agents import Usage
from tests.services.dialects.kit import (
    COMMON,
    REASON,
    Dialect,
    Says,
    Wanted,
    chunk,
    error_body,
    in_pieces,
    lines,
    whole,
)

_ABOUT = {"id": "chatcmpl-1c", "created": 1_764_000_000, "model": "openai/gpt-oss-120b", "system_fingerprint": "fp_a"}
_USAGE = {
    "queue_time": 0.018,
    "prompt_tokens": 82,
    "prompt_time": 0.0036,
    "completion_tokens": 17,
    "completion_time": 0.034,
    "total_tokens": 99,
    "total_time": 0.0378,
    "completion_tokens_details": {"reasoning_tokens": 9},
}
_COUNTED = Usage(82, 17, 0, 9, 1)


def _recorded(message: dict[str, object], deltas: Sequence[dict[str, object]], finish: str | None) -> Says:
    first = chunk(_ABOUT, {"role": "assistant", "content": ""}, x_groq={"id": "req_01"})
    last = chunk(_ABOUT, {}, finish, x_groq={"id": "req_01", "usage": _USAGE})
    stream = lines([first, *(chunk(_ABOUT, delta) for delta in deltas), last])
    body = {**whole(_ABOUT, message, finish, _USAGE), "x_groq": {"id": "req_01"}}
    return Says(body, stream, _COUNTED, REASON)


def says(text: str, finish: str | None = "stop") -> Says:
    """The thoughts are called `reasoning`."""
    deltas: list[dict[str, object]] = [{"reasoning": piece} for piece in in_pieces(REASON, 9)]
    deltas += [{"content": piece} for piece in in_pieces(text)]
    return _recorded({"content": text, "reasoning": REASON}, deltas, finish)


def calls(wanted: Sequence[Wanted]) -> Says:
    """Each call comes whole."""
    made = [
        {"id": f"fc_{number}", "type": "function", "function": {"name": call.name, "arguments": call.text}}
        for number, call in enumerate(wanted)
    ]
    deltas: list[dict[str, object]] = [{"reasoning": REASON}]
    deltas += [{"tool_calls": [{**call, "index": index}]} for index, call in enumerate(made)]
    return _recorded({"reasoning": REASON, "tool_calls": made}, deltas, "tool_calls")


DIALECT = Dialect(
    name="Groq",
    base_url="https://api.groq.com/openai/v1",
    model="openai/gpt-oss-120b",
    says=says,
    calls=calls,
    sources=(
        "the types of the package groq 1.7.0",
        "console.groq.com/docs/openai (what is refused)",
        "agno, issue 1065; vercel/ai, pull request 16540 (JSON beside tools)",
    ),
    fields=COMMON
    | {"max_completion_tokens", "max_tokens", "seed", "parallel_tool_calls", "stream_options", "reasoning_effort"},
    refuses_others=True,
    length_field="max_completion_tokens",
    assistant_fields=frozenset({"role", "content", "tool_calls", "reasoning"}),
    output="refused with tools",
    endings={"stop": "stop", "tool_calls": "tool_calls", "length": "length", "content_filter": "content_filter"},
    refusal=error_body,
)
