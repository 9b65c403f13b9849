"""What holds for calls, groups and runs: attempts, limits, budgets, and the choices that their options have."""

from rh_agents.core.policies import (
    AdaptiveConcurrency,
    BreakerState,
    Budget,
    CircuitBreaker,
    ClearToolResults,
    Compaction,
    ConcurrencyLimit,
    DropTurns,
    Limit,
    RateLimit,
    RetryPolicy,
    Summarize,
)
from rh_agents.core.types import CacheScope, Durability, Effect, Engine, OnUnknown, RecordInputs, ReplayMode

__all__ = [
    "AdaptiveConcurrency",
    "BreakerState",
    "Budget",
    "CacheScope",
    "CircuitBreaker",
    "ClearToolResults",
    "Compaction",
    "ConcurrencyLimit",
    "DropTurns",
    "Durability",
    "Effect",
    "Engine",
    "Limit",
    "OnUnknown",
    "RateLimit",
    "RecordInputs",
    "ReplayMode",
    "RetryPolicy",
    "Summarize",
]
