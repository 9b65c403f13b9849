"""xAI: counts its thoughts beside the answer, says what it cost in ticks, and reports errors as a plain text."""

from __future__ import annotations

from collections.abc import Sequence

from rh_agents import Usage
from tests.services.dialects.kit import COMMON, REASON, Dialect, Says, Wanted, in_pieces, recorded
from tests.services.model_server import Reply

_ABOUT = {"id": "0daf962f", "created": 1_764_000_000, "model": "grok-4.3", "system_fingerprint": "fp_1"}
_USAGE = {
    "prompt_tokens": 82,
    "completion_tokens": 17,
    "total_tokens": 142,
    "prompt_tokens_details": {"text_tokens": 82, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 43, "audio_tokens": 0},
    "num_sources_used": 0,
    "cost_in_usd_ticks": 1_853_000,
}
_COUNTED = Usage(82, 60, 64, 43, 1, 0.0001853)


def says(text: str, finish: str | None = "stop") -> Says:
    """The role stands in every piece."""
    deltas = [{"role": "assistant", "reasoning_content": piece} for piece in in_pieces(REASON, 9)]
    deltas += [{"role": "assistant", "content": piece} for piece in in_pieces(text)]
    message = {"content": text, "reasoning_content": REASON, "refusal": None}
    return recorded(_ABOUT, message, deltas, finish, _USAGE, _COUNTED, reasoning=REASON, role=False)


def calls(wanted: Sequence[Wanted]) -> Says:
    """Each call comes whole in one piece."""
    made = [
        {
            "id": f"call_{71_200_000 + number}",
            "function": {"name": call.name, "arguments": call.text},
            "type": "function",
        }
        for number, call in enumerate(wanted)
    ]
    deltas: list[dict[str, object]] = [{"role": "assistant", "reasoning_content": REASON}]
    deltas += [{"role": "assistant", "tool_calls": [{**call, "index": index}]} for index, call in enumerate(made)]
    message = {"content": "", "reasoning_content": REASON, "tool_calls": made, "refusal": None}
    return recorded(_ABOUT, message, deltas, "tool_calls", _USAGE, _COUNTED, reasoning=REASON, role=False)


def refusal(status: int, message: str) -> Reply:
    """The error is a text."""
    return Reply({"code": "Client specified an invalid argument", "error": message}, status)


DIALECT = Dialect(
    name="xAI",
    base_url="https://api.x.ai/v1",
    model="grok-4.3",
    says=says,
    calls=calls,
    sources=(
        "docs.x.ai/docs/api-reference",
        "the module litellm.llms.xai of the package litellm 1.110.2 (usage; 10,000,000,000 ticks are a dollar)",
        "docs.cloud.google.com, Grok guidance (thoughts are counted beside the answer)",
    ),
    fields=COMMON
    | {"max_completion_tokens", "max_tokens", "seed", "parallel_tool_calls", "stream_options", "reasoning_effort"},
    refuses_others=True,
    length_field="max_completion_tokens",
    assistant_fields=frozenset({"role", "content", "tool_calls", "reasoning_content", "name", "refusal"}),
    endings={"stop": "stop", "tool_calls": "tool_calls", "length": "length", "content_filter": "content_filter"},
    refusal=refusal,
)
