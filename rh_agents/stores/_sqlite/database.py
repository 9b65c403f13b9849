"""The file of runs: how it is made, opened and watched, and what its errors mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from rh_agents.core.errors import StoreError
from rh_agents.stores._backend import SLOWEST
from rh_agents.stores._files import Identity, create_file, identity_of, make_directory
from rh_agents.stores._sqlite.looking import Looking, expect_database_file
from rh_agents.stores._sqlite.reading import SqliteReadSession
from rh_agents.stores._sqlite.writing import SqliteWriteSession
from rh_agents.stores.artifacts import ArtifactStore


class Database:
    """The file, for the common engine."""

    def __init__(
        self,
        path: Path,
        name: str,
        artifacts: ArtifactStore,
        busy_timeout: float,
        wal_limit: int,
        page_size: int,
        file_mode: int,
        is_read_only: bool = False,
    ) -> None:
        self.path = path
        self.name = name
        self.artifacts = artifacts
        self.busy_timeout = busy_timeout
        self.patience: float = SLOWEST + busy_timeout
        self.wal_limit = wal_limit
        self.page_size = page_size
        self.file_mode = file_mode
        self.is_read_only = is_read_only
        self._looking = Looking(path, name, busy_timeout) if is_read_only else None
        self._opened: Identity | None = None
        self._log: tuple[str, Identity | None] | None = None

    def writing(self) -> SqliteWriteSession:
        if self.is_read_only:
            raise StoreError(f"{self.name}: it was opened to be looked at only, so nothing in it can be changed")
        with self.errors():
            if self._opened is None:
                expect_database_file(self.path, self.name)
                self._make()
            else:
                self._expect_same(identity_of(self.path), self._opened)
            self._log = None  # whoever closes it last deletes it
            connection = self._connect(apsw.SQLITE_OPEN_READWRITE)
            session = SqliteWriteSession(self, connection)
            self._opened = identity_of(self.path)
            self._log = connection.filename_wal, identity_of(connection.filename_wal)
            return session

    def reading(self) -> SqliteReadSession:
        with self.errors():
            if self._looking is not None:
                return SqliteReadSession(self, self._looking.connect())
            self._expect_same(identity_of(self.path), self._opened)
            session = SqliteReadSession(self, self._connect(apsw.SQLITE_OPEN_READWRITE))
            try:  # it may have been replaced meanwhile
                self._expect_same(identity_of(self.path), self._opened)
            except BaseException:
                session.close()
                raise
            return session

    def close(self) -> None:
        """Let go of what a store keeps for itself."""
        if self._looking is not None:
            self._looking.close()

    def _make(self) -> None:
        """Make the file, unless it is there. SQLite gives what it keeps beside it the same permissions."""
        try:
            make_directory(self.path.parent, sync_directory, self.file_mode)
        except OSError as error:
            raise StoreError(f"{self.name}: its directory cannot be made: {error}") from error
        with suppress(OSError):  # it is there; or it cannot be made, and SQLite has more to say about that
            os.close(create_file(os.path.realpath(self.path), os.O_RDWR, self.file_mode))

    def expect_in_place(self) -> None:
        """See to it that the names of the database and its log still lead to the files that are open.

        Whoever deletes, renames or replaces them takes away what is written from then on: the system goes on to write
        into files that have no name any more. So this is asked after each commit, before anybody learns of it.

        Raises:
            StoreError: they do not.
        """
        if self._log is not None:
            self._expect_same(identity_of(self.path), self._opened)
            self._expect_same(identity_of(self._log[0]), self._log[1])

    def _expect_same(self, found: Identity | None, opened: Identity | None) -> None:
        if found == opened:
            return
        what = "deleted or renamed" if found is None else "replaced"
        raise StoreError(
            f"{self.name}: the database, or its log beside it, was {what} while it was in use, so what was written "
            "since may be lost; let every process that uses it end, put the file back, and start the run again"
        )

    def _connect(self, flags: int) -> apsw.Connection:
        connection = apsw.Connection(os.fspath(self.path), flags=flags)
        connection.set_busy_timeout(round(self.busy_timeout * 1000))
        return connection

    @contextmanager
    def errors(self, connection: apsw.Connection | None = None) -> Iterator[None]:
        """Say what went wrong, and where."""
        try:
            yield
        except (apsw.Error, OSError) as error:
            raise StoreError(f"{self.name}: {_cause(error, self, connection)}") from error


_CAUSES: dict[type[Exception], str] = {
    apsw.FullError: "the disk is full",
    apsw.ReadOnlyError: "it cannot be written to",
    apsw.NotADBError: "it is not an SQLite database, so no runs are recorded in it: name another file",
    apsw.CorruptError: "the file is damaged",
    apsw.CantOpenError: "it cannot be opened",
    apsw.PermissionsError: "it may not be used",
    apsw.IOError: "the system reported an error of input or output",
    apsw.ConstraintError: "what was to be written contradicts what is there",
    apsw.NoMemError: "there is not enough memory",
}


def _cause(error: Exception, database: Database, connection: apsw.Connection | None) -> str:
    """One line that says what went wrong."""
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return f"it has been locked by another process for more than {database.busy_timeout:g} s"
    about, number = _about(error), 0
    if connection is not None and isinstance(error, apsw.IOError | apsw.CantOpenError | apsw.FullError):
        number = connection.system_errno
    reason = f"; {os.strerror(number)}" if number else ""
    if isinstance(error, apsw.CantOpenError) and not number:
        reason = _why_not_opened(database.path)
    said = _said(error)
    return f"{about} ({said}{reason})" if said or reason else about


def _why_not_opened(path: Path) -> str:
    try:
        with open(path, "r+b"):
            return ""
    except OSError as error:
        return f"; {error.strerror}"


def reason_of(error: Exception) -> str:
    """Why something else could not be done with a database, such as a copy, of whose failure only a code may tell."""
    if not isinstance(error, apsw.Error):
        return str(error)
    said = _said(error)
    return f"{_about(error)} ({said})" if said else _about(error)


def _about(error: Exception) -> str:
    return next((text for kind, text in _CAUSES.items() if isinstance(error, kind)), type(error).__name__)


def _said(error: Exception) -> str:
    return "" if str(error) == "not an error" else str(error)  # of some other connection


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
