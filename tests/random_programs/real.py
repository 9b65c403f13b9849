"""Trials with real processes: killed with SIGKILL, ended with SIGTERM, interrupted, also while they recover.

The process that tries forks one child for each execution. It has imported everything and has no threads, so a child
begins within a millisecond. The child appends to a ledger on disk, and dies when it has written so many lines, or when
its time has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import functools
import gc
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rh_agents import ExecutionState, MemoryStore, RunStopped, open_store, run
from rh_agents.core._limits.interruption import interrupt_on_signals
from rh_agents.core._replay.identity import idempotency_key
from rh_agents.core.errors import ControlRefused, LeaseLost
from rh_agents.core.ports import Store
from rh_agents.core.ports.control import ControlResult, control_of
from rh_agents.executors.processes import ProcessExecutor
from tests.random_programs.evidence import ENDED, KILLED, STOPPED, Execution
from tests.random_programs.interpreter import Interpreter, answer_some
from tests.random_programs.ledger import Line, read_ledger, written
from tests.random_programs.oracle import findings, findings_of_change
from tests.random_programs.programs import Program, draw_change, draw_program

__all__ = ["RealMoment", "RealTrial", "draw_real_moments"]

UNIT = 0.002
"""Seconds that a unit of a program takes."""
_LOADED_LATE = (
    "anyio._backends._asyncio",
    "rh_agents.executors.processes",
    "rh_agents.executors.threads",
    "rh_agents.stores.sqlite",
    "rh_agents.stores.postgresql",
)
_PATIENCE = 60.0
"""Seconds after which a child hangs."""
_MOST_EXECUTIONS = 30
"""Until a run has come to its end: budgets grow, and questions are answered."""
_trials = itertools.count(1)
"""Numbers the trials of this process: those that share a store have runs, and cached results, of their own."""


@dataclass(frozen=True)
class RealMoment:
    """What disturbs an execution.

    Attributes:
        kind: "kill" (SIGKILL), "terminate" (SIGTERM, which the program honours by an interrupt), or "interrupt".
        share: when: after this share of the lines of an undisturbed ledger, or of its time.
        by_time: whether it is its time that counts.
        grace: seconds that are given to calls under way, but for "kill".
    """

    kind: str
    share: float
    by_time: bool = False
    grace: float = 0.0


def draw_real_moments(chance: random.Random) -> list[RealMoment]:
    """One to three disturbances, each while the run recovers from the one before."""
    kinds = ["kill", "kill", "kill", "kill", "terminate", "interrupt"]
    return [
        RealMoment(chance.choice(kinds), chance.random(), chance.random() < 0.25, chance.choice([0.0, 0.003, 30.0]))
        for _ in range(chance.choice([1, 1, 2, 3]))
    ]


class RealTrial:
    """One run of a program in a store, disturbed and judged.

    Args:
        program: what is executed.
        moments: what disturbs it, one after the other.
        seed: of everything else; it names the run.
        folder: where its ledgers are; made and thrown away.
        store: the URL of its store; by default a database in the folder.
    """

    def __init__(
        self, program: Program, moments: list[RealMoment], seed: int, folder: Path, store: str | None = None
    ) -> None:
        self.program = program
        self.moments = moments
        self.seed = seed
        self.folder = folder
        self.is_shared = store is not None
        self.store = store or f"sqlite:///{folder}/runs.db"
        self.crashes = 0
        self.name = f"{seed}" if store is None else f"{seed} {next(_trials)}"
        self.patience_of_people = False
        self._generosity = 1
        self._count = 0
        self._has_second_stage = random.Random(f"stage {seed}").random() < 0.3
        self._change = draw_change(program, random.Random(f"change {seed}"))

    def findings(self) -> list[str]:
        """What is wrong. The folder is left if anything is."""
        _warm_up()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        begin = time.monotonic()
        undisturbed = self._lives(f"undisturbed {self.name}", [])
        seconds = time.monotonic() - begin
        disturbed = self._lives(f"disturbed {self.name}", self.moments, len(undisturbed[0].lines), seconds)
        expected = undisturbed[-1].value
        found = findings(self.program, undisturbed, expected) + findings(self.program, disturbed, expected)
        found += self._changed(f"undisturbed {self.name}", undisturbed[-1])
        if not self.is_shared:
            found += self.check()
        if not found:
            shutil.rmtree(self.folder)
        return found

    def _changed(self, run_id: str, told: Execution) -> list[str]:
        """Somebody works at the program when the run has ended, and executes it again."""
        if self._change is self.program or told.end != ENDED:
            return []
        program, self.program = self.program, self._change
        self._generosity = 1000  # what is new costs more
        try:
            now = self._execute(run_id)
        finally:
            self.program = program
        return findings_of_change(program, told, self._change, now)

    def check(self) -> list[str]:
        """What the store says of itself."""
        self.folder.mkdir(parents=True, exist_ok=True)
        answer = self.folder / "check"

        async def main() -> None:
            store = open_store(self.store)
            try:
                answer.write_text(json.dumps(await store.check()))
            finally:
                await store.aclose()

        _wait(_fork(lambda: asyncio.run(main()), self.folder / "log"), None, self.folder / "log")
        return [f"check(): {line}" for line in json.loads(answer.read_text())] if answer.exists() else ["no check"]

    def _lives(self, run_id: str, moments: list[RealMoment], lines: int = 0, seconds: float = 0.0) -> list[Execution]:
        """One run: disturbed at each moment, then executed to its end, and then once more."""
        self._generosity = 1
        executions: list[Execution] = []
        for moment in moments:
            executions.append(
                self._execute(run_id, moment, max(1, round(moment.share * lines)), moment.share * seconds)
            )
            if executions[-1].end not in (KILLED, STOPPED):
                break
        self._to_the_end(run_id, executions, stage=0)
        self._replay(run_id, executions, stage=0)
        if moments and self._has_second_stage and executions[-1].end == ENDED:
            moment = RealMoment("kill", moments[0].share)
            executions.append(
                self._execute(run_id, moment, max(1, round(moment.share * 10)), 0.0, stage=1, retry_failed=True)
            )
            self._to_the_end(run_id, executions, stage=1, retry_failed=True)
            self._replay(run_id, executions, stage=1)
        return executions

    def _to_the_end(self, run_id: str, executions: list[Execution], stage: int, *, retry_failed: bool = False) -> None:
        for number in range(_MOST_EXECUTIONS):
            self.patience_of_people = number > _MOST_EXECUTIONS // 2
            if executions and executions[-1].stage == stage and executions[-1].end not in (KILLED, STOPPED):
                return
            executions.append(self._execute(run_id, stage=stage, retry_failed=retry_failed))

    def _replay(self, run_id: str, executions: list[Execution], stage: int) -> None:
        if executions[-1].end == ENDED:
            executions.append(self._execute(run_id, stage=stage, is_replay=True))

    def _execute(
        self,
        run_id: str,
        moment: RealMoment | None = None,
        lines: int = 0,
        seconds: float = 0.0,
        *,
        stage: int = 0,
        retry_failed: bool = False,
        is_replay: bool = False,
    ) -> Execution:
        """One execution by a process of its own."""
        self._count += 1
        ledger, log = self.folder / f"ledger{self._count}", self.folder / "log"
        job = _Job(self, ledger, self._count, run_id, moment, lines, retry_failed)
        by_time = moment is not None and moment.by_time
        number = signal.SIGKILL if moment is not None and moment.kind == "kill" else signal.SIGTERM
        status = _wait(_fork(job.perform, log), (seconds, number) if by_time else None, log)
        os.close(job.file)  # thousands of programs are executed by this one process
        told = [line for line in read_ledger(ledger) if line.kind != "result"]
        result = next((line for line in read_ledger(ledger) if line.kind == "result"), None)
        if result is not None and status == 0:
            end, value = result.label, json.loads(result.text)
        elif status in (-signal.SIGKILL, -signal.SIGTERM):  # before it honours signals, it dies of any
            end, value = KILLED, None
            self.crashes += 1
        else:
            end, value = f"status {status}: {log.read_text()[-1500:] if log.exists() else ''}", None
        if end == STOPPED:
            self._generosity *= 2
        return Execution(told, end, value, stage, is_replay)


class _Job:
    """What a child does."""

    def __init__(
        self,
        trial: RealTrial,
        ledger: Path,
        number: int,
        run_id: str,
        moment: RealMoment | None,
        lines: int,
        retry_failed: bool,
    ) -> None:
        self.trial = trial
        self.run_id = run_id
        self.moment = moment
        self.lines_left = lines if moment is not None and not moment.by_time else 0
        self.retry_failed = retry_failed
        self.file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.interpreter = Interpreter(
            trial.program,
            self.write,
            str(number),
            unit=UNIT,
            generosity=trial._generosity,
            has_threads=True,
            trial=trial.name,
            workers=ProcessExecutor(2),
        )
        self.chance = random.Random(f"answers {trial.seed} {number}")
        self.people = random.Random(f"people {trial.seed} {number}")
        self.paused_after = self.people.randint(1, 40) if self.people.random() < 0.5 else 0
        """Lines of the ledger; 0 if nobody pauses this execution."""
        self.pausing: asyncio.Task[None] | None = None
        self.state: ExecutionState | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def write(self, line: Line) -> None:
        """Add a line to the ledger, and be disturbed if it is the last one before that."""
        os.write(self.file, written(line))
        self.paused_after -= 1
        if self.paused_after == 0 and self.loop is not None:
            self.loop.call_soon_threadsafe(self.begin_to_pause)
        self.lines_left -= 1
        if self.lines_left == 0 and self.moment is not None:
            if self.moment.kind == "interrupt" and self.loop is not None:
                self.loop.call_soon_threadsafe(self.interrupt, "a random moment")
            else:
                os.kill(os.getpid(), signal.SIGKILL if self.moment.kind == "kill" else signal.SIGTERM)

    def interrupt(self, reason: str) -> None:
        """Stop the run."""
        assert self.state is not None
        grace = 0.0 if self.moment is None else self.moment.grace
        self.state.request_interrupt(reason, grace=grace)

    def begin_to_pause(self) -> None:
        """Somebody looks at the run, and wants it to stand still."""
        if self.state is not None and self.state.store is not None:
            self.pausing = asyncio.create_task(self._pause(self.state.store))

    async def _pause(self, store: Store) -> None:
        """Let the run stand still for a moment, which must change nothing, wherever it is cut off."""
        control = control_of(store, self.run_id)
        with contextlib.suppress(ControlRefused, LeaseLost):  # it has ended meanwhile
            await self._heard(control.pause(author="somebody", reason="a moment"))
            await asyncio.sleep(self.people.random() * 10 * UNIT)
            await self._heard(control.unpause(author="somebody"))

    async def _heard(self, asking: Coroutine[Any, Any, ControlResult]) -> None:
        """Ask, and let the owner look for it at once: it looks twice a second, and is done by then."""
        assert self.state is not None
        asked = asyncio.create_task(asking)
        try:
            while not asked.done():
                self.state.parts.steering.hear()
                await asyncio.wait([asked], timeout=UNIT)
            await asked
        finally:
            asked.cancel()

    async def _let_it_go_on(self, store: Store) -> None:
        """Who paused the run may have died with it, or may not have been heard."""
        with contextlib.suppress(ControlRefused):
            await control_of(store, self.run_id).unpause(author="somebody else")

    def perform(self) -> None:
        """Execute the run, and tell the ledger how it ended."""
        warnings.simplefilter("error")
        end, value = asyncio.run(self._execute())
        os.write(self.file, written(Line("result", label=end, text=json.dumps(value))))

    async def _execute(self) -> tuple[str, list[str] | None]:
        self.loop = asyncio.get_running_loop()
        trial = self.trial
        store = open_store(trial.store)
        try:
            if await store.find_run(self.run_id) is not None:
                await self._tell_recorded(store)
                await answer_some(store, self.run_id, self.chance, all_of_them=trial.patience_of_people)
                await self._let_it_go_on(store)
            self.state = ExecutionState(
                store=store,
                run_id=self.run_id,
                retry_failed=self.retry_failed,
                durability=trial.program.durability,
                budget=self.interpreter.budget,
                chance=lambda: 0.5,
                executors=self.interpreter.executors,
            )
            self.state.set_answerer(self.interpreter.answerer)
            with interrupt_on_signals(self.interrupt):
                async with self.state:
                    return ENDED, await self.interpreter.workflow()
        except RunStopped:
            return STOPPED, None
        finally:
            await self._stop_pausing()
            await store.aclose()

    async def _stop_pausing(self) -> None:
        if self.pausing is not None:
            self.pausing.cancel()
            await asyncio.wait([self.pausing])

    async def _tell_recorded(self, store: Any) -> None:
        async for outcome in store.outcomes(self.run_id):
            if outcome.error is None:
                self.write_quietly(Line("recorded", key=idempotency_key(self.run_id, outcome.base)))

    def write_quietly(self, line: Line) -> None:
        """Add a line that does not count."""
        os.write(self.file, written(line))


@functools.cache
def _warm_up() -> None:
    """Do once what every child would have to do again: build models and signatures, and load what is loaded late."""
    for name in _LOADED_LATE:
        with contextlib.suppress(ImportError):  # a package that is optional
            importlib.import_module(name)
    for seed in range(8):
        interpreter = Interpreter(draw_program(seed), lambda line: None, "", unit=1e-6)
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            asyncio.run(run(interpreter.workflow, store=MemoryStore()))
    gc.collect()
    gc.freeze()


def _fork(work: Any, log: Path) -> int:
    """A child that does the work and ends with status 0, or writes its error to the log and ends with 1."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(file, 2)
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - this is the end of the process, and the log tells of it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _wait(process: int, disturbance: tuple[float, int] | None, log: Path) -> int:
    """The exit status of a child, which is disturbed after so many seconds. One that hangs says where, and dies."""
    if disturbance is not None:
        seconds, number = disturbance
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.0005)
        os.kill(process, number)
    deadline = time.monotonic() + _PATIENCE
    pause = 0.0005
    while time.monotonic() < deadline:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(0.005, pause * 1.3)
    os.kill(process, signal.SIGUSR1)
    time.sleep(0.5)  # it writes its stacks
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    with log.open("a") as file:
        file.write("it hangs\n")
    return 99
