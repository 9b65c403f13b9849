"""Runs that wait for workers: each is taken by one, in the order that counts, and none is lost."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from rh_agents.core.errors import RunIsLive, RunMismatchError, StoreError
from rh_agents.core.ports import Journal, Question, Resumption, RunInfo, Store
from rh_agents.core.ports.control import Controllable, Verb
from rh_agents.core.queueing import HeldRun, Queueing, Submission, Wanted
from rh_agents.core.types import ExecutionStatus
from rh_agents.testing._records import AWAITING, BRIEF_LEASE, COMPLETED, ENDED, FAILED, ODD_TEXTS, RUN, STARTED, request
from rh_agents.testing.conformance.suite import StoreSuite, cancelled, on_an_event_loop, until

__all__ = ["QueueConformance"]

QUEUE, FLOW = "é default", "shop.flows:survey@0123"
PENDING = ExecutionStatus.PENDING
SOON = 2.0
"""Seconds within which a worker that has nothing to do hears of a run."""


class QueueConformance(StoreSuite):
    """Runs are submitted, and workers take them. A store need not have queues."""

    @on_an_event_loop
    async def test_a_submitted_run_waits_and_says_what_it_needs(self, store: Store) -> None:
        queues = _queues(store)
        tags, facts = ("shop", "é"), {"a": "fact"}
        given = dataclasses.replace(_submission(priority=-3, not_before=1e9 + 0.5), tags=tags, facts=facts)
        info = await queues.submit(given)
        assert info == await store.find_run(RUN)
        assert await store.runs(tag="é") == [info]
        assert (info.status, info.owner, info.epoch, info.outcomes, info.claims) == (PENDING, None, 0, 0, 0)
        assert (info.workflow, info.input, info.input_digest) == (given.workflow, given.input, given.input_digest)
        assert (info.queue, info.flow, info.priority, info.ready_at) == (QUEUE, FLOW, -3, 1e9 + 0.5)
        assert (info.tags, dict(info.facts)) == (tags, facts)

    @on_an_event_loop
    async def test_submitted_twice_it_is_one_run_and_with_another_input_or_workflow_it_is_refused(
        self, store: Store
    ) -> None:
        queues = _queues(store)
        first = await queues.submit(_submission())
        again = await queues.submit(dataclasses.replace(_submission(), priority=7, queue="other"))
        assert again == first
        for changed in ({"input": b'["other"]', "input_digest": b"o" * 32}, {"workflow": "other"}):
            with pytest.raises(RunMismatchError):
                await queues.submit(dataclasses.replace(_submission(), **changed))
        await (await self._claimed_and_opened(store)).close(COMPLETED)
        assert (await queues.submit(_submission())).status is COMPLETED
        assert [info.run_id for info in await store.runs()] == [RUN]

    @on_an_event_loop
    async def test_runs_are_taken_by_priority_and_then_in_the_order_in_which_they_were_ready(
        self, store: Store
    ) -> None:
        queues = _queues(store)
        order = [("b", 0, 20.0), ("a", 0, 10.0), ("first", 5, 30.0), ("last", -1, 5.0)]
        for name, priority, ready_at in order:
            await queues.submit(_submission(name, priority=priority, not_before=ready_at))
        await queues.submit(_submission("tomorrow", priority=9, not_before=4e9))
        await queues.submit(dataclasses.replace(_submission("other queue"), queue="other"))
        await queues.submit(dataclasses.replace(_submission("other flow"), flow="no:flow"))
        assert set((await queues.look_at_queue(QUEUE)).flows) == {FLOW, "no:flow"}
        assert (await queues.look_at_queue(QUEUE, [FLOW])).flows == ("no:flow",)
        taken = [await queues.claim_next(_wanted()) for _ in range(5)]
        assert [info and info.run_id for info in taken] == ["first", "a", "b", "last", None]
        assert (await queues.look_at_queue(QUEUE, ["no:flow"])).flows == ()
        assert {(info.status, info.claims) for info in taken if info is not None} == {(STARTED, 1)}
        assert await queues.claim_next(_wanted(flows=[])) is None

    @on_an_event_loop
    async def test_every_text_may_be_the_name_of_a_queue_and_of_a_flow(self, store: Store) -> None:
        queues = _queues(store)
        for number, text in enumerate(ODD_TEXTS):
            await queues.submit(dataclasses.replace(_submission(f"run {number}"), queue=text, flow=text))
        for number, text in enumerate(ODD_TEXTS):
            assert (await queues.look_at_queue(text)).flows == (text,)
            assert (await queues.look_at_queue(text, [text])).flows == ()
            info = await queues.claim_next(Wanted(text, [text], "worker"))
            assert info is not None
            assert (info.run_id, info.queue, info.flow) == (f"run {number}", text, text)

    @on_an_event_loop
    async def test_a_claimed_run_is_nobody_elses_until_it_is_opened_and_closed_or_given_back(
        self, store: Store
    ) -> None:
        queues = _queues(store)
        before = await queues.submit(_submission())
        claimed = await queues.claim_next(_wanted())
        assert claimed is not None
        assert claimed.owner == "worker"
        assert await queues.claim_next(_wanted()) is None
        assert not await queues.enqueue(RUN)
        await queues.give_back(RUN)
        await queues.give_back(RUN)
        after = await store.find_run(RUN)
        assert after is not None
        assert dataclasses.replace(after, updated_at=before.updated_at, executions=()) == before
        journal = await self._claimed_and_opened(store)
        with pytest.raises(RunIsLive):
            await store.open_run(request())
        assert (journal.info.status, journal.info.epoch, journal.info.input) == (PENDING, 0, b'["urls"]')
        await journal.close(COMPLETED)
        assert await queues.claim_next(_wanted()) is None

    @on_an_event_loop
    async def test_many_workers_at_once_take_every_run_once(self, store: Store) -> None:
        await self._take_all(store, store)

    @on_an_event_loop
    async def test_workers_of_two_processes_take_every_run_once(self, store: Store) -> None:
        await self._take_all(store, await self._second(store))

    async def _take_all(self, store: Store, other: Store) -> None:
        names = [f"run {number}" for number in range(24)]
        for name in names:
            await _queues(store).submit(_submission(name, not_before=1.0))
        taken: list[str] = []

        async def work(its: Store) -> None:
            while (info := await _queues(its).claim_next(_wanted())) is not None:
                journal = await its.open_run(request(info.run_id))
                taken.append(info.run_id)
                await journal.close(COMPLETED)

        await asyncio.gather(*(work(its) for its in (store, other, store, other)))
        assert sorted(taken) == sorted(names)
        assert {info.status for info in await store.runs()} == {COMPLETED}

    @on_an_event_loop
    async def test_a_run_that_was_let_go_of_is_ready_as_its_owner_says_and_one_that_has_ended_never(
        self, store: Store
    ) -> None:
        queues = _queues(store)
        await queues.submit(_submission())
        for status, resumption, ready_at in (
            (STARTED, Resumption(5.0), 5.0),
            (AWAITING, Resumption(6.0), 6.0),
            (STARTED, Resumption(), None),
        ):
            await (await self._claimed_and_opened(store)).close(status, None, resumption)
            info = await _found(store)
            assert (info.ready_at, info.claims, info.status) == (ready_at, 0, status)
        assert await queues.claim_next(_wanted()) is None
        for status in ENDED:
            assert await queues.enqueue(RUN)
            epoch = (await _found(store)).epoch
            journal = await self._claimed_and_opened(store)
            assert journal.info.epoch == epoch
            await journal.close(status, None, Resumption(1.0))
            info = await _found(store)
            assert (info.status, info.ready_at, info.epoch) == (status, None, epoch)
        assert (await _found(store)).epoch == 2
        assert await queues.claim_next(_wanted()) is None

    @on_an_event_loop
    async def test_a_run_that_was_never_submitted_is_taken_by_no_worker(self, store: Store) -> None:
        queues = _queues(store)
        journal = await store.open_run(request())
        await journal.close(STARTED, None, Resumption(1.0))
        assert (await _found(store)).ready_at is None
        assert not await queues.enqueue(RUN)
        assert await queues.claim_next(_wanted()) is None
        with pytest.raises(StoreError):
            await queues.enqueue("no run")

    @on_an_event_loop
    async def test_a_run_that_waits_for_an_answer_is_ready_when_it_is_there_whenever_that_is(
        self, store: Store
    ) -> None:
        queues = _queues(store)
        await queues.submit(_submission())
        journal = await self._claimed_and_opened(store)
        await journal.ask(Question(RUN, "early", "", "Why?"))
        await journal.ask(Question(RUN, "late", "", "Why?"))
        await journal.close(AWAITING, None, Resumption(questions=("early", "late")))
        assert (await _found(store)).ready_at is None
        await store.answer(RUN, "early", b"1")
        assert (await _found(store)).ready_at is not None
        journal = await self._claimed_and_opened(store)
        await store.answer(RUN, "late", b"1")  # while it is executed
        await journal.close(AWAITING, None, Resumption(questions=("early",)))
        assert (await _found(store)).ready_at is not None, "an answer is there already"
        journal = await self._claimed_and_opened(store)
        await journal.close(AWAITING, None, Resumption(questions=("other",)))
        assert (await _found(store)).ready_at is None

    @on_an_event_loop
    async def test_a_run_that_waits_for_an_event_is_ready_when_its_signal_is_there_whenever_that_is(
        self, store: Store
    ) -> None:
        queues = _queues(store)
        if not isinstance(store, Controllable):
            pytest.skip("its runs take no signals")
        await queues.submit(_submission())
        for event, is_ready in (("paid", False), ("shipped", False)):
            journal = await self._claimed_and_opened(store)
            await journal.close(AWAITING, None, Resumption(4e9, events=(event,)))
            assert ((await _found(store)).ready_at != 4e9) is is_ready
            await store.request_control(RUN, Verb.SIGNAL, {"event": event, "value": "1"})
            assert ((await _found(store)).ready_at or 4e9) < 4e9
        journal = await self._claimed_and_opened(store)
        await store.request_control(RUN, Verb.SIGNAL, {"event": "while it is executed", "value": "1"})
        await journal.close(AWAITING, None, Resumption(4e9, events=("while it is executed",)))
        assert ((await _found(store)).ready_at or 4e9) < 4e9
        journal = await self._claimed_and_opened(store)
        await journal.close(AWAITING, None, Resumption(4e9, events=("other",)))
        assert (await _found(store)).ready_at == 4e9
        assert await queues.claim_next(_wanted()) is None

    @on_an_event_loop
    async def test_a_run_can_be_cancelled_and_deleted_before_any_worker_takes_it(self, store: Store) -> None:
        queues = _queues(store)
        await queues.submit(_submission())
        assert not await store.request_stop(RUN, "not needed")
        info = await _found(store)
        assert (info.status, info.reason, info.ready_at) == (ExecutionStatus.CANCELLED, "not needed", None)
        assert await queues.claim_next(_wanted()) is None
        await queues.submit(_submission("other"))
        await store.delete_run("other")
        assert await queues.claim_next(_wanted()) is None

    @on_an_event_loop
    async def test_a_copy_of_a_submitted_run_is_in_no_queue(self, store: Store) -> None:
        queues = _queues(store)
        await queues.submit(_submission())
        await (await self._claimed_and_opened(store)).close(STARTED)
        await store.fork_run(RUN, "copy", [], [])
        copy = await _found(store, "copy")
        assert (copy.queue, copy.flow, copy.ready_at) == (None, None, None)

    @on_an_event_loop
    async def test_a_worker_that_waits_hears_of_a_run(self, store: Store) -> None:
        await self._hear(store, store)

    @on_an_event_loop
    async def test_a_worker_that_waits_hears_of_a_run_of_another_process(self, store: Store) -> None:
        await self._hear(store, await self._second(store))

    async def _hear(self, store: Store, other: Store) -> None:
        queues = _queues(store)
        await queues.look_at_queue(QUEUE)
        await _quiet(queues)
        waiting = asyncio.ensure_future(queues.wait_for_queue(QUEUE, 60.0))
        try:
            await asyncio.sleep(0.3)
            assert not waiting.done(), "nothing has happened"
            await _queues(other).submit(_submission())
            async with asyncio.timeout(SOON):
                await waiting
        finally:
            await cancelled(waiting)

    @on_an_event_loop
    async def test_what_a_dead_worker_had_is_taken_over_and_its_claim_counts(self, store: Store) -> None:
        await _queues(store).submit(_submission())
        for claims in (1, 2):
            await self._abandon(store, claims)
            store = await self._crashed(store)
        queues = _queues(store)
        info = await until(lambda: self._taken_from_the_dead(queues, _wanted(max_claims=2)))
        assert (info.status, info.owner, info.ready_at, info.claims) == (FAILED, None, None, 2)
        assert info.reason is not None
        assert "2 workers have died with it" in info.reason
        assert await _found(store) == info
        assert await queues.enqueue(RUN)
        assert ((await _found(store)).claims, (await _found(store)).status) == (0, PENDING)
        again = await self._claimed_and_opened(store)
        assert again.info.epoch == 1

    async def _abandon(self, store: Store, claims: int) -> None:
        """Take the run, and die with it."""
        queues = _queues(store)
        info = await until(lambda: self._taken_from_the_dead(queues, _wanted()))
        assert info.claims == claims
        await store.open_run(request())

    async def _taken_from_the_dead(self, queues: Queueing, its: Wanted) -> RunInfo | None:
        """The next run, also of owners that give no signs of life any more."""
        before = {each.sign for each in (await queues.look_at_queue(QUEUE)).held}
        await asyncio.sleep(2 * BRIEF_LEASE if before else 0)
        held: tuple[HeldRun, ...] = (await queues.look_at_queue(QUEUE)).held
        silent = [each.sign for each in held if each.is_gone or each.sign in before]
        return await queues.claim_next(dataclasses.replace(its, silent=silent))

    @on_an_event_loop
    async def test_a_live_owner_is_seen_and_its_run_not_taken(self, store: Store) -> None:
        queues = _queues(store)
        await queues.submit(_submission())
        journal = await self._claimed_and_opened(store)
        other = await self._second(store)
        (held,) = (await _queues(other).look_at_queue(QUEUE)).held
        assert (held.run_id, held.flow, held.lease, held.is_gone) == (RUN, FLOW, BRIEF_LEASE, False)
        assert (await _queues(other).look_at_queue(QUEUE, [FLOW])).held == ()
        number, fence, heartbeat = held.sign
        stale = [(number, fence, heartbeat - 1), (number, fence - 1, heartbeat), (number + 1, fence, heartbeat)]
        assert await _queues(other).claim_next(_wanted(silent=stale)) is None
        await journal.close(COMPLETED)

    @on_an_event_loop
    async def test_a_store_that_was_closed_takes_nothing(self, store: Store) -> None:
        queues = _queues(store)
        await store.aclose()
        for attempt in (
            lambda: queues.submit(_submission()),
            lambda: queues.look_at_queue(QUEUE),
            lambda: queues.claim_next(_wanted()),
            lambda: queues.enqueue(RUN),
            lambda: queues.wait_for_queue(QUEUE, 0.0),
        ):
            with pytest.raises(StoreError):
                await attempt()

    async def _claimed_and_opened(self, store: Store) -> Journal:
        info = await _queues(store).claim_next(_wanted())
        assert info is not None
        assert info.run_id == RUN
        return await store.open_run(request())


def _submission(run_id: str = RUN, *, priority: int = 0, not_before: float | None = None) -> Submission:
    """A run that is to wait."""
    return Submission(run_id, "survey", FLOW, b'["urls"]', b"d" * 32, QUEUE, priority, not_before)


def _wanted(**options: Any) -> Wanted:
    """What a worker wants that can do everything."""
    return Wanted(**{"queue": QUEUE, "flows": [FLOW], "owner": "worker", "lease": BRIEF_LEASE, **options})


async def _quiet(queues: Queueing) -> None:
    """What has happened before is no news any more."""
    for _ in range(3):
        await queues.wait_for_queue(QUEUE, 0.2)


async def _found(store: Store, run_id: str = RUN) -> RunInfo:
    info = await store.find_run(run_id)
    assert info is not None
    return info


def _queues(store: Store) -> Queueing:
    if not isinstance(store, Queueing):
        pytest.skip("it has no queues")
    return store
