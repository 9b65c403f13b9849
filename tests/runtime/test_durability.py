"""What is promised of a run whose process may end at any moment.

The first section has one test for each of the invariants that the design numbers from 1 to 8; that of artifacts (5) is
kept where artifacts are: tests/stores/test_artifacts.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, model_serializer

from rh_agents import (
    CallCancelled,
    ExecutionEvent,
    ExecutionState,
    ExecutionStatus,
    MemoryStore,
    RetryPolicy,
    agent,
    current,
    parallel,
    run,
    tool,
)
from rh_agents.core.errors import (
    DefinitionError,
    LeaseLost,
    RunIsLive,
    RunStopped,
    StoreError,
    UnstorableError,
)
from rh_agents.core.results import Outcome
from rh_agents.errors import UnreadFailures
from tests.doubles import HookedStore, request
from tests.properties.virtual import run_virtually, tasks_besides_this_one
from tests.runtime.worlds import RUN, Crash, KeepingStore, World, crash


@pytest.fixture
def world() -> World:
    return World()


def kept(world: World) -> KeepingStore:
    """The store of the world, which remembers its writes."""
    assert isinstance(world.store, KeepingStore)
    return world.store


# -- the invariants ---------------------------------------------------------------------------------------------------


def survey_of(world: World, seen: Callable[[str, Any], None]) -> Callable[[], Any]:
    """A program of every shape: calls, agents, groups in groups, plain members, a failure and a retry."""
    fetch = world.make_fetch()

    @agent
    async def chain(name: str) -> list[Any]:
        values = []
        for number in range(2):
            values.append(await fetch(f"{name}{number}"))
            seen(f"{name}{number}", values[-1])
        return values

    async def plain(name: str) -> Any:
        return await fetch(f"plain {name}")

    @agent
    async def survey() -> list[Any]:
        async with parallel(max_workers=3, name="chains") as p:
            p.map(chain, list("ab"))
            p.add(lambda: plain("c"), name="plain")
            p.add(fetch("down"))
            chains = [result.result if result.ok else result.error_message for result in await p.gather()]
        seen("chains", chains)
        return [*chains, await fetch(None)]

    return survey


def test_an_acknowledged_outcome_is_given_unchanged_after_a_crash_and_its_function_is_not_called_again(
    world: World,
) -> None:
    """Invariant 1."""
    given: dict[str, tuple[int, Any]] = {}
    store = kept(world)
    world.down = ["down"]

    def seen(what: str, value: Any) -> None:
        before = given.setdefault(what, (len(store.entries), value))
        assert before[1] == value

    async def main() -> None:
        survey = survey_of(world, seen)
        async with world.again():
            whole = await survey()
        for count in range(len(store.entries) + 1):
            left = await store.after_the_first(count)
            world.forget()
            async with world.again(store=left):
                assert await survey() == whole
            acknowledged = {what for what, (written, _) in given.items() if written <= count}
            assert not acknowledged & set(world.begun)

    run_virtually(main)


@pytest.mark.parametrize("grouped", [False, True])
def test_there_is_one_outcome_for_each_call_and_the_first_one_counts(world: World, grouped: bool) -> None:
    """Invariant 2. By a fault, or by another process, the call has an outcome when it comes to one here."""
    store = kept(world)
    events: list[ExecutionEvent[Any]] = []
    recorded = ["the first one"]

    @tool
    async def fetch(what: str) -> str:
        await asyncio.sleep(1)
        fact, _ = next(entry for entry in store.entries if entry[0].name == "fetch" and entry[1] is None)
        assert fact.key is not None
        if what == "a":
            journal = current().run.journal  # type: ignore[attr-defined]
            journal.note(fact, Outcome(fact.key, "fetch", "fetch", recorded[0], None, 1.0, 1, base=fact.key))
        return what

    async def fetched() -> Any:
        if not grouped:
            return await fetch("a").outcome()
        async with parallel() as p:
            p.add(fetch("a"))
            (result,) = await p.gather()
        return result

    async def main() -> None:
        with pytest.raises(StoreError, match="has come to another result than is recorded"):
            async with world.again() as state:
                state.event_bus.subscribe(events.append)
                await fetched()
        assert await world.values() == ["the first one"]
        assert all(event.result != "a" for event in events), "what is not recorded is not told"
        async with world.again():
            result = await fetched()
        assert (result.result, result.is_replayed) == ("the first one", True)
        world.store = KeepingStore()
        store.entries = world.store.entries
        recorded[0] = "a"
        async with world.again():
            assert (await fetched()).result == "a", "the same one again is no fault"
        assert await world.values() == ["a"]

    run_virtually(main)


@pytest.mark.parametrize("moment", [0.5, 1.5, 2.5, 3.5])
def test_only_calls_without_an_outcome_are_made_again_and_at_most_those_in_flight_with_their_own_idempotency_keys(
    world: World, moment: float
) -> None:
    """Invariant 3."""
    keys: dict[int, list[str]] = {}

    @tool
    async def fetch(number: int) -> int:
        keys.setdefault(number, []).append(current().idempotency_key)
        return await world.do(number)  # type: ignore[no-any-return]

    async def work() -> None:
        async with parallel(max_workers=8) as p:
            p.map(fetch, range(32))
            await p.gather()

    async def main() -> None:
        with pytest.raises(Crash):
            async with world.again():
                task = asyncio.ensure_future(work())
                await asyncio.wait([task], timeout=moment)
                world.store = await kept(world).after_the_first(len(kept(world).entries))
                task.cancel()
                await asyncio.wait([task])
                raise Crash
        finished = set(await world.values())
        async with world.again():
            await work()
        assert sorted(await world.values()) == list(range(32))
        twice = {number for number, used in keys.items() if len(used) > 1}
        assert len(twice) <= 8
        assert not twice & finished
        assert all(len(set(used)) == 1 for used in keys.values())
        assert len({used[0] for used in keys.values()}) == 32

    run_virtually(main)


def test_an_outcome_and_the_event_that_tells_it_are_one_entry(world: World) -> None:
    """Invariant 4."""
    world.down = ["down"]

    async def main() -> None:
        survey = survey_of(world, lambda what, value: None)
        async with world.again():
            await survey()
        final = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED)
        outcomes = 0
        for fact, outcome in kept(world).entries:
            has_one = fact.key is not None and fact.status in final
            assert (outcome is not None) is has_one
            if outcome is not None:
                outcomes += 1
                assert outcome.key == fact.key
                assert (outcome.value, outcome.seconds, outcome.attempts) == (fact.result, fact.seconds, fact.attempt)
        assert outcomes == (await world.info()).outcomes == 11

    run_virtually(main)


class FailingStore(HookedStore):
    """Works until something is set on fire."""

    def __init__(self) -> None:
        super().__init__()
        self.burns: set[str] = set()

    def _expect(self, what: str) -> None:
        if what in self.burns:
            raise StoreError("the disk is full")

    def before_adding(self) -> None:
        self._expect("adding")

    def _make_journal(self, run: Any, info: Any) -> Any:
        journal: Any = super()._make_journal(run, info)
        flush, load, close = journal.flush, journal.load, journal.close

        async def failing_flush() -> None:
            self._expect("flush")
            await flush()

        async def failing_load(key: bytes) -> Outcome:
            self._expect("load")
            outcome: Outcome = await load(key)
            return outcome

        async def failing_close(*how: Any) -> None:
            self._expect("close")
            await close(*how)

        journal.flush, journal.load, journal.close = failing_flush, failing_load, failing_close
        if hasattr(journal, "load_nowait"):
            journal.load_nowait = lambda key: None
        return journal


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("what", ["adding", "flush", "close"])
def test_a_store_error_ends_the_run_with_it_and_nothing_is_acknowledged_afterwards(durability: str, what: str) -> None:
    """Invariant 6."""
    world = World()
    world.store = store = FailingStore()
    fetch = world.make_fetch()
    is_needed = what == "close" or (what == "adding") or durability == "async"

    async def work() -> None:
        async with parallel(max_workers=2) as p:
            p.map(fetch, list("ab"))
            await p.gather()
            store.burns.add(what)
            p.map(fetch, list("cd"))
            await p.gather()

    async def main() -> None:
        state = world.again(durability=durability)
        if not is_needed:
            async with state:
                await work()
            return
        with pytest.raises(StoreError, match="the disk is full"):
            async with state:
                await work()
        assert state.status is not ExecutionStatus.COMPLETED
        store.burns.clear()
        assert (await world.info()).status is ExecutionStatus.STARTED
        with pytest.raises(StoreError):
            await fetch_in(state)
        assert tasks_besides_this_one() == set()

    async def fetch_in(state: ExecutionState) -> None:
        async with state.parallel() as p:
            p.add(fetch("e"))
            await p.gather()

    run_virtually(main)
    assert "e" not in world.begun


@pytest.mark.parametrize("grouped", [False, True])
def test_an_outcome_that_cannot_be_read_stops_the_run_instead_of_being_made_again(grouped: bool) -> None:
    """Invariant 6."""
    world = World()
    world.store = store = FailingStore()
    fetch = world.make_fetch()

    async def work() -> None:
        try:
            if grouped:
                async with parallel() as p:
                    p.add(fetch("a"))
                    await p.gather()
            else:
                await fetch("a")
        except Exception:  # noqa: BLE001 - what the program does is under test
            await fetch("b")

    async def main() -> None:
        await crash(world.again(), work)
        world.forget()
        store.burns.add("load")
        with pytest.raises(StoreError, match="the disk is full"):
            async with world.again():
                await work()
        assert world.begun == []

    run_virtually(main)


def test_a_run_has_one_owner_and_one_that_was_taken_over_can_write_no_more(world: World) -> None:
    """Invariant 7."""
    fetch = world.make_fetch()
    zombie = world.again()

    async def work_of_the_zombie() -> None:
        async with zombie:
            await fetch("a")
            with pytest.raises(RunIsLive, match=r"run 'monday' is being executed by process \d+ on"):
                await world.store.open_run(request(RUN))
            await asyncio.sleep(10)
            await fetch("b")

    async def main() -> None:
        task = asyncio.ensure_future(work_of_the_zombie())
        await asyncio.wait([task], timeout=5)
        world.store._runs[RUN].take(None)  # its lease is over
        async with world.again():
            assert await fetch("a") == "a"
            await asyncio.wait([task])
            assert isinstance(task.exception(), LeaseLost)
            assert await world.values() == ["a"]
            await fetch("c")
        assert await world.values() == ["a", "c"]
        assert (await world.info()).status is ExecutionStatus.COMPLETED
        assert world.begun == ["a", "c"]

    run_virtually(main)


def test_whoever_is_taken_over_in_the_middle_of_a_call_records_nothing(world: World) -> None:
    """Invariant 7."""
    fetch = world.make_fetch()

    async def main() -> None:
        async def work() -> None:
            async with world.again():
                try:
                    await fetch("slow")
                finally:
                    await fetch("another")

        world.seconds = {"slow": 10}
        zombie = asyncio.ensure_future(work())
        await asyncio.wait([zombie], timeout=1)
        world.store._runs[RUN].take(None)
        async with world.again():
            await asyncio.sleep(20)
            with pytest.raises(LeaseLost):
                await zombie
            assert (await world.info()).owner is not None
            assert await world.values() == []
            await fetch("mine")
        assert await world.values() == ["mine"]
        assert world.begun == ["slow", "mine"]

    run_virtually(main)


def test_a_shutdown_records_no_outcome_and_a_users_cancellation_does(world: World) -> None:
    """Invariant 8."""
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def work(cancels: bool) -> None:
        async with parallel(name="pages") as p:
            p.map(fetch, ["a", "slow"])
            await asyncio.sleep(5)
            if cancels:
                p.cancel()
            await p.gather()

    async def shut_down(how: str, state: ExecutionState) -> None:
        task = asyncio.ensure_future(_within(state, lambda: work(False)))
        await asyncio.wait([task], timeout=10)
        if how == "cancelled":
            task.cancel()
        else:
            state.request_interrupt("a deploy", grace=0)
        await asyncio.wait([task])

    async def main() -> None:
        for how in ("cancelled", "interrupted"):
            await shut_down(how, world.again())
            assert await world.values() == ["a"]
        async with world.again():
            await work(True)
        assert await world.values() == ["a", CallCancelled]

    run_virtually(main)


async def _within(state: ExecutionState, work: Callable[[], Any]) -> None:
    with contextlib.suppress(RunStopped):
        async with state:
            await work()


@pytest.mark.parametrize("how", ["cancelled", "interrupted"])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("retry", [None, 3])
def test_a_shutdown_records_no_outcome_even_if_the_call_turns_its_cancellation_into_an_error(
    world: World, how: str, grouped: bool, retry: int | None
) -> None:
    """Invariant 8. Clients of services are known to do so; the error is none of the program's making."""
    made = 0

    @tool(retry=retry)
    async def fetch() -> str:
        nonlocal made
        made += 1
        if made > 1:
            return "page"
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            raise ConnectionError("the connection was closed") from None
        return "unreachable"

    async def work() -> str:
        if not grouped:
            return await fetch()
        async with parallel() as p:
            p.add(fetch())
            return str((await p.gather())[0].unwrap())

    async def execute(state: ExecutionState) -> None:
        async with state:
            await work()

    async def main() -> None:
        state = world.again()
        task = asyncio.ensure_future(execute(state))
        await asyncio.wait([task], timeout=5)
        if how == "cancelled":
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        else:
            state.request_interrupt("a deploy", grace=0)
            await asyncio.wait([task])
            assert isinstance(task.exception(), RunStopped)
        assert await world.values() == []
        async with world.again():
            assert await work() == "page"

    run_virtually(main)


# -- written behind ---------------------------------------------------------------------------------------------------


class BehindStore(KeepingStore):
    """Writes what is noted only when somebody waits for it, which takes a second."""

    def __init__(self) -> None:
        super().__init__()
        self.on_disk = 0
        self.flushes = 0
        self.pretends_to_wait = 0

    def _make_journal(self, run: Any, info: Any) -> Any:
        journal: Any = super()._make_journal(run, info)
        append, flush, close = journal.append, journal.flush, journal.close
        journal.waiting = self.pretends_to_wait

        async def write() -> None:
            await asyncio.sleep(1)
            self.on_disk = len(self.entries)

        async def slow_append(event: ExecutionEvent[Any], outcome: Outcome | None = None) -> Outcome | None:
            counts: Outcome | None = await append(event, outcome)
            await write()
            return counts

        async def slow_flush() -> None:
            self.flushes += 1
            await flush()
            await write()

        async def slow_close(*how: Any) -> None:
            await write()
            await close(*how)

        journal.append, journal.flush, journal.close = slow_append, slow_flush, slow_close
        return journal

    @property
    def values(self) -> list[Any]:
        """What a crash now would leave."""
        return [outcome.value for _, outcome in self.entries[: self.on_disk] if outcome is not None]


def test_by_default_nobody_gets_a_result_that_is_not_on_disk() -> None:
    world = World()
    world.store = store = BehindStore()
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again():
            await fetch("a")
            assert store.values == ["a"]
            async with parallel() as p:
                p.map(fetch, list("bc"))
                async for result in p.stream():
                    assert result.unwrap() in store.values

    run_virtually(main)


def test_written_behind_a_call_waits_for_nothing_and_the_end_of_a_group_and_of_the_run_do() -> None:
    world = World()
    world.store = store = BehindStore()
    fetch = world.make_fetch()

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with world.again(durability="async"):
            await fetch("a")
            assert (clock(), store.values) == (1.0, [])
            async with parallel() as p:
                p.map(fetch, list("bc"))
                await p.gather()
                assert (clock(), store.values) == (2.0, [])
            assert (clock(), store.values) == (3.0, ["a", "b", "c"])
            await fetch("d")
            assert store.values == ["a", "b", "c"]
        assert store.values == ["a", "b", "c", "d"]

    run_virtually(main)


def test_written_behind_a_crash_costs_the_last_moments_and_never_the_order() -> None:
    world = World()
    world.store = store = BehindStore()
    fetch = world.make_fetch()

    async def work() -> list[Any]:
        first = [await fetch("a"), await fetch("b")]
        async with parallel() as p:
            p.map(fetch, list("cd"))
            first += [result.unwrap() for result in await p.gather()]
        return [*first, await fetch("e")]

    async def main() -> None:
        async def all_of_it() -> None:
            await work()
            assert store.values == ["a", "b", "c", "d"]
            world.store = await store.after_the_first(store.on_disk)

        await crash(world.again(durability="async"), all_of_it)
        world.forget()
        async with world.again(durability="async"):
            assert await work() == list("abcde")
        assert world.begun == ["e"]

    run_virtually(main)


def test_written_behind_what_waits_is_bounded() -> None:
    world = World()
    world.store = store = BehindStore()
    store.pretends_to_wait = 10_001
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again(durability="async"):
            await fetch("a")
            assert store.flushes >= 1

    run_virtually(main)


def test_at_the_end_nothing_is_written_before_it() -> None:
    world = World()
    world.store = store = BehindStore()
    fetch = world.make_fetch()

    async def work() -> None:
        async with parallel() as p:
            p.map(fetch, list("ab"))
            await p.gather()
        await fetch("c")

    async def main() -> None:
        async with world.again(durability="exit"):
            await work()
            assert (asyncio.get_running_loop().time(), store.values) == (2.0, [])
        assert store.values == ["a", "b", "c"]
        async with world.again(durability="exit"):
            await work()
        assert world.begun == ["a", "b", "c"]

    run_virtually(main)


@pytest.mark.parametrize("how", ["failure", "interrupt", "cancellation"])
def test_at_the_end_is_whatever_ends_the_run_but_a_crash(world: World, how: str) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def work(state: ExecutionState) -> None:
        async with state:
            await fetch("a")
            if how == "failure":
                raise LookupError
            if how == "interrupt":
                state.request_interrupt("a deploy")
            await fetch("slow")

    async def main() -> None:
        task = asyncio.ensure_future(work(world.again(durability="exit")))
        await asyncio.wait([task], timeout=10)
        if not task.done():
            task.cancel()
        with pytest.raises((LookupError, RunStopped, asyncio.CancelledError)):
            await task
        assert await world.values() == ["a"]

    run_virtually(main)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_another_attempt_of_an_agent_finds_children_that_are_not_on_disk_yet(world: World, durability: str) -> None:
    fetch = world.make_fetch()
    world.down = ["moody"]

    @agent(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=False))
    async def survey() -> list[Any]:
        async with parallel() as p:
            p.map(fetch, list("ab"))
            pages = [result.unwrap() for result in await p.gather()]
        if current().attempt == 2:
            world.down.clear()
        return [*pages, await fetch("c"), await fetch("moody")]

    async def main() -> None:
        for store in (KeepingStore(), BehindStore()):
            world.store = store
            world.down = ["moody"]
            async with world.again(durability=durability):
                assert await survey() == ["a", "b", "c", "moody"]
            assert Counter(world.forget()) == Counter(["a", "b", "c", "moody", "moody"])
            async with world.again(durability=durability):
                assert await survey() == ["a", "b", "c", "moody"]
            assert world.forget() == []

    run_virtually(main)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_what_is_recorded_is_what_the_call_returned_and_not_what_was_made_of_it_afterwards(
    world: World, durability: str
) -> None:
    @tool
    async def fetch() -> list[str]:
        return ["page"]

    async def work() -> list[str]:
        pages = await fetch()
        seen = list(pages)
        pages.append("changed")
        return seen

    async def main() -> None:
        for _ in range(2):
            async with world.again(durability=durability):
                assert await work() == ["page"]
        assert await world.values() == [["page"]]

    run_virtually(main)


# -- results that no store can keep -----------------------------------------------------------------------------------


class Connection:
    """No data."""


class Odd(BaseModel):
    """Data that cannot be written in its own way."""

    name: str

    @model_serializer
    def write(self) -> str:
        raise LookupError("cannot be written")


class Untellable(Exception):
    """Cannot even say what is wrong."""

    def __str__(self) -> str:
        raise LookupError


def endless() -> list[Any]:
    """A list that contains itself."""
    values: list[Any] = [1]
    values.append(values)
    return values


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize(
    "make", [Connection, lambda: {"a": [Connection()]}, endless, lambda: (i for i in range(3)), lambda: print]
)
def test_a_call_whose_result_is_no_data_fails_and_says_so_and_its_siblings_go_on(
    world: World, durability: str, make: Callable[[], Any]
) -> None:
    fetch = world.make_fetch()
    made = 0

    @tool(retry=RetryPolicy(max_attempts=3))
    async def connect() -> Any:
        nonlocal made
        made += 1
        return make()

    async def work() -> list[bool]:
        with pytest.raises(UnstorableError, match="connect"):
            await connect()
        async with parallel(name="mixed") as p:
            p.add(fetch("a"))
            p.add(connect())
            p.add(fetch("b"))
            return [result.ok for result in await p.gather()]

    async def main() -> None:
        with pytest.raises(RunStopped):
            async with world.again(durability=durability) as state:
                assert await work() == [True, False, True]
                state.request_interrupt()
                await fetch("another")
        assert made == 2, "another attempt would return the same"
        info = await world.info()
        assert (info.owner, info.status) == (None, ExecutionStatus.STARTED)
        async with world.again(durability=durability):
            assert await work() == [True, False, True]
        assert made == 2
        assert sorted(world.calls) == ["a", "b"]

    run_virtually(main)


def test_a_model_is_kept_by_its_fields_whatever_it_writes_for_others(world: World) -> None:
    @tool
    async def fetch() -> Odd:
        return Odd(name="a")

    async def main() -> None:
        for _ in range(2):
            async with world.again():
                assert await fetch() == Odd(name="a")

    run_virtually(main)


def test_without_a_store_a_result_may_be_anything(world: World) -> None:
    @tool
    async def connect() -> Any:
        return Connection()

    async def main() -> None:
        assert isinstance(await run(connect), Connection)

    run_virtually(main)


def test_an_actor_whose_annotation_tells_that_its_results_are_no_data_is_refused_at_once() -> None:
    with pytest.raises(DefinitionError, match=r"connect returns a type that cannot be stored: .*Connection.*Injected"):

        @tool
        async def connect() -> list[Connection]:
            return []


def test_a_plain_member_whose_result_is_no_data_fails_alone(world: World) -> None:
    fetch = world.make_fetch()

    async def connect() -> Any:
        return Connection()

    async def main() -> None:
        async with world.again(), parallel() as p:
            p.add(connect())
            p.add(connect, name="named")
            p.map(lambda number: connect(), [1])
            p.add(fetch("a"))
            results = await p.gather()
        assert [result.ok for result in results] == [False, False, False, True]
        assert all(isinstance(result.error, UnstorableError) for result in results[:3])

    run_virtually(main)


def test_a_result_that_is_no_data_is_a_failure_like_any_other_for_its_group(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    @tool
    async def connect() -> Any:
        return Connection()

    async def main() -> None:
        async with world.again():
            with pytest.raises(UnstorableError):
                async with parallel(error_strategy="fail_fast") as p:
                    p.add(fetch("slow"))
                    p.add(connect())
                    await p.gather()
            with pytest.raises(UnreadFailures):
                async with parallel() as p:
                    p.add(connect())
        assert asyncio.get_running_loop().time() == 0.0

    run_virtually(main)


def test_the_children_of_an_agent_whose_result_is_no_data_are_kept(world: World) -> None:
    fetch = world.make_fetch()
    result: list[Any] = [Connection()]

    @agent
    async def survey() -> Any:
        await fetch("a")
        return result[0]

    async def main() -> None:
        async with world.again():
            assert not (await survey().outcome()).ok
        result[0] = "data"
        async with world.again():
            assert await survey() == "data"
        assert world.calls == ["a"]

    run_virtually(main)


def test_an_error_that_cannot_be_told_is_recorded_all_the_same(world: World) -> None:
    failures: list[Exception] = [
        Untellable(),
        ValueError(Connection()),
        ExceptionGroup("several", [Untellable(), KeyError(Connection())]),
    ]

    @tool
    async def fail(number: int) -> None:
        raise failures[number]

    async def work() -> list[tuple[bool, int]]:
        results = [await fail(number).outcome() for number in range(3)]
        return [(result.ok, result.attempts) for result in results]

    async def main() -> None:
        await crash(world.again(), work)
        kinds = [outcome.error async for outcome in world.store.outcomes(RUN)]
        assert all(isinstance(error, Exception) for error in kinds)
        before = len(kept(world).entries)
        await crash(world.again(), work)
        assert len(kept(world).entries) == before

    run_virtually(main)


@pytest.mark.parametrize("value", ["\x00", "\ud800", "a\x00b\ud8ffc", {"\x00": ["\udfff"]}, b"\x00\xff", float("inf")])
def test_odd_text_comes_back_as_it_was(world: World, value: Any) -> None:
    @tool
    async def echo() -> Any:
        return value

    async def main() -> None:
        for _ in range(2):
            async with world.again():
                assert await echo() == value

    run_virtually(main)


def test_a_memory_store_that_was_closed_records_nothing_and_says_so() -> None:
    store = MemoryStore()
    world = World()
    world.store = store
    fetch = world.make_fetch()

    async def main() -> None:
        with pytest.raises(StoreError, match="closed"):
            async with world.again():
                await store.aclose()
                await fetch("a")
        with pytest.raises(StoreError, match="closed"):
            async with world.again():
                await fetch("a")
        assert world.begun == []

    run_virtually(main)
