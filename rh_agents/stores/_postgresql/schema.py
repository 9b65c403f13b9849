"""A PostgreSQL schema of runs is brought up to date by whoever writes to it, step by step, whatever version it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg import sql

from rh_agents.core.errors import StoreError
from rh_agents.stores._checksums import holder_checksum
from rh_agents.stores._moving import Moving
from rh_agents.stores._ownership import Owned, Silent, expect_no_newcomer, expect_nobody_executes
from rh_agents.stores._postgresql.driver import Database
from rh_agents.stores._postgresql.moving import PostgresqlTables
from rh_agents.stores._postgresql.news import Connection, digest
from rh_agents.stores._postgresql.sealing import CHECKSUMS, Sealing
from rh_agents.stores._repeated import is_wanted, not_once
from rh_agents.stores._sql import Migration, read_migrations, read_queries, read_views

JOURNAL: Final = 4
"""The version in which an event and its outcome are one row."""
INDEXED_SOON: Final = 1 << 30
"""Bytes. An index of such a table is made in a few seconds, and the lease of who waits meanwhile lasts for 15."""


def bring_up_to_date(database: Database, connection: Connection, indexed_soon: int = INDEXED_SOON) -> None:
    """See to it that a schema is the one of this program. Of several who do that at once, each does a part.

    Args:
        database, connection: where it is.
        indexed_soon: the size of the journal in bytes up to which indexes are made while others execute runs.

    Raises:
        RunIsLive: a program of an earlier version executes a run in it.
        StoreError: it was made by a newer version, may not be changed, or is damaged.
    """
    with database.errors("the schema could not be brought up to date"):
        version = _version(connection)
        is_large = 0 < version < _known() and _fetch(connection, "journal_size")[0][0] > indexed_soon
        silent: Silent = frozenset()
        if 0 < version < JOURNAL or is_large:
            silent = expect_nobody_executes(database.place, lambda: _owners(connection))
        if version <= _known() and (version < _known() or _is_moving(connection)):
            _take_steps(database, connection, silent, _known() if is_large else JOURNAL)
            version = _version(connection)
        if is_wanted("keys") and version == _known():
            _expect_once(database, connection)
    if version > _known():
        raise _newer(database, version)


def _expect_once(database: Database, connection: Connection) -> None:
    try:
        with connection.transaction():
            _execute(connection, "lock_migrations", lock=_lock_number(database))
            if not _fetch(connection, "is_once")[0][0]:  # to make it waits for those who write
                _execute(connection, "expect_once")
    except psycopg.errors.UniqueViolation as error:
        raise not_once(database.place) from error


def _take_steps(database: Database, connection: Connection, silent: Silent, exclusive: int) -> None:
    """Take all steps that are left; up to the version `exclusive`, only owners that are `silent` may be there."""
    sealing = Sealing(connection, database.place)
    moving = Moving(PostgresqlTables(connection), database.place)
    is_done = False
    while not is_done:
        with connection.transaction():
            _execute(connection, "lock_migrations", lock=_lock_number(database))
            _create_schema(database, connection)
            version = _version(connection)
            step = next((step for step in read_migrations("postgresql") if step.number > version), None)
            if version == JOURNAL and _is_moving(connection):
                moving.advance()
            elif step is not None:
                if 0 < version < exclusive:
                    expect_no_newcomer(database.place, _owners(connection), silent)
                _take(connection, step, sealing)
            elif version > _known():
                return
            else:
                is_done = True


def _take(connection: Connection, step: Migration, sealing: Sealing) -> None:
    if step.number == CHECKSUMS:
        if not sealing.advance(step):
            return
    else:
        if step.number == JOURNAL:
            for owned in _owners(connection):  # they are there no more
                cleared = holder_checksum(None, None, owned.fence + 1)
                _execute(connection, "let_go", number=owned.number, fence=owned.fence, holder_checksum=cleared)
        connection.execute(step.text.encode())
    _execute(connection, "add_migration", version=step.number, file=step.file)


def expect_known(database: Database, connection: Connection) -> None:
    """See to it that a schema is there and can be read, without making or changing anything.

    Raises:
        StoreError: it is not, or was made by a newer version.
    """
    version = _version(connection)
    if version == 0:
        where = f"{database.place}: schema {database.schema!r}"
        raise StoreError(f"{where} has no tables of rh_agents, so no runs are recorded in it")
    if version > _known():
        raise _newer(database, version)


def views_of(connection: Connection) -> Mapping[str, str]:
    """What stands for tables that a schema does not have, or does not have yet, by their names."""
    version = _version(connection)
    if version != JOURNAL or not _is_moving(connection):
        return read_views("postgresql", version) if 0 < version < _known() else {}
    return {
        name: view.replace(" event AS", " event_3 AS").replace(" outcome AS", " outcome_3 AS")
        for name, view in read_views("postgresql", CHECKSUMS).items()
    }


def _is_moving(connection: Connection) -> bool:
    """Whether the journal is still where an earlier version had it: a process that moved it was cut off, or goes on."""
    return bool(_fetch(connection, "is_moving")[0][0])


def _owners(connection: Connection) -> list[Owned]:
    return [Owned(*row) for row in _fetch(connection, "owners")]


def _known() -> int:
    return read_migrations("postgresql")[-1].number


def _newer(database: Database, version: int) -> StoreError:
    return StoreError(
        f"{database.place}: schema {database.schema!r} was made by a newer version of rh_agents: "
        f"schema {version}, this one knows {_known()}; upgrade rh_agents"
    )


def _version(connection: Connection) -> int:
    """The number of the last migration that was applied, 0 if none was."""
    found = _fetch(connection, "schema_version")
    if not found or found[0][0] is None:
        return 0
    return int(_fetch(connection, "last_migration")[0][0])


def _create_schema(database: Database, connection: Connection) -> None:
    # IF NOT EXISTS wants the right to create one even where there is one
    if _fetch(connection, "schema_exists", schema=database.schema) != [(True,)]:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(database.schema)))
    _execute(connection, "create_schema_version")


def _lock_number(database: Database) -> int:
    """What stands for the schema among the database's advisory locks."""
    return int.from_bytes(digest(database)[:8], "big", signed=True)


def _fetch(connection: Connection, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
    query = read_queries("postgresql")[name]
    return connection.execute(query.encode(), parameters or None).fetchall()


def _execute(connection: Connection, name: str, **parameters: Any) -> None:
    connection.execute(read_queries("postgresql")[name].encode(), parameters or None)
