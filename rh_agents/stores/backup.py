"""Copies of stores in SQLite files, made while they are in use.

The database is copied first, as it is at one moment; then the large results that it may refer to, which never change
under their names; then the copy is checked. It gets its name at the end, so it is complete or not there.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import apsw

from rh_agents.core.errors import StoreError
from rh_agents.stores._files import FILE_MODE, create_file, make_directory
from rh_agents.stores._sqlite.database import reason_of, sync_directory
from rh_agents.stores.artifacts import ArtifactStore, FileArtifacts
from rh_agents.stores.sqlite import SqliteStore

__all__ = ["Backup", "back_up"]

_PATIENCE = 30_000
"""Milliseconds to wait for who holds the database."""


class Backup(NamedTuple):
    """What was copied.

    Attributes:
        path: the database; large results are in the directory `<path>-artifacts`.
        runs: how many runs are in it.
        size: bytes of the database.
        large_results: how many were copied; None if they are at a URL, which is left to those who run it.
    """

    path: Path
    runs: int
    size: int
    large_results: int | None


async def back_up(store: SqliteStore, path: Path | str) -> Backup:
    """Copy a store into a new file, with the large results beside it, while others go on using it.

    Args:
        store: what is copied.
        path: the new file; its directory is made. It is for its owner alone.

    Raises:
        StoreError: there is such a file already, or the log of one that had the name; something cannot be read or
            written; or the copy has damage, which the message names. Then there is no new file.
    """
    return await asyncio.to_thread(_made, store, path)


def _made(store: SqliteStore, path: Path | str) -> Backup:
    target = Path(path).absolute()
    _expect_nothing_there(target)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    kept = FileArtifacts(f"{target}-artifacts")
    had_results, is_made = kept.directory.exists(), False
    try:
        make_directory(target.parent, sync_directory, FILE_MODE)
        os.close(create_file(os.fspath(partial), os.O_RDWR, FILE_MODE))
        _copy_database(store.path.absolute(), partial)
        copied = _copy_artifacts(store.large_results, kept)
        runs = asyncio.run(_checked(partial, kept))
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(target)
        sync_directory(target.parent)
        is_made = True
    except (apsw.Error, OSError) as error:
        raise StoreError(f"{target}: the copy could not be made: {reason_of(error)}") from error
    finally:
        for each in target.parent.glob(f"{partial.name}*"):
            with suppress(OSError):
                each.unlink()
        if not is_made and not had_results:  # they may be what has filled the disk
            shutil.rmtree(kept.directory, ignore_errors=True)
    return Backup(target, runs, target.stat().st_size, copied)


def _expect_nothing_there(target: Path) -> None:
    """Refuse a name that is used, also by a link that leads nowhere.

    Raises:
        StoreError: it is, or SQLite would take a log of another database for one of the copy, and change it by that.
    """
    if target.exists() or target.is_symlink():
        raise StoreError(f"{target}: it is there already; name another file")
    for kind in ("wal", "journal"):
        log = target.with_name(f"{target.name}-{kind}")
        if log.exists():
            raise StoreError(
                f"{log}: it is the log of a database that had this name, and would change the copy; "
                "move it away, or name another file"
            )


def _copy_database(source: Path, target: Path) -> None:
    """In one step, so that it is a copy of one moment; who writes to the log of SQLite is not in the way."""
    flags = apsw.SQLITE_OPEN_READWRITE
    here, there = (apsw.Connection(os.fspath(each), flags=flags) for each in (source, target))
    try:
        here.set_busy_timeout(_PATIENCE)
        with there.backup("main", here, "main") as copy:
            copy.step()
        there.pragma("journal_mode", "delete")  # no log beside it; who opens it makes one again
    finally:
        here.close()
        there.close()


def _copy_artifacts(source: ArtifactStore, target: FileArtifacts) -> int | None:
    if not isinstance(source, FileArtifacts):
        return None
    digests = [each.digest for each in source.digests()]
    for digest in digests:
        target.put(source.get(digest))
    return len(digests)


async def _checked(path: Path, artifacts: FileArtifacts) -> int:
    """How many runs there are in a copy.

    Raises:
        StoreError: it is damaged.
    """
    copy = SqliteStore(path, artifacts=artifacts, read_only=True)
    try:
        damage = await copy.check()
        if damage:
            more = f", and {len(damage) - 1} more" if len(damage) > 1 else ""
            raise StoreError(f"{path.name}: the copy has damage, so it is not kept: {damage[0]}{more}")
        return len(await copy.runs())
    finally:
        await copy.aclose()
