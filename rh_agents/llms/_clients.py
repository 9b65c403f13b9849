"""Models behind the official client of a provider: what they have in common, whoever it is.

Clients are one for each event loop, since connections belong to the loop on which they were made.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Self
from weakref import WeakKeyDictionary, WeakValueDictionary

import httpx2
from pydantic import Field, PrivateAttr, SecretStr, field_validator

from rh_agents.core.chat.messages import ChatDelta, ChatRequest, ChatResponse, pieces_of
from rh_agents.core.chat.model import ChatModel, OnDelta
from rh_agents.core.errors import (
    AccessDenied,
    IncompleteAnswer,
    ModelError,
    PermanentModelError,
    UnreadableAnswer,
)
from rh_agents.core.policies.pause import Pause
from rh_agents.core.redaction import Secret, is_credential_name, register_found
from rh_agents.core.usage import Price, Usage
from rh_agents.llms._bodies import bounded, opened, read_off
from rh_agents.llms._client_errors import ClientErrors
from rh_agents.llms._endpoints import credentials_in, endpoint_of, expect_url, given_or_environment, without_query
from rh_agents.llms._finish_reasons import checked_reasons
from rh_agents.llms._headers import key_of, sendable, sendable_headers
from rh_agents.llms._http import UNSAID, placed, was_not_sent
from rh_agents.llms._listings import window_of
from rh_agents.llms._openai_usage import cost_in_headers, salvaged_usage
from rh_agents.llms._output_modes import AnswerTool, answer_tool_of, mode_of
from rh_agents.llms._providers import OutputMode, Provider, WireProtocol
from rh_agents.llms._server_json import read_json
from rh_agents.llms._waits import hint_in
from rh_agents.llms.prices import PriceTable, load_prices, price_in

_pauses: WeakValueDictionary[tuple[Any, ...], Pause] = WeakValueDictionary()
"""By server, model and key: a limit belongs to an account, not to an object of this program."""


class Clients:
    """The clients of one model."""

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Client] = WeakKeyDictionary()

    async def get(self, make: Callable[[], Any]) -> Any:
        """The client of this event loop."""
        loop = asyncio.get_running_loop()
        client = self._by_loop.get(loop)
        if client is None:
            client = self._by_loop[loop] = _Client(make())
            await client.open()
        return client.sdk

    async def aclose(self) -> None:
        """Close the connections that this event loop uses."""
        client = self._by_loop.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


class _Client:
    """The client of one event loop, which closes with it: `asyncio.run` closes async generators that are left open."""

    def __init__(self, sdk: Any) -> None:
        self.sdk = sdk
        self._life: AsyncGenerator[None, None] = self._live()

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.sdk.close()

    async def open(self) -> None:
        """From now on the event loop knows that there is something to be closed."""
        await anext(self._life)

    async def aclose(self) -> None:
        await self._life.aclose()


class _Facts(NamedTuple):
    """What the head of an answer says about it, whatever its body is."""

    request_id: str | None = None
    url: str = ""
    cost: float = 0.0


async def _nobody_listens(_: ChatDelta) -> None:
    """For a stream that was not asked for."""


class ClientModel(ChatModel):
    """A model behind the official client of a provider. A subclass says how a request is written and an answer read.

    Args:
        model: its name there.
        base_url: where; by default what the environment says, or else the provider whose client it is.
        api_key: by default what the environment says.
        settings: fields of `ChatModel`, and those below.

    Raises:
        DefinitionError: the address is no http or https URL.
    """

    base_url: str | None = None
    api_key: SecretStr | None = Field(default=None, repr=False)
    headers: Mapping[str, str] = Field(default_factory=dict)
    """Further headers of each request."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Seconds to get a connection."""
    max_bytes: int = Field(default=32 * 1024 * 1024, ge=1)
    """Answers that are larger than this are not read to their end."""
    dialect: str | None = None
    """Whose dialect the server speaks, such as "vLLM" or "DeepSeek": for proxies and servers of your own. By default
    that of its host."""
    prices: PriceTable | None = None
    """Prices by model in place of the library's: a mapping, or a file (see `rh_agents.llms.prices.load_prices`)."""
    output_mode: OutputMode | None = None
    """How an answer of a type is asked for: "native" (in a field made for it), "tool" (as the arguments of a further
    tool) or "prompt" (in words). By default as the provider at the address takes it best, with tools and without."""
    finish_reasons: Mapping[str, str] = Field(default_factory=dict)
    """What the server says about why an answer ended, if that is not known here: `{"eos": "stop"}`. The meanings are
    "stop", "tool_calls", "length", "content_filter", "broken off" (asked again if `retry` says so) and "other"."""

    protocol: ClassVar[WireProtocol]
    client_errors: ClassVar[ClientErrors]
    key_variable: ClassVar[str]
    """The environment variable in which the client looks for a key."""
    key_advice: ClassVar[str]
    """How a key is given, for the error that says that there is none."""

    _clients: Clients = PrivateAttr(default_factory=Clients)

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | SecretStr | Secret | None = None,
        **settings: Any,
    ) -> None:
        who = f"{type(self).__name__}({model!r})"
        expect_url(base_url, f"{who}: the address", self.protocol.path)
        secret = key_of(api_key, f"{who}: api_key=")
        super().__init__(**{"model": model, "base_url": base_url, "api_key": secret, **settings})
        self._register_secrets()

    def __copy__(self) -> Self:
        """The same model with clients of its own: a copy may have another key, or be elsewhere."""
        copied = super().__copy__()
        copied._clients = Clients()
        return copied

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other settings, which are not checked. Its key is kept out of all that people read, too."""
        copied = super().model_copy(update=update, deep=deep)
        copied._register_secrets()
        return copied

    @field_validator("dialect")
    @classmethod
    def _is_known(cls, dialect: str | None) -> str | None:
        return None if dialect is None else cls.protocol.named(dialect).name

    _mean_something = field_validator("finish_reasons")(checked_reasons)
    _can_be_sent = field_validator("headers")(sendable_headers)

    @field_validator("prices", mode="before")
    @classmethod
    def _loaded(cls, prices: Any) -> PriceTable | None:
        return None if prices is None else load_prices(prices)

    def _register_secrets(self) -> None:
        """Keep the key out of everything that people read, and out of stores."""
        credentials = list(credentials_in(self.address))
        server = self._url_identity if credentials else self.base_url or self.protocol.own.name
        if self.api_key is not None:
            register_found(f"api key for {server}", self.api_key.get_secret_value())
        for name, value in self.headers.items():
            if is_credential_name(name):
                register_found(f"{name} for {server}", value.rpartition(" ")[2])
        for name, value in credentials:
            register_found(f"{name} for {server}", value)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections that this event loop uses. They are closed as well when `asyncio.run` ends."""
        await self._clients.aclose()

    # -- whom it asks -------------------------------------------------------------------------------------------------

    @property
    def address(self) -> str | None:
        """The URL that it asks; None for that of the provider whose client it is."""
        return given_or_environment(self.base_url, self.protocol.url_variable)

    @property
    def provider(self) -> Provider:
        """What is known of the provider: the one that was named, or that at its address."""
        return self.protocol.at(self.address) if self.dialect is None else self.protocol.named(self.dialect)

    @property
    def endpoint_identity(self) -> str:
        """The given name of its server, or its URL in one form; "" for that of the provider whose client it is."""
        return self._url_identity if self.endpoint is None else self.endpoint

    @property
    def _url_identity(self) -> str:
        return endpoint_of(self.address, self.protocol.endpoint)

    @property
    def pause(self) -> Pause:
        """What all models share, however many objects there are, that ask with this key for this model there."""
        if self._pause is None:
            key = "" if self.api_key is None else self.api_key.get_secret_value()
            whose = (type(self), self._url_identity, self.model, key)
            self._pause = _pauses.setdefault(whose, Pause(self.name))
        return self._pause

    @property
    def account(self) -> object:
        return self.base_url, self.api_key, self.model

    # -- prices -------------------------------------------------------------------------------------------------------

    def price_of(self, response: ChatResponse) -> Price | None:
        """The given price, or that of the table for the model that answered."""
        return self.price or self._listed_price(response.model, self.model)

    @property
    def known_price(self) -> Price | None:
        """The given price, or that of the table."""
        return self.price or self._listed_price(self.model)

    @property
    def known_context(self) -> int | None:
        """The given one, or that of the table."""
        provider = self.provider
        listed = window_of(self.model, None if provider is self.protocol.unknown else provider.name)
        return self.max_context or listed

    def _listed_price(self, *models: str) -> Price | None:
        provider = self.provider
        return price_in(self.prices, None if provider is self.protocol.unknown else provider.name, *models)

    # -- what a subclass writes ---------------------------------------------------------------------------------------

    @abstractmethod
    def body(self, request: ChatRequest, *, stream: bool = False) -> dict[str, Any]:
        """The fields of a request, in the dialect of the provider.

        Raises:
            InvalidRequest: there is something in it for which the protocol has no form.
        """

    @abstractmethod
    def read(self, request: ChatRequest, data: Mapping[str, Any]) -> ChatResponse:
        """What a whole answer to a request says.

        Raises:
            ModelError: by kind; with what it used, as far as it says so.
        """

    @abstractmethod
    def _send(self, client: Any, request: ChatRequest, body: dict[str, Any]) -> AbstractAsyncContextManager[Any]:
        """The answer of the client to a request, of which nothing is read yet."""

    @abstractmethod
    def _usage_in(self, answer: Mapping[str, Any]) -> Usage | None:
        """What an answer says that it used, in which nothing else may be sound."""

    @abstractmethod
    async def _read_stream(self, request: ChatRequest, pieces: AsyncIterator[bytes], on_delta: OnDelta) -> ChatResponse:
        """Put an answer together that comes in pieces."""

    @abstractmethod
    def _new_client(self, url: str | None, **common: Any) -> Any:
        """A client for a URL, with what all clients take: key, timeout, retries, headers, query.

        `url` is None for that of the provider whose client it is.
        """

    # -- asking -------------------------------------------------------------------------------------------------------

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
        fields = self.body(request, stream=on_delta is not None)
        facts = _Facts()
        try:
            async with self._send(client, request, fields) as response:
                facts = _Facts(response.request_id, placed(response.url))
                hint = hint_in(response.headers)
                if hint is not None:
                    self.honour(hint)
                body = await opened(bounded(response.iter_bytes(), self.max_bytes))
                if body.is_stream or (on_delta is not None and not body.is_whole):
                    found = await self._read_stream(request, body.pieces, on_delta or _nobody_listens)
                    with contextlib.suppress(ModelError, *self.client_errors.caught):  # the answer is whole
                        await read_off(body.pieces)
                    return found
                facts = facts._replace(cost=cost_in_headers(response.headers))  # a stream begins before it is known
                return await self._read_whole(request, body.pieces, on_delta, facts.cost)
        except self.client_errors.caught as error:
            translated = self.client_errors.translate(error, self.name)
            if not was_not_sent(error, self.client_errors.no_key):
                self._count(translated, request, facts)
            raise translated from self.client_errors.shown_cause(error)
        except ModelError as error:
            self._count(error, request, facts)
            raise

    async def _read_whole(
        self, request: ChatRequest, pieces: AsyncIterator[bytes], on_delta: OnDelta | None, cost: float
    ) -> ChatResponse:
        """What an answer says that comes at once. If pieces are wanted, it is one."""
        data = b"".join([piece async for piece in pieces])
        if not data.strip():
            raise IncompleteAnswer(f"{self.name}: the answer ended before it began")
        try:
            answer = read_json(data)
        except ModelError as error:
            error.usage = salvaged_usage(data, self._usage_in)
            raise
        found = self.read(request, answer)
        if on_delta is not None:
            for delta in pieces_of(found, replayed=False):
                await on_delta(delta)
        return found.model_copy(update={"usage": replace(found.usage, cost=max(found.usage.cost, cost))})

    @contextlib.contextmanager
    def _counted(self, used: Callable[[], Usage | None]) -> Iterator[None]:
        """Say in errors of the block what was used by then, as far as they do not say it themselves."""
        try:
            yield
        except ModelError as error:
            error.usage = error.usage or used()
            raise
        except self.client_errors.caught as error:
            found = self.client_errors.translate(error, self.name)
            found.usage = used()
            raise found from error

    def _count(self, error: ModelError, request: ChatRequest, facts: _Facts) -> None:
        """Say what a request used whose answer is of no use and does not say that itself, and where that came from."""
        error.request_id = error.request_id or facts.request_id
        if isinstance(error, UnreadableAnswer | IncompleteAnswer) and facts.url:
            said = str(error).removeprefix(f"{self.name}: ")
            error.args = (f"{self.name}: {said} (asked {facts.url})",)
        is_unsaid = isinstance(error, UNSAID) or type(error) is PermanentModelError
        if error.usage is None and is_unsaid:
            error.usage = self.unanswered(request)
        if error.usage is not None:
            error.usage = replace(error.usage, cost=max(error.usage.cost, facts.cost))

    # -- the client ---------------------------------------------------------------------------------------------------

    async def sdk(self) -> Any:
        """The client that this event loop uses; for what is not a question to a model."""
        return await self._clients.get(self._make_sdk)

    def _make_sdk(self) -> Any:
        address = self.address
        expect_url(address, f"{self.name}: {self.protocol.url_variable}", self.protocol.path)
        url, query = (None, None) if address is None else without_query(address)
        common: dict[str, Any] = {
            "api_key": self._key(),
            "timeout": httpx2.Timeout(self.idle_timeout, connect=self.connect_timeout, pool=None),
            "max_retries": 0,
            "default_headers": dict(self.headers),
            "default_query": query,
        }
        try:
            sdk = self._new_client(url, **common)
        except self.client_errors.no_key as error:
            raise AccessDenied(f"{self.name}: no key: {self._key_advice()} ({error})") from error
        if sdk.api_key == "":
            raise AccessDenied(f"{self.name}: the key is empty: {self._key_advice()}")
        if common["api_key"] is None:
            self._register_found_key(sdk)
        return sdk

    def _key(self) -> str | None:
        """The key; None if the client shall look for credentials by itself.

        It looks where its own provider's key is. For another one that is known, a key stands elsewhere, and that comes
        first. And it would take a key with the line end of the file that it was read from.
        """
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        for variable in filter(None, (self._provider_key, self.key_variable)):
            found = os.environ.get(variable, "")
            if found.strip() and (variable != self.key_variable or found != found.strip()):
                key = sendable(found, f"{self.name}: {variable}")
                register_found(variable, key)
                return key
        return None

    @property
    def _provider_key(self) -> str:
        """The variable with a key for the provider whose host is asked, whatever its dialect is said to be."""
        return self.protocol.at(self.address).key_variable

    def _key_advice(self) -> str:
        variable = self._provider_key
        return self.key_advice.replace(self.key_variable, variable) if variable else self.key_advice

    def _register_found_key(self, sdk: Any) -> None:
        """Keep the key that the client has found by itself out of everything that people read."""
        if sdk.api_key:
            register_found(self.key_variable, sdk.api_key)
