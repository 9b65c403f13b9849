"""What a resume is expected to cost: as much as calls like those that it would make have cost so far.

The members of a map are alike, with all the calls below them: what the run has cost is divided by those that have
ended. Of any other run, each call that would be made is taken for the average of its group, or of its actor. What it
calls itself is not known before, so with calls below others that is the least that it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rh_agents.core.plan import Fate, Plan, PlannedCall

__all__ = ["ExpectedCost", "expected_cost", "expected_cost_of_items"]

_ENDED = (Fate.REUSED, Fate.REPEATED, Fate.TRIED_AGAIN, Fate.SUPERSEDED)
_MADE = (Fate.TRIED_AGAIN, Fate.SUPERSEDED, Fate.CONTINUED)


@dataclass(frozen=True, slots=True)
class ExpectedCost:
    """What calls are expected to cost.

    Attributes:
        amount: in the currency of the price table.
        is_partial: whether nothing is known of some of them, so that it is rather more.
    """

    amount: float
    is_partial: bool = False

    def __str__(self) -> str:
        text = f"${self.amount:,.2f}" if self.amount >= 0.1 else f"${self.amount:.2g}"
        return f"at least {text}" if self.is_partial else f"about {text}"


def expected_cost_of_items(plan: Plan, group_id: str, spent: float, items: int) -> ExpectedCost | None:
    """What so many items of a map cost.

    Args:
        plan: of its run.
        group_id: the group in which its members are.
        spent: what the run has cost so far.
        items: how many would be made.

    Returns:
        None if the run has cost nothing, or nothing in it has ended, or nothing would be made.
    """
    ended = sum(call.group_id == group_id and call.fate in _ENDED for call in plan.calls)
    ended += sum(len(its) for its, fate in plan.plain if its.group_id == group_id and fate in _ENDED)
    return ExpectedCost(spent / ended * items) if ended and spent and items else None


def expected_cost(
    plan: Plan, costs: Mapping[str, float], is_made_again: Callable[[PlannedCall], bool]
) -> ExpectedCost | None:
    """What the calls cost that a resume would make.

    Args:
        plan: what would become of the run.
        costs: of one call on average, by the id of its group, and else by its name.
        is_made_again: whether a call with an unknown outcome is.

    Returns:
        None if no call has cost anything, or none would be made.
    """
    wanted = [
        (call.group_id, call.name, 1)
        for call in plan.calls
        if call.fate in _MADE or (call.fate is Fate.UNKNOWN and is_made_again(call))
    ]
    wanted += [(group.group_id, "", group.not_begun or 0) for group in plan.groups]
    amount, is_partial = 0.0, plan.counts[Fate.NOT_REACHED] > 0 or any(group.not_begun is None for group in plan.groups)
    for group_id, name, number in wanted:
        cost = costs.get(group_id or name, costs.get(name))
        is_partial |= cost is None and number > 0
        amount += number * (cost or 0.0)
    return ExpectedCost(amount, is_partial) if amount else None
