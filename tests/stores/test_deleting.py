"""Runs that are deleted a part at a time, and what is left if that is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rh_agents.core.errors import StoreError, ValuesErased
from rh_agents.core.ports import CacheEntry, RunRequest
from rh_agents.core.ports.keeping import erasure_of
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores import open_store
from rh_agents.stores._backend import WriteSession
from rh_agents.stores._deleting import FIRST, LARGEST, Pace
from rh_agents.stores._store import SqlStore
from rh_agents.testing._records import completed, listed, outcome
from tests.stores.sqlite_kit import RUN
from tests.stores.test_child_runs import child

ROWS = 20 * FIRST
CHILD = "tuesday/pages/1"


class Counted:
    """The backend of a store; it counts rows that go in one transaction, and fails when it is told to."""

    def __init__(self, store: SqlStore) -> None:
        self._inner = store.engine.writer._backend
        self.transactions: list[str] = []
        self.lasts: list[int] = [ROWS]
        """How many rows there were before the first part, and after each."""
        self.befores: list[int | None] = []
        """Behind which row each part was told that there is nothing."""
        self.is_empty = False
        self.fails_after: int | None = None
        store.engine.writer._backend = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def writing(self) -> WriteSession:
        session = self._inner.writing()
        for name in ("shorten", "delete"):
            setattr(session, name, self._counted(name, getattr(session, name)))
        return session

    def _counted(self, name: str, work: Callable[..., bool]) -> Callable[..., bool]:
        def counted(*args: Any, **options: Any) -> bool:
            if self.fails_after is not None and len(self.transactions) >= self.fails_after:
                raise StoreError("the process was killed")
            self.transactions.append(name)
            if name == "shorten":
                self.lasts.append(args[2])
                self.befores.append(args[3])
            self.is_empty = options.get("is_empty", False)
            return work(*args, **options)

        return counted


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'runs.db'}"
    found: str = request.getfixturevalue("postgresql_url")
    return found


def execute(url: str, test: Callable[[SqlStore], Coroutine[Any, Any, None]]) -> None:
    """A test with a run of many rows that has ended, and a small one."""

    async def main() -> None:
        store = open_store(url)
        assert isinstance(store, SqlStore)
        try:
            for run_id, rows in ((RUN, ROWS), ("small", 5)):
                journal = await store.open_run(RunRequest(run_id, "me"))
                for number in range(rows):
                    given = outcome(number)
                    journal.note(completed(run_id, given), given)
                await journal.flush()
                await journal.close(ExecutionStatus.COMPLETED)
            await test(store)
        finally:
            await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("microseconds", "rows"), [(1.0, LARGEST), (100.0, 250), (773.0, 32), (20_000.0, 10), (0.0, LARGEST)]
)
def test_a_transaction_deletes_as_many_rows_as_twenty_five_milliseconds_allow(microseconds: float, rows: int) -> None:
    pace = Pace()
    for _ in range(10):
        pace.took(pace.rows, pace.rows * microseconds / 1e6)
    assert pace.rows == rows


def test_a_slow_transaction_is_followed_by_a_small_one_and_a_quick_one_by_no_more_than_twice_as_many_rows() -> None:
    pace = Pace()
    pace.took(FIRST, 0.4)
    assert pace.rows == 10, "the least"
    assert pace.rest == 0.4, "meanwhile others write"
    pace.took(pace.rows, 0.001)
    assert pace.rows == 20


def test_a_long_run_is_deleted_a_part_at_a_time(url: str) -> None:
    async def test(store: SqlStore) -> None:
        counted = Counted(store)
        await store.engine.writer.done(lambda _: store.engine.writer._close_session())
        await store.delete_run(RUN)
        parts = len(counted.transactions) - 1
        assert counted.transactions == ["shorten"] * parts + ["delete"]
        assert counted.lasts[:2] == [ROWS, ROWS - FIRST]
        assert counted.lasts[-1] == 0, "what is left for the last transaction is one row"
        assert counted.befores == [None, *counted.lasts[1:-1]], "no part looks at what is gone already"
        assert counted.is_empty
        sizes = [before - after for before, after in pairwise(counted.lasts)]
        assert all(after <= 2 * before for before, after in pairwise(sizes))
        assert max(sizes) <= LARGEST
        assert await store.find_run(RUN) is None
        await store.delete_run("small")
        assert counted.transactions[parts + 1 :] == ["delete"]
        assert await store.check() == []
        journal = await store.open_run(RunRequest(RUN, "me"))
        assert not journal.recorded.finished, "the name is free"
        await journal.close(ExecutionStatus.COMPLETED)

    execute(url, test)


@pytest.mark.parametrize("parts", [0, 2, 3])
def test_a_deletion_that_is_cut_off_leaves_a_run_that_is_refused_and_deleted_by_the_next_one(
    url: str, parts: int
) -> None:
    async def test(store: SqlStore) -> None:
        counted = Counted(store)
        await store.engine.writer.done(lambda _: store.engine.writer._close_session())
        counted.fails_after = parts
        with pytest.raises(StoreError, match="the process was killed"):
            await store.delete_run(RUN)
        found = await store.find_run(RUN)
        assert found is not None
        assert found.outcomes == counted.lasts[-1] == len(await listed(store.events(RUN)))
        erasure = erasure_of(found)
        assert erasure is not None
        assert not erasure.is_finished
        with pytest.raises(ValuesErased):
            await store.open_run(RunRequest(RUN, "me"))
        assert [line for line in await store.check() if "damaged" in line or "should have" in line] == []
        counted.fails_after = None
        await store.delete_run(RUN)
        assert await store.find_run(RUN) is None
        assert await store.check() == []

    execute(url, test)


def test_all_that_has_expired_in_the_cache_is_deleted_however_much_it_is(url: str) -> None:
    async def test(store: SqlStore) -> None:
        def put(session: WriteSession) -> None:
            for number in range(3 * FIRST + 5):
                session.put_cached(CacheEntry(number.to_bytes(32, "big"), b"1", "fetch", 1.0, 2.0, None))

        await store.engine.writer.done(put)
        await store.collect_garbage()
        left = await store.engine.read(lambda session: session.inner.cached(b"", 10))
        assert left == []

    execute(url, test)


def test_a_long_child_run_is_shortened_as_well_and_refused_when_that_is_cut_off(url: str) -> None:
    async def test(store: SqlStore) -> None:
        parent = await store.open_run(RunRequest("tuesday", "me"))
        await store.add_child("tuesday", child(CHILD, queue=None))
        await parent.close(ExecutionStatus.STARTED, "it died")
        journal = await store.open_run(RunRequest(CHILD, "me"))
        for number in range(3 * FIRST):
            given = outcome(number)
            journal.note(completed(CHILD, given), given)
        await journal.flush()
        await journal.close(ExecutionStatus.STARTED, "it died")
        counted = Counted(store)
        await store.engine.writer.done(lambda _: store.engine.writer._close_session())
        counted.fails_after = 1
        with pytest.raises(StoreError, match="the process was killed"):
            await store.delete_run("tuesday")
        assert counted.lasts[-1] == 2 * FIRST
        for run_id in ("tuesday", CHILD):
            with pytest.raises(ValuesErased):
                await store.open_run(RunRequest(run_id, "me"))
        counted.fails_after = None
        await store.delete_run("tuesday")
        assert counted.lasts[-1] == 0
        assert await store.find_run(CHILD) is None
        assert await store.check() == []

    execute(url, test)
