"""The one fold over a journal in a database: everybody who resumes, plans, forks or supersedes gets it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend.rows import CallRow, RunRow
from rh_agents.stores._rows import charge_of, ending_of
from rh_agents.stores._verified import VerifiedSession, damaged

_STARTED: Final = ExecutionStatus.STARTED.value
_CHUNK: Final = 8192
"""Events that are read at a time."""
_REMEMBERED: Final = 100
"""Texts that say nothing of what was spent, nor how a group ended, of which there are many: they are read once."""


def fold(session: VerifiedSession, run: RunRow) -> RecordedCalls:
    """What the journal of a run says about its calls.

    Raises:
        StoreError: it has not all the rows, up to `last_sequence`, or one is damaged.
    """
    recorded = RecordedCalls()
    add, after, outcomes = recorded.add, 0, 0
    of_no_account: set[str] = set()
    while True:
        chunk = session.calls(run.number, run.run_id, after, _CHUNK)
        ended_well = _ended_well(chunk)
        for sequence, status, key, attempt, group_id, ok, name, more, epoch, tries, parent_attempt in chunk:
            if more is None and status == _STARTED and key in ended_well:
                recorded.events += 1
                continue
            failed_in = (epoch or 0, tries or 0, parent_attempt or 0) if ok is False else None
            charge = ending = control = taken_over = None
            if more is not None and more not in of_no_account:
                facts = json.loads(more)
                charge, ending, control = charge_of(name or "", facts), ending_of(facts), facts.get("control")
                taken_over = facts.get("taken_over")
                is_plain = charge is None and ending is None and control is None and taken_over is None
                if is_plain and len(of_no_account) < _REMEMBERED:
                    of_no_account.add(more)
            about = (sequence, status, key, attempt, group_id, ok is not None, failed_in)
            add(*about, charge, ending, control, taken_over)
            outcomes += ok is not None
        after += len(chunk)
        if len(chunk) < _CHUNK:
            break
    if after < run.last_sequence:
        raise session.missing(run.run_id, f"event {after + 1}")
    _expect(session, run, "events", run.last_sequence, after)
    if run.outcomes != len(recorded.finished):  # else somebody has added one to a call that had one
        _expect(session, run, "outcomes", run.outcomes, outcomes)
    return recorded


def _ended_well(chunk: Sequence[CallRow]) -> set[bytes | None]:
    """Calls with a value among these events, and no failure: that they were begun says nothing once that is known."""
    ended_well = {row.key for row in chunk if row.ok}
    return ended_well.difference([row.key for row in chunk if row.ok is False], (None,))


def _expect(session: VerifiedSession, run: RunRow, what: str, expected: int, found: int) -> None:
    if found != expected:
        raise damaged(session.place, f"run {run.run_id!r}", f"it should have {expected} {what}, and has {found}")
