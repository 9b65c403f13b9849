"""Numbers, ages and states of runs in the words of the commands."""

from __future__ import annotations

import re
from enum import StrEnum

from rh_agents.cli.errors import CommandError
from rh_agents.cli.recorded import is_untouched_fork
from rh_agents.core.ports import RunInfo
from rh_agents.core.types import ExecutionStatus

__all__ = ["Standing", "age", "ago", "counted", "parse_age", "size", "standing_of", "standing_words"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SHOWN_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0))


class Standing(StrEnum):
    """How a run stands, as people think of it."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """It has not ended, and nobody executes it: it was stopped, or its process died."""
    WAITING = "waiting"
    """For the answers of people."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to do."""
        return self in ("completed", "failed", "cancelled")


def standing_of(info: RunInfo) -> Standing:
    """How a run stands."""
    if info.owner is not None:
        return Standing.RUNNING
    if info.status is ExecutionStatus.AWAITING:
        return Standing.WAITING
    if info.status.value in Standing.__members__.values():
        return Standing(info.status.value)
    return Standing.INTERRUPTED


def standing_words(info: RunInfo, open_questions: int = 0) -> str:
    """The same with what is worth knowing beside it."""
    standing = standing_of(info)
    if standing is Standing.WAITING:
        if not open_questions:
            return "answered, to be resumed"
        return f"waiting for {counted(open_questions, 'answer')}"
    if standing is Standing.INTERRUPTED and is_untouched_fork(info):
        return "forked, not started"
    return standing.value


def counted(number: int, word: str) -> str:
    """`1 answer`, `2 answers`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def age(seconds: float) -> str:
    """`3 d`, `5 h`, `12 min`, `40 s`: the largest unit of which there is one."""
    for unit, length in _SHOWN_UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def ago(seconds: float) -> str:
    """`5 h ago`."""
    return f"{age(seconds)} ago"


def parse_age(option: str, text: str) -> float:
    """Seconds of `30d`, `12h`, `5m`, `90s` or `2w`.

    Raises:
        CommandError: it is none of these.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", text)
    if found is None:
        raise CommandError(f"{option} {text}: write a number and a unit, as in 30d, 12h, 5m, 90s or 2w")
    return float(found[1]) * _UNITS[found[2]]


def size(number: int) -> str:
    """`512 bytes`, `1.5 MiB`."""
    value = float(number)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024 or unit == "GiB":
            break
    return counted(number, "byte") if number < 1024 else f"{value:.1f} {unit}"
