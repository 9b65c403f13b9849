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
    RunAwaiting,
    RunIsLive,
    RunMismatchError,
    RunStopped,
    StoreError,
    TooManyFailures,
    UnknownOutcomeError,
    UnreadFailures,
    UnstorableError,
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
from rh_agents.core.ports import Question, Store
from rh_agents.core.rewind import fork
from rh_agents.core.types import Durability, Effect, EventType, ExecutionStatus, OnUnknown, ReplayMode
from rh_agents.core.values import storable
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
    "Durability",
    "Effect",
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
    "OnUnknown",
    "ParallelDisplayMode",
    "ParallelEventGroup",
    "ParallelExecutionManager",
    "Question",
    "ReplayMode",
    "RetryPolicy",
    "RhAgentsError",
    "RunAwaiting",
    "RunIsLive",
    "RunMismatchError",
    "RunStopped",
    "Store",
    "StoreError",
    "TooManyFailures",
    "Tool",
    "ToolSet",
    "UnknownOutcomeError",
    "UnreadFailures",
    "UnstorableError",
    "agent",
    "current",
    "fork",
    "llm",
    "open_store",
    "parallel",
    "run",
    "run_sync",
    "storable",
    "tool",
]
