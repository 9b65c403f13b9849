"""Rows of the tables in SQLite, to and fro: what a text, a place or an optional value looks like there."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rh_agents.core.ports import CacheEntry, Question
from rh_agents.core.ports.call_views import lowered
from rh_agents.stores._backend.rows import (
    REPLACED,
    Batch,
    EventRow,
    InputRow,
    Kept,
    LeaseState,
    OutcomeRow,
    RunRow,
    RunsWanted,
    StoredOutcome,
)
from rh_agents.stores._checksums import input_sum, sealed
from rh_agents.stores._verified import (
    CHECKSUMS_OF_QUESTION,
    CHECKSUMS_OF_RUN,
    checksums_of_question,
    checksums_of_run,
)

Row = tuple[Any, ...]
PLACE_BITS = 40
"""A run has the places number * 2^40 + sequence."""


_MARK = "\ufdd0"
_UNUSUAL = re.compile("[\ud800-\udfff\ufdd0]")
_WRITTEN = re.compile("\ufdd0([0-9a-f]{4})")


def as_text(text: str | None) -> str | None:
    """The text as SQLite can hold it: halves of surrogate pairs are no UTF-8."""
    if text is None or text.isascii():
        return text
    return _UNUSUAL.sub(lambda found: f"{_MARK}{ord(found[0]):04x}", text)


def some_as_text(text: str) -> str:
    return as_text(text) or ""


def from_text(text: str | None) -> str | None:
    """The text of which `as_text` made this."""
    if text is None or _MARK not in text:
        return text
    return _WRITTEN.sub(lambda found: chr(int(found[1], 16)), text)


def some_text(text: str) -> str:
    return from_text(text) or ""


def as_json(value: object) -> str:
    """Text in ASCII, in which anything can be written."""
    return json.dumps(value)


def places_of_run(number: int) -> tuple[int, int]:
    """The first and the last place that a run can have."""
    return (number << PLACE_BITS) + 1, ((number + 1) << PLACE_BITS) - 1


def lease_state_of(row: Row | None) -> LeaseState:
    return LeaseState(False, None) if row is None else LeaseState(True, from_text(row[0]), *row[1:])


JOURNAL_WIDTH: Final = 29
"""Columns of a row of the journal."""
NO_INPUT: Final = (None, None)
_NO_OUTCOME: Final = (None,) * 12


def journal_rows(batch: Batch) -> list[Any]:
    """The rows of a batch as one list of values, which is how they are given to SQLite."""
    first = batch.number << PLACE_BITS
    of_events, of_outcomes = sealed(batch.events, batch.outcomes)
    outcomes = zip(batch.outcomes, of_outcomes, strict=True)
    outcome, its = next(outcomes, (None, 0))
    values: list[Any] = []
    for event, checksums in zip(batch.events, of_events, strict=True):
        values.append(first + event[0])
        values += (event if is_plain(event) else _writable(event))[1:]
        values += checksums
        if outcome is None or outcome[0] != event[0]:
            values += _NO_OUTCOME
            continue
        _, _, _, base, parent, epoch, tries, attempt, value, artifact, more, size, text = outcome
        digest = None if artifact is None else bytes.fromhex(artifact)
        values += (base, parent, epoch, tries, attempt, digest, size, more, its)
        values.append(None if value is None else value.decode())
        values += NO_INPUT if text is None else (as_text(text), input_sum(event[0], text))
        outcome, its = next(outcomes, (None, 0))
    assert outcome is None, "each outcome has the sequence of an event that is written with it"
    return values


def is_plain(row: EventRow) -> bool:
    """Whether its texts can be written as they are. Nearly all can, so this has to be quick."""
    _, _, _, _, name, address, _, group_id, _, _, _, _, message, _, _ = row
    return (
        name.isascii()
        and address.isascii()
        and (group_id is None or group_id.isascii())
        and (message is None or message.isascii())
    )


def _writable(row: EventRow) -> EventRow:
    return row._replace(
        name=some_as_text(row.name),
        address=some_as_text(row.address),
        group_id=as_text(row.group_id),
        message=as_text(row.message),
    )


OKS = {None: None, 0: False, 1: True}
NOT_MADE = (None, None, None)
_from_hex = bytes.fromhex
_new_tuple = tuple.__new__  # a third of the time that a NamedTuple takes to be called


def from_digits(digits: str) -> bytes | None:
    return bytes.fromhex(digits) if digits else None


def event_row(sequence: int, key: bytes | None, row: Sequence[Any]) -> EventRow:
    """An event of a row that begins with its columns."""
    _, timestamp, status, kind, name, address, _, group_id, index, total, attempt, seconds, message, ok, more = row[:15]
    return EventRow(
        sequence,
        timestamp,
        status,
        kind,
        some_text(name),
        some_text(address),
        key,
        from_text(group_id),
        index,
        total,
        attempt,
        seconds,
        from_text(message),
        OKS[ok],
        more,
    )


def kept_event(first: int, row: list[Any]) -> Kept[EventRow]:
    return Kept(event_row(row[0] - first, from_digits(row[6]), row), row[15])


def kept_outcome(first: int, row: list[Any], value: bytes) -> Kept[StoredOutcome]:
    (
        place, key, ok, base, has_no_base, parent, epoch, tries, parent_attempt, artifact, more, size,
        name, address, seconds, attempt, group_id, checksum,
    ) = row  # fmt: skip
    outcome = _new_tuple(
        OutcomeRow,
        (
            place - first,
            _from_hex(key),
            ok == 1,
            None if has_no_base else _from_hex(base),
            _from_hex(parent),
            epoch,
            tries,
            parent_attempt,
            value or None,
            artifact or None,
            more,
            size,
            None,
        ),
    )
    if not (name.isascii() and address.isascii() and (group_id is None or group_id.isascii())):
        name, address, group_id = some_text(name), some_text(address), from_text(group_id)
    stored = _new_tuple(StoredOutcome, (outcome, name, address, seconds, attempt, group_id))
    return _new_tuple(Kept, (stored, checksum))


def kept_input(first: int, row: Row) -> Kept[InputRow]:
    place, text, checksum = row
    return Kept(InputRow(place - first, some_text(text)), checksum)


def run_facts(row: RunRow) -> dict[str, Any]:
    """What both a new run and a changed one have, but for its input, which has a table of its own."""
    return {
        **{name: _as_value(getattr(row, name)) for name in REPLACED if name != "input"},
        "tags": as_json(row.tags),
        "facts": as_json(dict(row.facts)),
        **dict(zip(CHECKSUMS_OF_RUN, checksums_of_run(row), strict=True)),
    }


_TAGS: Final = tuple(RunRow.__slots__).index("tags")
_FACTS: Final = tuple(RunRow.__slots__).index("facts")


def kept_run(row: Row) -> Kept[RunRow]:
    values = list(map(from_value, row[: -len(CHECKSUMS_OF_RUN)]))
    with contextlib.suppress(TypeError, ValueError):  # damaged: no checksum fits what stands there
        values[_TAGS] = tuple(json.loads(values[_TAGS]))
        values[_FACTS] = json.loads(values[_FACTS])
    return Kept(RunRow(*values), row[-len(CHECKSUMS_OF_RUN) :])


def kept_question(row: Row) -> Kept[Question]:
    return Kept(Question(*map(from_value, row[:-3])), row[-3:])


def kept_entry(row: Row) -> Kept[CacheEntry]:
    return Kept(CacheEntry(*map(from_value, row[:-1])), row[-1])


def question_facts(question: Question) -> dict[str, Any]:
    """All of a question but its run."""
    facts = {name: _as_value(value) for name, value in asdict(question).items() if name != "run_id"}
    return facts | dict(zip(CHECKSUMS_OF_QUESTION, checksums_of_question(question), strict=True))


def _as_value(value: Any) -> Any:
    """What is stored of a value: a text may have to be written in another way."""
    return as_text(value) if isinstance(value, str) else value


def from_value(value: Any) -> Any:
    return from_text(value) if isinstance(value, str) else value


def listing(wanted: RunsWanted) -> dict[str, Any]:
    """What stands for the runs that are wanted in queries."""
    return {
        **wanted._asdict(),
        "tag": None if wanted.tag is None else as_json(wanted.tag),
        "kinds": None if wanted.kinds is None else as_json(wanted.kinds),
        "text": None if wanted.text is None else as_text(lowered(wanted.text)),
        "forks_of": None if wanted.forks_of is None else as_json(list(map(as_text, wanted.forks_of))),
        "limit": -1 if wanted.limit is None else wanted.limit,
    }
