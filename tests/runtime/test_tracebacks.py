"""Tracebacks show the lines of the program; what lies between them in this library is left out, and only that."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

import rh_agents
from rh_agents import Agent, RetryPolicy, parallel, run, run_sync, tool
from rh_agents.core._base.tracebacks import UsersLines, trimmed, users_lines
from rh_agents.core.errors import ModelUnreachable, OptionError, RunMismatchError
from rh_agents.errors import UnreadFailures
from rh_agents.llms import OpenAIChat

LIBRARY = str(Path(rh_agents.__file__).parent)
BROKEN = ValueError("broken")


@tool
async def fetch(url: str) -> str:
    raise BROKEN


@tool
def fetch_in_a_thread(url: str) -> str:
    raise BROKEN


async def call() -> Any:
    return await fetch("a")


async def call_in_a_thread() -> Any:
    return await fetch_in_a_thread("a")


async def nested() -> Any:
    @tool
    async def crawl() -> Any:
        return await fetch("a")

    return await crawl()


async def gather() -> Any:
    async with parallel(error_strategy="fail_fast") as p:
        p.map(fetch, ["a"])
        await p.gather()


async def retried() -> Any:
    async with parallel(error_strategy="fail_fast", retry=RetryPolicy(max_attempts=2, initial_delay=0)) as p:
        p.add(fetch("a"))
        await p.gather()


FLOWS: list[Callable[[], Awaitable[Any]]] = [call, call_in_a_thread, nested, gather, retried]


def files_of(error: BaseException) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("start", [lambda flow: asyncio.run(run(flow)), lambda flow: asyncio.run(flow()), run_sync])
def test_a_failure_shows_the_lines_of_the_program_and_is_the_same_object(
    flow: Callable[[], Awaitable[Any]], start: Callable[..., Any]
) -> None:
    BROKEN.__traceback__ = None
    with pytest.raises(ValueError, match="broken") as caught:
        start(flow)
    assert caught.value is BROKEN
    files = files_of(BROKEN)
    assert not [file for file in files if file.startswith(LIBRARY)]
    assert not [file for file in files if "anyio" in file]
    assert files[-1] == __file__
    assert flow.__name__ in [frame.name for frame in traceback.extract_tb(BROKEN.__traceback__)]


def test_who_lets_the_library_start_the_event_loop_does_not_see_its_frames() -> None:
    BROKEN.__traceback__ = None
    with pytest.raises(ValueError, match="broken"):
        run_sync(call)
    assert [Path(file).name for file in files_of(BROKEN)] == [Path(__file__).name] * 3


def test_failures_that_nobody_read_show_the_lines_of_the_program() -> None:
    async def flow() -> None:
        async with parallel() as p:
            p.map(fetch, ["a", "b"])

    with pytest.raises(UnreadFailures) as caught:
        asyncio.run(run(flow))
    for error in (caught.value, *caught.value.exceptions):
        assert not [file for file in files_of(error) if file.startswith(LIBRARY)]


def test_an_option_that_is_refused_shows_the_line_where_it_is_given() -> None:
    makers: list[Callable[[], Any]] = [
        lambda: RetryPolicy(attempts=3),  # type: ignore[call-arg]
        lambda: Agent(name="a", model="x"),  # type: ignore[call-overload]
        lambda: parallel(max_workers=0),
    ]
    for make in makers:
        with pytest.raises(OptionError) as caught:
            make()
        assert [Path(file).name for file in files_of(caught.value)] == [Path(__file__).name] * 2


def test_a_model_that_cannot_be_reached_takes_few_lines() -> None:
    model = OpenAIChat("m", base_url="http://127.0.0.1:9/v1", api_key="none", retry=1)

    async def flow() -> Any:
        return await Agent(name="a", llm=model)("hi")

    with pytest.raises(ModelUnreachable) as caught:
        run_sync(flow)
    assert len("".join(traceback.format_exception(caught.value)).splitlines()) < 15


def test_where_the_library_itself_is_wrong_its_frames_stay() -> None:
    """`ours` stands for a function of the library: only the name of its file says whose it is."""
    made: dict[str, Any] = {}
    exec(compile("def ours(f): return f()\ndef wrong(): return ours(lambda: 1 / 0)", f"{LIBRARY}/x.py", "exec"), made)

    def program() -> Any:
        return made["ours"](made["wrong"])

    with pytest.raises(ZeroDivisionError) as caught:
        program()
    trimmed(caught.value)
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][2:] == [
        "ours",
        "wrong",
        "ours",
        "<lambda>",
    ]

    def fails() -> Any:
        raise KeyError("of the program")

    with pytest.raises(KeyError) as missing:
        made["ours"](fails)
    trimmed(missing.value)
    assert [frame.name for frame in traceback.extract_tb(missing.value.__traceback__)][1:] == ["fails"]


def test_what_an_error_came_from_is_trimmed_as_well_and_a_ring_of_causes_ends() -> None:
    one, two = RunMismatchError("one"), RunMismatchError("two")
    one.__cause__, two.__context__ = two, one
    with pytest.raises(RunMismatchError) as caught, users_lines:
        raise one
    assert caught.value is one
    assert one.__cause__ is two


def test_a_block_without_an_error_does_nothing_and_no_error_is_swallowed() -> None:
    with UsersLines("/nowhere/"):
        pass
    with pytest.raises(KeyboardInterrupt), UsersLines("/nowhere/"):
        raise KeyboardInterrupt


def test_debugging_shows_everything() -> None:
    program = (
        "import rh_agents\nasync def flow(): return await rh_agents.tool(lambda: 1 / 0)()\nrh_agents.run_sync(flow)"
    )
    shown = {
        debug: subprocess.run(
            [sys.executable, "-c", program],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "RH_AGENTS_DEBUG": debug},
        ).stderr
        for debug in ("1", "0")
    }
    assert "rh_agents/decorators.py" in shown["1"]
    assert "rh_agents/" not in shown["0"]
    assert "asyncio/" not in shown["0"]
    assert shown["0"].endswith("ZeroDivisionError: division by zero\n")


def test_an_error_that_is_raised_again_and_again_is_not_gone_through_in_whole_each_time() -> None:
    error = ValueError("the only one")
    for _ in range(500):
        with pytest.raises(ValueError, match="the only one"):
            raise error
    first, last = error.__traceback__, error.__traceback__
    assert first is not None
    while last is not None and last.tb_next is not None:
        last = last.tb_next

    async def flow() -> None:
        @tool
        async def refuse() -> None:
            raise error

        await refuse()

    with pytest.raises(ValueError, match="the only one"):
        run_sync(flow)
    found = list(_entries(error))
    assert found[-1] is last
    assert first in found, "where nothing is left out, the entries stay the same objects"
    assert not [file for file in files_of(error) if file.startswith(LIBRARY)]


def _entries(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next
