"""A file of runs is brought up to date by whoever writes to it, step by step, whatever version it has."""

from __future__ import annotations

from typing import Final

from rh_agents.stores._checksums import holder_checksum
from rh_agents.stores._files import APPLICATION_ID
from rh_agents.stores._moving import Moving
from rh_agents.stores._ownership import Owned, Silent, expect_no_newcomer, expect_nobody_executes
from rh_agents.stores._sql import Migration, read_migrations, read_queries
from rh_agents.stores._sqlite.looking import expect_ours
from rh_agents.stores._sqlite.moving import SqliteTables, expect_room
from rh_agents.stores._sqlite.rows import some_text
from rh_agents.stores._sqlite.sealing import Sealing, has_checksums
from rh_agents.stores._sqlite.session import TransactionSession
from rh_agents.stores._sqlite.versions import CHECKSUMS, JOURNAL, is_moving, known_version

INDEXED_SOON: Final = 2 << 30
"""Bytes. To read a file of this size takes ten seconds of a slow disk, and who wants to write waits for thirty."""


def bring_up_to_date(session: TransactionSession, indexed_soon: int = INDEXED_SOON) -> None:
    """See to it that a file has the schema of this program. Of several who do that at once, each does a part.

    Args:
        session: the connection.
        indexed_soon: the size in bytes up to which indexes are made while others execute runs, which wait for that.

    Raises:
        RunIsLive: a program of an earlier version executes a run in it.
        StoreError: it belongs to something else, or to a newer version; there is no room; it is damaged.
    """
    with session.transaction("begin_to_read"):  # the file as it is at one moment: another process may be making it
        version = _version(session)
        is_current = version == known_version() and not is_moving(session.connection)
    if is_current:
        return
    if version == 0:
        _make(session)
        version = _version(session)
    silent: Silent | None = None
    is_large = _size(session) > indexed_soon
    if version < JOURNAL or is_large:
        silent = expect_nobody_executes(session.file.name, lambda: _owned(session))
        expect_room(session.connection, session.file)
    for migration in read_migrations("sqlite"):
        if migration.number == CHECKSUMS:
            _seal(session, migration, silent or frozenset())
        elif migration.number == JOURNAL:
            _move(session, migration, silent or frozenset())
        else:
            _step(session, migration, silent if is_large else None)


def _size(session: TransactionSession) -> int:
    """How many bytes the file has."""
    pages, size = (int(str(session.connection.pragma(name))) for name in ("page_count", "page_size"))
    return pages * size


def _version(session: TransactionSession) -> int:
    return expect_ours(session.connection, session.file.name, known_version())


def _make(session: TransactionSession) -> None:
    """Make the tables of a new file, all at once: there are no rows with which to do anything."""
    with session.transaction("begin_exclusive"):
        if _version(session) != 0:
            return
        for migration in read_migrations("sqlite"):
            session.connection.execute(migration.text)
        session.connection.execute(read_queries("sqlite")["drop_moved"])
        _set_version(session, known_version())


def _set_version(session: TransactionSession, version: int) -> None:
    session.connection.pragma("application_id", APPLICATION_ID)
    session.connection.pragma("user_version", version)


def _step(session: TransactionSession, migration: Migration, silent: Silent | None) -> None:
    """What changes no rows. Who executes a run waits for it and goes on, since what it writes fits both versions.

    Unless `silent` is given: then that takes too long, and only these owners may be there.
    """
    with session.transaction("begin_exclusive"):
        if _version(session) < migration.number:  # not done by another process meanwhile
            if silent is not None:
                expect_no_newcomer(session.file.name, _owners(session), silent)
            session.connection.execute(migration.text)
            _set_version(session, migration.number)


def _seal(session: TransactionSession, migration: Migration, silent: Silent) -> None:
    """Give every row its checksum. There may be many, so that is done in batches, and the version changes last."""
    with session.transaction("begin_exclusive"):
        if _version(session) < CHECKSUMS and not has_checksums(session.connection):
            session.connection.execute(migration.text)
    sealing = Sealing(session.connection, session.file.name)
    is_done = False
    while not is_done:
        with session.transaction("begin_exclusive"):
            version = _version(session)
            if version < CHECKSUMS:
                expect_no_newcomer(session.file.name, _owners(session), silent)
            is_done = version >= CHECKSUMS or sealing.seal_some()
            if is_done:
                _set_version(session, max(CHECKSUMS, version))
        session.bound_wal()


def _move(session: TransactionSession, migration: Migration, silent: Silent) -> None:
    """Bring events and outcomes into the one table. From the beginning of that no older program finds them."""
    with session.transaction("begin_exclusive"):
        if _version(session) < JOURNAL:
            owners = _owners(session)
            expect_no_newcomer(session.file.name, owners, silent)
            for owned in owners:  # they are there no more
                cleared = holder_checksum(None, None, owned.fence + 1)
                session.query("release_run", number=owned.number, fence=owned.fence, holder_checksum=cleared)
            session.connection.execute(migration.text)
            _set_version(session, JOURNAL)
    moving = Moving(SqliteTables(session.connection), session.file.name)
    is_done = False
    while not is_done:
        with session.transaction("begin_exclusive"):
            is_done = not is_moving(session.connection) or moving.advance()
        session.bound_wal()


def _owned(session: TransactionSession) -> list[Owned]:
    with session.transaction("begin_to_read"):
        return _owners(session)


def _owners(session: TransactionSession) -> list[Owned]:
    rows = session.query("owners")
    return [Owned(some_text(run_id), number, some_text(owner), *rest) for run_id, number, owner, *rest in rows]
