"""Items of a resumed `map` that get their recorded results before they become members: nobody sees the difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rh_agents import ExecutionEvent, ExecutionState, ExecutionStatus, MemoryStore, tool
from rh_agents.core.results import ExecutionResult
from tests.properties.virtual import run_virtually

made: list[Any] = []
fails: list[Any] = []


@tool
async def double(number: Any, times: int = 2) -> Any:
    made.append(number)
    if number in fails:
        raise ValueError(f"no {number}")
    return number * times


ITEMS: dict[str, Sequence[Any]] = {
    "numbers": range(60),
    "identical items": [1, 2, 1, 1, 3, 2] * 5,
    "texts, some of them long": ["a", "b" * 5_000, "c", "d" * 300_000, "e"],
    "lists between numbers": [1, [2, 3], 4, [2, 3], 5],
    "kinds of numbers": [1, 1.0, True, 2, 0, 10**5_000],
}


class Watched:
    """What there is to see of an execution: results as they came, events without their times, counts, calls made."""

    def __init__(self) -> None:
        self.results: list[tuple[Any, ...]] = []
        self.history: list[tuple[Any, ...]] = []
        self.counts: tuple[Any, ...] = ()
        self.made: list[Any] = []

    def see(self, result: ExecutionResult[Any]) -> None:
        told = (result.index, result.item, result.address, result.ok, result.result, result.error_message)
        self.results.append((*told, result.name, result.is_replayed, result.attempts))

    def end(self, state: ExecutionState, group: Any) -> None:
        self.history = [
            (event.execution_status, event.address, event.key, event.name, event.parallel_index, event.group_total,
             event.result, event.message, event.is_replayed, event.attempt)
            for event in state.history
        ]  # fmt: skip
        self.counts = (group.completed, group.failed, group.cancelled, group.recovered, sorted(state.metrics.actors))
        self.made = list(made)

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def execute(
    store: MemoryStore, items: Sequence[Any], *, is_listened_to: bool, ordered: bool = False, **options: Any
) -> Watched:
    watched = Watched()
    made.clear()

    async def main() -> None:
        state = ExecutionState(store=store, run_id="r", **options)
        if is_listened_to:
            state.event_bus.subscribe(lambda _: None)
        async with state, state.parallel(3, name="items") as p:
            p.map(double, items)
            async for result in p.stream(ordered=ordered):
                watched.see(result)
            watched.end(state, p.group)

    run_virtually(main)
    return watched


@pytest.fixture(autouse=True)
def _anew() -> None:
    fails.clear()


@pytest.fixture(params=[False, True], ids=["as they end", "in their order"])
def ordered(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)
def test_results_and_history_are_those_that_somebody_gets_who_listens(items: Sequence[Any], ordered: bool) -> None:
    stores = [MemoryStore(), MemoryStore()]
    for store in stores:
        execute(store, items, is_listened_to=False, ordered=ordered)
    bulk, single = (
        execute(store, items, is_listened_to=listens, ordered=ordered)
        for store, listens in zip(stores, (False, True), strict=True)
    )
    assert bulk.made == []
    assert bulk == single
    assert len(bulk.results) == len(items)


@pytest.mark.parametrize("retry_failed", [True, False])
def test_what_failed_and_what_is_new_takes_its_turn_as_ever(ordered: bool, retry_failed: bool) -> None:
    before, now = list(range(0, 40, 2)), [0, 1, 2, 100, *range(3, 40)]
    stores = [MemoryStore(), MemoryStore()]
    seen = []
    for store, listens in zip(stores, (False, True), strict=True):
        fails.extend((6, 20))
        execute(store, before, is_listened_to=False, ordered=ordered)
        fails.remove(20)
        seen.append(execute(store, now, is_listened_to=listens, ordered=ordered, retry_failed=retry_failed))
    assert seen[0].made == seen[1].made
    assert 2 not in seen[0].made
    assert (6 in seen[0].made) is retry_failed
    assert sorted(seen[0].results) == sorted(seen[1].results)


def test_whoever_subscribes_late_hears_of_each_that_comes_after_that() -> None:
    store, heard = MemoryStore(), list[int | None]()
    execute(store, range(200), is_listened_to=False)

    def hear(event: ExecutionEvent[Any]) -> None:
        if event.execution_status is ExecutionStatus.RECOVERED:
            heard.append(event.parallel_index)

    async def main() -> None:
        state = ExecutionState(store=store, run_id="r")
        async with state, state.parallel(3, name="items") as p:
            p.map(double, iter(range(200)))
            async for result in p.stream():
                if result.index == 50:
                    state.event_bus.subscribe(hear)

    run_virtually(main)
    assert heard == list(range(heard[0] or 0, 200))
    assert 50 < (heard[0] or 0) <= 51 + 2 * 16


@pytest.mark.parametrize("change", ["adds", "cancels"])
def test_an_iterable_that_changes_its_group_is_obeyed_at_once(change: str) -> None:
    seen = []
    for listens in (False, True):
        store = MemoryStore()
        execute(store, range(30), is_listened_to=False)
        seen.append(_with_a_meddling_iterable(store, change, listens=listens))
    assert seen[0] == seen[1]


def _with_a_meddling_iterable(store: MemoryStore, change: str, *, listens: bool) -> list[Any]:
    found: list[Any] = []
    made.clear()

    async def main() -> None:
        state = ExecutionState(store=store, run_id="r")
        if listens:
            state.event_bus.subscribe(lambda _: None)
        async with state, state.parallel(3, name="items") as p:

            def meddle() -> None:
                if change == "adds":
                    p.add(double(1000))
                else:
                    p.cancel()

            def items() -> Any:
                for number in range(30):
                    if number == 10:
                        meddle()
                    yield number

            p.map(double, items())
            found.extend((result.index, result.result, result.is_replayed) for result in await p.gather())

    run_virtually(main)
    return [sorted(found), sorted(made)]


@pytest.mark.parametrize("numbers", [[range(30)], [range(5), [7, 3, 100], range(2, 9)]], ids=["one", "some"])
def test_handles_of_maps_give_their_items_and_results_again(numbers: list[Sequence[int]]) -> None:
    store, seen = MemoryStore(), []

    async def main() -> None:
        async with ExecutionState(store=store, run_id="r") as state, state.parallel(3, name="items") as p:
            handles = [p.map(double, each) for each in numbers]
            seen.append([[(result.item, result.unwrap()) for result in await handle] for handle in handles])

    for _ in range(2):
        run_virtually(main)
    assert seen[0] == seen[1] == [[(number, number * 2) for number in each] for each in numbers]


@pytest.mark.parametrize("is_ordered", [False, True])
def test_the_stream_of_a_map_gives_its_items_again(is_ordered: bool) -> None:
    store, seen = MemoryStore(), []

    async def main() -> None:
        async with ExecutionState(store=store, run_id="r") as state, state.parallel(3, name="items") as p:
            stream = p.map(double, range(30)).stream(ordered=is_ordered)
            seen.append([(result.item, result.unwrap()) async for result in stream])

    for _ in range(2):
        run_virtually(main)
    assert seen[0] == seen[1]
    assert sorted(seen[0]) == [(number, number * 2) for number in range(30)]
