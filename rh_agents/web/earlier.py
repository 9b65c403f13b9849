"""What a run has of earlier versions of its actors, which the page keeps apart from what counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rh_agents.core._base.failure_kinds import FailureKind, kind_of_message
from rh_agents.core._replay.codes import Made, Versions, may_have_past_versions
from rh_agents.core.events import ExecutionEvent, spender_of
from rh_agents.core.ports import RunInfo, Store
from rh_agents.core.ports.outline import RunOutline, outline_of_run
from rh_agents.core.ports.summary import Counts, RunSummary
from rh_agents.core.types import ExecutionStatus

__all__ = ["Earlier", "earlier_of_run", "ended_of", "may_have_earlier"]

_STARTED = ExecutionStatus.STARTED
_ENDS = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)

_Tally = dict[str, Counter[ExecutionStatus]]


@dataclass(slots=True)
class Earlier:
    """How many calls of versions that are past came to what, by actor and by group, as `RunSummary` has them."""

    actors: _Tally = field(default_factory=dict)
    groups: _Tally = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    """Their failures, by what went wrong."""

    def add(self, actor: str, group: str | None, status: ExecutionStatus, number: int = 1) -> None:
        """So many calls that came to this."""
        self.actors.setdefault(actor, Counter())[status] += number
        if group is not None:
            self.groups.setdefault(group, Counter())[status] += number

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(map(ended_of, self.actors.values()))

    def left_of(self, summary: RunSummary) -> RunSummary:
        """The summary of what stands without them."""
        return replace(
            summary, actors=_without(summary.actors, self.actors), groups=_without(summary.groups, self.groups)
        )

    def left_of_kinds(self, kinds: Iterable[FailureKind]) -> list[FailureKind]:
        """Kinds of failures without theirs; the commonest is first."""
        found = [replace(kind, count=kind.count - self.kinds[kind.text]) for kind in kinds]
        return sorted((kind for kind in found if kind.count > 0), key=lambda kind: (-kind.count, -kind.last))


def ended_of(counts: Mapping[ExecutionStatus, int]) -> int:
    """How many of these calls have an outcome."""
    return sum(counts.get(status, 0) for status in _ENDS)


def _without(counts: Counts, earlier: Mapping[str, Counter[ExecutionStatus]]) -> Counts:
    found = dict(counts)
    for name, less in earlier.items():
        if name in found:
            all_less = less + Counter({_STARTED: ended_of(less)})
            found[name] = {status: max(0, count - all_less[status]) for status, count in found[name].items()}
    return found


def may_have_earlier(info: RunInfo) -> bool:
    """Whether a run has been executed again, and its facts name several versions of an actor."""
    return may_have_past_versions(info.facts, len(info.executions))


async def earlier_of_run(store: Store, info: RunInfo) -> Earlier:
    """What of a run is of versions that are past.

    Raises:
        StoreError: there is no such run, or something in it is damaged or missing.
    """
    outline = await outline_of_run(store, info.run_id)
    versions = _plain_versions(outline)
    calls = dict[str, tuple[Made, ExecutionEvent[Any]]]()
    async for recorded, outcome in outline.read(False):
        event, actor = recorded.event, recorded.event.actor
        made = (actor.name, actor.recorded_version)
        if event.key is not None:
            versions.note(made, recorded.sequence, recorded.sequence)
        if outcome is not None:  # the newest one of a call that was made again
            calls[outcome.base.hex()] = (made, event)
    past, found = versions.past(each.after for each in info.executions), Earlier()
    for made, event in calls.values():
        if made in past:
            found.add(spender_of(event.actor, event.name), event.group_id, event.execution_status)
            if event.execution_status is ExecutionStatus.FAILED:
                found.kinds[kind_of_message(event.message)] += 1
    for members in outline.plain:
        if (members.name, members.version) in past:
            found.add(members.name, members.group_id, ExecutionStatus.COMPLETED, len(members))
    for below in outline.below:
        if (below.name, below.version) in past:
            found.add(below.name, None, ExecutionStatus.COMPLETED, below.number)
    return found


def _plain_versions(outline: RunOutline) -> Versions:
    found = Versions()
    for members in outline.plain:
        found.note((members.name, members.version), min(members.begins), max(members.begins))
    for below in outline.below:
        found.note((below.name, below.version), below.begins, below.last)
    return found
