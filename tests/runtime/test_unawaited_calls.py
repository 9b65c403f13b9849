"""Calls that nobody awaited, and functions that forgot to: nothing of it passes in silence."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from rh_agents import ExecutionEvent, ExecutionState, MemoryStore, Tool, agent, current, parallel, run, tool
from rh_agents.core.errors import DefinitionError, UnstorableError, UsageError
from tests.properties.virtual import run_virtually


@tool
async def fetch(n: Any, *, depth: int = 0) -> Any:
    return n


@pytest.fixture
def said() -> Any:
    """What is warned of from now on."""
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield lambda: [str(each.message) for each in caught if gc.collect() >= 0]


def test_a_call_that_nobody_awaited_warns_at_the_line_where_it_was_thrown_away(said: Callable[[], list[str]]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fetch(3, depth=2)
    (warning,) = caught
    assert (warning.category, str(warning.message)) == (RuntimeWarning, "fetch(3, depth=2) was never awaited")
    assert warning.filename == __file__


def test_a_call_that_nobody_awaited_tells_where_it_was_made_if_python_traces_that() -> None:
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start(10)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call = fetch(3)
            made_at = tracemalloc.get_object_traceback(call)
            del call
        (warning,) = caught
        assert warning.source is not None
        assert made_at is not None
        assert any(frame.filename == __file__ for frame in made_at)
    finally:
        if not was_tracing:
            tracemalloc.stop()


LOOKUP = Tool(name="t", handler=fetch.actor.handler)


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: fetch("x" * 500), "fetch('xxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxx')"),
        (lambda: fetch("https://me:secret@host/"), "fetch('https://me:***@host/')"),
        (lambda: fetch([[["deep"]]]), "fetch([[[...]]])"),
        (lambda: fetch(Unshowable()), "fetch(<Unshowable instance at "),
        (lambda: ExecutionEvent(actor=fetch.actor)(3, None, ExecutionState()), "fetch(3)"),
        (
            lambda: ExecutionEvent(actor=LOOKUP)({"a": 1}, None, ExecutionState()),
            "t({'a': 1})",
        ),
        (lambda: fetch(1).with_options(key="k"), "fetch(1)"),
    ],
)
def test_whatever_is_called_is_named_in_short(make: Callable[[], Any], shown: str, said: Any) -> None:
    make()
    (message,) = said()
    assert (message[: len(shown)], message[-18:]) == (shown, " was never awaited")


class Unshowable:
    def __repr__(self) -> str:
        raise ValueError


def test_nothing_is_said_of_calls_that_somebody_took(said: Callable[[], list[str]]) -> None:
    async def main() -> None:
        await fetch(1)
        await fetch(1, depth=1).outcome()
        await asyncio.gather(fetch(2), fetch(3))
        await asyncio.wait_for(fetch(4), 1)
        await fetch(5).with_options(key="five")
        async with parallel(max_workers=1) as p:
            p.add(fetch(6))
            p.map(fetch, range(10, 20))
            await p.gather()
        async with parallel(max_workers=1) as p:
            p.map(lambda n: asyncio.sleep(9, n) if n == 20 else fetch(n), range(20, 30))
            for n in range(30, 40):
                p.add(fetch(n))
            p.cancel()
        with pytest.raises(UsageError):
            p.add(fetch(40))
        with pytest.raises(TypeError):
            fetch()  # type: ignore[call-arg]

    async def recovered() -> None:
        async with parallel() as p:
            p.map(fetch, range(3))
            await p.gather()

    async def everything() -> None:
        await run(main)
        store = MemoryStore()
        for _ in range(2):
            await run(recovered, store=store, run_id="r")

    asyncio.run(everything())
    assert said() == []


def test_a_call_says_what_has_become_of_it() -> None:
    async def main() -> None:
        call = fetch(3)
        assert repr(call) == "<FunctionCall fetch(3): not started>"
        await call
        assert repr(call) == "<FunctionCall fetch(3): awaited>"
        async with parallel() as p:
            given = fetch(4)
            p.add(given)
            assert repr(given) == "<FunctionCall fetch(4): given to a group>"
            await p.gather()

    run_virtually(main)


@agent
async def forgot() -> Any:
    return fetch(3)


@tool
def forgot_in_a_thread() -> Any:
    return fetch(3)


@agent
async def forgot_many() -> Any:
    return [fetch(3), fetch(4)]


@agent
async def forgot_a_coroutine() -> Any:
    return asyncio.sleep(3)


@pytest.mark.parametrize("store", [None, MemoryStore()], ids=["no store", "store"])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (forgot, r"forgot returned the call fetch\(3\), which has not started: write `return await fetch\(3\)`"),
        (forgot_in_a_thread, "forgot_in_a_thread returned the call"),
        (forgot_many, r"forgot_many returned a list of calls that have not started, fetch\(3\) first: await them"),
        (forgot_a_coroutine, r"forgot_a_coroutine returned the coroutine sleep\(...\), which has not started"),
    ],
    ids=lambda each: getattr(getattr(each, "actor", None), "name", ""),
)
def test_a_function_that_returns_work_instead_of_its_value_fails_and_says_so(
    function: Any, message: str, store: Any, said: Callable[[], list[str]]
) -> None:
    async def main() -> None:
        await function()

    async def member() -> None:
        async with parallel() as p:
            p.map(lambda _: function(), [1])
            (result,) = await p.gather()
        result.unwrap()

    for work in (main, member):
        with pytest.raises(DefinitionError, match=message):
            asyncio.run(run(work, store=store))
    assert said() == []


def test_a_call_within_a_value_is_refused_by_stores_with_the_remedy(said: Callable[[], list[str]]) -> None:
    @agent
    async def survey() -> Any:
        return {"page": fetch(3)}

    async def main() -> None:
        with pytest.raises(UnstorableError, match=r"at \['page'\] cannot be stored: it has not started: await it"):
            await survey()

    asyncio.run(run(main, store=MemoryStore()))
    assert said() == ["fetch(3) was never awaited"]


def test_what_is_given_to_a_group_may_return_a_call() -> None:
    async def main() -> list[Any]:
        async with parallel() as p:
            p.add(lambda: fetch(3))
            p.map(lambda n: fetch(n), [4])
            return [result.unwrap() for result in await p.gather()]

    assert run_virtually(lambda: run(main)) == [3, 4]


def test_forgetting_to_await_is_not_tried_again() -> None:
    attempts = []

    @agent(retry=3)
    async def survey() -> Any:
        attempts.append(current().attempt)
        return fetch(3)

    async def main() -> None:
        with pytest.raises(DefinitionError):
            await survey()

    run_virtually(main)
    assert attempts == [1]


@pytest.mark.lazy_tasks("what begins at once has ended before its time is over")
def test_what_was_handed_to_asyncio_is_not_forgotten_even_if_its_task_never_begins(
    said: Callable[[], list[str]],
) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fetch(1), 0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ExecutionEvent(actor=fetch.actor)(2, None, ExecutionState()), 0)
        waiting = asyncio.gather(fetch(3), fetch(4))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not asyncio.isfuture(fetch(5))
        assert await asyncio.wait_for(fetch(6), 5) == 6
        task = asyncio.ensure_future(handed := fetch(7))
        assert repr(handed) == "<FunctionCall fetch(7): given to asyncio>"
        assert await task == 7
        fetch(8)

    asyncio.run(main())
    assert said() == ["fetch(8) was never awaited"]


def test_a_call_with_arguments_that_do_not_fit_says_only_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """The object is there already, without any of its fields, when its arguments are looked at."""
    unraisable: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(TypeError, match="missing a required argument"):
            fetch()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            fetch(1, 2, 3)  # type: ignore[call-arg]
        gc.collect()
    assert [str(each.message) for each in caught] == unraisable == []
