"""The status of a run, in the words of the commands."""

from __future__ import annotations

from enum import StrEnum

from rh_agents.cli.output.wording import counted
from rh_agents.cli.recorded_command import is_untouched_fork
from rh_agents.core.ports import RunInfo
from rh_agents.core.types import ExecutionStatus

__all__ = ["RunStatus", "status_of", "status_text"]


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


def status_text(info: RunInfo, open_questions: int = 0) -> str:
    """The same with what is worth knowing beside it."""
    found = status_of(info)
    if found is RunStatus.WAITING:
        if not open_questions:
            return "answered, to be resumed"
        return f"waiting for {counted(open_questions, 'answer')}"
    if found is RunStatus.INTERRUPTED and is_untouched_fork(info):
        return "forked, not started"
    return found.value
