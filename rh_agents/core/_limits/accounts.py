"""What a run spends: in all, under its own budget, and under those of its parts."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rh_agents.core._limits.ledgers import Ledger, Reservation, Share
from rh_agents.core.errors import UsageError
from rh_agents.core.policies.budget import DEFAULT_DEPTH, DEFAULT_RECURSION, Budget, expect_budget
from rh_agents.core.policies.sharing.budgets import AMOUNTS
from rh_agents.core.usage import Charge, Spending, Usage


class Accounts:
    """The ledgers of one run.

    Args:
        budget: that of the run; None for the limits that every run has.
        keeps_parts: whether what parts of the run have spent is kept for their next execution, as in recorded runs.
        time: how long the run has worked, in seconds from some moment on.
        share: gives what a part of the run, or ("") all of it, has of a budget that is shared with other runs.
    """

    def __init__(
        self,
        budget: Budget | None,
        *,
        keeps_parts: bool,
        time: Callable[[], float],
        share: Callable[[Budget, str], Share],
    ) -> None:
        self._keeps_parts = keeps_parts
        self._time = time
        self._share = share
        self._shares: dict[str, tuple[Budget, Share]] = {}
        """What it has of shared budgets, by name."""
        self._opened_at = 0.0
        self._budget = budget = expect_budget(budget) or Budget()
        self.deepest: float = DEFAULT_DEPTH if budget.depth is None else budget.depth
        self.most_recursion: float = DEFAULT_RECURSION if budget.recursion is None else budget.recursion
        self.spent: Spending = Spending()
        """What the run has spent, in all its executions."""
        is_limited = (budget.cost, budget.tokens, budget.calls, budget.seconds) != (None, None, None, None)
        self.of_run: Ledger | None = Ledger(budget, "", "", Spending(), time=time) if is_limited else None
        """None as long as the run has no budget."""
        self._by_place: dict[str, Spending] = {}

    def open(self, spent: Mapping[str, Spending]) -> None:
        """Count on from what was spent before."""
        self._opened_at = self._time()
        self._by_place = {place: spending.copy() for place, spending in spent.items()}
        self.spent = self._by_place.pop("", Spending())
        ledger = self.of_run
        if ledger is not None:
            ledger.spent = self.spent.copy()
            ledger.open(self._opened_at)
            ledger.share = self._shared(ledger.budget, "")

    async def aclose(self) -> None:
        """The run ends: what it has of shared budgets, and has not spent, is there for others."""
        for _, share in self._shares.values():
            await share.aclose()

    def _shared(self, budget: Budget, place: str) -> Share | None:
        """What the run has of a budget that is shared; None if it is not.

        Raises:
            UsageError: the run has no store, or another budget of that name.
        """
        if not budget.shared:
            return None
        known = self._shares.get(budget.name)
        if known is None:
            known = self._shares[budget.name] = (budget, self._share(budget, place))
        if any(getattr(known[0], name) != getattr(budget, name) for name in AMOUNTS):
            raise UsageError(
                f"{known[0]!r} and {budget!r} have the same name, so they are one budget: give them the same numbers"
            )
        return known[1]

    def share_all(self, budget: Budget) -> Ledger:
        """A ledger for all of the run, of a budget that the run which it is a part of shares with others."""
        ledger = Ledger(budget, "", "", Spending(), time=self._time, share=self._shared(budget, ""))
        ledger.open()
        return ledger

    def set_budget(self, field: str, value: float) -> None:
        """Give the budget of the run another number. A run that had none has one from now on.

        What was spent before counts. Calls under way have reserved nothing in it: what they use counts as they use it.
        """
        ledger = self.of_run
        if ledger is None:
            ledger = self.of_run = Ledger(self._budget, "", "", self.spent.copy(), time=self._time)
            ledger.open(self._opened_at)
        changed: dict[str, Any] = {field: value}
        if ledger.share is not None and field in AMOUNTS:
            ledger.share.replace(field, value)
            return
        ledger.budget = replace(ledger.budget, **changed)
        ledger.settle()

    def in_use(self, field: str) -> tuple[float, float]:
        """How much of a number of the run's budget is spent, and is reserved beyond that for calls under way."""
        ledger = self.of_run
        if ledger is not None:
            return ledger.in_use(field)
        if field == "seconds":
            return self.spent.seconds + self._time() - self._opened_at, 0
        return (self.spent.calls if field == "calls" else getattr(self.spent.usage, field)), 0

    def spend(self, name: str, usage: Usage, reservation: Reservation | None) -> None:
        """A call that has reserved this has used something."""
        self.spent.add(name, usage)
        if reservation is not None:
            reservation.spend(usage)
        if self.of_run is not None and not self._is_counted(reservation):
            self.of_run.spend(name, usage)

    def count_late(self, reservation: Reservation | None) -> None:
        """A call that has reserved this has come to its end. If the budget came later than the call, count it now."""
        if self.of_run is not None and not self._is_counted(reservation):
            self.of_run.spent.calls += 1

    def _is_counted(self, reservation: Reservation | None) -> bool:
        """Whether the budget of the run counts a call that has reserved this."""
        return reservation is not None and self.of_run is not None and reservation.is_in(self.of_run)

    def take_over(self, charge: Charge | None, *, has_outcome: bool) -> None:
        """Count what a call has spent that was made in another process."""
        name, usage, places, is_free, _ = charge or Charge("")
        parts = [self._by_place.setdefault(place, Spending()) for place in places or () if place]
        of_run = [] if self.of_run is None else [self.of_run.spent]
        for spending in (self.spent, *of_run, *parts):
            spending.add(name, usage, has_outcome and not is_free)

    def open_part(self, budget: Budget, place: str, name: str, depth: int) -> Ledger:
        """A ledger for a part of the run that is under way from now on, on top of what was spent there before.

        Raises:
            UsageError: the budget is shared, and the run has no store, or another budget of that name.
        """
        share = None
        if budget.shared:  # however many parts use it, it is one
            place = f"={budget.name}"
            share = self._shared(budget, place)
        if self._keeps_parts:
            spent = self._by_place.setdefault(place, Spending())
        else:
            spent, place = Spending(), uuid.uuid4().hex  # no call gets back to the part, and places have no keys
        ledger = Ledger(budget, place, name, spent, depth, time=self._time, share=share)
        ledger.open()
        return ledger
