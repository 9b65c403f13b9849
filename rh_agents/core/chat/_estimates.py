"""What a request will use at most, and what an answer used that does not say so: by rules that err upwards.

A token of a byte-level tokenizer is at least one byte, and about four in English prose, three in code and JSON, two to
three in other languages. So a token is taken for every two bytes. What a model *may* write is its `max_tokens`; without
one, the most that the model can write at all, as far as that is known.
"""

from __future__ import annotations

from rh_agents.core.chat.messages import ChatRequest, ChatResponse, DocumentPart, ImagePart, Message, TextPart
from rh_agents.core.usage import Usage

DEFAULT_OUTPUT = 4_096
"""Tokens that are reserved for an answer if neither the request nor anything that is known of the model bounds it."""
_BYTES_PER_TOKEN = 2
_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_IMAGE = 1_000
_TOKENS_PER_DOCUMENT = 10_000
"""Of a document that is not sent with the message, so that its size is not known."""


def tokens_in(text: str) -> int:
    """How many tokens a text has at most."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return -(-size // _BYTES_PER_TOKEN)


def input_tokens(request: ChatRequest) -> int:
    """How many tokens a request has at most."""
    tokens = 1 + sum(map(tokens_in_message, request.messages))
    tokens += sum(tokens_in(tool.model_dump_json()) for tool in request.tools)
    return tokens + (0 if request.output_schema is None else tokens_in(str(request.output_schema)))


def estimated_usage(request: ChatRequest, response: ChatResponse) -> Usage:
    """What an answer used that does not say so, from the text that was sent and received."""
    calls = sum(tokens_in(call.name) + tokens_in(call.arguments) for call in response.tool_calls)
    written = tokens_in(response.text) + tokens_in(response.reasoning) + tokens_in(response.refusal or "")
    return Usage(input_tokens(request), written + calls, requests=1, estimates=1)


def tokens_in_message(message: Message) -> int:
    """How many tokens a message has at most."""
    tokens = _TOKENS_PER_MESSAGE + sum(tokens_in(call.name) + tokens_in(call.arguments) for call in message.tool_calls)
    if isinstance(message.content, str):
        return tokens + tokens_in(message.content)
    return tokens + sum(map(tokens_in_part, message.content))


def tokens_in_part(part: TextPart | ImagePart | DocumentPart) -> int:
    """How many a part of a message has: a page of a PDF file has some kilobytes, and costs its text and an image."""
    if isinstance(part, TextPart):
        return tokens_in(part.text)
    if isinstance(part, ImagePart):
        return _TOKENS_PER_IMAGE
    return tokens_in(part.url) if part.url.startswith("data:") else _TOKENS_PER_DOCUMENT
