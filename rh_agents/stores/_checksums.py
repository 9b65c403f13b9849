"""The checksum of every row: a damaged byte is an error, and never a value.

A disk may return other bytes than were written to it, and neither SQLite nor the file system has to notice. So each row
carries a CRC-32 of what it says, which is computed when it is written and compared whenever it is read. That is enough
against accidents; it is no protection against whoever changes rows on purpose.

What is covered is what a reader gets: the columns of the row as values of Python, and so the same on every database. A
sequence is covered, since a row in another place is as wrong as another row; the number of the run is not, so that a
copy of a run is the same journal. What is read together has one checksum, whatever tables it comes from:

- an *event* has two. `call_checksum` is of what the fold over a journal needs of it (for a failure, also what its
  outcome says about the execution that made it), so that opening a run of 100,000 calls need not read their texts.
  `checksum` is of all of its row.
- an *outcome* has one, which covers what its event says of it as well (name, address, seconds, attempts, group).
- an *input* has one of its own, so that who reads outcomes need not read what they came of.
- a *run* has one for each part that is written at once: what it is about, how it stands, who holds it, and its place in
  a queue, which is NULL where it has none. What every
  commit changes has none: `last_sequence` and `outcomes` are compared with what is there instead.
- a *question* and a *request* have one for what is asked and one for the answer, a *ticket* one for its times and one
  for its amounts.

A row may not be found at all because what it is looked up by is damaged, and then the run would begin anew. So runs and
questions can be found by the checksum of their name as well (`named`).

Numbers are signed, as both databases have them in four bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, Final
from zlib import crc32

from rh_agents.core.ports import CacheEntry, Question
from rh_agents.stores._backend.rows import (
    NOT_QUEUED,
    CallRow,
    EventRow,
    InputRow,
    OutcomeRow,
    Queued,
    RunRow,
    StoredOutcome,
)

_NONE: Final = "\0"
"""Stands for a text that is not there."""
_NOTHING: Final = -(1 << 62)
"""Stands for a number that is not there."""
_NAN: Final = float("nan")
_head = Struct("<qqb").pack
_made_in = Struct("<qqq").pack
_tail = Struct("<ddqq").pack
_outcome = Struct("<qbqqqqqd").pack


def _signed(checksum: int) -> int:
    return checksum - (1 << 32) if checksum & (1 << 31) else checksum


def _bytes_of(text: str) -> bytes:
    return text.encode() if text.isascii() else text.encode("utf-8", "surrogatepass")


# -- events and outcomes: many of them, so each with as few operations as possible ------------------------------------


def _event_head(
    sequence: int, attempt: int, ok: bool | None, key: bytes | None, status: str, group_id: str | None, more: str | None
) -> int:
    """The checksum of what both an event and its call have."""
    text = "\x1f".join((status, _NONE if group_id is None else group_id, _NONE if more is None else more))
    return crc32(_head(sequence, attempt, -1 if ok is None else ok) + (key or b"") + _bytes_of(text))


def _call(head: int, ok: bool | None, made_in: tuple[int, int, int], name: str | None, has_more: bool) -> int:
    """What the fold needs is the head alone, but for failures and for what was spent."""
    if ok is False:
        head = crc32(_made_in(*made_in), head)
    return crc32(_bytes_of(name or ""), head) if has_more else head


def _event_tail(head: int, row: EventRow) -> int:
    _, timestamp, _, kind, name, address, _, _, index, total, _, seconds, message, _, _ = row
    text = "\x1f".join((kind, name, address, _NONE if message is None else message))
    numbers = _tail(
        timestamp,
        _NAN if seconds is None else seconds,
        _NOTHING if index is None else index,
        _NOTHING if total is None else total,
    )
    return crc32(numbers + _bytes_of(text), head)


def call_checksum(row: CallRow) -> int:
    """Of what the fold reads of an event."""
    sequence, status, key, attempt, group_id, ok, name, more, epoch, tries, parent_attempt = row
    if more is None and ok is not False and key is not None:  # as nearly all are: the same in one step
        text = f"{status}\x1f{_NONE if group_id is None else group_id}\x1f{_NONE}"
        return _signed(crc32(_head(sequence, attempt, -1 if ok is None else ok) + key + _bytes_of(text)))
    head = _event_head(sequence, attempt, ok, key, status, group_id, more)
    made_in = (epoch, tries, parent_attempt) if ok is False else (0, 0, 0)
    return _signed(_call(head, ok, made_in, name, more is not None))  # type: ignore[arg-type]  # None is an error below


def event_checksum(row: EventRow) -> int:
    """Of an event."""
    sequence, _, status, _, _, _, key, group_id, _, _, attempt, _, _, ok, more = row
    return _signed(_event_tail(_event_head(sequence, attempt, ok, key, status, group_id, more), row))


def outcome_checksum(stored: StoredOutcome) -> int:
    """Of an outcome, with what its event says of it."""
    row, name, address, seconds, attempts, group_id = stored
    return _signed(_outcome_sum(row, name, address, seconds, attempts, group_id))


def _outcome_sum(
    row: OutcomeRow, name: str, address: str, seconds: float | None, attempts: int, group_id: str | None
) -> int:
    sequence, key, ok, base, parent, epoch, tries, parent_attempt, value, artifact, more, size, _ = row
    numbers = _outcome(
        sequence,
        ok,
        epoch,
        tries,
        parent_attempt,
        attempts,
        _NOTHING if size is None else size,
        _NAN if seconds is None else seconds,
    )
    text = "\x1f".join(
        (
            name,
            address,
            _NONE if group_id is None else group_id,
            _NONE if artifact is None else artifact,
            _NONE if more is None else more,
        )
    )
    checksum = crc32(b"\x1f".join((numbers, key, b"" if base is None else base, parent, _bytes_of(text))))
    return checksum if value is None else crc32(value, checksum)


def input_checksum(row: InputRow) -> int:
    """Of what a call was called with."""
    return input_sum(row.sequence, row.text)


def input_sum(sequence: int, text: str) -> int:
    """The same, of a row that is about to be written."""
    return _signed(crc32(_bytes_of(text), sequence & 0xFFFFFFFF))


def sealed(events: Sequence[EventRow], outcomes: Sequence[OutcomeRow]) -> tuple[list[tuple[int, int]], list[int]]:
    """The checksums of rows that are about to be written: two for each event, one for each outcome.

    Each outcome has the sequence of an event that is written with it, and both are in the same order.
    """
    of_events, of_outcomes = [], []
    waiting = iter(outcomes)
    outcome = next(waiting, None)
    for event in events:
        sequence, _, status, _, name, address, key, group_id, _, _, attempt, seconds, _, ok, more = event
        head = _event_head(sequence, attempt, ok, key, status, group_id, more)
        made_in = (0, 0, 0)
        if outcome is not None and outcome.sequence == sequence:
            of_outcomes.append(_signed(_outcome_sum(outcome, name, address, seconds, attempt, group_id)))
            made_in = (outcome.epoch, outcome.tries, outcome.parent_attempt)
            outcome = next(waiting, None)
        of_events.append((_signed(_call(head, ok, made_in, name, more is not None)), _signed(_event_tail(head, event))))
    return of_events, of_outcomes


# -- everything else: few of them --------------------------------------------------------------------------------------


def _checksum(*values: Any) -> int:
    return _signed(crc32(b"".join(_written(values))))


def _written(values: Sequence[Any]) -> Iterator[bytes]:
    """Each value with its length, so that no other values are written in the same way."""
    for value in values:
        if value is None:
            yield b"n"
            continue
        data = value if isinstance(value, bytes) else _bytes_of(value) if isinstance(value, str) else _number(value)
        yield b"%d:" % len(data)
        yield data


def _number(value: float) -> bytes:
    return b"%d" % value if isinstance(value, int) else repr(float(value)).encode()


def _maybe(number: float | None) -> float | None:
    """Clocks may give whole numbers, and databases give them back as floats."""
    return None if number is None else float(number)


def named(name: str) -> int:
    """The checksum by which a run or a question is found if its name is damaged."""
    return _checksum(name)


def run_checksum(run: RunRow) -> int:
    """Of what a run is about: what only its next opening changes."""
    return _checksum(
        run.run_id,
        run.epoch,
        run.workflow,
        run.input,
        run.input_digest,
        json.dumps(list(run.tags)),
        json.dumps(dict(run.facts), sort_keys=True),
        float(run.created_at),
        float(run.lease),
        run.forked_from,
    )


def status_checksum(status: str, reason: str | None, ended_at: float | None) -> int:
    """Of how a run stands."""
    return _checksum(status, reason, _maybe(ended_at))


def holder_checksum(owner: str | None, process: str | None, fence: int) -> int:
    """Of who holds a run."""
    return _checksum(owner, process, fence)


def queue_checksum(queued: Queued) -> int | None:
    """Of the place of a run in a queue; None if it is in none."""
    queue, flow, priority, ready_at, claims, parent = queued
    if queued == NOT_QUEUED:
        return None
    return _checksum(queue, flow, priority, _maybe(ready_at), claims, parent)


def question_checksum(question: Question) -> int:
    """Of what a run asks."""
    return _checksum(
        question.run_id, question.id, question.address, question.text, question.schema, float(question.asked_at)
    )


def answer_checksum(
    question_id: str, answer: bytes | None, answered_at: float | None, answered_by: str | None, problem: str | None
) -> int:
    """Of what became of a question."""
    return _checksum(question_id, answer, _maybe(answered_at), answered_by, problem)


def cache_checksum(entry: CacheEntry) -> int:
    """Of a result that equal calls share."""
    return _checksum(
        entry.key, entry.value, entry.actor, float(entry.created_at), _maybe(entry.expires_at), entry.run_id
    )


def ticket_checksum(limited: str, taken_at: float, ends_at: float) -> int:
    """Of when something was taken out of a window."""
    return _checksum(limited, float(taken_at), float(ends_at))


def amounts_checksum(limited: str, amounts: str) -> int:
    """Of how much was taken, as JSON text."""
    return _checksum(limited, amounts)


def held_checksum(limited: str, held_until: float) -> int:
    """Of when a window may be asked again."""
    return _checksum(limited, float(held_until))


def shared_checksum(name: str, state: str) -> int:
    """Of what processes share under a name, as JSON text."""
    return _checksum(name, state)


def present_checksum(at: float, facts: str) -> int:
    """Of what the owner of a run says of it now."""
    return _checksum(float(at), facts)


def request_checksum(
    request_id: str, verb: str, arguments: str, author: str | None, reason: str | None, asked_at: float
) -> int:
    """Of what somebody wants of whoever executes a run."""
    return _checksum(request_id, verb, arguments, author, reason, float(asked_at))


def applied_checksum(request_id: str, applied_at: float | None, answer: str | None) -> int:
    """Of what came of a request."""
    return _checksum(request_id, _maybe(applied_at), answer)


def piece_checksum(key: bytes, attempt: int, position: int, text: str, at: float) -> int:
    """Of a piece of text of a call that is under way."""
    return _checksum(key, attempt, position, text, float(at))


def watching_checksum(key: bytes, until: float) -> int:
    """Of how long somebody looks at a call."""
    return _checksum(key, float(until))
