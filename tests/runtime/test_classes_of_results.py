"""Results of users' classes: when the classes are known, and what works where they are not."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import BaseModel

from rh_agents import (
    Agent,
    ExecutionState,
    Injected,
    MemoryStore,
    Tool,
    agent,
    fork,
    open_store,
    parallel,
    run,
    storable,
    tool,
)
from rh_agents.core.errors import DefinitionError, StoreError, UnreadFailures, UnstorableError
from rh_agents.core.plan import Fate, plan_run
from rh_agents.core.ports import Store
from rh_agents.core.runs import affected_by
from rh_agents.core.values import UnknownValue
from rh_agents.testing import ScriptedLLM
from tests.properties.virtual import run_virtually

if TYPE_CHECKING:
    from nowhere import Hidden, Missing  # type: ignore[import-not-found]


def page_class(*fields: str) -> Any:
    """The class of a result, as one version of a program has it. Every one has the same name."""
    return storable(type("Page", (BaseModel,), {"__annotations__": dict.fromkeys(fields, int), "__module__": "app"}))


class Programs:
    """A run that another program has recorded: here, the class of its results has other fields."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.calls: list[int] = []

    async def record(self) -> None:
        kind = page_class("n")

        @tool
        async def page(n: int) -> Any:
            self.calls.append(n)
            return kind(n=n)

        async def main() -> None:
            await page(1)
            await page(2)

        await run(main, store=self.store, run_id="r")
        page_class("n", "m")  # from now on this is the class of that name, as in a newer program

    async def execute(self, **options: Any) -> ExecutionState:
        @tool
        async def page(n: int) -> Any:
            self.calls.append(n)
            return n

        async with ExecutionState(store=self.store, run_id="r", **options) as state:
            await page(1)
            await page(2)
        return state


@pytest.fixture(params=["memory:", "sqlite:///{}/runs.db"])
def programs(request: pytest.FixtureRequest, tmp_path: Path) -> Programs:
    return Programs(open_store(request.param.format(tmp_path)))


def play(programs: Programs, work: Callable[[], Awaitable[None]]) -> None:
    """Record the run, then do something with it."""

    async def main() -> None:
        await programs.record()
        programs.calls.clear()
        try:
            await work()
        finally:
            await programs.store.aclose()

    asyncio.run(main())


# -- where no value is needed -----------------------------------------------------------------------------------------


def test_keys_and_addresses_are_read_without_the_classes_of_the_values(programs: Programs) -> None:
    async def work() -> None:
        headers = [each.header async for each in programs.store.unread_outcomes("r")]
        assert [(each.address, each.name, each.ok) for each in headers] == [("page", "page", True)] * 2
        events = [each.event async for each in programs.store.events("r", values=False)]
        assert [each.result for each in events] == [None] * len(events)
        with pytest.raises(StoreError, match="had the fields n and has m, n now"):
            assert [each async for each in programs.store.outcomes("r")]
        assert (await affected_by(programs.store, "r", f"@{headers[0].key.hex()}")) == [headers[0]]

    play(programs, work)


def test_values_of_classes_that_are_not_known_can_be_shown(programs: Programs) -> None:
    async def work() -> None:
        shown = [each.value async for each in programs.store.outcomes("r", unknown_ok=True)]
        assert shown == [UnknownValue("app.Page", {"n": 1}), UnknownValue("app.Page", {"n": 2})]
        read = [each async for each in programs.store.unread_outcomes("r")]
        assert [each.read(unknown_ok=True).value for each in read] == shown
        with pytest.raises(StoreError, match="had the fields"):
            read[0].read()

    play(programs, work)


def test_a_run_is_planned_without_the_classes_of_its_results(programs: Programs) -> None:
    async def work() -> None:
        info = await programs.store.find_run("r")
        assert info is not None
        headers = [each.header async for each in programs.store.unread_outcomes("r")]
        plan = plan_run(info, headers, [each async for each in programs.store.events("r", values=False)])
        assert plan.counts == {Fate.REUSED: 2}

    play(programs, work)


def test_a_call_is_made_again_though_the_class_of_its_recorded_result_is_gone(programs: Programs) -> None:
    async def work() -> None:
        headers = [each.header async for each in programs.store.unread_outcomes("r")]
        first, second = (f"@{each.key.hex()}" for each in headers)
        await fork(programs.store, "r", "copy", address=first)
        await fork(programs.store, "r", "edited", address=first, result=7)
        edited = [each.value async for each in programs.store.outcomes("edited", unknown_ok=True)]
        assert edited == [7, UnknownValue("app.Page", {"n": 2})]
        with pytest.raises(StoreError, match="had the fields"):
            await programs.execute(resume_from=first)  # the second call is asked for, and its value is needed
        assert programs.calls == [1]
        await programs.execute(resume_from=second)
        assert programs.calls == [1, 2]

    play(programs, work)


def test_a_validation_finds_results_of_a_changed_class_to_differ(programs: Programs) -> None:
    async def work() -> None:
        state = await programs.execute(replay_mode="validation")
        assert [str(each) for each in state.differences] == [
            "page: recorded <app.Page {'n': 1}>, now 1",
            "page: recorded <app.Page {'n': 2}>, now 2",
        ]

    play(programs, work)


def test_outcomes_that_nobody_asked_for_are_shown_whatever_their_class(programs: Programs) -> None:
    async def work() -> None:
        async with ExecutionState(store=programs.store, run_id="r") as state:
            unused = await state.unused_outcomes()
        assert [each.value for each in unused] == [UnknownValue("app.Page", {"n": n}) for n in (1, 2)]

    play(programs, work)


# -- when classes are known -------------------------------------------------------------------------------------------


async def replayed(make: Callable[[], Awaitable[Any]]) -> Any:
    """What a second execution gets from the store."""
    store = MemoryStore()
    await run(make, store=store, run_id="r")
    return await run(make, store=store, run_id="r")


def test_classes_are_known_from_when_the_function_is_decorated(programs: Programs) -> None:
    @dataclass
    class Answer:
        text: str

    @tool
    async def ask() -> Answer:
        return Answer("yes")

    async def work() -> None:
        assert await replayed(lambda: ask()) == Answer("yes")

    play(programs, work)


def test_a_class_that_is_defined_below_the_function_is_known_before_its_first_call() -> None:
    @tool
    async def ask() -> list[Below]:
        return [Below("yes")]

    @dataclass
    class Below:
        text: str

    async def main() -> None:
        assert await replayed(lambda: ask()) == [Below("yes")]

    run_virtually(main)


def test_names_of_the_standard_library_need_no_import_at_run_time() -> None:
    async def fetch(n: int) -> Sequence[Decimal]:  # type: ignore[name-defined]  # noqa: F821 - as if for type checkers
        return [n]

    async def main() -> None:
        assert await run(tool(fetch), 1, store=MemoryStore()) == [1]

    run_virtually(main)


def test_a_name_in_the_annotation_of_a_result_that_means_nothing_is_an_error_before_anything_is_called() -> None:
    called = []

    async def fetch(n: int) -> Missing:
        called.append(n)

    async def alone() -> None:
        await tool(fetch)(1)

    async def added(work: Any) -> None:
        async with parallel() as p:
            p.add(work)

    async def mapped(function: Any) -> None:
        async with parallel() as p:
            p.map(function, [1])

    async def main() -> None:
        for work in (
            alone,
            lambda: added(tool(fetch)(1)),
            lambda: added(functools.partial(fetch, 1)),
            lambda: mapped(fetch),
            lambda: mapped(tool(fetch)),
        ):
            with pytest.raises(DefinitionError, match="fetch: the annotation of its result names 'Missing', and there"):
                await run(work, store=MemoryStore())
        with pytest.raises(UnreadFailures) as failed:
            await run(mapped, lambda n: tool(fetch)(n), store=MemoryStore())
        assert "'Missing'" in str(failed.value.exceptions[0])
        assert called == []
        await alone()  # nothing is recorded, so nobody needs to know
        assert called == [1]

    run_virtually(main)


def test_what_is_no_data_may_be_named_as_type_checkers_see_it() -> None:
    @tool
    async def fetch(client: Annotated[Missing, Injected], n: int) -> int:
        return n

    @tool
    async def connect() -> Annotated[Missing, Injected]:
        return SimpleNamespace()

    async def main() -> None:
        assert await run(lambda: fetch(await_none(), 1), store=MemoryStore()) == 1
        await run(lambda: connect(), store=MemoryStore())
        assert await run(connected, store=MemoryStore()) == SimpleNamespace()

    def await_none() -> Any:
        return None

    async def connected() -> Any:
        async with parallel() as p:
            p.map(lambda _: connect(), [1])
            p.map(functools.partial(connect), [])
            (result,) = await p.gather()
        return result.unwrap()

    run_virtually(main)


def test_a_value_of_a_class_that_nothing_names_is_refused_with_the_names_that_mean_nothing() -> None:
    hidden = type("Hidden", (BaseModel,), {"__module__": "nowhere"})

    @dataclass
    class Holder:
        held: Hidden

    @tool
    async def fetch() -> Holder:
        return Holder(hidden())

    async def main() -> None:
        with pytest.raises(UnstorableError, match=r"'Hidden' in the annotations of .*Holder means nothing"):
            await run(lambda: fetch(), store=MemoryStore())

    run_virtually(main)


# -- whatever map takes -----------------------------------------------------------------------------------------------


class Doubled(BaseModel):
    of: int


async def double(n: int) -> Doubled:
    return Doubled(of=n)


class Doubler:
    async def double(self, n: int) -> Doubled:
        return Doubled(of=n)

    async def __call__(self, n: int) -> Doubled:
        return Doubled(of=n)


class UnhashableDoubler(Doubler):
    def __eq__(self, other: object) -> bool:
        return self is other


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    async def outer(*args: Any) -> Any:
        return await function(*args)

    return outer


@pytest.mark.parametrize(
    "function",
    [
        double,
        Doubler().double,
        UnhashableDoubler().double,
        Doubler(),
        UnhashableDoubler(),
        functools.partial(double),
        functools.partial(UnhashableDoubler()),
        decorated(double),
        Tool(name="double", handler=double, limits=()),
        tool(double),
        agent(double),
        Agent(name="double", handler=double),
        Tool(name="double", handler=UnhashableDoubler()),
    ],
    ids=lambda each: type(each).__name__,
)
def test_map_takes_whatever_can_be_called_with_a_store_as_without(function: Any) -> None:
    async def main() -> list[Any]:
        async with parallel() as p:
            p.map(function, [1, 2])
            return [result.unwrap() for result in await p.gather()]

    async def everything() -> None:
        assert await main() == [Doubled(of=1), Doubled(of=2)]
        assert await replayed(main) == [Doubled(of=1), Doubled(of=2)]

    run_virtually(everything)


def test_map_takes_agents_that_a_model_decides_for_and_models() -> None:
    async def answers(function: Any) -> list[Any]:
        async with parallel() as p:
            p.map(function, ["a", "b"])
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        asked = Agent(name="a", llm=ScriptedLLM(["yes"] * 4))
        assert await replayed(lambda: answers(asked)) == ["yes", "yes"]
        model = ScriptedLLM(["no"] * 6)
        for each in (model, model.ask, functools.partial(model, system="Be short.")):
            told = await replayed(lambda each=each: answers(each))  # type: ignore[misc]
            assert [getattr(one, "text", one) for one in told] == ["no", "no"]

    run_virtually(main)


def doubling(n: int) -> Any:
    async def fetch() -> Doubled:
        return Doubled(of=n)

    return fetch


def test_closures_that_were_given_to_groups_are_not_kept() -> None:
    async def main() -> list[Any]:
        kept = []
        async with parallel() as p:
            for n in range(3):
                fetch = doubling(n)
                kept.append(weakref.ref(fetch))
                p.add(fetch)
            await p.gather()
        return kept

    async def everything() -> None:
        kept = await run(main, store=MemoryStore())
        assert [ref() for ref in kept] == [None] * 3

    run_virtually(everything)
