"""Reading and following the journal of a run."""

from __future__ import annotations

import asyncio
import random

from rh_agents.core.ports import Store
from rh_agents.core.usage import Usage
from rh_agents.testing._records import (
    CANCELLED,
    COMPLETED,
    RUN,
    STARTED,
    completed,
    fact,
    key,
    listed,
    outcome,
    request,
    same_event,
    same_outcome,
)
from rh_agents.testing.conformance.suite import PATIENCE, StoreSuite, on_an_event_loop, opened, written_run

__all__ = ["ReadingConformance"]


class ReadingConformance(StoreSuite):
    """Journals are read from any position, without values, and while they grow. Every store needs this."""

    @on_an_event_loop
    async def test_a_journal_is_read_from_any_place(self, store: Store) -> None:
        journal, written = await opened(store)
        for number in range(1500):
            written.note(journal, fact(RUN, STARTED, outcome(number)))
        await journal.flush()
        for after in (0, 1, 511, 512, 999, 1000, 1001, 1499, 1500, 2000):
            stored = await listed(store.events(RUN, after=after))
            assert [each.sequence for each in stored] == list(range(after + 1, 1501))
        for each, (expected, _) in zip(await listed(store.events(RUN)), written.entries, strict=True):
            same_event(each.event, expected, has_result=False)

    @on_an_event_loop
    async def test_a_reader_who_leaves_early_holds_nothing_up(self, store: Store) -> None:
        await written_run(store, *range(50))
        for _ in range(20):
            reading = store.events(RUN)
            assert (await anext(reading)).sequence == 1
            await reading.aclose()  # type: ignore[attr-defined]
            loading = store.outcomes(RUN)
            assert (await anext(loading)).key == key(0)
            await loading.aclose()  # type: ignore[attr-defined]
        journal = await store.open_run(request())
        await journal.append(completed(RUN, outcome(50)), outcome(50))

    @on_an_event_loop
    async def test_outcomes_are_read_in_the_order_in_which_they_were_recorded(self, store: Store) -> None:
        numbers = random.Random(5).sample(range(700), 700)
        journal, written = await opened(store)
        for number in numbers:
            written.note(journal, completed(RUN, outcome(number, number)), outcome(number, number))
        await journal.flush()
        assert [each.value for each in await listed(store.outcomes(RUN))] == numbers

    @on_an_event_loop
    async def test_keys_and_addresses_are_read_without_values(self, store: Store) -> None:
        journal, written = await opened(store)
        for call in (
            outcome(1, {"a": (1,)}, usage=Usage(requests=1)),
            outcome(2, "x" * 1_000_000, group_id="group"),
            outcome(3, error=ValueError("oops"), made_in=(1, 2, 3), base=key("base"), parent=key("parent")),
        ):
            await written.call(journal, call)
        unread = await listed(store.unread_outcomes(RUN))
        for each, given in zip(unread, written.outcomes.values(), strict=True):
            assert each.header == given.header
            assert type(each.header.ok) is bool
            same_outcome(each.read(), given)
        assert {each.event.result for each in await listed(store.events(RUN, values=False))} == {None}
        assert len(await listed(store.events(RUN, values=False))) == len(written.entries)

    @on_an_event_loop
    async def test_a_follower_sees_what_is_added_until_the_run_is_closed(self, store: Store) -> None:
        await self._follow(store, store)

    @on_an_event_loop
    async def test_a_follower_in_another_process_sees_what_is_added_until_the_run_is_closed(self, store: Store) -> None:
        await self._follow(store, await self._second(store))

    async def _follow(self, store: Store, reader: Store) -> None:
        seen: list[int] = []
        arrived = asyncio.Event()

        async def follow() -> None:
            async for each in reader.events(RUN, after=1, follow=True):
                seen.append(each.sequence)
                arrived.set()

        journal, written = await opened(store)
        await written.call(journal, outcome(0))
        following = asyncio.ensure_future(follow())
        for number in range(1, 4):
            await written.call(journal, outcome(number))
            async with asyncio.timeout(PATIENCE):
                while len(seen) < 2 * number + 1:
                    arrived.clear()
                    await arrived.wait()
            assert not following.done()
        await journal.append(fact(RUN, CANCELLED, None))
        await journal.close(COMPLETED)
        async with asyncio.timeout(PATIENCE):
            await following
        assert seen == list(range(2, 10))

    @on_an_event_loop
    async def test_to_follow_a_run_that_nobody_executes_is_to_read_it(self, store: Store) -> None:
        await written_run(store, 1, 2)
        async with asyncio.timeout(PATIENCE):
            assert len(await listed(store.events(RUN, follow=True))) == 4
