"""A run that is started again: what is recorded counts, nothing is guessed, and nothing is paid for twice."""

import asyncio
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any

import detangle
import pytest

from rh_agents import (
    Call,
    ExecutionEvent,
    ExecutionResult,
    ExecutionState,
    ExecutionStatus,
    Injected,
    MemoryStore,
    RetryPolicy,
    Tool,
    agent,
    current,
    parallel,
    run,
    tool,
)
from rh_agents.core.errors import (
    DefinitionError,
    RunIsLive,
    StoreError,
    UndefinedOrderError,
    UndefinedOrderWarning,
)
from tests.doubles import HookedStore


class Crash(BaseException):
    """The process dies: nothing that handles exceptions sees to it."""


class World:
    """What the functions of a test have done, and what is wrong with the world."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.down: list[Any] = []
        self.store = MemoryStore()

    def see(self, what: Any) -> Any:
        self.calls.append(what)
        if what in self.down:
            raise ConnectionError(f"{what} is down")
        return what

    def forget(self) -> list[Any]:
        calls, self.calls = self.calls, []
        return calls

    def again(self, **options: Any) -> ExecutionState:
        """The same run, as another process would open it."""
        return ExecutionState(store=self.store, run_id="monday", **options)


@pytest.fixture
def world() -> World:
    return World()


def execute(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return detangle.run(main)


def make_fetch(world: World, **options: Any) -> Any:
    @tool(**options)
    async def fetch(url: Any) -> Any:
        await asyncio.sleep(0.1)
        return world.see(url)

    return fetch


async def crash(state: ExecutionState, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Execute some of a run, then die."""
    with pytest.raises(Crash):
        async with state:
            await work()
            raise Crash


# -- what is recorded is not repeated ---------------------------------------------------------------------------------


def test_after_a_crash_only_what_has_no_outcome_is_called(world: World) -> None:
    fetch = make_fetch(world)

    async def main() -> None:
        async def first_half() -> None:
            assert await fetch("a") == "a"
            assert await fetch(None) is None

        await crash(world.again(), first_half)
        assert world.forget() == ["a", None]
        async with world.again() as state:
            await first_half()
            assert world.calls == []
            assert await fetch("b") == "b"
            result = await fetch("a").outcome()
            assert not result.is_replayed, "a second identical call is another call"
        assert world.calls == ["b", "a"]
        assert state.status is ExecutionStatus.COMPLETED

    execute(main)


def test_what_is_replayed_says_so_and_keeps_its_time_and_attempts(world: World) -> None:
    fetch = make_fetch(world, retry=RetryPolicy(initial_delay=1, jitter=False))
    events: list[ExecutionEvent[Any]] = []

    async def main() -> None:
        async def failing_once() -> ExecutionResult[Any]:
            asyncio.get_running_loop().call_later(0.5, world.down.clear)
            return await fetch("a").outcome()  # type: ignore[no-any-return]

        world.down.append("a")
        before: list[ExecutionResult[Any]] = []

        async def work() -> None:
            before.append(await failing_once())

        await crash(world.again(), work)
        async with world.again() as state:
            state.event_bus.subscribe(events.append)
            result = await fetch("a").outcome()
        assert (result.is_replayed, before[0].is_replayed) == (True, False)
        assert result.model_copy(update={"is_replayed": False}) == before[0]
        assert (result.attempts, result.execution_time) == (2, pytest.approx(1.2))

    execute(main)
    (event,) = events
    assert event.execution_status is ExecutionStatus.RECOVERED
    assert (event.is_replayed, event.from_cache, event.result) == (True, True, "a")


def test_after_a_crash_a_recorded_failure_is_seen_again(world: World) -> None:
    fetch = make_fetch(world)
    world.down.append("a")

    async def main() -> None:
        async def work() -> None:
            with pytest.raises(ConnectionError, match="a is down"):
                await fetch("a")

        await crash(world.again(), work)
        world.down.clear()
        world.forget()
        async with world.again():
            await work()
        assert world.calls == []

    execute(main)


def test_a_run_that_has_ended_gives_its_failed_calls_another_try_and_only_those(world: World) -> None:
    fetch = make_fetch(world)
    world.down.append("b")

    async def main() -> None:
        async def work() -> list[bool]:
            async with parallel(name="pages") as p:
                p.map(fetch, list("abc"))
                return [result.ok for result in await p.gather()]

        async with world.again():
            assert await work() == [True, False, True]
        world.down.clear()
        world.forget()
        async with world.again() as state:
            assert await work() == [True, True, True]
            assert (state.epoch, await state.unused_outcomes()) == (1, [])
        assert world.forget() == ["b"]
        async with world.again():
            assert await work() == [True, True, True]
        assert world.forget() == []

    execute(main)


def test_a_call_that_fails_again_at_every_start_is_tried_once_at_each(world: World) -> None:
    fetch = make_fetch(world)
    world.down.append("a")

    async def main() -> None:
        for _ in range(4):
            async with world.again():
                assert not (await fetch("a").outcome()).ok
            assert world.forget() == ["a"]

    execute(main)


def test_retry_failed_false_repeats_the_failures_of_an_ended_run(world: World) -> None:
    fetch = make_fetch(world)
    world.down.append("a")

    async def main() -> None:
        async with world.again():
            assert not (await fetch("a").outcome()).ok
        world.forget()
        async with world.again(retry_failed=False):
            result = await fetch("a").outcome()
            assert (result.ok, result.is_replayed, result.error_message) == (False, True, "ConnectionError: a is down")
        assert world.calls == []

    execute(main)


def test_a_run_that_failed_goes_on_where_it_failed(world: World) -> None:
    fetch = make_fetch(world)
    world.down.append("b")

    async def flow() -> str:
        return "".join([await fetch(url) for url in "abc"])

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await run(flow, store=world.store, run_id="monday")
        assert world.forget() == ["a", "b"]
        world.down.clear()
        assert await run(flow, store=world.store, run_id="monday") == "abc"
        assert world.forget() == ["b", "c"]

    execute(main)


def test_an_actor_called_through_an_event_is_replayed_like_any_other(world: World) -> None:
    async def handler(data: Any) -> Any:
        return world.see(data)

    seer = Tool(name="see", handler=handler)

    async def main() -> None:
        for _ in range(2):
            async with world.again() as state:
                result = await ExecutionEvent(actor=seer)({"a": 1}, None, state)
                assert result.unwrap() == {"a": 1}
        assert len(world.calls) == 1

    execute(main)


# -- identity ---------------------------------------------------------------------------------------------------------


def test_items_can_be_inserted_removed_and_reordered_without_losing_the_others(world: World) -> None:
    fetch = make_fetch(world)

    async def main() -> None:
        async def survey(urls: str) -> list[str]:
            async with parallel(name="pages") as p:
                for url in urls:
                    p.add(fetch(url))
                return [result.unwrap() for result in await p.gather()]

        async with world.again():
            assert await survey("abca") == ["a", "b", "c", "a"]
        world.forget()
        async with world.again() as state:
            assert await survey("cxaa") == ["c", "x", "a", "a"]
            assert [outcome.value for outcome in await state.unused_outcomes()] == ["b"]
        assert world.calls == ["x"]

    execute(main)


def test_two_chains_side_by_side_never_get_each_others_results(world: World) -> None:
    fetch = make_fetch(world)

    @agent
    async def chain(name: str) -> str:
        first = await fetch({"chain": name, "step": 1})
        return str((await fetch({"chain": first["chain"], "step": 2}))["chain"])

    async def main() -> None:
        for order in ("ab", "ba"):
            async with world.again(), parallel() as p:
                p.map(chain, list(order))
                assert [result.unwrap() for result in await p.gather()] == list(order)
        assert len(world.calls) == 4

    execute(main)


def test_a_new_version_of_an_actor_runs_again_and_the_old_outcome_is_unused(world: World) -> None:
    async def main() -> None:
        async with world.again():
            await make_fetch(world)("a")
        async with world.again() as state:
            await make_fetch(world, version="2")("a")
            assert [outcome.value for outcome in await state.unused_outcomes()] == ["a"]
        assert world.calls == ["a", "a"]

    execute(main)


def test_unused_outcomes_are_told_only_of_earlier_executions(world: World) -> None:
    fetch = make_fetch(world)

    async def main() -> None:
        async with world.again() as state:
            await fetch("a")
            assert await state.unused_outcomes() == []
        async with world.again() as state:
            assert [outcome.address for outcome in await state.unused_outcomes()] == ["fetch"]
            await fetch("a")
            await fetch("b")
            assert await state.unused_outcomes() == []

    execute(main)


def test_what_a_finished_agent_called_is_not_reported_as_unused(world: World) -> None:
    fetch = make_fetch(world)

    @agent
    async def survey() -> list[str]:
        return [await fetch("a"), await fetch("b")]

    async def main() -> None:
        async with world.again():
            await survey()
        async with world.again() as state:
            await survey()
            assert await state.unused_outcomes() == []

    execute(main)


def test_an_explicit_key_stands_for_the_input(world: World) -> None:
    fetch = make_fetch(world)

    async def main() -> None:
        async with world.again():
            await fetch("old name").with_options(key="page 1")
        async with world.again():
            assert await fetch("new name").with_options(key="page 1") == "old name"
            async with parallel() as p:
                p.add(fetch("x"), key="page 1")
                p.map(fetch, list("yz"), key=lambda url: f"page {url}")
                await p.gather()
        async with world.again():
            assert await fetch("new name").with_options(key="page 1") == "old name"
            async with parallel() as p:
                p.add(fetch("other"), key="page 1")
                p.map(fetch, ["y!", "z!"], key=lambda url: f"page {url[0]}")
                assert [result.unwrap() for result in await p.gather()] == ["x", "y", "z"]
        assert world.calls == ["old name", "x", "y", "z"]

    execute(main)


class Client:
    """No data."""


def test_what_is_injected_is_neither_keyed_nor_recorded(world: World) -> None:
    @tool
    async def ask(url: str, client: Annotated[Client, Injected]) -> Any:
        assert isinstance(client, Client)
        return world.see(url)

    async def main() -> None:
        for _ in range(2):
            async with world.again():
                assert await ask("a", Client()) == "a"
        assert world.calls == ["a"]

    execute(main)


def test_an_argument_that_is_no_data_is_refused_in_a_run_that_records_and_taken_in_one_that_does_not() -> None:
    @tool
    async def ask(client: Client) -> str:
        return "answer"

    async def main() -> None:
        with pytest.raises(DefinitionError, match=r"Client is not data.*Injected.*key="):
            await run(lambda: ask(Client()), store=MemoryStore())
        assert await run(lambda: ask(Client())) == "answer"
        assert await run(lambda: ask(Client()).with_options(key="k"), store=MemoryStore()) == "answer"

    execute(main)


def test_an_item_of_a_map_that_is_no_data_fails_alone(world: World) -> None:
    fetch = make_fetch(world)

    async def main() -> None:
        async with world.again(), parallel(max_workers=2) as p:
            p.map(fetch, [1, 2, 3, Client(), 4])
            results = await p.gather()
        assert [result.ok for result in results] == [True, True, True, False, True]
        assert isinstance(results[3].error, DefinitionError)

    execute(main)


@pytest.mark.parametrize("option", ["name", "key"])
def test_an_item_whose_name_or_key_cannot_be_told_fails_alone(world: World, option: str) -> None:
    fetch = make_fetch(world)

    async def main() -> None:
        async with world.again(), parallel(max_workers=2) as p:
            naming: dict[str, Any] = {option: lambda item: item["id"]}
            p.map(fetch, [{"id": "1"}, {"id": "2"}, {"id": "3"}, {}, {"id": "5"}], **naming)
            results = await p.gather()
        assert [result.ok for result in results] == [True, True, True, False, True]
        assert isinstance(results[3].error, KeyError)

    execute(main)


def test_plain_work_is_known_by_its_name_or_else_by_its_place(world: World) -> None:
    async def work(what: str) -> Any:
        return world.see(what)

    async def group(places: list[tuple[str, str | None]]) -> list[Any]:
        async with parallel(max_workers=1, name="mixed") as p:
            for what, name in places:
                p.add(work(what), name=name)
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        async with world.again():
            await group([("a", "one"), ("b", None), ("c", "three")])
        world.forget()
        async with world.again():
            assert await group([("C", "three"), ("B", None), ("A", "one")]) == ["c", "b", "a"]
        assert world.calls == []

    execute(main)


def test_items_of_a_map_over_a_plain_function_are_known_by_their_data(world: World) -> None:
    async def work(number: int) -> Any:
        return world.see(number)

    async def group(items: list[int]) -> list[Any]:
        async with parallel(name="squares") as p:
            p.map(work, items)
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        async with world.again():
            await group([1, 2, 3])
        async with world.again():
            assert await group([3, 4, 1]) == [3, 4, 1]
        assert world.calls == [1, 2, 3, 4]

    execute(main)


def test_groups_keep_their_ids_and_repeated_groups_are_told_apart(world: World) -> None:
    fetch = make_fetch(world)

    async def main() -> list[str]:
        ids = []
        async with world.again():
            for url in "aab":
                async with parallel(name="pages") as p:
                    p.add(fetch(url))
                    await p.gather()
                ids.append(p.group_id)
        return ids

    first, second = execute(main), execute(main)
    assert first == second
    assert len(set(first)) == 3
    assert world.calls == ["a", "a", "b"]


# -- calls whose order nothing defines --------------------------------------------------------------------------------

REMEDY = r"two identical calls of fetch under the run .* tell them apart: fetch\(\.\.\.\)\.with_options\(key='\.\.\.'\)"


async def twice_in_tasks_of_ones_own(fetch: Any, keys: tuple[str | None, str | None] = (None, None)) -> None:
    async def call(key: str | None) -> None:
        await (fetch("a") if key is None else fetch("a").with_options(key=key))

    async with asyncio.TaskGroup() as tasks:
        for key in keys:
            tasks.create_task(call(key))


def test_identical_calls_of_different_tasks_are_warned_of_with_the_line_that_mends_it(world: World) -> None:
    async def main() -> None:
        async with world.again():
            with pytest.warns(UndefinedOrderWarning, match=REMEDY):
                await twice_in_tasks_of_ones_own(make_fetch(world))
        assert world.calls == ["a", "a"]

    execute(main)


def test_in_a_strict_run_they_are_an_error(world: World) -> None:
    async def main() -> None:
        async with world.again(strict=True):
            with pytest.raises(ExceptionGroup) as caught:
                await twice_in_tasks_of_ones_own(make_fetch(world))
        (error,) = caught.value.exceptions
        assert isinstance(error, UndefinedOrderError)
        assert "with_options(key='...')" in str(error)

    execute(main)


def test_calls_of_one_task_after_another_have_an_order() -> None:
    @tool
    async def ping() -> int:
        return 1

    async def workflow() -> list[int]:
        first, second = await asyncio.create_task(_of(ping())), await asyncio.create_task(_of(ping()))
        return [first, second, await ping()]

    async def main() -> None:
        assert await run(workflow, store=MemoryStore(), strict=True) == [1, 1, 1]

    detangle.run(main)


async def _of(call: Call[int]) -> int:
    return await call


def test_a_group_that_a_called_tool_opens_lies_within_the_group_of_the_caller() -> None:
    @tool
    async def inner() -> None:
        async with parallel(name="inner") as p:
            await p.gather()

    async def outer(number: int) -> None:
        await inner()

    async def main() -> None:
        async with ExecutionState() as state, state.parallel(name="outer") as p:
            p.map(outer, range(1))
            await p.gather()
        nested, whole = state.metrics.groups
        assert nested.parent_group_id == whole.group_id

    detangle.run(main)


def test_the_line_that_the_warning_names_mends_it(world: World) -> None:
    async def main() -> None:
        async with world.again(strict=True):
            await twice_in_tasks_of_ones_own(make_fetch(world), ("first", "second"))
        async with world.again(strict=True):
            await twice_in_tasks_of_ones_own(make_fetch(world), ("second", "first"))
        assert world.calls == ["a", "a"]

    execute(main)


def test_what_needs_no_order_is_not_warned_of(world: World) -> None:
    fetch = make_fetch(world)

    async def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            async with world.again(strict=True):
                await fetch("a")
                await fetch("a")
                async with asyncio.TaskGroup() as tasks:
                    for url in "xyz":
                        tasks.create_task(fetch(url).outcome())
                async with parallel(name="pages") as p:
                    for _ in range(3):
                        p.add(fetch("a"))
                    await p.gather()
                async with parallel(name="pages") as p:
                    p.add(fetch("a"))
                    await p.gather()
            async with ExecutionState(strict=True):  # records nothing, so there is nothing to tell apart
                await twice_in_tasks_of_ones_own(fetch)

    execute(main)


def test_identical_calls_of_two_open_groups_of_one_name_have_no_defined_order(world: World) -> None:
    fetch = make_fetch(world)

    async def main() -> None:
        async with world.again(strict=True), parallel(name="pages") as one, parallel(name="pages") as other:
            one.add(fetch("a"))
            other.add(fetch("b"))
            with pytest.raises(UndefinedOrderError, match="side by side by different tasks or groups"):
                other.add(fetch("a"))
            await one.gather()
            await other.gather()

    execute(main)


# -- nested calls and retries -----------------------------------------------------------------------------------------


def test_another_attempt_of_an_agent_reuses_what_its_finished_children_returned(world: World) -> None:
    fetch = make_fetch(world)

    @agent(retry=RetryPolicy(max_attempts=3, initial_delay=1, jitter=False))
    async def survey() -> str:
        first = await fetch("a")
        if current().attempt == 3:
            world.down.clear()
        return str(first + await fetch("b"))

    world.down.append("b")

    async def main() -> None:
        async with world.again():
            result = await survey().outcome()
            assert (result.unwrap(), result.attempts) == ("ab", 3)
        assert world.forget() == ["a", "b", "b", "b"]
        async with world.again():
            assert await survey() == "ab"
        assert world.forget() == []

    execute(main)


def test_another_attempt_reuses_finished_members_of_its_group(world: World) -> None:
    fetch = make_fetch(world)

    @agent(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=False))
    async def survey() -> list[str]:
        if current().attempt == 2:
            world.down.clear()
        async with parallel(name="pages") as p:
            p.map(fetch, list("abc"))
            return [result.unwrap() for result in await p.gather()]

    world.down.append("b")

    async def main() -> None:
        async with world.again():
            assert await survey() == ["a", "b", "c"]
        assert world.forget() == ["a", "b", "c", "b"]

    execute(main)


def test_after_a_crash_in_the_second_attempt_the_first_one_is_replayed_and_the_second_goes_on(world: World) -> None:
    fetch = make_fetch(world)
    crashes = True

    @agent(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=False))
    async def survey() -> list[str]:
        pages = [await fetch("a")]
        if current().attempt == 2 and not crashes:
            world.down.clear()
        pages.append(await fetch("b"))
        return pages

    world.down.append("b")

    async def main() -> None:
        nonlocal crashes
        with pytest.raises(Crash):
            async with world.again():
                task = asyncio.ensure_future(survey().outcome())
                await asyncio.sleep(1.25)  # in the second attempt, "b" is being fetched
                task.cancel()
                await asyncio.wait([task])
                raise Crash
        world.forget()
        crashes = False
        async with world.again():
            assert await survey() == ["a", "b"]
        assert world.forget() == ["b"]

    execute(main)


def test_a_finished_agent_is_not_entered_again(world: World) -> None:
    fetch = make_fetch(world)

    @agent
    async def survey(urls: str) -> list[str]:
        world.see("entered")
        return [await fetch(url) for url in urls]

    async def main() -> None:
        for _ in range(3):
            assert await run(survey, "ab", store=world.store, run_id="monday") == ["a", "b"]
        assert world.calls == ["entered", "a", "b"]

    execute(main)


def test_children_of_an_agent_that_did_not_finish_are_not_repeated(world: World) -> None:
    fetch = make_fetch(world)

    @agent
    async def survey() -> list[str]:
        pages = [await fetch("a"), await fetch("b")]
        world.see("between")
        return [*pages, await fetch("c")]

    world.down.append("between")

    async def main() -> None:
        async with world.again():
            assert not (await survey().outcome()).ok
        world.down.clear()
        world.forget()
        async with world.again():
            assert await survey() == ["a", "b", "c"]
        assert world.calls == ["between", "c"]

    execute(main)


def test_a_failed_agent_that_is_made_again_by_its_caller_does_not_repeat_its_finished_children(world: World) -> None:
    fetch = make_fetch(world)

    @agent
    async def inner() -> str:
        return str(await fetch("a") + await fetch("b"))

    @agent(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=False))
    async def outer() -> str:
        if current().attempt == 2:
            world.down.clear()
        return await inner()

    world.down.append("b")

    async def main() -> None:
        async with world.again():
            assert await outer() == "ab"
        assert world.forget() == ["a", "b", "b"]

    execute(main)


def test_after_a_crash_in_its_second_try_a_nested_agent_goes_on_where_it_was(world: World) -> None:
    fetch = make_fetch(world)

    @agent
    async def inner() -> str:
        return str(await fetch("a") + await fetch("b"))

    @agent(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=False))
    async def outer() -> str:
        return await inner()

    world.down.append("b")

    async def main() -> None:
        with pytest.raises(Crash):
            async with world.again():
                task = asyncio.ensure_future(outer().outcome())
                await asyncio.sleep(1.25)  # the second try of inner has "a" from the first, and fetches "b"
                task.cancel()
                await asyncio.wait([task])
                raise Crash
        assert world.forget() == ["a", "b"]
        world.down.clear()
        async with world.again():
            assert await outer() == "ab"
        assert world.forget() == ["b"]

    execute(main)


def test_attempts_are_counted_across_restarts(world: World) -> None:
    fetch = make_fetch(world, retry=RetryPolicy(max_attempts=3, initial_delay=1, jitter=False))
    world.down.append("a")

    async def main() -> None:
        with pytest.raises(Crash):
            async with world.again():
                task = asyncio.ensure_future(fetch("a").outcome())
                await asyncio.sleep(1.5)  # two attempts have failed
                task.cancel()
                await asyncio.wait([task])
                raise Crash
        assert world.forget() == ["a", "a"]
        async with world.again():
            result = await fetch("a").outcome()
            assert (result.ok, result.attempts) == (False, 3)
        assert world.forget() == ["a"]

    execute(main)


# -- the store --------------------------------------------------------------------------------------------------------


def test_a_run_that_somebody_executes_cannot_be_executed_by_somebody_else(world: World) -> None:
    fetch = make_fetch(world)

    async def main() -> None:
        async with world.again():
            await fetch("a")
            with pytest.raises(RunIsLive, match="run 'monday' is being executed by process"):
                async with world.again():
                    await fetch("b")
        async with world.again():
            await fetch("a")
        assert world.calls == ["a"]

    execute(main)


class FailingStore(HookedStore):
    """Works until something is set on fire."""

    def __init__(self) -> None:
        super().__init__()
        self.is_burning = False
        self.opens_after = 0.0
        self.openings = 0

    async def before_opening(self) -> None:
        self.openings += 1
        await asyncio.sleep(self.opens_after)
        self.before_adding()

    def before_adding(self) -> None:
        if self.is_burning:
            raise StoreError("the disk is full")


def test_a_store_that_fails_stops_the_run_and_nothing_is_acknowledged_afterwards(world: World) -> None:
    fetch = make_fetch(world)
    store = FailingStore()
    events: list[str] = []

    async def main() -> None:
        state = ExecutionState(store=store, run_id="r")
        with pytest.raises(StoreError, match="the disk is full"):
            async with state:
                state.event_bus.subscribe(lambda event: events.append(event.execution_status.value))
                await fetch("a")
                asyncio.get_running_loop().call_later(0.05, setattr, store, "is_burning", True)
                try:
                    await fetch("b")
                except StoreError:
                    store.is_burning = False  # too late: nobody knows what is missing
                    with pytest.raises(StoreError, match="the disk is full"):
                        await fetch("c")
                    with pytest.raises(StoreError):
                        await fetch("a")
                    raise
        assert events == ["started", "completed", "started"]
        assert [outcome.value async for outcome in store.outcomes("r")] == ["a"]
        info = await store.find_run("r")
        assert info is not None
        assert info.status is ExecutionStatus.STARTED, "the end could not be recorded, so the run goes on next time"

    execute(main)
    assert world.calls == ["a", "b"]


def test_a_store_that_fails_ends_a_group_with_its_error_and_retries_nothing(world: World) -> None:
    fetch = make_fetch(world, retry=5)
    store = FailingStore()

    async def main() -> None:
        with pytest.raises(StoreError, match="the disk is full"):
            async with ExecutionState(store=store) as state, state.parallel(max_workers=2) as p:
                p.map(fetch, range(100))
                async for result in p.stream():
                    store.is_burning = result.index == 3
        assert asyncio.all_tasks() == {asyncio.current_task()}

    execute(main)
    assert len(world.calls) <= 6


def test_a_program_cannot_hide_that_the_store_failed(world: World) -> None:
    fetch = make_fetch(world)
    store = FailingStore()

    async def careless() -> str:
        try:
            await fetch("a")
        except Exception:  # noqa: BLE001 - what is under test
            return "all is well"
        return "unreachable"

    async def main() -> None:
        store.is_burning = True
        with pytest.raises(StoreError):
            await run(agent(careless), store=store)
        store.is_burning = False
        asyncio.get_running_loop().call_later(0.05, setattr, store, "is_burning", True)
        with pytest.raises(StoreError):
            await run(careless, store=store)

    execute(main)


def test_a_run_that_could_not_be_opened_calls_nothing(world: World) -> None:
    fetch = make_fetch(world)
    store = FailingStore()
    store.is_burning = True

    async def main() -> None:
        state = ExecutionState(store=store, run_id="r")
        for _ in range(3):
            with pytest.raises(StoreError, match="the disk is full"):
                async with state.parallel() as p:
                    p.add(fetch("a"))
                    await p.gather()

    execute(main)
    assert world.calls == []


def test_calls_side_by_side_wait_until_the_run_has_been_opened(world: World) -> None:
    fetch = make_fetch(world)
    store = FailingStore()
    store.opens_after = 1.0

    async def main() -> None:
        for _ in range(2):
            state = ExecutionState(store=store, run_id="r")

            async def group(name: str, state: ExecutionState = state) -> None:
                async with state.parallel(name=name) as p:
                    p.add(fetch(name))
                    await p.gather()

            await asyncio.gather(group("one"), group("two"))
            await state.end()
        assert sorted(world.calls) == ["one", "two"]
        assert store.openings == 2, "once for each execution"

    execute(main)


# -- the order of a stream --------------------------------------------------------------------------------------------


async def streamed(p: Any) -> list[Any]:
    return [result.unwrap() async for result in p.stream()]


def test_a_stream_repeats_the_recorded_order_before_it_gives_anything_new(world: World) -> None:
    @tool
    async def wait(name: str, seconds: Annotated[float, Injected]) -> str:
        await asyncio.sleep(seconds)
        return name

    async def main() -> None:
        seen: list[str] = []
        with pytest.raises(Crash):
            async with world.again(), parallel(max_workers=9) as p:
                for name, seconds in [("a", 3), ("b", 1), ("c", 2), ("d", 9)]:
                    p.add(wait(name, seconds))
                async for result in p.stream():
                    seen.append(result.unwrap())
                    if len(seen) == 3:
                        raise Crash
        assert seen == ["b", "c", "a"]
        async with world.again(), parallel(max_workers=9) as p:
            for name in ["new", "a", "b", "c", "d"]:
                p.add(wait(name, 0.1 if name == "new" else 5))
            assert await streamed(p) == ["b", "c", "a", "new", "d"]

    execute(main)


def test_a_crawler_that_is_started_again_walks_the_same_way(world: World) -> None:
    links = {"root": ["x", "y"], "x": ["x1", "x2"], "y": ["y1"], "x1": [], "x2": [], "y1": []}
    seconds = {"root": 1, "x": 5, "y": 2, "x1": 1, "x2": 4, "y1": 1}

    @tool
    async def visit(page: str) -> str:
        await asyncio.sleep(seconds[page])
        return str(world.see(page))

    async def crawl() -> list[str]:
        seen = []
        async with parallel(max_workers=4, name="crawl") as p:
            p.add(visit("root"))
            async for result in p.stream():
                seen.append(result.unwrap())
                for link in links[result.unwrap()]:
                    p.add(visit(link))
        return seen

    async def main() -> None:
        async with world.again():
            first = await crawl()
        seconds.update(dict.fromkeys(seconds, 1))
        world.forget()
        async with world.again():
            assert await crawl() == first == ["root", "y", "y1", "x", "x1", "x2"]
        assert world.calls == []

    execute(main)


def test_a_call_that_is_tried_again_does_not_hold_up_the_stream_nor_empty_the_iterable(world: World) -> None:
    fetch = make_fetch(world)
    pulled = 0

    def items() -> Iterator[int]:
        nonlocal pulled
        for number in range(1_000):
            pulled += 1
            yield number

    async def main() -> None:
        world.down.append(0)
        async with world.again(), parallel(max_workers=2, name="pages") as p:
            p.map(fetch, range(5))
            await p.gather()
        world.down.clear()
        async with world.again(), parallel(max_workers=2, name="pages") as p:
            p.map(fetch, items())
            async for result in p.stream():
                assert result.index == 1, "the first one that was recorded with a value"
                break
        assert pulled < 50

    execute(main)


def test_an_ordered_stream_is_in_the_order_of_enrolment_at_every_start(world: World) -> None:
    fetch = make_fetch(world)

    async def main() -> None:
        for _ in range(2):
            async with world.again(), parallel(name="pages") as p:
                p.map(fetch, list("cab"))
                assert [result.unwrap() async for result in p.stream(ordered=True)] == ["c", "a", "b"]
        assert sorted(world.calls) == ["a", "b", "c"]

    execute(main)


def test_the_history_of_a_resumed_run_tells_what_was_recovered_and_the_store_tells_what_happened_before(
    world: World,
) -> None:
    fetch = make_fetch(world)

    async def main() -> None:
        async with world.again():
            await fetch("a")
        async with world.again() as state:
            await fetch("a")
            told = [event.execution_status.value for event in state.history]
        assert told == ["recovered"]
        journal = [entry.event.execution_status.value async for entry in world.store.events("monday")]
        assert journal == ["started", "completed"], "what is recovered is no news"

    execute(main)


@pytest.mark.parametrize("count", [255, 256, 257, 600])
@pytest.mark.parametrize("reads", ["gather", "stream", "nothing"])
def test_a_group_of_many_recorded_members_comes_to_its_end(count: int, reads: str) -> None:
    """They are recovered some hundreds at a time, and nobody ends who could say that these were the last."""

    @tool
    async def double(number: int) -> int:
        return 2 * number

    async def main() -> None:
        store = MemoryStore()
        for _ in range(2):
            async with ExecutionState(store=store, run_id="r"), parallel(5) as p:
                p.map(double, iter(range(count)))
                if reads == "gather":
                    assert [result.unwrap() for result in await p.gather()] == [2 * number for number in range(count)]
                elif reads == "stream":
                    assert len([result async for result in p.stream()]) == count

    detangle.run(main)


def test_what_is_recovered_without_a_frame_is_told_as_ever() -> None:
    """The history has the same events whether or not anybody listens: whoever listens gets them as they come."""

    @tool
    async def halve(number: int) -> float:
        if number % 3 == 0:
            raise ConnectionError(f"{number} is down")
        return number / 2

    async def execute(store: MemoryStore, listens: bool) -> list[dict[str, Any]]:
        async with ExecutionState(store=store, run_id="r", retry_failed=False) as state:
            if listens:
                state.event_bus.subscribe(lambda event: None)
            async with state.parallel(max_workers=2, name="g") as p:
                p.map(halve, range(8))
                p.add(ExecutionEvent(actor=halve, tag="third", metadata={"a": 1})(3, None, state), name="named")
                await p.gather()
        events = [event.model_dump(exclude={"timestamp", "group", "actor", "group_total"}) for event in state.history]
        return [event for event in events if event["execution_status"] is ExecutionStatus.RECOVERED]

    async def main() -> None:
        store = MemoryStore()
        assert await execute(store, listens=False) == []
        quiet, heard = await execute(store, listens=False), await execute(store, listens=True)
        assert len(quiet) == 9
        assert [(event["tag"], event["metadata"]) for event in quiet if event["name"] == "named"] == [
            ("third", {"a": 1})
        ]
        assert sorted(quiet, key=str) == sorted(heard, key=str)

    detangle.run(main)
