"""What it costs that a finished call survives a power cut, beside the least that this can cost.

The floor is an asyncio program that hands one row for each call to a thread, which commits what has gathered, with the
same SQLite and `synchronous=FULL`: no keys, no events, no replay.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import apsw

from benchmarks.memory import peak_megabytes
from rh_agents import ExecutionState, open_store, tool

_IN_FLIGHT = 100
_MANY = 10_000
_SLOWER = 2_000
"""Microseconds that a flush takes longer on the slow disk."""
_RESULT = "x" * 1024
_made = 0


@tool
async def page(number: int) -> str:
    """A call that costs nothing and returns one KiB."""
    global _made  # noqa: PLW0603 - counts what is called, to show that a resumed run calls nothing
    _made += 1
    await asyncio.sleep(0)
    return _RESULT


def table(*, quick: bool) -> str:
    """Calls a second, bytes for each, and resuming."""
    count, rounds = (5_000, 3) if quick else (20_000, 5)
    counts = (1_000, 10_000) if quick else (1_000, 10_000, 100_000)
    floors, ours, many, singles, commits = [], [], [], [], []
    for _ in range(rounds):
        floors.append(count / _seconds(_floor, count))
        ours.append(count / _seconds(_group, count))
        many.append(count / _seconds(partial(_group, in_flight=_MANY), count))
        commits.append(_seconds(_bare_commits, 500) / 500)
        singles.append(_seconds(_one_at_a_time, 500) / 500)
    share = _median_ratio(ours, floors)
    slower = _median_ratio(singles, commits)
    lines = [
        "\n## Durable calls\n",
        f"Results of 1 KiB in SQLite, each on disk before its caller has it: the median of {rounds} rounds.\n",
        "| | calls a second | ratio |",
        "|---|---:|---:|",
        f"| {_IN_FLIGHT} in flight, a bare writer with group commit (= 1) | {statistics.median(floors):,.0f} | 1 |",
        f"| {_IN_FLIGHT} in flight, recorded calls of a group | {statistics.median(ours):,.0f} | {share:.2f} |",
        f"| {_MANY:,} in flight, beside {_IN_FLIGHT} in flight (= 1) "
        f"| {statistics.median(many):,.0f} | {_median_ratio(many, ours):.2f} |",
        *_on_a_slow_disk(count // 2, rounds),
        f"| one at a time, a bare commit of one row (= 1) | {1 / statistics.median(commits):,.0f} | 1 |",
        f"| one at a time, recorded calls | {1 / statistics.median(singles):,.0f} | {1 / slower:.2f} |",
        "\nA bulk load is the least that resuming can cost: rows with keys and values read in order, each value "
        "compared with its checksum and decoded.\n",
        "| recorded calls | on disk for each | written for each | resumed: calls a second | beside a bulk load (= 1) "
        "| called again | growth |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for number in counts:
        figures = _in_a_process_of_its_own(number)
        lines.append(
            f"| {number:,} | {figures['disk'] / number / 1024:.2f} KiB | {figures['written'] / number / 1024:.2f} KiB "
            f"| {number / figures['seconds']:,.0f} | {figures['load'] / figures['seconds']:.2f} "
            f"| {figures['called']:.0f} | {figures['growth']:.1f} MB |"
        )
    return "\n".join(lines) + "\n"


def _median_ratio(some: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(some, others, strict=True))


def _seconds(case: Callable[[Path, int], None], count: int) -> float:
    with tempfile.TemporaryDirectory(prefix="rh_agents_bench_") as folder:
        start = time.perf_counter()
        case(Path(folder) / "runs.db", count)
        return time.perf_counter() - start


# -- ours -------------------------------------------------------------------------------------------------------------


def _group(path: Path, count: int, in_flight: int = _IN_FLIGHT) -> None:
    asyncio.run(_execute(path, count, in_flight))


async def _execute(path: Path, count: int, in_flight: int = _IN_FLIGHT) -> None:
    store = open_store(f"sqlite:///{path}")
    state = ExecutionState(store=store, run_id="bench", history_limit=0)
    async with state, state.parallel(max_workers=in_flight, name="pages") as p:
        p.map(page, range(count))
        async for result in p.stream():
            assert result.ok
    await store.aclose()


def _one_at_a_time(path: Path, count: int) -> None:
    async def main() -> None:
        store = open_store(f"sqlite:///{path}")
        async with ExecutionState(store=store, run_id="bench", history_limit=0):
            for number in range(count):
                await page(number)
        await store.aclose()

    asyncio.run(main())


# -- the least that it can cost ---------------------------------------------------------------------------------------


def _open(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute("CREATE TABLE result (number INTEGER PRIMARY KEY, value TEXT)")
    return connection


def _bare_commits(path: Path, count: int) -> None:
    connection = _open(path)
    for number in range(count):
        connection.execute("INSERT INTO result VALUES (?, ?)", (number, _RESULT))
    connection.close()


def _floor(path: Path, count: int) -> None:
    asyncio.run(_write_in_groups(path, count))


async def _write_in_groups(path: Path, count: int) -> None:
    connection = _open(path)
    loop = asyncio.get_running_loop()
    waiting: list[tuple[tuple[int, str], asyncio.Future[None]]] = []
    numbers = iter(range(count))
    is_writing = False

    def write(rows: list[tuple[int, str]]) -> None:
        with connection:
            connection.executemany("INSERT INTO result VALUES (?, ?)", rows)

    async def write_what_waits(thread: ThreadPoolExecutor) -> None:
        nonlocal is_writing
        is_writing = True
        while waiting:
            batch = waiting.copy()
            waiting.clear()
            await loop.run_in_executor(thread, write, [row for row, _ in batch])
            for _, future in batch:
                future.set_result(None)
        is_writing = False

    async def work(thread: ThreadPoolExecutor, tasks: set[asyncio.Task[None]]) -> None:
        for number in numbers:
            await asyncio.sleep(0)
            future = loop.create_future()
            waiting.append(((number, _RESULT), future))
            if not is_writing:
                task = loop.create_task(write_what_waits(thread))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await future

    with ThreadPoolExecutor(1) as thread:
        tasks: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            for _ in range(_IN_FLIGHT):
                group.create_task(work(thread, tasks))
    connection.close()


# -- on a disk whose flush takes longer -------------------------------------------------------------------------------


def _on_a_slow_disk(count: int, rounds: int) -> list[str]:
    """The same beside the same floor, where each flush takes 2 ms longer; nothing where that cannot be arranged."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return []
    with tempfile.TemporaryDirectory(prefix="rh_agents_bench_") as folder:
        library = Path(folder) / "slow_sync.so"
        source = Path(__file__).with_name("slow_sync.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        slow = {"LD_PRELOAD": str(library), "SLOW_SYNC_MICROSECONDS": str(_SLOWER)}
        figures = _step("slow", Path(folder), count, str(rounds), slow=slow)
    case = f"{_IN_FLIGHT} in flight, each flush {_SLOWER / 1e3:g} ms longer"
    return [
        f"| {case}, a bare writer (= 1) | {figures['floor']:,.0f} | 1 |",
        f"| {case}, recorded calls | {figures['ours']:,.0f} | {figures['ratio']:.2f} |",
    ]


def _slow(path: Path, count: int) -> dict[str, float]:
    floors, ours = [], []
    for _ in range(int(sys.argv[4])):
        floors.append(count / _seconds(_floor, count))
        ours.append(count / _seconds(_group, count))
    ratio = _median_ratio(ours, floors)
    return {"floor": statistics.median(floors), "ours": statistics.median(ours), "ratio": ratio}


# -- in a process of its own: bytes, and resuming ---------------------------------------------------------------------


def _in_a_process_of_its_own(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="rh_agents_bench_") as folder:
        path = Path(folder) / "runs.db"
        figures: dict[str, float] = {}
        for step in ("record", "resume", "load"):
            figures |= _step(step, path, count)
        return figures


def _step(step: str, path: Path, count: int, *more: str, slow: Mapping[str, str] | None = None) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.durable", step, str(path), str(count), *more]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **(slow or {})})
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _record(path: Path, count: int) -> dict[str, float]:
    before = _written()
    _group(path, count)
    return {"written": _written() - before, "disk": sum(file.stat().st_size for file in path.parent.rglob("*.db*"))}


def _resume(path: Path, count: int) -> dict[str, float]:
    before, start = peak_megabytes(), time.perf_counter()
    _group(path, count)
    return {"seconds": time.perf_counter() - start, "called": _made, "growth": peak_megabytes() - before}


def _load(path: Path, count: int) -> dict[str, float]:
    """Seconds in which as many rows are read in order, each value compared with its checksum and decoded."""
    connection = _open(path.with_name("bulk.db"))
    connection.execute("CREATE TABLE recorded (number INTEGER PRIMARY KEY, key BLOB, value BLOB, whole INTEGER)")
    data = json.dumps(_RESULT).encode()
    whole = zlib.crc32(data)
    with connection:
        rows = ((number, number.to_bytes(32, "big"), data, whole) for number in range(count))
        connection.executemany("INSERT INTO recorded VALUES (?, ?, ?, ?)", rows)
    start = time.perf_counter()
    values = {}
    for key, value, its_whole in connection.execute("SELECT key, value, whole FROM recorded ORDER BY number"):
        assert zlib.crc32(value) == its_whole
        values[key] = json.loads(value)
    seconds = time.perf_counter() - start
    assert len(values) == count
    connection.close()
    return {"load": seconds}


def _written() -> float:
    """Bytes that this process has handed to the disk so far; 0 where the system does not tell."""
    status = Path("/proc/self/io")
    if not status.exists():
        return 0.0
    return next(float(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("write_bytes"))


if __name__ == "__main__":
    step = {"record": _record, "resume": _resume, "load": _load, "slow": _slow}[sys.argv[1]]
    sys.stdout.write(json.dumps(step(Path(sys.argv[2]), int(sys.argv[3]))))
