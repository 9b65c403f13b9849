"""PgBouncer in transaction mode before the tests' PostgreSQL server, on loopback, thrown away afterwards.

It gives the sessions of the server out in turn, so that two transactions of a client one after the other hardly ever
have the same one: whoever relies on something that belongs to a session is found out. Where there is no PgBouncer
(Debian's package `pgbouncer`), tests that want it are skipped with the reason; with CI set in the environment they
fail instead, after an attempt to install it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.services import debian
from tests.services.postgresql import OWNER, PostgresqlServer

__all__ = ["PgBouncer", "pgbouncer"]

SESSIONS = 5
"""So many sessions of the server are there for all clients."""
_PATIENCE = 20.0

_SETTINGS = """\
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = {sessions}
max_client_conn = 300
server_round_robin = 1
server_login_retry = 0.2
"""


class PgBouncer:
    """One pooler, with its settings below `folder`."""

    def __init__(self, folder: Path, server: PostgresqlServer, mode: str = "transaction") -> None:
        self._folder = folder
        self._server = server
        self._mode = mode
        self._process: subprocess.Popen[bytes] | None = None
        self.port: int = 0

    def url(self, **options: str) -> str:
        """The URL of the tests' database through the pooler; `options` follow it as a query."""
        return self._server.url(**options).replace(f":{self._server.port}/", f":{self.port}/")

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        settings = _SETTINGS.format(
            server=self._server.port, port=self.port, folder=self._folder, mode=self._mode, sessions=SESSIONS
        )
        (self._folder / "settings.ini").write_text(settings)
        (self._folder / "users").write_text(f'"{OWNER}" ""\n')
        self._folder.chmod(0o755)
        log = self._folder / "log"
        is_root = os.geteuid() == 0  # it refuses to run as root
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [_find() or "pgbouncer", str(self._folder / "settings.ini")],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, user="postgres" if is_root else None,
            )  # fmt: skip
        ends_at = time.monotonic() + _PATIENCE
        while not self._takes_connections():
            assert self._process.poll() is None and time.monotonic() < ends_at, log.read_text()  # noqa: PT018
            time.sleep(0.02)

    def _takes_connections(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(_PATIENCE)


def _find() -> str | None:
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@pytest.fixture(scope="session")
def pgbouncer(postgresql_server: PostgresqlServer) -> Iterator[PgBouncer]:
    """A pooler in transaction mode, started when the first test wants it."""
    if _find() is None and os.environ.get("CI"):
        try:
            debian.install("pgbouncer")
        except debian.NotInstalled as error:
            pytest.fail(f"CI is set, so tests of PgBouncer must run: {error}", pytrace=False)
    if _find() is None:
        pytest.skip("PgBouncer is not installed (Debian: apt install pgbouncer)")
    with tempfile.TemporaryDirectory(prefix="rh-pgbouncer-") as folder:
        pooler = PgBouncer(Path(folder), postgresql_server)
        try:
            pooler.start()
            yield pooler
        finally:
            pooler.stop()
