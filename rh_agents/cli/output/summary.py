"""What became of a job: counts, why it ended, the exit code, and the lines that say so."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rh_agents.cli.errors import INTERRUPTED, CommandError, OutputFailed, error_record, one_line
from rh_agents.cli.json_text import json_line
from rh_agents.cli.output.wording import counted

__all__ = ["AWAITING", "Summary", "describe", "next_steps", "summary_record", "write_summary"]

AWAITING = 3


@dataclass(slots=True)
class Summary:
    """What became of the job. Items that were read and are neither `ok` nor `failed` were cancelled."""

    total: int | None = None
    """How many items there are, if that is known."""
    ok: int = 0
    failed: int = 0
    bad: int = 0
    """Of the failed ones, those that did not fit and were never tried."""
    reused: int = 0
    """Of those that are done, the ones that were recorded before, so that nothing was called."""
    cancelled: int = 0
    retries: int = 0
    seconds: float = 0.0
    first_failure: str | None = None
    """Of a call: bad input has been reported before."""
    stopped: str | None = None
    """Why the job ended early, if a failure, too many of them or a budget did it."""
    budget_field: str = ""
    """What there was too little of, if the budget of the run did it."""
    failure: CommandError | None = None
    """Why it could not continue reading or writing."""
    questions: tuple[str, ...] = ()
    """The ids of the questions that have to be answered before it can continue."""
    is_unfinished: bool = False
    """Whether the input was not read to its end, nor to the limit."""
    is_interrupted: bool = False
    left_threads: bool = False
    """Whether calls were abandoned that may continue in threads, which nothing can stop."""

    @property
    def done(self) -> int:
        """How many items have a line in the output."""
        return self.ok + self.failed

    @property
    def called(self) -> int:
        """For how many items something was called."""
        return self.done - self.reused - self.bad

    @property
    def is_cut_short(self) -> bool:
        """Whether something is left to do, whatever the reason."""
        return self.failure is not None or self.cancelled > 0 or self.is_unfinished

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        if self.is_interrupted:
            return INTERRUPTED
        if self.failure is not None:
            return self.failure.exit_code
        if self.questions:
            return AWAITING
        return 1 if self.failed or self.stopped or self.is_cut_short else 0


def describe(summary: Summary, output: str, *, is_shown: bool) -> list[str]:
    """The lines that end a job, for people.

    `output` is the file of the results, "" for standard output; `is_shown`: failures have been shown as they came.
    """
    lines = []
    if summary.first_failure is not None and not is_shown:
        lines.append(f"first failure: {summary.first_failure}")
    if summary.failure is not None:
        lines.append(f"rh-agents: {summary.failure}")
    if summary.stopped is not None:
        lines.append(f"{summary.stopped}: {_left(summary)}")
    if summary.is_interrupted:
        lines.append(f"interrupted: {_left(summary)}")
    elif summary.stopped is None and not summary.questions and summary.is_cut_short:
        lines.append(f"not finished: {_left(summary)}")
    made = summary.done - summary.reused
    rate = made / summary.seconds if summary.seconds > 0 else 0.0
    reused = f"{summary.reused} reused, {summary.called} called, " if summary.reused else ""
    place = f", output in {output}" if output else ""
    lines.append(
        f"{summary.done} done ({summary.ok} ok, {summary.failed} failed), {reused}{summary.retries} retried, "
        f"{summary.seconds:.1f} s, {rate:.1f} items/s{place}"
    )
    return lines


def _left(summary: Summary) -> str:
    """How much was done and how much is left, as far as that is known."""
    if summary.total is not None:
        return f"{summary.done} done, {summary.total - summary.done} not done"
    return f"{summary.done} done, {summary.cancelled} cancelled, the rest of the input not read"


def next_steps(summary: Summary, resume: str, run_id: str) -> list[str]:
    """What a recorded job leaves to be said: `resume` is the command for that."""
    if summary.questions:
        return [
            f"{counted(len(summary.questions), 'question')} must be answered: rh-agents answer {shlex.quote(run_id)}",
            f"then resume with: {resume}",
        ]
    if summary.is_interrupted or summary.stopped is not None or summary.is_cut_short:
        return [f"resume with: {resume}"]
    if summary.failed > summary.bad:
        return [f"to try the failed ones again: {resume}"]
    if summary.reused and not summary.called:
        return ["nothing was called: all results were recorded; for new ones give the run another name with --run-id"]
    return []


def summary_record(summary: Summary, run_id: str | None, store: str, output: str, resume: str) -> dict[str, Any]:
    """The summary for programs.

    Args:
        summary: what became of the job.
        run_id: None if nothing was recorded.
        store: where it was, as its user calls it; "" if nothing was recorded.
        output: the file of the results; "" for standard output.
        resume: the command that resumes the run; "" if there is nothing left to do, or nothing was recorded.
    """
    failure = summary.failure
    return {
        "run_id": run_id,
        "store": store or None,
        "output": output or None,
        "exit_code": summary.exit_code,
        "total": summary.total,
        "done": summary.done,
        "ok": summary.ok,
        "failed": summary.failed,
        "bad": summary.bad,
        "reused": summary.reused,
        "called": summary.called,
        "cancelled": summary.cancelled,
        "retries": summary.retries,
        "seconds": round(summary.seconds, 6),
        "is_complete": not summary.is_cut_short and summary.stopped is None and not summary.questions,
        "is_interrupted": summary.is_interrupted,
        "stopped": summary.stopped,
        "questions": list(summary.questions),
        "first_failure": None if summary.first_failure is None else one_line(summary.first_failure),
        "error": None if failure is None else error_record(failure, failure.exit_code)["error"],
        "resume": resume or None,
    }


def write_summary(path: str, record: Mapping[str, Any]) -> None:
    """Write a summary to a file, in whose place there is then all of it; or to standard output, as `-`.

    Raises:
        OutputFailed: the system does not allow it.
    """
    text = json_line("map-summary", record)
    if path == "-":
        print(text, end="", flush=True)
        return
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise OutputFailed(f"cannot write {path}: {error.strerror}") from error
