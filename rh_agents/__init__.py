"""Durable, parallel, observable agent workflows in plain async Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rh_agents.core.actors import LLM, Agent, BaseActor, Injected, Tool, ToolSet
from rh_agents.core.calls import Call
from rh_agents.core.chat import ChatModel, Message
from rh_agents.core.context import current, report_usage, tell_progress
from rh_agents.core.errors import (
    BudgetExceeded,
    CallCancelled,
    CallTimeout,
    GroupTimeout,
    ModelError,
    RhAgentsError,
    RunAwaiting,
    RunIsLive,
    RunMismatchError,
    RunStopped,
    StoreError,
    ToolError,
    TooManyFailures,
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
from rh_agents.core.policies import (
    Budget,
    CircuitBreaker,
    ConcurrencyLimit,
    RateLimit,
    RetryPolicy,
)
from rh_agents.core.ports import Question, Store
from rh_agents.core.redaction import Secret, forget_secret, redact, register_secret
from rh_agents.core.results import MemberResult
from rh_agents.core.runs import Run, fork, record_validation
from rh_agents.core.types import (
    CacheScope,
    Durability,
    Effect,
    EventType,
    ExecutionStatus,
    OnUnknown,
    RecordInputs,
    ReplayMode,
)
from rh_agents.core.usage import Listing, Price, Spending, Usage, set_listings
from rh_agents.core.values import storable
from rh_agents.decorators import agent, llm, parallel, run, run_sync, tool
from rh_agents.stores import MemoryStore, open_store
from rh_agents.stores.following import follow
from rh_agents.stores.results import results

if TYPE_CHECKING:
    from rh_agents.display import EventPrinter, EventStreamer, ParallelEventPrinter
    from rh_agents.errors import CalledExit as CalledExit  # these are in `_MOVED`
    from rh_agents.errors import CircuitOpenError as CircuitOpenError
    from rh_agents.errors import TooManyTurns as TooManyTurns
    from rh_agents.errors import UnknownOutcomeError as UnknownOutcomeError
    from rh_agents.errors import UnreadFailures as UnreadFailures
    from rh_agents.errors import UnstorableError as UnstorableError
    from rh_agents.errors import WorkerLost as WorkerLost
    from rh_agents.policies import AdaptiveConcurrency as AdaptiveConcurrency
    from rh_agents.policies import ClearToolResults as ClearToolResults
    from rh_agents.policies import Compaction as Compaction
    from rh_agents.policies import DropTurns as DropTurns
    from rh_agents.policies import Summarize as Summarize

# The same as in pyproject.toml; a test compares them.
__version__ = "0.1.0"

__all__ = [
    "LLM",
    "Agent",
    "BaseActor",
    "Budget",
    "BudgetExceeded",
    "CacheScope",
    "Call",
    "CallCancelled",
    "CallTimeout",
    "ChatModel",
    "CircuitBreaker",
    "ConcurrencyLimit",
    "Durability",
    "Effect",
    "ErrorStrategy",
    "EventBus",
    "EventPrinter",
    "EventStreamer",
    "EventType",
    "ExecutionEvent",
    "ExecutionResult",
    "ExecutionState",
    "ExecutionStatus",
    "GroupStatus",
    "GroupTimeout",
    "HistorySet",
    "Injected",
    "MemberResult",
    "MemoryStore",
    "Message",
    "ModelError",
    "OnUnknown",
    "ParallelDisplayMode",
    "ParallelEventGroup",
    "ParallelEventPrinter",
    "ParallelExecutionManager",
    "Price",
    "Question",
    "RateLimit",
    "RecordInputs",
    "ReplayMode",
    "RetryPolicy",
    "RhAgentsError",
    "Run",
    "RunAwaiting",
    "RunIsLive",
    "RunMismatchError",
    "RunStopped",
    "Secret",
    "Spending",
    "Store",
    "StoreError",
    "TooManyFailures",
    "Tool",
    "ToolError",
    "ToolSet",
    "Usage",
    "__version__",
    "agent",
    "current",
    "follow",
    "forget_secret",
    "fork",
    "llm",
    "open_store",
    "parallel",
    "record_validation",
    "redact",
    "register_secret",
    "report_usage",
    "results",
    "run",
    "run_sync",
    "storable",
    "tell_progress",
    "tool",
]


def _listed(model: str) -> Listing:
    """What the tables of the providers say about a model by its name alone."""
    from rh_agents.llms._outputs import max_output_of  # noqa: PLC0415 - few programs ask
    from rh_agents.llms.prices import price_of  # noqa: PLC0415

    return Listing(price_of(model), max_output_of(model))


set_listings(_listed)

_ELSEWHERE = (
    "errors",
    "policies",
    "groups",
    "events",
    "stores",
    "stores.sqlite",
    "stores.postgresql",
    "llms",
    "display",
    "telemetry.otel",
    "testing",
    "workers",
)
"""Where a name may be that is looked for here."""

_SHOWING = frozenset({"EventPrinter", "EventStreamer", "ParallelEventPrinter"})

_MOVED = {
    "AdaptiveConcurrency": "policies",
    "CalledExit": "errors",
    "CircuitOpenError": "errors",
    "ClearToolResults": "policies",
    "Compaction": "policies",
    "DropTurns": "policies",
    "Summarize": "policies",
    "TooManyTurns": "errors",
    "UnknownOutcomeError": "errors",
    "UnreadFailures": "errors",
    "UnstorableError": "errors",
    "WorkerLost": "errors",
}
"""Names that were here in the last release, and work here in the next one, with a warning: in which module they are."""

if not TYPE_CHECKING:  # which would take every name for one of ours

    def __getattr__(name: str) -> Any:
        """What shows events is imported when it is asked for, since it brings rich; what has moved says where it is."""
        if name in _SHOWING:
            from rh_agents import display  # noqa: PLC0415

            return getattr(display, name)
        if name in _MOVED:
            from rh_agents.core._base.mistakes import moved  # noqa: PLC0415

            return moved(__name__, name, f"{__name__}.{_MOVED[name]}")
        from rh_agents.core._base.mistakes import unknown_name  # noqa: PLC0415 - few programs are wrong

        raise unknown_name(__name__, name, __all__, _ELSEWHERE)

    def __dir__() -> list[str]:
        return sorted(globals().keys() | set(__all__))
