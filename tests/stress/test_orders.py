"""All orders in which eight siblings can end: whatever was recorded in one is given back in every other one."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from contextvars import ContextVar

from rh_agents import ExecutionState, agent, tool
from rh_agents.core.events import Fact
from rh_agents.core.results import Outcome
from tests.doubles import HookedStore, request
from tests.stress.sizes import ALL, rounds

SEED = 20265
RUN = "monday"
SIBLINGS = 8

sibling: ContextVar[int] = ContextVar("sibling")


class World:
    """Lets the last steps of the siblings end in the order that the test wants, and counts what is called."""

    def __init__(self) -> None:
        self.may_end = {number: asyncio.Event() for number in range(SIBLINGS)}
        self.called: list[tuple[int, int]] = []


world: ContextVar[World] = ContextVar("world")


class Journaling(HookedStore):
    """A store that can be taken back to what a crash would have left of it."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Fact, Outcome | None]] = []

    def after_adding(self, fact: Fact, outcome: Outcome | None) -> None:
        self.entries.append((fact, outcome))

    async def after_siblings(self, count: int) -> Journaling:
        """What a crash leaves right after so many siblings had ended."""
        left = Journaling()
        journal = await left.open_run(request(RUN))
        for fact, outcome in self.entries:
            if count == 0:
                break
            journal.note(fact, outcome)
            count -= outcome is not None and outcome.name == "chain"
        return left


@tool
async def step(number: int) -> str:
    """The input is the same in every chain, the result is not."""
    there, mine = world.get(), sibling.get()
    there.called.append((mine, number))
    if number == 2:
        await there.may_end[mine].wait()
    return f"step {number} of {mine}"


@agent
async def chain(number: int) -> list[str]:
    sibling.set(number)
    return [await step(1), await step(2)]


async def execute(store: Journaling, order: Sequence[int]) -> tuple[dict[int, list[str]], list[int], World]:
    """What each sibling gave, in which order they ended, and what was called. `order` is that of those still to run."""
    there = World()
    world.set(there)
    given: dict[int, list[str]] = {}
    waiting = list(reversed(order))
    async with ExecutionState(store=store, run_id=RUN) as state, state.parallel(max_workers=SIBLINGS) as p:
        p.map(chain, range(SIBLINGS))
        if waiting:
            there.may_end[waiting.pop()].set()
        async for result in p.stream():
            assert result.index is not None
            given[result.index] = result.unwrap()
            if waiting and not result.is_replayed:
                there.may_end[waiting.pop()].set()
    return given, list(given), there


@rounds(short=60, full=ALL)
def test_every_order_of_completion_replays_to_the_same_results(rounds: int) -> None:
    chance = random.Random(SEED)
    orders = list(itertools.permutations(range(SIBLINGS)))
    assert len(orders) == 40_320
    expected = {number: [f"step 1 of {number}", f"step 2 of {number}"] for number in range(SIBLINGS)}

    async def main() -> None:
        for number, order in enumerate(orders if rounds == ALL else chance.sample(orders, rounds)):
            whole = Journaling()
            given, ended, there = await execute(whole, order)
            assert (given, ended, len(there.called)) == (expected, list(order), 2 * SIBLINGS)

            count = number % (SIBLINGS + 1)
            left = await whole.after_siblings(count)
            later = sorted(order[count:], key=lambda _: chance.random())
            given, ended, there = await execute(left, later)
            assert given == expected, order
            assert ended == [*order[:count], *later], order
            assert not {called for called, _ in there.called} & set(order[:count]), order

    asyncio.run(main())
