"""One question to a provider, and what it used, whatever becomes of it.

What was used is counted before anything else is decided:

- an answer that says what it used, counts as that; if it says what it cost, that is its cost;
- an answer that does not, counts as an estimate from the text that was sent and received (`_estimates`);
- an answer that cannot be used counts as its error says (`ModelError.usage`);
- where no answer came though the request was sent, because it was cancelled or took too long, the provider may have
  worked on it all the same, so what was reserved for it counts.

An answer that cannot be *read* is asked for once more, and no more often, whatever attempts and complaints come after.
In a batch it is not: the batch is there, and its other lines show that the provider keeps to the protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol

from rh_agents.core._run.frame import current_frame
from rh_agents.core._run.patience import ask_patiently
from rh_agents.core.chat._estimates import DEFAULT_OUTPUT, estimated_usage
from rh_agents.core.chat.messages import ChatDelta, ChatRequest, ChatResponse
from rh_agents.core.context import again, claim_further_try, report_usage, tell_progress
from rh_agents.core.errors import ModelError, UnreadableAnswer
from rh_agents.core.policies.pause import Pause
from rh_agents.core.redaction import logger
from rh_agents.core.usage import Price, Usage

_log = logger("rh_agents.models")
_reported: set[str] = set()
"""The models of which it was reported that nobody bounds their answers."""


class AskedModel(Protocol):
    """A model, as far as it has to be known to be asked: see `ChatModel`, which has all of this."""

    @property
    def stream(self) -> bool:
        """Whether answers come in pieces."""
        ...

    @property
    def pause(self) -> Pause:
        """What its server has asked to be waited for."""
        ...

    @property
    def batcher(self) -> Any:
        """What requests go through together, if they do."""
        ...

    @property
    def known_price(self) -> Price | None:
        """What it costs, as far as is known before it answers."""
        ...

    @property
    def discount(self) -> float:
        """What part of the price is paid."""
        ...

    def estimate(self, request: ChatRequest) -> Usage:
        """What a request will use at most."""
        ...

    def unanswered(self, request: ChatRequest) -> Usage:
        """What a request has used of which no answer came."""
        ...

    def price_of(self, response: ChatResponse) -> Price | None:
        """The price of the model that answered."""
        ...

    async def complete(
        self, request: ChatRequest, on_delta: Callable[[ChatDelta], Awaitable[None]] | None
    ) -> ChatResponse:
        """One request to the provider."""
        ...


async def ask(model: AskedModel, request: ChatRequest) -> ChatResponse:
    """The answer to one request.

    Raises:
        UnreadableAnswer: what came is none, also when it was asked for once more.
        ModelError: by kind.
    """
    try:
        return await _ask_in_time(model, request)
    except UnreadableAnswer as error:
        if model.batcher is not None or not claim_further_try():
            raise
        used = error.usage
    await begin_again(model, request)
    try:
        return await _ask_in_time(model, request)
    except UnreadableAnswer as error:
        if used is not None:
            error.usage = used if error.usage is None else used + error.usage
        raise


async def _ask_in_time(model: AskedModel, request: ChatRequest) -> ChatResponse:
    """The same when the server wants to be asked: what it refuses with a time is asked for again then."""
    if model.batcher is not None:
        return await _ask_once(model, request)
    return await ask_patiently(model.pause, lambda: _ask_once(model, request), lambda: model.estimate(request))


async def begin_again(model: AskedModel, request: ChatRequest) -> None:
    """Wait until a further request may be made within one attempt. The pieces so far come to nothing."""
    if model.stream:
        await tell_progress(ChatDelta(void=True))
    await again(model.estimate(request))


async def _ask_once(model: AskedModel, request: ChatRequest) -> ChatResponse:
    batches = model.batcher
    pieces = _Pieces()
    try:
        if batches is None:
            response = await model.complete(request, pieces.publish if model.stream else None)
        else:
            response = await batches.complete(model, request)
    except ModelError as error:
        if error.usage is not None:
            error.usage = _priced(model, error.usage, model.known_price)
            report_usage(error.usage)
        await pieces.come_to_nothing()
        raise
    except asyncio.CancelledError:
        if batches is None:  # a batch goes on without us
            report_usage(_priced(model, model.unanswered(request), model.known_price))
        await pieces.come_to_nothing()
        raise
    usage = response.usage
    if not usage.tokens:
        usage = replace(estimated_usage(request, response), cost=usage.cost)
    usage = _priced(model, usage, model.price_of(response))
    report_usage(usage)
    return response.model_copy(update={"usage": usage})


def _priced(model: AskedModel, usage: Usage, price: Price | None) -> Usage:
    """The same with what it cost. What the provider says about that counts."""
    cost = usage.cost or (0.0 if price is None else price.cost(usage) * model.discount)
    return replace(usage, requests=max(1, usage.requests), cost=cost)


class _Pieces:
    """The pieces of an answer, on their way to whoever listens."""

    def __init__(self) -> None:
        self._were_published = False

    async def publish(self, delta: ChatDelta) -> None:
        self._were_published = True
        await tell_progress(delta)

    async def come_to_nothing(self) -> None:
        """What was published is not the answer."""
        if self._were_published:
            await tell_progress(ChatDelta(void=True))


def report_unbounded(name: str, max_output: int | None) -> None:
    """Say once, where a budget is to be kept, how much of it is reserved for each answer, and how to need less."""
    frame = current_frame.get()
    ledgers = () if frame is None else frame.all_ledgers
    if name in _reported or not any(each.budget.counts_tokens for each in ledgers):
        return
    _reported.add(name)
    known = f"as many as it can write, {max_output:,}" if max_output else f"{DEFAULT_OUTPUT:,}, as its limit is unknown"
    _log.warning(
        "%s has no max_tokens, so the budget reserves output tokens for each of its calls: %s. Set max_tokens to what "
        "an answer needs, or max_output to what the model can write.",
        name,
        known,
    )
