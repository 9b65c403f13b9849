"""The old tables and the new one of an SQLite file (see `rh_agents.stores._moving`), and the room that both take."""

from __future__ import annotations

import os
import shutil
from typing import Any

import apsw

from rh_agents.core.errors import StoreError
from rh_agents.stores._moving import Counts
from rh_agents.stores._sql import read_queries
from rh_agents.stores._sqlite.session import DatabaseFile
from rh_agents.stores._sqlite.versions import JOURNAL, version_of


class SqliteTables:
    """The tables of a file, where rows are in the order of their places."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._queries = read_queries("sqlite")
        self._compared = 0

    def left(self) -> int:
        uncopied, rows = self._ask("still_to_move")
        return int(uncopied + rows)

    def move(self, limit: int) -> int:
        self._connection.execute(self._queries["move"], {"limit": limit})
        return self._connection.changes()

    def compare(self, limit: int) -> tuple[int, int]:
        count, last, equal = self._ask("compare_moved", after=self._compared, limit=limit)
        unlike = count - (equal or 0)
        if count and not unlike:
            self._compared = last
        return count, unlike

    def count(self) -> Counts:
        return Counts(*self._ask("count_moved"))

    def drop(self) -> None:
        self._connection.execute(self._queries["drop_moved"])

    def _ask(self, name: str, **arguments: Any) -> tuple[Any, ...]:
        return next(self._connection.execute(self._queries[name], arguments))


def expect_room(connection: apsw.Connection, file: DatabaseFile) -> None:
    """See to it that the journals can be there twice for a while.

    Raises:
        StoreError: there is not enough room for that.
    """
    if version_of(connection) >= JOURNAL:
        return
    pages, free, size = (int(str(connection.pragma(name))) for name in ("page_count", "freelist_count", "page_size"))
    used = (pages - free) * size
    needed = max(0, used - free * size) + min(file.wal_limit, used)
    there = shutil.disk_usage(os.path.dirname(os.path.realpath(connection.filename))).free
    if there < needed:
        raise StoreError(
            f"{file.name}: to bring it up to date takes {_megabytes(needed)} more on its disk for a while, and there "
            f"are {_megabytes(there)}: make room, or move the file; it is as it was"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
