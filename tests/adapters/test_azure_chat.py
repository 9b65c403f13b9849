"""`AzureChat`: where it sends what, with which key, and what its content filters say."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from rh_agents import Budget, Price
from rh_agents.core.chat import ChatResponse
from rh_agents.core.errors import AccessDenied, DefinitionError, ModelRefused, UsageError
from tests.services.dialects import azure
from tests.services.dialects.kit import ANSWER, Says
from tests.services.model_server import Exchange, Reply, model_server

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")

from rh_agents import run as run_workflow
from rh_agents.llms import AzureChat

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 60))


def asked(reply: Reply, **settings: Any) -> tuple[ChatResponse, Exchange]:
    """What comes of one question to a deployment, and the request."""

    async def main() -> tuple[ChatResponse, Exchange]:
        async with model_server(reply) as server:
            place = server.base_url.removesuffix("/v1")
            settings.setdefault("api_key", "key")
            settings.setdefault("api_version", "2024-10-21")
            model = AzureChat("my-deployment", place, retry=None, **settings)
            return await model("Hello?"), server.exchanges[0]

    return run(main())


def streamed(says: Says) -> Reply:
    return Reply(says.stream, kind="text/event-stream")


@pytest.mark.parametrize("is_async", [False, True])
def test_a_token_takes_the_place_of_the_key_and_is_asked_for_each_time(is_async: bool) -> None:
    tokens = iter(("one", "two"))

    async def later() -> str:
        return next(tokens)

    async def main() -> list[Exchange]:
        async with model_server(Reply(azure.says(ANSWER).whole)) as server:
            place = server.base_url.removesuffix("/v1")
            token = later if is_async else lambda: next(tokens)
            model = AzureChat("d", place, token=token, api_version="2024-10-21")
            await model("Hello?")
            await model("Hello again?")
            return server.exchanges

    sent = run(main())
    assert [exchange.headers["authorization"] for exchange in sent] == ["Bearer one", "Bearer two"]
    assert all("api-key" not in exchange.headers for exchange in sent)


def test_what_is_not_given_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> Exchange:
        async with model_server(Reply(azure.says(ANSWER).whole)) as server:
            monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.base_url.removesuffix("/v1"))
            monkeypatch.setenv("AZURE_OPENAI_API_KEY", "key-of-the-environment")
            monkeypatch.setenv("OPENAI_API_VERSION", "2025-01-01")
            await AzureChat("d")("Hello?")
            return server.exchanges[0]

    sent = run(main())
    assert sent.path == "/openai/deployments/d/chat/completions?api-version=2025-01-01"
    assert sent.headers["api-key"] == "key-of-the-environment"


def test_what_is_missing_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DefinitionError, match="AZURE_OPENAI_ENDPOINT"):
        AzureChat("d")

    async def ask(**settings: Any) -> None:
        await AzureChat("d", "https://127.0.0.1:1", **settings)("Hello?")

    with pytest.raises(AccessDenied, match="api_version="):
        run(ask(api_key="key"))
    with pytest.raises(AccessDenied, match="token="):
        run(ask(api_version="2024-10-21"))


def test_the_asynchronous_filter_is_read_past_and_the_answer_is_whole() -> None:
    says = azure.says(ANSWER)
    response, _ = asked(streamed(says), stream=True)
    assert (response.text, response.usage.input_tokens) == (ANSWER, says.usage.input_tokens)
    assert (response.model, response.response_id) == ("gpt-4.1-mini-2025-04-14", "chatcmpl-Az")


def test_the_price_of_the_model_behind_the_deployment_counts() -> None:
    response, _ = asked(Reply({**azure.says(ANSWER).whole, "model": "o4-mini-2025-04-16"}))
    assert response.usage.cost == pytest.approx((82 * 1.1 + 17 * 4.4) / 1e6)
    place = "https://example.openai.azure.com"
    assert AzureChat("d", place, "key").known_price is None
    assert AzureChat("d", place, "key", deployed_model="o4-mini").known_price == Price(1.1, 4.4, 0.275)
    assert AzureChat("o4-mini", place, "key").known_price == Price(1.1, 4.4, 0.275)
    own = {"o4-mini": {"input": 1, "output": 2}}
    assert AzureChat("o4-mini", place, "key", prices=own).known_price == Price(1.0, 2.0)


def test_a_budget_of_money_refuses_a_deployment_of_which_nobody_knows_the_price() -> None:
    async def main() -> Any:
        async with model_server(Reply(azure.says(ANSWER).whole)) as server:
            model = AzureChat("d", server.base_url.removesuffix("/v1"), "key", api_version="2024-10-21")

            async def ask() -> str:
                return await model.ask("Hello?")

            return await run_workflow(ask, budget=Budget(cost=1.0))

    with pytest.raises(UsageError, match="give it a price"):
        run(main())


@pytest.mark.parametrize("is_streamed", [False, True])
def test_what_the_filter_takes_out_is_a_refusal_that_says_what_was_found(is_streamed: bool) -> None:
    says = azure.filtered_answer("Half of ")
    reply = streamed(says) if is_streamed else Reply(says.whole)
    with pytest.raises(ModelRefused, match="violence"):
        run_ask(reply, stream=is_streamed)


def test_a_verdict_that_comes_after_the_end_takes_the_answer_back() -> None:
    stream = azure.says(ANSWER).stream
    late = stream.replace(azure.verdict(80), azure.verdict(80, "self_harm"))
    assert late != stream
    with pytest.raises(ModelRefused, match="self_harm"):
        run_ask(Reply(late, kind="text/event-stream"), stream=True)


def test_a_prompt_that_does_not_pass_the_filter_is_a_refusal() -> None:
    with pytest.raises(ModelRefused, match="content management policy"):
        run_ask(azure.filtered_prompt())


def run_ask(reply: Reply, **settings: Any) -> str:
    async def main() -> str:
        async with model_server(reply) as server:
            place = server.base_url.removesuffix("/v1")
            model = AzureChat("d", place, "key", api_version="2024-10-21", retry=None, **settings)
            return await model.ask("Hello?")

    return run(main())
