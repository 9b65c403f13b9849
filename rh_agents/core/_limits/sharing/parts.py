"""What this execution of a run has of a shared budget, and what it has to say of that.

Bookkeeping alone, as in `leasing`; see `rh_agents.core.policies.sharing.budgets` for what the numbers mean. Two things
make it safe. While a question is under way, nobody knows what the store has made of it, so until the answer comes,
calls begin only within what the question says is spent and reserved. And what a call has used is *in use* until it is
known to be in the journal, as what is reserved for it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from rh_agents.core.policies.sharing.budgets import AMOUNTS, BUDGET_LEASE, BudgetAnswer, BudgetAsk, BudgetHolder
from rh_agents.core.policies.sharing.windows import Amounts
from rh_agents.core.usage import Usage

__all__ = ["BudgetPart", "amounts_of"]


def amounts_of(usage: Usage, calls: int = 0) -> dict[str, float]:
    """What a budget counts of it."""
    return {"cost": usage.cost, "tokens": usage.tokens, "calls": calls}


class BudgetPart:
    """The part of one holder.

    Args:
        holder: who has it.
    """

    def __init__(self, holder: BudgetHolder) -> None:
        self.holder: BudgetHolder = holder
        self.is_new: bool = True
        """Whether the store knows nothing of the holder, as far as is known."""
        self.under_way: int = 0
        """How many calls are under way that have a place in it."""
        self.spent: dict[str, float] = _nothing()
        self.reserved: dict[str, float] = _nothing()
        self._reservations: dict[str, int] = dict.fromkeys(AMOUNTS, 0)
        self._used = _nothing()
        """What calls under way have used: it is in no journal yet."""
        self._written_behind = _nothing()
        """What calls have used that have ended, and that may not be on disk yet."""
        self._peak = _nothing()
        """What was in use at most since the last question."""
        self._part: dict[str, float] = {}
        self._ceiling = _nothing()
        self._until = float("-inf")
        self._said_spent = _nothing()
        self._said_reserved = _nothing()
        self._largest: dict[str, Amounts] = {}
        """What a call has used at most, by its name: here, or as the store has answered."""
        self._news: dict[str, Amounts] = {}
        """Of those, which the store does not know, as far as is known."""

    # -- calls --------------------------------------------------------------------------------------------------------

    def has_room(self, need: Amounts, now: float) -> bool:
        """Whether a call that needs so much may begin, or go on, without asking."""
        if now >= self._until:
            return False
        return all(
            self.spent[name] + self.reserved[name] + need[name] <= most
            and (not need[name] or self._in_use(name) + need[name] <= self._ceiling[name])
            for name, most in self._part.items()
        )

    def take(self, need: Amounts) -> None:
        """Reserve it. There is room."""
        _add(self.reserved, need)
        for name in need:
            self._reservations[name] += need[name] > 0
        self._peak = {name: max(self._peak[name], self._in_use(name)) for name in AMOUNTS}

    def begins(self) -> None:
        """A call is under way from now on."""
        self.under_way += 1

    def use(self, amounts: Amounts, reserved: Amounts | None = None) -> None:
        """A call under way has used something, of which so much was reserved for it: that counts as used alone now."""
        _add(self.spent, amounts)
        _add(self._used, amounts)
        if reserved is not None:
            _add(self.reserved, reserved, -1)

    def give_back(self, left: Amounts, need: Amounts) -> None:
        """What is left of a need is not reserved any more."""
        _add(self.reserved, left, -1)
        for name in need:
            self._reservations[name] -= need[name] > 0
            if not self._reservations[name]:
                self.reserved[name] = 0.0  # sums of fractions leave some behind

    def ended(self, used: Amounts, *, is_written: bool) -> None:
        """A call has ended that has used so much, and its journal has it, or will have it soon."""
        self.under_way -= 1
        _add(self._used, used, -1)
        if not is_written:
            _add(self._written_behind, used)
        if not self.under_way:  # as above
            self._used = _nothing()

    def learn(self, name: str, used: Amounts) -> None:
        """A call of this name has used so much."""
        before = self._largest.get(name, {})
        if any(amount > before.get(each, 0.0) for each, amount in used.items()):
            largest = {each: max(amount, before.get(each, 0.0)) for each, amount in used.items()}
            self._largest[name] = self._news[name] = largest

    def largest_of(self, name: str) -> Amounts:
        """What a call of this name has used at most, as far as is known here."""
        return self._largest.get(name, {})

    def _in_use(self, name: str) -> float:
        return self.reserved[name] + self._used[name] + self._written_behind[name]

    def written(self) -> Amounts:
        """What the journal may not have yet. When all is written that was noted by now, `are_written` is told so."""
        return dict(self._written_behind)

    def are_written(self, amounts: Amounts) -> None:
        """These are on disk by now."""
        _add(self._written_behind, amounts, -1)

    def seen(self, last: BudgetAnswer | None, name: str) -> tuple[float, float]:
        """How much is spent and reserved by all holders, when this one was last answered so."""
        spent, reserved = self.spent[name] - self._said_spent[name], self.reserved[name] - self._said_reserved[name]
        if last is None:
            return spent, reserved
        return last.spent[name] + spent, last.reserved[name] + reserved

    # -- questions ----------------------------------------------------------------------------------------------------

    def ask(
        self,
        limits: Amounts,
        need: Amounts | None,
        wanted: Amounts,
        replaced: Amounts,
        shown: Mapping[str, Amounts | None],
        *,
        closes: bool = False,
    ) -> BudgetAsk:
        """What to ask the store. Until it is answered, no more is taken than it says."""
        ceiling = {name: max(self._peak[name], self._in_use(name) + wanted.get(name, 0.0)) for name in AMOUNTS}
        self._peak = {name: self._in_use(name) for name in AMOUNTS}
        self._part = {name: self.spent[name] + self.reserved[name] for name in AMOUNTS}
        if closes:
            self._until = float("-inf")
        about = (self.holder, dict(limits), dict(self.spent), dict(self.reserved), need, dict(wanted), ceiling)
        return BudgetAsk(*about, self.is_new, closes, dict(replaced), dict(shown), dict(self._news))

    def answered(self, ask: BudgetAsk, answer: BudgetAnswer, asked_at: float) -> None:
        """The store has answered what was asked at this time of this process's own clock."""
        self.is_new = False
        self._said_spent, self._said_reserved = dict(ask.spent), dict(ask.reserved)
        self._part = dict(answer.part)
        self._ceiling = dict(ask.ceiling)
        self._until = asked_at + BUDGET_LEASE
        self._news = {name: used for name, used in self._news.items() if ask.largest.get(name) != used}
        for name, used in answer.largest.items():
            before = self._largest.get(name, {})
            self._largest[name] = {each: max(amount, before.get(each, 0.0)) for each, amount in used.items()}

    def begin_anew(self, holder: BudgetHolder) -> None:
        """What was spent so far is counted under another holder; what goes on now is counted under this one."""
        self.holder, self.is_new = holder, True
        self.spent, self._said_spent, self._said_reserved = _nothing(), _nothing(), dict(self.reserved)
        self._part, self._until = {}, float("-inf")


def _nothing() -> dict[str, float]:
    return dict.fromkeys(AMOUNTS, 0.0)


def _add(to: dict[str, float], amounts: Amounts, times: float = 1) -> None:
    for name, amount in amounts.items():
        to[name] += times * amount
