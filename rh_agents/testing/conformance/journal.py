"""Writing to a journal."""

from __future__ import annotations

import asyncio

import pytest

from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Store
from rh_agents.testing._records import (
    COMPLETED,
    FAILED,
    RETRYING,
    RUN,
    STARTED,
    completed,
    counting,
    fact,
    found_run,
    key,
    listed,
    outcome,
    request,
    same_outcome,
    same_recorded,
)
from rh_agents.testing.conformance.suite import StoreSuite, cancelled, expect_refusal, on_an_event_loop, opened

__all__ = ["JournalConformance"]


class JournalConformance(StoreSuite):
    """Entries are numbered, written in order, and wholly or not at all. Every store needs this."""

    @on_an_event_loop
    async def test_events_are_numbered_from_one_without_gaps_in_the_order_of_their_writing(self, store: Store) -> None:
        journal, written = await opened(store)
        for number in range(60):
            call = outcome(number, number)
            written.note(journal, fact(RUN, STARTED, call))
            if number % 3 == 0:
                written.note(journal, completed(RUN, call), call)
            else:
                await written.append(journal, completed(RUN, call), call)
        await journal.flush()
        await written.check(store)
        await written.check_journal(journal)
        await journal.close(STARTED)
        journal = await store.open_run(request())
        await written.check_journal(journal)
        await written.call(journal, outcome("after", "all"))
        await written.check(store)

    @on_an_event_loop
    async def test_an_event_that_was_appended_is_seen_by_whoever_reads(self, store: Store) -> None:
        journal, written = await opened(store)
        for number in range(5):
            await written.call(journal, outcome(number))
            await written.check(store)
            assert (await found_run(store)).outcomes == number + 1

    @on_an_event_loop
    async def test_an_outcome_that_its_call_has_already_is_given_back_and_leaves_no_trace(self, store: Store) -> None:
        journal, written = await opened(store)
        calls = [outcome(1, "first"), outcome(2, error=ValueError("first")), outcome(3, ["large"] * 20_000)]
        for call in calls:
            await written.call(journal, call)
        for _ in range(2):
            for call in calls:
                same_outcome(await counting(journal, call), call)
                noted = journal.note(completed(RUN, call), call)
                assert noted is not None
                same_outcome(noted, call)
            await journal.flush()
            await written.check_journal(journal)
            await written.check(store)
            await journal.close(STARTED)
            journal = await store.open_run(request())

    @on_an_event_loop
    async def test_another_outcome_of_a_call_stops_the_run_and_leaves_no_trace(self, store: Store) -> None:
        journal, written = await opened(store)
        await written.call(journal, outcome(1, "first"))
        await written.call(journal, outcome(2, error=ValueError("first")))
        await written.call(journal, outcome(3, ["large"] * 20_000))
        for is_noted in (False, True):
            for second in (
                outcome(1, "second"),
                outcome(1, error=ValueError("first")),
                outcome(2, "first"),
                outcome(2, error=ValueError("second")),
                outcome(3, ["other"] * 20_000),
            ):
                with pytest.raises(StoreError, match=f"{second.address!r} has come to another result than is recorded"):
                    if is_noted:
                        journal.note(completed(RUN, second), second)
                    else:
                        await journal.append(completed(RUN, second), second)
                await expect_refusal(journal, StoreError)
                await journal.close(STARTED)
                journal = await store.open_run(request())
                await written.check_journal(journal)
        await journal.close(STARTED)
        await written.check(store)

    @on_an_event_loop
    async def test_of_outcomes_that_are_written_side_by_side_one_is_recorded(self, store: Store) -> None:
        journal = await store.open_run(request())
        for number, value in ((1, "small"), (3, "large" * 20_000)):
            calls = [outcome(number, [value]) for _ in range(10)]
            counted = await asyncio.gather(*[journal.append(completed(RUN, call), call) for call in calls])
            assert sum(mine is counts for mine, counts in zip(calls, counted, strict=True)) == 1
            for counts in counted:
                assert counts is not None
                same_outcome(counts, calls[0])
        assert [each.sequence for each in await listed(store.events(RUN))] == [1, 2]
        others = [outcome(4, [value]) for value in range(10)]
        given = await asyncio.gather(
            *[journal.append(completed(RUN, each), each) for each in others], return_exceptions=True
        )
        assert any(isinstance(each, StoreError) for each in given)
        await journal.close(STARTED)
        journal = await store.open_run(request())
        assert len(await listed(store.outcomes(RUN))) == len(journal.recorded.finished) <= 3
        assert journal.recorded.repeated == {}

    @on_an_event_loop
    async def test_who_stops_waiting_for_an_append_leaves_a_journal_that_goes_on(self, store: Store) -> None:
        journal = await store.open_run(request())
        for number in range(20):
            call = outcome(number, "cut off")
            task = asyncio.ensure_future(journal.append(completed(RUN, call), call))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            await cancelled(task)
            counts = await counting(journal, outcome(number, "cut off"))
            same_outcome(await journal.load(key(number)), counts)
        assert [each.sequence for each in await listed(store.events(RUN))] == list(range(1, 21))

    @on_an_event_loop
    async def test_a_thousand_appends_side_by_side_are_all_recorded(self, store: Store) -> None:
        journal = await store.open_run(request())

        async def call(number: int) -> None:
            given = outcome(number, number)
            journal.note(fact(RUN, STARTED, given))
            assert await journal.append(completed(RUN, given), given) is given

        await asyncio.gather(*map(call, range(1000)))
        stored = await listed(store.events(RUN))
        assert [each.sequence for each in stored] == list(range(1, 2001))
        begun = [each.event.key for each in stored if each.event.execution_status is STARTED]
        assert begun == [key(number).hex() for number in range(1000)]
        assert sorted(each.value for each in await listed(store.outcomes(RUN))) == list(range(1000))
        assert (len(journal.recorded.finished), journal.recorded.unknown) == (1000, {})
        await journal.close(COMPLETED)
        assert (await found_run(store)).outcomes == 1000
        same_recorded((await store.open_run(request())).recorded, journal.recorded)

    @on_an_event_loop
    async def test_what_is_noted_is_recorded_before_anything_later(self, store: Store) -> None:
        journal, written = await opened(store)
        for number in range(50):
            for _ in range(number % 7):
                written.note(journal, fact(RUN, STARTED, outcome(number), attempt=number))
            await written.append(journal, fact(RUN, RETRYING, outcome(number), attempt=number))
            assert journal.waiting == 0
            stored = await listed(store.events(RUN))
            assert len(stored) == len(written.entries)
        await written.check(store)

    @on_an_event_loop
    async def test_what_waits_is_counted_and_a_flush_waits_for_it(self, store: Store) -> None:
        journal, written = await opened(store)
        for number in range(500):
            written.note(journal, fact(RUN, STARTED, outcome(number)))
            assert 0 <= journal.waiting <= number + 1
        await journal.flush()
        assert journal.waiting == 0
        assert len(await listed(store.events(RUN))) == 500
        await journal.flush()
        written.note(journal, fact(RUN, STARTED, outcome("last")))
        await journal.close(STARTED)
        await written.check(store)

    @on_an_event_loop
    async def test_a_journal_that_was_closed_takes_nothing_more(self, store: Store) -> None:
        journal, written = await opened(store)
        await written.call(journal, outcome(1))
        await journal.close(COMPLETED)
        await journal.close(FAILED)
        await expect_refusal(journal, StoreError)
        assert (await found_run(store)).status is COMPLETED
        await written.check(store)
        await store.open_run(request())
        await expect_refusal(journal, StoreError)
        await written.check(store)
