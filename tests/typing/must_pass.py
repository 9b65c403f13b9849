"""What users write, and what a type checker makes of it. Never executed: `make check` reads it."""

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, assert_type

from pydantic import BaseModel

from rh_agents import (
    LLM,
    Agent,
    Call,
    CircuitBreaker,
    ErrorStrategy,
    EventBus,
    ExecutionEvent,
    ExecutionResult,
    ExecutionState,
    Injected,
    MemoryStore,
    ParallelEventGroup,
    ParallelExecutionManager,
    RetryPolicy,
    Run,
    Tool,
    ToolSet,
    agent,
    current,
    fork,
    llm,
    parallel,
    run,
    run_sync,
    tool,
)
from rh_agents.core.parallel import MapHandle, MemberHandle, MemberResult
from rh_agents.core.ports import RunInfo
from rh_agents.decorators import RunOptions


class Client: ...


class Review(BaseModel):
    text: str


# -- decorated functions keep their parameters and their result ------------------------------------------------------


@tool
async def fetch(url: str, *, depth: int = 1) -> str:
    return url * depth


@tool(retry=3, timeout=30)
async def fetch_again(url: str) -> str:
    return url


@tool(retry=RetryPolicy(max_attempts=2), breaker=CircuitBreaker(), version="2", name="n", description="d")
async def with_every_option(url: str) -> list[str]:
    return [url]


@tool
def count(text: str) -> int:
    return len(text)


@tool(engine="process")
def crunch(number: int) -> float:
    return number / 2


@llm
async def ask(prompt: str) -> Review:
    return Review(text=prompt)


@agent
async def survey(urls: list[str], client: Annotated[Client, Injected]) -> dict[str, int]:
    return {url: await count(await fetch(url)) for url in urls}


@agent
async def survey_of_one(url: str, *, depth: int = 1) -> dict[str, int]:
    return {url: depth}


@agent(timeout=60)
async def nothing() -> None: ...


async def plain(number: int) -> int:
    return number


async def calls() -> None:
    assert_type(await fetch("a"), str)
    assert_type(await fetch("a", depth=2), str)
    assert_type(await fetch_again(url="a"), str)
    assert_type(await with_every_option("a"), list[str])
    assert_type(await count("a"), int)
    assert_type(await crunch(3), float)
    assert_type(await ask("a"), Review)
    assert_type(await survey(["a"], Client()), dict[str, int])
    call: Call[str] = fetch("a")
    assert_type(await call.outcome(), ExecutionResult[str])
    assert_type((await call.outcome()).unwrap(), str)
    assert_type(await fetch("a").with_options(key="first"), str)
    first, second = await asyncio.gather(fetch("a"), count("b"))
    assert_type(first, str)
    assert_type(second, int)
    assert_type(await asyncio.wait_for(fetch("a"), 3), str)


# -- results ----------------------------------------------------------------------------------------------------------


def results(result: ExecutionResult[int]) -> None:
    assert_type(result.unwrap(), int)
    assert_type(result.result, int | None)
    assert_type(result.error_message, str | None)
    assert_type(result.erro_message, str | None)
    assert_type(result.error, BaseException | None)
    assert_type(result.index, int | None)
    assert_type(ExecutionResult(result=3), ExecutionResult[int])


# -- groups -----------------------------------------------------------------------------------------------------------


def urls() -> Iterator[str]:
    yield "a"


async def more_urls() -> AsyncIterator[str]:
    yield "a"


async def groups(state: ExecutionState) -> None:
    async with parallel(max_workers=20, name="pages") as p:
        assert_type(p, ParallelExecutionManager)
        page = p.add(fetch("a"))
        index: int = page
        assert_type(page, MemberHandle[str])
        assert_type(page.index, int)
        assert_type(p.add(ExecutionEvent[int](actor=fetch.actor)("a")), MemberHandle[int])
        assert_type(p.add(functools.partial(plain, 3)), MemberHandle[int])
        assert_type(p.add(lambda: count("a")), MemberHandle[int])
        assert_type(p.add(plain(3), name="plain", key="third"), MemberHandle[int])
        assert_type(await page, str)
        assert_type(page.result(), str)
        assert_type(await page.outcome(), MemberResult[str, None])
        by_index = {index: "a"}
        print(by_index[page])
        p.add(plain(3), name="plain")
        p.add(lambda: plain(3))
        p.add(functools.partial(plain, 3), key="third")
        p.add(asyncio.sleep(1))
        p.map(fetch, ["a", "b"])
        p.map(fetch, urls(), name=lambda url: str(url))
        counts = p.map(plain, range(3))
        assert_type(counts, MapHandle[int, int])
        for each in await counts:
            assert_type(each, MemberResult[int, int])
            assert_type(each.item, int)
            assert_type(each.index, int)
            assert_type(each.unwrap(), int)
        async for each in counts.stream(ordered=True):
            assert_type(each, MemberResult[int, int])
        assert_type(p.map(lambda url: fetch(url, depth=2), urls()), MapHandle[str, str])
        assert_type(p.map(crunch, [1, 2]), MapHandle[float, int])
        assert_type(p.map(survey_of_one, more_urls()), MapHandle[dict[str, int], str])
        assert_type(p.map(fetch.actor, ["a"]), MapHandle[Any, str])
        p.map(fetch.actor, ["a", "b"])
        p.map(fetch, more_urls(), key=lambda url: str(url))
        assert_type(await p.gather(), list[MemberResult[Any, Any]])
        assert_type(await p.gather_dict(), dict[str, MemberResult[Any, Any]])
        any_results: Sequence[ExecutionResult[Any]] = await p.gather()
        print(any_results)
        async for result in p.stream():
            assert_type(result, MemberResult[Any, Any])
            assert_type(result.index, int)
        async for result in p.stream(ordered=True):
            assert_type(result, MemberResult[Any, Any])
            assert_type(result.index, int)
        assert_type(p.group, ParallelEventGroup)
    async with state.parallel(5, ErrorStrategy.FAIL_FAST, 60.0, "pages", retry=3, item_timeout=5) as p:
        pages: list[str] = [page.unwrap() for page in await p.gather()]
        print(pages)
    async with ParallelExecutionManager(state, max_workers=3, error_strategy="fail_slow", fail_after=0.1):
        pass


# -- runs -------------------------------------------------------------------------------------------------------------


async def runs() -> None:
    assert_type(await run(survey, ["a"], Client(), store="memory:", run_id="monday"), dict[str, int])
    assert_type(await run(plain, 3), int)
    assert_type(await run(nothing), None)
    assert_type(await run(fetch, "a", store=MemoryStore(), tags=["t"], strict=True, subscribers=[print]), str)
    assert_type(await run(fetch, "a", depth=2), str)
    assert_type(await run(fetch, url="a", depth=2, store="runs.db"), str)
    assert_type(await run(survey_of_one, "a", store="runs.db"), dict[str, int])
    options: RunOptions = {"store": "runs.db", "tags": ["nightly"]}
    assert_type(await run(survey_of_one, "a", **options), dict[str, int])
    assert_type(await run.submit(survey, ["a"], store="runs.db"), RunInfo)  # a worker gives the client
    assert_type(await run.submit(plain, 3, store="runs.db", priority=2), RunInfo)
    assert_type(await run.submit(plain, number=3, store="runs.db"), RunInfo)
    await fork("runs.db", "monday", "tuesday")
    await fork(Path("runs.db"), "monday", "tuesday")
    states = ExecutionState(store="runs.db"), ExecutionState(store=Path("runs.db"))
    assert_type(states[0], ExecutionState)
    async with ExecutionState(store=MemoryStore(), run_id="monday") as state:
        assert_type(state, ExecutionState)
        assert_type(state.run_id, str)
        assert_type(current().attempt, int)
        a_run: Run = state
        assert_type(current().run, Run)
        assert_type(await a_run.ask("How many?", int), int)


def in_a_program_without_a_loop() -> None:
    assert_type(run_sync(plain, 3), int)
    assert_type(run_sync(survey, ["a"], Client()), dict[str, int])


# -- actors and events ------------------------------------------------------------------------------------------------


async def handler(review: Review, extra_context: Any, state: ExecutionState) -> int:
    return len(review.text)


async def events(state: ExecutionState) -> None:
    search = Tool(name="search", handler=handler, input_model=Review, retry=RetryPolicy())
    model = LLM(name="model", handler=handler)
    chooser = Agent(name="chooser", handler=handler, tools=ToolSet([search]), llm=model)
    assert_type(chooser, Agent[int])
    assert_type(Agent(name="plain", llm=model, retry=3, tools=[fetch, search]), Agent[str])
    reviewer = Agent(name="reviewer", llm=model, output=Review, handoffs=[chooser])
    assert_type(reviewer, Agent[Review])
    assert_type(await reviewer("Is it good?"), Review)
    assert_type(await run(reviewer, "Is it good?", store="runs.db"), Review)
    assert_type(Agent(name="lists", llm=model, output=list[Review]), Agent[list[Review]])
    assert_type(Agent(name="either", llm=model, output=Review | str), Agent[Any])
    any_agents: list[Agent[Any]] = [reviewer, chooser]
    async with parallel() as p:
        assert_type(p.add(reviewer("Is it?")), MemberHandle[Review])
        assert_type(p.map(reviewer, ["a", "b"]), MapHandle[Review, str])
    print(any_agents)
    result = await ExecutionEvent[int](actor=chooser)(Review(text="a"), None, state)
    assert_type(result, ExecutionResult[int])

    bus = EventBus()

    def on_event(event: ExecutionEvent[Any]) -> None:
        print(event.address)

    async def on_event_later(event: ExecutionEvent[Any]) -> None:
        print(event.address)

    bus.subscribe(on_event)
    with bus.subscribe(on_event_later, buffer=100, on_full="wait"):
        pass
    async for event in bus.stream():
        assert_type(event, ExecutionEvent[Any])
