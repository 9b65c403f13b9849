"""A server that refuses requests and says when to come again is waited for, by everybody who asks it, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import PrivateAttr

from rh_agents import (
    Agent,
    Budget,
    BudgetExceeded,
    ConcurrencyLimit,
    ExecutionEvent,
    ExecutionState,
    ExecutionStatus,
    GroupTimeout,
    MemoryStore,
    RateLimit,
    RetryPolicy,
    Usage,
    parallel,
    run,
)
from rh_agents.core.chat import ChatModel, ChatRequest, ChatResponse
from rh_agents.core.chat.model import OnDelta
from rh_agents.core.errors import CallTimeout, ModelError, ModelOverloaded, RateLimited
from tests.properties.virtual import run_virtually


def now() -> float:
    return asyncio.get_running_loop().time()


class Served(ChatModel):
    """A model behind a simulated server: `take` says at which time it takes a request, or raises its refusal."""

    _take: Callable[[float], None] = PrivateAttr()
    _seconds: float = PrivateAttr(default=0.01)
    _refuses_after: float = PrivateAttr(default=0.0)
    _asked: list[float] = PrivateAttr(default_factory=list)

    _says: Callable[[ChatRequest], str] = PrivateAttr()

    def __init__(
        self,
        take: Callable[[float], None],
        seconds: float = 0.01,
        says: Callable[[ChatRequest], str] = lambda _: "yes",
        refuses_after: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(model="served", **settings)
        self._take = take
        self._seconds = seconds
        self._refuses_after = refuses_after
        self._says = says

    async def complete(self, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
        self._asked.append(now())
        await asyncio.sleep(0.001)
        try:
            self._take(now())
        except ModelError:
            await asyncio.sleep(self._refuses_after)
            raise
        await asyncio.sleep(self._seconds)
        return ChatResponse(text=self._says(request), usage=Usage(10, 5))


def refuse(seconds: float | None, status: int = 429) -> ModelError:
    kind = RateLimited if status == 429 else ModelOverloaded
    return kind("served: no", status=status, retry_after=seconds)


def fixed_window(most: int, per: float, says: Callable[[float], float | None] = lambda left: left) -> Any:
    """Takes so many in each period of a clock of its own."""
    taken: dict[int, int] = {}

    def take(time: float) -> None:
        window = int(time // per)
        if taken.get(window, 0) >= most:
            raise refuse(says((window + 1) * per - time))
        taken[window] = taken.get(window, 0) + 1

    return take


def sliding_window(most: int, per: float) -> Any:
    taken: list[float] = []

    def take(time: float) -> None:
        recent = [each for each in taken if each > time - per]
        if len(recent) >= most:
            raise refuse(recent[0] + per - time + 1e-6)
        taken.append(time)

    return take


def bucket(most: int, per: float) -> Any:
    """A token bucket: as many at once, then one each `per / most` seconds."""
    state = {"left": float(most), "at": 0.0}

    def take(time: float) -> None:
        state["left"] = min(float(most), state["left"] + (time - state["at"]) * most / per)
        state["at"] = time
        if state["left"] < 1:
            raise refuse((1 - state["left"]) * per / most)
        state["left"] -= 1

    return take


async def ask_all(model: ChatModel, count: int = 60, workers: int = 30) -> tuple[int, float]:
    """How many of so many questions were answered, and after which time."""
    began = now()
    async with parallel(max_workers=workers) as p:
        p.map(lambda number: model.ask(f"{number}?"), range(count))
        results = await p.gather()
    return sum(result.ok for result in results), now() - began


SERVERS: dict[str, tuple[Callable[[], Any], float]] = {
    "a fixed window": (lambda: fixed_window(10, 2.0), 0.8),
    "a sliding window": (lambda: sliding_window(10, 2.0), 0.8),
    "a token bucket": (lambda: bucket(10, 2.0), 0.8),
    "a window that is always said to be whole": (lambda: fixed_window(10, 2.0, lambda _: 2.0), 0.8),
    "whole seconds, rounded up": (lambda: fixed_window(10, 2.0, lambda left: float(int(left) + 1)), 0.6),
    "whole seconds, rounded down": (lambda: fixed_window(10, 2.0, lambda left: float(int(left))), 0.6),
    "zero": (lambda: fixed_window(10, 2.0, lambda _: 0.0), 0.5),
    "a second, whatever it is": (lambda: fixed_window(10, 8.0, lambda _: 1.0), 0.6),
}


@pytest.mark.parametrize(
    ("seconds", "refuses_after"),
    [(0.01, 0.0), (0.01, 0.03), (5.0, 0.0)],
    ids=["quick answers", "answers before refusals", "slow answers"],
)
@pytest.mark.parametrize("name", SERVERS)
def test_sixty_questions_of_thirty_workers_are_all_answered_at_the_pace_of_the_server(
    name: str, seconds: float, refuses_after: float
) -> None:
    make, share = SERVERS[name]
    model = Served(make(), seconds, refuses_after=refuses_after)
    answered, took = run_virtually(lambda: run(ask_all, model))
    assert answered == 60
    per = 8.0 if name.startswith("a second") else 2.0
    ideal = max(5 * per, seconds * 2)  # ten are taken at once, the last ten after five periods
    assert took <= (ideal + seconds) / share


def refusing(times: int, seconds: float | None = 10.0, status: int = 429) -> Callable[[float], None]:
    """Refuses so many requests, then takes all."""
    left = [times]

    def take(_: float) -> None:
        if left[0]:
            left[0] -= 1
            raise refuse(seconds, status)

    return take


def test_a_wait_that_the_server_asks_for_is_no_failed_attempt() -> None:
    events: list[ExecutionEvent[Any]] = []
    model = Served(refusing(20, 10.0), retry=RetryPolicy(max_attempts=1))

    async def main() -> tuple[int | None, float]:
        result = await model.ask("?").outcome()
        assert result.unwrap() == "yes"
        return result.attempts, now()

    attempts, took = run_virtually(lambda: run(main, subscribers=[events.append]))
    assert attempts == 1
    assert took >= 200
    waiting = [event for event in events if event.execution_status is ExecutionStatus.WAITING]
    assert "the server asked to wait" in (waiting[0].message or "")
    assert waiting[0].retry_delay == pytest.approx(10.0)
    assert waiting[1].retry_delay == 0.0
    assert ExecutionStatus.RETRYING not in {event.execution_status for event in events}


@pytest.mark.parametrize("status", [429, 503, 529])
def test_the_waits_of_one_call_are_bounded(status: int) -> None:
    model = Served(refusing(1000, 60.0, status), retry=RetryPolicy(max_attempts=4, max_wait=200))

    async def main() -> float:
        with pytest.raises(ModelError) as caught:
            await model.ask("?")
        assert "max_wait=200" in caught.value.__notes__[0]
        return now()

    took = run_virtually(main)
    assert 180 <= took <= 200
    assert len(model._asked) == 4


def test_by_default_a_call_waits_for_ten_minutes() -> None:
    model = Served(refusing(1000, 60.0))

    async def main() -> float:
        with pytest.raises(RateLimited):
            await model.ask("?")
        return now()

    assert 540 <= run_virtually(main) <= 601


def test_a_server_that_asks_for_no_wait_at_all_is_not_asked_for_ever() -> None:
    model = Served(refusing(10**9, 0.0))

    async def main() -> float:
        with pytest.raises(RateLimited):
            await model.ask("?")
        return now()

    assert run_virtually(main) <= 620
    assert len(model._asked) < 100


def test_without_patience_a_refusal_is_a_failed_attempt_as_it_is_without_a_time() -> None:
    impatient = Served(refusing(1000, 1.0), retry=RetryPolicy(max_attempts=3, max_wait=0.0))
    unsaid = Served(refusing(1000, None), retry=RetryPolicy(max_attempts=3))
    broken = Served(refusing(1000, 1.0, 500), retry=RetryPolicy(max_attempts=3))
    never = Served(refusing(1000, 1.0), retry=None)
    excluded = Served(refusing(1000, 1.0), retry=RetryPolicy(max_attempts=3, give_up_on=RateLimited))

    async def main() -> None:
        for model in (impatient, unsaid, broken, never, excluded):
            with pytest.raises(ModelError):
                await model.ask("?")

    run_virtually(main)
    assert [len(each._asked) for each in (impatient, unsaid, broken, never, excluded)] == [3, 3, 3, 1, 1]


def test_a_time_that_is_longer_than_anybody_waits_holds_nobody_else() -> None:
    model = Served(refusing(1, 2000.0))

    async def main() -> float:
        with pytest.raises(RateLimited):
            await model.ask("?")
        assert await model.ask("!") == "yes"
        return now()

    assert run_virtually(main) < 1


def test_one_that_may_wait_for_longer_does_so_by_itself() -> None:
    model = Served(refusing(1, 2000.0), retry=RetryPolicy(max_retry_after=3000, max_wait=3000))

    async def main() -> float:
        assert await model.ask("?") == "yes"
        return now()

    assert run_virtually(main) == pytest.approx(2000, abs=1)


def test_who_waits_no_longer_is_told_which_bound_that_was() -> None:
    async def main() -> None:
        with pytest.raises(RateLimited) as caught:
            await Served(refusing(1, 400.0), retry=RetryPolicy()).ask("?")
        assert "it wants 400 s, and max_retry_after=300" in caught.value.__notes__[0]

    run_virtually(main)


def test_the_time_of_an_attempt_stands_still_while_it_waits() -> None:
    patient = Served(refusing(3, 30.0), timeout=5.0)
    slow = Served(refusing(1, 30.0), seconds=6.0, timeout=5.0, retry=RetryPolicy(max_attempts=1))

    async def main() -> None:
        assert await patient.ask("?") == "yes"
        with pytest.raises(CallTimeout):
            await slow.ask("?")

    run_virtually(main)


def test_the_timeout_of_a_group_ends_the_wait() -> None:
    model = Served(refusing(1000, 30.0))

    async def main() -> float:
        with pytest.raises(GroupTimeout):
            async with parallel(timeout=50.0) as p:
                p.add(model.ask("?"))
                await p.gather()
        return now()

    assert run_virtually(lambda: run(main)) == pytest.approx(50.0, abs=0.1)


def test_nobody_waits_beyond_a_budget_of_time() -> None:
    model = Served(refusing(1000, 60.0))

    async def ask() -> str:
        return await model.ask("?")

    async def main() -> float:
        with pytest.raises(BudgetExceeded):
            await run(ask, budget=Budget(seconds=100.0))
        return now()

    assert run_virtually(main) == pytest.approx(60.0, abs=0.1)


def test_who_waits_for_one_server_holds_no_slot_that_another_one_needs() -> None:
    slots = ConcurrencyLimit(1)
    refused, free = Served(refusing(1, 100.0), limits=slots), Served(refusing(0), limits=slots)

    async def main() -> float:
        async with parallel() as p:
            p.add(refused.ask("?"))
            p.add(_later(free))
            results = await p.gather()
        assert results[0].unwrap() == "yes"
        return float(results[1].unwrap())

    assert run_virtually(lambda: run(main)) < 5


async def _later(model: ChatModel) -> float:
    await asyncio.sleep(1.0)
    await model.ask("?")
    return now()


def test_what_was_answered_before_a_refusal_is_not_asked_again() -> None:
    def refuse_the_second(_: float) -> None:
        if len(model._asked) == 2:
            raise refuse(5.0)

    def say(request: ChatRequest) -> str:
        return '{"answer": 7}' if len(request.messages) > 1 else "seven"

    model = Served(refuse_the_second, says=say)

    async def main() -> tuple[int, int]:
        async with ExecutionState() as state:
            assert await model.ask("?", output=int) == 7
            return state.spent.usage.requests, len(model._asked)

    assert run_virtually(main) == (2, 3)


def test_on_replay_nobody_waits() -> None:
    store = MemoryStore()
    model = Served(fixed_window(10, 2.0))

    async def main() -> tuple[float, float]:
        first = await run(ask_all, model, store=store, run_id="r")
        began = now()
        second = await run(ask_all, model, store=store, run_id="r")
        assert first[0] == second[0] == 60
        return first[1], now() - began

    took, again = run_virtually(main)
    assert took >= 10
    assert again < 0.1
    assert len(model._asked) < 100


def test_a_limit_that_processes_share_knows_of_the_wait() -> None:
    store = MemoryStore(clock=now)
    limit = RateLimit(requests=1000, per=60.0, name="ours", shared=True)
    other = RateLimit(requests=1000, per=60.0, name="ours", shared=True)
    refused, free = Served(refusing(1, 20.0), limits=limit), Served(refusing(0), limits=other)

    async def first() -> None:
        async with parallel() as p:
            p.add(refused.ask("?"))
            await p.gather()

    async def second() -> None:
        await asyncio.sleep(1.0)
        assert await free.ask("!") == "yes"

    async def main() -> float:
        ended: list[float] = []

        async def timed(program: Any, name: str) -> None:
            await run(program, store=store, run_id=name)
            ended.append(now())

        async with asyncio.TaskGroup() as group:
            group.create_task(timed(first, "a"))
            group.create_task(timed(second, "b"))
        assert refused.pause is not free.pause
        return min(ended)

    assert run_virtually(main) >= 20


def test_an_agent_waits_in_its_turn() -> None:
    model = Served(refusing(7, 3.0))

    async def main() -> Any:
        return await Agent(name="a", llm=model)("?")

    assert run_virtually(lambda: run(main)) == "yes"


@pytest.mark.parametrize(
    ("name", "seconds", "is_observed", "said"),
    [
        ("busy", 30.0, False, 1),  # once, though two calls wait
        ("busy and seen", 30.0, True, 0),  # subscribers see who waits
        ("hardly busy", 1.0, False, 0),
    ],
)
def test_a_long_wait_is_reported_where_nobody_subscribes(
    name: str, seconds: float, is_observed: bool, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    model = Served(sliding_window(1, seconds), name=name)

    async def questions() -> None:
        async with parallel(max_workers=3) as p:
            for number in range(3):
                p.add(model.ask(f"question {number}"))
            assert all(result.ok for result in await p.gather())

    run_virtually(lambda: run(questions, subscribers=[lambda event: None] if is_observed else []))
    told = [record.getMessage() for record in caplog.records if record.name == "rh_agents.models"]
    assert len(told) == said
    assert all(each.startswith(f"{name}: the server asked to wait 30 s") for each in told)
