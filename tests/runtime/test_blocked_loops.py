"""A call that blocks its event loop is noticed, and nothing else is."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rh_agents import agent, parallel, run, tool
from rh_agents.core._lag import LagWatch, _NoCollection, watched_loops


class Blocked:
    """An event loop in a thread of its own, whose call waits until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.thread = 0

    def wait(self) -> None:
        self.thread = threading.get_ident()
        self.entered.set()
        assert self.let_go.wait(60)

    def stacks(self) -> dict[int, Any]:
        return {self.thread: sys._current_frames()[self.thread]}


@contextmanager
def running(main: Callable[[Blocked], Any]) -> Iterator[Blocked]:
    """The program at the moment at which it waits."""
    blocked = Blocked()
    thread = threading.Thread(target=lambda: asyncio.run(main(blocked)))
    thread.start()
    try:
        assert blocked.entered.wait(60)
        yield blocked
    finally:
        blocked.let_go.set()
        thread.join()


async def one_call(blocked: Blocked) -> None:
    @tool
    async def fetch(number: int) -> int:
        blocked.wait()
        return number

    async with parallel(name="pages") as p:
        p.add(fetch(1))
        await p.gather()


def looks(watch: LagWatch, blocked: Blocked, *moments: tuple[float, float]) -> list[str]:
    """What is said at these moments (time, processor time)."""
    return [sentence for now, used in moments for sentence in watch.look(now, used, blocked.stacks())]


def every(seconds: float, count: int, used: float = 0.0) -> list[tuple[float, float]]:
    return [(number * seconds, number * used) for number in range(count)]


def test_a_call_that_blocks_its_loop_for_a_second_is_named_once_with_its_place_and_the_remedy() -> None:
    watch = LagWatch()
    with running(one_call) as blocked:
        assert looks(watch, blocked, *every(0.25, 4)) == []
        (sentence,) = looks(watch, blocked, (1.0, 0.0), (1.25, 0.0), (60.0, 0.0))
    assert sentence.startswith(f"fetch has blocked the event loop for 1.0 s, in {Path(__file__)}, line ")
    assert "`def fetch`" in sentence
    assert 'engine="process"' in sentence
    with running(one_call) as blocked:
        assert looks(watch, blocked, *every(0.25, 8)) == [], "once for each name"


def test_a_plain_coroutine_of_a_group_is_named_too() -> None:
    async def main(blocked: Blocked) -> None:
        async def read_all() -> None:
            blocked.wait()

        async with parallel() as p:
            p.add(read_all)
            await p.gather()

    with running(main) as blocked:
        (sentence,) = looks(LagWatch(), blocked, *every(0.25, 5))
    assert sentence.startswith("read_all has blocked the event loop")


def test_a_suspended_process_or_a_busy_machine_is_no_blocked_loop() -> None:
    with running(one_call) as blocked:
        assert looks(LagWatch(), blocked, (0.0, 0.0), (3600.0, 0.001), (7200.0, 0.002)) == []


def test_code_that_lets_nobody_look_is_known_by_the_processor_time_that_it_uses() -> None:
    with running(one_call) as blocked:
        (sentence,) = looks(LagWatch(), blocked, (0.0, 0.0), (2.0, 1.9))
    assert "for 1.9 s" in sentence


def test_steps_that_follow_each_other_are_not_one_long_one() -> None:
    """The same call, looked at in another step each time."""
    steps = 6
    entered = [threading.Event() for _ in range(steps)]
    let_go = [threading.Event() for _ in range(steps)]
    threads: list[int] = []

    @tool
    async def chatty() -> None:
        threads.append(threading.get_ident())
        for number in range(steps):
            entered[number].set()
            assert let_go[number].wait(60)
            await asyncio.sleep(0)

    async def main() -> None:
        await chatty()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    watch, said = LagWatch(), []
    for number in range(steps):
        assert entered[number].wait(60)
        said += watch.look(number / 2, 0.0, {threads[0]: sys._current_frames()[threads[0]]})
        let_go[number].set()
    thread.join()
    assert said == []


@pytest.mark.parametrize("is_agent", [False, True])
def test_of_many_short_calls_in_one_step_none_is_blamed_but_the_agent_that_makes_them(is_agent: bool) -> None:
    looks = 6
    entered = [threading.Event() for _ in range(looks)]
    let_go = [threading.Event() for _ in range(looks)]
    threads: list[int] = []

    @tool
    async def fetch(number: int) -> None:
        threads.append(threading.get_ident())
        entered[number].set()
        assert let_go[number].wait(60)

    async def survey() -> None:
        for number in range(looks):
            await fetch(number)

    async def main() -> None:
        await (agent(survey)() if is_agent else survey())

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    watch, said = LagWatch(), []
    for number in range(looks):
        assert entered[number].wait(60)
        said += watch.look(number / 4, 0.0, {threads[0]: sys._current_frames()[threads[0]]})
        let_go[number].set()
    thread.join()
    assert [sentence.split()[0] for sentence in said] == ["survey"] * is_agent


def test_a_program_that_a_debugger_has_stopped_is_not_blocked() -> None:
    async def main(blocked: Blocked) -> None:
        names: dict[str, Any] = {"blocked": blocked}
        exec(compile("def stopped():\n    blocked.wait()", "/usr/lib/python3/pdb.py", "exec"), names)

        @tool
        async def fetch() -> None:
            names["stopped"]()

        await fetch()

    with running(main) as blocked:
        assert looks(LagWatch(), blocked, *every(0.25, 8)) == []


_FORKS = """
import asyncio, os, warnings
from rh_agents import ExecutionState, MemoryStore
from rh_agents.core._lag import watched_loops

warnings.simplefilter("ignore")

async def main():
    async with ExecutionState(store=MemoryStore()):
        assert watched_loops.threads
        child = os.fork()
        if not child:
            os._exit(len(watched_loops.threads) or (watched_loops._thread is not None))
        os._exit(os.waitpid(child, 0)[1] != 0)

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_does_not_look_at_loops_that_stayed_with_its_parent() -> None:
    assert subprocess.run([sys.executable, "-c", _FORKS], check=False).returncode == 0


LOOKS_AND_COLLECTIONS = """
import gc, os, sys, threading, time
from rh_agents.core import _lag

_lag._BETWEEN_LOOKS = 0.001
gc.set_threshold(2)
gc.callbacks.append(lambda phase, facts: time.sleep(0))  # lets other threads go on, as many finalizers do
_lag.watched_loops.add()
end = time.monotonic() + 1
while time.monotonic() < end:
    thread = threading.Thread(target=time.sleep, args=(0.0005,))
    thread.start()
    thread.join()
"""


def test_threads_begin_and_end_while_garbage_is_collected_and_the_stacks_are_looked_at() -> None:
    subprocess.run([sys.executable, "-c", LOOKS_AND_COLLECTIONS], check=True, timeout=60)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="nothing is collected in the middle of a look there")
def test_collections_are_switched_on_again_after_a_look_also_in_a_child_but_not_if_they_were_off() -> None:
    block = _NoCollection()
    with block:
        assert not gc.isenabled()
        block.end()  # as in a child that is forked meanwhile
        assert gc.isenabled()
    gc.disable()
    try:
        with block:
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_loop_that_is_blocked_by_no_call_is_not_blamed_on_one() -> None:
    async def main(blocked: Blocked) -> None:
        blocked.wait()

    with running(main) as blocked:
        assert looks(LagWatch(), blocked, *every(0.25, 8)) == []


def test_the_loop_of_a_run_is_watched_while_it_lasts() -> None:
    async def flow() -> bool:
        return threading.get_ident() in watched_loops.threads

    assert asyncio.run(run(flow)) is True
    assert threading.get_ident() not in watched_loops.threads


@pytest.mark.slow
def test_a_call_that_sleeps_is_warned_about_while_it_does(caplog: pytest.LogCaptureFixture) -> None:
    import time  # noqa: PLC0415 - the real one, for once

    @tool
    async def sleepy() -> None:
        time.sleep(2.0)  # noqa: ASYNC251 - that is what it is about

    with caplog.at_level(logging.WARNING, logger="rh_agents.calls"):
        asyncio.run(run(sleepy))
    assert "sleepy has blocked the event loop" in caplog.text
