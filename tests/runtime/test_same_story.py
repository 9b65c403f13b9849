"""A run that is executed again tells the same story: what the program saw is what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from rh_agents import (
    Budget,
    CallCancelled,
    ConcurrencyLimit,
    EventBus,
    ExecutionEvent,
    ExecutionState,
    ExecutionStatus,
    GroupTimeout,
    RetryPolicy,
    Tool,
    Usage,
    agent,
    current,
    parallel,
    tool,
)
from rh_agents.core.types import EventType
from rh_agents.errors import UnknownOutcomeError
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import RUN, Crash, KeepingStore, SlowlyRead, World


@pytest.fixture
def world() -> World:
    return World()


# -- a call that was made again ---------------------------------------------------------------------------------------


def test_of_a_call_that_was_made_again_the_newest_outcome_counts_however_the_run_is_started(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["a", "b"]

    async def work() -> list[Any]:
        async with parallel(name="pages") as p:
            p.map(fetch, list("abc"))
            return [result.result for result in await p.gather()]

    async def expect(values: list[Any], **options: Any) -> None:
        async with world.again(**options):
            assert await work() == values
        assert world.forget() == []

    async def main() -> None:
        async with world.again():
            assert await work() == [None, None, "c"]
        world.down = ["b"]
        world.forget()
        async with world.again():
            assert await work() == ["a", None, "c"]
        assert world.forget() == ["a", "b"]
        for _ in range(2):
            await expect(["a", None, "c"], retry_failed=False)
        await expect(["a", None, "c"], retry_failed=False, replay_mode="republish_all")
        world.down = []
        async with world.again():
            assert await work() == ["a", "b", "c"]
        assert world.forget() == ["b"]
        await expect(["a", "b", "c"])
        await expect(["a", "b", "c"], retry_failed=False)

    run_virtually(main)


@pytest.mark.parametrize("has_outcome", [True, False])
def test_after_a_crash_in_the_second_epoch_the_newest_outcome_counts_without_another_try(
    world: World, has_outcome: bool
) -> None:
    """What the second epoch made again is not given as it was before; what it had not come to is not tried."""
    fetch = world.make_fetch()
    world.down = ["a", "b"]

    async def work() -> list[Any]:
        return [(await fetch(what).outcome()).result for what in "ab"]

    async def main() -> None:
        async with world.again():
            await work()
        world.down = []
        store = world.store
        assert isinstance(store, KeepingStore)
        ended = len(store.entries)
        async with world.again():
            assert await work() == ["a", "b"]
        world.store = await store.after_its_end(ended, ended + 1 + has_outcome)
        world.forget()
        for _ in range(2):
            with pytest.raises(Crash):
                async with world.again(retry_failed=False) as state:
                    assert await work() == ["a" if has_outcome else None, None]
                    assert state.epoch == 1
                    raise Crash
            assert world.forget() == []
        async with world.again():
            assert await work() == ["a", "b"]
        assert world.forget() == (["b"] if has_outcome else ["a", "b"])

    run_virtually(main)


# -- what is on its way to the store ----------------------------------------------------------------------------------


class CommittingStore(KeepingStore):
    """What is appended is in the journal at once; whoever waits for it waits for a while, as for a disk."""

    seconds = 2.0

    def _make_journal(self, run: Any, info: Any) -> Any:
        journal: Any = super()._make_journal(run, info)
        seconds = self.seconds

        until = 0.0

        async def append(event: ExecutionEvent[Any], outcome: Any = None) -> Any:
            nonlocal until
            counts = journal.note(event, outcome)
            until = asyncio.get_running_loop().time() + seconds
            await asyncio.sleep(seconds)
            return counts

        async def flush() -> None:
            await asyncio.sleep(until - asyncio.get_running_loop().time())

        journal.append, journal.flush = append, flush
        return journal


async def ending_of(work: Callable[[], Any]) -> Any:
    """What the program came to: its value, or the class and the text of what it raised, and what that carries."""
    try:
        return await work()
    except Exception as error:  # noqa: BLE001 - what the program does is under test
        results = [result.result for result in getattr(error, "results", ())]
        return type(error), str(error), sorted(getattr(error, "__notes__", [])), results


async def cut_after(world: World, seconds: float, work: Callable[[], Any]) -> None:
    """Execute some of a run; the process dies after so many seconds."""
    state = world.again()
    with pytest.raises(Crash):
        async with state:
            await asyncio.wait([asyncio.ensure_future(work())], timeout=seconds)
            raise Crash


async def _by_timeout(call: Any) -> Any:
    async with asyncio.timeout(1.5):
        return await call


async def _by_wait_for(call: Any) -> Any:
    return await asyncio.wait_for(call, 1.5)


@pytest.mark.parametrize("within", [_by_timeout, _by_wait_for])
@pytest.mark.parametrize("cache", [None, "store"])
def test_a_call_that_has_finished_is_not_cut_off_while_it_is_recorded(
    world: World, within: Callable[[Any], Any], cache: Any
) -> None:
    """Its function ends after 1 s and its commit after 3 s: the program's timeout of 1.5 s comes in between."""
    world.store = CommittingStore()
    pay = world.make_fetch(cache=cache)

    async def work() -> Any:
        paid = await within(pay("paid"))
        await pay("refund" if paid is None else "thank")
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        return paid

    async def main() -> None:
        for _ in range(2):
            async with world.again():
                assert await ending_of(work) == "paid"
        assert world.calls == ["paid", "thank"]

    run_virtually(main)


def test_a_cancellation_that_waits_for_a_commit_arrives_at_the_next_await(world: World) -> None:
    world.store = CommittingStore()
    fetch = world.make_fetch()
    told: list[Any] = []

    async def timed_out() -> None:
        async with asyncio.timeout(1.5):
            told.append(await fetch("a"))
            await asyncio.sleep(0)
            told.append("never")

    async def cancelled() -> None:
        asyncio.get_running_loop().call_later(1.5, asyncio.current_task().cancel, "enough")  # type: ignore[union-attr]
        try:
            told.append(await fetch("b"))
            told.append(await fetch("never"))
        except asyncio.CancelledError as error:
            told.append(error.args)
            raise

    async def grouped() -> None:
        async def fail() -> None:
            await asyncio.sleep(1.5)
            raise LookupError("a sibling")

        async def forever() -> None:
            told.append(await fetch("c"))
            await asyncio.sleep(1000)

        async with asyncio.TaskGroup() as group:
            group.create_task(forever())
            group.create_task(fail())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with world.again():
            with pytest.raises(TimeoutError):
                await timed_out()
            assert loop.time() == 3
            task = asyncio.create_task(cancelled())
            await asyncio.wait([task])
            assert task.cancelled()
            with pytest.raises(ExceptionGroup, match="TaskGroup"):
                await grouped()
        assert told == ["a", "b", ("enough",), "c"]
        assert await world.values() == ["a", "b", "c"]

    run_virtually(main)


def test_a_call_that_is_recorded_gives_its_result_though_its_subscribers_take_their_time(world: World) -> None:
    pay = world.make_fetch()

    async def main() -> None:
        state = world.again()
        state.event_bus.subscribe(lambda event: asyncio.sleep(5))
        async with state:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(8):  # STARTED until 5, the call until 6
                    paid = await pay("paid")
                    await asyncio.sleep(10)
        assert paid == "paid"
        assert await world.values() == ["paid"]

    run_virtually(main)


def test_a_scope_of_anyio_cuts_off_no_call_that_has_finished(world: World) -> None:
    """It cancels again and again until its block ends, at each turn of the event loop, so time goes on by itself."""

    class Committing(CommittingStore):
        seconds = 0.05

    world.store = Committing()

    @tool
    async def pay() -> Any:
        return world.see("paid")

    async def main() -> None:
        for _ in range(2):
            async with world.again():
                with anyio.fail_after(0.01):
                    assert await pay() == "paid"
        world.store = Committing()
        async with world.again():
            with anyio.move_on_after(0.01) as scope:
                await pay()
                await asyncio.sleep(10)
        assert scope.cancelled_caught
        assert world.calls == ["paid", "paid"]

    asyncio.run(main())


def test_the_timeout_of_a_group_does_not_count_while_recorded_results_are_read(world: World) -> None:
    world.store = SlowlyRead()
    fetch = world.make_fetch()

    async def work(items: str) -> Any:
        async with parallel(max_workers=1, timeout=4.5, name="pages") as p:
            p.map(fetch, list(items))
            return [result.result for result in await p.gather()]

    async def main() -> None:
        for _ in range(2):
            async with world.again(retry_failed=False):
                assert await work("abc") == ["a", "b", "c"]
        async with world.again():
            assert await work("abcde") == ["a", "b", "c", "d", "e"]
        assert world.forget() == ["a", "b", "c", "d", "e"]
        async with world.again():
            with pytest.raises(GroupTimeout, match="9 of 10 members"):
                await work("abcdefghij")
        assert world.begun == ["f", "g", "h", "i", "j"], "from the first call that is made, it does"

    run_virtually(main)


def test_a_program_that_leaves_a_group_whose_budget_is_spent_leaves_it_so_again(world: World) -> None:
    fetch = world.make_fetch()

    async def work() -> Any:
        async with parallel(max_workers=1, name="pages", budget=Budget(calls=2)) as p:
            p.map(fetch, ["a", "b", "c"])
            async for result in p.stream():
                if result.index == 1:
                    await asyncio.sleep(5)
                    raise LookupError(result.result)

    async def main() -> None:
        for _ in range(2):
            async with world.again():
                assert (await ending_of(work))[:2] == (LookupError, "b")
        assert world.forget() == ["a", "b"]
        kinds = [entry.event.event_type async for entry in world.store.events(RUN)]
        assert kinds.count(EventType.GROUP_ENDING) == 2, "once for each execution that asked for another try"

    run_virtually(main)


def test_a_block_that_raises_while_the_run_cannot_go_on_has_left_its_group(world: World) -> None:
    """The run's own budget was spent. What the program made of that is the end of the group, also with a larger one."""
    fetch = world.make_fetch()
    world.seconds = {"a": 2.0}

    @agent
    async def branch() -> Any:
        return [await fetch("x"), await fetch("y")]

    async def work() -> Any:
        async with parallel(name="pages") as p:
            p.add(branch())
            p.add(fetch("a"))
            async for result in p.stream():
                await asyncio.sleep(0.5)
                raise LookupError(result.result)

    async def main() -> None:
        async with world.again(budget=Budget(calls=3)):
            first = await ending_of(work)
            assert first[:2] == (LookupError, "a")
        assert sorted(world.forget()) == ["a", "x"]
        for calls in (3, 30):
            async with world.again(budget=Budget(calls=calls), retry_failed=False):
                assert await ending_of(work) == first
        assert world.begun == []

    run_virtually(main)


def test_what_an_error_says_of_its_group_it_says_again_though_items_are_read_slowly(world: World) -> None:
    """All members had ended when the program left the group. In a replay it would have left before the last came."""
    fetch = world.make_fetch()
    world.seconds, world.down = {"bad": 0.7}, ["bad"]

    async def slowly() -> AsyncIterator[str]:
        for item in ("a", "bad"):
            yield item
            await asyncio.sleep(0.5)

    async def work() -> Any:
        async with parallel(name="pages") as p:
            p.map(fetch, slowly())
            async for result in p.stream():
                await asyncio.sleep(0.3)
                raise LookupError(result.result)

    async def main() -> None:
        async with world.again():
            first = await ending_of(work)
            assert "bad is down" in str(first)
        for _ in range(2):
            async with world.again(retry_failed=False):
                assert await ending_of(work) == first

    run_virtually(main)


def test_a_member_that_could_not_go_on_when_its_group_had_ended_had_begun(world: World) -> None:
    """Its outcome is missing, so in a replay the group seemed to be another one, with a member less, and was open."""
    fetch = world.make_fetch()

    @agent
    async def careful() -> None:
        try:
            await fetch("slow")
        finally:
            state = current().run
            assert isinstance(state, ExecutionState)
            state.request_interrupt()
            await fetch("tidy")  # the run is being stopped by now, so this begins no more

    async def work() -> Any:
        async with parallel(timeout=2, name="pages") as p:
            p.add(careful())
            p.add(fetch("a"))
            return await p.gather()

    async def main() -> None:
        world.seconds = {"slow": 9.0}
        async with world.again():
            first = await ending_of(work)
        assert "1 of 2 members had finished" in first[1]
        world.forget()
        for _ in range(2):
            async with world.again(retry_failed=False):
                assert await ending_of(work) == first
        assert world.begun == []

    run_virtually(main)


@pytest.mark.parametrize("items", ["ab", "abc"])
def test_a_group_that_was_left_when_all_had_ended_is_whole_for_a_program_that_does_not_leave_it_any_more(
    world: World, items: str
) -> None:
    """Nothing was cut off, so nothing is missing, and what is new is called."""
    fetch = world.make_fetch()

    async def work(items: str, *, is_mended: bool) -> Any:
        async with parallel(name="pages") as p:
            p.map(fetch, list(items))
            results = [result.result for result in await p.gather()]
            if not is_mended:
                raise LookupError("a mistake in the program")
            return results

    async def main() -> None:
        with pytest.raises(Crash):
            async with world.again():
                with pytest.raises(LookupError):
                    await work("ab", is_mended=False)
                raise Crash
        assert world.forget() == ["a", "b"]
        async with world.again():
            assert await work(items, is_mended=True) == list(items)
        assert world.calls == list(items[2:])

    run_virtually(main)


@pytest.mark.parametrize("how", ["left", "raised"])
def test_a_member_that_could_not_go_on_when_its_group_was_left_is_not_made_in_a_replay(world: World, how: str) -> None:
    """Its budget was spent; the others went on, and the program had enough of them."""
    fetch = world.make_fetch()

    @agent
    async def branch() -> Any:
        async with parallel(name="inner", budget=Budget(calls=1)) as p:
            p.map(fetch, ["x", "y"])
            return len(await p.gather())

    async def work() -> Any:
        async with parallel(max_workers=1, name="pages") as p:
            p.add(branch())
            p.add(fetch("a"))
            async for result in p.stream():
                if how == "raised":
                    raise LookupError(result.result)
                return result.result
        return None

    async def main() -> None:
        async with world.again():
            first = await ending_of(work)
        world.forget()
        for _ in range(2):
            async with world.again(retry_failed=False):
                assert await ending_of(work) == first
        assert world.begun == []

    run_virtually(main)


def test_members_that_the_program_has_no_more_are_not_waited_for_when_failures_are_judged(world: World) -> None:
    """The one that ended before the failure never comes, and what is new begins when the iterable has ended."""
    fetch = world.make_fetch()
    world.seconds, world.down = {"bad": 3.0}, ["bad"]

    async def work(items: list[str]) -> list[Any]:
        async def slowly() -> AsyncIterator[str]:
            for item in items:
                await asyncio.sleep(0.5)
                yield item
            await asyncio.sleep(5)

        async with parallel(fail_after=9, name="pages") as p:
            p.map(fetch, slowly())
            return [result.result or result.error_message for result in await p.gather()]

    async def main() -> None:
        async with world.again():
            assert await work(["good", "bad"]) == ["good", "ConnectionError: bad is down"]
        world.forget()
        async with world.again(retry_failed=False):
            assert await work(["bad", "new"]) == ["ConnectionError: bad is down", "new"]
        assert world.begun == ["new"]

    run_virtually(main)


@pytest.mark.parametrize("source", ["map", "async map"])
def test_what_a_stream_gave_before_a_failure_it_gives_again_though_the_ending_was_not_recorded(
    world: World, source: str
) -> None:
    """The process dies when the program has got the failure that ends its group, and the ending is not on disk yet."""
    fetch = world.make_fetch()
    world.seconds = {"bad": 3.0, "slow": 100}
    world.down = ["bad"]
    given: list[Any] = []

    async def slowly(items: list[str]) -> AsyncIterator[str]:
        for item in items:
            await asyncio.sleep(0.5)
            yield item

    async def work() -> Any:
        given.clear()
        items = ["bad", "slow", "good"]
        async with parallel(error_strategy="fail_fast", name="pages") as p:
            p.map(fetch, items if source == "map" else slowly(items))
            async for result in p.stream():
                given.append(result.result or result.error_message)  # noqa: PERF401 - until it raises

    async def main() -> None:
        async with world.again():
            first = await ending_of(work), list(given)
        assert first[1] == ["good", "ConnectionError: bad is down"]
        store = world.store
        assert isinstance(store, KeepingStore)
        failed = next(count for count, (event, _) in enumerate(store.entries, 1) if event.message is not None)
        for count in (failed, failed + 1):
            world.store = await store.after_the_first(count)
            world.forget()
            for _ in range(2):
                with pytest.raises(Crash):
                    async with world.again():
                        assert (await ending_of(work), given) == first
                        raise Crash
            assert world.begun == []

    run_virtually(main)


def test_a_result_that_is_read_again_is_given_also_if_that_takes_longer_than_the_program_waits(world: World) -> None:
    fetch = world.make_fetch()

    world.store = SlowlyRead()

    async def main() -> None:
        for _ in range(2):
            async with world.again(), asyncio.timeout(3):
                assert await fetch("a") == "a"
        assert world.calls == ["a"]

    run_virtually(main)


def test_a_timeout_that_cuts_nothing_off_is_none(world: World) -> None:
    """All members are done when the time is up, and the outcome of the last one is on its way to the store."""
    world.store = CommittingStore()
    fetch = world.make_fetch()
    world.seconds = {"on its way": 3.5}

    async def work() -> Any:
        async with parallel(timeout=4.0, name="pages") as p:
            p.map(fetch, ["a", "on its way"])
            return [result.result for result in await p.gather()]

    async def main() -> None:
        for _ in range(2):
            async with world.again(retry_failed=False):
                assert await ending_of(work) == ["a", "on its way"]
        assert world.calls == ["a", "on its way"]

    run_virtually(main)


def test_a_crawler_is_given_what_was_on_its_way_to_the_store_before_it_is_told_of_the_failure(world: World) -> None:
    """It gets the failure that ends its group, and adds more, before the outcome of the other one is recorded."""
    world.store = CommittingStore()
    fetch = world.make_fetch()
    world.seconds = {"bad": 2.0, "worse": 2.5}
    world.down = ["bad", "worse"]
    given: list[str | None] = []

    async def work() -> Any:
        given.clear()
        async with parallel(error_strategy="fail_fast", name="pages") as p:
            p.map(fetch, ["bad", "worse"])
            async for result in p.stream():
                given.append(result.error_message)
                p.add(fetch(f"after {result.index}"))

    async def main() -> None:
        async with world.again():
            first = await ending_of(work), list(given)
        assert first[0][:2] == (ConnectionError, "bad is down")
        assert first[1] == ["ConnectionError: bad is down", "ConnectionError: worse is down"]
        world.forget()
        async with world.again(retry_failed=False):
            assert (await ending_of(work), given) == first
        assert world.begun == []

    run_virtually(main)


@pytest.mark.parametrize("how", ["cancel", "timeout", "fail_fast", "fail_after", "left"])
def test_a_member_whose_outcome_is_on_its_way_to_the_store_is_waited_for(world: World, how: str) -> None:
    """It will be found there when the run is executed again, so the program must not be told that it was cancelled."""
    world.store = CommittingStore()
    fetch = world.make_fetch()
    world.seconds = {"slow": 100, "on its way": 3.5 if how in ("cancel", "timeout") else 2.0}
    world.down = ["bad"] if how.startswith("fail") else []
    options: dict[str, Any] = {"error_strategy": "fail_fast"} if how == "fail_fast" else {}
    options |= {"timeout": 4.0} if how == "timeout" else {}
    options |= {"fail_after": 1} if how == "fail_after" else {}

    async def work() -> Any:
        async with parallel(max_workers=9, name="pages", **options) as p:
            p.map(fetch, ["slow", "on its way", "bad"])
            if how == "left":
                async for _ in p.stream():
                    return "left"
            if how == "cancel":
                await asyncio.sleep(4)
                p.cancel()
            return [result.result for result in await p.gather()], p.group.completed

    async def main() -> None:
        async with world.again():
            first = await ending_of(work)
        assert "on its way" in await world.values()
        if how == "timeout":
            assert first[1].endswith("2 of 3 members had finished")
            assert first[3] == ["on its way", "bad"]
        world.forget()
        async with world.again(retry_failed=False):
            assert await ending_of(work) == first
        assert world.begun == []

    run_virtually(main)


def test_a_group_that_is_told_to_end_twice_waits_for_what_is_on_its_way(world: World) -> None:
    world.store = CommittingStore()
    fetch = world.make_fetch()

    async def work() -> list[Any]:
        async with parallel(name="pages") as p:
            p.map(fetch, list("ab"))
            await asyncio.sleep(2)
            p.cancel()
            p.cancel()
            return [result.result for result in await p.gather()]

    async def main() -> None:
        async with world.again():
            assert await work() == ["a", "b"]

    run_virtually(main)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_stream_gives_results_in_the_order_in_which_they_are_recorded(world: World, durability: str) -> None:
    """Subscribers and caches come after the outcome, and may take longer for some calls than for others."""
    fetch = world.make_fetch()
    cached = world.make_fetch(cache="run")

    async def look(event: ExecutionEvent[Any]) -> None:
        if event.result == "a" and not event.is_replayed:
            await asyncio.sleep(5)

    async def work() -> list[Any]:
        async with parallel(name="pages") as p:
            p.add(cached("a"))
            p.add(fetch("b"))
            p.add(fetch("c"))
            return [result.result async for result in p.stream()]

    async def main() -> None:
        bus = EventBus()
        bus.subscribe(look)
        async with world.again(event_bus=bus, durability=durability):
            seen = await work()
        recorded = await world.values()
        async with world.again():
            assert await work() == seen
        assert recorded == seen

    run_virtually(main)


def test_a_result_that_is_cached_does_not_change_its_place_in_a_stream(world: World) -> None:
    class CachingStore(KeepingStore):
        async def put_cached(self, entry: Any) -> None:
            await asyncio.sleep(5)
            await super().put_cached(entry)

    world.store = CachingStore()
    fetch, cached = world.make_fetch(), world.make_fetch(cache="store")
    world.seconds = {"b": 2}

    async def work() -> list[Any]:
        async with parallel(name="pages") as p:
            p.add(cached("a"))
            p.add(fetch("b"))
            return [result.result async for result in p.stream()]

    async def main() -> None:
        for _ in range(2):
            async with world.again():
                assert await work() == ["a", "b"]

    run_virtually(main)


# -- what was cut off before it was called ----------------------------------------------------------------------------


class SlowStart(KeepingStore):
    """Takes its time to write that a call with an external effect begins."""

    async def before_waiting(self) -> None:
        await asyncio.sleep(1)


@pytest.mark.parametrize("on_unknown", ["retry", "fail", "ask"])
@pytest.mark.parametrize("waits_for", ["its start", "its subscribers", "a limit", "a budget", "an equal call"])
def test_a_call_that_was_cut_off_before_it_was_called_is_known_never_to_have_been_called(
    world: World, on_unknown: str, waits_for: str
) -> None:
    options: dict[str, Any] = {"effect": "external", "on_unknown": on_unknown}
    if waits_for == "its start":
        world.store = SlowStart()
    if waits_for == "a limit":
        options["limits"] = ConcurrencyLimit(1)
    if waits_for == "an equal call":
        options = {"cache": "run", "on_unknown": on_unknown}
    pay = world.make_fetch(**options)
    if waits_for == "a budget":

        class Priced(Tool):
            def estimate_input(self, input_data: object) -> Usage:
                return Usage(10)

        pay = ExecutionEvent(actor=Priced(name="fetch", handler=world.do, **options))
    world.seconds = {"slow": 100, "pay": 100}
    budget = Budget(tokens=15) if waits_for == "a budget" else None
    is_quick = False

    async def look(event: ExecutionEvent[Any]) -> None:
        if waits_for == "its subscribers" and event.execution_status is ExecutionStatus.STARTED:
            await asyncio.sleep(0.0 if is_quick else 3.0)

    async def work() -> Any:
        async with parallel(timeout=0.5, name="orders", budget=budget) as p:
            if waits_for not in ("its start", "its subscribers"):
                p.add(pay("pay" if waits_for == "an equal call" else "slow"))
            p.add(pay("pay"), key="pay")
            return [result.result for result in await p.gather()]

    def again(**how: Any) -> ExecutionState:
        state = world.again(**how)
        state.event_bus.subscribe(look)
        return state

    async def main() -> None:
        nonlocal is_quick
        async with again():
            assert (await ending_of(work))[0] is GroupTimeout
        assert len(world.begun) == (waits_for not in ("its start", "its subscribers"))
        told = [outcome async for outcome in world.store.outcomes(RUN)]
        never = [outcome for outcome in told if "never called" in str(outcome.error)]
        assert [(type(outcome.error), outcome.attempts) for outcome in never] == [(CallCancelled, 0)]
        world.forget()
        for _ in range(2):
            async with again(retry_failed=False):
                assert (await ending_of(work))[0] is GroupTimeout
        assert world.begun == []

    run_virtually(main)


def test_a_shutdown_before_a_call_is_called_records_nothing(world: World) -> None:
    world.store = SlowStart()
    pay = world.make_fetch(effect="external", on_unknown="retry")

    async def work() -> None:
        async with world.again(), parallel() as p:
            p.add(pay("a"))
            await p.gather()

    async def main() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.wait([task], timeout=0.5)
        task.cancel()
        await asyncio.wait([task])
        assert world.begun == []
        assert await world.values() == []
        async with world.again():
            await pay("a")

    run_virtually(main)


# -- an external effect that was cut off ------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["a failure beside it", "an error in the block", "a timeout", "left"])
@pytest.mark.parametrize("on_unknown", ["fail", "retry"])
def test_an_external_call_that_was_cut_off_is_not_made_again_in_silence_by_the_next_attempt(
    world: World, why: str, on_unknown: str
) -> None:
    pay = world.make_fetch(effect="external", on_unknown=on_unknown)
    world.seconds = {"pay": 5}
    attempts = 0
    paid: list[Any] = []

    @tool
    async def check() -> None:
        await asyncio.sleep(1)
        if attempts == 1:
            raise ConnectionError("not yet")

    @agent(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=False))
    async def order() -> None:
        nonlocal attempts
        attempts += 1
        strategy = "fail_fast" if why == "a failure beside it" and attempts == 1 else "fail_slow"
        limit = 2 if why == "a timeout" and attempts == 1 else None
        async with parallel(error_strategy=strategy, timeout=limit, name="order") as p:
            p.add(pay("pay"))
            p.add(check())
            if why == "left" and attempts == 1:
                async for _ in p.stream():
                    break
            elif why == "an error in the block" and attempts == 1:
                await asyncio.sleep(1)
                raise ConnectionError("not yet")
            else:
                paid.extend(type(result.error) if result.error else result.result for result in await p.gather())
        if attempts == 1:
            raise ConnectionError("not yet")

    async def main() -> None:
        async with world.again():
            await order()
        assert world.begun == ["pay"] * (2 if on_unknown == "retry" else 1)
        assert paid == [UnknownOutcomeError if on_unknown == "fail" else "pay", None]

    run_virtually(main)
