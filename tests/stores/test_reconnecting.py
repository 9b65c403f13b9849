"""What becomes of a batch whose commit was not answered: the rule as a table, and the engine that follows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rh_agents.core.errors import LeaseLost, StoreError
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend import ConnectionLost
from rh_agents.stores._backend.rows import Batch, EventRow, LeaseState, Standing
from rh_agents.stores._journal import SqlJournal
from rh_agents.stores._reconnecting import Fate, attempts, fate
from rh_agents.stores._rows import event_row
from rh_agents.stores.sqlite import SqliteStore
from rh_agents.testing._records import key, listed
from tests.stores.sqlite_kit import RUN, Database, call, request, sql, started


def batch(fence: int, last_sequence: int, count: int) -> Batch:
    events: list[EventRow] = [
        event_row(last_sequence + number, started(number), None) for number in range(1, count + 1)
    ]
    return Batch(7, fence, last_sequence, events, [])


@pytest.mark.parametrize(
    ("fence", "last_sequence", "expected"),
    [
        (3, 15, Fate.WRITTEN),
        (3, 10, Fate.NOT_WRITTEN),
        (3, 9, Fate.CUT_SHORT),
        (3, 12, Fate.CUT_SHORT),
        (3, 16, Fate.CUT_SHORT),
        (4, 15, Fate.TAKEN_OVER),
        (4, 10, Fate.TAKEN_OVER),
        (2, 10, Fate.TAKEN_OVER),
    ],
)
def test_the_fence_and_the_sequence_say_what_was_written(fence: int, last_sequence: int, expected: Fate) -> None:
    assert fate(batch(3, 10, 5), Standing(fence, last_sequence, "started", "me", None)) is expected


def test_a_run_that_is_gone_is_nobodys() -> None:
    assert fate(batch(3, 10, 5), None) is Fate.TAKEN_OVER


def test_attempts_begin_at_once_are_further_and_further_apart_and_end_in_time() -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    begun = [round(now, 2) for _ in attempts(lambda: 5.0, lambda: now, sleep)]
    assert begun == [0.0, 0.05, 0.15, 0.35, 0.75, 1.55, 2.55, 3.55, 4.55]
    assert list(attempts(lambda: 5.0, lambda: 5.0, sleep)) == []


Test = Callable[[SqlJournal, Database, SqliteStore], Awaitable[None]]


def execute(path: Path, test: Test, **facts: Any) -> None:
    """A test with an open run in a store to which the way can break."""

    async def main() -> None:
        store = SqliteStore(path)
        database = Database(store)
        try:
            await test(await store.open_run(request(**facts)), database, store)
        finally:
            await store.aclose()

    asyncio.run(main())


def breaks(times: int, after: Callable[[Any], object] = lambda _: None) -> Callable[[Any], None]:
    """The way to the database breaks so many times when something is written; `after` is what happened before that."""
    left = iter(range(times))

    def broken(session: Any) -> None:
        if next(left, None) is not None:
            after(session)
            raise ConnectionLost("runs.db: the connection broke")

    return broken


def test_what_was_not_written_when_the_way_broke_is_written_again(tmp_path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        await call(journal, 1)
        database.failing = breaks(3)
        await asyncio.gather(*[call(journal, number) for number in range(2, 6)])
        await call(journal, 6)
        assert list(journal.recorded.finished) == [key(number) for number in range(1, 7)]
        assert len(await listed(store.events(RUN))) == 12
        assert await store.check() == []

    execute(tmp_path / "runs.db", test)


def written_without_an_answer(database: Database) -> Callable[[Any], None]:
    """The next batch is written, and then the way breaks."""
    is_done = False

    def broken(session: Any) -> None:
        nonlocal is_done
        if is_done:
            return
        is_done = True
        write = type(session).write

        def answer_lost(batches: Sequence[Batch], now: float) -> list[LeaseState]:
            write(session, batches, now)
            raise ConnectionLost("runs.db: the connection broke")

        database.instead = answer_lost

    return broken


def test_what_was_written_when_the_way_broke_is_not_written_twice(tmp_path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        await call(journal, 1)
        database.failing = written_without_an_answer(database)
        await asyncio.gather(*[call(journal, number) for number in range(2, 6)])
        await call(journal, 6)
        assert len(await listed(store.events(RUN))) == 12
        assert await store.check() == []

    execute(tmp_path / "runs.db", test)


def test_who_was_taken_over_while_there_was_no_way_writes_nothing(tmp_path: Path) -> None:
    def taken(session: Any) -> None:
        session.connection.execute("UPDATE run SET fence = fence + 1")

    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        await call(journal, 1)
        database.failing = breaks(1, taken)
        with pytest.raises(LeaseLost):
            await call(journal, 2)
        assert sql(tmp_path / "runs.db", "SELECT count(*) FROM journal") == [(2,)]

    execute(tmp_path / "runs.db", test)


def test_a_journal_that_is_shorter_than_what_was_acknowledged_is_a_clear_error(tmp_path: Path) -> None:
    def shorter(session: Any) -> None:
        session.connection.execute("UPDATE run SET last_sequence = 1")

    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        await call(journal, 1)
        database.failing = breaks(1, shorter)
        with pytest.raises(StoreError, match="has 1 events of a run of which 2 were acknowledged"):
            await call(journal, 2)

    execute(tmp_path / "runs.db", test)


def test_nothing_is_sent_again_when_the_lease_could_have_run_out(tmp_path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        await call(journal, 1)
        began = time.monotonic()
        sent: list[float] = []
        database.failing = breaks(1000, lambda _: sent.append(time.monotonic()))
        with pytest.raises(StoreError, match="the connection broke"):
            await call(journal, 2)
        assert len(sent) > 2
        assert max(sent) < began + 0.5 + 0.01
        database.failing = None
        with pytest.raises(StoreError, match="the connection broke"):
            await call(journal, 3)

    execute(tmp_path / "runs.db", test, lease=0.5)


@pytest.mark.parametrize("is_done", [True, False])
def test_a_run_ends_though_the_way_breaks_when_it_is_let_go_of(tmp_path: Path, is_done: bool) -> None:
    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        await call(journal, 1)
        database.losing_releases = [is_done]
        await journal.close(ExecutionStatus.COMPLETED)
        assert database.losing_releases == []
        found = await store.find_run(RUN)
        assert found is not None
        assert (found.status, found.owner) == (ExecutionStatus.COMPLETED, None)

    execute(tmp_path / "runs.db", test)


def test_a_session_that_has_died_while_it_was_idle_is_replaced_before_it_is_used(tmp_path: Path) -> None:
    async def test(journal: SqlJournal, database: Database, store: SqliteStore) -> None:
        await call(journal, 1)
        before = store.engine.writer._session
        database.has_died = before
        await call(journal, 2)
        assert store.engine.writer._session is not before

    execute(tmp_path / "runs.db", test)
