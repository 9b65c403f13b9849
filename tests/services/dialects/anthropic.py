"""Anthropic's Messages API: a protocol of its own, with blocks in place of texts and fields.

Requests and answers are looked at in the form of OpenAI's protocol (`asks`, `tells`), so that the same tests can look
at all providers. What is refused is decided by what was sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rh_agents import Usage
from tests.services.anthropic_server import Refused, check, events, message, problem, stream, text, thinking, tool_use
from tests.services.dialects.kit import REASON, Dialect, Says, Wanted
from tests.services.model_server import Reply

Json = dict[str, Any]
_USAGE = {
    "input_tokens": 8,
    "cache_creation_input_tokens": 10,
    "cache_read_input_tokens": 64,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 17,
    "output_tokens_details": {"thinking_tokens": 9},
    "service_tier": "standard",
    "server_tool_use": None,
}
_COUNTED = Usage(82, 17, 64, 9, 1, cache_write_tokens=10)
_STATUSES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
_CHOICES = {"any": "required"}
_FIELDS = frozenset(
    (
        "model", "messages", "max_tokens", "system", "tools", "tool_choice", "temperature", "top_p", "stream",
        "stop_sequences", "output_config", "thinking",
    )
)  # fmt: skip


def _said(*blocks: Json, reason: str | None) -> Says:
    about = {"id": "msg_01", "model": "claude-sonnet-4-6", "usage": _USAGE, "container": None}
    whole = {**message(thinking(REASON), *blocks), **about, "stop_reason": reason}
    return Says(whole, stream(events(whole, 4)).data, _COUNTED, REASON)


def says(what: str, finish: str | None = "end_turn") -> Says:
    """A text behind the thoughts."""
    return _said(text(what), reason=finish)


def calls(wanted: Sequence[Wanted]) -> Says:
    """Each call is a block, whose arguments come in pieces of JSON; in a whole answer they are an object."""
    blocks = [tool_use(f"toolu_{number}", call.name, **call.arguments) for number, call in enumerate(wanted)]
    return _said(text("I look it up."), *blocks, reason="tool_use")


def refusal(status: int, said: str) -> Reply:
    """An error with its type."""
    return problem(status, _STATUSES.get(status, "api_error"), said)


def wrong_in(body: Json) -> str | None:
    """What the documentation says is wrong with a request."""
    try:
        check(body)
    except Refused as refused:
        return str(refused)
    for turn in body["messages"]:  # what it has thought before calls of its own has to come back
        kinds = [block["type"] for block in turn["content"]]
        is_own = any(block["type"] == "tool_use" and block["id"].startswith("toolu_") for block in turn["content"])
        if is_own and kinds[0] != "thinking":
            return f"Expected `thinking`, but found `{kinds[0]}`"
    return None


# -- in the form of the other protocol --------------------------------------------------------------------------------


def asks(body: Json) -> Json:
    """A request."""
    system = [{"role": "system", "content": _text(body["system"])}] if body.get("system") else []
    found: Json = {"messages": [*system, *(each for turn in body["messages"] for each in _messages(turn))]}
    if "tools" in body:
        found["tools"] = [{"type": "function", "function": {"name": tool["name"]}} for tool in body["tools"]]
    if "tool_choice" in body:
        kind = body["tool_choice"]["type"]
        found["tool_choice"] = _CHOICES.get(kind, kind)
    form = (body.get("output_config") or {}).get("format")
    if form:
        found["response_format"] = {"type": form["type"], "json_schema": {"schema": form["schema"]}}
    return found


def tells(whole: Json) -> Json:
    """The message of a whole answer."""
    return _assistant(whole["content"])


def _messages(turn: Json) -> list[Json]:
    blocks = turn["content"]
    if turn["role"] == "assistant":
        return [_assistant(blocks)]
    results = [
        {"role": "tool", "tool_call_id": each["tool_use_id"], "content": _content(each.get("content", []))}
        for each in blocks
        if each["type"] == "tool_result"
    ]
    others = [each for each in blocks if each["type"] != "tool_result"]
    return [*results, *([{"role": "user", "content": _content(others)}] if others else [])]


def _assistant(blocks: Sequence[Json]) -> Json:
    made = [
        {
            "id": each["id"],
            "type": "function",
            "function": {"name": each["name"], "arguments": json.dumps(each["input"])},
        }
        for each in blocks
        if each["type"] == "tool_use"
    ]
    thoughts = [each for each in blocks if each["type"] == "thinking"]
    return {
        "role": "assistant",
        "content": _text(blocks),
        **({"tool_calls": made} if made else {}),
        **({"thinking": thoughts} if thoughts else {}),
    }


def _text(blocks: Sequence[Json]) -> str:
    return "".join(each["text"] for each in blocks if each["type"] == "text")


def _content(blocks: Sequence[Json]) -> Any:
    if all(each["type"] == "text" for each in blocks):
        return _text(blocks)
    return [each if each["type"] == "text" else _image(each["source"]) for each in blocks]


def _image(source: Mapping[str, str]) -> Json:
    url = source.get("url") or f"data:{source['media_type']};base64,{source['data']}"
    return {"type": "image_url", "image_url": {"url": url}}


DIALECT = Dialect(
    name="Anthropic",
    base_url="https://api.anthropic.com",
    model="claude-sonnet-4-6",
    says=says,
    calls=calls,
    sources=(
        "the types of the package anthropic 2.14.0",
        "platform.claude.com/docs/en/api/messages, .../messages-streaming, .../errors",
        "platform.claude.com/docs/en/build-with-claude/thinking-tool-workflows, .../effort, .../structured-outputs",
    ),
    fields=_FIELDS,
    refuses_others=True,
    required_headers=frozenset({"anthropic-version"}),
    sampling={"top_p": 0.95},
    refused_settings=frozenset({"seed"}),
    tool_choice="auto",
    assistant_fields=frozenset({"role", "content", "tool_calls", "thinking"}),
    images_in_results=True,
    endings={
        "end_turn": "stop",
        "stop_sequence": "stop",
        "tool_use": "tool_calls",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "refusal": "content_filter",
        "pause_turn": "broken",
    },
    refusal=refusal,
    path="/v1/messages",
    asks=asks,
    tells=tells,
    wrong_in=wrong_in,
)
