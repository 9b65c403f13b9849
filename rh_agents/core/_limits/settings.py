"""Numbers that people change while a run goes on: workers, limits, budgets, retries.

A setting is no part of any key, and no outcome is looked up by it, so replay does not depend on it. It holds until the
run ends. Limits are objects of the program that other runs may use as well, so they get their own numbers back then.

No window's promise is broken: a rate limit goes on to count what it admitted before, whether its number is raised or
lowered, and the length of its period, which cannot be changed from outside, stays.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from rh_agents.core._limits.accounts import Accounts
from rh_agents.core.policies.limits import AdaptiveConcurrency, ConcurrencyLimit, Limit, RateLimit
from rh_agents.core.policies.numbers import SettingState, changed_settings
from rh_agents.core.policies.retry import RetryPolicy

__all__ = ["Settings", "SteeredGroup"]

_WORKERS = "max-workers"


class SteeredGroup(Protocol):
    """A group under way."""

    @property
    def name(self) -> str:
        """What its program calls it."""
        ...

    @property
    def running(self) -> int:
        """How many of its members run."""
        ...

    @property
    def max_workers(self) -> int:
        """How many may run at most."""
        ...

    def set_max_workers(self, count: int) -> None:
        """So many run at most from now on; those that do already come to their end."""
        ...

    def count_named(self, items: Sequence[str]) -> int:
        """How many members run that are named so."""
        ...

    def cancel_members(self, items: Sequence[str], why: str) -> int:
        """Cancel members that run, by name; how many there were."""
        ...

    def replaceable(self, keys: Container[bytes]) -> list[Any]:
        """Members with these keys that have failed, and of whose failure the program does not know."""
        ...

    def make_again(self, member: Any) -> None:
        """Let such a member be made again, in place of its failure."""
        ...


class Settings:
    """The settings of one run.

    Args:
        budgets: what it may spend.
        groups: those under way, by id.
    """

    def __init__(self, budgets: Accounts, groups: Mapping[str, SteeredGroup]) -> None:
        self._budgets = budgets
        self._groups = groups
        self._values: dict[str, Any] = {}
        self._limits: dict[Limit, dict[str, float | None]] = {}
        """The limits that it uses, each with its own numbers, as far as they were changed."""
        self.retry: int | None = None
        """How many attempts calls have in all that are retried; None as each says itself."""
        self.when_seconds_change: Callable[[], None] = lambda: None
        """Called when the run has another budget of time."""

    # -- what it is about ---------------------------------------------------------------------------------------------

    def max_workers_of(self, group: str, count: int) -> int:
        """How many members of a group of this name may run, if its program says `count`."""
        return int(self._values.get(f"{_WORKERS}.{group}", self._values.get(_WORKERS, count)))

    def know(self, limits: Iterable[Limit]) -> None:
        """Calls of the run wait for these limits."""
        for limit in limits:
            if limit not in self._limits:
                self._limits[limit] = {}
                for name, value in self._values.items():
                    if _limit_in(name) == limit.name:
                        self._change(limit, _field_in(name), value)

    def retried(self, policy: RetryPolicy) -> RetryPolicy:
        """The policy of a call that is retried, with the attempts that it has now."""
        return policy if self.retry is None else dataclasses.replace(policy, max_attempts=self.retry)

    # -- changing it --------------------------------------------------------------------------------------------------

    def known(self) -> list[SettingState]:
        """What can be set, as far as groups are open and limits have been waited for, and what it is now."""
        groups = [
            SettingState(f"{_WORKERS}.{group.name}", group.max_workers, group.running)
            for group in self._groups.values()
        ]
        limits = [
            SettingState(
                f"limit.{limit.name}.{field}",
                _number_of(limit, field),
                limit.in_use if isinstance(limit, ConcurrencyLimit) else None,
            )
            for limit in self._limits
            for field in _fields_of(limit)
        ]
        retry = [] if self.retry is None else [SettingState("retry", self.retry)]
        return [*self._budget_states(), *retry, *limits, *groups]

    def _budget_states(self) -> Iterator[SettingState]:
        """Those of the run, also where it has none: then it may get one."""
        ledger = self._budgets.of_run
        for field in ("cost", "tokens", "calls", "seconds"):
            limit = None if ledger is None else ledger.limit_of(field)
            used, kept = self._budgets.in_use(field)
            amount = math.floor(used) if field == "seconds" else used
            yield SettingState(f"budget.{field}", math.inf if limit is None else limit, amount, kept)

    def expect_possible(self, settings: Mapping[str, Any], *, is_at_start: bool = False) -> str:
        """What it will mean that these are set: a sentence. At the start, nothing is known yet of limits and groups.

        Raises:
            ControlRefused: one of them cannot be.
        """
        text = changed_settings(settings, self.known(), "from now on", is_at_start=is_at_start)
        used = self._budgets.spent.usage
        if "budget.cost" in settings and used.tokens and not used.cost:
            text += "; nothing has cost anything so far, and calls of models without a price fail under such a budget"
        return text

    def change(self, settings: Mapping[str, Any]) -> None:
        """Set them all."""
        for name, value in settings.items():
            self._set(name, value)

    def restore(self) -> None:
        """The run has ended: limits that other runs may use have their own numbers again."""
        for limit, own in self._limits.items():
            for field, value in own.items():
                self._write(limit, field, value)
        self._limits.clear()
        self._values.clear()

    def _set(self, name: str, value: Any) -> None:
        self._values[name] = value
        kind, _, rest = name.partition(".")
        for group in self._groups_in(name):
            group.set_max_workers(value)
        if kind == "limit":
            for limit in self._limits:
                if limit.name == _limit_in(name):
                    self._change(limit, _field_in(name), value)
        elif kind == "budget":
            self._set_budget(rest, value)
        elif kind == "retry":
            self.retry = value

    def _groups_in(self, name: str) -> list[SteeredGroup]:
        """The groups that a setting is about."""
        return [group for group in self._groups.values() if name in (_WORKERS, f"{_WORKERS}.{group.name}")]

    def _set_budget(self, field: str, value: float) -> None:
        self._budgets.set_budget(field, value)
        if field == "seconds":
            self.when_seconds_change()

    def _change(self, limit: Limit, field: str, value: float) -> None:
        """Change a limit, and remember its own number."""
        if field in _fields_of(limit):
            own = limit.limits.get(field) if isinstance(limit, RateLimit) else getattr(limit, field)
            self._limits[limit].setdefault(field, own)
            self._write(limit, field, value)

    @staticmethod
    def _write(limit: Limit, field: str, value: float | None) -> None:
        if isinstance(limit, RateLimit):
            limit.change(**{field: float("inf") if value is None else value})
        elif isinstance(limit, AdaptiveConcurrency) and value is not None:
            limit.maximum = max(limit.minimum, int(value))
            limit.limit = min(limit.limit, limit.maximum)
        elif isinstance(limit, ConcurrencyLimit) and value is not None:
            limit.limit = int(value)


def _fields_of(limit: Limit) -> list[str]:
    """What can be set of it."""
    if isinstance(limit, RateLimit):
        return list(limit.limits)
    if isinstance(limit, AdaptiveConcurrency):
        return ["maximum"]
    return ["limit"] if isinstance(limit, ConcurrencyLimit) else []


def _number_of(limit: Limit, field: str) -> float:
    if isinstance(limit, RateLimit):
        value = limit.limits.get(field)
        return math.inf if value is None else value
    return float(getattr(limit, field))


def _limit_in(name: str) -> str:
    """The name of the limit in that of a setting: it may have dots itself."""
    return name.removeprefix("limit.").rpartition(".")[0] if name.startswith("limit.") else ""


def _field_in(name: str) -> str:
    return name.rpartition(".")[2]
