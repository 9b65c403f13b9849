"""How long the conversation of an agent is, in tokens.

Nobody knows that but the provider, who says so with each answer. What was added since, or would go, is estimated. Text
and media (images and documents) are estimated apart: a text has a token for every two to six bytes, while the size of a
file says next to nothing. How far an estimate is off is learned for each of them from what an answer was sent more than
the one before it. So one large document does not spoil what is known of the text around it.

These estimates are likely ones. Those of `_estimates`, for budgets and rate limits, err upwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rh_agents.core.chat._estimates import input_tokens, tokens_in, tokens_in_message
from rh_agents.core.chat.messages import ChatRequest, DocumentPart, ImagePart, Message, TextPart
from rh_agents.core.usage import Usage

_TEXT = 0.5
"""Tokens of text, before any answer, for each that it has at most: that is one for every four bytes."""
_MEDIA = 1.0
_TEXT_RATES = (0.25, 2.0)
"""What is believed of a learned rate: one token for every eight bytes, or for every byte."""
_MEDIA_RATES = (0.05, 20.0)
_ENOUGH_TO_LEARN = 200
"""Estimated tokens that have to be new before anything is learned from them."""

_IMAGE = 1_000
_DOCUMENT = 10_000
"""Of a document that is not sent with the message."""
_CHARACTERS_OF_A_FILE = 20
"""Of the base64 form of a file, for each token: a page of a PDF file has 30 to 100 KB, and costs 1,500 to 3,000 tokens
(https://platform.claude.com/docs/en/build-with-claude/pdf-support)."""
_LEAST_OF_A_FILE = 1_000


class Parts(NamedTuple):
    """Tokens of a conversation by what they are: of text at most, of media probably."""

    text: int
    media: int

    def minus(self, other: Parts) -> Parts:
        return Parts(self.text - other.text, self.media - other.media)


class Measure:
    """How many tokens a request has, by what was reported of the last one, and by estimates."""

    def __init__(self) -> None:
        self._sent = Parts(0, 0)
        self._reported = 0
        self._text_rate = _TEXT
        self._media_rate = _MEDIA

    @property
    def is_reported(self) -> bool:
        """Whether an answer said how many it was sent."""
        return self._reported > 0

    def learn(self, request: ChatRequest, usage: Usage) -> None:
        """What an answer says about its request."""
        if not usage.input_tokens or usage.estimates:
            return
        sent = _parts_of_request(request)
        self._adjust(sent.minus(self._sent), usage.input_tokens - self._reported)
        self._reported, self._sent = usage.input_tokens, sent

    def _adjust(self, new: Parts, reported: int) -> None:
        """What so many tokens say about that. Nothing where some of the conversation went meanwhile."""
        if min(new) < 0 or sum(new) < _ENOUGH_TO_LEARN:
            return
        text, media = self._text_rate * new.text, self._media_rate * new.media
        if text >= media:
            self._text_rate = _within(_TEXT_RATES, (reported - media) / new.text)
        else:
            self._media_rate = _within(_MEDIA_RATES, (reported - text) / new.media)

    def tokens(self, parts: Parts) -> int:
        """Those of a request with these parts. Some are left, however many are thought to have gone."""
        known = self._reported + self.probable(parts.minus(self._sent))
        return max(known, round(_TEXT_RATES[0] * parts.text))

    def probable(self, parts: Parts) -> int:
        """How many tokens parts have, by estimates alone."""
        return round(self._text_rate * parts.text + self._media_rate * parts.media)


class Size:
    """How many tokens the request for an answer has, with one conversation or another."""

    def __init__(self, measure: Measure, request: ChatRequest, history: Sequence[Message]) -> None:
        self._measure = measure
        self._around = _parts_of_request(request).minus(_parts_of(history))
        """Those of instructions, tools and the schema of the answer."""

    def __call__(self, history: Sequence[Message]) -> int:
        found = _parts_of(history)
        return self._measure.tokens(Parts(self._around.text + found.text, self._around.media + found.media))

    def share(self, piece: str | ImagePart | DocumentPart) -> int:
        """Tokens of a part of it."""
        text = Parts(tokens_in(piece), 0) if isinstance(piece, str) else Parts(0, _tokens_of(piece))
        return self._measure.probable(text)


def _within(bounds: tuple[float, float], rate: float) -> float:
    low, high = bounds
    return min(high, max(low, rate))


def _parts_of_request(request: ChatRequest) -> Parts:
    media = _media_in(request.messages)
    return Parts(input_tokens(request.model_copy(update={"messages": _texts(request.messages)})), media)


def _parts_of(messages: Sequence[Message]) -> Parts:
    return Parts(sum(map(tokens_in_message, _texts(messages))), _media_in(messages))


def _texts(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages without their media."""
    return tuple(message if isinstance(message.content, str) else _text_of(message) for message in messages)


def _text_of(message: Message) -> Message:
    parts = tuple(part for part in message.content if isinstance(part, TextPart))
    return message.model_copy(update={"content": parts})


def _media_in(messages: Iterable[Message]) -> int:
    return sum(
        _tokens_of(part)
        for message in messages
        if not isinstance(message.content, str)
        for part in message.content
        if not isinstance(part, TextPart)
    )


def _tokens_of(part: ImagePart | DocumentPart) -> int:
    if isinstance(part, ImagePart):
        return _IMAGE
    if not part.url.startswith("data:"):
        return _DOCUMENT
    characters = 4 if (part.media_type or "").startswith("text/") else _CHARACTERS_OF_A_FILE
    return max(_LEAST_OF_A_FILE, len(part.url) // characters)
