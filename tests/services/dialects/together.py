"""Together: ends with "eos" as well as "stop", and has fields of its own in every piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rh_agents import Usage
from tests.services.dialects.kit import COMMON, REASON, Dialect, Says, Wanted, error_body, in_pieces, recorded

_ABOUT = {"id": "nqx3K", "created": 1_764_000_000, "model": "openai/gpt-oss-120b", "prompt": []}
_USAGE = {"prompt_tokens": 82, "completion_tokens": 17, "total_tokens": 99, "cached_tokens": 0}
_COUNTED = Usage(82, 17, 0, 0, 1)
_CHOICE = {"seed": 9_140_302_410_000_000_000, "logprobs": None}


def _recorded(message: dict[str, Any], deltas: Sequence[dict[str, Any]], finish: str | None) -> Says:
    return recorded(
        _ABOUT, message, deltas, finish, _USAGE, _COUNTED,
        usage_in="last piece", choice=_CHOICE, reasoning=REASON, role=False,
    )  # fmt: skip


def says(text: str, finish: str | None = "stop") -> Says:
    """Each piece tells the number of its token, too."""
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": "", "reasoning": piece} for piece in in_pieces(REASON, 9)
    ]
    deltas += [{"token_id": 11, "role": "assistant", "content": piece} for piece in in_pieces(text)]
    return _recorded({"content": text, "reasoning": REASON, "tool_calls": []}, deltas, finish)


def calls(wanted: Sequence[Wanted]) -> Says:
    """Indexes, ids and names stand in the first piece of a call."""
    made = [
        {
            "index": number,
            "id": f"call_tg{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.text},
        }
        for number, call in enumerate(wanted)
    ]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "reasoning": REASON}]
    for call, wish in zip(made, wanted, strict=True):
        deltas.append({"role": "assistant", "content": "", "tool_calls": [{**call, "function": {"name": wish.name}}]})
        for piece in in_pieces(wish.text):
            part = {"index": call["index"], "function": {"arguments": piece}}
            deltas.append({"role": "assistant", "content": "", "tool_calls": [part]})
    return _recorded({"content": None, "reasoning": REASON, "tool_calls": made}, deltas, "tool_calls")


DIALECT = Dialect(
    name="Together",
    base_url="https://api.together.xyz/v1",
    model="openai/gpt-oss-120b",
    says=says,
    calls=calls,
    sources=("the types of the package together 3.1.1", "docs.together.ai/docs/json-mode"),
    fields=COMMON | {"max_tokens", "seed", "reasoning_effort", "reasoning"},
    ignored=frozenset({"stream_options", "parallel_tool_calls"}),
    assistant_fields=frozenset({"role", "content", "tool_calls", "reasoning", "name"}),
    endings={"stop": "stop", "eos": "stop", "tool_calls": "tool_calls", "length": "length"},
    refusal=error_body,
)
