"""Deleting runs, and the artifacts that are left over."""

from __future__ import annotations

from typing import ClassVar

import pytest

from rh_agents.core.errors import RunIsLive, StoreError
from rh_agents.core.ports import Store
from rh_agents.core.ports.keeping import size_of_run
from rh_agents.core.types import ExecutionStatus
from rh_agents.testing._records import COMPLETED, ODD_TEXTS, RUN, completed, key, listed, outcome, request
from rh_agents.testing.conformance.suite import StoreSuite, expect_refusals, on_an_event_loop, opened, written_run

__all__ = ["ArtifactConformance", "DeletionConformance"]


class DeletionConformance(StoreSuite):
    """Runs can be deleted."""

    operations: ClassVar[tuple[str, ...]] = ("delete",)

    @on_an_event_loop
    async def test_only_a_run_that_is_there_is_deleted(self, store: Store) -> None:
        await expect_refusals(store, lambda: store.delete_run(RUN))

    @on_an_event_loop
    async def test_a_run_that_is_deleted_is_forgotten_and_its_name_is_free(self, store: Store) -> None:
        await written_run(store, 1, 2, run_id="other")
        journal = await store.open_run(request(tags=("a",)))
        await journal.append(completed(RUN, outcome(1, "old")), outcome(1, "old"))
        with pytest.raises(RunIsLive, match=RUN):
            await store.delete_run(RUN)
        await journal.close(COMPLETED)
        await store.delete_run(RUN)
        assert await store.find_run(RUN) is None
        assert [info.run_id for info in await store.runs()] == ["other"]
        with pytest.raises(StoreError):
            await listed(store.events(RUN))
        journal, written = await opened(store)
        assert (journal.info.status, journal.info.epoch, tuple(journal.info.tags)) == (ExecutionStatus.PENDING, 0, ())
        await written.call(journal, outcome(1, "new"))
        await written.check_journal(journal)
        await written.check(store)

    @on_an_event_loop
    async def test_runs_with_confusing_names_are_deleted_one_by_one(self, store: Store) -> None:
        for name in ODD_TEXTS:
            await written_run(store, 1, run_id=name)
        for number, name in enumerate(ODD_TEXTS, start=1):
            reading = store.events(name)
            await anext(reading)
            await reading.aclose()  # type: ignore[attr-defined]
            await store.delete_run(name)
            assert len(await store.runs()) == len(ODD_TEXTS) - number

    @on_an_event_loop
    async def test_the_size_of_a_run_grows_with_its_values_and_is_its_own(self, store: Store) -> None:
        journal, written = await opened(store)
        await written.call(journal, outcome(1, "x" * 1000))
        await written.call(journal, outcome(2, error=ValueError("y" * 500)))
        await journal.close(COMPLETED)
        await written_run(store, 1, run_id="other")
        found, other = await size_of_run(store, RUN), await size_of_run(store, "other")
        if found is None or other is None:
            pytest.skip("the store does not tell sizes")
        assert 1500 < found.size < 6000
        assert 0 < other.size < 1000
        with pytest.raises(StoreError, match="nowhere"):
            await size_of_run(store, "nowhere")


class ArtifactConformance(StoreSuite):
    """Large values are kept apart from the journal; those that no run refers to are garbage."""

    @on_an_event_loop
    async def test_the_artifacts_of_a_run_are_those_that_no_other_run_uses(self, store: Store) -> None:
        journal, written = await opened(store)
        await written.call(journal, outcome(1, "x" * 100_000))
        await written.call(journal, outcome(2, "y" * 50_000))
        await written.call(journal, outcome(3, "y" * 50_000))
        await journal.close(COMPLETED)
        found = await size_of_run(store, RUN)
        if found is None:
            pytest.skip("the store does not tell sizes")
        assert (found.artifacts, found.artifact_size) == (2, 150_004)
        await store.fork_run(RUN, "copy", [key(1)], [])
        found, copy = await size_of_run(store, RUN), await size_of_run(store, "copy")
        assert found is not None
        assert copy is not None
        assert (found.artifacts, found.artifact_size, copy.artifacts) == (1, 100_002, 0)

    @on_an_event_loop
    async def test_garbage_is_what_no_run_refers_to(self, store: Store) -> None:
        large, other = "x" * 100_000, "y" * 100_000
        journal, written = await opened(store)
        await written.call(journal, outcome(1, large))
        await written.call(journal, outcome(2, other))
        assert await store.collect_garbage(min_age=0.0) == 0, "while the run is live"
        await journal.close(COMPLETED)
        await store.fork_run(RUN, "copy", [key(2)], [])
        assert await store.collect_garbage(min_age=0.0) == 0, "while there are two runs"
        await written.check(store)
        await store.delete_run(RUN)
        assert await store.collect_garbage(min_age=3600.0) == 0, "while it is young"
        assert 100_000 <= await store.collect_garbage(min_age=0.0) < 150_000
        copy = await store.open_run(request("copy"))
        assert (await copy.load(key(1))).value == large
        await copy.close(COMPLETED)
        await store.delete_run("copy")
        assert 100_000 <= await store.collect_garbage(min_age=0.0) < 150_000
        assert await store.collect_garbage(min_age=0.0) == 0
        await store.aclose()
        with pytest.raises(StoreError):
            await store.collect_garbage()
