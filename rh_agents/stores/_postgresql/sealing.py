"""From schema 2 to schema 3 of PostgreSQL: every row that is there gets its checksums.

A large journal is worked on in batches, each in a transaction of its own, as in SQLite files. The last transaction
keeps all writers out, does what has come in meanwhile, takes runs from their owners, and makes checksums obligatory: a
program of an older version that still writes gets an error, and stops.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg

from rh_agents.core.ports import Question
from rh_agents.stores._backend.rows import EventRow, RunsWanted
from rh_agents.stores._checksums import (
    amounts_checksum,
    cache_checksum,
    held_checksum,
    sealed,
    ticket_checksum,
)
from rh_agents.stores._postgresql.driver import Array
from rh_agents.stores._postgresql.rows import kept_entry, kept_run, outcome_row
from rh_agents.stores._progress import Progress
from rh_agents.stores._sql import Migration, read_queries, read_views, through
from rh_agents.stores._verified import (
    CHECKSUMS_OF_QUESTION,
    CHECKSUMS_OF_RUN,
    checksums_of_question,
    checksums_of_run,
)

CHECKSUMS: Final = 3
"""The version of the schema that has checksums."""
_BATCH = 2000
"""Events, with their outcomes."""


class Sealing:
    """Adds the columns and fills them, a batch at a time, inside transactions of the caller.

    Args:
        connection: the database.
        name: what it is called, for people.
        batch: how many events are done at a time.
        clock: seconds, from whenever, by which it says how far it is.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        name: str,
        batch: int = _BATCH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._name = name
        self._clock = clock
        self._progress: Progress | None = None
        queries, as_it_is = read_queries("postgresql"), {"run": read_views("postgresql", CHECKSUMS)["run"]}
        self._queries = {**queries, "runs": through(queries["runs"], as_it_is)}
        self._batch = batch
        self._place = (0, 0)
        self._has_columns = False

    def advance(self, step: Migration) -> bool:
        """Do a part; True if that was the last one."""
        if not self._has_columns:
            self._connection.execute(step.text.encode())
            self._has_columns = True
            return False
        if self._progress is None:
            ((count,),) = self._ask("count_unsealed")
            self._progress = Progress(self._name, "checksums", count, self._clock)
        if done := self._seal_events():
            self._progress.add(done)
            return False
        self._ask("lock_tables")
        self._place = (0, 0)
        while self._seal_events():
            pass
        self._seal_cached()
        self._seal_windows()
        self._seal_questions()
        self._seal_runs()
        self._connection.execute(self._queries["expect_checksums"].encode())
        return True

    def _ask(self, name: str, **arguments: Any) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(self._queries[name].encode(), arguments, binary=True)
        return cursor.fetchall() if cursor.description is not None else []

    def _seal_events(self) -> int:
        """The next events of one run without a checksum, and their outcomes; how many there were."""
        run, after = self._place
        rows = self._ask("unsealed_events", run=run, after=after, limit=self._batch)
        if not rows:
            return 0
        run = rows[0][0]
        events = [EventRow._make(row[1:]) for row in rows if row[0] == run]
        first, last = events[0].sequence, events[-1].sequence
        self._place = run, last
        wanted = {event.sequence for event in events}
        found = self._ask("outcomes_between", run=run, first=first, last=last)
        outcomes = [row for row in map(outcome_row, found) if row.sequence in wanted]
        of_events, of_outcomes = sealed(events, outcomes)
        self._ask(
            "seal_events",
            run=run,
            sequence=Array("int8", [event.sequence for event in events]),
            call_checksum=Array("int4", [of_call for of_call, _ in of_events]),
            checksum=Array("int4", [whole for _, whole in of_events]),
        )
        places = Array("int8", [row.sequence for row in outcomes])
        self._ask("seal_outcomes", run=run, sequence=places, checksum=Array("int4", of_outcomes))
        return len(events)

    def _seal_runs(self) -> None:
        for row in self._ask("runs", **RunsWanted(parts=True)._asdict()):
            run = kept_run(row).row
            if run.owner is not None:
                run = dataclasses.replace(run, owner=None, process=None, fence=run.fence + 1)
            checksums = dict(zip(CHECKSUMS_OF_RUN, checksums_of_run(run), strict=True))
            facts = {"number": run.number, "owner": run.owner, "process": run.process, "fence": run.fence}
            self._ask("seal_run", **facts, **checksums)

    def _seal_questions(self) -> None:
        for row in self._ask("questions", run_id=None, is_open=False):
            question = Question(*row[:-3])
            checksums = dict(zip(CHECKSUMS_OF_QUESTION, checksums_of_question(question), strict=True))
            self._ask("seal_question", run_id=question.run_id, id=question.id, **checksums)

    def _seal_cached(self) -> None:
        after = b""
        while rows := self._ask("cached", after=after, limit=self._batch):
            entries = [kept_entry(row).row for row in rows]
            checksums = Array("int4", [cache_checksum(entry) for entry in entries])
            self._ask("seal_cached", key=Array("bytea", [entry.key for entry in entries]), checksum=checksums)
            after = entries[-1].key

    def _seal_windows(self) -> None:
        for number, limited, taken_at, ends_at, amounts in self._ask("numbered_tickets"):
            checksum, of_amounts = ticket_checksum(limited, taken_at, ends_at), amounts_checksum(limited, amounts)
            self._ask("seal_ticket", number=number, checksum=checksum, amounts_checksum=of_amounts)
        for limited, until, _ in self._ask("all_holds"):
            self._ask("seal_hold", limited=limited, checksum=held_checksum(limited, until))
