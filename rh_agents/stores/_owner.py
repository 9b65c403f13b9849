"""Who executes a run: which process on which machine, and whether it certainly exists no more."""

from __future__ import annotations

import functools
import json
import os
import platform
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

_ZOMBIES = ("Z", "X", "x")
"""States of processes that have ended and are only still listed."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, as it is written into the row of a run that it holds.

    Attributes:
        host: the name of its machine, for people.
        boot: another one each time a machine starts; "" if the system does not tell.
        namespace: within which process ids are counted.
        pid: its id there.
        started: when it started, in the system's ticks since it booted: ids are given again.
        opening: another one for each run that the process opens, so that it knows which of its own it still has.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    opening: str = ""

    @classmethod
    def here(cls) -> Self:
        """This process, opening a run."""
        pid = os.getpid()
        return cls(*_machine(), pid, _started(pid) or "", uuid.uuid4().hex)

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The process of which `text` was made; None if another version of this library wrote something else."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def text(self) -> str:
        """What is written into the row."""
        return json.dumps(asdict(self))

    @property
    def is_here(self) -> bool:
        """Whether it is this very process."""
        return self.pid == os.getpid() and self._is_seen_from_here and self.started == (_started(self.pid) or "")

    @property
    def is_gone(self) -> bool:
        """Whether it certainly exists no more. Of processes elsewhere nothing is certain."""
        return self._is_seen_from_here and bool(self.started) and _started(self.pid) != self.started

    @property
    def _is_seen_from_here(self) -> bool:
        return (self.host, self.boot, self.namespace) == _machine() and bool(self.boot)


@functools.cache
def _machine() -> tuple[str, str, str]:
    """Host, boot and namespace of this process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return platform.node(), boot, os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return platform.node(), "", ""


def _started(pid: int) -> str | None:
    """When a process started; None if there is none of this id."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # its name, in parentheses, may contain anything
    return None if fields[0] in _ZOMBIES else fields[19]
