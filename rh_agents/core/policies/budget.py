"""Budgets: how much a run, or a part of it, may spend."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rh_agents.core.errors import DefinitionError
from rh_agents.core.policies._checks import is_number

__all__ = ["DEFAULT_DEPTH", "DEFAULT_RECURSION", "Budget", "expect_budget"]

DEFAULT_DEPTH = 120
"""Deeper than any program that means it. Python's stack has room for more, unless much stands around each call."""
DEFAULT_RECURSION = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a run, an actor's call or a group may spend, with all that is called in it.

    What a call may cost at most is reserved before it begins, and settled when it has ended. When a budget does not
    suffice for another call, calls under way come to their end, and the run is stopped with `BudgetExceeded`. Started
    again with a larger budget it goes on where it was; what it had spent before counts.

    Attributes:
        cost: money, in the currency of the prices.
        tokens: input and output tokens of models.
        calls: how many calls may be made. Those that are replayed or cached cost nothing and do not count.
        seconds: how long it may be under way, in all executions together.
        depth: how deep calls may be nested in it. Every run has a depth of 120 unless its budget says otherwise.
        recursion: how many calls of an agent may be made within one call of the same agent, directly or not, so that
            an agent that spawns itself stops. Every run has 1,000 unless its budget says otherwise.

    None is no limit, but for the run's own `depth` and `recursion`, where `math.inf` is.
    """

    cost: float | None = None
    tokens: int | None = None
    calls: int | None = None
    seconds: float | None = None
    depth: float | None = None
    recursion: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and not is_number(value, 0):
                raise ValueError(f"Budget({each.name}={value!r}): a number from 0 on, or None for no limit")

    @property
    def counts_tokens(self) -> bool:
        """Whether it counts what models read and write."""
        return self.cost is not None or self.tokens is not None


def expect_budget(given: object) -> Budget | None:
    """What is given as a budget, if it is one or none.

    Raises:
        DefinitionError: it is something else, such as an amount of money.
    """
    if given is None or isinstance(given, Budget):
        return given
    raise DefinitionError(f"budget= takes a Budget, such as Budget(cost=2.0), not {given!r}")
