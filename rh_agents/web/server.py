"""The process: one port, one store, one page."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import uvicorn

from rh_agents.core.errors import UsageError
from rh_agents.core.ports import Store
from rh_agents.web.acting import Acting, Resuming
from rh_agents.web.app import About, make_app
from rh_agents.web.codes import CodeBox, private_folder
from rh_agents.web.guard import Guard
from rh_agents.web.reading import Reading

__all__ = ["Settings", "new_address", "serve"]

_GRACE: Final = 2
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Settings:
    """How the page is served.

    Attributes:
        port: 0 takes any that is free.
        host: the address to listen at.
        allow_hosts: further `NAME:PORT` that browsers may call this server.
        read_only: nothing can be changed.
        author: who asks for changes, for the audit trail.
        store_option: what a command needs to find the same store.
        about: what else the page says of its server.
        resuming: starts runs again; None if that is not for the page.
    """

    port: int = 0
    host: str = "127.0.0.1"
    allow_hosts: Sequence[str] = ()
    read_only: bool = False
    author: str | None = None
    store_option: str = ""
    about: About = field(default_factory=dict)
    resuming: Resuming | None = None

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach it."""
        return self.host in _LOOPBACK


async def serve(store: Store, settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve the page until the process is asked to end.

    Args:
        store: what is shown; not closed here.
        settings: how.
        ready: called with the address that lets a browser in, once.

    Raises:
        UsageError: the port is in use.
        NotPrivate: there is no folder that only this user can read.
    """
    listener = _listener(settings)
    port = listener.getsockname()[1]
    closing = asyncio.Event()
    folder = private_folder(str(port))
    (folder / "process").write_text(str(os.getpid()))
    (folder / "address").write_text(_base(settings.host, port))
    codes = CodeBox(folder, time.time)
    about = {
        "read_only": settings.read_only,
        "allow_resume": settings.resuming is not None,
        **settings.about,
    }
    acting = Acting(store, settings.author, settings.store_option, settings.resuming)
    app = make_app(Reading(store), acting, about, closing)
    hosts = _hosts(settings, port)
    guard = Guard(app, hosts=hosts, port=port, redeem=codes.redeem, read_only=settings.read_only)
    config = uvicorn.Config(
        guard, log_level="warning", access_log=False, server_header=False, date_header=False, lifespan="off",
        timeout_graceful_shutdown=_GRACE, ws="none",
    )  # fmt: skip
    server = _Server(config, closing, lambda: ready(f"{_base(settings.host, port)}/?code={codes.issue()}"))
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        closing.set()
        await serving
        raise
    finally:
        (folder / "process").unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """Says when it listens, and lets streams end when it is to stop."""

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._closing = closing
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        self._closing.set()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal asks the process to end."""
        self._closing.set()
        super().handle_exit(sig, frame)


def _listener(settings: Settings) -> socket.socket:
    if not settings.host:  # would stand for every address
        raise UsageError("an address to listen at is missing; 0.0.0.0 stands for all of them")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would let another process listen at the same port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen at {settings.host}:{settings.port}: {error.strerror}") from error
    return listener


def _base(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _hosts(settings: Settings, port: int) -> list[str]:
    own = [f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
    if not settings.is_local:
        own.append(_base(settings.host, port).removeprefix("http://"))
    return [*own, *settings.allow_hosts]


def new_address(port: int) -> str:
    """Another address, with a code of its own, for the page that listens at a port."""
    folder = private_folder(str(port))
    return f"{(folder / 'address').read_text()}/?code={CodeBox(folder, time.time).issue()}"
