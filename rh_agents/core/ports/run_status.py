"""The status of a run, as people think of it: what its row says, and whether anybody executes it."""

from __future__ import annotations

from enum import StrEnum

from rh_agents.core.ports import RunInfo
from rh_agents.core.types import ExecutionStatus

__all__ = ["RunStatus", "is_untouched_fork", "status_of"]


class RunStatus(StrEnum):
    """The status of a run, as people think of it."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """It has not ended, and no process executes it: it was stopped, or its process died."""
    WAITING = "waiting"
    """For the answers of people."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to do."""
        return self in ("completed", "failed", "cancelled")


def status_of(info: RunInfo) -> RunStatus:
    """The status of a run."""
    if info.owner is not None:
        return RunStatus.RUNNING
    if info.status is ExecutionStatus.AWAITING:
        return RunStatus.WAITING
    if info.status.value in RunStatus.__members__.values():
        return RunStatus(info.status.value)
    return RunStatus.INTERRUPTED


def is_untouched_fork(info: RunInfo) -> bool:
    """Whether a run is the copy of another one and has never been executed: its facts are those of the other one."""
    return info.forked_from is not None and info.updated_at == info.created_at
