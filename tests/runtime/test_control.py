"""Steering a run while it is executed: pausing it and changing its numbers. What was asked counts once, also after a
crash."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Annotated, Any

import pytest

from rh_agents import (
    Budget,
    BudgetExceeded,
    ConcurrencyLimit,
    EventType,
    ExecutionEvent,
    ExecutionState,
    GroupTimeout,
    Injected,
    MemoryStore,
    RateLimit,
    RetryPolicy,
    Tool,
    Usage,
    agent,
    parallel,
    report_usage,
)
from rh_agents.core.errors import ControlRefused, RunStopped, StoreError
from rh_agents.core.policies.limits import AdaptiveConcurrency
from rh_agents.core.ports.control import ControlResult, RunControl, Verb, control_of
from tests.properties.virtual import run_virtually
from tests.runtime.steering_kit import control, controls, later
from tests.runtime.worlds import RUN, KeepingStore, World, crash


@pytest.fixture
def world() -> World:
    return World()


def now() -> float:
    return asyncio.get_running_loop().time()


async def pages(fetch: Any, items: str, **options: Any) -> list[Any]:
    async with parallel(name="pages", **options) as p:
        p.map(fetch, list(items))
        return [result.unwrap() for result in await p.gather()]


# -- pause ------------------------------------------------------------------------------------------------------------


def test_a_paused_run_begins_nothing_new_and_lets_what_is_in_flight_end(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again():
            asked = later(1.5, control(world).pause, control(world).unpause)
            task = asyncio.create_task(pages(fetch, "abcdef", max_workers=2))
            await asyncio.sleep(2.9)
            assert world.begun == ["a", "b", "c", "d"], "what ran at 1.5 s has ended, and nothing has begun"
            assert world.calls == ["a", "b", "c", "d"]
            assert await task == list("abcdef")
        assert 4.0 <= now() < 4.2
        paused, unpaused = await asked
        assert paused.is_applied
        assert "nothing new begins" in paused.text
        assert "goes on" in unpaused.text
        assert [each["verb"] for each in await controls(world.store)] == ["pause", "unpause"]

    run_virtually(main)


def test_who_asks_and_why_stands_in_the_journal_without_secrets(world: World) -> None:
    fetch = world.make_fetch()
    key = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"

    async def main() -> None:
        async with world.again():
            asked = later(0.5, lambda: control(world).set({"retry": 2}, reason=f"a new key {key}", author="ann"))
            await fetch("a")
        (result,) = await asked
        (event,) = [e.event async for e in world.store.events(RUN) if e.event.event_type is EventType.CONTROL]
        assert event.control is not None
        assert (event.name, event.control["author"]) == ("set", "ann")
        assert event.message is not None
        assert "a new key" in event.message
        assert key not in repr(event)
        assert result.request is not None
        assert event.control["id"] == result.request.id
        (kept,) = await control(world).requests()
        assert kept.answer == {"text": "retry=2 from now on"}
        assert kept.applied_at is not None

    run_virtually(main)


def test_direct_calls_and_further_attempts_wait_as_well(world: World) -> None:
    fetch = world.make_fetch(retry=RetryPolicy(max_attempts=2, initial_delay=0))
    world.down = ["a"]

    async def main() -> None:
        async with world.again() as state:
            state.parts.interruption.after(0.5, state.parts.interruption.hold.hold)
            task = asyncio.create_task(_outcome(fetch("a")))
            await asyncio.sleep(100)
            assert world.begun == ["a"], "its second attempt has not begun"
            state.parts.interruption.hold.release()
            assert isinstance(await task, ConnectionError)
        assert world.begun == ["a", "a"]
        assert now() == 101.0

    run_virtually(main)


async def _outcome(call: Any) -> Any:
    try:
        return await call
    except ConnectionError as error:
        return error


def test_who_waits_for_a_limit_lets_others_have_it_while_its_run_is_paused(world: World) -> None:
    slot = ConcurrencyLimit(1, name="slot")
    window = RateLimit(1, per=10, name="window")
    fetch = world.make_fetch(limits=[slot, window])

    async def main() -> None:
        async with world.again() as state:
            await fetch("first")
            task = asyncio.create_task(_awaited(fetch("mine")))
            await asyncio.sleep(1)
            assert slot.in_use == 1, "it waits for the window"
            state.parts.interruption.hold.hold()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert slot.in_use == 0, "somebody else may have it"
            async with ExecutionState():
                await fetch("another run's")
            assert world.calls == ["first", "another run's"]
            await asyncio.sleep(100)
            assert world.calls == ["first", "another run's"]
            state.parts.interruption.hold.release()
            await task
        assert world.calls == ["first", "another run's", "mine"]

    run_virtually(main)


async def _awaited(call: Any) -> Any:
    return await call


def test_a_call_that_may_not_begin_has_nothing_of_the_budget(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again(budget=Budget(calls=5)) as state:
            ledger = state.parts.budgets.of_run
            assert ledger is not None
            state.parts.interruption.hold.hold()
            task = asyncio.create_task(_awaited(fetch("a")))
            await asyncio.sleep(10)
            assert (ledger.spent.calls, world.begun) == (0, [])
            state.parts.interruption.hold.release()
            await task
        assert world.calls == ["a"]

    run_virtually(main)


def test_timeouts_of_groups_and_of_the_run_and_budgets_of_time_stand_still(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again(budget=Budget(seconds=4.5)) as state:
            state.set_timeout(4.5)
            asked = later(0.5, control(world).pause)
            later(1000, control(world).unpause)
            assert await pages(fetch, "abcd", max_workers=1, timeout=4.5) == list("abcd")
        await asked
        assert now() > 1000

    run_virtually(main)


@pytest.mark.parametrize("limited", ["group", "run", "budget"])
def test_time_goes_on_when_the_run_does(world: World, limited: str) -> None:
    fetch = world.make_fetch()
    options: dict[str, Any] = {"budget": Budget(seconds=2.5)} if limited == "budget" else {}

    async def main() -> None:
        with pytest.raises(GroupTimeout if limited == "group" else RunStopped):
            async with world.again(**options) as state:
                if limited == "run":
                    state.set_timeout(2.5)
                asked = later(0.5, control(world).pause, control(world).unpause)
                await pages(fetch, "abcd", max_workers=1, timeout=2.5 if limited == "group" else None)
        await asked
        assert 3.0 <= now() <= 4.0

    run_virtually(main)


def test_an_agent_is_not_timed_out_by_calls_that_may_not_begin(world: World) -> None:
    fetch = world.make_fetch()

    @agent(timeout=3.5)
    async def survey() -> list[Any]:
        return [*await pages(fetch, "ab", max_workers=2), await fetch("c")]

    async def main() -> None:
        async with world.again() as state:
            state.parts.interruption.after(0.5, state.parts.interruption.hold.hold)
            state.parts.interruption.after(500.0, state.parts.interruption.hold.release)
            assert await survey() == ["a", "b", "c"]
        assert now() == 501.0

    run_virtually(main)


def test_the_timeout_of_an_attempt_in_flight_goes_on(world: World) -> None:
    fetch = world.make_fetch(timeout=2.0)
    world.seconds = {"a": 100}

    async def main() -> None:
        async with world.again() as state:
            state.parts.interruption.after(0.5, state.parts.interruption.hold.hold)
            with pytest.raises(TimeoutError):
                await fetch("a")
        assert now() == 2.0

    run_virtually(main)


def test_a_paused_run_can_be_stopped(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        with pytest.raises(RunStopped, match="a deploy"):
            async with world.again() as state:
                state.parts.interruption.hold.hold()
                state.parts.interruption.after(5.0, lambda: state.request_interrupt("a deploy"))
                await pages(fetch, "ab")
        assert (now(), world.begun) == (5.0, [])

    run_virtually(main)


def test_a_pause_survives_a_restart_which_says_so(world: World, caplog: pytest.LogCaptureFixture) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async def work() -> None:
            await fetch("a")
            await control(world).pause(author="ann")

        await crash(world.again(), work)
        world.forget()
        async with world.again():
            later(50, control(world).unpause)
            assert await pages(fetch, "b") == ["b"]
        assert 52 <= now() < 52.1

    with caplog.at_level(logging.WARNING):
        run_virtually(main)
    assert "begins paused: it was paused by ann" in caplog.text
    assert "rh-agents unpause monday" in caplog.text


def test_what_was_asked_while_nobody_executed_the_run_is_applied_at_the_next_start(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        with pytest.raises(RunStopped):
            async with world.again() as state:
                await fetch("a")
                state.request_interrupt("a deploy")
                await fetch("b")
        result = await control(world).pause()
        assert not result.is_applied
        assert "from its next start on" in result.text
        async with world.again():
            later(20, control(world).unpause)
            await fetch("b")
        assert now() == 22
        assert [request.is_open for request in await control(world).requests()] == [False, False]

    run_virtually(main)


def test_a_pause_ends_with_its_run(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again():
            await fetch("a")
            await control(world).pause()
        async with world.again():
            await fetch("b")
        assert now() < 3

    run_virtually(main)


def test_a_copy_of_a_paused_run_is_not_paused(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async def work() -> None:
            await fetch("a")
            await control(world).pause()

        await crash(world.again(), work)
        await world.store.fork_run(RUN, "copy", (), ())
        async with world.again(run_id="copy"):
            await fetch("a")
            await fetch("b")
        assert now() < 3

    run_virtually(main)


# -- once, wherever the process dies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_open", [False, True])
def test_a_request_is_applied_once_whichever_write_the_process_dies_after(is_open: bool) -> None:
    """`is_open`: it died before it could say that the request was applied."""
    world = World()
    fetch = world.make_fetch()
    asked: list[ControlResult] = []

    async def program() -> list[Any]:
        return await pages(fetch, "abcd", max_workers=2)

    async def record() -> None:
        async with world.again():
            task = later(0.5, control(world).pause, control(world).unpause, lambda: control(world).set({"retry": 2}))
            await program()
        asked.extend(await task)

    run_virtually(record)
    store = world.store
    assert isinstance(store, KeepingStore)
    count = len(store.entries)
    for length in range(count + 1):

        async def resume(length: int = length) -> None:
            left = await store.after_the_first(length)
            applied = {each["id"] for each in await controls(left)}
            left_run: Any = left._runs[RUN]
            for result in asked:
                assert result.request is not None
                request = dataclasses.replace(result.request, applied_at=None, answer=None)
                if is_open or request.id not in applied:
                    left_run.requests[request.id] = request
            async with ExecutionState(store=left, run_id=RUN):
                assert await program() == list("abcd")
            trail = await controls(left)
            assert sorted(each["id"] for each in trail) == sorted(
                result.request.id for result in asked if result.request
            )
            assert [each["verb"] for each in trail] == ["pause", "unpause", "set"]
            assert not [request for request in await left.control(RUN).requests() if request.is_open]

        world.forget()
        run_virtually(resume)


# -- set --------------------------------------------------------------------------------------------------------------


def test_more_workers_begin_at_once_and_fewer_when_enough_have_ended(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again():
            later(0.5, lambda: control(world).set({"max-workers": 3}))
            later(1.75, lambda: control(world).set({"max-workers.pages": 1}))
            task = asyncio.create_task(pages(fetch, "abcdefgh", max_workers=1))
            await asyncio.sleep(0.7)
            assert world.begun == ["a", "b", "c"]
            await asyncio.sleep(1.9)
            assert world.begun == ["a", "b", "c", "d", "e", "f", "g"][: len(world.begun)]
            begun = len(world.begun)
            await asyncio.sleep(1)
            assert len(world.begun) <= begun + 1
            assert await task == list("abcdefgh")

    run_virtually(main)


def test_fewer_workers_than_run_now_are_taken_with_a_word_about_it(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again():
            asked = later(0.5, lambda: control(world).set({"max-workers": 2}))
            await pages(fetch, "abcdef", max_workers=4)
            (result,) = await asked
        assert result.text == (
            "max-workers=2 instead of 4 from now on; 4 of pages run now, and none begins until fewer than 2 do"
        )
        assert now() == 2.0

    run_virtually(main)


def test_a_rate_limit_keeps_what_its_window_has_promised(world: World) -> None:
    window = RateLimit(10, per=60, name="open.ai")
    fetch = world.make_fetch(limits=[window])
    starts: list[float] = []

    async def main() -> None:
        async with world.again():
            later(2.5, lambda: control(world).set({"limit.open.ai.requests": 5}))
            for item in range(12):
                await fetch(item)
                starts.append(now() - 1)
        assert window.limits == {"requests": 10}, "the run has ended, and others may use it"

    run_virtually(main)
    late = [start for start in starts if start > 2.5]
    assert all(len([other for other in starts if start - 60 < other <= start]) <= 5 for start in late[3:])
    assert late[2] >= 60, "three had begun before, and five may in a minute"


def test_settings_hold_over_a_restart_for_limits_groups_and_budgets_that_come_later(world: World) -> None:
    slots = ConcurrencyLimit(1, name="slots")
    fetch = world.make_fetch(limits=[slots])

    async def main() -> None:
        async def work() -> None:
            await fetch("a")
            await control(world).set({"limit.slots.limit": 4, "max-workers": 4, "budget.cost": 7})

        await crash(world.again(budget=Budget(cost=1)), work)
        begun = now()
        async with world.again(budget=Budget(cost=1)) as state:
            assert await pages(fetch, "bcde", max_workers=1) == list("bcde")
            assert state.parts.budgets.of_run is not None
            assert state.parts.budgets.of_run.budget.cost == 7
        assert now() - begun == pytest.approx(1.0)
        assert slots.limit == 1

    run_virtually(main)


def test_attempts_are_set_for_calls_that_are_retried_and_for_no_others(world: World) -> None:
    retried = world.make_fetch(retry=RetryPolicy(max_attempts=5, initial_delay=0))
    once = world.make_fetch()
    world.down = ["a", "b"]

    async def main() -> None:
        async with world.again():
            await control(world).set({"retry": 2})
            assert isinstance(await _outcome(retried("a")), ConnectionError)
            assert isinstance(await _outcome(once("b")), ConnectionError)
        assert world.calls == ["a", "a", "b"]

    run_virtually(main)


def test_a_larger_budget_of_time_lasts_and_a_smaller_one_stops_the_run_earlier(world: World) -> None:
    fetch = world.make_fetch()

    async def last(seconds: float) -> float:
        world.store = KeepingStore()
        begun = now()
        with pytest.raises(RunStopped):
            async with world.again(budget=Budget(seconds=3)):
                later(0.5, lambda: control(world).set({"budget.seconds": seconds}))
                await pages(fetch, "abcdefghijk", max_workers=1)
        return now() - begun

    async def main() -> None:
        assert await last(6) == 6.0
        assert await last(2) == 2.0

    run_virtually(main)


class Paid(Tool):
    """A tool whose calls cost 1.0 each, which is known before."""

    def estimate_input(self, input_data: object) -> Usage:
        return Usage(cost=1.0)


def paid(world: World) -> Any:
    async def ask(item: str) -> str:
        await world.do(item)
        report_usage(Usage(cost=1.0))
        return item

    return Paid(name="ask", handler=ask)


@agent
async def paid_survey(ask: Annotated[Any, Injected], items: str) -> list[Any]:
    async with parallel(max_workers=2, name="pages") as p:
        for item in items:
            p.add(ExecutionEvent(actor=ask)(item))
        return [result.unwrap() for result in await p.gather()]


def test_a_budget_that_the_run_did_not_have_counts_what_was_spent_before_and_what_is_under_way(world: World) -> None:
    ask = paid(world)

    async def main() -> None:
        with pytest.raises(BudgetExceeded, match=r"cost=5, does not suffice.* 5 calls"):
            async with world.again() as state:
                asked = later(1.5, lambda: control(world).set({"budget.cost": 5}))  # two are paid for, two under way
                await paid_survey(ask, "abcdefgh")
        (result,) = await asked
        assert result.text == "budget.cost=5 from now on"
        assert state.spent.usage.cost == 5.0
        assert world.calls == ["a", "b", "c", "d", "e"]

    run_virtually(main)


def test_a_budget_that_was_set_counts_on_after_a_restart(world: World) -> None:
    ask = paid(world)

    async def main() -> None:
        async with world.again():
            later(2.5, lambda: control(world).set({"budget.cost": 9}))
            await paid_survey(ask, "abcdefgh")
        store = world.store
        assert isinstance(store, KeepingStore)
        applied = next(n for n, (fact, _) in enumerate(store.entries, 1) if fact.kind is EventType.CONTROL)
        world.store, world.calls = await store.after_the_first(applied), []
        with pytest.raises(BudgetExceeded, match="cost=9, does not suffice"):
            async with world.again() as state:
                await paid_survey(ask, "abcdefghijkl")
        assert state.spent.usage.cost == 9.0
        assert len(world.calls) == 5, "four were paid for when it was set"

    run_virtually(main)


def test_calls_that_stood_at_the_gate_when_a_budget_came_are_held_by_it(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        with pytest.raises(RunStopped, match="calls=3"):
            async with world.again() as state:
                later(0.5, control(world).pause)
                later(2.0, lambda: control(world).set({"budget.calls": 3}), control(world).unpause)
                await pages(fetch, "abcdef", max_workers=2)
        assert world.begun == ["a", "b", "c"]
        assert state.spent.calls == 3

    run_virtually(main)


def test_a_budget_of_time_that_comes_later_counts_from_the_start_of_the_execution(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        with pytest.raises(RunStopped, match="seconds=4"):
            async with world.again():
                later(2.5, lambda: control(world).set({"budget.seconds": 4}))
                await pages(fetch, "abcdefgh", max_workers=1)
        assert now() == 4.0

    run_virtually(main)


def test_further_attempts_of_a_call_that_began_before_the_budget_came_reserve_in_it(world: World) -> None:
    fetch = world.make_fetch(retry=RetryPolicy(max_attempts=3, initial_delay=0))
    world.down = ["a"]

    async def main() -> None:
        with pytest.raises(RunStopped, match="calls=0"):
            async with world.again():
                later(0.5, lambda: control(world).set({"budget.calls": 0}))
                await fetch("a")
        assert world.begun == ["a"]

    run_virtually(main)


def test_a_setting_that_cannot_be_is_refused_with_what_can_and_none_is_changed(world: World) -> None:
    slots, window = ConcurrencyLimit(2, name="slots"), RateLimit(9, name="window")
    adaptive = AdaptiveConcurrency(4, name="adaptive")
    fetch = world.make_fetch(limits=[slots, window, adaptive])

    async def refusal(settings: dict[str, Any]) -> str:
        with pytest.raises(ControlRefused) as caught:
            await control(world).set({"max-workers": 1, **settings})
        return str(caught.value)

    async def main() -> None:
        async with world.again(budget=Budget(calls=5)) as state:
            await fetch("a")
            assert "did you mean max-workers" in await refusal({"max-worker": 3})
            assert "pause the run" in await refusal({"max-workers.x": 0})
            assert "no group 'x' is under way now, and there is none so far" in await refusal({"max-workers.x": 2})
            assert "a whole number" in await refusal({"retry": 1.5})
            assert "a number above 0" in await refusal({"max-workers": 10**400})
            assert "did you mean 'slots'?" in await refusal({"limit.slot.limit": 3})
            assert "of the limit 'slots' can be set: limit" in await refusal({"limit.slots.requests": 3})
            assert "of the limit 'window' can be set: requests" in await refusal({"limit.window.tokens": 3})
            assert "the last word can be" in await refusal({"limit.window.per": 3})
            assert "of the limit 'adaptive' can be set: maximum" in await refusal({"limit.adaptive.limit": 3})
            assert "1 is spent already; name more" in await refusal({"budget.calls": 0})
            assert "did you mean budget.cost?" in await refusal({"budget.costs": 5})
            assert (slots.limit, window.limits, adaptive.maximum) == (2, {"requests": 9}, 1000)
            assert state.parts.settings.max_workers_of("any", 7) == 7
        trail = await controls(world.store)
        assert all("refused" in each["answer"] for each in trail)

    run_virtually(main)


# -- asking -----------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_and_leaves_no_request(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again():
            await fetch("a")
            result = await control(world).pause(dry_run=True)
            assert (result.verb, result.request, result.is_applied) == (Verb.PAUSE, None, False)
            assert result.text == "pause monday: now nothing new begins"
            assert await control(world).requests() == []
        assert await controls(world.store) == []

    run_virtually(main)


def test_a_run_that_has_ended_or_that_there_is_not_cannot_be_steered(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        with pytest.raises(StoreError, match="there is no run 'monday'"):
            await control(world).pause()
        async with world.again():
            await fetch("a")
            with pytest.raises(ControlRefused, match="is not paused"):
                await control(world).unpause()
        for verb in Verb:
            with pytest.raises(ControlRefused, match="has ended: it is completed; start it again"):
                await _asked(control(world), verb)

    run_virtually(main)


async def _asked(steered: RunControl, verb: Verb) -> ControlResult:
    if verb is Verb.SET:
        return await steered.set({"retry": 1})
    return await (steered.pause() if verb is Verb.PAUSE else steered.unpause())


def test_a_store_without_requests_says_that_its_runs_cannot_be_steered() -> None:
    class Plain:
        pass

    store: Any = Plain()
    with pytest.raises(Exception, match="a Plain has no requests, so its runs cannot be steered"):
        control_of(store, RUN)
    assert isinstance(control_of(MemoryStore(), RUN), RunControl)


class HardToRead(KeepingStore):
    """A store that cannot say what was asked of a run, so many times."""

    failures = 0

    async def before_reading_requests(self) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("the disk does not answer")


def test_what_could_not_be_read_when_it_was_asked_is_looked_for_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    fetch = world.make_fetch()
    store = world.store = HardToRead()

    async def main() -> None:
        async with world.again():
            store.failures = 3  # which it takes 1, 2 and 4 seconds to try again
            asked = later(0.5, control(world).pause)
            task = asyncio.create_task(pages(fetch, "abcdefghijklmnop", max_workers=1))
            await asyncio.sleep(7.4)
            assert await controls(store) == []
            await asyncio.sleep(3.0)
            assert [each["verb"] for each in await controls(store)] == ["pause"]
            begun = len(world.begun)
            await asyncio.sleep(5.0)
            assert len(world.begun) == begun
            await control(world).unpause()
            assert await task == list("abcdefghijklmnop")
            await asked

    with caplog.at_level(logging.WARNING, "rh_agents.control"):
        run_virtually(main)
    assert caplog.text.count("the disk does not answer") == 3
