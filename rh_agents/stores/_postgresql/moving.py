"""The old tables and the new one of a PostgreSQL schema (see `rh_agents.stores._moving`).

That there is room for both is not asked: only the server knows its disks. If there is none, the batch is rolled back
with a clear error, and what was copied is kept.
"""

from __future__ import annotations

from typing import Any

import psycopg

from rh_agents.stores._moving import Counts
from rh_agents.stores._sql import read_queries


class PostgresqlTables:
    """The tables of a schema, where rows are in the order of runs and sequences. The caller has the others wait."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._queries = read_queries("postgresql")
        self._compared = (0, 0)

    def left(self) -> int:
        counts = self.count()
        return 2 * counts.events - counts.rows

    def move(self, limit: int) -> int:
        return len(self._ask("move", limit=limit))

    def compare(self, limit: int) -> tuple[int, int]:
        run, after = self._compared
        rows = self._ask("compare_moved", run=run, after=after, limit=limit)
        unlike = sum(not is_equal for _, _, is_equal in rows)
        if rows and not unlike:
            self._compared = rows[-1][:2]
        return len(rows), unlike

    def count(self) -> Counts:
        return Counts(*self._ask("count_moved")[0])

    def drop(self) -> None:
        self._connection.execute(self._queries["drop_moved"].encode())

    def _ask(self, name: str, **arguments: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(self._queries[name].encode(), arguments or None).fetchall()
