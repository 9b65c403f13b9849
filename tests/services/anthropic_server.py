"""A server that plays Anthropic's Messages API: it refuses what the documentation says is refused, and answers in its
shapes.

Only documented facts: https://platform.claude.com/docs/en/api/messages, .../messages-streaming, .../errors,
.../build-with-claude/extended-thinking, .../prompt-caching, .../batch-processing, and the types of the official client.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from tests.services.model_server import Exchange, Reply

__all__ = [
    "AnthropicServer", "Refused", "check", "events", "message", "problem", "signed", "stream", "text", "thinking",
    "tool_use",
]  # fmt: skip

Body = dict[str, Any]
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
USAGE = {"input_tokens": 10, "output_tokens": 5}


def text(what: str) -> Body:
    """A block of text."""
    return {"type": "text", "text": what}


def tool_use(call_id: str, name: str, **arguments: Any) -> Body:
    """A block that wants a tool to be called."""
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def signed(thought: str) -> str:
    """The signature of a thought."""
    return sha256(thought.encode()).hexdigest()


def thinking(thought: str) -> Body:
    """A block of thoughts, with its signature."""
    return {"type": "thinking", "thinking": thought, "signature": signed(thought)}


def message(*blocks: Body, stop_reason: str | None = None, usage: Mapping[str, Any] = USAGE, **fields: Any) -> Body:
    """A whole answer."""
    wants = any(each["type"] == "tool_use" for each in blocks)
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": list(blocks),
        "stop_reason": stop_reason or ("tool_use" if wants else "end_turn"),
        "stop_sequence": None,
        "usage": dict(usage),
        **fields,
    }


def problem(status: int, kind: str, said: str = "no", **headers: str) -> Reply:
    """An error as the API reports it."""
    body = {"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_1"}
    return Reply(body, status, {"request-id": "req_1", **{each.replace("_", "-"): headers[each] for each in headers}})


def events(answer: Body, size: int = 7) -> list[Body]:
    """The events of a streamed answer. Its texts come in pieces of `size` characters."""
    usage = answer["usage"]
    begun = {**answer, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    found: list[Body] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, block in enumerate(answer["content"]):
        start, deltas = _in_pieces(block, size)
        found.append({"type": "content_block_start", "index": index, "content_block": start})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    if "stop_details" in answer:
        ended["stop_details"] = answer["stop_details"]
    found.append({"type": "message_delta", "delta": ended, "usage": {"output_tokens": usage["output_tokens"]}})
    found.append({"type": "message_stop"})
    return found


def _in_pieces(block: Body, size: int) -> tuple[Body, list[Body]]:
    def cut(what: str) -> list[str]:
        return [what[start : start + size] for start in range(0, len(what), size)]

    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": each} for each in cut(block["text"])]
    if block["type"] == "tool_use":
        pieces = cut(json.dumps(block["input"])) if block["input"] else [""]
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": each} for each in pieces]
    if block["type"] == "thinking":
        thoughts = [{"type": "thinking_delta", "thinking": each} for each in cut(block["thinking"])]
        return (
            {"type": "thinking", "thinking": "", "signature": ""},
            [*thoughts, {"type": "signature_delta", "signature": block["signature"]}],
        )
    return block, []


def stream(found: list[Body], **facts: Any) -> Reply:
    """Events as they are sent."""
    lines = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in found)
    return Reply(lines, kind="text/event-stream", **facts)


class Refused(Exception):
    """The request is not as documented."""


def _expect(holds: object, otherwise: str) -> None:
    if not holds:
        raise Refused(otherwise)


def check(body: Body) -> None:
    """Hold a request against the documentation.

    Raises:
        Refused: it is not so.
    """
    _expect(isinstance(body.get("model"), str), "model: Field required")
    _expect(isinstance(body.get("max_tokens"), int) and body["max_tokens"] > 0, "max_tokens: Field required")
    allowed = {
        "model", "max_tokens", "messages", "system", "tools", "tool_choice", "temperature", "top_p", "stream",
        "stop_sequences", "output_config", "thinking", "metadata", "service_tier", "top_k", "cache_control",
    }  # fmt: skip
    _expect(set(body) <= allowed, f"{sorted(set(body) - allowed)}: Extra inputs are not permitted")
    thinks = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    if (body.get("thinking") or {}).get("type") == "enabled":
        budget = body["thinking"]["budget_tokens"]
        _expect(1024 <= budget < body["max_tokens"], "max_tokens must be greater than thinking.budget_tokens")
    for tool in body.get("tools", []):
        _expect(_NAME.fullmatch(tool["name"]), "tools.name: String should match pattern")
        _expect(tool["input_schema"].get("type") == "object", "tools.input_schema.type: Field required")
    choice = body.get("tool_choice")
    if choice is not None:
        _expect(choice["type"] in ("auto", "any", "tool", "none"), "tool_choice.type: unknown")
        _expect(
            not thinks or choice["type"] in ("auto", "none"),
            "Thinking may not be enabled when tool_choice forces tool use",
        )
    _check_schema(((body.get("output_config") or {}).get("format") or {}).get("schema"))
    is_adaptive = (body.get("thinking") or {}).get("type") == "adaptive"  # then the model may have called without
    _check_messages(body["messages"], must_have_thought=thinks and not is_adaptive)
    marks = json.dumps(body).count('"cache_control"')
    _expect(marks <= 4, "A maximum of 4 blocks with cache_control may be provided")


def _check_schema(schema: Any) -> None:
    if isinstance(schema, list):
        for each in schema:
            _check_schema(each)
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            _expect(schema.get("additionalProperties") is False, "'additionalProperties' must be set to false")
        _expect("minimum" not in schema, "property 'minimum' is not supported")
        for each in schema.values():
            _check_schema(each)


def _check_messages(messages: list[Body], *, must_have_thought: bool) -> None:
    _expect(messages and messages[0]["role"] == "user", "messages: first message must use the user role")
    open_calls: list[str] = []
    lists = [each["content"] for each in messages if isinstance(each["content"], list)]
    calls = [block["id"] for blocks in lists for block in blocks if block["type"] == "tool_use"]
    _expect(len(set(calls)) == len(calls), "`tool_use` ids must be unique")
    for number, each in enumerate(messages):
        blocks = each["content"] if isinstance(each["content"], list) else [text(each["content"])]
        _expect(blocks, f"messages.{number}: all messages must have non-empty content")
        _expect(all(block.get("text") != "" for block in blocks), "text content blocks must be non-empty")
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if open_calls:
            kinds = [block["type"] for block in blocks[: len(open_calls)]]
            _expect(
                each["role"] == "user"
                and kinds == ["tool_result"] * len(open_calls)
                and set(results) == set(open_calls),
                "`tool_use` ids were found without `tool_result` blocks immediately after",
            )
        else:
            _expect(not results, "unexpected `tool_use_id` found in `tool_result` blocks")
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        _check_blocks(blocks)
        if open_calls and must_have_thought:
            _expect(blocks[0]["type"] in ("thinking", "redacted_thinking"), "Expected `thinking`, but found `tool_use`")


def _check_blocks(blocks: list[Body]) -> None:
    for block in blocks:
        if block["type"] == "thinking":
            _expect(block["signature"] == signed(block["thinking"]), "Invalid `signature` in `thinking` block")
            _expect("cache_control" not in block, "thinking blocks cannot have cache_control")
        if block["type"] in ("image", "document"):
            source = block["source"]
            _expect(source["type"] in ("base64", "url", "text"), "source.type: unknown")
            if source["type"] == "base64":
                kinds = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")
                _expect(source["media_type"] in kinds, "source.media_type: unknown")
        if block["type"] == "tool_use":
            _expect(_CALL_ID.fullmatch(block["id"]), "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
            _expect(isinstance(block["input"], dict), "tool_use.input: Input should be a valid dictionary")


class AnthropicServer:
    """Answers what a `model_server` gets.

    Args:
        answering: the answer to a request: a message, which is streamed if that is asked for, or whatever else is to
            be sent.
        looks: how often a batch has to be looked at before it has ended.

    Attributes:
        bodies: the requests for messages, those in batches not among them.
        batches: what is told of each, by id.
        requests: what was asked in each, by id.
        fails_before_answering: the next batch is made, and whoever asked for it is not told.
    """

    def __init__(self, answering: Callable[[Body], Body | Reply], looks: int = 2) -> None:
        self.answering = answering
        self.looks = looks
        self.bodies: list[Body] = []
        self.batches: dict[str, Body] = {}
        self.requests: dict[str, list[Body]] = {}
        self.fails_before_answering = False
        self._looked: dict[str, int] = {}

    def __call__(self, exchange: Exchange) -> Reply:
        if "k" not in (exchange.headers.get("x-api-key"), exchange.headers.get("authorization", "").split(" ")[-1]):
            return problem(401, "authentication_error", "invalid x-api-key")
        if "anthropic-version" not in exchange.headers:
            return problem(400, "invalid_request_error", "anthropic-version: header is required")
        self._host = exchange.headers["host"]
        place = exchange.path.partition("?")[0].removeprefix("/v1/messages").strip("/").split("/")
        if place[0] == "batches":
            return self._batch(exchange, place[1:])
        self.bodies.append(exchange.body)
        found = self._answer(exchange.body)
        if isinstance(found, Reply):
            return found
        return stream(events(found)) if exchange.body.get("stream") else Reply(found)

    def _answer(self, body: Body) -> Body | Reply:
        try:
            check(body)
        except Refused as refused:
            return problem(400, "invalid_request_error", str(refused))
        return self.answering(body)

    # -- batches ------------------------------------------------------------------------------------------------------

    def _batch(self, exchange: Exchange, place: list[str]) -> Reply:
        if not place and exchange.method == "POST":
            return self._create(exchange.body["requests"], exchange)
        if not place:
            return Reply(self._list(exchange.path))
        if place[0] not in self.batches:
            return problem(404, "not_found_error", "no such batch")
        if place[1:] == ["results"]:
            return Reply(self._results(place[0]), kind="application/x-jsonl")
        return Reply(self._look(place[0]))

    def _create(self, requests: list[Body], exchange: Exchange) -> Reply:
        ids = [each["custom_id"] for each in requests]
        if len(set(ids)) != len(ids) or not all(map(_ID.fullmatch, ids)):
            return problem(400, "invalid_request_error", "custom_id: must be unique and match the pattern")
        name = f"msgbatch_{len(self.batches)}"
        counts = {"processing": len(ids), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        self.batches[name] = {
            "id": name, "type": "message_batch", "processing_status": "in_progress", "request_counts": counts,
            "created_at": _moment(), "expires_at": _moment(86_400), "ended_at": None, "archived_at": None,
            "cancel_initiated_at": None, "results_url": None,
        }  # fmt: skip
        self.requests[name] = requests
        self._looked[name] = 0
        if self.fails_before_answering:
            self.fails_before_answering = False
            return Reply(hang="headers")
        return Reply(self.batches[name])

    def _list(self, path: str) -> Body:
        found = list(reversed(self.batches.values()))
        after = re.search(r"after_id=(\w+)", path)
        if after is not None:
            ids = [each["id"] for each in found]
            found = found[ids.index(after[1]) + 1 :]
        page = found[:2]  # small, so that there are several
        edges = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
        return {"data": page, "has_more": len(found) > len(page), **edges}

    def _look(self, name: str) -> Body:
        batch = self.batches[name]
        self._looked[name] += 1
        if batch["processing_status"] == "in_progress" and self._looked[name] >= self.looks:
            results = [self._result(each["params"]) for each in self.requests[name]]
            for each in results:
                batch["request_counts"][each["type"]] += 1
            batch["request_counts"]["processing"] = 0
            batch.update(processing_status="ended", ended_at=_moment(), results=results)
            batch["results_url"] = f"http://{self._host}/v1/messages/batches/{name}/results"
        return {key: value for key, value in batch.items() if key != "results"}

    def _result(self, params: Body) -> Body:
        found = self._answer(params)
        if not isinstance(found, Reply):
            return {"type": "succeeded", "message": found}
        if isinstance(found.body, dict) and found.body.get("type") == "error":
            return {"type": "errored", "error": found.body}
        return {"type": str(found.body)}

    def _results(self, name: str) -> str:
        """They may come in any order."""
        lines = list(zip(self.requests[name], self.batches[name]["results"], strict=True))
        return "\n".join(json.dumps({"custom_id": each["custom_id"], "result": found}) for each, found in lines[::-1])


def _moment(later: float = 0.0) -> str:
    return datetime.fromtimestamp(time.time() + later, UTC).isoformat().replace("+00:00", "Z")
