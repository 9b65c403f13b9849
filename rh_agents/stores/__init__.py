"""Stores: where runs are recorded. Each fits the `Store` port of `rh_agents.core.ports`."""

from __future__ import annotations

import os
from pathlib import PurePath
from urllib.parse import parse_qsl, unquote, urlsplit

from rh_agents.core.ports import Store
from rh_agents.stores._files import FILE_MODE, read_mode
from rh_agents.stores.memory import MemoryStore

__all__ = ["MemoryStore", "open_store"]

_ENDINGS = (".db", ".sqlite", ".sqlite3")


def open_store(url: str | os.PathLike[str]) -> Store:
    """The store that a URL or a path names. It connects when it is first used.

    - `memory:` keeps runs until the process ends.
    - `sqlite:///runs.db` and, for short, `runs.db` are a file, relative to the working directory;
      `sqlite:////var/runs.db` has an absolute path.
    - A `pathlib.Path` is a file, whatever its name.
    - `postgresql://user@host/database` is a database that several machines can use.

    Large results are kept in a directory beside the file, or in the database. `?artifacts=...` names another directory
    or a URL that fsspec knows; `?busy_timeout=5` waits so many seconds for others that write to the file, and
    `?mode=0640` lets the group read the files that are made (0600 by default, whatever the umask).

    Raises:
        ValueError: no store has this URL, or it has no such option.
        ModuleNotFoundError: the store needs a package that is not installed; the message says which.
    """
    if not isinstance(url, str):
        return _sqlite_store(os.fspath(url), {})
    if url == "memory:":
        return MemoryStore()
    scheme = urlsplit(url).scheme if "://" in url else ""
    if scheme in ("postgresql", "postgres"):
        return _open_postgresql(url)
    if scheme == "sqlite":
        return _open_sqlite(url)
    if not scheme and PurePath(url).suffix in _ENDINGS:
        return _sqlite_store(url, {})
    shown = f"{scheme}://…" if scheme else url  # what follows a scheme may have a password
    raise ValueError(
        f"no store for {shown!r}: there are 'memory:', 'sqlite:///runs.db' (or a path that ends in .db or .sqlite) and "
        "'postgresql://host/database'"
    )


def _open_sqlite(url: str) -> Store:
    parts = urlsplit(url)
    if parts.netloc:
        raise ValueError(
            f"{url!r} has {parts.netloc!r} where a host would stand: write sqlite:///{parts.netloc}{parts.path}"
        )
    path = unquote(parts.path.removeprefix("/"))
    if not path or parts.fragment:
        raise ValueError(f"{url!r} names no file: write sqlite:///runs.db")
    return _sqlite_store(path, dict(parse_qsl(parts.query, keep_blank_values=True)))


_SQLITE_OPTIONS = ("artifacts", "busy_timeout", "mode")


def _sqlite_store(path: str, options: dict[str, str]) -> Store:
    unknown = options.keys() - set(_SQLITE_OPTIONS)
    if unknown:
        raise ValueError(
            f"a store in a file has no option {sorted(unknown)[0]!r}: there are {', '.join(_SQLITE_OPTIONS)}"
        )
    from rh_agents.stores.sqlite import SqliteStore  # noqa: PLC0415 - most programs need no database

    try:
        busy_timeout = float(options.get("busy_timeout", "30"))
    except ValueError:
        raise ValueError(f"busy_timeout is a number of seconds, not {options['busy_timeout']!r}") from None
    mode = read_mode(options["mode"]) if "mode" in options else FILE_MODE
    return SqliteStore(path, artifacts=options.get("artifacts"), busy_timeout=busy_timeout, file_mode=mode)


def _open_postgresql(url: str) -> Store:
    from rh_agents.stores.postgresql import PostgresqlStore  # noqa: PLC0415 - it needs an optional package

    return PostgresqlStore(url)
