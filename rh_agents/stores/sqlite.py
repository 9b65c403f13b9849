"""Runs in an SQLite file: WAL with `synchronous=FULL`, one connection that writes, others that read."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

from rh_agents.core.errors import UsageError
from rh_agents.core.ports import Clock
from rh_agents.stores._files import FILE_MODE, checked_mode
from rh_agents.stores._naming import Kind, StoreName, expanded
from rh_agents.stores._opening_artifacts import open_artifacts
from rh_agents.stores._store import SqlStore
from rh_agents.stores.artifacts import ArtifactStore

try:
    from rh_agents.stores._sqlite.database import Database
except ModuleNotFoundError as _error:
    if _error.name != "apsw":
        raise
    raise ModuleNotFoundError("runs in SQLite files need the package apsw: pip install apsw", name="apsw") from _error

__all__ = ["SqliteStore"]

_PAGE_SIZE: Final = 4096
"""Bytes. A commit writes whole pages: the last one of the journal, which is seldom full, and that of the run's row."""


class SqliteStore(SqlStore):
    """Runs in an SQLite file, and large results in files beside it.

    Args:
        path: the file. It is made when it is first used, and so is its directory.
        artifacts: where large results are kept: a directory, or a URL that fsspec knows; by default the directory
            `<path>-artifacts`.
        busy_timeout: seconds to wait for other processes that write, before that is an error.
        wal_limit: bytes that the write-ahead log may have before it is brought into the file. It can grow beyond that
            while someone reads.
        page_size: bytes of a page, for a new file.
        file_mode: the permissions of files that are made, whatever the umask: the database, what SQLite keeps beside
            it, and artifacts. Directories that are made let enter who may read. What is there keeps its permissions.
        read_only: make and change no file; whatever would change something raises `StoreError`.
        clock: the time of day in seconds since 1970.

    Raises:
        ValueError: the path is none, the timeout no number of seconds, or the mode none for a data file.
        StoreError: the artifacts' URL cannot be used.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        artifacts: ArtifactStore | str | None = None,
        busy_timeout: float = 30.0,
        wal_limit: int = 32 << 20,
        page_size: int = _PAGE_SIZE,
        file_mode: int = FILE_MODE,
        read_only: bool = False,
        clock: Clock = time.time,
    ) -> None:
        if not 0 <= busy_timeout < float("inf"):
            raise ValueError(f"busy_timeout is a number of seconds, not {busy_timeout!r}")
        self.path: Path = Path(expanded(os.fspath(path)))
        place = self.path.absolute()  # the working directory may be another one later
        kept = f"{place}-artifacts" if artifacts is None else artifacts
        if isinstance(kept, str):
            kept = open_artifacts(kept, file_mode=checked_mode(file_mode))
        self._database = Database(
            place, str(path), kept, busy_timeout, wal_limit, page_size, checked_mode(file_mode), read_only
        )
        self._options = {"busy_timeout": f"{busy_timeout:g}", "mode": f"{file_mode:04o}"}
        if isinstance(artifacts, str):
            self._options["artifacts"] = artifacts
        self._has_own_artifacts = artifacts is not None and not isinstance(artifacts, str)
        super().__init__(self._database, clock=clock)

    @property
    def large_results(self) -> ArtifactStore:
        """Where large results are kept."""
        return self._database.artifacts

    @property
    def url(self) -> str:
        """What `open_store` takes for the same store, from any directory.

        Raises:
            UsageError: it keeps artifacts in an object of this program.
        """
        if self._has_own_artifacts:
            raise UsageError(
                f"{self!r} keeps artifacts in an object of this program, so no other process can open it: give "
                "artifacts= a directory or a URL"
            )
        return StoreName(Kind.FILE, "", os.path.abspath(self.path), self._options).absolute

    async def aclose(self) -> None:
        """Write what waits, and let go of all files."""
        await super().aclose()
        await asyncio.to_thread(self._database.close)
