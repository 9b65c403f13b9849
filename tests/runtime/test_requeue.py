"""Groups with `requeue=True`: a failure that their stream has given is followed by a further result."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import pytest

from rh_agents import (
    ErrorStrategy,
    ExecutionResult,
    ExecutionState,
    MemoryStore,
    ReplayMode,
    agent,
    parallel,
    tool,
)
from rh_agents.core.errors import ControlRefused, DefinitionError, GroupTimeout, TooManyFailures
from rh_agents.core.parallel import ParallelExecutionManager, ParallelGroupTracker
from rh_agents.core.plan import Fate
from rh_agents.core.ports.control import ControlResult
from rh_agents.core.values import decode, encode
from tests.properties.virtual import run_virtually
from tests.runtime.steering_kit import control, controls, later, planned
from tests.runtime.worlds import RUN, Crash, KeepingStore, World, crash


@pytest.fixture
def world() -> World:
    return World()


def told(result: ExecutionResult[Any]) -> str:
    """`+` is a value and `-` a failure, `!` a further result."""
    return f"{'+' if result.ok else '-'}{result.name}{'!' * result.requeued}"


def group(**options: Any) -> ParallelExecutionManager:
    return parallel(**{"name": "pages", "requeue": True, **options})


async def stream(fetch: Any, items: Sequence[str], *, ordered: bool = False, **options: Any) -> list[str]:
    async with group(**options) as p:
        p.map(fetch, items, name=str)
        return [told(result) async for result in p.stream(ordered=ordered)]


def mending(world: World, *items: str, failed: bool = False) -> Callable[[], Coroutine[Any, Any, ControlResult]]:
    """Mend what is wrong with these, or with all, and ask for them."""

    async def mend() -> ControlResult:
        world.down = [each for each in world.down if items and each not in items]
        return await control(world).requeue(items, failed=failed)

    return mend


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
def test_a_stream_gives_a_further_result_of_a_failure_that_the_program_has(world: World, ordered: bool) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"slow": 10}
    expected = ["-a", "+b", "+a!", "+slow"] if not ordered else ["-a", "+b", "+slow", "+a!"]

    async def main() -> None:
        async with world.again():
            asked = later(2, mending(world, "a"))
            async with group() as p:
                p.map(fetch, ["a", "b", "slow"], name=str)
                results = [result async for result in p.stream(ordered=ordered)]
                counts = p.group
            (answer,) = await asked
        assert list(map(told, results)) == expected
        assert {result.index for result in results} == {0, 1, 2}
        assert (answer.text, answer.now, answer.later) == ("1 now, 0 at the next start", 1, 0)
        assert (counts.completed, counts.failed, counts.started, counts.total) == (3, 0, 3, 3), "it counts once"
        (event,) = await controls(world.store)
        assert (event["now"], event["later"], len(event["live"])) == ([], [], 1)

    run_virtually(main)


@pytest.mark.parametrize("ordered", [False, True])
def test_wherever_the_process_dies_the_stream_begins_again_as_it_was(world: World, ordered: bool) -> None:
    """With a failure that is made again twice, and one that another request replaces before it has been given."""
    fetch = world.make_fetch()
    world.seconds = {"c": 3, "slow": 20, "slower": 30}
    items = ["a", "b", "c", "slow", "slower"]
    given: list[tuple[int, str]] = []

    async def program(seen: list[tuple[int, str]]) -> None:
        async with group() as p:
            p.map(fetch, items, name=str)
            async for result in p.stream(ordered=ordered):
                seen.append((len(store.entries), told(result)))
                if told(result) == "-a!":
                    await asyncio.sleep(4)  # busy: what comes to an end meanwhile has not been given

    async def record() -> None:
        world.down = ["a", "c"]
        async with world.again():
            asked = [
                later(1.5, lambda: control(world).requeue(["a"])),
                later(4, lambda: control(world).requeue(["c"])),
                later(12, mending(world, failed=True)),
            ]
            await program(given)
            answers = [answer for each in asked for answer in await each]
        assert [answer.calls for answer in answers] == [1, 1, 2]

    store = whole = cast(KeepingStore, world.store)
    run_virtually(record)
    # In order, the second failure of `a` would come last: it is replaced before that.
    assert sorted(what for _, what in given if "a" in what) == (["+a!", "-a"] if ordered else ["+a!", "-a", "-a!"])
    for length in range(1, len(whole.entries) + 1):

        async def resume(length: int = length) -> None:
            nonlocal store
            left = store = world.store = await whole.after_the_first(length)
            world.down = ["c"]
            before = [what for place, what in given if place <= length]
            done = {o.key for o in [o async for o in left.outcomes(RUN)] if o.error is None}
            again: list[tuple[int, str]] = []
            once_more: list[tuple[int, str]] = []
            await crash(world.again(), lambda: program(again))
            assert [what for _, what in again][: len(before)] == before, (length, again)
            assert done <= {o.key for o in [o async for o in left.outcomes(RUN)]}
            world.forget()
            await crash(world.again(), lambda: program(once_more))
            assert [what for _, what in once_more] == [what for _, what in again], length
            assert world.forget() == [], "all of it is recorded"

        run_virtually(resume)


def test_what_was_asked_before_the_stream_has_ended_is_made_and_what_comes_later_is_for_the_next_start(
    world: World,
) -> None:
    """Also if the owner has not been told of it."""
    fetch = world.make_fetch()
    world.down, world.seconds = ["a", "b"], {"slow": 5}

    async def main() -> None:
        async with world.again() as state:
            journal: Any = state.journal
            journal.when_asked(lambda: None)
            asked = later(3, mending(world, "a"))
            assert await stream(fetch, ["a", "b", "slow"]) == ["-a", "-b", "+slow", "+a!"]
            assert (await asked)[0].text == "1 now, 0 at the next start"
            journal.when_asked(state.parts.steering.hear)
            answer = await mending(world, "b")()
            assert (answer.text, answer.later) == ("0 now, 1 at the next start", 1)
        world.forget()
        async with world.again(retry_failed=False):
            assert await stream(fetch, ["a", "b", "slow"]) == ["+slow", "+a", "+b"]
        assert world.forget() == ["b"]

    run_virtually(main)


def test_a_later_start_gives_only_the_newest_result(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"slow": 5}

    async def main() -> None:
        async with world.again():
            later(2, mending(world, "a"))
            assert await stream(fetch, ["a", "slow"]) == ["-a", "+a!", "+slow"]
        world.forget()
        for options in ({}, {"retry_failed": False}):
            async with world.again(**options):
                assert await stream(fetch, ["a", "slow"]) == ["+a", "+slow"]
        assert world.forget() == []

    run_virtually(main)


def test_a_failure_of_before_a_crash_can_be_made_again_before_and_after_it_is_given_again(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a", "b"], {"slow": 5}

    async def main() -> None:
        async def work() -> None:
            async with group() as p:
                p.map(fetch, ["a", "b", "slow"], name=str)
                results = p.stream()
                assert [told(await anext(results)), told(await anext(results))] == ["-a", "-b"]
                raise Crash

        await crash(world.again(), work)
        world.forget()
        async with world.again(), group() as p:
            p.map(fetch, ["a", "b", "slow"], name=str)
            results = p.stream()
            found = [told(await anext(results))]
            asked = later(0.5, mending(world, failed=True))
            await asyncio.sleep(1)
            assert (await asked)[0].text == "2 now, 0 at the next start"
            found += [told(result) async for result in results]
            assert found == ["-a", "-b", "+a!", "+b!", "+slow"]
            assert (p.group.completed, p.group.failed, p.group.recovered) == (3, 0, 0)
        assert sorted(world.forget()) == ["a", "b", "slow"]

    run_virtually(main)


def test_what_comes_after_a_failure_of_before_comes_in_its_own_order(world: World) -> None:
    """The place of the failure among what is completed is not that of the further result."""
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"b": 3}

    async def main() -> None:
        async def work() -> None:
            async with group() as p:
                p.map(fetch, ["a", "b"], name=str)
                assert told(await anext(p.stream())) == "-a"
                raise Crash

        await crash(world.again(), work)
        world.seconds["a"] = 4
        async with world.again(), group() as p:
            p.map(fetch, ["a", "b"], name=str)
            results = p.stream()
            assert told(await anext(results)) == "-a"
            await mending(world, "a")()
            await asyncio.sleep(6)
            assert [told(result) async for result in results] == ["+b", "+a!"]

    run_virtually(main)


def test_a_group_that_does_not_take_requests_leaves_them_for_the_next_start(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"slow": 5}

    async def main() -> None:
        async with world.again():
            asked = later(2, mending(world, "a"))
            assert await stream(fetch, ["a", "slow"], requeue=False) == ["-a", "+slow"]
            assert (await asked)[0].text == "0 now, 1 at the next start"
        assert "live" not in (await controls(world.store))[0]

    run_virtually(main)


def test_what_is_asked_for_already_is_not_asked_for_twice(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"slow": 10}

    async def main() -> None:
        async with world.again():
            world.seconds["a"] = 3
            asked = later(4, mending(world, "a"))
            again = later(5, lambda: refused(mending(world, "a")))
            assert await stream(fetch, ["a", "slow"]) == ["-a", "+a!", "+slow"]
            assert (await asked)[0].now == 1
            assert "nothing is left to be made again" in (await again)[0]

    run_virtually(main)


async def refused(ask: Callable[[], Coroutine[Any, Any, Any]]) -> str:
    with pytest.raises(ControlRefused) as caught:
        await ask()
    return str(caught.value)


def test_a_crawler_that_adds_members_gets_the_same_story_again(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"slow": 10, "more": 4}
    store: Any = world.store

    async def program() -> list[str]:
        async with group() as p:
            for name in ("a", "slow"):
                p.add(fetch(name), name=name)
            found = []
            async for result in p.stream():
                found.append(told(result))
                if result.requeued:
                    p.add(fetch("more"), name="more")
            return found

    async def main() -> None:
        async with world.again():
            later(2, mending(world, "a"))
            assert await program() == ["-a", "+a!", "+more", "+slow"]
        for length in range(len(store.entries)):
            world.store = await store.after_the_first(length + 1)
            world.down = ["a"]
            async with world.again():
                found = await program()
            is_asked = any("live" in each for each in await controls(world.store))
            assert found == (["-a", "+a!", "+more", "+slow"] if is_asked and "a" not in world.down else found)
            assert found[0] == "-a"

    run_virtually(main)


def test_further_results_that_wait_for_all_first_ones_keep_no_item_from_being_pulled(world: World) -> None:
    fetch = world.make_fetch()
    items = [str(number) for number in range(60)]
    world.down, world.seconds = items[:40], {"40": 20}

    async def main() -> None:
        async with world.again():
            asked = later(12, mending(world, failed=True))
            found = await stream(fetch, items, ordered=True, max_workers=5)
            assert found == [f"{'-' if each in items[:40] else '+'}{each}" for each in items] + [
                f"+{each}!" for each in items[:40]
            ]
            assert (await asked)[0].now == 40

    run_virtually(main)


# -- gather, and the rest of a group ----------------------------------------------------------------------------------


def test_gather_waits_for_what_is_made_again_and_has_the_newest_results(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a", "b"], {"a": 2, "slow": 5}

    async def main() -> None:
        async with world.again() as state:
            journal: Any = state.journal
            async with group() as p:
                p.map(fetch, ["b", "a", "slow"], name=str)
                assert told(await anext(p.stream())) == "-b"
                journal.when_asked(lambda: None)  # it is found when nothing is left to wait for
                asked = later(3, mending(world, failed=True))
                results = await p.gather()
                assert list(map(told, results)) == ["+b!", "+a", "+slow"]
                assert (await asked)[0].text == "2 now, 0 at the next start"
                assert (await p.gather()) == results
                world.down = ["d"]
                p.add(fetch("d"), name="d")
                assert told((await p.gather())[3]) == "-d"
                journal.when_asked(state.parts.steering.hear)
                assert (await mending(world, "d")()).text == "0 now, 1 at the next start", "gather has given it"

    run_virtually(main)


@pytest.mark.parametrize("dies_first", [False, True])
def test_gather_has_the_newest_result_of_a_failure_that_its_stream_had_still_to_give_again(
    world: World, dies_first: bool
) -> None:
    """Of a failure of before a crash, a stream that will give it again says that another try follows. It is left."""
    fetch = world.make_fetch()
    world.down, world.seconds = ["a", "b"], {"slow": 5}
    items = ["x", "a", "b", "slow"]
    found: list[list[str]] = []

    async def begin(count: int) -> None:
        async with group() as p:
            p.map(fetch, items, name=str)
            results = p.stream()
            assert [told(await anext(results)) for _ in range(count)] == ["+x", "-a", "-b"][:count]
            if count == 1 and not await controls(world.store):
                asked = later(0.5, mending(world, failed=True))
                await asyncio.sleep(1)
                assert (await asked)[0].text == "2 now, 0 at the next start"
                if not dies_first:
                    await gather(p)
            elif count == 1:
                await gather(p)
            raise Crash

    async def gather(p: ParallelExecutionManager) -> None:
        found.append(list(map(told, await p.gather())))
        assert (p.group.completed, p.group.failed) == (4, 0)

    async def main() -> None:
        await crash(world.again(), lambda: begin(3))
        world.forget()
        for _ in range(2 + dies_first):
            await crash(world.again(), lambda: begin(1))
        assert found == [["+a", "+b", "+slow"]] * 2, "none of these has given an earlier result"
        assert sorted(world.forget()) == ["a", "b", "slow"], "no failure is made twice"

    run_virtually(main)


def test_a_failure_counts_for_fail_after_until_it_is_asked_for_again(world: World) -> None:
    fetch = world.make_fetch()
    items = ["a", "b", "c", "d", "slow"]
    world.seconds = {"b": 4, "c": 6, "d": 8, "slow": 20}
    store: Any = world.store

    async def program() -> list[str]:
        async with group(fail_after=3) as p:
            p.map(fetch, items, name=str)
            await asyncio.sleep(0.1)  # when all failures of before are back, none of them has been given
            return [told(result) async for result in p.stream()]

    async def main() -> None:
        world.down = ["a", "b", "c"]
        async with world.again():
            later(2, mending(world, "a"))
            assert await program() == ["-a", "+a!", "-b", "-c", "+d", "+slow"]
        recorded = len(store.entries)
        for length in range(recorded - 3, recorded):
            world.store = await store.after_the_first(length)
            async with world.again():
                assert await program() == ["-a", "+a!", "-b", "-c", "+d", "+slow"], "two are not three"
        world.store, world.down = World().store, ["a", "b", "c", "d"]
        with pytest.raises(TooManyFailures, match="3 of 4 finished"):
            async with world.again():
                later(2, mending(world, "a"))
                await program()
        for options in ({}, {"retry_failed": False}):
            world.forget()
            with pytest.raises(TooManyFailures, match="3 of 4 finished") if options else pytest.raises(TooManyFailures):
                async with world.again(**options):
                    await program()
            assert world.forget() == ([] if options else ["b", "c", "d"])

    run_virtually(main)


def test_a_group_that_ended_early_ends_so_again_with_what_was_asked_for_in_it(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"b": 6, "slow": 20}
    store: Any = world.store
    given: list[tuple[int, str]] = []

    async def program(seen: list[tuple[int, str]]) -> None:
        async with group(fail_after=2) as p:
            p.map(fetch, ["a", "b", "slow"], name=str)
            async for result in p.stream():
                written = len(cast(KeepingStore, world.store).entries)
                seen.append((written, told(result)))

    async def main() -> None:
        world.down = ["a", "b"]
        with pytest.raises(TooManyFailures):
            async with world.again():
                later(1.5, lambda: control(world).requeue(["a"]))
                await program(given)
        assert [what for _, what in given] == ["-a", "-a!", "-b"]
        for length in range(1, len(store.entries)):
            world.store = await store.after_the_first(length)
            again: list[tuple[int, str]] = []
            with pytest.raises(TooManyFailures):
                async with world.again():
                    await program(again)
            before = [what for place, what in given if place <= length]
            assert [what for _, what in again][: len(before)] == before

    run_virtually(main)


def test_a_group_whose_time_is_over_makes_nothing_again(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["a", "b"]

    async def main() -> None:
        async with world.again():
            async with group(timeout=5) as p:
                p.map(fetch, ["a", "b"], name=str)
                results = p.stream()
                assert [told(await anext(results)), told(await anext(results))] == ["-a", "-b"]
                await asyncio.sleep(1)
                assert (await mending(world, "a")()).now == 1
                assert told(await anext(results)) == "+a!"
                await asyncio.sleep(5)
                assert (await mending(world, "b")()).text == "0 now, 1 at the next start"
                assert [result async for result in results] == []
            with pytest.raises(GroupTimeout):
                async with parallel(name="others", requeue=True, timeout=5) as p:
                    world.down, world.seconds = ["c"], {"c": 4}
                    p.map(fetch, ["c"], name=str)
                    results = p.stream()
                    assert told(await anext(results)) == "-c"
                    assert (await control(world).requeue(["c"])).now == 1
                    await anext(results)

    run_virtually(main)


def test_a_paused_run_takes_the_request_and_begins_the_call_when_it_goes_on(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"slow": 3}

    async def main() -> None:
        async with world.again():

            async def steps() -> None:
                await control(world).pause()
                assert (await mending(world, "a")()).now == 1
                await asyncio.sleep(50)
                assert world.calls == ["a", "slow"]
                await control(world).unpause()

            asked = later(2, steps)
            assert await stream(fetch, ["a", "slow"]) == ["-a", "+slow", "+a!"]
            await asked

    run_virtually(main)


def test_a_cancelled_item_is_made_again_only_if_it_is_named(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"x": 50, "slow": 10}

    async def main() -> None:
        async with world.again():

            async def steps() -> None:
                await control(world).cancel(["x"])
                world.seconds["x"] = 1
                assert (await mending(world, failed=True)()).calls == 1
                await asyncio.sleep(2)
                assert (await control(world).requeue(["x"])).now == 1

            asked = later(2, steps)
            found = await stream(fetch, ["a", "x", "slow"], error_strategy=ErrorStrategy.FAIL_SLOW)
            assert found == ["-a", "-x", "+a!", "+x!", "+slow"]
            await asked

    run_virtually(main)


def test_a_call_that_is_made_again_may_be_cancelled_before_its_turn(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"slow": 10}

    async def main() -> None:
        async with world.again():

            async def change_mind() -> None:
                await control(world).requeue(["a"])
                await control(world).cancel(["a"], author="ann")

            asked = later(2, change_mind)
            async with group(max_workers=1) as p:
                p.map(fetch, ["a", "slow"], name=str)
                results = [result async for result in p.stream()]
            assert list(map(told, results)) == ["-a", "+slow", "-a!"]
            assert results[2].error_message == "CallCancelled: a was cancelled by ann"
            await asked

    run_virtually(main)


def test_members_of_a_nested_group_and_those_around_them_are_made_again(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"slow": 5, "s": 20}
    streams: list[list[str]] = []

    @agent
    async def survey(name: str) -> str:
        world.begun.append(name)
        async with parallel(name="inner", requeue=True) as p:
            p.map(fetch, ["a", "slow"] if name == "one" else ["s"], name=str)
            streams.append([told(result) async for result in p.stream()])
        if name == "one" and len(streams) == 1:
            raise ValueError("and yet")
        return name

    async def main() -> None:
        async with world.again():
            asked = later(2, mending(world, "a"), lambda: asyncio.sleep(4), mending(world, "one"))
            assert await stream(survey, ["one", "two"]) == ["-one", "+one!", "+two"]
            assert [answer.text for answer in await asked if answer] == ["1 now, 0 at the next start"] * 2
        assert streams == [["-a", "+a!", "+slow"], ["+a", "+slow"], ["+s"]]

    run_virtually(main)


# -- what else sees a run ---------------------------------------------------------------------------------------------


def test_a_validation_compares_the_newest_result_and_subscribers_get_every_event_again(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"slow": 5}
    events: list[Any] = []

    async def main() -> None:
        async with world.again():
            later(2, mending(world, "a"))
            assert await stream(fetch, ["a", "slow"]) == ["-a", "+a!", "+slow"]
        world.forget()
        async with world.again(replay_mode=ReplayMode.VALIDATION) as state:
            assert await stream(fetch, ["a", "slow"]) == ["-a", "+a!", "+slow"]
        assert (state.differences, world.forget()) == ([], ["a", "slow"])
        async with world.again(replay_mode=ReplayMode.REPUBLISH_ALL) as state:
            state.event_bus.subscribe(events.append)
            assert await stream(fetch, ["a", "slow"]) == ["+a", "+slow"]
        assert world.forget() == []

    run_virtually(main)


def test_a_plan_has_an_item_once_as_its_newest_try(world: World) -> None:
    fetch = world.make_fetch()
    store: Any = world.store
    world.down, world.seconds = ["a"], {"a": 3, "slow": 20}

    async def main() -> None:
        async with world.again():
            later(4, mending(world, "a"))
            assert await stream(fetch, ["a", "slow"]) == ["-a", "+a!", "+slow"]
        fates = set()
        for length in range(1, len(store.entries)):
            left = await store.after_the_first(length)
            if any("live" in each for each in await controls(left)):
                plan = await planned(left)
                fates.add(plan["pages[0]::a"])
        assert fates == {Fate.SUPERSEDED, Fate.UNKNOWN, Fate.REUSED}

    run_virtually(main)


def test_those_who_count_events_count_an_item_once(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a", "x"], {"slow": 10}
    tracker = ParallelGroupTracker(group_id="")
    seen: list[tuple[int, int, int, int]] = []

    async def main() -> None:
        async def listen(event: Any) -> None:
            if event.group_id is not None:
                tracker.apply(event, asyncio.get_running_loop().time())
                if event.group is None:
                    seen.append((tracker.started, tracker.completed, tracker.failed, tracker.enrolled))

        async with world.again() as state:
            state.event_bus.subscribe(listen)
            later(2, mending(world, "a"))
            await stream(fetch, ["a", "x", "slow"], max_workers=3)
            await state.event_bus.drain()
        assert max(started for started, *_ in seen) == 3
        assert (3, 0, 2, 3) in seen
        assert seen[-1] == (3, 2, 1, 3)

    run_virtually(main)


def test_a_preview_says_how_many_are_made_at_once(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a", "b", "first"], {"slow": 10}

    async def main() -> None:
        async with world.again():
            await stream(fetch, ["first"], name="others")
            asked = later(
                3,
                lambda: control(world).requeue(failed=True, dry_run=True),
                lambda: control(world).requeue(failed=True),
            )
            assert await stream(fetch, ["a", "b", "slow"], max_workers=3) == ["-a", "-b", "-a!", "-b!", "+slow"]
            preview, answer = await asked
            assert preview.text == "requeue monday: 3 calls; 2 now, 1 at the next start"
            assert (preview.now, preview.later) == (answer.now, answer.later) == (2, 1)

    run_virtually(main)


def test_only_groups_that_make_members_again_keep_what_failed_and_only_until_their_stream_has_ended(
    world: World,
) -> None:
    class Load:
        """What a call is given."""

    @tool
    async def fail(number: int, load: Any) -> None:
        raise ConnectionError(number)

    async def kept(requeue: bool) -> tuple[int, int]:
        loads: list[weakref.ref[Load]] = []

        def call(number: int) -> Any:
            load = Load()
            loads.append(weakref.ref(load))
            return fail(number, load).with_options(key=str(number))

        async with parallel(name=f"group {requeue}", requeue=requeue) as p:
            p.map(call, range(50))
            results = p.stream()
            for _ in range(50):
                await anext(results)
            await asyncio.sleep(1)
            gc.collect()
            during = sum(load() is not None for load in loads)
            assert [each async for each in results] == []
            gc.collect()
            return during, sum(load() is not None for load in loads)

    async def main() -> None:
        async with ExecutionState(store=MemoryStore(), run_id=RUN):
            assert await kept(True) == (50, 0)
            during, after = await kept(False)
            assert during <= 5, "those whose task has just ended"
            assert after == 0

    run_virtually(main)


def test_a_bare_coroutine_is_refused_since_it_can_run_only_once(world: World) -> None:
    async def once() -> None: ...

    async def main() -> None:
        async with world.again(), group() as p:
            with pytest.raises(DefinitionError, match=r"makes members again .*requeue=True.* can run only once"):
                p.add(once())
            p.add(once)
            await p.gather()

    run_virtually(main)


def test_results_that_are_not_marked_are_recorded_as_they_always_were(world: World) -> None:
    plain: ExecutionResult[int] = ExecutionResult(result=1)
    assert b"requeued" not in encode(plain)
    marked = plain.model_copy(update={"requeued": True})
    assert decode(encode(marked)).requeued
    assert not decode(encode(plain)).requeued
