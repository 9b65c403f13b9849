"""Ollama: takes `tool_choice` without effect, and calls every tool that it wants whole, in a piece of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

_ABOUT = {"id": "chatcmpl-871", "created": 1_764_000_000, "model": "qwen3:8b", "system_fingerprint": "fp_ollama"}
_USAGE = {"prompt_tokens": 82, "completion_tokens": 17, "total_tokens": 99}
_COUNTED = Usage(82, 17, 0, 0, 1)


def _recorded(message: dict[str, Any], deltas: Sequence[dict[str, Any]], finish: str | None) -> Says:
    first, *others = deltas
    pieces = [chunk(_ABOUT, {"role": "assistant", **first}), *(chunk(_ABOUT, delta) for delta in others)]
    told = chunk(_ABOUT, None, usage=_USAGE)
    stream = lines([*pieces, chunk(_ABOUT, {}, finish), told])
    return Says(whole(_ABOUT, message, finish, _USAGE), stream, _COUNTED, REASON)


def says(text: str, finish: str | None = "stop") -> Says:
    """Thoughts as `reasoning`, with an empty text beside them."""
    deltas = [{"content": "", "reasoning": piece} for piece in in_pieces(REASON, 9)]
    deltas += [{"content": piece} for piece in in_pieces(text)]
    return _recorded({"content": text, "reasoning": REASON}, deltas, finish)


def calls(wanted: Sequence[Wanted]) -> Says:
    """The arguments were read already, and are written anew; the index stands in whole answers as well."""
    made = [
        {
            "id": f"call_ol{number}",
            "index": number,
            "type": "function",
            "function": {"name": call.name, "arguments": call.text.replace(": ", ":")},
        }
        for number, call in enumerate(wanted)
    ]
    deltas: list[dict[str, Any]] = [{"content": "", "reasoning": REASON}]
    deltas += [{"content": "", "tool_calls": [call]} for call in made]
    return _recorded({"content": "", "reasoning": REASON, "tool_calls": made}, deltas, "tool_calls")


DIALECT = Dialect(
    name="Ollama",
    base_url="http://127.0.0.1:11434/v1",
    model="qwen3:8b",
    says=says,
    calls=calls,
    sources=("the files openai/openai.go and docs/api/openai-compatibility.mdx of ollama/ollama, August 2026",),
    fields=(COMMON | {"max_tokens", "seed", "stream_options", "reasoning_effort", "reasoning"}) - {"tool_choice"},
    ignored=frozenset({"tool_choice", "parallel_tool_calls"}),
    assistant_fields=frozenset({"role", "content", "tool_calls", "reasoning", "name"}),
    choices=frozenset(),
    output="excludes tools",
    endings={"stop": "stop", "tool_calls": "tool_calls", "length": "length"},
    refusal=error_body,
)
