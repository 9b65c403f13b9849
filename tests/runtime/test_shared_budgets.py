"""Budgets that runs share through their store: together they spend no more than is stated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rh_agents import (
    Budget,
    BudgetExceeded,
    MemoryStore,
    Tool,
    Usage,
    agent,
    parallel,
    report_usage,
    run,
    tool,
)
from rh_agents.core.errors import StoreError, UsageError
from rh_agents.core.policies.sharing.budgets import BUDGET_LEASE
from tests.properties.virtual import run_virtually


def now() -> float:
    return asyncio.get_running_loop().time()


class Estimated(Tool):
    """A tool of which it may be known that it takes 100 tokens at most."""

    is_known: bool = True

    def estimate_input(self, input_data: object) -> Usage | None:
        return Usage(input_tokens=100) if self.is_known else None


class Bill:
    """Calls that take a second and use up to 100 tokens, and what was paid for them."""

    def __init__(self, used: int = 100) -> None:
        self.used = used
        self.paid: list[int] = []
        self.says_beforehand = True

    @property
    def tokens(self) -> int:
        return len(self.paid) * self.used

    def calls(self, count: int, first: int = 0, workers: int = 5) -> Callable[[], Awaitable[int]]:
        """A program that makes so many of them."""

        async def spend(number: int) -> int:
            self.paid.append(number)
            await asyncio.sleep(1.0)
            report_usage(Usage(input_tokens=self.used))
            return number

        actor = Estimated(name="spend", handler=spend, is_known=self.says_beforehand)

        async def program() -> int:
            async with parallel(max_workers=workers, name="calls") as p:
                p.map(actor, range(first, first + count))
                return len(await p.gather())

        return program


def tokens(most: int, name: str = "team") -> Budget:
    return Budget(tokens=most, shared=True, name=name)


async def result_of(running: Awaitable[Any]) -> Any:
    try:
        return await running
    except BudgetExceeded as stopped:
        return stopped


def test_runs_side_by_side_spend_all_of_it_and_no_more() -> None:
    bill, store = Bill(), MemoryStore(clock=now)

    async def program() -> list[Any]:
        programs = [bill.calls(50, first=which * 100) for which in range(3)]
        return await asyncio.gather(*(result_of(run(each, store=store, budget=tokens(4_000))) for each in programs))

    stopped = run_virtually(program)
    assert bill.tokens == 4_000
    assert all(isinstance(each, BudgetExceeded) for each in stopped)
    assert "the shared budget 'team', tokens=4,000, does not suffice for another call (spend)" in str(stopped[0])
    assert "40 calls, 4,000 tokens by all who share it" in str(stopped[-1])


def test_calls_that_use_less_than_they_might_leave_the_rest_to_all() -> None:
    bill, store = Bill(used=40), MemoryStore(clock=now)

    async def program() -> list[Any]:
        programs = [bill.calls(50, first=which * 100) for which in range(3)]
        return await asyncio.gather(*(result_of(run(each, store=store, budget=tokens(4_000))) for each in programs))

    run_virtually(program)
    assert 4_000 - 100 < bill.tokens <= 4_000


def test_of_calls_that_say_nothing_beforehand_the_largest_so_far_is_reserved_in_all_runs_and_later_ones() -> None:
    bill, store = Bill(), MemoryStore(clock=now)
    bill.says_beforehand = False

    async def program() -> None:
        programs = [bill.calls(50, first=which * 100) for which in range(3)]
        await asyncio.gather(*(result_of(run(each, store=store, budget=tokens(4_050))) for each in programs))
        assert bill.tokens == 4_000
        assert isinstance(
            await result_of(run(bill.calls(9, first=400), store=store, budget=tokens(4_050))), BudgetExceeded
        )

    run_virtually(program)
    assert bill.tokens == 4_000, "a run that begins now has heard of it from the store"


def test_calls_that_say_nothing_overdraw_a_budget_by_no_more_than_what_is_under_way_before_one_has_ended() -> None:
    bill, store = Bill(), MemoryStore(clock=now)
    bill.says_beforehand = False

    async def program() -> None:
        programs = [bill.calls(50, first=which * 100) for which in range(3)]
        await asyncio.gather(*(result_of(run(each, store=store, budget=tokens(1_000))) for each in programs))

    run_virtually(program)
    assert 1_000 < bill.tokens <= 1_000 + 3 * 5 * 100, "five at a time in each of three runs"


def test_one_after_the_other_they_count_on_from_what_was_spent_before_and_a_larger_one_goes_on() -> None:
    bill, store = Bill(), MemoryStore(clock=now)

    async def program() -> list[Any]:
        return [
            await result_of(run(bill.calls(count, first), store=store, run_id=name, budget=tokens(most)))
            for name, count, first, most in (("a", 6, 0, 1_000), ("b", 6, 10, 1_000), ("b", 6, 10, 1_200))
        ]

    a, b, b_again = run_virtually(program)
    assert (a, type(b), b_again) == (6, BudgetExceeded, 6)
    assert bill.tokens == 1_200


def test_who_waits_gets_what_others_give_back() -> None:
    bill, store = Bill(), MemoryStore(clock=now)
    began: list[float] = []

    async def program() -> None:
        async def late() -> int:
            await asyncio.sleep(0.5)
            counted = await bill.calls(5, first=100)()
            began.append(now())
            return counted

        first = run(bill.calls(5, workers=1), store=store, budget=tokens(1_000))
        assert list(await asyncio.gather(first, run(late, store=store, budget=tokens(1_000)))) == [5, 5]

    run_virtually(program)
    assert began[0] < 5.0, "it does not wait until the other one has ended"


def test_groups_and_actors_of_several_runs_share_one_too() -> None:
    store, paid = MemoryStore(clock=now), []

    @tool
    async def pay(number: int) -> None:
        paid.append(number)

    @agent(budget=Budget(calls=7, shared=True, name="calls"))
    async def spendthrift(first: int) -> None:
        for number in range(first, first + 5):
            await pay(number)

    async def with_agent() -> None:
        await spendthrift(0)

    async def with_group() -> None:
        async with parallel(budget=Budget(calls=7, shared=True, name="calls"), name="g") as p:
            p.map(pay, range(10, 15))
            await p.gather()

    async def program() -> Any:
        await run(with_agent, store=store)
        return await result_of(run(with_group, store=store))

    assert isinstance(run_virtually(program), BudgetExceeded)
    assert len(paid) == 7


class Cut:
    """A store as a process sees it that dies: what it would still say of its budget never arrives."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.is_cut = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def share(self, name: str, step: Callable[[dict[str, Any], float], Any]) -> Any:
        if self.is_cut:
            raise StoreError("it is dead")
        return await self._store.share(name, step)


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_what_a_dead_process_did_not_spend_comes_back_after_its_lease(durability: str) -> None:
    bill, others, store = Bill(), Bill(), MemoryStore(clock=now)

    async def program() -> None:
        store_of_the_dead: Any = Cut(store)
        options: dict[str, Any] = {"store": store_of_the_dead, "durability": durability}
        dead = asyncio.create_task(run(bill.calls(4, workers=2), run_id="dead", budget=tokens(2_000), **options))
        await asyncio.sleep(1.5)
        store_of_the_dead.is_cut = True
        assert len(bill.paid) == 4, "two calls have ended, and two are under way"
        await asyncio.wait([dead])
        other = asyncio.create_task(
            result_of(run(others.calls(20, first=100), store=store, run_id="other", budget=tokens(2_000)))
        )
        await asyncio.sleep(BUDGET_LEASE - 4.0)
        early.append(others.tokens)
        assert isinstance(await other, BudgetExceeded)

    early: list[int] = []
    run_virtually(program)
    assert bill.tokens == 400
    if durability == "sync":
        assert early[0] < others.tokens == 2_000 - 400 - 200, (
            "its journal shows 400, and 200 could be in use beside that"
        )
    else:
        assert early[0] == others.tokens, "its journal may tell too little, so all of its part counts"


@pytest.mark.parametrize("most", [1_800, 3_000])
def test_a_number_set_while_runs_go_on_holds_for_all_of_them(most: int) -> None:
    bill, store = Bill(), MemoryStore(clock=now)

    async def program() -> None:
        runs = [
            asyncio.create_task(
                result_of(run(bill.calls(20, which * 100, 2), store=store, run_id=str(which), budget=tokens(2_000)))
            )
            for which in range(2)
        ]
        await asyncio.sleep(3.5)
        await store.control("0").set({"budget.tokens": most})
        await asyncio.gather(*runs)

    run_virtually(program)
    assert bill.tokens == most


def test_what_all_have_spent_and_reserved_is_shown_in_the_present_of_each() -> None:
    bill, store = Bill(), MemoryStore(clock=now)

    async def program() -> None:
        runs = [
            asyncio.create_task(
                run(bill.calls(6, which * 100, 2), store=store, run_id=str(which), budget=tokens(2_000))
            )
            for which in range(2)
        ]
        await asyncio.sleep(2.6)
        present = await store.present("0")
        assert present is not None
        budget = present.budgets[0]
        assert (budget.name, budget.limits) == ("team (shared)", {"tokens": 2_000})
        assert 600 <= budget.spent["tokens"] <= 800
        assert 200 <= budget.reserved["tokens"] <= 400
        setting = next(each for each in present.settings if each.name == "budget.tokens")
        assert setting.value == 2_000
        await asyncio.gather(*runs)

    run_virtually(program)


def test_a_shared_budget_needs_a_store_and_one_statement() -> None:
    async def nothing() -> None: ...

    with pytest.raises(UsageError, match="this run has no store"):
        run_virtually(lambda: run(nothing, budget=tokens(1)))

    async def two() -> None:
        async with parallel(budget=tokens(2)) as p:
            p.add(nothing())
            await p.gather()

    with pytest.raises(UsageError, match="have the same name, so they are one budget"):
        run_virtually(lambda: run(two, store=MemoryStore(clock=now), budget=tokens(1)))
