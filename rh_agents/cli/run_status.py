"""The status of a run, in the words of the commands."""

from __future__ import annotations

from rh_agents.cli.output.wording import counted
from rh_agents.core.ports import RunInfo, RunStatus, is_untouched_fork, status_of
from rh_agents.core.ports.keeping import erasure_of

__all__ = ["RunStatus", "status_of", "status_text"]


def status_text(info: RunInfo, open_questions: int = 0) -> str:
    """The status with what is worth knowing beside it."""
    found = status_of(info)
    if erasure_of(info) is not None:
        return f"{found.value}, values erased"
    if found is RunStatus.WAITING:
        if not open_questions:
            return "answered, to be resumed"
        return f"waiting for {counted(open_questions, 'answer')}"
    if found is RunStatus.INTERRUPTED and is_untouched_fork(info):
        return "forked, not started"
    return found.value
