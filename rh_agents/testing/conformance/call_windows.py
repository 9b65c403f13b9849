"""What people look at of a run: windows of its calls, compared with a fold over its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import strategies as st

from rh_agents.core._replay.meant import newest_outcomes, outcomes_around, outcomes_meant
from rh_agents.core.errors import CallCancelled, StoreError
from rh_agents.core.ports import Journal, Store
from rh_agents.core.ports.windows import (
    ORDERS,
    RANGES,
    CallQuery,
    CallView,
    CallWindow,
    Within,
    call_of_run,
    calls_of_run,
    children_of_call,
    failure_kinds,
    failures_of_run,
    members_of_group,
    running_calls,
)
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Usage
from rh_agents.testing._journals import Step, steps, write
from rh_agents.testing._records import (
    COMPLETED,
    FAILED,
    RETRYING,
    RUN,
    STARTED,
    Written,
    completed,
    fact,
    key,
    outcome,
    request,
)
from rh_agents.testing.conformance.suite import StoreSuite, on_an_event_loop

__all__ = ["CallWindowConformance"]

_STATUSES = (None, None, COMPLETED, FAILED, ExecutionStatus.CANCELLED)
_TEXTS = (None, None, "OOPS", "pages[", "é", "\ud800", "::", "nowhere", '\\"')
_BOUNDS = st.none() | st.sampled_from([0.0, 0.125, 0.25, 1.0, 2, 2.25, 2 / 7, 7.25, 1_760_000_000.25, 1_760_000_003.0])
_ACTORS = (None, None, "fetch", 'a"b\\', "\0odd")


def _queries() -> st.SearchStrategy[CallQuery]:
    return st.builds(
        CallQuery,
        status=st.sampled_from(_STATUSES),
        actor=st.sampled_from(_ACTORS),
        group=st.sampled_from((None, None, "pages", "inner")),
        text=st.sampled_from(_TEXTS),
        order=st.sampled_from(("journal", "journal", *ORDERS)),
        descending=st.booleans(),
        n=st.integers(1, 7),
        within=st.lists(st.builds(Within, st.sampled_from(RANGES), _BOUNDS, _BOUNDS), max_size=3).map(tuple),
    )


class CallWindowConformance(StoreSuite):
    """`rh_agents.core.ports.windows`, with or without help of the store.

    Attributes:
        windows: how many random journals are tried.
    """

    windows: int = 40

    def test_windows_are_what_a_fold_over_the_events_says(self) -> None:
        """Random journals, looked at with random questions."""
        self._try_examples(self.windows, st.tuples(steps(), st.lists(_queries(), max_size=4)), self._compare_windows)

    async def _compare_windows(self, run_id: str, example: tuple[Sequence[Step], list[CallQuery]]) -> None:
        chosen, queries = example
        store = self._stores[-1]
        journal = await store.open_run(request(run_id))
        written, ended, half = Written(run_id), set[int](), len(chosen) // 2
        plain = _events_only(store)
        await write(journal, written, chosen[:half], ended)
        await journal.flush()
        assert await running_calls(store, run_id) == await running_calls(plain, run_id), "and more comes"
        await members_of_group(store, run_id, "pages", 1)
        await write(journal, written, chosen[half:], ended)
        await journal.flush()
        for query in queries:
            calls, expected = await _all(store, run_id, query), await _all(plain, run_id, query)
            if query.order in ("address", "message"):  # each database has its own form of what no UTF-8 can say
                calls, expected = (sorted(each, key=lambda call: call.sequence) for each in (calls, expected))
            assert calls == expected, query
        for group in ("pages", "inner"):
            its = (await calls_of_run(plain, run_id, group=group)).calls
            for first in (0, 1, len(its) - 1, len(its) + 1):
                found = await members_of_group(store, run_id, group, max(first, 0), 3)
                assert found.calls == its[max(first, 0) : max(first, 0) + 3]
            assert await running_calls(store, run_id, group=group) == await running_calls(plain, run_id, group=group)
        assert await running_calls(store, run_id) == await running_calls(plain, run_id)
        assert await failure_kinds(store, run_id) == await failure_kinds(plain, run_id)
        await _expect_the_same_is_meant(store, plain, run_id)
        await _expect_the_same_is_around(store, plain, run_id)
        for number in (1, 4, 7, 28, 30):
            its_key = key(number).hex()
            assert await call_of_run(store, run_id, its_key) == await call_of_run(plain, run_id, its_key), number
            found = await children_of_call(store, run_id, its_key)
            assert found == await children_of_call(plain, run_id, its_key)
        await journal.close(STARTED)

    @on_an_event_loop
    async def test_a_call_is_meant_by_each_of_its_names_and_by_no_part_of_one(self, store: Store) -> None:
        journal = await store.open_run(request())
        member = outcome(1, 1, name="first", address="survey::pages[3]::fetch", group_id="pages")
        alone = outcome(2, 2, name="second", address="survey::alone")
        for call in (member, alone):
            await _ends(journal, call)
        await journal.close(STARTED)
        names = {
            1: ["first", "survey::pages[3]::fetch", "pages[3]::fetch", "pages[3]", f"@{member.key.hex()[:6].upper()}"],
            2: ["second", "survey::alone", f"@{alone.key.hex()}"],
        }
        for looked_at in (store, _events_only(store)):
            for number, its in names.items():
                for name in its:
                    found = await outcomes_meant(looked_at, RUN, [name])
                    assert [each.header.key for each in found] == [key(number)], name
            for name in ("alone", "fetch", "surv", "pages", "ges[3]", "@", "%", ""):
                assert await outcomes_meant(looked_at, RUN, [name]) == [], name

    @on_an_event_loop
    async def test_a_call_that_was_made_again_is_there_once_and_names_what_it_replaces(self, store: Store) -> None:
        journal = await store.open_run(request())
        paid = Usage(requests=1, cost=0.5)
        first = outcome(1, error=ValueError("no 17"), group_id="pages", seconds=2.0)
        await _ends(journal, first, usage=paid)
        await _ends(journal, outcome(2, "two", group_id="pages"))
        again = outcome("1 again", "one", group_id="pages", base=key(1), seconds=1.0)
        await _ends(journal, again)
        cut_off = outcome(3, error=CallCancelled("no more"))
        await _ends(journal, cut_off)
        for each in (store, _events_only(store)):
            ended = await calls_of_run(each, RUN)
            assert [call.key for call in ended.calls] == [key(2).hex(), key("1 again").hex(), key(3).hex()]
            assert (ended.until, ended.next) == (8, None)
            made = ended.calls[1]
            assert made.replaces is not None
            assert made.replaces == (2, FAILED, 2.0, 0.5)
            assert (made.status, made.seconds, made.message) == (COMPLETED, 1.0, None)
            assert (await failures_of_run(each, RUN)).calls == ()
            assert await failure_kinds(each, RUN) == []
            assert [call.key for call in (await members_of_group(each, RUN, "pages", 1)).calls] == [made.key]
            record = await call_of_run(each, RUN, made.key)
            assert record is not None
            assert (record.why, record.tries) == ("made again: it had failed", (made.replaces,))
            assert record.read is not None
            assert (await record.read()).value == "one"
        await journal.close(STARTED)

    @on_an_event_loop
    async def test_all_that_is_recorded_of_a_call_can_be_seen(self, store: Store) -> None:
        journal = await store.open_run(request())
        parent = outcome("parent", "all", name="survey", address="survey")
        call = outcome(1, error=ValueError("at last"), attempts=3, parent=key("parent"))
        journal.note(fact(RUN, STARTED, parent))
        journal.note(fact(RUN, STARTED, call))
        for number in (1, 2):
            paid = Usage(requests=number)
            again = fact(RUN, RETRYING, call, message=f"no {number}", retry_delay=0.5 * number, usage=paid)
            journal.note(again._replace(attempt=number))
        await journal.append(completed(RUN, call), call)
        await journal.flush()
        for each in (store, _events_only(store)):
            under_way = await running_calls(each, RUN)
            assert [(view.key, view.status, view.ended_at) for view in under_way.calls] == [
                (key("parent").hex(), STARTED, None)
            ]
            record = await call_of_run(each, RUN, key(1).hex())
            assert record is not None
            assert [(its.number, its.message, its.delay) for its in record.attempts] == [
                (1, "no 1", 0.5), (2, "no 2", 1.0), (3, "ValueError: at last", None),
            ]  # fmt: skip
            assert [its.usage and its.usage.requests for its in record.attempts] == [1, 2, None]
            assert record.parents == ((key("parent").hex(), "survey"),)
            assert [recorded.sequence for recorded in record.events] == [2, 3, 4, 5]
            assert (await call_of_run(each, RUN, key("parent").hex())) is not None
            assert await call_of_run(each, RUN, key("unknown").hex()) is None
        await journal.append(completed(RUN, parent), parent)
        for each in (store, _events_only(store)):
            assert [view.key for view in (await children_of_call(each, RUN, key("parent").hex())).calls] == [
                key(1).hex()
            ]
            assert (await running_calls(each, RUN)).calls == ()
        await journal.close(STARTED)

    @on_an_event_loop
    async def test_of_two_outcomes_of_a_call_the_first_is_shown(self, store: Store) -> None:
        journal = await store.open_run(request())
        for number in (1, 2):
            await _ends(journal, outcome(number, "first", group_id="pages"))
        await journal.close(STARTED)
        other = outcome(2, error=ValueError("another"), group_id="pages")
        if not await self.plant(store, completed(RUN, other), other):
            pytest.skip("plant() puts no second outcome into a journal")
        for each in (store, _events_only(store)):
            assert [call.sequence for call in (await calls_of_run(each, RUN)).calls] == [2, 4]
            assert (await members_of_group(each, RUN, "pages", 2)).calls == ()
            assert (await failures_of_run(each, RUN)).calls == ()
            assert await failure_kinds(each, RUN) == []

    @on_an_event_loop
    async def test_what_a_call_was_called_with_is_in_its_view(self, store: Store) -> None:
        journal = await store.open_run(request())
        await _ends(journal, outcome(1, "one")._replace(input="url='\ud800é\0'"))
        await _ends(journal, outcome(2, "two"))
        assert [call.input for call in (await calls_of_run(store, RUN)).calls] == ["url='\ud800é\0'", None]
        await journal.close(STARTED)
        await store.fork_run(RUN, "copy", [key(2)], [])
        assert [call.input for call in (await calls_of_run(store, "copy")).calls] == ["url='\ud800é\0'"]
        reopened = await store.open_run(request())
        assert (await reopened.load(key(1))).input is None
        await reopened.close(STARTED)

    @on_an_event_loop
    async def test_a_run_that_nobody_opened_has_no_windows(self, store: Store) -> None:
        for ask in (
            calls_of_run(store, RUN),
            running_calls(store, RUN),
            failure_kinds(store, RUN),
            call_of_run(store, RUN, key(1).hex()),
            children_of_call(store, RUN, key(1).hex()),
        ):
            with pytest.raises(StoreError, match=RUN):
                await ask

    @on_an_event_loop
    async def test_what_is_no_window_is_refused(self, store: Store) -> None:
        for options in ({"n": 0}, {"n": 201}, {"order": "colour"}, {"after": "7"}, {"after": "[]"}):
            with pytest.raises(ValueError, match=r"a window has|sorted by one of|is the `next` of a window"):
                await calls_of_run(store, RUN, **cast("Any", options))


async def _ends(journal: Journal, call: Outcome, **more: Any) -> None:
    journal.note(fact(RUN, STARTED, call))
    ended = completed(RUN, call)
    await journal.append(ended.with_more(**more) if more else ended, call)


async def _all(store: Store, run_id: str, query: CallQuery) -> list[CallView]:
    """All windows of a question one after the other."""
    found: list[CallView] = []
    while True:
        its = await calls_of_run(
            store, run_id, status=query.status, actor=query.actor, group=query.group, text=query.text,
            order=query.order, descending=query.descending, after=query.after, n=query.n,
        )  # fmt: skip
        _expect_window(its, query)
        found += its.calls
        if its.next is None:
            return found
        query = replace(query, after=its.next)


async def _expect_the_same_is_meant(store: Store, plain: Store, run_id: str) -> None:
    """By names, addresses, parts of these and beginnings of keys."""
    headers = [each.header for each in await newest_outcomes(plain, run_id)]
    asked = [["nowhere", "pages[99]"], [f"@{each.key.hex()[:5].upper()}" for each in headers[:2]]]
    for each in headers[:3]:
        asked += [[each.name], [each.address, "%"], [each.address.partition("::")[2]]]
    for items, unsuccessful in [*((items, False) for items in asked), ([], True), (asked[-1], True)]:
        expected = await outcomes_meant(plain, run_id, items, unsuccessful=unsuccessful)
        found = await outcomes_meant(store, run_id, items, unsuccessful=unsuccessful)
        assert {each.header.key: each.header for each in found} == {each.header.key: each.header for each in expected}
        assert len(found) == len(expected)


def _expect_window(found: CallWindow, query: CallQuery) -> None:
    assert len(found.calls) == query.n if found.next is not None else len(found.calls) <= query.n


def _events_only(store: Store) -> Store:
    """The store as one that finds nothing itself."""
    return cast("Store", SimpleNamespace(events=store.events, unread_outcomes=store.unread_outcomes))


async def _expect_the_same_is_around(store: Store, plain: Store, run_id: str) -> None:
    """Of calls, and of those around them."""
    every = [each.header.key for each in await newest_outcomes(plain, run_id)]
    for keys in ([], every[:1], every[-1:], every[1::2], [*every, b"?" * 32]):
        found = await outcomes_around(store, run_id, keys)
        expected = await outcomes_around(plain, run_id, keys)
        assert {each.header.key: each.header for each in found} == {each.header.key: each.header for each in expected}
        assert len(found) == len(expected), keys
