"""What newcomers write wrong, and the sentence that each of it gets: with its place and its remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import rh_agents
from rh_agents import (
    Agent,
    Budget,
    CircuitBreaker,
    ExecutionState,
    MemoryStore,
    RateLimit,
    RetryPolicy,
    Tool,
    parallel,
    run,
    run_sync,
    tool,
)
from rh_agents.core.errors import DefinitionError, OptionError, RhAgentsError, RunIsLive
from rh_agents.core.parallel import MapHandle
from rh_agents.testing import ScriptedLLM

Wrong = Callable[[], Any]


def unchecked(function: Any) -> Any:
    """Used as a program does that no type checker has seen."""
    return function


RUN: Any = unchecked(run)
RUN_SYNC: Any = unchecked(run_sync)
PARALLEL: Any = unchecked(parallel)
TOOL: Any = unchecked(tool)
AGENT: Any = unchecked(Agent)


async def flow(urls: list[str] | None = None) -> int:
    return len(urls or ())


async def fetch_plainly(url: str) -> str:
    return url


@tool
async def fetch(url: str, depth: int = 1) -> str:
    return url * depth


@tool
async def add(one: int, two: int) -> int:
    return one + two


async def group(use: Callable[[Any], Any] | None = None, **options: Any) -> Any:
    async with PARALLEL(**options) as p:
        given = None if use is None else use(p)
        if isinstance(given, Awaitable) and not isinstance(given, MapHandle):
            return await given
        return [each.unwrap() for each in await p.gather()]


async def without_async() -> None:
    with PARALLEL():
        pass


async def run_without_async() -> None:
    with unchecked(ExecutionState)():
        pass


async def read(p: Any) -> None:
    p.add(fetch("a"))
    for _ in p.stream():
        pass


async def sync_in_a_loop() -> None:
    run_sync(flow)


async def executed_twice() -> None:
    store = MemoryStore()
    async with ExecutionState(store=store, run_id="monday"):
        await run(flow, store=store, run_id="monday")


async def wait(call: Callable[[], Any]) -> Any:
    return await call()


def on_no_loop_of_asyncio(call: Callable[[], Any]) -> None:
    """As under trio, which makes the steps of a coroutine itself."""
    wait(call).send(None)


def misspelt_identity() -> None:
    call = fetch("a")
    call.discard()
    unchecked(call).with_options(keey="")


OPTIONS: dict[str, tuple[Wrong, str]] = {
    "tool(retries=3)": (lambda: TOOL(retries=3), r"@tool has no option retries=: did you mean retry=\?"),
    "Agent(model=…)": (lambda: AGENT(name="a", model="gpt-4"), r"Agent\('a'\) has no option model=: did you mean llm="),
    "Agent(system_prompt=…)": (lambda: AGENT(name="a", system_prompt=""), "system_prompt=: did you mean instructions="),
    "ScriptedLLM(temprature=0)": (lambda: unchecked(ScriptedLLM)([], temprature=0), "temprature=: did you mean temper"),
    "run(stoer=…)": (lambda: RUN(flow, stoer=1), "run has no option stoer=, and flow has no such .* mean store="),
    "run(url=…)": (lambda: RUN(flow, url=[]), r"run has no option url=, .* did you mean urls=\?"),
    "run_sync(stoer=…)": (lambda: RUN_SYNC(flow, stoer=1), "run has no option stoer=.* did you mean store="),
    "run.submit(qeue=…)": (
        lambda: RUN.submit(flow, store="", qeue=""),
        r"run.submit has no option qeue=.* mean queue=",
    ),
    "parallel(workers=5)": (
        lambda: group(workers=5),
        r"parallel\(\) has no option workers=: did you mean max_workers=",
    ),
    "parallel(concurrency=5)": (lambda: group(concurrency=5), "concurrency=: did you mean max_workers="),
    "map(max_workers=5)": (
        lambda: group(lambda p: p.map(fetch, [], max_workers=5)),
        r"map\(\) has no option max_workers=: did you mean workers=",
    ),
    "with_options(keey=…)": (lambda: misspelt_identity(), "no option keey=: did you mean key="),
    "ExecutionState(stoer=…)": (lambda: unchecked(ExecutionState)(stoer=1), "ExecutionState has no option stoer=: did"),
    "RetryPolicy(attempts=3)": (lambda: unchecked(RetryPolicy)(attempts=3), "attempts=: did you mean max_attempts="),
    "RetryPolicy(3)": (lambda: unchecked(RetryPolicy)(3), r"by name: write RetryPolicy\(max_attempts=3\)"),
    "Budget(costs=2)": (lambda: unchecked(Budget)(costs=2), r"Budget has no option costs=: did you mean cost=\?"),
    "Budget(2.0)": (lambda: unchecked(Budget)(2.0), r"takes its options by name: write Budget\(cost=2.0\)"),
    "RateLimit(request=3)": (lambda: unchecked(RateLimit)(request=3), "request=: did you mean requests="),
    "CircuitBreaker(failures=3)": (lambda: unchecked(CircuitBreaker)(failures=3), "did you mean failure_threshold="),
    "EventPrinter(show=…)": (lambda: unchecked(rh_agents.EventPrinter)(show=1), "EventPrinter has no option show="),
    "Agent('a')": (lambda: AGENT("a"), r"Agent takes its options by name: write Agent\(name='a'\)"),
    "Tool('a')": (lambda: unchecked(Tool)("a"), r"Tool takes its options by name: write Tool\(name='a'\)"),
    "Agent()": (lambda: AGENT(), "name= is missing"),
}
VALUES: dict[str, tuple[Wrong, str]] = {
    "Agent(llm='gpt-4')": (lambda: AGENT(name="a", llm="gpt-4"), "llm= takes the model itself, not its name 'gpt-4'"),
    "Agent(llm=5)": (lambda: AGENT(name="a", llm=5), r"Agent\('a'\): llm=5: a model is needed, such as"),
    "Agent(max_turns='x')": (lambda: AGENT(name="a", max_turns="x"), "max_turns='x': input should be a valid integer"),
    "Agent(tools=fetch)": (lambda: AGENT(name="a", tools=fetch), r"tools= takes a list: tools=\[fetch\]"),
    "Agent(tools=[len])": (lambda: AGENT(name="a", tools=[len]), "is not a tool: write @tool above the function"),
    "Agent(handoffs=[f])": (lambda: AGENT(name="a", handoffs=[fetch]), r"handoffs\[0\]=.*: agents are needed"),
    "budget=2.0": (lambda: RUN(flow, budget=2.0), r"budget= takes a Budget, such as Budget\(cost=2.0\), not 2.0"),
    "tool(budget=2.0)": (lambda: TOOL(budget=2.0)(flow), r"such as Budget\(cost=2.0\), not 2.0"),
    "parallel(budget=2.0)": (lambda: group(budget=2.0), r"such as Budget\(cost=2.0\), not 2.0"),
    "retry='3'": (lambda: TOOL(retry="3")(flow), r"Tool\('flow'\): retry='3': a whole number is needed.*or a RetryPol"),
    "parallel(retry='3')": (lambda: group(retry="3"), "retry='3': a whole number is needed.*or a RetryPolicy"),
    "timeout='3s'": (lambda: TOOL(timeout="3s")(flow), "timeout='3s': seconds above 0 are needed"),
    "version=2": (lambda: TOOL(version=2)(flow), "version=2: a text is needed, such as version='2'"),
    "limits=[5]": (lambda: TOOL(limits=[5])(flow), r"limits= takes limits, such as RateLimit\(requests=500\), not 5"),
    "parallel(limits=5)": (lambda: group(limits=5), r"limits= takes limits, such as RateLimit\(requests=500\), not 5"),
    "breaker=5": (lambda: TOOL(breaker=5)(flow), r"breaker=5: a CircuitBreaker is needed, such as CircuitBreaker\(5\)"),
    "parallel(breaker=5)": (lambda: group(breaker=5), "breaker=5: a CircuitBreaker is needed"),
    "parallel(name=5)": (lambda: group(name=5), "name=5: a text is needed"),
    "effect='externl'": (lambda: TOOL(effect="externl")(flow), "'repeatable', 'external'; did you mean 'external'"),
    "on_unknown='again'": (lambda: TOOL(on_unknown="again")(flow), "there are 'retry', 'fail', 'ask'"),
    "cache=True": (lambda: TOOL(cache=True)(flow), "cache=True: there are 'run', 'store'"),
    "error_strategy='fast'": (lambda: group(error_strategy="fail_faster"), "'fail_slow', 'fail_fast'; did you mean"),
    "durability='synch'": (lambda: RUN(flow, durability="synch"), "'sync', 'async', 'exit'; did you mean 'sync'"),
    "replay_mode='x'": (lambda: RUN(flow, replay_mode="x"), "there are 'normal', 'validation', 'republish_all'"),
    "record_inputs='all'": (lambda: RUN(flow, record_inputs="all"), "there are 'none', 'brief', 'full'"),
    "run_id=5": (lambda: RUN(flow, run_id=5), "run_id=5: a text is needed, such as run_id='monday'"),
    "run_id=''": (lambda: RUN(flow, run_id=""), "run_id='': a text is needed.* None makes a new one"),
    "tags='nightly'": (lambda: RUN(flow, tags="nightly"), r"tags='nightly': a list is needed: tags=\['nightly'\]"),
    "subscribers=print": (lambda: RUN(flow, subscribers=print), r"a list is needed: subscribers=\[print\]"),
    "executors=5": (lambda: RUN(flow, executors=5), "executors= takes a mapping by engine, as in .*, not 5"),
    "answerer=5": (lambda: RUN(flow, answerer=5), "answerer=5: an `async def` is needed that takes a Question"),
    "store=5": (lambda: RUN(flow, store=5), "store= takes a store, a path or a URL, such as 'runs.db', not int 5"),
    "@tool('fetch')": (lambda: TOOL("fetch"), r"@tool stands above a function, .* @tool\(name='fetch'\)"),
}
USES: dict[str, tuple[Wrong, str]] = {
    "run('flow')": (
        lambda: RUN("flow"),
        r"run takes a function and its arguments, as in run\(survey, urls\), not 'flow'",
    ),
    "run(flow([1]))": (lambda: RUN(flow([""])), r"run takes the function and its arguments, not a call: run\(survey, "),
    "run(lambda: 3)": (lambda: RUN(lambda: 3), "run takes an `async def`, and this gave 3: write `async def` before"),
    "with parallel()": (without_async, r"`async` is missing: write `async with parallel\(...\) as p:`"),
    "with ExecutionState()": (run_without_async, r"write `async with ExecutionState\(...\) as state:`"),
    "for _ in p.stream()": (lambda: group(read), r"`async` is missing: write `async for result in p.stream\(\):`"),
    "p.add(fetch, 'a')": (lambda: group(lambda p: p.add(fetch, 7)), r"write add\(fetch\(7\)\), not the function and"),
    "p.add([...])": (lambda: group(lambda p: p.add([1])), r"add\(\) takes a call.* not list.*one by one, or with map"),
    "p.add(3)": (lambda: group(lambda p: p.add(3)), r"add\(\) takes a call, .* not int"),
    "p.map(fetch, 5)": (lambda: group(lambda p: p.map(fetch, 5)), "takes an iterable or an async iterable .*, not int"),
    "p.map([1], fetch)": (lambda: group(lambda p: p.map([1], fetch)), "takes a function and the items for it, but"),
    "run_sync in a loop": (sync_in_a_loop, r"one runs here already: write `await run\(flow, ...\)`"),
    "run under trio": (lambda: on_no_loop_of_asyncio(lambda: run(flow)), r"asyncio, and none runs here: .*trio"),
    "fetch() under trio": (
        lambda: on_no_loop_of_asyncio(lambda: fetch("a")),
        "asyncio, and none runs here: .*run_sync",
    ),
    "a group under trio": (lambda: on_no_loop_of_asyncio(group), "asyncio, and none runs here: start the program with"),
    "a run that is live": (
        executed_twice,
        "look at it with `rh-agents show monday`, stop it with .*, or use another run",
    ),
}
ARGUMENTS: dict[str, tuple[Wrong, str]] = {
    "fetch()": (lambda: unchecked(fetch)(), r"fetch\(\): missing .* 'url'; its parameters are \(url, depth\)"),
    "fetch(ulr=…)": (lambda: unchecked(fetch)(url="", dept=1), r"fetch\(\): got an unexpected .* did you mean depth="),
    "p.add(fetch)": (lambda: group(lambda p: p.add(fetch)), r"fetch\(\): missing a required argument: 'url'"),
    "tuples given to map": (lambda: group(lambda p: p.map(add, [(1, 2)])), r"p.map\(lambda item: add\(\*item\), items"),
    "mappings given to map": (lambda: group(lambda p: p.map(add, [{"one": 1, "two": 2}])), r"lambda item: add\(\*\*it"),
}


def made(wrong: Wrong) -> None:
    """Do it, and await what comes of it."""
    given = wrong()
    if isinstance(given, Awaitable):

        async def main() -> None:
            await given

        asyncio.run(main())


def expect_one_sentence(error: BaseException) -> None:
    text = str(error)
    assert "\n" not in text
    assert "pydantic" not in text
    assert len(text) < 300


@pytest.mark.parametrize(("wrong", "says"), [*OPTIONS.values()], ids=[*OPTIONS])
def test_an_option_that_there_is_not_is_refused_with_the_one_that_is_meant(wrong: Wrong, says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        made(wrong)
    expect_one_sentence(caught.value)


@pytest.mark.parametrize(("wrong", "says"), [*VALUES.values()], ids=[*VALUES])
def test_a_value_that_an_option_cannot_have_is_refused_with_what_it_can_have(wrong: Wrong, says: str) -> None:
    with pytest.raises(DefinitionError, match=says) as caught:
        made(wrong)
    expect_one_sentence(caught.value)


@pytest.mark.parametrize(("wrong", "says"), [*USES.values()], ids=[*USES])
def test_what_is_used_in_a_wrong_place_says_how_it_is_written(wrong: Wrong, says: str) -> None:
    with pytest.raises(RhAgentsError, match=says) as caught:
        made(wrong)
    expect_one_sentence(caught.value)


@pytest.mark.parametrize(("wrong", "says"), [*ARGUMENTS.values()], ids=[*ARGUMENTS])
def test_arguments_that_do_not_fit_are_refused_as_python_does_and_with_what_was_meant(wrong: Wrong, says: str) -> None:
    with pytest.raises(TypeError, match=says) as caught:
        made(wrong)
    expect_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("paralel", "did you mean 'parallel'"),
        ("SqliteStore", "write `from rh_agents.stores.sqlite import SqliteStore`"),
        ("OpenAIChat", "write `from rh_agents.llms import OpenAIChat`"),
        ("Worker", "write `from rh_agents.workers import Worker`"),
    ],
)
def test_a_name_that_is_not_at_top_level_says_where_it_is(name: str, says: str) -> None:
    with pytest.raises(AttributeError, match=says):
        getattr(rh_agents, name)


def test_an_error_of_the_function_itself_is_no_misspelt_option() -> None:
    """`takes_options` explains what Python refused, and nothing that was raised inside."""

    class Urls(list[str]):
        def __iter__(self) -> Any:
            raise TypeError("got an unexpected keyword argument 'mine'")

    with pytest.raises(TypeError, match=r"^got an unexpected keyword argument 'mine'$") as caught:
        asyncio.run(group(lambda p: p.map(fetch, Urls())))
    assert not isinstance(caught.value, OptionError)


def test_a_live_run_in_a_file_says_what_can_be_done_about_it(tmp_path: Path) -> None:
    async def main() -> None:
        store = str(tmp_path / "runs.db")
        async with ExecutionState(store=store, run_id="monday"):
            with pytest.raises(RunIsLive, match="with `rh-agents show monday`, stop it with `rh-agents cancel "):
                await run(flow, store=store, run_id="monday")

    asyncio.run(main())
