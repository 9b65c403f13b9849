"""Numbers that people change while a run goes on: workers, limits, budgets, retries.

A setting is no part of any key, and no outcome is looked up by it, so replay does not depend on it. It holds until the
run ends. Limits are objects of the program that other runs may use as well, so they get their own numbers back then.

No window's promise is broken: a rate limit goes on to count what it admitted before, whether its number is raised or
lowered, and the length of its period, which cannot be changed from outside, stays.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from rh_agents.core._limits.accounts import Accounts
from rh_agents.core.errors import ControlRefused
from rh_agents.core.policies.limits import AdaptiveConcurrency, ConcurrencyLimit, Limit, RateLimit
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

    def expect_possible(self, settings: Mapping[str, Any], *, is_at_start: bool = False) -> str:
        """What it will mean that these are set: a sentence. At the start, nothing is known yet of limits and groups.

        Raises:
            ControlRefused: one of them cannot be.
        """
        for name, value in settings.items():
            if not is_at_start or name.startswith("budget."):
                self._expect_possible(name, value)
        remarks = [remark for name, value in settings.items() for remark in self._more_in_use(name, value)]
        text = ", ".join(f"{name}={value:g}" for name, value in settings.items())
        return f"{text} from now on" + "".join(f"; {remark}" for remark in remarks)

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

    def _expect_possible(self, name: str, value: Any) -> None:
        kind, _, rest = name.partition(".")
        if kind == "budget":
            self._expect_budget(rest, value)
        elif kind == "limit":
            for limit in self._named(name):
                self._expect_field(limit, name)
        elif kind == _WORKERS and rest and not any(group.name == rest for group in self._groups.values()):
            known = sorted({group.name for group in self._groups.values()})
            raise ControlRefused(f"{name}: no group {rest!r} is under way now{_instead(rest, known)}")

    def _expect_budget(self, field: str, value: float) -> None:
        ledger = self._budgets.of_run
        if ledger is None or getattr(ledger.budget, field) is None:
            raise ControlRefused(
                f"budget.{field}: the run was started without this budget, so calls under way are not counted in it; "
                f"start it again with Budget({field}={value:g}), or pause it"
            )
        spent, reserved = ledger.spent, ledger.reserved
        used, kept = {
            "cost": (spent.usage.cost, reserved.cost),
            "tokens": (spent.usage.tokens, reserved.tokens),
            "calls": (spent.calls, 0),
            "seconds": (ledger.seconds, 0),
        }[field]
        if used + kept > value:
            rest = f" and {kept:g} reserved for calls under way" if kept else ""
            raise ControlRefused(
                f"budget.{field}={value:g}: {used:g} is spent already{rest}; name more, or pause or cancel the run"
            )

    def _named(self, name: str) -> list[Limit]:
        wanted = _limit_in(name)
        found = [limit for limit in self._limits if limit.name == wanted]
        if not found:
            known = sorted({limit.name for limit in self._limits})
            raise ControlRefused(
                f"{name}: no call of the run has waited for a limit {wanted!r}{_instead(wanted, known)}"
            )
        return found

    def _expect_field(self, limit: Limit, name: str) -> None:
        known = _fields_of(limit)
        if _field_in(name) not in known:
            kind = type(limit).__name__
            raise ControlRefused(f"{name}: {limit.name!r} is a {kind}, of which can be set: {', '.join(known)}")

    def _more_in_use(self, name: str, value: float) -> Iterator[str]:
        """What there is to say of those that run already, if they are more than may."""
        for group in self._groups_in(name):
            if group.running > value:
                yield f"{group.running} of {group.name} run now, and none begins until fewer than {value:g} do"
        for limit in self._limits:
            if limit.name == _limit_in(name) and isinstance(limit, ConcurrencyLimit) and limit.in_use > value:
                yield f"{limit.in_use} hold {limit.name} now, and none begins until fewer than {value:g} do"

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
        ledger = self._budgets.of_run
        if ledger is None:
            return  # the program has no budget any more
        changed: dict[str, Any] = {field: value}
        ledger.budget = dataclasses.replace(ledger.budget, **changed)
        ledger.settle()
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


def _limit_in(name: str) -> str:
    """The name of the limit in that of a setting: it may have dots itself."""
    return name.removeprefix("limit.").rpartition(".")[0] if name.startswith("limit.") else ""


def _field_in(name: str) -> str:
    return name.rpartition(".")[2]


def _instead(wanted: str, known: list[str]) -> str:
    near = difflib.get_close_matches(wanted, known, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; it has {', '.join(map(repr, known))}" if known else "; it has none so far"
