"""What a call takes out of limits and budgets, and what it uses of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

from rh_agents.core._limits.admission import Permits
from rh_agents.core._limits.ledgers import Ledger, Reservation
from rh_agents.core._loops.stop_signal import StopSignal
from rh_agents.core.policies.limits import Limit, RateLimitHint, need_of
from rh_agents.core.usage import Usage


class OwnCalls:
    """How often an agent was called within one of its own calls."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count: int = 0


class Consumption:
    """What one call has taken, and has used so far.

    Attributes:
        limits: whose permits each of its attempts needs.
        ledgers: the budgets of parts of the run that count what is spent in it, the innermost last.
        estimate: tells what it will use at most, or None if nobody knows.
        usage: what it has used so far.
        permits: the permits that it has.
        metered: what it had used when it got them.
        reservation: what is reserved for it in its budgets.
    """

    limits: tuple[Limit, ...] = ()
    ledgers: tuple[Ledger, ...] = ()
    estimate: Callable[[], Usage | None] | None = None
    usage: Usage | None = None
    permits: Permits | None = None
    metered: Usage | None = None
    reservation: Reservation | None = None
    _told_usage: Usage | None = None

    def need(self) -> Usage | None:
        """What an attempt will use at most; None if nobody knows."""
        return None if self.estimate is None else self.estimate()

    def used_since(self, before: Usage | None) -> Usage | None:
        """What it has used since it had used so much; None if nothing was reported since then."""
        if self.usage is before or self.usage is None:
            return None
        return self.usage if before is None else self.usage - before

    def untold_usage(self) -> Usage | None:
        """What it has used since this was asked last; None if nothing was ever reported."""
        if self.usage is None:
            return None
        untold = self.usage if self._told_usage is None else self.usage - self._told_usage
        self._told_usage = self.usage
        return untold

    @property
    def all_ledgers(self) -> tuple[Ledger, ...]:
        """All budgets that count what is spent in it, that of the run first."""
        return self.ledgers

    def charges(self) -> dict[str, float]:
        """What its budgets have to know to be counted on from there, by the part of the run that they are for."""
        ledgers = self.all_ledgers
        return {ledger.place: ledger.charge for ledger in ledgers if ledger.place or ledger.budget.seconds is not None}

    def honour(self, hint: RateLimitHint) -> None:
        """A provider has said something about its limits."""
        if self.permits is not None:
            self.permits.honour(hint)

    async def reenter(self, interruption: StopSignal, estimate: Usage, callers: Sequence[Reservation]) -> None:
        """Wait for what another request within the same attempt needs; `callers` as `reserve` has them.

        Raises:
            StopRun: the run is being stopped, or a budget does not suffice.
        """
        if self.reservation is not None:
            aside = nullcontext if self.permits is None else self.permits.released
            await self.reservation.renew(interruption, estimate, callers, aside)
        if self.permits is not None:
            used, self.metered = self.used_since(self.metered), self.usage
            await self.permits.reenter(need_of(used), need_of(estimate))

    def release(self, *, has_outcome: bool) -> None:
        """The call has ended, or was cut off without an outcome."""
        if self.reservation is not None:
            self.reservation.release(has_outcome=has_outcome)
            self.reservation = None
