"""The chat protocol of OpenAI, which many servers speak: requests and answers as JSON, and what is wrong with them.

Everything that comes from a server is checked: it may be anybody's program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from rh_agents.core.chat import (
    ChatDelta,
    ChatRequest,
    ChatResponse,
    DocumentPart,
    FinishReason,
    Message,
    TextPart,
    ToolCall,
)
from rh_agents.core.errors import IncompleteAnswer, InputError
from rh_agents.core.usage import Usage
from rh_agents.llms._tool_images import with_images_beside_tools

__all__ = ["AnswerInPieces", "read_answer", "read_json", "request_body"]

_CHOICES = ("auto", "none", "required")
_REASONS = {
    "stop": FinishReason.STOP,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}

# -- requests ---------------------------------------------------------------------------------------------------------


def request_body(
    request: ChatRequest,
    *,
    length_field: str,
    stream: bool,
    names: Mapping[str, str | None] | None = None,
    assistant_after_tools: bool = False,
) -> dict[str, Any]:
    """The fields of a request.

    Args:
        request: what to ask.
        length_field: what the server calls the greatest number of tokens.
        stream: whether the answer shall come in pieces.
        names: what the server calls other fields; None for those that it refuses.
        assistant_after_tools: whether no message of the user may follow one of a tool.
    """
    messages = with_images_beside_tools(request.messages, needs_bridge=assistant_after_tools)
    fields: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in messages],
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        length_field: request.max_tokens,
        "stop": list(request.stop) or None,
        "parallel_tool_calls": request.parallel_tool_calls if request.tools else None,
        "tool_choice": _tool_choice(request.tool_choice) if request.tools else None,
        "tools": [_tool(request, index) for index in range(len(request.tools))] or None,
        "response_format": _response_format(request),
    }
    if stream:
        fields["stream"] = True
        fields["stream_options"] = {"include_usage": True}
    known = {name: name for name in fields} | dict(names or {})
    body = {known[name]: value for name, value in fields.items() if value is not None}
    return {**{name: value for name, value in body.items() if name is not None}, **request.extra}


def _message(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = {"role": message.role}
    if isinstance(message.content, str):
        written["content"] = message.content if message.content or not message.tool_calls else None
    else:
        written["content"] = [_part(part) for part in message.content]
    if message.tool_calls:
        written["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        written["tool_call_id"] = message.tool_call_id
    return written


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, DocumentPart):
        return _document(part)
    image = {"url": part.url} if part.detail is None else {"url": part.url, "detail": part.detail}
    return {"type": "image_url", "image_url": image}


def _document(part: DocumentPart) -> dict[str, Any]:
    """A text file as text, since the protocol takes no other; anything else as a file, whose bytes have to be there."""
    data = part.data
    if data is None:
        raise InputError(f"a document is sent with its bytes: read {part.url!r}, and use DocumentPart.from_bytes")
    if (part.media_type or "").startswith("text/"):
        title = f"{part.name}:\n" if part.name else ""
        return {"type": "text", "text": title + data.decode(errors="replace")}
    return {"type": "file", "file": {"filename": part.name or "document.pdf", "file_data": part.url}}


def _tool(request: ChatRequest, index: int) -> dict[str, Any]:
    tool = request.tools[index]
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: str | None) -> Any:
    if choice is None or choice in _CHOICES:
        return choice
    return {"type": "function", "function": {"name": choice}}


def _response_format(request: ChatRequest) -> dict[str, Any] | None:
    if request.output_schema is None:
        return None
    schema = {"name": request.output_name or "answer", "schema": request.output_schema}
    return {"type": "json_schema", "json_schema": schema}


# -- answers ----------------------------------------------------------------------------------------------------------


def read_json(data: bytes) -> dict[str, Any]:
    """An answer, or a piece of one.

    Raises:
        IncompleteAnswer: it is no JSON object. Too deep nesting and halves of surrogate pairs are none, either.
    """
    try:
        value = from_json(data)
    except ValueError as error:
        raise IncompleteAnswer(f"the answer is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise IncompleteAnswer(f"the answer is no JSON object, but {_kind(value)}")
    return value


def read_answer(data: Mapping[str, Any]) -> ChatResponse:
    """A whole answer.

    Raises:
        IncompleteAnswer: it has not the form that the protocol asks for, or does not say why it ended.
    """
    choice = _object(_first(data.get("choices")), "choices[0]")
    message = _object(choice.get("message"), "message")
    filtered = _filtered(choice)
    calls = message.get("tool_calls") or ()
    if not isinstance(calls, list | tuple):
        raise IncompleteAnswer(f"tool_calls is {_kind(calls)}, not a list")
    return ChatResponse(
        text=_text(message.get("content"), "content"),
        tool_calls=tuple(_tool_call(call, index) for index, call in enumerate(calls)),
        finish_reason=FinishReason.CONTENT_FILTER if filtered else _finish_reason(choice.get("finish_reason")),
        refusal=_text(message.get("refusal"), "refusal") or filtered or None,
        model=_text(data.get("model"), "model"),
        response_id=_text(data.get("id"), "id") or None,
        usage=_usage(data.get("usage")),
    )


class _CallInPieces:
    """A tool call that comes bit by bit."""

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments = ""

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are complete, so that nothing can be added to them."""
        try:
            return isinstance(from_json(self.arguments), dict)
        except ValueError:
            return False


class _CallsInPieces:
    """Which piece belongs to which tool call.

    The protocol numbers the calls, and names each in its first piece. Servers differ: some number all of them 0 or none
    at all, some repeat the name, some give no ids and send each call whole. To join two calls is to call a tool with
    the arguments of another one, so a piece begins a new call wherever it can: with an id that no call has yet, with a
    number that no call has yet, and, where there is no id, with a name and arguments though the call so far is whole.
    """

    def __init__(self) -> None:
        self._calls: list[_CallInPieces] = []

    def add(self, call: Mapping[str, Any]) -> ChatDelta:
        """Take in the next piece; what is new in it.

        Raises:
            IncompleteAnswer: it has not the form that the protocol asks for.
        """
        index = call.get("index")
        if index is not None and type(index) is not int:
            raise IncompleteAnswer(f"the index of a tool call is {_kind(index)}, not a number")
        function = _object(call.get("function") or {}, "function")
        name, arguments = _text(function.get("name"), "name"), _arguments(function.get("arguments"))
        found = self._call_of(_text(call.get("id"), "id"), index, name, arguments)
        found.name = found.name or name
        found.arguments += arguments
        return ChatDelta(tool_index=self._calls.index(found), tool_name=name, arguments=arguments)

    def _call_of(self, call_id: str, index: int | None, name: str, arguments: str) -> _CallInPieces:
        """The call to which such a piece belongs."""
        same = self._calls if index is None else [call for call in self._calls if call.index == index]
        if call_id:
            late = same[-1:] if same and not same[-1].id and not name else []  # its id comes after its name
            same = [call for call in self._calls if call.id == call_id] or late
        elif same and name and arguments and same[-1].is_whole:
            same = []
        if same:
            same[-1].id = same[-1].id or call_id
            return same[-1]
        new = _CallInPieces(index)
        new.id = call_id
        self._calls.append(new)
        return new

    def whole(self) -> tuple[ToolCall, ...]:
        """All of them, in the order of their numbers, and of their beginnings where those are equal or missing.

        Raises:
            IncompleteAnswer: one of them has no name.
        """
        calls = sorted(self._calls, key=lambda call: call.index or 0)
        return tuple(
            ToolCall(id=call.id or f"call_{number}", name=_named(call.name), arguments=call.arguments)
            for number, call in enumerate(calls)
        )


class AnswerInPieces:
    """An answer that comes bit by bit."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls = _CallsInPieces()
        self._reason: FinishReason | None = None
        self._filtered = ""
        self._usage = Usage()
        self._model = ""
        self._id = ""

    def add(self, data: Mapping[str, Any]) -> list[ChatDelta]:
        """Take in the next piece; what is new in it.

        Raises:
            IncompleteAnswer: it has not the form that the protocol asks for.
        """
        self._model = _text(data.get("model"), "model") or self._model
        self._id = _text(data.get("id"), "id") or self._id
        if data.get("usage") is not None:
            self._usage = _usage(data["usage"])
        choices = data.get("choices")
        if not choices:
            return []  # the piece that tells the usage
        choice = _object(_first(choices), "choices[0]")
        if choice.get("finish_reason") is not None:
            self._reason = _finish_reason(choice["finish_reason"])
        self._filtered = self._filtered or _filtered(choice)
        return self._add_delta(_object(choice.get("delta") or {}, "delta"))

    def _add_delta(self, delta: Mapping[str, Any]) -> list[ChatDelta]:
        text, refusal = _text(delta.get("content"), "content"), _text(delta.get("refusal"), "refusal")
        found = []
        if text or refusal:
            self._text.append(text)
            self._refusal.append(refusal)
            found.append(ChatDelta(text=text, refusal=refusal))
        calls = delta.get("tool_calls") or []
        if not isinstance(calls, list):
            raise IncompleteAnswer(f"tool_calls is {_kind(calls)}, not a list")
        found.extend(self._calls.add(_object(call, "tool_calls")) for call in calls)
        return found

    def whole(self) -> ChatResponse:
        """The answer, when the stream has come to its end.

        Raises:
            IncompleteAnswer: it does not say why it ended.
        """
        if self._reason is None:
            raise IncompleteAnswer("the stream ended before the answer did")
        return ChatResponse(
            text="".join(self._text),
            tool_calls=self._calls.whole(),
            finish_reason=FinishReason.CONTENT_FILTER if self._filtered else self._reason,
            refusal="".join(self._refusal) or self._filtered or None,
            model=self._model,
            response_id=self._id or None,
            usage=self._usage,
        )


def _tool_call(call: Any, number: int) -> ToolCall:
    call = _object(call, "a tool call")
    function = _object(call.get("function"), "function")
    return ToolCall(
        id=_text(call.get("id"), "id") or f"call_{number}",
        name=_named(_text(function.get("name"), "name")),
        arguments=_arguments(function.get("arguments")),
    )


def _arguments(value: Any) -> str:
    """The arguments of a tool call, or a piece of them, as the text of JSON. Some servers have read them already."""
    return to_json(value).decode() if isinstance(value, dict) else _text(value, "arguments")


def _named(name: str) -> str:
    if not name:
        raise IncompleteAnswer("a tool call names no tool")
    return name


def _filtered(choice: Mapping[str, Any]) -> str:
    """What Azure's content filter found in an answer; empty if it let it pass. A verdict may come after the reason for
    which the answer ended, and takes it back."""
    results = choice.get("content_filter_results")
    if not isinstance(results, dict):
        return ""
    found = [kind for kind, each in results.items() if isinstance(each, dict) and each.get("filtered") is True]
    return f"the content filter found {', '.join(found)}" if found else ""


def _finish_reason(reason: Any) -> FinishReason:
    if not isinstance(reason, str):
        raise IncompleteAnswer("the answer does not say why it ended")
    return _REASONS.get(reason, FinishReason.OTHER)


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    read, written = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        input_tokens=_count(usage, "prompt_tokens"),
        output_tokens=_count(usage, "completion_tokens"),
        cached_tokens=min(_count(read, "cached_tokens"), _count(usage, "prompt_tokens")),
        reasoning_tokens=_count(written, "reasoning_tokens"),
        requests=1,
    )


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


def _first(values: Any) -> Any:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise IncompleteAnswer("the answer has no choices")
    return values[0]


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise IncompleteAnswer(f"{place} is {_kind(value)}, not an object")
    return value


def _text(value: Any, place: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise IncompleteAnswer(f"{place} is {_kind(value)}, not a text")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
