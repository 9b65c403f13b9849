"""What a concurrency limit that processes share promises, whoever dies or is stopped."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rh_agents import ConcurrencyLimit, MemoryStore, current, parallel, run, tool
from rh_agents.core.errors import UsageError
from rh_agents.core.policies.sharing.slots import SLOT_LEASE, SlotAnswer, SlotAsk, ask_for_slots
from tests.properties.virtual import run_virtually


def now() -> float:
    return asyncio.get_running_loop().time()


def ask(state: dict[str, Any], now: float, process: str, limit: int, in_use: int, wanted: int) -> SlotAnswer:
    """Ask, and read back what a store would have written."""
    answer = ask_for_slots(state, SlotAsk(process, limit, in_use, wanted), now)
    kept = json.loads(json.dumps(state))
    state.clear()
    state.update(kept)
    return answer


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_processes_together_hold_no_more_slots_than_there_are_whoever_dies(seed: int, limit: int) -> None:
    chance = random.Random(seed)
    state: dict[str, Any] = {}
    moment, count = 0.0, 0
    leases: dict[str, tuple[float, int, int]] = {}  # until when, how many slots, how many in use
    for _ in range(300):
        moment += chance.choice([0.01, 0.3])
        name = chance.choice(["a", "b", "c"]) + str(count)
        if chance.random() < 0.03:
            count += 1  # all of them died, and others begin
        _, had, used = leases.get(name, (0.0, 0, 0))
        used = chance.randrange(0, had + 1)
        answer = ask(state, moment, name, limit, used, used + chance.randrange(0, 6))
        leases[name] = (moment + SLOT_LEASE, answer.count, used)
        assert sum(has for until, has, _ in leases.values() if until > moment) <= limit


def test_the_slots_of_a_process_that_died_are_free_when_its_lease_has_ended() -> None:
    state: dict[str, Any] = {}
    assert ask(state, 1.0, "dead", 3, 0, 3).count == 3
    assert ask(state, 1.0 + SLOT_LEASE - 0.1, "b", 3, 0, 2).count == 0
    assert ask(state, 1.0 + SLOT_LEASE, "b", 3, 0, 2).count == 2


def test_while_somebody_waits_nobody_has_more_than_an_equal_part_for_long() -> None:
    state: dict[str, Any] = {}
    assert ask(state, 1.0, "greedy", 8, 0, 20).count == 8
    assert ask(state, 1.1, "b", 8, 0, 20).count == 0
    answer = ask(state, 1.2, "greedy", 8, 7, 20)
    assert (answer.count, answer.most) == (7, 4)
    assert ask(state, 1.3, "b", 8, 0, 20).count == 1
    assert ask(state, 1.4, "b", 8, 1, 20).count == 1
    for in_use in (6, 5, 4):
        answer = ask(state, 1.5, "greedy", 8, in_use, 20)
    assert answer.count == 4
    assert ask(state, 1.6, "b", 8, 1, 20).count == 4


def test_who_has_waited_longest_gets_the_next_slot() -> None:
    state: dict[str, Any] = {}
    assert ask(state, 1.0, "a", 1, 0, 1).count == 1
    assert ask(state, 1.1, "b", 1, 0, 1).count == 0
    assert ask(state, 1.2, "c", 1, 0, 1).count == 0
    ask(state, 1.3, "a", 1, 0, 0)
    assert ask(state, 1.4, "c", 1, 0, 1).count == 0
    assert ask(state, 1.5, "b", 1, 0, 1).count == 1
    ask(state, 1.6, "b", 1, 0, 0)
    assert ask(state, 1.7, "c", 1, 0, 1).count == 1


def test_where_there_are_fewer_slots_than_processes_each_is_passed_on_when_its_call_ends() -> None:
    state: dict[str, Any] = {}
    assert ask(state, 1.0, "a", 1, 0, 9).most is None
    assert ask(state, 1.1, "b", 1, 0, 9).count == 0
    assert ask(state, 1.2, "a", 1, 1, 9).most == 0
    assert ask(state, 1.3, "a", 1, 0, 9).count == 0
    assert ask(state, 1.4, "b", 1, 0, 9).count == 1


def processes(*works: Callable[[], Awaitable[object]]) -> None:
    """Runs side by side, each with limits of its own that only share their name, as in processes of their own."""
    store = MemoryStore(clock=now)

    async def program() -> None:
        await asyncio.gather(*(run(work, store=store) for work in works))

    run_virtually(program)


def test_calls_of_several_processes_are_never_more_than_the_limit_and_all_get_their_turn() -> None:
    running: list[int] = []
    most: list[int] = []
    ended: dict[int, list[float]] = {0: [], 1: [], 2: []}

    def process(which: int) -> Callable[[], Awaitable[object]]:
        @tool(limits=ConcurrencyLimit(4, name="account", shared=True))
        async def work(number: int) -> None:
            running.append(number)
            most.append(len(running))
            await asyncio.sleep(2.0)
            running.remove(number)
            ended[which].append(now())

        async def main() -> None:
            async with parallel(max_workers=20) as p:
                p.map(work, range(which * 100, which * 100 + 20))
                assert all(result.ok for result in await p.gather())

        return main

    processes(*(process(which) for which in range(3)))
    assert max(most) == 4
    first = min(moment for each in ended.values() for moment in each)
    assert all(each[0] - first <= 10.0 for each in ended.values()), "nobody waits until another one is done"
    assert max(moment for each in ended.values() for moment in each) <= 60 * 2.0 / 4 * 1.5


def test_one_slot_goes_round_among_processes_that_all_want_it() -> None:
    order: list[int] = []

    def process(which: int) -> Callable[[], Awaitable[object]]:
        @tool(limits=ConcurrencyLimit(1, name="account", shared=True))
        async def work(number: int) -> None:
            order.append(which)
            await asyncio.sleep(2.0)

        async def main() -> None:
            async with parallel(max_workers=6) as p:
                p.map(work, range(which * 100, which * 100 + 6))
                await p.gather()

        return main

    processes(process(0), process(1))
    assert order.count(0) == order.count(1) == 6
    assert order[1:7].count(1) >= 2


def test_a_call_that_lasts_longer_than_a_lease_keeps_its_slot() -> None:
    began: list[float] = []

    def process(delay: float) -> Callable[[], Awaitable[object]]:
        @tool(limits=ConcurrencyLimit(1, name="account", shared=True))
        async def work() -> None:
            began.append(now())
            await asyncio.sleep(5 * SLOT_LEASE)

        async def main() -> None:
            await asyncio.sleep(delay)
            await work()

        return main

    processes(process(0.0), process(1.0))
    assert 5 * SLOT_LEASE <= began[1] - began[0] <= 5 * SLOT_LEASE + 1.0


def test_a_call_holds_no_shared_slot_while_it_waits_for_calls_of_its_own() -> None:
    limit = ConcurrencyLimit(1, name="account", shared=True)

    @tool(limits=limit)
    async def nested(depth: int) -> int:
        return 1 + (await nested(depth - 1) if depth else 0)

    async def main() -> None:
        assert await nested(10) == 11
        assert limit.in_use == 0

    processes(main)


def test_a_run_without_a_store_cannot_share_and_a_shared_limit_has_a_name() -> None:
    @tool(limits=ConcurrencyLimit(1, name="account", shared=True))
    async def work() -> str:
        return current().address

    with pytest.raises(UsageError, match="this run has no store"):
        run_virtually(lambda: run(work))
    with pytest.raises(ValueError, match="a shared limit needs a name"):
        ConcurrencyLimit(1, shared=True)
