"""Limits that attempts wait for: so many at a time, or so much in a period. They decide; waiting is the runtime's work.

Every method gets the time of one monotonic clock, in seconds, and returns at once.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from rh_agents.core.errors import OptionError
from rh_agents.core.policies._checks import at_least, number
from rh_agents.core.policies._options import takes_options
from rh_agents.core.usage import Usage

__all__ = [
    "AdaptiveConcurrency",
    "ConcurrencyLimit",
    "Limit",
    "Permit",
    "RateLimit",
    "RateLimitHint",
    "Refusal",
    "limits_of",
]

_FOREVER = float("inf")
_serials = itertools.count()
KINDS = ("requests", "tokens", "input_tokens", "output_tokens")
"""What a rate limit can count."""


LONGEST_HOLD = 3600.0
"""Seconds. A provider that wants more is believed so far: else one absurd number would hold everybody for good."""


class Refusal(NamedTuple):
    """Not now: ask again after `wait` seconds (infinity: when someone has released a permit)."""

    wait: float
    why: str


@dataclass(slots=True, eq=False)
class Permit:
    """The right to one attempt. It must be released.

    Attributes:
        granted_at: when.
        amounts: what it takes of each thing that is counted.
        is_counted: whether it is within a period that is still looked at.
        ticket: the name of the block of permits of which it is one, if the limit is shared.
    """

    granted_at: float
    amounts: dict[str, float] = field(default_factory=dict)
    is_counted: bool = False
    ticket: str | None = None


@dataclass(frozen=True, slots=True)
class RateLimitHint:
    """What a provider says about its limits: in its headers, or by refusing a request.

    Attributes:
        remaining: how much is left, of "requests", "tokens", "input_tokens" or "output_tokens".
        resets_in: in how many seconds there will be everything again, for the same names.
        retry_after: nothing is to be sent for this many seconds.
        is_overloaded: whether it refused the request because there are too many.
    """

    remaining: Mapping[str, float] = field(default_factory=dict)
    resets_in: Mapping[str, float] = field(default_factory=dict)
    retry_after: float | None = None
    is_overloaded: bool = False


class Limit:
    """Something that attempts wait for. One object may be shared by any number of actors, groups and runs.

    `name` tells people what is waited for.
    """

    name: str

    def __init__(self, name: str) -> None:
        self.name = name
        self.serial: int = next(_serials)
        """Limits that an attempt waits for are taken in the order of their making."""
        self.when_changed: Callable[[], None] | None = None
        """Called when the numbers are changed, so that whoever waits can ask again. The runtime sets it."""

    def __copy__(self) -> Limit:
        return self

    def __deepcopy__(self, memo: object) -> Limit:
        """Itself: copies of an actor wait for the same provider."""
        return self

    def _changed(self) -> None:
        if self.when_changed is not None:
            self.when_changed()

    @property
    def holds_slots(self) -> bool:
        """Whether what it grants is held until the attempt ends, rather than used up."""
        return False

    def admit(self, need: Mapping[str, float], now: float) -> Permit | Refusal:
        """Grant an attempt that will need so much, or tell when to ask again."""
        raise NotImplementedError

    def take(self, now: float) -> Permit:
        """Grant a slot even if none is free, to a call that goes on without having waited. Only if it `holds_slots`."""
        raise NotImplementedError

    def release(self, permit: Permit, used: Mapping[str, float] | None, now: float) -> None:
        """An attempt has ended and really used so much; None if that is not known, or what was granted."""
        raise NotImplementedError

    def honour(self, hint: RateLimitHint, now: float) -> None:
        """A provider has said something."""

    def refused(self, permit: Permit, now: float) -> None:
        """The provider could not take an attempt."""

    def succeeded(self, permit: Permit, now: float) -> None:
        """An attempt has succeeded."""


def limits_of(given: object) -> tuple[Limit, ...]:
    """What is given as limits: one, or several.

    Raises:
        OptionError: it is something else, such as a number.
    """
    all_given: tuple[object, ...] = tuple(given) if isinstance(given, Iterable) else (given,)
    limits = tuple(each for each in all_given if isinstance(each, Limit))
    if len(limits) == len(all_given):
        return limits
    wrong = next(each for each in all_given if not isinstance(each, Limit))
    raise OptionError(f"limits= takes limits, such as RateLimit(requests=500), not {wrong!r}")


@takes_options("ConcurrencyLimit")
class ConcurrencyLimit(Limit):
    """At most `limit` attempts at a time. A call holds no slot while it waits for calls that it makes itself.

    Args:
        limit: how many; may be changed at any time. Attempts that are under way come to their end.
        name: for people; and for a shared limit, what processes that use the same store have in common.
        shared: whether all processes with the run's store share the limit. Runs without a store cannot. The slots of a
            process that dies are free after 10 seconds.

    Raises:
        OptionError: the limit is less than 1, or a shared limit has no name.
    """

    def __init__(self, limit: int, *, name: str = "", shared: bool = False) -> None:
        if shared and not name:
            raise OptionError(
                "a shared limit needs a name, by which other processes find it: ConcurrencyLimit(name=...)"
            )
        super().__init__(name or "concurrency")
        self.shared = shared
        self.limit = limit
        self.in_use: int = 0
        """How many slots are taken now."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.in_use} of {self.limit})"

    @property
    def limit(self) -> int:
        """How many attempts there may be at a time."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = at_least(1, "limit", limit)
        self._changed()

    @property
    def holds_slots(self) -> bool:
        """Its slots are held."""
        return True

    def admit(self, need: Mapping[str, float], now: float) -> Permit | Refusal:
        """Grant a slot if one is free."""
        if self.in_use >= self.limit:
            return Refusal(_FOREVER, f"{self.limit} at a time")
        return self.take(now)

    def take(self, now: float) -> Permit:
        """Grant a slot. There may be more than the limit for a while; no one is admitted then."""
        self.in_use += 1
        return Permit(now)

    def release(self, permit: Permit, used: Mapping[str, float] | None, now: float) -> None:
        """The slot is free again."""
        self.in_use -= 1


@takes_options("AdaptiveConcurrency")
class AdaptiveConcurrency(ConcurrencyLimit):
    """A concurrency limit that finds out what the provider can take: additive increase, multiplicative decrease.

    While all slots are in use, every `limit` successes in a row raise the limit by `increase`. When the provider says
    that there are too many requests, the limit is multiplied by `decrease`, at most once for all attempts that were
    under way at that moment. (The rule is that of TCP: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms
    for Congestion Avoidance in Computer Networks", 1989.)

    Args:
        initial: the limit to begin with.
        minimum: it never goes below this.
        maximum: nor above this.
        increase: what is added.
        decrease: the factor between 0 and 1.
        name: for people.
    """

    def __init__(
        self,
        initial: int = 10,
        *,
        minimum: int = 1,
        maximum: int = 1_000,
        increase: int = 1,
        decrease: float = 0.5,
        name: str = "adaptive concurrency",
    ) -> None:
        for option, value in {"minimum": minimum, "initial": initial, "maximum": maximum, "increase": increase}.items():
            at_least(1, option, value)
        if not minimum <= initial <= maximum:
            raise OptionError(f"{minimum=}, {initial=}, {maximum=}: they must be in this order, from 1 on")
        between = "a number between 0 and 1"
        if number("decrease", decrease, between, zero=False) >= 1:
            raise OptionError(f"{decrease=}: {between}")
        super().__init__(initial, name=name)
        self.minimum = minimum
        self.maximum = maximum
        self.increase = increase
        self.decrease = decrease
        self._successes = 0
        self._was_full = False
        self._decreased_at = -_FOREVER

    def admit(self, need: Mapping[str, float], now: float) -> Permit | Refusal:
        """Grant a slot if one is free; that none is says that more would be used."""
        answer = super().admit(need, now)
        self._was_full = self._was_full or self.in_use >= self.limit
        return answer

    def succeeded(self, permit: Permit, now: float) -> None:
        """Raise the limit after as many successes as it is large."""
        if permit.granted_at <= self._decreased_at:
            return  # it began under the limit that was too large
        self._successes += 1
        if self._successes >= self.limit:
            self._successes = 0
            if self._was_full:
                self.limit = min(self.maximum, self.limit + self.increase)
            self._was_full = self.in_use >= self.limit

    def refused(self, permit: Permit, now: float) -> None:
        """The provider could not take an attempt: lower the limit, once for all that were under way."""
        if permit.granted_at <= self._decreased_at:
            return
        self._decreased_at = now
        self._successes = 0
        self._was_full = False
        self.limit = max(self.minimum, int(self.limit * self.decrease))


@takes_options("RateLimit")
class RateLimit(Limit):
    """At most so much in any period of `per` seconds; the period slides, so that no window ever admits more.

    What a call will need is estimated before it begins and counts as that; when it has ended, what it really used
    counts instead, from the moment at which it began.

    Args:
        requests: how many requests.
        tokens: how many tokens, those of input and output together.
        input_tokens: the same for tokens of requests alone.
        output_tokens: the same for tokens of answers alone.
        per: the length of the period, in seconds.
        name: for people; and for a shared limit, what processes that use the same store have in common.
        shared: whether all processes with the run's store share the limit. Runs without a store cannot.

    All numbers may be changed at any time with `change`.

    Raises:
        OptionError: a number is not positive, or none is given, or a shared limit has no name.
    """

    def __init__(
        self,
        requests: float | None = None,
        tokens: float | None = None,
        *,
        input_tokens: float | None = None,
        output_tokens: float | None = None,
        per: float = 60.0,
        name: str = "",
        shared: bool = False,
    ) -> None:
        if shared and not name:
            raise OptionError("a shared rate limit needs a name, by which other processes find it: RateLimit(name=...)")
        super().__init__(name or "rate limit")
        self.shared = shared
        self.limits: dict[str, float] = {}
        self._log = _Log()
        self._held_until = -_FOREVER
        self._why_held = ""
        self.per: float = per
        self.change(requests=requests, tokens=tokens, input_tokens=input_tokens, output_tokens=output_tokens, per=per)
        if not self.limits:
            raise OptionError("a rate limit needs at least one of requests=, tokens=, input_tokens= and output_tokens=")

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={limit:g}" for name, limit in self.limits.items())
        return f"RateLimit({self.name!r}, {numbers}, per={self.per:g})"

    def change(
        self,
        *,
        requests: float | None = None,
        tokens: float | None = None,
        input_tokens: float | None = None,
        output_tokens: float | None = None,
        per: float | None = None,
    ) -> None:
        """Set other numbers; None leaves one as it is, infinity takes it away.

        What was admitted in the period before still counts, also for a kind that had no limit until now; not what is
        older than `per` has been.

        Raises:
            OptionError: a number is not above 0, or `per` is infinite.
        """
        numbers = dict(zip(KINDS, (requests, tokens, input_tokens, output_tokens), strict=True))
        for name, value in {**numbers, "per": per}.items():
            if value is not None:
                number(name, value, "it must be more than 0", zero=False)
        if per is not None:
            if per == _FOREVER:
                raise OptionError("per=inf: a period has an end; for a total there is Budget(...)")
            self.per = per
        limits = {**self.limits, **{name: value for name, value in numbers.items() if value is not None}}
        # Another dictionary, since somebody may go through the old one in another thread.
        self.limits = {name: value for name, value in limits.items() if value != _FOREVER}
        self._changed()

    def admit(self, need: Mapping[str, float], now: float) -> Permit | Refusal:
        """Grant an attempt if all windows have room for it."""
        if now < self._held_until:
            return Refusal(self._held_until - now, self._why_held)
        self._log.forget(self.per, now)
        longest: Refusal | None = None
        for kind, limit in self.limits.items():
            granted_at = self._log.when_there_is_room(kind, min(need.get(kind, 0.0), limit), limit, now)
            wait = granted_at + self.per - now
            if granted_at != -_FOREVER and (longest is None or wait > longest.wait):
                longest = Refusal(wait, f"{limit:,g} {kind.replace('_', ' ')} in {self.per:g} s")
        if longest is not None:
            return longest
        permit = Permit(now, dict(need))
        self._log.add(permit)
        return permit

    def release(self, permit: Permit, used: Mapping[str, float] | None, now: float) -> None:
        """Count what an attempt has really used."""
        if used is not None:
            self._log.settle(permit, used)

    def honour(self, hint: RateLimitHint, now: float) -> None:
        """Hold back while the provider says that nothing is left."""
        if hint.retry_after is not None:
            self._hold(now + min(hint.retry_after, LONGEST_HOLD), "the provider asked to wait")
        for name, remaining in hint.remaining.items():
            resets_in = hint.resets_in.get(name)
            if remaining < 1 and resets_in is not None:
                self._hold(now + min(resets_in, self.per), f"the provider has no {name.replace('_', ' ')} left")

    def _hold(self, until: float, why: str) -> None:
        if until > self._held_until:
            self._held_until, self._why_held = until, why


class _Log:
    """What was admitted in a period, oldest first, with the sums of each kind. What is too old is forgotten."""

    def __init__(self) -> None:
        self._permits: deque[Permit] = deque()
        self._totals: dict[str, float] = {}

    def forget(self, per: float, now: float) -> None:
        """Leave out what was admitted `per` seconds ago or earlier."""
        while self._permits and self._permits[0].granted_at + per <= now:
            permit = self._permits.popleft()
            for kind, amount in permit.amounts.items():
                self._totals[kind] -= amount
            permit.is_counted = False
        if not self._permits:
            self._totals.clear()  # and with them what rounding has left

    def when_there_is_room(self, kind: str, amount: float, limit: float, now: float) -> float:
        """When the permit is granted that has to be forgotten first; `now` if none has, -inf if there is room."""
        excess = self._totals.get(kind, 0.0) + amount - limit
        if excess <= 0:
            return -_FOREVER
        for permit in self._permits:
            excess -= permit.amounts.get(kind, 0.0)
            if excess <= 0:
                return permit.granted_at
        return now

    def add(self, permit: Permit) -> None:
        self._permits.append(permit)
        permit.is_counted = True
        for kind, amount in permit.amounts.items():
            self._totals[kind] = self._totals.get(kind, 0.0) + amount

    def settle(self, permit: Permit, amounts: Mapping[str, float]) -> None:
        """A permit stands for these amounts now."""
        if permit.is_counted:
            for kind in KINDS:
                self._totals[kind] = (
                    self._totals.get(kind, 0.0) + amounts.get(kind, 0.0) - permit.amounts.get(kind, 0.0)
                )
        permit.amounts = dict(amounts)


def need_of(usage: Usage | None) -> dict[str, float]:
    """What an attempt needs of each thing that a rate limit can count."""
    if usage is None:
        return {"requests": 1.0}
    return {
        "requests": 1.0,
        "tokens": float(usage.tokens),
        "input_tokens": float(usage.input_tokens),
        "output_tokens": float(usage.output_tokens),
    }
