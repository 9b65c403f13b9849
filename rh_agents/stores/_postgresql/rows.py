"""Rows of the tables in PostgreSQL, to and fro."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from rh_agents.core.ports import CacheEntry
from rh_agents.stores._backend.rows import REPLACED, Batch, CallRow, EventRow, Kept, LeaseState, OutcomeRow, RunRow
from rh_agents.stores._checksums import input_sum, sealed
from rh_agents.stores._postgresql.driver import Array, from_text
from rh_agents.stores._verified import CHECKSUMS_OF_RUN, checksums_of_run

_KINDS: Final = {
    "sequence": "int8",
    "timestamp": "float8",
    "status": "text",
    "event_type": "text",
    "name": "text",
    "address": "text",
    "key": "bytea",
    "group_id": "text",
    "parallel_index": "int8",
    "group_total": "int8",
    "attempt": "int4",
    "seconds": "float8",
    "message": "text",
    "ok": "bool",
    "more": "text",
    "call_checksum": "int4",
    "checksum": "int4",
    "base": "bytea",
    "parent": "bytea",
    "epoch": "int4",
    "tries": "int4",
    "parent_attempt": "int4",
    "value": "bytea",
    "artifact": "bytea",
    "outcome_more": "text",
    "size": "int8",
    "outcome_checksum": "int4",
    "input": "text",
    "input_checksum": "int4",
}
"""The columns of the journal: an event and its checksums, and what an outcome has in addition."""
_WIDTH: Final = len(EventRow._fields)
assert tuple(_KINDS)[:_WIDTH] == EventRow._fields
assert [name.removeprefix("outcome_") for name in tuple(_KINDS)[_WIDTH + 2 : -3]] == list(OutcomeRow._fields[3:-1])
_ARTIFACT: Final = OutcomeRow._fields.index("artifact")
_NO_OUTCOME: Final = (None,) * (len(OutcomeRow._fields) - 1)


def journal_columns(batches: Sequence[Batch]) -> dict[str, Array]:
    """The rows of several runs as parameters, one for each column."""
    runs = list(chain.from_iterable([batch.number] * len(batch.events) for batch in batches))
    rows = list(chain.from_iterable(map(_journal_rows, batches)))
    columns = zip(*rows, strict=True) if rows else [()] * len(_KINDS)
    arrays = {f"row_{name}": Array(kind, values) for (name, kind), values in zip(_KINDS.items(), columns, strict=True)}
    arrays["row_run"] = Array("int8", runs)
    return arrays


def _journal_rows(batch: Batch) -> list[tuple[Any, ...]]:
    of_events, of_outcomes = sealed(batch.events, batch.outcomes)
    outcomes = {
        outcome.sequence: (*_with_bytes(outcome)[3:-1], checksum, *_input(outcome))
        for outcome, checksum in zip(batch.outcomes, of_outcomes, strict=True)
    }
    get = outcomes.get
    return [
        (*event, *checksums, *get(event[0], _NO_OUTCOME))
        for event, checksums in zip(batch.events, of_events, strict=True)
    ]


def _input(row: OutcomeRow) -> tuple[str | None, int | None]:
    """What the call was called with, and its checksum."""
    return (None, None) if row.input is None else (row.input, input_sum(row.sequence, row.input))


def _with_bytes(row: OutcomeRow) -> tuple[Any, ...]:
    if row.artifact is None:
        return row
    return (*row[:_ARTIFACT], bytes.fromhex(row.artifact), *row[_ARTIFACT + 1 :])


def held_runs(held: Sequence[tuple[int, int]]) -> dict[str, Array]:
    """Runs (number, fence) as parameters."""
    return {
        "number": Array("int8", [number for number, _ in held]),
        "fence": Array("int8", [fence for _, fence in held]),
    }


def lease_states_of(numbers: Sequence[int], rows: Sequence[tuple[Any, ...]]) -> list[LeaseState]:
    """The leases of runs, in the order of `numbers`: those of which there is no row are not ours."""
    found = {row[0]: LeaseState(True, *row[1:]) for row in rows}
    return [found.get(number, LeaseState(False, None)) for number in numbers]


def _asked(row: Sequence[Any]) -> list[int]:
    """How many requests there are; who only writes does not ask, and has told others in this place."""
    return [each for each in row[2:] if isinstance(each, int)]


def run_columns(run: RunRow) -> dict[str, Any]:
    """The columns of a run that its holder may change."""
    return {
        **{name: getattr(run, name) for name in REPLACED},
        "tags": Array("text", run.tags),
        "facts": json.dumps(dict(run.facts), ensure_ascii=False),
        **dict(zip(CHECKSUMS_OF_RUN, checksums_of_run(run), strict=True)),
    }


_TAGS: Final = tuple(RunRow.__slots__).index("tags")
_FACTS: Final = tuple(RunRow.__slots__).index("facts")


def kept_run(row: tuple[Any, ...]) -> Kept[RunRow]:
    values = list(row[: -len(CHECKSUMS_OF_RUN)])
    with contextlib.suppress(TypeError, ValueError):  # damaged: no checksum fits what stands there
        values[_TAGS] = tuple(values[_TAGS])
        values[_FACTS] = json.loads(values[_FACTS])
    return Kept(RunRow(*values), row[-len(CHECKSUMS_OF_RUN) :])


def kept_entry(row: tuple[Any, ...]) -> Kept[CacheEntry]:
    return Kept(CacheEntry(bytes(row[0]), bytes(row[1]), *row[2:-1]), row[-1])


def call_row(row: tuple[Any, ...]) -> CallRow:
    """Its texts come as they are stored."""
    made = CallRow._make(row)
    if made.group_id is not None and "\\" in made.group_id:
        made = made._replace(group_id=from_text(made.group_id))
    if made.more is None or made.name is None:
        return made
    return made._replace(name=from_text(made.name), more=from_text(made.more))


def outcome_row(row: tuple[Any, ...]) -> OutcomeRow:
    """What an outcome has in addition to its event."""
    made = OutcomeRow(*row)
    return made if made.artifact is None else made._replace(artifact=row[_ARTIFACT].hex())
