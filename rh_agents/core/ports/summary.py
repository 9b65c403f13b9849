"""What a run came to in numbers: an aggregate over its journal, which stores compute, and which adds up.

A page that shows a run as it goes on asks for what has been added since it last looked, and merges that:

    so_far = await summary_of_run(store, "monday")
    so_far = so_far.merge(await summary_of_run(store, "monday", after=so_far.until))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable
from zlib import crc32

from rh_agents.core._base.failure_kinds import Failure, kind_of_message
from rh_agents.core.events import ExecutionEvent, spender_of
from rh_agents.core.policies.child_runs import children_left
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Usage

if TYPE_CHECKING:
    from rh_agents.core.ports import Store

__all__ = [
    "GROUP_EVENTS",
    "NEWEST_FAILURES",
    "Failure",
    "KindCount",
    "RunSummary",
    "Summarizing",
    "SummaryFold",
    "summary_of_replaced",
    "summary_of_run",
    "total_of",
    "with_children",
]

NEWEST_FAILURES: Final = 5
"""How many failures a summary names."""
_MOST_KINDS: Final = 10_000
"""How many kinds of failures it has. More are no kinds: then those are kept whose text comes first by a checksum, since
that is the same choice wherever a journal is cut."""
GROUP_EVENTS: Final = (
    EventType.GROUP_STARTED, EventType.GROUP_ENDING, EventType.GROUP_COMPLETED, EventType.CONTROL,
)  # fmt: skip
"""What events of groups, and of the run itself, are about; all others are about calls."""

Counts = Mapping[str, Mapping[ExecutionStatus, int]]


class KindCount(NamedTuple):
    """Failures that are alike (see `rh_agents.core._base.failure_kinds`).

    Attributes:
        failures: how many outcomes of a range are such failures.
        replaced: how many such failures outcomes of the range replace: of calls that were made again.
        first, last: the sequences of the first and of the last of the failures; 0 if there is none.
        example: the last one.
    """

    failures: int = 0
    replaced: int = 0
    first: int = 0
    last: int = 0
    example: Failure | None = None

    @property
    def open(self) -> int:
        """How many of them have not been made again; of a whole run."""
        return self.failures - self.replaced

    def plus(self, later: KindCount) -> KindCount:
        """Both together."""
        return KindCount(
            self.failures + later.failures,
            self.replaced + later.replaced,
            self.first or later.first,
            later.last or self.last,
            later.example or self.example,
        )


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The events of a run from after one sequence to another one, in numbers.

    Of several outcomes of one call the first one counts, also if it came before `after`; what was paid twice is in
    `usage` twice. Counts are of events: a call that two executions started is STARTED twice. A call that was made again
    has several outcomes, all of which are counted; those that count no more are in `replaced`, in the range of the
    outcome that replaces them. So what stands is `actors` without `replaced`.

    Attributes:
        after, until: it covers the events after the first sequence, up to the second one.
        actors: how many events of calls had which status, by the name of the actor, or of a plain function.
        groups: the same for members of groups, by the id of their group.
        outcomes: how many calls came to their outcome.
        paid: how many outcomes were recorded that no cache had; of calls with two of them both count.
        usage: what was used, by the names under which `actors` has them; first what was used first.
        failures: the newest outcomes that were failures, newest first, at most `NEWEST_FAILURES`.
        first_at, last_at: the earliest and the latest time of an event, in seconds since 1970; None if there is none.
        replaced: outcomes, of whatever range, that outcomes of this one replace; as `actors`.
        groups_replaced: the same, as `groups`.
        kinds: failures by what went wrong.
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
    replaced: Counts = field(default_factory=dict)
    groups_replaced: Counts = field(default_factory=dict)
    kinds: Mapping[str, KindCount] = field(default_factory=dict)

    def merge(self, later: RunSummary) -> RunSummary:
        """The summary of both.

        Raises:
            ValueError: `later` does not begin where this one ends.
        """
        return total_of((self, later))

    @property
    def standing(self) -> RunSummary:
        """Of a whole run, what stands: calls that were made again are counted once, by what they came to last."""
        return replace(
            self,
            actors=_without_replaced(self.actors, self.replaced),
            groups=_without_replaced(self.groups, self.groups_replaced),
        )


def _without_replaced(counts: Counts, replaced: Counts) -> Counts:
    """These without others, each of which began as well."""
    found = dict(counts)
    for name, less in replaced.items():
        less = {**less, ExecutionStatus.STARTED: sum(less.values())}
        its = found.get(name, {})
        found[name] = {status: max(0, count - less.get(status, 0)) for status, count in its.items()}
    return found


class _Total:
    """A summary that grows."""

    def __init__(self) -> None:
        self.actors: dict[str, Counter[ExecutionStatus]] = {}
        self.groups: dict[str, Counter[ExecutionStatus]] = {}
        self.replaced: dict[str, Counter[ExecutionStatus]] = {}
        self.groups_replaced: dict[str, Counter[ExecutionStatus]] = {}
        self.usage: dict[str, Usage] = {}
        self.failures: list[Failure] = []
        self.outcomes = 0
        self.paid = 0
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.kinds: dict[str, KindCount] = {}

    def see(self, first: float, last: float) -> None:
        """Something happened from one moment to another one."""
        self.first_at = first if self.first_at is None else min(first, self.first_at)
        self.last_at = last if self.last_at is None else max(last, self.last_at)

    def add_kind(self, text: str, count: KindCount) -> None:
        """Failures of one kind."""
        known = self.kinds.get(text)
        self.kinds[text] = count if known is None else known.plus(count)
        if len(self.kinds) > 2 * _MOST_KINDS:
            self._leave_out_kinds()

    def _leave_out_kinds(self) -> None:
        chosen = sorted(self.kinds, key=lambda text: (crc32(text.encode("utf-8", "surrogatepass")), text))
        for text in chosen[_MOST_KINDS:]:
            del self.kinds[text]

    def add(self, part: RunSummary) -> None:
        """The next part."""
        for ours, its in (
            (self.actors, part.actors),
            (self.groups, part.groups),
            (self.replaced, part.replaced),
            (self.groups_replaced, part.groups_replaced),
        ):
            for name, counts in its.items():
                ours.setdefault(name, Counter()).update(counts)
        for name, used in part.usage.items():
            self.usage[name] = self.usage.get(name, Usage()) + used
        self.outcomes += part.outcomes
        self.paid += part.paid
        self.failures += part.failures[::-1]
        del self.failures[:-NEWEST_FAILURES]
        if part.first_at is not None and part.last_at is not None:
            self.see(part.first_at, part.last_at)
        for text, kind in part.kinds.items():
            self.add_kind(text, kind)

    def summary(self, after: int, until: int) -> RunSummary:
        """The summary of all of it."""
        if len(self.kinds) > _MOST_KINDS:
            self._leave_out_kinds()
        return RunSummary(
            after,
            until,
            _plain(self.actors),
            _plain(self.groups),
            self.outcomes,
            self.paid,
            dict(self.usage),
            tuple(self.failures[: -NEWEST_FAILURES - 1 : -1]),
            self.first_at,
            self.last_at,
            _plain(self.replaced),
            _plain(self.groups_replaced),
            dict(self.kinds),
        )


def _plain(counts: Mapping[str, Counter[ExecutionStatus]]) -> dict[str, dict[ExecutionStatus, int]]:
    return {name: dict(its) for name, its in counts.items()}


def total_of(parts: Iterable[RunSummary]) -> RunSummary:
    """The summary of several parts of a journal that follow each other.

    Raises:
        ValueError: one does not begin where the one before it ends, or there is none.
    """
    total = _Total()
    bounds: tuple[int, int] | None = None
    for part in parts:
        if bounds is not None and part.after != bounds[1]:
            raise ValueError(f"a summary up to event {bounds[1]} and one from after event {part.after} do not meet")
        bounds = (part.after if bounds is None else bounds[0], part.until)
        total.add(part)
    if bounds is None:
        raise ValueError("there are no summaries to be added up")
    return total.summary(*bounds)


class _Standing(NamedTuple):
    """The outcome of a call that counts now, as far as it matters when another one replaces it."""

    actor: str
    status: ExecutionStatus
    group_id: str | None
    message: str | None


class SummaryFold:
    """A summary, made of events one after the other.

    Args:
        after: the sequence before the first event that it covers. What comes before may be added: it is not counted,
            but calls that have an outcome there come to none later.
        places: of calls that were made again, the place in the program by key in hexadecimal: the key of the first try.
    """

    def __init__(self, after: int = 0, places: Mapping[str, str] | None = None) -> None:
        self._after = after
        self._until = after
        self._places = places or {}
        self._tried_again = set(self._places.values())
        self._standing: dict[str, _Standing] = {}
        self._ended: set[str] = set()
        self._total = _Total()

    def add(self, sequence: int, event: ExecutionEvent[Any], *, has_outcome: bool) -> None:
        """The next event, and whether it reports an outcome."""
        is_repeated = False
        if has_outcome and event.key is not None:
            is_repeated = event.key in self._ended
            self._ended.add(event.key)
        name, status = spender_of(event.actor, event.name), event.execution_status
        replaced = self._replace(event, name) if has_outcome and not is_repeated else None
        if sequence <= self._after:
            return
        total = self._total
        self._until = sequence
        total.see(event.timestamp, event.timestamp)
        if event.event_type in GROUP_EVENTS:
            return
        total.paid += has_outcome and not event.from_cache
        if (
            event.usage and status is not ExecutionStatus.SUPERSEDED
        ):  # earlier versions wrote there what was paid before
            total.usage[name] = total.usage.get(name, Usage()) + event.usage
        if is_repeated:
            return
        total.actors.setdefault(name, Counter())[status] += 1
        if event.group_id is not None:
            total.groups.setdefault(event.group_id, Counter())[status] += 1
        if has_outcome:
            self._add_outcome(sequence, event, name, replaced)

    def _replace(self, event: ExecutionEvent[Any], name: str) -> _Standing | None:
        """The outcome that this one replaces."""
        place = self._places.get(event.key or "", event.key or "")
        if place not in self._tried_again:
            return None
        before = self._standing.get(place)
        self._standing[place] = _Standing(name, event.execution_status, event.group_id, event.message)
        return before if event.key in self._places else None

    def _add_outcome(self, sequence: int, event: ExecutionEvent[Any], name: str, replaced: _Standing | None) -> None:
        total = self._total
        total.outcomes += 1
        if event.execution_status is ExecutionStatus.FAILED:
            failure = Failure(sequence, event.address, name, event.message)
            total.failures = [*total.failures[1 - NEWEST_FAILURES :], failure]
            total.add_kind(kind_of_message(event.message), KindCount(1, 0, sequence, sequence, failure))
        if replaced is not None:
            _add_replaced(total, *replaced)

    def summary(self) -> RunSummary:
        """The summary of what has been added."""
        return self._total.summary(self._after, self._until)


def _add_replaced(
    total: _Total, actor: str, status: ExecutionStatus, group_id: str | None, message: str | None
) -> None:
    """Count an outcome that another one replaces."""
    total.replaced.setdefault(actor, Counter())[status] += 1
    if group_id is not None:
        total.groups_replaced.setdefault(group_id, Counter())[status] += 1
    if status is ExecutionStatus.FAILED:
        total.add_kind(kind_of_message(message), KindCount(replaced=1))


def summary_of_replaced(
    after: int, until: int, outcomes: Iterable[tuple[str, ExecutionStatus, str | None, str | None]]
) -> RunSummary:
    """A range of which is only said which outcomes are replaced in it: actor, status, group and message of each."""
    total = _Total()
    for outcome in outcomes:
        _add_replaced(total, *outcome)
    return total.summary(after, until)


@runtime_checkable
class Summarizing(Protocol):
    """A store that computes summaries itself."""

    async def summary(self, run_id: str, *, after: int = 0, until: int | None = None) -> RunSummary:
        """See `summary_of_run`."""
        ...


async def summary_of_run(store: Store, run_id: str, *, after: int = 0, until: int | None = None) -> RunSummary:
    """The events of a run in numbers; values are never read.

    A store that can computes it (`Summarizing`), and else its events are read one after the other. What child runs have
    that the run does not have yet counts, unless another range is asked for than all of it.

    Args:
        after: the sequence before the first event that is covered; 0 for all from the beginning.
        until: the last one that is covered, if there are so many; None for all that there are.

    Raises:
        StoreError: there is no such run, or rows of it are missing.
    """
    if isinstance(store, Summarizing):
        found = await store.summary(run_id, after=after, until=until)
        return found if after or until is not None else await with_children(store, run_id, found)
    fold = SummaryFold(after, {key: place async for key, place in _tried_again(store, run_id)})
    async for recorded in store.events(run_id, values=False):
        if until is not None and recorded.sequence > until:
            break
        fold.add(recorded.sequence, recorded.event, has_outcome=recorded.has_outcome)
    return fold.summary()


async def with_children(store: Any, run_id: str, summary: RunSummary) -> RunSummary:
    """The summary of all of a run, and of what its child runs have beside it; up to the last event of the run."""
    whole = summary
    for child in await children_left(store, run_id):
        its = await summary_of_run(store, child.run_id, after=child.after)
        whole = whole.merge(replace(its, after=whole.until, until=whole.until))
    return whole


async def _tried_again(store: Store, run_id: str) -> AsyncIterator[tuple[str, str]]:
    """The calls that were made again, and their places in the program."""
    async for unread in store.unread_outcomes(run_id):
        header = unread.header
        if header.base != header.key:
            yield header.key.hex(), header.base.hex()
