"""Text of calls under way in databases: when processes are killed, when much happens at once, and how files grow."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import apsw

from rh_agents import ExecutionState, open_store, parallel, tell_progress, tool
from rh_agents.core.chat import ChatDelta
from rh_agents.core.ports import Store
from rh_agents.core.ports.streaming import streamed_text, watch_text
from rh_agents.stores.sqlite import SqliteStore

RUN = "monday"

WRITING = textwrap.dedent(
    """
    import asyncio, sys
    from rh_agents import ExecutionState, tell_progress, tool
    from rh_agents.core.chat import ChatDelta

    @tool
    async def first() -> str:
        return "kept"

    @tool
    async def write() -> str:
        while True:
            await tell_progress(ChatDelta(text="word "))
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with ExecutionState(store=sys.argv[1], run_id="monday"):
            await first()
            print("begun", flush=True)
            await write()

    asyncio.run(main())
    """
)


async def some_text(store: Store) -> str:
    async with asyncio.timeout(30):
        while True:
            await watch_text(store, RUN)
            found = await streamed_text(store, RUN)
            if found.pieces:
                return found.pieces[0].text
            await asyncio.sleep(0.05)


def rows_of(path: Path) -> int:
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        ((count,),) = connection.execute("SELECT count(*) FROM streaming")
        return int(count)
    finally:
        connection.close()


async def see_text_of_another_process(path: Path) -> None:
    store = open_store(path)
    assert "word word " in await some_text(store)
    await store.aclose()


def test_what_a_process_leaves_that_is_killed_while_it_streams_is_gone_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    calls = []

    @tool
    async def first() -> str:
        calls.append(1)
        return "made again"

    async def go_on() -> None:
        store = open_store(path)
        assert {each.event.execution_status.value async for each in store.events(RUN)} == {"started", "completed"}
        async with ExecutionState(store=store, run_id=RUN):
            assert rows_of(path) == 0
            assert await first() == "kept"
            assert (await streamed_text(store, RUN)).pieces == ()
        assert calls == []
        assert await store.check() == []
        await store.aclose()

    process = subprocess.Popen([sys.executable, "-c", WRITING, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        asyncio.run(see_text_of_another_process(path))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert rows_of(path) > 0
    asyncio.run(go_on())


def test_when_many_calls_stream_and_end_at_once_no_text_is_left_and_all_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    @tool
    async def write(number: int) -> int:
        for part in range(number % 7):
            await tell_progress(ChatDelta(text=f"{number} {part} "))
            await asyncio.sleep(0.001 * (number % 5))
        return number

    async def main() -> None:
        store = open_store(path)
        async with ExecutionState(store=store, run_id=RUN):
            await watch_text(store, RUN)
            await asyncio.sleep(0.7)  # the owner looks twice a second who reads
            read: set[str] = set()
            for _ in range(6):
                async with parallel(20) as p:
                    p.map(write, range(300))
                    async for _ in p.stream():
                        read |= {piece.key for piece in (await streamed_text(store, RUN)).pieces}
            assert read
            await write(0)  # what is written goes before it
            assert rows_of(path) == 0
            finished = {outcome.header.key.hex() async for outcome in store.unread_outcomes(RUN)}
            assert read <= finished
        assert await store.check() == []
        await store.aclose()

    asyncio.run(main())


def test_the_log_of_a_file_stays_bounded_while_much_is_streamed_and_read(tmp_path: Path) -> None:
    path, limit = tmp_path / "runs.db", 300_000
    sizes: list[int] = []

    @tool
    async def write() -> int:
        for _ in range(25):
            await tell_progress(ChatDelta(text="x" * 60_000 + " "))
            await asyncio.sleep(0.1)
            sizes.append(path.with_name("runs.db-wal").stat().st_size)
        return 1

    async def read(store: Store) -> int:
        count = 0
        while True:
            await watch_text(store, RUN)
            count += len((await streamed_text(store, RUN)).pieces)
            if count and rows_of(path) == 0:
                return count
            await asyncio.sleep(0.02)

    async def main() -> None:
        store = SqliteStore(path, wal_limit=limit)
        looking = SqliteStore(path, wal_limit=limit)
        async with ExecutionState(store=store, run_id=RUN):
            reading = asyncio.create_task(read(looking))
            await asyncio.sleep(0.7)  # the owner looks twice a second who reads
            await write()
            assert await reading
        await looking.aclose()
        await store.aclose()

    asyncio.run(main())
    assert sum(sizes) > 0
    assert max(sizes) < 3 * limit, "though five times as much was written"
    assert path.stat().st_size < 2 * limit, "of a call, 64 KiB are kept"


def test_the_owner_learns_also_later_that_somebody_in_its_own_process_reads(tmp_path: Path) -> None:
    @tool
    async def write() -> str:
        store = opened
        await asyncio.sleep(1.2)  # it has looked twice, and will not look again before something has changed
        await watch_text(store, RUN)
        async with asyncio.timeout(20):
            while not (found := await streamed_text(store, RUN)).pieces:
                await tell_progress("a line")
                await asyncio.sleep(0.05)
        return found.pieces[0].text

    async def main() -> None:
        async with ExecutionState(store=opened, run_id=RUN, lease=600.0):
            assert "line" in await write()
        await opened.aclose()

    opened = open_store(tmp_path / "runs.db")
    asyncio.run(main())
