"""What users write by mistake, and that a type checker says so. Never executed.

Every mistake carries the error that it must give: `make check` complains of an ignored error that does not occur.
"""

from typing import Any

from rh_agents import (
    LLM,
    Agent,
    ExecutionResult,
    ExecutionState,
    RetryPolicy,
    Tool,
    agent,
    parallel,
    run,
    run_sync,
    tool,
)
from rh_agents.llms import AnthropicChat, OpenAIChat


@tool
async def fetch(url: str, *, depth: int = 1) -> str:
    return url * depth


@tool(retry=3)
def count(text: str) -> int:
    return len(text)


@agent
async def survey(urls: list[str]) -> list[int]:
    return [await count(url) for url in urls]


async def wrong_arguments() -> None:
    await fetch(3)  # type: ignore[arg-type]
    await fetch()  # type: ignore[call-arg]
    await fetch("a", 2)  # type: ignore[call-arg]
    await fetch("a", deep=2)  # type: ignore[call-arg]
    await count(["a"])  # type: ignore[arg-type]
    await survey("a")  # type: ignore[arg-type]


async def wrong_results() -> None:
    number: int = await fetch("a")  # type: ignore[assignment]
    text: str = await count("a")  # type: ignore[assignment]
    pages: list[str] = await run(survey, ["a"])  # type: ignore[arg-type]
    more: list[str] = run_sync(survey, ["a"])  # type: ignore[arg-type]
    print(number, text, pages, more)


async def forgotten_awaits() -> None:
    fetch("a").upper()  # type: ignore[attr-defined]
    fetch("a").unwrap()  # type: ignore[attr-defined]
    (await fetch("a")).unwrap()  # type: ignore[attr-defined]


def wrong_parts_of_results(result: ExecutionResult[int]) -> None:
    text: str = result.unwrap()  # type: ignore[assignment]
    number: int = result.result  # type: ignore[assignment]
    result.erro_message = "x"  # type: ignore[misc]
    print(text, number)


async def wrong_groups(state: ExecutionState) -> None:
    with parallel() as p:  # type: ignore[attr-defined]
        print(p)
    async with state.parallel(max_workers="5") as p:  # type: ignore[arg-type]
        p.add(3)  # type: ignore[call-overload]
        p.add(len)  # type: ignore[arg-type]
        p.add(fetch("a"), 3)  # type: ignore[call-overload]
        p.map(["a"], fetch)  # type: ignore[call-overload]
        p.map(count, [1, 2])  # type: ignore[arg-type]
        p.gather()[0]  # type: ignore[index]
        for result in p.stream():  # type: ignore[attr-defined]
            print(result)
    parallel(5, "fail_slow", 60.0, "pages", 3)  # type: ignore[call-arg]
    parallel(max_worker=5)  # type: ignore[call-arg]
    state.parallel(retries=3)  # type: ignore[call-arg]
    parallel(item_timeout="5")  # type: ignore[arg-type]


async def wrong_options() -> None:
    tool(retries=3)  # type: ignore[call-overload]
    tool(timeout="30")  # type: ignore[call-overload]
    RetryPolicy(3)  # type: ignore[call-arg]
    Tool(handler=fetch)  # type: ignore[call-arg]
    await run(len, "a")  # type: ignore[arg-type]
    await run(survey, ["a"], store=3)  # type: ignore[call-arg]
    await run(survey, ["a"], stoer="runs.db")  # type: ignore[call-arg]


async def wrong_arguments_of_runs() -> None:
    await run(survey, 3)  # type: ignore[arg-type]
    await run(survey, 3, store="runs.db")  # type: ignore[arg-type, call-arg]
    await run(survey)  # type: ignore[misc]
    await run(survey, store="runs.db")  # type: ignore[misc]
    await run(survey, ["a"], 2, store="runs.db")  # type: ignore[call-arg]
    await run(survey, ["a"], deep=2)  # type: ignore[call-arg]
    await run(fetch, "a", depth="2")  # type: ignore[arg-type]
    run_sync(survey, 3, store="runs.db")  # type: ignore[arg-type, call-arg]
    await run.submit(survey, 3, store="runs.db")  # type: ignore[arg-type, call-arg]
    await run.submit(survey, ["a"], quue="fast")  # type: ignore[call-arg]


def wrong_subscribers(state: ExecutionState) -> None:
    def of_two(first: Any, second: Any) -> None: ...

    state.event_bus.subscribe(of_two)  # type: ignore[arg-type]
    state.event_bus.subscribe("print")  # type: ignore[arg-type]


async def wrong_agents(model: LLM) -> None:
    answer: int = await Agent(name="a", llm=model)("Well?")  # type: ignore[assignment]
    number: str = await Agent(name="a", llm=model, output=int)("Well?")  # type: ignore[assignment]
    Agent(name="a", llm="gpt-5")  # type: ignore[call-overload]
    Agent(name="a", llm=model, instruction="Be brief.")  # type: ignore[call-overload]
    print(answer, number)


async def wrong_settings_of_models() -> None:
    OpenAIChat("m", temprature=0)  # type: ignore[call-arg]
    OpenAIChat("m", temperature="hot")  # type: ignore[arg-type]
    OpenAIChat("m", thinking=2_000)  # type: ignore[call-arg]
    AnthropicChat("m", prompt_cache="2h")  # type: ignore[arg-type]
    model = OpenAIChat("m", retry=3, limits=())
    await model("Hi.", max_token=3)  # type: ignore[call-arg]
    await model.ask("Hi.", temprature=0)  # type: ignore[call-overload]
