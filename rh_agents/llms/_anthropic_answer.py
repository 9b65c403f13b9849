"""Answers of Anthropic's Messages API, whole and in pieces. Everything that comes from a server is checked.

What an answer used is read first, so that one that cannot be read is counted all the same.

(https://platform.claude.com/docs/en/api/messages, .../messages-streaming)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from pydantic_core import from_json, to_json

from rh_agents.core.chat.messages import ChatDelta, ChatResponse, FinishReason, ToolCall
from rh_agents.core.errors import ModelError
from rh_agents.core.usage import Usage
from rh_agents.llms._anthropic_request import BLOCKS
from rh_agents.llms._client_errors import error_of_body
from rh_agents.llms._finish_reasons import reason_of
from rh_agents.llms._openai_usage import cost_of
from rh_agents.llms._server_json import kind_of, object_at, text_at, unreadable

_PLAIN = ("text", "tool_use")
"""Blocks that can be made of a message again. Answers with any others keep all of theirs."""
_SAYING_NOTHING = ("text", "thinking", "redacted_thinking")
"""Blocks that are no answer without a text."""
_JOINED: Mapping[str, str] = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
"""The pieces of blocks, and the field of the block that they belong to."""


def usage_of(answer: Mapping[str, Any]) -> Usage | None:
    """What an answer, or a piece of one, says that it used; None if it says nothing.

    Their input tokens are those that were neither in the cache nor put there; ours are all.
    """
    reported = answer.get("usage")
    if not isinstance(reported, Mapping):
        return None
    read, written = _count(reported, "cache_read_input_tokens"), _count(reported, "cache_creation_input_tokens")
    kept = reported.get("cache_creation")
    for_an_hour = _count(kept, "ephemeral_1h_input_tokens")
    written = max(written, _count(kept, "ephemeral_5m_input_tokens") + for_an_hour)
    usage = Usage(
        input_tokens=_count(reported, "input_tokens") + read + written,
        output_tokens=_count(reported, "output_tokens"),
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=_count(reported.get("output_tokens_details"), "thinking_tokens"),
        requests=1,
        cost=cost_of(reported),
        long_cache_write_tokens=for_an_hour,
    )
    return usage if usage.tokens else None  # zeros: nothing is free of tokens, so it is not known


def _count(reported: Any, name: str) -> int:
    value = reported.get(name) if isinstance(reported, Mapping) else None
    return int(value) if _is_number(value) and 0 < value < 1e15 else 0


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def expect_no_error(data: Mapping[str, Any], name: str, kind: str = "") -> None:
    """See that an answer, or an event of the kind `kind`, is no error.

    Raises:
        ModelError: by kind.
    """
    if data.get("type") == "error" or data.get("error") or kind == "error":
        raise error_of_body(data, name)


def read_answer(data: Mapping[str, Any], name: str, reasons: Mapping[str, str] | None = None) -> ChatResponse:
    """A whole answer.

    Args:
        data: as it came.
        name: the model, for errors.
        reasons: what further reasons for its end mean.

    Raises:
        ModelError: it is an error, has not the form that the protocol asks for, or did not end as an answer ends. Its
            `usage` is what the answer says it used.
    """
    usage = usage_of(data)
    try:
        expect_no_error(data, name)
        return _read(data, usage, name, reasons or {})
    except ModelError as error:
        error.usage = error.usage or usage
        raise


def _read(data: Mapping[str, Any], usage: Usage | None, name: str, reasons: Mapping[str, str]) -> ChatResponse:
    blocks = data.get("content")
    if not isinstance(blocks, list):
        raise unreadable(f"content is {kind_of(blocks)}, not a list of blocks")
    blocks = _with_ids([_block(each) for each in blocks])
    ended = reason_of(data.get("stop_reason"), name, reasons)
    text = "".join(_text(each, "text") for each in blocks if each.get("type") == "text")
    calls = [_call(each) for each in blocks if each.get("type") == "tool_use"]
    if ended is FinishReason.TOOL_CALLS and not calls:
        raise unreadable("the answer wants a tool to be called, and names none")
    if ended is FinishReason.STOP and not text and all(each.get("type") in _SAYING_NOTHING for each in blocks):
        raise unreadable("the answer is empty" + (": the model thought, and said nothing" if blocks else ""))
    facts: dict[str, Any] = {} if usage is None else {"usage": usage}
    if any(each.get("type") not in _PLAIN for each in blocks):
        facts["provider"] = {BLOCKS: [_as_it_goes_back(each) for each in blocks]}
    return ChatResponse(
        text=text,
        tool_calls=tuple(calls),
        finish_reason=ended,
        refusal=_refusal(data.get("stop_details")) if ended is FinishReason.CONTENT_FILTER else None,
        model=text_at(data.get("model"), "model"),
        response_id=text_at(data.get("id"), "id") or None,
        reasoning="".join(_text(each, "thinking") for each in blocks if each.get("type") == "thinking"),
        **facts,
    )


def _block(value: Any) -> Mapping[str, Any]:
    block = object_at(value, "a block")
    text_at(block.get("type"), "type")
    if block.get("type") == "tool_use":
        text_at(block.get("id"), "id")
    return block


def _with_ids(blocks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The blocks with an id for each tool call. A call that is said once more, in every point the same, is one call."""
    found: list[Mapping[str, Any]] = []
    given = {each.get("id"): each for each in reversed(blocks) if each.get("type") == "tool_use"}
    taken = set(given)
    for index, block in enumerate(blocks):
        call_id = block.get("id")
        if block.get("type") != "tool_use" or not isinstance(call_id, str) or given[call_id] is block:
            found.append(block)
        elif not any(block == each for each in blocks[:index]):
            while call_id in taken:
                call_id += "_"
            taken.add(call_id)
            found.append({**block, "id": call_id})
    return found


def _text(block: Mapping[str, Any], name: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise unreadable(f"{name} of a block is {kind_of(value)}, not a text")
    return value


def _call(block: Mapping[str, Any]) -> ToolCall:
    call_id, name, arguments = text_at(block.get("id"), "id"), text_at(block.get("name"), "name"), block.get("input")
    if not (name and call_id):
        raise unreadable("a tool call has no name or no id")
    if isinstance(arguments, str):
        return ToolCall(id=call_id, name=name, arguments=arguments)  # as it came in pieces; it may be no JSON
    return ToolCall(id=call_id, name=name, arguments=to_json(object_at(arguments, "input")).decode())


def _as_it_goes_back(block: Mapping[str, Any]) -> dict[str, Any]:
    """The block itself, but that arguments which are no JSON cannot go back."""
    is_broken = block.get("type") == "tool_use" and not isinstance(block.get("input"), dict)
    return {**block, "input": {}} if is_broken else dict(block)


def _refusal(details: Any) -> str:
    said = details.get("explanation") if isinstance(details, Mapping) else None
    kind = details.get("category") if isinstance(details, Mapping) else None
    if isinstance(said, str) and said:
        return said
    return f"a policy forbids it: {kind}" if isinstance(kind, str) else "the model refused"


class AnswerInPieces:
    """An answer that comes event by event.

    Args:
        name: the model, for errors.
        reasons: what further reasons for its end mean.
    """

    def __init__(self, name: str, reasons: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._reasons = reasons
        self._message: dict[str, Any] = {}
        self._has_begun = False
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, list[str]] = {}
        self._closed: set[int] = set()
        self._usage: dict[str, Any] = {}
        self._calls: dict[int, int] = {}
        self.is_whole = False

    @property
    def usage(self) -> Usage | None:
        """What it has used so far, as far as it says."""
        return usage_of({"usage": self._usage})

    @property
    def has_begun(self) -> bool:
        """Whether anything has come of it, so that somebody has worked on it."""
        return bool(self._blocks)

    def add(self, event: Mapping[str, Any], kind: str = "") -> ChatDelta | None:
        """Take in the next event, of the kind `kind`; what is new in it.

        Raises:
            ModelError: it is an error, or has not the form that the protocol asks for. Events of types that are not
                known are passed over, as the protocol asks for.
        """
        expect_no_error(event, self._name, kind)
        named = event.get("type")
        if named == "message_start":
            self._start(object_at(event.get("message"), "message"))
        elif named == "content_block_start":
            return self._open(_index(event), object_at(event.get("content_block"), "content_block"))
        elif named == "content_block_delta":
            return self._continue(_index(event), object_at(event.get("delta"), "delta"))
        elif named == "content_block_stop":
            self._close(_index(event))
        elif named == "message_delta":
            delta = object_at(event.get("delta"), "delta")
            self._message.update({name: value for name, value in delta.items() if value is not None})
            self._count(event.get("usage"))
        elif named == "message_stop":
            self.is_whole = True
        return None

    def _start(self, message: Mapping[str, Any]) -> None:
        if self._has_begun:
            raise unreadable("a second message begins in the middle of the first")
        self._has_begun = True
        self._message = dict(message)
        self._count(message.get("usage"))

    def _count(self, usage: Any) -> None:
        """A later report is about everything so far. Where a server says less then, the larger number counts."""
        for name, value in usage.items() if isinstance(usage, Mapping) else ():
            known = self._usage.get(name)
            if value is not None and not (_is_number(value) and _is_number(known) and known > value):
                self._usage[name] = value

    def _open(self, index: int, block: Mapping[str, Any]) -> ChatDelta | None:
        if index in self._blocks:
            raise unreadable(f"block {index} begins twice")
        self._blocks[index] = dict(block)
        if block.get("type") == "tool_use":
            self._inputs[index] = []
            self._calls[index] = len(self._calls)
            return ChatDelta(tool_index=self._calls[index], tool_name=text_at(block.get("name"), "name"))
        if block.get("type") == "text" and block.get("text"):
            return ChatDelta(text=text_at(block["text"], "text"))
        return None

    def _continue(self, index: int, delta: Mapping[str, Any]) -> ChatDelta | None:
        block = self._blocks.get(index)
        if block is None or index in self._closed:
            raise unreadable(f"there is more of block {index}, which is not open")
        kind = str(delta.get("type"))
        if kind == "input_json_delta":
            piece = _text(delta, "partial_json")
            self._inputs.setdefault(index, []).append(piece)
            return ChatDelta(tool_index=self._calls[index], arguments=piece) if index in self._calls else None
        if kind in _JOINED:
            name = _JOINED[kind]
            piece = _text(delta, name)
            block[name] = text_at(block.get(name), name) + piece
            return {"text": ChatDelta(text=piece), "thinking": ChatDelta(reasoning=piece)}.get(name)
        if kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta.get("citation")]
        return None

    def _close(self, index: int) -> None:
        if index not in self._blocks or index in self._closed:
            raise unreadable(f"block {index} ends, and is not open")
        self._closed.add(index)

    def whole(self) -> ChatResponse:
        """The answer, when the stream has come to its end.

        Raises:
            ModelError: it has not the form of one, or did not end as an answer ends.
        """
        if not self._has_begun:
            raise unreadable("the answer has no beginning")
        still_open = set(self._blocks) - self._closed
        if still_open:
            raise unreadable(f"the answer ended, and block {min(still_open)} did not")
        blocks = [self._finished(index) for index in sorted(self._blocks)]
        return read_answer({**self._message, "content": blocks, "usage": self._usage}, self._name, self._reasons)

    def _finished(self, index: int) -> dict[str, Any]:
        block = self._blocks[index]
        text = "".join(self._inputs.get(index, ()))
        if not text:
            return block
        try:
            value = from_json(text)
        except ValueError:
            value = None
        return {**block, "input": value if isinstance(value, dict) else text}


def _index(event: Mapping[str, Any]) -> int:
    value = event.get("index")
    if type(value) is not int:
        raise unreadable(f"the index of a block is {kind_of(value)}, not a number")
    return value
