"""The independent ledger: what was really called, told by the called functions themselves, outside of any store.

Each line is one fact, appended and synced before its writer goes on. A process that dies may leave its last line torn;
a torn line is no fact, and the next process begins a line of its own.
"""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ACKNOWLEDGED", "BEGUN", "DONE", "Line", "Pen", "read_lines"]

BEGUN = "begun"
"""A function was called."""
DONE = "done"
"""It is about to return, or to raise its failure."""
ACKNOWLEDGED = "acknowledged"
"""The program has what the awaited call returned."""

_LINE = re.compile(r"(begun|done|acknowledged) (\S+) (\S+) (\d+) (\d+) \.")


@dataclass(frozen=True)
class Line:
    """One fact.

    Attributes:
        kind: BEGUN, DONE or ACKNOWLEDGED.
        call: the name of the call, the same in every process that makes it.
        nonce: different for every time it is made, so that two results of one call can be told apart.
        process: the id of the process that wrote the line.
        nanoseconds: when, by the machine's monotonic clock, which all processes share.
    """

    kind: str
    call: str
    nonce: str
    process: int
    nanoseconds: int


class Pen:
    """Appends lines to a file, each with one system call that returns when it is on disk.

    Args:
        path: the file; it is made if need be.
        last_line: after so many lines the process sends itself a signal; 0 for never.
        last_signal: which one, for instance SIGKILL.
    """

    def __init__(self, path: Path, *, last_line: int = 0, last_signal: int = signal.SIGKILL) -> None:
        # Synced by each write, and without calls of fsync, which the tests count and let fail.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_DSYNC, 0o644)
        self._lines_left = last_line
        self._signal = last_signal
        os.write(self._file, b"\n")  # whatever is torn ends here

    def write(self, kind: str, call: str, nonce: str) -> None:
        """Add a line, and return when it is on disk."""
        os.write(self._file, f"{kind} {call} {nonce} {os.getpid()} {time.monotonic_ns()} .\n".encode())
        self._lines_left -= 1
        if self._lines_left == 0:
            os.kill(os.getpid(), self._signal)


def read_lines(path: Path) -> tuple[list[Line], int]:
    """The facts in a file, and how many lines are torn."""
    texts = [text for text in path.read_text().split("\n") if text] if path.exists() else []
    matches = [_LINE.fullmatch(text) for text in texts]
    lines = [Line(found[1], found[2], found[3], int(found[4]), int(found[5])) for found in matches if found]
    return lines, len(texts) - len(lines)
