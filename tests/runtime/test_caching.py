"""Results that equal calls share: one call makes them, and nobody else pays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rh_agents import (
    BudgetExceeded,
    CacheScope,
    ExecutionState,
    ExecutionStatus,
    MemoryStore,
    agent,
    parallel,
    run,
    tool,
)
from rh_agents.core.errors import DefinitionError
from rh_agents.errors import UnstorableError
from tests.properties.virtual import run_virtually

CLOCK = 1_000_000.0


class Source:
    """What is asked, and how often."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failures = 0

    async def ask(self, word: str) -> str:
        self.asked.append(word)
        await asyncio.sleep(1.0)
        if self.failures:
            self.failures -= 1
            raise LookupError(word)
        return word.upper()


def test_equal_calls_side_by_side_wait_for_the_first_one() -> None:
    source = Source()
    look_up = tool(cache="run")(source.ask)

    async def program() -> list[tuple[str, bool]]:
        async with parallel(max_workers=10) as p:
            p.map(look_up, ["a", "b", "a", "a", "b"])
            return [(result.unwrap(), result.from_cache) for result in await p.gather()]

    assert run_virtually(lambda: run(program)) == [
        ("A", False),
        ("B", False),
        ("A", True),
        ("A", True),
        ("B", True),
    ]
    assert source.asked == ["a", "b"]


def test_failures_are_not_shared_and_the_next_one_tries() -> None:
    source = Source()
    source.failures = 1
    look_up = tool(cache="run")(source.ask)

    async def program() -> list[bool]:
        async with parallel(max_workers=10) as p:
            p.map(look_up, ["a", "a", "a"])
            return [result.ok for result in await p.gather()]

    assert run_virtually(lambda: run(program)) == [False, True, True]
    assert source.asked == ["a", "a"]


@pytest.mark.parametrize(("scope", "asked"), [("run", 2), ("store", 1)])
def test_results_are_kept_for_the_run_or_for_all_runs_of_the_store(scope: str, asked: int) -> None:
    source, store = Source(), MemoryStore()
    look_up = tool(cache=scope)(source.ask)

    async def program() -> str:
        await look_up("a")
        return await look_up("a")

    for run_id in ("one", "two", "two"):
        assert run_virtually(lambda run_id=run_id: run(program, store=store, run_id=run_id)) == "A"  # type: ignore[misc]
    assert len(source.asked) == asked


def test_what_has_expired_is_asked_again() -> None:
    source, store = Source(), MemoryStore()
    look_up = tool(cache=CacheScope.STORE, ttl=60.0)(source.ask)

    async def program(now: float) -> None:
        async with ExecutionState(store=store, clock=lambda: now):
            await look_up("a")

    for seconds in (0.0, 59.0, 61.0):
        run_virtually(lambda seconds=seconds: program(CLOCK + seconds))  # type: ignore[misc]
    assert len(source.asked) == 2


def test_another_version_of_the_actor_asks_again() -> None:
    source, store = Source(), MemoryStore()

    async def program(version: str) -> None:
        await tool(cache="store", version=version)(source.ask)("a")

    for version in ("1", "1", "2"):
        run_virtually(lambda version=version: run(program, version, store=store))  # type: ignore[misc]
    assert len(source.asked) == 2


def test_a_hit_is_an_outcome_of_its_own_that_is_marked_and_replayed() -> None:
    source, store = Source(), MemoryStore()
    look_up = tool(cache="store")(source.ask)

    async def program() -> list[ExecutionStatus]:
        async with ExecutionState(store=store, run_id="r") as state:
            await look_up("a")
            await look_up("a")
            return [event.execution_status for event in state.history if event.from_cache]

    assert run_virtually(program) == [ExecutionStatus.COMPLETED]
    assert run_virtually(program) == [ExecutionStatus.RECOVERED] * 2
    assert source.asked == ["a"]


def test_an_external_effect_is_not_shared_and_a_ttl_needs_a_cache() -> None:
    async def pay(amount: int) -> None: ...

    with pytest.raises(DefinitionError, match="cannot be cached"):
        tool(cache="run", effect="external", on_unknown="fail")(pay)
    with pytest.raises(DefinitionError, match="needs cache="):
        tool(ttl=60.0)(pay)


def test_what_no_store_can_keep_is_refused_with_the_name_of_the_call() -> None:
    @tool(cache="run")
    async def handle() -> object:
        return object()

    with pytest.raises(UnstorableError, match="handle"):
        run_virtually(lambda: run(handle))


@pytest.mark.parametrize("has_store", [False, True])
def test_what_cannot_be_kept_is_the_failure_of_its_call_and_costs_its_siblings_nothing(has_store: bool) -> None:
    @tool(cache="run")
    async def handle(number: int) -> object:
        return object() if number == 0 else number

    async def main() -> list[object]:
        async with ExecutionState(store=MemoryStore() if has_store else None) as state:
            async with parallel() as p:
                p.map(handle, range(3))
                results = await p.gather()
            failed = [event for event in state.history if event.execution_status is ExecutionStatus.FAILED]
            assert len(failed) == 1
            return [result.result if result.ok else type(result.error) for result in results]

    assert run_virtually(main) == [UnstorableError, 1, 2]


def test_a_cached_call_that_makes_itself_stops_instead_of_waiting_for_itself() -> None:
    @agent(cache="run")
    async def narcissus(number: int) -> int:
        result: int = await narcissus(number)
        return result

    with pytest.raises(BudgetExceeded, match="calls are nested"):
        run_virtually(lambda: asyncio.wait_for(run(lambda: narcissus(1)), 60.0))


def test_what_is_cached_for_a_run_goes_with_the_run() -> None:
    source, store = Source(), MemoryStore()
    look_up = tool(cache="run")(source.ask)

    for _ in range(2):
        run_virtually(lambda: run(lambda: look_up("a"), store=store, run_id="r"))
        run_virtually(lambda: store.delete_run("r"))
    assert source.asked == ["a", "a"]


@pytest.mark.parametrize("has_store", [False, True])
def test_large_results_are_put_into_the_cache_and_taken_out_of_it_beside_the_event_loop(
    has_store: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {"texts": ["x" * 100] * 10_000}
    beside: list[str] = []
    to_thread = asyncio.to_thread

    async def in_thread(function: Any, *args: Any) -> Any:
        beside.append(function.__name__)
        return await to_thread(function, *args)

    monkeypatch.setattr(asyncio, "to_thread", in_thread)

    @tool(cache="run")
    async def make(number: int) -> dict[str, list[str]]:
        return value

    async def main() -> None:
        async with ExecutionState(store=MemoryStore() if has_store else None):
            assert await make(1) == value
            assert (beside.count("encode_any"), beside.count("written")) == (1, has_store)
            assert await make(1) == value
            assert await make(1) is not value

    asyncio.run(main())
    assert beside.count("decode") == 2
