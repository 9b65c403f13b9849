"""Several models as one: the next one is asked where one fails as stated."""

from __future__ import annotations

from typing import Any

import pytest

from rh_agents import (
    Agent,
    Budget,
    BudgetExceeded,
    ConcurrencyLimit,
    ExecutionEvent,
    ExecutionState,
    ExecutionStatus,
    MemoryStore,
    Price,
    RateLimit,
    RetryPolicy,
    Usage,
    run,
)
from rh_agents.core.chat import ChatModel, ChatRequest, ChatResponse, Fallback, Message
from rh_agents.core.chat.messages import ChatDelta
from rh_agents.core.chat.model import OnDelta
from rh_agents.core.errors import (
    AccessDenied,
    ContextTooLong,
    DefinitionError,
    InvalidRequest,
    ModelError,
    ModelOverloaded,
    QuotaExhausted,
    RateLimited,
)
from rh_agents.testing import ScriptedLLM
from tests.properties.virtual import run_virtually
from tests.runtime.test_waiting_for_servers import Served, now, refusing


def ask(model: ChatModel, **options: Any) -> Any:
    async def question() -> ChatResponse:
        return await model("?")

    return run_virtually(lambda: run(question, **options))


@pytest.mark.parametrize("error", [ModelOverloaded("no"), QuotaExhausted("no"), RateLimited("no")])
def test_where_one_fails_the_next_one_answers_and_the_answer_says_so(error: ModelError) -> None:
    first, second = ScriptedLLM([error], name="a"), ScriptedLLM(["Hello."], name="b", endpoint="here")
    response = ask(Fallback(first, second))
    assert (response.text, response.answered_by) == ("Hello.", "b at here")
    assert (len(first.requests), len(second.requests)) == (1, 1)


def test_nobody_else_is_asked_where_the_failure_is_none_of_those_that_are_stated() -> None:
    first, second = ScriptedLLM([InvalidRequest("no")]), ScriptedLLM(["Hello."])
    with pytest.raises(InvalidRequest):
        ask(Fallback(first, second))
    assert not second.requests
    first = ScriptedLLM([ContextTooLong("no")])
    assert ask(Fallback(first, second, on=[lambda error: isinstance(error, ContextTooLong)])).text == "Hello."


def test_if_all_fail_the_last_one_says_why_and_what_the_others_said() -> None:
    models = ScriptedLLM([ModelOverloaded("one")], name="a"), ScriptedLLM([QuotaExhausted("two")], name="b")
    with pytest.raises(QuotaExhausted, match="two") as caught:
        ask(Fallback(*models, retry=None))
    assert caught.value.__notes__ == ["a was asked before: ModelOverloaded: one"]


def test_each_attempt_begins_with_the_first_model() -> None:
    first = ScriptedLLM([ModelOverloaded("no"), "Late."], name="a")
    second = ScriptedLLM([ModelOverloaded("no")], name="b")
    response = ask(Fallback(first, second, retry=RetryPolicy(initial_delay=0.0)))
    assert (response.text, response.answered_by) == ("Late.", "a")


def test_no_server_is_waited_for_while_there_is_another_one_and_the_last_one_is() -> None:
    first, second = Served(refusing(1000, 60.0)), Served(refusing(2, 5.0))
    model = Fallback(first, second)

    async def main() -> float:
        assert (await model("?")).text == "yes"
        first_answer = now()
        assert (await model("?!")).text == "yes"
        return first_answer

    assert 10 <= run_virtually(lambda: run(main)) < 12
    assert len(first._asked) == 1, "the second call knows that it is paused"


def test_after_the_first_piece_nobody_else_is_asked() -> None:
    class Half(ChatModel):
        async def complete(self, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
            if on_delta is not None:
                await on_delta(ChatDelta(text="Hel"))
            raise ModelOverloaded("broke off")

    second = ScriptedLLM(["Hello."])
    events: list[ExecutionEvent[Any]] = []
    with pytest.raises(ModelOverloaded):
        ask(Fallback(Half(model="half", stream=True), second, retry=None), subscribers=[events.append])
    assert ExecutionStatus.PROGRESS in {event.execution_status for event in events}
    assert not second.requests
    assert ask(Fallback(Half(model="half", stream=False), second, retry=None)).text == "Hello."


def test_each_is_asked_with_its_own_settings_limits_and_price() -> None:
    limit = RateLimit(requests=1, per=60.0)
    first = ScriptedLLM(
        [ModelOverloaded("no")], temperature=0.5, limits=ConcurrencyLimit(1), price=Price(input=1e6, output=1e6)
    )
    second = ScriptedLLM(
        lambda _: "Hello.", model="other", seed=7, limits=limit, usage=Usage(2, 1), price=Price(input=1e6, output=1e6)
    )
    model = Fallback(first, second)

    async def main() -> tuple[float, float]:
        async with ExecutionState() as state:
            await model(Message.user("?"))
            return state.spent.usage.cost, now()

    assert run_virtually(main) == (3.0, 0.0)
    assert [first.requests[0].temperature, first.requests[0].seed] == [0.5, None]
    assert [second.requests[0].temperature, second.requests[0].seed, second.requests[0].model] == [None, 7, "other"]
    assert limit._log._totals["requests"] == 1


def test_a_budget_reserves_for_the_most_expensive_one() -> None:
    cheap = ScriptedLLM(["Hello."], price=Price(input=1.0, output=1.0), max_tokens=10)
    dear = ScriptedLLM(["Hello."], price=Price(input=1e9, output=1e9), max_tokens=10)
    with pytest.raises(BudgetExceeded):
        ask(Fallback(cheap, dear), budget=Budget(cost=1.0))


def test_it_is_one_model_in_keys_whose_models_are_part_of_it() -> None:
    store = MemoryStore()

    def make(**settings: Any) -> Fallback:
        return Fallback(ScriptedLLM([ModelOverloaded("no")], **settings), ScriptedLLM(["Hello."]), retry=None)

    async def question(model: ChatModel) -> str:
        return await model.ask("?")

    async def main() -> list[int]:
        asked = []
        for settings in ({}, {}, {"temperature": 0.1}, {"endpoint": "b"}):
            model = make(**settings)
            assert await run(question, model, store=store, run_id="r", reuse=True) == "Hello."
            asked.append(len(model.models[1].requests))  # type: ignore[attr-defined]
        return asked

    assert run_virtually(main) == [1, 0, 1, 1]


def test_an_agent_can_have_one() -> None:
    model = Fallback(ScriptedLLM([ModelOverloaded("no")]), ScriptedLLM(["Hello."]))
    assert run_virtually(lambda: run(Agent(name="a", llm=model), "?")) == "Hello."


def test_one_model_is_no_fallback() -> None:
    with pytest.raises(DefinitionError, match="two models or more"):
        Fallback(ScriptedLLM([]))


def test_a_model_that_is_passed_over_is_reported_once_for_each_kind_of_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = ScriptedLLM([AccessDenied("a: 401: no"), AccessDenied("a: 401: no"), ModelOverloaded("a: busy")], name="a")
    model = Fallback(first, ScriptedLLM(["1", "2", "3"], name="b"))

    async def questions() -> None:
        for number in range(3):
            await model(f"question {number}")

    run_virtually(lambda: run(questions))
    assert [record.getMessage() for record in caplog.records if record.name == "rh_agents.models"] == [
        "AccessDenied: a: 401: no; the next model of the fallback is asked",
        "ModelOverloaded: a: busy; the next model of the fallback is asked",
    ]
