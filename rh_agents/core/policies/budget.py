"""Budgets: how much a run, or a part of it, may spend."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rh_agents.core.errors import DefinitionError, OptionError
from rh_agents.core.policies._checks import is_number
from rh_agents.core.policies._options import takes_options

__all__ = ["DEFAULT_DEPTH", "DEFAULT_RECURSION", "Budget", "expect_budget"]

DEFAULT_DEPTH = 120
"""Deeper than any program that means it. Python's stack has room for more, unless much stands around each call."""
DEFAULT_RECURSION = 1_000
_NUMBERS = ("cost", "tokens", "calls", "seconds", "depth", "recursion")


@takes_options("Budget")
@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a run, an actor's call or a group may spend, with all that is called in it.

    What a call may cost at most is reserved before it begins, and replaced by what it spent when it has ended. Where
    its actor does not say that (`estimate_input`), it is the largest that a call of its name has used so far. When a
    budget does not suffice for another call, calls under way come to their end, and the run is stopped with
    `BudgetExceeded`. Started again with a larger budget it resumes where it was; what it had spent before counts.

    Attributes:
        cost: money, in the currency of the prices.
        tokens: input and output tokens of models.
        calls: how many calls may be made. Those that are replayed or cached cost nothing and do not count.
        seconds: how long it may be under way, in all executions together.
        depth: how deep calls may be nested in it. Every run has a depth of 120 unless its budget says otherwise.
        recursion: how many calls of an agent may be made within one call of the same agent, directly or not, so that
            an agent that spawns itself stops. Every run has 1,000 unless its budget says otherwise.
        shared: whether `cost`, `tokens` and `calls` are kept in the store, for all runs together, of whatever process,
            that use a budget of this name there, and for all time: what was spent under the name is never forgotten.
            The other numbers are each run's own.
        name: of a shared budget.

    None is no limit, but for the run's own `depth` and `recursion`, where `math.inf` is.

    Raises:
        ValueError: a number is none, or a shared budget has no name or nothing to share.
    """

    cost: float | None = None
    tokens: int | None = None
    calls: int | None = None
    seconds: float | None = None
    depth: float | None = None
    recursion: float | None = None
    shared: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        for each in _NUMBERS:
            value = getattr(self, each)
            if value is not None and not is_number(value, 0):
                raise OptionError(f"Budget({each}={value!r}): a number from 0 on, or None for no limit")
        shared, name = _as_given(self.shared), _as_given(self.name)
        if not isinstance(shared, bool) or not isinstance(name, str):
            raise OptionError(
                f"Budget({shared=}, {name=}): shared is True or False, and the name a text, as in name='month'"
            )
        if self.shared and not self.name:
            raise OptionError("a shared budget needs a name: who uses the same name in the same store shares it")
        if self.shared and all(number in (None, math.inf) for number in (self.cost, self.tokens, self.calls)):
            raise OptionError(f"the shared budget {self.name!r} limits nothing: give it cost, tokens or calls")

    @property
    def counts_tokens(self) -> bool:
        """Whether it counts what models read and write."""
        return self.cost is not None or self.tokens is not None


def _as_given(option: object) -> object:
    """An option of which nothing is known, whatever its type says."""
    return option


def expect_budget(given: object) -> Budget | None:
    """What is given as a budget, if it is one or none.

    Raises:
        DefinitionError: it is something else, such as an amount of money.
    """
    if given is None or isinstance(given, Budget):
        return given
    raise DefinitionError(f"budget= takes a Budget, such as Budget(cost=2.0), not {given!r}")
