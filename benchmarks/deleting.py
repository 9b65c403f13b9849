"""How long others wait while a run of many rows is deleted: `python -m benchmarks.deleting postgresql://…`.

Without a URL it is a file of SQLite's in a temporary folder. The rows are copies of a thousand recorded ones. While
they are deleted, a second store records a call after the other. A server is asked all the time how old the oldest
transaction that deletes is, and who waits for a lock; of a file the lock is asked for all the time, and given back.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import psycopg

from rh_agents import ExecutionStatus, open_store
from rh_agents.core.ports import RunRequest, Store
from rh_agents.stores._sqlite.rows import places_of_run
from rh_agents.testing._records import completed, outcome

SCHEMA = "deleting"
_COLUMNS = (
    "run, timestamp, status, event_type, name, address, key, attempt, ok, call_checksum, checksum, base, parent, "
    "epoch, tries, parent_attempt, value, artifact, outcome_more, size, outcome_checksum"
)
_LOOK = """SELECT
    coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)) FILTER (WHERE query LIKE '%gone AS%'), 0)::float8,
    count(*) FILTER (WHERE wait_event_type = 'Lock')
FROM pg_stat_activity
WHERE application_name = 'rh_agents' AND state <> 'idle'"""


async def _recorded(store: Store, run_id: str, rows: int) -> None:
    journal = await store.open_run(RunRequest(run_id, "benchmark"))
    for number in range(rows):
        given = outcome(number, f"value {number}")
        journal.note(completed(run_id, given), given)
    await journal.flush()
    await journal.close(ExecutionStatus.COMPLETED)


def _multiply(url: str, times: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET search_path = {SCHEMA}".encode())
        ((number, count),) = connection.execute("SELECT number, last_sequence FROM run WHERE run_id = 'old'").fetchall()
        connection.execute(
            f"INSERT INTO journal (sequence, {_COLUMNS}) SELECT sequence + {count} * copy, {_COLUMNS} "
            f"FROM journal, generate_series(1, {times - 1}) AS copy WHERE run = {number}".encode()
        )
        rows = count * times
        connection.execute(f"UPDATE run SET last_sequence = {rows}, outcomes = {rows} WHERE number = {number}".encode())
        connection.execute("VACUUM ANALYZE journal")


def _multiply_in(file: Path, times: int) -> None:
    connection = apsw.Connection(str(file))
    found: Any = connection.execute("SELECT number, last_sequence FROM run WHERE run_id = 'old'").fetchone()
    number, count = found
    names = [name for _, name, *_ in connection.execute("PRAGMA table_info(journal)") if name != "place"]
    first, last = places_of_run(number)
    connection.execute(
        f"WITH RECURSIVE copies (copy) AS (SELECT 1 UNION ALL SELECT copy + 1 FROM copies WHERE copy < {times - 1}) "
        f"INSERT INTO journal (place, {', '.join(names)}) SELECT place + {count} * copy, {', '.join(names)} "
        f"FROM copies CROSS JOIN journal WHERE place BETWEEN {first} AND {last}"
    )
    rows = count * times
    connection.execute(f"UPDATE run SET last_sequence = {rows}, outcomes = {rows} WHERE number = {number}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


class _Locking(threading.Thread):
    """Asks for the lock of a file again and again; sees how long it has to wait for it."""

    def __init__(self, file: Path) -> None:
        super().__init__(daemon=True)
        self.file = file
        self.waited: list[float] = []
        self.is_over = threading.Event()

    def run(self) -> None:
        connection = apsw.Connection(str(self.file))
        while not self.is_over.wait(0.002):
            begun = time.perf_counter()
            while True:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    break
                except apsw.BusyError:
                    time.sleep(0.0005)
            connection.execute("ROLLBACK")
            self.waited.append(time.perf_counter() - begun)
        connection.close()

    def said(self) -> str:
        return f"the lock was asked for {len(self.waited)} times, and {max(self.waited) * 1000:.0f} ms late at most"


class _Watch(threading.Thread):
    """Sees how old transactions that delete get, and how often somebody waits for a lock."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.oldest = 0.0
        self.looks = self.waits = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        with psycopg.connect(self.url, autocommit=True, application_name="watch") as connection:
            while not self.is_over.wait(0.002):
                ((age, waiting),) = connection.execute(_LOOK).fetchall()
                self.oldest = max(self.oldest, age)
                self.waits += waiting > 0
                self.looks += 1

    def said(self) -> str:
        return (
            f"the oldest transaction of that was {self.oldest * 1000:.0f} ms old; "
            f"somebody waited for a lock at {self.waits} of {self.looks} looks"
        )


async def _record_on(store: Store, waits: list[float]) -> None:
    journal = await store.open_run(RunRequest("live", "benchmark"))
    for number in range(10**9):
        given = outcome(number, "value")
        begun = time.perf_counter()
        await journal.append(completed("live", given), given)
        waits.append(time.perf_counter() - begun)
        await asyncio.sleep(0.005)


def _said(name: str, waits: list[float]) -> None:
    waits.sort()
    shown = ", ".join(
        f"{share:.1%} {waits[int(share * (len(waits) - 1))] * 1000:.0f} ms" for share in (0.5, 0.99, 0.999)
    )
    print(f"{name}: {len(waits)} calls recorded; {shown}, longest {waits[-1] * 1000:.0f} ms")


async def _in_postgresql(url: str, rows: int) -> None:
    base = url.partition("?")[0]
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE".encode())
    await _measured(f"{base}?schema={SCHEMA}", rows, partial(_multiply, base, rows // 1000), _Watch(base))


async def _in_a_file(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "runs.db"
        await _measured(str(file), rows, partial(_multiply_in, file, rows // 1000), _Locking(file))


async def _measured(url: str, rows: int, multiply: Callable[[], None], watch: _Watch | _Locking) -> None:
    store, writing = open_store(url), open_store(url)
    await _recorded(store, "old", 1000)
    await asyncio.to_thread(multiply)
    waits: list[float] = []
    recording = asyncio.ensure_future(_record_on(writing, waits))
    await asyncio.sleep(10)
    quiet, waits[:] = list(waits), []
    watch.start()
    begun = time.perf_counter()
    await store.delete_run("old")
    seconds = time.perf_counter() - begun
    watch.is_over.set()
    watch.join()
    recording.cancel()
    await asyncio.wait([recording])
    print(f"{rows:,} rows deleted in {seconds:.1f} s; {watch.said()}")
    _said("before", quiet)
    _said("meanwhile", waits)
    print(f"mean {statistics.mean(quiet) * 1000:.1f} ms before, {statistics.mean(waits) * 1000:.1f} ms meanwhile")
    closed: Any = await asyncio.gather(store.aclose(), writing.aclose(), return_exceptions=True)
    assert closed


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", nargs="?", help="a PostgreSQL database, in which the schema `deleting` is made anew")
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    asyncio.run(_in_a_file(options.rows) if options.url is None else _in_postgresql(options.url, options.rows))


if __name__ == "__main__":
    main()
