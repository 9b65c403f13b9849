"""Whether a failed attempt is followed by another one, and after which delay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from rh_agents.core._base.foreign import seconds_to_wait
from rh_agents.core.errors import (
    CallCancelled,
    CircuitOpenError,
    DefinitionError,
    InputError,
    NestingError,
    OptionError,
    PermanentModelError,
    StoreError,
)
from rh_agents.core.policies._checks import Failure, at_least, failures, is_meant, number, yes_or_no
from rh_agents.core.policies._options import takes_options

__all__ = ["RetryPolicy"]

_LONGEST = 1e9
"""Seconds. Infinity times a chance of zero is no number, and waiting so long is waiting for ever."""

_NEVER_RETRIED = (
    InputError,
    DefinitionError,
    CircuitOpenError,
    CallCancelled,
    NestingError,
    StoreError,
    PermanentModelError,
)
"""Our own errors that another attempt cannot correct."""


@takes_options("RetryPolicy")
@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    Before attempt *n* + 1 the call waits a time drawn evenly from 0 to
    `min(max_delay, initial_delay * multiplier**(n-1))` seconds ("full jitter": Marc Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015). An error that carries a finite, non-negative number `retry_after` (seconds),
    as rate-limit errors do, is honoured: the wait is then at least that long, and no attempt follows if it is longer
    than `max_retry_after`.

    A model's server that refuses a request and says when to come again is waited for: such a wait is no attempt, and
    `max_wait` bounds what one call waits so in all.

    `retry_on` and `give_up_on` are classes of exceptions, functions that say of an exception whether it is meant, or a
    list of both:

        RetryPolicy(retry_on=lambda error: getattr(error, "status", 0) >= 500)

    Raises:
        OptionError: a number is none, or out of its range.
        TypeError: a filter has something else than classes of exceptions and functions in it.

    Attributes:
        max_attempts: how often the function may be called in all, the first time included.
        initial_delay: the upper bound of the first wait, in seconds.
        multiplier: what the upper bound grows by from one wait to the next.
        max_delay: the largest upper bound, in seconds.
        jitter: False waits the upper bound itself, for tests and for a single caller.
        retry_on: the exceptions that another attempt may correct.
        give_up_on: exceptions among `retry_on` that another attempt cannot correct.
        max_retry_after: the longest `retry_after`, in seconds, that is worth waiting for.
        max_wait: the seconds that one call waits in all because the model's server asks for it; with 0, each refusal is
            a failed attempt.
    """

    max_attempts: int = 3
    initial_delay: float = 0.5
    multiplier: float = 2.0
    max_delay: float = 30.0
    jitter: bool = True
    retry_on: Failure | Iterable[Failure] = (Exception,)
    give_up_on: Failure | Iterable[Failure] = ()
    max_retry_after: float = 300.0
    max_wait: float = 600.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_attempts", at_least(1, "max_attempts", self.max_attempts))
        seconds = "seconds from 0 on"
        number("initial_delay", self.initial_delay, f"{seconds}, and not without end", infinity=False)
        number("max_delay", self.max_delay, seconds)
        number("max_retry_after", self.max_retry_after, seconds)
        number("max_wait", self.max_wait, seconds)
        why = "a number from 1 on, or the waits would shrink"
        if number("multiplier", self.multiplier, why, infinity=False) < 1:
            raise OptionError(f"multiplier={self.multiplier!r}: {why}")
        yes_or_no("jitter", self.jitter)
        for name in ("retry_on", "give_up_on"):
            object.__setattr__(self, name, failures(name, getattr(self, name)))

    @classmethod
    def of(cls, retry: RetryPolicy | int | None) -> RetryPolicy | None:
        """Read the short form: `retry=3` means at most three attempts, with the default delays.

        Raises:
            OptionError: it is neither that, nor a policy, nor None.
        """
        if retry is None or isinstance(retry, RetryPolicy):
            return retry
        try:
            return cls(max_attempts=at_least(1, "retry", retry))
        except ValueError as error:
            raise OptionError(f"{error}; it is how often a call may be made in all, or a RetryPolicy") from None

    def delay_after(self, attempt: int, error: Exception, chance: float) -> float | None:
        """The seconds to wait after attempt number `attempt` (from 1) failed with `error`; None to give up.

        `chance` is a number in [0, 1) drawn by the caller.
        """
        if attempt >= self.max_attempts or not self.may_mend(error):
            return None
        bound = self._bound(attempt)
        delay = bound * chance if self.jitter else bound
        asked = seconds_to_wait(error)
        if asked is None:
            return delay
        return None if asked > self.max_retry_after else max(asked, delay)

    def _bound(self, attempt: int) -> float:
        if not self.initial_delay:
            return 0.0
        longest = min(self.max_delay, _LONGEST)
        try:
            return min(longest, self.initial_delay * self.multiplier ** (attempt - 1))
        except OverflowError:
            return longest

    def may_mend(self, error: Exception) -> bool:
        """Whether another attempt may succeed where one failed with this error."""
        if isinstance(error, _NEVER_RETRIED):
            return False
        return is_meant(error, self._chosen("retry_on")) and not is_meant(error, self._chosen("give_up_on"))

    def _chosen(self, name: str) -> tuple[Failure, ...]:
        """A filter as it was put into its shape."""
        return cast("tuple[Failure, ...]", getattr(self, name))
