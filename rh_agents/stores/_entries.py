"""Journals as their owners wrote them, for another journal that takes them over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from rh_agents.core.ports import JournalEntry
from rh_agents.stores._backend.rows import EventRow, StoredEvent, StoredOutcome
from rh_agents.stores._engine import Engine
from rh_agents.stores._erasing import read_or_erased
from rh_agents.stores._rows import fact_of, outcome_of
from rh_agents.stores._verified import VerifiedSession

__all__ = ["entries_of"]

_CHUNK = 256

_Rows = list[tuple[EventRow, StoredOutcome | None, str | None]]


async def entries_of(engine: Engine, run_id: str, after: int) -> AsyncIterator[JournalEntry]:
    """The entries of a run from after a place, as many as there are now.

    Raises:
        StoreError: there is no such run, or something in it is damaged or of an unknown class.
    """
    run = await engine.run(run_id)
    while True:
        rows = await engine.read(partial(_read, run.number, run_id, after))
        for event, outcome, given in rows:
            after = event.sequence
            yield _entry(engine, run_id, event, outcome, given)
        if len(rows) < _CHUNK:
            return


def _read(number: int, run_id: str, after: int, session: VerifiedSession) -> _Rows:
    events = session.events(number, run_id, after, _CHUNK)
    if not events:
        return []
    reporting = [event.sequence for event in events if event.ok is not None]
    first = reporting[0] - 1 if reporting else 0
    found = session.outcomes(number, run_id, first, len(reporting)) if reporting else ()
    outcomes = {each.sequence: each for each in found}
    for sequence in reporting:
        if sequence not in outcomes:
            raise session.missing(run_id, f"the outcome of event {sequence}")
    inputs = session.inputs_at(number, run_id, reporting)
    return [(event, outcomes.get(event.sequence), inputs.get(event.sequence)) for event in events]


def _entry(
    engine: Engine, run_id: str, event: EventRow, stored: StoredOutcome | None, given: str | None
) -> JournalEntry:
    try:
        fact = fact_of(StoredEvent(event, None), None, run_id)
        if stored is None:
            return JournalEntry(event.sequence, fact, None)
        outcome = outcome_of(stored, read_or_erased(engine, run_id, stored.row))
    except Exception as error:
        raise engine.unreadable(run_id, event.sequence, error) from error
    return JournalEntry(event.sequence, fact, outcome._replace(input=given))
