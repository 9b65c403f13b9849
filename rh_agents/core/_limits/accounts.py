"""What a run spends: in all, under its own budget, and under those of its parts."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping

from rh_agents.core._limits.ledgers import Ledger
from rh_agents.core.policies.budget import DEFAULT_DEPTH, DEFAULT_RECURSION, Budget, expect_budget
from rh_agents.core.usage import Spending


class Accounts:
    """The ledgers of one run.

    Args:
        budget: that of the run; None for the limits that every run has.
        keeps_parts: whether what parts of the run have spent is kept for their next execution, as in recorded runs.
        time: how long the run has worked, in seconds from some moment on.
    """

    def __init__(self, budget: Budget | None, *, keeps_parts: bool, time: Callable[[], float]) -> None:
        self._keeps_parts = keeps_parts
        self._time = time
        budget = expect_budget(budget) or Budget()
        self.deepest: float = DEFAULT_DEPTH if budget.depth is None else budget.depth
        self.most_recursion: float = DEFAULT_RECURSION if budget.recursion is None else budget.recursion
        self.spent: Spending = Spending()
        """What the run has spent, in all its executions."""
        is_limited = (budget.cost, budget.tokens, budget.calls, budget.seconds) != (None, None, None, None)
        self.of_run: Ledger | None = Ledger(budget, "", "", Spending(), time=time) if is_limited else None
        self._by_place: dict[str, Spending] = {}

    def open(self, spent: Mapping[str, Spending]) -> None:
        """Count on from what was spent before."""
        self._by_place = {place: spending.copy() for place, spending in spent.items()}
        self.spent = self._by_place.pop("", Spending())
        ledger = self.of_run
        if ledger is not None:
            ledger.spent = self.spent.copy()
            ledger.open()

    def open_part(self, budget: Budget, place: str, name: str, depth: int) -> Ledger:
        """A ledger for a part of the run that is under way from now on, on top of what was spent there before."""
        if self._keeps_parts:
            spent = self._by_place.setdefault(place, Spending())
        else:
            spent, place = Spending(), uuid.uuid4().hex  # no call gets back to the part, and places have no keys
        ledger = Ledger(budget, place, name, spent, depth, time=self._time)
        ledger.open()
        return ledger
