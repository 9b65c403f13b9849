"""From schema 3 to schema 4 of SQLite files: an event and its outcome become one row.

What is hard is that a journal may be large, that the process may be killed at any moment, and that nothing may be lost
whatever happens. So it goes like this:

1. In one transaction the old tables get other names, the new one is made, and the file gets its new version. From then
   on a program of an earlier version cannot open the file ("made by a newer version"), and one that has it open finds
   no table to write to: it stops, and nothing that it had acknowledged is missing.
2. Rows are copied in the order of their places, a batch in each transaction. The last place that was copied says where
   to go on, so a process that was killed, or another one, goes on there, and several may take turns.
3. All rows of both are compared, column for column and so with their checksums, a batch at a time. (A row that was
   damaged before is copied as it is: `check` names it as before.)
4. If the numbers of rows agree as well, the old tables are dropped.

Until the last transaction the old tables have everything, and are what is read by those who only look (`views_of`).
"""

from __future__ import annotations

import os
import shutil
from typing import Any, Final

import apsw

from rh_agents.core.errors import StoreError
from rh_agents.stores._progress import Progress
from rh_agents.stores._sql import read_queries
from rh_agents.stores._sqlite.session import Place
from rh_agents.stores._sqlite.versions import JOURNAL, version_of
from rh_agents.stores._verified import REMEDY

__all__ = ["Moving", "expect_room"]

_BATCH: Final = 2000
"""Rows."""


class Moving:
    """Moves the journals of a file, a batch at a time, inside transactions of the caller.

    Args:
        connection: the database.
        name: what it is called, for people.
        batch: how many rows are copied or compared at a time.
    """

    def __init__(self, connection: apsw.Connection, name: str, batch: int = _BATCH) -> None:
        self._connection = connection
        self._queries = read_queries("sqlite")
        self._name = name
        self._batch = batch
        self._is_copied = False
        self._compared = 0
        self._progress: Progress | None = None

    def advance(self) -> bool:
        """Do a part; True if that was the last one.

        Raises:
            StoreError: what was copied is not what was there.
        """
        if self._progress is None:
            left, rows = self._ask("still_to_move")
            self._progress = Progress(self._name, left + rows)
        if not self._is_copied:
            self._ask("move", limit=self._batch)
            count = self._connection.changes()
            self._is_copied = count == 0
            self._progress.add(count)
            return False
        count, last, equal = self._ask("compare_moved", after=self._compared, limit=self._batch)
        if count != (equal or 0):
            raise self._unlike(f"{count - (equal or 0)} of {count} rows are not as they were")
        self._progress.add(count)
        if count:
            self._compared = last
            return False
        self._finish()
        return True

    def _finish(self) -> None:
        events, rows, outcomes, its = self._ask("count_moved")
        if (events, outcomes) != (rows, its):
            raise self._unlike(f"{events} events and {outcomes} outcomes have become {rows} and {its}")
        self._connection.execute(self._queries["drop_moved"])

    def _ask(self, name: str, **arguments: Any) -> Any:
        rows = list(self._connection.execute(self._queries[name], arguments))
        return rows[0] if rows else None

    def _unlike(self, what: str) -> StoreError:
        return StoreError(
            f"{self._name}: the journals could not be moved to where this version has them: {what}; nothing was "
            f"deleted; {REMEDY}"
        )


def expect_room(connection: apsw.Connection, place: Place) -> None:
    """See to it that the journals can be there twice for a while.

    Raises:
        StoreError: there is not enough room for that.
    """
    if version_of(connection) >= JOURNAL:
        return
    pages, free, size = (int(str(connection.pragma(name))) for name in ("page_count", "freelist_count", "page_size"))
    used = (pages - free) * size
    needed = max(0, used - free * size) + min(place.wal_limit, used)
    there = shutil.disk_usage(os.path.dirname(os.path.realpath(connection.filename))).free
    if there < needed:
        raise StoreError(
            f"{place.name}: to bring it up to date takes {_megabytes(needed)} more on its disk for a while, and there "
            f"are {_megabytes(there)}: make room, or move the file; it is as it was"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
