"""What a journal that is opened again knows of what is recorded."""

from __future__ import annotations

import asyncio
import random

import pytest

from rh_agents.core.errors import CallCancelled, StoreError
from rh_agents.core.groups import EndingCause, GroupEnding, GroupStatus
from rh_agents.core.ports import Store
from rh_agents.core.usage import Usage
from rh_agents.testing._records import (
    AWAITING,
    FAILED,
    RETRYING,
    RUN,
    STARTED,
    about_group,
    completed,
    fact,
    key,
    outcome,
    request,
)
from rh_agents.testing.conformance.suite import StoreSuite, on_an_event_loop, opened, written_run

__all__ = ["ResumeConformance"]


class ResumeConformance(StoreSuite):
    """A journal that is opened again knows what is recorded. Every store needs this."""

    @on_an_event_loop
    async def test_attempts_of_unfinished_calls_and_unknown_calls_are_known_again(self, store: Store) -> None:
        journal, written = await opened(store)
        for number in range(1, 6):
            await written.append(journal, fact(RUN, STARTED, outcome(number)))
        for attempt in (1, 2):
            await written.append(journal, fact(RUN, RETRYING, outcome(2), attempt=attempt))
        await written.append(journal, fact(RUN, RETRYING, outcome(3), attempt=1))
        await written.append(journal, fact(RUN, STARTED, outcome(3), attempt=2))
        await written.append(journal, fact(RUN, AWAITING, outcome(4)))
        done = outcome(5, attempts=1)
        await written.append(journal, completed(RUN, done), done)
        for each in (journal, None):
            if each is None:
                await journal.close(STARTED)
                each = await store.open_run(request())
            assert each.recorded.unknown == {key(1): 1, key(3): 9}
            assert each.recorded.attempts == {key(2): 2, key(3): 1}
            await written.check_journal(each)

    @on_an_event_loop
    async def test_the_order_in_which_members_of_a_group_ended_is_known_again(self, store: Store) -> None:
        journal, written = await opened(store)
        numbers = random.Random(3).sample(range(40), 40)
        for number in numbers:
            await written.call(journal, outcome(number, number, group_id=f"group {number % 3}\0"))
        await journal.close(STARTED)
        journal = await store.open_run(request())
        for rest in range(3):
            expected = [key(number) for number in numbers if number % 3 == rest]
            assert journal.recorded.orders[f"group {rest}\0"] == expected
        await written.check_journal(journal)

    @on_an_event_loop
    async def test_how_a_group_ended_early_is_known_again_with_its_cause(self, store: Store) -> None:
        journal, written = await opened(store)
        await written.call(journal, outcome(1, 1, group_id="left"))
        endings: dict[str, GroupEnding | None] = {}
        for cause in EndingCause:
            ending = GroupEnding(
                cause=cause, scope=key(9).hex(), epoch=1, tries=2, attempt=3, enrolled=9, total=12, known=4,
                member=key(8).hex(), message="\ud83d 'quoted' \"ending\"", timeout=0.5,
            )  # fmt: skip
            await written.append(journal, about_group(RUN, cause.value, GroupStatus.RUNNING, ending))
            endings[cause.value] = ending
        late = GroupEnding(cause=EndingCause.LEFT, outcomes=1)
        await written.append(journal, about_group(RUN, "left", GroupStatus.RUNNING, late))
        await written.append(
            journal, about_group(RUN, "again", GroupStatus.RUNNING, late.model_copy(update={"outcomes": 0}))
        )
        await written.append(journal, about_group(RUN, "again", GroupStatus.COMPLETED))
        await journal.close(STARTED)
        journal = await store.open_run(request())
        assert journal.recorded.endings == {**endings, "left": late, "again": None}
        await written.check_journal(journal)

    @on_an_event_loop
    async def test_failures_are_known_again_with_the_generation_that_made_them(self, store: Store) -> None:
        journal, written = await opened(store)
        await written.call(journal, outcome(1, "fine", made_in=(0, 0, 1)))
        await written.call(journal, outcome(2, error=ValueError("no"), made_in=(4, 2, 3)))
        await written.call(journal, outcome(3, error=CallCancelled("not needed"), made_in=(0, 0, 9)))
        await journal.close(FAILED)
        journal = await store.open_run(request())
        assert journal.recorded.failed == {key(2): (4, 2, 3), key(3): (0, 0, 9)}
        assert journal.recorded.dismissed == {key(3)}
        await written.check_journal(journal)

    @on_an_event_loop
    async def test_what_was_spent_is_folded_from_the_events(self, store: Store) -> None:
        journal = await store.open_run(request())
        usage, charges = Usage(input_tokens=7, output_tokens=3, requests=1, cost=0.25), {"": 1.5, "ab" * 32: 0.0}
        failed_attempt = fact(RUN, RETRYING, outcome(1), attempt=1, usage=usage, charges=charges)
        await journal.append(failed_attempt)
        spent = outcome(1, "value", usage=usage + usage)
        end = completed(RUN, spent).with_more(usage=usage, charges=charges)
        await journal.append(end, spent)
        hit = completed(RUN, outcome(2, "value")).with_more(from_cache=True)
        await journal.append(hit, outcome(2, "value"))
        await journal.close(STARTED)
        journal = await store.open_run(request())
        assert (await journal.load(spent.key)).usage == usage + usage
        recorded = journal.recorded.spent
        assert recorded[""].usage == recorded["ab" * 32].usage == usage + usage
        assert (recorded[""].calls, recorded["ab" * 32].calls) == (1, 1)
        assert recorded[""].by_actor == {failed_attempt.actor.name: usage + usage}
        assert recorded[""].seconds == 1.5
        events = [each.event async for each in store.events(RUN)]
        assert [each.usage for each in events] == [usage, usage, None]
        assert [each.charges for each in events] == [charges, charges, None]
        assert [each.from_cache for each in events] == [False, False, True]

    @on_an_event_loop
    async def test_lost_workers_are_counted_and_leave_a_call_unknown_until_it_has_an_outcome(
        self, store: Store
    ) -> None:
        lost, done = outcome(1), outcome(2, "value")
        journal = await store.open_run(request())
        for call in (lost, done):
            await journal.append(fact(RUN, STARTED, call))
            await journal.append(fact(RUN, RETRYING, call, attempt=2, lost=2))
        await journal.append(completed(RUN, done), done)
        for _ in range(2):
            recorded = journal.recorded
            assert (recorded.lost, recorded.attempts) == ({lost.key: 2}, {lost.key: 2})
            assert list(recorded.unknown) == [lost.key]
            await journal.close(STARTED)
            journal = await store.open_run(request())
        await journal.append(fact(RUN, RETRYING, lost, attempt=3))
        assert (journal.recorded.lost, list(journal.recorded.unknown)) == ({lost.key: 2}, [])
        events = [each.event.lost async for each in store.events(RUN)]
        assert events == [0, 2, 0, 2, 0, 0]

    @on_an_event_loop
    async def test_outcomes_are_loaded_in_any_order(self, store: Store) -> None:
        written = await written_run(store, *range(300))
        journal = await store.open_run(request())
        numbers = list(range(300))
        for order in (numbers, numbers[::-1], random.Random(1).sample(numbers, 300), [7] * 5):
            for number in order:
                assert (await journal.load(key(number))).value == f"value {number}"
        loaded = await asyncio.gather(*[journal.load(key(number)) for number in numbers])
        assert [each.value for each in loaded] == [f"value {number}" for number in numbers]

        async def load_late(turns: int) -> str:
            for _ in range(turns):
                await asyncio.sleep(0)
            return str((await journal.load(key(7))).value)

        assert set(await asyncio.gather(*map(load_late, range(100)))) == {"value 7"}
        await written.call(journal, outcome(300, "new"))
        assert (await journal.load(key(300))).value == "new"
        assert (await journal.load(key(0))).value == "value 0"
        with pytest.raises(StoreError):
            await journal.load(key("never"))
        await written.check_journal(journal)
