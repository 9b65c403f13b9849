"""Budgets around agents of other frameworks: a price is found or given, or the call is refused with the remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rh_agents import Budget, BudgetExceeded, Price, Usage, run
from rh_agents.core.errors import UsageError
from rh_agents.core.usage import Spending
from tests.services.model_server import answer, model_server

pytest.importorskip("agents", reason="openai-agents is not installed: pip install 'rh_agents[openai-agents]'")
pytest.importorskip("langchain_core", reason="langchain-core is not installed: pip install 'rh_agents[langchain]'")
pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed: pip install 'rh_agents[pydantic-ai]'")

from agents import Agent as SdkAgent
from agents import ModelSettings, OpenAIChatCompletionsModel, Runner
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from openai import AsyncOpenAI
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from rh_agents.integrations import langchain, openai_agents, pydantic_ai

TOLD = {"prompt_tokens": 1_000, "completion_tokens": 1_000, "total_tokens": 2_000}
Ask = Callable[[str], Awaitable[Any]]


def with_pydantic_ai(client: AsyncOpenAI, model: str, price: Price | None) -> Ask:
    made = OpenAIChatModel(model, provider=OpenAIProvider(openai_client=client))
    agent = PydanticAgent(made, name="a", model_settings={"max_tokens": 1_000})
    return pydantic_ai.durable(agent, price=price).run


def with_the_sdk(client: AsyncOpenAI, model: str, price: Price | None) -> Ask:
    made = OpenAIChatCompletionsModel(model, client)
    agent: SdkAgent[Any] = SdkAgent(name="a", model=made, model_settings=ModelSettings(max_tokens=1_000))
    durable = openai_agents.durable(agent, price=price)
    return lambda prompt: Runner.run(durable, prompt)


FRAMEWORKS = pytest.mark.parametrize("framework", [with_pydantic_ai, with_the_sdk])


def spent(
    framework: Callable[[AsyncOpenAI, str, Price | None], Ask],
    budget: Budget,
    model: str = "m",
    price: Price | None = None,
    usage: Any = TOLD,
) -> tuple[Spending, int]:
    """What was spent until the budget stopped ten questions, and the requests that were made."""

    async def main() -> tuple[Spending, int]:
        reply = answer("ok", usage=usage, model=model)
        async with model_server(reply) as server, AsyncOpenAI(base_url=server.base_url, api_key="x") as client:
            ask = framework(client, model, price)

            async def ten() -> None:
                for number in range(10):
                    await ask(f"q{number}")

            with pytest.raises(BudgetExceeded) as caught:
                await run(ten, budget=budget)
            return caught.value.spent, len(server.exchanges)

    return asyncio.run(asyncio.wait_for(main(), 60))


@pytest.fixture(autouse=True)
def no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")


@FRAMEWORKS
def test_a_budget_of_money_holds_with_a_price_that_is_given(framework: Any) -> None:
    spending, requests = spent(framework, Budget(cost=0.01), price=Price(1.0, 2.0))
    assert requests == 3
    assert spending.usage.cost == pytest.approx(0.009)


@FRAMEWORKS
def test_a_price_is_found_by_the_name_of_the_model(framework: Any) -> None:
    spending, requests = spent(framework, Budget(cost=0.05), model="gpt-4o")
    assert 0 < requests < 10
    assert 0 < spending.usage.cost <= 0.05


@FRAMEWORKS
def test_a_budget_of_tokens_holds(framework: Any) -> None:
    spending, requests = spent(framework, Budget(tokens=7_000))
    assert (requests, spending.usage.tokens) == (3, 6_000)


@FRAMEWORKS
def test_a_budget_of_money_around_an_unknown_price_is_refused_with_the_remedy(framework: Any) -> None:
    async def main() -> int:
        async with (
            model_server(answer("ok")) as server,
            AsyncOpenAI(base_url=server.base_url, api_key="x") as client,
        ):
            ask = framework(client, "nobody-knows", None)
            with pytest.raises(UsageError, match=r"price=Price\("):
                await run(ask, "q", budget=Budget(cost=1.0))
            return len(server.exchanges)

    assert asyncio.run(main()) == 0


def test_an_answer_that_says_no_usage_is_estimated_and_counts() -> None:
    async def main() -> Usage:
        model = langchain.durable(FakeListChatModel(responses=["It is ten to nine. " * 10]), price=Price(1.0, 1.0))

        async def ten() -> None:
            for number in range(10):
                await model.ainvoke(f"q{number}")

        with pytest.raises(BudgetExceeded) as caught:
            await run(ten, budget=Budget(cost=0.005))
        return caught.value.spent.usage

    usage = asyncio.run(main())
    assert usage.estimates == usage.requests >= 1
    assert 190 / 4 * usage.requests <= usage.output_tokens
    assert usage.cost <= 0.005


def _unbounded_pydantic_ai(client: AsyncOpenAI, max_output: int | None) -> Ask:
    made = OpenAIChatModel("m", provider=OpenAIProvider(openai_client=client))
    return pydantic_ai.durable(PydanticAgent(made, name="a"), max_output=max_output).run


def _unbounded_sdk(client: AsyncOpenAI, max_output: int | None) -> Ask:
    agent: SdkAgent[Any] = SdkAgent(name="a", model=OpenAIChatCompletionsModel("m", client))
    durable = openai_agents.durable(agent, max_output=max_output)
    return lambda prompt: Runner.run(durable, prompt)


def _unbounded_langchain(_: AsyncOpenAI, max_output: int | None) -> Ask:
    return langchain.durable(FakeListChatModel(responses=["It is ten."]), max_output=max_output).ainvoke


@pytest.mark.parametrize("framework", [_unbounded_pydantic_ai, _unbounded_sdk, _unbounded_langchain])
def test_what_a_model_can_write_is_reserved_as_given_where_no_setting_bounds_it(
    framework: Callable[[AsyncOpenAI, int | None], Ask],
) -> None:
    async def asked(max_output: int | None) -> None:
        reply = answer("ok", usage={"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}, model="m")
        async with model_server(reply) as server, AsyncOpenAI(base_url=server.base_url, api_key="x") as client:
            await run(framework(client, max_output), "q", budget=Budget(tokens=2_000))

    asyncio.run(asked(500))
    with pytest.raises(BudgetExceeded):
        asyncio.run(asked(None))
