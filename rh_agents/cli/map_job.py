"""The main job: an actor over every item of an input, and a line of output for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from rh_agents.cli.arguments import Callee
from rh_agents.cli.errors import BadInput, CommandError, OutputFailed, one_line
from rh_agents.cli.input.lines import Item
from rh_agents.cli.input.source import Source
from rh_agents.cli.options import budget_field
from rh_agents.cli.output.results import LineWriter, record_of, to_line, unwritable_line
from rh_agents.cli.output.summary import Summary
from rh_agents.core._limits.interruption import interrupt_on_signals
from rh_agents.core._loops.exits import FAILURES
from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import BaseActor, Injected
from rh_agents.core.calls import Call
from rh_agents.core.errors import CallTimeout, RunAwaiting, RunStopped, StopRun, StoreError, TooManyFailures
from rh_agents.core.execution import ExecutionState
from rh_agents.core.parallel import ErrorStrategy, ParallelExecutionManager
from rh_agents.core.ports import Subscriber
from rh_agents.core.results import ExecutionResult
from rh_agents.core.values.canonical import CanonicalInput

__all__ = ["Limits", "MapJob", "call_for"]


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
    """Runs `callee` over the items of `source`; `report` takes lines for people as they come up.

    `state` is the run that it is; it is executed once. Without one, nothing is recorded. `greeting` is reported as
    soon as it is certain that this process executes the run.
    """

    callee: Callee
    source: Source
    writer: LineWriter
    report: Callable[[str], None]
    limits: Limits = Limits()
    state: ExecutionState = field(default_factory=lambda: ExecutionState(history_limit=0))
    greeting: str | None = None
    opened: Callable[[], None] = lambda: None
    """Called as soon as the run is open."""
    subscriber: Subscriber | None = None
    with_input: bool = False
    """Whether each line says what its item was."""
    has_begun: bool = False
    clock: Callable[[], float] = time.monotonic
    summary: Summary = field(default_factory=Summary)
    _pending: dict[int, Item] = field(default_factory=dict)
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
            await self._run()
        except StoreError as error:
            self.summary.failure = CommandError(one_line(str(error)), exit_code=1)
        except OutputFailed as error:
            self.summary.failure = error
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
        if self.subscriber is not None:
            state.event_bus.subscribe(self.subscriber)
        group = self.limits.group(state, self.callee.name)
        with interrupt_on_signals(lambda _: self._ask(group), lambda _: self._insist(), hangup=True):
            try:
                await self._run_in_state(group)
            finally:
                self.summary.retries = group.group.retries

    def _sum_up(self, seconds: float) -> None:
        summary = self.summary
        summary.cancelled = len(self._pending)
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
                group.map(self._start, self.source, name=lambda item: _label(item.id))
                async for result in group.stream(ordered=self.limits.ordered):
                    await self._write(result)
        except (StopRun, asyncio.CancelledError):
            for result in group.results:  # finished, and waiting for its turn when the others were cut off
                await self._write(result)
            raise
        finally:
            self._is_over = True

    def _start(self, item: Item) -> Call[Any]:
        index, self._enrolled = self._enrolled, self._enrolled + 1
        self._pending[index] = item
        call = call_for(item, self.callee, self.state.parts)
        if isinstance(call, _BadItem):
            self.report(f"{item.position}: {one_line(str(call.problem))}")
        return call

    async def _write(self, result: ExecutionResult[Any]) -> None:
        if self.summary.failure is not None:
            return
        index = result.index
        if index is None or index not in self._pending:
            result.unwrap()  # no item at all: the reader of the input is broken
            return
        item = self._pending[index]
        line, is_ok = self._line(item, index, result)
        try:
            await self.writer.write(line)
        except OutputFailed as error:
            self.summary.failure = error
            self.state.request_interrupt(str(error), grace=0)
            await asyncio.sleep(0)  # which cancels this task, here
            return
        del self._pending[index]
        self._count(item, result, is_ok)

    def _line(self, item: Item, index: int, result: ExecutionResult[Any]) -> tuple[bytes, bool]:
        """The line of an item, and whether it is a good one: a result that cannot be written down is a failure."""
        record = record_of(item, index, result, with_input=self.with_input)
        try:
            return to_line(record), result.ok
        except FAILURES as error:  # a result may have any class, and its repr raise anything
            problem = f"the result cannot be written as JSON: {one_line(str(error))}"
            self.report(f"{item.position}: {problem}")
            return unwritable_line(record, problem), False

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
        if summary.first_failure is None and not is_bad:
            summary.first_failure = f"{item.position}: {one_line(result.error_message or '')}"

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


_SIGNALS = "interrupted by a signal"
_LONGEST_LABEL = 200
"""Characters. The id of a plain line is the line."""


def _label(given: Any) -> str:
    text = one_line(str(given))
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"


def call_for(item: Item, callee: Callee, run: RunParts) -> Call[Any]:
    """The call for an item: of the actor, or one that fails at once with what is wrong with the item."""
    try:
        if item.problem is not None:
            raise BadInput(item.problem)
        return callee.call(item.value, run)
    except BadInput as error:
        return _BadItem(item.position, error, run)


async def _refuse() -> Annotated[None, Injected]:
    """Stands for the handler of bad items. Its annotation says that nothing of it is kept."""


class _BadItem(Call[Any]):
    """An item that does not fit: fails at once, and is never recorded, because the input may be mended."""

    __slots__ = ("position", "problem")

    def __init__(self, position: str, problem: BadInput, run: RunParts) -> None:
        super().__init__(_BAD_ITEM, run)
        self.position = position
        self.problem = problem

    def canonical_input(self) -> CanonicalInput:
        """It is identified by its position."""
        return CanonicalInput(self.position)

    async def begin(self, run: RunParts) -> Any:
        """Tell what is wrong."""
        raise self.problem


_BAD_ITEM: BaseActor = BaseActor(
    name="bad input", handler=_refuse, description="Stands for items that do not fit what is called."
)
