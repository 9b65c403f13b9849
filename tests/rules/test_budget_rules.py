"""Budgets, usage, prices and spending: sums that have to come out right."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents import Budget, Price, Spending, Usage
from rh_agents.core._limits.ledgers import Ledger, Reservation

counts = st.integers(0, 10**9)
usages = st.builds(Usage, counts, counts, counts, counts, counts, st.integers(0, 1000).map(float))


# -- usage and prices --------------------------------------------------------------------------------------------------


@given(usages, usages, usages)
def test_usages_add_up_in_any_order_and_come_apart_again(a: Usage, b: Usage, c: Usage) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert (a + b) - b == a
    assert a + Usage() == a
    assert (a + b).tokens == a.tokens + b.tokens


@given(usages)
def test_a_usage_comes_back_from_its_json_which_has_only_what_there_is(usage: Usage) -> None:
    data = usage.as_json()
    assert all(data.values())
    assert Usage.from_json({**data, "of a later version": 1}) == usage
    assert bool(data) == bool(usage)


def test_prices_are_for_a_million_tokens_and_cached_ones_have_their_own() -> None:
    usage = Usage(input_tokens=1_000_000, output_tokens=500_000, cached_tokens=400_000)
    assert Price(input=2.0, output=8.0).cost(usage) == pytest.approx(2.0 + 4.0)
    assert Price(input=2.0, output=8.0, cached_input=0.5).cost(usage) == pytest.approx(1.2 + 0.2 + 4.0)
    assert Price(input=2.0, output=8.0, cached_input=0.0).cost(usage) == pytest.approx(1.2 + 4.0)
    written = Usage(input_tokens=1_000_000, cached_tokens=400_000, cache_write_tokens=200_000)
    assert Price(input=2.0, output=8.0, cached_input=0.5).cost(written) == pytest.approx(0.8 + 0.2 + 0.4)
    assert Price(input=2.0, output=8.0, cached_input=0.5, cache_write=2.5).cost(written) == pytest.approx(
        0.8 + 0.2 + 0.5
    )
    longer = replace(written, long_cache_write_tokens=50_000)
    assert Price(2.0, 8.0, 0.5, 2.5).cost(longer) == Price(2.0, 8.0, 0.5, 2.5).cost(written)
    assert Price(2.0, 8.0, 0.5, 2.5, long_cache_write=4.0).cost(longer) == pytest.approx(0.8 + 0.2 + 0.375 + 0.2)


@pytest.mark.parametrize("number", [-1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", ["input", "output", "cached_input", "cache_write", "long_cache_write"])
def test_a_price_is_a_number_from_zero_on(name: str, number: float) -> None:
    numbers: dict[str, Any] = {"input": 1.0, "output": 1.0, name: number}
    with pytest.raises(ValueError, match=name):
        Price(**numbers)


# -- spending ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | usages, st.integers(0, 1))))
def test_what_the_actors_spent_is_what_the_run_spent(plan: list[tuple[str, Usage | None, int]]) -> None:
    spending = Spending()
    for name, usage, calls in plan:
        spending.add(name, usage, calls)
    assert sum(spending.by_actor.values(), Usage()) == spending.usage
    assert spending.calls == sum(calls for _, _, calls in plan)
    copy = spending.copy()
    spending.add("a", Usage(1), 1)
    assert copy.calls == spending.calls - 1
    assert copy.usage + Usage(1) == spending.usage


def test_spending_says_what_most_of_it_went_to() -> None:
    spending = Spending()
    spending.add("planner", Usage(input_tokens=1_000, output_tokens=500, cost=0.25), 2)
    spending.add("writer", Usage(input_tokens=2_000, cost=1.5), 1)
    assert str(spending) == "3 calls, 3,500 tokens, $1.7500 (writer $1.5000; planner $0.2500)"
    assert str(Spending()) == "0 calls"


def test_spending_says_how_much_of_it_is_an_estimate() -> None:
    spending = Spending()
    spending.add("m", Usage(input_tokens=10, requests=3), 3)
    spending.add("m", Usage(input_tokens=10, requests=1, estimates=1), 1)
    assert str(spending) == "4 calls, 20 tokens, 1 of 4 requests estimated, no price for m (m 20 tokens)"


# -- budgets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cost", "tokens", "calls", "seconds", "depth", "recursion"])
@pytest.mark.parametrize("number", [-1, math.nan, True])
def test_a_budget_is_made_of_numbers_from_zero_on(name: str, number: float) -> None:
    numbers: dict[str, Any] = {name: number}
    with pytest.raises(ValueError, match=f"Budget\\({name}="):
        Budget(**numbers)


@given(
    st.integers(0, 100),
    st.lists(st.tuples(st.integers(0, 40), st.floats(0, 1)), max_size=40),
)
def test_what_is_reserved_and_spent_is_never_more_than_the_budget(most: int, plan: list[tuple[int, float]]) -> None:
    ledger, under_way = Ledger(Budget(tokens=most), "", "", Spending(), time=lambda: 0.0), list[tuple[Usage, float]]()
    for tokens, share in plan:
        need = Usage(output_tokens=tokens)
        if ledger.missing(need, 1) is None and ledger.has_room(need):
            ledger.reserved = ledger.reserved + need
            under_way.append((need, share))
        elif under_way:
            reserved, used = under_way.pop(0)
            ledger.reserved = ledger.reserved - reserved
            ledger.spend("model", Usage(output_tokens=int(reserved.tokens * used)))
        assert ledger.spent.usage.tokens + ledger.reserved.tokens <= most


@pytest.mark.parametrize(
    ("budget", "need", "missing"),
    [
        (Budget(calls=2), Usage(), None),
        (Budget(calls=1), Usage(), "calls=1"),
        (Budget(tokens=100), Usage(output_tokens=50), None),
        (Budget(tokens=100), Usage(output_tokens=51), "tokens=100"),
        (Budget(cost=1.0), Usage(cost=0.5), None),
        (Budget(cost=1.0), Usage(cost=0.6), "cost=1"),
        (Budget(seconds=10.5), Usage(), None),
        (Budget(seconds=10.0), Usage(), "seconds=10"),
        (Budget(tokens=0), Usage(), "tokens=0"),
        (Budget(), Usage(10**12, 10**12, cost=1e12), None),
    ],
)
def test_a_budget_says_what_does_not_suffice(budget: Budget, need: Usage, missing: str | None) -> None:
    spent = Spending(Usage(output_tokens=50, cost=0.5), calls=1, seconds=4.0)
    times = iter([100.0, 106.0])
    ledger = Ledger(budget, "", "", spent, time=lambda: next(times))
    ledger.open()
    assert ledger.missing(need, 1) == missing


def test_time_goes_on_only_while_it_is_under_way_and_earlier_executions_count() -> None:
    times = iter([1_000.0, 1_005.0, 1_020.0])
    ledger = Ledger(Budget(seconds=60.0), "", "", Spending(seconds=10.0), time=lambda: next(times))
    assert ledger.seconds == 10.0
    ledger.open()
    assert ledger.charge == 15.0
    ledger.close()
    assert ledger.seconds == 30.0
    assert Ledger(Budget(tokens=1), "", "", Spending(seconds=10.0), time=lambda: 0.0).charge == 0.0


def test_fractions_that_were_reserved_leave_nothing_behind_when_they_are_given_back() -> None:
    ledger = Ledger(Budget(cost=0.3), "", "", Spending(), time=lambda: 0.0)
    taken = [Reservation([ledger], [], "model", Usage(cost=cost)) for cost in (0.1, 0.07, 0.13)]
    for each in taken:
        each.give_back()
        each.give_back()
    assert ledger.reserved == Usage()
    assert ledger.has_room(Usage(cost=0.3)), "else who needs it all waits for ever: nothing is missing"


def test_who_waits_is_told_when_something_is_settled() -> None:
    async def main() -> None:
        class Run:
            def watch(self, tell: Any) -> None: ...
            def unwatch(self, tell: Any) -> None: ...

        ledger: Any = Ledger(Budget(tokens=1), "", "", Spending(), time=lambda: 0.0)
        waiting = [asyncio.create_task(ledger.change(Run(), Usage(), 1)) for _ in range(3)]
        await asyncio.sleep(0)
        ledger.settle()
        await asyncio.gather(*waiting)

    asyncio.run(main())
