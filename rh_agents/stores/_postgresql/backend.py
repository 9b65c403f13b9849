"""PostgreSQL for the common engine: a schema, the connections that all share, and its sessions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg_pool import ConnectionPool

from rh_agents.core.errors import StoreError
from rh_agents.core.redaction import logger
from rh_agents.stores._backend import SLOWEST
from rh_agents.stores._files import checked_mode, read_mode
from rh_agents.stores._opening_artifacts import open_artifacts
from rh_agents.stores._postgresql.artifacts import TableArtifacts
from rh_agents.stores._postgresql.driver import Database, read_url
from rh_agents.stores._postgresql.news import Connection, News
from rh_agents.stores._postgresql.reading import PostgresqlReadSession
from rh_agents.stores._postgresql.schema import bring_up_to_date, expect_known
from rh_agents.stores._postgresql.writing import PostgresqlWriteSession
from rh_agents.stores._sql import read_queries
from rh_agents.stores.artifacts import ArtifactStore

_LOG = logger("rh_agents.stores.postgresql")


class PostgresqlBackend:
    """A schema in a PostgreSQL database. Arguments and errors are those of `PostgresqlStore`."""

    def __init__(
        self,
        url: str,
        *,
        schema: str | None = None,
        artifacts: str | None = None,
        file_mode: int | None = None,
        is_read_only: bool = False,
    ) -> None:
        self.is_read_only: bool = is_read_only
        self.patience: float = SLOWEST
        self._database, options = read_url(url, schema)
        self._queries: dict[str, str] = read_queries("postgresql")
        self._lock = threading.Lock()
        self._pool: ConnectionPool[Connection] | None = None
        self._news = News(self._database, self.pool)
        self._ready = News(self._database, self.pool, "ready")
        self._is_checked = False
        where = artifacts or options.get("artifacts")
        mode = read_mode(options.get("mode", "0600")) if file_mode is None else checked_mode(file_mode)
        self._artifacts: ArtifactStore = (
            TableArtifacts(self.borrow, self._queries, self.name)
            if where is None
            else open_artifacts(where, file_mode=mode)
        )

    def __repr__(self) -> str:
        return f"PostgresqlBackend({self.name!r}, schema={self.database.schema!r})"

    @property
    def database(self) -> Database:
        return self._database

    @property
    def name(self) -> str:
        return self._database.place

    @property
    def artifacts(self) -> ArtifactStore:
        """Where large values are kept: in a table, unless the URL names another place."""
        return self._artifacts

    def writing(self) -> PostgresqlWriteSession:
        if self.is_read_only:
            raise StoreError(f"{self.name}: it was opened to be looked at only, so nothing in it can be changed")
        connection = self._database.connect()
        try:
            if not self._is_checked:
                self._database.warn_if_unsafe(connection)
                for line in self._database.limitations(connection):
                    _LOG.info("%s: %s", self.name, line)
                bring_up_to_date(self._database, connection)
                self._is_checked = True
            return PostgresqlWriteSession(self._database, connection, self._queries)
        except BaseException:
            connection.close()
            raise

    def reading(self) -> PostgresqlReadSession:
        """A session that has a connection only while it reads."""
        if self.is_read_only and not self._is_checked:
            with self.borrow("the schema could not be read") as connection:
                expect_known(self._database, connection)
            self._is_checked = True
        return PostgresqlReadSession(self.borrow, self._news, self._ready)

    def limitations(self) -> list[str]:
        """What the way to the server keeps the store from, as sentences for people."""
        with self.borrow("the server could not be asked how it is reached") as connection:
            return self._database.limitations(connection)

    @contextmanager
    def borrow(self, what: str) -> Iterator[Connection]:
        """A connection of those that all share; an error inside says that `what` could not be done."""
        with self._database.errors(what), self.pool().connection() as connection:
            yield connection

    def pool(self) -> ConnectionPool[Connection]:
        with self._lock:
            if self._pool is None:
                self._pool = self._database.pool()
            return self._pool

    def close(self) -> None:
        """Let go of the connections that sessions have shared."""
        self._news.close()
        self._ready.close()
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
