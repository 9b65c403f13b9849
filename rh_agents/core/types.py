"""The words every other module uses: what kinds of calls there are and what can become of one."""

from collections.abc import Callable
from enum import StrEnum

__all__ = [
    "WITHDRAWN",
    "CacheScope",
    "Clock",
    "Durability",
    "Effect",
    "Engine",
    "EventType",
    "ExecutionStatus",
    "Generation",
    "OnUnknown",
    "RecordInputs",
    "ReplayMode",
    "every_generation",
]

Clock = Callable[[], float]
"""Gives the time of day in seconds since 1970. (Durations come from the event loop's clock.)"""

Generation = tuple[int, int, int]
"""Which execution of a call's body: the epoch of its run, how often the call was made again, its attempt."""

_LAST = 2**31 - 1
"""More tries and attempts than there will be; it fits into four bytes."""


def every_generation(epoch: int) -> Generation:
    """Stands for all executions of a body in an epoch: what was made in it counts for each of them."""
    return (epoch, _LAST, _LAST)


WITHDRAWN: Generation = (_LAST, _LAST, _LAST)
"""The mark of what someone cancelled by name: no later execution leaves it behind, and only a request undoes it."""


class EventType(StrEnum):
    """What an event is about: a call of some kind, or a group of calls."""

    AGENT_CALL = "agent_call"
    TOOL_CALL = "tool_call"
    LLM_CALL = "llm_call"
    FUNCTION_CALL = "function_call"
    """A plain coroutine or callable that was given to a group."""
    QUESTION = "question"
    """A question that a person has to answer."""
    WAIT = "wait"
    """The program waits until a time has come, or for an event from outside."""
    GROUP_STARTED = "group_started"
    GROUP_ENDING = "group_ending"
    """A group ends early: nothing more of it begins, and what runs is cancelled. Only in journals and histories."""
    GROUP_COMPLETED = "group_completed"
    CONTROL = "control"
    """Someone has asked for something to be done with the run, and it was done, or refused."""


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
    """It waits for a person, a time or an event; a run in which nothing else is left to do has been suspended."""
    HUMAN_INTERVENTION = "human_intervention"
    """A person has answered."""
    WAITING = "waiting"
    """It waits for a limiter before it may begin. Only published to subscribers."""
    PROGRESS = "progress"
    """It tells how it gets on, such as by the next piece of a model's answer. Only published to subscribers."""
    SUPERSEDED = "superseded"
    """Someone asked for the call to be made again, though it has an outcome. Only in journals."""

    @property
    def is_final(self) -> bool:
        """Whether nothing follows: the call has an outcome, or was cancelled."""
        return self in ("completed", "failed", "cancelled", "recovered")


class Engine(StrEnum):
    """Where a handler runs, so that it never blocks the event loop: the engines that every run has.

    A run has others under the names that it is given (`executors={"ray": RayExecutor()}`).
    """

    ASYNC = "async"
    """On the event loop: the only choice for coroutine functions, and impossible for others."""
    THREAD = "thread"
    """In a worker thread: the default for functions that are not coroutine functions."""
    PROCESS = "process"
    """In a worker process: for work that keeps a processor busy. Arguments and results must be picklable."""


class Durability(StrEnum):
    """When the outcome of a call is on disk."""

    SYNC = "sync"
    """Before the caller gets it: nothing that anybody has seen is ever lost. Many calls share one write."""
    ASYNC = "async"
    """Soon, and at the end of each group and of the run: a crash costs the outcomes of the last moments."""
    EXIT = "exit"
    """At the end of the run, or earlier if there is time: a crash may cost everything; for work that is cheap."""


class ReplayMode(StrEnum):
    """What becomes of recorded outcomes when a run is executed again."""

    NORMAL = "normal"
    """They are reused."""
    VALIDATION = "validation"
    """Everything is called again and compared with them; nothing is recorded. Calls with an external effect are not
    made: their outcomes are reused."""
    REPUBLISH_ALL = "republish_all"
    """They are reused, and subscribers get all recorded events first, marked `is_replayed`."""


class Effect(StrEnum):
    """What a call does to the world."""

    REPEATABLE = "repeatable"
    """Nothing that making it twice would spoil."""
    EXTERNAL = "external"
    """Something that must not happen twice by accident: a payment, a mail. That it begins is on disk before it does."""


class RecordInputs(StrEnum):
    """What is recorded, for people, of what calls are called with. It is no part of their identity."""

    NONE = "none"
    """Nothing."""
    BRIEF = "brief"
    """256 bytes of a text like JSON, 2 KiB of a call that failed."""
    FULL = "full"
    """All of it as typed JSON, up to 64 KiB."""


class OnUnknown(StrEnum):
    """What to do with a call that had started when its process died, so that no one knows whether it was done."""

    RETRY = "retry"
    """Make it again, with the same `idempotency_key`."""
    FAIL = "fail"
    """Let it fail with `UnknownOutcomeError`."""
    ASK = "ask"
    """Ask a person."""


class CacheScope(StrEnum):
    """For whom the result of a call is kept, so that equal calls of the same actor and version need not be made."""

    RUN = "run"
    """For all other calls of the same run, wherever they are made."""
    STORE = "store"
    """For all runs in the same store."""
