"""What happens in a run, as those who listen get it, and what a run has counted."""

from rh_agents.core.bus import EventBus, EventStream, OnFull, Subscription
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.history import HistorySet
from rh_agents.core.metrics import ActorMetrics, RunMetrics
from rh_agents.core.types import EventType, ExecutionStatus

__all__ = [
    "ActorMetrics",
    "EventBus",
    "EventStream",
    "EventType",
    "ExecutionEvent",
    "ExecutionStatus",
    "HistorySet",
    "OnFull",
    "RunMetrics",
    "Subscription",
]
