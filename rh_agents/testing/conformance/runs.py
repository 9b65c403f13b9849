"""How runs begin, end, resume and are found."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rh_agents.core.errors import RunIsLive, StoreError
from rh_agents.core.ports import Store
from rh_agents.core.types import ExecutionStatus
from rh_agents.testing._records import (
    AWAITING,
    CANCELLED,
    COMPLETED,
    ENDED,
    FAILED,
    ODD_TEXTS,
    RETRYING,
    RUN,
    STARTED,
    Written,
    completed,
    found_run,
    key,
    listed,
    outcome,
    request,
    same_recorded,
)
from rh_agents.testing.conformance.suite import StoreSuite, expect_refusal, expect_refusals, on_an_event_loop

__all__ = ["RunConformance"]


class RunConformance(StoreSuite):
    """Runs begin, end, resume and are found. Every store needs this."""

    @on_an_event_loop
    async def test_a_run_that_nobody_opened_is_not_there(self, store: Store) -> None:
        assert await store.find_run(RUN) is None
        assert await store.runs() == []
        await expect_refusals(
            store,
            *(lambda read=read: listed(read(RUN)) for read in (store.events, store.outcomes, store.unread_outcomes)),
        )

    @on_an_event_loop
    async def test_a_new_run_has_nothing_recorded_and_is_pending_for_its_first_owner(self, store: Store) -> None:
        journal = await store.open_run(request())
        assert (journal.info.run_id, journal.info.status, journal.info.epoch) == (RUN, ExecutionStatus.PENDING, 0)
        same_recorded(journal.recorded, Written(RUN).recorded())
        assert (journal.waiting, journal.stop_requested) == (0, None)
        assert await listed(store.events(RUN)) == []
        assert await listed(store.outcomes(RUN)) == []

    @on_an_event_loop
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

    @on_an_event_loop
    async def test_runs_are_listed_a_page_at_a_time_newest_first(self, store: Store) -> None:
        names = [f"run {number}" for number in range(5)]
        for number, name in enumerate(names):
            tags = ("odd, ", "b") if number % 2 else ('e", "ven', "b")
            journal = await store.open_run(request(name, tags=tags))
            await journal.close(COMPLETED if number < 4 else STARTED)
        newest_first = [info.run_id for info in await store.runs()]
        assert newest_first == names[::-1]
        assert [info.run_id for info in await store.runs(limit=2)] == names[:2:-1]
        assert [info.run_id for info in await store.runs(limit=2, before=names[3])] == [names[2], names[1]]
        assert [info.run_id for info in await store.runs(before=names[0])] == []
        assert [info.run_id for info in await store.runs(limit=1, tag="odd, ")] == [names[3]]
        assert [info.run_id for info in await store.runs(limit=1, tag="odd, ", before=names[3])] == [names[1]]
        assert [info.run_id for info in await store.runs(limit=2, tag=", ")] == []
        assert [info.run_id for info in await store.runs(limit=2, status=COMPLETED)] == [names[3], names[2]]
        assert await store.runs(limit=0) == []
        with pytest.raises(StoreError, match="unknown"):
            await store.runs(before="unknown")

    @on_an_event_loop
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

    @on_an_event_loop
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

    @on_an_event_loop
    async def test_a_run_says_when_it_was_executed_and_what_was_recorded_before(self, store: Store) -> None:
        for status in (STARTED, COMPLETED):
            before = await store.open_run(request(facts={"a": "b"}))
            await before.append(completed(RUN, outcome(status.value)), outcome(status.value))
            await before.close(status)
        journal = await store.open_run(request(facts={"a": "b"}))
        await journal.append(completed(RUN, outcome(3)), outcome(3))
        info = await found_run(store)
        assert dict(info.facts) == {"a": "b"}
        assert [(each.after, each.epoch) for each in info.executions] == [(0, 0), (1, 0), (2, 1)]
        first, second, third = info.executions
        assert third.ended_at is None
        assert first.ended_at is not None
        assert second.ended_at is not None
        assert info.created_at <= first.began_at <= first.ended_at <= second.began_at <= second.ended_at
        assert second.ended_at <= third.began_at
        await journal.close(STARTED)

    @on_an_event_loop
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

    @on_an_event_loop
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

    @on_an_event_loop
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

    @on_an_event_loop
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

    @on_an_event_loop
    async def test_runs_are_found_by_confusing_tags(self, store: Store) -> None:
        for text in ODD_TEXTS:
            await (await store.open_run(request(f"run {text}", tags=("x", text)))).close(STARTED)
        for text in ODD_TEXTS:
            assert [info.run_id for info in await store.runs(tag=text)] == [f"run {text}"]
        assert len(await store.runs(tag="x")) == len(ODD_TEXTS)

    @on_an_event_loop
    async def test_a_store_that_was_closed_does_nothing_more(self, store: Store) -> None:
        journal = await store.open_run(request())
        await journal.append(completed(RUN, outcome(1)), outcome(1))
        await store.aclose()
        await store.aclose()
        for refused in (
            store.open_run(request("other")),
            store.find_run(RUN),
            store.runs(),
        ):
            with pytest.raises(StoreError):
                await refused
        await expect_refusal(journal, StoreError)
