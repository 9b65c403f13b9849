"""Looking for damage."""

from __future__ import annotations

import pytest

from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Store
from rh_agents.testing._records import outcome, request
from rh_agents.testing.conformance.suite import StoreSuite, on_an_event_loop, written_run

__all__ = ["CheckConformance"]


class CheckConformance(StoreSuite):
    """A store can be checked for damage."""

    @on_an_event_loop
    async def test_a_store_that_is_well_has_nothing_to_report(self, store: Store) -> None:
        assert await store.check() == []
        written = await written_run(store, 1, 2)
        journal = await store.open_run(request())
        await written.call(journal, outcome(3, "x" * 100_000))
        assert await store.check() == []
        await store.aclose()
        with pytest.raises(StoreError):
            await store.check()
