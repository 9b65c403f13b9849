"""A connection to a file of runs, and how queries are asked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import apsw

from rh_agents.core.redaction import logger
from rh_agents.stores._sql import read_queries
from rh_agents.stores._sqlite.rows import Row

__all__ = ["Place", "Session"]

_LOG = logger("rh_agents.stores")


class Place(Protocol):
    """The file, as far as its sessions need to know it."""

    name: str
    wal_limit: int
    page_size: int
    busy_timeout: float

    def errors(self, connection: apsw.Connection | None = None) -> AbstractContextManager[None]:
        """Say what went wrong, and where."""
        ...

    def expect_in_place(self) -> None:
        """See to it that the names of the database and its log still lead to the files that are open."""
        ...


class Session:
    """A connection."""

    def __init__(self, place: Place, connection: apsw.Connection) -> None:
        self.place: Place = place
        self.connection: apsw.Connection = connection
        self._queries: Mapping[str, str] = read_queries("sqlite")
        self._version: int | None = None

    def query(self, name: str, **arguments: Any) -> list[Row]:
        """The rows that a query gives."""
        return list(self.connection.execute(self._queries[name], arguments))

    def query_one(self, name: str, **arguments: Any) -> Row | None:
        """The first row that a query gives; None if there is none."""
        rows = self.query(name, **arguments)
        return rows[0] if rows else None

    def has_changed(self) -> bool:
        """Whether another connection has written since the last call."""
        with self.errors():
            version = self.connection.pragma("data_version")
        before, self._version = self._version, version
        return bool(before != version)

    def close(self) -> None:
        """Let go of the connection."""
        try:
            self.connection.close()
        except apsw.Error as error:
            _LOG.warning("%s could not be closed: %s", self.place.name, error)

    def errors(self) -> AbstractContextManager[None]:
        """Say what went wrong, and where."""
        return self.place.errors(self.connection)
