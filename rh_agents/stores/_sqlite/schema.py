"""A file of runs is brought up to date by whoever writes to it, step by step, whatever version it has."""

from __future__ import annotations

from rh_agents.stores._checksums import holder_checksum
from rh_agents.stores._moving import Moving
from rh_agents.stores._ownership import Owned, Silent, expect_no_newcomer, expect_nobody_executes
from rh_agents.stores._sql import Migration, read_migrations, read_queries
from rh_agents.stores._sqlite.looking import APPLICATION_ID, expect_ours
from rh_agents.stores._sqlite.moving import SqliteTables, expect_room
from rh_agents.stores._sqlite.rows import some_text
from rh_agents.stores._sqlite.sealing import Sealing, has_checksums
from rh_agents.stores._sqlite.session import TransactionSession
from rh_agents.stores._sqlite.versions import CHECKSUMS, JOURNAL, is_moving, known_version


def bring_up_to_date(session: TransactionSession) -> None:
    """See to it that a file has the schema of this program. Of several who do that at once, each does a part.

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
    silent: Silent = frozenset()
    if version < JOURNAL:
        silent = expect_nobody_executes(session.file.name, lambda: _owned(session))
        expect_room(session.connection, session.file)
    for migration in read_migrations("sqlite"):
        if migration.number == CHECKSUMS:
            _seal(session, migration, silent)
        elif migration.number == JOURNAL:
            _move(session, migration, silent)
        else:
            _step(session, migration)


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


def _step(session: TransactionSession, migration: Migration) -> None:
    with session.transaction("begin_exclusive"):
        if _version(session) < migration.number:  # not done by another process meanwhile
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
