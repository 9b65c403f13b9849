"""A circuit breaker: after repeated failures it refuses calls for a while, then tries a few before it trusts again.

The pattern is Michael Nygard's ("Release It!", 2007). The states and what moves between them:

    CLOSED     failure_threshold failures in a row      -> OPEN
    OPEN       reset_timeout seconds passed             -> HALF_OPEN (at the next attempt)
    HALF_OPEN  `probes` probes succeeded                -> CLOSED
    HALF_OPEN  one probe failed                         -> OPEN
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from rh_agents.core.errors import CircuitOpenError
from rh_agents.core.policies._checks import Failure, at_least, failures, is_meant, number
from rh_agents.core.policies._options import takes_options

__all__ = ["Admission", "BreakerState", "CircuitBreaker"]


class BreakerState(StrEnum):
    """What a circuit breaker does with the next attempt."""

    CLOSED = "closed"
    """Attempts pass."""
    OPEN = "open"
    """Attempts are refused."""
    HALF_OPEN = "half_open"
    """A stated number of probes pass; what they report decides."""


class Admission(NamedTuple):
    """The right to one attempt. The era tells late reports of an earlier state from those that count now."""

    era: int


@takes_options("CircuitBreaker")
class CircuitBreaker:
    """Counts failures in a row, for one group or shared between several.

    Args:
        failure_threshold: failures in a row that open the breaker.
        reset_timeout: seconds for which it then refuses every attempt.
        probes: how many attempts it lets through when that time is over; all of them must succeed to close it.
        name: shown in its errors.
        counts: the exceptions that count as failures of the thing behind the breaker: classes, or functions that say of
            an exception whether it counts.

    Raises:
        ValueError: a number is none, or out of its range.
        TypeError: `counts` has something else than classes of exceptions and functions in it.

    Times are seconds of one monotonic clock, passed in by the caller. All methods return at once.
    """

    def __init__(
        self,
        failure_threshold: int = 5,
        reset_timeout: float = 30.0,
        *,
        probes: int = 1,
        name: str = "",
        counts: Failure | Iterable[Failure] = (Exception,),
    ) -> None:
        self.failure_threshold: int = at_least(1, "failure_threshold", failure_threshold)
        self.reset_timeout: float = number("reset_timeout", reset_timeout, "seconds from 0 on")
        self.probes: int = at_least(1, "probes", probes)
        self.name = name
        self.counts: tuple[Failure, ...] = failures("counts", counts)
        self._state = BreakerState.CLOSED
        self._era = 0
        self._failures = 0
        self._opened_at = 0.0
        self._probing = 0
        self._probed = 0

    def __copy__(self) -> CircuitBreaker:
        return self

    def __deepcopy__(self, memo: object) -> CircuitBreaker:
        """Itself: copies of an actor have the same thing behind them."""
        return self

    def __repr__(self) -> str:
        return f"CircuitBreaker({self.name!r}, {self._state.value}, failures={self._failures})"

    @property
    def state(self) -> BreakerState:
        """The state after the last report. An open breaker becomes half-open at the next attempt, not by itself."""
        return self._state

    @property
    def failures(self) -> int:
        """Failures in a row so far."""
        return self._failures

    def admit(self, now: float) -> Admission:
        """Ask for an attempt; every admission must be reported with `succeeded`, `failed` or `abandoned`.

        Raises:
            CircuitOpenError: the attempt is refused.
        """
        if self._state is BreakerState.OPEN and now >= self._opened_at + self.reset_timeout:
            self._enter(BreakerState.HALF_OPEN)
        if self._state is BreakerState.OPEN:
            raise self._refusal(self._opened_at + self.reset_timeout - now)
        if self._state is BreakerState.HALF_OPEN:
            if self._probing + self._probed >= self.probes:
                raise self._refusal(0.0)
            self._probing += 1
        return Admission(self._era)

    def succeeded(self, admission: Admission) -> None:
        """Report that an admitted attempt succeeded."""
        if admission.era != self._era:
            return
        self._failures = 0
        if self._state is BreakerState.HALF_OPEN:
            self._probing -= 1
            self._probed += 1
            if self._probed >= self.probes:
                self._enter(BreakerState.CLOSED)

    def failed(self, admission: Admission, error: Exception, now: float) -> None:
        """Report that an admitted attempt failed. An error outside `counts` says the thing behind works."""
        if not is_meant(error, self.counts):
            return self.succeeded(admission)
        if admission.era != self._era:
            return None
        self._failures += 1
        if self._state is BreakerState.HALF_OPEN or self._failures >= self.failure_threshold:
            self._opened_at = now
            self._enter(BreakerState.OPEN)
        return None

    def abandoned(self, admission: Admission) -> None:
        """Report that an admitted attempt was cancelled, which says nothing about the thing behind."""
        if admission.era == self._era and self._state is BreakerState.HALF_OPEN:
            self._probing -= 1

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._era += 1
        self._probing = self._probed = 0
        if state is BreakerState.CLOSED:
            self._failures = 0

    def _refusal(self, retry_in: float) -> CircuitOpenError:
        name = f" {self.name!r}" if self.name else ""
        if self._state is BreakerState.OPEN:
            why = f"is open after {self._failures} failures in a row; it will try again in {retry_in:.1f} s"
        else:
            why = f"is half-open; it will try again once its {self.probes} probe(s) under way have succeeded"
        return CircuitOpenError(f"Circuit breaker{name} {why}", retry_in=retry_in)
