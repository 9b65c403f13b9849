"""How SQLite files are opened by those who only look: no file is made, and none is changed.

SQLite itself is less strict. Whoever opens a database in WAL mode makes a log and an index beside it, and the last one
who closes it brings a log that a crash has left into the database, and deletes it. So there are three ways:

- The usual case: the database was closed in good order, or somebody uses it now. It is opened like any other; what is
  made beside it is gone again when it is closed, and a log that was there before is left as it is.
- A log, but no index: a copy of files that somebody was using. They are copied once more, to a directory of ours.
- A folder or a file in which nothing may be written: it is read as a file that nobody changes, or copied if it has a
  log.

A database of an earlier version is read as it is.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

import apsw

from rh_agents.core.errors import StoreError
from rh_agents.stores._files import APPLICATION_ID
from rh_agents.stores._sql import read_migrations

_HEADER: Final = b"SQLite format 3\0"


def expect_database_file(path: Path, name: str) -> None:
    """See to it that a file can be a database, or that there is none.

    Raises:
        StoreError: it cannot, or it has lost what its log was about.
    """
    try:
        about = os.stat(path)
    except OSError:  # it is not there; or SQLite has more to say about that
        size = 0
    else:
        if stat.S_ISDIR(about.st_mode):
            raise StoreError(f"{name}: it is a directory: name a file in it, such as {os.path.join(name, 'runs.db')}")
        if not stat.S_ISREG(about.st_mode):
            raise StoreError(f"{name}: it is no regular file, so it cannot be a database: name another file")
        size = about.st_size
        if size:
            _expect_header(path, name)
    if size == 0 and _has_log(path):  # SQLite would delete it
        raise StoreError(
            f"{name}: the database is missing or empty, though there is a log beside it, in which runs may be "
            f"recorded: put the database back, or move {path}-wal away if it is of no use"
        )


def _expect_header(path: Path, name: str) -> None:
    """SQLite takes a file of a few bytes for an empty database, and writes over it."""
    try:
        with open(path, "rb") as file:
            beginning = file.read(len(_HEADER))
    except OSError:
        return
    if beginning != _HEADER:
        raise StoreError(f"{name}: it is not an SQLite database, so no runs are recorded in it: name another file")


def expect_ours(connection: apsw.Connection, name: str, known: int | None = None) -> int:
    """The version of the schema that a database has; 0 if there is nothing in it. To be asked in a transaction.

    Raises:
        StoreError: it belongs to another program, or to a version of this library that is newer than `known`.
    """
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    assert isinstance(version, int)
    if application != APPLICATION_ID and connection.pragma("schema_version") != 0:
        raise StoreError(f"{name}: it is a database of another program: name another file")
    if known is not None and version > known:
        raise StoreError(
            f"{name}: made by a newer version of rh_agents: schema {version}, this one knows {known}; upgrade rh_agents"
        )
    return version


@contextmanager
def at_one_moment(connection: apsw.Connection) -> Iterator[None]:
    """What is read in the block is of one moment: another process may be making the database."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        with suppress(apsw.Error):
            connection.execute("ROLLBACK")


class Looking:
    """A database that is only looked at.

    Args:
        path, name: where it is, and what it is called in errors.
        busy_timeout: seconds to wait for others.
    """

    def __init__(self, path: Path, name: str, busy_timeout: float) -> None:
        self._path = path
        self._name = name
        self._busy_timeout = busy_timeout
        self._lock = threading.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._copy: Path | None = None
        self._is_checked = False

    def connect(self) -> apsw.Connection:
        """A connection to the database, or to its copy.

        Raises:
            StoreError: it is not there, is empty, or belongs to somebody else.
            apsw.Error: it cannot be opened.
        """
        with self._lock:
            if self._copy is None:
                connection = self._connect()
                if connection is not None:
                    return connection
            assert self._copy is not None
            return self._checked(apsw.Connection(os.fspath(self._copy), flags=apsw.SQLITE_OPEN_READWRITE))

    def close(self) -> None:
        """Delete the copy, if there is one."""
        with self._lock:
            folder, self._folder, self._copy = self._folder, None, None
        if folder is not None:
            folder.cleanup()

    def _connect(self) -> apsw.Connection | None:
        """A connection to the file itself; None if there is a copy from now on."""
        expect_database_file(self._path, self._name)
        if not self._is_checked and not _size(self._path):
            what = "the file is empty" if self._path.exists() else "there is no such file"
            raise StoreError(f"{self._name}: {what}, so no runs are recorded in it")
        if _has_log(self._path) and not os.path.exists(f"{self._path}-shm"):
            self._copy_files()
            return None
        connection = self._opened()
        if connection is None:
            self._copy_files()
            return None
        return self._checked(connection)

    def _checked(self, connection: apsw.Connection) -> apsw.Connection:
        """The connection, if it leads to runs of a version that this program knows."""
        if self._is_checked:
            return connection
        try:
            with at_one_moment(connection):
                version = expect_ours(connection, self._name, read_migrations("sqlite")[-1].number)
            if version == 0:
                raise StoreError(f"{self._name}: the database is empty, so no runs are recorded in it")
        except BaseException:
            connection.close()
            raise
        self._is_checked = True
        return connection

    def _opened(self) -> apsw.Connection | None:
        """A connection that leaves everything as it is; None if there is no way to have one."""
        connection = apsw.Connection(os.fspath(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(round(self._busy_timeout * 1000))
        if _has_log(self._path):
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        try:
            connection.pragma("schema_version")
        except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError):
            connection.close()
            if not os.access(self._path, os.R_OK):
                raise
        except BaseException:
            connection.close()
            raise
        else:
            return connection
        if _has_log(self._path):
            return None
        address = f"file:{quote(os.fspath(self._path))}?immutable=1"
        return apsw.Connection(address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)

    def _copy_files(self) -> None:
        """Copy what is there to a directory of ours, where SQLite may bring a log into the database."""
        folder = tempfile.TemporaryDirectory(prefix="rh_agents-", ignore_cleanup_errors=True)
        try:
            copy = Path(folder.name) / "runs.db"
            for ending in ("", "-wal"):
                source = Path(f"{self._path}{ending}")
                if source.exists():
                    shutil.copyfile(source, f"{copy}{ending}")
        except OSError as error:
            folder.cleanup()
            raise StoreError(
                f"{self._name}: it can only be looked at in a copy, which could not be made in "
                f"{tempfile.gettempdir()}: {error}; TMPDIR names another directory"
            ) from error
        self._folder, self._copy = folder, copy


def _size(path: Path | str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _has_log(path: Path) -> bool:
    return _size(f"{path}-wal") > 0
