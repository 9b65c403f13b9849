"""Calls whose worker process dies: what they have done is unknown. No process is started; an executor plays it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from rh_agents import ExecutionState, RetryPolicy, RunAwaiting, RunStopped, agent, parallel, tool
from rh_agents.core.ports import CallContext, Executor, Question
from rh_agents.core.types import Engine, OnUnknown
from rh_agents.errors import UnknownOutcomeError, WorkerLost
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import RUN, Crash, KeepingStore, World

KILLED = "the worker process was killed by signal 9 (out of memory?)"


class Workers:
    """Calls functions here, and lets so many workers die in the middle."""

    def __init__(self, deaths: int = 0, *, max_lost: int = 3, has_begun: bool = True) -> None:
        self.deaths = deaths
        self.max_lost = max_lost
        self.has_begun = has_begun
        self.attempts: list[int] = []
        self.keys: set[str] = set()
        self.before_dying: Callable[[], object] = lambda: None

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: CallContext
    ) -> Any:
        self.attempts.append(about.attempt)
        self.keys.add(about.idempotency_key)
        await asyncio.sleep(1)
        if self.deaths:
            self.deaths -= 1
            self.before_dying()
            raise WorkerLost(KILLED, has_begun=self.has_begun, max_lost=self.max_lost)
        return function(*args, **kwargs)


@pytest.fixture
def world() -> World:
    return World()


def again(world: World, workers: Executor, **options: Any) -> ExecutionState:
    """The same run, as another process would open it."""
    return world.again(executors={Engine.PROCESS: workers}, **options)


def make_work(**options: Any) -> Any:
    @tool(engine="process", name="work", **options)
    def work(number: int) -> int:
        return number * 2

    return work


async def statuses(world: World) -> list[tuple[str, int]]:
    """What the journal says about the call: the status of each event, and how many workers it tells of."""
    events = [each.event async for each in world.store.events(RUN)]
    return [(each.execution_status.value, each.lost) for each in events if each.name == "work"]


@pytest.mark.parametrize("has_store", [True, False])
def test_by_default_a_call_that_lost_its_worker_is_made_again(world: World, has_store: bool) -> None:
    work, workers = make_work(), Workers(deaths=2)

    async def main() -> None:
        options: dict[str, Any] = {} if has_store else {"store": None}
        async with again(world, workers, **options):
            result = await work(4).outcome()
        assert (result.unwrap(), result.attempts) == (8, 3)
        assert workers.attempts == [1, 2, 3]
        assert len(workers.keys) == 1
        if has_store:
            assert await statuses(world) == [("started", 0), ("retrying", 1), ("retrying", 2), ("completed", 0)]

    run_virtually(main)


@pytest.mark.parametrize("has_store", [True, False])
def test_a_call_that_loses_every_worker_fails_and_is_not_made_for_ever(world: World, has_store: bool) -> None:
    work, workers = make_work(), Workers(deaths=100)
    store = world.store if has_store else None

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(Crash):
                async with again(world, workers, store=store):
                    error = (await work(4).outcome()).error
                    assert isinstance(error, WorkerLost)
                    assert isinstance(error, UnknownOutcomeError)
                    assert str(error).startswith(f"{KILLED}; whether work was done is unknown; it has lost 3")
                    raise Crash
            assert len(workers.attempts) == 3 or not has_store, "the recorded failure is repeated"

    run_virtually(main)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_lost_workers_count_across_restarts(world: World, before: int, after: int) -> None:
    work = make_work()

    async def main() -> None:
        with pytest.raises(Crash):
            async with again(world, Workers(before)):
                task = asyncio.ensure_future(work(4).outcome())
                await asyncio.sleep(before + 0.5)  # in the middle of the attempt that follows the losses
                world.store = await world.store.after_the_first(len(world.store.entries))  # type: ignore[attr-defined]
                task.cancel()
                await asyncio.wait([task])
                raise Crash
        workers = Workers(100)
        async with again(world, workers):
            result = await work(4).outcome()
        assert isinstance(result.error, WorkerLost)
        assert "it has lost 3 workers" in str(result.error)
        assert workers.attempts == list(range(before + 1, 4))
        assert len(workers.attempts) == after

    run_virtually(main)


def test_with_fail_it_fails_at_once_and_names_the_idempotency_key(world: World) -> None:
    work, workers = make_work(on_unknown="fail"), Workers(1)

    async def main() -> None:
        async with again(world, workers):
            error = (await work(4).outcome()).error
        assert isinstance(error, WorkerLost)
        (key,) = workers.keys
        assert str(error).endswith(f"its idempotency key is {key}")
        assert await statuses(world) == [("started", 0), ("failed", 0)]

    run_virtually(main)


@pytest.mark.parametrize("effect", ["repeatable", "external"])
def test_with_ask_a_person_decides_also_at_the_next_start(world: World, effect: str) -> None:
    work, workers = make_work(on_unknown="ask", effect=effect), Workers(1)

    async def main() -> None:
        questions: set[str] = set()
        for _ in range(3):
            with pytest.raises(RunAwaiting) as caught:
                async with again(world, workers):
                    await work(4)
            questions.update(caught.value.questions)
        assert workers.attempts == [1], "nothing was made a second time"
        (question,) = questions
        await world.store.answer(RUN, question, b'"retry"')
        async with again(world, workers):
            assert await work(4) == 8
        assert workers.attempts == [1, 2]
        assert len(workers.keys) == 1

    run_virtually(main)


def test_somebody_who_is_there_is_asked_at_once(world: World) -> None:
    work, workers = make_work(on_unknown="ask"), Workers(2)

    async def answer(question: Question) -> OnUnknown:
        assert "its outcome is unknown" in question.text
        return answers.pop()

    async def main() -> None:
        for store in (world.store, None):
            answers[:] = [OnUnknown.FAIL, OnUnknown.RETRY]
            workers.deaths, workers.attempts = 2, []
            async with again(world, workers, store=store) as state:
                state.set_answerer(answer)
                assert isinstance((await work(4).outcome()).error, WorkerLost)
            assert (workers.attempts, answers) == ([1, 2], [])

    answers: list[OnUnknown] = []
    run_virtually(main)


def test_where_nobody_can_ever_be_asked_it_fails(world: World) -> None:
    work, workers = make_work(on_unknown="ask"), Workers(1)

    async def main() -> None:
        async with again(world, workers, store=None):
            assert isinstance((await work(4).outcome()).error, WorkerLost)

    run_virtually(main)


def test_a_lost_worker_counts_as_an_attempt_of_the_retry_policy(world: World) -> None:
    workers = Workers(1)

    @tool(engine="process", retry=RetryPolicy(max_attempts=2, initial_delay=0.0, retry_on=(ValueError,)))
    def work(number: int) -> int:
        raise ValueError("bad")

    async def main() -> None:
        async with again(world, workers):
            result = await work(4).outcome()
            assert (type(result.error), result.attempts) == (ValueError, 2)
            workers.deaths = 5
            assert isinstance((await work(5).outcome()).error, WorkerLost)
        assert workers.attempts == [1, 2, 1, 2]

    run_virtually(main)


def test_other_calls_are_not_charged_for_it(world: World) -> None:
    work, workers = make_work(), Workers(3)

    async def main() -> None:
        async with again(world, workers), parallel(max_workers=1) as p:
            p.map(work, [1, 2, 3])
            results = await p.gather()
        assert [result.attempts for result in results] == [3, 1, 1]
        assert [result.ok for result in results] == [False, True, True]

    run_virtually(main)


@pytest.mark.parametrize("retry", [None, 1])
def test_with_fail_no_later_attempt_of_its_caller_makes_it(world: World, retry: int | None) -> None:
    work, workers = make_work(effect="external", on_unknown="fail", retry=retry), Workers(deaths=1)

    @agent(retry=RetryPolicy(max_attempts=3, initial_delay=1, jitter=False))
    async def order() -> int:
        return await work(4)  # type: ignore[no-any-return]

    async def main() -> None:
        with pytest.raises(WorkerLost):
            async with again(world, workers):
                await order()
        assert workers.attempts == [1]

    run_virtually(main)


@pytest.mark.parametrize("on_unknown", ["retry", "ask"])
def test_a_call_that_had_not_begun_fails_like_any_other(world: World, on_unknown: str) -> None:
    work, workers = make_work(on_unknown=on_unknown), Workers(1, has_begun=False)

    async def main() -> None:
        async with again(world, workers):
            result = await work(4).outcome()
        assert (str(result.error), result.attempts) == (KILLED, 1)

    run_virtually(main)


@pytest.mark.parametrize("on_unknown", ["retry", "fail", "ask"])
def test_nothing_is_decided_when_workers_die_because_the_run_is_being_stopped(world: World, on_unknown: str) -> None:
    work, workers = make_work(on_unknown=on_unknown, effect="external"), Workers(1)

    async def main() -> None:
        state = again(world, workers)
        workers.before_dying = state.request_interrupt
        with pytest.raises(RunStopped):
            async with state:
                await work(4)
        assert [outcome async for outcome in world.store.outcomes(RUN)] == []
        if on_unknown == "ask":
            with pytest.raises(RunAwaiting):
                async with again(world, workers):
                    await work(4)
        else:
            async with again(world, workers):
                result = await work(4).outcome()
            assert result.ok is (on_unknown == "retry")
            assert result.ok or isinstance(result.error, UnknownOutcomeError)
        assert len(workers.attempts) == 1 + (on_unknown == "retry")

    run_virtually(main)


@pytest.mark.parametrize("on_unknown", ["fail", "ask"])
def test_a_crash_at_any_moment_after_the_loss_makes_no_payment_twice(world: World, on_unknown: str) -> None:
    pay, workers = make_work(on_unknown=on_unknown, effect="external"), Workers(100)

    async def attempt() -> None:
        with pytest.raises((RunAwaiting, WorkerLost, UnknownOutcomeError)):
            async with again(world, workers):
                await pay(4)

    async def main() -> None:
        await attempt()
        store = world.store
        assert isinstance(store, KeepingStore)
        started = 1 + next(i for i, (event, _) in enumerate(store.entries) if event.name == "work")
        for count in range(started, len(store.entries)):  # up to the moment before the run has ended
            world.store = await store.after_the_first(count)
            await attempt()
        assert workers.attempts == [1]

    run_virtually(main)
