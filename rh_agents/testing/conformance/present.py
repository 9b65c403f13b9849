"""What a run is doing now, as its owner lets others know."""

from __future__ import annotations

import pytest

from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Journal, Store
from rh_agents.core.ports.present import Present, Presented, RunningCall, Waiting, present_of_run
from rh_agents.testing._records import BRIEF_LEASE, COMPLETED, RUN, STARTED, request
from rh_agents.testing.conformance.suite import StoreSuite, expect_refusals, on_an_event_loop, until, written_run

__all__ = ["PresentConformance"]

BUSY = Present(
    1_700_000_000.5,
    in_flight=2,
    waiting=(Waiting("openai\0 é", 3, 1_700_000_000.25, "requests"),),
    running=(RunningCall("ab" * 32, "survey::pages[3]::fetch", 1_699_999_999.0, 1),),
    outcomes=5,
    began_at=1_699_999_990.0,
)
LATER = Present(1_700_000_001.5, in_flight=1, outcomes=6, began_at=1_699_999_990.0)


class PresentConformance(StoreSuite):
    """What a run is doing now can be seen from outside. A store whose journals do not tell it need not have this."""

    @on_an_event_loop
    async def test_only_a_run_that_is_there_does_anything(self, store: Store) -> None:
        await expect_refusals(store, lambda: present_of_run(store, RUN))

    @on_an_event_loop
    async def test_of_a_run_whose_owner_has_not_said_anything_nothing_is_known(self, store: Store) -> None:
        await store.open_run(request(lease=BRIEF_LEASE))
        assert await present_of_run(store, RUN) is None

    @on_an_event_loop
    async def test_what_the_owner_says_is_seen(self, store: Store) -> None:
        await self._see(store, store)

    @on_an_event_loop
    async def test_what_the_owner_says_is_seen_by_another_process(self, store: Store) -> None:
        await self._see(store, await self._second(store))

    async def _see(self, store: Store, looking: Store) -> None:
        said = [BUSY]
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        _presented(journal).present_with(lambda: said[0])
        assert await _seen(looking) == BUSY
        said[0] = LATER
        assert await _seen(looking, but=BUSY) == LATER

    @on_an_event_loop
    async def test_when_nobody_executes_the_run_any_more_nothing_is_under_way(self, store: Store) -> None:
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        _presented(journal).present_with(lambda: BUSY)
        await _seen(store)
        await journal.close(STARTED)
        assert await present_of_run(store, RUN) == BUSY.ended()

    @on_an_event_loop
    async def test_what_a_process_said_that_was_killed_is_what_is_known_until_another_one_goes_on(
        self, store: Store
    ) -> None:
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        _presented(journal).present_with(lambda: BUSY)
        await _seen(store)
        del journal
        store = await self._crashed(store)
        assert await present_of_run(store, RUN) == BUSY
        journal = await self._taken_over(store)
        assert await present_of_run(store, RUN) is None, "an earlier owner said it"
        _presented(journal).present_with(lambda: LATER)
        assert await _seen(store) == LATER
        await journal.close(COMPLETED)
        assert await present_of_run(store, RUN) == LATER.ended()

    @on_an_event_loop
    async def test_a_run_that_is_gone_says_nothing(self, store: Store) -> None:
        asked: list[bool] = []

        def sample() -> None:
            asked.append(True)

        journal = await store.open_run(request(lease=BRIEF_LEASE))
        _presented(journal).present_with(sample)

        async def has_been_asked() -> bool | None:
            await present_of_run(store, RUN)
            return True if asked else None

        await until(has_been_asked)
        assert await present_of_run(store, RUN) is None

    @on_an_event_loop
    async def test_it_is_no_part_of_a_copy_and_gone_with_the_run(self, store: Store) -> None:
        await written_run(store, 1)
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        _presented(journal).present_with(lambda: BUSY)
        await _seen(store)
        await journal.close(COMPLETED)
        await store.fork_run(RUN, "copy", [], [])
        assert await present_of_run(store, "copy") is None
        await store.delete_run(RUN)
        with pytest.raises(StoreError, match=RUN):
            await present_of_run(store, RUN)
        await written_run(store, 1)
        assert await present_of_run(store, RUN) is None


def _presented(journal: Journal) -> Presented:
    if not isinstance(journal, Presented):
        pytest.skip("its journals do not let others know what a run is doing")
    return journal


async def _seen(store: Store, but: Present | None = None) -> Present:
    """What is known of the run, as soon as that is anything else than `but`."""

    async def other() -> Present | None:
        found = await present_of_run(store, RUN)
        return None if found == but else found

    return await until(other)
