"""Durable, parallel, observable agent workflows in plain async Python."""

from rh_agents.core.actors import LLM, Agent, BaseActor, Injected, Tool, ToolSet
from rh_agents.core.calls import Call
from rh_agents.core.context import current
from rh_agents.core.errors import (
    CallCancelled,
    CallTimeout,
    CircuitOpenError,
    GroupTimeout,
    RhAgentsError,
    TooManyFailures,
    UnreadFailures,
)
from rh_agents.core.events import ExecutionEvent, ExecutionResult
from rh_agents.core.execution import EventBus, ExecutionState, HistorySet
from rh_agents.core.parallel import (
    ErrorStrategy,
    GroupStatus,
    ParallelDisplayMode,
    ParallelEventGroup,
    ParallelExecutionManager,
)
from rh_agents.core.policies import CircuitBreaker, RetryPolicy
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.decorators import agent, llm, parallel, run, run_sync, tool
from rh_agents.stores import MemoryStore, open_store

__all__ = [
    "LLM",
    "Agent",
    "BaseActor",
    "Call",
    "CallCancelled",
    "CallTimeout",
    "CircuitBreaker",
    "CircuitOpenError",
    "ErrorStrategy",
    "EventBus",
    "EventType",
    "ExecutionEvent",
    "ExecutionResult",
    "ExecutionState",
    "ExecutionStatus",
    "GroupStatus",
    "GroupTimeout",
    "HistorySet",
    "Injected",
    "MemoryStore",
    "ParallelDisplayMode",
    "ParallelEventGroup",
    "ParallelExecutionManager",
    "RetryPolicy",
    "RhAgentsError",
    "TooManyFailures",
    "Tool",
    "ToolSet",
    "UnreadFailures",
    "agent",
    "current",
    "llm",
    "open_store",
    "parallel",
    "run",
    "run_sync",
    "tool",
]
