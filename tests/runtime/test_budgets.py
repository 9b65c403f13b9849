"""Budgets: reserved before a call, settled after it, kept across restarts, and never overdrawn by what is known."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable

import pytest

from rh_agents import (
    Budget,
    BudgetExceeded,
    ConcurrencyLimit,
    ExecutionState,
    MemoryStore,
    RetryPolicy,
    RunAwaiting,
    RunStopped,
    Tool,
    Usage,
    agent,
    current,
    parallel,
    report_usage,
    run,
    tool,
)
from rh_agents.core.context import again
from rh_agents.core.errors import NestingError, UsageError
from tests.properties.virtual import run_virtually


class Bill:
    """Calls that cost a cent each, and how often they were made."""

    def __init__(self) -> None:
        self.paid: list[int] = []

    def calls(self) -> Callable[[int], Awaitable[int]]:
        @tool
        async def pay(number: int) -> int:
            await asyncio.sleep(1.0)
            self.paid.append(number)
            report_usage(Usage(input_tokens=100, output_tokens=10, cost=0.01))
            return number

        return pay


class Estimated(Tool):
    """A tool of which it is known that it takes 100 tokens at most."""

    def estimate_input(self, input_data: object) -> Usage:
        return Usage(input_tokens=100)


def test_a_run_stops_when_its_calls_are_made_and_goes_on_with_a_larger_budget_where_it_was() -> None:
    bill, store = Bill(), MemoryStore()
    pay = bill.calls()

    async def program() -> int:
        async with parallel(max_workers=4, name="bills") as p:
            p.map(pay, range(30))
            return len(await p.gather())

    with pytest.raises(BudgetExceeded, match="calls=10") as caught:
        run_virtually(lambda: run(program, store=store, run_id="r", budget=Budget(calls=10)))
    assert len(bill.paid) == 10
    assert caught.value.spent.calls == 10
    assert caught.value.spent.by_actor["pay"].tokens == 1_100
    with pytest.raises(BudgetExceeded):  # what was spent before counts
        run_virtually(lambda: run(program, store=store, run_id="r", budget=Budget(calls=10)))
    assert len(bill.paid) == 10
    assert run_virtually(lambda: run(program, store=store, run_id="r", budget=Budget(calls=30))) == 30
    assert sorted(bill.paid) == list(range(30))


def test_money_and_tokens_are_counted_across_restarts() -> None:
    bill, store = Bill(), MemoryStore()
    pay = bill.calls()

    async def program() -> float:
        for number in range(20):
            await pay(number)
        return 1.0

    with pytest.raises(BudgetExceeded):
        run_virtually(lambda: run(program, store=store, run_id="r", budget=Budget(cost=0.045)))
    assert len(bill.paid) == 4, "a fifth one would cost what the first four did"
    with pytest.raises(BudgetExceeded):
        run_virtually(lambda: run(program, store=store, run_id="r", budget=Budget(tokens=1_150)))
    assert len(bill.paid) == 10
    run_virtually(lambda: run(program, store=store, run_id="r"))
    assert len(bill.paid) == 20


def test_a_budget_of_an_agent_ends_its_branch_and_the_others_go_on() -> None:
    bill = Bill()
    pay = bill.calls()
    done: list[str] = []

    @agent(budget=Budget(calls=3))
    async def spendthrift(first: int) -> str:
        for number in range(first, first + 10):
            await pay(number)
        return "never"

    @agent
    async def saver() -> str:
        await asyncio.sleep(50)
        await pay(1_000)
        done.append("saver")
        return "saved"

    async def program() -> None:
        async with parallel() as p:
            p.add(spendthrift(0))
            p.add(saver())
            await p.gather()

    with pytest.raises(BudgetExceeded, match="spendthrift"):
        run_virtually(lambda: run(program))
    assert bill.paid == [0, 1, 2, 1_000]
    assert done == ["saver"]


def test_a_budget_of_a_group_is_shared_by_its_members_and_ends_the_group_at_once() -> None:
    bill, store = Bill(), MemoryStore()
    pay = bill.calls()

    async def program(calls: int) -> int:
        async with parallel(max_workers=3, name="g", budget=Budget(calls=calls)) as p:
            p.map(pay, range(1_000))
            return len(await p.gather())

    with pytest.raises(BudgetExceeded, match="the group g"):
        run_virtually(lambda: run(program, 7, store=store, run_id="r"))
    assert len(bill.paid) == 7
    assert len(run_virtually(lambda: outcomes(store))) == 7


async def outcomes(store: MemoryStore) -> list[object]:
    return [outcome async for outcome in store.outcomes("r")]


def test_time_is_a_budget_too_and_calls_under_way_come_to_their_end() -> None:
    bill, store = Bill(), MemoryStore()
    pay = bill.calls()

    async def program() -> None:
        for number in range(100):
            await pay(number)

    with pytest.raises(BudgetExceeded, match=r"seconds=4\.5"):
        run_virtually(lambda: run(program, store=store, run_id="r", budget=Budget(seconds=4.5)))
    assert bill.paid == [0, 1, 2, 3, 4]


def test_what_is_reserved_for_calls_under_way_is_not_given_to_others() -> None:
    bill, begun = Bill(), list[float]()

    async def spend(number: int) -> int:
        begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1.0)
        report_usage(Usage(input_tokens=50))
        bill.paid.append(number)
        return number

    actor = Estimated(name="spend", handler=spend)

    async def program() -> int:
        async with ExecutionState(budget=Budget(tokens=400)) as state:
            async with state.parallel(max_workers=10) as p:
                for number in range(7):
                    p.add(state.start(actor, number, None), key=str(number))
                await p.gather()
            assert state.spent.usage.tokens == 350
        return len(bill.paid)

    assert run_virtually(lambda: program()) == 7
    # Four at once, and the others when those had used less than they might have.
    assert [round(moment - begun[0]) for moment in begun] == [0, 0, 0, 0, 1, 1, 2]


def test_each_attempt_needs_what_the_first_one_needed() -> None:
    attempts: list[int] = []

    async def fail(number: int) -> None:
        attempts.append(number)
        report_usage(Usage(input_tokens=100))
        raise LookupError(number)

    actor = Estimated(name="fail", handler=fail, retry=RetryPolicy(max_attempts=5))

    async def program() -> None:
        async with ExecutionState(budget=Budget(tokens=250)) as state:
            await state.start(actor, 1, None)

    with pytest.raises(BudgetExceeded, match="tokens=250"):
        run_virtually(lambda: program())
    assert len(attempts) == 2


def test_a_call_that_was_given_up_is_paid_but_not_counted() -> None:
    @tool
    async def hang() -> None:
        report_usage(Usage(input_tokens=10))
        await asyncio.sleep(100.0)

    @tool
    async def answer() -> int:
        return 42

    store = MemoryStore()

    async def spent() -> int:
        async with ExecutionState(store=store, run_id="r", input={}) as state:
            return state.spent.usage.tokens

    async def program() -> int:
        async with ExecutionState(store=store, run_id="r", input={}, budget=Budget(calls=1)) as state:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await hang()
            assert await answer() == 42
            return state.spent.usage.tokens

    assert run_virtually(lambda: program()) == 10
    assert run_virtually(lambda: spent()) == 10


def test_a_run_without_any_depth_calls_nothing() -> None:
    @tool
    async def answer() -> int:
        raise AssertionError("it was called")

    async def program() -> None:
        with pytest.raises(BudgetExceeded, match="calls are nested 1 deep at answer, and 0 is the limit"):
            async with ExecutionState(budget=Budget(depth=0)):
                await answer()

    run_virtually(lambda: program())


def test_parts_of_a_run_have_depths_and_recursions_of_their_own() -> None:
    @agent
    async def descend(depth: int) -> int:
        return 0 if depth == 0 else 1 + await descend(depth - 1)

    @agent(budget=Budget(depth=3))
    async def shallow(depth: int) -> int:
        return await descend(depth)

    @agent(budget=Budget(recursion=3))
    async def rarely(depth: int) -> int:
        return await descend(depth)

    assert run_virtually(lambda: run(shallow, 2)) == 2
    with pytest.raises(BudgetExceeded, match="depth=3"):
        run_virtually(lambda: run(shallow, 3))
    assert run_virtually(lambda: run(rarely, 3)) == 3
    with pytest.raises(BudgetExceeded, match="descend was called 4 times"):
        run_virtually(lambda: run(rarely, 4))


@pytest.mark.parametrize("budget", [Budget(calls=3), Budget(cost=0.025), Budget(seconds=2.5)])
def test_what_a_part_of_a_run_spent_in_earlier_executions_counts(budget: Budget) -> None:
    bill, store = Bill(), MemoryStore()
    pay = bill.calls()

    async def program(budget: Budget) -> int:
        @agent(budget=budget)
        async def spendthrift(count: int) -> int:
            for number in range(count):
                await pay(number)
            return count

        return await spendthrift(5)

    for _ in range(3):
        with pytest.raises(BudgetExceeded, match="spendthrift"):
            run_virtually(lambda: run(program, budget, store=store, run_id="r", reuse=True))
    assert len(bill.paid) == 3
    assert run_virtually(lambda: run(program, Budget(calls=5), store=store, run_id="r", reuse=True)) == 5
    assert len(bill.paid) == 5


def test_what_is_used_is_told_once_however_a_call_goes_on() -> None:
    store = MemoryStore()

    @tool(retry=3)
    async def stumble(number: int) -> int:
        report_usage(Usage(input_tokens=10))
        if current().attempt < 3:
            raise LookupError(number)
        return number

    async def program(asks: bool) -> list[int]:
        async with ExecutionState(store=store, run_id="r", input={}) as state:
            before = state.spent.usage.tokens

            @agent
            async def ask_first() -> bool:
                report_usage(Usage(input_tokens=100))
                return await state.ask("Shall it go on?", bool)

            await stumble(1)
            if asks:
                await ask_first()
            told = [event.usage.tokens for event in state.history if event.usage and not event.is_replayed]
            return [before, *told, state.spent.usage.tokens]

    assert run_virtually(lambda: program(asks=False)) == [0, 10, 10, 10, 30]
    with pytest.raises(RunAwaiting):
        run_virtually(lambda: program(asks=True))
    assert run_virtually(lambda: program(asks=False))[0] == 130


def test_a_budget_of_money_refuses_calls_of_which_nobody_knows_the_price() -> None:
    class Unknown(Tool):
        def estimate_input(self, input_data: object) -> Usage:
            return Usage(input_tokens=1, cost=math.nan)

    async def spend(number: int) -> int:
        return number

    async def program() -> None:
        async with ExecutionState(budget=Budget(cost=1.0)) as state:
            (await state.start(Unknown(name="spend", handler=spend), 1, None)).unwrap()

    with pytest.raises(UsageError, match="price="):
        run_virtually(lambda: program())


def test_an_agent_that_spawns_itself_stops_by_default() -> None:
    born: list[int] = []

    @agent
    async def spawn(number: int) -> int:
        born.append(number)
        async with parallel() as p:
            p.map(spawn, [2 * number, 2 * number + 1])
            return sum(result.unwrap() for result in await p.gather())

    with pytest.raises(RunStopped, match="1,000"):
        run_virtually(lambda: run(spawn, 1))
    assert len(born) <= 1_001


@pytest.mark.lazy_tasks("each begins on top of the one that makes it, and Python has no stack for sixty groups")
def test_calls_are_nested_no_deeper_than_a_limit_unless_a_budget_says_so() -> None:
    @agent
    async def descend(depth: int) -> int:
        if depth == 0:
            return 0
        async with parallel() as p:
            p.add(descend(depth - 1))
            return 1 + int((await p.gather())[0].unwrap())

    with pytest.raises(BudgetExceeded, match="120 is the limit"):
        run_virtually(lambda: run(descend, 150))
    assert run_virtually(lambda: run(descend, 150, budget=Budget(depth=math.inf))) == 150
    with pytest.raises(NestingError, match="Python's stack has no room"):
        run_virtually(lambda: run(directly, 121))


@agent(retry=2, timeout=60.0, limits=ConcurrencyLimit(1))
async def directly(depth: int) -> int:
    """Awaits itself."""
    below: int = 0 if depth == 0 else await directly(depth - 1)
    return below + 1


def test_replayed_and_cached_calls_cost_nothing() -> None:
    bill, store = Bill(), MemoryStore()
    pay = bill.calls()

    @tool(cache="run")
    async def same(number: int) -> int:
        bill.paid.append(number)
        return number

    async def program() -> None:
        for _ in range(10):
            await same(1)
        await pay(2)
        if more:
            await pay(3)

    more = False
    run_virtually(lambda: run(program, store=store, run_id="r", budget=Budget(calls=2)))
    run_virtually(lambda: run(program, store=store, run_id="r", budget=Budget(calls=2)))
    assert bill.paid == [1, 2]
    more = True
    run_virtually(lambda: run(program, store=store, run_id="r", budget=Budget(calls=3)))
    assert bill.paid == [1, 2, 3]


def test_what_is_reserved_for_a_call_does_not_block_the_calls_it_makes() -> None:
    async def answer(number: int) -> int:
        report_usage(Usage(input_tokens=30))
        return number

    inner = Estimated(name="answer", handler=answer)

    async def program() -> list[int]:
        async with ExecutionState(budget=Budget(tokens=250)) as state:

            async def route(number: int) -> int:
                result: int = (await state.start(inner, number, None)).unwrap()
                return result

            router = Estimated(name="route", handler=route)
            async with state.parallel(max_workers=10) as p:
                for number in range(5):
                    p.add(state.start(router, number, None), key=str(number))
                return [result.unwrap() for result in await p.gather()]

    assert run_virtually(lambda: asyncio.wait_for(program(), 60.0)) == [0, 1, 2, 3, 4]


def test_requests_that_one_call_makes_side_by_side_give_all_back_that_was_reserved_for_them() -> None:
    class Chat(Tool):
        def estimate_input(self, input_data: object) -> Usage:
            return Usage(input_tokens=100)

    async def two_at_once(number: int) -> None:
        async def one() -> None:
            await again(Usage(input_tokens=100))
            await asyncio.sleep(1.0)

        await asyncio.gather(one(), one())

    async def hold(number: int) -> None:
        await asyncio.sleep(5.0)

    async def program() -> Usage:
        async with ExecutionState(budget=Budget(tokens=250)) as state:
            async with state.parallel() as p:
                p.add(state.start(Chat(name="hold", handler=hold), 1, None))
                p.add(state.start(Chat(name="two", handler=two_at_once), 1, None))
                p.add(state.start(Chat(name="hold", handler=hold), 2, None))
                for result in await p.gather():
                    result.unwrap()
            ledger = state.parts.budgets.of_run
            assert ledger is not None
            return ledger.reserved

    assert not run_virtually(program)


def test_an_estimate_that_raises_costs_its_own_call_and_no_other() -> None:
    class Careless(Tool):
        def estimate_input(self, input_data: object) -> Usage:
            return {1: Usage(input_tokens=1)}[input_data]  # type: ignore[index]

    async def spend(number: int) -> int:
        return number

    async def program() -> list[bool]:
        async with ExecutionState(store=MemoryStore(), budget=Budget(tokens=100)) as state:
            async with state.parallel() as p:
                for number in range(3):
                    p.add(state.start(Careless(name="spend", handler=spend), number, None))
                results = await p.gather()
            assert isinstance(results[0].error, KeyError)
            return [result.ok for result in results]

    assert run_virtually(program) == [False, True, False]


@pytest.mark.parametrize("cost", [math.nan, math.inf, -math.inf])
def test_a_cost_that_is_no_finite_number_is_refused_and_the_budget_holds(cost: float) -> None:
    @tool
    async def priced() -> None:
        report_usage(Usage(cost=0.5))
        with pytest.raises(UsageError, match=r"report_usage\(cost=-?(nan|inf)\) is no finite number"):
            report_usage(Usage(cost=cost))

    async def main() -> None:
        async with ExecutionState(budget=Budget(cost=0.9)) as state:
            await priced()
            await priced()
            assert state.spent.usage.cost == 1.0
            await priced()

    with pytest.raises(BudgetExceeded):
        asyncio.run(main())


@pytest.mark.parametrize("how", ["another attempt", "another request"])
def test_a_call_that_goes_on_does_not_wait_for_what_is_reserved_for_its_own_caller(how: str) -> None:
    used = [5, 60, 5]

    @tool(retry=RetryPolicy(max_attempts=2, initial_delay=0))
    async def ask() -> None:
        report_usage(Usage(input_tokens=used.pop(0)))
        if len(used) == 1:
            if how == "another attempt":
                raise ValueError("once more")
            await again(Usage(input_tokens=60))
            report_usage(Usage(input_tokens=used.pop(0)))

    @agent
    async def survey() -> None:
        async with parallel() as p:
            await p.add(ask())
        report_usage(Usage(input_tokens=80))

    async def program() -> int:
        async with ExecutionState(store=None, budget=Budget(tokens=230)) as state, asyncio.timeout(1000.0):
            await survey()
            await survey()  # 80 are reserved for it, since the first one has used so many
            return state.spent.usage.tokens

    assert run_virtually(program) == 230


def test_who_waits_for_a_budget_within_an_attempt_lets_others_have_its_slot_for_whom_something_is_reserved() -> None:
    limit, used = ConcurrencyLimit(1), [60, 5]

    @tool(limits=[limit])
    async def look() -> None:
        report_usage(Usage(input_tokens=used.pop(0)))

    @tool(limits=[limit])
    async def ask() -> None:
        report_usage(Usage(input_tokens=40))
        await asyncio.sleep(1.0)
        await again(Usage(input_tokens=100))
        report_usage(Usage(input_tokens=30))

    async def program() -> int:
        async with ExecutionState(store=None, budget=Budget(tokens=250)) as state, asyncio.timeout(1000.0):
            await look()
            async with state.parallel(2) as p:
                p.add(ask())
                p.add(look())  # 60 are reserved for it, and it waits for the limit
                await p.gather()
            return state.spent.usage.tokens

    assert run_virtually(program) == 135
