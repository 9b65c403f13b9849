"""Owners of runs: leases and fences."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from rh_agents.core.errors import LeaseLost, RunIsLive
from rh_agents.core.ports import LeasedJournal, Store
from rh_agents.testing._records import (
    BRIEF_LEASE,
    COMPLETED,
    RUN,
    STARTED,
    Written,
    completed,
    fact,
    found_run,
    key,
    outcome,
    request,
)
from rh_agents.testing.conformance.suite import StoreSuite, expect_refusal, on_an_event_loop

__all__ = ["FencingConformance", "OwnerConformance"]


class OwnerConformance(StoreSuite):
    """A run has one owner at a time. Every store needs this."""

    @on_an_event_loop
    async def test_a_run_has_one_owner_whom_others_are_told(self, store: Store) -> None:
        written = Written(RUN)
        journal = await store.open_run(request(owner="the first\0"))
        for _ in range(3):
            with pytest.raises(RunIsLive, match=RUN) as caught:
                await store.open_run(request(owner="the second"))
            assert caught.value.owner == "the first\0"
        assert (await found_run(store)).owner == "the first\0"
        await written.call(journal, outcome(1))
        await journal.close(STARTED)
        assert (await found_run(store)).owner is None
        second = await store.open_run(request(owner="the second"))
        await written.call(second, outcome(2))
        await written.check(store)

    @on_an_event_loop
    async def test_another_process_cannot_open_a_live_run_and_can_when_it_is_closed(self, store: Store) -> None:
        other = await self._second(store)
        journal = await store.open_run(request(owner="the first"))
        written = Written(RUN)
        await written.call(journal, outcome(1, "a"))
        with pytest.raises(RunIsLive, match=RUN) as caught:
            await other.open_run(request(owner="the second"))
        assert caught.value.owner == "the first"
        for refused in (other.supersede(RUN, [key(1)]), other.delete_run(RUN)):
            with pytest.raises(RunIsLive):
                await refused
        assert await other.find_run(RUN) == await store.find_run(RUN)
        await written.check(other)
        await written.call(journal, outcome(2, "b"))
        await journal.close(STARTED)
        second = await other.open_run(request(owner="the second"))
        await written.check_journal(second)
        await written.call(second, outcome(3, "c"))
        with pytest.raises(RunIsLive):
            await store.open_run(request(owner="the first"))
        await written.check(store)

    @on_an_event_loop
    async def test_of_many_who_open_a_run_one_gets_it(self, store: Store) -> None:
        other = await self.second_store(store) or store
        if other is not store:
            self._stores.append(other)
        for _ in range(4):  # a new run, then one that is there
            requests = [(store, other)[number % 2].open_run(request(owner=str(number))) for number in range(20)]
            opened = await asyncio.gather(*requests, return_exceptions=True)
            journals = {str(number): each for number, each in enumerate(opened) if not isinstance(each, BaseException)}
            assert len(journals) == 1
            assert {type(each) for each in opened if isinstance(each, BaseException)} == {RunIsLive}
            ((owner, journal),) = journals.items()
            assert (await found_run(store)).owner == owner
            await journal.append(fact(RUN, STARTED, outcome(1)))
            await journal.close(STARTED)

    @on_an_event_loop
    async def test_an_owner_who_works_for_longer_than_its_lease_keeps_the_run(self, store: Store) -> None:
        journal = await store.open_run(request(lease=0.5))
        call = outcome(1)
        await asyncio.sleep(1.2)  # a lease is real time, also in tests
        with pytest.raises(RunIsLive):
            await store.open_run(request(owner="the second"))
        await journal.append(completed(RUN, call), call)

    @on_an_event_loop
    async def test_a_store_that_is_closed_leaves_open_runs_to_others(self, store: Store) -> None:
        other = await self._second(store)
        written = Written(RUN)
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        await written.call(journal, outcome(1))
        written.note(journal, fact(RUN, STARTED, outcome(2)))
        await journal.flush()
        await store.aclose()
        assert (await found_run(other)).status is STARTED
        successor = await self._taken_over(other)
        assert (successor.info.status, successor.info.epoch) == (STARTED, 0)
        await written.check_journal(successor)
        await written.call(successor, outcome(2))
        await written.check(other)


class FencingConformance(StoreSuite):
    """An owner that was silent for longer than its lease, and was replaced, can write no more. It needs `silence`."""

    @on_an_event_loop
    async def test_who_lost_the_run_writes_nothing_more(self, store: Store) -> None:
        written, zombie, successor = await self._zombie(store)
        await written.call(successor, outcome(2))
        with pytest.raises(LeaseLost, match=RUN):
            await zombie.append(completed(RUN, outcome(3)), outcome(3))
        await expect_refusal(zombie, LeaseLost)
        await written.call(successor, outcome(3, "of the successor"))
        await written.check_journal(successor)
        await written.check(store)

    @on_an_event_loop
    async def test_who_lost_the_run_cannot_end_it(self, store: Store) -> None:
        written, zombie, successor = await self._zombie(store)
        with contextlib.suppress(LeaseLost):
            await zombie.close(COMPLETED)
        info = await found_run(store)
        assert (info.status, info.owner) == (STARTED, "successor")
        await written.call(successor, outcome(2))
        await successor.close(COMPLETED)
        await written.check(store)

    @on_an_event_loop
    async def test_who_lost_the_run_learns_it_from_a_flush(self, store: Store) -> None:
        written, zombie, successor = await self._zombie(store)
        try:
            zombie.note(fact(RUN, STARTED, outcome(3)))
            lost = False
        except LeaseLost:
            lost = True
        if not lost:
            with pytest.raises(LeaseLost):
                await zombie.flush()
        await expect_refusal(zombie, LeaseLost)
        await written.call(successor, outcome(2))
        await written.check(store)

    @on_an_event_loop
    async def test_who_may_have_lost_the_run_finds_out_before_anything_begins(self, store: Store) -> None:
        written, zombie, successor = await self._zombie(store)
        if not isinstance(zombie, LeasedJournal):
            pytest.skip("runs of this store are not lost by silence")
        assert not zombie.is_ours
        with pytest.raises(LeaseLost, match=RUN):
            await zombie.prove()
        await expect_refusal(zombie, LeaseLost)
        await written.call(successor, outcome(2))
        await written.check(store)

    @on_an_event_loop
    async def test_who_was_silent_for_long_keeps_the_run_if_nobody_has_taken_it(self, store: Store) -> None:
        written = Written(RUN)
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        if not isinstance(journal, LeasedJournal):
            pytest.skip("runs of this store are not lost by silence")
        if not await self.silence(store, RUN):
            pytest.skip("silence() does not stop the signs of life of an owner")
        before = journal.is_ours
        await asyncio.sleep(BRIEF_LEASE)
        silent = journal.is_ours
        await journal.prove()
        assert (before, silent, journal.is_ours) == (True, False, True)
        await written.call(journal, outcome(1))
        await written.check(store)
