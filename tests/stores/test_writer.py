"""The engine of the stores: what shares a commit, what an error does, and that nothing is left hanging."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rh_agents import storable
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Question
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend import WriteSession
from rh_agents.stores._journal import SqlJournal
from rh_agents.stores.sqlite import SqliteStore
from rh_agents.testing._records import completed, key, listed, outcome
from tests.stores.sqlite_kit import RUN, Database, call, python, request, sql, started

STARTED = ExecutionStatus.STARTED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def execute(path: Path, test: Callable[[SqlJournal, Database, SqliteStore], Awaitable[None]], **facts: Any) -> None:
    """A test with an open run in a store whose database it can hold up."""

    async def main() -> None:
        store = SqliteStore(path, **facts)
        database = Database(store)
        try:
            await test(await store.open_run(request()), database, store)
        finally:
            database.is_free.set()
            await store.aclose()

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    """Wait for what happens in another thread."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - threads set no event of this loop
            await asyncio.sleep(0.001)


def files(path: Path) -> list[Path]:
    return list(path.parent.iterdir())


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- group commit ------------------------------------------------------------------------------------------------------


def test_what_becomes_ready_in_one_turn_of_the_event_loop_shares_a_commit(path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, _: SqliteStore) -> None:
        await asyncio.gather(*[call(journal, number) for number in range(20)])
        assert database.batches == [[40]]

    execute(path, test)


def test_while_a_batch_is_written_the_next_one_grows(path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, _: SqliteStore) -> None:
        database.is_free.clear()
        first = asyncio.ensure_future(call(journal, "first"))
        await until(database.is_writing.is_set)
        others = [asyncio.ensure_future(call(journal, number)) for number in range(5)]
        await turns(5)
        assert journal.waiting == 12
        database.is_free.set()
        await asyncio.gather(first, *others)
        assert database.batches == [[2], [10]]
        assert journal.waiting == 0

    execute(path, test)


def test_many_in_flight_are_written_in_turns_so_that_one_batch_grows_while_the_other_is_written(path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, _: SqliteStore) -> None:
        numbers = iter(range(3000))

        async def worker() -> None:
            for number in numbers:
                await call(journal, number)

        await asyncio.gather(*[worker() for _ in range(100)])
        sizes = [size for batch in database.batches for size in batch]
        assert sum(sizes) == 6000
        assert 30 < len(sizes) < 120, "neither one commit for all that are in flight, nor one for each"

    execute(path, test)


def test_runs_that_are_written_at_the_same_time_share_a_transaction(path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        others = [await store.open_run(request(run_id=name)) for name in ("tuesday", "wednesday")]
        database.is_free.clear()
        first = asyncio.ensure_future(call(journal, 1))
        await until(database.is_writing.is_set)
        rest = [asyncio.ensure_future(call(other, 1)) for other in others]
        await turns(5)
        database.is_free.set()
        await asyncio.gather(first, *rest)
        assert database.batches == [[2], [2, 2]]

    execute(path, test)


def test_what_was_only_noted_is_written_soon(path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        journal.note(started(1))
        assert journal.waiting == 1
        await until(lambda: journal.waiting == 0)
        assert len(await listed(store.events(RUN))) == 1
        database.is_free.clear()
        appended = asyncio.ensure_future(call(journal, 2))
        await until(database.is_writing.is_set)
        journal.note(started(3))
        database.is_free.set()
        await appended
        await until(lambda: journal.waiting == 0)
        assert len(await listed(store.events(RUN))) == 4

    execute(path, test)


def test_a_flush_waits_for_what_is_being_written_too(path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, _: SqliteStore) -> None:
        database.is_free.clear()
        journal.note(started(1))
        await until(database.is_writing.is_set)
        flushed = asyncio.ensure_future(journal.flush())
        await turns(5)
        assert not flushed.done()
        database.is_free.set()
        await flushed
        assert (database.batches, journal.waiting) == ([[1]], 0)
        await journal.flush()

    execute(path, test)


def test_a_second_outcome_for_a_call_waits_until_the_first_is_on_disk(path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, _: SqliteStore) -> None:
        database.is_free.clear()
        given = outcome(1, "first")
        first = asyncio.ensure_future(journal.append(completed(RUN, given), given))
        second = asyncio.ensure_future(call(journal, 1, "first"))
        await until(database.is_writing.is_set)
        await turns(10)
        assert not second.done()
        database.is_free.set()
        assert await first is given
        assert (await second).value == "first"

    execute(path, test)


# -- errors ------------------------------------------------------------------------------------------------------------


def test_after_an_error_nothing_is_acknowledged_and_everything_says_why(path: Path) -> None:
    def full(session: Any) -> None:
        raise StoreError("runs.db: the disk is full")

    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        await call(journal, 0)
        database.failing = full
        given = await asyncio.gather(*[call(journal, number) for number in range(1, 9)], return_exceptions=True)
        assert [str(each) for each in given] == ["runs.db: the disk is full"] * 8
        assert len({id(each) for each in given}) == 8, "each his own, so that tracebacks do not grow into each other"
        database.failing = None
        for refused in (
            call(journal, 9),
            journal.append(started(9)),
            journal.flush(),
            journal.load(key(0)),
            journal.ask(Question(RUN, "question", "", "Yes?")),
            journal.reject_answer("question", "no"),
        ):
            with pytest.raises(StoreError, match="the disk is full"):
                await refused
        with pytest.raises(StoreError, match="the disk is full"):
            journal.note(started(9))
        await journal.close(ExecutionStatus.COMPLETED)
        info = await store.find_run(RUN)
        assert info is not None
        assert (info.owner, info.status, info.outcomes) == (None, STARTED, 1)
        assert len(await listed(store.events(RUN))) == 2
        await call(await store.open_run(request("next")), 9)

    execute(path, test)


def test_a_bug_in_a_backend_is_a_store_error_and_the_thread_goes_on(path: Path) -> None:
    def broken(session: Any) -> None:
        raise ZeroDivisionError("oh")

    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        database.failing = broken
        with pytest.raises(StoreError, match=r"runs.db: ZeroDivisionError: oh") as caught:
            await call(journal, 1)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        database.failing = None
        await call(await store.open_run(request("other", "tuesday")), 1)

    execute(path, test)


def test_the_database_runs_full_and_nothing_of_the_transaction_is_left(path: Path) -> None:
    def fill(session: Any) -> None:
        session.connection.pragma("max_page_count", 30)

    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        await call(journal, 0)
        database.failing = fill
        with pytest.raises(StoreError, match=r"runs.db: the disk is full"):
            await asyncio.gather(*[call(journal, number, "x" * 1000) for number in range(1, 100)])
        database.failing = None
        await journal.close(STARTED)
        journal = await store.open_run(request())
        assert list(journal.recorded.finished) == [key(0)]
        assert await store.check() == []
        await call(journal, 1)

    execute(path, test)


def test_a_large_value_that_cannot_be_kept_breaks_the_journal(path: Path) -> None:
    large = outcome(1, "x" * 100_000)

    Path(f"{path}-artifacts").write_text("in the way")

    async def noted(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        journal.note(completed(RUN, large), large)
        with pytest.raises(StoreError, match="artifact"):
            await journal.flush()
        with pytest.raises(StoreError, match="artifact"):
            journal.note(started(2))

    async def appended(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        with pytest.raises(StoreError, match="artifact"):
            await journal.append(completed(RUN, large), large)
        with pytest.raises(StoreError, match="artifact"):
            await journal.flush()

    for test in (noted, appended):
        execute(path, test)
        path.unlink()


def test_a_large_value_holds_up_nobody_else(path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        is_free, put = threading.Event(), store.engine.artifacts.put

        def slow(data: bytes) -> str:
            assert is_free.wait(30)
            return put(data)

        store.engine.artifacts.put = slow  # type: ignore[method-assign]
        large = outcome("large", "x" * 100_000)
        waiting = asyncio.ensure_future(journal.append(completed(RUN, large), large))
        await turns(3)
        await call(journal, 1)
        assert not waiting.done()
        is_free.set()
        assert await waiting is large
        assert list(journal.recorded.finished) == [key(1), key("large")]

    execute(path, test)


_HOLD = """
import apsw, sys
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
input()
connection.execute("COMMIT")
"""


def test_when_the_lock_is_held_for_too_long_the_error_says_so(path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        holding = python(_HOLD, path)
        with holding:
            assert holding.stdout is not None
            holding.stdout.readline()
            with pytest.raises(StoreError, match=r"runs.db: .*locked by another process for more than 0.05 s"):
                await call(journal, 1)
            holding.communicate("\n")

    execute(path, test, busy_timeout=0.05)


def test_a_lock_that_is_let_go_in_time_is_waited_for(path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        holding = python(_HOLD, path)
        with holding:
            assert holding.stdout is not None
            holding.stdout.readline()
            database.is_writing.clear()
            waiting = asyncio.ensure_future(call(journal, 1))
            await until(database.is_writing.is_set)
            holding.communicate("\n")
            await waiting

    execute(path, test)


# -- event loops, threads and processes --------------------------------------------------------------------------------


def test_an_event_loop_that_ends_while_its_batch_is_written_harms_nobody(path: Path) -> None:
    store = SqliteStore(path)
    database = Database(store)

    async def first() -> None:
        journal = await store.open_run(request("first"))
        await call(journal, 1)
        database.is_free.clear()
        cut_off = asyncio.ensure_future(call(journal, 2))
        await until(database.is_writing.is_set)
        cut_off.cancel()

    async def second() -> None:
        journal = await store.open_run(request("second"))
        assert key(1) in journal.recorded.finished
        await call(journal, 3)
        await journal.close(STARTED)
        await store.aclose()

    asyncio.run(first())
    database.is_writing.clear()
    database.is_free.set()
    asyncio.run(second())
    assert sql(path, "SELECT count(*) FROM journal WHERE ok AND key = ?", key(1)) == [(1,)]


def test_one_store_serves_event_loops_in_two_threads(path: Path) -> None:
    store = SqliteStore(path)
    failures: list[BaseException] = []

    async def work(name: str) -> None:
        journal = await store.open_run(request(name, name))
        await asyncio.gather(*[call(journal, number) for number in range(50)])
        assert len(await listed(store.outcomes(name))) == 50
        await journal.close(ExecutionStatus.COMPLETED)

    def run(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as error:  # noqa: BLE001 - for the thread that started this one
            failures.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    asyncio.run(store.aclose())


def test_a_store_that_nobody_has_any_more_ends_its_thread(path: Path) -> None:
    async def main() -> threading.Thread:
        store = SqliteStore(path)
        await call(await store.open_run(request()), 1)
        thread = store.engine.writer._thread
        assert thread is not None
        return thread

    thread = asyncio.run(main())
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()


def test_a_journal_keeps_its_store(path: Path) -> None:
    async def main() -> None:
        journal = await SqliteStore(path).open_run(request())
        gc.collect()
        await call(journal, 1)
        await journal.close(STARTED)

    asyncio.run(main())
    assert sql(path, "SELECT outcomes FROM run") == [(1,)]


def test_a_program_that_closes_nothing_ends_at_once_and_what_was_acknowledged_is_there(path: Path) -> None:
    program = """
import asyncio, sys
from tests.stores.sqlite_kit import *
store = SqliteStore(sys.argv[1])
async def main():
    journal = await store.open_run(request())
    for number in range(5):
        await call(journal, number)
    journal.note(started("noted"))
    return journal
journal = asyncio.run(main())
print("done")
"""
    began = time.monotonic()
    process = python(program, path)
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("done\n", "", 0)
    assert time.monotonic() - began < 30
    assert sql(path, "SELECT outcomes FROM run") == [(5,)]


def test_a_program_that_is_cut_off_in_the_middle_of_writing_ends_without_a_word(path: Path) -> None:
    program = """
import asyncio, sys
from tests.stores.sqlite_kit import *
store = SqliteStore(sys.argv[1])
async def main():
    journal = await store.open_run(request())
    for number in range(500):
        asyncio.ensure_future(call(journal, number, "x" * 1000))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
asyncio.run(main())
"""
    process = python(program, path)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    assert sql(path, "SELECT count(*) FROM run WHERE last_sequence <> (SELECT count(*) FROM journal)") == [(0,)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_store_is_refused_in_a_child_that_was_forked_and_goes_on_in_the_parent(path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        await call(journal, 1)
        child = os.fork()
        if child == 0:
            os._exit(_used_by_a_child(journal, store))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222 - the child waits for nobody
        await call(journal, 2)
        assert await store.check() == []

    execute(path, test)


def _used_by_a_child(journal: SqlJournal, store: SqliteStore) -> int:
    """0 if every use is refused with an error that names the parent."""
    uses: list[Callable[[], Any]] = [
        lambda: journal.note(started(2)),
        lambda: journal.append(started(2)).send(None),
        lambda: journal.load(key(1)).send(None),
        lambda: store.find_run(RUN).send(None),
        lambda: store.aclose().send(None),
    ]
    for number, use in enumerate(uses, 1):
        try:
            use()
        except StoreError as error:
            if str(os.getppid()) in str(error):
                continue
        except BaseException:  # noqa: BLE001 - whatever it is, it is the wrong one
            return 100 + number
        return number
    return 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_that_was_forked_ends_like_any_program_and_leaves_the_file_alone(path: Path) -> None:
    program = """
import asyncio, os, sys, threading, warnings
warnings.simplefilter("ignore")
from tests.stores.sqlite_kit import *
store = SqliteStore(sys.argv[1])
async def main(number):
    journal = await store.open_run(request())
    await call(journal, number)
asyncio.run(main(1))
child = os.fork()
if child == 0:
    sys.exit(7)  # with all that an interpreter does at its end
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
asyncio.run(main(2))
asyncio.run(store.aclose())
print(status)
"""
    process = python(program, path)
    assert process.communicate(timeout=60) == ("7\n", "")
    assert sql(path, "SELECT outcomes FROM run") == [(2,)]
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_that_was_forked_in_the_middle_of_a_statement_ends_too(path: Path) -> None:
    program = """
import asyncio, os, sys, time, warnings
warnings.simplefilter("ignore")
from tests.stores.sqlite_kit import *
store = SqliteStore(sys.argv[1])
asyncio.run(store.find_run(RUN))
holding = apsw.Connection(sys.argv[1])
holding.execute("BEGIN IMMEDIATE")
waiting = store.engine.writer.do(lambda session: session.request_stop(1, "enough"))
time.sleep(0.3)  # by now its thread waits within SQLite, which holds a lock of the connection
child = os.fork()
if child == 0:
    sys.exit(7)
end = time.monotonic() + 20
while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < end:
    time.sleep(0.01)
if time.monotonic() > end:
    os.kill(child, 9)
    print("the child does not end")
holding.execute("COMMIT")
waiting.result()
"""
    assert python(program, path).communicate(timeout=60) == ("", "")


def test_closing_the_store_writes_what_waits_and_lets_go_of_its_runs(path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        journal = await store.open_run(request())
        journal.note(started(1))
        given = outcome(1)
        journal.note(completed(RUN, given), given)
        await store.aclose()
        with pytest.raises(StoreError, match="has been closed"):
            journal.note(started(2))
        await journal.close(STARTED)
        assert sql(path, "SELECT status, owner, last_sequence FROM run") == [("started", None, 2)]
        assert {each.name for each in files(path)} == {path.name}, "the last one brings everything into the file"
        other = SqliteStore(path)
        await (await other.open_run(request())).close(STARTED)
        await other.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("closes", ["the store", "the run"])
def test_a_disk_that_does_not_answer_any_more_keeps_nobody_from_closing(path: Path, closes: str) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        database = Database(store)
        journal = await store.open_run(request())
        await call(journal, 1)
        database.patience = 0.2
        database.is_free.clear()
        waiting = asyncio.ensure_future(call(journal, 2))
        await until(database.is_writing.is_set)
        try:
            async with asyncio.timeout(20):
                if closes == "the run":
                    with pytest.raises(StoreError, match=r"runs\.db has not answered for more than 0\.2 s"):
                        await journal.close(STARTED)
                with pytest.raises(StoreError, match=r"runs\.db has not answered for more than 0\.2 s"):
                    await store.aclose()
                with pytest.raises(StoreError):
                    await waiting
        finally:
            database.is_free.set()

    asyncio.run(main())
    other = sql(path, "SELECT last_sequence FROM run")
    assert other in ([(2,)], [(4,)]), "what was acknowledged is there"


def test_a_disk_that_is_slow_but_comes_forward_is_waited_for(path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(path)
        database = Database(store)
        journal = await store.open_run(request())
        await call(journal, 1)
        database.patience = 0.3
        slow = [store.engine.writer.do(lambda _: time.sleep(0.1)) for _ in range(6)]
        await store.aclose()
        assert all(each.done() for each in slow)

    asyncio.run(main())


def _nothing(_: WriteSession) -> None:
    pass


def test_who_is_cancelled_while_a_run_is_opened_does_not_keep_it(path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        for count in range(0, 30, 3):
            task = asyncio.ensure_future(store.open_run(request("cancelled", "tuesday")))
            await turns(count)
            if count % 2:
                await asyncio.sleep(0.0003 * count)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if task.cancelled():
                await store.engine.writer.done(_nothing)  # it may have been claimed meanwhile ...
                await store.engine.writer.done(_nothing)  # ... and is given back then
                assert sql(path, "SELECT owner FROM run WHERE run_id = 'tuesday'") in ([], [(None,)])
            del task
            gc.collect()
            opened = await store.open_run(request("other", "tuesday"))
            await opened.close(STARTED)

    execute(path, test)


def test_a_second_signal_cannot_be_needed(path: Path) -> None:
    """Ctrl-C in a program that waits for the store ends it."""
    program = """
import asyncio, signal, sys
from tests.stores.sqlite_kit import *
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what it starts in the background
async def main():
    store = SqliteStore(sys.argv[1])
    journal = await store.open_run(request())
    print("open", flush=True)
    for number in range(10**9):
        await call(journal, number)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    process = python(program, path)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("interrupted\n", "")
    assert process.returncode == 0


def test_of_two_results_for_one_key_that_are_being_written_the_second_stops_the_run(path: Path) -> None:
    """A large one is turned into text in a thread; meanwhile another one may have been recorded."""

    @storable
    @dataclasses.dataclass
    class Seen:
        name: str

        def remember(self) -> None:
            self.__dict__["what was computed"] = "x" * 500_000

    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        large = Seen("the second")
        large.remember()  # it looks large, and its text is small
        second = outcome(1, large)
        waiting = asyncio.ensure_future(journal.append(completed(RUN, second), second))
        await asyncio.sleep(0)
        first = outcome(1, "the first")
        assert await journal.append(completed(RUN, first), first) is first
        with pytest.raises(StoreError, match="under the same key"):
            await waiting
        assert [entry.value for entry in await listed(store.outcomes(RUN))] == ["the first"]

    execute(path, test)
