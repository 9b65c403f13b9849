"""Engines have names: which a run has, which an actor wants, and when it is said that the two do not fit."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import pytest

from rh_agents import Agent, ExecutionState, MemoryStore, Tool, agent, current, parallel, run, run_sync, tool
from rh_agents.core.actors.reachable import actors_named_in
from rh_agents.core.errors import DefinitionError
from rh_agents.core.ports import CallContext
from rh_agents.core.types import Engine


class Here:
    """Calls functions in place, and keeps what it was told about them."""

    def __init__(self) -> None:
        self.about: list[CallContext] = []

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: CallContext
    ) -> Any:
        self.about.append(about)
        return function(*args, **kwargs)


class Anything(Here):
    """Takes coroutine functions, too."""

    takes_coroutine_functions = True

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: CallContext
    ) -> Any:
        made = await super().call(function, args, kwargs, about)
        return await made if asyncio.iscoroutine(made) else made


@tool(engine="cluster", resources={"num_gpus": 1, "memory": 2e9})
def score(text: str) -> int:
    return len(text)


@tool(engine="cluster")
async def look(text: str) -> str:
    return current().address


def _helper(text: str) -> Any:
    return score(text)


@agent
async def scores(texts: list[str]) -> list[int]:
    async with parallel(name="texts") as p:
        p.map(_helper, texts)
        return [result.unwrap() for result in await p.gather()]


# -- what an executor is told ------------------------------------------------------------------------------------------


def test_an_engine_of_any_name_gets_the_calls_of_its_actors_with_what_they_know_and_need() -> None:
    here, store = Here(), MemoryStore()
    assert run_sync(scores, ["a", "bb"], executors={"cluster": here}, store=store, run_id="monday") == [1, 2]
    first, second = sorted(here.about, key=lambda about: about.address)
    assert (first.run_id, first.address, first.attempt) == ("monday", "scores::texts[0]::score", 1)
    assert second.address == "scores::texts[1]::score"
    assert first.group_id == second.group_id is not None
    assert first.idempotency_key != second.idempotency_key
    assert first.resources == {"num_gpus": 1, "memory": 2e9}
    assert first.trace == {}


def test_what_an_executor_is_told_is_what_the_call_itself_sees() -> None:
    seen: list[Any] = []

    @tool(engine="cluster")
    def see() -> None:
        seen.append(current())

    here = Here()

    async def flow() -> None:
        await see()

    run_sync(flow, executors={"cluster": here})
    (call,) = seen
    (about,) = here.about
    assert (call.address, call.attempt, call.idempotency_key) == (about.address, about.attempt, about.idempotency_key)


def test_the_engines_that_every_run_has_can_be_replaced() -> None:
    here = Here()

    @tool
    def plain() -> int:
        return 3

    async def flow() -> int:
        return await plain()

    assert run_sync(flow, executors={"thread": here}) == 3
    assert run_sync(flow, executors={Engine.THREAD: here}) == 3
    assert len(here.about) == 2


def test_a_handler_with_one_input_runs_on_its_engine_as_well() -> None:
    here = Here()
    actor = Tool(name="double", handler=lambda number: number * 2, engine="cluster")

    async def main() -> Any:
        async with ExecutionState(executors={"cluster": here}) as state:
            return (await state.start(actor, 4, None)).unwrap()

    assert asyncio.run(main()) == 8
    assert [about.address for about in here.about] == ["double"]


# -- coroutine functions -----------------------------------------------------------------------------------------------


def test_coroutine_functions_go_to_an_engine_that_takes_them() -> None:
    anything = Anything()

    async def flow() -> str:
        return await look("a")

    assert run_sync(flow, executors={"cluster": anything}) == "look"
    assert len(anything.about) == 1


def test_coroutine_functions_for_an_engine_that_takes_none_are_refused_when_the_run_starts() -> None:
    here = Here()

    async def flow() -> str:
        return await look("a")

    with pytest.raises(DefinitionError, match="look: engine 'cluster' is for plain functions, and look is an `async"):
        run_sync(flow, executors={"cluster": here})
    assert here.about == []


@pytest.mark.parametrize("engine", ["thread", "process"])
def test_coroutine_functions_are_refused_at_once_by_engines_that_never_take_them(engine: str) -> None:
    with pytest.raises(DefinitionError, match=f"engine='{engine}' is for plain functions, and look is an `async def`"):
        tool(look.__wrapped__, engine=engine)


# -- engines that there are not ----------------------------------------------------------------------------------------

UNKNOWN = r"score: this run has no engine 'cluster', only 'clutser', 'process', 'thread'; did you mean 'clutser'\?"


def test_an_engine_that_the_run_does_not_have_is_an_error_when_it_starts_and_nothing_is_recorded() -> None:
    store = MemoryStore()
    with pytest.raises(DefinitionError, match=UNKNOWN):
        run_sync(scores, ["a"], executors={"clutser": Here()}, store=store, run_id="monday")
    assert asyncio.run(store.runs()) == []


def test_an_engine_that_is_found_out_later_is_an_error_before_anything_is_called() -> None:
    """What is looked up while the program runs is seen by nobody before."""
    found = {"score": score}
    called: list[str] = []

    async def flow(name: str) -> int:
        called.append(name)
        return int(await functools.partial(found.__getitem__, name)()("a"))

    async def main() -> None:
        async with ExecutionState(store=MemoryStore(), executors={"clutser": Here()}) as state:
            with pytest.raises(DefinitionError, match=UNKNOWN):
                await flow("score")
            assert state.metrics.calls == 0

    asyncio.run(main())
    assert called == ["score"]


def test_the_calls_of_a_group_without_their_engine_fail_one_by_one() -> None:
    async def main() -> None:
        async with ExecutionState(executors={"clutser": Here()}), parallel() as p:
            p.map(globals()["score"], ["a"])
            (result,) = await p.gather()
            assert isinstance(result.error, DefinitionError)

    asyncio.run(main())


def test_a_run_without_further_engines_names_those_that_every_run_has() -> None:
    async def flow() -> int:
        return await score("a")

    with pytest.raises(DefinitionError, match="no engine 'cluster', only 'process', 'thread'; give it one: run"):
        run_sync(flow)


@pytest.mark.parametrize(
    ("executors", "problem"),
    [
        ({"cluster": Here}, r"takes an executor, not its class: Here\(\)"),
        ({"cluster": 3}, "3 has no method `call`"),
        ({"": Here()}, "an engine is named by a text"),
        ({"async": Here()}, "and not 'async'"),
    ],
)
def test_what_is_no_executor_is_refused(executors: Any, problem: str) -> None:
    async def flow() -> None: ...

    with pytest.raises(DefinitionError, match=problem):
        run_sync(flow, executors=executors)
    with pytest.raises(DefinitionError, match=problem):
        ExecutionState(executors=executors)


# -- resources ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [None, "thread", "process"])
def test_resources_for_an_engine_that_has_none_to_give_are_refused(engine: str | None) -> None:
    with pytest.raises(DefinitionError, match="resources= are for an engine that places calls by what they need"):
        tool(score.__wrapped__, engine=engine, resources={"num_gpus": 1})


@pytest.mark.parametrize("resources", [3, ["num_gpus"], {"num_gpus": -1}, {"num_gpus": "1"}, {3: 1}, {"": 1}])
def test_resources_that_are_no_amounts_are_refused(resources: Any) -> None:
    with pytest.raises(ValueError, match="resources"):
        tool(score.__wrapped__, engine="cluster", resources=resources)


@pytest.mark.parametrize("engine", [3, ""])
def test_an_engine_is_named_by_a_text(engine: Any) -> None:
    with pytest.raises(DefinitionError, match="engine= takes the name of an engine"):
        tool(score.__wrapped__, engine=engine)


# -- which actors a program leads to -----------------------------------------------------------------------------------

there = ModuleType("there")
there.score = score  # type: ignore[attr-defined]
TABLE = {"a": [score]}


def _in_a_table(name: str) -> Any:
    return TABLE[name][0]


def _in_a_module() -> Any:
    return there.score("a")


def _within() -> Any:
    async def inner() -> Any:
        return await score("a")

    return inner


def _by_default(function: Any = score) -> Any:
    return function("a")


def _not_at_all() -> Any:
    return len(TABLE)


def _around(function: Any) -> Any:
    def enclosed() -> Any:
        return function("a")

    return enclosed


@pytest.mark.parametrize(
    "function", [scores, _helper, _in_a_table, _in_a_module, _within, _by_default, _around(score), _around(_helper)]
)
def test_actors_are_found_where_code_names_them(function: Any) -> None:
    assert score.actor in list(actors_named_in(function))


def test_actors_of_an_agent_are_found() -> None:
    inner = Agent(name="inner", handler=_not_at_all, tools=[score])
    outer = Agent(name="outer", handler=_not_at_all, handoffs=[inner])
    assert score.actor in list(actors_named_in(outer))


def test_a_function_that_leads_to_itself_is_looked_at_once() -> None:
    def first() -> Any:
        return second

    def second() -> Any:
        return first, score

    assert list(actors_named_in(first)) == [score.actor]


def test_nothing_is_executed_to_find_actors() -> None:
    class Loud:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    loud = Loud()

    def function() -> Any:
        return loud

    assert list(actors_named_in(function)) == []


def test_a_run_is_not_started_by_what_only_defines_engines() -> None:
    async def flow() -> int:
        return 1

    assert asyncio.run(run(flow)) == 1
