"""Requests of the chat protocol of OpenAI as JSON, in the dialect of the provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rh_agents.core.chat.messages import ChatRequest, DocumentPart, Message, TextPart
from rh_agents.core.chat.schema import strict_schema
from rh_agents.core.errors import InputError
from rh_agents.llms._output_modes import ANSWER_TOOL, answer_tool_of, expect_no_grammar, in_words, mode_of
from rh_agents.llms._providers import OutputMode, Provider
from rh_agents.llms._tool_images import with_images_beside_tools

_CHOICES = ("auto", "none", "required")
GRAMMARS = (
    "response_format", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs",  # vLLM
    "grammar", "json_schema",  # llama.cpp
    "regex", "ebnf",  # SGLang
)  # fmt: skip
"""The fields that hold every answer to a form."""


def request_body(
    request: ChatRequest,
    provider: Provider,
    *,
    length_field: str,
    stream: bool,
    assistant_after_tools: bool = False,
    mode: OutputMode | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """The fields of a request.

    Args:
        request: what to ask.
        provider: whom.
        length_field: what the server calls the most tokens that an answer may have.
        stream: whether the answer shall come in pieces.
        assistant_after_tools: whether no message of the user may follow one of a tool.
        mode: how the answer's type is asked for; by default as the provider likes it.
        strict: whether the provider is to hold the answer to the schema, in a form of it that allows that.

    Raises:
        InvalidRequest: the program asks for a form of all answers beside tools, where that rules the tools out.
    """
    with_tools = mode or provider.output_with_tools
    mode = mode_of(request, provider, mode)
    messages = with_images_beside_tools(request.messages, needs_bridge=assistant_after_tools)
    tools = [_function(tool.name, tool.description, tool.parameters, tool.strict) for tool in request.tools]
    choice = _tool_choice(request.tool_choice) if request.tools else None
    schema = request.output_schema
    if schema is not None and strict and mode != "prompt":
        schema = strict_schema(schema)
    if schema is not None and mode == "tool":
        name = answer_tool_of(request)
        tools.append(_function(name, ANSWER_TOOL, schema, strict))
        choice = choice if request.tools else _tool_choice(name)
    if tools:
        expect_no_grammar(request, request.extra, GRAMMARS, with_tools)
    fields: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request, messages, mode, provider),
        "temperature": request.temperature,
        "reasoning_effort": request.reasoning_effort,
        "top_p": request.top_p,
        "seed": request.seed,
        length_field: request.max_tokens,
        "stop": list(request.stop) or None,
        "parallel_tool_calls": request.parallel_tool_calls if request.tools else None,
        "tool_choice": choice,
        "tools": tools or None,
        "response_format": _response_format(request, schema, strict) if mode == "native" else None,
    }
    if stream:
        fields["stream"] = True
        fields["stream_options"] = {"include_usage": True}
    known = {name: name for name in fields} | dict(provider.field_names)
    body = {known[name]: value for name, value in fields.items() if value is not None}
    return {**{name: value for name, value in body.items() if name is not None}, **request.extra}


# -- messages ---------------------------------------------------------------------------------------------------------


def _messages(
    request: ChatRequest, messages: Sequence[Message], mode: OutputMode | None, provider: Provider
) -> list[dict[str, Any]]:
    written = [_message(message, provider) for message in messages]
    if mode == "prompt" or (mode == "native" and not provider.shows_schema):
        _add_instruction(written, in_words(request))
    return written


def _add_instruction(messages: list[dict[str, Any]], text: str) -> None:
    """Put a text behind what the model is told before everything else."""
    first = messages[0] if messages else None
    if first is not None and first["role"] == "system" and isinstance(first["content"], str):
        messages[0] = {**first, "content": f"{first['content']}\n\n{text}"}
    elif first is not None and first["role"] == "system":
        messages[0] = {**first, "content": [*first["content"], {"type": "text", "text": text}]}
    else:
        messages.insert(0, {"role": "system", "content": text})


def _message(message: Message, provider: Provider) -> dict[str, Any]:
    written: dict[str, Any] = {"role": message.role}
    if isinstance(message.content, str):
        written["content"] = message.content if message.content or not message.tool_calls else None
    else:
        written["content"] = [_part(part) for part in message.content]
    if message.tool_calls:
        written["tool_calls"] = [
            {
                "id": provider.call_id(call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
                **_given_back(call.provider, provider.gives_back_in_calls),
            }
            for call in message.tool_calls
        ]
        first = written["tool_calls"][0]
        written["tool_calls"][0] = {**provider.call_stand_in, **first}
        # Thoughts are wanted back together with the calls that came of them; elsewhere they are refused or ignored.
        written.update(_given_back(message.provider, provider.gives_back))
    if message.tool_call_id is not None:
        written["tool_call_id"] = provider.call_id(message.tool_call_id)
    return written


def _given_back(kept: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: kept[name] for name in fields if name in kept}


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


# -- tools and types --------------------------------------------------------------------------------------------------


def _function(name: str, description: str, parameters: dict[str, Any], strict: bool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name, "parameters": parameters}
    if description:
        function["description"] = description
    if strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: str | None) -> Any:
    if choice is None or choice in _CHOICES:
        return choice
    return {"type": "function", "function": {"name": choice}}


def _response_format(request: ChatRequest, schema: dict[str, Any] | None, strict: bool) -> dict[str, Any] | None:
    if schema is None:
        return None
    about: dict[str, Any] = {"name": request.output_name or "answer", "schema": schema}
    if strict:
        about["strict"] = True
    return {"type": "json_schema", "json_schema": about}
