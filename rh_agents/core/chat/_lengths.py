"""How long the conversation of an agent is, in tokens.

Nobody knows that but the provider, who says so with each answer. What is added after it is estimated with the
proportion between told and estimated tokens of that answer; before there is one, with a token for every four bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from rh_agents.core.chat._estimates import input_tokens, tokens_in_message
from rh_agents.core.chat.messages import ChatRequest, Message
from rh_agents.core.usage import Usage

__all__ = ["Measure", "Size"]

_BEFORE_ANY_ANSWER = 0.5
"""Tokens for each that is estimated at most, which is one for every two bytes."""
_PROPORTIONS = (0.25, 1.5)
"""What is believed of the proportion between told and estimated tokens; a document may be far from it."""


class Measure:
    """How many tokens a request has, by what was told of the last one, and by estimates."""

    def __init__(self) -> None:
        self._sent = 0
        self._told = 0
        self.proportion = _BEFORE_ANY_ANSWER

    @property
    def is_told(self) -> bool:
        """Whether an answer said how many it was sent."""
        return self._told > 0

    def learn(self, request: ChatRequest, usage: Usage) -> None:
        """What an answer says about its request."""
        if usage.input_tokens and not usage.estimates:
            self._told, self._sent = usage.input_tokens, input_tokens(request)
            low, high = _PROPORTIONS
            self.proportion = min(high, max(low, self._told / self._sent))

    def tokens(self, estimated: int) -> int:
        """Those of a request that is estimated at so many at most."""
        if estimated < self._sent:  # something has gone, and nobody knows how much of what was told
            return round(min(self._told, self.proportion * estimated))
        return round(self._told + self.proportion * (estimated - self._sent))


class Size:
    """How many tokens the request for an answer has, with one conversation or another."""

    def __init__(self, measure: Measure, request: ChatRequest, history: Sequence[Message]) -> None:
        self._measure = measure
        self._around = input_tokens(request) - sum(map(tokens_in_message, history))
        """Those of instructions, tools and the schema of the answer, as estimated."""

    def __call__(self, history: Sequence[Message]) -> int:
        return self._measure.tokens(self._around + sum(map(tokens_in_message, history)))

    def share(self, estimated: int) -> int:
        """Tokens of a part that is estimated at so many at most."""
        return round(self._measure.proportion * estimated)
