"""A judge of databases. It knows nothing of the library but its tables, and trusts none of their constraints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

__all__ = [
    "Tables",
    "findings",
    "read_postgresql",
    "read_sqlite",
    "text_in_postgresql",
    "text_in_sqlite",
]

# run: number, run_id, last_sequence, outcomes, owner, ended_at; event: run, sequence, key, ok;
# outcome: the same of those that have a value. In SQLite a place is run * 2^40 + sequence.
_SQLITE = (
    "SELECT number, run_id, last_sequence, outcomes, owner, ended_at FROM run NOT INDEXED",
    "SELECT place >> 40, place & 0xFFFFFFFFFF, key, ok FROM journal NOT INDEXED ORDER BY place",
    "SELECT place >> 40, place & 0xFFFFFFFFFF, key, ok FROM journal NOT INDEXED "
    "WHERE coalesce(value, artifact) IS NOT NULL ORDER BY place",
)
_POSTGRESQL = (
    "SELECT number, run_id, last_sequence, outcomes, owner, ended_at FROM run",
    "SELECT run, sequence, key, ok FROM journal ORDER BY run, sequence",
    "SELECT run, sequence, key, ok FROM journal WHERE num_nonnulls(value, artifact) > 0 ORDER BY run, sequence",
)
_TEXT = "SELECT count(*), count(*) FILTER (WHERE key IN (SELECT key FROM journal WHERE ok IS NOT NULL)) FROM streaming"
Row = Sequence[Any]


@dataclass(frozen=True)
class Tables:
    """What is in a database, and what its own check finds."""

    runs: Sequence[Row]
    events: Sequence[Row]
    outcomes: Sequence[Row]
    damage: Sequence[str] = ()


def read_sqlite(path: str) -> Tables:
    """The tables of a SQLite database of runs."""
    connection = apsw.Connection(path)
    try:
        damage = [f"integrity: {line}" for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
        dangling = connection.execute("PRAGMA foreign_key_check")
        damage += [f"row {row} of {table} refers to nothing" for table, row, *_ in dangling]
        runs, events, outcomes = (list(connection.execute(query)) for query in _SQLITE)
        return Tables(runs, events, outcomes, damage)
    finally:
        connection.close()


def read_postgresql(connection: Any) -> Tables:
    """The same through a psycopg connection whose search path leads to the tables."""
    runs, events, outcomes = (connection.execute(query).fetchall() for query in _POSTGRESQL)
    return Tables(runs, events, outcomes)


def text_in_sqlite(path: str) -> tuple[int, int]:
    """How many rows of text there are of calls under way, and how many of calls that have an outcome."""
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.CantOpenError:
        return 0, 0
    try:
        connection.set_busy_timeout(10_000)
        ((rows, of_ended),) = connection.execute(_TEXT)
        return int(rows), int(of_ended)
    except apsw.SQLError:  # there are no tables yet
        return 0, 0
    finally:
        connection.close()


def text_in_postgresql(connection: Any) -> tuple[int, int]:
    """The same."""
    rows, of_ended = connection.execute(_TEXT).fetchone()
    return int(rows), int(of_ended)


def findings(tables: Tables) -> list[str]:
    """What is wrong with runs that have been executed to their end."""
    return [*tables.damage, *_gaps(tables), *_outcomes(tables), *_unfinished(tables)]


def _gaps(tables: Tables) -> Iterator[str]:
    """Every run has the events 1, 2, 3, ... up to its last one."""
    for number, _, last, *_ in tables.runs:
        sequence = [row[1] for row in tables.events if row[0] == number]
        if sequence != list(range(1, last + 1)):
            yield f"run {number} has {len(sequence)} events, and its last one should be {last}"


def _outcomes(tables: Tables) -> Iterator[str]:
    """At most one for each key, and each with the event that tells of it."""
    told = {(run, sequence, bytes(key), bool(ok)) for run, sequence, key, ok in tables.events if ok is not None}
    there = {(run, sequence, bytes(key), bool(ok)) for run, sequence, key, ok in tables.outcomes}
    yield from (f"run {run} has an outcome without its event, at {place}" for run, place, *_ in sorted(there - told))
    yield from (f"run {run} has an event without its outcome, at {place}" for run, place, *_ in sorted(told - there))
    for (run, key), count in Counter((run, bytes(key)) for run, _, key, _ in tables.outcomes).items():
        if count > 1:
            yield f"run {run} has {count} outcomes for {key.hex()}"
    counts = Counter(row[0] for row in tables.outcomes)
    for number, _, _, count, *_ in tables.runs:
        if count != counts[number]:
            yield f"run {number} has {counts[number]} outcomes, and its row says {count}"


def _unfinished(tables: Tables) -> Iterator[str]:
    for _, name, _, _, owner, ended_at in tables.runs:
        if ended_at is None:
            yield f"{name} has not ended"
        if owner is not None:
            yield f"{name} has ended and still has an owner"
