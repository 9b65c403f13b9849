"""A PostgreSQL server of the tests' own: made in a temporary directory, on loopback, thrown away afterwards.

The fixtures at the end start it when the first test asks for it. Where there is no PostgreSQL, the tests that want it
are skipped with the reason. With CI set in the environment they fail instead, after an attempt to install the package.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.services import debian

__all__ = ["NoPostgresql", "PostgresqlServer", "find_binaries", "postgresql_server", "postgresql_url"]

OWNER = "tests"
"""The database role, and the database, that every test uses. Whoever reaches the port on loopback may be it."""
LOCKED = "locked"
"""A role that must give its password, `PASSWORD`."""
PASSWORD = "s3cret-w0rd"

_ACCESS = f"""\
host all {LOCKED} 127.0.0.1/32 scram-sha-256
host all all      127.0.0.1/32 trust
"""

_numbers = itertools.count(1)

StopMode = Literal["fast", "immediate"]
"""As for `pg_ctl`: "fast" ends all sessions and writes everything, "immediate" is a crash."""


class NoPostgresql(Exception):
    """There is no PostgreSQL server on this machine, or it does not start."""


def find_binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`: from the PATH, or the newest that Debian has installed."""
    on_path = shutil.which("initdb")
    if on_path is not None and shutil.which("postgres") is not None:
        return Path(on_path).resolve().parent
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


def install() -> None:
    """Install Debian's package, without the server that it would set up and start.

    Raises:
        NoPostgresql: this is not for us to do, or it failed.
    """
    settings = Path("/etc/postgresql-common/createcluster.conf")
    if os.geteuid() == 0 and not settings.exists():
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text("create_main_cluster = false\n")
    try:
        debian.install("postgresql")
    except debian.NotInstalled as error:
        raise NoPostgresql(str(error)) from None


class PostgresqlServer:
    """One server with a cluster of its own below `folder`. What it commits is on disk."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self.folder: Path = folder
        self._data = folder / "data"
        self._log = folder / "server.log"
        self._user = _user_for_server()
        self.port: int = 0
        if self._user is not None:
            _give(folder, self._user)

    def __repr__(self) -> str:
        return f"PostgresqlServer({self.url()})"

    def url(self, database: str = OWNER, *, user: str = OWNER, password: str | None = None, **options: str) -> str:
        """The URL of a database; `options` follow it as a query."""
        secret = "" if password is None else f":{password}"
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}{'?' if query else ''}{query}"

    @property
    def log(self) -> str:
        """What the server has logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def create(self) -> None:
        """Make the cluster, start it, and make the role and the database that tests use."""
        self._control("initdb", "-U", OWNER, "--auth=reject", "--encoding=UTF8", "--locale=C")
        (self._data / "pg_hba.conf").write_text(_ACCESS)
        self.start()
        self.execute(f"CREATE DATABASE {OWNER}", database="postgres")
        self.execute(f"CREATE ROLE {LOCKED} LOGIN PASSWORD '{PASSWORD}'")

    def start(self) -> None:
        """Start the server, on the port that it had before if it had one, and wait until it takes connections."""
        if self.port == 0:
            self.port = _free_port()
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories= -c max_connections=200"
        self._control("pg_ctl", "start", "-w", "-s", "-t", "60", "-l", str(self._log), "-o", options)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and wait until it is gone."""
        self._control("pg_ctl", "stop", "-w", "-s", "-t", "60", "-m", mode)

    def restart(self, mode: StopMode = "immediate") -> None:
        """Stop and start the server; its URLs stay the same."""
        self.stop(mode)
        self.start()

    def move(self, port: int = 0) -> None:
        """Let it crash, and start it on another port: this one, or a free one."""
        self.stop("immediate")
        self.port = port
        self.start()

    def follow(self) -> None:
        """Start the server anew as one that follows another one, which never comes: it can only be read."""
        self.stop()
        signal = self._data / "standby.signal"
        signal.touch()
        if self._user is not None:
            _give(signal, self._user)
        self.start()

    def lead(self) -> None:
        """Let it take writes again."""
        self.stop("immediate")
        (self._data / "standby.signal").unlink(missing_ok=True)
        self.start()

    def execute(
        self, statement: Any, parameters: Sequence[Any] = (), *, database: str = OWNER
    ) -> list[tuple[Any, ...]]:
        """Execute one statement on a connection of its own, and return its rows if it has any."""
        # Here, because the fixtures are imported also where the package is missing.
        import psycopg  # noqa: PLC0415

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description is not None else []

    def set(self, setting: str, value: str) -> None:
        """Change a setting for all sessions, and wait until the server has taken note of it."""
        self.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
        self._control("pg_ctl", "reload", "-s")
        while self.execute(f"SHOW {setting}") != [(value,)]:
            time.sleep(0.01)

    def _control(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments, "-D", str(self._data)]
        try:
            _run(command, user=self._user, cwd=str(self._data.parent), timeout=90)
        except NoPostgresql as error:
            raise NoPostgresql(f"{error}\n{self.log[-2000:]}") from None


def _user_for_server() -> str | None:
    """PostgreSQL refuses to run as root: then its package has made a user for it."""
    return "postgres" if os.geteuid() == 0 else None


def _give(folder: Path, user: str) -> None:
    try:
        shutil.chown(folder, user, user)
    except LookupError:
        raise NoPostgresql(f"PostgreSQL does not run as root, and there is no user {user!r}") from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(command: list[str], *, timeout: float, user: str | None = None, **options: Any) -> None:
    """Run a command to its end; its output is shown only if it fails."""
    if user is not None:
        options.update(user=user, group=user, extra_groups=[])
    with tempfile.TemporaryFile() as output:  # and not a pipe, which the server that it leaves would hold open
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=timeout, **options
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise NoPostgresql(f"{command[0]} failed: {error}") from None
        if done.returncode != 0:
            output.seek(0)
            raise NoPostgresql(f"{' '.join(command)} failed: {output.read().decode(errors='replace')[-2000:]}")


def _start_server(folder: Path) -> PostgresqlServer:
    binaries = find_binaries()
    if binaries is None and os.environ.get("CI"):
        install()
        binaries = find_binaries()
    if binaries is None:
        raise NoPostgresql("PostgreSQL is not installed (Debian: apt install postgresql)")
    server = PostgresqlServer(binaries, folder)
    server.create()
    return server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """The server, started when the first test wants it. Tests that stop it start it again."""
    with tempfile.TemporaryDirectory(prefix="rh-postgresql-") as folder:
        try:
            pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")
            server = _start_server(Path(folder))
        except (NoPostgresql, pytest.skip.Exception) as error:
            if os.environ.get("CI"):
                pytest.fail(f"CI is set, so tests of PostgreSQL must run: {error}", pytrace=False)
            pytest.skip(str(error))
        yield server
        server.stop()


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """The URL of a store in an empty schema, the test's own."""
    schema = f"test_{next(_numbers)}"
    yield postgresql_server.url(schema=schema)
    postgresql_server.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
