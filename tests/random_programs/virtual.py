"""Trials in virtual time, in one process: a crash is "nothing after entry n of the journal exists".

An execution is run to its end, and what a crash would have left of it is worked out afterwards: the first n entries of
the store, and of the ledger what had happened by then. What had happened is judged as badly for the library as it can
be: an entry that nobody waited for need not be on disk when the program goes on. So a line of the ledger happens before
the crash if the entries that somebody had *waited for* by then are among the first n.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import detangle

from rh_agents import ExecutionState, MemoryStore, RunStopped
from rh_agents.core._replay.identity import idempotency_key
from rh_agents.core.events import Fact
from rh_agents.core.ports import CacheEntry, Question, RunInfo, RunRequest
from rh_agents.core.results import Outcome
from rh_agents.core.values import decode, decode_error, encode, encode_error
from rh_agents.stores.memory import MemoryJournal
from tests.random_programs.evidence import ENDED, STOPPED, Execution
from tests.random_programs.interpreter import Interpreter, answer_some
from tests.random_programs.ledger import Line
from tests.random_programs.oracle import findings, findings_of_change
from tests.random_programs.programs import Program, draw_change

__all__ = ["Moment", "VirtualTrial", "draw_moments"]

RUN = "monday"
_DEADLINE = 100_000.0
"""Virtual seconds after which an execution hangs."""
_MOST_EXECUTIONS = 30
"""Until a run has come to its end: budgets grow, and questions are answered."""
Operation = tuple[Fact, Outcome | None] | CacheEntry | Question
"""A question as it stands from then on."""


@dataclass(frozen=True)
class Moment:
    """What disturbs an execution, and when: after a share of the operations of the store that it makes.

    Attributes:
        kind: "crash", or "interrupt".
        share: from 0.0 to 1.0.
        grace: of an interrupt, in virtual seconds.
    """

    kind: str
    share: float
    grace: float = 0.0


def draw_moments(chance: random.Random) -> list[Moment]:
    """One to three disturbances, each while the run recovers from the one before."""
    count = chance.choice([1, 1, 2, 3])
    kinds = ["crash", "crash", "crash", "interrupt"]
    return [Moment(chance.choice(kinds), chance.random(), chance.choice([0.0, 1.0, 1000.0])) for _ in range(count)]


# -- a store that is slow, and that can be taken back ------------------------------------------------------------------


class _Disk(MemoryStore):
    """Remembers its operations in their order, takes time to commit them, and knows which have been waited for."""

    def __init__(self, latency: Callable[[], float], *, is_sync: bool) -> None:
        super().__init__(clock=lambda: 1_700_000_000.0)
        self.latency = latency
        self.is_sync = is_sync
        self.operations: list[Operation] = []
        self.waited_for: int = 0
        self._free_at = -1.0
        self.when_added: Callable[[int], None] = lambda count: None

    @property
    def place(self) -> int:
        """How many operations a crash now leaves at least. Where nobody waits, no crash that leaves less is tried."""
        return self.waited_for if self.is_sync else len(self.operations)

    def _make_journal(self, run: Any, info: RunInfo) -> MemoryJournal:
        return _DiskJournal(run, info, self)

    async def put_cached(self, entry: CacheEntry) -> None:
        await super().put_cached(entry)
        self.add(entry)
        await self.commit()

    async def find_cached(self, key: bytes, *, now: float) -> CacheEntry | None:
        await asyncio.sleep(self.latency())
        return await super().find_cached(key, now=now)

    async def answer(self, run_id: str, question_id: str, answer: bytes, by: str | None = None) -> Question:
        answered = await super().answer(run_id, question_id, answer, by)
        self.add(answered)
        self.waited_for = len(self.operations)
        return answered

    def begin_execution(self) -> None:
        """Nothing is being written. The event loop of each execution counts from 0: what another one's said is void.

        Else the disk would seem busy until the time at which the execution before it ended, which may be longer than a
        cancelled call waits for a store.
        """
        self._free_at = -1.0

    def add(self, operation: Operation) -> None:
        """Something is to be written."""
        self.operations.append(operation)
        self.when_added(len(self.operations))

    async def commit(self) -> None:
        """Wait until everything that was added by now is on disk. It gets there also if nobody waits any more."""
        count = len(self.operations)
        loop = asyncio.get_running_loop()
        latency = self.latency()
        if latency or loop.time() <= self._free_at:  # whoever came first gets it first, also at the same moment
            self._free_at = max(loop.time() + latency, self._free_at + 1e-6)
            await asyncio.sleep(self._free_at - loop.time())
        self.waited_for = max(self.waited_for, count)

    async def after_the_first(self, count: int, epoch: int) -> _Disk:
        """What a crash leaves: so many operations, of a run that has been begun again so often."""
        left = _Disk(self.latency, is_sync=self.is_sync)
        journal = await MemoryStore.open_run(left, RunRequest(RUN, "a process that has died"))
        run = left._runs[RUN]
        run.info = dataclasses.replace(run.info, epoch=epoch)
        for operation in self.operations[:count]:
            if isinstance(operation, CacheEntry):
                await MemoryStore.put_cached(left, operation)
            elif isinstance(operation, Question):
                run.questions[operation.id] = operation
            else:
                MemoryJournal.note(journal, *operation)
        left.operations = self.operations[:count]
        left.waited_for = count
        return left

    def values(self) -> list[Line]:
        """The calls that have a recorded value, as lines of a ledger."""
        outcomes = [each[1] for each in self.operations if isinstance(each, tuple) and each[1] is not None]
        return [
            Line("recorded", key=idempotency_key(RUN, outcome.base)) for outcome in outcomes if outcome.error is None
        ]


class _DiskJournal(MemoryJournal):
    _store: _Disk

    def note(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        counts = super().note(fact, outcome)
        if counts is outcome:
            self._store.add((fact, None if outcome is None else _frozen(outcome)))
        return counts

    async def append(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        counts = self.note(fact, outcome)
        await self._store.commit()
        return counts

    async def ask(self, question: Question) -> Question:
        is_new = question.id not in self._run.questions
        found = await super().ask(question)
        if is_new:
            self._store.add(found)
            await self._store.commit()
        return found

    async def reject_answer(self, question_id: str, problem: str) -> None:
        await super().reject_answer(question_id, problem)
        self._store.add(self._run.questions[question_id])
        await self._store.commit()

    async def flush(self) -> None:
        await super().flush()
        await self._store.commit()

    def load_nowait(self, key: bytes) -> Outcome | None:
        return None if self._store.latency() else super().load_nowait(key)

    async def load(self, key: bytes) -> Outcome:
        await asyncio.sleep(self._store.latency())
        return await super().load(key)


def _frozen(outcome: Outcome) -> Outcome:
    """As it is when it is recorded: a program may change values, and groups add notes to errors."""
    if outcome.error is not None:
        return outcome._replace(error=decode_error(encode_error(outcome.error)))
    return outcome._replace(value=decode(encode(outcome.value)))


# -- one trial ---------------------------------------------------------------------------------------------------------


class VirtualTrial:
    """One run of a program: undisturbed, disturbed at some moments, and started again after its end.

    Args:
        program: what is executed.
        moments: what disturbs it, the second one while it recovers from the first.
        seed: of everything that is not said by the program: how long the store takes, and which schedule is chosen.
    """

    def __init__(self, program: Program, moments: list[Moment], seed: int) -> None:
        self.program = program
        self.moments = moments
        self.seed = seed
        self.generosity = 1
        self._count = 0
        self._patience_of_people = False
        chance = random.Random(f"trial {seed}")
        self._latencies: list[float] = chance.choice([[0.0], [0.25], [0.0, 0.0, 0.25, 1.5]])
        self._schedule: int | None = chance.choice([None, seed])
        self._has_second_stage = chance.random() < 0.3
        self._change = draw_change(program, random.Random(f"change {seed}"))

    def findings(self) -> list[str]:
        """What is wrong."""
        undisturbed: list[Execution] = []
        disturbed: list[Execution] = []
        try:
            whole = self._new_store()
            self._execute_to_its_end(whole, undisturbed, stage=0)
            self._replay(whole, undisturbed, stage=0)
            self._disturb(whole, undisturbed[0], disturbed)
            found = self._changed(whole, undisturbed)
        except _Hang as hang:
            return [str(hang)]
        found += findings(self.program, undisturbed, undisturbed[-1].value)
        return found + findings(self.program, disturbed, undisturbed[-1].value)

    def _changed(self, store: _Disk, executions: list[Execution]) -> list[str]:
        """Somebody works at the program when the run has ended, and executes it again."""
        if self._change is self.program or executions[-1].end != ENDED:
            return []
        program, self.program = self.program, self._change
        self.generosity = 1000  # what is new costs more
        try:
            now = self._execute(store, 0, None)
        finally:
            self.program = program
        return findings_of_change(program, executions[-1], self._change, now)

    def _new_store(self) -> _Disk:
        chance = random.Random(f"store {self.seed}")
        latencies = self._latencies
        return _Disk(lambda: chance.choice(latencies), is_sync=self.program.durability == "sync")

    def _disturb(self, whole: _Disk, first: Execution, executions: list[Execution]) -> None:
        """The first execution is the undisturbed one, if it is a crash that ends it: it is not made again."""
        store = self._new_store()
        self.generosity = 1
        epoch = 0
        for number, moment in enumerate(self.moments):
            begin = len(store.operations)
            if number == 0 and moment.kind == "crash":
                store, execution = whole, first
                end = self._end_of_first
            else:
                execution = self._execute(store, 0, moment)
                end = len(store.operations)
            if moment.kind == "crash":
                count = begin + round(moment.share * (end - begin))
                store, execution = self._crashed(store, execution, count, epoch)
            executions.append(execution)
            if execution.end == ENDED:
                break
            self.generosity *= 2 if execution.end == STOPPED else 1
        if not executions or executions[-1].end != ENDED:
            self._execute_to_its_end(store, executions, stage=0)
        self._replay(store, executions, stage=0)
        if self._has_second_stage:
            self._start_again(store, executions)

    def _start_again(self, store: _Disk, executions: list[Execution]) -> None:
        """A run that had ended is asked for another try, which crashes."""
        begin = len(store.operations)
        execution = self._execute(store, 1, None, retry_failed=True)
        count = begin + round(self.moments[0].share * (len(store.operations) - begin))
        store, execution = self._crashed(store, execution, count, self._epoch(store))
        executions.append(execution)
        self._execute_to_its_end(store, executions, stage=1, retry_failed=True)
        self._replay(store, executions, stage=1)

    def _epoch(self, store: _Disk) -> int:
        return store._runs[RUN].info.epoch

    def _crashed(self, store: _Disk, execution: Execution, count: int, epoch: int) -> tuple[_Disk, Execution]:
        left = asyncio.run(store.after_the_first(count, epoch))
        lines = [line for line in execution.lines if line.place <= count]
        return left, dataclasses.replace(execution, lines=lines, end="killed", value=None)

    def _execute_to_its_end(
        self, store: _Disk, executions: list[Execution], stage: int, *, retry_failed: bool = False
    ) -> None:
        for number in range(_MOST_EXECUTIONS):
            self._patience_of_people = number > _MOST_EXECUTIONS // 2
            executions.append(self._execute(store, stage, None, retry_failed=retry_failed))
            if executions[-1].end != STOPPED:
                break
            self.generosity *= 2  # its budget was spent
        if stage == 0 and not hasattr(self, "_end_of_first"):
            self._end_of_first = len(store.operations)

    def _replay(self, store: _Disk, executions: list[Execution], stage: int) -> None:
        if executions[-1].end == ENDED:
            executions.append(dataclasses.replace(self._execute(store, stage, None), is_replay=True))

    def _execute(self, store: _Disk, stage: int, moment: Moment | None, *, retry_failed: bool = False) -> Execution:
        """One execution, to its end or to its interruption."""
        self._count += 1
        chance = random.Random(f"answers {self.seed} {self._count}")
        if RUN in store._runs:
            asyncio.run(answer_some(store, RUN, chance, all_of_them=self._patience_of_people))
        lines: list[Line] = store.values()
        store.begin_execution()

        def write(line: Line) -> None:
            lines.append(dataclasses.replace(line, place=store.place))

        interpreter = Interpreter(
            self.program, write, str(self._count), generosity=self.generosity, trial=f"{self.seed}"
        )

        async def main() -> tuple[str, list[str] | None]:
            state = ExecutionState(
                store=store,
                run_id=RUN,
                retry_failed=retry_failed,
                durability=self.program.durability,
                budget=interpreter.budget,
                clock=lambda: 1_700_000_000.0 + asyncio.get_running_loop().time(),
                chance=lambda: 0.5,
                executors=interpreter.executors,
            )
            state.set_answerer(interpreter.answerer)
            if moment is not None and moment.kind == "interrupt":
                self._interrupt(store, state, moment)
            try:
                async with state:
                    value = await interpreter.workflow()
            except RunStopped:
                return STOPPED, None
            except Exception as error:  # noqa: BLE001 - no program lets one out: it is the library's
                return f"{type(error).__name__}: {error}", None
            return ENDED, value

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                end, value = detangle.run(main, seed=self._schedule, max_time=_DEADLINE)
            except Exception as error:  # a deadlock, or an exception that nobody retrieved
                raise _Hang(f"execution {self._count}: {type(error).__name__}: {error}") from error
            finally:
                store.when_added = lambda count: None
        if caught:
            end = f"warning: {caught[0].message}"
        return Execution(lines, end, value, stage)

    def _interrupt(self, store: _Disk, state: ExecutionState, moment: Moment) -> None:
        """The run is interrupted when the store has done so much more."""
        due = len(store.operations) + max(1, round(moment.share * self._end_of_first))

        def look(count: int) -> None:
            if count == due:
                asyncio.get_running_loop().call_soon(
                    lambda: state.request_interrupt("a random moment", grace=moment.grace)
                )

        store.when_added = look


class _Hang(Exception):
    """An execution did not end, or left something behind."""
