"""vLLM: what its parsers of tools and thoughts make of open models.

A JSON schema is a grammar for the whole answer, so that no tool can be called beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rh_agents import Usage
from tests.services.dialects.kit import COMMON, REASON, Dialect, Says, Wanted, in_pieces, recorded
from tests.services.model_server import Reply

_ABOUT = {"id": "chatcmpl-5f", "created": 1_764_000_000, "model": "Qwen/Qwen3-8B"}
_USAGE = {"prompt_tokens": 82, "total_tokens": 99, "completion_tokens": 17, "prompt_tokens_details": None}
_COUNTED = Usage(82, 17, 0, 0, 1)
_CHOICE = {"logprobs": None, "stop_reason": None}


def _recorded(message: dict[str, Any], deltas: Sequence[dict[str, Any]], finish: str | None) -> Says:
    about = {"refusal": None, "annotations": None, "audio": None, "function_call": None}
    return recorded(_ABOUT, {**about, **message}, deltas, finish, _USAGE, _COUNTED, choice=_CHOICE, reasoning=REASON)


def says(text: str, finish: str | None = "stop") -> Says:
    """Thoughts under both names, the old one and the new one, while versions of both are about."""
    deltas = [{"reasoning": piece, "reasoning_content": piece} for piece in in_pieces(REASON, 9)]
    deltas += [{"content": piece} for piece in in_pieces(text)]
    message = {"content": text, "reasoning": REASON, "reasoning_content": REASON, "tool_calls": []}
    return _recorded(message, deltas, finish)


def calls(wanted: Sequence[Wanted]) -> Says:
    """Only the first piece of a call has an id."""
    made = [
        {"id": f"chatcmpl-tool-{number}e", "type": "function", "function": {"name": call.name, "arguments": call.text}}
        for number, call in enumerate(wanted)
    ]
    deltas: list[dict[str, Any]] = [{"reasoning": REASON}]
    for index, (call, wish) in enumerate(zip(made, wanted, strict=True)):
        deltas.append({"tool_calls": [{**call, "index": index, "function": {"name": wish.name}}]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": each}}]} for each in in_pieces(wish.text)]
    return _recorded({"content": None, "reasoning": REASON, "tool_calls": made}, deltas, "tool_calls")


def refusal(status: int, message: str) -> Reply:
    """The code is the status."""
    return Reply({"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}, status)


DIALECT = Dialect(
    name="vLLM",
    base_url="http://127.0.0.1:8000/v1",
    model="Qwen/Qwen3-8B",
    says=says,
    calls=calls,
    sources=("docs.vllm.ai/en/v0.33.0/features/tool_calling", "docs.vllm.ai/en/latest/features/reasoning_outputs"),
    fields=COMMON
    | {"max_completion_tokens", "max_tokens", "seed", "parallel_tool_calls", "stream_options", "reasoning_effort"},
    assistant_fields=frozenset({"role", "content", "tool_calls", "reasoning", "reasoning_content", "name"}),
    output="excludes tools",
    endings={"stop": "stop", "tool_calls": "tool_calls", "length": "length", "abort": "broken"},
    refusal=refusal,
)
