"""What a run is doing now, as its owner says: what is in flight, what waits for what, and that nothing has finished."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rh_agents import (
    Budget,
    CircuitBreaker,
    ConcurrencyLimit,
    ExecutionState,
    MemoryStore,
    RetryPolicy,
    Tool,
    Usage,
    agent,
    current,
    parallel,
    tool,
)
from rh_agents.core._loops.blocked_loops import watched_loops
from rh_agents.core.policies.numbers import SettingState
from rh_agents.core.ports.present import (
    MOST_LISTED,
    QUIET_AFTER,
    BudgetState,
    GroupState,
    OpenBreaker,
    Present,
    Retrying,
    RunningCall,
    Waiting,
    WaitingCall,
    present_of_run,
)
from rh_agents.testing import JumpingClock

RUN = "watched"


@tool
async def work(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


class Estimated(Tool):
    """A tool of which it is known that it takes 100 tokens at most."""

    def estimate_input(self, input_data: object) -> Usage:
        return Usage(input_tokens=100)


async def seen(state: ExecutionState) -> Present:
    assert state.store is not None
    present = await present_of_run(state.store, RUN)
    assert present is not None
    return present


def watch(
    program: Callable[[], Awaitable[Any]], moments: list[float], **options: Any
) -> tuple[list[Present], JumpingClock]:
    """Execute a program, and look at its run so many seconds after its beginning."""
    clock = JumpingClock()

    async def main() -> list[Present]:
        looks: list[Present] = []
        async with ExecutionState(store=MemoryStore(), run_id=RUN, clock=clock, **options) as state:

            async def look_on() -> None:
                for moment in moments:
                    await asyncio.sleep(clock.start + moment - clock())
                    looks.append(await seen(state))

            looking = asyncio.create_task(look_on())
            await program()
            await looking
        return looks

    return clock.run(main()), clock


def test_calls_in_flight_are_those_that_wait_for_no_call_of_their_own() -> None:
    @agent
    async def survey(count: int) -> None:
        async with parallel(2, name="pages") as p:
            p.map(work, [10.0, 20.0, 30.0][:count])
            await p.gather()

    (early, late), clock = watch(lambda: survey(3), [5.0, 15.0])
    assert early.in_flight == 2
    assert [(each.address, each.since - clock.start, each.attempt) for each in early.running] == [
        ("survey::pages[0]::work", 0.0, 1),
        ("survey::pages[1]::work", 0.0, 1),
    ]
    assert all(len(each.key or "") == 64 for each in early.running)
    assert early.where == "survey::pages[0]::work"
    (group,) = early.groups
    assert (group.name, group.address, group.in_use, group.slots) == ("pages", "survey::pages", 2, 2)
    assert (group.finished, group.total, early.outcomes, early.last_outcome_at) == (0, 3, 0, None)
    assert [each.address for each in late.running] == ["survey::pages[1]::work", "survey::pages[2]::work"]
    assert (late.groups[0].finished, late.outcomes) == (1, 1)
    assert late.last_outcome_at == clock.start + 15.0, "when it was seen"


def test_when_a_run_has_ended_nothing_is_under_way() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with ExecutionState(store=store, run_id=RUN) as state:
            calls = asyncio.gather(work(0.001), work(0.002))
            await asyncio.sleep(0)
            assert (await seen(state)).in_flight == 2
            await calls
            assert (await seen(state)).in_flight == 0
        present = await present_of_run(store, RUN)
        assert present is not None
        assert present.is_over
        assert (present.in_flight, present.running, present.outcomes) == (0, (), 2)

    asyncio.run(main())


def test_what_waits_for_a_limit_says_for_which_one_and_since_when() -> None:
    limit = ConcurrencyLimit(1, name="printer")

    @tool(limits=[limit])
    async def print_out(page: int) -> int:
        await asyncio.sleep(60)
        return page

    async def program() -> None:
        await asyncio.gather(*(print_out(page) for page in range(3)))

    (first, second, third), clock = watch(program, [30.0, 90.0, 150.0])
    assert first.in_flight == 1
    (waiting,) = first.waiting
    assert (waiting.name, waiting.calls, waiting.since - clock.start) == ("printer", 2, 0.0)
    assert waiting.why
    assert (second.in_flight, [each.calls for each in second.waiting]) == (1, [1])
    assert (third.in_flight, third.waiting) == (1, ())


def test_what_waits_for_its_next_attempt_says_when_that_is_due() -> None:
    attempts: list[int] = []

    @tool(retry=RetryPolicy(max_attempts=3, initial_delay=40.0, max_delay=40.0, jitter=False))
    async def flaky() -> str:
        attempts.append(1)
        await asyncio.sleep(10)
        if len(attempts) == 1:
            raise ConnectionError("gone")
        return "there"

    (waiting, again), clock = watch(lambda: flaky(), [20.0, 55.0])
    (retrying,) = waiting.retrying
    assert (retrying.address, retrying.due_at - clock.start, retrying.attempt) == ("flaky", 50.0, 1)
    assert (waiting.retries, waiting.in_flight, waiting.running, waiting.where) == (1, 0, (), "flaky")
    assert (again.retries, again.retrying, again.in_flight) == (0, (), 1)
    assert again.running[0].attempt == 2


def test_a_member_that_waits_for_its_next_attempt_uses_no_slot() -> None:
    @tool(retry=RetryPolicy(max_attempts=2, initial_delay=100.0, max_delay=100.0, jitter=False))
    async def fails(number: int) -> None:
        raise ConnectionError

    async def program() -> None:
        async with parallel(1) as p:
            p.map(fails, [1])
            p.add(work(50.0))
            await p.gather()

    (present,), _ = watch(program, [10.0])
    assert [(each.in_use, each.slots) for each in present.groups] == [(1, 1)]
    assert (present.in_flight, present.retries) == (1, 1)


def test_open_questions_and_calls_that_wait_for_their_answer_are_no_work() -> None:
    async def main() -> Present:
        async with ExecutionState(store=MemoryStore(), run_id=RUN) as state:
            present: list[Present] = []

            async def answer(_: Any) -> str:
                present.append(await seen(state))
                return "yes"

            state.set_answerer(answer)
            await state.ask("May I?")
            return present[0]

    assert asyncio.run(main()).in_flight == 0


def test_breakers_that_are_not_closed_and_budgets_are_shown() -> None:
    breaker = CircuitBreaker(1, 1000.0, name="gateway")

    ask = Estimated(name="ask", handler=asyncio.sleep, budget=Budget(tokens=500))

    @tool
    async def fails() -> None:
        raise ConnectionError

    async def program() -> None:
        async with parallel(2, breaker=breaker) as p:
            p.add(current().run.start(ask, 60.0, None), key="ask")
            await asyncio.sleep(1.0)
            p.add(fails())
            await p.gather()

    (present,), _ = watch(program, [30.0], budget=Budget(calls=10, tokens=1000))
    assert present.breakers == (OpenBreaker("gateway", "open", 1),)
    of_run, of_call = present.budgets
    assert (of_run.name, of_run.limits, of_run.reserved) == ("", {"tokens": 1000, "calls": 10}, {"tokens": 100})
    assert of_run.spent == {"tokens": 0, "calls": 2}
    assert (of_call.limits, of_call.spent) == ({"tokens": 500}, {"tokens": 0})


def test_a_call_that_waits_for_what_is_reserved_for_others_says_so() -> None:
    ask = Estimated(name="ask", handler=asyncio.sleep)

    async def program() -> None:
        run = current().run
        await asyncio.gather(run.start(ask, 60.0, None), run.start(ask, 61.0, None))

    (present, later), _ = watch(program, [30.0, 90.0], budget=Budget(tokens=150))
    assert [(each.name, each.calls) for each in present.waiting] == [("the budget", 1)]
    assert present.in_flight == 1
    assert (later.waiting, later.in_flight) == ((), 1)


def test_that_nothing_has_finished_for_long_is_said_once_for_each_stretch(caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        await work(3 * QUIET_AFTER)
        await work(1.0)
        await work(2 * QUIET_AFTER)

    moments = [factor * QUIET_AFTER for factor in (0.9, 1.1, 1.5, 2.9)]
    moments += [3 * QUIET_AFTER + more for more in (0.5, 10.0, 20.0, 1.2 * QUIET_AFTER, 1.5 * QUIET_AFTER)]
    with caplog.at_level(logging.WARNING, "rh_agents.run"):
        looks, clock = watch(program, moments)
    told = [record.getMessage() for record in caplog.records if record.name == "rh_agents.run"]
    assert [text.split(";")[0] for text in told] == [
        f"run '{RUN}': nothing has finished for {n} minutes" for n in (6, 6)
    ]
    assert all("under way the longest: work" in text for text in told)
    assert looks[0].quiet_for(clock.start + moments[0]) is None
    assert looks[1].quiet_for(clock.start + moments[1]) == pytest.approx(1.1 * QUIET_AFTER)


def test_a_run_that_nobody_can_look_at_says_so_as_well(caplog: pytest.LogCaptureFixture) -> None:
    clock = JumpingClock()

    async def main() -> None:
        async with ExecutionState(run_id=RUN, clock=clock):
            for _ in range(5):  # all the time something finishes
                await work(0.8 * QUIET_AFTER)
                watched_loops.ask()
            assert told() == []
            working = asyncio.create_task(work(3 * QUIET_AFTER).outcome())
            for _ in range(10):
                await asyncio.sleep(0.2 * QUIET_AFTER)
                watched_loops.ask()
            await working
            await asyncio.sleep(2 * QUIET_AFTER)
            watched_loops.ask()

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "rh_agents.run"]

    with caplog.at_level(logging.WARNING, "rh_agents.run"):
        clock.run(main())
    assert len(told()) == 1
    assert "under way the longest: work" in told()[0]


def test_a_run_that_is_paused_or_over_or_has_nothing_under_way_is_not_quiet() -> None:
    at_work = Present(0.0, began_at=0.0, in_flight=1)
    later = 10 * QUIET_AFTER
    assert at_work.quiet_for(later) == later
    assert Present(0.0, began_at=0.0, in_flight=1, paused_at=1.0).quiet_for(later) is None
    assert Present(0.0, began_at=0.0, asking=1).quiet_for(later) is None
    assert at_work.ended().quiet_for(later) is None


FULL = Present(
    12.5,
    in_flight=3,
    waiting=(Waiting("openai", 4, 1.5, "requests"),),
    retrying=(Retrying("ab", "survey::fetch", 20.0, 2),),
    retries=1,
    asking=2,
    groups=(GroupState("g1", "pages", "survey::pages", 2, 5, 10, None, failed=3, begun=12),),
    breakers=(OpenBreaker("gateway", "half_open", 3),),
    budgets=(BudgetState("", {"cost": 5.0}, {"cost": 1.25}, {"cost": 0.5}),),
    paused_at=3.0,
    running=(RunningCall(None, "work", 2.0, 1),),
    outcomes=100,
    failed=7,
    usage=Usage(input_tokens=10, cost=0.5, requests=2),
    last_outcome_at=11.0,
    began_at=0.0,
    held=(WaitingCall("cd", "survey::ask", "openai", 1.5),),
    settings=(SettingState("budget.cost", 5.0, 1.25, 0.5), SettingState("retry", 3)),
)


@pytest.mark.parametrize("present", [FULL, FULL.ended(), Present(1.0)])
def test_it_travels_as_json(present: Present) -> None:
    assert Present.from_json(present.as_json()) == present


def test_what_a_later_version_says_in_addition_is_left_out() -> None:
    record = FULL.as_json() | {"mood": "fine"}
    record["waiting"] = [{**each, "colour": "red"} for each in record["waiting"]]
    assert Present.from_json(record) == FULL


@pytest.mark.parametrize("record", [{}, {"at": 1.0, "waiting": [{"name": "x"}]}, {"at": 1.0, "running": 5}])
def test_what_is_something_else_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not what the owner of a run says"):
        Present.from_json(record)


def test_it_is_the_same_whenever_it_is_said() -> None:
    assert FULL.is_same(Present.from_json(FULL.as_json() | {"at": 99.0}))
    assert not FULL.is_same(FULL.ended())
    assert not FULL.is_same(None)


def test_of_many_calls_the_oldest_are_named() -> None:
    async def program() -> None:
        async with parallel(4 * MOST_LISTED) as p:
            p.map(work, [60.0 + number for number in range(3 * MOST_LISTED)])
            await p.gather()

    (present,), _ = watch(program, [30.0])
    assert present.in_flight == 3 * MOST_LISTED
    assert [each.address for each in present.running] == [f"parallel[{n}]::work" for n in range(MOST_LISTED)]


def test_what_an_earlier_version_has_said_of_a_group_is_read() -> None:
    old = {"at": 1.0, "groups": [GroupState("g", "pages", "pages", 1, 2, 3, 4)._asdict()]}
    for name in ("failed", "begun"):
        del old["groups"][0][name]  # type: ignore[index]
    assert Present.from_json(old).groups == (GroupState("g", "pages", "pages", 1, 2, 3, 4),)


def test_a_group_says_how_many_of_its_members_have_failed_and_begun() -> None:
    @tool
    async def check(number: int) -> int:
        await asyncio.sleep(10.0 * (number > 2))
        if number % 2:
            raise ValueError(number)
        return number

    async def program() -> None:
        async with parallel(2, name="checks") as p:
            p.map(check, [0, 1, 2, 3, 4, 5])
            await p.gather()

    (present,), _ = watch(program, [5.0])
    (group,) = present.groups
    assert (group.finished, group.failed, group.begun) == (3, 1, 5)


def test_calls_that_wait_are_named_with_their_limit_and_numbers_that_can_be_set_with_what_is_in_use() -> None:
    slots = ConcurrencyLimit(1, name="slots")

    @tool(limits=[slots])
    async def slow(number: int) -> int:
        await asyncio.sleep(10)
        return number

    async def program() -> None:
        async with parallel(3, name="pages") as p:
            p.map(slow, [1, 2, 3])
            await p.gather()

    (present,), clock = watch(program, [5.0], budget=Budget(calls=9, cost=float("inf")))
    assert [(each.name, each.address, each.since - clock.start) for each in present.held] == [
        ("slots", "pages[1]::slow", 0.0),
        ("slots", "pages[2]::slow", 0.0),
    ]
    assert {each.name: (each.value, each.in_use) for each in present.settings} == {
        "budget.calls": (9, 3),
        "limit.slots.limit": (1.0, 1),
        "max-workers.pages": (3, 3),
    }
