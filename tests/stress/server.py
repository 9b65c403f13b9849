"""A process that has imported everything and forks for each job: a child starts within a millisecond.

Commands come as lines of JSON on standard input, and what happens to children goes out on standard output. Only the
server signals its children, and it does so before it reaps them: a signal never meets a stranger with the same id.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import sys
from typing import Any

from tests.stress.endings import GO, Job
from tests.stress.jobs import perform, prepare

__all__: list[str] = []


class Server:
    """Forks, signals and reaps, until its input ends."""

    def __init__(self) -> None:
        self._children: set[int] = set()
        self._unreaped: set[int] = set()
        """Those that stay zombies when they have died."""
        self._unread = b""
        self._is_over = False
        self._wakeups, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(wakeup, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, [GO])  # the children inherit it
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Until the input ends; what is left of the children then is killed."""
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ, self._read_commands)
        selector.register(self._wakeups, selectors.EVENT_READ, self._reap)
        while not self._is_over:
            for chosen, _ in selector.select():
                chosen.data()
        for process in self._children | self._unreaped:
            os.kill(process, signal.SIGKILL)

    def _read_commands(self) -> None:
        read = os.read(0, 1 << 16)
        self._is_over = not read
        *lines, self._unread = (self._unread + read).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, command: dict[str, Any]) -> None:
        if "job" in command:
            prepare(command)
            self._fork(command)
        for process in command.get("signal", ()):
            if process in self._children:
                os.kill(process, command["number"])

    def _fork(self, job: Job) -> None:
        process = os.fork()
        if not process:
            self._become_child(job)
        (self._unreaped if job.get("unreaped") else self._children).add(process)
        self._tell({"started": process})

    def _become_child(self, job: Job) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os._exit(perform(job))

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeups, 1 << 12)
        for process in list(self._children):
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                self._children.discard(process)
                self._tell({"ended": process, "status": os.waitstatus_to_exitcode(status)})

    def _tell(self, news: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(news) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    Server().serve()
