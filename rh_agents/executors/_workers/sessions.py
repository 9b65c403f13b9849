"""Ending a worker together with all that its functions have started."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROCESSES = Path("/proc")
_ROUNDS = 5
"""A process may start another one while it is looked for."""


def kill_group(leader: int) -> None:
    """Kill a process and its group, at once."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def end_session(leader: int) -> None:
    """Kill the process group of a session's leader, and on Linux every other group of the session.

    A process that has begun a session of its own is on its own.
    """
    kill_group(leader)
    for _ in range(_ROUNDS):
        others = [process for process in _members(leader) if process not in (leader, os.getpid())]
        for process in others:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if not others:
            return


def _members(session: int) -> Iterator[int]:
    """The processes of a session that are alive, as far as the system shows them."""
    for folder in _PROCESSES.glob("[1-9]*"):
        with suppress(OSError, ValueError, IndexError):
            # After the name, which is in brackets and may hold anything: state, parent, group, session.
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state not in "ZX":
                yield int(folder.name)
