"""When a run was executed, and by how many in turn: what its stores note whenever it is opened.

A run that was killed and resumed has a time in between in which no process executed it. That is no time that it took,
and the journal does not say when it ended and began again: the last event before it may be old, and the first one after
it comes when all that is recorded has been replayed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

__all__ = [
    "MOST_EXECUTIONS",
    "Execution",
    "closed",
    "executions_in",
    "opened_again",
    "with_executions",
    "without_executions",
]

MOST_EXECUTIONS: Final = 48
"""Those that are kept one by one; of more, the two oldest become one."""
_NAME: Final = "rh_agents.executions"
"""The fact of a run that has them, in a database. It says of itself what it is, since others may have any names."""


class Execution(NamedTuple):
    """One time at which a run was executed.

    Attributes:
        began_at: when it was opened, in seconds since 1970.
        after: how many events there were then.
        epoch: how often the run had been started again after it had ended.
        ended_at: the last sign of life of who executed it; None as long as no other execution has begun.
        idle: seconds between the first and the last of several that have become one.
    """

    began_at: float
    after: int = 0
    epoch: int = 0
    ended_at: float | None = None
    idle: float = 0.0

    def seconds(self, until: float) -> float:
        """How long it lasted; until this moment, if it is the last one."""
        return max(0.0, (until if self.ended_at is None else self.ended_at) - self.began_at - self.idle)


def opened_again(
    known: Sequence[Execution], created_at: float, seen_at: float, events: int, now: float, epoch: int
) -> tuple[Execution, ...]:
    """The executions of a run that is opened now.

    Args:
        known: those before.
        created_at: when the run was made.
        seen_at: the last sign of life of who executed it before; of no interest if there is no event.
        events: how many there are.
        now, epoch: of the new one.
    """
    if not known and events:  # of a version that did not note them
        known = (Execution(created_at),)
    before = [*closed(known, min(seen_at, now)), Execution(now, events, epoch)]
    while len(before) > MOST_EXECUTIONS:
        first, second = before[:2]
        idle = first.idle + second.idle + max(0.0, second.began_at - (first.ended_at or second.began_at))
        before[:2] = [Execution(first.began_at, first.after, first.epoch, second.ended_at, idle)]
    return tuple(before)


def closed(known: Sequence[Execution], seen_at: float) -> tuple[Execution, ...]:
    """The executions of a run that no process executes any more; `seen_at` is the last sign of life of the last one."""
    if not known or known[-1].ended_at is not None:
        return tuple(known)
    return (*known[:-1], known[-1]._replace(ended_at=max(known[-1].began_at, seen_at)))


def executions_in(facts: Mapping[str, str]) -> tuple[Execution, ...]:
    """Those that the facts of a run in a database have."""
    text = facts.get(_NAME)
    return () if text is None else tuple(Execution(*each) for each in json.loads(text))


def with_executions(facts: Mapping[str, str], executions: Sequence[Execution]) -> dict[str, str]:
    """The facts of a run with these instead of those that they have."""
    return {**without_executions(facts), _NAME: json.dumps(executions)} if executions else without_executions(facts)


def without_executions(facts: Mapping[str, str]) -> dict[str, str]:
    """What else the facts say."""
    return {name: text for name, text in facts.items() if name != _NAME}
