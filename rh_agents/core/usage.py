"""What calls use up: tokens, requests and money."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

__all__ = ["Charge", "Listing", "Price", "Shortfall", "Spending", "Usage", "listing_of", "set_listings"]

_PER = 1_000_000


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call used, with all its attempts; or several calls together, since usages can be added.

    Attributes:
        input_tokens: tokens that a model was sent, those from its cache included.
        output_tokens: tokens that it wrote, those of its reasoning included.
        cached_tokens: of the input tokens, those that the provider had in its cache.
        reasoning_tokens: of the output tokens, those of its reasoning.
        requests: how many requests were made of providers.
        cost: in the currency of the price table, US dollars unless someone has another one.
        cache_write_tokens: of the input tokens, those that the provider was asked to keep in its cache.
        estimates: how many of the requests did not say what they used, so that these numbers were estimated for them.
        long_cache_write_tokens: of the tokens for the cache, those that are to be kept for longer than is usual
            (Anthropic: for an hour).
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 0
    cost: float = 0.0
    cache_write_tokens: int = 0
    estimates: int = 0
    long_cache_write_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.requests + other.requests,
            self.cost + other.cost,
            self.cache_write_tokens + other.cache_write_tokens,
            self.estimates + other.estimates,
            self.long_cache_write_tokens + other.long_cache_write_tokens,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens - other.input_tokens,
            self.output_tokens - other.output_tokens,
            self.cached_tokens - other.cached_tokens,
            self.reasoning_tokens - other.reasoning_tokens,
            self.requests - other.requests,
            self.cost - other.cost,
            self.cache_write_tokens - other.cache_write_tokens,
            self.estimates - other.estimates,
            self.long_cache_write_tokens - other.long_cache_write_tokens,
        )

    def as_json(self) -> dict[str, Any]:
        """What is not zero, by name."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Usage:
        """The usage of which `as_json` made `data`. Names that are not known are left out."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs for a million tokens, in US dollars unless all prices are in another currency.

    Attributes:
        input: for a million input tokens.
        output: for a million output tokens.
        cached_input: for a million input tokens that the provider had in its cache; None means the price of all others.
        cache_write: for a million input tokens that it was asked to keep there; None means the price of all others.
        long_cache_write: for a million of those that it was asked to keep for longer; None means `cache_write`.
        above: with more input tokens in a request than the first number says, all of it costs what the second one says.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    above: tuple[int, Price] | None = None
    long_cache_write: float | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input", "cache_write", "long_cache_write"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value!r}: a price is a number from 0 on")

    def cost(self, usage: Usage) -> float:
        """What these tokens cost. Those of several requests are taken for equal shares of them."""
        if self.above is not None and usage.input_tokens > self.above[0] * max(1, usage.requests):
            return self.above[1].cost(usage)
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        fresh = max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens)
        longer = min(usage.long_cache_write_tokens, usage.cache_write_tokens)
        read = fresh * self.input + usage.cached_tokens * cached + (usage.cache_write_tokens - longer) * written
        read += longer * (written if self.long_cache_write is None else self.long_cache_write)
        return (read + usage.output_tokens * self.output) / _PER


class Listing(NamedTuple):
    """What is known of a model by its name: its price, and the most tokens that it can write. None if it is not."""

    price: Price | None = None
    max_output: int | None = None


_listings: list[Callable[[str], Listing]] = []


def set_listings(find: Callable[[str], Listing]) -> None:
    """Say where a model is looked up of which only the name is known: the tables are those of the adapters."""
    _listings[:] = [find]


def listing_of(model: str) -> Listing:
    """What is known of a model by its name."""
    return _listings[0](model) if _listings else Listing()


class Charge(NamedTuple):
    """What an event says was spent: by which actor, what, and for which parts of the run (see `ExecutionEvent`)."""

    name: str
    usage: Usage | None = None
    places: Mapping[str, float] | None = None
    is_free: bool = False
    """Whether the call had its result from a cache, so that it does not count."""
    lost: int = 0
    """How many workers the call has lost."""


@dataclass(slots=True)
class Spending:
    """What a part of a run has spent so far, in all its executions.

    Attributes:
        usage: of all its calls together.
        calls: how many calls came to an outcome.
        seconds: how long it was under way.
        by_actor: the usage of each actor that reported any, by name.
    """

    usage: Usage = field(default_factory=Usage)
    calls: int = 0
    seconds: float = 0.0
    by_actor: dict[str, Usage] = field(default_factory=dict)

    def add(self, name: str, usage: Usage | None, calls: int = 0) -> None:
        """Something was spent by the actor of this name."""
        self.calls += calls
        if usage:
            self.usage = self.usage + usage
            self.by_actor[name] = self.by_actor.get(name, Usage()) + usage

    def copy(self) -> Spending:
        """A copy that does not change when this one does."""
        return Spending(self.usage, self.calls, self.seconds, dict(self.by_actor))

    def __str__(self) -> str:
        """One line: the calls, tokens and cost, what has no known price, and what most of it went to."""
        parts = [f"{self.calls:,} call{'' if self.calls == 1 else 's'}"]
        if self.usage.tokens:
            parts.append(f"{self.usage.tokens:,} tokens")
        if self.usage.cost:
            parts.append(f"${self.usage.cost:,.4f}")
        if self.usage.estimates:
            parts.append(
                f"{self.usage.estimates:,} of {max(self.usage.requests, self.usage.estimates):,} requests estimated"
            )
        free = [name for name, used in self.by_actor.items() if used.requests and used.tokens and not used.cost]
        if free:
            parts.append(f"no price for {', '.join(free[:5])}")
        largest = sorted(self.by_actor.items(), key=lambda item: (-item[1].cost, -item[1].tokens, item[0]))
        shares = [f"{name} {_amount(usage)}" for name, usage in largest[:5]]
        return ", ".join(parts) + (f" ({'; '.join(shares)})" if shares else "")


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Which budget does not suffice for another call.

    Attributes:
        place: the key of the part of the run that it is for, in hexadecimal; "" is the run itself.
        name: that part for people.
        field: the field of the `Budget`, such as "cost".
        spent: what has been spent under it. It counts on, while what is under way comes to its end.
    """

    place: str
    name: str
    field: str
    spent: Spending


def _amount(usage: Usage) -> str:
    return f"${usage.cost:,.4f}" if usage.cost else f"{usage.tokens:,} tokens"
