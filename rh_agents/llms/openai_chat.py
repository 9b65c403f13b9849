"""Models behind any endpoint that speaks the chat protocol of OpenAI, through the official client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

from pydantic import Field, PrivateAttr, SecretStr, field_validator

from rh_agents.core.chat import ChatModel, ChatRequest, ChatResponse, FinishReason
from rh_agents.core.chat.model import OnDelta
from rh_agents.core.errors import (
    AccessDenied,
    IncompleteAnswer,
    ModelError,
    PermanentModelError,
)
from rh_agents.core.policies.pause import Pause
from rh_agents.core.redaction import Secret, is_credential_name, register_found
from rh_agents.core.usage import Price
from rh_agents.llms._clients import Clients, bounded
from rh_agents.llms._endpoints import endpoint_of, given_or_environment
from rh_agents.llms._openai_json import read_json
from rh_agents.llms._openai_request import AnswerTool, answer_tool_of, mode_of, request_body
from rh_agents.llms._openai_usage import salvaged_usage
from rh_agents.llms._outputs import max_output_of
from rh_agents.llms._providers import UNKNOWN, OutputMode, Provider, provider_at, provider_named
from rh_agents.llms._sse import ServerEvent, server_events
from rh_agents.llms._waits import advice_in
from rh_agents.llms.prices import PriceTable, load_prices, price_in

try:
    import httpx2
    import openai
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"OpenAIChat needs the package {_error.name}: pip install 'rh_agents[openai]'", name=_error.name
    ) from _error

from rh_agents.llms._http import UNSAID, http_client, was_not_sent
from rh_agents.llms._openai_answer import BROKEN_OFF, AnswerInPieces, read_answer
from rh_agents.llms._openai_errors import ERRORS, TRANSPORT_ERRORS, error_of, error_of_body
from rh_agents.llms.openai_batch import OpenAIBatchApi

__all__ = ["OpenAIChat"]

_CAUGHT = (*ERRORS, *TRANSPORT_ERRORS)
_END = b"[DONE]"
_AFTER_THE_END = 0.5
"""Seconds. Some servers say what was used after the end event, and some keep the connection open without a word."""
_pauses: WeakValueDictionary[tuple[Any, ...], Pause] = WeakValueDictionary()
"""By server, model and key: a limit belongs to an account, not to an object of this program."""


class OpenAIChat(ChatModel):
    """A model behind an endpoint of OpenAI, or of any other server that speaks its chat protocol.

        model = OpenAIChat("gpt-4.1-mini")
        local = OpenAIChat("qwen3", base_url="http://127.0.0.1:8000/v1", api_key="none")

    Args:
        model: its name there.
        base_url: where; by default what the environment variable OPENAI_BASE_URL says, or else OpenAI.
        api_key: by default what OPENAI_API_KEY says.
        settings: fields of `ChatModel`, such as `temperature=0`, `limits=RateLimit(requests=500)` or `stream=True`, and
            those below. None of them are part of the identity of calls, but for what is sent with each request, and
            for the server: `endpoint="my vLLM"`, or else the URL (scheme, host, port, path; nothing for OpenAI's own).

    Calls raise `ModelError`s by kind. Their `timeout` is for a whole attempt, `idle_timeout` for the time in which
    nothing comes. The client's own retries are off: `retry` is the only layer.
    """

    base_url: str | None = None
    api_key: SecretStr | None = Field(default=None, repr=False)
    headers: Mapping[str, str] = Field(default_factory=dict)
    """Further headers of each request."""
    connect_timeout: float = 10.0
    """Seconds to get a connection."""
    max_bytes: int = Field(default=32 * 1024 * 1024, ge=1)
    """Answers that are larger than this are not read to their end."""
    dialect: str | None = None
    """Whose dialect the server speaks, such as "vLLM" or "DeepSeek": for proxies and servers of your own. By default
    that of its host."""
    prices: PriceTable | None = None
    """Prices by model in place of the library's: a mapping, or a file (see `rh_agents.llms.prices.load_prices`)."""
    output_mode: OutputMode | None = None
    """How an answer of a type is asked for: "native" (`response_format`), "tool" (as the arguments of a further tool)
    or "prompt" (in words). By default as the provider at the address takes it best, with tools and without."""
    strict: bool = False
    """Whether the provider is asked to hold answers to the schema, in a form of it in which every field is required."""
    finish_reasons: Mapping[str, str] = Field(default_factory=dict)
    """What the server says about why an answer ended, if that is not known here: `{"eos": "stop"}`. The meanings are
    "stop", "tool_calls", "length", "content_filter", "broken off" (asked again if `retry` says so) and "other"."""
    length_field: str | None = None
    """What the server calls `max_tokens`; by default what its provider does: OpenAI says `max_completion_tokens`."""
    assistant_after_tools: bool | None = None
    """Whether the server refuses a message of the user that follows one of a tool, as those with models of Mistral do;
    the images of a tool's result come in such a message. By default what its provider does."""

    has_batches: ClassVar[bool] = True
    """Whether its requests can go through the Batch API of OpenAI."""

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

    @field_validator("dialect")
    @classmethod
    def _is_known(cls, dialect: str | None) -> str | None:
        return None if dialect is None else provider_named(dialect).name

    @field_validator("finish_reasons")
    @classmethod
    def _mean_something(cls, reasons: Mapping[str, str]) -> Mapping[str, str]:
        known = [BROKEN_OFF, *map(str, FinishReason)]
        for reason, meaning in reasons.items():
            if meaning not in known:
                raise ValueError(f"{reason!r} cannot mean {meaning!r}; it can mean {', '.join(map(repr, known))}")
        return reasons

    @field_validator("prices", mode="before")
    @classmethod
    def _loaded(cls, prices: Any) -> PriceTable | None:
        return None if prices is None else load_prices(prices)

    def _register_secrets(self) -> None:
        """Keep the key out of everything that people read, and out of stores."""
        server = self.base_url or "OpenAI"
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

    def price_of(self, response: ChatResponse) -> Price | None:
        """The given price, or that of the table for the model that answered."""
        return self.price or self._listed_price(response.model, self.model)

    @property
    def known_price(self) -> Price | None:
        """The given price, or that of the table."""
        return self.price or self._listed_price(self.model)

    def _listed_price(self, *models: str) -> Price | None:
        provider = self.provider
        return price_in(self.prices, None if provider is UNKNOWN else provider.name, *models)

    @property
    def known_max_output(self) -> int | None:
        """The given one, or that of the table."""
        return self.max_output or max_output_of(self.model)

    @property
    def provider(self) -> Provider:
        """What is known of the provider: the one that was named, or that at its address."""
        return provider_at(self.base_url) if self.dialect is None else provider_named(self.dialect)

    @property
    def endpoint_identity(self) -> str:
        """The given name of its server, or its URL in one form; "" for OpenAI's own."""
        return self._url_identity if self.endpoint is None else self.endpoint

    @property
    def _url_identity(self) -> str:
        return endpoint_of(given_or_environment(self.base_url))

    @property
    def pause(self) -> Pause:
        """What all models share, however many objects there are, that ask with this key for this model there."""
        if self._pause is None:
            key = "" if self.api_key is None else self.api_key.get_secret_value()
            whose = (type(self), self._url_identity, self.model, key)
            self._pause = _pauses.setdefault(whose, Pause(self.name))
        return self._pause

    @property
    def length_name(self) -> str:
        """What the server calls the greatest number of tokens."""
        return self.length_field or self.provider.length_field

    @property
    def says_something_after_tools(self) -> bool:
        """Whether a message of the assistant is put between one of a tool and one of the user."""
        given = self.assistant_after_tools
        return self.provider.assistant_after_tools if given is None else given

    async def sdk(self) -> openai.AsyncOpenAI:
        """The client that this event loop uses; for what is not a question to a model."""
        client: openai.AsyncOpenAI = await self._clients.get(self._make_sdk)
        return client

    def batch_api(self) -> OpenAIBatchApi | None:
        """The server's batches, for `in_batches`; None if it has none."""
        if not self.has_batches:
            return None
        account = (self.base_url, self.api_key, self.model)
        return OpenAIBatchApi(self.name, account, self.sdk, self.body, self.read)

    def body(self, request: ChatRequest, *, stream: bool = False) -> dict[str, Any]:
        """The fields of a request, in the dialect of the provider."""
        return request_body(
            request,
            self.provider,
            length_field=self.length_name,
            stream=stream,
            assistant_after_tools=self.says_something_after_tools,
            mode=self.output_mode,
            strict=self.strict,
        )

    def read(self, request: ChatRequest, data: Mapping[str, Any]) -> ChatResponse:
        """What a whole answer to a request says.

        Raises:
            ModelError: by kind; with what it used, as far as it says so.
        """
        response = read_answer(data, self.name, self.provider, self.finish_reasons)
        return self._answer_tool(request).read(response)

    def _answer_tool(self, request: ChatRequest) -> AnswerTool:
        """What reads answers that come as a tool call."""
        is_used = mode_of(request, self.provider, self.output_mode) == "tool"
        return AnswerTool(answer_tool_of(request) if is_used else None)

    async def complete(self, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
        """Ask once.

        Raises:
            ModelError: by kind; with what it used all the same.
        """
        client = await self.sdk()
        body = self.body(request, stream=on_delta is not None)
        try:
            async with client.chat.completions.with_streaming_response.create(
                model=request.model, messages=[], extra_body=body
            ) as response:
                advice = advice_in(response.headers)
                if advice is not None:
                    self.heed(advice)
                pieces = bounded(response.iter_bytes(), self.max_bytes)
                if on_delta is None:
                    return self._read_whole(request, b"".join([piece async for piece in pieces]))
                return await self._read_stream(request, pieces, on_delta)
        except _CAUGHT as error:
            found = error_of(error, self.name)
            if found.status is None and not was_not_sent(error, openai.OpenAIError):
                self._count(found, request)
            raise found from error
        except ModelError as error:
            self._count(error, request)
            raise

    def _count(self, error: ModelError, request: ChatRequest) -> None:
        """Say what a request used whose answer is of no use and does not say that itself."""
        is_unsaid = isinstance(error, UNSAID) or type(error) is PermanentModelError
        if error.usage is None and is_unsaid:
            error.usage = self.unanswered(request)

    def _read_whole(self, request: ChatRequest, data: bytes) -> ChatResponse:
        if not data.strip():
            raise IncompleteAnswer(f"{self.name}: the answer ended before it began")
        try:
            answer = read_json(data)
        except ModelError as error:
            error.usage = salvaged_usage(data)
            raise
        return self.read(request, answer)

    async def _read_stream(self, request: ChatRequest, pieces: AsyncIterator[bytes], on_delta: OnDelta) -> ChatResponse:
        """Put the answer together. It is whole when the server has said so: both why it ended, and that it ended."""
        answer = AnswerInPieces(self.name, self.provider, self.finish_reasons)
        tool = self._answer_tool(request)
        events = server_events(pieces)
        try:
            async for kind, data in events:
                if data == _END:
                    if answer.usage is None:
                        await _hear_out(events, answer)
                    return tool.read(answer.whole())
                piece = read_json(data)
                if kind == "error" and not piece.get("error"):
                    raise error_of_body(piece, self.name)
                for delta in answer.add(piece):
                    await on_delta(tool.delta(delta))
            raise answer.broke_off()
        except ModelError as error:
            error.usage = error.usage or answer.usage
            raise
        except _CAUGHT as error:
            found = error_of(error, self.name)
            found.usage = answer.usage
            raise found from error

    def _make_sdk(self) -> openai.AsyncOpenAI:
        key = None if self.api_key is None else self.api_key.get_secret_value()
        timeout = httpx2.Timeout(self.idle_timeout, connect=self.connect_timeout, pool=None)
        try:
            sdk = openai.AsyncOpenAI(
                api_key=key,
                base_url=self.base_url,
                timeout=timeout,
                max_retries=0,
                default_headers=dict(self.headers),
                http_client=http_client(openai.DefaultAsyncHttpxClient, timeout),
            )
        except openai.OpenAIError as error:
            raise AccessDenied(f"{self.name}: no key: set OPENAI_API_KEY, or pass api_key= ({error})") from error
        if key is None:
            register_found("OPENAI_API_KEY", sdk.api_key)
        return sdk


async def _hear_out(events: AsyncIterator[ServerEvent], answer: AnswerInPieces) -> None:
    """Look at what comes after the end of an answer for its usage. Nothing that goes wrong there is wrong with it."""
    with contextlib.suppress(TimeoutError, ModelError, *ERRORS, *TRANSPORT_ERRORS):
        async with asyncio.timeout(_AFTER_THE_END):
            async for _, data in events:
                answer.add_usage(read_json(data))
