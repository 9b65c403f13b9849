"""Changing what is recorded, from outside: superseding outcomes, and forks."""

from __future__ import annotations

from typing import ClassVar

import pytest

from rh_agents.core.errors import RunIsLive, StoreError, UnstorableError
from rh_agents.core.groups import EndingCause, GroupEnding, GroupStatus
from rh_agents.core.ports import Store
from rh_agents.core.usage import Usage
from rh_agents.testing._records import (
    COMPLETED,
    ENDED,
    RETRYING,
    RUN,
    STARTED,
    SUPERSEDED,
    Written,
    about_group,
    completed,
    fact,
    found_run,
    key,
    listed,
    outcome,
    request,
    same_outcome,
)
from rh_agents.testing.conformance.suite import StoreSuite, expect_refusals, on_an_event_loop, opened, written_run

__all__ = ["EditingConformance"]


class EditingConformance(StoreSuite):
    """Outcomes can be superseded, and runs copied with changes."""

    operations: ClassVar[tuple[str, ...]] = ("supersede", "fork")

    @on_an_event_loop
    async def test_only_a_run_that_is_there_is_superseded_or_forked(self, store: Store) -> None:
        await expect_refusals(
            store, lambda: store.supersede(RUN, [key(1)]), lambda: store.fork_run(RUN, "copy", [], [])
        )

    @on_an_event_loop
    async def test_a_superseded_outcome_is_marked_and_stays(self, store: Store) -> None:
        written = await written_run(store, 1, 2, 3)
        await store.supersede(RUN, [key(2), key(3)])
        stored = await listed(store.events(RUN))
        assert [each.sequence for each in stored] == list(range(1, 9))
        marks = [(each.event.execution_status, each.event.key) for each in stored[6:]]
        assert marks == [(SUPERSEDED, key(2).hex()), (SUPERSEDED, key(3).hex())]
        for each, number in zip(stored[6:], (2, 3), strict=True):
            mark = completed(RUN, written.outcomes[key(number)])._replace(status=SUPERSEDED, result=None)
            written.entries.append((mark._replace(timestamp=each.event.timestamp), None))
        journal = await store.open_run(request())
        assert journal.recorded.superseded == {key(2), key(3)}
        assert journal.recorded.unknown == {}
        await written.check_journal(journal)
        await written.call(journal, outcome("2 again", "new"))
        await written.check(store)

    @on_an_event_loop
    async def test_a_mark_that_supersedes_an_outcome_is_not_paid_for_again(self, store: Store) -> None:
        used, charges = Usage(input_tokens=10, requests=1, cost=0.5), {"": 2.0, key(1).hex(): 2.0}
        journal = await store.open_run(request())
        first, cached = outcome(1, "paid"), outcome(2, "free")
        await journal.append(fact(RUN, COMPLETED, first, usage=used, charges=charges, metadata={"page": 1}), first)
        await journal.append(fact(RUN, COMPLETED, cached, from_cache=True), cached)
        spent = {place: each.copy() for place, each in journal.recorded.spent.items()}
        assert (spent[""].usage, spent[""].calls) == (used, 1)
        await journal.close(COMPLETED)
        await store.supersede(RUN, [key(1), key(2)])
        journal = await store.open_run(request())
        assert (journal.recorded.spent, journal.recorded.superseded) == (spent, {key(1), key(2)})
        *_, mark, other = [each.event for each in await listed(store.events(RUN))]
        assert (mark.usage, mark.charges, mark.metadata, other.from_cache) == (None, None, {"page": 1}, False)

    @on_an_event_loop
    async def test_a_mark_that_earlier_versions_wrote_with_its_cost_is_not_paid_for_again(self, store: Store) -> None:
        used = Usage(input_tokens=10, requests=1, cost=0.5)
        journal = await store.open_run(request())
        given = outcome(1, "paid")
        await journal.append(fact(RUN, COMPLETED, given, usage=used), given)
        await journal.append(fact(RUN, SUPERSEDED, given, usage=used, lost=1))
        await journal.close(COMPLETED)
        recorded = (await store.open_run(request())).recorded
        assert (recorded.spent[""].usage, recorded.lost, recorded.superseded) == (used, {}, {key(1)})

    @on_an_event_loop
    async def test_what_has_no_outcome_is_not_superseded_and_nothing_is_while_the_run_is_live(
        self, store: Store
    ) -> None:
        written = await written_run(store, 1)
        await store.supersede(RUN, [])
        await store.supersede(RUN, [key("never")])
        await written.check(store)
        journal = await store.open_run(request())
        with pytest.raises(RunIsLive):
            await store.supersede(RUN, [key(1)])
        await written.check_journal(journal)
        await written.append(journal, fact(RUN, STARTED, outcome(2)))
        await journal.close(STARTED)
        await store.supersede(RUN, [key("never"), key(1), key(2)])
        *before, mark = await listed(store.events(RUN))
        assert len(before) == len(written.entries)
        assert (mark.event.execution_status, mark.event.key) == (SUPERSEDED, key(1).hex())

    @on_an_event_loop
    async def test_a_fork_has_the_same_journal_under_another_name(self, store: Store) -> None:
        written = Written(RUN)
        facts = {"b": "c"}
        journal = await store.open_run(
            request(workflow="survey", input=b"1", input_digest=key(1), tags=("a",), facts=facts)
        )
        await written.call(journal, outcome(1, "a", group_id="pages"))
        await written.append(journal, about_group(RUN, "pages", GroupStatus.COMPLETED))
        await written.call(journal, outcome(2, error=ValueError("no"), made_in=(0, 1, 2)))
        await written.append(journal, fact(RUN, STARTED, outcome(3)))
        await store.fork_run(RUN, "of a live run", [], [])
        await journal.close(COMPLETED)
        await store.fork_run(RUN, "copy", [], [])
        assert (await found_run(store, "copy")).executions == (), "it was not executed"
        for name in ("copy", "of a live run"):
            info = await found_run(store, name)
            assert (info.forked_from, info.owner, info.outcomes) == (RUN, None, 2)
            assert info.status not in ENDED
            assert (info.workflow, info.input, info.input_digest) == ("survey", b"1", key(1))
            assert (tuple(info.tags), dict(info.facts)) == (("a",), {"b": "c"})
            copied = [(given._replace(run_id=name), result) for given, result in written.entries]
            copy = Written(name, copied)
            await copy.check(store)
            journal = await store.open_run(request(name))
            await copy.check_journal(journal)
            await copy.call(journal, outcome(4, "only here"))
            await copy.check(store)
        await written.check(store)

    @on_an_event_loop
    async def test_a_fork_leaves_out_some_outcomes_and_has_others_edited(self, store: Store) -> None:
        journal, written = await opened(store)
        await written.call(journal, outcome(1, "one", group_id="pages"))
        await written.append(journal, fact(RUN, STARTED, outcome(2)))
        await written.append(journal, fact(RUN, RETRYING, outcome(2), attempt=1))
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

    @on_an_event_loop
    async def test_a_fork_keeps_how_groups_ended_but_for_those_it_leaves_outcomes_out_of(self, store: Store) -> None:
        journal = await store.open_run(request())
        written, left_out = Written(RUN), outcome(1, 1, group_id="left out")
        await written.call(journal, left_out)
        await written.call(journal, outcome(2, 2, group_id="kept"))
        ending = GroupEnding(cause=EndingCause.LEFT, outcomes=1)
        for group_id in ("kept", "left out"):
            await written.append(journal, about_group(RUN, group_id, GroupStatus.RUNNING, ending))
        await journal.close(STARTED)
        await store.fork_run(RUN, "fork", [left_out.key], [])
        forked = await store.open_run(request("fork"))
        assert forked.recorded.endings == {"kept": ending, "left out": None}
        await forked.close(STARTED)

    @on_an_event_loop
    async def test_a_fork_takes_no_name_that_is_taken(self, store: Store) -> None:
        first, second = await written_run(store, 1), await written_run(store, 2, run_id="tuesday")
        with pytest.raises(StoreError, match="tuesday"):
            await store.fork_run(RUN, "tuesday", [], [])
        with pytest.raises(StoreError, match="nothing"):
            await store.fork_run("nothing", "wednesday", [], [])
        with pytest.raises(UnstorableError):
            await store.fork_run(RUN, "wednesday", [], [outcome(1, object())])
        assert await store.find_run("wednesday") is None
        await first.check(store)
        await second.check(store)
