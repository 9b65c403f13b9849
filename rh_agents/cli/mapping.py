"""The main job: an actor over every item of an input, and a line of output for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rh_agents.cli.arguments import Callee
from rh_agents.cli.errors import BadInput, one_line
from rh_agents.cli.interrupts import Interrupts
from rh_agents.cli.outputs import LineWriter, OutputFailed, record_of, to_line, unwritable_line
from rh_agents.cli.records import Item
from rh_agents.cli.sources import Source
from rh_agents.cli.summary import Summary
from rh_agents.core.calls import Call
from rh_agents.core.errors import CallTimeout, TooManyFailures
from rh_agents.core.execution import ExecutionState
from rh_agents.core.parallel import ErrorStrategy, ParallelExecutionManager
from rh_agents.core.ports import Subscriber
from rh_agents.core.results import ExecutionResult

__all__ = ["Limits", "MapJob"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How items are run: `max_workers` at a time, for `grace` seconds more after an interruption, and so on."""

    max_workers: int = 5
    error_strategy: ErrorStrategy = ErrorStrategy.FAIL_SLOW
    fail_after: float | None = None
    ordered: bool = False
    grace: float = 30.0

    def group(self, state: ExecutionState, name: str) -> ParallelExecutionManager:
        """The group in which they run.

        Raises:
            ValueError: the limits contradict each other.
        """
        return state.parallel(self.max_workers, self.error_strategy, name=name, fail_after=self.fail_after)


@dataclass(slots=True)
class MapJob:
    """Runs `callee` over the items of `source`; `tell` takes lines for people as they come up."""

    callee: Callee
    source: Source
    writer: LineWriter
    tell: Callable[[str], None]
    limits: Limits = Limits()
    subscriber: Subscriber | None = None
    clock: Callable[[], float] = time.monotonic
    summary: Summary = field(default_factory=Summary)
    _pending: dict[int, Item] = field(default_factory=dict)
    _enrolled: int = 0
    _last_error: BaseException | None = None

    async def run(self) -> Summary:
        """Do it. What ends it early is told in the summary, not raised."""
        summary, began = self.summary, self.clock()
        summary.total = self.source.total
        async with ExecutionState(history_limit=0) as state:
            if self.subscriber is not None:
                state.event_bus.subscribe(self.subscriber)
            group = self.limits.group(state, self.callee.name)
            try:
                await self._run_group(group, state)
            except OutputFailed as error:
                summary.failure = error
            except Exception as error:
                if not self._has_stopped_the_group(error):
                    raise
                summary.stopped = self._why_stopped(error)
        summary.retries = group.group.retries
        summary.cancelled = len(self._pending)
        summary.left_threads |= summary.cancelled > 0
        summary.failure = summary.failure or self.source.failure
        if self.source.is_exhausted:  # now it is known, blank lines and all
            summary.total = self.source.taken
        summary.seconds = self.clock() - began
        return summary

    async def _run_group(self, group: ParallelExecutionManager, state: ExecutionState) -> None:
        steps = _Interruption(self, group)
        async with group:
            with Interrupts(steps.ask, steps.insist):
                group.map(lambda item: self._start(item, state), self.source, name=lambda item: one_line(str(item.id)))
                async for result in group.stream(ordered=self.limits.ordered):
                    await self._write(result)

    def _start(self, item: Item, state: ExecutionState) -> Call[Any]:
        """The call for an item. What is raised here is the failure of the item."""
        index, self._enrolled = self._enrolled, self._enrolled + 1
        self._pending[index] = item
        try:
            if item.problem is not None:
                raise BadInput(item.problem)
            return self.callee.call(item.value, state)
        except BadInput as error:
            self.tell(f"{item.place}: {one_line(str(error))}")
            raise

    async def _write(self, result: ExecutionResult[Any]) -> None:
        index = result.index
        if index is None or index not in self._pending:
            result.unwrap()  # no item at all: the reader of the input is broken
            return
        item = self._pending[index]
        line, is_ok = self._line(item, index, result)
        await self.writer.write(line)
        del self._pending[index]
        self._count(item, result, is_ok)

    def _line(self, item: Item, index: int, result: ExecutionResult[Any]) -> tuple[bytes, bool]:
        """The line of an item, and whether it is a good one: a result that cannot be written down is a failure."""
        record = record_of(item, index, result)
        try:
            return to_line(record), result.ok
        except Exception as error:  # noqa: BLE001 - a result may have any class, and its repr raise anything
            problem = f"the result cannot be written as JSON: {one_line(str(error))}"
            self.tell(f"{item.place}: {problem}")
            return unwritable_line(record, problem), False

    def _count(self, item: Item, result: ExecutionResult[Any], is_ok: bool) -> None:
        summary = self.summary
        summary.ok += is_ok
        summary.failed += not is_ok
        if result.ok:
            return
        self._last_error = result.error
        summary.left_threads |= isinstance(result.error, CallTimeout)
        if summary.first_failure is None and not isinstance(result.error, BadInput):
            summary.first_failure = f"{item.place}: {one_line(result.error_message or '')}"

    def _has_stopped_the_group(self, error: Exception) -> bool:
        return isinstance(error, TooManyFailures) or error is self._last_error

    def _why_stopped(self, error: Exception) -> str:
        if self.limits.error_strategy is ErrorStrategy.FAIL_FAST:
            return "stopped at the first failure (--error-strategy fail_fast)"
        return f"stopped after {self.summary.failed} of {self.summary.done} items had failed (--fail-after)"


@dataclass(slots=True)
class _Interruption:
    """What the signals do to a job."""

    job: MapJob
    group: ParallelExecutionManager

    def ask(self) -> None:
        """Start nothing more; what runs has some time to finish."""
        job, grace = self.job, self.job.limits.grace
        job.summary.is_interrupted = True
        job.source.stop()
        running = self.group.group.running
        job.tell(
            f"interrupted: no more items are started; {running} in flight have {grace:g} s; once more cancels them"
        )
        asyncio.get_running_loop().call_later(grace, self.group.cancel)

    def insist(self) -> None:
        """Cancel what runs."""
        self.group.cancel()
