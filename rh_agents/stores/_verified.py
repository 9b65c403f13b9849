"""The one place where what was read becomes what is believed: rows whose checksums fit, without a gap."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from struct import error as StructError
from typing import Any, Generic, TypeVar

from rh_agents.core._replay.recorded import KeyTable
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import CacheEntry, Question
from rh_agents.core.ports.control import ControlRequest
from rh_agents.core.redaction import logger
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._asking import request_of
from rh_agents.stores._backend import ReadSession
from rh_agents.stores._backend.beside import PieceRow, PresentRow
from rh_agents.stores._backend.rows import (
    CallRow,
    ChildRow,
    EventRow,
    HeldRow,
    InputRow,
    Kept,
    OutcomeRow,
    RunRow,
    RunsWanted,
    StoredEvent,
    StoredOutcome,
)
from rh_agents.stores._checksums import (
    answer_checksum,
    cache_checksum,
    call_checksum,
    event_checksum,
    holder_checksum,
    input_checksum,
    named,
    outcome_checksum,
    piece_checksum,
    present_checksum,
    question_checksum,
    queue_checksum,
    run_checksum,
    status_checksum,
)

_LOG = logger("rh_agents.stores")

_RECOVERED = ExecutionStatus.RECOVERED.value
_PLACES_AT_ONCE = 8192
"""Events."""

R = TypeVar("R", CallRow, EventRow, StoredOutcome)

_MOST_DAMAGED = 8
REMEDY = "`rh-agents check` names all that is damaged; put the database back from a backup"


def damaged(place: str, what: str, why: object = "its checksum does not fit") -> StoreError:
    """The error that says what is damaged, and what to do."""
    reason = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else str(why)
    return StoreError(f"{place}: {what} is damaged: {reason}; {REMEDY}")


CHECKSUMS_OF_RUN = ("name_checksum", "checksum", "status_checksum", "holder_checksum", "queue_checksum")
CHECKSUMS_OF_QUESTION = ("name_checksum", "checksum", "answer_checksum")
"""The columns in which they are."""


def checksums_of_run(row: RunRow) -> tuple[int, int, int, int, int | None]:
    return (
        named(row.run_id),
        run_checksum(row),
        status_checksum(row.status, row.reason, row.ended_at),
        holder_checksum(row.owner, row.process, row.fence),
        queue_checksum(row.queued),
    )


def checksums_of_question(question: Question) -> tuple[int, int, int]:
    its = question
    of_answer = answer_checksum(its.id, its.answer, its.answered_at, its.answered_by, its.problem)
    return named(its.id), question_checksum(its), of_answer


def fits(checksum: Callable[[Any], Any], kept: Kept[Any]) -> bool:
    """Whether a row is as it was written. What has no checksum, or cannot have one, is not."""
    try:
        return bool(checksum(kept.row) == kept.checksum)
    except (ArithmeticError, AttributeError, TypeError, ValueError, StructError):
        return False  # a damaged byte may put a value of any type into any column


def undamaged(rows: Callable[[int], list[Kept[RunRow]]], place: str) -> RunRow | None:
    """The first run that is as it was written: a damaged row keeps no worker from those that come behind it.

    Args:
        rows: the row that comes behind so many others, if there is one.
        place: the database, for people.

    Raises:
        StoreError: the first few are all damaged.
    """
    name = ""
    for offset in range(_MOST_DAMAGED):
        found = rows(offset)
        if not found:
            break
        if fits(checksums_of_run, found[0]):
            return found[0].row
        name = name or found[0].row.run_id
    if name:
        raise damaged(place, f"the row of run {name!r}")
    return None


def _is_run(row: RunRow) -> bool:
    """Whether a row says what one of a run does, where no checksum tells: in an earlier version, or in the columns that
    each batch changes.
    """
    numbers: list[Any] = [row.updated_at, row.heartbeat_at, row.outcomes, row.last_sequence]
    tags: Any = row.tags
    facts: Any = row.facts
    return (
        all(isinstance(number, int | float) for number in numbers)
        and isinstance(tags, tuple)
        and isinstance(facts, dict)
        and row.status in ExecutionStatus.__members__.values()
    )


@dataclass(frozen=True, slots=True)
class _Span(Generic[R]):
    """Rows of one run that are read together: at most `limit` from after a sequence.

    Attributes:
        read: reads rows of the run with this number, from after a sequence, at most so many.
        checksum: what a row must have.
    """

    read: Callable[[int, int, int], list[Kept[R]]]
    checksum: Callable[[R], int]
    number: int
    run_id: str
    after: int
    limit: int

    def rows(self, place: str) -> list[R]:
        """The rows, if each has its checksum.

        Raises:
            StoreError: it names the database (`place`), and the first row that is damaged.
        """
        try:
            found = self.read(self.number, self.after, self.limit)
            rows = [row for row, kept in found if self.checksum(row) == kept]
            if len(rows) == len(found):
                return rows
        except StoreError:
            raise
        except Exception as error:
            raise self._damage(place, error) from error
        raise self._damage(place, None)

    def _damage(self, place: str, error: Exception | None) -> StoreError:
        """The error that names the row, found by reading one at a time what could not be read at once."""
        after = self.after
        for _ in range(self.limit):
            try:
                found = self.read(self.number, after, 1)
            except Exception as its:  # noqa: BLE001 - whatever a driver makes of a damaged byte: the caller raises it
                return damaged(place, f"event {after + 1} of run {self.run_id!r}, or its outcome,", its)
            if not found:
                break
            after = found[0].row.sequence
            if not fits(self.checksum, found[0]):
                return damaged(place, f"event {after} of run {self.run_id!r}, or its outcome,")
        return damaged(place, f"the journal of run {self.run_id!r}", error or "its rows do not fit their checksums")


class VerifiedSession:
    """A session that does what `ReadSession` says, and gives rows only if they are as they were written.

    Args:
        inner: the session of the database.
        place: the database, for people.

    Every method raises `StoreError`, naming the run and the row, when a row is damaged or missing.
    """

    def __init__(self, inner: ReadSession, place: str) -> None:
        self.inner: ReadSession = inner
        self.place: str = place

    # -- runs ---------------------------------------------------------------------------------------------------------

    def look_at_queue(self, queue: str, now: float, without: Sequence[str]) -> tuple[Sequence[str], Sequence[HeldRow]]:
        return self.inner.look_at_queue(queue, now, without)

    def queue_has_news(self) -> bool:
        return self.inner.queue_has_news()

    def find_run(self, run_id: str) -> RunRow | None:
        found = None
        for kept in self.inner.find_run(run_id, named(run_id)):
            if not fits(checksums_of_run, kept):
                raise damaged(self.place, f"the row of run {run_id!r}")
            if kept.row.run_id == run_id:
                found = kept.row
        return found

    def runs(self, wanted: RunsWanted) -> list[RunRow]:
        found = self.inner.runs(wanted)
        for kept in found:
            if not fits(checksums_of_run, kept):
                raise damaged(self.place, f"the row of run {kept.row.run_id!r}")
        return [kept.row for kept in found]

    def listed(self, wanted: RunsWanted) -> list[tuple[RunRow, StoreError | None]]:
        """The same, each with what is wrong with its row: of one that is damaged nothing can be believed."""
        return [(kept.row, self._damage_of(kept)) for kept in self.inner.runs(wanted)]

    def _damage_of(self, kept: Kept[RunRow]) -> StoreError | None:
        is_whole = fits(checksums_of_run, kept) and _is_run(kept.row)
        return None if is_whole else damaged(self.place, f"the row of run {kept.row.run_id!r}")

    def children(self, number: int) -> list[ChildRow]:
        return self.inner.children(number)

    def number_of(self, run_id: str) -> int | None:
        """The number of the run of this name, even if its row is damaged: only for its place in a list."""
        try:
            rows = self.inner.find_run(run_id, named(run_id))
        except UnicodeDecodeError:  # not even read by itself
            rows = self.inner.runs(RunsWanted())
        return next((kept.row.number for kept in rows if kept.row.run_id == run_id), None)

    def present(self, number: int, run_id: str) -> PresentRow | None:
        """What was said last that a run is doing; None if nothing was."""
        found = self.inner.present(number)
        if found is None:
            return None
        at, facts, checksum = found
        try:
            if present_checksum(at, facts) == checksum:
                return PresentRow(number, json.loads(facts)["fence"], at, facts)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise damaged(self.place, f"what run {run_id!r} was last doing", error) from error
        raise damaged(self.place, f"what run {run_id!r} was last doing")

    def pieces(self, number: int, key: bytes | None, after: float) -> list[PieceRow]:
        """Text of calls under way; what is damaged is left out, so that readers see a gap there. It is soon gone."""
        found = self.inner.pieces(number, key, after)
        return [kept.row for kept in found if fits(lambda row: piece_checksum(*row), kept)]

    def watched_until(self, number: int, key: bytes) -> float:
        """Until when somebody looks at a call, as was said last."""
        return self.inner.watched_until(number, key)

    def requests(self, number: int, run_id: str, is_open: bool | None) -> list[ControlRequest]:
        """The requests to a run, oldest first."""
        return [request_of(row, run_id, self.place) for row in self.inner.requests(number, is_open)]

    def requests_for_owner(self, number: int, run_id: str) -> list[ControlRequest]:
        """Those that are open, oldest first, but for those that cannot be read.

        Nobody can say what was asked there, and that is no reason not to execute the run, or not to do what was asked
        besides. They stay open, and `check` finds what is damaged.
        """
        found = []
        for row in self.inner.requests(number, True):
            try:
                found.append(request_of(row, run_id, self.place))
            except StoreError as error:
                _LOG.warning("%s. It is left open, and nothing is done for it", error)
        return found

    # -- journals -----------------------------------------------------------------------------------------------------

    def calls(self, number: int, run_id: str, after: int, limit: int) -> list[CallRow]:
        """What the fold needs of events, in their order from after a sequence; fewer than `limit` if these are all."""
        rows = _Span(self.inner.calls, call_checksum, number, run_id, after, limit).rows(self.place)
        self._expect_no_gap([row.sequence for row in rows], run_id, after)
        return rows

    def events(self, number: int, run_id: str, after: int, limit: int) -> list[EventRow]:
        """Events in their order from after a sequence, at most `limit`."""
        rows = _Span(self.inner.events, event_checksum, number, run_id, after, limit).rows(self.place)
        self._expect_no_gap([row.sequence for row in rows], run_id, after)
        return rows

    def outcomes(self, number: int, run_id: str, after: int, limit: int) -> list[StoredOutcome]:
        return _Span(self.inner.outcomes, outcome_checksum, number, run_id, after, limit).rows(self.place)

    def outcome(self, number: int, run_id: str, sequence: int) -> StoredOutcome:
        found = self.outcomes(number, run_id, sequence - 1, 1)
        if not found or found[0].row.sequence != sequence:
            raise self.missing(run_id, f"the outcome of event {sequence}")
        return found[0]

    def events_at(self, number: int, run_id: str, sequences: Sequence[int]) -> list[EventRow]:
        """The events with these sequences, in their order."""
        found = self.inner.events_at(number, sequences)
        rows = self._fitting(event_checksum, found, run_id)
        for sequence in set(sequences).difference([row.sequence for row in rows]):
            raise self.missing(run_id, f"event {sequence}")
        return rows

    def outcomes_at(self, number: int, run_id: str, sequences: Sequence[int]) -> list[StoredOutcome]:
        """The outcomes with these sequences, in their order."""
        return self._fitting(outcome_checksum, self.inner.outcomes_at(number, sequences), run_id)

    def _fitting(self, checksum: Callable[[R], int], found: Sequence[Kept[R]], run_id: str) -> list[R]:
        for kept in found:
            if not fits(checksum, kept):
                raise damaged(self.place, f"event {kept.row.sequence} of run {run_id!r}, or its outcome,")
        return [kept.row for kept in found]

    def inputs(self, number: int, run_id: str, after: int, until: int) -> dict[int, str]:
        """What calls were called with, by the sequences of their outcomes, as far as that was recorded."""
        return self._inputs(self.inner.inputs(number, after, until), run_id)

    def inputs_at(self, number: int, run_id: str, sequences: Sequence[int]) -> dict[int, str]:
        """The same, of the outcomes with these sequences."""
        return self._inputs(self.inner.inputs_at(number, sequences), run_id) if sequences else {}

    def _inputs(self, found: Sequence[Kept[InputRow]], run_id: str) -> dict[int, str]:
        for kept in found:
            if not fits(input_checksum, kept):
                raise damaged(self.place, f"the input of event {kept.row.sequence} of run {run_id!r}")
        return {kept.row.sequence: kept.row.text for kept in found}

    def _expect_no_gap(self, sequences: Sequence[int], run_id: str, after: int) -> None:
        expected = range(after + 1, after + 1 + len(sequences))
        for found, sequence in zip(sequences, expected, strict=True):
            if found != sequence:
                raise self.missing(run_id, f"event {sequence}")

    def missing(self, run_id: str, what: str) -> StoreError:
        """The error that says that a row is not there."""
        return StoreError(f"{self.place}: {what} of run {run_id!r} is missing; {REMEDY}")

    # -- people, and what runs share ----------------------------------------------------------------------------------

    def question(self, number: int, run_id: str, question_id: str) -> Question | None:
        found = None
        for kept in self.inner.find_question(number, question_id, named(question_id)):
            if not fits(checksums_of_question, kept):
                raise damaged(self.place, f"question {question_id!r} of run {run_id!r}")
            if (kept.row.run_id, kept.row.id) == (run_id, question_id):
                found = kept.row
        return found

    def questions(self, run_id: str | None, is_open: bool) -> list[Question]:
        found = self.inner.questions(run_id, is_open)
        for kept in found:
            if not fits(checksums_of_question, kept):
                raise damaged(self.place, f"question {kept.row.id!r} of run {kept.row.run_id!r}")
        return [kept.row for kept in found]

    def find_cached(self, key: bytes, now: float) -> CacheEntry | None:
        kept = self.inner.find_cached(key, now)
        if kept is None:
            return None
        if not fits(cache_checksum, kept) or kept.row.key != key:
            raise damaged(self.place, f"the cached result of {kept.row.actor!r} with the key {key.hex()}")
        return kept.row

    # -- the rest -----------------------------------------------------------------------------------------------------

    def used_artifacts(self, digests: Collection[str]) -> set[str]:
        return self.inner.used_artifacts(digests)

    def has_changed(self) -> bool:
        return self.inner.has_changed()

    def close(self) -> None:
        self.inner.close()


class OutcomePlaces:
    """Where the outcomes of a run stand, by key: of each the first one. Read as far as somebody asks for.

    Args:
        number, run_id: the run.
    """

    def __init__(self, number: int, run_id: str) -> None:
        self.number: int = number
        self.run_id: str = run_id
        self._first = KeyTable()
        self._read = 0

    def of(self, session: VerifiedSession, key: bytes, before: int) -> int | None:
        """The sequence of a key's outcome among the events before a sequence; None if it has none there."""
        while self._read < before - 1:
            chunk = session.calls(self.number, self.run_id, self._read, _PLACES_AT_ONCE)
            if not chunk:
                break
            for row in chunk:
                if row.ok is not None and row.key is not None:
                    self._first.add(row.key, row.sequence)
            self._read = chunk[-1].sequence
        return self._first.get(key)


def reported(session: VerifiedSession, number: int, run_id: str, rows: Sequence[EventRow]) -> dict[int, OutcomeRow]:
    """The outcomes that events report which follow each other, by their sequences.

    Raises:
        StoreError: one is damaged or missing.
    """
    reporting = [row.sequence for row in rows if row.ok is not None]
    if not reporting:
        return {}
    its = session.outcomes(number, run_id, reporting[0] - 1, len(reporting))
    found = {stored.row.sequence: stored.row for stored in its}
    for sequence in reporting:
        if sequence not in found:
            raise session.missing(run_id, f"the outcome of event {sequence}")
    return found


def with_outcomes(session: VerifiedSession, places: OutcomePlaces, rows: Sequence[EventRow]) -> list[StoredEvent]:
    """Events with the outcomes that they report; those of recovered calls are elsewhere in the journal.

    Raises:
        StoreError: an outcome is damaged or missing.
    """
    return _paired(session, places, rows, reported(session, places.number, places.run_id, rows))


def _paired(
    session: VerifiedSession, places: OutcomePlaces, rows: Sequence[EventRow], found: dict[int, OutcomeRow]
) -> list[StoredEvent]:
    for row in rows:
        if row.status == _RECOVERED and row.key is not None:
            sequence = places.of(session, row.key, row.sequence)
            if sequence is not None:
                found[row.sequence] = session.outcome(places.number, places.run_id, sequence).row
    return [StoredEvent(row, found.get(row.sequence)) for row in rows]


def with_outcomes_at(
    session: VerifiedSession, places: OutcomePlaces, sequences: Sequence[int]
) -> list[tuple[StoredEvent, StoredOutcome | None]]:
    """The events with these sequences, as `with_outcomes` gives them, and the outcomes that they report themselves.

    Raises:
        StoreError: an event or an outcome is damaged or missing.
    """
    number, run_id = places.number, places.run_id
    rows = session.events_at(number, run_id, sequences)
    reporting = [row.sequence for row in rows if row.ok is not None]
    its = {each.sequence: each for each in (session.outcomes_at(number, run_id, reporting) if reporting else ())}
    for sequence in reporting:
        if sequence not in its:
            raise session.missing(run_id, f"the outcome of event {sequence}")
    pairs = _paired(session, places, rows, {sequence: each.row for sequence, each in its.items()})
    return [(stored, its.get(stored.row.sequence)) for stored in pairs]
