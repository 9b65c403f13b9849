"""Stores: where runs are recorded. Each fits the `Store` port of `rh_agents.core.ports`."""

from __future__ import annotations

import os

from rh_agents.core.ports import Store
from rh_agents.stores._files import FILE_MODE, read_mode
from rh_agents.stores._naming import Kind, StoreName, read_name
from rh_agents.stores.memory import MemoryStore

__all__ = ["MemoryStore", "open_store"]


def open_store(url: str | os.PathLike[str], *, read_only: bool = False) -> Store:
    """The store that a URL or a path names. It connects when it is first used.

    - `memory:` (or `:memory:`) keeps runs until the process ends.
    - `sqlite:///runs.db` and, for short, `runs.db` are a file, relative to the working directory;
      `sqlite:////var/runs.db` has an absolute path, and `~/runs.db` is in the home directory.
    - A `pathlib.Path` is a file, whatever its name.
    - `postgresql://user@host/database` is a database that several machines can use.

    Large results are kept in a directory beside the file, or in the database. `runs.db?artifacts=...` names another
    directory or a URL that fsspec knows; `?busy_timeout=5` waits 5 seconds for others that write to the file, and
    `?mode=0640` lets the group read the files that are made (0600 by default, whatever the umask).

    Args:
        url: where runs are recorded.
        read_only: only look at what is there: no file is made or changed, and whatever would change something raises
            `StoreError`. A database of an earlier version is read from a copy that is brought up to date.

    Raises:
        ValueError: no store has this URL, or it has no such option; the message says what would work.
        ModuleNotFoundError: the store needs a package that is not installed; the message says which.
    """
    name = read_name(url)
    if name.kind is Kind.MEMORY:
        return MemoryStore()
    if name.kind is Kind.FILE:
        return _sqlite_store(name, read_only=read_only)
    from rh_agents.stores.postgresql import PostgresqlStore  # noqa: PLC0415 - it needs an optional package

    return PostgresqlStore(name.url, read_only=read_only)


def _sqlite_store(name: StoreName, *, read_only: bool) -> Store:
    from rh_agents.stores.sqlite import SqliteStore  # noqa: PLC0415 - most programs need no database

    options = name.options
    try:
        busy_timeout = float(options.get("busy_timeout", "30"))
    except ValueError:
        raise ValueError(f"busy_timeout is a number of seconds, not {options['busy_timeout']!r}") from None
    return SqliteStore(
        name.path,
        artifacts=options.get("artifacts"),
        busy_timeout=busy_timeout,
        file_mode=read_mode(options["mode"]) if "mode" in options else FILE_MODE,
        read_only=read_only,
    )
