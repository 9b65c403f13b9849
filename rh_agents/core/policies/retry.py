"""Whether a failed attempt is followed by another one, and after which delay."""

from __future__ import annotations

from dataclasses import dataclass

from rh_agents.core._foreign import seconds_to_wait
from rh_agents.core.errors import (
    CallCancelled,
    CircuitOpenError,
    DefinitionError,
    InputError,
    PermanentModelError,
    StoreError,
)

__all__ = ["RetryPolicy"]

_NEVER_RETRIED = (InputError, DefinitionError, CircuitOpenError, CallCancelled, StoreError, PermanentModelError)
"""Our own errors that another attempt cannot mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    Before attempt *n* + 1 the call waits a time drawn evenly from 0 to
    `min(max_delay, initial_delay * multiplier**(n-1))` seconds ("full jitter": Marc Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015). An error that carries a finite, non-negative number `retry_after` (seconds),
    as rate-limit errors do, is honoured: the wait is then at least that long, and no attempt follows if it is longer
    than `max_retry_after`.

    Attributes:
        max_attempts: how often the function may be called in all, the first time included.
        initial_delay: the upper bound of the first wait, in seconds.
        multiplier: what the upper bound grows by from one wait to the next.
        max_delay: the largest upper bound, in seconds.
        jitter: False waits the upper bound itself, for tests and for a single caller.
        retry_on: the exceptions that another attempt may mend.
        give_up_on: exceptions among `retry_on` that another attempt cannot mend.
        max_retry_after: the longest `retry_after`, in seconds, that is worth waiting for.
    """

    max_attempts: int = 3
    initial_delay: float = 0.5
    multiplier: float = 2.0
    max_delay: float = 30.0
    jitter: bool = True
    retry_on: tuple[type[Exception], ...] = (Exception,)
    give_up_on: tuple[type[Exception], ...] = ()
    max_retry_after: float = 300.0

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or self.max_attempts < 1:
            raise ValueError(f"max_attempts={self.max_attempts!r}: at least 1 attempt is needed")
        for name in ("initial_delay", "max_delay", "max_retry_after"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: seconds cannot be negative")
        if not self.multiplier >= 1:
            raise ValueError(f"multiplier={self.multiplier!r}: it must be at least 1, or the waits would shrink")

    @classmethod
    def of(cls, retry: RetryPolicy | int | None) -> RetryPolicy | None:
        """Read the short form: `retry=3` means at most three attempts, with the default delays."""
        if retry is None or isinstance(retry, RetryPolicy):
            return retry
        return cls(max_attempts=retry)

    def delay_after(self, attempt: int, error: Exception, chance: float) -> float | None:
        """The seconds to wait after attempt number `attempt` (from 1) failed with `error`; None to give up.

        `chance` is a number in [0, 1) drawn by the caller.
        """
        if attempt >= self.max_attempts or not self._may_mend(error):
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
        try:
            return min(self.max_delay, self.initial_delay * self.multiplier ** (attempt - 1))
        except OverflowError:
            return self.max_delay

    def _may_mend(self, error: Exception) -> bool:
        return isinstance(error, self.retry_on) and not isinstance(error, (*_NEVER_RETRIED, *self.give_up_on))
