"""Journals as they are copied: without some outcomes, with some edited ones, counted anew.

A copy of a run has what its child runs have recorded at its end, as if its owner had taken that over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rh_agents.core._replay.recorded import KeyTable
from rh_agents.core.errors import ValuesErased
from rh_agents.core.policies.child_runs import AboutChild
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend.rows import Edit, EventRow, OutcomeRow, RunRow
from rh_agents.stores._children import Left, as_of_parent
from rh_agents.stores._verified import VerifiedSession, reported

__all__ = ["Copying", "Part", "copied", "erased_meanwhile"]

_CHUNK = 1024
_SUPERSEDED = ExecutionStatus.SUPERSEDED.value

Part = tuple[list[EventRow], list[OutcomeRow]]


def copied(
    reading: VerifiedSession,
    run: RunRow,
    leave_out: Collection[bytes],
    edits: Sequence[Edit],
    children: Sequence[Left] = (),
) -> Iterator[Part]:
    """The events and outcomes of the copy of a run, a part at a time.

    They are verified while they are read, so a copy of what is damaged does not get checksums that fit. A journal only
    grows, so what it had when the run's row was read is the run as it was at one moment.

    Args:
        reading: the database.
        run: the run.
        leave_out: the keys of outcomes that the copy does not have.
        edits: other outcomes of the copy.
        children: child runs, of which the copy has what the run does not have yet.

    Raises:
        StoreError: a row is damaged or missing.
    """
    copying = Copying(KeyTable(), 0, leave_out, edits)
    yield from copying.journal(reading, run)
    for each in children:
        yield from copying.journal(reading, each.row, each.after, each.about)


class Copying:
    """What becomes of the rows of journals in another one.

    Args:
        has_outcome: the keys that have an outcome there already.
        sequence: how many events there are already.
        leave_out: the keys of outcomes that are left out.
        edits: other outcomes.
        is_marked: whether the last event of each part of a child says how far it goes.
    """

    def __init__(
        self,
        has_outcome: KeyTable,
        sequence: int,
        leave_out: Collection[bytes] = (),
        edits: Sequence[Edit] = (),
        *,
        is_marked: bool = False,
    ) -> None:
        self.sequence: int = sequence
        self._has_outcome = has_outcome
        self._leave_out = leave_out
        self._edited = {edit.key: edit for edit in edits}
        self._is_marked = is_marked

    def journal(
        self, reading: VerifiedSession, run: RunRow, after: int = 0, about: AboutChild | None = None
    ) -> Iterator[Part]:
        """The rows of a journal from after a sequence, a part at a time; `about` is given if it is that of a child."""
        while after < run.last_sequence:
            limit = min(_CHUNK, run.last_sequence - after)
            rows = reading.events(run.number, run.run_id, after, limit)
            if len(rows) < limit:
                raise reading.missing(run.run_id, f"event {after + len(rows) + 1}")
            found = reported(reading, run.number, run.run_id, rows)
            inputs = reading.inputs(run.number, run.run_id, after, after + limit)
            after += len(rows)
            yield self._part(rows, found, inputs, run.run_id, about)

    def _part(
        self,
        rows: Sequence[EventRow],
        found: dict[int, OutcomeRow],
        inputs: dict[int, str],
        run_id: str,
        about: AboutChild | None,
    ) -> Part:
        events: list[EventRow] = []
        outcomes: list[OutcomeRow] = []
        for row in self._wanted(rows, about):
            self.sequence += 1
            event, outcome = row._replace(sequence=self.sequence), found.get(row.sequence)
            if outcome is not None and outcome.key in self._has_outcome:  # it counts for nothing, but for what it cost
                event, outcome = event._replace(ok=None), None
            if outcome is not None:
                self._has_outcome.add(outcome.key, self.sequence)
                outcome = outcome._replace(sequence=self.sequence, input=inputs.get(row.sequence))
                change = self._edited.get(outcome.key)
                if change is not None:
                    event, outcome = _edited(event, outcome, change)
                outcomes.append(outcome)
            events.append(event)
        if self._is_marked and about is not None and events:
            marked = as_of_parent(events[-1], about, (run_id, rows[-1].sequence))
            assert marked is not None
            events[-1] = marked
        return events, outcomes

    def _wanted(self, rows: Sequence[EventRow], about: AboutChild | None) -> Iterator[EventRow]:
        for row in rows:
            change = None if row.key is None else self._edited.get(row.key)
            if row.key in self._leave_out or (change is not None and row.status == _SUPERSEDED):
                continue
            its = row if about is None else as_of_parent(row, about)
            if its is not None:
                yield its


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
