"""What the statuses of calls are called where people read them. In JSON and in journals they have their own names."""

from __future__ import annotations

from rh_agents.core.types import ExecutionStatus

__all__ = ["label_of"]

_LABELS = {
    ExecutionStatus.AWAITING: "waiting for an answer",
    ExecutionStatus.HUMAN_INTERVENTION: "answered",
    ExecutionStatus.PROGRESS: "in progress",
    ExecutionStatus.RECOVERED: "reused",
    ExecutionStatus.SUPERSEDED: "to be made again",
}


def label_of(status: ExecutionStatus) -> str:
    """The status in words."""
    return _LABELS.get(status, status.value)
