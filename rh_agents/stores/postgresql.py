"""Runs in a PostgreSQL database, where several machines can execute, follow and read them.

It needs psycopg: `pip install 'rh_agents[postgresql]'`. What is promised about power cuts holds as far as the server
keeps its own promises: with `fsync = off` it does not, and a warning is logged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from rh_agents.core.ports import Clock
from rh_agents.stores._store import SqlStore

try:
    from rh_agents.stores._postgresql.backend import PostgresqlBackend
except ModuleNotFoundError as _error:
    if _error.name not in ("psycopg", "psycopg_pool"):
        raise
    _message = f"runs in PostgreSQL need {_error.name}: pip install 'rh_agents[postgresql]'"
    raise ModuleNotFoundError(_message, name=_error.name) from _error

__all__ = ["PostgresqlStore"]


class PostgresqlStore(SqlStore):
    """Runs in a schema of a PostgreSQL database, which is made when it is first used.

    Args:
        url: `postgresql://user:password@host:port/database?option=value`. Options are those of PostgreSQL's own library
            (`sslmode`, ...), the two below, `mode`, and `pool_mode`. Better than a password in the URL is one in the
            environment (`PGPASSWORD`) or in `~/.pgpass`. `pool_mode` says what a pooler such as PgBouncer does:
            `transaction` (each transaction may have another session of the server) or `session`; without it each
            connection finds out whether there is a pooler, and then relies on nothing but transactions.
        schema: where the tables are, `rh_agents` unless the URL says something else.
        artifacts: where large results are kept: a directory, or a URL that fsspec knows, which every machine must see.
            By default they are in a table of the same schema.
        file_mode: the permissions of files that are made in such a directory, 0600 unless the URL says something else
            (`mode=0640`).
        read_only: make and change nothing in the database; whatever would raises `StoreError`.
        clock: the time of day in seconds since 1970.

    Raises:
        ValueError: the mode is none for a data file.
        StoreError: it is no such URL, or its `pool_mode` is none. Whether the database can be reached is found out when
            it is first used.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str | None = None,
        artifacts: str | None = None,
        file_mode: int | None = None,
        read_only: bool = False,
        clock: Clock = time.time,
    ) -> None:
        self._postgresql = PostgresqlBackend(
            url, schema=schema, artifacts=artifacts, file_mode=file_mode, is_read_only=read_only
        )
        self._url = url
        self._further = {"schema": schema, "artifacts": artifacts}
        super().__init__(self._postgresql, clock=clock)

    @property
    def url(self) -> str:
        """What `open_store` takes for the same store. It has the password that was given, if one was."""
        parts = urlsplit(self._url)
        further = {name: value for name, value in self._further.items() if value is not None}
        given = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in further]
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in (*given, *further.items()))
        return urlunsplit(parts._replace(query=query))

    async def limitations(self) -> Sequence[str]:
        """What a pooler, or a server that only follows another one, keeps the store from, as sentences for people.

        Raises:
            StoreError: the database cannot be reached.
        """
        await self._get_ready()
        return await self.engine.in_thread(self._postgresql.limitations)

    async def aclose(self) -> None:
        """Write what waits, and let go of all connections."""
        await super().aclose()
        await asyncio.to_thread(self._postgresql.close)
