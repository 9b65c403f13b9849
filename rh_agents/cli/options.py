"""Options that several commands have, and what they mean."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Sequence
from typing import Annotated

import typer

from rh_agents.cli.errors import CommandError
from rh_agents.cli.output.progress import Progress
from rh_agents.core.errors import BudgetExceeded, RunStopped
from rh_agents.core.policies.budget import Budget
from rh_agents.core.types import RecordInputs
from rh_agents.stores._environment import VARIABLE as STORE_VARIABLE
from rh_agents.telemetry import VARIABLE, expect_sdk

__all__ = [
    "AcceptChanges",
    "BudgetCalls",
    "BudgetCost",
    "BudgetName",
    "BudgetTokens",
    "Grace",
    "InputsRecorded",
    "KeepFailures",
    "Otel",
    "ProgressMode",
    "RunId",
    "StoreUrl",
    "Tags",
    "budget_field",
    "budget_of",
    "budget_options",
    "more_of",
    "parse_age",
    "without_options",
]

TARGET_HELP = "A dotted module or the path of a .py file, a colon, and the name of a function, model or agent in it."


StoreUrl = Annotated[
    str,
    typer.Option(
        metavar="URL",
        envvar=STORE_VARIABLE,
        show_envvar=True,
        help="Where the run is recorded: a path, a URL such as postgresql://host/database, or none to record nothing.",
    ),
]


RunId = Annotated[
    str | None,
    typer.Option(
        "--run-id",
        metavar="NAME",
        help="Defaults to a name derived from the command, so repeating the command resumes the run.",
    ),
]


Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="WORD", help="A word to find the run by. May be repeated.")
]


KeepFailures = Annotated[
    bool, typer.Option("--no-retry-failed", help="If the run has ended: keep its recorded failures, do not retry them.")
]


def _trace_runs(ctx: typer.Context, is_wanted: bool) -> bool:
    """Let all runs of this command be traced, those parts that other processes execute included."""
    if is_wanted and os.environ.get(VARIABLE) != "otel":
        expect_sdk("--otel")
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = "otel"
        ctx.call_on_close(lambda: _put_back(before))
    return is_wanted


def _put_back(before: str | None) -> None:
    if before is None:
        del os.environ[VARIABLE]
    else:
        os.environ[VARIABLE] = before


Otel = Annotated[
    bool,
    typer.Option(
        "--otel",
        help="Trace runs by OpenTelemetry: spans and metrics go to where OTEL_EXPORTER_OTLP_ENDPOINT says.",
        callback=_trace_runs,
    ),
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes", help="Reuse results of code that has changed since, without a word about it from now on."
    ),
]


Grace = Annotated[
    float,
    typer.Option(min=0, metavar="SECONDS", help="How long calls in flight may take to finish after Ctrl-C or SIGTERM."),
]


InputsRecorded = Annotated[
    RecordInputs,
    typer.Option(
        "--record-inputs",
        help="What is recorded of what calls are called with, for people: 256 bytes (brief), nothing or all of it.",
    ),
]


ProgressMode = Annotated[
    Progress,
    typer.Option(help="On standard error: a bar on a terminal and lines elsewhere (auto), or what is named here."),
]


_OPTIONS = {"cost": "--budget-cost", "tokens": "--budget-tokens", "calls": "--budget-calls"}
_BUDGET_NAME = "--budget-name"

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


BudgetName = Annotated[
    str | None,
    typer.Option(
        _BUDGET_NAME,
        metavar="NAME",
        help="Share the budget with all runs in this store that use the same name, also those of other processes.",
    ),
]


def budget_of(cost: float | None, tokens: int | None, calls: int | None, name: str | None) -> Budget | None:
    """The budget that options give; None if none does.

    Raises:
        CommandError: it has a name, and nothing to share.
    """
    if cost is None and tokens is None and calls is None:
        if name is not None:
            raise CommandError(f"{_BUDGET_NAME} {name}: say how much there is, with {', '.join(_OPTIONS.values())}")
        return None
    return Budget(cost=cost, tokens=tokens, calls=calls, shared=bool(name), name=name or "")


def budget_options(budget: Budget | None) -> dict[str, str]:
    """The options that give a budget, with their values."""
    given = {option: getattr(budget, field, None) for field, option in _OPTIONS.items()}
    named = {_BUDGET_NAME: budget.name} if budget is not None and budget.shared else {}
    return {option: f"{value}" for option, value in given.items() if value is not None} | named


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


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def parse_age(option: str, text: str) -> float:
    """Seconds of `30d`, `12h`, `5m`, `90s` or `2w`.

    Raises:
        CommandError: it is none of these.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", text)
    if found is None:
        raise CommandError(f"{option} {text}: write a number and a unit, as in 30d, 12h, 5m, 90s or 2w")
    return float(found[1]) * _UNITS[found[2]]
