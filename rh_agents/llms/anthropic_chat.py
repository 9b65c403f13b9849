"""Anthropic's models, through the official client."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, ClassVar, Literal, Unpack

from pydantic import SecretStr, field_validator

from rh_agents.core._base.key_generations import ENDPOINTS, EVERY_ENDPOINT
from rh_agents.core._base.signatures import takes_settings
from rh_agents.core.chat.messages import CallSettings, ChatRequest, ChatResponse
from rh_agents.core.chat.model import OnDelta
from rh_agents.core.chat.schema import AnswerType
from rh_agents.core.context import trace_headers
from rh_agents.core.errors import IncompleteAnswer
from rh_agents.core.redaction import Secret
from rh_agents.core.usage import Price, Usage

try:
    import anthropic
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"AnthropicChat needs the package {_error.name}: pip install 'rh_agents[anthropic]'", name=_error.name
    ) from _error

from rh_agents.llms._anthropic_answer import AnswerInPieces, read_answer, usage_of
from rh_agents.llms._anthropic_errors import CLIENT_ERRORS
from rh_agents.llms._anthropic_request import request_body
from rh_agents.llms._client_errors import ClientErrors
from rh_agents.llms._clients import ClientModel
from rh_agents.llms._http import http_client
from rh_agents.llms._providers import MESSAGES, WireProtocol
from rh_agents.llms._server_json import read_json
from rh_agents.llms._settings import AnthropicSettings, Caching
from rh_agents.llms._sse import server_events
from rh_agents.llms.anthropic_batch import AnthropicBatchApi

__all__ = ["AnthropicChat"]

_LENGTH = 4_096
"""The most tokens of an answer if no one says it; the protocol requires a number."""
_LENGTH_WITH_THOUGHTS = 16_384
"""The same if the model decides how much it thinks before it answers: that counts as well."""
_LONG_CACHING = 2.0
"""What it costs to put something into the cache for an hour, as a multiple of the price of input tokens
(https://platform.claude.com/docs/en/build-with-claude/prompt-caching)."""


class AnthropicChat(ClientModel):
    """One of Anthropic's models.

        model = AnthropicChat("claude-sonnet-4-5")
        thinking = AnthropicChat("claude-sonnet-4-5", thinking=4_000, prompt_cache="5m")

    Args:
        model: its name.
        base_url: where; by default what the environment variable ANTHROPIC_BASE_URL says, or else Anthropic.
        api_key: by default what ANTHROPIC_API_KEY says.
        settings: fields of `ChatModel`, those of every model behind a client, and those below. None of them are part of
            the identity of calls, but for what decides an answer, and for the server: `endpoint="my proxy"`, or else
            the URL (scheme, host, port, path; nothing for Anthropic's own).

    What the model thinks is `response.reasoning`. It goes back with the message, with its signature, as tools require.
    Calls raise `ModelError`s by kind. The client's own retries are off: `retry` is the only layer.
    """

    thinking: int | Literal["adaptive"] | None = None
    """The most tokens that the model thinks before it answers (1,024 or more, part of `max_tokens`), or "adaptive" to
    leave it to the model. What it is, is part of the identity of calls."""
    prompt_cache: Caching | None = None
    """How long the provider keeps what requests have in common: "5m" or "1h". Marks the end of the tools and of what
    the model gets first, and the end of the conversation. Changes no answer, and so no identity."""
    protocol: ClassVar[WireProtocol] = MESSAGES
    client_errors: ClassVar[ClientErrors] = CLIENT_ERRORS
    key_variable: ClassVar[str] = "ANTHROPIC_API_KEY"
    key_advice: ClassVar[str] = "set ANTHROPIC_API_KEY, or pass api_key="

    @takes_settings(AnthropicSettings)
    def __init__(  # written out for type checkers, which take the fields of a class for its arguments otherwise
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | SecretStr | Secret | None = None,
        **settings: Unpack[AnthropicSettings],
    ) -> None:
        super().__init__(model, base_url, api_key, **settings)

    @field_validator("thinking")
    @classmethod
    def _is_enough(cls, thinking: Any) -> Any:
        if isinstance(thinking, int) and thinking < 1024:
            raise ValueError(f"thinking={thinking}: a number of tokens from 1024 on")
        return thinking

    @property
    def keys_since(self) -> int:
        """Its address was no part of keys when that of other models was; a name that was given to its server was."""
        return EVERY_ENDPOINT if self.endpoint is None else ENDPOINTS

    # -- prices -------------------------------------------------------------------------------------------------------

    def _listed_price(self, *models: str) -> Price | None:
        price = super()._listed_price(*models)
        return None if price is None else _with_an_hour(price, is_usual=self.prompt_cache == "1h")

    def estimate(self, request: ChatRequest) -> Usage:
        """As for every model. Where it is to keep the conversation in its cache, all of it may have to be paid so."""
        found = super().estimate(request)
        if self.prompt_cache is None:
            return found
        longer = found.input_tokens if self.prompt_cache == "1h" else 0
        found = replace(found, cost=0.0, cache_write_tokens=found.input_tokens, long_cache_write_tokens=longer)
        price = self.known_price
        return replace(found, cost=math.nan if price is None else price.cost(found) * self.discount)

    # -- requests -----------------------------------------------------------------------------------------------------

    def request(
        self,
        prompt: Any,
        system: str | None = None,
        tools: Any = (),
        tool_choice: str | None = None,
        answer: AnswerType | None = None,
        **settings: Unpack[CallSettings],
    ) -> ChatRequest:
        """As for every model. How much it thinks is a field of the request, since it decides what is answered."""
        request = super().request(prompt, system, tools, tool_choice, answer, **settings)
        if "thinking" in request.extra or isinstance(prompt, ChatRequest) or not self.own_fields:
            return request
        return request.model_copy(update={"extra": {**request.extra, **self.own_fields}})

    @property
    def own_fields(self) -> dict[str, Any]:
        """How much it thinks."""
        if self.thinking is None:
            return {}
        if isinstance(self.thinking, str):
            return {"thinking": {"type": self.thinking}}
        return {"thinking": {"type": "enabled", "budget_tokens": self.thinking}}

    def body(self, request: ChatRequest, *, stream: bool = False) -> dict[str, Any]:
        """The fields of a request."""
        return request_body(
            request,
            self.provider,
            default_length=self.known_max_output,
            mode=self.output_mode,
            caching=self.prompt_cache,
            stream=stream,
        )

    @property
    def known_max_output(self) -> int:
        """The most tokens of an answer where the request does not say it: what is sent then, and reserved. It is never
        more than `max_output`, the most that the model can write.
        """
        length = _LENGTH_WITH_THOUGHTS if self.thinking == "adaptive" else _LENGTH
        length += self.thinking if isinstance(self.thinking, int) else 0
        return length if self.max_output is None else min(length, self.max_output)

    @property
    def reserved_output(self) -> int:
        """Each request says it."""
        return self.max_tokens or self.known_max_output

    def read(self, request: ChatRequest, data: Mapping[str, Any]) -> ChatResponse:
        """What a whole answer to a request says.

        Raises:
            ModelError: by kind; with what it used.
        """
        return self._answer_tool(request).read(read_answer(data, self.name, self.finish_reasons))

    def batch_api(self) -> AnthropicBatchApi:
        """Anthropic's Message Batches, for `in_batches`."""
        return AnthropicBatchApi(self)

    def _send(
        self, client: anthropic.AsyncAnthropic, request: ChatRequest, body: dict[str, Any]
    ) -> AbstractAsyncContextManager[Any]:
        return client.messages.with_streaming_response.create(
            model=request.model,
            max_tokens=body["max_tokens"],
            messages=[],
            extra_body=body,
            extra_headers=trace_headers(),
        )

    def _usage_in(self, answer: Mapping[str, Any]) -> Usage | None:
        return usage_of(answer)

    async def _read_stream(self, request: ChatRequest, pieces: AsyncIterator[bytes], on_delta: OnDelta) -> ChatResponse:
        """Put the answer together. It is whole when the server has said so: both why it ended, and that it ended.

        Where it breaks off, the server has said what it read, and perhaps a part of what it wrote.
        """
        answer, tool = AnswerInPieces(self.name, self.finish_reasons), self._answer_tool(request)
        with self._counted(lambda: self._so_far(answer, request)):
            async for event in server_events(pieces):
                delta = answer.add(read_json(event.data), event.kind)
                if answer.is_whole:
                    return tool.read(answer.whole())
                if delta is not None:
                    await on_delta(tool.delta(delta))
            raise IncompleteAnswer(f"{self.name}: the stream broke off before its end")

    def _so_far(self, answer: AnswerInPieces, request: ChatRequest) -> Usage | None:
        """What an answer used that broke off: its input as the server said, its output as it was reserved."""
        reserved = self.unanswered(request)
        if answer.usage is None:
            return reserved if answer.has_begun else None
        return replace(answer.usage, output_tokens=reserved.output_tokens, estimates=1)

    def _new_client(self, url: str | None, **common: Any) -> anthropic.AsyncAnthropic:
        """A client. It adds `/v1` to the URL, where the client of OpenAI wants it to be given; so both will do."""
        base_url = None if url is None else url.rstrip("/").removesuffix("/v1")
        client = http_client(anthropic.DefaultAsyncHttpxClient, common["timeout"])
        return anthropic.AsyncAnthropic(base_url=base_url, http_client=client, **common)


def _with_an_hour(price: Price, *, is_usual: bool) -> Price:
    """The price with that of an hour in the cache. If that `is_usual`, it counts where an answer does not say for how
    long it keeps what.
    """
    if price.cache_write is None:
        return price
    hour = _LONG_CACHING * price.input if price.long_cache_write is None else price.long_cache_write
    above = None if price.above is None else (price.above[0], _with_an_hour(price.above[1], is_usual=is_usual))
    return replace(price, cache_write=hour if is_usual else price.cache_write, long_cache_write=hour, above=above)
