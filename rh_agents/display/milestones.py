"""When a group has come so far that a line about it is worth keeping."""

from __future__ import annotations

from dataclasses import dataclass, field

from rh_agents.core.tracking import ParallelGroupTracker
from rh_agents.display.board import known_total

__all__ = ["Milestones"]

_FAILURES_REPORTED = 5
_NESTED_REPORTED = 20
_LONGEST_SILENCE = 60.0


@dataclass(slots=True)
class _Reported:
    """What has been said about one group."""

    step: int = 0
    at: float | None = None
    failures: int = 0
    nested: int = 0


@dataclass(slots=True)
class Milestones:
    """Remembers what has been reported of each running group, so that thousands of members make a few lines."""

    _reported: dict[str, _Reported] = field(default_factory=dict)

    def reached(self, tracker: ParallelGroupTracker, now: float) -> bool:
        """Whether to report the state of the group: at every tenth, and when a minute has passed without a line.

        If the total is not known: at 1, 2, 5, 10, 20, 50, 100 … finished members. Never when all have finished, because
        then the group's end is reported.
        """
        reported = self._reported.setdefault(tracker.group_id, _Reported())
        total = known_total(tracker)
        if reported.at is None:
            reported.at = tracker.start_time or now
        if total is not None and tracker.finished >= total:
            return False
        step = _round_numbers(tracker.finished) if total is None else tracker.finished * 10 // total
        if step <= reported.step and now - reported.at < _LONGEST_SILENCE:
            return False
        reported.step = max(step, reported.step)
        reported.at = now
        return True

    def failure(self, group_id: str) -> tuple[bool, bool]:
        """Whether to tell of one more failure, and whether to say that it is the last one reported."""
        reported = self._reported.setdefault(group_id, _Reported())
        reported.failures += 1
        return reported.failures <= _FAILURES_REPORTED, reported.failures == _FAILURES_REPORTED

    def nested(self, group_id: str) -> tuple[bool, bool]:
        """Whether to report the end of one more group inside this one, and whether to say that it is the last."""
        reported = self._reported.setdefault(group_id, _Reported())
        reported.nested += 1
        return reported.nested <= _NESTED_REPORTED, reported.nested == _NESTED_REPORTED

    def forget(self, group_id: str) -> None:
        """The group has ended."""
        self._reported.pop(group_id, None)


def _round_numbers(count: int) -> int:
    """How many of 1, 2, 5, 10, 20, 50, 100 … are not above `count`."""
    step, limit = 0, 1
    while limit <= count:
        step += 1
        limit = limit * 5 // 2 if str(limit)[0] == "2" else limit * 2
    return step
