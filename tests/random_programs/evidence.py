"""What a trial leaves behind: the executions of one run, one after the other, each with its ledger and its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.random_programs.ledger import Line

__all__ = ["ENDED", "KILLED", "STOPPED", "Execution"]

ENDED = "ended"
"""The workflow returned."""
KILLED = "killed"
"""The process died."""
STOPPED = "stopped"
"""The run was interrupted, or its budget was spent."""


@dataclass(frozen=True)
class Execution:
    """One execution of the run.

    Attributes:
        lines: its ledger.
        end: ENDED, KILLED or STOPPED; anything else is the error with which the run failed.
        value: what the workflow returned.
        stage: executions in which the program has to see the same are one stage. Starting a run that had ended again,
            so that its failed calls are made again, is the next one.
        is_replay: whether it only repeats one that has ended.
    """

    lines: Sequence[Line]
    end: str
    value: Sequence[str] | None = None
    stage: int = 0
    is_replay: bool = False
