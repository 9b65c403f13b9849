"""The test's side of the server: children are started, signalled and waited for."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.stress.endings import Ending, Job

__all__ = ["Child", "Children"]

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds after which a child that should have ended hangs."""


class Children:
    """A server and its children: `with Children() as children`."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.stress.server"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._commands = self._server.stdin
        self._news = self._server.stdout
        self._unread = b""
        self._waiting: list[dict[str, Any]] = []
        self._ended: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commands.close()  # it kills what is left of its children, and ends
        self._server.wait(PATIENCE)
        self._news.close()

    def start(self, job: Job) -> Child:
        """Fork a child that does the job."""
        self._send(job)
        deadline = time.monotonic() + PATIENCE
        while True:
            news = self._next_news(deadline)
            assert news is not None, "the server does not answer"
            if "started" in news:
                self._ended.pop(news["started"], None)  # ids are given again
                return Child(self, news["started"], Path(job["log"]))

    def signal(self, number: int, *children: Child) -> None:
        """Signal children, one right after the other. Those that have ended do not mind."""
        self._send({"signal": [child.process for child in children], "number": number})

    def first_to_end(self, *children: Child) -> Child:
        """Wait until one of them has ended."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for child in children:
                if child.process in self._ended:
                    return child
            assert self._next_news(deadline) is not None, f"none of {[child.process for child in children]} ends"

    def ending(self, process: int, deadline: float) -> int | None:
        """The exit status of a child; None if it has none when the deadline has come."""
        while process not in self._ended:
            if self._next_news(deadline) is None:
                return None
        return self._ended[process]

    def _send(self, command: dict[str, Any]) -> None:
        self._commands.write(json.dumps(command).encode() + b"\n")
        self._commands.flush()

    def _next_news(self, deadline: float) -> dict[str, Any] | None:
        while not self._waiting:
            if not select.select([self._news], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            read = os.read(self._news.fileno(), 1 << 16)
            assert read, "the server has died"
            *lines, self._unread = (self._unread + read).split(b"\n")
            self._waiting += [json.loads(line) for line in lines]
        news = self._waiting.pop(0)
        if "ended" in news:
            self._ended[news["ended"]] = news["status"]
        return news


class Child:
    """A process of its own that does one job."""

    def __init__(self, children: Children, process: int, log: Path) -> None:
        self._children = children
        self.process: int = process
        self._log = log

    def signal(self, number: int) -> None:
        """Send a signal; if it has ended nothing happens."""
        self._children.signal(number, self)

    def kill(self) -> int:
        """Kill it with SIGKILL unless it has ended; returns its exit status."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def ends_within(self, seconds: float) -> int | None:
        """Its exit status, if it ends in so many seconds."""
        return self._children.ending(self.process, time.monotonic() + seconds)

    def wait(self) -> int:
        """Its exit status. A child that hangs fails the test, and tells where it does."""
        status = self.ends_within(PATIENCE)
        if status is None:
            self.signal(signal.SIGUSR1)
            time.sleep(0.5)  # it writes its stacks
            self.signal(signal.SIGKILL)
            raise AssertionError(f"process {self.process} hangs:\n{self._log.read_text()[-4000:]}")
        return status

    def wait_for_state(self, state: str) -> None:
        """Until it is in this state, as /proc has it: T for stopped, Z for dead and not reaped."""
        deadline = time.monotonic() + PATIENCE
        while self._state() != state:
            assert time.monotonic() < deadline, f"process {self.process} is {self._state()} and never {state}"
            time.sleep(0.0005)

    def _state(self) -> str:
        return Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()[0]

    def expect(self, *endings: Ending) -> Ending:
        """Wait for one of these endings; any other fails the test with what the child wrote."""
        status = self.wait()
        assert status in endings, f"process {self.process} ended with {status}:\n{self._log.read_text()[-4000:]}"
        return Ending(status)
