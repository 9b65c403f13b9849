"""Sessions of a schema: how they ask, and how they hear of what others have written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool

from rh_agents.stores._postgresql.driver import Database

Connection = psycopg.Connection[Any]


def digest(database: Database) -> bytes:
    """What stands for a schema where a name of its own would not do."""
    return sha256(b"rh_agents " + database.schema.encode()).digest()


def channels(database: Database) -> dict[str, str]:
    """The channels of a schema: `changes` for those who read, `requests` for those who execute runs."""
    name = "rh_agents_" + digest(database).hex()[:32]
    return {"changes": name + "_changes", "requests": name + "_requests"}


def rows(connection: Connection, query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    cursor = connection.execute(query.encode(), parameters, binary=True, prepare=True)
    return cursor.fetchall() if cursor.description is not None else []


class Ear:
    """Hears the notifications of a channel that come to a connection."""

    def __init__(self, connection: Connection, channel: str) -> None:
        self._connection = connection
        self._has_heard = True
        connection.add_notify_handler(self._hear)
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def _hear(self, notification: psycopg.Notify) -> None:
        self._has_heard = True

    def has_heard(self) -> bool:
        """Whether there was one since the last call; True at the first one. Asks the socket, not the server."""
        wire = self._connection.pgconn
        wire.consume_input()
        while wire.notifies() is not None:
            self._has_heard = True
        has_heard, self._has_heard = self._has_heard, False
        return has_heard


class News:
    """Counts what happens in a schema, with one connection of those of `pool` for all who want to know."""

    def __init__(self, database: Database, pool: Callable[[], ConnectionPool[Connection]]) -> None:
        self._database = database
        self._pool = pool
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._ear: Ear | None = None
        self._count = 0

    def count(self) -> int:
        """A number that is another one when anybody may have written since the last call."""
        with self._lock, self._database.errors("no news of other processes"):
            try:
                self._count += self._listening().has_heard()
            except BaseException:
                self._let_go()
                raise
            return self._count

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._let_go()

    def _listening(self) -> Ear:
        if self._ear is None:
            self._connection = self._pool().getconn()
            self._ear = Ear(self._connection, channels(self._database)["changes"])
        return self._ear

    def _let_go(self) -> None:
        connection, self._connection, self._ear = self._connection, None, None
        if connection is not None:
            connection.close()
            self._pool().putconn(connection)
