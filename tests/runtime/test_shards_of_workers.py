"""`map(on="workers")`: workers take shards from a queue, and go on whatever becomes of who has their group open."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from rh_agents import Budget, ErrorStrategy, ExecutionState, current, open_store, parallel, run, tool
from rh_agents.core.errors import (
    BudgetExceeded,
    DefinitionError,
    GroupTimeout,
    RunIsLive,
    RunStopped,
    TooManyFailures,
)
from rh_agents.core.ports.summary import summary_of_run
from rh_agents.core.queueing import Wanted
from rh_agents.core.values import decode, encode_any
from rh_agents.workers import Worker

CALLS: list[tuple[int, str]] = []
"""What was called: the argument, and the idempotency key."""
GATES: dict[str, asyncio.Event] = {}
"""While there is one under "closed", calls wait for it after they have begun."""
ALIVE: list[int] = []
"""One entry for each call under way."""


@pytest.fixture(autouse=True)
def _nothing_called_yet() -> None:
    CALLS.clear()
    GATES.clear()
    ALIVE.clear()


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test as a plain function, which runs it on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run


@tool
async def double(number: int) -> int:
    CALLS.append((number, current().idempotency_key))
    ALIVE.append(number)
    try:
        await asyncio.sleep(0.001)
        if "closed" in GATES:
            await GATES["closed"].wait()
        if number % 10 == 7:
            raise ValueError(f"{number} is none")
        return 2 * number
    finally:
        ALIVE.remove(number)


def numbers() -> list[int]:
    return [number for number, _ in CALLS]


@asynccontextmanager
async def workers(place: Path, count: int = 2, **options: Any) -> AsyncIterator[list[asyncio.Task[None]]]:
    """So many workers, which are stopped at the end. Cancelling one of these tasks hands on what it does."""
    made = [Worker(f"{place}/runs.db", **{"max_runs": 2, **options}) for _ in range(count)]
    tasks = [asyncio.create_task(worker.run()) for worker in made]
    try:
        yield tasks
    finally:
        for worker in made:
            worker.stop(grace=0)
        await asyncio.wait(tasks, timeout=10)


async def mapped(
    place: Path,
    items: Sequence[int],
    *,
    shard: int | None = 5,
    on: str = "workers",
    group: Mapping[str, Any] = {},
    function: Any = double,
    seen: list[int] | None = None,
    opened: asyncio.Event | None = None,
    **state: Any,
) -> list[tuple[int, Any, str | None]]:
    """Map a function in a run, and return what the stream of the group gave."""
    where: dict[str, Any] = {} if shard is None else {"shard": shard, "on": on, "workers": 4}
    found = []
    async with (
        ExecutionState(store=f"{place}/runs.db", run_id="monday", **state),
        parallel(max_workers=3, name="items", **group) as p,
    ):
        if opened is not None:
            opened.set()
        p.map(function, items, **where)
        async for each in p.stream():
            found.append((each.index, each.result, each.error_message))
            if seen is not None and each.result is not None:
                seen.append(each.result)
    return found


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what other event loops and stores do sets no event here
        await asyncio.sleep(0.01)


async def until_it_has_ended(place: Path) -> None:
    store: Any = open_store(f"{place}/runs.db")
    while (await store.find_run("monday")).status != "completed":  # noqa: ASYNC110 - the same
        await asyncio.sleep(0.05)
    await store.aclose()


async def begun_in(store: Any) -> int:
    events = [each.event async for each in store.events("monday", values=False)]
    return sum(event.key is not None and event.execution_status == "started" for event in events)


async def first_children(store: Any) -> list[Any]:
    while await store.find_run("monday") is None or not await store.children("monday"):  # noqa: ASYNC110 - the same
        await asyncio.sleep(0.01)
    return list(await store.children("monday"))


async def children(place: Path) -> list[Any]:
    store: Any = open_store(f"{place}/runs.db")
    found = await store.children("monday")
    await store.aclose()
    return list(found)


@on_a_loop
async def test_workers_make_what_a_map_without_them_makes(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = await mapped(tmp_path / "whole", [3, 4, 3, 17, 5, 3, 20], shard=None)
    called = set(CALLS)
    CALLS.clear()
    async with workers(tmp_path):
        assert sorted(await mapped(tmp_path, [3, 4, 3, 17, 5, 3, 20], shard=2), key=str) == sorted(whole, key=str)
    assert set(CALLS) == called
    assert len(CALLS) == 7
    assert await children(tmp_path) == []
    first = await mapped(tmp_path, [3, 4, 3, 17, 5, 3, 20], shard=None, retry_failed=False)
    assert len(first) == 7
    assert len(CALLS) == 7


@on_a_loop
async def test_shards_go_on_without_their_driver_and_the_next_one_waits_for_them(tmp_path: Path) -> None:
    GATES["closed"] = asyncio.Event()
    async with workers(tmp_path):
        driver = asyncio.create_task(mapped(tmp_path, range(12), shard=4))
        await until(lambda: len(ALIVE) >= 6)
        store = open_store(f"{tmp_path}/runs.db")
        while await begun_in(store) < 6:  # noqa: ASYNC110 - what the driver takes over sets no event here
            await asyncio.sleep(0.02)
        driver.cancel()
        with suppress(asyncio.CancelledError):
            await driver
        GATES.pop("closed").set()
        await until(lambda: len(CALLS) == 12)
        found = await mapped(tmp_path, range(12), shard=100)
    events = [each.event async for each in store.events("monday")]
    begun = Counter(event.key for event in events if event.key is not None and event.execution_status == "started")
    await store.aclose()
    assert begun.total() == len(begun) == 12, "no entry is taken over twice"
    assert sorted(number for index, number, _ in found if number is not None) == [2 * n for n in range(12) if n != 7]
    assert Counter(numbers()) == Counter(range(12))


@pytest.mark.parametrize(("shard", "on"), [(3, "workers"), (4, "process"), (None, "")])
@on_a_loop
async def test_a_shard_that_is_under_way_is_no_conflict_whoever_makes_the_rest(
    tmp_path: Path, shard: int | None, on: str
) -> None:
    GATES["closed"] = asyncio.Event()
    async with workers(tmp_path, 1, max_runs=1):
        driver = asyncio.create_task(mapped(tmp_path, range(6), shard=3))
        await until(lambda: len(ALIVE) == 3)
        driver.cancel()
        with suppress(asyncio.CancelledError):
            await driver
        again = asyncio.create_task(mapped(tmp_path, [50, *reversed(range(6))], shard=shard, on=on))
        await asyncio.sleep(0.3)
        assert not again.done()
        GATES.pop("closed").set()
        found = await again
    assert len(found) == 7
    assert Counter(number for number in numbers() if number < 3) == Counter(range(3))
    assert await children(tmp_path) == []


@on_a_loop
async def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    GATES["closed"] = asyncio.Event()
    async with workers(tmp_path):
        driver = asyncio.create_task(mapped(tmp_path, range(5)))
        await until(lambda: len(ALIVE) > 0)
        with pytest.raises(RunIsLive):
            await mapped(tmp_path, range(5))
        GATES.pop("closed").set()
        assert len(await driver) == 5
    assert Counter(numbers()) == Counter(range(5))


@on_a_loop
async def test_a_failure_in_one_shard_ends_all_of_them_at_once(tmp_path: Path) -> None:
    async with workers(tmp_path, 2):
        with pytest.raises(ValueError, match="7 is none"):
            await mapped(tmp_path, range(400), shard=5, group={"error_strategy": ErrorStrategy.FAIL_FAST})
        count = len(CALLS)
        assert count < 400
        await asyncio.sleep(0.2)
        assert len(CALLS) == count
        CALLS.clear()
        with pytest.raises(ValueError, match="7 is none"):
            await mapped(tmp_path, range(400), group={"error_strategy": ErrorStrategy.FAIL_FAST}, retry_failed=False)
    assert not CALLS


@on_a_loop
async def test_fail_after_counts_over_all_shards(tmp_path: Path) -> None:
    async with workers(tmp_path, 2):
        with pytest.raises(TooManyFailures, match="after 3 of"):
            await mapped(tmp_path, range(1000), shard=10, group={"fail_after": 3})
    assert len(CALLS) < 1000


@on_a_loop
async def test_the_timeout_of_a_group_stops_what_workers_make_of_it(tmp_path: Path) -> None:
    GATES["closed"] = asyncio.Event()
    async with workers(tmp_path):
        with pytest.raises(GroupTimeout):
            await mapped(tmp_path, range(10), group={"timeout": 1.5})
        assert not ALIVE
        assert await children(tmp_path) == []


@on_a_loop
async def test_an_interruption_of_the_run_lets_what_is_in_flight_end_and_leaves_the_rest(tmp_path: Path) -> None:
    async with workers(tmp_path):

        async def stopped() -> None:
            async with (
                ExecutionState(store=f"{tmp_path}/runs.db", run_id="monday") as state,
                parallel(max_workers=2, name="items") as p,
            ):
                p.map(double, range(0, 10_000, 10), shard=50, on="workers", workers=4)
                async for _ in p.stream():
                    state.request_interrupt("a deploy")

        with pytest.raises(RunStopped):
            await stopped()
        count = len(CALLS)
        assert count < 1000
        await asyncio.sleep(0.2)
        assert len(CALLS) == count
        await mapped(tmp_path, range(0, 10_000, 10), shard=70)
    assert Counter(numbers()) == Counter(range(0, 10_000, 10))


@on_a_loop
async def test_a_budget_of_calls_holds_over_all_workers(tmp_path: Path) -> None:
    async with workers(tmp_path):
        with pytest.raises(BudgetExceeded):
            await mapped(tmp_path, range(0, 1000, 10), group={"budget": Budget(calls=20)})
        assert len(CALLS) == 20
        await mapped(tmp_path, range(0, 1000, 10), group={"budget": Budget(calls=100)})
    assert len(CALLS) == 100


@on_a_loop
async def test_who_pauses_a_run_pauses_its_shards_and_they_go_on_with_it(tmp_path: Path) -> None:
    store: Any = open_store(f"{tmp_path}/runs.db")
    async with workers(tmp_path):
        seen: list[int] = []
        driver = asyncio.create_task(mapped(tmp_path, range(0, 20_000, 10), shard=1000, seen=seen))
        await until(lambda: len(seen) > 0)
        await store.control("monday").pause()
        await asyncio.sleep(2.5)
        count = len(CALLS)
        await asyncio.sleep(0.4)
        assert len(CALLS) == count < 2000
        await store.control("monday").unpause()
        assert len(await driver) == 2000
    assert max(Counter(numbers()).values()) == 1
    await store.aclose()


@on_a_loop
async def test_a_member_is_cancelled_by_name_wherever_it_is_made(tmp_path: Path) -> None:
    GATES["closed"] = asyncio.Event()
    store: Any = open_store(f"{tmp_path}/runs.db")
    async with workers(tmp_path):
        driver = asyncio.create_task(mapped(tmp_path, range(3), shard=3))
        await until(lambda: len(ALIVE) == 3)
        await store.control("monday").cancel(["items[1]::double"])
        await until(lambda: len(ALIVE) == 2)
        GATES.pop("closed").set()
        found = await driver
    assert [index for index, _, message in found if message is not None] == [1]
    await store.aclose()


@on_a_loop
async def test_a_worker_that_is_told_to_end_hands_its_shard_on(tmp_path: Path) -> None:
    GATES["closed"] = asyncio.Event()
    async with workers(tmp_path, 1, max_runs=1) as first:
        driver = asyncio.create_task(mapped(tmp_path, range(6), shard=6))
        await until(lambda: len(ALIVE) == 3)
        first[0].cancel()
        with suppress(asyncio.CancelledError):
            await first[0]
        GATES.pop("closed").set()
        async with workers(tmp_path, 1):
            assert len(await driver) == 6
    assert Counter(numbers()) == Counter([0, 0, 1, 1, 2, 2, 3, 4, 5])


@on_a_loop
async def test_a_shard_that_no_worker_survives_fails_and_the_others_do_not(tmp_path: Path) -> None:
    store: Any = open_store(f"{tmp_path}/runs.db")
    await store.runs()
    driver = asyncio.create_task(mapped(tmp_path, range(0, 40, 10), shard=2))
    found = await first_children(store)
    flow = (await store.find_run(found[0].run_id)).flow
    for _ in range(5):  # each of these dies with it
        dying: Any = open_store(f"{tmp_path}/runs.db")
        row = await store.engine.run(found[0].run_id)
        silent = () if row.owner is None else ((row.number, row.fence, row.heartbeat),)
        taken = await dying.claim_next(Wanted("default", [flow], "dying", silent=silent))
        assert taken.run_id == found[0].run_id
        dying._claimed.clear()
        await dying.aclose()
    async with workers(tmp_path, 1):
        result = await driver
    failed = {index: message for index, _, message in result if message is not None}
    assert set(failed) == {0, 1}
    assert "workers have died with it" in failed[0]
    await store.aclose()


@on_a_loop
async def test_a_function_that_workers_cannot_find_is_refused(tmp_path: Path) -> None:
    async def local(number: int) -> int:
        return number

    with pytest.raises(DefinitionError, match="top level of a module"):
        await mapped(tmp_path, range(3), function=local)


@on_a_loop
async def test_a_worker_that_cannot_import_the_function_leaves_its_shards(tmp_path: Path) -> None:
    said: list[str] = []

    def load(target: str) -> Any:
        raise DefinitionError(f"no {target} here")

    async with workers(tmp_path, 1, load=load, report=said.append):
        driver = asyncio.create_task(mapped(tmp_path, range(3)))
        await until(lambda: len(said) > 0)
        assert said == ["left to other workers: no tests.runtime.test_shards_of_workers:double here"]
        assert not CALLS
        async with workers(tmp_path, 1):
            assert len(await driver) == 3


@tool
async def outer(count: int) -> int:
    async with parallel(max_workers=2, name="inner") as p:
        p.map(double, range(count), shard=2, on="workers", workers=2)
        return sum([each.result or 0 for each in await p.gather()])


@on_a_loop
async def test_a_worker_makes_the_shards_of_a_run_that_it_executes_itself(tmp_path: Path) -> None:
    await run.submit(outer, 4, store=f"{tmp_path}/runs.db", run_id="monday")
    async with workers(tmp_path, 1, max_runs=1):
        await until_it_has_ended(tmp_path)
    assert Counter(numbers()) == Counter(range(4))


@on_a_loop
async def test_a_shard_of_a_later_version_is_left_to_workers_that_know_it(tmp_path: Path) -> None:
    store: Any = open_store(f"{tmp_path}/runs.db")
    await store.runs()
    driver = asyncio.create_task(mapped(tmp_path, range(3)))
    found = await first_children(store)
    row = await store.engine.run(found[0].run_id)
    later = encode_any({**decode(row.input), "what_came_later": 1})
    new = dataclasses.replace(row, input=later, fence=row.fence + 1)
    assert await store.engine.writer.done(lambda session: session.replace(row, new))
    said: list[str] = []
    async with workers(tmp_path, 1, report=said.append):
        await until(lambda: any("left to other workers" in line for line in said))
        assert not CALLS
        while (await store.children("monday"))[0].claims:  # noqa: ASYNC110 - what is written sets no event
            await asyncio.sleep(0.02)
        assert (await store.children("monday"))[0].is_ready
    driver.cancel()
    with suppress(asyncio.CancelledError):
        await driver
    await store.aclose()


@on_a_loop
async def test_what_workers_go_on_to_make_is_counted_while_no_driver_is_there(tmp_path: Path) -> None:
    store: Any = open_store(f"{tmp_path}/runs.db")
    GATES["closed"] = asyncio.Event()
    async with workers(tmp_path, 1):
        driver = asyncio.create_task(mapped(tmp_path, range(0, 60, 10), shard=6))
        await until(lambda: len(ALIVE) == 3)
        driver.cancel()
        with suppress(asyncio.CancelledError):
            await driver
        GATES.pop("closed").set()
        await until(lambda: len(CALLS) == 6 and not ALIVE)
        while (await summary_of_run(store, "monday")).outcomes < 6:  # noqa: ASYNC110 - what is written sets no event
            await asyncio.sleep(0.02)
    shown = await asyncio.to_thread(capture, "show", "monday", "--store", f"{tmp_path}/runs.db")
    assert "6 finished calls" in shown
    assert "shards: 1 completed" in shown
    planned = await asyncio.to_thread(capture, "export", "monday", "--outcomes", "--store", f"{tmp_path}/runs.db")
    assert len(planned.splitlines()) == 6
    assert [info.run_id for info in await store.runs()] == ["monday"]
    await store.delete_run("monday")
    assert await store.find_run("monday") is None
    await store.aclose()


def capture(*words: str) -> str:
    """What a command prints."""
    done = subprocess.run([sys.executable, "-m", "rh_agents", *words], capture_output=True, text=True, check=True)
    return done.stdout
