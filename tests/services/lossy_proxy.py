"""A wire to a server on loopback that can be cut at the worst moment: between a request and its answer."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

__all__ = ["LossyProxy"]


class LossyProxy:
    """Hands on what goes to a port and what comes back from it, on a port of its own, which is one of `host`."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = port
        self._listener = socket.create_server((host, 0))
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._marker: bytes | None = None
        self._to_cut: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]
        self.answer_lost: threading.Event = threading.Event()

    def lose_answer_to(self, marker: bytes) -> None:
        """Let the server answer the next request with these bytes in it, and cut the wire instead of handing that on.

        Not simply the next answer: what looks at the state of a run, about once a second, would have got that.
        """
        self._marker = marker

    def lead_to(self, port: int) -> None:
        """Hand new connections on to another port."""
        self._target = port

    def cut(self) -> None:
        """Cut all wires that there are."""
        for end in list(self._ends):
            _hang_up(end)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            _hang_up(end)
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def _start(self, function: object, *args: object) -> None:
        thread = threading.Thread(target=function, args=args)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # no one is there
                client.close()
                continue
            self._ends += [client, server]
            self._start(self._hand_on, client, server, False)
            self._start(self._hand_on, server, client, True)

    def _hand_on(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):  # the other end has hung up
            while data := source.recv(1 << 16):
                if is_answer and source in self._to_cut:
                    self.answer_lost.set()
                    break
                if not is_answer and self._marker is not None and self._marker in data:
                    self._marker = None
                    self._to_cut.add(sink)
                sink.sendall(data)
        _hang_up(sink)
        _hang_up(source)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):  # it was
        end.shutdown(socket.SHUT_RDWR)
