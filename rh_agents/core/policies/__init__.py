"""Policies are values that decide: they get the time and chance passed in, and never wait, sleep or do I/O."""

from rh_agents.core.policies.breaker import BreakerState, CircuitBreaker
from rh_agents.core.policies.budget import Budget
from rh_agents.core.policies.compaction import ClearToolResults, Compaction, DropTurns, Summarize
from rh_agents.core.policies.limits import AdaptiveConcurrency, ConcurrencyLimit, Limit, RateLimit
from rh_agents.core.policies.retry import RetryPolicy

__all__ = [
    "AdaptiveConcurrency",
    "BreakerState",
    "Budget",
    "CircuitBreaker",
    "ClearToolResults",
    "Compaction",
    "ConcurrencyLimit",
    "DropTurns",
    "Limit",
    "RateLimit",
    "RetryPolicy",
    "Summarize",
]
