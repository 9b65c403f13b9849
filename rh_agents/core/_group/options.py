"""What the program wants of a group."""

from __future__ import annotations

from dataclasses import dataclass

from rh_agents.core._group.failures import FailurePolicy
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.budget import Budget
from rh_agents.core.policies.limits import Limit
from rh_agents.core.policies.retry import RetryPolicy

__all__ = ["GroupOptions"]


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
