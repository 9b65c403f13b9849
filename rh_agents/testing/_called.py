"""What the suite for executors calls in workers, and the ledger that these functions keep beside every journal."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rh_agents.core.context import current, report_usage
from rh_agents.core.usage import Usage
from rh_agents.testing._failures import FAILURES

_LONGEST = 120.0
"""Seconds after which a function that waits gives up."""
_STEP = 0.01


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the ledger: a function began or ended, in this process, for this call."""

    what: str
    name: str
    process: int
    key: str
    attempt: int


def entries(folder: Path, name: str | None = None) -> list[Entry]:
    """What the ledger in this folder says, of all or of one name."""
    path = folder / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for line in lines:
        what, each, process, key, attempt = line.split()
        found.append(Entry(what, each, int(process), key, int(attempt)))
    return [entry for entry in found if name in (None, entry.name)]


def _enter(folder: str, what: str, name: str) -> None:
    call = current()
    line = f"{what} {name} {os.getpid()} {call.idempotency_key} {call.attempt}\n"
    file = os.open(Path(folder) / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def add(first: int, second: int = 0, *, third: int = 0) -> int:
    """A sum."""
    return first + second + third


def echo(value: Any) -> Any:
    """What it is given."""
    return value


def fail(kind: str) -> None:
    """Raise an exception of this kind."""
    raise FAILURES[kind]()


def process() -> int:
    """Where it runs."""
    return os.getpid()


def context() -> dict[str, Any]:
    """What `current()` gives."""
    call = current()
    return {
        "run_id": call.run_id,
        "address": call.address,
        "attempt": call.attempt,
        "idempotency_key": call.idempotency_key,
        "group_id": call.group_id,
        "trace": dict(call.trace),
        "resources": dict(call.resources),
    }


def spend(requests: int) -> None:
    """Say that it has used something, in two parts."""
    report_usage(Usage(requests=requests, cost=0.5))
    report_usage(Usage(requests=1))


def spend_and_fail(requests: int) -> None:
    """The same, in vain."""
    spend(requests)
    raise ValueError("in vain")


def lock() -> Any:
    """Something that no other process can have."""
    return threading.Lock()


async def add_later(first: int, second: int) -> tuple[int, str]:
    """A sum, by a coroutine function, and where it was made."""
    return first + second, current().address


def note(folder: str, name: str) -> str:
    """Put into the ledger that it was called."""
    _enter(folder, "begin", name)
    _enter(folder, "end", name)
    return name


def wait(folder: str, name: str) -> str:
    """Put into the ledger that it has begun, and wait until there is a file `go_on` in the folder."""
    _enter(folder, "begin", name)
    deadline = time.monotonic() + _LONGEST
    while not (Path(folder) / "go_on").exists() and time.monotonic() < deadline:
        time.sleep(_STEP)
    _enter(folder, "end", name)
    return name


def fail_once(folder: str, name: str) -> str:
    """Put into the ledger that it was called; the first attempt fails."""
    note(folder, name)
    if current().attempt == 1:
        raise ConnectionError("the first attempt")
    return name
