"""A member that waits for its next attempt lets others run meanwhile, within bounds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rh_agents import Budget, ExecutionState, GroupTimeout, MemoryStore, RetryPolicy, Usage, agent, parallel, tool
from rh_agents.core.chat import ChatModel, ChatRequest, ChatResponse
from rh_agents.core.chat.model import OnDelta
from rh_agents.core.errors import ModelOverloaded, RunStopped
from tests.properties.virtual import run_virtually


def now() -> float:
    return asyncio.get_running_loop().time()


class Work:
    """Items that take some time and fail so often; it notes what runs."""

    def __init__(self, seconds: float = 0.1, delay: float = 0.5, fails: dict[int, int] | None = None) -> None:
        self.seconds = seconds
        self.fails = {} if fails is None else fails
        self.begun: list[tuple[float, int]] = []
        self.most = 0
        self._running = 0
        self._tried: Counter[int] = Counter()
        retry = RetryPolicy(max_attempts=9, initial_delay=delay, multiplier=1.0, jitter=False)
        self.fetch = tool(self._fetch, name="fetch", retry=retry)

    async def _fetch(self, number: int) -> int:
        self.begun.append((round(now(), 3), number))
        self._tried[number] += 1
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            await asyncio.sleep(self.seconds)
            if self._tried[number] <= self.fails.get(number, 0):
                raise OSError("flaky")
            return number
        finally:
            self._running -= 1

    async def run(self, count: int, workers: int) -> float:
        begin = now()
        async with parallel(workers) as p:
            p.map(self.fetch, range(count))
            assert [result.result for result in await p.gather()] == list(range(count))
        return now() - begin


def test_others_run_while_a_few_flaky_items_wait() -> None:
    work = Work(fails=dict.fromkeys(range(4), 1))
    took = run_virtually(lambda: work.run(40, 4))
    assert took == pytest.approx(1.1)  # 44 attempts of 0.1 s in 4 slots
    assert work.most == 4


def test_who_is_due_again_comes_before_what_has_not_begun() -> None:
    work = Work(seconds=1.0, delay=0.5, fails={0: 1})
    run_virtually(lambda: work.run(4, 1))
    assert [number for _, number in work.begun] == [0, 1, 0, 2, 3]


def test_no_more_members_wait_without_a_slot_than_there_are_slots() -> None:
    work = Work(seconds=1.0, delay=100.0, fails={0: 1, 1: 1})
    run_virtually(lambda: work.run(4, 1))
    assert work.begun == [(0.0, 0), (1.0, 1), (32.0, 1), (33.0, 0), (34.0, 2), (35.0, 3)]


def test_a_million_items_that_all_fail_are_not_pulled_at_once() -> None:
    pulled: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            pulled.append(number)
            yield number

    async def main() -> None:
        @tool(retry=RetryPolicy(max_attempts=2, initial_delay=1000.0))
        async def fail(number: int) -> None:
            raise OSError("down")

        async with parallel(3, timeout=5.0) as p:
            p.map(fail, items())
            with pytest.raises(GroupTimeout):
                await p.gather()

    run_virtually(main)
    assert len(pulled) <= 2 * 3 + 1


def test_a_call_whose_result_others_wait_for_keeps_its_slot() -> None:
    tried: list[float] = []

    async def main() -> list[int | None]:
        @tool(cache="run", retry=RetryPolicy(max_attempts=2, initial_delay=1.0))
        async def fetch() -> int:
            tried.append(now())
            if len(tried) == 1:
                raise OSError("flaky")
            return 7

        @agent
        async def survey() -> int:
            return await fetch()

        async with parallel(1) as p:
            p.add(fetch())
            p.add(survey())
            return [result.result for result in await p.gather()]

    assert run_virtually(main) == [7, 7]
    assert len(tried) == 2


def test_what_was_reserved_for_a_call_that_waits_is_for_others_to_use() -> None:
    tried: list[int] = []

    async def main() -> list[Any]:
        class Counting(ChatModel):
            async def complete(self, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
                number = int(str(request.messages[-1].content))
                tried.append(number)
                if tried == [0]:
                    raise ModelOverloaded("busy")
                return ChatResponse(text="yes", usage=Usage(10, 10))

        model = Counting(model="counting", retry=RetryPolicy(max_attempts=2, initial_delay=1.0), max_tokens=100)
        async with parallel(1, budget=Budget(tokens=200)) as p:
            p.map(lambda number: model.ask(f"{number}"), range(2))
            return [result.ok for result in await p.gather()]

    assert run_virtually(main) == [True, True]
    assert tried == [0, 1, 0]


@pytest.mark.parametrize("how", ["cancel", "timeout", "stop"])
@pytest.mark.parametrize("when", [1.2, 1.7], ids=["while it waits", "while it is due"])
def test_a_group_that_ends_meanwhile_ends_them_all(how: str, when: float) -> None:
    work = Work(seconds=1.0, delay=0.5, fails={0: 1})

    async def main() -> list[tuple[float, int]]:
        state = ExecutionState(store=MemoryStore())
        loop = asyncio.get_running_loop()
        try:
            async with state, state.parallel(1, timeout=when if how == "timeout" else None) as p:
                p.map(work.fetch, range(3))
                if how == "cancel":
                    loop.call_later(when, p.cancel)
                elif how == "stop":
                    loop.call_later(when, state.request_interrupt)
                await p.gather()
        except (GroupTimeout, RunStopped):
            pass
        return list(work.begun)

    begun = run_virtually(main)
    assert begun == [(0.0, 0), (1.0, 1)]


@given(
    fails=st.dictionaries(st.integers(0, 11), st.integers(0, 3)),
    seconds=st.sampled_from([0.0, 0.1, 1.0]),
    delay=st.sampled_from([0.05, 0.5, 3.0]),
    workers=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_more_than_the_slots_never_run(fails: dict[int, int], seconds: float, delay: float, workers: int) -> None:
    work = Work(seconds, delay, fails)
    run_virtually(lambda: work.run(12, workers))
    assert work.most <= workers
