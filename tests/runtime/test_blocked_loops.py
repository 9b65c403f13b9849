"""A call that blocks its event loop is noticed, and nothing else is."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rh_agents import agent, parallel, run, tool
from rh_agents.core._loops.blocked_loops import Entry, LagWatch, Stack, parse_stacks, stacks_of, watched_loops
from rh_agents.core._loops.homes import Home, home


class Blocked:
    """An event loop in a thread of its own, whose call waits until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.home: Home | None = None

    def wait(self) -> None:
        self.home = home()
        self.entered.set()
        assert self.let_go.wait(60)

    def look(self, watch: LagWatch, now: float, used: float) -> list[str]:
        assert self.home is not None
        return look(watch, now, used, self.home)


def look(watch: LagWatch, now: float, used: float, at: Home) -> list[str]:
    """What is said after a look at this loop."""
    return watch.look(now, used, {at.thread: at})


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
    return [sentence for now, used in moments for sentence in blocked.look(watch, now, used)]


def every(seconds: float, count: int, used: float = 0.0) -> list[tuple[float, float]]:
    return [(number * seconds, number * used) for number in range(count)]


def test_a_call_that_blocks_its_loop_for_a_second_is_named_once_with_its_place_and_the_remedy() -> None:
    watch = LagWatch()
    with running(one_call) as blocked:
        assert looks(watch, blocked, *every(0.25, 5)) == []
        (sentence,) = looks(watch, blocked, (1.25, 0.0), (1.5, 0.0), (60.0, 0.0))
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
        (sentence,) = looks(LagWatch(), blocked, *every(0.25, 6))
    assert sentence.startswith("read_all has blocked the event loop")


def test_a_suspended_process_or_a_busy_machine_is_no_blocked_loop() -> None:
    with running(one_call) as blocked:
        assert looks(LagWatch(), blocked, *every(3600.0, 5, 0.001)) == []


def test_code_that_lets_nobody_look_is_known_by_the_processor_time_that_it_uses() -> None:
    with running(one_call) as blocked:
        (sentence,) = looks(LagWatch(), blocked, (0.0, 0.0), (0.25, 0.0), (2.25, 1.9))
    assert "for 1.9 s" in sentence


def test_steps_that_follow_each_other_are_not_one_long_one() -> None:
    """The same call, looked at in another step each time."""
    steps = 6
    entered = [threading.Event() for _ in range(steps)]
    let_go = [threading.Event() for _ in range(steps)]
    homes: list[Home] = []

    @tool
    async def chatty() -> None:
        homes.append(home())
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
        said += look(watch, number / 2, 0.0, homes[0])
        let_go[number].set()
    thread.join()
    assert said == []


@pytest.mark.parametrize("is_agent", [False, True])
def test_of_many_short_calls_in_one_step_none_is_blamed_but_the_agent_that_makes_them(is_agent: bool) -> None:
    steps = 8
    entered = [threading.Event() for _ in range(steps)]
    let_go = [threading.Event() for _ in range(steps)]
    homes: list[Home] = []

    @tool
    async def fetch(number: int) -> None:
        homes.append(home())
        entered[number].set()
        assert let_go[number].wait(60)

    async def survey() -> None:
        for number in range(steps):
            await fetch(number)

    async def main() -> None:
        await (agent(survey)() if is_agent else survey())

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    watch, said = LagWatch(), []
    for number in range(steps):
        assert entered[number].wait(60)
        said += look(watch, number / 4, 0.0, homes[0])
        let_go[number].set()
    thread.join()
    assert [sentence.split()[0] for sentence in said] == ["survey"] * is_agent


@pytest.mark.parametrize("looks_at_first", [1, 2])
def test_of_many_tasks_that_follow_each_other_before_the_loop_can_answer_none_is_blamed(
    looks_at_first: int,
) -> None:
    tasks = 8
    entered = [threading.Event() for _ in range(tasks)]
    let_go = [threading.Event() for _ in range(tasks)]
    homes: list[Home] = []

    @tool
    async def fetch(number: int) -> None:
        await asyncio.sleep(0)
        homes.append(home())
        entered[number].set()
        assert let_go[number].wait(60)

    async def main() -> None:
        async with parallel() as p:
            for number in range(tasks):
                p.add(fetch(number))
            await p.gather()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    reads: list[Collection[int]] = []

    def read(threads: Collection[int]) -> dict[int, Stack]:
        reads.append(threads)
        return stacks_of(threads)

    watch, said = LagWatch(read), []
    assert entered[0].wait(60)
    for number in range(looks_at_first - 1):
        said += look(watch, number / 4, 0.0, homes[0])
    for number in range(tasks):
        assert entered[number].wait(60)
        said += look(watch, (number + looks_at_first) / 4, 0.0, homes[0])
        let_go[number].set()
    thread.join()
    assert said == []
    assert len(reads) == looks_at_first - 1, "only where the same task is met again"


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often it is spoken to from outside."""

    asked = 0

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:  # type: ignore[override]
        self.asked += 1
        return super().call_soon_threadsafe(*args, **options)


@pytest.mark.parametrize(("is_blocked", "asked"), [(False, 0), (True, 1)])
def test_only_a_loop_that_was_met_in_a_call_twice_is_asked_and_only_once(is_blocked: bool, asked: int) -> None:
    entered, let_go, finished = threading.Event(), threading.Event(), asyncio.Event()
    homes: list[Home] = []
    loop = CountingLoop()

    @tool
    async def fetch() -> None:
        homes.append(home())
        if is_blocked:
            entered.set()
            assert let_go.wait(60)
        else:
            loop.call_soon(entered.set)
            await finished.wait()

    async def main() -> None:
        await fetch()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(60)
    while not is_blocked and stacks_of([thread.ident or 0])[thread.ident or 0].entries[0].function != "select":
        pass  # it is about to wait
    reads = []

    def read(threads: Collection[int]) -> dict[int, Stack]:
        reads.append(threads)
        return stacks_of(threads)

    watch = LagWatch(read)
    look(watch, 0.0, 0.0, homes[0])
    assert (loop.asked, reads) == (0, [])
    for number in range(1, 8):
        look(watch, number / 4, 0.0, homes[0])
    assert loop.asked == asked
    assert len(reads) == 4 * asked, "before it is asked, and at 1.25, 1.5 and 1.75 s"
    if is_blocked:
        let_go.set()
    else:
        loop.call_soon_threadsafe(finished.set)
    thread.join()


@pytest.mark.parametrize(("depth", "named"), [(88, ["fetch"]), (200, [])])
def test_a_call_is_named_as_long_as_the_text_of_its_stack_reaches_to_it(depth: int, named: list[str]) -> None:
    async def main(blocked: Blocked) -> None:
        def descend(left: int) -> None:
            if left:
                descend(left - 1)
            else:
                blocked.wait()

        @tool
        async def fetch() -> None:
            descend(depth)

        @agent
        async def survey() -> None:
            await fetch()

        await survey()

    with running(main) as blocked:
        assert blocked.home is not None
        assert not stacks_of([blocked.home.thread])[blocked.home.thread].is_whole
        assert [sentence.split()[0] for sentence in looks(LagWatch(), blocked, *every(0.25, 8))] == named


_TEXT_OF_311 = """\
Current thread 0x00007f47026ff6c0 (most recent call first):
  Garbage-collecting
  File "/app/watch.py", line 7 in w
  File "/usr/lib/python3.11/threading.py", line 982 in run

Thread 0x00007f4703e12b80 (most recent call first):
  File "/app/caf\\xe9 \\u03b1/a "b", line 3 in c.py", line 21 in <listcomp>
  File ???, line ??? in ???
  File "/usr/lib/python3.11/asyncio/events.py", line 80 in _run
"""
_TEXT_OF_312 = """\
Thread 0x00007f586d0d06c0 (most recent call first):
  File "/app/deep.py", line 1 in f
  File "/app/deep.py", line 2 in f
  ...

Current thread 0x00007f586e70cb80 (most recent call first):
  File "/app/watch.py", line 7 in w
"""
_TEXT_OF_313 = """\
Current thread 0x00007fd972e996c0 (most recent call first):
  File "/app/watch.py", line 7 in w

Thread 0x00007fd974605b80 [a (name)] (most recent call first):
  <no Python frame>

Thread 0x00007fd974605b90 (most recent call first):
  File "/app/main.py", line 9 in main
  <freed interpreter>
...
"""


def test_the_text_of_python_311_is_read() -> None:
    assert parse_stacks(_TEXT_OF_311, [0x7F4703E12B80]) == {
        0x7F4703E12B80: Stack(
            [
                Entry('/app/caf\\xe9 \\u03b1/a "b", line 3 in c.py', "21", "<listcomp>"),
                Entry("???", "???", "???"),
                Entry("/usr/lib/python3.11/asyncio/events.py", "80", "_run"),
            ],
            is_whole=True,
        )
    }
    current = parse_stacks(_TEXT_OF_311, [0x7F47026FF6C0])[0x7F47026FF6C0]
    assert [entry.function for entry in current.entries] == ["w", "run"]


def test_the_text_of_python_312_is_read_and_a_stack_that_was_cut_off_is_known() -> None:
    entries = [Entry("/app/deep.py", "1", "f"), Entry("/app/deep.py", "2", "f")]
    assert parse_stacks(_TEXT_OF_312, [0x7F586D0D06C0, 1]) == {0x7F586D0D06C0: Stack(entries, is_whole=False)}


def test_the_text_of_python_313_is_read_with_names_and_remarks_and_more_threads_than_it_shows() -> None:
    assert parse_stacks(_TEXT_OF_313, [0x7FD974605B80, 0x7FD974605B90]) == {
        0x7FD974605B80: Stack([], is_whole=True),
        0x7FD974605B90: Stack([Entry("/app/main.py", "9", "main")], is_whole=True),
    }


@pytest.mark.parametrize(("count", "is_whole"), [(99, True), (100, False)])
def test_a_stack_of_as_many_entries_as_a_text_holds_counts_as_cut_off(count: int, is_whole: bool) -> None:
    text = "\n".join(["Thread 0x01 (most recent call first):", *['  File "/app/deep.py", line 1 in f'] * count])
    assert parse_stacks(text, [1])[1].is_whole is is_whole


def test_a_file_is_named_as_it_is_spelled() -> None:
    async def main(blocked: Blocked) -> None:
        names: dict[str, Any] = {"blocked": blocked}
        exec(compile("async def fetch():\n    blocked.wait()", "/app/café/日本𠮷.py", "exec"), names)
        await tool(names["fetch"])()

    with running(main) as blocked:
        (sentence,) = looks(LagWatch(), blocked, *every(0.25, 6))
    assert "in /app/café/日本𠮷.py, line 2: " in sentence


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
from rh_agents.core._loops.blocked_loops import watched_loops

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
import asyncio, gc, threading, time
from rh_agents import run, tool
from rh_agents.core._loops import blocked_loops

blocked_loops._BETWEEN_LOOKS = 0.001
blocked_loops._LONGEST = 0.01
gc.set_threshold(2)
gc.callbacks.append(lambda phase, facts: time.sleep(0))  # lets other threads go on, as many finalizers do

@tool
async def fetch():
    end = time.monotonic() + 1
    while time.monotonic() < end:
        thread = threading.Thread(target=time.sleep, args=(0.0005,))
        thread.start()
        thread.join()

asyncio.run(run(fetch))
"""


def test_threads_begin_and_end_while_garbage_is_collected_and_the_stacks_are_looked_at() -> None:
    command = [sys.executable, "-c", LOOKS_AND_COLLECTIONS]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert "fetch has blocked the event loop" in done.stderr


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
