"""Scores of what a run came to: which items it has, their outcomes, and a run of its own that scores them.

The items of a `map` are those of its input as it is now: so an item has all of its fields, also those that the actor
does not take, and one without an outcome is seen to be missing. Which outcome belongs to an item, its key says, as when
the run is resumed; for each version of the actor that is recorded. Of any other run the members of a group are the
items, as far as what they were called with is recorded.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rh_agents.cli.arguments import Callee, call_for, make_callee, read_settings
from rh_agents.cli.errors import BadInput, CommandError, close_names, one_line
from rh_agents.cli.input.files import InputOptions, is_stream, open_input
from rh_agents.cli.input.lines import Format, Item
from rh_agents.cli.recorded_command import absolute_path
from rh_agents.cli.targets import load_actor
from rh_agents.core._limits.interruption import interrupt_on_signals
from rh_agents.core._loops.beside import read_beside
from rh_agents.core._replay.codes import recorded_codes
from rh_agents.core._replay.identity import ROOT_KEY, again_key, child_key
from rh_agents.core._replay.meant import newest_outcomes
from rh_agents.core.actors import BaseActor
from rh_agents.core.calls import Call
from rh_agents.core.errors import DefinitionError, RunAwaiting, RunStopped, StoreError
from rh_agents.core.execution import ExecutionState
from rh_agents.core.groups import ErrorStrategy
from rh_agents.core.ports import RunInfo, Store
from rh_agents.core.redaction import redact
from rh_agents.core.results import ExecutionResult, OutcomeHeader, UnreadOutcome, describe_error
from rh_agents.core.values import decode
from rh_agents.core.values.inputs import canonical_arguments
from rh_agents.decorators import tool

__all__ = ["ItemStatus", "RecordedItem", "ScoredItem", "Scoring", "items_of_group", "items_of_map", "score_items"]

_SIGNALS = "interrupted by a signal"
_AWAITING = 3
_NOT_BEGUN = "it had not begun when its group ended"
_PLACE = re.compile(r"(.*?)\[\d+\](?:::|$)", re.DOTALL)
"""What the address of a member of an outermost group begins with."""


class ItemStatus(StrEnum):
    """What became of an item."""

    SCORED = "scored"
    FAILED = "failed"
    """Its call failed, so there is nothing to score."""
    MISSING = "missing"
    """It has no outcome: it has not been called, or was cut off."""
    UNSCORED = "unscored"
    """The scorer failed, or gave no number."""


@dataclass(frozen=True, slots=True)
class RecordedItem:
    """An item of a run.

    Attributes:
        identity: what it is, whatever its position: its values, and its number among equal ones.
        label: what it is called, for people.
        value: the item.
        outcome: what its call came to; None if it has not.
        problem: why the item cannot be read; None if it can.
    """

    identity: tuple[bytes, int]
    label: str
    value: Any
    outcome: UnreadOutcome | None
    problem: str | None = None


@dataclass(slots=True)
class ScoredItem:
    """An item with its score, if it has one.

    Attributes:
        item: of the run that is scored.
        status: whether it has a score.
        score: the score; 0 where `status` is another one.
        reason: why it has none, in one line.
    """

    item: RecordedItem
    status: ItemStatus
    score: float = 0.0
    reason: str = ""


@dataclass(slots=True)
class Scoring:
    """The items of a run and their scores.

    Attributes:
        run_id: of the run that is scored.
        scored_in: the run that has the scores.
        items: in the order of the input.
        gone: recorded calls that belong to none of these items: the input was another one then.
        source: the name of the input; "" if the items are those of a group.
    """

    run_id: str
    scored_in: str
    items: list[ScoredItem] = field(default_factory=list)
    gone: int = 0
    source: str = ""

    def of(self, status: ItemStatus) -> list[ScoredItem]:
        """The items of which this became."""
        return [each for each in self.items if each.status is status]


# -- the items of a run -----------------------------------------------------------------------------------------------


async def items_of_map(
    store: Store, info: RunInfo, folder: str, parameters: dict[str, Any], given: str | None
) -> tuple[list[RecordedItem], int, str]:
    """The items of a `map`, how many recorded calls belong to none of them, and the name of the input.

    Args:
        store: where the run is.
        info: the run.
        folder: where its command was started.
        parameters: the options and arguments of that command.
        given: a file to be read in place of its input.

    Raises:
        CommandError: the input or the actor cannot be read as they were.
        StoreError: something recorded cannot be read.
    """
    source = str(parameters["source"]) if given is None else absolute_path(given)
    if is_stream(source):
        raise CommandError(
            f"run {info.run_id!r} read its items from {'standard input' if source == '-' else source}, which is gone: "
            "name a file that has them with --items"
        )
    outcomes = {each.header.base: each for each in await newest_outcomes(store, info.run_id)}
    try:
        with contextlib.chdir(folder):
            fixed = read_settings(parameters["settings"] or [])
            callees = _callees_of(load_actor(parameters["actor"], tool), fixed, info)
            found = _Found(callees, outcomes, ExecutionState(store=None, history_limit=0))
            form, separator = parameters["form"], parameters.get("separator")
            # A command is recorded with what was found out; a file that the user names is looked at anew.
            is_older = given is None and form is Format.AUTO and separator is None
            if given is not None:
                form, separator = Format.AUTO, None
            sheet, query = (parameters.get(name) if given is None else None for name in ("sheet", "query"))
            reading = InputOptions(
                form,
                parameters["id_field"],
                separator=separator,
                is_older=is_older,
                sheet=sheet,
                query=query,
                results=given is None and bool(parameters.get("results")),
            )
            with open_input(source, reading) as opened:
                items = [found.item(each) for each in itertools.islice(opened.items, parameters["limit"])]
    except OSError as error:
        raise CommandError(f"run {info.run_id!r} was started in {folder}: {error.strerror}") from error
    members = sum(each.header.parent == ROOT_KEY and each.header.group_id is not None for each in outcomes.values())
    return items, members - len(found.used), source


def _callees_of(actor: Any, fixed: Mapping[str, Any], info: RunInfo) -> list[Callee]:
    """What takes the items: the actor as it is now, and as each other version of which the run may have results."""
    its: BaseActor = actor if isinstance(actor, BaseActor) else actor.actor
    recorded = (label.rpartition("@") for label in recorded_codes(info.facts))
    older = [version for name, _, version in recorded if name == its.name and version != its.recorded_version]
    return [make_callee(actor, fixed=fixed), *(make_callee(actor, fixed=fixed, version=each) for each in older)]


@dataclass(slots=True)
class _Found:
    """Finds the outcomes of items."""

    callees: Sequence[Callee]
    outcomes: dict[bytes, UnreadOutcome]
    state: ExecutionState
    used: set[bytes] = field(default_factory=set)
    _equal: Counter[bytes] = field(default_factory=Counter)
    _same: Counter[bytes] = field(default_factory=Counter)

    def item(self, item: Item) -> RecordedItem:
        """An item of the input with its outcome."""
        label = redact(str(item.id)) if item.problem is None else item.position
        if item.problem is not None:
            return RecordedItem((item.position.encode(), -1), label, None, None, item.problem)
        return RecordedItem(_numbered(_canonical(item.value), self._equal), label, item.value, self._outcome(item))

    def _outcome(self, item: Item) -> UnreadOutcome | None:
        """The outcome by the version of the actor as it is now, else by the first one that has one."""
        found: UnreadOutcome | None = None
        for callee in self.callees:
            same = callee.identity(item.value) or _identity(call_for(item, callee, self.state.parts))
            if same is None:
                return None
            place = child_key(ROOT_KEY, callee.name, same, self._same[same])
            if place in self.outcomes:
                self._same[same] += 1
                self.used.add(place)
                found = found or self.outcomes[place]
        return found


def _identity(call: Call[Any]) -> bytes | None:
    """What makes a call this call; None if the item does not fit."""
    call.discard()  # it is looked at and not made
    if getattr(call, "problem", None) is not None:
        return None
    try:
        return call.identity()
    except DefinitionError:
        return None


def _canonical(value: Any) -> bytes:
    return canonical_arguments({"item": value})


def _numbered(same: bytes, equal: Counter[bytes]) -> tuple[bytes, int]:
    equal[same] += 1
    return same, equal[same] - 1


async def items_of_group(store: Store, run_id: str, wanted: str | None) -> list[RecordedItem]:
    """The members of the group `wanted` of a run, or of its only one, with what they were called with.

    Raises:
        CommandError: there is no such group, or several and none is named; or an input is not recorded in full.
        StoreError: something recorded cannot be read.
    """
    newest = await newest_outcomes(store, run_id)
    by_base = {each.header.base: each.header for each in newest}
    groups: dict[str, list[UnreadOutcome]] = {}
    for each in newest:
        place = _PLACE.match(each.header.address)
        if place is not None and _is_outermost(each.header, by_base):
            groups.setdefault(place[1], []).append(each)
    if not groups:
        raise CommandError(f"run {run_id!r} has no outcomes of a group, so there are no items to score")
    if wanted is None and len(groups) > 1:
        raise CommandError(f"run {run_id!r} has several groups: name one with --group: {', '.join(groups)}")
    name = next(iter(groups)) if wanted is None else wanted
    if name not in groups:
        known = f"{', '.join(groups)}{close_names(name, groups)}"
        raise CommandError(f"--group {name}: run {run_id!r} has no such group; there are {known}")
    equal = Counter[bytes]()
    members = [_member(each, run_id, equal) for each in groups[name]]
    ids = {each.header.group_id for each in groups[name]}
    return members + await _members_without_outcome(store, run_id, name, ids, len(members))


async def _members_without_outcome(
    store: Store, run_id: str, place: str, ids: set[str | None], ended: int
) -> list[RecordedItem]:
    """Members that were begun and have no outcome, and those that had not begun when their group ended."""
    begun, outcomes = dict[bytes, str](), set[bytes]()
    enrolled = dict[str | None, int]()
    async for recorded in store.events(run_id, values=False):
        event = recorded.event
        if event.group_id not in ids:
            continue
        if event.group is not None:
            enrolled[event.group_id] = event.group.enrolled
        elif event.key is not None:
            key = bytes.fromhex(event.key)
            begun.setdefault(key, event.address)
            if recorded.has_outcome:  # one that has failed, and is made again, has this failure meanwhile
                outcomes |= {key, again_key(key)}
    missing = [RecordedItem((key, -1), address, None, None) for key, address in begun.items() if key not in outcomes]
    left = range(sum(enrolled.values()) - ended - len(missing))
    rest = [RecordedItem((b"not begun", number), f"a member of {place}", None, None, _NOT_BEGUN) for number in left]
    return missing + rest


def _is_outermost(header: OutcomeHeader, by_base: dict[bytes, OutcomeHeader]) -> bool:
    """Whether a call is a member of a group, and none of those that made it is."""
    if header.group_id is None:
        return False
    maker = by_base.get(header.parent)
    while maker is not None and maker.group_id is None:
        maker = by_base.get(maker.parent)
    return maker is None


def _member(outcome: UnreadOutcome, run_id: str, equal: Counter[bytes]) -> RecordedItem:
    address = outcome.header.address
    try:
        value = decode((outcome.input or "").encode(), unknown_ok=True)
    except (StoreError, ValueError) as error:
        raise CommandError(
            f"what {address} was called with is not recorded in full, so it is not known which item it is: start runs "
            f"that are to be scored with record_inputs='full', as in run(…, run_id={run_id!r}, record_inputs='full')"
        ) from error
    return RecordedItem(_numbered(_canonical(value), equal), address, value, outcome)


# -- their scores -----------------------------------------------------------------------------------------------------


async def score_items(
    items: Sequence[RecordedItem], callee: Callee, state: ExecutionState, max_workers: int
) -> list[ScoredItem]:
    """Score each item that has a value, in the run `state`. What was scored before, there, is not scored again.

    Raises:
        CommandError: it was stopped, or waits for people.
        StoreError: something cannot be read or recorded.
    """
    scored, given = list[ScoredItem](), list[tuple[ScoredItem, Item]]()
    for number, item in enumerate(items):
        each = ScoredItem(item, ItemStatus.MISSING, reason=item.problem or "it has no outcome")
        scored.append(each)
        if item.outcome is None:
            continue
        outcome = await read_beside(item.outcome)
        if outcome.error is not None:
            each.status, each.reason = ItemStatus.FAILED, one_line(describe_error(outcome.error))
            continue
        fields = item.value if isinstance(item.value, dict) else {}
        value = {**fields, "input": item.value, "output": outcome.value}
        given.append((each, Item(f"item {number + 1}", item.label, value)))
    for (each, _), result in zip(
        given, await _scores([item for _, item in given], callee, state, max_workers), strict=True
    ):
        _take(each, result)
    return scored


async def _scores(
    items: Sequence[Item], callee: Callee, state: ExecutionState, max_workers: int
) -> Sequence[ExecutionResult[Any]]:
    def interrupt(grace: float) -> None:
        state.request_interrupt(_SIGNALS, grace=grace)

    try:
        with interrupt_on_signals(lambda _: interrupt(30.0), lambda _: interrupt(0), hangup=True):
            async with state, state.parallel(max_workers, ErrorStrategy.FAIL_SLOW, name=callee.name) as group:
                group.map(lambda item: call_for(item, callee, state.parts), items, name=lambda item: str(item.id))
                return await group.gather()
    except RunAwaiting as waiting:
        raise CommandError(
            f"run {state.run_id!r} waits for {len(waiting.questions)} answers, which `rh-agents answer` gives: then "
            "repeat the command",
            exit_code=_AWAITING,
        ) from waiting
    except RunStopped as stopped:
        code = 130 if stopped.reason == _SIGNALS else 1
        raise CommandError(
            f"{one_line(stopped.reason)}; repeat the command: what has been scored is recorded", exit_code=code
        ) from stopped


def _take(each: ScoredItem, result: ExecutionResult[Any]) -> None:
    """The score of an item: a finite number, or a truth value."""
    given = result.result
    each.status = ItemStatus.UNSCORED
    if not result.ok:
        is_unfit = isinstance(result.error, BadInput)
        each.reason = one_line(str(result.error) if is_unfit else result.error_message or "")
    elif not isinstance(given, int | float) or not math.isfinite(given):
        each.reason = f"the scorer gave {given!r:.60}: a score is a finite number, or True or False"
    else:
        each.status, each.score, each.reason = ItemStatus.SCORED, float(given), ""
