"""What a run is doing now, in a few lines, and a part of the terminal that shows lines again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import IO, Final, Self

from rh_agents.cli.output.page import Page, Part
from rh_agents.cli.output.wording import age, ago, counted
from rh_agents.core.ports.present import BudgetState, Present
from rh_agents.display.region import Frame, LiveRegion
from rh_agents.display.text import harmless

__all__ = ["Line", "LinesRegion", "NowRegion", "now_lines", "waits_of"]

Line = tuple[Part, ...]
_OLD: Final = 10.0
"""Seconds. What was said longer ago is shown with its age: it may not hold any more."""
_MOST_LIMITS: Final = 5
_UNITS: Final = {"tokens": " tokens", "calls": " calls"}


def now_lines(present: Present, now: float, *, is_live: bool) -> list[Line]:
    """What there is to say. Nothing, if nothing is under way.

    Args:
        present: what the owner of the run has said.
        now: the time of day.
        is_live: whether somebody executes the run; else it is what was last known.
    """
    if present.is_over:
        return []
    return [_counts(present, now, is_live), *_details(present, now, is_live)]


def waits_of(present: Present | None, now: float) -> dict[str, str]:
    """What calls wait for, and for how long they have, by their keys, as far as the owner of the run names them."""
    if present is None or present.is_over:
        return {}
    held = {
        each.key: f"waiting for {harmless(each.name)} for {age(max(0.0, now - each.since))}"
        for each in present.held
        if each.key is not None
    }
    due = {
        each.key: f"to be tried again in {age(max(0.0, each.due_at - now))}"
        for each in present.retrying
        if each.key is not None
    }
    return held | due


def _counts(present: Present, now: float, is_live: bool) -> Line:
    waiting = sum(each.calls for each in present.waiting)
    old = now - present.at
    if is_live:
        since = f"as of {ago(old)}" if old >= _OLD else ""
    else:
        since = f"last known, {ago(old)}"
    return (
        Part("now" if is_live else "then", "bold"),
        Part(f"{present.in_flight:,} in flight", "cyan" if present.in_flight else ""),
        Part(f"{waiting:,} waiting" if waiting else "", "yellow", 1),
        Part(f"{present.retries:,} to be retried" if present.retries else "", "yellow", 1),
        Part(counted(present.asking, "open question") if present.asking else "", "yellow", 1),
        Part(since, "dim", 2),
    )


def _details(present: Present, now: float, is_live: bool) -> Iterator[Line]:
    at = now if is_live else present.at
    if present.paused_at is not None:
        yield (Part(f"  paused for {age(at - present.paused_at)}: nothing new begins", "yellow"),)
    quiet = present.quiet_for(at)
    if quiet is not None:
        where = f": {harmless(present.where)}" if present.where else ""
        yield (Part(f"  nothing has finished for {age(quiet)}{where}", "red", is_elastic=True),)
    for limit in present.waiting[:_MOST_LIMITS]:
        why = f" ({harmless(limit.why)})" if limit.why else ""
        text = f"  {counted(limit.calls, 'call')} waiting for {harmless(limit.name)}{why} for {age(at - limit.since)}"
        yield (Part(text, "yellow", is_elastic=True),)
    if present.retrying:
        first = present.retrying[0]
        due = max(0.0, first.due_at - at)
        yield (
            Part(f"  retrying in {age(due)}"),
            Part(harmless(first.address), "", 0, True),
            Part(f"after {counted(first.attempt, 'attempt')}", "dim", 1),
        )
    if present.running and quiet is None:
        longest = present.running[0]
        yield (
            Part(f"  longest {age(at - longest.since)}"),
            Part(harmless(longest.address), "", 0, True),
            Part(f"attempt {longest.attempt}" if longest.attempt > 1 else "", "dim", 1),
        )
    for breaker in present.breakers:
        name = f" {harmless(breaker.name)}" if breaker.name else ""
        state = breaker.state.replace("_", "-")
        text = f"  breaker{name} is {state} after {counted(breaker.failures, 'failure')}"
        yield (Part(text, "red", is_elastic=True),)
    for budget in present.budgets:
        yield (Part(f"  {_budget_text(budget)}", "dim", is_elastic=True),)


def _budget_text(budget: BudgetState) -> str:
    of = f"the budget of {harmless(budget.name)}" if budget.name else "the run's budget"
    parts = []
    for name, limit in budget.limits.items():
        text = f"{_amount(name, budget.spent.get(name, 0))} of {_amount(name, limit)}{_UNITS.get(name, '')}"
        if budget.reserved.get(name):
            text += f" ({_amount(name, budget.reserved[name])} reserved)"
        parts.append(text)
    return f"{of}: {', '.join(parts)}"


def _amount(name: str, amount: float) -> str:
    if name == "cost":
        return f"${amount:,.2f}"
    return age(amount) if name == "seconds" else f"{int(amount):,}"


class LinesRegion:
    """A part at the bottom of the terminal with lines that are made anew each time. What is printed appears above it.

    Args:
        file: the terminal.
    """

    def __init__(self, file: IO[str]) -> None:
        self._region = LiveRegion(file, self._frame, refresh_per_second=2)

    def lines(self) -> Sequence[Line]:
        """What is to be shown now."""
        return ()

    def draw(self) -> None:
        """Show it now."""
        self._region.draw()

    def _frame(self) -> Frame:
        page = Page()
        rows = [page.row(*line) for line in self.lines()]
        return Frame([row for row, _ in rows], [columns for _, columns in rows], page.width or 80)

    def __enter__(self) -> Self:
        self._region.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._region.stop()


class NowRegion(LinesRegion):
    """Shows what one run is doing now."""

    present: Present | None = None

    def lines(self) -> Sequence[Line]:
        """What there is to say of it."""
        return () if self.present is None else now_lines(self.present, time.time(), is_live=True)
