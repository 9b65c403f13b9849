"""From schema 3 to schema 4 of PostgreSQL: an event and its outcome become one row, as in SQLite files.

The essay in `rh_agents.stores._sqlite.moving` holds here as well. That there is room is not asked: only the server
knows its disks. If there is none, the batch is rolled back with a clear error, and what was copied is kept.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from rh_agents.core.errors import StoreError
from rh_agents.stores._progress import Progress
from rh_agents.stores._sql import read_queries
from rh_agents.stores._verified import REMEDY

__all__ = ["Moving"]

_BATCH: Final = 2000
"""Rows."""


class Moving:
    """Moves the journals of a schema, a batch at a time, inside transactions of the caller, who has the others wait.

    Args:
        connection: the database.
        name: what it is called, for people.
        batch: how many rows are copied or compared at a time.
    """

    def __init__(self, connection: psycopg.Connection[Any], name: str, batch: int = _BATCH) -> None:
        self._connection = connection
        self._queries = read_queries("postgresql")
        self._name = name
        self._batch = batch
        self._is_copied = False
        self._compared = (0, 0)
        self._progress: Progress | None = None

    def advance(self) -> bool:
        """Do a part; True if that was the last one.

        Raises:
            StoreError: what was copied is not what was there.
        """
        if self._progress is None:
            events, rows, *_ = self._ask("count_moved")[0]
            self._progress = Progress(self._name, 2 * events - rows)
        if not self._is_copied:
            count = len(self._ask("move", limit=self._batch))
            self._is_copied = count == 0
            self._progress.add(count)
            return False
        run, after = self._compared
        rows = self._ask("compare_moved", run=run, after=after, limit=self._batch)
        unlike = [row for row in rows if not row[2]]
        if unlike:
            raise self._unlike(f"{len(unlike)} of {len(rows)} rows are not as they were")
        self._progress.add(len(rows))
        if rows:
            self._compared = rows[-1][:2]
            return False
        self._finish()
        return True

    def _finish(self) -> None:
        events, rows, outcomes, its = self._ask("count_moved")[0]
        if (events, outcomes) != (rows, its):
            raise self._unlike(f"{events} events and {outcomes} outcomes have become {rows} and {its}")
        self._connection.execute(self._queries["drop_moved"].encode())

    def _ask(self, name: str, **arguments: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(self._queries[name].encode(), arguments or None).fetchall()

    def _unlike(self, what: str) -> StoreError:
        return StoreError(
            f"{self._name}: the journals could not be moved to where this version has them: {what}; nothing was "
            f"deleted; {REMEDY}"
        )
