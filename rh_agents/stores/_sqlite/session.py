"""A connection to a file of runs, and how queries are asked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol

import apsw

from rh_agents.core.errors import StoreError
from rh_agents.core.redaction import logger
from rh_agents.stores._sql import read_queries
from rh_agents.stores._sqlite.rows import Row

_LOG = logger("rh_agents.stores")


class DatabaseFile(Protocol):
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

    def __init__(self, file: DatabaseFile, connection: apsw.Connection) -> None:
        self.file: DatabaseFile = file
        self.connection: apsw.Connection = connection
        self._queries: Mapping[str, str] = read_queries("sqlite")
        self._version: int | None = None

    def query(self, name: str, **arguments: Any) -> list[Row]:
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
        try:
            self.connection.close()
        except apsw.Error as error:
            _LOG.warning("%s could not be closed: %s", self.file.name, error)

    def errors(self) -> AbstractContextManager[None]:
        return self.file.errors(self.connection)


class TransactionSession(Session):
    """A connection that writes, in transactions."""

    def __init__(self, file: DatabaseFile, connection: apsw.Connection) -> None:
        super().__init__(file, connection)
        self._wal_pages = 0
        self._checkpoint_at = 0

    def configure(self) -> None:
        """Set what makes commits durable. Until then nothing is set that stays in the file."""
        connection, file = self.connection, self.file
        connection.pragma("page_size", file.page_size)  # has an effect on an empty file only
        self._switch_to_wal()
        connection.pragma("synchronous", "FULL")
        connection.pragma("fullfsync", True)  # on macOS, where less does not survive a power cut
        connection.pragma("foreign_keys", True)
        connection.pragma("temp_store", "MEMORY")  # else statements of many rows keep their way back on disk
        connection.pragma("cache_size", -16_000)
        connection.pragma("journal_size_limit", file.wal_limit)
        connection.wal_autocheckpoint(0)
        connection.set_wal_hook(self._count_wal_pages)
        page_size = connection.pragma("page_size")
        assert isinstance(page_size, int)
        self._most_wal_pages = max(1, file.wal_limit // page_size)
        self._checkpoint_at = self._most_wal_pages

    def _switch_to_wal(self) -> None:
        """SQLite does not wait for others that do the same at the same moment, so that is done here."""
        end = time.monotonic() + self.file.busy_timeout
        while True:
            try:
                mode = self.connection.pragma("journal_mode", "WAL")
            except apsw.BusyError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
                continue
            if mode != "wal":
                raise StoreError(f"{self.file.name}: its file system cannot hold a write-ahead log")
            return

    def _count_wal_pages(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._wal_pages = pages
        return 0

    @contextmanager
    def transaction(self, begin: str = "begin") -> Iterator[None]:
        """A transaction, begun by the query of this name. What has left the block survives a power cut."""
        connection, queries = self.connection, self._queries
        with self.errors():
            connection.execute(queries[begin])
            try:
                yield
                connection.execute(queries["commit"])
            except BaseException:
                with suppress(apsw.Error):  # a disk that is full or fails: what is wrong is said by the first error
                    if connection.in_transaction:
                        connection.execute(queries["rollback"])
                raise
            self.file.expect_in_place()

    def bound_wal(self) -> None:
        """Bring the write-ahead log into the file when it is large. Nobody but our own writer waits for that."""
        if self._wal_pages < self._checkpoint_at:
            return
        pages = moved = -1
        with self.errors(), suppress(apsw.BusyError):  # another process does it at this very moment
            pages, moved = self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if pages == moved >= 0:
            self._checkpoint_at = self._most_wal_pages  # the next commit begins from its start again
        else:  # somebody reads what is older: not at every commit from now on
            self._checkpoint_at = self._wal_pages + self._most_wal_pages // 4
