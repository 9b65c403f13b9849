"""However a `map` is cut, by whomever it is made and wherever its driver dies, it is the same map."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rh_agents import ExecutionState, current, open_store, parallel, tool
from rh_agents.workers import Worker
from tests.runtime.test_shards import Threads

CALLS: list[tuple[int, str]] = []
IN_FLIGHT: set[int] = set()
MAX_WORKERS = 3


@tool
async def double(number: int) -> int:
    CALLS.append((number, current().idempotency_key))
    IN_FLIGHT.add(id(asyncio.current_task()))
    try:
        await asyncio.sleep(0.001 * (number % 3))
    finally:
        IN_FLIGHT.discard(id(asyncio.current_task()))
    return 2 * number


class Way(NamedTuple):
    """How the items of a map are made."""

    shard: int | None
    on: str = "workers"


class Seen(NamedTuple):
    """What came of a map: its results by item, its outcomes by key, and the idempotency keys of its calls."""

    results: Counter[int]
    keys: frozenset[bytes]
    idempotency: frozenset[tuple[int, str]]


WAYS = (Way(None), Way(7), Way(500), Way(7, "process"), Way(500, "process"))


async def mapped(place: Path, items: list[int], way: Way, seen: list[Any] | None = None) -> list[int]:
    where: dict[str, Any] = {} if way.shard is None else {"shard": way.shard, "on": way.on, "workers": 2}
    found = []
    async with (
        ExecutionState(store=f"{place}/runs.db", run_id="monday", executors={"process": Threads()}),
        parallel(max_workers=MAX_WORKERS, name="items") as p,
    ):
        p.map(double, items, **where)
        async for each in p.stream():
            found.append(each.unwrap())
            if seen is not None:
                seen.append((each.index, each.result))
    return found


async def looked_at(place: Path, results: list[int]) -> Seen:
    store: Any = open_store(f"{place}/runs.db")
    keys = frozenset([each.key async for each in store.outcomes("monday")])
    assert await store.check() == []
    assert await store.children("monday") == []
    await store.aclose()
    return Seen(Counter(results), keys, frozenset(CALLS))


async def with_workers(place: Path, work: Any, count: int = 2) -> Any:
    made = [Worker(f"{place}/runs.db", max_runs=1) for _ in range(count)]
    tasks = [asyncio.create_task(each.run()) for each in made]
    try:
        return await work
    finally:
        for each in made:
            each.stop(grace=0)
        await asyncio.wait(tasks)


async def killed(place: Path, items: list[int], way: Way, calls: int) -> list[Any]:
    """Begin a map, and kill its driver after so many calls; what its stream has given by then."""
    given_before: list[Any] = []
    driver = asyncio.create_task(mapped(place, items, way, given_before))
    while len(CALLS) < calls and not driver.done():  # noqa: ASYNC110 - calls of other event loops set no event here
        await asyncio.sleep(0.002)
    driver.cancel()
    with suppress(asyncio.CancelledError):
        await driver
    return given_before


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(st.integers(0, 9), min_size=1, max_size=25), way=st.sampled_from(WAYS[1:]))
def test_keys_idempotency_keys_and_results_do_not_depend_on_shards(
    tmp_path_factory: pytest.TempPathFactory, items: list[int], way: Way
) -> None:
    async def main() -> None:
        places, seen = [tmp_path_factory.mktemp("runs") for _ in range(2)], []
        for place, each in zip(places, (WAYS[0], way), strict=True):
            CALLS.clear()
            seen.append(await looked_at(place, await with_workers(place, mapped(place, items, each))))
            assert Counter(number for number, _ in CALLS) == Counter(items)
        assert seen[0] == seen[1]

    asyncio.run(main())


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    items=st.lists(st.integers(0, 9), min_size=4, max_size=30),
    first=st.sampled_from(WAYS),
    second=st.sampled_from(WAYS),
    change=st.sampled_from(["same", "inserted", "reversed"]),
    share=st.floats(0.1, 0.9),
)
def test_a_map_whose_driver_died_goes_on_in_any_other_way(
    tmp_path_factory: pytest.TempPathFactory,
    items: list[int],
    first: Way,
    second: Way,
    change: Literal["same", "inserted", "reversed"],
    share: float,
) -> None:
    async def main() -> None:
        CALLS.clear()
        whole, place = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("runs")
        expected = await looked_at(whole, await mapped(whole, items, WAYS[0]))
        CALLS.clear()
        now = {"same": items, "inserted": [77, *items], "reversed": items[::-1]}[change]

        async def both() -> list[int]:
            given_before = await killed(place, items, first, int(share * len(items)))
            again: list[Any] = []
            found = await mapped(place, now, second, again)
            if change == "same":  # what the program had seen comes first, and in the order in which it saw it
                assert again[: len(given_before)] == given_before
            return found

        seen = await looked_at(place, await with_workers(place, both()))
        assert seen.results == Counter(2 * number for number in now)
        assert seen.keys >= expected.keys
        assert len(seen.keys) == len(now)
        assert seen.idempotency >= expected.idempotency
        repeated = (Counter(number for number, _ in CALLS) - Counter(now)).total()
        assert repeated <= (0 if first.on == "workers" and first.shard else 2 * MAX_WORKERS)

    asyncio.run(main())


def test_one_process_and_four_record_the_same_keys(tmp_path: Path) -> None:
    async def main() -> None:
        seen = []
        for count in (1, 4):
            place = tmp_path / str(count)
            place.mkdir()
            CALLS.clear()
            found = await with_workers(place, mapped(place, list(range(40)), Way(5)), count)
            seen.append(await looked_at(place, found))
        assert seen[0] == seen[1]

    asyncio.run(main())
