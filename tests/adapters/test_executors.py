"""Functions that are not coroutine functions, in threads and in processes: on the real event loop, waiting for nothing
but each other."""

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from rh_agents import CallTimeout, ExecutionState, current, parallel, run_sync, tool
from rh_agents.core.errors import DefinitionError
from rh_agents.core.ports import CallContext
from rh_agents.core.types import Engine
from rh_agents.executors import ProcessExecutor, ThreadExecutor

ABOUT = CallContext("run", "here", 1, "key")
PATIENCE = 30.0
"""Seconds after which a test that would hang fails. Nothing here takes as long."""

greeting: ContextVar[str] = ContextVar("greeting", default="nobody")


# -- threads ----------------------------------------------------------------------------------------------------------


def test_a_plain_function_runs_in_a_thread_and_the_loop_goes_on() -> None:
    loop_went_on = threading.Event()

    @tool
    def wait_for_the_loop() -> int:
        assert loop_went_on.wait(PATIENCE)
        return threading.get_ident()

    async def main() -> int:
        call = asyncio.ensure_future(wait_for_the_loop().outcome())
        await asyncio.sleep(0)
        loop_went_on.set()  # would never be reached if the function held up the loop
        return (await call).unwrap()

    assert asyncio.run(main()) != threading.get_ident()


def test_a_thread_sees_the_context_of_its_caller_and_the_call_under_way() -> None:
    @tool
    def look() -> tuple[str, str, int]:
        greeting.set("changed in the thread")
        return greeting.get(), current().address, current().attempt

    async def flow() -> list[Any]:
        greeting.set("hello")
        async with parallel(name="pages") as p:
            p.add(look())
            (member,) = await p.gather()
        return [await look(), member.unwrap(), greeting.get()]

    alone, member, afterwards = run_sync(flow)
    assert alone == ("changed in the thread", "look", 1)
    assert member == ("changed in the thread", "pages[0]::look", 1)
    assert afterwards == "hello", "what the thread sets stays there"


def test_far_more_than_forty_functions_run_at_the_same_time() -> None:
    together = threading.Barrier(100)

    @tool
    def meet(number: int) -> int:
        together.wait(PATIENCE)  # passes only when a hundred are here
        return number

    async def flow() -> list[int]:
        async with parallel(max_workers=100) as p:
            p.map(meet, range(100))
            return [result.unwrap() for result in await p.gather()]

    assert run_sync(flow) == list(range(100))


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Lets threads go that nobody waits for any more."""
    event = threading.Event()
    yield event
    event.set()


def test_a_timeout_abandons_a_thread_and_the_run_goes_on(released: threading.Event) -> None:
    begun, ended = threading.Event(), threading.Event()

    @tool(timeout=0.05)
    def hang() -> None:
        begun.set()
        released.wait(PATIENCE)
        ended.set()

    async def main() -> None:
        result = await hang().outcome()
        assert isinstance(result.error, CallTimeout)
        assert begun.is_set()
        assert not ended.is_set()
        released.set()
        assert await asyncio.to_thread(ended.wait, PATIENCE), "it went on unseen"

    asyncio.run(main())


def test_a_cancellation_does_not_wait_for_the_thread(released: threading.Event) -> None:
    begun = threading.Event()

    @tool
    def hang() -> None:
        begun.set()
        released.wait(PATIENCE)

    async def main() -> None:
        call = asyncio.ensure_future(hang().outcome())
        await asyncio.to_thread(begun.wait, PATIENCE)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())


def test_an_exception_in_a_thread_is_the_functions_own() -> None:
    error = KeyError("mine")

    @tool
    def fail() -> None:
        raise error

    async def main() -> None:
        assert (await fail().outcome()).error is error

    asyncio.run(main())


def test_the_number_of_threads_is_bounded(released: threading.Event) -> None:
    running = peak = 0
    lock = threading.Lock()
    pair = threading.Barrier(2)

    def work() -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        pair.wait(PATIENCE)
        with lock:
            running -= 1

    async def main() -> None:
        executor = ThreadExecutor(max_threads=2)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(executor.call(work, (), {}, ABOUT))

    asyncio.run(main())
    assert peak == 2


def test_a_run_can_bring_an_executor_of_its_own() -> None:
    class Immediate:
        """For programs that want no threads."""

        async def call(self, function: Any, args: Any, kwargs: Any, about: CallContext) -> Any:
            return function(*args, **kwargs)

    @tool
    def where(*, extra: int) -> tuple[int, int]:
        return threading.get_ident(), extra

    async def main() -> None:
        async with ExecutionState(executors={Engine.THREAD: Immediate()}):
            assert await where(extra=3) == (threading.get_ident(), 3)

    asyncio.run(main())


# -- processes --------------------------------------------------------------------------------------------------------


class Unlucky(Exception):
    """An exception of ours with two arguments, which pickles them."""


@tool(engine="process")
def process_id(number: int, *, factor: int = 1) -> tuple[int, int]:
    return os.getpid(), number * factor


@tool(engine="process")
def fail_in_a_process(text: str) -> None:
    raise Unlucky(text, 3)


@tool(engine="process")
def hang_in_a_process(path: str) -> None:
    with open(path, "w") as pipe:
        print("begun", file=pipe, flush=True)
        threading.Event().wait(PATIENCE)


@tool(engine="process")
def length(text: Any) -> int:
    return len(text)


class Namespace:
    """A place below the top level that a worker can still find by name."""

    @staticmethod
    def triple(number: int) -> int:
        return number * 3


async def in_process(function: Any, *args: Any) -> Any:
    return await ProcessExecutor(max_processes=1).call(function, args, {}, ABOUT)


# One loop for all: a worker process takes half a second to start and serves the loop in which it was started.
def test_a_process_runs_a_decorated_function_and_hands_on_what_it_returns_and_raises() -> None:
    async def main() -> None:
        (pid, product), (again, _) = await process_id(5, factor=3), await process_id(6)
        assert product == 15
        assert pid == again != os.getpid(), "another process, and the same one is used again"

        result = await fail_in_a_process("bad").outcome()
        assert type(result.error) is Unlucky
        assert result.error.args == ("bad", 3)

        assert await in_process(Namespace.triple, 4) == 12

        refused = await length(lambda: None).outcome()
        assert not refused.ok
        assert re.search("pickle|local object", refused.error_message or "", re.IGNORECASE), (
            "each Python says it in its way"
        )
        assert await length("abc") == 3, "the worker is as good as before"

    asyncio.run(main())


@pytest.mark.parametrize("what", ["lambda", "local function"])
def test_what_a_worker_cannot_find_by_name_is_refused_with_the_remedy(what: str) -> None:
    def local() -> None: ...

    function = local if what == "local function" else lambda: None

    async def main() -> None:
        with pytest.raises(DefinitionError, match="define it at the top level of a module to be imported"):
            await in_process(function)

    asyncio.run(main())


def test_a_cancellation_kills_the_worker_process(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    begun = threading.Event()

    def listen() -> str:
        with pipe.open() as lines:
            line = lines.readline()
            begun.set()
            return line + lines.read()  # to the end of the file, which comes when the worker has died

    async def main() -> None:
        call = asyncio.ensure_future(hang_in_a_process(str(pipe)).outcome())
        heard = asyncio.ensure_future(asyncio.to_thread(listen))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(PATIENCE / 2):
            assert await heard == "begun\n"

    asyncio.run(main())
