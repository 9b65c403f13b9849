"""The options of commands that give a run a budget."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Annotated

import typer

from rh_agents.core.errors import BudgetExceeded, RunStopped
from rh_agents.core.policies.budget import Budget

__all__ = [
    "BudgetCalls",
    "BudgetCost",
    "BudgetTokens",
    "budget_field",
    "budget_of",
    "budget_options",
    "more_of",
    "without_options",
]

_OPTIONS = {"cost": "--budget-cost", "tokens": "--budget-tokens", "calls": "--budget-calls"}

BudgetCost = Annotated[
    float | None,
    typer.Option(
        _OPTIONS["cost"],
        min=0,
        metavar="MONEY",
        help="Stop the run before it costs more than this, earlier executions included.",
    ),
]
BudgetTokens = Annotated[
    int | None, typer.Option(_OPTIONS["tokens"], min=0, metavar="N", help="The same for tokens of models.")
]
BudgetCalls = Annotated[int | None, typer.Option(_OPTIONS["calls"], min=0, metavar="N", help="The same for calls.")]


def budget_of(cost: float | None, tokens: int | None, calls: int | None) -> Budget | None:
    """The budget that options give; None if none does."""
    if cost is None and tokens is None and calls is None:
        return None
    return Budget(cost=cost, tokens=tokens, calls=calls)


def budget_options(budget: Budget | None) -> dict[str, str]:
    """The options that give a budget, with their values."""
    given = {option: getattr(budget, field, None) for field, option in _OPTIONS.items()}
    return {option: f"{value}" for option, value in given.items() if value is not None}


def budget_field(stopped: RunStopped) -> str:
    """What there is too little of in the budget of a run, if that stopped it and options can give more; else ""."""
    if isinstance(stopped, BudgetExceeded) and not stopped.part and stopped.field in _OPTIONS:
        return stopped.field
    return ""


def more_of(field: str) -> str:
    """The option that gives more of it."""
    return f" {_OPTIONS[field]} MORE" if field else ""


def without_options(words: Sequence[str], options: Container[str]) -> list[str]:
    """A command line without these options and their values."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            return [*kept, word, *rest]
        if word in options:
            next(rest, None)
        else:
            kept.append(word)
    return kept
