"""Connections to a server, or to a pooler in front of it.

PgBouncer in transaction mode, and poolers like it, give each transaction whichever session of the server is free. So
nothing that belongs to a session can be relied on there: settings made before, prepared statements, LISTEN. What must
be the same for every statement is then said at the beginning of each transaction, for that transaction only; what was
set for longer would even be left to other programs that the same pooler serves.

Whether there is a pooler, a new connection finds out by itself: each pooler tells its clients another number for the
session (with which a query is cancelled) than the server has for it. It cannot find out whether the pooler gives each
client a session of its own for as long as it is connected. What holds for transactions is right for that, too, so it is
assumed, unless the URL says `pool_mode=session`.

The alternative, names of tables with their schema and no settings at all, would leave `synchronous_commit` to whatever
the server or the role has. A commit that is not waited for must not depend on that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.abc import Params
from psycopg.pq import TransactionStatus

__all__ = ["PoolMode", "StoreConnection"]


class PoolMode(StrEnum):
    """How long a session of the server is ours, as PgBouncer calls it."""

    SESSION = "session"
    """As long as the connection."""
    TRANSACTION = "transaction"
    """For one transaction."""


_SETTINGS: Final = """
SELECT set_config('search_path', {path}, {is_local}),
       -- A commit that has been reported must survive a power cut, whatever the server's default is.
       CASE WHEN current_setting('synchronous_commit') <> 'remote_apply'
            THEN set_config('synchronous_commit', 'on', {is_local}) END,
       -- Every query has its index. Whoever plans it may think otherwise, because a table was small a moment ago.
       set_config('enable_seqscan', 'off', {is_local}),
       set_config('enable_sort', 'off', {is_local}),
       -- Compiling a query takes longer than all that the store asks for.
       set_config('jit', 'off', {is_local})"""
_OF_SESSIONS: Final = """,
       set_config('default_transaction_isolation', 'read committed', false),
       -- New in PostgreSQL 14. A follower may hear nothing for a long time.
       CASE WHEN current_setting('idle_session_timeout', true) IS NOT NULL
            THEN set_config('idle_session_timeout', '0', false) END"""


class StoreConnection(psycopg.Connection[Any]):
    """A connection in which every statement finds the settings of the store. It has to be in autocommit mode.

    Attributes:
        is_shared: whether each transaction may have another session of the server. Known after `settle`.
    """

    is_shared: bool = False
    _settings: bytes = b""

    def settle(self, schema: str, mode: PoolMode | None) -> None:
        """Have the settings of the store from now on.

        Args:
            schema: where the tables are.
            mode: how long a session is ours; None to find out.
        """
        if mode is None:
            ((process,),) = psycopg.Connection.execute(self, "SELECT pg_backend_pid()").fetchall()
            mode = PoolMode.SESSION if process == self.info.backend_pid else PoolMode.TRANSACTION
        self.is_shared = mode is PoolMode.TRANSACTION
        path = sql.Literal(sql.Identifier(schema).as_string(self))
        text = _SETTINGS if self.is_shared else _SETTINGS + _OF_SESSIONS
        settings = sql.SQL(text).format(path=path, is_local=self.is_shared).as_bytes(self)
        if self.is_shared:
            self.prepare_threshold = None
            self.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            self._settings = settings
        else:
            super().execute(settings)

    def execute(
        self, query: Any, params: Params | None = None, *, prepare: bool | None = None, binary: bool = False
    ) -> psycopg.Cursor[Any]:
        """Execute a query; outside of a transaction it is one."""
        with self.one_statement():
            return super().execute(query, params, prepare=prepare, binary=binary)

    @contextmanager
    def one_statement(self) -> Iterator[None]:
        """Around the execution of one statement by a cursor: outside of a transaction it is one, with the settings.

        What the cursor has is to be fetched afterwards.
        """
        if not self.is_shared or not self._is_idle():
            yield
            return
        try:
            with self.pipeline():  # all of it is one way to the server and back
                super().execute(b"BEGIN ISOLATION LEVEL READ COMMITTED")
                super().execute(self._settings)
                yield
                super().execute(b"COMMIT")
        except BaseException:
            if not self.closed and not self._is_idle():
                super().execute(b"ROLLBACK")
            raise

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """A transaction, or a part of the one that has begun."""
        begins = self._is_idle()
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if self.is_shared and begins:
                super().execute(self._settings)
            yield transaction

    def _is_idle(self) -> bool:
        """Whether no transaction has begun."""
        return self.info.transaction_status is TransactionStatus.IDLE
