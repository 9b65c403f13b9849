"""Erasing the values of a run: the one change that is ever made to what a journal says.

A journal is only added to, so that whatever was acknowledged stays. Who has to forget what a run was about (a person
asked for it, a contract ended) still wants to know how many calls there were, how long they took and what they cost.
So each row is replaced by the same row without its contents, with checksums that fit: `check` tells what was erased
from what is damaged. A process may be killed at any moment of that, and others may read meanwhile. So it goes like
this, while the run is held as by an owner:

1. All rows are verified. One that is damaged stops it here: replaced by one that fits its checksums, it would look as
   if nothing had been wrong. Then results in the cache that a call of the run had come to as well are deleted. They
   are found by their values, so this comes first, while those are there.
2. The row of the run gets a fact that says that its values are being erased, and loses its input, its command and all
   that stands beside its journal. From then on nobody can resume or copy it, so nothing reads a value to go on with it.
3. A part at a time, large results are deleted that no other run uses, and then the rows that name them are replaced. A
   process that is killed in between leaves rows that name a file that is gone; the next one replaces them.
4. The database removes earlier versions of rows from its files.
5. The fact says that all is done. Without it, `check` and `show` say what is left to do, and doing it again does that.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from hashlib import sha256
from typing import Any, Final

from rh_agents.core.errors import StoreError
from rh_agents.core.ports.keeping import ErasedRun, facts_when_erased, kind_of_error
from rh_agents.core.types import EventType
from rh_agents.core.values import ERASED, erased_value
from rh_agents.stores._backend.rows import Batch, EventRow, OutcomeRow, RunRow, RunsWanted
from rh_agents.stores._engine import Engine
from rh_agents.stores._ownership import is_held, taken
from rh_agents.stores._parts import Steps, parts
from rh_agents.stores._rows import read_artifact
from rh_agents.stores._verified import VerifiedSession, reported
from rh_agents.stores.artifacts import ArtifactStore

_CHUNK: Final = 256
_SETTLED: Final = 60.0
"""Seconds. A row that names a large result can be seen by then, since it is written right after that."""
_CONTROL: Final = EventType.CONTROL.value
"""Requests that were refused. Their messages are reasons of people."""
_FAILED: Final = frozenset({"failed", "retrying", "cancelled"})


# -- what is left of a row ---------------------------------------------------------------------------------------------


def without_contents(event: EventRow, outcome: OutcomeRow | None) -> tuple[EventRow, OutcomeRow | None]:
    """The rows of an event and its outcome as they are when they are erased."""
    kind = _kind_of(event)
    left = event._replace(message=kind or None, more=_more_without_contents(event.more))
    if outcome is None:
        return left, None
    value = ERASED if outcome.ok else erased_value(kind or "Exception")
    return left, outcome._replace(value=value, artifact=None, size=None, input=None)


def _kind_of(event: EventRow) -> str:
    """The name of the class of the error that an event tells of; "" if it tells of none."""
    has_failed = event.ok is False or (event.status in _FAILED and event.event_type != _CONTROL)
    return kind_of_error(event.message or "") if has_failed else ""


def _more_without_contents(more: str | None) -> str | None:
    """The same but what the program itself has put there, and texts of errors."""
    if more is None:
        return None
    facts: dict[str, Any] = json.loads(more)
    facts.pop("metadata", None)
    ending = (facts.get("group") or {}).get("ending")
    if ending is not None:
        ending["message"] = None
    return json.dumps(facts) if facts else None


# -- a whole run -------------------------------------------------------------------------------------------------------


async def erase(engine: Engine, run: RunRow) -> ErasedRun:
    """Erase the values of a run that we hold.

    Raises:
        StoreError: a row is damaged, or somebody else has taken the run over, or it cannot be done now.
    """
    await engine.read(lambda session: _expect_whole(session, run))
    now = time.time()
    others = await engine.read(lambda session: _others(session, run, engine.clock()))
    before = now - _SETTLED if others else now
    if others:
        await _expect_settled(engine, run, before)
    cached = await _delete_cached(engine, run)
    marked = _as_erased(run, engine.clock(), is_finished=False)
    await _strip(engine, marked)
    own = await engine.read_in_steps(_own_artifacts(run))
    values = freed = 0
    after = 0
    while after < run.last_sequence:
        events, outcomes, after = await engine.read(partial(_next_rows, run, after))
        digests = {each.artifact for each in outcomes.values() if each.artifact in own}
        freed += await engine.in_thread(_delete_artifacts, engine, digests, before)
        values += await _rewrite(engine, run, events, outcomes)
    left = await engine.writer.done(lambda session: session.forget_old_versions(is_in_use=others))
    left = left or await _not_deleted(engine, own)
    await _strip(engine, _as_erased(marked, engine.clock(), is_finished=True))
    return ErasedRun(values, len(own), freed, cached, left)


def _as_erased(run: RunRow, now: float, *, is_finished: bool) -> RunRow:
    facts = facts_when_erased(run.facts, now, is_finished=is_finished)
    return dataclasses.replace(run, facts=facts, input=None, reason=None)


async def _strip(engine: Engine, run: RunRow) -> None:
    if not await engine.writer.done(lambda session: session.strip(run)):
        raise taken(run)


def _expect_whole(session: VerifiedSession, run: RunRow) -> None:
    """See to it that every row is as it was written.

    Raises:
        StoreError: one is not, or is missing.
    """
    after = 0
    while after < run.last_sequence:
        _, _, after = _next_rows(run, after, session)


def _others(session: VerifiedSession, run: RunRow, now: float) -> bool:
    """Whether other runs are being executed."""
    return any(
        is_held(each, now) for each in session.runs(RunsWanted(parts=True, owned=True)) if each.number != run.number
    )


async def _expect_settled(engine: Engine, run: RunRow, before: float) -> None:
    """Refuse to begin while another run may be about to use a large result of this one.

    Raises:
        StoreError: one was written less than a minute ago, and other runs are being executed.
    """
    own = await engine.read_in_steps(_own_artifacts(run))
    has_newer = bool(own) and await engine.in_thread(_has_newer, engine.artifacts, own.keys(), before)
    if has_newer:
        raise StoreError(
            f"run {run.run_id!r} has large results that were written less than a minute ago, and other runs are being "
            "executed that may be about to use the same ones: erase its values in a minute"
        )


def _own_artifacts(run: RunRow) -> Steps[dict[str, int]]:
    """The large results that no other run uses, with their bytes."""
    own = dict[str, int]()
    for low, high in parts(0, run.last_sequence):
        session = yield
        own |= session.inner.own_artifacts(run.number, low, high)
    return own


def _has_newer(artifacts: ArtifactStore, digests: Collection[str], before: float) -> bool:
    return any(each.digest in digests and each.put_at > before for each in artifacts.digests())


async def _not_deleted(engine: Engine, own: Collection[str]) -> str:
    """What is to be said if large results are there all the same, and no run uses them; "" if none is."""
    if not own:
        return ""
    there = await engine.in_thread(lambda: [each.digest for each in engine.artifacts.digests() if each.digest in own])
    used = await engine.read(lambda session: session.used_artifacts(there))
    count = len(set(there) - used)
    return f"{count} large results were written again meanwhile: `rh-agents gc` deletes what no run uses" * bool(count)


def _delete_artifacts(engine: Engine, digests: Collection[str], before: float) -> int:
    return sum(engine.artifacts.delete(digest, put_before=before) for digest in digests)


# -- the cache ---------------------------------------------------------------------------------------------------------


async def _delete_cached(engine: Engine, run: RunRow) -> int:
    """Delete results that the cache has in common with the run; how many there were."""
    keys = await engine.read(lambda session: _cached_in_common(session, run))
    if keys:
        await engine.writer.done(lambda session: session.delete_cached(keys))
    return len(keys)


def _cached_in_common(session: VerifiedSession, run: RunRow) -> list[bytes]:
    if not session.inner.cached(b"", 1):
        return []
    digests = set(_digests(session, run))
    keys, after = [], b""
    while entries := session.inner.cached(after, _CHUNK):
        keys += [entry.row.key for entry in entries if sha256(entry.row.value).digest() in digests]
        after = entries[-1].row.key
    return keys


def _digests(session: VerifiedSession, run: RunRow) -> Iterator[bytes]:
    """SHA-256 of what the calls of a run returned."""
    after = 0
    while found := session.outcomes(run.number, run.run_id, after, _CHUNK):
        for stored in found:
            row = stored.row
            if row.ok and row.value != ERASED:
                yield bytes.fromhex(row.artifact) if row.artifact else sha256(row.value or b"").digest()
        after = found[-1].sequence


# -- rows --------------------------------------------------------------------------------------------------------------


def _next_rows(run: RunRow, after: int, session: VerifiedSession) -> tuple[list[EventRow], dict[int, OutcomeRow], int]:
    """The next events of a run with their outcomes, and the sequence of the last one."""
    rows = session.events(run.number, run.run_id, after, _CHUNK)
    if not rows:
        raise session.missing(run.run_id, f"event {after + 1}")
    last = rows[-1].sequence
    inputs = session.inputs(run.number, run.run_id, after, last)
    found = reported(session, run.number, run.run_id, rows)
    outcomes = {sequence: row._replace(input=inputs.get(sequence)) for sequence, row in found.items()}
    return rows, outcomes, last


async def _rewrite(engine: Engine, run: RunRow, events: list[EventRow], outcomes: Mapping[int, OutcomeRow]) -> int:
    """Replace those that have contents; how many values there were."""
    pairs = [(event, outcomes.get(event.sequence)) for event in events]
    changed = [left for pair in pairs if (left := without_contents(*pair)) != pair]
    if not changed:
        return 0
    its = [outcome for _, outcome in changed if outcome is not None]
    batch = Batch(run.number, run.fence, run.last_sequence, [event for event, _ in changed], its)
    if not await engine.writer.done(lambda session: session.rewrite(batch)):
        raise taken(run)
    return len(its)


def read_or_erased(engine: Engine, run_id: str, row: OutcomeRow) -> bytes | None:
    """The value of an outcome from wherever it is; `ERASED` if it was erased since the row was read.

    Raises:
        StoreError: it is missing or damaged.
    """
    if row.artifact is None:
        return row.value
    try:
        return read_artifact(engine.artifacts, row)
    except StoreError:
        if not engine.is_erased(run_id):
            raise
        return ERASED if row.ok else erased_value("Exception")
