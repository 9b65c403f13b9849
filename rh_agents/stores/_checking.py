"""Looking for damage: everything is read and verified, values and artifacts included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rh_agents.core.errors import StoreError
from rh_agents.core.ports.keeping import Erasure, erasure_of
from rh_agents.core.values import decode, decode_error, is_erased_value
from rh_agents.stores._backend import ReadSession
from rh_agents.stores._backend.rows import Kept, RunRow, RunsWanted, StoredOutcome
from rh_agents.stores._checksums import cache_checksum, call_checksum, event_checksum, input_checksum, outcome_checksum
from rh_agents.stores._ownership import is_dead
from rh_agents.stores._rows import read_artifact
from rh_agents.stores._verified import VerifiedSession, checksums_of_question, checksums_of_run, fits
from rh_agents.stores.artifacts import ArtifactStore

_CHUNK = 256
_RUNS = 1000
"""Runs that are read at a time."""

Read = Callable[[int, int, int], list[Kept[Any]]]


def check(reading: VerifiedSession, artifacts: ArtifactStore) -> list[str]:
    """A line for each finding, none if all is well. What cannot be read is a finding too."""
    findings: list[str] = []
    place = reading.place
    try:
        findings += reading.inner.findings()
        for what in _rows(reading, artifacts):
            findings.append(f"{place}: {what}")
    except Exception as error:  # noqa: BLE001 - a damaged database may do anything, and that is what is asked about
        findings.append(str(error) if isinstance(error, StoreError) else f"{place}: {type(error).__name__}: {error}")
    return list(dict.fromkeys(findings))


def _rows(reading: VerifiedSession, artifacts: ArtifactStore) -> Iterator[str]:
    session = reading.inner
    for kept in _all_runs(session):
        run = kept.row
        if not fits(checksums_of_run, kept):
            yield f"the row of run {run.run_id!r} is damaged"
            erasure = None
        else:
            erasure = erasure_of(run.info)
        if erasure is not None and not erasure.is_finished and (run.owner is None or is_dead(run)):
            yield f"run {run.run_id!r}: {erasure} and was cut off; `rh-agents erase {run.run_id} --values` finishes it"
        for what, read, checksum in (
            ("event {} of run {!r} is damaged", session.calls, call_checksum),
            ("event {} of run {!r} is damaged", session.events, event_checksum),
        ):
            for sequence, row in _journal(read, run.number):
                if row is None or not fits(checksum, row):
                    yield what.format(sequence, run.run_id)
        for sequence, row in _journal(session.outcomes, run.number):
            if row is None or not fits(outcome_checksum, row):
                yield f"the outcome of event {sequence} of run {run.run_id!r} is damaged"
            else:
                problems = _value(row.row, artifacts, erasure)
                yield from (f"event {sequence} of run {run.run_id!r}: {problem}" for problem in problems)
        for after in range(0, run.last_sequence, _CHUNK):
            for each in session.inputs(run.number, after, after + _CHUNK):
                if not fits(input_checksum, each):
                    yield f"the input of event {each.row.sequence} of run {run.run_id!r} is damaged"
    yield from _others(reading)


def _all_runs(session: ReadSession) -> Iterator[Kept[RunRow]]:
    wanted = RunsWanted(parts=True, limit=_RUNS)
    while rows := session.runs(wanted):
        yield from rows
        wanted = wanted._replace(behind=rows[-1].row.number)


def _journal(read: Read, number: int) -> Iterator[tuple[int, Kept[Any] | None]]:
    """All rows of a run's journal with their sequences; None for what cannot be read, after the sequence before it."""
    after = 0
    while True:
        try:
            found = read(number, after, _CHUNK)
        except Exception:  # noqa: BLE001 - whatever a driver makes of a damaged byte: it becomes a finding
            found = yield from _one_by_one(read, number, after)
        for kept in found:
            yield kept.row.sequence, kept
        if not found:
            return
        after = found[-1].row.sequence


def _one_by_one(read: Read, number: int, after: int) -> Any:
    """The same for a part of it, as far as it can be read."""
    rows: list[Kept[Any]] = []
    is_reported = False
    for sequence in range(after, after + _CHUNK):
        if rows and rows[-1].row.sequence > sequence:
            continue
        try:
            rows += read(number, sequence, 1)
        except Exception:  # noqa: BLE001 - as above
            if not is_reported:
                yield sequence + 1, None
            is_reported = True
        else:
            is_reported = False
    return rows


def _value(stored: StoredOutcome, artifacts: ArtifactStore, erasure: Erasure | None) -> Iterator[str]:
    """What is wrong with a value. A class that this program does not know is nothing wrong."""
    row = stored.row
    if erasure is not None and not erasure.is_finished:
        return  # its file may be gone already
    if is_erased_value(row.value) is not (erasure is not None):
        yield "its value is there, though those of the run were erased" if erasure else "its value was erased alone"
        return
    try:
        data = row.value if row.artifact is None else read_artifact(artifacts, row)
        if data is None:
            yield "it has no value"
        elif row.ok:
            decode(data, unknown_ok=True)
        else:
            decode_error(data)
    except StoreError as error:
        yield str(error)


def _others(reading: VerifiedSession) -> Iterator[str]:
    session = reading.inner
    for question in session.questions(None, False):
        if not fits(checksums_of_question, question):
            yield f"question {question.row.id!r} of run {question.row.run_id!r} is damaged"
    after = b""
    while entries := session.cached(after, _CHUNK):
        for entry in entries:
            if not fits(cache_checksum, entry):
                yield f"the cached result of {entry.row.actor!r} with the key {entry.row.key.hex()} is damaged"
        after = entries[-1].row.key
