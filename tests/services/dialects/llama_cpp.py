"""llama.cpp's server: times beside the tokens, 503 while it loads its model, and 500 for a JSON schema beside tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rh_agents import Usage
from tests.services.dialects.kit import COMMON, REASON, Dialect, Says, Wanted, chunk, in_pieces, lines, whole
from tests.services.model_server import Reply

_ABOUT = {"id": "chatcmpl-wq", "created": 1_764_000_000, "model": "smollm2", "system_fingerprint": "b6910-xx"}
_USAGE = {"completion_tokens": 17, "prompt_tokens": 82, "total_tokens": 99}
_TIMES = {"cache_n": 64, "prompt_n": 18, "prompt_ms": 40.1, "predicted_n": 17, "predicted_ms": 310.7}
_COUNTED = Usage(82, 17, 0, 0, 1)


def _recorded(message: dict[str, Any], deltas: Sequence[dict[str, Any]], finish: str | None) -> Says:
    first = chunk(_ABOUT, {"role": "assistant", "content": None})
    pieces = [chunk(_ABOUT, delta) for delta in deltas]
    last = chunk(_ABOUT, None, usage=_USAGE, timings=_TIMES)
    body = {**whole(_ABOUT, message, finish, _USAGE), "timings": _TIMES}
    return Says(body, lines([first, *pieces, chunk(_ABOUT, {}, finish), last]), _COUNTED, REASON)


def says(text: str, finish: str | None = "stop") -> Says:
    """Thoughts as `reasoning_content`."""
    deltas = [{"reasoning_content": piece} for piece in in_pieces(REASON, 9)]
    deltas += [{"content": piece} for piece in in_pieces(text)]
    return _recorded({"content": text, "reasoning_content": REASON}, deltas, finish)


def calls(wanted: Sequence[Wanted]) -> Says:
    """As OpenAI does."""
    made = [
        {"type": "function", "function": {"name": call.name, "arguments": call.text}, "id": f"x{number}Jk"}
        for number, call in enumerate(wanted)
    ]
    deltas: list[dict[str, Any]] = [{"reasoning_content": REASON}]
    for index, (call, wish) in enumerate(zip(made, wanted, strict=True)):
        deltas.append({"tool_calls": [{**call, "index": index, "function": {"name": wish.name, "arguments": ""}}]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": each}}]} for each in in_pieces(wish.text)]
    return _recorded({"content": None, "reasoning_content": REASON, "tool_calls": made}, deltas, "tool_calls")


def refusal(status: int, message: str) -> Reply:
    """The code is the status. That it takes no schema beside tools is an accident in its templates, and said so."""
    if "cannot be combined" in message:
        return Reply({"error": {"code": 500, "message": "Content path must be a string", "type": "server_error"}}, 500)
    return Reply({"error": {"code": status, "message": message, "type": "invalid_request_error"}}, status)


DIALECT = Dialect(
    name="llama.cpp",
    base_url="http://127.0.0.1:8080/v1",
    model="smollm2",
    says=says,
    calls=calls,
    sources=("the server b8156 in the package xllamacpp 0.2.12, with a small model; thoughts from its README",),
    fields=COMMON | {"max_tokens", "max_completion_tokens", "seed", "parallel_tool_calls", "stream_options"},
    assistant_fields=frozenset({"role", "content", "tool_calls", "reasoning_content", "name"}),
    output="refused with tools",
    endings={"stop": "stop", "tool_calls": "tool_calls", "length": "length"},
    refusal=refusal,
    is_observed=True,
)


def fails_in_a_call() -> bytes:
    """What came when a small model wrote a call that could not be read any further: an error after half of the call."""
    pieces = calls([Wanted("population", {"city": "Oslo"})]).stream.split(b"\n\n")[:5]
    error = {"error": {"code": 500, "message": "Invalid diff: now finding less tool calls!", "type": "server_error"}}
    return b"\n\n".join([*pieces, b""]) + lines([error], done=False)
