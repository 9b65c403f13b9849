"""What the tests of stores in files share: calls to record, and databases that can be held up and broken."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw

from rh_agents.core.events import Fact
from rh_agents.core.ports import Journal, RunRequest
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend import ConnectionLost, WriteSession
from rh_agents.stores._backend.rows import Batch, LeaseState, RunsWanted
from rh_agents.stores._sql import read_queries, read_views, through
from rh_agents.stores._sqlite.rows import kept_run, listing
from rh_agents.stores._verified import checksums_of_run
from rh_agents.stores.sqlite import SqliteStore
from rh_agents.testing._records import completed, fact, outcome

RUN = "monday"


def request(owner: str = "me", run_id: str = RUN, **facts: Any) -> RunRequest:
    """To open the run."""
    return RunRequest(run_id, owner, **facts)


async def call(journal: Journal, number: int | str, value: Any = None) -> Outcome:
    """A call starts, and comes to its outcome."""
    given = outcome(number, value)
    journal.note(started(number))
    counts = await journal.append(completed(RUN, given), given)
    assert counts is not None
    return counts


def started(number: int | str) -> Fact:
    """The fact that says that a call starts."""
    return fact(RUN, ExecutionStatus.STARTED, outcome(number))


class Database:
    """The backend of a store, through which everything goes; it can be held up, and made to fail.

    Attributes:
        batches: for each transaction, how many events of each run it had.
        is_free: while it is not set, `write` waits.
        failing: called before each `write`, with its session.
        instead: the next `write`, if it is set.
        losing_releases: for each of the next releases after which the way to the database breaks, whether it was done.
        has_died: the session whose way to the database has broken while it was idle.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._inner = store.engine.writer._backend
        self.name = self._inner.name
        self.artifacts = self._inner.artifacts
        self.is_read_only = False
        self.patience = self._inner.patience
        self.batches: list[list[int]] = []
        self.is_free = threading.Event()
        self.is_free.set()
        self.is_writing = threading.Event()
        self.failing: Callable[[Any], None] | None = None
        self.instead: Callable[[Sequence[Batch], float], list[LeaseState]] | None = None
        self.losing_releases: list[bool] = []
        self.has_died: WriteSession | None = None
        store.engine.writer._backend = self

    def writing(self) -> WriteSession:
        session = self._inner.writing()
        write, release = session.write, session.release

        def watched(batches: Sequence[Batch], now: float) -> list[LeaseState]:
            self.is_writing.set()
            assert self.is_free.wait(30)
            if self.failing is not None:
                self.failing(session)
            instead, self.instead = self.instead, None
            states = (instead or write)(batches, now)
            self.batches.append([len(batch.events) for batch in batches])
            return states

        def released(*args: Any) -> bool:
            if not self.losing_releases:
                return release(*args)
            if self.losing_releases.pop(0):
                release(*args)
            raise ConnectionLost("runs.db: the connection broke")

        session.write = watched  # type: ignore[method-assign]
        session.release = released  # type: ignore[method-assign, assignment]
        session.is_usable = lambda: session is not self.has_died  # type: ignore[method-assign]
        return session

    def reading(self) -> Any:
        return self._inner.reading()


def sql(path: Path, statement: str, *arguments: Any, **named: Any) -> list[tuple[Any, ...]]:
    """What a statement gives, asked by somebody who knows nothing of this library."""
    connection = apsw.Connection(os.fspath(path))
    connection.set_busy_timeout(5000)
    try:
        return list(connection.execute(statement, named or arguments))
    finally:
        connection.close()


def python(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process of this library, with pipes to talk to it."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def change_runs(path: Path, text: str, *arguments: Any) -> None:
    """Change rows of runs as another process of this library would: with checksums that fit."""
    sql(path, text, *arguments)
    ((version,),) = sql(path, "PRAGMA user_version")
    query = through(read_queries("sqlite")["list_runs"], read_views("sqlite", version))
    for row in sql(path, query, **listing(RunsWanted(parts=True))):
        run = kept_run(row).row
        checksums = (*checksums_of_run(run)[:4], run.number)
        sql(
            path,
            "UPDATE run SET name_checksum = ?, checksum = ?, status_checksum = ?, holder_checksum = ? WHERE number = ?",
            *checksums,
        )
