"""The words every other module uses: what kinds of calls there are and what can become of one."""

from enum import StrEnum

__all__ = ["Engine", "EventType", "ExecutionStatus"]


class EventType(StrEnum):
    """What an event is about: a call of some kind, or a group of calls."""

    AGENT_CALL = "agent_call"
    TOOL_CALL = "tool_call"
    LLM_CALL = "llm_call"
    FUNCTION_CALL = "function_call"
    """A plain coroutine or callable that was given to a group."""
    GROUP_STARTED = "group_started"
    GROUP_COMPLETED = "group_completed"


class ExecutionStatus(StrEnum):
    """Where a call, a group or a run stands."""

    PENDING = "pending"
    """Of a run: made, and nothing has been called in it yet."""
    STARTED = "started"
    RETRYING = "retrying"
    """An attempt failed and another one follows after a delay."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RECOVERED = "recovered"
    """The outcome came from an earlier execution of the same run; nothing was called."""
    AWAITING = "awaiting"
    HUMAN_INTERVENTION = "human_intervention"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows: the call has an outcome, or was cancelled."""
        return self in ("completed", "failed", "cancelled", "recovered")


class Engine(StrEnum):
    """Where a handler runs, so that it never blocks the event loop."""

    ASYNC = "async"
    """On the event loop: the only choice for coroutine functions, and impossible for others."""
    THREAD = "thread"
    """In a worker thread: the default for functions that are not coroutine functions."""
    PROCESS = "process"
    """In a worker process: for work that keeps a processor busy. The function must be importable by name."""
