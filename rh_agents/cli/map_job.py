"""The main job: an actor over every item of an input, and a line of output for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rh_agents.cli.arguments import BadItem, Callee, call_for
from rh_agents.cli.errors import BadInput, CommandError, OutputFailed, one_line
from rh_agents.cli.input.lines import Item
from rh_agents.cli.input.source import Source
from rh_agents.cli.options import budget_field
from rh_agents.cli.output.progress import Shown
from rh_agents.cli.output.results import LineWriter, record_of, unwritable_record
from rh_agents.cli.output.summary import Summary
from rh_agents.cli.output.writers import ResultWriter
from rh_agents.core._limits.interruption import interrupt_on_signals
from rh_agents.core._loops.exits import FAILURES
from rh_agents.core.calls import Call
from rh_agents.core.errors import CallTimeout, RunAwaiting, RunStopped, StopRun, StoreError, TooManyFailures
from rh_agents.core.execution import ExecutionState
from rh_agents.core.parallel import ErrorStrategy, ParallelExecutionManager
from rh_agents.core.results import ExecutionResult

__all__ = ["Limits", "MapJob", "Shards"]


@dataclass(frozen=True, slots=True)
class Shards:
    """How items are made in other processes: so many at a time in each, on which engine, how many at once, and what."""

    size: int
    on: str
    workers: int | None
    applied: Callable[[Any], Call[Any]]


@dataclass(frozen=True, slots=True)
class Limits:
    """How items are run: `max_workers` at a time, for `grace` seconds more after an interruption, and so on."""

    max_workers: int = 5
    error_strategy: ErrorStrategy = ErrorStrategy.FAIL_SLOW
    fail_after: float | None = None
    ordered: bool = False
    grace: float = 30.0
    shards: Shards | None = None

    def group(self, state: ExecutionState, name: str) -> ParallelExecutionManager:
        """The group in which they run.

        Raises:
            ValueError: the limits contradict each other.
        """
        return state.parallel(
            self.max_workers, self.error_strategy, name=name, fail_after=self.fail_after, requeue=True
        )


@dataclass(frozen=True, slots=True)
class _Failed:
    """An item whose newest line says that it failed, and that may be made again."""

    item: Item
    message: str
    is_replayed: bool


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that is to be written, or a row of another format, and what it is about."""

    row: Any
    item: Item
    index: int
    result: ExecutionResult[Any]
    is_ok: bool


@dataclass(slots=True)
class MapJob:
    """Runs `callee` over the items of `source`; `report` takes lines for people as they come up.

    `state` is the run that it is; it is executed once. Without one, nothing is recorded. `greeting` is reported as
    soon as it is certain that this process executes the run.
    """

    callee: Callee
    source: Source
    writer: ResultWriter
    report: Callable[[str], None]
    limits: Limits = Limits()
    state: ExecutionState = field(default_factory=lambda: ExecutionState(store=None, history_limit=0))
    greeting: str | None = None
    opened: Callable[[], None] = lambda: None
    """Called as soon as the run is open."""
    display: Shown | None = None
    with_input: bool = False
    """Whether each line says what its item was."""
    has_begun: bool = False
    clock: Callable[[], float] = time.monotonic
    summary: Summary = field(default_factory=Summary)
    _pending: dict[int, Item] = field(default_factory=dict)
    _failed: dict[int, _Failed] = field(default_factory=dict)
    _unwritten: list[_Line] = field(default_factory=list)
    _size_unwritten: int = 0
    _enrolled: int = 0
    _is_over: bool = False
    _last_error: BaseException | None = None

    async def run(self) -> Summary:
        """Do it. What ends it early is in the summary, not raised. Once `has_begun`, the summary is complete
        whatever happens.

        Raises:
            StoreError: the run cannot be opened; `RunIsLive`: another process executes it.
        """
        began = self.clock()
        await self.state.open()
        self.has_begun = True
        self.opened()
        try:
            try:
                await self._run()
            except StoreError as error:  # the rows that the output has kept back are those of results all the same
                self.summary.failure = CommandError(one_line(str(error)), exit_code=1)
            if not isinstance(self.summary.failure, OutputFailed):
                await self.writer.finish()
        except OutputFailed as error:
            self.summary.failure = self.summary.failure or error
        except (asyncio.CancelledError, KeyboardInterrupt):  # not by us: the process is to end
            self.summary.is_interrupted = True
            raise
        finally:
            self._sum_up(self.clock() - began)
        return self.summary

    async def _run(self) -> None:
        state = self.state
        if self.greeting is not None:
            self.report(self.greeting)
        # Only now that the run is ours: what an earlier execution of it wrote is written again from the beginning.
        # Should this process die meanwhile, nothing is lost with those lines, since all of them are in the store.
        self.writer.restart()
        if self.display is not None:
            self.display.follow(state)
        group = self.limits.group(state, self.callee.name)
        with interrupt_on_signals(lambda _: self._ask(group), lambda _: self._insist(), hangup=True):
            try:
                await self._run_in_state(group)
            finally:
                self.summary.retries = group.group.retries

    def _sum_up(self, seconds: float) -> None:
        summary = self.summary
        summary.cancelled = len(self._pending)
        summary.first_failure = next((f"{each.item.position}: {each.message}" for each in self._failed.values()), None)
        summary.left_threads |= summary.cancelled > 0
        summary.failure = summary.failure or self.source.failure
        # When all of it has been read, it is known how much there was, blank lines and all.
        summary.total = self.source.taken if self.source.is_exhausted else self.source.total
        summary.is_unfinished = not self.source.is_exhausted and not self.source.is_at_its_limit
        summary.seconds = seconds

    async def _run_in_state(self, group: ParallelExecutionManager) -> None:
        summary = self.summary
        try:
            async with self.state:
                await self._run_group(group)
        except RunAwaiting as waiting:
            summary.questions = waiting.questions
        except RunStopped as stopped:
            if not summary.is_interrupted and summary.failure is None:
                summary.stopped = f"stopped: {one_line(stopped.reason)}"
                summary.budget_field = budget_field(stopped)
        except StoreError:
            raise
        except Exception as error:
            if not isinstance(error, TooManyFailures) and error is not self._last_error:
                raise
            summary.stopped = self._why_stopped(error)

    async def _run_group(self, group: ParallelExecutionManager) -> None:
        try:
            async with group:
                self._enrol(group)
                async for result in group.stream(ordered=self.limits.ordered):
                    await self._write(result)
        except (StopRun, asyncio.CancelledError):
            for result in group.results:  # finished, and waiting for its turn when the others were cut off
                await self._write(result)
            raise
        finally:
            self._write_out()
            self._is_over = True

    def _enrol(self, group: ParallelExecutionManager) -> None:
        shards, name = self.limits.shards, _label_of
        if shards is None:
            group.map(self._start, self.source, name=name)
        else:
            start = _Elsewhere(self._start, shards.applied)
            group.map(start, self.source, name=name, shard=shards.size, on=shards.on, workers=shards.workers)

    def _start(self, item: Item) -> Call[Any]:
        index, self._enrolled = self._enrolled, self._enrolled + 1
        self._pending[index] = item
        call = call_for(item, self.callee, self.state.parts)
        if isinstance(call, BadItem):
            self.report(f"{item.position}: {one_line(str(call.problem))}")
        return call

    async def _write(self, result: ExecutionResult[Any]) -> None:
        """Write the line of a result: into a file together with those that come in the same turn of the event loop.

        So they are there before anything is waited for. A system call for each of them would also give the
        interpreter's lock away each time.
        """
        if result.requeued:
            self._write_out()  # the earlier line of the item, of which it depends how this one counts
        if self.summary.failure is not None:
            return
        index = result.index
        earlier = self._failed.get(-1 if index is None else index)
        if index is None or (index not in self._pending and earlier is None):
            result.unwrap()  # no item at all: the reader of the input is broken
            return
        item = self._pending[index] if earlier is None else earlier.item
        row, is_ok = self._row(item, index, result)
        line = _Line(row, item, index, result, is_ok)
        if isinstance(self.writer, LineWriter) and self.writer.is_file:
            self._write_soon(line)
            return
        try:
            await self.writer.write(row)
        except OutputFailed as error:
            self._give_up(error)
            await asyncio.sleep(0)  # which cancels this task, here
            return
        self._written(line)

    def _write_soon(self, line: _Line) -> None:
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._write_out)
        self._unwritten.append(line)
        self._size_unwritten += len(line.row)
        if self._size_unwritten > _MOST_UNWRITTEN:
            self._write_out()

    def _write_out(self) -> None:
        """Write the lines that are there. Those that are complete count, also if a later one cannot be written."""
        lines, self._unwritten, self._size_unwritten = self._unwritten, [], 0
        if not lines or self.summary.failure is not None or not isinstance(self.writer, LineWriter):
            return
        before = self.writer.lines
        try:
            self.writer.write_together([line.row for line in lines])
        except OutputFailed as error:
            self._give_up(error)
        for line in lines[: self.writer.lines - before]:
            self._written(line)

    def _give_up(self, error: OutputFailed) -> None:
        self.summary.failure = error
        self.state.request_interrupt(str(error), grace=0)

    def _written(self, line: _Line) -> None:
        earlier = self._failed.get(line.index)
        if earlier is None:
            del self._pending[line.index]
        else:
            self._uncount(line.index, earlier)
        self._count(line.item, line.result, line.is_ok)

    def _row(self, item: Item, index: int, result: ExecutionResult[Any]) -> tuple[Any, bool]:
        """The row of an item, and whether it is a good one: a result that cannot be written down is a failure."""
        record = record_of(item, index, result, with_input=self.with_input)
        try:
            return self.writer.formed(record), result.ok
        except FAILURES as error:  # a result may have any class, and its repr raise anything
            problem = f"the result cannot be written as {self.writer.form}: {one_line(str(error))}"
            self.report(f"{item.position}: {problem}")
            return self.writer.formed(unwritable_record(record, problem)), False

    def _count(self, item: Item, result: ExecutionResult[Any], is_ok: bool) -> None:
        summary = self.summary
        summary.ok += is_ok
        summary.failed += not is_ok
        summary.reused += result.is_replayed
        if result.ok:
            return
        self._last_error = result.error
        is_bad = isinstance(result.error, BadInput)
        summary.bad += is_bad
        summary.left_threads |= isinstance(result.error, CallTimeout) and not result.is_replayed
        if not is_bad and result.index is not None:
            message = one_line(result.error_message or "")
            self._failed[result.index] = _Failed(item, message, result.is_replayed)

    def _uncount(self, index: int, earlier: _Failed) -> None:
        """Another line is written for an item that had one: it counts once, and the newest line says as what."""
        del self._failed[index]
        self.summary.failed -= 1
        self.summary.reused -= earlier.is_replayed

    def _why_stopped(self, error: Exception) -> str:
        if self.limits.error_strategy is ErrorStrategy.FAIL_FAST:
            return "stopped at the first failure (--error-strategy fail_fast)"
        return f"stopped after {self.summary.failed} of {self.summary.done} items had failed (--fail-after)"

    def _ask(self, group: ParallelExecutionManager) -> None:
        """The first signal: start nothing more; what runs has some time to finish."""
        grace = self.limits.grace
        self.summary.is_interrupted = True
        self.source.stop()
        running = group.group.running
        self.report(
            f"interrupted: no more items are started; {running} in flight have {grace:g} s; once more cancels them"
        )
        self.state.request_interrupt(_SIGNALS, grace=grace)

    def _insist(self) -> None:
        """The second one: cancel what runs. What is still to do after that must not be cut off, and is short."""
        if not self._is_over:
            self.state.request_interrupt(_SIGNALS, grace=0)


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """What is applied to items here, to number them, and by the processes that make them."""

    start: Callable[[Item], Call[Any]]
    elsewhere: Callable[[Any], Call[Any]]

    def __call__(self, item: Item) -> Call[Any]:
        return self.start(item)

    @staticmethod
    def data_of(item: Item) -> Any:
        """What the processes get of an item."""
        return item.value


_SIGNALS = "interrupted by a signal"
_MOST_UNWRITTEN = 1 << 16
"""Bytes of lines that are written together."""
_LONGEST_LABEL = 200
"""Characters. The id of a plain line is the line."""


def _label_of(item: Item) -> str:
    return _label(item.id)


def _label(given: Any) -> str:
    if type(given) is int:  # the number of a line
        return str(given)
    text = one_line(str(given))
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
