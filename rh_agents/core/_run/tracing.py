"""Where a run meets its tracer: around the run, its groups, calls and attempts there are blocks of it.

*It raises.* Each call of a tracer goes through `RunTracing.ask`, which counts what it raises and logs the first one. A
block that cannot be entered is left out; what it surrounds is executed all the same.

*It blocks.* A tracer is called on the event loop, where nothing can interrupt it. Once may be a machine that has too
much to do. But one that has kept all calls waiting for a second several times will do so again, thousands of times: it
is told to give up for the rest of the run.

*It takes no stack.* Calls nest as deep as Python's stack lets, and a tracer must not change how deep that is. So the
runner enters and leaves blocks where it makes the call and the attempt anyway, and no coroutine of ours is around them.

*What it must not hold.* Errors of the program lead to the frames of the calls that they have passed, with all that
those had in their hands (see `Frame.let_go`). So no error is kept here when its block has ended.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar

from rh_agents.core._limits.sampling import HeldUp
from rh_agents.core.errors import StoreError
from rh_agents.core.groups import ParallelEventGroup
from rh_agents.core.ports.tracing import (
    CallSpan,
    GroupSpan,
    MeasuredJournal,
    RunAbout,
    RunTotals,
    RunTrace,
    Tracing,
)
from rh_agents.core.redaction import logger, without_secrets
from rh_agents.core.results import describe_error

__all__ = ["RunTracing", "TracedCall", "TracedGroup", "traced"]

T = TypeVar("T")
_PATIENCE = 1.0
"""Seconds that one call of a tracer may take."""
_MOST_BLOCKS = 3
"""How often one may take longer before no more are made."""
_log = logger("rh_agents.tracing")


class RunTracing:
    """The tracer of one run.

    Args:
        run: its parts.
        tracing: the tracer.
        workflow: the name of what is executed.
    """

    def __init__(self, run: Any, tracing: Tracing, workflow: str) -> None:
        self._run = run
        self._tracing = tracing
        self._workflow = workflow
        self._is_entered = False
        self._has_given_up = False
        self._blocks = 0
        self._failure: tuple[type[BaseException] | None, str | None] = (None, None)
        self.trace: RunTrace | None = None
        self.errors: int = 0
        """How often the tracer has raised."""

    def ask(self, function: Callable[..., T], *args: Any) -> T | None:
        """What the tracer gives; None if it raises."""
        began = time.perf_counter()
        try:
            return function(*args)
        except Exception as error:  # noqa: BLE001 - a tracer must not hurt the run
            self._failed(error)
            return None
        finally:
            if time.perf_counter() - began > _PATIENCE:
                self._blocks += 1
                if self._blocks >= _MOST_BLOCKS and not self._has_given_up:
                    self._give_up()

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        if self.errors == 1:
            _log.warning(
                "the tracer of run %r has failed, which changes nothing else: %s; further failures are only counted",
                self._run.run_id,
                describe_error(error),
            )

    def _give_up(self) -> None:
        self._has_given_up = True
        _log.warning(
            "the tracer of run %r has kept its event loop waiting %d times for more than %g s: nothing more of the run "
            "is traced. Let it export in a thread of its own (BatchSpanProcessor)",
            self._run.run_id,
            self._blocks,
            _PATIENCE,
        )
        if self.trace is not None:
            self.ask(self.trace.give_up)

    # -- the run ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """The run is ours, and what is recorded of it is known."""
        run, recording = self._run, self._run.recording
        earlier = recording.recorded.steered.trace
        journal = recording.journal
        workflow = self._workflow  # of a submitted run, its store knows it
        if not workflow and journal is not None:
            workflow = without_secrets(journal.info.workflow)
        about = RunAbout(run.run_id, workflow, recording.epoch, recording.is_resumed, earlier)
        self.trace = self.ask(self._tracing.run, about)
        committed = None if self.trace is None else self.ask(lambda trace: trace.committed, self.trace)
        if committed is not None and isinstance(journal, MeasuredJournal):
            journal.measure_with(functools.partial(_count, weakref.ref(self), committed))

    def enter(self) -> None:
        """Its block is entered. The journal gets the context of its trace, once for each start."""
        trace = self.trace
        if trace is None:
            return
        self.ask(trace.__enter__)
        self._is_entered = True
        context = self.ask(lambda: dict(trace.context))
        run = self._run
        if context and run.records and run.identity == run.run_id:  # shards are below what wants them now
            control = {
                "id": f"trace {run.new_id()}",
                "verb": "trace",
                "author": "",
                "asked_at": run.now(),
                "arguments": {"context": context},
                "run": run.run_id,
                "epoch": run.recording.epoch,
                "answer": {},
            }
            with suppress(StoreError):  # whatever is recorded next raises it
                run.recording.note(run.steering.fact(control))

    def ends_with(self, error: BaseException | None) -> None:
        """The block has been left with this error, or with none."""
        if isinstance(error, Exception):
            self._failure = type(error), describe_error(error)

    def leave(self, status: str, reason: str | None) -> None:
        """The run has been closed."""
        trace = self.trace
        if trace is None or not self._is_entered:
            return
        self._is_entered = False
        counts, counter = self._run.counter.snapshot(), self._run.counter
        kind, message = self._failure
        totals = RunTotals(
            status,
            counts.calls,
            counts.failed,
            counts.retries,
            counts.replayed,
            counter.cached,
            reason or message,
            kind,
            {name: actor.replayed for name, actor in counts.actors.items() if actor.replayed},
        )
        self.ask(trace.ended, totals)
        self.ask(trace.__exit__, None, None, None)

    def carrier(self) -> dict[str, str]:
        """What stands for the current span in other processes; empty for none."""
        trace = self.trace
        return {} if trace is None else self.ask(lambda: dict(trace.carrier())) or {}

    # -- groups -------------------------------------------------------------------------------------------------------

    def open_group(self, group: ParallelEventGroup) -> TracedGroup | None:
        """Enter the block of a group."""
        span = None if self.trace is None else self.ask(self.trace.group, group)
        if span is None:
            return None
        self.ask(span.__enter__)
        return TracedGroup(self, span)


class TracedGroup:
    """A group that is traced."""

    __slots__ = ("_span", "_tracing")

    def __init__(self, tracing: RunTracing, span: GroupSpan) -> None:
        self._tracing = tracing
        self._span = span

    def close(self, group: ParallelEventGroup, reason: str | None) -> None:
        """Its block has been left."""
        self._tracing.ask(self._span.ended, group, reason)
        self._tracing.ask(self._span.__exit__, None, None, None)


class _Raised:
    """What is raised in a block. The caller may be handling an exception all along, which is none of the block's."""

    __slots__ = ("_handled",)

    def __init__(self) -> None:
        handled = sys.exception()
        self._handled = (handled, None if handled is None else handled.__traceback__)

    def at_the_end(self) -> BaseException | None:
        """The exception with which the block is being left, if it is. Asked once: it keeps nothing afterwards."""
        (handled, where), self._handled = self._handled, (None, None)
        error = sys.exception()
        if error is None or (error is handled and error.__traceback__ is where):  # raised again, it would be longer
            return None
        return error


class TracedCall:
    """A call that is traced, as far as its frame tells of it."""

    __slots__ = ("_raised", "_span", "_tracing")

    def __init__(self, tracing: RunTracing, span: CallSpan) -> None:
        self._tracing = tracing
        self._span = span
        self._raised = _Raised()

    def leave(self, frame: Any) -> None:
        """The call ends, with its result or with what is being raised."""
        error = self._raised.at_the_end()
        if not isinstance(error, GeneratorExit):
            frame.come_forward()  # it may have been cut short while it waited
        frame.trace = None
        _leave(self._tracing, self._span, error)

    def held_up(self, before: HeldUp | None, why: HeldUp) -> None:
        """It waits for this from now on, and not for that any more."""
        if before is not None:
            self.waited(before)
        if why.due_at is not None:
            self._tracing.ask(self._span.retries, why.due_at - why.since)

    def waited(self, held_up: HeldUp) -> None:
        """It need not wait any more for this. What waits for its next attempt has said so before."""
        if held_up.due_at is None:
            seconds = asyncio.get_running_loop().time() - held_up.since
            self._tracing.ask(self._span.waited, held_up.name, held_up.why, seconds)

    def attempt(self, frame: Any) -> TracedAttempt | None:
        """Enter the block of an attempt that begins, of a call that may have several."""
        if frame.retry is None and not frame.actor.may_lose_workers:
            return None
        block = self._tracing.ask(self._span.attempt, frame.attempts)
        if block is None:
            return None
        self._tracing.ask(block.__enter__)
        return TracedAttempt(self._tracing, block)


class TracedAttempt:
    """An attempt that is traced."""

    __slots__ = ("_block", "_raised", "_tracing")

    def __init__(self, tracing: RunTracing, block: AbstractContextManager[Any]) -> None:
        self._tracing = tracing
        self._block = block
        self._raised = _Raised()

    def leave(self) -> None:
        """It ends, with a value or with what is being raised."""
        _leave(self._tracing, self._block, self._raised.at_the_end())


def traced(frame: Any, step: Callable[[Any], Awaitable[T]]) -> Awaitable[T]:
    """Enter the block of a call that is about to be made. `step` is what makes it; the runner leaves the block."""
    tracing: RunTracing = frame.run.tracing
    span = None if tracing.trace is None else tracing.ask(tracing.trace.call, frame)
    if span is not None:
        tracing.ask(span.__enter__)
        frame.trace = TracedCall(tracing, span)
    return step(frame)


def _count(
    tracing: weakref.ref[RunTracing], committed: Callable[[int, float], None], entries: int, took: float
) -> None:
    """A batch is on disk. The journal does not keep the run for that: it must be let go of as soon as the run is."""
    found = tracing()
    if found is not None:
        found.ask(committed, entries, took)


def _leave(tracing: RunTracing, block: AbstractContextManager[Any], error: BaseException | None) -> None:
    tracing.ask(block.__exit__, None if error is None else type(error), error, None)
