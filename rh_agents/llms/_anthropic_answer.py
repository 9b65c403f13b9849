"""Answers of Anthropic's Messages API, whole and in pieces. Everything that comes from a server is checked.

What an answer used is read first, so that one that cannot be read is counted all the same.

(https://platform.claude.com/docs/en/api/messages, .../messages-streaming)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from rh_agents.core.chat import ChatDelta, ChatResponse, FinishReason, ToolCall
from rh_agents.core.errors import IncompleteAnswer, PermanentModelError, UnreadableAnswer
from rh_agents.core.usage import Usage
from rh_agents.llms._anthropic_request import BLOCKS

__all__ = ["REASONS", "AnswerInPieces", "read_answer", "read_json", "usage_of"]

REASONS: dict[str, FinishReason] = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "refusal": FinishReason.CONTENT_FILTER,
}
"""Why a model stopped. `pause_turn` is missing: it comes of tools that run at the provider, and is no end."""
_PLAIN = ("text", "tool_use")
"""Blocks that can be made of a message again. Answers with any others keep all of theirs."""


def read_json(data: bytes) -> dict[str, Any]:
    """An answer, or a piece of one.

    Raises:
        IncompleteAnswer: it is no JSON object.
    """
    try:
        value = from_json(data)
    except ValueError as error:
        raise IncompleteAnswer(f"the answer is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise IncompleteAnswer(f"the answer is no JSON object, but a {type(value).__name__}")
    return value


def usage_of(data: Any) -> Usage:
    """What was used. Their input tokens are those that were neither in the cache nor put there; ours are all."""
    if not isinstance(data, Mapping):
        return Usage()
    read, written = _count(data, "cache_read_input_tokens"), _count(data, "cache_creation_input_tokens")
    return Usage(
        input_tokens=_count(data, "input_tokens") + read + written,
        output_tokens=_count(data, "output_tokens"),
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=_count(data.get("output_tokens_details"), "thinking_tokens"),
        requests=1,
    )


def _count(data: Any, name: str) -> int:
    value = data.get(name) if isinstance(data, Mapping) else None
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e15 else 0


def read_answer(data: Mapping[str, Any], reasons: Mapping[str, FinishReason] | None = None) -> ChatResponse:
    """A whole answer.

    Args:
        data: as it came.
        reasons: what further reasons for its end mean.

    Raises:
        UnreadableAnswer: it has not the form of one; with what it used.
        PermanentModelError: it ended for a reason that is not known.
    """
    usage = usage_of(data.get("usage"))
    try:
        return _read(data, usage, {**REASONS, **(reasons or {})})
    except _WrongForm as wrong:
        raise UnreadableAnswer(f"the answer has not the form of one: {wrong}", usage=usage) from wrong


class _WrongForm(ValueError):
    """What does not fit the protocol."""


def _read(data: Mapping[str, Any], usage: Usage, reasons: Mapping[str, FinishReason]) -> ChatResponse:
    blocks = data.get("content")
    if not isinstance(blocks, list) or not all(isinstance(each, dict) for each in blocks):
        raise _WrongForm("content is no list of blocks")
    reason = data.get("stop_reason")
    if not isinstance(reason, str):
        raise _WrongForm("it does not say why it ended")
    if reason not in reasons:
        raise PermanentModelError(
            f"the model stopped for a reason that is not known: {reason!r}; finish_reasons= says what it means",
            usage=usage,
        )
    ended, refusal = reasons[reason], None
    texts = [_text(each, "text") for each in blocks if each.get("type") == "text"]
    calls = [_call(each) for each in blocks if each.get("type") == "tool_use"]
    if ended is FinishReason.TOOL_CALLS and not calls:
        raise _WrongForm("it wants a tool to be called, and names none")
    if ended is FinishReason.CONTENT_FILTER:
        refusal = _refusal(data.get("stop_details"))
    if ended is FinishReason.STOP and not blocks:
        raise _WrongForm("it is empty")
    is_kept = any(each.get("type") not in _PLAIN for each in blocks)
    return ChatResponse(
        text="".join(texts),
        tool_calls=tuple(calls),
        finish_reason=ended,
        refusal=refusal,
        model=data["model"] if isinstance(data.get("model"), str) else "",
        response_id=data["id"] if isinstance(data.get("id"), str) else None,
        usage=usage,
        reasoning="".join(_text(each, "thinking") for each in blocks if each.get("type") == "thinking"),
        provider={BLOCKS: [_as_it_goes_back(each) for each in blocks]} if is_kept else {},
    )


def _text(block: Mapping[str, Any], name: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise _WrongForm(f"{name} of a block is no text")
    return value


def _call(block: Mapping[str, Any]) -> ToolCall:
    name, call_id, arguments = block.get("name"), block.get("id"), block.get("input")
    if not (isinstance(name, str) and name and isinstance(call_id, str) and call_id):
        raise _WrongForm("a tool call has no name or no id")
    if isinstance(arguments, str):
        return ToolCall(id=call_id, name=name, arguments=arguments)  # as it came in pieces; it may be no JSON
    if not isinstance(arguments, dict):
        raise _WrongForm("the arguments of a tool call are no object")
    return ToolCall(id=call_id, name=name, arguments=to_json(arguments).decode())


def _as_it_goes_back(block: Mapping[str, Any]) -> dict[str, Any]:
    """The block itself, but that arguments which are no JSON cannot go back."""
    is_broken = block.get("type") == "tool_use" and not isinstance(block.get("input"), dict)
    return {**block, "input": {}} if is_broken else dict(block)


def _refusal(details: Any) -> str:
    said = details.get("explanation") if isinstance(details, Mapping) else None
    kind = details.get("category") if isinstance(details, Mapping) else None
    if isinstance(said, str) and said:
        return said
    return f"a policy stands against it: {kind}" if isinstance(kind, str) else "the model refused"


class AnswerInPieces:
    """An answer that comes event by event."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, list[str]] = {}
        self._closed: set[int] = set()
        self._usage: dict[str, Any] = {}
        self._calls: dict[int, int] = {}
        self.is_whole = False

    @property
    def usage(self) -> Usage | None:
        """What it has used so far, as far as it says."""
        return usage_of(self._usage) if self._usage else None

    def add(self, event: Mapping[str, Any]) -> ChatDelta | None:
        """Take in the next event; what is new in it.

        Raises:
            IncompleteAnswer: it has not the form that the protocol asks for. Events of kinds that are not known are
                passed over, as the protocol asks for.
        """
        kind = event.get("type")
        if kind == "message_start":
            self._start(_object(event.get("message"), "message"))
        elif kind == "content_block_start":
            return self._open(_index(event), _object(event.get("content_block"), "content_block"))
        elif kind == "content_block_delta":
            return self._continue(_index(event), _object(event.get("delta"), "delta"))
        elif kind == "content_block_stop":
            self._close(_index(event))
        elif kind == "message_delta":
            delta = _object(event.get("delta"), "delta")
            self._message.update({name: value for name, value in delta.items() if value is not None})
            self._count(event.get("usage"))
        elif kind == "message_stop":
            self.is_whole = True
        return None

    def _start(self, message: Mapping[str, Any]) -> None:
        if self._message:
            raise IncompleteAnswer("a second message begins in the middle of the first")
        self._message = dict(message)
        self._count(message.get("usage"))

    def _count(self, usage: Any) -> None:
        """What is told later is told of everything so far."""
        if isinstance(usage, Mapping):
            self._usage.update({name: value for name, value in usage.items() if value is not None})

    def _open(self, index: int, block: Mapping[str, Any]) -> ChatDelta | None:
        if index in self._blocks:
            raise IncompleteAnswer(f"block {index} begins twice")
        self._blocks[index] = dict(block)
        if block.get("type") == "tool_use":
            self._inputs[index] = []
            self._calls[index] = len(self._calls)
            return ChatDelta(tool_index=self._calls[index], tool_name=str(block.get("name") or ""))
        if block.get("type") == "text" and block.get("text"):
            return ChatDelta(text=str(block["text"]))
        return None

    def _continue(self, index: int, delta: Mapping[str, Any]) -> ChatDelta | None:
        block = self._blocks.get(index)
        if block is None or index in self._closed:
            raise IncompleteAnswer(f"there is more of block {index}, which is not open")
        kind = delta.get("type")
        if kind == "input_json_delta":
            piece = _piece(delta, "partial_json")
            self._inputs.setdefault(index, []).append(piece)
            return ChatDelta(tool_index=self._calls[index], arguments=piece) if index in self._calls else None
        for of_kind, name in (("text_delta", "text"), ("thinking_delta", "thinking"), ("signature_delta", "signature")):
            if kind == of_kind:
                piece = _piece(delta, name)
                block[name] = str(block.get(name) or "") + piece
                return {"text": ChatDelta(text=piece), "thinking": ChatDelta(reasoning=piece)}.get(name)
        if kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta.get("citation")]
        return None

    def _close(self, index: int) -> None:
        if index not in self._blocks or index in self._closed:
            raise IncompleteAnswer(f"block {index} ends, and is not open")
        self._closed.add(index)

    def whole(self, reasons: Mapping[str, FinishReason] | None = None) -> ChatResponse:
        """The answer, when the stream has come to its end.

        Raises:
            IncompleteAnswer: it has not.
            UnreadableAnswer, PermanentModelError: as `read_answer`.
        """
        if not self.is_whole or self._closed != set(self._blocks):
            raise IncompleteAnswer("the stream ended before the answer did")
        blocks = [self._finished(index) for index in sorted(self._blocks)]
        return read_answer({**self._message, "content": blocks, "usage": self._usage}, reasons)

    def _finished(self, index: int) -> dict[str, Any]:
        block = self._blocks[index]
        if index not in self._inputs:
            return block
        text = "".join(self._inputs[index])
        if not text:
            return block
        try:
            value = from_json(text)
        except ValueError:
            value = None
        return {**block, "input": value if isinstance(value, dict) else text}


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise IncompleteAnswer(f"{name} is no object")
    return value


def _index(event: Mapping[str, Any]) -> int:
    value = event.get("index")
    if type(value) is not int:
        raise IncompleteAnswer("an event does not say to which block it belongs")
    return value


def _piece(delta: Mapping[str, Any], name: str) -> str:
    value = delta.get(name)
    if not isinstance(value, str):
        raise IncompleteAnswer(f"{name} is no text")
    return value
