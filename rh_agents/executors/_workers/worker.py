"""One worker process, as its parent sees it."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from rh_agents.core.context import report_usage
from rh_agents.core.errors import DefinitionError, WorkerLost
from rh_agents.core.redaction import logger
from rh_agents.executors._workers.functions import Order
from rh_agents.executors._workers.sessions import end_session, kill_group
from rh_agents.executors._workers.settings import Settings
from rh_agents.executors._workers.wire import Frame, Inbox, Kind, header, in_one_piece

_LOG = logger("rh_agents.executors")

_COMMAND = (
    "import os, sys; sys.path[:] = sys.argv.pop().split(os.pathsep); "
    "from rh_agents.executors._workers.main import main; main(*map(int, sys.argv[1:]))"
)
_TIME_TO_LEAVE = 2.0
"""Seconds that an idle worker has for its `atexit` functions."""
_TIME_TO_DIE = 5.0
"""Seconds after which a process that has closed its wire and does not end is killed."""


class Worker:
    """Starts a process, and makes calls in it, one at a time.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, forget: Callable[[Worker], None]) -> None:
        self._forget = forget
        self.calls: int = 0
        """How many it has been given."""
        self.idle_since: float = time.monotonic()
        self.is_dead: bool = False
        self.is_idle: bool = False
        """Whether it makes no call and belongs to no one; set and read under `reading`."""
        self.reading: threading.Lock = threading.Lock()  # the wire has one reader at a time
        self._inbox = Inbox()
        self._settings: Settings | None = None
        self._lock = threading.Lock()  # no signal goes to a process whose id another one may have by now
        self._ended = threading.Event()
        self._timer: threading.Timer | None = None
        self._wire, theirs = socket.socketpair()
        self._wire.setblocking(False)
        lifeline, self._lifeline = os.pipe()
        marked, mark = os.pipe()
        os.set_blocking(marked, False)
        self._mark = io.FileIO(marked, "rb")
        try:
            descriptors = (theirs.fileno(), lifeline, mark)
            self._process = subprocess.Popen(
                _command(descriptors), stdin=subprocess.DEVNULL, pass_fds=descriptors, start_new_session=True
            )
        except BaseException:
            self._wire.close()
            os.close(self._lifeline)
            self._mark.close()
            raise
        finally:
            theirs.close()
            os.close(lifeline)
            os.close(mark)
        self._watcher = threading.Thread(target=self._watch, name="rh_agents worker watcher", daemon=True)
        self._watcher.start()

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    # -- its end -------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Wait until the process has ended, then end what it has left behind."""
        if hasattr(os, "waitid"):  # not to reap it yet: its id, which is that of its group, stays its own
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        else:  # pragma: no cover - macOS
            self._process.wait()
        with self._lock:
            end_session(self.pid)
            self._process.wait()
            self.is_dead = True
        if self._timer is not None:
            self._timer.cancel()
        self._ended.set()
        with suppress(OSError):  # a process that it forked may hold the other end open
            self._wire.shutdown(socket.SHUT_RDWR)
        os.close(self._lifeline)
        self._forget(self)

    def kill(self) -> None:
        """End the process at once, in the middle of whatever it does, with all that it has started."""
        with self._lock:
            if not self.is_dead:
                kill_group(self.pid)  # the rest of its session follows in the watching thread
        self.let_go()

    def retire(self) -> None:
        """Let the idle process end by itself; after some time it is killed."""
        self._timer = threading.Timer(_TIME_TO_LEAVE, self.kill)
        self._timer.daemon = True
        self._timer.start()
        self.let_go()

    def let_go(self) -> None:
        """Close what leads to the process, which ends when it is idle."""
        self._wire.close()
        self._mark.close()

    def join(self, seconds: float) -> bool:
        """Wait until it has ended; False if it has not in this time."""
        return self._ended.wait(seconds)

    def forget_after_fork(self) -> None:
        """In a forked child of the parent: the worker is not its own."""
        self.is_dead = True
        self.let_go()
        with suppress(OSError):
            os.close(self._lifeline)

    # -- its calls -----------------------------------------------------------------------------------------------------

    async def call(self, order: Order, arguments: Sequence[bytes], max_lost: int) -> Frame:
        """Let the process make a call; gives the frame with what it returned or raised.

        If this raises anything, the process may be at work still: `kill` it.

        Raises:
            WorkerLost: the process has died.
        """
        self.calls += 1
        self._take_mark()
        try:
            await self._send_call(order, arguments)
            result: Frame | None = None
            while result is None:
                for frame in await self._receive():  # all of them: a thread may log beside the result
                    result = frame if _is_result(frame) else result
            return result
        except (ConnectionError, EOFError) as error:
            reason = await self._reason_of_its_end()
            raise WorkerLost(f"the worker process {reason}", has_begun=self._take_mark(), max_lost=max_lost) from error

    def _take_mark(self) -> bool:
        """Whether a function has been called since this was asked last."""
        return bool(self._mark.read(1))

    async def _send_call(self, order: Order, arguments: Sequence[bytes]) -> None:
        settings = Settings.now()
        begin = b""
        if settings != self._settings:
            begin = _frame(Kind.SETTINGS, pickle.dumps(settings))
            self._settings = settings
        begin += _frame(Kind.CALL, pickle.dumps(order, pickle.HIGHEST_PROTOCOL))
        begin += header(Kind.ARGUMENTS, sum(map(len, arguments)))
        send = asyncio.get_running_loop().sock_sendall
        for piece in in_one_piece(begin, arguments):
            await send(self._wire, piece)

    async def _receive(self) -> list[Frame]:
        count = await asyncio.get_running_loop().sock_recv_into(self._wire, self._inbox.space())
        if not count:
            raise EOFError
        return list(self._inbox.received(count))

    # -- between its calls ---------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor of the wire; -1 if it is closed."""
        return self._wire.fileno()

    def read_while_idle(self) -> bool:
        """Take in what threads of its functions have sent; False if it is not idle any more, or has ended."""
        with self.reading:
            if not self.is_idle:
                return False
            try:
                count = self._wire.recv_into(self._inbox.space())
            except BlockingIOError:
                return True
            except OSError:
                return False
            frames = list(self._inbox.received(count))
        for frame in frames:
            _is_result(frame)
        return count > 0

    async def _reason_of_its_end(self) -> str:
        """Why the process has ended, in words."""
        ended = await asyncio.to_thread(self._ended.wait, _TIME_TO_DIE)
        if not ended:
            return "closed its connection"
        status = self._process.returncode
        if status == -signal.SIGKILL:
            return "was killed by signal 9 (out of memory?)"
        if status < 0:
            with suppress(ValueError):
                return f"was killed by signal {-status} ({signal.Signals(-status).name})"
            return f"was killed by signal {-status}"
        return f"ended with exit code {status} in the middle of its call"


def _frame(kind: Kind, content: bytes) -> bytes:
    return header(kind, len(content)) + content


def _command(descriptors: Sequence[int]) -> list[str]:
    """A new interpreter with the options of this one, which finds this package where it was found here."""
    if not sys.executable:
        raise DefinitionError("engine='process' needs a Python to start, and sys.executable names none")
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    entries: list[object] = [*sys.path]
    path = [each for each in entries if isinstance(each, str)]  # Python does not look at anything else either
    return [sys.executable, *options, "-c", _COMMAND, *map(str, descriptors), os.pathsep.join(path)]


def _is_result(frame: Frame) -> bool:
    """Whether it is what came of a call; anything else is taken in here."""
    kind, content = frame
    if kind is Kind.LOG:
        _log(pickle.loads(content))
    elif kind is Kind.USAGE:
        report_usage(pickle.loads(content))  # counts for nothing while no call is under way
    else:
        return True
    return False


def _log(facts: dict[str, Any]) -> None:
    record = logging.makeLogRecord(facts)
    target = logging.getLogger(record.name)
    if target.isEnabledFor(record.levelno):
        try:
            target.handle(record)
        except Exception:  # noqa: BLE001 - a handler of the user's that raises costs no call, whoever logs
            _LOG.exception("a record of a worker process could not be handled")
