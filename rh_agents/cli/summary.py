"""What became of a job: counts, why it ended, the exit code, and the lines that say so."""

from __future__ import annotations

from dataclasses import dataclass

from rh_agents.cli.errors import CommandError
from rh_agents.cli.outputs import OutputClosed

__all__ = ["INTERRUPTED", "Summary", "describe"]

INTERRUPTED = 130


@dataclass(slots=True)
class Summary:
    """What became of the job. Items that were read and are neither `ok` nor `failed` were cancelled."""

    total: int | None = None
    """How many items there are, if that is known."""
    ok: int = 0
    failed: int = 0
    cancelled: int = 0
    retries: int = 0
    seconds: float = 0.0
    first_failure: str | None = None
    """Of a call: bad input has been told before."""
    stopped: str | None = None
    """Why the job ended early, if a failure or too many of them did it."""
    failure: CommandError | None = None
    """Why it could not go on reading or writing."""
    is_interrupted: bool = False
    left_threads: bool = False
    """Whether calls were given up that may go on in threads, which nothing can stop."""

    @property
    def done(self) -> int:
        """How many items have a line in the output."""
        return self.ok + self.failed

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        if self.is_interrupted:
            return INTERRUPTED
        if self.failure is not None:
            return self.failure.exit_code
        return 1 if self.failed or self.stopped else 0


def describe(summary: Summary, output: str, *, is_shown: bool) -> list[str]:
    """The lines that end a job, for people; `is_shown`: failures have been shown as they came.

    If the reader of standard output has gone, it wants to hear no more: none.
    """
    if isinstance(summary.failure, OutputClosed):
        return []
    lines = []
    if summary.first_failure is not None and not is_shown:
        lines.append(f"first failure: {summary.first_failure}")
    if summary.failure is not None:
        lines.append(f"rh-agents: {summary.failure}")
    if summary.stopped is not None:
        lines.append(f"{summary.stopped}: {_left(summary)}")
    if summary.is_interrupted:
        lines.append(f"interrupted: {_left(summary)}")
    rate = summary.done / summary.seconds if summary.seconds > 0 else 0.0
    lines.append(
        f"{summary.done} done ({summary.ok} ok, {summary.failed} failed), {summary.retries} retried, "
        f"{summary.seconds:.1f} s, {rate:.1f} items/s, output in {output}"
    )
    return lines


def _left(summary: Summary) -> str:
    """How much was done and how much is left, as far as that is known."""
    if summary.total is not None:
        return f"{summary.done} done, {summary.total - summary.done} not done"
    return f"{summary.done} done, {summary.cancelled} cancelled, the rest of the input not read"
