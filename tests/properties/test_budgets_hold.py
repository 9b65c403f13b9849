"""A budget is never exceeded by more than what was in flight, whatever answers use, and whatever becomes of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rh_agents import Budget, BudgetExceeded, ExecutionState, Price, RetryPolicy, Usage, parallel
from rh_agents.core.chat import ChatModel, ChatRequest, ChatResponse
from rh_agents.core.errors import IncompleteAnswer, UnreadableAnswer
from tests.properties.virtual import run_virtually

PRICE = Price(input=100.0, output=200.0)


class Erratic(ChatModel):
    """Uses what its script says, and answers, is unreadable, breaks off, says nothing, or never comes."""

    model: str = "erratic"
    price: Price | None = PRICE
    max_tokens: int | None = 50
    timeout: float | None = 5.0
    retry: RetryPolicy | None = RetryPolicy(max_attempts=2, initial_delay=0.0)
    script: Any = ()
    used: Any = None

    async def complete(self, request: ChatRequest, on_delta: Any) -> ChatResponse:
        kind, tokens = self.script[len(self.used) % len(self.script)]
        self.used.append(tokens)
        usage = Usage(input_tokens=10, output_tokens=tokens, requests=1)
        await asyncio.sleep(tokens / 100)
        if kind == "unreadable":
            raise UnreadableAnswer("odd", usage=usage)
        if kind == "broken off":
            raise IncompleteAnswer("half", usage=usage)
        if kind == "never":
            await asyncio.sleep(1000)
        return ChatResponse(text="x" * tokens, usage=Usage() if kind == "silent" else usage)


KINDS = st.sampled_from(["answer", "unreadable", "broken off", "silent", "never"])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(KINDS, st.integers(1, 120)), min_size=1, max_size=6),
    st.integers(1, 4),
    st.sampled_from([Budget(tokens=700), Budget(cost=0.12), Budget(tokens=900, cost=0.1)]),
)
def test_no_budget_is_exceeded_by_more_than_what_was_in_flight(script: Any, workers: int, budget: Budget) -> None:
    model = Erratic(script=script, used=[])

    async def main() -> Usage:
        state = ExecutionState(budget=budget)
        with suppress(BudgetExceeded):
            async with state, parallel(max_workers=workers) as p:
                p.map(lambda number: model.ask(f"{number}"), range(60))
                await p.gather()
        return state.spent.usage

    spent = run_virtually(main)
    largest = Usage(input_tokens=60, output_tokens=max(50, *(tokens for _, tokens in script)))
    assert spent.requests == len(model.used), "every request counts"
    if budget.tokens is not None:
        assert spent.tokens <= budget.tokens + workers * largest.tokens
    if budget.cost is not None:
        assert spent.cost <= budget.cost + workers * PRICE.cost(largest) + 1e-9
    assert spent.cost == pytest.approx(PRICE.cost(spent))
