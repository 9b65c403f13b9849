"""Limits, breakers and stores belong to the program: event loops of several threads share them, and end before them."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

from rh_agents import (
    CircuitBreaker,
    ConcurrencyLimit,
    EventBus,
    ExecutionEvent,
    ExecutionState,
    ExecutionStatus,
    MemoryStore,
    RateLimit,
    RunStopped,
    parallel,
    run,
    run_sync,
    tool,
)
from rh_agents.core.errors import CircuitOpenError, UsageError
from rh_agents.core.policies.limits import Limit
from rh_agents.policies import AdaptiveConcurrency
from rh_agents.testing import JumpingClock

PATIENCE = 20.0
"""Real seconds after which a test says that something hangs."""

KINDS: list[Callable[[], Limit]] = [
    lambda: ConcurrencyLimit(1),
    lambda: AdaptiveConcurrency(1, maximum=1),
    lambda: RateLimit(requests=1, per=0.05),
]


class InThread:
    """A program in a thread with an event loop of its own."""

    def __init__(self, main: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self._main = main
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.value = self._main()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def join(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it hangs"
        if self.error is not None:
            raise self.error
        return self.value


class Waits:
    """Tells the test when a call waits for a limit."""

    def __init__(self) -> None:
        self._waits = threading.Event()

    def __call__(self, event: ExecutionEvent[Any]) -> None:
        if event.execution_status is ExecutionStatus.WAITING:
            self._waits.set()

    def expect(self) -> None:
        assert self._waits.wait(PATIENCE)


class Abandoned:
    """An event loop that is left while it executes something."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self.loop = asyncio.new_event_loop()
        self.task = self.loop.create_task(work)
        self.loop.call_later(0.01, self.loop.stop)
        self.loop.run_forever()

    def close(self) -> None:
        self.loop.close()

    def end(self) -> None:
        """Let go of the task as if it had been ended in good order, so that nobody complains that it was not."""
        if not self.loop.is_closed():
            self.task.cancel()
            self.loop.run_until_complete(asyncio.wait([self.task]))
            self.loop.close()


async def until(happened: threading.Event) -> None:
    """Wait for another thread."""
    while not happened.is_set():  # noqa: ASYNC110 - the event is no one of this loop
        await asyncio.sleep(0.001)


leaves_tasks = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""Python complains about tasks of closed loops; that is what these tests are about."""


@pytest.fixture
def forget(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a test leaves is collected with it, and not with another one."""
    yield
    gc.collect()


def worker(limit: Limit, work: Callable[[int], Awaitable[int]] | None = None) -> Any:
    @tool(limits=limit)
    async def ask(number: int) -> int:
        if work is not None:
            return await work(number)
        await asyncio.sleep(0.001)
        return number

    return ask


@pytest.mark.parametrize("make", KINDS)
def test_threads_with_an_event_loop_each_share_a_limit(make: Callable[[], Limit]) -> None:
    inside, most = 0, 0

    async def work(number: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.001)
        inside -= 1
        return number

    limit = make()
    ask = worker(limit, work)

    async def flow() -> list[int]:
        async with parallel() as p:
            p.map(ask, range(3))
            return [result.unwrap() for result in await p.gather()]

    threads = [InThread(lambda: run_sync(flow)) for _ in range(3)]
    assert [thread.join() for thread in threads] == [[0, 1, 2]] * 3
    assert most == 1 or isinstance(limit, RateLimit)
    assert not isinstance(limit, ConcurrencyLimit) or limit.in_use == 0


def test_calls_of_several_loops_are_admitted_in_the_order_in_which_they_came() -> None:
    limit, release, order = ConcurrencyLimit(1), threading.Event(), []

    async def work(number: int) -> int:
        order.append(number)
        if number == 0:
            await until(release)
        return number

    ask = worker(limit, work)
    threads = [InThread(lambda: run_sync(ask, 0))]
    while not order:
        time.sleep(0.001)
    for number in (1, 2, 3):
        waits = Waits()
        threads.append(InThread(functools.partial(run_sync, ask, number, subscribers=[waits])))
        waits.expect()
    release.set()
    assert [thread.join() for thread in threads] == [0, 1, 2, 3]
    assert order == [0, 1, 2, 3]


@leaves_tasks
@pytest.mark.parametrize("make", KINDS)
def test_a_loop_that_was_closed_while_its_calls_held_and_waited_blocks_nobody(
    make: Callable[[], Limit], forget: None
) -> None:
    ask = worker(make(), lambda _: asyncio.sleep(60, 0) if not is_second else asyncio.sleep(0, 1))
    is_second = False

    async def flow() -> int:
        async with parallel() as p:
            p.map(ask, range(3))
            return sum(result.unwrap() for result in await p.gather())

    left = Abandoned(run(flow))
    left.close()
    is_second = True
    assert JumpingClock().run(run(flow)) == 3


@leaves_tasks
def test_who_waits_for_a_loop_goes_on_when_that_is_closed(forget: None) -> None:
    limit, close, is_held = ConcurrencyLimit(1), threading.Event(), threading.Event()

    async def work(number: int) -> int:
        if number == 0:
            is_held.set()
            await asyncio.sleep(60)
        return number

    ask = worker(limit, work)

    def leave() -> None:
        left = Abandoned(run(ask, 0))
        assert is_held.is_set()
        assert close.wait(PATIENCE)
        left.close()

    async def wait() -> int:
        asyncio.get_running_loop().call_later(5.0, close.set)
        return await run(ask, 1)

    other = InThread(leave)
    assert is_held.wait(PATIENCE)
    assert JumpingClock().run(wait()) == 1
    other.join()
    assert limit.in_use == 0


@leaves_tasks
def test_slots_of_a_loop_that_cannot_run_while_one_waits_for_it_are_an_error_and_no_wait_for_ever() -> None:
    ask = worker(ConcurrencyLimit(1), lambda _: asyncio.sleep(60, 0))
    left = Abandoned(run(ask, 0))
    with pytest.raises(UsageError, match="does not run any more"):
        asyncio.run(run(ask, 1))
    left.end()


def test_a_stopped_loop_that_waits_is_passed_over_and_has_its_turn_when_it_runs_again() -> None:
    limit, release, order = ConcurrencyLimit(1), threading.Event(), []

    async def work(number: int) -> int:
        order.append(number)
        if number == 0:
            await until(release)
        return number

    ask = worker(limit, work)
    holder = InThread(lambda: run_sync(ask, 0))
    while not order:
        time.sleep(0.001)
    stopped = Abandoned(run(ask, 1))
    waits = Waits()
    other = InThread(lambda: run_sync(ask, 2, subscribers=[waits]))
    waits.expect()
    release.set()
    assert (holder.join(), other.join()) == (0, 2)
    assert stopped.loop.run_until_complete(stopped.task) == 1
    stopped.close()
    assert order == [0, 2, 1]


def test_a_limit_that_is_changed_in_another_thread_lets_those_in_who_wait() -> None:
    limit, waits, is_over = ConcurrencyLimit(1), Waits(), threading.Event()

    async def work(number: int) -> int:
        if number == 0:
            await until(is_over)
        is_over.set()
        return number

    ask = worker(limit, work)

    async def flow() -> list[int]:
        async with parallel() as p:
            p.map(ask, [0, 1])
            return [result.unwrap() for result in await p.gather()]

    thread = InThread(lambda: run_sync(flow, subscribers=[waits]))
    waits.expect()
    limit.limit = 2
    assert thread.join() == [0, 1]


def test_time_goes_on_for_a_limit_and_a_breaker_when_another_loop_begins_at_zero() -> None:
    limit, breaker = RateLimit(requests=1, per=10.0), CircuitBreaker(1, reset_timeout=10.0)

    @tool(limits=limit, breaker=breaker)
    async def ask(fails: bool) -> None:
        if fails:
            raise ConnectionError

    async def late() -> None:
        await asyncio.sleep(1_000)
        with pytest.raises(ConnectionError):
            await ask(True)

    async def early() -> float:
        before = asyncio.get_running_loop().time()
        with pytest.raises(CircuitOpenError):
            await ask(False)
        await asyncio.sleep(10.0)
        await ask(False)
        return asyncio.get_running_loop().time() - before

    JumpingClock().run(late())
    assert 10.0 <= JumpingClock().run(early()) <= 20.1


@leaves_tasks
def test_a_probe_of_a_loop_that_was_closed_is_given_up(forget: None) -> None:
    breaker, hangs = CircuitBreaker(1, reset_timeout=0.0), True

    @tool(breaker=breaker)
    async def ask(fails: bool) -> str:
        if fails:
            raise ConnectionError
        if hangs:
            await asyncio.sleep(60)
        return "up"

    async def probe() -> str:
        with pytest.raises(ConnectionError):
            await ask(True)
        return await ask(False)  # type: ignore[no-any-return, unused-ignore]

    left = Abandoned(run(probe))
    with pytest.raises(CircuitOpenError):
        asyncio.run(run(ask, False))
    left.close()
    hangs = False
    assert asyncio.run(run(ask, False)) == "up"


def test_a_breaker_that_threads_share_counts_every_failure() -> None:
    breaker = CircuitBreaker(60, reset_timeout=60.0)

    @tool(breaker=breaker)
    async def fail(number: int) -> None:
        raise ConnectionError

    async def flow() -> None:
        async with parallel() as p:
            p.map(fail, range(10))
            await p.gather()

    for thread in [InThread(lambda: run_sync(flow)) for _ in range(5)]:
        thread.join()
    assert breaker.failures == 50


def test_a_copy_of_a_limit_or_a_breaker_is_itself() -> None:
    for shared in (ConcurrencyLimit(1), RateLimit(1), CircuitBreaker()):
        assert copy.copy(shared) is shared
        assert copy.deepcopy([shared])[0] is shared


# -- what lives on one loop -------------------------------------------------------------------------------------------


@tool
async def same(number: int) -> int:
    return number


def test_a_run_is_refused_on_another_loop_than_its_own() -> None:
    state = ExecutionState()

    async def call() -> Any:
        return await ExecutionEvent(actor=same.actor)(1, None, state)

    async def group() -> None:
        async with state.parallel() as p:
            p.add(same(1))
            await p.gather()

    asyncio.run(call())
    for again in (call, group):
        with pytest.raises(UsageError, match="lives on the event loop on which it was opened"):
            asyncio.run(again())


def test_a_call_in_a_thread_of_a_tool_is_refused_with_the_remedy_which_works() -> None:
    @tool
    def wrong(number: int) -> int:
        async def call() -> int:
            return await same(number)

        return asyncio.run(call())

    @tool
    def right(number: int) -> int:
        return run_sync(same, number)

    async def flow() -> int:
        with pytest.raises(UsageError, match="run_sync"):
            await wrong(1)
        return await right(2)

    assert asyncio.run(run(flow)) == 2


def test_a_run_is_interrupted_from_any_thread() -> None:
    state, began = ExecutionState(), threading.Event()

    @tool
    async def wait() -> None:
        began.set()
        await asyncio.sleep(60)

    async def main() -> None:
        async with state:
            await wait()

    thread = InThread(lambda: asyncio.run(main()))
    assert began.wait(PATIENCE)
    state.request_interrupt("enough", grace=0.0)
    with pytest.raises(RunStopped, match="enough"):
        thread.join()


def test_a_bus_serves_one_loop_at_a_time_and_its_handlers_any_number() -> None:
    bus, began, end = EventBus(), threading.Event(), threading.Event()
    seen: list[ExecutionEvent[Any]] = []
    bus.subscribe(seen.append, buffer=10)

    @tool
    async def wait() -> None:
        began.set()
        await until(end)

    async def use(call: Callable[[], Awaitable[Any]]) -> None:
        async with ExecutionState(event_bus=bus):
            await call()

    thread = InThread(lambda: asyncio.run(use(wait)))
    assert began.wait(PATIENCE)
    with pytest.raises(UsageError, match="on another event loop"):
        asyncio.run(use(lambda: same(1)))
    asyncio.run(run(same, 1, subscribers=[seen.append]))
    end.set()
    thread.join()
    before = len(seen)
    asyncio.run(use(lambda: same(1)))
    assert len(seen) > before


def test_who_follows_a_journal_in_memory_on_another_loop_is_woken_and_can_stop_its_run() -> None:
    store, began, is_stopped = MemoryStore(), threading.Event(), threading.Event()

    @tool
    async def wait() -> None:
        began.set()
        await until(is_stopped)

    async def follow() -> list[ExecutionStatus]:
        return [recorded.event.execution_status async for recorded in store.events("one", follow=True)]

    async def main() -> None:
        async with ExecutionState(store=store, run_id="one"):
            await wait()
            for number in range(10_000):  # the request comes to this loop in one of its next turns
                await same(number)
                await asyncio.sleep(0)

    owner = InThread(lambda: asyncio.run(main()))
    assert began.wait(PATIENCE)
    follower = InThread(lambda: asyncio.run(follow()))
    time.sleep(0.01)  # so that it really waits; it makes no difference but to what is tested
    assert asyncio.run(store.request_stop("one", "seen enough"))
    is_stopped.set()
    with pytest.raises(RunStopped, match="seen enough"):
        owner.join()
    assert follower.join()[-1] is ExecutionStatus.COMPLETED


@leaves_tasks
def test_a_run_of_a_loop_that_was_closed_is_taken_over(forget: None) -> None:
    store = MemoryStore()
    left = Abandoned(run(asyncio.sleep, 60, store=store, run_id="one"))
    left.close()
    assert asyncio.run(run(asyncio.sleep, 0, 1, store=store, run_id="one", reuse=True)) == 1
