"""What a store must do, as tests: they are the definition of the ports `Store` and `Journal`.

Whoever has a store of their own runs them so (it needs `pip install 'rh_agents[testing]'`, and no plugin for asyncio):

    from rh_agents.testing.conformance import StoreConformance

    class TestMyStore(StoreConformance):
        async def make_store(self) -> MyStore:
            return MyStore(...)

Some tests need to know more about the store than the ports tell; see the other methods before the first test. Where
these are left as they are, such tests are skipped, and say why.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

try:
    import pytest
    from hypothesis import given, settings
    from hypothesis import strategies as st
except ModuleNotFoundError as _error:
    _message = f"rh_agents.testing.conformance needs {_error.name}: pip install 'rh_agents[testing]'"
    raise ModuleNotFoundError(_message, name=_error.name) from _error

from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import CallCancelled, InputError, LeaseLost, RunIsLive, StoreError, UnstorableError
from rh_agents.core.groups import EndingCause, GroupEnding, GroupStatus
from rh_agents.core.ports import CacheEntry, Journal, Question, RateWindow, Store
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Usage
from rh_agents.testing._comparison import OPERATIONS, Comparison
from rh_agents.testing._records import (
    AWAITING,
    BRIEF_LEASE,
    CANCELLED,
    COMPLETED,
    ENDED,
    FAILED,
    ODD_TEXTS,
    RETRYING,
    RUN,
    STARTED,
    SUPERSEDED,
    VALUES,
    Written,
    about_group,
    completed,
    counting,
    event,
    found_run,
    key,
    listed,
    outcome,
    request,
    same_event,
    same_outcome,
    same_recorded,
    same_value,
)

__all__ = ["StoreConformance"]

_PATIENCE = 30.0
"""Seconds until a test that waits for something in vain fails."""

T = TypeVar("T")
SuiteT = TypeVar("SuiteT", bound="StoreConformance")


def _on_an_event_loop(test: Callable[[SuiteT, Store], Awaitable[None]]) -> Callable[[SuiteT], None]:
    """A test that gets a new store, on an event loop of its own."""

    @functools.wraps(test)
    def execute(suite: SuiteT) -> None:
        asyncio.run(suite._execute(lambda store: test(suite, store)))

    del execute.__wrapped__  # pytest would take the store for a fixture
    execute.__doc__ = test.__doc__ or test.__name__.removeprefix("test_").replace("_", " ").capitalize() + "."
    return execute


async def _until(condition: Callable[[], Awaitable[T | None]]) -> T:
    """What the condition gives as soon as it gives anything."""
    async with asyncio.timeout(_PATIENCE):
        while (found := await condition()) is None:  # noqa: ASYNC110 - what happens in a store sets no event here
            await asyncio.sleep(0.01)
    return found


async def _written(store: Store, *numbers: int, run_id: str = RUN, status: ExecutionStatus = STARTED) -> Written:
    """A run with an outcome for each number, closed."""
    written = Written(run_id)
    journal = await store.open_run(request(run_id))
    for number in numbers:
        await written.call(journal, outcome(number, f"value {number}"))
    await journal.close(status)
    return written


async def _nothing() -> None:
    """What actors of events would do, if they were called; and a value that is no data."""


class StoreConformance:
    """The tests. A subclass says how to make a store, and, where that can be told, how to do harm to it.

    Attributes:
        keeps_artifacts: whether large values are kept apart from the journal, so that they are garbage when the run is
            deleted.
        examples: how many random sequences of operations are tried.
    """

    keeps_artifacts: bool = False
    examples: int = 60

    # -- what a subclass tells ----------------------------------------------------------------------------------------

    async def make_store(self) -> Store:
        """A new store, with nothing in it."""
        raise NotImplementedError("make_store() returns a new store with nothing in it")

    async def second_store(self, store: Store) -> Store | None:
        """Another store object on the same place, as another process would open it; None if there is no such thing."""
        return None

    async def crash(self, store: Store) -> Store | None:
        """Leave the store as a process would that is killed, and return what the next process finds.

        What has been opened in it is not closed; nothing here refers to it any more. By default the store is closed,
        and another one opened.
        """
        other = await self.second_store(store)
        if other is not None:
            await store.aclose()
        return other

    async def silence(self, store: Store, run_id: str) -> bool:
        """Keep the owner of a run from giving signs of life, as if its process were suspended; False if that cannot be.

        Its journal is used afterwards, as by a process that goes on.
        """
        return False

    # -- how the tests are run ----------------------------------------------------------------------------------------

    _stores: list[Store]

    async def _execute(self, test: Callable[[Store], Awaitable[None]]) -> None:
        self._stores = [await self.make_store()]
        try:
            await test(self._stores[0])
        finally:
            for store in self._stores:
                await store.aclose()

    @property
    def store(self) -> Store:
        """The store as the process that is alive now has it."""
        return self._stores[-1]

    async def crash_now(self) -> None:
        """The process dies, and `store` is what the next one finds."""
        await self._crashed(self.store)

    async def take_over(self, run_id: str) -> Journal:
        """The run of an owner who has died, opened as soon as it is not taken for live any more."""
        return await self._taken_over(self.store, run_id)

    async def _second(self, store: Store) -> Store:
        other = await self.second_store(store)
        if other is None:
            pytest.skip("second_store() gives no other store on the same place")
        self._stores.append(other)
        return other

    async def _crashed(self, store: Store) -> Store:
        """What the next process finds. The caller must have let go of its journals: they died."""
        other = await self.crash(store)
        if other is None:
            pytest.skip("crash() gives no store that a process left when it was killed")
        self._stores.append(other)
        return other

    async def _taken_over(self, store: Store, run_id: str = RUN) -> Journal:
        """The run of an owner who has not closed it, opened as soon as it is not taken for live any more."""

        async def opened() -> Journal | None:
            try:
                return await store.open_run(request(run_id, "successor"))
            except RunIsLive:
                return None

        return await _until(opened)

    async def _zombie(self, store: Store) -> tuple[Written, Journal, Journal]:
        """What is written; the journal of an owner who was silent for too long; and that of its successor."""
        written = Written(RUN)
        zombie = await store.open_run(request(owner="zombie", lease=BRIEF_LEASE))
        await written.call(zombie, outcome(1))
        if not await self.silence(store, RUN):
            pytest.skip("silence() cannot keep an owner from giving signs of life")
        other = await self.second_store(store) or store
        if other is not store:
            self._stores.append(other)
        return written, zombie, await self._taken_over(other)

    # -- runs: how they begin, end and go on --------------------------------------------------------------------------

    @_on_an_event_loop
    async def test_a_run_that_nobody_opened_is_not_there(self, store: Store) -> None:
        assert await store.find_run(RUN) is None
        assert await store.runs() == []
        assert await store.questions() == []
        for read in (store.events, store.outcomes):
            with pytest.raises(StoreError, match=RUN):
                await listed(read(RUN))
        for missing in (
            store.supersede(RUN, [key(1)]),
            store.fork_run(RUN, "copy", [], []),
            store.request_stop(RUN, "enough"),
            store.delete_run(RUN),
            store.answer(RUN, "question", b"1"),
        ):
            with pytest.raises(StoreError, match=RUN):
                await missing
        assert await store.runs() == []

    @_on_an_event_loop
    async def test_a_new_run_has_nothing_recorded_and_is_pending_for_its_first_owner(self, store: Store) -> None:
        journal = await store.open_run(request())
        assert (journal.info.run_id, journal.info.status, journal.info.epoch) == (RUN, ExecutionStatus.PENDING, 0)
        same_recorded(journal.recorded, Written(RUN).recorded())
        assert (journal.waiting, journal.stop_requested) == (0, None)
        assert await listed(store.events(RUN)) == []
        assert await listed(store.outcomes(RUN)) == []

    @_on_an_event_loop
    async def test_a_run_can_be_found_with_all_that_was_said_of_it(self, store: Store) -> None:
        facts = {"command": "rh-agents map", "": "\0"}
        journal = await store.open_run(
            request(workflow="survey", input=b'["a"]\0', input_digest=key(1), tags=("b", "a"), facts=facts)
        )
        await journal.append(completed(RUN, outcome(1)), outcome(1))
        info = await found_run(store)
        assert (info.run_id, info.status, info.epoch, info.owner) == (RUN, STARTED, 0, "me")
        assert (info.workflow, info.input, info.input_digest) == ("survey", b'["a"]\0', key(1))
        assert (tuple(info.tags), dict(info.facts)) == (("b", "a"), facts)
        assert (info.outcomes, info.ended_at, info.reason, info.forked_from) == (1, None, None, None)
        assert 0 < info.created_at <= info.updated_at
        assert await store.runs() == [info]

    @_on_an_event_loop
    async def test_what_is_said_of_a_run_is_what_its_last_request_said(self, store: Store) -> None:
        first = request(workflow="old", input=b"1", input_digest=key(1), tags=("old",), facts={"old": "1"})
        last = request(workflow="new", input=b"2", input_digest=key(2), tags=("new",), facts={"new": "2"})
        await (await store.open_run(first)).close(STARTED)
        before = (await store.open_run(last)).info
        assert (before.workflow, before.input, tuple(before.tags), dict(before.facts)) == (
            "old", b"1", ("old",), {"old": "1"},
        )  # fmt: skip
        info = await found_run(store)
        assert (info.workflow, info.input, info.input_digest) == ("new", b"2", key(2))
        assert (tuple(info.tags), dict(info.facts)) == (("new",), {"new": "2"})
        assert info.created_at == before.created_at

    @_on_an_event_loop
    async def test_a_run_that_has_ended_begins_a_new_epoch(self, store: Store) -> None:
        for epoch, status in enumerate(ENDED):
            journal = await store.open_run(request())
            assert journal.info.epoch == epoch
            await journal.close(status, f"because {epoch}")
            info = await found_run(store)
            assert (info.status, info.epoch, info.reason, info.owner) == (status, epoch, f"because {epoch}", None)
            assert info.ended_at is not None
            assert info.created_at <= info.ended_at <= info.updated_at
        journal = await store.open_run(request())
        assert (journal.info.status, journal.info.epoch) == (CANCELLED, 3)
        info = await found_run(store)
        assert (info.status, info.epoch, info.ended_at, info.reason) == (STARTED, 3, None, None)

    @_on_an_event_loop
    async def test_a_run_that_was_only_suspended_goes_on_in_its_epoch(self, store: Store) -> None:
        await (await store.open_run(request())).close(COMPLETED)
        for status in (STARTED, AWAITING):
            journal = await store.open_run(request())
            assert journal.info.epoch == 1
            await journal.close(status, "a pause")
            info = await found_run(store)
            assert (info.status, info.reason, info.ended_at, info.owner) == (status, "a pause", None, None)
        journal = await store.open_run(request())
        assert (journal.info.status, journal.info.epoch) == (AWAITING, 1)

    @_on_an_event_loop
    async def test_after_a_crash_a_run_goes_on_in_its_epoch_with_all_that_was_acknowledged(self, store: Store) -> None:
        await (await store.open_run(request())).close(FAILED)
        written = Written(RUN)
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        assert journal.info.epoch == 1
        await written.call(journal, outcome(1, "a"))
        await written.call(journal, outcome(2, None, ValueError("no")))
        written.note(journal, event(RUN, STARTED, outcome(3)))
        await written.append(journal, event(RUN, RETRYING, outcome(3), attempt=1, message="no", retry_delay=0.5))
        del journal
        store = await self._crashed(store)
        assert (await found_run(store)).status is STARTED
        journal = await self._taken_over(store)
        assert (journal.info.status, journal.info.epoch) == (STARTED, 1)
        await written.check_journal(journal)
        await written.check(store)
        await written.call(journal, outcome(3, "c"))
        await written.check_journal(journal)
        await written.check(store)

    @_on_an_event_loop
    async def test_what_was_closed_is_there_after_a_crash(self, store: Store) -> None:
        written = await _written(store, 1, 2, 3, status=COMPLETED)
        store = await self._crashed(store)
        await written.check(store)
        assert (await found_run(store)).status is COMPLETED
        journal = await store.open_run(request())
        assert journal.info.epoch == 1
        await written.check_journal(journal)

    @_on_an_event_loop
    async def test_what_was_only_noted_before_a_crash_is_there_up_to_some_point(self, store: Store) -> None:
        written = Written(RUN)
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        await written.call(journal, outcome("first"))
        for number in range(100):
            written.note(journal, event(RUN, STARTED, outcome(number)))
            written.note(journal, completed(RUN, outcome(number)), outcome(number))
        del journal
        store = await self._crashed(store)
        journal = await self._taken_over(store)  # from now on the first owner cannot write any more
        stored = await listed(store.events(RUN))
        assert len(stored) >= 2
        del written.entries[len(stored) :]
        await written.check_journal(journal)
        await written.check(store)
        await written.call(journal, outcome("next"))
        await written.check(store)

    @_on_an_event_loop
    async def test_what_was_flushed_is_there_after_a_crash(self, store: Store) -> None:
        written = Written(RUN)
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        for number in range(20):
            written.note(journal, completed(RUN, outcome(number, number)), outcome(number, number))
        assert journal.waiting >= 0
        await journal.flush()
        assert journal.waiting == 0
        del journal
        await written.check(await self._crashed(store))

    # -- the journal --------------------------------------------------------------------------------------------------

    @_on_an_event_loop
    async def test_events_are_numbered_from_one_without_gaps_in_the_order_of_their_writing(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        for number in range(60):
            call = outcome(number, number)
            written.note(journal, event(RUN, STARTED, call))
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

    @_on_an_event_loop
    async def test_an_event_that_was_appended_is_seen_by_whoever_reads(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        for number in range(5):
            await written.call(journal, outcome(number))
            await written.check(store)
            assert (await found_run(store)).outcomes == number + 1

    @_on_an_event_loop
    async def test_every_fact_of_an_event_is_kept(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        member = outcome(1, [1], group_id="pages")
        actor = BaseActor(name="ask", version="2\0", event_type=EventType.LLM_CALL, handler=_nothing)
        for given in (
            event(RUN, STARTED, None),
            event(RUN, CANCELLED, None, attempt=0, execution_time=1e-9, message="stopped"),
            about_group(RUN, "pages", GroupStatus.RUNNING),
            event(RUN, STARTED, member),
            event(RUN, STARTED, member, actor=actor, attempt=2),
            event(RUN, RETRYING, member, attempt=2, retry_delay=0.1 + 0.2, message="OSError: no"),
            event(RUN, AWAITING, member, message="a question"),
            event(RUN, ExecutionStatus.HUMAN_INTERVENTION, member),
            event(RUN, CANCELLED, member, attempt=2, execution_time=1e6),
        ):
            await written.append(journal, given)
        await written.append(journal, completed(RUN, member), member)
        failure = outcome(2, error=KeyError("x"), attempts=3, seconds=1e-7)
        await written.append(journal, completed(RUN, failure), failure)
        await written.append(journal, about_group(RUN, "pages", GroupStatus.FAILED))
        again: dict[str, Any] = {"is_replayed": True, "from_cache": True, "execution_time": 0.5}
        for call, message in ((member, None), (failure, "KeyError: 'x'")):
            told = event(RUN, ExecutionStatus.RECOVERED, call, result=call.value, message=message, **again)
            await written.append(journal, told)
        await written.check(store)

    @_on_an_event_loop
    async def test_every_field_of_an_outcome_is_kept(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        for call in (
            outcome(1, "a", base=key("base"), parent=key("parent"), made_in=(3, 2, 1)),
            outcome(2, "b", group_id="pages", attempts=0, seconds=0.0),
            outcome(3, "c", name="", address="", attempts=100_000, seconds=1e9 + 0.1),
            outcome(4, None, OSError("no"), parent=key("parent"), made_in=(0, 0, 7), group_id="pages"),
            outcome(5, base=b"", parent=b"", made_in=(0, 0, 0)),
        ):
            await written.call(journal, call)
        await written.check_journal(journal)
        await journal.close(STARTED)
        await written.check_journal(await store.open_run(request()))
        await written.check(store)

    @_on_an_event_loop
    async def test_values_of_every_kind_come_back_as_they_were(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        for number, value in enumerate(VALUES):
            await written.call(journal, outcome(number, value))
        await written.check_journal(journal)
        await journal.close(STARTED)
        await written.check_journal(await store.open_run(request()))
        await written.check(store)

    @_on_an_event_loop
    async def test_a_value_that_is_changed_later_is_kept_as_it_was(self, store: Store) -> None:
        journal = await store.open_run(request())
        value = [1, {"a": [2]}]
        call = outcome(1, value)
        await journal.append(completed(RUN, call), call)
        value.append("changed")
        loaded = await journal.load(key(1))
        same_value(loaded.value, [1, {"a": [2]}])
        loaded.value[1]["a"].append("changed")
        same_value((await journal.load(key(1))).value, [1, {"a": [2]}])
        (stored,) = await listed(store.events(RUN))
        same_value(stored.event.result, [1, {"a": [2]}])

    @_on_an_event_loop
    async def test_large_values_come_back_as_they_were(self, store: Store) -> None:
        noise = random.Random(7).randbytes(1_000_000)
        journal = await store.open_run(request())
        written = Written(RUN)
        for number, value in enumerate((noise, noise, "ü\0" * 100_000, ["x" * 40_000] * 3, "y" * 32_768, "z" * 32_767)):
            await written.call(journal, outcome(number, value))
        await journal.close(STARTED)
        journal = await store.open_run(request())
        await written.check_journal(journal)
        await written.check(store)

    @_on_an_event_loop
    async def test_errors_come_back_with_their_kind_and_what_they_say(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        errors: list[Exception] = [
            ValueError("no"),
            ValueError(),
            KeyError("x"),
            OSError(2, "no such file"),
            TimeoutError("late"),
            ConnectionError("down\0"),
            RuntimeError("ü\ud800\n", 1, None),
            LeaseLost("taken over"),
        ]
        for number, error in enumerate(errors):
            await written.call(journal, outcome(number, error=error))
        await written.check_journal(journal)
        await journal.close(STARTED)
        journal = await store.open_run(request())
        await written.check_journal(journal)
        for number, error in enumerate(errors):
            assert str((await journal.load(key(number))).error) == str(error)

    @_on_an_event_loop
    async def test_a_value_that_is_no_data_is_refused_and_the_journal_goes_on(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        await written.call(journal, outcome(1))
        for value in (object(), lambda: None, [1, object()], {"a": _nothing}, pytest):
            call = outcome(2, value)
            with pytest.raises(UnstorableError):
                await journal.append(completed(RUN, call), call)
            with pytest.raises(UnstorableError):
                journal.note(completed(RUN, call), call)
        await written.check_journal(journal)
        await written.call(journal, outcome(2, "data"))
        await written.check_journal(journal)
        await written.check(store)

    @_on_an_event_loop
    async def test_of_two_outcomes_for_one_call_the_first_counts_and_the_second_leaves_no_trace(
        self, store: Store
    ) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        first = await written.call(journal, outcome(1, "first"))
        failure = await written.call(journal, outcome(2, error=ValueError("first")))
        for second in (outcome(1, "second"), outcome(1, error=ValueError("second"))):
            same_outcome(await counting(journal, second), first)
        same_outcome(await counting(journal, outcome(2, "second")), failure)
        noted = journal.note(completed(RUN, outcome(1, "third")), outcome(1, "third"))
        assert noted is not None
        same_outcome(noted, first)
        await journal.flush()
        await written.check_journal(journal)
        await written.check(store)
        await journal.close(STARTED)
        journal = await store.open_run(request())
        same_outcome(await counting(journal, outcome(1, "fourth")), first)
        same_outcome(await counting(journal, outcome(2, "fourth")), failure)
        await written.check_journal(journal)
        await written.check(store)

    @_on_an_event_loop
    async def test_of_two_outcomes_that_are_written_side_by_side_the_first_counts_for_both(self, store: Store) -> None:
        journal = await store.open_run(request())
        for number, value in ((1, "small"), (3, "large" * 20_000)):
            calls = [outcome(number, [value, each]) for each in range(10)]
            counted = await asyncio.gather(*[journal.append(completed(RUN, call), call) for call in calls])
            *_, winner = await listed(store.outcomes(RUN))
            for counts in counted:
                assert counts is not None
                same_outcome(counts, winner)
            assert sum(mine is counts for mine, counts in zip(calls, counted, strict=True)) == 1
        assert [each.sequence for each in await listed(store.events(RUN))] == [1, 2]
        noted = [journal.note(completed(RUN, each), each) for each in (outcome(2, "a"), outcome(2, "b"))]
        assert [each.value for each in noted if each is not None] == ["a", "a"]
        await journal.flush()
        assert len(await listed(store.events(RUN))) == 3

    @_on_an_event_loop
    async def test_an_outcome_and_its_event_are_recorded_both_or_neither(self, store: Store) -> None:
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        calls = [outcome(number, number) for number in range(200)]
        tasks = [asyncio.ensure_future(journal.append(completed(RUN, call), call)) for call in calls]
        await tasks[3]
        await _cancelled(*tasks)
        del journal, tasks
        store = await self._crashed(store)
        journal = await self._taken_over(store)
        stored = [each.event.key for each in await listed(store.events(RUN))]
        assert stored == [each.key.hex() for each in await listed(store.outcomes(RUN))]
        assert stored == [each.hex() for each in journal.recorded.finished]
        assert calls[3].key.hex() in stored

    @_on_an_event_loop
    async def test_who_stops_waiting_for_an_append_leaves_a_journal_that_goes_on(self, store: Store) -> None:
        journal = await store.open_run(request())
        for number in range(20):
            call = outcome(number, "cut off")
            task = asyncio.ensure_future(journal.append(completed(RUN, call), call))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            await _cancelled(task)
            counts = await counting(journal, outcome(number, "again"))
            assert counts.value in ("cut off", "again")
            same_outcome(await journal.load(key(number)), counts)
        assert [each.sequence for each in await listed(store.events(RUN))] == list(range(1, 21))

    @_on_an_event_loop
    async def test_a_thousand_appends_side_by_side_are_all_recorded(self, store: Store) -> None:
        journal = await store.open_run(request())

        async def call(number: int) -> None:
            given = outcome(number, number)
            journal.note(event(RUN, STARTED, given))
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

    @_on_an_event_loop
    async def test_runs_side_by_side_do_not_mix(self, store: Store) -> None:
        async def execute(name: str) -> None:
            written = Written(name)
            journal = await store.open_run(request(name, f"owner of {name}"))
            for number in range(10):
                await written.call(journal, outcome(number, f"{name} {number}"))
            await written.check_journal(journal)
            await written.check(store)
            await journal.close(COMPLETED)

        names = [f"run {number}" for number in range(30)]
        await asyncio.gather(*map(execute, names))
        assert {info.run_id: info.outcomes for info in await store.runs()} == dict.fromkeys(names, 10)

    @_on_an_event_loop
    async def test_outcomes_are_loaded_in_any_order(self, store: Store) -> None:
        written = await _written(store, *range(300))
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

    @_on_an_event_loop
    async def test_what_is_noted_is_recorded_before_anything_later(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        for number in range(50):
            for _ in range(number % 7):
                written.note(journal, event(RUN, STARTED, outcome(number), attempt=number))
            await written.append(journal, event(RUN, RETRYING, outcome(number), attempt=number))
            assert journal.waiting == 0
            stored = await listed(store.events(RUN))
            assert len(stored) == len(written.entries)
        await written.check(store)

    @_on_an_event_loop
    async def test_what_waits_is_counted_and_a_flush_waits_for_it(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        for number in range(500):
            written.note(journal, event(RUN, STARTED, outcome(number)))
            assert 0 <= journal.waiting <= number + 1
        await journal.flush()
        assert journal.waiting == 0
        assert len(await listed(store.events(RUN))) == 500
        await journal.flush()
        written.note(journal, event(RUN, STARTED, outcome("last")))
        await journal.close(STARTED)
        await written.check(store)

    @_on_an_event_loop
    async def test_attempts_of_unfinished_calls_and_unknown_calls_are_known_again(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        for number in range(1, 6):
            await written.append(journal, event(RUN, STARTED, outcome(number)))
        for attempt in (1, 2):
            await written.append(journal, event(RUN, RETRYING, outcome(2), attempt=attempt))
        await written.append(journal, event(RUN, RETRYING, outcome(3), attempt=1))
        await written.append(journal, event(RUN, STARTED, outcome(3), attempt=2))
        await written.append(journal, event(RUN, AWAITING, outcome(4)))
        done = outcome(5, attempts=1)
        await written.append(journal, completed(RUN, done), done)
        for each in (journal, None):
            if each is None:
                await journal.close(STARTED)
                each = await store.open_run(request())
            assert each.recorded.unknown == {key(1): 1, key(3): 9}
            assert each.recorded.attempts == {key(2): 2, key(3): 1}
            await written.check_journal(each)

    @_on_an_event_loop
    async def test_the_order_in_which_members_of_a_group_ended_is_known_again(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        numbers = random.Random(3).sample(range(40), 40)
        for number in numbers:
            await written.call(journal, outcome(number, number, group_id=f"group {number % 3}\0"))
        await journal.close(STARTED)
        journal = await store.open_run(request())
        for rest in range(3):
            expected = [key(number) for number in numbers if number % 3 == rest]
            assert journal.recorded.orders[f"group {rest}\0"] == expected
        await written.check_journal(journal)

    @_on_an_event_loop
    async def test_how_a_group_ended_early_is_known_again_with_its_cause(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        left_out = outcome(1, 1, group_id="left out")
        await written.call(journal, left_out)
        endings: dict[str, GroupEnding | None] = {}
        for cause in EndingCause:
            ending = GroupEnding(
                cause=cause, scope=key(9).hex(), epoch=1, tries=2, attempt=3, enrolled=9, total=12, known=4,
                member=key(8).hex(), message="\ud83d 'quoted' \"ending\"", timeout=0.5,
            )  # fmt: skip
            await written.append(journal, about_group(RUN, cause.value, GroupStatus.RUNNING, ending))
            endings[cause.value] = ending
        late = GroupEnding(cause=EndingCause.LEFT, outcomes=1)
        await written.append(journal, about_group(RUN, "left out", GroupStatus.RUNNING, late))
        await written.append(
            journal, about_group(RUN, "again", GroupStatus.RUNNING, late.model_copy(update={"outcomes": 0}))
        )
        await written.append(journal, about_group(RUN, "again", GroupStatus.COMPLETED))
        await journal.close(STARTED)
        journal = await store.open_run(request())
        assert journal.recorded.endings == {**endings, "left out": late, "again": None}
        await written.check_journal(journal)
        await journal.close(STARTED)
        await store.fork_run(RUN, "fork", [left_out.key], [])
        forked = await store.open_run(request("fork"))
        assert forked.recorded.endings == {**endings, "left out": None, "again": None}
        await forked.close(STARTED)

    @_on_an_event_loop
    async def test_failures_are_known_again_with_the_generation_that_made_them(self, store: Store) -> None:
        journal = await store.open_run(request())
        written = Written(RUN)
        await written.call(journal, outcome(1, "fine", made_in=(0, 0, 1)))
        await written.call(journal, outcome(2, error=ValueError("no"), made_in=(4, 2, 3)))
        await written.call(journal, outcome(3, error=CallCancelled("not needed"), made_in=(0, 0, 9)))
        await journal.close(FAILED)
        journal = await store.open_run(request())
        assert journal.recorded.failed == {key(2): (4, 2, 3), key(3): (0, 0, 9)}
        assert journal.recorded.dismissed == {key(3)}
        await written.check_journal(journal)

    @_on_an_event_loop
    async def test_a_journal_that_was_closed_takes_nothing_more(self, store: Store) -> None:
        written = Written(RUN)
        journal = await store.open_run(request())
        await written.call(journal, outcome(1))
        await journal.close(COMPLETED)
        await journal.close(FAILED)
        await self._expect_refusal(journal, StoreError)
        assert (await found_run(store)).status is COMPLETED
        await written.check(store)
        assert await store.questions() == []
        await store.open_run(request())
        await self._expect_refusal(journal, StoreError)
        await written.check(store)

    async def _expect_refusal(self, journal: Journal, kind: type[StoreError]) -> None:
        """None of the methods that write does anything."""
        call = outcome("refused")
        with pytest.raises(kind):
            await journal.append(event(RUN, STARTED, call))
        with pytest.raises(kind):
            await journal.append(completed(RUN, call), call)
        with pytest.raises(kind):
            journal.note(event(RUN, STARTED, call))
        with pytest.raises(kind):
            journal.note(completed(RUN, call), call)
        with pytest.raises(kind):
            await journal.flush()
        with pytest.raises(kind):
            await journal.ask(Question(RUN, "refused", "", "Why?"))
        with pytest.raises(kind):
            await journal.reject_answer("refused", "no")

    # -- reading ------------------------------------------------------------------------------------------------------

    @_on_an_event_loop
    async def test_a_journal_is_read_from_any_place(self, store: Store) -> None:
        written = Written(RUN)
        journal = await store.open_run(request())
        for number in range(1500):
            written.note(journal, event(RUN, STARTED, outcome(number)))
        await journal.flush()
        for after in (0, 1, 511, 512, 999, 1000, 1001, 1499, 1500, 2000):
            stored = await listed(store.events(RUN, after=after))
            assert [each.sequence for each in stored] == list(range(after + 1, 1501))
        for each, (expected, _) in zip(await listed(store.events(RUN)), written.entries, strict=True):
            same_event(each.event, expected, has_result=False)

    @_on_an_event_loop
    async def test_a_reader_who_leaves_early_holds_nothing_up(self, store: Store) -> None:
        await _written(store, *range(50))
        for _ in range(20):
            reading = store.events(RUN)
            assert (await anext(reading)).sequence == 1
            await reading.aclose()  # type: ignore[attr-defined]
            loading = store.outcomes(RUN)
            assert (await anext(loading)).key == key(0)
            await loading.aclose()  # type: ignore[attr-defined]
        await store.delete_run(RUN)

    @_on_an_event_loop
    async def test_outcomes_are_read_in_the_order_in_which_they_were_recorded(self, store: Store) -> None:
        numbers = random.Random(5).sample(range(700), 700)
        written = Written(RUN)
        journal = await store.open_run(request())
        for number in numbers:
            written.note(journal, completed(RUN, outcome(number, number)), outcome(number, number))
        await journal.flush()
        assert [each.value for each in await listed(store.outcomes(RUN))] == numbers

    @_on_an_event_loop
    async def test_keys_and_addresses_are_read_without_values(self, store: Store) -> None:
        written = Written(RUN)
        journal = await store.open_run(request())
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

    @_on_an_event_loop
    async def test_a_follower_sees_what_is_added_until_the_run_is_closed(self, store: Store) -> None:
        await self._follow(store, store)

    @_on_an_event_loop
    async def test_a_follower_in_another_process_sees_what_is_added_until_the_run_is_closed(self, store: Store) -> None:
        await self._follow(store, await self._second(store))

    async def _follow(self, store: Store, reader: Store) -> None:
        seen: list[int] = []
        told = asyncio.Event()

        async def follow() -> None:
            async for each in reader.events(RUN, after=1, follow=True):
                seen.append(each.sequence)
                told.set()

        written = Written(RUN)
        journal = await store.open_run(request())
        await written.call(journal, outcome(0))
        following = asyncio.ensure_future(follow())
        for number in range(1, 4):
            await written.call(journal, outcome(number))
            async with asyncio.timeout(_PATIENCE):
                while len(seen) < 2 * number + 1:
                    told.clear()
                    await told.wait()
            assert not following.done()
        await journal.append(event(RUN, CANCELLED, None))
        await journal.close(COMPLETED)
        async with asyncio.timeout(_PATIENCE):
            await following
        assert seen == list(range(2, 10))

    @_on_an_event_loop
    async def test_to_follow_a_run_that_nobody_executes_is_to_read_it(self, store: Store) -> None:
        await _written(store, 1, 2)
        async with asyncio.timeout(_PATIENCE):
            assert len(await listed(store.events(RUN, follow=True))) == 4

    # -- leases -------------------------------------------------------------------------------------------------------

    @_on_an_event_loop
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

    @_on_an_event_loop
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

    @_on_an_event_loop
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
            await journal.append(event(RUN, STARTED, outcome(1)))
            await journal.close(STARTED)

    @_on_an_event_loop
    async def test_an_owner_who_works_for_longer_than_its_lease_keeps_the_run(self, store: Store) -> None:
        journal = await store.open_run(request(lease=0.5))
        call = outcome(1)
        await asyncio.sleep(1.2)  # a lease is real time, also in tests
        with pytest.raises(RunIsLive):
            await store.open_run(request(owner="the second"))
        await journal.append(completed(RUN, call), call)

    @_on_an_event_loop
    async def test_who_lost_the_run_writes_nothing_more(self, store: Store) -> None:
        written, zombie, successor = await self._zombie(store)
        await written.call(successor, outcome(2))
        with pytest.raises(LeaseLost, match=RUN):
            await zombie.append(completed(RUN, outcome(3)), outcome(3))
        await self._expect_refusal(zombie, LeaseLost)
        await written.call(successor, outcome(3, "of the successor"))
        await written.check_journal(successor)
        await written.check(store)
        assert await store.questions() == []

    @_on_an_event_loop
    async def test_who_lost_the_run_cannot_end_it(self, store: Store) -> None:
        written, zombie, successor = await self._zombie(store)
        with contextlib.suppress(LeaseLost):
            await zombie.close(COMPLETED)
        info = await found_run(store)
        assert (info.status, info.owner) == (STARTED, "successor")
        await written.call(successor, outcome(2))
        await successor.close(COMPLETED)
        await written.check(store)

    @_on_an_event_loop
    async def test_who_lost_the_run_learns_it_from_a_flush(self, store: Store) -> None:
        written, zombie, successor = await self._zombie(store)
        try:
            zombie.note(event(RUN, STARTED, outcome(3)))
            lost = False
        except LeaseLost:
            lost = True
        if not lost:
            with pytest.raises(LeaseLost):
                await zombie.flush()
        await self._expect_refusal(zombie, LeaseLost)
        await written.call(successor, outcome(2))
        await written.check(store)

    @_on_an_event_loop
    async def test_who_lost_the_run_asks_no_questions(self, store: Store) -> None:
        _, zombie, successor = await self._zombie(store)
        asked = await successor.ask(Question(RUN, "mine", "", "Yes?"))
        await store.answer(RUN, "mine", b"true")
        with pytest.raises(LeaseLost):
            await zombie.ask(Question(RUN, "theirs", "", "No?"))
        with pytest.raises(LeaseLost):
            await zombie.reject_answer("mine", "no")
        (found,) = await store.questions(RUN, is_open=False)
        assert (asked.id, found.id, found.answer, found.problem) == ("mine", "mine", b"true", None)

    # -- changes from outside -----------------------------------------------------------------------------------------

    @_on_an_event_loop
    async def test_a_superseded_outcome_is_marked_and_stays(self, store: Store) -> None:
        written = await _written(store, 1, 2, 3)
        await store.supersede(RUN, [key(2), key(3)])
        stored = await listed(store.events(RUN))
        assert [each.sequence for each in stored] == list(range(1, 9))
        marks = [(each.event.execution_status, each.event.key) for each in stored[6:]]
        assert marks == [(SUPERSEDED, key(2).hex()), (SUPERSEDED, key(3).hex())]
        written.entries += [(each.event, None) for each in stored[6:]]
        journal = await store.open_run(request())
        assert journal.recorded.superseded == {key(2), key(3)}
        assert journal.recorded.unknown == {}
        await written.check_journal(journal)
        await written.call(journal, outcome("2 again", "new"))
        await written.check(store)

    @_on_an_event_loop
    async def test_what_has_no_outcome_is_not_superseded_and_nothing_is_while_the_run_is_live(
        self, store: Store
    ) -> None:
        written = await _written(store, 1)
        await store.supersede(RUN, [])
        await store.supersede(RUN, [key("never")])
        await written.check(store)
        journal = await store.open_run(request())
        with pytest.raises(RunIsLive):
            await store.supersede(RUN, [key(1)])
        await written.check_journal(journal)
        await written.append(journal, event(RUN, STARTED, outcome(2)))
        await journal.close(STARTED)
        await store.supersede(RUN, [key("never"), key(1), key(2)])
        *before, mark = await listed(store.events(RUN))
        assert len(before) == len(written.entries)
        assert (mark.event.execution_status, mark.event.key) == (SUPERSEDED, key(1).hex())

    @_on_an_event_loop
    async def test_a_fork_has_the_same_journal_under_another_name(self, store: Store) -> None:
        written = Written(RUN)
        facts = {"b": "c"}
        journal = await store.open_run(
            request(workflow="survey", input=b"1", input_digest=key(1), tags=("a",), facts=facts)
        )
        await written.call(journal, outcome(1, "a", group_id="pages"))
        await written.append(journal, about_group(RUN, "pages", GroupStatus.COMPLETED))
        await written.call(journal, outcome(2, error=ValueError("no"), made_in=(0, 1, 2)))
        await written.append(journal, event(RUN, STARTED, outcome(3)))
        await store.fork_run(RUN, "of a live run", [], [])
        await journal.close(COMPLETED)
        await store.fork_run(RUN, "copy", [], [])
        for name in ("copy", "of a live run"):
            info = await found_run(store, name)
            assert (info.forked_from, info.owner, info.outcomes) == (RUN, None, 2)
            assert info.status not in ENDED
            assert (info.workflow, info.input, info.input_digest) == ("survey", b"1", key(1))
            assert (tuple(info.tags), dict(info.facts)) == (("a",), {"b": "c"})
            copied = [(given.model_copy(update={"run_id": name}), result) for given, result in written.entries]
            copy = Written(name, copied)
            await copy.check(store)
            journal = await store.open_run(request(name))
            await copy.check_journal(journal)
            await copy.call(journal, outcome(4, "only here"))
            await copy.check(store)
        await written.check(store)

    @_on_an_event_loop
    async def test_a_fork_leaves_out_some_outcomes_and_has_others_edited(self, store: Store) -> None:
        written = Written(RUN)
        journal = await store.open_run(request())
        await written.call(journal, outcome(1, "one", group_id="pages"))
        await written.append(journal, event(RUN, STARTED, outcome(2)))
        await written.append(journal, event(RUN, RETRYING, outcome(2), attempt=1))
        await written.call(journal, outcome(2, "two", group_id="pages", attempts=2))
        await written.call(journal, outcome(3, error=ValueError("three")))
        await written.call(journal, outcome(4, "four", group_id="pages"))
        await journal.close(COMPLETED)
        await store.supersede(RUN, [key(2), key(4)])
        large = ["edited"] * 10_000
        edited = [outcome(3, "edited"), outcome(4, large, group_id="pages")]
        await store.fork_run(RUN, "copy", [key(2)], edited)

        expected = [outcome(1, "one", group_id="pages"), *edited]
        for found, result in zip(await listed(store.outcomes("copy")), expected, strict=True):
            same_outcome(found, result)
        stored = await listed(store.events("copy"))
        assert [each.sequence for each in stored] == list(range(1, len(stored) + 1))
        results = {each.event.key: each.event for each in stored if each.event.execution_status is COMPLETED}
        assert [each.result for each in results.values()] == ["one", "edited", large]
        assert results[key(3).hex()].message is None
        assert {each.event.run_id for each in stored} == {"copy"}

        journal = await store.open_run(request("copy"))
        recorded = journal.recorded
        assert list(recorded.finished) == [key(1), key(3), key(4)]
        assert (recorded.failed, recorded.unknown, recorded.attempts) == ({}, {}, {})
        assert recorded.superseded == set(), (
            "the edited outcome counts, and of the one that is left out nothing is left"
        )
        assert recorded.orders == {"pages": [key(1), key(4)]}
        for result in expected:
            same_outcome(await journal.load(result.key), result)
        again = outcome(2, "two again")
        assert await journal.append(completed("copy", again), again) is again

    @_on_an_event_loop
    async def test_a_fork_takes_no_name_that_is_taken(self, store: Store) -> None:
        first, second = await _written(store, 1), await _written(store, 2, run_id="tuesday")
        with pytest.raises(StoreError, match="tuesday"):
            await store.fork_run(RUN, "tuesday", [], [])
        with pytest.raises(StoreError, match="nothing"):
            await store.fork_run("nothing", "wednesday", [], [])
        with pytest.raises(UnstorableError):
            await store.fork_run(RUN, "wednesday", [], [outcome(1, object())])
        assert await store.find_run("wednesday") is None
        await first.check(store)
        await second.check(store)

    @_on_an_event_loop
    async def test_a_run_is_stopped_by_asking_its_owner(self, store: Store) -> None:
        await self._stop(store, store)
        await self._stop(store, store)

    @_on_an_event_loop
    async def test_a_run_is_stopped_by_asking_its_owner_in_another_process(self, store: Store) -> None:
        await self._stop(store, await self._second(store))

    async def _stop(self, store: Store, asking: Store) -> None:
        told: list[str] = []
        journal = await store.open_run(request())
        assert _stop_request(journal) is None, "the request was for an earlier owner"
        journal.when_stop_requested(told.append)
        assert await asking.request_stop(RUN, "enough\0")

        async def has_been_told() -> bool | None:
            return True if told else None

        await _until(has_been_told)
        assert told == ["enough\0"]
        assert _stop_request(journal) == "enough\0"
        told.clear()
        journal.when_stop_requested(told.append)
        await _until(has_been_told)
        await counting(journal, outcome(1))
        await journal.close(STARTED, "enough\0")

    @_on_an_event_loop
    async def test_what_was_asked_of_an_owner_who_died_is_not_asked_of_the_next_one(self, store: Store) -> None:
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        assert await store.request_stop(RUN, "enough")
        del journal
        store = await self._crashed(store)
        journal = await self._taken_over(store)
        assert _stop_request(journal) is None
        await journal.append(completed(RUN, outcome(1)), outcome(1))
        assert _stop_request(journal) is None

    @_on_an_event_loop
    async def test_a_run_that_nobody_executes_is_stopped_at_once(self, store: Store) -> None:
        written = await _written(store, 1)
        assert not await store.request_stop(RUN, "enough")
        info = await found_run(store)
        assert (info.status, info.reason, info.owner) == (CANCELLED, "enough", None)
        assert info.ended_at is not None
        journal = await store.open_run(request())
        assert (journal.info.epoch, journal.stop_requested) == (1, None)
        await written.check_journal(journal)

    @_on_an_event_loop
    async def test_a_run_that_has_ended_stays_as_it_is_when_it_is_stopped(self, store: Store) -> None:
        await _written(store, 1, status=COMPLETED)
        before = await found_run(store)
        assert not await store.request_stop(RUN, "enough")
        assert await found_run(store) == before

    @_on_an_event_loop
    async def test_runs_are_found_by_status_tag_and_age_newest_first(self, store: Store) -> None:
        statuses = [COMPLETED, STARTED, AWAITING, FAILED, CANCELLED, COMPLETED]
        for number, status in enumerate(statuses):
            tags = ("all", f"tag {number % 2}")
            await (await store.open_run(request(str(number), tags=tags))).close(status)
        live = await store.open_run(request("6"))

        async def found(**wanted: Any) -> list[str]:
            return [info.run_id for info in await store.runs(**wanted)]

        assert await found() == ["6", "5", "4", "3", "2", "1", "0"]
        assert await found(status=COMPLETED) == ["5", "0"]
        assert await found(status=STARTED) == ["6", "1"]
        assert await found(status=RETRYING) == []
        assert await found(tag="all") == ["5", "4", "3", "2", "1", "0"]
        assert await found(tag="tag 1") == ["5", "3", "1"]
        assert await found(tag="tag") == []
        assert await found(tag="tag 1", status=FAILED) == ["3"]
        moment = (await found_run(store, "3")).updated_at
        assert await found(updated_before=moment) == ["2", "1", "0"]
        assert await found(updated_before=moment, tag="tag 0") == ["2", "0"]
        assert await found(updated_before=0.0) == []
        await live.close(COMPLETED)
        assert await found(status=COMPLETED) == ["6", "5", "0"]

    @_on_an_event_loop
    async def test_a_run_that_is_deleted_is_forgotten_and_its_name_is_free(self, store: Store) -> None:
        await _written(store, 1, 2, run_id="other")
        journal = await store.open_run(request(tags=("a",)))
        await journal.append(completed(RUN, outcome(1, "old")), outcome(1, "old"))
        await journal.ask(Question(RUN, "question", "", "Why?"))
        with pytest.raises(RunIsLive, match=RUN):
            await store.delete_run(RUN)
        await journal.close(COMPLETED)
        await store.delete_run(RUN)
        assert await store.find_run(RUN) is None
        assert await store.questions() == []
        assert [info.run_id for info in await store.runs()] == ["other"]
        with pytest.raises(StoreError):
            await listed(store.events(RUN))
        written = Written(RUN)
        journal = await store.open_run(request())
        assert (journal.info.status, journal.info.epoch, tuple(journal.info.tags)) == (ExecutionStatus.PENDING, 0, ())
        await written.call(journal, outcome(1, "new"))
        await written.check_journal(journal)
        await written.check(store)

    @_on_an_event_loop
    async def test_garbage_is_what_no_run_refers_to(self, store: Store) -> None:
        large, other = "x" * 100_000, "y" * 100_000
        written = Written(RUN)
        journal = await store.open_run(request())
        await written.call(journal, outcome(1, large))
        await written.call(journal, outcome(2, other))
        assert await store.collect_garbage(min_age=0.0) == 0, "while the run is live"
        await journal.close(COMPLETED)
        await store.fork_run(RUN, "copy", [key(2)], [])
        assert await store.collect_garbage(min_age=0.0) == 0, "while there are two runs"
        await written.check(store)
        await store.delete_run(RUN)
        assert await store.collect_garbage(min_age=3600.0) == 0, "while it is young"
        freed = await store.collect_garbage(min_age=0.0)
        assert 100_000 <= freed < 150_000 if self.keeps_artifacts else freed == 0
        copy = await store.open_run(request("copy"))
        assert (await copy.load(key(1))).value == large
        await copy.close(COMPLETED)
        await store.delete_run("copy")
        freed = await store.collect_garbage(min_age=0.0)
        assert 100_000 <= freed < 150_000 if self.keeps_artifacts else freed == 0
        assert await store.collect_garbage(min_age=0.0) == 0
        assert await store.check() == []

    @_on_an_event_loop
    async def test_a_store_that_is_well_has_nothing_to_report(self, store: Store) -> None:
        assert await store.check() == []
        written = await _written(store, 1, 2)
        journal = await store.open_run(request())
        await written.call(journal, outcome(3, "x" * 100_000))
        await journal.ask(Question(RUN, "question", "", "Why?"))
        assert await store.check() == []

    # -- what runs and processes share --------------------------------------------------------------------------------

    @_on_an_event_loop
    async def test_what_was_spent_is_folded_from_the_events(self, store: Store) -> None:
        journal = await store.open_run(request())
        usage, places = Usage(input_tokens=7, output_tokens=3, requests=1, cost=0.25), {"": 1.5, "ab" * 32: 0.0}
        failed_attempt = event(RUN, RETRYING, outcome(1), attempt=1, usage=usage, charges=places)
        await journal.append(failed_attempt)
        spent = outcome(1, "value", usage=usage + usage)
        end = completed(RUN, spent).model_copy(update={"usage": usage, "charges": places})
        await journal.append(end, spent)
        hit = completed(RUN, outcome(2, "value")).model_copy(update={"from_cache": True})
        await journal.append(hit, outcome(2, "value"))
        await journal.close(STARTED)
        journal = await store.open_run(request())
        assert (await journal.load(spent.key)).usage == usage + usage
        recorded = journal.recorded.spent
        assert recorded[""].usage == recorded["ab" * 32].usage == usage + usage
        assert (recorded[""].calls, recorded["ab" * 32].calls) == (1, 1)
        assert recorded[""].by_actor == {failed_attempt.actor.name: usage + usage}
        assert recorded[""].seconds == 1.5
        told = [each.event async for each in store.events(RUN)]
        assert [each.usage for each in told] == [usage, usage, None]
        assert [each.charges for each in told] == [places, places, None]
        assert [each.from_cache for each in told] == [False, False, True]

    @_on_an_event_loop
    async def test_lost_workers_are_counted_and_leave_a_call_unknown_until_it_has_an_outcome(
        self, store: Store
    ) -> None:
        lost, done = outcome(1), outcome(2, "value")
        journal = await store.open_run(request())
        for call in (lost, done):
            await journal.append(event(RUN, STARTED, call))
            await journal.append(event(RUN, RETRYING, call, attempt=2, lost=2))
        await journal.append(completed(RUN, done), done)
        for _ in range(2):
            recorded = journal.recorded
            assert (recorded.lost, recorded.attempts) == ({lost.key: 2}, {lost.key: 2})
            assert list(recorded.unknown) == [lost.key]
            await journal.close(STARTED)
            journal = await store.open_run(request())
        await journal.append(event(RUN, RETRYING, lost, attempt=3))
        assert (journal.recorded.lost, list(journal.recorded.unknown)) == ({lost.key: 2}, [])
        told = [each.event.lost async for each in store.events(RUN)]
        assert told == [0, 2, 0, 2, 0, 0]

    @_on_an_event_loop
    async def test_a_kept_result_is_found_until_it_expires_or_is_replaced(self, store: Store) -> None:
        key, other = b"k" * 32, b"o" * 32
        assert await store.find_cached(key, now=0.0) is None
        first = CacheEntry(key, b'{"a":"\xc3\xa9"}', "fetch \ud800", created_at=10.0, expires_at=20.0)
        await store.put_cached(first)
        await store.put_cached(CacheEntry(other, b"2", "fetch", created_at=10.0))
        assert await store.find_cached(key, now=19.9) == first
        assert await store.find_cached(key, now=20.0) is None
        second = CacheEntry(key, b"3", "fetch", created_at=15.0, run_id=RUN)
        await store.put_cached(second)
        assert await store.find_cached(key, now=1e12) == second
        await store.collect_garbage(min_age=0.0)
        assert await store.find_cached(other, now=1e12) is not None
        await _written(store, 1)
        await store.delete_run(RUN)
        assert await store.find_cached(key, now=0.0) is None
        assert await store.find_cached(other, now=0.0) is not None

    @_on_an_event_loop
    async def test_a_window_admits_no_more_than_stated_whoever_asks(self, store: Store) -> None:
        window = RateWindow("provider", 3600.0, {"requests": 5.0, "tokens": 1000.0})
        need = {"requests": 1.0, "tokens": 100.0, "unlimited": 1e9}
        answers = await asyncio.gather(*(store.admit(window, need) for _ in range(20)))
        admitted = [answer for answer in answers if answer.ticket is not None]
        assert len(admitted) == len({answer.ticket for answer in admitted}) == 5
        refused = [answer for answer in answers if answer.ticket is None]
        assert all(3500.0 < answer.wait <= 3600.0 and answer.why == "requests" for answer in refused)
        other = dataclasses.replace(window, name="another")
        assert (await store.admit(other, need)).ticket is not None

    @_on_an_event_loop
    async def test_a_ticket_counts_for_what_was_really_used(self, store: Store) -> None:
        window = RateWindow("provider", 3600.0, {"tokens": 1000.0})
        first = await store.admit(window, {"tokens": 900.0})
        assert first.ticket is not None
        refused = await store.admit(window, {"tokens": 200.0})
        assert (refused.ticket, refused.why) == (None, "tokens")
        await store.settle(window, first.ticket, {"tokens": 300.0})
        assert (await store.admit(window, {"tokens": 700.0})).ticket is not None
        assert (await store.admit(window, {"tokens": 1.0})).ticket is None

    @_on_an_event_loop
    async def test_what_is_larger_than_its_limit_passes_when_nothing_else_is_in_the_window(self, store: Store) -> None:
        window = RateWindow("provider", 3600.0, {"tokens": 1000.0})
        assert (await store.admit(window, {"tokens": 5000.0})).ticket is not None
        assert (await store.admit(window, {"tokens": 1.0})).ticket is None
        other = dataclasses.replace(window, name="another")
        assert (await store.admit(other, {"tokens": 1.0})).ticket is not None
        assert (await store.admit(other, {"tokens": 5000.0})).ticket is None

    @_on_an_event_loop
    async def test_what_has_left_the_window_does_not_count(self, store: Store) -> None:
        window = RateWindow("provider", 0.05, {"requests": 1.0})
        assert (await store.admit(window, {"requests": 1.0})).ticket is not None

        async def admitted() -> bool | None:
            return True if (await store.admit(window, {"requests": 1.0})).ticket is not None else None

        assert await _until(admitted)

    @_on_an_event_loop
    async def test_nobody_is_admitted_while_a_window_is_held(self, store: Store) -> None:
        window = RateWindow("provider", 1.0, {"requests": 5.0})
        await store.hold(window, 600.0)
        await store.hold(window, 1.0)
        refused = await store.admit(window, {"requests": 1.0})
        assert (refused.ticket, refused.why) == (None, "held")
        assert 590.0 < refused.wait <= 600.0

    @_on_an_event_loop
    async def test_windows_and_kept_results_are_shared_with_other_processes(self, store: Store) -> None:
        other = await self._second(store)
        window = RateWindow("provider", 3600.0, {"requests": 10.0})
        answers = await asyncio.gather(
            *(each.admit(window, {"requests": 1.0}) for each in (store, other) for _ in range(10))
        )
        assert sum(answer.ticket is not None for answer in answers) == 10
        entry = CacheEntry(b"k" * 32, b"1", "fetch", created_at=1.0)
        await store.put_cached(entry)
        assert await other.find_cached(entry.key, now=2.0) == entry

    # -- questions ----------------------------------------------------------------------------------------------------

    @_on_an_event_loop
    async def test_questions_are_answered_in_any_order_while_the_run_is_live_and_after(self, store: Store) -> None:
        journal = await store.open_run(request())
        asked = [
            Question(
                RUN, f"question {number}", f"survey::ask[{number}]", "Really?", '{"type": "boolean"}', 1e9 + number
            )
            for number in range(3)
        ]
        for question in asked:
            assert await journal.ask(question) == question
            assert await journal.ask(question) == question
        assert await store.questions() == asked
        answered = await store.answer(RUN, "question 1", b" true", by="Ada")
        assert (answered.answer, answered.answered_by, answered.problem) == (b" true", "Ada", None)
        assert answered.answered_at is not None
        assert answered == await journal.ask(asked[1])
        assert await store.questions(RUN) == [asked[0], asked[2]]
        await journal.close(AWAITING)
        await store.answer(RUN, "question 0", b"false")
        assert await store.questions() == [asked[2]]
        journal = await store.open_run(request())
        assert (await journal.ask(asked[0])).answer == b"false"
        assert (await journal.ask(asked[0])).answered_by is None
        assert await journal.ask(asked[1]) == answered
        assert await journal.ask(asked[2]) == asked[2]
        assert [each.id for each in await store.questions(RUN, is_open=False)] == [each.id for each in asked]

    @_on_an_event_loop
    async def test_questions_are_there_after_a_crash(self, store: Store) -> None:
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        asked = [Question(RUN, name, "", "Why?", None, 1e9) for name in ("first", "second")]
        for question in asked:
            await journal.ask(question)
        await store.answer(RUN, "first", b"1")
        del journal
        store = await self._crashed(store)
        assert await store.questions() == asked[1:]
        journal = await self._taken_over(store)
        assert (await journal.ask(asked[0])).answer == b"1"

    @_on_an_event_loop
    async def test_an_answer_that_is_rejected_opens_the_question_again(self, store: Store) -> None:
        journal = await store.open_run(request())
        question = Question(RUN, "question", "survey::ask", "Really?", None, 1e9)
        await journal.ask(question)
        await store.answer(RUN, "question", b'"perhaps"', by="Ada")
        await journal.reject_answer("question", "yes or no\0")
        expected = dataclasses.replace(question, problem="yes or no\0")
        assert await journal.ask(question) == expected
        assert await store.questions() == [expected]
        await journal.close(AWAITING)
        answered = await store.answer(RUN, "question", b'"yes"', by="Bob")
        assert (answered.answer, answered.answered_by, answered.problem) == (b'"yes"', "Bob", None)
        journal = await store.open_run(request())
        assert await journal.ask(question) == answered
        with pytest.raises(StoreError):
            await journal.reject_answer("another", "no")

    @_on_an_event_loop
    async def test_an_answer_that_does_not_fit_the_question_is_refused_and_the_question_stays_open(
        self, store: Store
    ) -> None:
        journal = await store.open_run(request())
        schema = '{"type": "object", "properties": {"pages": {"type": "integer"}}, "required": ["pages"]}'
        await journal.ask(Question(RUN, "question", "", "How many?", schema))
        for wrong in (b"null", b"{}", b'{"pages": "five"}', b"[5]"):
            with pytest.raises(InputError, match=r"^the answer does not fit: "):
                await store.answer(RUN, "question", wrong)
        (found,) = await store.questions()
        assert (found.answer, found.problem) == (None, None)
        await store.answer(RUN, "question", b'{"pages": 5}')
        with pytest.raises(StoreError):  # it has an answer: whether this one fits does not matter
            await store.answer(RUN, "question", b"{}")

    @_on_an_event_loop
    async def test_a_question_is_answered_once_and_only_if_it_was_asked_and_in_json(self, store: Store) -> None:
        journal = await store.open_run(request())
        await journal.ask(Question(RUN, "question", "", "Really?"))
        with pytest.raises(StoreError, match="another"):
            await store.answer(RUN, "another", b"1")
        for broken in (b"", b"yes", b"{", b"\xff", b"1 2"):
            with pytest.raises(StoreError):
                await store.answer(RUN, "question", broken)
        assert len(await store.questions()) == 1
        await store.answer(RUN, "question", b"1")
        with pytest.raises(StoreError, match="question"):
            await store.answer(RUN, "question", b"2")
        (found,) = await store.questions(is_open=False)
        assert found.answer == b"1"

    @_on_an_event_loop
    async def test_of_many_who_answer_one_is_heard(self, store: Store) -> None:
        journal = await store.open_run(request())
        await journal.ask(Question(RUN, "question", "", "Who?"))
        answers = [store.answer(RUN, "question", b"%d" % number) for number in range(10)]
        given = await asyncio.gather(*answers, return_exceptions=True)
        heard = [each for each in given if isinstance(each, Question)]
        assert len(heard) == 1
        assert {type(each) for each in given if not isinstance(each, Question)} == {StoreError}
        assert (await journal.ask(Question(RUN, "question", "", "Who?"))).answer == heard[0].answer

    @_on_an_event_loop
    async def test_questions_of_different_runs_are_apart_and_the_oldest_comes_first(self, store: Store) -> None:
        asked = []
        for number, run_id in enumerate(("monday", "tuesday", "monday", "tuesday")):
            question = Question(run_id, f"question {number // 2}", "", run_id, None, 1e9 - number)
            journal = await store.open_run(request(run_id))
            asked.append(await journal.ask(question))
            await journal.close(AWAITING)
        assert await store.questions() == asked[::-1]
        assert await store.questions("tuesday") == [asked[3], asked[1]]
        assert await store.questions("nobody") == []
        await store.answer("monday", "question 0", b"1")
        assert await store.questions() == [asked[3], asked[2], asked[1]]

    # -- text ---------------------------------------------------------------------------------------------------------

    @_on_an_event_loop
    async def test_runs_with_confusing_names_are_different_runs(self, store: Store) -> None:
        for name in ODD_TEXTS:
            assert await store.find_run(name) is None
            written = Written(name)
            journal = await store.open_run(request(name, f"owner of {name}", workflow=name))
            await written.call(journal, outcome(1, name))
            with pytest.raises(RunIsLive):
                await store.open_run(request(name))
            await journal.close(STARTED, name)
        assert [info.run_id for info in await store.runs()] == ODD_TEXTS[::-1]
        for name in ODD_TEXTS:
            info = await found_run(store, name)
            assert (info.run_id, info.workflow, info.reason, info.outcomes) == (name, name, name, 1)
            (found,) = await listed(store.outcomes(name))
            assert found.value == name
            assert [each.event.run_id for each in await listed(store.events(name))] == [name, name]
        for name in ODD_TEXTS:
            await store.delete_run(name)
        assert await store.runs() == []

    @_on_an_event_loop
    async def test_text_of_every_kind_comes_back_as_it_was(self, store: Store) -> None:
        journal = await store.open_run(request(tags=tuple(ODD_TEXTS), facts={each: each for each in ODD_TEXTS}))
        written = Written(RUN)
        for number, text in enumerate(ODD_TEXTS):
            call = outcome(number, {text: text}, name=text, address=text, group_id=text)
            await written.append(journal, event(RUN, RETRYING, call, message=text))
            await written.append(journal, completed(RUN, call), call)
            await written.call(journal, outcome(f"failing {number}", error=ValueError(text)))
            actor = BaseActor(name=text, version=text, handler=_nothing)
            await written.append(journal, event(RUN, STARTED, outcome("x"), actor=actor))
            question = Question(RUN, text, text, text, text, 1e9 + number)
            assert await journal.ask(question) == question
            answered = await store.answer(RUN, text, b'"\\ud800\\u0000"', by=text)
            assert (answered.id, answered.answered_by, answered.answer) == (text, text, b'"\\ud800\\u0000"')
            await journal.reject_answer(text, text)
            assert await journal.ask(question) == dataclasses.replace(question, problem=text)
        await written.check_journal(journal)
        await journal.close(STARTED)
        info = (journal := await store.open_run(request())).info
        assert (tuple(info.tags), dict(info.facts)) == (tuple(ODD_TEXTS), {each: each for each in ODD_TEXTS})
        for text in ODD_TEXTS:
            assert journal.recorded.orders[text] == [key(ODD_TEXTS.index(text))]
        await written.check_journal(journal)
        await written.check(store)

    @_on_an_event_loop
    async def test_runs_are_found_by_confusing_tags(self, store: Store) -> None:
        for text in ODD_TEXTS:
            await (await store.open_run(request(f"run {text}", tags=("x", text)))).close(STARTED)
        for text in ODD_TEXTS:
            assert [info.run_id for info in await store.runs(tag=text)] == [f"run {text}"]
        assert len(await store.runs(tag="x")) == len(ODD_TEXTS)

    # -- the end ------------------------------------------------------------------------------------------------------

    @_on_an_event_loop
    async def test_a_store_that_was_closed_does_nothing_more(self, store: Store) -> None:
        journal = await store.open_run(request())
        await journal.append(completed(RUN, outcome(1)), outcome(1))
        await store.aclose()
        await store.aclose()
        for refused in (
            store.open_run(request("other")),
            store.find_run(RUN),
            store.runs(),
            listed(store.events(RUN)),
            listed(store.outcomes(RUN)),
            listed(store.unread_outcomes(RUN)),
            store.supersede(RUN, [key(1)]),
            store.fork_run(RUN, "other", [], []),
            store.questions(),
            store.answer(RUN, "question", b"1"),
            store.request_stop(RUN, "enough"),
            store.delete_run(RUN),
            store.collect_garbage(),
            store.check(),
        ):
            with pytest.raises(StoreError):
                await refused
        await self._expect_refusal(journal, StoreError)

    @_on_an_event_loop
    async def test_a_store_that_is_closed_leaves_open_runs_to_others(self, store: Store) -> None:
        other = await self._second(store)
        written = Written(RUN)
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        await written.call(journal, outcome(1))
        written.note(journal, event(RUN, STARTED, outcome(2)))
        await journal.flush()
        await store.aclose()
        assert (await found_run(other)).status is STARTED
        successor = await self._taken_over(other)
        assert (successor.info.status, successor.info.epoch) == (STARTED, 0)
        await written.check_journal(successor)
        await written.call(successor, outcome(2))
        await written.check(other)

    # -- anything, in any order ---------------------------------------------------------------------------------------

    def test_whatever_is_done_in_whatever_order_the_store_has_what_was_written(self) -> None:
        """Random operations, each compared with a model that is as simple as can be."""
        with asyncio.Runner() as runner:
            runner.run(self._start_comparing())
            numbers = iter(range(1_000_000))

            @settings(max_examples=self.examples, deadline=None)
            @given(st.lists(OPERATIONS, min_size=10, max_size=40))
            def compare(operations: list[tuple[Any, ...]]) -> None:
                runner.run(Comparison(self, f"run {next(numbers)}").execute(operations))

            try:
                compare()
            finally:
                runner.run(self._stop_comparing())

    async def _start_comparing(self) -> None:
        self._stores = [await self.make_store()]

    async def _stop_comparing(self) -> None:
        for store in self._stores:
            await store.aclose()


def _stop_request(journal: Journal) -> str | None:
    return journal.stop_requested


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel them and wait until they have ended, in whatever way."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
