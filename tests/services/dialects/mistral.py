"""Mistral: refuses every field that it does not know, names the seed otherwise, and thinks in parts of the content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rh_agents import Usage
from tests.services.dialects.kit import COMMON, REASON, Dialect, Says, Wanted, in_pieces, recorded
from tests.services.model_server import Reply

_ABOUT = {"id": "cmpl-e5", "created": 1_764_000_000, "model": "magistral-medium-latest"}
_USAGE = {"prompt_tokens": 82, "completion_tokens": 17, "total_tokens": 99, "num_cached_tokens": 0}
_COUNTED = Usage(82, 17, 0, 0, 1)


def says(text: str, finish: str | None = "stop") -> Says:
    """The thoughts are a part of the content; the usage comes in the last piece, without being asked for."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": REASON}]}
    content = [thought, {"type": "text", "text": text}]
    deltas: list[dict[str, Any]] = [{"content": [thought]}, *({"content": piece} for piece in in_pieces(text))]
    return recorded(
        _ABOUT,
        {"content": content, "tool_calls": None},
        deltas,
        finish,
        _USAGE,
        _COUNTED,
        usage_in="last piece",
        reasoning=REASON,
    )


def calls(wanted: Sequence[Wanted]) -> Says:
    """All calls come whole in one piece. Ids have nine letters or digits."""
    made = [
        {"id": f"D681Pe{number:03}", "function": {"name": call.name, "arguments": call.text}, "index": number}
        for number, call in enumerate(wanted)
    ]
    return recorded(
        _ABOUT,
        {"content": "", "tool_calls": made},
        [{"content": "", "tool_calls": made}],
        "tool_calls",
        _USAGE,
        _COUNTED,
        usage_in="last piece",
    )


def refusal(status: int, message: str) -> Reply:
    """What its framework says about a field, in a body without an error object."""
    place, _, said = message.partition(": ")
    detail = [{"type": "extra_forbidden", "loc": ["body", *place.split(".")], "msg": said}]
    return Reply(
        {
            "object": "error",
            "message": {"detail": detail},
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        },
        422 if status == 400 else status,
    )


DIALECT = Dialect(
    name="Mistral",
    base_url="https://api.mistral.ai/v1",
    model="mistral-medium-latest",
    says=says,
    calls=calls,
    sources=(
        "the types of the package mistralai 3.7.0",
        "anon-kode, issue 53 (stream_options); eca, issue 231 (max_completion_tokens)",
        "crush, issue 1590 (reasoning_content); opencode, issue 1680 (ids)",
    ),
    fields=COMMON | {"max_tokens", "random_seed", "parallel_tool_calls", "n", "safe_prompt", "reasoning_effort"},
    refuses_others=True,
    call_ids="[a-zA-Z0-9]{9}",
    user_after_tool=False,
    assistant_fields=frozenset({"role", "content", "tool_calls", "prefix"}),
    endings={
        "stop": "stop",
        "tool_calls": "tool_calls",
        "length": "length",
        "model_length": "length",
        "error": "broken",
    },
    refusal=refusal,
)
