"""The status of a run, in the words of the commands."""

from __future__ import annotations

import time
from datetime import datetime

from rh_agents.cli.output.wording import counted
from rh_agents.core.ports import RunInfo, RunStatus, is_untouched_fork, status_of
from rh_agents.core.ports.keeping import erasure_of
from rh_agents.display.text import harmless

__all__ = ["RunStatus", "status_of", "status_text"]


def status_text(info: RunInfo, open_questions: int | None = 0, now: float | None = None) -> str:
    """The status with what is worth knowing beside it. `open_questions` is None if they cannot be read."""
    found = status_of(info)
    if erasure_of(info) is not None:
        return f"{found.value}, values erased"
    if found is RunStatus.PENDING:
        return _pending_text(info, time.time() if now is None else now)
    if found is RunStatus.WAITING:
        if open_questions is None:
            return "waiting for answers"
        if not open_questions and info.reason and not info.reason.startswith("waiting for an answer"):
            return harmless(info.reason)
        if not open_questions:
            return (
                "answered, to be resumed"
                if info.ready_at is None
                else f"answered, in queue {harmless(info.queue or '')}"
            )
        return f"waiting for {counted(open_questions, 'answer')}"
    if found is RunStatus.INTERRUPTED and is_untouched_fork(info):
        return "forked, not started"
    if found is RunStatus.INTERRUPTED and info.ready_at is not None:
        return f"interrupted, in queue {harmless(info.queue or '')}"
    return found.value


def _pending_text(info: RunInfo, now: float) -> str:
    """In which queue a run waits, before or behind which others, and until when."""
    priority = f", priority {info.priority}" if info.priority else ""
    later = info.ready_at is not None and info.ready_at > now
    when = f", not before {_time(info.ready_at or 0.0)}" if later else ""
    return f"pending in queue {harmless(info.queue or '')}{priority}{when}"


def _time(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"
    except (OverflowError, OSError, ValueError):  # a time far away
        return f"{seconds:.0f}"
