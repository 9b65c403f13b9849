"""How deep calls can be nested, and what is said where that ends."""

from __future__ import annotations

from typing import Any

import pytest

from rh_agents import (
    Budget,
    CircuitBreaker,
    ConcurrencyLimit,
    ExecutionState,
    MemoryStore,
    RateLimit,
    RetryPolicy,
    agent,
    parallel,
    tool,
)
from rh_agents.core.errors import NestingError, RunStopped
from tests.properties.virtual import run_virtually

UNLIMITED = Budget(depth=10_000)
STORES = [None, MemoryStore]


@pytest.mark.parametrize("make_store", STORES)
def test_a_hundred_and_fifty_plain_calls_can_be_nested(make_store: Any) -> None:
    @tool
    async def down(n: int) -> int:
        return 0 if n == 0 else 1 + await down(n - 1)

    async def main() -> None:
        async with ExecutionState(budget=UNLIMITED, store=make_store and make_store()):
            assert await down(150) == 150

    run_virtually(main)


@pytest.mark.parametrize("make_store", STORES)
def test_eighty_calls_with_a_policy_of_every_kind_can_be_nested(make_store: Any) -> None:
    limits = (ConcurrencyLimit(1, name="slots"), RateLimit(requests=10_000, per=1.0, name="rate"))
    breaker = CircuitBreaker()

    @tool(retry=2, timeout=5.0, limits=limits, breaker=breaker, budget=Budget(calls=10_000))
    async def down(n: int) -> int:
        return 0 if n == 0 else 1 + await down(n - 1)

    async def main() -> None:
        async with ExecutionState(budget=UNLIMITED, store=make_store and make_store()):
            assert await down(80) == 80

    run_virtually(main)


@pytest.mark.parametrize("policy", [{}, {"retry": RetryPolicy(max_attempts=5), "timeout": 60.0}])
@pytest.mark.parametrize("make_store", STORES)
def test_where_the_stack_ends_one_error_says_how_deep_and_what_to_do_and_nothing_is_tried_again(
    make_store: Any, policy: dict[str, Any]
) -> None:
    made = 0

    @tool(**policy)
    async def down(n: int) -> int:
        nonlocal made
        made += 1
        return 0 if n == 0 else 1 + await down(n - 1)

    async def main() -> None:
        async with ExecutionState(budget=UNLIMITED, store=make_store and make_store()):
            with pytest.raises(NestingError, match=r"nested 1\d\d deep at down, .*parallel\(\)") as found:
                await down(900)
            assert f"nested {made + 1} deep" in str(found.value)

    run_virtually(main)


def test_members_of_groups_nest_deeper_than_one_stack() -> None:
    @agent
    async def down(n: int) -> int:
        if n == 0:
            return 0
        async with parallel() as p:
            p.add(down(n - 1))
            (result,) = await p.gather()
        return 1 + int(result.unwrap())

    async def main() -> None:
        async with ExecutionState(budget=Budget(depth=10_000, recursion=10_000)):
            assert await down(400) == 400

    run_virtually(main)


def test_without_a_budget_of_its_own_a_run_stops_at_a_hundred_and_twenty_calls() -> None:
    @tool
    async def down(n: int) -> int:
        return 0 if n == 0 else 1 + await down(n - 1)

    async def main() -> None:
        async with ExecutionState():
            assert await down(119) == 119
        with pytest.raises(RunStopped, match="nested 121 deep at down, and 120 is the limit"):
            async with ExecutionState():
                await down(200)

    run_virtually(main)


def test_a_member_for_which_the_stack_has_no_room_costs_its_siblings_nothing() -> None:
    @tool
    async def leaf(n: int) -> int:
        return n

    @tool
    async def deep(n: int) -> int:
        return 0 if n == 0 else 1 + await deep(n - 1)

    async def main() -> list[bool]:
        async with ExecutionState(budget=UNLIMITED, store=MemoryStore()):
            async with parallel() as p:
                p.map(leaf, range(3))
                p.add(deep(900))
                results = await p.gather()
            assert isinstance(results[-1].error, NestingError)
            return [result.ok for result in results]

    assert run_virtually(main) == [True, True, True, False]


def test_functions_of_the_program_between_the_calls_count_as_well() -> None:
    """As in frameworks, where a step of the agent is thirty functions below the step before."""

    @tool
    async def down(n: int) -> int:
        return 0 if n == 0 else 1 + await through(30, n - 1)

    async def through(functions: int, n: int) -> int:
        return await (down(n) if functions == 0 else through(functions - 1, n))

    async def main() -> None:
        async with ExecutionState(budget=UNLIMITED, store=MemoryStore()):
            with pytest.raises(NestingError, match=r"nested [12]\d deep at down"):
                await down(100)

    run_virtually(main)


def test_a_function_that_calls_itself_without_end_fails_with_its_own_error() -> None:
    def endless(n: int) -> int:
        return 1 + endless(n + 1)

    @tool
    async def leaf() -> int:
        return endless(0)

    @agent
    async def around() -> int:
        return 1 + await leaf()

    async def main() -> None:
        async with ExecutionState(store=MemoryStore()) as state:
            for call in (leaf(), around()):
                with pytest.raises(RecursionError) as found:
                    await call
                assert not isinstance(found.value, NestingError)
            assert await state.unused_outcomes() == []

    run_virtually(main)
