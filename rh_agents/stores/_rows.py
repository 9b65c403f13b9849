"""Events and outcomes as rows of a database, and back."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import StoreError
from rh_agents.core.events import COSTS, Fact
from rh_agents.core.groups import GroupEnding, ParallelEventGroup
from rh_agents.core.results import Outcome, OutcomeHeader, describe_error
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Charge, Usage
from rh_agents.core.values import decode, decode_error, encode, encode_error
from rh_agents.stores._backend.rows import Edit, EventRow, OutcomeRow, StoredEvent, StoredOutcome
from rh_agents.stores.artifacts import ArtifactStore

LARGEST_INLINE = 32 * 1024
"""Bytes. What is larger becomes an artifact."""

_RECOVERED = ExecutionStatus.RECOVERED
_NAME, _RESULT = Fact._fields.index("name"), Fact._fields.index("result")
"""From the one up to the other, a fact and the row of its event have the same fields."""
_new_tuple = tuple.__new__  # a third of the time that a NamedTuple takes to be called

# -- writing -----------------------------------------------------------------------------------------------------------


def encode_outcome(outcome: Outcome, encode: Callable[[object], bytes] = encode) -> bytes:
    """The typed JSON text of its value, which `encode` writes, or of its error.

    Raises:
        UnstorableError: the value is no data.
    """
    return encode(outcome.value) if outcome.error is None else encode_error(outcome.error)


def event_row(sequence: int, fact: Fact, ok: bool | None) -> EventRow:
    """The row of a fact; `ok` says what comes with it: a value, an error, or (None) no outcome."""
    _, timestamp, status, kind, actor, name, *_, few = fact
    is_usual = few is None and status is not _RECOVERED and actor.name == name and actor.event_type is kind
    more = None if is_usual and actor.recorded_version == "1" else _more_of_event(fact)
    return _new_tuple(EventRow, (sequence, timestamp, status._value_, kind._value_, *fact[_NAME:_RESULT], ok, more))


def _more_of_event(fact: Fact) -> str | None:
    """What few facts have, as a JSON object; None if there is nothing."""
    actor, kind = fact.actor, fact.kind
    is_recovered = fact.status is _RECOVERED
    given = fact.more or {}
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("waited", given.get("waited", 0.0), 0.0),  # the first one, so that databases find it by how the text begins
        ("actor", actor.name, fact.name),
        ("version", actor.recorded_version, "1"),
        ("kind", actor.event_type.value, kind.value),
        ("retry_delay", given.get("retry_delay"), None),
        ("is_replayed", given.get("is_replayed", False), is_recovered),
        ("from_cache", given.get("from_cache", False), is_recovered),
        ("lost", given.get("lost", 0), 0),
        ("tag", given.get("tag", ""), ""),
        ("metadata", given.get("metadata", {}), {}),
        ("charges", given.get("charges"), None),
        ("control", given.get("control"), None),
        ("taken_over", given.get("taken_over"), None),
    )
    more = {name: value for name, value, usual in pairs if value != usual}
    if fact.group is not None:
        more["group"] = fact.group.model_dump(mode="json")
    usage = given.get("usage")
    if usage is not None:
        more["usage"] = usage.as_json()
    return json.dumps(more) if more else None


def superseding(event: EventRow, sequence: int, timestamp: float) -> EventRow:
    """The row that says that a call is to be made again, like the one that reports its outcome, but for its cost."""
    more = None
    if event.more is not None:
        facts = {name: value for name, value in json.loads(event.more).items() if name not in COSTS}
        more = json.dumps(facts) if facts else None
    status = ExecutionStatus.SUPERSEDED.value
    return event._replace(sequence=sequence, status=status, timestamp=timestamp, ok=None, more=more)


def outcome_row(
    sequence: int, outcome: Outcome, event: EventRow, data: bytes | None, artifact: str | None, size: int | None
) -> OutcomeRow:
    """The row of an outcome beside that of its event."""
    epoch, tries, attempt = outcome.made_in
    base = outcome.base
    more = None
    if outcome.usage is not None or (
        outcome.name, outcome.address, outcome.seconds, outcome.attempts, outcome.group_id,
    ) != (event.name, event.address, event.seconds, event.attempt, event.group_id):  # fmt: skip
        more = _more_of_outcome(outcome, event)
    return _new_tuple(
        OutcomeRow,
        (
            sequence,
            outcome.key,
            outcome.error is None,
            None if base == outcome.key else base,
            outcome.parent,
            epoch,
            tries,
            attempt,
            data,
            artifact,
            more,
            size,
            outcome.input,
        ),
    )


def _more_of_outcome(outcome: Outcome, event: EventRow) -> str:
    """What differs from the event, as a JSON object."""
    pairs = {
        "name": (outcome.name, event.name),
        "address": (outcome.address, event.address),
        "seconds": (outcome.seconds, event.seconds),
        "attempts": (outcome.attempts, event.attempt),
        "group_id": (outcome.group_id, event.group_id),
    }
    more: dict[str, Any] = {name: mine for name, (mine, its) in pairs.items() if mine != its}
    if outcome.usage is not None:
        more["usage"] = outcome.usage.as_json()
    return json.dumps(more)


def edit(outcome: Outcome, put: Callable[[bytes], str]) -> Edit:
    """An edited outcome for the copy of a run. `put` keeps an artifact."""
    data = encode_outcome(outcome)
    error = outcome.error
    is_large = len(data) > LARGEST_INLINE
    return Edit(
        outcome.key,
        error is None,
        None if is_large else data,
        put(data) if is_large else None,
        None if error is None else describe_error(error),
        len(data) if is_large else None,
    )


# -- reading -----------------------------------------------------------------------------------------------------------


def stored_outcome(row: OutcomeRow, event: EventRow) -> StoredOutcome:
    """An outcome that has just been written, as if it had been read."""
    return _new_tuple(StoredOutcome, (row, event.name, event.address, event.seconds, event.attempt, event.group_id))


def read_artifact(artifacts: ArtifactStore, row: OutcomeRow) -> bytes:
    """The value of an outcome that is kept elsewhere; not more of it than was written.

    Raises:
        StoreError: it is missing or damaged.
    """
    assert row.artifact is not None
    return artifacts.get(row.artifact, size=row.size)


def header_of(stored: StoredOutcome) -> OutcomeHeader:
    """What a row tells of an outcome but for its value."""
    row = stored.row
    facts = (stored.name, stored.address, stored.seconds, stored.attempts, stored.group_id)
    usage = None
    if row.more is not None:
        changes = json.loads(row.more)
        facts = _changed(facts, changes)
        usage = usage_of(changes)
    name, address, seconds, attempts, group_id = facts
    return _new_tuple(
        OutcomeHeader,
        (
            row.key,
            name,
            address,
            row.ok,
            seconds,
            attempts,
            group_id,
            row.key if row.base is None else row.base,
            row.parent,
            (row.epoch, row.tries, row.parent_attempt),
            usage,
        ),
    )


def outcome_of(stored: StoredOutcome, data: bytes | None, *, unknown_ok: bool = False) -> Outcome:
    """The outcome that a row tells of; `data` is its value, from wherever it is kept.

    Raises:
        StoreError: it is damaged, or its class is unknown and that is not `unknown_ok`.
        ValuesErased: it was erased, and that is not `unknown_ok`.
    """
    if data is None:
        raise StoreError("it has no value")
    key, name, address, ok, *rest = header_of(stored)
    value = decode(data, unknown_ok=unknown_ok) if ok else None
    error = None if ok else decode_error(data, erased_ok=unknown_ok)
    return _new_tuple(Outcome, (key, name, address, value, error, *rest, None))


def actor_in(name: str | None, more: Mapping[str, Any]) -> tuple[str, str]:
    """The name and the version of the actor of an event: that of the call, and 1, unless it says another one."""
    actor, version = more.get("actor"), more.get("version")
    return (name or "") if actor is None else actor, "1" if version is None else version


def usage_of(more: Mapping[str, Any]) -> Usage | None:
    """The usage that a row has among what few rows have."""
    usage = more.get("usage")
    return None if usage is None else Usage.from_json(usage)


def ending_of(more: Mapping[str, Any]) -> GroupEnding | None:
    """How the group of an event ended early; None if it did not, or if that was not recorded."""
    ending = (more.get("group") or {}).get("ending")
    return None if ending is None else GroupEnding.model_validate(ending)


def charge_of(name: str, more: Mapping[str, Any]) -> Charge | None:
    """What an event says was spent, workers included; None if nothing was."""
    usage, places, is_free = usage_of(more), more.get("charges"), bool(more.get("from_cache"))
    lost = int(more.get("lost", 0))
    return (
        Charge(_spender(name, more), usage, places, is_free, lost)
        if usage is not None or places is not None or is_free or lost
        else None
    )


def _spender(name: str, more: Mapping[str, Any]) -> str:
    """As `spender_of` says it: rows name the actor where that is not the name of the call."""
    is_function = more.get("kind", "") == EventType.FUNCTION_CALL.value
    return name if is_function else more.get("actor", name)


def _changed(facts: tuple[Any, ...], changes: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("name", "address", "seconds", "attempts", "group_id")
    return tuple(changes.get(name, fact) for name, fact in zip(names, facts, strict=True))


def fact_of(stored: StoredEvent, data: bytes | None, run_id: str) -> Fact:
    """The fact that a row tells of; `data` is the value of its outcome, if it has one.

    Raises:
        StoreError: it is damaged.
    """
    row = stored.row
    more: dict[str, Any] = {} if row.more is None else json.loads(row.more)
    kind = EventType(row.event_type)
    actor = _stand_in(more.pop("actor", row.name), more.pop("version", "1"), EventType(more.pop("kind", kind)))
    if row.status == _RECOVERED:
        more = {"is_replayed": True, "from_cache": True, **more}
    elif row.status == ExecutionStatus.SUPERSEDED:  # earlier versions wrote here once more what the call had cost
        more = {name: value for name, value in more.items() if name not in COSTS}
    if "group" in more:
        more["group"] = ParallelEventGroup.model_validate(more["group"])
    if "usage" in more:
        more["usage"] = usage_of(more)
    is_ok = stored.outcome is not None and stored.outcome.ok
    return Fact(
        run_id,
        row.timestamp,
        ExecutionStatus(row.status),
        kind,
        actor,
        row.name,
        row.address,
        row.key,
        row.group_id,
        row.parallel_index,
        row.group_total,
        row.attempt,
        row.seconds,
        row.message,
        decode(data, unknown_ok=True) if is_ok and data is not None else None,
        more or None,
    )


@functools.lru_cache(maxsize=1024)
def _stand_in(name: str, version: str, kind: EventType) -> BaseActor:
    """Stands for the actor of a recorded event: its code is not recorded."""
    return BaseActor.model_construct(
        name=name,
        version=version,
        event_type=kind,
        handler=_nothing,
        description="Stands for the actor in a recorded event.",
    )


def _nothing() -> None:
    """What a stand-in does when it is called."""
