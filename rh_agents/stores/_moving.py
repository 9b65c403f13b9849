"""From schema 3 to schema 4: an event and its outcome become one row.

What is hard is that a journal may be large, that the process may be killed at any moment, and that nothing may be lost
whatever happens. So it goes like this, in every database:

1. In one transaction the old tables get other names, the new one is made, and the database gets its new version. From
   then on a program of an earlier version cannot open it ("made by a newer version"), and one that has it open finds no
   table to write to: it stops, and nothing that it had acknowledged is missing.
2. Rows are copied in their order, a batch in each transaction. The last one that was copied says where to go on, so a
   process that was killed, or another one, goes on there, and several may take turns.
3. All rows of both are compared, column for column and so with their checksums, a batch at a time. (A row that was
   damaged before is copied as it is: `check` names it as before.)
4. If the numbers of rows agree as well, the old tables are dropped.

Until the last transaction the old tables have everything, and are what is read by those who only look (`views_of`).
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from rh_agents.core.errors import StoreError
from rh_agents.stores._progress import Progress
from rh_agents.stores._verified import REMEDY

_BATCH: Final = 2000
"""Rows."""


class Counts(NamedTuple):
    """How many rows there are in the old tables, and of the same in the new one."""

    events: int
    rows: int
    outcomes: int
    rows_with_outcome: int


class Tables(Protocol):
    """The old tables and the new one, as a database has them; the transactions are those of the caller."""

    def left(self) -> int:
        """How many rows are still to be copied or compared."""
        ...

    def move(self, limit: int) -> int:
        """Copy this many of the next rows at the most; how many were there."""
        ...

    def compare(self, limit: int) -> tuple[int, int]:
        """Compare this many of the next rows at the most; how many were there, and how many are unlike.

        Where some are, the same rows are the next ones again.
        """
        ...

    def count(self) -> Counts:
        """Count all rows."""
        ...

    def drop(self) -> None:
        """Drop the old tables."""
        ...


class Moving:
    """Moves the journals of a database, a batch at a time, inside transactions of the caller.

    Args:
        tables: the database.
        name: what it is called, for people.
        batch: how many rows are copied or compared at a time.
    """

    def __init__(self, tables: Tables, name: str, batch: int = _BATCH) -> None:
        self._tables = tables
        self._name = name
        self._batch = batch
        self._is_copied = False
        self._progress: Progress | None = None

    def advance(self) -> bool:
        """Do a part; True if that was the last one.

        Raises:
            StoreError: what was copied is not what was there.
        """
        if self._progress is None:
            self._progress = Progress(self._name, "one table", self._tables.left())
        if not self._is_copied:
            count = self._tables.move(self._batch)
            self._is_copied = count == 0
            self._progress.add(count)
            return False
        count, unlike = self._tables.compare(self._batch)
        if unlike:
            raise self._unlike(f"{unlike} of {count} rows are not as they were")
        self._progress.add(count)
        if count:
            return False
        counts = self._tables.count()
        if (counts.events, counts.outcomes) != (counts.rows, counts.rows_with_outcome):
            raise self._unlike(
                f"{counts.events} events and {counts.outcomes} outcomes have become "
                f"{counts.rows} and {counts.rows_with_outcome}"
            )
        self._tables.drop()
        return True

    def _unlike(self, what: str) -> StoreError:
        return StoreError(
            f"{self._name}: the journals could not be moved to where this version has them: {what}; nothing was "
            f"deleted; {REMEDY}"
        )
