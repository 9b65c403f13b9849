"""What a worker process executes: it makes the calls that come over the wire, one by one, until the wire ends."""

from __future__ import annotations

import copy
import fcntl
import io
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from rh_agents.core.context import remote_call
from rh_agents.core.usage import Usage
from rh_agents.executors._workers.calling import outcome_of
from rh_agents.executors._workers.functions import Order
from rh_agents.executors._workers.sessions import end_session
from rh_agents.executors._workers.settings import Settings
from rh_agents.executors._workers.wire import Frame, Inbox, Kind, header, in_one_piece

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(wire: int, lifeline: int, mark: int) -> None:
    """Serve the parent at the other ends of these descriptors."""
    for each in (wire, lifeline, mark):
        os.set_inheritable(each, False)
    _die_with_the_parent(lifeline)
    for number in _IGNORED:
        # The parent decides when it is over. Not SIG_IGN, which whatever a function starts would inherit.
        signal.signal(number, lambda *_: None)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    served = _Served(socket.socket(fileno=wire), mark)
    signals = _SignalsOfChildren()
    os.register_at_fork(before=signals.hold, after_in_parent=signals.let_through, after_in_child=signals.reset)
    os.register_at_fork(after_in_child=lambda: served.forget(lifeline))
    logging.root.addHandler(served.handler)
    served.serve()


def _die_with_the_parent(lifeline: int) -> None:
    """When the parent is gone, its end of the lifeline is closed, and this end has come to its end."""
    if hasattr(fcntl, "F_SETSIG"):  # Linux: the kernel sends the signal, whatever this process is at
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    # Elsewhere, or if it was gone before that:
    threading.Thread(target=_wait_for_the_end, args=(lifeline,), name="rh_agents lifeline", daemon=True).start()


def _wait_for_the_end(lifeline: int) -> None:
    with suppress(OSError):
        while os.read(lifeline, 1):
            pass
    end_session(os.getpid())


class _SignalsOfChildren:
    """What a function forks is ended with signals, as `multiprocessing` does it, also with one that comes at once."""

    def __init__(self) -> None:
        self._held = threading.local()

    def hold(self) -> None:
        self._held.before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)

    def let_through(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._held.before)

    def reset(self) -> None:
        for number in _IGNORED:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
        self.let_through()


class _Served:
    """The worker's end of the wire."""

    def __init__(self, wire: socket.socket, mark: int) -> None:
        self._wire = wire
        self._mark = mark
        self._inbox = Inbox()
        self._lock = threading.Lock()  # functions may log from threads of theirs
        self._settings: Settings | None = None
        self.handler: logging.Handler = _Forwarding(self._send)

    def forget(self, lifeline: int) -> None:
        """This is a child that a function has forked: the wire is not its own."""
        logging.root.removeHandler(self.handler)
        self._wire.close()
        with suppress(OSError):
            os.close(lifeline)

    def serve(self) -> None:
        """Make calls until the parent has no more."""
        order: Order | None = None
        for kind, content in self._frames():
            if kind is Kind.SETTINGS:
                settings: Settings = pickle.loads(content)
                settings.apply(self._settings)
                self._settings = settings
            elif kind is Kind.CALL:
                order = pickle.loads(content)
            elif kind is Kind.ARGUMENTS and order is not None:
                if self._settings is not None:
                    self._settings.enter_folder()
                self._reply(order, content)
                content.clear()

    def _frames(self) -> Iterator[Frame]:
        while True:
            try:
                count = self._wire.recv_into(self._inbox.space())
            except OSError:
                return
            if not count:
                return
            yield from self._inbox.received(count)

    def _send(self, kind: Kind, *content: bytes) -> None:
        with self._lock, suppress(OSError):  # without a parent this process ends anyway
            for piece in in_one_piece(header(kind, sum(map(len, content))), content):
                self._wire.sendall(piece)

    def _reply(self, order: Order, arguments: bytearray) -> None:
        kind, content = outcome_of(order, arguments, self._report, self._begins)
        self._send(kind, *content)

    def _begins(self) -> None:
        os.write(self._mark, b"1")

    def _report(self, usage: Usage) -> None:
        self._send(Kind.USAGE, pickle.dumps(usage))


class _Forwarding(logging.Handler):
    """Sends records to the parent, where loggers of the same names handle them."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self._send_frame = send
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Turn into text what is hard to pickle, and send the record."""
        try:
            facts = dict(copy.copy(record).__dict__)
            facts["msg"], facts["args"] = record.getMessage(), None
            call = remote_call.get()
            if call is not None:  # it may arrive when the parent makes another call
                about = call.context
                facts |= {"run_id": about.run_id, "address": about.address, "attempt": about.attempt}
            if record.exc_info:
                facts["exc_text"] = self._formatter.formatException(record.exc_info)
                facts["exc_info"] = None
            self._send_frame(Kind.LOG, _pickled_facts(facts))
        except Exception:  # noqa: BLE001 - as every handler does: logging never fails a call
            self.handleError(record)


def _pickled_facts(facts: dict[str, Any]) -> bytes:
    try:
        data = pickle.dumps(facts)
        pickle.loads(data)
    except Exception:  # noqa: BLE001 - `extra=` may hold anything
        plain = (str, int, float, type(None))
        return pickle.dumps({name: value if type(value) in plain else repr(value) for name, value in facts.items()})
    return data
