"""What stands between the store and psycopg: connections, their errors, and values as PostgreSQL takes them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, Final
from urllib.parse import unquote

import psycopg
import psycopg_pool
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import TextBinaryLoader
from psycopg_pool import ConnectionPool

from rh_agents.core.errors import StoreError
from rh_agents.core.redaction import logger
from rh_agents.stores._backend import ConnectionLost
from rh_agents.stores._postgresql.connection import PoolMode, StoreConnection

DEFAULT_SCHEMA = "rh_agents"
"""Where the tables are, unless the URL names another schema."""

_LOG = logger("rh_agents.stores.postgresql")

# --- text ------------------------------------------------------------------------------------------------------------

_SPECIAL: Final = re.compile("[\\\\\0\ud800-\udfff]")
_ESCAPED: Final = re.compile(r"\\(\\|u[0-9a-f]{4})")


def as_text(text: str) -> str:
    r"""Any text in a form that PostgreSQL can hold: a NUL and half of a surrogate pair become `\u0000` and the like.

    A backslash is doubled, so that `from_text` gives back exactly what was there. Most texts are as they were.
    """
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda found: "\\\\" if found[0] == "\\" else f"\\u{ord(found[0]):04x}", text)


def from_text(text: str) -> str:
    """The text of which `as_text` made this."""
    if "\\" not in text:
        return text
    return _ESCAPED.sub(lambda found: "\\" if found[1] == "\\" else chr(int(found[1][1:], 16)), text)


# --- arrays ----------------------------------------------------------------------------------------------------------

_LENGTH: Final = struct.Struct(">i").pack
_NULL: Final = b"\xff\xff\xff\xff"
_FIXED: Final = {"bool": (1, "?"), "int4": (4, "i"), "int8": (8, "q"), "float8": (8, "d")}
"""Kinds of which every value has the same size: that, and the sign by which `struct` knows them."""
_OIDS: Final = {"bool": (16, 1000), "bytea": (17, 1001), "int8": (20, 1016), "int4": (23, 1007), "text": (25, 1009)} | {
    "float8": (701, 1022)
}


class Array:
    """A column of values as one parameter, in PostgreSQL's binary form.

    A batch of rows is written as one array for each of its columns: one message to the server and one release of the
    interpreter's lock, where a row at a time costs both for every row.
    """

    __slots__ = ("data", "kind")

    def __init__(self, kind: str, values: Sequence[Any]) -> None:
        self.kind: str = kind
        self.data: bytes = struct.pack(">iiiii", 1, 1, _OIDS[kind][0], len(values), 1) + _packed(kind, values)


def _packed(kind: str, values: Sequence[Any]) -> bytes:
    """The elements one after the other, each with its length before it.

    Half of the time that a batch costs is spent here, so what is the same in many rows is packed once.
    """
    if kind == "float8":  # here 0.0 and -0.0 are equal, and not the same
        return _packed_one_by_one(kind, values)
    distinct = set(values)
    if len(distinct) * 2 > len(values):
        return _packed_one_by_one(kind, values)
    once = list(distinct)
    packed = dict(zip(once, [_packed_one_by_one(kind, [value]) for value in once], strict=True))
    return b"".join(map(packed.__getitem__, values))


def _packed_one_by_one(kind: str, values: Sequence[Any]) -> bytes:
    if kind in _FIXED:
        size, code = _FIXED[kind]
        if None not in values:
            # All at once: pairs of the size and the value.
            return struct.pack(">" + ("i" + code) * len(values), *chain.from_iterable(zip(repeat(size), values)))
        pack = struct.Struct(f">i{code}").pack
        return b"".join([_NULL if value is None else pack(size, value) for value in values])
    if kind == "text":
        values = [None if value is None else as_text(value).encode() for value in values]
    return b"".join([_NULL if value is None else _LENGTH(len(value)) + value for value in values])


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def get_key(self, obj: Array, format: Any) -> Any:  # noqa: A002 - psycopg's name
        return (Array, obj.kind)

    def upgrade(self, obj: Array, format: Any) -> _ArrayDumper:  # noqa: A002 - psycopg's name
        dumper = _ArrayDumper(Array)
        dumper.oid = _OIDS[obj.kind][1]
        return dumper

    def dump(self, obj: Array) -> Buffer:
        return obj.data


class _TextDumper(Dumper):
    """Text parameters may hold anything."""

    oid = 25

    def dump(self, obj: str) -> Buffer:
        return as_text(obj).encode()


class _TextLoader(Loader):
    """Texts come back as they were."""

    def load(self, data: Buffer) -> str:
        return from_text(str(data, "utf-8"))


class _BinaryTextLoader(_TextLoader):
    format = Format.BINARY


def plain_text(cursor: psycopg.Cursor[Any]) -> None:
    """Let a cursor give texts as they are stored, which is faster."""
    cursor.adapters.register_loader("text", TextBinaryLoader)


# --- errors ----------------------------------------------------------------------------------------------------------


_NO_WAY: Final = ("08", "57P01", "57P02", "57P03", "57P05", "25006")
"""How states begin that say that there is no way to a server that writes, or that it broke: connections, shutdowns and
crashes; a server that has become one that only follows another one."""


def _is_lost(error: psycopg.Error) -> bool:
    """Whether the way to the server broke, or there is none: then another attempt may have more luck."""
    if isinstance(error, psycopg_pool.PoolTimeout):
        return False  # that was an attempt of several seconds
    if error.sqlstate is None:  # said by the client
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_NO_WAY)


def _reason(error: psycopg.Error) -> str:
    """One line that says what the server, or the way to it, has to say. Its details may show data, so they stay out."""
    text = error.diag.message_primary or str(error) or type(error).__name__
    return " ".join(text.split())


# --- the database ----------------------------------------------------------------------------------------------------

_SECONDS_TO_CONNECT: Final = 10.0
_MOST_CONNECTIONS: Final = 8
"""So many threads of one store read at the same time; others wait."""
_DEFAULTS: Final = {
    "application_name": "rh_agents",
    "connect_timeout": str(int(_SECONDS_TO_CONNECT)),
    # So that a cable that was cut is noticed well before the operating system would.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


@dataclass(frozen=True)
class Database:
    """Which database it is, and how to reach it.

    Attributes:
        parameters: of the connection, as libpq knows them, the password among them if one was given.
        schema: where the tables are.
        place: the same for people: a URL without the password.
        pool_mode: how long a session of the server is ours; None: each connection finds out.
    """

    parameters: Mapping[str, Any] = field(repr=False)
    schema: str
    place: str
    pool_mode: PoolMode | None = None

    def connect(self) -> StoreConnection:
        """A new connection, in which every statement is a transaction unless one is begun.

        Raises:
            StoreError: there is none to be had, or the database cannot hold every text.
        """
        with self.errors("no connection"):
            connection = StoreConnection.connect(**self.parameters, autocommit=True)
        try:
            self.prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def pool(self) -> ConnectionPool[StoreConnection]:
        """Connections for threads that read. None is made before the first one is needed; `close` it at the end."""
        return ConnectionPool(
            connection_class=StoreConnection,
            kwargs={**self.parameters, "autocommit": True},
            min_size=0,
            max_size=_MOST_CONNECTIONS,
            timeout=_SECONDS_TO_CONNECT,
            reconnect_timeout=_SECONDS_TO_CONNECT,
            configure=self.prepare,
            check=_expect_alive,
            name=self.place,
            open=True,
        )

    def prepare(self, connection: StoreConnection) -> None:
        """Settle what must be the same for every statement."""
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise StoreError(f"{self.place} has the encoding {encoding}: a database for runs needs UTF8")
        connection.adapters.register_dumper(Array, _ArrayDumper)
        connection.adapters.register_dumper(str, _TextDumper)
        connection.adapters.register_dumper(int, Int8Dumper)  # one type, so one prepared statement
        connection.adapters.register_loader("text", _TextLoader)
        connection.adapters.register_loader("text", _BinaryTextLoader)
        with self.errors("the session could not be set up"):
            connection.settle(self.schema, self.pool_mode)

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Whatever psycopg raises inside becomes a `StoreError` that tells what could not be done, and why."""
        try:
            yield
        except psycopg.Error as error:
            raise self.error(what, error) from error

    def error(self, what: str, error: psycopg.Error) -> StoreError:
        """The error of this library for one of psycopg's."""
        reason = _reason(error)
        password = self.parameters.get("password")
        if password:
            reason = reason.replace(str(password), "***")
        kind = ConnectionLost if _is_lost(error) else StoreError
        return kind(f"{self.place}: {what}: {reason}")

    def limitations(self, connection: StoreConnection) -> list[str]:
        """What the way to the server keeps a store from, as sentences for people."""
        found = []
        if connection.is_shared:
            found.append(
                "a pooler gives each transaction another session of the server, so statements are not prepared, and "
                "news of other processes is asked for twice a second"
                + ("" if self.pool_mode else "; if it gives each client its own, add pool_mode=session to the URL")
            )
        if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
            found.append(
                "the server only follows another one, so runs can be looked at and nothing else, and news of other "
                "processes is asked for twice a second"
            )
        return found

    def warn_if_unsafe(self, connection: psycopg.Connection[Any]) -> None:
        """Log it if the server is configured not to keep its promises."""
        for setting in ("fsync", "full_page_writes"):
            row = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone()
            if row is not None and row[0] == "off":
                _LOG.warning(
                    "%s runs with %s=off: after a power cut, runs that were recorded may be lost or damaged",
                    self.place,
                    setting,
                )


_HOST: Final = r"(\[[0-9A-Za-z:.%]*\]|[^@/:,\[\]]*)(:[0-9]*)?"
_URL: Final = re.compile(rf"postgres(ql)?://([^@/]*@)?{_HOST}(,{_HOST})*(/[^@/]*)?")


def _expect_alive(connection: psycopg.Connection[Any]) -> None:
    """Raise if a connection has died while nobody used it, for instance with its server. Costs no way to the server."""
    connection.pgconn.consume_input()  # may be the server's farewell
    connection.pgconn.consume_input()  # then this is the end of the line


def is_alive(connection: psycopg.Connection[Any]) -> bool:
    """Whether a connection that nobody uses at this moment can be used. Costs no way to the server."""
    try:
        _expect_alive(connection)
    except psycopg.Error:
        return False
    return not connection.closed


_OWN_OPTIONS: Final = ("schema", "artifacts", "mode", "pool_mode")


def read_url(url: str, schema: str | None = None) -> tuple[Database, dict[str, str]]:
    """The database that a URL names, and the options in it that are not the driver's.

    These are `schema`, `artifacts`, `mode` and `pool_mode`. The argument `schema` overrides the one in the URL.

    Raises:
        StoreError: it is no URL of a PostgreSQL database, or its `pool_mode` is none.
    """
    base, _, query = url.partition("?")
    own: dict[str, str] = {}
    others: list[str] = []
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name in _OWN_OPTIONS:
            own[name] = unquote(value)
        else:
            others.append(pair)
    try:
        given = conninfo_to_dict("?".join([base, "&".join(others)]) if others else base)
    except psycopg.Error:
        given = {}
    # Not a word about what is wrong: in a URL with a mistake in it, parts of the password stand at other places.
    if _URL.fullmatch(base) is None or not given:
        raise StoreError(
            "this is no URL of a PostgreSQL database: postgresql://user:password@host:port/database?option=value, "
            "in which signs like @ : / ? # of a password are written as %40 %3A %2F %3F %23"
        )
    parameters = {**_DEFAULTS, **given, "client_encoding": "UTF8"}
    schema = schema or own.get("schema") or DEFAULT_SCHEMA
    return Database(parameters, schema, _place(given), _pool_mode(own.get("pool_mode"))), own


def _pool_mode(text: str | None) -> PoolMode | None:
    if text is None:
        return None
    try:
        return PoolMode(text)
    except ValueError:
        modes = " or ".join(PoolMode)
        raise StoreError(f"pool_mode={text} in the URL of the store: it is {modes}, or left out to find out") from None


def _place(given: Mapping[str, Any]) -> str:
    """The URL again, without the password and without options."""
    user, host, port, name = (str(given.get(part) or "") for part in ("user", "host", "port", "dbname"))
    return f"postgresql://{user}{'@' if user else ''}{host}{':' if port else ''}{port}/{name}"
