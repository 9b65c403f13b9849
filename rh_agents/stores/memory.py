"""Runs recorded in memory: the reference implementation of the `Store` port."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rh_agents.core.events import ExecutionEvent
from rh_agents.core.ports import RecordedRun
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus

__all__ = ["MemoryStore"]

_ENDED = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)


@dataclass(slots=True)
class _Run:
    status: ExecutionStatus = ExecutionStatus.PENDING
    epoch: int = 0
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)
    events: list[ExecutionEvent[Any]] = field(default_factory=list)


class MemoryStore:
    """Keeps everything until it is thrown away. Results are the objects themselves: do not change them afterwards."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._runs)} runs)"

    async def open_run(self, run_id: str) -> RecordedRun:
        """Begin the run, or continue it, or begin a new epoch of it if it had ended."""
        run = self._runs.setdefault(run_id, _Run())
        before = run.status
        if before in _ENDED:
            run.epoch += 1
        run.status = ExecutionStatus.STARTED
        return RecordedRun(before, run.epoch, run.outcomes, run.events)

    async def append(self, run_id: str, event: ExecutionEvent[Any], outcome: Outcome | None) -> Outcome | None:
        """Add an event with its outcome. Of two outcomes for one key the first counts; the second leaves no event."""
        run = self._runs[run_id]
        if outcome is not None:
            counts = run.outcomes.setdefault(outcome.key, outcome)
            if counts is not outcome:
                return counts
        run.events.append(event)
        return outcome

    async def end_run(self, run_id: str, status: ExecutionStatus) -> None:
        """Record how the run ended."""
        self._runs[run_id].status = status

    async def aclose(self) -> None:
        """Nothing to let go of: the same store can be opened again."""
