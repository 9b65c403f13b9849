"""Runs in an SQLite file: its schema and settings, what is read how, and what is said about files that are no good."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from rh_agents import MemoryStore, open_store
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Question
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Usage
from rh_agents.stores._backend.rows import StoredOutcome
from rh_agents.stores._copying import copied
from rh_agents.stores._read_ahead import _MOST, _MOST_BYTES, _MOST_KEPT, ReadAhead
from rh_agents.stores._sql import read_migrations, read_queries
from rh_agents.stores._sqlite.versions import CHECKSUMS
from rh_agents.stores.sqlite import SqliteStore
from rh_agents.testing._records import completed, fact, key, listed, outcome
from tests.stores.sqlite_kit import RUN, call, python, request, sql, started

STARTED = ExecutionStatus.STARTED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def execute(path: Path, test: Callable[[SqliteStore], Any], **facts: Any) -> None:
    async def main() -> None:
        store = SqliteStore(path, **facts)
        try:
            await test(store)
        finally:
            await store.aclose()

    asyncio.run(main())


async def write(store: SqliteStore, count: int, run_id: str = RUN) -> None:
    """A run with so many calls, closed."""
    journal = await store.open_run(request(run_id=run_id))
    await asyncio.gather(*[call(journal, number) for number in range(count)])
    await journal.close(STARTED)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_a_new_file_is_made_with_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "runs.db"

    async def test(store: SqliteStore) -> None:
        assert not path.parent.parent.exists(), "not before it is used"
        await write(store, 1)

    execute(path, test)
    assert sql(path, "SELECT run_id, outcomes FROM run") == [(RUN, 1)]


def test_what_is_acknowledged_survives_a_power_cut_by_these_settings(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await write(store, 1)
        session: Any = store.engine.writer._session
        settings = ("journal_mode", "synchronous", "foreign_keys", "page_size")
        found = await store.engine.writer.done(lambda _: [session.connection.pragma(name) for name in settings])
        assert found == ["wal", 2, 1, 4096]
        assert await store.engine.read(lambda session: session.inner.connection.pragma("query_only")) == 1  # type: ignore[attr-defined]

    execute(path, test)


def test_the_write_ahead_log_is_bounded(path: Path) -> None:
    limit = 256 << 10
    largest = 0

    async def test(store: SqliteStore) -> None:
        nonlocal largest
        journal = await store.open_run(request())
        for start in range(0, 2000, 50):
            await asyncio.gather(*[call(journal, number, "x" * 1000) for number in range(start, start + 50)])
            largest = max(largest, Path(f"{path}-wal").stat().st_size)  # noqa: ASYNC240
        await journal.close(STARTED)

    execute(path, test, wal_limit=limit)
    assert limit / 2 < largest < 3 * limit, "a batch may go beyond it"
    assert path.stat().st_size > 4 * limit


def test_a_reader_that_stays_holds_nobody_up(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await write(store, 300)
        reading = store.events(RUN)
        await anext(reading)
        outside = apsw.Connection(str(path))
        snapshot = outside.execute("SELECT place FROM journal")
        next(snapshot)
        journal = await store.open_run(request())
        await asyncio.gather(*[call(journal, number, "x" * 1000) for number in range(1000, 1500)])
        outside.close(True)
        await asyncio.gather(*[call(journal, number, "x" * 1000) for number in range(1500, 2000)])
        assert len(await listed(reading)) == 599 + 2000

    execute(path, test, wal_limit=100_000)


@pytest.mark.skipif(sys.platform == "win32", reason="locks of files are of POSIX")
def test_a_run_goes_on_while_another_process_brings_the_log_into_the_file(path: Path) -> None:
    """Two processes may write runs to one file, and only one of them can do that at a time."""
    program = (
        "import fcntl, sys\n"
        f"with open({str(path) + '-shm'!r}, 'r+b') as shared:\n"
        "    fcntl.lockf(shared, fcntl.LOCK_EX, 1, 121)\n"  # what SQLite locks meanwhile: WAL_CKPT_LOCK
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )

    async def test(store: SqliteStore) -> None:
        await write(store, 1)
        words = [sys.executable, "-c", program]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:  # noqa: ASYNC220
            assert other.stdout is not None
            assert other.stdout.readline() == "locked\n"
            journal = await store.open_run(request())
            for number in range(1000, 1020):
                await call(journal, number, "x" * 4096)
            other.communicate()
        for number in range(1020, 1040):
            await call(journal, number, "x" * 4096)
        await journal.close(STARTED)
        assert Path(f"{path}-wal").stat().st_size < 60 * 4096 * 2  # noqa: ASYNC240

    execute(path, test, wal_limit=8192)


def test_the_schema_is_the_sum_of_the_migrations_and_two_processes_may_make_it_at_once(path: Path) -> None:
    program = """
import asyncio, sys
from tests.stores.sqlite_kit import *
async def main():
    store = SqliteStore(sys.argv[1])
    input()
    await store.find_run("")
    await store.aclose()
asyncio.run(main())
"""
    processes = [python(program, path) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60) for process in processes] == [("", "")] * 4
    expected = apsw.Connection(":memory:")
    for migration in read_migrations("sqlite"):
        expected.execute(migration.text)
    expected.execute(read_queries("sqlite")["drop_moved"])
    expected.execute(read_queries("sqlite")["expect_once"])
    schema = "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    assert sql(path, schema) == list(expected.execute(schema))
    assert sql(path, "PRAGMA user_version") == [(len(read_migrations("sqlite")),)]


def test_many_may_make_a_new_file_at_the_same_moment(tmp_path: Path) -> None:
    failures: list[Exception] = []

    def make(path: Path, barrier: threading.Barrier) -> None:
        database = SqliteStore(path).engine.writer._backend
        barrier.wait()
        try:
            database.writing().close()
        except StoreError as error:
            failures.append(error)

    for number in range(40):
        barrier = threading.Barrier(6)
        threads = [threading.Thread(target=make, args=(tmp_path / f"{number}.db", barrier)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_newer_schema_is_refused_by_name_and_left_as_it_is(path: Path) -> None:
    execute(path, lambda store: write(store, 1))
    sql(path, "PRAGMA user_version = 99")
    sql(path, "PRAGMA journal_mode = DELETE")
    before = path.read_bytes()

    async def test(store: SqliteStore) -> None:
        with pytest.raises(
            StoreError, match=r"runs.db: made by a newer version of rh_agents: schema 99, this one knows \d"
        ):
            await store.find_run(RUN)

    execute(path, test)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    sql(path, "CREATE TABLE shopping (item)")

    async def test(store: SqliteStore) -> None:
        with pytest.raises(StoreError, match=r"runs.db: it is a database of another program"):
            await store.open_run(request())

    execute(path, test)
    assert sql(path, "SELECT name FROM sqlite_schema") == [("shopping",)]


def _no_database(path: Path) -> None:
    path.write_text("To be, or not to be. " * 1000)


def _directory(path: Path) -> None:
    path.mkdir()


def _damaged(path: Path) -> None:
    execute(path, lambda store: write(store, 50))
    data = bytearray(path.read_bytes())
    data[4096:12288] = bytes(8192)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_no_database, r"it is not an SQLite database"),
        (_directory, r"it is a directory: name a file in it"),
        (_damaged, r"the file is damaged"),
    ],
)
def test_a_file_that_is_no_good_is_named_with_what_is_wrong_with_it(
    path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    spoil(path)

    async def test(store: SqliteStore) -> None:
        with pytest.raises(StoreError, match=rf"runs.db: {says}"):
            await store.open_run(request())

    execute(path, test)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def test(store: SqliteStore) -> None:
        with pytest.raises(StoreError, match=r"runs.db: its directory cannot be made: .*file"):
            await store.find_run(RUN)

    execute(tmp_path / "file" / "below" / "runs.db", test)


def test_a_path_is_relative_to_where_the_store_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("runs.db")
    monkeypatch.chdir(tmp_path / "elsewhere")

    async def main() -> None:
        await write(store, 1)
        await store.aclose()

    asyncio.run(main())
    assert (tmp_path / "runs.db").exists()


# -- the database's own promises ---------------------------------------------------------------------------------------


def test_the_database_holds_that_a_place_is_given_once_and_that_a_call_has_one_outcome_where_that_is_wanted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = "INSERT INTO journal SELECT * FROM journal"
    at_other_places = "CREATE TEMP TABLE more AS SELECT * FROM journal; UPDATE more SET place = place + 100; "
    at_other_places += "INSERT INTO journal SELECT * FROM more"
    monkeypatch.delenv("RH_AGENTS_CHECK")
    execute(path, lambda store: write(store, 2))
    with pytest.raises(apsw.ConstraintError, match=r"UNIQUE.*journal.place"):
        sql(path, again)
    monkeypatch.setenv("RH_AGENTS_CHECK", "others keys")
    execute(path, lambda store: write(store, 0))
    with pytest.raises(apsw.ConstraintError, match=r"UNIQUE.*outcome_once"):
        sql(path, at_other_places)


def test_batches_of_every_size_are_written_whole(path: Path) -> None:
    sizes = [1, 2, 3, 4, 5, 6, 7, 9, 95, 96, 97, 127, 128, 129, 192, 193, 255, 256, 257, 448, 449, 511, 512, 513]

    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request())
        for size in sizes:
            for number in range(size):
                journal.note(started(number))
            await journal.flush()
        for number in range(300):
            given = outcome(number)
            journal.note(completed(RUN, given), given)
        await journal.flush()
        assert await store.check() == []
        assert len(await listed(store.events(RUN))) == sum(sizes) + 300

    execute(path, test)


_DAMAGES = {
    "DELETE FROM journal WHERE place % 1024 = 1": "run 'monday' should have the events 1 to 4, and has 3",
    "UPDATE run SET last_sequence = 9": "should have the events 1 to 9, and has 4",
    "UPDATE run SET outcomes = 9": "run 'monday' should have 9 outcomes, and has 2",
    "UPDATE journal SET ok = NULL WHERE ok = 1 AND place % 1024 = 2": "of event 2 of run 'monday' is there, though its",
    "UPDATE journal SET parent = NULL WHERE place % 1024 = 2": "the outcome of event 2 of run 'monday' is of no call",
    "UPDATE journal SET value = NULL WHERE place % 1024 = 2": "has neither a value nor an artifact",
    "UPDATE journal SET artifact = x'00' WHERE place % 1024 = 2": "has neither a value nor an artifact, or both",
    "INSERT INTO journal (place, timestamp, status, event_type, name, address, attempt) "
    "VALUES ((9 << 40) + 1, 0, '', '', '', '', 1)": "1 events belong to run number 9, which is not there",
    "UPDATE journal SET key = (SELECT key FROM journal WHERE ok LIMIT 1) WHERE ok": (
        "has another outcome at event 4 than at event 2, which is the one that counts"
    ),
    "UPDATE question SET run = 7": "refers to a run that is not there",
}


@pytest.mark.parametrize(("damage", "says"), _DAMAGES.items())
def test_damage_is_found_and_named(path: Path, damage: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RH_AGENTS_CHECK")

    async def ask(store: SqliteStore) -> None:
        journal = await store.open_run(request())
        await journal.ask(Question(RUN, "q", "ask", "Go on?"))

    execute(path, lambda store: write(store, 2))
    execute(path, ask)
    sql(path, damage)

    async def test(store: SqliteStore) -> None:
        findings = await store.check()
        assert any(says in finding for finding in findings), findings
        assert all(finding.startswith(f"{path}: ") for finding in findings)

    execute(path, test)


def test_an_artifact_that_is_missing_or_damaged_is_found_and_loading_it_says_so(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request())
        await call(journal, 1, "x" * 100_000)
        await call(journal, 2, "y" * 100_000)
        first, second = sorted(Path(f"{path}-artifacts").glob("*/*"))  # noqa: ASYNC240
        first.unlink()
        second.write_bytes(b"z" * 100_000)
        assert len(await store.check()) == 2
        for number, says in ((1, "missing|damaged"), (2, "missing|damaged")):
            with pytest.raises(StoreError, match=says):
                await journal.load(key(number))

    execute(path, test)


def test_while_a_long_journal_is_read_to_be_copied_others_can_write(path: Path) -> None:
    count = 2500  # several parts

    async def test(store: SqliteStore) -> None:
        await write(store, count)
        other = apsw.Connection(str(path))  # it waits for nobody
        writer = store.engine.writer
        source = await store.engine.read(lambda session: session.find_run(RUN))
        assert source is not None
        written = 0

        def parts(session: Any) -> Any:
            nonlocal written
            for part in copied(session, source, (), ()):
                yield part
                other.execute("UPDATE run SET heartbeat = heartbeat + 1")
                written += 1

        def copy(session: Any) -> bool:
            with store.engine.readers.session() as reading:
                return bool(session.add(dataclasses.replace(source, run_id="copy", forked_from=RUN), parts(reading)))

        assert await writer.done(copy)
        assert written > 2
        assert not await writer.done(copy), "there is one of this name"
        in_memory: Callable[[Any], Any] = lambda session: session.connection.pragma("temp_store") == 2  # noqa: E731
        assert await writer.done(in_memory)
        assert await store.check() == []
        same = [repr(each) for each in await listed(store.outcomes("copy"))]
        assert same == [repr(each) for each in await listed(store.outcomes(RUN))]
        assert len(same) == count
        await store.delete_run("copy")
        assert await writer.done(copy), "nothing is left of it"
        other.close()

    execute(path, test)


def test_a_mark_that_earlier_versions_wrote_with_its_cost_is_read_without_it(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request())
        given = await call(journal, 1)
        facts: dict[str, Any] = {"usage": Usage(cost=0.5), "charges": {"": 1.0}, "lost": 1, "metadata": {"page": 1}}
        await journal.append(fact(RUN, ExecutionStatus.SUPERSEDED, given, **facts))
        *_, mark = [each.event for each in await listed(store.events(RUN))]
        assert (mark.usage, mark.charges, mark.lost, mark.metadata) == (None, None, 0, {"page": 1})

    execute(path, test)


def test_a_mark_is_written_without_its_cost_since_earlier_versions_would_count_it(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request())
        paid = outcome(1, "value")
        facts: dict[str, Any] = {"usage": Usage(cost=0.5), "charges": {"": 1.0}, "metadata": {"page": 1}}
        await journal.append(completed(RUN, paid).with_more(**facts), paid)
        await journal.close(ExecutionStatus.COMPLETED)
        await store.supersede(RUN, [paid.key])

    execute(path, test)
    ((more,),) = sql(path, "SELECT more FROM journal WHERE status = 'superseded'")
    assert json.loads(more).keys() == {"version", "actor", "metadata"}


def test_a_value_that_cannot_be_read_is_named_with_its_run_and_place(path: Path) -> None:
    execute(path, lambda store: write(store, 2))
    sql(path, "UPDATE journal SET value = '{' WHERE place % 1024 = 4")

    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request())
        for reading in (journal.load(key(1)), listed(store.events(RUN)), listed(store.outcomes(RUN))):
            with pytest.raises(
                StoreError, match=r"runs.db: event 4 of run 'monday', or its outcome, is damaged.*check"
            ):
                await reading

    execute(path, test)


# -- queries -----------------------------------------------------------------------------------------------------------

_MAY_SCAN = {
    "list_runs": "all runs that there are, newest first",
    "names_of_runs": "the same, if one of them cannot be read",
    "count_runs": "the same, but none is read",
    "tags_of_runs": "the same, for their tags",
    "questions": "all questions that there are",
    "all_tickets": "everything is checked",
    "all_holds": "everything is checked",
    "all_shared": "everything is checked",
    "all_present": "everything is checked",
    "all_requests": "everything is checked",
    "all_pieces": "everything is checked",
    "all_watchers": "everything is checked",
    "numbered_tickets": "all get their checksums, once",
    "owners": "before a file is brought up to date, once",
    "compare_moved": "the same",
    "count_moved": "the same",
    "move": "what is left, once",
    "still_to_move": "the same",
    "count_unsealed": "the same",
    "add_copied": "all of a table that was made for it",
}
"""Queries that look at every row of a table, and why that is what they are for."""


def _query_plans() -> dict[str, list[str]]:
    old, current = apsw.Connection(":memory:"), apsw.Connection(":memory:")
    for migration in read_migrations("sqlite"):
        current.execute(migration.text)
        if migration.number <= CHECKSUMS:
            old.execute(migration.text)
    queries = read_queries("sqlite")
    current.execute(queries["begin_copy"])
    plans = {}
    for name, query in queries.items():
        if (
            re.match(r"(--.*\n)*(SELECT|INSERT|UPDATE|DELETE)", query)
            and "pragma" not in query
            and not name.startswith("check_")
        ):
            values = [None] * query.count("?") if "?" in query else dict.fromkeys(re.findall(r":(\w+)", query))
            connection = old if re.search(r"\b(event|outcome)\b", query) and "journal" not in query else current
            plans[name] = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values)]
    return plans


@pytest.mark.parametrize(("name", "plan"), _query_plans().items())
def test_no_query_looks_at_rows_that_it_does_not_want(name: str, plan: list[str]) -> None:
    scans = [step for step in plan if re.match(r"SCAN (?!chunk|json_each|\(subquery|\d+-ROW VALUES|CONSTANT)", step)]
    if name not in _MAY_SCAN:
        # A partial index that is read in its order holds nothing but what is wanted.
        assert [step for step in scans if "question_open" not in step and "journal_artifact" not in step] == []
    for table in ("event", "outcome", "journal"):
        for step in plan if name not in _MAY_SCAN else ():
            if re.match(rf"SEARCH {table}\b", step):
                assert re.search(r"\((ok=\? AND )?(rowid|place|run|artifact|(?:<expr>)).*[=<>]", step), step


def test_the_newest_runs_are_found_without_looking_at_the_others() -> None:
    for name in ("list_runs", "names_of_runs"):
        assert [step for step in _query_plans()[name] if "TEMP B-TREE" in step] == [], name


def test_what_failed_and_what_was_made_again_is_found_by_an_index_of_its_own() -> None:
    plans = _query_plans()
    for name in ("find_failures", "find_failures_back", "failed_rows", "failures_of_keys"):
        assert "SEARCH journal USING INDEX journal_failed (ok=? AND rowid>? AND rowid<?)" in plans[name], name
    assert "SEARCH journal USING INDEX journal_tried_again (place>? AND place<?)" in plans["tried_again"]
    for name in ("find_calls", "find_calls_back", "find_failures_back", "failed_rows", "tried_again"):
        assert not [step for step in plans[name] if "TEMP B-TREE" in step], "nothing is sorted"


def test_the_queries_that_may_scan_exist() -> None:
    assert set(_MAY_SCAN) <= set(read_queries("sqlite"))


# -- reading ahead -----------------------------------------------------------------------------------------------------


def test_outcomes_are_read_ahead_when_they_are_asked_for_in_order(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await write(store, 3000)
        readings = _count_readings(store)
        journal = await store.open_run(request())
        keys = list(journal.recorded.finished)
        for each in keys:
            await journal.load(each)
        in_order = len(readings)
        assert in_order < 20
        near = iter([each for start in range(0, 3000, 100) for each in reversed(keys[start : start + 100])])

        async def worker() -> None:
            for each in near:
                await journal.load(each)

        await asyncio.gather(*[worker() for _ in range(50)])
        assert len(readings) - in_order < 40

    execute(path, test)


def test_little_is_read_in_vain_when_outcomes_are_asked_for_in_another_order(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await write(store, 3000)
        journal = await store.open_run(request())
        readings = _count_readings(store)
        keys = list(journal.recorded.finished)
        for number in range(300):
            assert (await journal.load(keys[number * 1237 % 3000])).key == keys[number * 1237 % 3000]
        assert sum(readings) < 300 * 8

    execute(path, test)


def _count_readings(store: SqliteStore) -> list[int]:
    """How many outcomes each reading is for."""
    readings: list[int] = []
    begin_to_read = store.engine.begin_to_read

    def counted(work: Any) -> Any:
        def watched(session: Any) -> Any:
            found = work(session)
            if isinstance(found, list) and found and isinstance(found[0], StoredOutcome):
                readings.append(len(found))
            return found

        return begin_to_read(watched)

    store.engine.begin_to_read = counted  # type: ignore[method-assign]
    return readings


@pytest.mark.parametrize("size", [10, 30_000])
def test_what_is_read_ahead_is_bounded(path: Path, size: int) -> None:
    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request())
        for start in range(0, 3000 if size < 100 else 600, 200):
            await asyncio.gather(*[call(journal, number, "x" * size) for number in range(start, start + 200)])
        await journal.close(STARTED)
        journal = await store.open_run(request())
        ahead: ReadAhead = journal._read_ahead
        most = 0
        for number, each in enumerate(list(journal.recorded.finished)):
            if number % 3:  # so that something is left over
                await journal.load(each)
                most = max(most, len(ahead._kept))
                assert ahead._bytes == sum(len(kept.row.value or b"") for kept in ahead._kept.values())
                assert ahead._bytes <= _MOST_BYTES
        assert most <= _MOST_KEPT
        assert ahead._limit <= _MOST

    execute(path, test)


# -- URLs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("runs.db", "runs.db"),
        ("a/runs.sqlite", "a/runs.sqlite"),
        ("/var/lib/runs.sqlite3", "/var/lib/runs.sqlite3"),
        ("sqlite:///runs.db", "runs.db"),
        ("sqlite:///.rh_agents/runs", ".rh_agents/runs"),
        ("sqlite:////var/lib/runs.db", "/var/lib/runs.db"),
        ("sqlite:///a%20b.db?busy_timeout=2.5", "a b.db"),
        ("sqlite:///runs.db?artifacts=/tmp/large", "runs.db"),
    ],
)
def test_a_url_names_a_file(url: str, path: str) -> None:
    store = open_store(url)
    assert isinstance(store, SqliteStore)
    assert store.path == Path(path)
    assert not Path(path).exists()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("runs.txt", "'memory:', 'sqlite:///runs.db'"),
        ("mysql://host/runs", "'postgresql://host/database'"),
        ("sqlite://runs.db", "write sqlite:///runs.db"),
        ("sqlite:///", "names no file"),
        ("sqlite:///runs.db#a", "names no file"),
        ("sqlite:///runs.db?timeout=3", "has no option 'timeout': there are artifacts, busy_timeout"),
        ("sqlite:///runs.db?busy_timeout=soon", "busy_timeout"),
    ],
)
def test_a_url_that_names_no_store_is_refused_with_a_word_about_what_does(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        open_store(url)


def test_large_results_are_kept_where_the_url_says(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/runs.db?artifacts={tmp_path}/large")
    assert isinstance(store, SqliteStore)

    async def main() -> None:
        journal = await store.open_run(request())
        await call(journal, 1, "x" * 100_000)
        await store.aclose()

    asyncio.run(main())
    assert len(list((tmp_path / "large").glob("*/*"))) == 1
    assert isinstance(open_store("memory:"), MemoryStore)
