"""A group that ended early ends so again, whatever ended it, until somebody asks for another try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from rh_agents import (
    ExecutionState,
    ExecutionStatus,
    GroupTimeout,
    RetryPolicy,
    agent,
    parallel,
    tool,
)
from rh_agents.core.errors import GroupError, RunStopped
from rh_agents.core.groups import EndingCause
from rh_agents.core.plan import Fate, plan_run
from rh_agents.core.runs import fork
from rh_agents.core.types import EventType
from rh_agents.stores.sqlite import SqliteStore
from tests.doubles import request
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import RUN, Crash, KeepingStore, World, crash

ITEMS = ["a", "slow", "b", "c", "d", "e"]
"""With two workers: `a` until 1, `b` until 3, then `c` while the group ends at 3.5; `d` and `e` never begin."""


@dataclass(frozen=True)
class Way:
    """How a group ends early."""

    name: str
    cause: EndingCause
    leaves_after: int = 0
    source: str = "add"


WAYS = [
    Way("cancel", EndingCause.CANCELLED),
    Way("cancel", EndingCause.CANCELLED, source="map"),
    Way("cancel", EndingCause.CANCELLED, source="async map"),
    Way("another task", EndingCause.CANCELLED),
    Way("a member", EndingCause.CANCELLED),
    Way("cancel in stream", EndingCause.CANCELLED, 1),
    Way("timeout", EndingCause.TIMED_OUT),
    Way("timeout", EndingCause.TIMED_OUT, source="map"),
    Way("timeout", EndingCause.TIMED_OUT, source="async map"),
    Way("timeout in stream", EndingCause.TIMED_OUT),
    Way("fail_fast", EndingCause.FAILED_FAST),
    Way("fail_fast", EndingCause.FAILED_FAST, source="map"),
    Way("fail_fast in stream", EndingCause.FAILED_FAST),
    Way("fail_after", EndingCause.FAIL_AFTER),
    Way("left", EndingCause.LEFT, 1),
    Way("left", EndingCause.LEFT, 2, source="map"),
    Way("left", EndingCause.LEFT, 3, source="async map"),
    Way("raised", EndingCause.LEFT),
]
IDS = [f"{way.name}, {way.source}{f', {way.leaves_after}' if way.leaves_after else ''}" for way in WAYS]


def _ways(*quick: int) -> pytest.MarkDecorator:
    params = [pytest.param(way, marks=[] if number in quick else pytest.mark.slow) for number, way in enumerate(WAYS)]
    return pytest.mark.parametrize("way", params, ids=IDS)


every_way = _ways(2, 6, 10, 13, 15, 17)
"""One for each cause; the others take seconds together."""
some_ways = _ways(7, 15)
"""The same with fewer of them, where it is not the cause that matters."""


class Story:
    """A program with a group that ends early, which acts on what it has seen."""

    def __init__(self, world: World, way: Way) -> None:
        self.world = world
        self.way = way
        self.timeout = 3.5
        self.name = "pages"
        self.fetch = world.make_fetch()
        self.told: list[Any] = []
        self.second = 1.0
        """How long a second is."""
        world.seconds = {"slow": 100, "b": 2, "c": 3}
        world.down = ["b"] if way.name.startswith("fail") else []
        self.cancel: Callable[[], None] = lambda: None

        @tool
        async def decide(seen: str) -> str:
            world.begun.append(f"decide {seen}")
            return seen

        @tool(name="fetch")
        async def cancelling(what: str) -> Any:
            value = await world.do(what)
            self.cancel()
            return value

        self.decide = decide
        self.cancelling = cancelling

    def mend(self) -> None:
        """From now on nothing fails, and everything is quick."""
        self.world.down, self.world.seconds = [], {}

    async def __call__(self) -> str:
        self.told = []
        try:
            await self.group()
        except Exception as error:  # noqa: BLE001 - what the program does is under test
            results = [result.result for result in getattr(error, "results", ())]
            self.told.append((type(error).__name__, str(error), results))
        return str(await self.decide(repr(self.told)))

    async def group(self) -> None:
        way, options = self.way, dict[str, Any]()
        if way.name.startswith("timeout"):
            options["timeout"] = self.timeout * self.second
        if way.name.startswith("fail_fast"):
            options["error_strategy"] = "fail_fast"
        if way.name == "fail_after":
            options["fail_after"] = 1
        async with parallel(max_workers=2, name=self.name, **options) as p:
            self.cancel = p.cancel
            self.enrol(p)
            if way.name == "cancel":
                await asyncio.sleep(3.5 * self.second)
                p.cancel()
            elif way.name == "another task":
                asyncio.get_running_loop().call_later(3.5 * self.second, p.cancel)
            elif way.name == "raised":
                await asyncio.sleep(3.5 * self.second)
                raise LookupError("the block has failed")
            if way.leaves_after or "stream" in way.name:
                given = 0
                async for result in p.stream():
                    self.told.append((result.index, result.result, result.error_message))
                    given += 1
                    if given == way.leaves_after and way.name == "left":
                        break
                    if given == way.leaves_after:
                        p.cancel()
                return
            self.told = [(result.index, result.result, result.error_message) for result in await p.gather()]

    def enrol(self, p: Any) -> None:
        async def items() -> AsyncIterator[str]:
            for item in ITEMS:
                yield item

        if self.way.source == "add":
            for item in ITEMS:
                p.add(self.cancelling(item) if self.way.name == "a member" and item == "b" else self.fetch(item))
        else:
            p.map(self.fetch, ITEMS if self.way.source == "map" else items())


def pages(world: World) -> list[Any]:
    """Which members have begun."""
    return [what for what in world.begun if not str(what).startswith("decide")]


async def left_after(store: KeepingStore, count: int) -> World:
    """A world in which the process died after so many writes."""
    world = World()
    world.store = await store.after_the_first(count)
    return world


async def first_execution(world: World, way: Way) -> tuple[KeepingStore, str]:
    """Execute the story, and die right after it; gives what was recorded, and what the program saw."""
    story = Story(world, way)
    await crash(world.again(), story)
    store = world.store
    assert isinstance(store, KeepingStore)
    causes = [event.group.ending.cause for event, _ in store.entries if event.group and event.group.ending]
    assert causes == [way.cause] * 2, "when it ended, and at the end of the block"
    return store, repr(story.told)


@every_way
def test_a_crash_at_any_write_changes_nothing_of_what_the_program_had_acted_on(world: World, way: Way) -> None:
    async def main() -> None:
        store, told = await first_execution(world, way)
        for count in range(len(store.entries) + 1):
            left = await left_after(store, count)
            kinds = [fact.kind for fact, _ in store.entries[:count]]
            finished = [outcome.value async for outcome in left.store.outcomes(RUN) if outcome.error is None]
            story = Story(left, way)
            await crash(left.again(), story)
            assert not set(finished) & set(left.begun)
            if EventType.GROUP_ENDING in kinds:
                assert pages(left) == [], f"after {count} writes"
            if any(event.name == "decide" for event, _ in store.entries[:count]):
                assert repr(story.told) == told, f"after {count} writes"
            again, left.begun = repr(story.told), []
            await crash(left.again(), story)
            assert (repr(story.told), left.begun) == (again, [])

    run_virtually(main)


@every_way
@pytest.mark.parametrize(
    "options",
    [
        {},
        *(
            pytest.param({name: value}, marks=pytest.mark.slow)
            for name, value in (("replay_mode", "republish_all"), ("durability", "async"), ("durability", "exit"))
        ),
    ],
)
def test_an_ended_run_that_repeats_its_failures_repeats_its_early_endings(
    world: World, way: Way, options: dict[str, Any]
) -> None:
    async def main() -> None:
        story = Story(world, way)
        async with world.again(**{name: value for name, value in options.items() if name == "durability"}):
            await story()
        told, world.begun = repr(story.told), []
        story.mend()
        story.timeout = 1000
        for _ in range(2):
            async with world.again(retry_failed=False, **options):
                await story()
            assert (repr(story.told), world.begun) == (told, [])

    run_virtually(main)


@every_way
def test_an_ended_run_that_is_tried_again_makes_what_was_cut_off_and_reuses_the_rest(world: World, way: Way) -> None:
    async def main() -> None:
        story = Story(world, way)
        async with world.again():
            await story()
        reused = [outcome.value async for outcome in world.store.outcomes(RUN) if outcome.error is None]
        world.begun = []
        story.mend()
        async with world.again():
            await story()
        assert not set(reused) & set(pages(world))
        told, begun = repr(story.told), pages(world)
        if way.name.startswith(("timeout", "fail")):
            assert sorted([*reused[:-1], *begun]) == sorted(ITEMS), "now it comes to its end"
            assert "Timeout" not in told
        world.begun = []
        async with world.again(retry_failed=False):
            await story()
        assert (repr(story.told), world.begun) == (told, [])

    run_virtually(main)


@some_ways
def test_a_crash_at_any_write_of_another_try_changes_nothing_of_what_the_program_had_acted_on(
    world: World, way: Way
) -> None:
    async def main() -> None:
        story = Story(world, way)
        async with world.again():
            await story()
        store = world.store
        assert isinstance(store, KeepingStore)
        ended = len(store.entries)
        world.seconds = {"d": 100, "slow": 1.2}
        world.down = []
        await crash(world.again(), story)
        told = repr(story.told)
        for count in range(ended, len(store.entries) + 1):
            left = World()
            left.store = await store.after_its_end(ended, count)
            kinds = [fact.kind for fact, _ in store.entries[ended:count]]
            story = Story(left, way)
            left.seconds, left.down = {"d": 100, "slow": 1.2}, []
            await crash(left.again(), story)
            if EventType.GROUP_ENDING in kinds:
                assert pages(left) == [], f"after {count - ended} writes"
            if any(event.name == "decide" for event, _ in store.entries[ended:count]):
                assert repr(story.told) == told, f"after {count - ended} writes"
            again, left.begun = repr(story.told), []
            await crash(left.again(), story)
            assert (repr(story.told), left.begun) == (again, [])

    run_virtually(main)


# -- other ways to execute it again -----------------------------------------------------------------------------------


@some_ways
def test_a_validation_calls_nothing_that_was_cut_off_or_never_begun_and_finds_no_difference(
    world: World, way: Way
) -> None:
    async def main() -> None:
        story = Story(world, way)
        async with world.again():
            await story()
        told = repr(story.told)
        done = {str(outcome.value) for outcome in [o async for o in world.store.outcomes(RUN)] if outcome.error is None}
        world.begun = []
        state = world.again(replay_mode="validation")
        async with state:
            await story()
        assert [str(difference) for difference in state.differences] == []
        assert {str(page) for page in pages(world)} <= done | {"b"}
        assert repr(story.told) == told

    run_virtually(main)


@some_ways
@pytest.mark.parametrize("status", [ExecutionStatus.STARTED, ExecutionStatus.COMPLETED])
@pytest.mark.parametrize("retry_failed", [True, False])
def test_a_plan_and_the_execution_agree_about_what_is_called(
    world: World, way: Way, status: ExecutionStatus, retry_failed: bool
) -> None:
    async def main() -> None:
        story = Story(world, way)
        await crash(world.again(), story)
        state = world.again()
        await state.open()
        await state.end(status)
        story.mend()
        plan = plan_run(
            await world.info(),
            [outcome.header async for outcome in world.store.unread_outcomes(RUN)],
            [entry async for entry in world.store.events(RUN)],
            retry_failed=retry_failed,
        )
        not_made = (Fate.REUSED, Fate.REPEATED, Fate.NOT_REACHED)
        planned = {ITEMS[int(call.address[6])] for call in plan.calls if call.group_id and call.fate not in not_made}
        world.begun = []
        async with world.again(retry_failed=retry_failed):
            await story()
        is_open = retry_failed and status is ExecutionStatus.COMPLETED
        assert [group.name for group in plan.groups] == ["pages"] * is_open
        if not is_open:
            assert plan.is_idle
            assert (planned, world.begun) == (set(), [])
        elif not way.leaves_after and way.cause is not EndingCause.CANCELLED and way.name != "raised":
            assert planned == set(pages(world)) - {"d", "e"} - ({"c"} if way.name.startswith("fail") else set())

    run_virtually(main)


@some_ways
def test_a_fork_ends_so_again_and_one_that_leaves_a_member_out_makes_it(world: World, way: Way) -> None:
    async def main() -> None:
        story = Story(world, way)
        async with world.again():
            await story()
        told, world.begun = repr(story.told), []
        story.mend()
        await fork(world.store, RUN, "copy")
        async with world.again(run_id="copy"):
            await story()
        assert (repr(story.told), world.begun) == (told, [])
        place, item = (2, "b") if way.name.startswith("fail") else (0, "a")
        reused = [outcome.value async for outcome in world.store.outcomes(RUN) if outcome.error is None]
        await fork(world.store, RUN, "other", address=f"pages[{place}]::fetch")
        async with world.again(run_id="other"):
            await story()
        assert item in pages(world)
        assert not set(reused) - {item} & set(pages(world)), "the others do not depend on it"

    run_virtually(main)


@some_ways
def test_a_member_that_is_to_be_made_again_opens_its_group(world: World, way: Way) -> None:
    async def main() -> None:
        story = Story(world, way)
        await crash(world.again(), story)
        world.begun = []
        story.mend()
        await crash(world.again(resume_from="pages[0]::fetch"), story)
        assert "a" in pages(world)
        if not way.leaves_after and way.name != "raised":
            assert "slow" in pages(world), "what was cut off is made"
        told, world.begun = repr(story.told), []
        await crash(world.again(), story)
        assert (repr(story.told), world.begun) == (told, [])

    run_virtually(main)


@some_ways
def test_a_group_with_other_members_is_another_group(world: World, way: Way) -> None:
    """What was asked for depends on something that is another one now, as after `resume_from` or `reuse=True`."""

    async def main() -> None:
        story = Story(world, way)
        await crash(world.again(), story)
        world.begun = []
        story.mend()
        fetch = story.fetch
        story.fetch = lambda item: fetch(f"other {item}")
        story.cancelling = story.fetch
        await crash(world.again(), story)
        if not way.leaves_after and way.name not in ("raised", "cancel"):
            assert [page for page in pages(world) if page.startswith("other")] == [f"other {item}" for item in ITEMS]

    run_virtually(main)


@some_ways
@pytest.mark.parametrize("grace", [0.0, 30.0])
def test_a_stop_while_a_group_ends_again_changes_nothing(world: World, way: Way, grace: float) -> None:
    async def main() -> None:
        store, told = await first_execution(world, way)
        for moment in range(3):
            left = await left_after(store, len(store.entries))
            story = Story(left, way)
            stopped = left.again()
            with pytest.raises((RunStopped, Crash)):
                async with stopped:
                    for _ in range(moment):
                        await asyncio.sleep(0)
                    stopped.request_interrupt("a deploy", grace=grace)
                    await story()
                    raise Crash
            assert left.begun == []
            await crash(left.again(), story)
            assert (repr(story.told), left.begun) == (told, [])

    run_virtually(main)


@some_ways
def test_a_shutdown_while_a_group_ends_again_changes_nothing(world: World, way: Way) -> None:
    async def main() -> None:
        store, told = await first_execution(world, way)
        for moment in range(4):
            left = await left_after(store, len(store.entries))
            story = Story(left, way)
            task = asyncio.ensure_future(_in_a_run(left.again(), story))
            for _ in range(moment):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert left.begun == []
            await crash(left.again(), story)
            assert (repr(story.told), left.begun) == (told, [])

    run_virtually(main)


async def _in_a_run(state: ExecutionState, work: Callable[[], Any]) -> None:
    """It does not come to its end by itself."""
    async with state:
        await work()
        await asyncio.sleep(1_000_000)


def test_a_group_that_a_shutdown_cut_off_goes_on(world: World) -> None:
    """That is no ending: what was cut off, and what had not begun, is made when the run goes on."""
    fetch = world.make_fetch()

    async def work() -> list[Any]:
        async with parallel(max_workers=1, name="pages") as p:
            p.map(fetch, list("abc"))
            return [result.result for result in await p.gather()]

    async def main() -> None:
        task = asyncio.ensure_future(_in_a_run(world.again(), work))
        await asyncio.sleep(1.5)
        task.cancel()
        await asyncio.wait([task])
        async with world.again():
            assert await work() == ["a", "b", "c"]
        assert world.calls == ["a", "b", "c"]

    run_virtually(main)


def test_a_shutdown_that_the_block_turns_into_an_error_is_no_ending(world: World) -> None:
    fetch = world.make_fetch()

    async def work() -> list[Any]:
        async with parallel(max_workers=1, name="pages") as p:
            p.map(fetch, list("abc"))
            try:
                return [result.result for result in await p.gather()]
            except asyncio.CancelledError as error:
                raise LookupError("it was cancelled") from error

    async def main() -> None:
        task = asyncio.ensure_future(_in_a_run(world.again(), work))
        await asyncio.sleep(1.5)
        task.cancel()
        with pytest.raises(LookupError):
            await task
        assert await world.values() == ["a"]
        async with world.again(retry_failed=False):
            assert await work() == ["a", "b", "c"]

    run_virtually(main)


# -- where groups are -------------------------------------------------------------------------------------------------


def test_another_attempt_of_an_agent_makes_its_group_anew_and_a_crash_goes_on_with_it(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 4}
    attempts: list[int] = []

    @agent(retry=RetryPolicy(max_attempts=3, initial_delay=1, jitter=False))
    async def survey() -> list[Any]:
        attempts.append(1)
        async with parallel(max_workers=2, timeout=[2, 3, 9][len(attempts) - 1], name="pages") as p:
            p.map(fetch, ["a", "slow", "b", "c"])
            return [result.result for result in await p.gather()]

    async def work() -> None:
        await survey()

    async def main() -> None:
        await crash(world.again(), work)
        store = world.store
        assert isinstance(store, KeepingStore)
        assert len(attempts) == 3
        values = set(map(str, await world.values()))
        for count in range(len(store.entries) + 1):
            left = await left_after(store, count)
            retried = [fact for fact, _ in store.entries[:count] if fact.status == "retrying"]
            attempts[:] = [1] * len(retried)
            finished = {outcome.value async for outcome in left.store.outcomes(RUN) if isinstance(outcome.value, str)}
            world.store, world.begun = left.store, []
            await crash(world.again(), work)
            assert len(attempts) == 3 or count == len(store.entries), f"after {count} writes"
            assert not finished & set(world.begun)
            assert values == set(map(str, await world.values()))

    run_virtually(main)


@pytest.mark.parametrize("inner", WAYS[::3], ids=IDS[::3])
def test_a_group_within_a_group_that_ended_early_is_not_entered_again(world: World, inner: Way) -> None:
    """The member is an agent, which has a group of its own that ended early, too, or was cut off in its middle."""
    story = Story(world, inner)

    @agent
    async def survey() -> str:
        return await story()

    async def work() -> Any:
        async with parallel(max_workers=2, timeout=5, name="surveys") as p:
            p.add(survey())
            p.add(story.fetch("slow"))
            p.add(story.fetch("another"))
            try:
                return [result.result for result in await p.gather()]
            except GroupTimeout as error:
                return str(error), [result.result for result in error.results]

    async def main() -> None:
        endings: list[Any] = []

        async def see() -> None:
            endings.append(await work())

        await crash(world.again(), see)
        store = world.store
        assert isinstance(store, KeepingStore)
        ended = [event.name for event, _ in store.entries].index("surveys", 1)
        for count in range(ended + 1, len(store.entries) + 1):
            left = await left_after(store, count)
            world.store, world.begun = left.store, []
            await crash(world.again(), see)
            assert (endings[-1], world.begun) == (endings[0], [])

    run_virtually(main)


def test_work_that_came_too_late_for_the_timeout_comes_too_late_again(world: World) -> None:
    """Nothing was cut off, but what was added after the timeout never began."""
    fetch = world.make_fetch()
    world.seconds = {"long": 20}

    async def work() -> str:
        async with parallel(timeout=10, name="pages") as p:
            p.add(fetch("a"))
            await p.gather()
            await fetch("long")
            p.add(fetch("b"))
            try:
                return str([result.result for result in await p.gather()])
            except GroupTimeout as error:
                return str(error)

    async def main() -> None:
        told: list[str] = []

        async def see() -> None:
            told.append(await work())

        for _ in range(3):
            await crash(world.again(), see)
        assert told == ["group 'pages' took longer than its timeout of 10 s: 1 of 2 members had finished"] * 3
        assert world.calls == ["a", "long"]

    run_virtually(main)


@pytest.mark.parametrize("source", ["add", "map", "async map"])
def test_what_the_block_did_between_the_timeout_and_being_told_of_it_it_does_again(world: World, source: str) -> None:
    """The time was up while the block did something else: before its source had given anything, or between two adds."""
    fetch = world.make_fetch()
    world.seconds = {"slow": 100, "inside": 5}

    async def slowly() -> AsyncIterator[str]:
        await asyncio.sleep(50)
        yield "never"

    async def work() -> list[str]:
        told = []
        try:
            async with parallel(timeout=3, name="pages") as p:
                if source == "add":
                    p.add(fetch("slow"))
                else:
                    p.map(fetch, ["slow"] if source == "map" else slowly())
                told.append(await fetch("inside"))
                p.add(fetch("late"))
                told.append(await fetch("more"))
                await p.gather()
        except GroupTimeout as error:
            told.append(str(error))
        return told

    async def main() -> None:
        told: list[list[str]] = []

        async def see() -> None:
            told.append(await work())

        await crash(world.again(), see)
        store = world.store
        assert isinstance(store, KeepingStore)
        assert told[0][:2] == ["inside", "more"]
        assert "late" not in world.calls
        for count in range(len(store.entries) + 1):
            left = await left_after(store, count)
            left.seconds = world.seconds
            world.store = left.store
            await crash(world.again(), see)
            assert told[-1] == told[0], f"after {count} writes"
            assert "late" not in world.calls

    run_virtually(main)


def test_a_failure_that_another_try_did_not_come_to_is_not_given_as_it_was_before(world: World) -> None:
    """`b` has failed in the first execution. The second one ends before it is made again; so does what repeats that."""
    fetch = world.make_fetch()
    world.down = ["b"]

    async def work() -> list[str | None]:
        async with parallel(max_workers=1, name="pages") as p:
            for what in ["a", "c", "b"] if world.down else ["a", "d", "c", "b"]:
                p.add(fetch(what))
            await asyncio.sleep(9.5)
            p.cancel()
            return [result.result or result.error_message for result in await p.gather()]

    async def main() -> None:
        told: list[Any] = []

        async def see() -> None:
            told.append(await work())

        async with world.again():
            await see()
        assert told == [["a", "c", "ConnectionError: b is down"]]
        world.down, world.seconds = [], {"d": 100.0}
        await crash(world.again(), see)
        assert told.pop() == ["a", "c"]
        for retry_failed in (True, False):
            await crash(world.again(retry_failed=retry_failed), see)
            assert told.pop() == ["a", "c"]
        async with world.again():
            await see()
        for _ in range(2):
            async with world.again(retry_failed=False):
                await see()
            assert told.pop() == ["a", "c"]
        assert world.forget() == ["a", "c", "b"]

    run_virtually(main)


def test_a_failure_that_was_repeated_when_a_group_ended_early_is_repeated_again(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["b"]
    is_changed = False

    async def work() -> list[str | None]:
        async with parallel(name="pages") as p:
            p.map(fetch, ["a", "b", "slow"] if is_changed else ["a", "b"])
            if is_changed:
                await asyncio.sleep(5)
                p.cancel()
            return [result.result or result.error_message for result in await p.gather()]

    async def main() -> None:
        nonlocal is_changed
        async with world.again():
            await work()
        is_changed = True
        world.seconds = {"slow": 100.0}
        for _ in range(3):
            async with world.again(retry_failed=False):
                assert await work() == ["a", "ConnectionError: b is down"]

    run_virtually(main)


def test_what_ended_a_group_first_is_what_the_program_is_told(world: World) -> None:
    """Its timeout passes while what `cancel` cut off cleans up: that is not another ending."""

    @tool
    async def untidy() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(20)

    async def work() -> list[Any]:
        async with parallel(timeout=10, name="pages") as p:
            p.add(untidy())
            p.add(world.make_fetch()("a"))
            await asyncio.sleep(5)
            p.cancel()
            return [result.result for result in await p.gather()]

    async def main() -> None:
        for _ in range(2):
            told: list[Any] = []

            async def see(told: list[Any] = told) -> None:
                told.extend(await work())

            await crash(world.again(), see)
            assert told == ["a"]
        assert world.calls == ["a"]

    run_virtually(main)


def test_a_program_that_waits_for_a_group_that_it_had_left_by_an_error_is_told_so(world: World) -> None:
    fetch = world.make_fetch()
    is_mended = False

    async def work() -> list[Any]:
        async with parallel(max_workers=1, name="pages") as p:
            p.map(fetch, list("abc"))
            await asyncio.sleep(1.5)
            if not is_mended:
                raise LookupError("a bug")
            return [result.result for result in await p.gather()]

    async def main() -> None:
        nonlocal is_mended
        with pytest.raises(LookupError):
            async with world.again():
                await work()
        is_mended = True
        world.forget()
        with pytest.raises(GroupError, match="group 'pages' was left by LookupError: a bug in an earlier execution"):
            async with world.again(retry_failed=False):
                await work()
        assert world.begun == []
        async with world.again():
            assert await work() == ["a", "b", "c"]
        assert world.begun == ["b", "c"]

    run_virtually(main)


# -- journals ---------------------------------------------------------------------------------------------------------


@some_ways
def test_an_ending_is_recorded_in_a_database_as_in_memory(world: World, way: Way, tmp_path: Any) -> None:
    async def main() -> None:
        path = str(tmp_path / "runs.db")
        world.store = SqliteStore(path)  # type: ignore[assignment]
        story = Story(world, way)
        story.second = 0.1
        world.seconds = {"a": 0.1, "slow": 10, "b": 0.2, "c": 0.3}
        await crash(world.again(), story)
        await world.store.aclose()
        told, world.begun = repr(story.told), []
        for _ in range(2):
            world.store = SqliteStore(path)  # type: ignore[assignment]
            await crash(world.again(), story)
            await world.store.aclose()
            assert (repr(story.told), world.begun) == (told, [])

    asyncio.run(main())


@every_way
@pytest.mark.parametrize("retry_failed", [True, False])
def test_a_journal_without_causes_ends_its_groups_so_again(world: World, way: Way, retry_failed: bool) -> None:
    """As versions wrote it that recorded only how a group stood in the end."""

    async def main() -> None:
        store, told = await first_execution(world, way)
        old = KeepingStore()
        journal = await old.open_run(request(RUN))
        for fact, outcome in store.entries:
            if fact.kind is EventType.GROUP_ENDING:
                continue
            if fact.group is not None:
                fact = fact.with_more(group=fact.group.model_copy(update={"ending": None}))
            journal.note(fact, outcome)
        await journal.close(ExecutionStatus.STARTED if retry_failed else ExecutionStatus.COMPLETED)
        world.store, world.begun = old, []
        story = Story(world, way)
        for _ in range(2):
            await crash(world.again(retry_failed=retry_failed), story)
            assert (repr(story.told), world.begun) == (told, [])

    run_virtually(main)


@pytest.fixture
def world() -> World:
    return World()
