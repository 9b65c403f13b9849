"""Queries of databases: the rows of their results as items, which the database keeps until they are asked for.

SQLite is read with the standard library, PostgreSQL with psycopg. A row is a mapping from the names of the columns to
values of Python. Nothing is written: both are opened for reading only. Of PostgreSQL a thousand rows are fetched at a
time from a cursor on the server, which outlives its transaction, so that a job of hours holds no snapshot.

A command is recorded with its run, and a password must not be. So a URL has none, or is in a variable that the command
names: `env:DATABASE_URL`.
"""

from __future__ import annotations

import datetime
import decimal
import os
import re
import sqlite3
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rh_agents.cli.errors import CommandError, close_names
from rh_agents.cli.input.lines import Item

__all__ = ["Query", "file_of_database", "is_database", "open_query"]

_AT_ONCE: Final = 1000
"""Rows that are fetched together."""
_VARIABLE: Final = "env:"
_POSTGRESQL: Final = ("postgresql://", "postgres://")
_SQLITE: Final = "sqlite:///"
_VALUES: Final = (
    bool, int, float, str, bytes, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, list,
    dict,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Query:
    """A query that has been made.

    Attributes:
        items: its rows, read when they are asked for.
        may_block: whether the next row may be long in coming.
        close: leaves the database.
    """

    items: Iterator[Item]
    may_block: bool
    close: Callable[[], None]


def is_database(source: str) -> bool:
    """Whether an input is a database by its name: a URL, or a variable that has one."""
    return source.startswith((_VARIABLE, _SQLITE, *_POSTGRESQL))


def file_of_database(source: str) -> str | None:
    """The file of a database of SQLite; None of what is no file."""
    if source.startswith(_SQLITE):
        return urllib.parse.unquote(source.removeprefix(_SQLITE).partition("?")[0])
    return None if is_database(source) else source


def open_query(source: str, query: str, id_field: str, *, must_have_id: bool) -> Query:
    """Ask a database.

    Args:
        source: its URL, the path of a database of SQLite, or `env:NAME` for a variable that has one of these.
        query: what to ask, in its SQL.
        id_field: the column that names an item.
        must_have_id: there must be one of this name.

    Raises:
        CommandError: there is no such database, or it refuses the query.
    """
    url = _resolved(source)
    rows = _Rows(source, id_field, must_have_id)
    if url.startswith(_POSTGRESQL):
        return _ask_postgresql(url, query, rows)
    path = file_of_database(url)
    if path is None or "://" in path:
        raise CommandError(f"{source}: --query reads sqlite:///FILE, the FILE itself, or postgresql://HOST/DATABASE")
    return _ask_sqlite(path, query, rows)


def _resolved(source: str) -> str:
    if source.startswith(_VARIABLE):
        name = source.removeprefix(_VARIABLE)
        if name not in os.environ:
            raise CommandError(f"{source}: there is no variable {name}")
        return os.environ[name]
    if source.startswith(_POSTGRESQL) and _has_password(source):
        raise CommandError(
            "the command is recorded with its run, so a password must not be in it: put the URL into a variable and "
            "name that, as in env:DATABASE_URL, or the password into PGPASSWORD or ~/.pgpass"
        )
    return source


def _has_password(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    return ":" in parts.netloc.rpartition("@")[0] or re.search(r"(^|&)password=", parts.query) is not None


class _Rows:
    """Makes items of rows.

    Args:
        name: of the database, for people.
        id_field, must_have_id: as in `open_query`.
    """

    def __init__(self, name: str, id_field: str, must_have_id: bool) -> None:
        self.name = name
        self._id_field = id_field
        self._must_have_id = must_have_id
        self._columns: list[str] = []

    def expect_columns(self, description: Sequence[Any] | None) -> None:
        """Look at what columns a result has."""
        self._columns = columns = [each[0] for each in description or ()]
        if not columns:
            raise CommandError(f"{self.name}: the query gives no rows: --query reads what a `select` gives")
        twice = next((name for name in columns if columns.count(name) > 1), None)
        if twice is not None:
            raise CommandError(f"{self.name}: two columns of the query are named {twice!r}: rename one with `as`")
        if self._must_have_id and self._id_field not in columns:
            raise CommandError(
                f"--id-field {self._id_field}: the query has no such column; there are {', '.join(columns[:20])}"
                f"{close_names(self._id_field, columns)}"
            )

    def items(self, rows: Iterator[Sequence[Any]], errors: tuple[type[Exception], ...]) -> Iterator[Item]:
        """The rows as items, and what the database raises as a `CommandError`."""
        number = 0
        try:
            for number, row in enumerate(rows, start=1):
                value = dict(zip(self._columns, row, strict=True))
                for name, field in value.items():
                    if field is not None and not isinstance(field, _VALUES):
                        raise CommandError(
                            f"{self.name}: column {name!r} has values of the type {type(field).__name__}, which no "
                            "item can have: cast them to text",
                            exit_code=1,
                        )
                named = value.get(self._id_field)
                yield Item(f"{self.name}:{number}", number if named is None else named, value)
        except errors as error:
            raise CommandError(f"{self.name}:{number + 1}: {_reason(error)}", exit_code=1) from error


def _ask_sqlite(path: str, query: str, rows: _Rows) -> Query:
    if not os.path.isfile(path):
        raise CommandError(f"cannot read {rows.name}: there is no such file")
    uri = f"file:{urllib.parse.quote(os.path.abspath(path))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
    try:
        cursor = connection.execute(query)
        cursor.arraysize = _AT_ONCE
        rows.expect_columns(cursor.description)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        connection.close()
        raise CommandError(f"{rows.name}: {_reason(error)}") from error
    except CommandError:
        connection.close()
        raise
    return Query(rows.items(cursor, (sqlite3.Error, ValueError)), False, connection.close)


def _ask_postgresql(url: str, query: str, rows: _Rows) -> Query:
    try:
        import psycopg  # noqa: PLC0415 - an optional package
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise CommandError(f"{rows.name} needs psycopg: pip install 'rh_agents[postgresql]'") from error
    try:
        connection = psycopg.connect(url, application_name="rh-agents map")
    except (psycopg.Error, UnicodeError) as error:
        raise CommandError(f"cannot read {rows.name}: {_reason(error)}", exit_code=1) from error
    try:
        connection.autocommit = True
        connection.execute("set session characteristics as transaction read only")
        with connection.transaction():
            connection.execute(b"declare items cursor with hold for " + query.encode())
        rows.expect_columns(connection.execute("fetch forward 0 from items").description)
    except psycopg.Error as error:
        connection.close()
        raise CommandError(f"{rows.name}: {_reason(error)}") from error
    except BaseException:
        connection.close()
        raise

    def fetched() -> Iterator[Sequence[Any]]:
        # Not a cursor of psycopg: that of a server cannot be left to another thread when the job ends.
        while some := connection.execute(b"fetch forward %d from items" % _AT_ONCE).fetchall():
            yield from some

    return Query(rows.items(fetched(), (psycopg.Error, ValueError)), True, connection.close)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
