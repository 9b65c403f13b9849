"""Every store does what the ports say: one suite for all of them."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import pkgutil
from pathlib import Path
from typing import Any

import pytest

from rh_agents.core.errors import RunIsLive
from rh_agents.core.events import Fact
from rh_agents.core.ports import RunRequest, Store
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores import MemoryStore, open_store
from rh_agents.stores._backend.rows import Batch
from rh_agents.stores._memory.values import written
from rh_agents.stores._rows import encode_outcome, event_row, outcome_row
from rh_agents.stores._store import SqlStore
from rh_agents.testing import conformance
from rh_agents.testing._records import RUN
from rh_agents.testing.conformance import StoreConformance, StoreSuite


def opened(url: str) -> Store:
    """The store at a URL; where a package is missing, the test is skipped, or fails on CI."""
    try:
        return open_store(url)
    except ModuleNotFoundError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


class TestMemory(
    conformance.CoreConformance,
    conformance.CrashConformance,
    conformance.FencingConformance,
    conformance.RepeatedConformance,
    conformance.EditingConformance,
    conformance.StopConformance,
    conformance.DeletionConformance,
    conformance.ErasingConformance,
    conformance.CheckConformance,
    conformance.QuestionConformance,
    conformance.CacheConformance,
    conformance.SharingConformance,
    conformance.SummaryConformance,
    conformance.OutlineConformance,
    conformance.ActivityConformance,
    conformance.PresentConformance,
    conformance.CallWindowConformance,
    conformance.StreamingConformance,
    conformance.ControlConformance,
    conformance.QueueConformance,
    conformance.SequenceConformance,
):
    """The reference. It has no artifacts, and no second process; leases do not expire: a store forgets its owners."""

    async def make_store(self) -> MemoryStore:
        return MemoryStore()

    async def crash(self, store: Store) -> Store:
        await self.silence(store, "")
        return store

    async def plant(self, store: Store, fact: Fact, given: Outcome) -> bool:
        assert isinstance(store, MemoryStore)
        store._runs[RUN].add(fact, written(given))
        return True

    async def silence(self, store: Store, run_id: str) -> bool:
        assert isinstance(store, MemoryStore)
        for run in store._runs.values():
            run._owner = None
        return True


def test_a_run_in_memory_is_free_when_python_has_forgotten_its_owner() -> None:
    async def main() -> None:
        store = MemoryStore()
        journal = await store.open_run(RunRequest("monday", "the first"))
        with pytest.raises(RunIsLive):
            await store.open_run(RunRequest("monday", "the second"))
        del journal
        gc.collect()
        journal = await store.open_run(RunRequest("monday", "the second"))
        assert (journal.info.status, journal.info.epoch) == (ExecutionStatus.STARTED, 0)

    asyncio.run(main())


def test_the_whole_suite_has_every_part_of_it() -> None:
    modules = pkgutil.walk_packages(conformance.__path__, "rh_agents.testing.conformance.")
    found = [each for module in modules for each in vars(importlib.import_module(module.name)).values()]
    parts = {each for each in found if isinstance(each, type) and issubclass(each, StoreSuite)}
    assert len(parts) > 15
    assert parts < set(StoreConformance.__mro__)
    assert {each.__name__ for each in parts} < set(conformance.__all__)


class OnlyJournals(MemoryStore):
    """Fails the test if it is asked for more than a store must do."""

    def __getattribute__(self, name: str) -> Any:
        unknown = "supersede fork_run questions answer request_stop find_cached put_cached admit settle hold delete_run"
        assert name not in [*unknown.split(), "collect_garbage", "check"], f"the core of the suite asks for {name}"
        return super().__getattribute__(name)


class TestOnlyJournals(conformance.CoreConformance, conformance.SequenceConformance):
    """The core of the suite asks for nothing more, and random operations are those of the parts that are taken."""

    examples = 3

    async def make_store(self) -> MemoryStore:
        return OnlyJournals()


class OnDisk(StoreConformance):
    """What a store leaves behind when it is not closed is found by another one at the same place."""

    examples = 12
    journals = outlines = 20

    async def second_store(self, store: Store) -> Store:
        return await self.make_store()

    async def crash(self, store: Store) -> Store:
        """A process that is dead gives no signs of life; what it had in memory may be here for some time yet."""
        gc.collect()
        await self.silence(store, "")
        return await self.make_store()

    async def silence(self, store: Store, run_id: str) -> bool:
        """The thread that writes forgets that there are runs to give signs of life for."""
        assert isinstance(store, SqlStore)
        for number, fence in list(store.engine.writer._held):
            store.engine.writer.drop(number, fence)
        return True

    async def plant(self, store: Store, fact: Fact, given: Outcome) -> bool:
        assert isinstance(store, SqlStore)
        run = await store.engine.read(lambda session: session.find_run(RUN))
        assert run is not None
        sequence = run.last_sequence + 1
        row = event_row(sequence, fact, given.error is None)
        its = outcome_row(sequence, given, row, encode_outcome(given), None, None)
        batch = Batch(run.number, run.fence, run.last_sequence, [row], [its])
        await store.engine.writer.done(self.let_it_be)
        (state,) = await store.engine.writer.done(lambda session: session.write([batch], run.updated_at))
        return state.is_ours

    def let_it_be(self, session: Any) -> None:
        """Drop the index that our own tests have."""
        raise NotImplementedError


class TestSqlite(OnDisk):
    def let_it_be(self, session: Any) -> None:
        session.connection.execute("DROP INDEX IF EXISTS outcome_once")

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path / 'runs.db'}"

    async def make_store(self) -> Store:
        return opened(self.url)


class TestPostgresql(OnDisk):
    """Skipped where there is no server, see `tests/services/postgresql.py`; on CI it fails then."""

    def let_it_be(self, session: Any) -> None:
        session._connection.execute("DROP INDEX IF EXISTS outcome_once")

    @pytest.fixture(autouse=True)
    def _place(self, postgresql_url: str) -> None:
        self.url = postgresql_url

    async def make_store(self) -> Store:
        return opened(self.url)
