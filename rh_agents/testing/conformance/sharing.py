"""What processes share: one object under a name, changed by one of them at a time."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from rh_agents.core.errors import StoreError
from rh_agents.core.policies.sharing.budgets import BudgetAnswer, BudgetAsk, BudgetHolder, ask_for_budget
from rh_agents.core.policies.sharing.rates import BlockReport, RateAnswer, RateAsk, ask_for_permits
from rh_agents.core.policies.sharing.windows import RateWindow
from rh_agents.core.ports import Store
from rh_agents.testing.conformance.suite import StoreSuite, on_an_event_loop

__all__ = ["SharingConformance"]


def _ask(ask: RateAsk, state: dict[str, Any], now: float) -> RateAnswer:
    return ask_for_permits(state, ask, now)


def _ask_for_budget(ask: BudgetAsk, state: dict[str, Any], now: float) -> BudgetAnswer:
    return ask_for_budget(state, ask, now)


def _count(state: dict[str, Any], now: float) -> int:
    state["count"] = state.get("count", 0) + 1
    return int(state["count"])


class SharingConformance(StoreSuite):
    """Processes share small objects, see `rh_agents.core.ports.SharedStates`."""

    @on_an_event_loop
    async def test_of_many_that_change_what_is_shared_each_sees_the_change_of_the_one_before(
        self, store: Store
    ) -> None:
        other = await self._second(store)
        found = await asyncio.gather(*(each.share("n", _count) for each in (store, other) for _ in range(10)))
        assert sorted(found) == list(range(1, 21))
        assert await store.share("another", _count) == 1

    @on_an_event_loop
    async def test_any_name_and_any_object_of_json_comes_back_as_it_was(self, store: Store) -> None:
        kept = {"text": "é \x00 \ud83d", "numbers": [0.1 + 0.2, 1e300, -7, None], "nested": {"é": {"a": []}}}

        def change(state: dict[str, Any], now: float) -> dict[str, Any]:
            before = dict(state)
            state.update(kept)
            return before

        for name in ("", "é:\ud83d", "a" * 1000):
            assert await store.share(name, change) == {}
            assert await store.share(name, change) == kept

    @on_an_event_loop
    async def test_a_step_that_fails_changes_nothing(self, store: Store) -> None:
        def fail(state: dict[str, Any], now: float) -> None:
            state["count"] = 70
            raise ZeroDivisionError

        assert await store.share("n", _count) == 1
        with pytest.raises((ZeroDivisionError, StoreError)):  # as it is, or as what has failed in the store
            await store.share("n", fail)
        assert await store.share("n", _count) == 2

    @on_an_event_loop
    async def test_all_processes_have_one_clock(self, store: Store) -> None:
        def now_of(state: dict[str, Any], now: float) -> float:
            return now

        other = await self._second(store)
        times = [await each.share("n", now_of) for each in (store, other, store, other)]
        assert times == sorted(times)
        assert times[-1] - times[0] < 60.0

    @on_an_event_loop
    async def test_a_window_admits_no_more_than_stated_whoever_asks(self, store: Store) -> None:
        window = RateWindow("provider", 3600.0, {"requests": 5.0, "tokens": 1000.0})
        other = await self._second(store)

        async def ask(each: Store, number: int) -> RateAnswer:
            need = {"requests": 1.0, "tokens": 100.0}
            asked = RateAsk(window, str(number), str(number), need, 9)
            return await each.share("rate:provider", partial(_ask, asked))

        answers = [await ask((store, other)[number % 2], number) for number in range(20)]
        assert sum(answer.count for answer in answers) == 5
        assert all(3500.0 < answer.wait <= 3601.0 for answer in answers if not answer.count)
        corrected = RateAsk(window, "1", reports=[BlockReport("1", [])])
        await store.share("rate:provider", partial(_ask, corrected))
        assert (await ask(other, 5)).count == 1, "what is given back is there for who has waited longest"

    @on_an_event_loop
    async def test_parts_of_a_budget_are_together_no_more_than_stated_whoever_asks(self, store: Store) -> None:
        other = await self._second(store)
        limits = {"cost": 1.0, "calls": 20.0}
        need = {"cost": 0.05, "calls": 1.0}

        async def ask(number: int, *, closes: bool = False, **spent: float) -> BudgetAnswer:
            more: dict[str, Any] = {} if closes else {"need": need, "wanted": need, "ceiling": need}
            asked = BudgetAsk(BudgetHolder(str(number)), limits, spent, is_new=not closes, closes=closes, **more)
            return await (store, other)[number % 2].share("budget:month", partial(_ask_for_budget, asked))

        answers = await asyncio.gather(*(ask(number) for number in range(30)))
        for name, most in limits.items():
            assert sum(answer.part[name] for answer in answers) <= most + 1e-9
        granted = [number for number, answer in enumerate(answers) if answer.is_granted]
        assert granted
        for number in range(30):
            spent = {"cost": 0.04, "calls": 1.0} if number in granted else {}
            await ask(number, closes=True, **spent)
        answer = await ask(100)
        assert answer.is_granted, "what was not spent is there for others"
        assert answer.spent["calls"] == len(granted)
