"""Sessions of a schema: how they ask, and how they hear of what others have written."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool

from rh_agents.stores._postgresql.connection import StoreConnection
from rh_agents.stores._postgresql.driver import Database

Connection = StoreConnection

_ASK_EVERY: Final = {"changes": 0.5, "requests": 0.5, "ready": 1.0}
"""Seconds. Where nothing can be heard, there may be news of a channel that often."""


def digest(database: Database) -> bytes:
    """What stands for a schema where a name of its own would not do."""
    return sha256(b"rh_agents " + database.schema.encode()).digest()


def channels(database: Database) -> dict[str, str]:
    """The channels of a schema.

    `changes` is for those who read, `requests` for those who execute runs, `ready` for workers with nothing to do.
    """
    name = "rh_agents_" + digest(database).hex()[:32]
    return {each: f"{name}_{each}" for each in ("changes", "requests", "ready")}


def rows(connection: Connection, query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    cursor = connection.execute(query.encode(), parameters, binary=True, prepare=True)
    return cursor.fetchall() if cursor.description is not None else []


class Ear:
    """Hears the notifications of a channel that come to a connection; where none can come, it says now and then yes.

    None can come through a pooler that gives each transaction another session, nor from a server that only follows
    another one.

    Attributes:
        is_deaf: whether none can come. Then it does not use the connection.
    """

    def __init__(
        self, connection: Connection, database: Database, channel: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._monotonic = monotonic
        self._ask_every = _ASK_EVERY[channel]
        self._asked_at = -math.inf
        self._has_heard = True
        self.is_deaf: bool = connection.is_shared or not self._listens(channels(database)[channel])

    def _listens(self, channel: str) -> bool:
        self._connection.add_notify_handler(self._hear)
        try:
            self._connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        except psycopg.errors.ReadOnlySqlTransaction:
            return False
        return True

    def _hear(self, notification: psycopg.Notify) -> None:
        self._has_heard = True

    def has_heard(self) -> bool:
        """Whether there was one since the last call; True at the first one. Asks the socket, not the server."""
        if self.is_deaf:
            now = self._monotonic()
            is_time = now >= self._asked_at + self._ask_every
            self._asked_at = now if is_time else self._asked_at
            return is_time
        wire = self._connection.pgconn
        wire.consume_input()
        while wire.notifies() is not None:
            self._has_heard = True
        has_heard, self._has_heard = self._has_heard, False
        return has_heard


class News:
    """Counts what one of the channels of a schema tells.

    It has one connection of those of `pool` for all who want to know, if anything can be heard there.
    """

    def __init__(
        self, database: Database, pool: Callable[[], ConnectionPool[Connection]], channel: str = "changes"
    ) -> None:
        self._database = database
        self._channel = channel
        self._pool = pool
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._ear: Ear | None = None
        self._count = 0

    def count(self) -> int:
        """A number that is another one when something may have happened since the last call."""
        with self._lock, self._database.errors("no news of other processes"):
            is_new = self._ear is None
            try:
                self._count += self._listening().has_heard()
            except psycopg.OperationalError:
                self._let_go()
                if is_new:
                    raise
                self._count += 1  # the connection has died since, and what was said meanwhile was missed
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
            self._ear = Ear(self._connection, self._database, self._channel)
            if self._ear.is_deaf:  # others can use it
                self._pool().putconn(self._connection)
                self._connection = None
        return self._ear

    def _let_go(self) -> None:
        connection, self._connection, self._ear = self._connection, None, None
        if connection is not None:
            connection.close()
            self._pool().putconn(connection)
