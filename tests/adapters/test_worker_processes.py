"""Worker processes, real ones: what arrives from them, what they are told, and that none of them is left over."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rh_agents import ExecutionState, MemoryStore, parallel
from rh_agents.core.errors import DefinitionError, UnstorableError, UsageError
from rh_agents.errors import WorkerLost
from rh_agents.executors import ProcessExecutor
from rh_agents.executors._workers.pool import Pool, Slots, pool
from rh_agents.executors._workers.wire import Frame, Inbox, Kind, header
from rh_agents.testing import _failures as zoo
from rh_agents.testing._failures import TEXTS
from tests.adapters import worker_functions as far

PATIENCE = 30.0
"""Seconds after which a test that would hang fails. Nothing here takes as long."""


def run_main(main: Callable[[], Awaitable[Any]]) -> Any:
    async def patiently() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await main()

    return asyncio.run(patiently())


def is_alive(process: int) -> bool:
    """Whether it can still do anything. (What nobody has collected yet cannot.)"""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def wait_until_gone(*processes: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while any(is_alive(each) for each in processes):
        assert time.monotonic() < deadline, [each for each in processes if is_alive(each)]
        time.sleep(0.01)


def wait_until_begun(path: Path) -> list[int]:
    """The processes of a call that has begun."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [int(each) for each in path.read_text().split()]


# -- the wire ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [13, 64 * 1024, 10**7])
def test_frames_come_out_as_they_went_in_however_their_bytes_arrive(step: int) -> None:
    sizes = [0, 1, 5, 64 * 1024 - 9, 64 * 1024 - 8, 200_000, 3]
    frames: list[Frame] = [(Kind.LOG, bytearray([at]) * size) for at, size in enumerate(sizes)]
    data = memoryview(b"".join(header(kind, len(content)) + content for kind, content in frames))
    inbox = Inbox()
    found: list[Frame] = []
    while data:
        space = inbox.space()
        count = min(step, len(space), len(data))
        space[:count] = data[:count]
        data = data[count:]
        found += inbox.received(count)
    assert found == frames


# -- what arrives ------------------------------------------------------------------------------------------------------


MUTE = ("mute", "exiting")


def test_an_exception_arrives_with_its_class_and_its_text_whatever_it_is_made_of() -> None:
    async def main() -> None:
        executor = ProcessExecutor(1)
        errors: dict[str, Any] = {}
        for kind in zoo.FAILURES:
            with pytest.raises(Exception) as caught:
                await executor.call(far.fail, (kind,), {}, far.ABOUT)
            errors[kind] = caught.value
        found = {kind: (type(error).__name__, str(error)) for kind, error in errors.items() if kind not in MUTE}
        assert found == TEXTS
        assert (type(errors["mute"]), type(errors["exiting"])) == (zoo.Mute, zoo.Exiting)
        assert type(errors["platform"]) is zoo.OfThePlatform
        first, last = errors["shared causes"].exceptions[0], errors["shared causes"].exceptions[-1]
        assert (str(first.__cause__), first.__cause__) == ("attempt 6 (60 sub-exceptions)", last.__cause__)
        for kind, cls in (("api", zoo.ApiError), ("two", zoo.TwoArguments), ("lock", zoo.WithALock)):
            assert type(errors[kind]) is cls
        assert isinstance(errors["speaking"], zoo.Speaking)
        assert isinstance(errors["local"], zoo.ByKeyword), "its nearest class that is here"
        assert (errors["two"].code, errors["lock"].number) == (5, 7)
        assert "left in the worker process, as it cannot be pickled: lock" in errors["lock"].__notes__
        assert [type(each) for each in errors["group"].exceptions] == [zoo.ApiError, ValueError]
        assert type(errors["own group"]) is zoo.Group
        assert repr(errors["cause"].__cause__) == repr(zoo.TwoArguments(5, "the cause"))
        assert (errors["noted"].__notes__[0], errors["file"].errno) == ("mine", 2)
        for error in errors.values():
            trace = error.__notes__[-1]
            assert trace.startswith("in the worker process:\n")
            assert "worker_functions.py" in trace
            assert "_workers" not in trace, "our own frames are of no interest"

    run_main(main)


def test_what_is_printed_and_logged_arrives(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tests.worker")

    async def main() -> None:
        await _new_workers()
        assert await ProcessExecutor(1).call(far.talk, (), {}, far.ABOUT), "stdin is empty"

    run_main(main)
    out, err = capfd.readouterr()
    assert out.splitlines() == ["print", "write", "child"]
    assert "error" in err.splitlines()
    records = [record for record in caplog.records if record.name == "tests.worker"]
    assert [record.getMessage() for record in records] == ["logged 1", "with a traceback"]
    assert records[0].process != os.getpid()
    assert "ValueError: caught" in (records[1].exc_text or "")


async def _new_workers() -> None:
    """What stdout is, is decided when a worker is started."""
    await asyncio.to_thread(pool.close)


class Heard(logging.Handler):
    """Hears what a worker logs, in whatever thread."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []
        self.is_there = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.getMessage())
        self.is_there.set()


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    logging.getLogger("tests.worker").addHandler(handler)
    yield handler
    logging.getLogger("tests.worker").removeHandler(handler)


def test_a_record_that_arrives_together_with_the_result_is_handled(heard: Heard, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    async def main() -> Any:
        call = asyncio.ensure_future(ProcessExecutor().call(far.log_later, [str(begun), 0.05, 0.2], {}, far.ABOUT))
        await asyncio.to_thread(wait_until_begun, begun)
        asyncio.get_running_loop().call_soon(time.sleep, 0.6)  # so that both are there when it reads again
        return await call

    assert run_main(main) == "returned"
    assert heard.is_there.wait(PATIENCE)
    assert heard.records == ["said later"]


def test_what_an_idle_worker_logs_arrives_without_another_call(heard: Heard, tmp_path: Path) -> None:
    assert (
        run_main(lambda: ProcessExecutor().call(far.log_later, [str(tmp_path / "begun"), 0.3], {}, far.ABOUT))
        == "returned"
    )
    assert heard.is_there.wait(PATIENCE)
    assert heard.records == ["said later"]
    assert (
        run_main(lambda: ProcessExecutor().call(far.log_later, [str(tmp_path / "again"), 100], {}, far.ABOUT))
        == "returned"
    )


def test_a_handler_that_raises_costs_no_call(heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(record: logging.LogRecord) -> None:
        heard.is_there.set()
        raise ZeroDivisionError

    monkeypatch.setattr(heard, "emit", fail)
    for _ in range(2):
        assert (
            run_main(lambda: ProcessExecutor().call(far.log_later, [str(tmp_path / "a"), 0], {}, far.ABOUT))
            == "returned"
        )
        assert heard.is_there.wait(PATIENCE)
        heard.is_there.clear()


def open_descriptors() -> set[str]:
    return {os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd") if is_open(int(each))}


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_a_child_that_is_forked_while_a_worker_starts_has_none_of_its_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    start = subprocess.Popen

    def held_up(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert may_go_on.wait(PATIENCE)
        return start(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", held_up)
    own = Pool()
    os.register_at_fork(before=own.hold_still, after_in_parent=own.go_on, after_in_child=own.forget_after_fork)
    before = open_descriptors()
    starting = threading.Thread(target=own.take)
    starting.start()
    assert begun.wait(PATIENCE)
    threading.Timer(0.2, may_go_on.set).start()
    child = os.fork()  # waits until the worker is there
    if child == 0:
        kept = {each for each in open_descriptors() - before if each.startswith(("socket:", "pipe:"))}
        os._exit(len(kept))
    starting.join(PATIENCE)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    own.close()


def test_a_call_knows_where_it_is_and_reports_what_it_used() -> None:
    async def main() -> None:
        async with ExecutionState(store=MemoryStore(), run_id="monday") as state:
            async with parallel(name="pages") as p:
                p.add(far.context())
                (member,) = await p.gather()
            known = member.unwrap()
            assert known["address"] == "pages[0]::context"
            assert (known["run_id"], known["attempt"], known["has_run"]) == ("monday", 1, False)
            assert len(known["key"]) == 40
            assert known["group_id"]
            await far.report()
            assert state.spent.usage.requests == 2

    run_main(main)


def test_functions_are_found_wherever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        call = ProcessExecutor(1).call
        assert await call(far.doubled, ("a",), {}, far.ABOUT) == "AA", "with the decorators that they have"
        assert await call(far.Multiplier(3).times, (2,), {}, far.ABOUT) == 6
        assert await call(functools.partial(pow, 2), (5,), {}, far.ABOUT) == 32
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("RH_AGENTS_TEST", "set later")
        assert await call(os.getcwd, (), {}, far.ABOUT) == str(tmp_path)
        assert await call(os.getenv, ("RH_AGENTS_TEST",), {}, far.ABOUT) == "set later"
        await call(os.chdir, ("/",), {}, far.ABOUT)
        assert await call(os.getcwd, (), {}, far.ABOUT) == str(tmp_path), "wherever another function has gone"
        with pytest.raises(DefinitionError, match="arguments of length cannot be sent to a worker process"):
            await call(length, (lambda: None,), {}, far.ABOUT)
        with pytest.raises(
            UnstorableError, match="generate returned a value that cannot leave its worker process: TypeError"
        ):
            await call(far.generate, (), {}, far.ABOUT)
        with pytest.raises(DefinitionError, match="define it, and what it uses, at the top level of a module"):
            await call(functools.partial(length, threading.Lock()), (), {}, far.ABOUT)

    run_main(main)


def test_a_path_that_python_does_not_look_at_costs_no_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    pool.close()  # so that one is started now

    async def main() -> None:
        assert await ProcessExecutor(1).call(pow, (2, 3), {}, far.ABOUT) == 8

    run_main(main)


def length(text: Any) -> int:
    return len(text)


# -- how workers end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "argument", "reason"),
    [
        (far.die, signal.SIGKILL, r"was killed by signal 9 \(out of memory\?\)"),
        (far.die, signal.SIGSEGV, r"was killed by signal 11 \(SIGSEGV\)"),
        (far.leave, 4, "ended with exit code 4 in the middle of its call"),
    ],
)
def test_a_lost_worker_says_how_it_ended(function: Callable[..., Any], argument: int, reason: str) -> None:
    async def main() -> None:
        executor = ProcessExecutor(1, max_lost=5)
        with pytest.raises(WorkerLost, match=f"^the worker process {reason}$") as caught:
            await executor.call(function, (argument,), {}, far.ABOUT)
        assert (caught.value.has_begun, caught.value.max_lost) == (True, 5)

    run_main(main)


def test_a_death_is_noticed_also_if_somebody_else_holds_the_wire_open(tmp_path: Path) -> None:
    path = tmp_path / "child"

    async def main() -> None:
        with pytest.raises(WorkerLost, match="was killed by signal 9"):
            await ProcessExecutor(1).call(far.leave_the_wire_open, (str(path),), {}, far.ABOUT)

    try:
        run_main(main)
    finally:
        os.kill(int(path.read_text()), signal.SIGKILL)


def test_a_worker_that_died_while_it_was_idle_costs_nobody_anything() -> None:
    async def main() -> None:
        first = await far.pid()
        os.kill(first, signal.SIGKILL)
        assert await far.pid() != first

    run_main(main)


def test_a_worker_that_cannot_even_begin_is_no_unknown_outcome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "rh_agents_test_dies.py").write_text(
        "import os, sys\ndef work(): pass\nif 'rh_agents_test_here' not in sys.modules: os._exit(3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "rh_agents_test_here", sys)
    module = importlib.import_module("rh_agents_test_dies")

    async def main() -> None:
        with pytest.raises(WorkerLost, match="ended with exit code 3") as caught:
            await ProcessExecutor(1).call(module.work, (), {}, far.ABOUT)
        assert not caught.value.has_begun

    run_main(main)


def test_signals_for_all_processes_of_a_service_do_not_end_a_worker() -> None:
    async def main() -> None:
        given = await ProcessExecutor(1).call(
            far.survive, ([signal.SIGTERM, signal.SIGINT, signal.SIGHUP],), {}, far.ABOUT
        )
        assert given == "SIG_DFL", "what it starts does not inherit that"
        assert await ProcessExecutor(1).call(far.terminate_a_child, (), {}, far.ABOUT) == -signal.SIGTERM, (
            "nor what it forks"
        )

    run_main(main)


@pytest.mark.parametrize("way", ["timeout", "cancellation"])
def test_a_call_that_is_not_waited_for_ends_with_everything_that_it_has_started(tmp_path: Path, way: str) -> None:
    path = tmp_path / "begun"

    async def main() -> list[int]:
        executor = ProcessExecutor(1)
        task = asyncio.ensure_future(executor.call(far.begin_and_hold_the_lock, (str(path),), {}, far.ABOUT))
        processes = await asyncio.to_thread(wait_until_begun, path)
        if way == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.shield(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await executor.call(pow, (2, 5), {}, far.ABOUT) == 32, "the slot is free again"
        return processes

    wait_until_gone(*run_main(main))


def test_what_a_worker_leaves_behind_ends_with_it_in_whatever_group_it_is() -> None:
    async def main() -> list[int]:
        executor = ProcessExecutor(1, max_calls_per_worker=2)
        first, processes = (
            await executor.call(os.getpid, (), {}, far.ABOUT),
            await executor.call(far.processes, (3,), {}, far.ABOUT),
        )
        assert await executor.call(os.getpid, (), {}, far.ABOUT) != first, "a new one after two calls"
        return [first, *processes]

    wait_until_gone(*run_main(main))


def test_idle_workers_serve_other_event_loops_and_other_executors() -> None:
    async def main() -> int:
        return int(await ProcessExecutor(1).call(os.getpid, (), {}, far.ABOUT))

    assert run_main(main) == run_main(main) != os.getpid()


@pytest.mark.parametrize("option", ["max_processes", "max_calls_per_worker", "max_lost"])
def test_numbers_that_mean_nothing_are_refused(option: str) -> None:
    options: dict[str, Any] = {option: 0}
    with pytest.raises(ValueError, match=f"{option}=0"):
        ProcessExecutor(**options)


# -- slots -------------------------------------------------------------------------------------------------------------


def test_slots_are_given_in_order_to_event_loops_of_several_threads() -> None:
    slots, inside, peak = Slots(2), 0, 0
    lock = threading.Lock()

    async def member() -> None:
        nonlocal inside, peak
        async with slots.one():
            with lock:
                inside += 1
                peak = max(peak, inside)
            await asyncio.sleep(0.001)
            with lock:
                inside -= 1

    async def many() -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*[member() for _ in range(20)])

    threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert peak == 2


def test_a_slot_is_lost_neither_to_a_cancelled_waiter_nor_to_a_closed_loop() -> None:
    slots = Slots(1)

    async def wait() -> None:
        async with slots.one():
            pass

    async def give_up() -> None:
        async with slots.one():
            waiting = [asyncio.ensure_future(wait()) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
        waiting[1].cancel()  # which has the slot by now
        await asyncio.wait(waiting)
        assert [each.cancelled() for each in waiting] == [True, True, False]

    run_main(give_up)
    abandoned = asyncio.new_event_loop()
    abandoned.run_until_complete(slots.one().__aenter__())
    task = abandoned.create_task(wait())
    abandoned.run_until_complete(asyncio.sleep(0))
    run_main(wait)  # passes over the one that waits there, and takes what is held there
    abandoned.close()
    run_main(wait)
    with contextlib.suppress(RuntimeError):
        task.get_coro().close()  # type: ignore[union-attr, unused-ignore]
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_forked_child_waits_for_no_slot_that_its_parent_holds() -> None:
    slots = Slots(1)

    async def main() -> int:
        async with slots.one():
            return await asyncio.to_thread(fork_and_wait, slots)

    assert run_main(main) == 0


def fork_and_wait(slots: Slots) -> int:
    """The exit code of a child that takes a slot; it is killed if it has to wait for long."""
    child = os.fork()
    if child == 0:
        signal.alarm(5)

        async def take() -> None:
            async with slots.one():
                pass

        asyncio.run(take())
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# -- whole programs ----------------------------------------------------------------------------------------------------


PROGRAM = """
import asyncio, dataclasses, enum, logging, os, sys
from pathlib import Path
from rh_agents import parallel, run, tool

class Color(enum.Enum):
    RED = 1

@dataclasses.dataclass
class Item:
    number: int
    color: Color = Color.RED
    def double(self): return Item(self.number * FACTOR, self.color)

class Wrong(Exception):
    def __init__(self, code, why):
        super().__init__(f"{code}: {why}")

FACTOR = 2

@tool(engine="process")
def work(item: Item) -> Item:
    print("worker", os.getpid(), __name__)
    if item.number == 3:
        raise Wrong(3, "bad")
    return item.double()

async def flow():
    double = Item.double
    async with parallel(max_workers=1) as p:
        p.map(work, [Item(1), Item(2), Item(3)])
        results = await p.gather()
    assert [type(each.result) for each in results[:2]] == [Item, Item]
    assert Item.double is double, "the class is as it was"
    assert type(results[2].error) is Wrong
    assert results[0].result.color is Color.RED
    print([each.result.number if each.ok else str(each.error) for each in results])

Path("executed").open("a").write("x")
asyncio.run(run(flow))
"""


def executed(what: str, folder: Path, source: str | None = None) -> subprocess.CompletedProcess[str]:
    """A program that has ended."""
    command = [sys.executable, what]
    return subprocess.run(command, cwd=folder, input=source, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("way", ["file", pytest.param("stdin", marks=pytest.mark.slow)])
def test_functions_of_the_main_program_work_without_a_guard_and_nothing_is_left(tmp_path: Path, way: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = executed("program.py", tmp_path) if way == "file" else executed("-", tmp_path, PROGRAM)
    assert (done.returncode, done.stderr) == (0, "")
    *workers, last = done.stdout.splitlines()
    assert last == "[2, 4, '3: bad']"
    assert len(set(workers)) == 1
    assert (tmp_path / "executed").read_text() == "x"
    assert not is_alive(int(workers[0].split()[1]))


WITH_A_CACHE = """
import asyncio, functools
from rh_agents import parallel, run, tool

@functools.lru_cache(maxsize=3, typed=True)
def steps(number):
    print("computed", number)
    return 1 + steps(number - 1) if number else 0

@tool(engine="process")
def work(number: int) -> int:
    return steps(number)

async def flow():
    async with parallel(max_workers=1) as p:
        return [each.unwrap() for each in await p.map(work, [1, 1, 2])]

steps(0)
print(asyncio.run(run(flow)), steps.cache_info().currsize)
"""


def test_what_the_main_program_caches_is_computed_once_in_each_worker(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(WITH_A_CACHE)
    done = executed("program.py", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    here, *there, last = done.stdout.splitlines()
    assert here == "computed 0"
    assert there == ["computed 1", "computed 0", "computed 2"]
    assert last == "[1, 1, 2] 1"


@pytest.mark.parametrize(
    "function", [pytest.param("begin_and_hang", marks=pytest.mark.slow), "begin_and_hold_the_lock"]
)
def test_when_the_parent_is_killed_its_workers_and_what_they_started_end(tmp_path: Path, function: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from tests.adapters import worker_functions as far\n"
        "from rh_agents.executors import ProcessExecutor\n"
        f"asyncio.run(ProcessExecutor(1).call(far.{function}, (sys.argv[1],), {{}}, far.ABOUT))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "begun")])
    processes = wait_until_begun(tmp_path / "begun")
    parent.kill()
    parent.wait()
    wait_until_gone(*processes)


def test_ctrl_c_reaches_the_parent_only_and_calls_under_way_have_their_grace(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from rh_agents import ExecutionState, RunStopped, open_store\n"
        "from rh_agents.core._limits.interruption import interrupt_on_signals\n"
        "from tests.adapters import worker_functions as far\n"
        "async def main():\n"
        "    state = ExecutionState(store=open_store('runs.db'), run_id='monday')\n"
        "    with interrupt_on_signals(state.request_interrupt):\n"
        "        async with state:\n"
        "            print(await far.finish(sys.argv[1]), flush=True)\n"
        "            await far.pid()\n"
        "try: asyncio.run(main())\n"
        "except RunStopped as error: print(error)\n"
    )
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "begun")],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True, process_group=0,
    )  # fmt: skip
    wait_until_begun(tmp_path / "begun")
    os.killpg(parent.pid, signal.SIGINT)  # as the terminal does
    (tmp_path / "go_on").touch()
    out, _ = parent.communicate(timeout=PATIENCE)
    assert out.splitlines() == ["finished", "run 'monday' was stopped: SIGINT"]


def test_a_main_file_that_is_executed_again_starts_no_run(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "from rh_agents import run_sync, tool\n"
        "@tool\n"
        "async def pay() -> int: return 1\n"
        "async def flow(): return await pay()\n"
        "made = run_sync(flow)\n"
    )
    assert runpy.run_path(str(path), run_name="program")["made"] == 1
    with pytest.raises(UsageError, match=r'importing .*program.py, .*: put .* under `if __name__ == "__main__":`'):
        runpy.run_path(str(path), run_name="__mp_main__")


@pytest.mark.slow
def test_a_program_that_multiprocessing_executes_again_starts_no_run(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import multiprocessing, pathlib\n"
        "from rh_agents import run_sync, tool\n"
        "@tool\n"
        "async def pay() -> int:\n"
        "    pathlib.Path('paid').open('a').write(__name__ + ' ')\n"
        "    return 1\n"
        "async def flow(): return await pay()\n"
        "def in_a_process(): print('worker', run_sync(flow))\n"
        "print('first', run_sync(flow))\n"
        "if __name__ == '__main__':\n"
        "    worker = multiprocessing.get_context('spawn').Process(target=in_a_process)\n"
        "    worker.start(); worker.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (tmp_path / "paid").read_text().split() == ["__main__"]
    assert re.search(
        r"UsageError: a worker process is importing .*program.py, and that must not start a run: put what starts it "
        r'under `if __name__ == "__main__":`',
        done.stderr,
    )
    source = (tmp_path / "program.py").read_text()
    (tmp_path / "program.py").write_text(source.replace("print('first'", "if __name__ == '__main__': print('first'"))
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout.split() == ["first", "1", "worker", "1"], "a process may have runs of its own"


def test_a_module_that_starts_a_run_when_it_is_imported_does_not_start_one_in_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rh_agents_test_runs.py").write_text(
        "from rh_agents import run_sync, tool\n"
        "calls = []\n"
        "@tool\n"
        "def pay() -> None: calls.append(1)\n"
        "def work(): return calls\n"
        "async def flow(): await pay()\n"
        "run_sync(flow)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("rh_agents_test_runs")

    async def main() -> None:
        with pytest.raises(UsageError, match="is importing rh_agents_test_runs, and that must not start"):
            await ProcessExecutor(1).call(module.work, (), {}, far.ABOUT)

    run_main(main)
