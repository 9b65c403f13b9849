"""What an executor must do, as tests: they are the definition of the port `Executor`.

Tests of an executor of your own run them so (it needs `pip install 'rh_agents[testing]'`, and no plugin for asyncio):

    from rh_agents.testing.conformance.executors import ExecutorConformance

    class TestMyExecutor(ExecutorConformance):
        factory = "my_package.engines:MyExecutor"

        def make_executor(self) -> MyExecutor:
            return MyExecutor()

The functions keep a ledger in files, by which the tests judge how often each was called, whatever the executor says. So
they need workers that see the files and the processes of this machine. A test that needs something that the subclass
does not have is skipped, and says so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rh_agents.core.actors import Tool
from rh_agents.core.calls import FunctionCall
from rh_agents.core.errors import CallTimeout, DefinitionError, UnstorableError, WorkerLost
from rh_agents.core.execution import ExecutionState
from rh_agents.core.parallel import ParallelExecutionManager
from rh_agents.core.ports import CallContext, Executor
from rh_agents.core.types import Effect, OnUnknown
from rh_agents.testing import _called as far
from rh_agents.testing import _failures
from rh_agents.testing._called import Entry, entries
from rh_agents.testing._driver import ENGINE
from rh_agents.testing._failures import FAILURES, TEXTS

__all__ = ["ExecutorConformance"]

_LARGE = 50_000_000
"""Bytes."""
_BY_VALUE = """
import asyncio, importlib
from dataclasses import dataclass
from rh_agents.core.actors import Tool
from rh_agents.core.calls import FunctionCall
from rh_agents.core.execution import ExecutionState

@dataclass
class Pair:
    left: int
    right: int

def swap(pair: Pair) -> Pair:
    return Pair(pair.right, pair.left)

async def main():
    executor = getattr(importlib.import_module({module!r}), {name!r})()
    async with ExecutionState(store=None, executors={{"tested": executor}}):
        found = await FunctionCall(Tool(name="swap", handler=swap, engine="tested"), (Pair(1, 2),), {{}})
    assert type(found) is Pair, type(found)
    print(found.left, found.right)

asyncio.run(main())
"""


class ExecutorConformance:
    """A subclass says how to make the executor, what it can do and, where that is possible, how to do harm to it.

    Attributes:
        leaves_process: whether functions run in another process, which may die.
        stops: whether a function ends that no one waits for any more.
        factory: what makes the executor in another program, as `MODULE:NAME`; "" if nothing does.
        patience: seconds until a test that waits for something in vain fails.
    """

    leaves_process: ClassVar[bool] = True
    stops: ClassVar[bool] = True
    factory: ClassVar[str] = ""
    patience: ClassVar[float] = 60.0

    def make_executor(self) -> Executor:
        """An executor."""
        raise NotImplementedError("make_executor() returns an executor")

    def lose_node(self, process: int) -> bool:
        """Let the machine die on which the worker with this process id is, with the worker; False if that cannot be."""
        return False

    # -- what it gives -------------------------------------------------------------------------------------------------

    def test_it_gives_what_the_function_returns_for_its_arguments(self) -> None:
        async def main() -> None:
            assert await _call(far.add, 1) == 1
            actor = Tool(name="add", handler=far.add, engine=ENGINE)
            assert await FunctionCall[int](actor, (1, 2), {"third": 3}) == 6
            assert await _call(far.echo, None) is None

        self._execute(main)

    def test_functions_run_in_another_process_or_in_this_one_as_it_says(self) -> None:
        async def main() -> None:
            assert (await _call(far.process) != os.getpid()) is self.leaves_process

        self._execute(main)

    def test_each_of_many_calls_gets_its_own_result(self) -> None:
        async def main() -> None:
            actor = Tool(name="add", handler=far.add, engine=ENGINE)
            async with ParallelExecutionManager(self._state, max_workers=20) as group:
                group.map(lambda number: FunctionCall[int](actor, (number, number), {}), range(100))
                results = await group.gather()
            assert [result.unwrap() for result in results] == [2 * number for number in range(100)]

        self._execute(main)

    def test_fifty_megabytes_arrive_and_come_back(self) -> None:
        async def main() -> None:
            data = os.urandom(1000) * (_LARGE // 1000)
            assert await _call(far.echo, data) == data

        self._execute(main)

    def test_an_exception_of_whatever_kind_arrives_with_its_class_and_its_text(self) -> None:
        kinds = [kind for kind in FAILURES if self.leaves_process or kind != "interrupt"]

        async def main() -> None:
            found, classes = {}, {}
            for kind in kinds:
                error = await _error_of(_call(far.fail, kind))
                classes[kind] = type(error)
                if kind in TEXTS:
                    found[kind] = (type(error).__name__, str(error))
            assert found == {kind: TEXTS[kind] for kind in kinds if kind in TEXTS}
            assert (classes["mute"], classes["exiting"]) == (_failures.Mute, _failures.Exiting)

        self._execute(main)

    def test_coroutine_functions_are_awaited_where_functions_run(self) -> None:
        if not getattr(self.make_executor(), "takes_coroutine_functions", False):
            pytest.skip("it takes no coroutine functions")

        async def main() -> None:
            assert await _call(far.add_later, 1, 2) == (3, "add_later")

        self._execute(main)

    # -- what the function knows ---------------------------------------------------------------------------------------

    def test_the_function_knows_its_call(self) -> None:
        async def main() -> None:
            actor = Tool(name="context", handler=far.context, engine=ENGINE)
            async with ParallelExecutionManager(self._state, name="pages") as group:
                group.add(FunctionCall[dict[str, Any]](actor, (), {}))
                (result,) = await group.gather()
                group_id = group.group_id
            known = result.unwrap()
            assert (known["run_id"], known["address"], known["attempt"]) == (self._state.run_id, "pages[0]::context", 1)
            assert known["group_id"] == group_id

        self._execute(main)

    def test_the_idempotency_key_is_the_same_at_every_attempt(self, tmp_path: Path) -> None:
        async def main() -> None:
            result = await _call(far.fail_once, str(tmp_path), "flaky", retry=2).outcome()
            assert (result.unwrap(), result.attempts) == ("flaky", 2)
            await _call(far.note, str(tmp_path), "other")

        self._execute(main)
        flaky, other = entries(tmp_path, "flaky"), entries(tmp_path, "other")
        assert [entry.attempt for entry in flaky] == [1, 1, 2, 2]
        assert len({entry.key for entry in flaky}) == 1
        assert flaky[0].key != other[0].key, "another call has another one"

    def test_the_context_of_a_trace_and_the_resources_are_carried_along(self) -> None:
        if not self.leaves_process:
            pytest.skip("functions see the call of their caller")
        trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        about = CallContext("run", "here", 3, "key", "group", trace)

        async def main() -> None:
            known = await self._executor.call(far.context, (), {}, about)
            assert known == {
                "run_id": "run",
                "address": "here",
                "attempt": 3,
                "idempotency_key": "key",
                "group_id": "group",
                "trace": trace,
                "resources": {},
            }

        self._execute(main)

    def test_what_it_has_used_is_reported_with_its_outcome(self) -> None:
        async def main() -> None:
            await _call(far.spend, 2)
            assert isinstance(await _error_of(_call(far.spend_and_fail, 4)), ValueError)
            spent = self._state.spent.usage
            assert (spent.requests, spent.cost) == (8, 1.0)

        self._execute(main)

    # -- what cannot travel --------------------------------------------------------------------------------------------

    def test_what_no_other_process_can_have_is_refused_and_costs_no_other_call(self) -> None:
        if not self.leaves_process:
            pytest.skip("nothing leaves this process")

        async def main() -> None:
            assert isinstance(await _error_of(_call(far.echo, _not_data(), key="1")), DefinitionError)
            assert isinstance(await _error_of(_call(far.lock)), UnstorableError)
            with pytest.raises(DefinitionError, match="define it at the top level of a module to be imported"):
                await self._executor.call(lambda: 1, (), {}, CallContext("run", "here", 1, "key"))
            assert await _call(far.add, 1) == 1

        self._execute(main)

    def test_functions_and_classes_of_the_main_program_travel_by_value(self, tmp_path: Path) -> None:
        module, _, name = self._expect_factory().partition(":")
        program = tmp_path / "program.py"
        program.write_text(_BY_VALUE.format(module=module, name=name))
        done = subprocess.run(
            [sys.executable, str(program)], capture_output=True, text=True, timeout=self.patience, env=_environment()
        )
        assert done.stdout.splitlines()[-1:] == ["2 1"], done.stderr

    # -- what ends early -----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("way", ["timeout", "cancellation"])
    def test_a_function_that_nobody_waits_for_is_stopped(self, tmp_path: Path, way: str) -> None:
        if not self.stops:
            pytest.skip("it cannot stop a function")

        async def main() -> int:
            timeout = self.patience / 8 if way == "timeout" else None
            task = asyncio.ensure_future(_call(far.wait, str(tmp_path), "stopped", timeout=timeout).outcome())
            (begun,) = await self._begun(tmp_path)
            if way == "timeout":
                assert isinstance((await task).error, CallTimeout)
            else:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await self._gone(begun.process)
            (tmp_path / "go_on").touch()
            assert await _call(far.add, 1) == 1, "others are called"
            return begun.process

        self._execute(main)
        assert [entry.what for entry in entries(tmp_path)] == ["begin"]

    # -- what dies -----------------------------------------------------------------------------------------------------

    def test_a_call_whose_worker_is_killed_is_made_again_under_the_same_key(self, tmp_path: Path) -> None:
        self._expect_processes()

        async def main() -> None:
            task = asyncio.ensure_future(_call(far.wait, str(tmp_path), "killed").outcome())
            (begun,) = await self._begun(tmp_path)
            os.kill(begun.process, signal.SIGKILL)
            await self._begun(tmp_path, 2)
            (tmp_path / "go_on").touch()
            result = await task
            assert (result.unwrap(), result.attempts) == ("killed", 2)

        self._execute(main)
        self._expect_two_begun(tmp_path, "killed")

    def test_an_external_effect_is_not_repeated_when_its_worker_is_killed(self, tmp_path: Path) -> None:
        self._expect_processes()

        async def main() -> None:
            task = asyncio.ensure_future(_external(tmp_path, "killed").outcome())
            (begun,) = await self._begun(tmp_path)
            os.kill(begun.process, signal.SIGKILL)
            result = await task
            assert isinstance(result.error, WorkerLost)
            assert "whether wait was done is unknown" in str(result.error)
            assert await _call(far.add, 1) == 1, "others are called"

        self._execute(main)
        assert [entry.what for entry in entries(tmp_path)] == ["begin"]

    def test_a_function_that_kills_every_worker_fails(self, tmp_path: Path) -> None:
        self._expect_processes()
        deaths: list[int] = []

        async def main() -> None:
            task = asyncio.ensure_future(_call(far.wait, str(tmp_path), "killed").outcome())
            while not task.done():
                begun = [entry.process for entry in entries(tmp_path)]
                deaths.extend(begun[len(deaths) :])
                for process in begun[-1:]:
                    _kill(process)
                await asyncio.sleep(0.02)
            assert isinstance((await task).error, WorkerLost)

        self._execute(main)
        assert len(deaths) == 3

    def test_a_call_whose_machine_dies_is_made_again_and_an_external_effect_is_not(self, tmp_path: Path) -> None:
        self._expect_processes()
        again, external = tmp_path / "again", tmp_path / "external"
        again.mkdir()
        external.mkdir()

        async def main() -> None:
            tasks = [
                asyncio.ensure_future(_call(far.wait, str(again), "lost").outcome()),
                asyncio.ensure_future(_external(external, "lost").outcome()),
            ]
            for folder in (again, external):
                (begun,) = await self._begun(folder)
                if not self.lose_node(begun.process):
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                    pytest.skip("lose_node() cannot let a machine die")
            await self._begun(again, 2)
            (again / "go_on").touch()
            assert (await tasks[0]).unwrap() == "lost"
            assert isinstance((await tasks[1]).error, WorkerLost)

        self._execute(main)
        self._expect_two_begun(again, "lost")
        assert [entry.what for entry in entries(external)] == ["begin"]

    def test_a_program_that_is_killed_leaves_nothing_at_work_and_goes_on_where_it_was(self, tmp_path: Path) -> None:
        self._expect_processes()
        command = [sys.executable, "-m", "rh_agents.testing._driver", self._expect_factory()]
        command += [str(tmp_path / "runs.db"), str(tmp_path)]
        with subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL) as driver:
            try:
                begun = asyncio.run(self._begun(tmp_path, 1, "second"))
            finally:
                driver.kill()
        asyncio.run(self._gone(begun[0].process))
        (tmp_path / "go_on").touch()
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=self.patience)
        assert done.stdout.splitlines()[-1:] == ["first second"], done.stderr  # engines write lines of their own
        assert len({entry.key for entry in entries(tmp_path)}) == 2, "the same keys"
        assert [entry.what for entry in entries(tmp_path, "first")] == ["begin", "end"]
        assert [entry.what for entry in entries(tmp_path, "second")] == ["begin", "begin", "end"]

    # -- the hands of these tests --------------------------------------------------------------------------------------

    _executor: Executor
    _state: ExecutionState

    def _execute(self, main: Callable[[], Awaitable[Any]]) -> None:
        """Await `main()` in a run that has the executor."""

        async def execute() -> None:
            self._executor = self.make_executor()
            async with (
                asyncio.timeout(2 * self.patience),
                ExecutionState(store=None, executors={ENGINE: self._executor}) as self._state,
            ):
                await main()

        asyncio.run(execute())

    def _expect_processes(self) -> None:
        if not self.leaves_process:
            pytest.skip("no function leaves this process")

    def _expect_factory(self) -> str:
        if not self.factory:
            pytest.skip("no `factory` makes the executor in another program")
        return self.factory

    async def _begun(self, folder: Path, count: int = 1, name: str | None = None) -> list[Entry]:
        """The beginnings in the ledger, as soon as there are so many."""

        def found() -> list[Entry]:
            return [entry for entry in entries(folder, name) if entry.what == "begin"]

        await self._until(lambda: len(found()) >= count, f"the function began {count} times")
        return found()

    async def _gone(self, process: int) -> None:
        await self._until(lambda: not _is_alive(process), f"process {process} ended")

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.patience
        while not condition():
            assert time.monotonic() < deadline, f"waited {self.patience:g} s until {what}"
            await asyncio.sleep(0.01)

    def _expect_two_begun(self, folder: Path, name: str) -> None:
        found = entries(folder, name)
        assert [(entry.what, entry.attempt) for entry in found] == [("begin", 1), ("begin", 2), ("end", 2)]
        assert len({entry.key for entry in found}) == 1


for _name, _test in vars(ExecutorConformance).items():
    if _name.startswith("test_"):
        _test.__doc__ = _name.removeprefix("test_").replace("_", " ").capitalize() + "."


def _call(function: Callable[..., Any], *args: Any, key: str | None = None, **options: Any) -> FunctionCall[Any]:
    actor = Tool(name=function.__name__, handler=function, engine=ENGINE, **options)
    call: FunctionCall[Any] = FunctionCall(actor, args, {})
    return call if key is None else call.with_options(key=key)


def _external(folder: Path, name: str) -> FunctionCall[Any]:
    return _call(far.wait, str(folder), name, effect=Effect.EXTERNAL, on_unknown=OnUnknown.FAIL)


async def _error_of(call: FunctionCall[Any]) -> BaseException | None:
    return (await call.outcome()).error


def _not_data() -> Callable[[], None]:
    def local() -> None: ...

    return local


def _environment() -> dict[str, str]:
    """That of this process, with what it can import."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def _is_alive(process: int) -> bool:
    """Whether it can still do anything. (What has not been collected yet cannot.)"""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return not sys.platform.startswith("linux")
    return text.rpartition(")")[2].split()[0] not in "ZX"
