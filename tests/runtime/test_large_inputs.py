"""Calls with large inputs: who they are is found out beside the event loop, and keys and order are what they were."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

from rh_agents import ExecutionState, MemoryStore, RetryPolicy, agent, current, parallel, tool
from rh_agents.core._replay.identity import ROOT_KEY, child_key, group_key, identity, identity_of_item
from rh_agents.core.errors import DefinitionError, RunAwaiting, UndefinedOrderError
from rh_agents.core.types import CacheScope
from rh_agents.core.values.inputs import canonical, canonical_arguments
from rh_agents.core.values.large import LARGE
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import RUN, Crash, KeepingStore, World

LONG = "it's " + "x" * LARGE


def large(name: str) -> list[str]:
    """An input that is large, and another one for each name."""
    return [name, LONG]


class Watched(Mapping[str, str]):
    """Tells in which threads it was read, and can refuse to be, or take its time."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.is_changing = False
        self.is_being_read = threading.Event()
        self.let_go = threading.Event()
        self.let_go.set()

    def __getitem__(self, key: str) -> str:
        self.is_being_read.set()
        assert self.let_go.wait(20)
        if self.is_changing and threading.get_ident() != threading.main_thread().ident:
            raise RuntimeError("dictionary changed size during iteration")
        self.threads.append(threading.get_ident())
        return "value"

    def __iter__(self) -> Iterator[str]:
        return iter(["key"])

    def __len__(self) -> int:
        return 1


def keys_of(store: MemoryStore) -> dict[str, set[bytes]]:
    """The keys of what is recorded, by the first element of the result."""
    assert isinstance(store, KeepingStore)
    found: dict[str, set[bytes]] = {}
    for _, outcome in store.entries:
        if outcome is not None:
            found.setdefault(outcome.value[0], set()).add(outcome.key)
    return found


def test_the_key_is_what_it_always_was() -> None:
    world = World()

    @tool
    async def fetch(page: Any, part: int = 0) -> Any:
        return page

    async def plain(page: Any) -> Any:
        return page

    async def main() -> None:
        async with world.again():
            for _ in range(2):
                await fetch(large("alone"))
            await fetch(large("named")).with_options(key="k")
            async with parallel(name="pages") as p:
                p.add(fetch(large("a")))
                p.add(fetch(["small"]))
                p.add(fetch(large("a")))
                p.add(fetch(large("explicit")), key="k")
                p.map(fetch, [large("b"), large("c"), large("b")])
                p.map(plain, [large("plain")])
                await p.gather()

    run_virtually(main)
    version = fetch.actor.recorded_version

    def same(page: Any, key: str | None = None) -> bytes:
        return identity("fetch", version, canonical_arguments({"page": page, "part": 0}), key)

    def places(group: str, same: bytes, count: int = 1) -> set[bytes]:
        return {child_key(ROOT_KEY, group, same, number) for number in range(count)}

    group_id = group_key(ROOT_KEY, "pages", 0).hex()[:32]
    plain_item = identity_of_item(group_id, plain.__qualname__, canonical(large("plain")))
    assert keys_of(world.store) == {
        "alone": places("", same(large("alone")), 2),
        "named": places("", same(None, "k")),
        "a": places("pages", same(large("a")), 2),
        "small": places("pages", same(["small"])),
        "explicit": places("pages", same(None, "k")),
        "b": places("pages", same(large("b")), 2),
        "c": places("pages", same(large("c"))),
        "plain": places("pages", plain_item),
    }


@pytest.mark.parametrize("is_changing", [False, True])
def test_what_is_large_is_read_in_another_thread_unless_it_is_changed_meanwhile(is_changing: bool) -> None:
    async def main() -> None:
        seen: list[int] = []
        for use in ("call", "add", "map", "cached"):
            given = Watched()
            given.is_changing = is_changing

            @tool(cache=CacheScope.RUN if use == "cached" else None)
            async def fetch(page: Any) -> int:
                return 1

            store = None if use == "cached" else MemoryStore()
            async with ExecutionState(store=store), parallel() as p:
                if use in ("add", "cached"):
                    p.add(fetch([LONG, given]))
                elif use == "map":
                    p.map(fetch, [[LONG, given]])
                else:
                    assert await fetch([LONG, given]) == 1
                await p.gather()
            assert given.threads, use
            seen += given.threads
        assert {thread == threading.get_ident() for thread in seen} == {is_changing}

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:two identical calls")
def test_identical_calls_are_numbered_in_their_order_in_a_group_and_beside_each_other() -> None:
    world = World()
    count = itertools.count()

    @tool
    async def draw(page: Any) -> list[int]:
        return [next(count)]

    async def work() -> list[Any]:
        async with parallel(name="pages", max_workers=1) as p:
            for _ in range(3):
                p.add(draw(large("a")))
            p.map(draw, [large("a"), ["small"], large("a"), ["small"]])
            return [result.result for result in await p.gather()]

    async def main() -> None:
        async with world.again():
            assert await work() == [[number] for number in range(7)]
        async with world.again():
            assert await work() == [[number] for number in range(7)]
        assert next(count) == 7

        for _ in range(2):
            async with world.again():
                assert await asyncio.gather(*(draw(large("b")) for _ in range(5))) == [[8], [9], [10], [11], [12]]
        assert next(count) == 13

    asyncio.run(main())


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_cancellation_while_a_call_is_being_identified(is_recorded: bool) -> None:
    """What is recorded is the program's, which is cancelled at its next await; else nothing is called."""
    world = World()
    seen: list[Any] = []
    given = Watched()

    @tool
    async def fetch(page: Any) -> int:
        world.begun.append(1)
        return 1

    async def work() -> None:
        seen.append(await fetch([LONG, given]))
        await asyncio.sleep(60)

    async def main() -> None:
        if is_recorded:
            async with world.again():
                await fetch([LONG, given])
        world.forget()
        given.is_being_read.clear()
        given.let_go.clear()
        async with world.again():
            task = asyncio.create_task(work())
            assert await asyncio.to_thread(given.is_being_read.wait, 20)
            task.cancel("enough")
            await asyncio.sleep(0)
            given.let_go.set()
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await task
            assert world.begun == []
            assert len(seen) == is_recorded

    asyncio.run(main())


def test_what_is_no_data_fails_as_it_does_when_it_is_small() -> None:
    bad = [LONG, object()]

    @tool
    async def fetch(page: Any) -> int:
        return 1

    @tool(cache=CacheScope.RUN)
    async def cached(page: Any) -> int:
        return 1

    async def main() -> None:
        async with ExecutionState(store=MemoryStore()):
            with pytest.raises(DefinitionError, match="is not data"):
                await fetch(bad)
            with pytest.raises(DefinitionError, match="is not data"):
                async with parallel(name="one") as p:
                    p.add(fetch(bad))
                    p.add(fetch(["good"]))
                    await p.gather()
            async with parallel(name="two") as p:
                p.add(cached(bad), key="named, but not to be cached")
                p.map(fetch, [bad, large("good")])
                results = await p.gather()
            assert [type(result.error) for result in results] == [DefinitionError, DefinitionError, type(None)]
        async with ExecutionState(), parallel() as p:
            p.add(cached(bad))
            p.add(cached(large("good")))
            results = await p.gather()
            assert [type(result.error) for result in results] == [DefinitionError, type(None)]

    asyncio.run(main())


def test_an_undefined_order_ends_a_strict_group() -> None:
    world = World()
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again(strict=True), parallel(name="pages") as one:
            one.add(fetch(large("a")))
            await one.gather()
            with pytest.raises(UndefinedOrderError):
                async with parallel(name="pages") as other:
                    other.add(fetch(large("a")))
                    await other.gather()

    run_virtually(main)


def test_members_that_never_began_are_numbered_all_the_same() -> None:
    """So the same calls of a later group have the same keys, however far the first one came before it was cancelled."""
    world = World()

    @tool
    async def fetch(page: Any) -> Any:
        return page

    async def work() -> None:
        async with parallel(name="pages", max_workers=1) as p:
            for name in "aab":
                p.add(fetch(large(name)))
            p.cancel()
        async with parallel(name="pages") as p:
            p.add(fetch(large("a")))
            await p.gather()

    async def main() -> None:
        async with world.again():
            await work()

    run_virtually(main)
    same = identity("fetch", fetch.actor.recorded_version, canonical_arguments({"page": large("a")}), None)
    assert keys_of(world.store) == {"a": {child_key(ROOT_KEY, "pages", same, 2)}}


def test_items_are_pulled_one_by_one_while_they_are_identified() -> None:
    world = World()
    fetch = world.make_fetch()
    pulled: list[int] = []

    async def slowly() -> AsyncIterator[list[str]]:
        for number in range(30):
            pulled.append(number)
            yield large(str(number))

    async def main() -> None:
        async with world.again(), parallel(max_workers=2) as p:
            p.map(fetch, slowly())
            async for _ in p.stream():
                assert len(pulled) <= len(world.begun) + 2

    run_virtually(main)


@pytest.mark.parametrize("source", ["map", "async map"])
def test_a_stream_that_ended_with_a_failure_tells_the_same_story(source: str) -> None:
    world = World()
    world.seconds = {"bad": 3.0, "slow": 100}
    given: list[Any] = []

    @tool
    async def fetch(page: list[str]) -> str:
        world.begun.append(page[0])
        await asyncio.sleep(world.seconds.get(page[0], 1.0))
        if page[0] == "bad":
            raise ConnectionError(page[0])
        return page[0]

    async def slowly(items: list[list[str]]) -> AsyncIterator[list[str]]:
        for item in items:
            await asyncio.sleep(0.01)
            yield item

    async def work() -> None:
        given.clear()
        items = [large("bad"), large("slow"), large("good")]
        with pytest.raises(ConnectionError):
            async with parallel(error_strategy="fail_fast", name="pages") as p:
                p.map(fetch, items if source == "map" else slowly(items))
                async for result in p.stream():
                    given.append(result.result or result.error_message)  # noqa: PERF401 - until it raises

    async def main() -> None:
        async with world.again():
            await work()
        assert given == ["good", "ConnectionError: bad"]
        store = world.store
        assert isinstance(store, KeepingStore)
        failed = next(count for count, (event, _) in enumerate(store.entries, 1) if event.message is not None)
        for count in (failed, failed + 1):
            world.store = await store.after_the_first(count)
            world.begun.clear()
            for _ in range(2):
                with pytest.raises(Crash):
                    async with world.again():
                        await work()
                        assert given == ["good", "ConnectionError: bad"]
                        raise Crash
            assert world.begun == []

    run_virtually(main)


def test_a_crawler_gets_its_results_in_the_recorded_order() -> None:
    """The first page fails, so the second attempt makes it anew, and adds recorded pages when it has its result."""
    seen: list[list[Any]] = []
    seconds = {"0": 1.0, "1": 3.0, "2": 1.0, "3": 0.5}
    begun: list[str] = []

    @tool
    async def fetch(page: list[str]) -> str:
        begun.append(page[0])
        await asyncio.sleep(seconds[page[0]])
        if page[0] == "0":
            raise ConnectionError
        return page[0]

    @agent(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=False))
    async def crawl() -> None:
        seen.append([])
        pages = iter("123")
        async with parallel() as p:
            p.add(fetch(large("0")))
            async for result in p.stream():
                seen[-1].append(result.index)
                for page in itertools.islice(pages, 2):
                    p.add(fetch(large(page)))
        if current().attempt == 1:
            raise ConnectionError

    async def main() -> None:
        async with World().again():
            await crawl()

    run_virtually(main)
    assert seen == [[0, 2, 3, 1]] * 2
    assert sorted(begun) == ["0", "0", "1", "2", "3"]


@pytest.mark.parametrize("how", ["call", "add"])
def test_a_run_that_waits_for_a_person_waits_for_what_is_being_identified(how: str) -> None:
    world = World()

    @tool
    async def fetch(page: list[str]) -> str:
        world.begun.append(page[0])
        return page[0]

    async def others() -> None:
        if how == "call":
            for name in "ab":
                await fetch(large(name))
            return
        async with parallel() as p:
            for name in "ab":
                p.add(fetch(large(name)))
            await p.gather()

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunAwaiting):
            async with state:
                await asyncio.gather(state.ask("Why?"), others())
        assert world.begun == ["a", "b"]

    run_virtually(main)


def test_an_agent_below_which_large_calls_are_made_is_replayed_without_a_call() -> None:
    world = World()

    @tool
    async def fetch(page: list[str]) -> str:
        world.begun.append(page[0])
        return page[0]

    @agent
    async def survey(pages: list[str]) -> list[str]:
        return [await fetch(large("a")), await fetch(pages)]

    async def main() -> None:
        for _ in range(2):
            async with world.again():
                assert await survey(large("b")) == ["a", "b"]
        assert world.begun == ["a", "b"]
        assert await world.store.find_run(RUN) is not None

    run_virtually(main)
