"""What programs give by mistake is refused in one sentence that says what was meant, where it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rh_agents import LLM, Agent, Budget, ChatModel, MemoryStore, Tool, parallel, run, tool
from rh_agents.core.chat.messages import messages_of
from rh_agents.core.errors import DefinitionError, InputError, OptionError, RunMismatchError
from rh_agents.testing import ScriptedLLM


async def flow(texts: list[str] | None = None) -> int:
    return len(texts or ())


@tool
async def fetch(url: str) -> str:
    return url


def plain(text: str) -> str:
    return text.upper()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: flow(), r"not a call: run\(survey, urls\)"),
        (lambda: fetch("a"), r"not a call: run\(survey, urls\)"),
        (lambda: ScriptedLLM(["x"]).ask("?"), r"not a call: run\(survey, urls\)"),
        (lambda: 3, r"as in run\(survey, urls\), not 3"),
        (lambda: "flow", r"as in run\(survey, urls\), not 'flow'"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_executed_is_a_function_and_not_its_call(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        asyncio.run(run(make()))


def test_a_plain_function_is_no_workflow() -> None:
    with pytest.raises(DefinitionError, match="run takes an `async def`, and plain gave 'A'"):
        asyncio.run(run(plain, "a"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "give",
    [
        lambda: run(flow, budget=2.0),
        lambda: run(member),
        lambda: Tool(name="t", handler=flow, budget=2.0),  # type: ignore[arg-type]
    ],
)
def test_an_amount_is_no_budget(give: Callable[[], Any]) -> None:
    with pytest.raises(DefinitionError, match=r"budget= takes a Budget, such as Budget\(cost=2.0\), not 2.0"):
        asyncio.run(give())


async def member() -> None:
    async with parallel(budget=2.0):  # type: ignore[arg-type]
        pass


def unchecked(function: Any) -> Any:
    """Used as a program does that no type checker has seen."""
    return function


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: unchecked(Agent)(name="a", instuctions=""), r"Agent\('a'\) has no option instuctions=: did you mean"),
        (lambda: unchecked(ChatModel)(model="m", temprature=0), r"ChatModel\('m'\) has no option temprature=: did"),
        (lambda: unchecked(tool)(retries=3)(flow), "@tool has no option retries=: did you mean ret"),
        (lambda: unchecked(Agent)(name="a", xyzzy=1), r"Agent\('a'\) has no option xyzzy=: there are br.*output,"),
        (lambda: unchecked(Agent)(name="a", llm="gpt-4.1"), "llm= takes the model itself, not its name 'gpt-4.1'"),
        (lambda: Agent(name="a", llm=ScriptedLLM([]), output="Report"), "output= takes the type itself, not its name"),
        (lambda: unchecked(LLM)(name="m", handler=flow, limits=5), r"limits= takes limits, such as .*, not 5"),
    ],
)  # fmt: skip
def test_options_that_there_are_not_are_refused_in_one_line(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1])
@pytest.mark.parametrize("name", ["timeout", "idle_timeout"])
def test_a_model_has_no_time_limit_that_is_over_at_once(name: str, seconds: float) -> None:
    with pytest.raises(OptionError, match=f"{name}={seconds}: "):
        unchecked(ScriptedLLM)([], **{name: seconds})


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (3, "3 is not a prompt: give a text, a message or a list of messages"),
        (None, "None is not a prompt: give a text, a message or a list of messages"),
        ([{"content": "x"}], "is not a message: role: Field required"),
        ([{"role": "user", "contents": "x"}], "is not a message: contents: Extra inputs are not permitted"),
        ([{"role": "function", "content": "x"}], "is not a message: function_call and the role"),
    ],
)
def test_what_is_wrong_with_a_prompt_is_said_with_its_place(prompt: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        messages_of(prompt)


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        (["a"], ["b"], r'the input \{"texts":\["a"\]\}, and this is \{"texts":\["b"\]\}: name'),
        (
            [f"question {number}" for number in range(200)],
            [f"question {number}" for number in range(199)] + ["another one"],
            r'differs from character 2,\d\d\d on: ….*"question 199"\]\}, and this is ….*"another one"\]\}: ',
        ),
        (
            [f"question {number}" for number in range(200)],
            [f"question {number}" for number in range(201)],
            r'differs from character .*"question 199"\]\}, and this is ….*"question 199","question 200"\]\}: ',
        ),
    ],
)
def test_a_run_with_another_input_says_where_the_inputs_differ(before: Any, now: Any, says: str) -> None:
    async def main() -> None:
        store = MemoryStore()
        await run(flow, before, store=store, run_id="monday", budget=Budget(calls=5))
        with pytest.raises(RunMismatchError, match=says) as caught:
            await run(flow, now, store=store, run_id="monday")
        assert len(str(caught.value)) < 500

    asyncio.run(main())
