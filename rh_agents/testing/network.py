"""Tests that must not reach the network: whatever tries to gets an error that names the host."""

from __future__ import annotations

import asyncio.proactor_events
import ipaddress
import socket
import threading
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Self

from rh_agents.core.errors import PermanentModelError

__all__ = ["RealRequestError", "no_real_requests"]

_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback", ""})


class RealRequestError(PermanentModelError, AssertionError):
    """Something tried to reach the network where that is forbidden. Nothing was sent, and nothing is retried."""


class no_real_requests:  # noqa: N801, RUF100 - read as a phrase: `with no_real_requests():`
    """While the block lasts, each attempt to reach another host raises `RealRequestError`, which names the host.

        with no_real_requests():
            await run(workflow, "question")

    It covers what goes through Python's `socket` module, in all threads of the process: names that are looked up,
    connections, datagrams; so also asyncio, anyio, trio and every HTTP client built on them. It does not see
    other processes, nor libraries in C that open sockets by themselves (`libpq`, gRPC, uvloop). Unix sockets and pipes
    are left alone. Blocks may be nested; the innermost one decides.

    Some clients turn any error into one of their own. So what was refused is kept as well: `refused`.

    Args:
        allow_loopback: whether servers on this machine may be reached.
        allow_hosts: names or addresses of hosts that may be reached, as the program writes them.
    """

    def __init__(self, *, allow_loopback: bool = False, allow_hosts: Collection[str] = ()) -> None:
        if isinstance(allow_hosts, str):
            raise TypeError(f"allow_hosts={allow_hosts!r}: a list of hosts is needed")
        self.allow_loopback = allow_loopback
        self.allow_hosts: frozenset[str] = frozenset(allow_hosts)
        self.refused: list[str] = []
        """The hosts that were tried, with their ports where they are known, in order."""
        self._found: set[str] = set()

    def __enter__(self) -> Self:
        _switch.push(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _switch.remove(self)
        if error is not None and self.refused and not isinstance(error, RealRequestError):
            error.add_note(self.message)

    @property
    def message(self) -> str:
        """What was refused, in a sentence; "" if nothing was."""
        hosts = ", ".join(dict.fromkeys(self.refused))
        return f"real requests are forbidden here, and these hosts were tried: {hosts}" if hosts else ""

    def look_up(self, host: Any, port: Any = None) -> None:
        """Someone wants the addresses of a host.

        Raises:
            RealRequestError: that is forbidden.
        """
        if not self._allows(_text(host)):
            self._refuse(host, port)

    def found(self, host: Any, addresses: list[Any]) -> None:
        """A host that may be reached by name may be reached by the addresses of that name."""
        if _text(host) in self.allow_hosts:
            self._found.update(_text(address[0]) for *_, address in addresses)

    def connect(self, family: int, address: Any) -> None:
        """Someone wants to reach an address.

        Raises:
            RealRequestError: that is forbidden.
        """
        if family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple) or not address:
            return
        host = _text(address[0])
        if not self._allows(host):
            self._refuse(host, address[1])

    def _allows(self, host: str) -> bool:
        return host in self.allow_hosts or host in self._found or (self.allow_loopback and _is_loopback(host))

    def _refuse(self, host: Any, port: Any) -> None:
        target = f"[{_text(host)}]" if ":" in _text(host) else _text(host)
        if port is not None:
            target = f"{target}:{_text(port)}"
        self.refused.append(target)
        raise RealRequestError(
            f"real requests are forbidden here, and something tried to reach {target}; "
            "use ScriptedLLM or a cassette, or allow it: no_real_requests(allow_loopback=True, allow_hosts=[...])"
        )


class _Switch:
    """The functions of the standard library are replaced while any block is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[no_real_requests] = []
        self._replaced: list[tuple[Any, str, Any]] = []

    def push(self, guard: no_real_requests) -> None:
        with self._lock:
            if not self._open:
                self._install()
            self._open.append(guard)

    def remove(self, guard: no_real_requests) -> None:
        with self._lock:
            self._open.remove(guard)
            if not self._open:
                while self._replaced:
                    owner, name, original = self._replaced.pop()
                    if original is None:  # it was inherited
                        delattr(owner, name)
                    else:
                        setattr(owner, name, original)

    @property
    def guard(self) -> no_real_requests | None:
        """The innermost block; None for a call that was on its way when the last one ended."""
        return self._open[-1] if self._open else None

    def _install(self) -> None:
        for name in ("connect", "connect_ex"):
            self._replace(socket.socket, name, self._connecting(getattr(socket.socket, name)))
        self._replace(socket.socket, "sendto", self._sending(socket.socket.sendto))
        for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
            self._replace(socket, name, self._looking_up(getattr(socket, name)))
        # On Windows asyncio connects without the methods of the socket.
        loop = asyncio.proactor_events.BaseProactorEventLoop
        self._replace(loop, "sock_connect", self._connecting_on_a_loop(loop.sock_connect))

    def _replace(self, owner: Any, name: str, replacement: Any) -> None:
        self._replaced.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, replacement)

    def _connecting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def connect(sock: socket.socket, address: Any) -> Any:
            if self.guard is not None:
                self.guard.connect(sock.family, address)
            return original(sock, address)

        return connect

    def _connecting_on_a_loop(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def sock_connect(loop: Any, sock: socket.socket, address: Any) -> Any:
            if self.guard is not None:
                self.guard.connect(sock.family, address)
            return await original(loop, sock, address)

        return sock_connect

    def _sending(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def sendto(sock: socket.socket, data: Any, *rest: Any) -> Any:
            if rest and self.guard is not None:  # the address is the last of them; flags may come before
                self.guard.connect(sock.family, rest[-1])
            return original(sock, data, *rest)

        return sendto

    def _looking_up(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def look_up(host: Any, *rest: Any, **options: Any) -> Any:
            guard = self.guard
            if guard is None:
                return original(host, *rest, **options)
            if host is not None:  # None is an address to listen on
                guard.look_up(host, rest[0] if rest else options.get("port"))
            found = original(host, *rest, **options)
            if original.__name__ == "getaddrinfo":
                guard.found(host, found)
            return found

        return look_up


_switch = _Switch()


def _text(host: Any) -> str:
    return host.decode("ascii", "backslashreplace") if isinstance(host, bytes | bytearray) else str(host)


def _is_loopback(host: str) -> bool:
    if host.lower() in _LOCAL_NAMES or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
