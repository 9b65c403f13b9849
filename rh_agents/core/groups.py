"""What a group is and how it stands: the facts that a manager counts and that every display is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final, TypeAlias

from pydantic import BaseModel, ConfigDict

from rh_agents.core._base.latency import LatencyHistogram, LatencySummary
from rh_agents.core.policies.breaker import BreakerState
from rh_agents.core.usage import Charge

__all__ = [
    "NOTHING_COUNTED",
    "Counted",
    "EndingCause",
    "ErrorStrategy",
    "GroupEnding",
    "GroupStatus",
    "ParallelDisplayMode",
    "ParallelEventGroup",
]


class GroupStatus(StrEnum):
    """Where a group stands."""

    PENDING = "pending"
    """Its block has not been entered."""
    RUNNING = "running"
    COMPLETED = "completed"
    """Its block has ended; under FAIL_SLOW some of its members may have failed."""
    FAILED = "failed"
    """It was ended early by a failure, by too many of them, or by its timeout."""
    CANCELLED = "cancelled"
    """It was ended early by a cancellation or by an exception in its block."""


class EndingCause(StrEnum):
    """Why a group ended before all of its members had."""

    FAILED_FAST = "failed_fast"
    """A member failed, under FAIL_FAST."""
    FAIL_AFTER = "fail_after"
    """As many members had failed as `fail_after` says."""
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    """Someone called `cancel()`."""
    LEFT = "left"
    """Its stream was left before its end, or its block by an exception."""
    INTERRUPTED = "interrupted"
    """The process was asked to end, or the run was stopped. That is no ending: the group goes on with its run."""
    UNKNOWN = "unknown"
    """Recorded by a version that did not record causes."""


class GroupEnding(BaseModel):
    """How a group ended early, as it is recorded. Immutable."""

    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True, frozen=True)

    cause: EndingCause
    scope: str = ""
    """The key of the call around the group, in hexadecimal; "" for the run itself."""
    epoch: int = 0
    tries: int = 0
    attempt: int = 0
    """In which execution of that call's body, see `rh_agents.core.types.Generation`."""
    enrolled: int = 0
    """How many members there were."""
    total: int | None = None
    """How many there would have been, if that was known."""
    known: int = 0
    """How many of them the journal knew, because they had begun or had an outcome."""
    outcomes: int = 0
    """How many outcomes of members the journal had, of all executions."""
    member: str | None = None
    """The key of the member whose failure ended the group, in hexadecimal."""
    message: str | None = None
    """What the block that was left raised, or the text of `TooManyFailures` or `GroupTimeout`."""
    timeout: float | None = None
    """Seconds; the timeout that passed."""
    is_late: bool = False
    """Whether all members had ended, and `add` refused what came after that. Only earlier versions did so."""
    status: GroupStatus | None = None
    """Where the cause is unknown: how the group stood in the end."""
    retries_failed: bool = True
    """Whether that execution made calls again that had failed in earlier epochs of the run."""


Counted: TypeAlias = tuple[Charge | None, GroupEnding | None, Mapping[str, Any] | None, Mapping[str, Any] | None]
"""What few entries of a journal have: a charge, the end of a group, a request to the run, what they have taken over."""
NOTHING_COUNTED: Final[Counted] = (None, None, None, None)


class ErrorStrategy(StrEnum):
    """What a failed member does to its group."""

    FAIL_SLOW = "fail_slow"
    """Nothing: every member runs, and failures are results like any other."""
    FAIL_FAST = "fail_fast"
    """The first failure cancels the others and is raised."""


class ParallelDisplayMode(StrEnum):
    """How groups are shown."""

    REALTIME = "realtime"
    """A line for each event, as it comes."""
    PROGRESS = "progress"
    """A bar for each group."""


class ParallelEventGroup(BaseModel):
    """How a group stood at one moment. Immutable; times are seconds."""

    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True, frozen=True)

    group_id: str
    name: str = ""
    address: str = ""
    parent_group_id: str | None = None
    status: GroupStatus = GroupStatus.PENDING
    error_strategy: ErrorStrategy = ErrorStrategy.FAIL_SLOW
    max_workers: int = 0
    total: int | None = None
    """How many members there will be; None while an iterable of unknown length is being read."""
    enrolled: int = 0
    """How many members there are so far, waiting ones included."""
    started: int = 0
    completed: int = 0
    """How many succeeded, the recovered ones included."""
    failed: int = 0
    cancelled: int = 0
    recovered: int = 0
    """How many of the finished ones came from an earlier execution of the run."""
    retries: int = 0
    elapsed: float = 0.0
    """Since the first member was enrolled, until now or until the group ended."""
    rate: float = 0.0
    """Finished members per second of `elapsed`."""
    latency: LatencySummary = LatencyHistogram().summary()
    """How long the finished members took, the recovered ones left out."""
    slot_wait: LatencySummary = LatencyHistogram().summary()
    """How long members waited from their enrolment until a slot was free."""
    breaker: BreakerState | None = None
    ending: GroupEnding | None = None
    """How it ended early, if it did; in GROUP_ENDING events and in those that tell its end."""

    @property
    def finished(self) -> int:
        """How many members have ended, in whatever way."""
        return self.completed + self.failed + self.cancelled

    @property
    def running(self) -> int:
        """How many members run now."""
        return self.started - (self.finished - self.recovered)

    @property
    def pending(self) -> int:
        """How many members wait for a slot."""
        return self.enrolled - self.finished - self.running

    @property
    def is_complete(self) -> bool:
        """Whether the group has ended."""
        return self.status in (GroupStatus.COMPLETED, GroupStatus.FAILED, GroupStatus.CANCELLED)
