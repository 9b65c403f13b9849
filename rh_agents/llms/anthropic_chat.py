"""Anthropic's models, through the official client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, SecretStr, field_validator

from rh_agents.core.chat import ChatModel, ChatRequest, ChatResponse, FinishReason
from rh_agents.core.chat.model import OnDelta
from rh_agents.core.chat.schema import AnswerType
from rh_agents.core.errors import AccessDenied, IncompleteAnswer, ModelError
from rh_agents.core.redaction import Secret, is_credential_name, register_found
from rh_agents.core.usage import Price, Usage
from rh_agents.llms._clients import Clients, bounded
from rh_agents.llms._openai_request import AnswerTool, answer_tool_of
from rh_agents.llms._providers import OutputMode
from rh_agents.llms._sse import server_events
from rh_agents.llms.prices import PriceTable, load_prices, price_in

try:
    import anthropic
    import httpx2
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"AnthropicChat needs the package {_error.name}: pip install 'rh_agents[anthropic]'", name=_error.name
    ) from _error

from rh_agents.llms._anthropic_answer import AnswerInPieces, read_answer, read_json
from rh_agents.llms._anthropic_errors import CAUGHT, error_of, error_of_body
from rh_agents.llms._anthropic_request import Caching, request_body
from rh_agents.llms._http import UNSAID, http_client, was_not_sent
from rh_agents.llms._waits import advice_in
from rh_agents.llms.anthropic_batch import AnthropicBatchApi

__all__ = ["AnthropicChat"]

_LENGTH = 4_096
"""The most tokens of an answer if nobody says it; the protocol requires a number."""
_LENGTH_WITH_THOUGHTS = 16_384
"""The same if the model decides how much it thinks before it answers: that counts as well."""
_LONG_CACHING = 2.0
"""What it costs to put something into the cache for an hour, as a multiple of the price of input tokens
(https://platform.claude.com/docs/en/build-with-claude/prompt-caching)."""


class AnthropicChat(ChatModel):
    """One of Anthropic's models.

        model = AnthropicChat("claude-sonnet-4-5")
        thinking = AnthropicChat("claude-sonnet-4-5", thinking=4_000, prompt_cache="5m")

    Args:
        model: its name.
        base_url: where; by default what the environment variable ANTHROPIC_BASE_URL says, or else Anthropic.
        api_key: by default what ANTHROPIC_API_KEY says.
        settings: fields of `ChatModel`, and those below.

    What the model thinks is `response.reasoning`. It goes back with the message, with its signature, as tools require.
    Calls raise `ModelError`s by kind. The client's own retries are off: `retry` is the only layer.
    """

    base_url: str | None = None
    api_key: SecretStr | None = Field(default=None, repr=False)
    headers: Mapping[str, str] = Field(default_factory=dict)
    """Further headers of each request, such as `anthropic-beta`."""
    connect_timeout: float = 10.0
    """Seconds to get a connection."""
    max_bytes: int = Field(default=32 * 1024 * 1024, ge=1)
    """Answers that are larger than this are not read to their end."""
    prices: PriceTable | None = None
    """Prices by model in place of the library's: a mapping, or a file (see `rh_agents.llms.prices.load_prices`)."""
    thinking: int | Literal["adaptive"] | None = None
    """The most tokens that the model thinks before it answers (1,024 or more, part of `max_tokens`), or "adaptive" to
    leave it to the model. What it is, is part of the identity of calls."""
    prompt_cache: Caching | None = None
    """How long the provider keeps what requests have in common: "5m" or "1h". Marks the end of the tools and of what
    the model is told first, and the end of the conversation. Changes no answer, and so no identity."""
    output_mode: OutputMode = "native"
    """How an answer of a type is asked for: as a structured output ("native"), which goes together with tools; as the
    arguments of a further tool ("tool") or in words ("prompt"), for models that have no structured outputs."""
    finish_reasons: Mapping[str, FinishReason] = Field(default_factory=dict)
    """What further reasons for the end of an answer mean."""

    _clients: Clients = PrivateAttr(default_factory=Clients)

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | SecretStr | Secret | None = None,
        **settings: Any,
    ) -> None:
        key = api_key.reveal() if isinstance(api_key, Secret) else api_key
        secret = SecretStr(key) if isinstance(key, str) else key
        super().__init__(**{"model": model, "base_url": base_url, "api_key": secret, **settings})
        self._register_secrets()

    @field_validator("prices", mode="before")
    @classmethod
    def _loaded(cls, prices: Any) -> PriceTable | None:
        return None if prices is None else load_prices(prices)

    @field_validator("thinking")
    @classmethod
    def _is_enough(cls, thinking: Any) -> Any:
        if isinstance(thinking, int) and thinking < 1024:
            raise ValueError(f"thinking={thinking}: a number of tokens from 1024 on")
        return thinking

    def _register_secrets(self) -> None:
        """Keep the key out of everything that people read, and out of stores."""
        server = self.base_url or "Anthropic"
        if self.api_key is not None:
            register_found(f"api key for {server}", self.api_key.get_secret_value())
        for name, value in self.headers.items():
            if is_credential_name(name):
                register_found(f"{name} for {server}", value.rpartition(" ")[2])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections that this event loop uses. They are closed as well when `asyncio.run` ends."""
        await self._clients.aclose()

    # -- prices -------------------------------------------------------------------------------------------------------

    def price_of(self, response: ChatResponse) -> Price | None:
        """The given price, or that of the table for the model that answered."""
        return self.price or self._listed_price(response.model, self.model)

    @property
    def known_price(self) -> Price | None:
        """The given price, or that of the table."""
        return self.price or self._listed_price(self.model)

    def _listed_price(self, *models: str) -> Price | None:
        price = price_in(self.prices, "Anthropic", *models)
        if price is None or self.prompt_cache != "1h" or price.cache_write is None:
            return price
        return replace(price, cache_write=_LONG_CACHING * price.input)

    # -- requests -----------------------------------------------------------------------------------------------------

    def request(
        self,
        prompt: Any,
        system: str | None = None,
        tools: Any = (),
        tool_choice: str | None = None,
        answer: AnswerType | None = None,
        **settings: Any,
    ) -> ChatRequest:
        """As for every model. How much it thinks is a field of the request, since it decides what is answered."""
        request = super().request(prompt, system, tools, tool_choice, answer, **settings)
        if self.thinking is None or "thinking" in request.extra or isinstance(prompt, ChatRequest):
            return request
        thinking = (
            {"type": self.thinking}
            if isinstance(self.thinking, str)
            else {"type": "enabled", "budget_tokens": self.thinking}
        )
        return request.model_copy(update={"extra": {**request.extra, "thinking": thinking}})

    def body(self, request: ChatRequest, *, stream: bool = False) -> dict[str, Any]:
        """The fields of a request."""
        return request_body(
            request,
            default_length=self.known_max_output,
            mode=self._mode_of(request),
            caching=self.prompt_cache,
            stream=stream,
        )

    def _mode_of(self, request: ChatRequest) -> OutputMode | None:
        if request.output_schema is None:
            return None
        return "prompt" if self.output_mode == "tool" and request.tool_choice == "none" else self.output_mode

    def _answer_tool(self, request: ChatRequest) -> AnswerTool:
        """What reads answers that come as a tool call."""
        return AnswerTool(answer_tool_of(request) if self._mode_of(request) == "tool" else None)

    @property
    def known_max_output(self) -> int:
        """The most tokens of an answer where the request does not say it: what is sent then, and reserved."""
        if self.thinking == "adaptive":
            return _LENGTH_WITH_THOUGHTS
        return _LENGTH + (self.thinking if isinstance(self.thinking, int) else 0)

    def read(self, request: ChatRequest, data: Mapping[str, Any]) -> ChatResponse:
        """What a whole answer to a request says.

        Raises:
            ModelError: by kind; with what it used.
        """
        return self._answer_tool(request).read(read_answer(data, self.finish_reasons))

    def batch_api(self) -> AnthropicBatchApi:
        """Anthropic's Message Batches, for `in_batches`."""
        account = (self.base_url, self.api_key, self.model)
        return AnthropicBatchApi(self.name, account, self.sdk, self.body, self.read)

    async def complete(self, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
        """Ask once.

        Raises:
            ModelError: by kind; with what it used all the same.
        """
        client = await self.sdk()
        body = self.body(request, stream=on_delta is not None)
        try:
            async with client.messages.with_streaming_response.create(
                model=request.model, max_tokens=body["max_tokens"], messages=[], extra_body=body
            ) as response:
                advice = advice_in(response.headers)
                if advice is not None:
                    self.heed(advice)
                pieces = bounded(response.iter_bytes(), self.max_bytes)
                if on_delta is not None:
                    return await self._read_stream(request, pieces, on_delta)
                data = read_json(b"".join([piece async for piece in pieces]))
                if data.get("type") == "error":
                    raise error_of_body(data, self.name)
                return self.read(request, data)
        except CAUGHT as error:
            found = error_of(error, self.name)
            if found.status is None and not was_not_sent(error, anthropic.AnthropicError):
                self._count(found, request)
            raise found from error
        except ModelError as error:
            self._count(error, request)
            raise

    def _count(self, error: ModelError, request: ChatRequest) -> None:
        """Say what a request used whose answer is of no use and does not say that itself."""
        if error.usage is None and isinstance(error, UNSAID):
            error.usage = self.unanswered(request)

    async def _read_stream(self, request: ChatRequest, pieces: AsyncIterator[bytes], on_delta: OnDelta) -> ChatResponse:
        """Put the answer together. It is whole when the server has said so: both why it ended, and that it ended.

        Where it breaks off, the server has said what it read, and perhaps a part of what it wrote.
        """
        answer, tool = AnswerInPieces(), self._answer_tool(request)
        try:
            async for event in server_events(pieces):
                data = read_json(event.data)
                if data.get("type") == "error" or event.kind == "error":
                    raise error_of_body(data, self.name)
                delta = answer.add(data)
                if answer.is_whole:
                    return tool.read(answer.whole(self.finish_reasons))
                if delta is not None:
                    await on_delta(tool.delta(delta))
            raise IncompleteAnswer(f"{self.name}: the stream broke off before its end")
        except ModelError as error:
            error.usage = error.usage or self._so_far(answer, request)
            raise
        except CAUGHT as error:
            found = error_of(error, self.name)
            found.usage = self._so_far(answer, request)
            raise found from error

    def _so_far(self, answer: AnswerInPieces, request: ChatRequest) -> Usage | None:
        """What an answer used that broke off: its input as the server said, its output as it was reserved."""
        if answer.usage is None:
            return None
        reserved = self.unanswered(request)
        return replace(answer.usage, output_tokens=reserved.output_tokens, estimates=1)

    # -- the client ---------------------------------------------------------------------------------------------------

    async def sdk(self) -> anthropic.AsyncAnthropic:
        """The client that this event loop uses."""
        client: anthropic.AsyncAnthropic = await self._clients.get(self._make_sdk)
        return client

    def _make_sdk(self) -> anthropic.AsyncAnthropic:
        key = None if self.api_key is None else self.api_key.get_secret_value()
        timeout = httpx2.Timeout(self.idle_timeout, connect=self.connect_timeout, pool=None)
        try:
            sdk = anthropic.AsyncAnthropic(
                api_key=key,
                base_url=self.base_url,
                timeout=timeout,
                max_retries=0,
                default_headers=dict(self.headers),
                http_client=http_client(anthropic.DefaultAsyncHttpxClient, timeout),
            )
        except anthropic.AnthropicError as error:
            raise AccessDenied(f"{self.name}: no key: set ANTHROPIC_API_KEY, or pass api_key= ({error})") from error
        if key is None and sdk.api_key:
            register_found("ANTHROPIC_API_KEY", sdk.api_key)
        return sdk
