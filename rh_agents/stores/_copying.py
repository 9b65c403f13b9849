"""The journal of a run as it is copied: without some outcomes, with some edited ones, counted anew."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rh_agents.core._replay.key_table import KeyTable
from rh_agents.core.errors import ValuesErased
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend import Edit, EventRow, OutcomeRow, RunRow
from rh_agents.stores._verified import VerifiedSession, reported

_CHUNK = 1024
_SUPERSEDED = ExecutionStatus.SUPERSEDED.value

Part = tuple[list[EventRow], list[OutcomeRow]]


def copied(
    reading: VerifiedSession, run: RunRow, leave_out: Collection[bytes], edits: Sequence[Edit]
) -> Iterator[Part]:
    """The events and outcomes of the copy, a part at a time.

    They are verified while they are read, so a copy of what is damaged does not get checksums that fit. A journal only
    grows, so what it had when the run's row was read is the run as it was at one moment.

    Raises:
        StoreError: a row is damaged or missing.
    """
    edited = {edit.key: edit for edit in edits}
    has_outcome = KeyTable()
    after = sequence = 0
    while after < run.last_sequence:
        limit = min(_CHUNK, run.last_sequence - after)
        rows = reading.events(run.number, run.run_id, after, limit)
        if len(rows) < limit:
            raise reading.missing(run.run_id, f"event {after + len(rows) + 1}")
        found = reported(reading, run.number, run.run_id, rows)
        inputs = reading.inputs(run.number, run.run_id, after, after + limit)
        events: list[EventRow] = []
        outcomes: list[OutcomeRow] = []
        for row in rows:
            change = None if row.key is None else edited.get(row.key)
            if row.key in leave_out or (change is not None and row.status == _SUPERSEDED):
                continue
            sequence += 1
            event, outcome = row._replace(sequence=sequence), found.get(row.sequence)
            if outcome is not None and outcome.key in has_outcome:  # it counts for nothing, but for what it cost
                event, outcome = event._replace(ok=None), None
            if outcome is not None:
                has_outcome.add(outcome.key, sequence)
                outcome = outcome._replace(sequence=sequence, input=inputs.get(row.sequence))
                if change is not None:
                    event, outcome = _edited(event, outcome, change)
                outcomes.append(outcome)
            events.append(event)
        after += len(rows)
        yield events, outcomes


def erased_meanwhile(run_id: str) -> ValuesErased:
    """The error that says that a run has no values any more to copy."""
    return ValuesErased(f"run {run_id!r} cannot be copied: its values have been erased meanwhile")


def _edited(event: EventRow, outcome: OutcomeRow, edit: Edit) -> tuple[EventRow, OutcomeRow]:
    """An event and its outcome, as if the call had come to something else."""
    status = ExecutionStatus.COMPLETED if edit.ok else ExecutionStatus.FAILED
    return (
        event._replace(ok=edit.ok, message=edit.message, status=status.value),
        outcome._replace(ok=edit.ok, value=edit.value, artifact=edit.artifact, size=edit.size),
    )
