"""What the program wants of a group, and when failures of its members end it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rh_agents.core.errors import OptionError, TooManyFailures
from rh_agents.core.groups import ErrorStrategy
from rh_agents.core.policies._checks import number
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.budget import Budget
from rh_agents.core.policies.limits import Limit
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.results import ExecutionResult

__all__ = ["FailurePolicy", "GroupOptions"]

_SAMPLE = 10
"""A share of failures is judged on at least this many finished members."""


class FailurePolicy:
    """Decides after each failed member whether its group goes on.

    Args:
        strategy: FAIL_FAST ends it at the first failure.
        fail_after: under FAIL_SLOW, the number of failures (int) or the share of the finished members (float up to 1.0)
            that ends it. None never does.

    Raises:
        OptionError: `fail_after` is out of range, or both are given.
    """

    def __init__(self, strategy: ErrorStrategy, fail_after: int | float | None) -> None:
        if fail_after is not None:
            _check(fail_after, strategy)
        self.strategy: ErrorStrategy = strategy
        self.fail_after: int | float | None = fail_after

    def verdict(self, result: ExecutionResult[Any], failed: int, finished: int, group: str) -> BaseException | None:
        """What ends the group after this failed member: its own exception, or `TooManyFailures`. None goes on."""
        if self.strategy is ErrorStrategy.FAIL_FAST:
            return result.error
        if not self._is_reached(failed, finished):
            return None
        reason = TooManyFailures(
            f"group {group!r} stopped after {failed} of {finished} finished members had failed "
            f"(fail_after={self.fail_after}); the last one: {result.error_message}",
            group=group,
        )
        reason.__cause__ = result.error
        return reason

    def _is_reached(self, failed: int, finished: int) -> bool:
        if self.fail_after is None:
            return False
        if isinstance(self.fail_after, int):
            return failed >= self.fail_after
        return finished >= _SAMPLE and failed >= self.fail_after * finished


def _check(fail_after: int | float, strategy: ErrorStrategy) -> None:
    if strategy is ErrorStrategy.FAIL_FAST:
        raise OptionError("FAIL_FAST stops at the first failure, so fail_after has no meaning beside it: leave one out")
    number("fail_after", fail_after, "a number of failures from 1 on, or a share between 0.0 and 1.0", zero=False)
    if isinstance(fail_after, float) and fail_after > 1.0:
        raise OptionError(f"fail_after={fail_after!r}: a share is at most 1.0; a number of failures is an int")


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """The options of `ParallelExecutionManager`, checked."""

    name: str
    max_workers: int
    failure_policy: FailurePolicy
    timeout: float | None = None
    item_timeout: float | None = None
    retry: RetryPolicy | None = None
    breaker: CircuitBreaker | None = None
    limits: tuple[Limit, ...] = ()
    budget: Budget | None = None
    requeue: bool = False


def text_or_none(name: object) -> str | None:
    """The name of a group."""
    if name is None or isinstance(name, str):
        return name
    raise OptionError(f"name={name!r}: a text is needed")


def positive_or_none(name: str, value: float | None) -> float | None:
    """A time limit."""
    return None if value is None else number(name, value, "seconds above 0 (None for no limit)", zero=False)
