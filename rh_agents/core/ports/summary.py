"""What a run came to in numbers: an aggregate over its journal, which stores compute, and which adds up.

A page that shows a run as it goes on asks for what has been added since it last looked, and merges that:

    so_far = await summary_of_run(store, "monday")
    so_far = so_far.merge(await summary_of_run(store, "monday", after=so_far.until))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from rh_agents.core._base.failure_kinds import Failure
from rh_agents.core.events import ExecutionEvent, spender_of
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Usage

if TYPE_CHECKING:
    from rh_agents.core.ports import Store

__all__ = ["GROUP_EVENTS", "NEWEST_FAILURES", "Failure", "RunSummary", "Summarizing", "SummaryFold", "summary_of_run"]

NEWEST_FAILURES: Final = 5
"""How many failures a summary names."""
GROUP_EVENTS: Final = (
    EventType.GROUP_STARTED, EventType.GROUP_ENDING, EventType.GROUP_COMPLETED, EventType.CONTROL,
)  # fmt: skip
"""What events of groups, and of the run itself, are about; all others are about calls."""

Counts = Mapping[str, Mapping[ExecutionStatus, int]]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The events of a run from after one sequence to another one, in numbers.

    Of several outcomes of one call the first one counts, also if it came before `after`; what was paid twice is in
    `usage` twice. Counts are of events: a call that two executions started is STARTED twice.

    Attributes:
        after, until: it covers the events after the first sequence, up to the second one.
        actors: how many events of calls had which status, by the name of the actor, or of a plain function.
        groups: the same for members of groups, by the id of their group.
        outcomes: how many calls came to their outcome.
        paid: how many outcomes were recorded that no cache had; of calls with two of them both count.
        usage: what was used, by the names under which `actors` has them; first what was used first.
        failures: the newest outcomes that were failures, newest first, at most `NEWEST_FAILURES`.
        first_at, last_at: the earliest and the latest time of an event, in seconds since 1970; None if there is none.
    """

    after: int = 0
    until: int = 0
    actors: Counts = field(default_factory=dict)
    groups: Counts = field(default_factory=dict)
    outcomes: int = 0
    paid: int = 0
    usage: Mapping[str, Usage] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    first_at: float | None = None
    last_at: float | None = None

    def merge(self, later: RunSummary) -> RunSummary:
        """The summary of both.

        Raises:
            ValueError: `later` does not begin where this one ends.
        """
        if later.after != self.until:
            raise ValueError(f"a summary up to event {self.until} and one from after event {later.after} do not meet")
        usage = dict(self.usage)
        for name, used in later.usage.items():
            usage[name] = usage.get(name, Usage()) + used
        moments = [at for at in (self.first_at, self.last_at, later.first_at, later.last_at) if at is not None]
        return RunSummary(
            self.after,
            later.until,
            _added(self.actors, later.actors),
            _added(self.groups, later.groups),
            self.outcomes + later.outcomes,
            self.paid + later.paid,
            usage,
            (later.failures + self.failures)[:NEWEST_FAILURES],
            min(moments, default=None),
            max(moments, default=None),
        )


def _added(some: Counts, more: Counts) -> Counts:
    return {
        name: dict(Counter(some.get(name, {})) + Counter(more.get(name, {}))) for name in dict.fromkeys([*some, *more])
    }


class SummaryFold:
    """A summary, made of events one after the other.

    Args:
        after: the sequence before the first event that it covers. What comes before may be added: it is not counted,
            but calls that have an outcome there come to none later.
    """

    def __init__(self, after: int = 0) -> None:
        self._after = after
        self._until = after
        self._actors: dict[str, Counter[ExecutionStatus]] = {}
        self._groups: dict[str, Counter[ExecutionStatus]] = {}
        self._usage: dict[str, Usage] = {}
        self._failures: list[Failure] = []
        self._ended: set[str] = set()
        self._outcomes = 0
        self._paid = 0
        self._first_at: float | None = None
        self._last_at: float | None = None

    def add(self, sequence: int, event: ExecutionEvent[Any], *, has_outcome: bool) -> None:
        """The next event, and whether it reports an outcome."""
        is_repeated = False
        if has_outcome and event.key is not None:
            is_repeated = event.key in self._ended
            self._ended.add(event.key)
        if sequence <= self._after:
            return
        self._until, at = sequence, event.timestamp
        self._first_at = at if self._first_at is None else min(at, self._first_at)
        self._last_at = at if self._last_at is None else max(at, self._last_at)
        if event.event_type in GROUP_EVENTS:
            return
        name, status = spender_of(event.actor, event.name), event.execution_status
        self._paid += has_outcome and not event.from_cache
        if (
            event.usage and status is not ExecutionStatus.SUPERSEDED
        ):  # earlier versions wrote there what was paid before
            self._usage[name] = self._usage.get(name, Usage()) + event.usage
        if is_repeated:
            return
        self._actors.setdefault(name, Counter())[status] += 1
        if event.group_id is not None:
            self._groups.setdefault(event.group_id, Counter())[status] += 1
        self._outcomes += has_outcome
        if has_outcome and status is ExecutionStatus.FAILED:
            self._failures.append(Failure(sequence, event.address, name, event.message))

    def summary(self) -> RunSummary:
        """The summary of what has been added."""
        return RunSummary(
            self._after,
            self._until,
            {name: dict(counts) for name, counts in self._actors.items()},
            {name: dict(counts) for name, counts in self._groups.items()},
            self._outcomes,
            self._paid,
            dict(self._usage),
            tuple(reversed(self._failures[-NEWEST_FAILURES:])),
            self._first_at,
            self._last_at,
        )


@runtime_checkable
class Summarizing(Protocol):
    """A store that computes summaries itself."""

    async def summary(self, run_id: str, *, after: int = 0, until: int | None = None) -> RunSummary:
        """See `summary_of_run`."""
        ...


async def summary_of_run(store: Store, run_id: str, *, after: int = 0, until: int | None = None) -> RunSummary:
    """The events of a run in numbers; values are never read.

    A store that can computes it (`Summarizing`), and else its events are read one after the other.

    Args:
        after: the sequence before the first event that is covered; 0 for all from the beginning.
        until: the last one that is covered, if there are so many; None for all that there are.

    Raises:
        StoreError: there is no such run, or rows of it are missing.
    """
    if isinstance(store, Summarizing):
        return await store.summary(run_id, after=after, until=until)
    fold = SummaryFold(after)
    async for recorded in store.events(run_id, values=False):
        if until is not None and recorded.sequence > until:
            break
        fold.add(recorded.sequence, recorded.event, has_outcome=recorded.has_outcome)
    return fold.summary()
