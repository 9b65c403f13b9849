"""A step of somebody else's program as a call of ours: named, identified by data, made once, and replayed."""

from __future__ import annotations

import asyncio
import math
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from pydantic import Field
from pydantic_core import to_json

from rh_agents.core._loops.beside import beside_if_large
from rh_agents.core._run.frame import current_frame
from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import LLM, BaseActor, Tool
from rh_agents.core.calls import Call
from rh_agents.core.chat._asking import report_unbounded
from rh_agents.core.chat._estimates import DEFAULT_OUTPUT, tokens_in
from rh_agents.core.context import report_usage
from rh_agents.core.errors import UnstorableError
from rh_agents.core.usage import Listing, Price, Usage, listing_of
from rh_agents.core.values import encode_any
from rh_agents.core.values.inputs import CanonicalInput

NOTHING_KNOWN = Listing()
"""Of a model whose price and greatest output are looked up by its name."""


class NotRecordedWarning(UserWarning):
    """Something in a durable agent is no recorded step: it is done again when the run goes on."""


def warn_not_recorded(what: str, remedy: str) -> None:
    """Say loudly that something will be paid for twice."""
    warnings.warn(
        f"{what} is not recorded, so it is repeated, and paid for again, when the run is resumed; {remedy}",
        NotRecordedWarning,
        stacklevel=3,
    )


async def _never() -> None:
    """Stands for the handlers of actors whose calls are made by somebody else's code."""
    raise AssertionError("a step is called through its own code")


class _ForeignModel(LLM):
    """A model of another framework. What it costs, and how much it can write, is given, or looked up by its name."""

    price: Price | None = None
    max_output: int | None = Field(default=None, ge=1)

    @property
    def known_price(self) -> Price | None:
        return self.price or listing_of(self.name).price

    def priced(self, usage: Usage) -> Usage:
        """What was used, with its cost."""
        price = self.known_price
        return usage if usage.cost or price is None else replace(usage, cost=price.cost(usage))

    def estimate(self, about: Any) -> Usage:
        """What a step that is about this will use at most. Its cost is not a number if nobody knows the price."""
        bound, known = _max_tokens(about), self.max_output or listing_of(self.name).max_output
        if bound is None:
            report_unbounded(self.name, known)
        usage = Usage(_tokens_in(about), bound or known or DEFAULT_OUTPUT, requests=1)
        price = self.known_price
        return replace(usage, cost=math.nan if price is None else price.cost(usage))


def model_actor(name: str, known: Listing = NOTHING_KNOWN) -> BaseActor:
    """What stands for a model of another framework in events, in keys and in budgets."""
    about = "A model of another framework."
    return _ForeignModel(name=name, handler=_never, description=about, price=known.price, max_output=known.max_output)


_MAX_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def _max_tokens(about: Any, depth: int = 2) -> int | None:
    """How many tokens the answer may have, if one of the settings says so."""
    if isinstance(about, dict):
        return next((about[name] for name in _MAX_TOKENS if isinstance(about.get(name), int) and about[name] > 0), None)
    if isinstance(about, list) and depth:
        return next((found for each in about if (found := _max_tokens(each, depth - 1)) is not None), None)
    return None


def _tokens_in(data: Any) -> int:
    return tokens_in(to_json(data, fallback=str, bytes_mode="base64", inf_nan_mode="constants").decode())


def tool_actor(name: str) -> BaseActor:
    """The same for a tool."""
    return Tool(name=name, handler=_never, description="A tool of another framework.")


class Step(Call[Any]):
    """One step.

    Args:
        actor: what stands for the model or the tool.
        about: data that tells this step from others; what is equal is the same step. Ids and times that differ from one
            execution to the next must not be in it.
        make: does it, and gives data.
    """

    __slots__ = ("_about", "_make")

    def __init__(self, actor: BaseActor, about: Any, make: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(actor)
        self._about = about
        self._make = make

    def canonical_input(self) -> CanonicalInput:
        return CanonicalInput(self._about)

    def estimate(self) -> Usage | None:
        """What a question to a model will use at most."""
        return self.actor.estimate(self._about) if isinstance(self.actor, _ForeignModel) else None

    def begin(self, run: RunParts) -> Awaitable[Any]:
        return self._ask_and_count(self.actor) if isinstance(self.actor, _ForeignModel) else self._make()

    async def _ask_and_count(self, model: _ForeignModel) -> Any:
        """Ask the model. If nobody says what that used, an estimate counts: what came, or what was reserved for it."""
        before = _tokens_so_far()
        try:
            value = await self._make()
        except asyncio.CancelledError:
            if _tokens_so_far() == before:
                report_usage(replace(model.estimate(self._about), cost=0.0, estimates=1))
            raise
        if _tokens_so_far() == before:
            sent = await beside_if_large(self._about, _tokens_in, self._about)
            report_usage(Usage(sent, await beside_if_large(value, _tokens_in, value), requests=1, estimates=1))
        return value


def _tokens_so_far() -> int:
    """What the call under way has used so far."""
    frame = current_frame.get()
    return 0 if frame is None or frame.usage is None else frame.usage.tokens


async def is_storable(value: Any) -> bool:
    """Whether a value can be recorded as it is."""
    try:
        await beside_if_large(value, encode_any, value)
    except UnstorableError:
        return False
    return True


def plain(value: Any, without: frozenset[str] = frozenset()) -> Any:
    """JSON data without the entries of these names, however deep: those that differ from one execution to the next."""
    if isinstance(value, dict):
        return {str(name): plain(each, without) for name, each in value.items() if name not in without}
    if isinstance(value, list | tuple):
        return [plain(each, without) for each in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return f"a {type(value).__qualname__}"
