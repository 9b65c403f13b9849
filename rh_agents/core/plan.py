"""What would become of the calls of a run if it were executed again, derived from its journal alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from rh_agents.core._replay.ancestry import addresses_around
from rh_agents.core._replay.codes import Made, Versions
from rh_agents.core._replay.identity import again_key, tried_key
from rh_agents.core._replay.recorded import RecordedCalls, ReplayRules
from rh_agents.core._replay.steered import is_named
from rh_agents.core.events import Fact
from rh_agents.core.groups import EndingCause, GroupEnding, GroupStatus
from rh_agents.core.history import fact_of_event
from rh_agents.core.ports import RecordedEvent, RunInfo
from rh_agents.core.ports.control import Controllable, ControlRequest, Verb, control_of
from rh_agents.core.ports.outline import CallsBelow, PlainMembers
from rh_agents.core.results import OutcomeHeader
from rh_agents.core.types import EventType, ExecutionStatus, Generation

__all__ = ["Fate", "Plan", "PlannedCall", "PlannedGroup", "PlannedMembers", "Planner", "open_requests", "plan_run"]

_ENDED = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)


class Fate(StrEnum):
    """What becomes of a call that the journal knows, provided that the program makes it again as it is."""

    REUSED = "reused"
    """Its value is given again, and nothing is called."""
    REPEATED = "repeated"
    """Its failure is given again: the program may have acted on it before the run was interrupted."""
    TRIED_AGAIN = "tried_again"
    """It failed, in an execution that has ended since or before its caller was tried again, so it is made again."""
    SUPERSEDED = "superseded"
    """It has an outcome, and someone asked for it to be made again."""
    UNKNOWN = "unknown"
    """It had begun, and nothing tells whether it was done."""
    CONTINUED = "continued"
    """It had begun and was left in good order: its next attempt begins, or it goes on behind what it waited for."""
    WITHDRAWN = "withdrawn"
    """It has no result, and someone has cancelled it by name: it is not made."""
    QUESTION = "question"
    """It waits for the answer of a person."""
    EARLIER = "earlier"
    """It is of a version that its actor has no more, so it is not asked for."""
    NOT_REACHED = "not_reached"
    """It is not made: the call that made it is not, or its group ended early without it, and ends so again."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call that the journal knows, and its fate.

    Attributes:
        place: the key of its first try, which is what makes it this call.
        name, version: of the actor that was called.
        attempts: how many there were so far.
        message: what went wrong last, in one line.
        may_be_done: of one that is tried again, whether its group cut it off in its middle, so that it may have had its
            effect. If that is an external one, `on_unknown` decides whether it is made.
    """

    key: bytes
    place: bytes
    address: str
    name: str
    version: str
    event_type: EventType
    fate: Fate
    attempts: int = 0
    message: str | None = None
    group_id: str | None = None
    may_be_done: bool = False
    began: int = 0
    """The sequence of the first event of its first try."""


class PlannedMembers(NamedTuple):
    """Members of a group that have nothing to say but that they succeeded, and their fate."""

    members: PlainMembers
    fate: Fate


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """A group that has not been completed, and how many of its members had not begun; None if that is not known."""

    group_id: str
    name: str
    address: str
    not_begun: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What would become of a run."""

    calls: tuple[PlannedCall, ...] = ()
    """In the order in which they first began; of a call that was made again, only the last try."""
    groups: tuple[PlannedGroup, ...] = ()
    plain: tuple[PlannedMembers, ...] = ()
    """Members that are not among the calls: all of them reused, of an earlier version, or not reached."""
    below: tuple[CallsBelow, ...] = ()
    """Calls below these members: none is reached."""

    def of(self, *fates: Fate) -> list[PlannedCall]:
        """The calls with one of these fates."""
        return [call for call in self.calls if call.fate in fates]

    @property
    def counts(self) -> Counter[Fate]:
        """How many calls have which fate."""
        found = Counter(call.fate for call in self.calls)
        for members, fate in self.plain:
            found[fate] += len(members)
        for calls in self.below:
            found[Fate.NOT_REACHED] += calls.number
        return found

    def names(self, fate: Fate) -> Counter[str]:
        """How many calls of which actors have a fate; first those that began first."""
        found = [(call.began, call.name, 1) for call in self.calls if call.fate is fate]
        found += [(min(its.begins), its.name, len(its)) for its, their_fate in self.plain if their_fate is fate]
        found += [(its.begins, its.name, its.number) for its in self.below if fate is Fate.NOT_REACHED]
        counts: Counter[str] = Counter()
        for _, name, number in sorted(found):
            counts[name] += number
        return counts

    @property
    def versions(self) -> dict[str, set[str]]:
        """With which versions actors are recorded, by their names; first those that began first."""
        found = [(call.began, call.name, call.version) for call in self.calls]
        found += [(min(its.begins), its.name, its.version) for its, _ in self.plain]
        found += [(its.begins, its.name, its.version) for its in self.below]
        versions: dict[str, set[str]] = {}
        for _, name, version in sorted(found):
            versions.setdefault(name, set()).add(version)
        return versions

    @property
    def is_idle(self) -> bool:
        """Whether all that is asked for is recorded, so that nothing would run, as far as the journal tells."""
        return not self.groups and all(
            call.fate in (Fate.REUSED, Fate.REPEATED, Fate.WITHDRAWN, Fate.EARLIER, Fate.NOT_REACHED)
            for call in self.calls
        )


def plan_run(
    info: RunInfo,
    outcomes: Iterable[OutcomeHeader],
    events: Iterable[RecordedEvent],
    *,
    retry_failed: bool = True,
    plain: Iterable[PlainMembers] = (),
    below: Iterable[CallsBelow] = (),
    requests: Iterable[ControlRequest] = (),
) -> Plan:
    """What would become of a run that is executed again by the program that it was recorded with.

    Args:
        info: the run.
        outcomes: all of them, as the store gives them.
        events: its journal; what calls returned does not matter.
        retry_failed: as in `ExecutionState`.
        plain: members of groups that are left out of the outcomes and the events.
        below: the calls below these, which are left out as well.
        requests: what was asked of the run and no owner has seen yet, oldest first: the next start applies it.
    """
    planner = Planner(info, retry_failed=retry_failed, plain=plain, below=below, requests=requests)
    for outcome in outcomes:
        planner.add_outcome(outcome)
    for recorded in events:
        planner.add(recorded)
    return planner.plan()


@dataclass(slots=True)
class _Known:
    """What is kept of an outcome: no values."""

    base: bytes
    parent: bytes
    failed_in: Generation | None
    group_id: str | None


@dataclass(slots=True)
class _Call:
    """What is kept of the events of a call."""

    address: str
    name: str
    label: str
    version: str
    event_type: EventType
    group_id: str | None
    began: int
    attempts: int = 0
    message: str | None = None


@dataclass(slots=True)
class _Group:
    name: str
    address: str
    first: int
    """The sequence of its first event. Members count from then on."""
    total: int | None = None
    is_complete: bool = False
    begun: dict[Made, set[int]] = field(default_factory=dict)


def _indexes_after(sequence: int, members: PlainMembers) -> Sequence[int]:
    """The indexes of those that have an event after a sequence: nearly always of all."""
    if min(members.ends, default=0) > sequence:
        return members.indexes
    return [index for index, end in zip(members.indexes, members.ends, strict=True) if end > sequence]


class Planner:
    """Makes a plan of events one after the other, so that no one has to keep them.

    Args:
        info, retry_failed, plain, below, requests: as for `plan_run`.
        now: the versions whose calls the program's actors give again, by their names, as far as they are known.
    """

    def __init__(
        self,
        info: RunInfo,
        *,
        retry_failed: bool = True,
        plain: Iterable[PlainMembers] = (),
        below: Iterable[CallsBelow] = (),
        requests: Iterable[ControlRequest] = (),
        now: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._plain: dict[str, list[PlainMembers]] = {}
        for members in plain:
            self._plain.setdefault(members.group_id, []).append(members)
        self._below = tuple(below)
        self._epoch = info.epoch + (info.status in _ENDED)
        self._retry_failed = retry_failed
        self._recorded = RecordedCalls()
        self._outcomes: dict[bytes, _Known] = {}
        self._calls: dict[bytes, _Call] = {}
        self._groups: dict[str, _Group] = {}
        self._at: dict[str, list[bytes]] = {}
        self._reached: dict[bytes, bool] = {}
        self._sealed: dict[str, GroupEnding | None] = {}
        self._requests = [each for each in requests if each.arguments.get("epoch", self._epoch) == self._epoch]
        self._cancelled: list[str] = []
        self._executions = [each.after for each in info.executions]
        self._now = now or {}
        self._past: frozenset[Made] = frozenset()

    # -- reading ------------------------------------------------------------------------------------------------------

    def add_outcome(self, outcome: OutcomeHeader) -> None:
        """An outcome; before the event that reports it. Of several of one call the first one counts."""
        if outcome.key in self._outcomes:
            return
        failed_in = None if outcome.ok else outcome.made_in
        self._outcomes[outcome.key] = _Known(outcome.base, outcome.parent, failed_in, outcome.group_id)

    def add(self, recorded: RecordedEvent) -> None:
        """The next event of the journal."""
        self._add_fact(recorded.sequence, fact_of_event(recorded.event), recorded.has_outcome)

    def _add_fact(self, sequence: int, fact: Fact, has_outcome: bool) -> None:
        self._note_group(sequence, fact)
        key = fact.key
        known = None if key is None or not has_outcome else self._outcomes.get(key)
        is_over = key is not None and key in self._recorded.finished
        self._recorded.add_fact(sequence, fact, has_outcome, None if known is None else known.failed_in)
        if key is None:
            return
        call = self._calls.get(key)
        if call is None:
            actor = fact.actor
            version = actor.recorded_version
            call = _Call(fact.address, actor.name, fact.name, version, fact.kind, fact.group_id, sequence)
            self._calls[key] = call
            self._at.setdefault(fact.address, []).append(key)
        if not is_over:  # what follows an outcome says nothing of the call
            call.attempts = max(call.attempts, fact.attempt)
            call.message = fact.message

    def _note_group(self, sequence: int, fact: Fact) -> None:
        if fact.group_id is None:
            return
        if fact.group is not None and fact.group.ending is not None:
            self._count_plain(fact.group_id, sequence)
        group = self._groups.get(fact.group_id)
        if fact.group is not None:
            if group is None:
                group = self._groups[fact.group_id] = _Group(fact.group.name, fact.group.address, sequence)
            # Not its total: none is known when a group begins, and one that is left early forgets the rest.
            group.is_complete = fact.group.status is GroupStatus.COMPLETED
        elif group is not None and fact.parallel_index is not None:
            made = (fact.actor.name, fact.actor.recorded_version)
            group.begun.setdefault(made, set()).add(fact.parallel_index)
            group.total = fact.group_total if fact.group_total is not None else group.total

    def _count_plain(self, group_id: str, before: int) -> None:
        """Add the outcomes of plain members to the fold: it compares how many there are with how a group ended."""
        for members in self._plain.get(group_id, ()):
            for key, end in zip(members.all_keys(), members.ends, strict=True):
                if end < before and key not in self._recorded.finished:
                    self._recorded.add(end, ExecutionStatus.COMPLETED, key, 1, group_id, True, None)

    # -- the plan ------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """The plan, when all events have been added."""
        self._cancelled = list(self._recorded.steered.cancelled)
        asked = [key for keys in self._recorded.steered.later.values() for key in keys]
        for request in self._requests:
            asked += self._applied(request)
        self._supersede(asked)
        self._supersede_followed()
        self._past = self._versions().past(self._executions, self._now)
        members = tuple(self._planned_members())
        return Plan(tuple(self._planned_calls()), tuple(self._planned_groups()), members, self._below)

    def _versions(self) -> Versions:
        found = Versions()
        for call in self._calls.values():
            found.note((call.name, call.version), call.began, call.began)
        for members in (each for its in self._plain.values() for each in its):
            found.note((members.name, members.version), min(members.begins), max(members.begins))
        for calls in self._below:
            found.note((calls.name, calls.version), calls.begins, calls.last or calls.begins)
        return found

    def _applied(self, request: ControlRequest) -> list[bytes]:
        """What the next start makes of a request: the calls that it asks to be made again."""
        items: list[str] = request.arguments.get("items", [])
        if request.verb is Verb.CANCEL:
            self._cancelled += items
        if request.verb is not Verb.REQUEUE:
            return []
        self._cancelled = [item for item in self._cancelled if item not in items]
        return list(map(bytes.fromhex, request.arguments.get("keys", ())))

    def _supersede(self, asked: Iterable[bytes]) -> None:
        """What someone has asked to be made again at the next start, with the calls around it, as that start does."""
        recorded = self._recorded
        newest = {known.base: key for key, known in self._outcomes.items()}
        for requeued in asked:
            key: bytes | None = requeued
            while key is not None and (known := self._outcomes.get(key)) is not None:
                recorded.superseded.add(key)
                if known.group_id is not None:
                    recorded.endings[known.group_id] = None
                key = newest.get(known.parent)

    def _supersede_followed(self) -> None:
        """Failures that a group gives, and then makes the calls again: what counts of these is the newest try."""
        recorded = self._recorded
        for key in recorded.steered.live & self._outcomes.keys():
            group_id = self._outcomes[key].group_id
            if again_key(key) in self._calls or group_id is None or not self._is_sealed(group_id):
                recorded.superseded.add(key)

    def _planned_calls(self) -> Iterator[PlannedCall]:
        """The calls, each at the try that decides."""
        later = {again_key(key) for key in self._calls} & self._calls.keys()
        for place in self._calls:
            if place in later:
                continue
            key = self._deciding(place)
            call = self._calls[key]
            yield PlannedCall(
                key,
                place,
                call.address,
                call.name,
                call.version,
                call.event_type,
                self._fate(key, call),
                call.attempts,
                call.message,
                call.group_id,
                key in self._recorded.cut_off,
                self._calls[place].began,
            )

    def _deciding(self, place: bytes) -> bytes:
        """The last try that is looked at: its outcome is given, or it is made, or the next one is, for the first time.

        A later one may have begun without an outcome, in an execution that made failed calls again; it is not looked at
        if failures are repeated now.
        """
        key, tries = self._current(place)
        return key if key in self._calls else tried_key(place, tries - 1)

    def _planned_groups(self) -> Iterator[PlannedGroup]:
        """The groups that were left before their end and are entered again."""
        for group_id, group in self._groups.items():
            if group.is_complete or self._is_sealed(group_id) or self._is_below_what_is_not_made(group.address):
                continue
            plain = [each for each in self._plain.get(group_id, ()) if (each.name, each.version) not in self._past]
            begun = set[int]().union(*(its for made, its in group.begun.items() if made not in self._past))
            begun.update(*(_indexes_after(group.first, members) for members in plain))
            not_begun = None if group.total is None else max(0, group.total - len(begun))
            yield PlannedGroup(group_id, group.name, group.address, not_begun)

    def _planned_members(self) -> Iterator[PlannedMembers]:
        """The plain members of groups: their values are given again, unless no one asks for them."""
        for members in (each for its in self._plain.values() for each in its):
            if (members.name, members.version) in self._past:
                yield PlannedMembers(members, Fate.EARLIER)
                continue
            yield PlannedMembers(members, Fate.REUSED if self._is_entered(members.parent) else Fate.NOT_REACHED)

    def _fate(self, key: bytes, call: _Call) -> Fate:
        recorded, known = self._recorded, self._outcomes.get(key)
        if (call.name, call.version) in self._past:
            return Fate.EARLIER
        if not self._is_reached(key, call):
            return Fate.NOT_REACHED
        if known is not None:
            if recorded.is_tried_again(key, self._generation(known.parent), self._rules(known)):
                if self._is_cancelled(key, known.base, call):
                    return Fate.WITHDRAWN
                return Fate.SUPERSEDED if key in recorded.superseded else Fate.TRIED_AGAIN
            return Fate.REUSED if known.failed_in is None else Fate.REPEATED
        if call.event_type is EventType.QUESTION:
            return Fate.QUESTION
        if self._is_cancelled(key, key, call):
            return Fate.WITHDRAWN
        return Fate.UNKNOWN if key in recorded.unknown else Fate.CONTINUED

    def _is_cancelled(self, key: bytes, base: bytes, call: _Call) -> bool:
        """Whether it is a member that someone has cancelled by name, and has not asked for since."""
        if call.group_id is None or not self._cancelled:
            return False
        undone = self._recorded.steered.undone.get(base.hex(), ())
        return any(item not in undone and is_named(item, call.label, call.address, key) for item in self._cancelled)

    def _rules(self, known: _Known) -> ReplayRules:
        rules = ReplayRules(self._retry_failed)
        return rules if known.group_id is None else rules.in_group(self._sealing(known.group_id))

    def _is_sealed(self, group_id: str) -> bool:
        """Whether a group ended early and will end so again, so that none of its members begins."""
        return self._sealing(group_id) is not None

    def _sealing(self, group_id: str) -> GroupEnding | None:
        """How a group ended early, if it will end so again."""
        if group_id not in self._sealed:
            recorded = self._recorded
            ending, members = recorded.endings.get(group_id), recorded.orders.get(group_id)
            if ending is not None and ending.cause is not EndingCause.UNKNOWN:
                scope: bytes | None = bytes.fromhex(ending.scope)
            else:
                scope = self._parent_of(group_id, members[0]) if members else None
            self._sealed[group_id] = (
                None
                if scope is None
                else recorded.binding_ending(group_id, self._generation(scope), retry_failed=self._retry_failed)
            )
        return self._sealed[group_id]

    def _parent_of(self, group_id: str, member: bytes) -> bytes:
        """The key of the call that made a group, seen from a member that has an outcome."""
        known = self._outcomes.get(member)
        return self._plain[group_id][0].parent if known is None else known.parent

    def _generation(self, place: bytes) -> Generation:
        """In which execution of its body the call at a place makes its calls the next time."""
        if not place:
            return (self._epoch, 0, 0)
        key, tries = self._current(place)
        return (self._epoch, tries, self._recorded.attempts.get(key, 0) + 1)

    def _current(self, place: bytes) -> tuple[bytes, int]:
        """The key under which the call at a place is made the next time, and how often it was made before."""
        known = self._outcomes.get(place)
        if known is None:
            return place, 0
        return self._recorded.try_of(place, self._generation(known.parent), self._rules(known))

    def _is_reached(self, key: bytes, call: _Call) -> bool:
        known = self._outcomes.get(key)
        if known is None:
            is_left_out = call.group_id is not None and self._is_sealed(call.group_id)
            return not is_left_out and not self._is_below_what_is_not_made(call.address)
        return self._is_entered(known.parent)

    def _is_entered(self, place: bytes) -> bool:
        """Whether the body of the call at a place is executed."""
        if not place:
            return True
        found = self._reached.get(place)
        if found is None:
            key, _ = self._current(place)
            known = self._outcomes.get(key)
            if known is not None:
                found = False  # its outcome is given
            elif (first := self._outcomes.get(place)) is not None:
                found = self._is_entered(first.parent)
            else:
                call = self._calls.get(place)
                found = call is None or self._is_reached(place, call)
            self._reached[place] = found
        return found

    def _is_below_what_is_not_made(self, address: str) -> bool:
        """The same seen from below, by addresses, for what has no outcome that would tell who made it."""
        for around in addresses_around(address):
            keys = self._at.get(around)
            if keys is not None:
                return not any(self._is_entered(self._place(key)) for key in keys)
        return False

    def _place(self, key: bytes) -> bytes:
        known = self._outcomes.get(key)
        return key if known is None else known.base


async def open_requests(store: object, run_id: str) -> list[ControlRequest]:
    """What was asked of a run and no owner has seen yet, oldest first; nothing where runs cannot be steered.

    Raises:
        StoreError: there is no such run, or a request is damaged.
    """
    return await control_of(store, run_id).requests(is_open=True) if isinstance(store, Controllable) else []
