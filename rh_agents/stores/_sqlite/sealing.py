"""From schema 2 to schema 3 of SQLite files: every row that is there gets its checksums.

A large journal is worked on in batches, each in a transaction of its own. A row without a checksum is work to be done,
so a process that is killed in between, or does this at the same time as another one, goes on where that stands. Until
the end the file has the old version, so a program of an older version may open it and add rows: then the next batch is
refused, since a run is being executed, and this goes on when it has ended. In the last transaction, together with the
new version, runs lose their owners, who are there no more: one that is all the same can write no more (it knows of no
checksums), and stops with `LeaseLost`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Final

import apsw

from rh_agents.stores._backend.rows import EventRow, OutcomeRow, RunsWanted
from rh_agents.stores._checksums import (
    amounts_checksum,
    cache_checksum,
    held_checksum,
    sealed,
    ticket_checksum,
)
from rh_agents.stores._progress import Progress
from rh_agents.stores._sql import read_queries, read_views, through
from rh_agents.stores._sqlite.rows import (
    PLACE_BITS,
    event_row,
    kept_entry,
    kept_question,
    kept_run,
    listing,
    run_facts,
)
from rh_agents.stores._sqlite.versions import CHECKSUMS
from rh_agents.stores._verified import CHECKSUMS_OF_QUESTION, checksums_of_question

_BATCH = 2000
"""Events, with their outcomes."""
_SEQUENCE: Final = (1 << PLACE_BITS) - 1


def has_checksums(connection: apsw.Connection) -> bool:
    """Whether the columns are there, which are made before they are filled."""
    return bool(list(connection.execute(read_queries("sqlite")["has_checksums"])))


class Sealing:
    """Fills in checksums, a batch at a time, inside transactions of the caller.

    Args:
        connection: the database.
        name: what it is called, for people.
        batch: how many events are done at a time.
        clock: seconds, from whenever, by which it says how far it is.
    """

    def __init__(
        self, connection: apsw.Connection, name: str, batch: int = _BATCH, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._name = name
        self._clock = clock
        self._progress: Progress | None = None
        queries, as_it_is = read_queries("sqlite"), {"run": read_views("sqlite", CHECKSUMS)["run"]}
        self._queries = {**queries, "list_runs": through(queries["list_runs"], as_it_is)}
        self._batch = batch
        self._after = 0

    def seal_some(self) -> bool:
        """Do a part; True if that was the last one."""
        if self._progress is None:
            ((count,),) = self._ask("count_unsealed")
            self._progress = Progress(self._name, "checksums", count, self._clock)
        if done := self._seal_events():
            self._progress.add(done)
            return False
        if self._after:  # once more from the beginning: somebody may have added some before where we were
            self._after = 0
            return False
        self._seal_cached()
        self._seal_windows()
        self._seal_questions()
        self._seal_runs()
        return True

    def _ask(self, name: str, **arguments: Any) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(self._queries[name], arguments))

    def _set(self, name: str, rows: list[tuple[Any, ...]]) -> None:
        self._connection.executemany(self._queries[name], rows)

    def _seal_events(self) -> int:
        """The next events without a checksum, and their outcomes; how many there were."""
        rows = self._ask("unsealed_events", after=self._after, limit=self._batch)
        if not rows:
            return 0
        rows = [row for row in rows if row[0] >> PLACE_BITS == rows[0][0] >> PLACE_BITS]  # of one run
        first, self._after = rows[0][0], rows[-1][0]
        events = [event_row(row[0] & _SEQUENCE, row[6], row) for row in rows]
        found = self._ask("outcomes_between", first=first, last=self._after)
        by_place = {row[0]: row for row in found}
        pairs = [(row[0], event, by_place.get(row[0])) for row, event in zip(rows, events, strict=True)]
        outcomes = [_outcome(its, event) for _, event, its in pairs if its is not None]
        of_events, of_outcomes = sealed(events, outcomes)
        self._set("seal_event", [(*both, row[0]) for both, row in zip(of_events, rows, strict=True)])
        places = [place for place, _, its in pairs if its is not None]
        self._set("seal_outcome", list(zip(of_outcomes, places, strict=True)))
        return len(rows)

    def _seal_runs(self) -> None:
        for row in self._ask("list_runs", **listing(RunsWanted(parts=True))):
            run = kept_run(row).row
            if run.owner is not None:
                run = dataclasses.replace(run, owner=None, process=None, fence=run.fence + 1)
            self._ask("seal_run", number=run.number, **run_facts(run))

    def _seal_questions(self) -> None:
        for row in self._ask("questions"):
            question = kept_question(row).row
            checksums = dict(zip(CHECKSUMS_OF_QUESTION, checksums_of_question(question), strict=True))
            self._ask("seal_question", run_id=row[0], id=row[1], **checksums)

    def _seal_cached(self) -> None:
        after = b""
        while rows := self._ask("read_cached", after=after, limit=self._batch):
            self._set("seal_cached", [(cache_checksum(kept_entry(row).row), row[0]) for row in rows])
            after = rows[-1][0]

    def _seal_windows(self) -> None:
        tickets = self._ask("numbered_tickets")
        self._set(
            "seal_ticket",
            [
                (ticket_checksum(limited, taken_at, ends_at), amounts_checksum(limited, amounts), number)
                for number, limited, taken_at, ends_at, amounts in tickets
            ],
        )
        holds = self._ask("all_holds")
        self._set("seal_hold", [(held_checksum(limited, until), limited) for limited, until, _ in holds])


def _outcome(row: tuple[Any, ...], event: EventRow) -> OutcomeRow:
    place, ok, base, parent, epoch, tries, attempt, value, artifact, more = row
    digest = None if artifact is None else artifact.hex()
    return OutcomeRow(
        place & _SEQUENCE, event.key or b"", ok == 1, base, parent, epoch, tries, attempt, value, digest, more, None
    )
