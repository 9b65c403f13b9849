"""What tells of a run while it goes on, in the terms of tracing: a span for a run, a group, a call, an attempt.

Tracing is no subscriber. A span has to be the current one while the code of its call runs, in the task of that call; no
event says that the second attempt begins; and a subscriber makes a resumed run publish what it recovers. So the runner
enters a block for each of these, where a run has tracing at all. A run without it makes not one call more.

A tracer changes no result. What it raises is counted and logged once (`rh_agents.core._run.tracing`), and one that
takes long is told to give up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from rh_agents.core.actors import BaseActor
from rh_agents.core.groups import ParallelEventGroup
from rh_agents.core.results import ExecutionResult
from rh_agents.core.usage import Usage

__all__ = [
    "CONTINUED",
    "CallAbout",
    "CallSpan",
    "GroupSpan",
    "MeasuredJournal",
    "MembersAbout",
    "RunAbout",
    "RunTotals",
    "RunTrace",
    "Tracing",
    "TracingLike",
    "entering",
    "opened_tracing",
    "set_tracing",
]


class RunAbout(NamedTuple):
    """A run that is about to be executed.

    Attributes:
        run_id: its name.
        workflow: the name of what is executed; "" if it has none.
        epoch: how often it has been started again after it had ended.
        is_resumed: whether an earlier execution has recorded something.
        earlier: the trace context of the start before this one, as `RunTrace.context` gave it; empty if there is none.
    """

    run_id: str
    workflow: str
    epoch: int
    is_resumed: bool
    earlier: Mapping[str, str]


class RunTotals(NamedTuple):
    """What an execution of a run came to.

    Attributes:
        status: how the run stands now, such as "completed" or "awaiting".
        calls: how many calls of actors have ended in this execution.
        failed, retries: how many of them failed, and how many attempts there were after first ones.
        recovered: how many of them were not made, because an earlier execution had recorded their outcome.
        cached: how many were not made, because an equal call had been.
        reason: why it failed or was stopped, if it was.
        error: the class of the error that ended it, if one did.
        recovered_of: of the recovered ones, how many are calls of which actor; actors without any are not in it.
    """

    status: str
    calls: int
    failed: int
    retries: int
    recovered: int
    cached: int
    reason: str | None = None
    error: type[BaseException] | None = None
    recovered_of: Mapping[str, int] | None = None


class MembersAbout(Protocol):
    """The members of a group."""

    @property
    def total(self) -> int | None:
        """How many there will be; None while that is not known."""
        ...


class CallAbout(Protocol):
    """A call as a tracer sees it. It belongs to the runner: a tracer reads it, and keeps nothing of it."""

    @property
    def actor(self) -> BaseActor:
        """What is called."""
        ...

    @property
    def name(self) -> str:
        """How its caller calls it; it may hold a secret."""
        ...

    @property
    def address(self) -> str:
        """Its readable place."""
        ...

    @property
    def key(self) -> bytes | None:
        """Its identity within its run; None where nothing is recorded."""
        ...

    @property
    def group_id(self) -> str | None:
        """The group of which it is a member."""
        ...

    @property
    def innermost_group(self) -> str | None:
        """The innermost group within which it is made; its own one if it is a member."""
        ...

    @property
    def index(self) -> int | None:
        """Its place in its group, from 0."""
        ...

    @property
    def among(self) -> MembersAbout | None:
        """The members of its group; None if it is no member."""
        ...

    @property
    def attempts(self) -> int:
        """How many attempts have begun, in all executions of the run."""
        ...

    @property
    def usage(self) -> Usage | None:
        """What it has used in this execution."""
        ...

    @property
    def result(self) -> ExecutionResult[Any] | None:
        """What came of it; None while that is not known, and where it was cut off."""
        ...

    @property
    def given(self) -> Callable[[], Any] | None:
        """Tells what it is called with."""
        ...


class CallSpan(AbstractContextManager[Any], Protocol):
    """A call under way. While the block lasts, its span is the current one; at its end, `CallAbout.result` is there."""

    def attempt(self, number: int) -> AbstractContextManager[Any] | None:
        """A block for one attempt of a call that may have several. None makes no span of it."""
        ...

    def retries(self, seconds: float) -> None:
        """The attempt under way has failed, and another one begins in this many seconds."""
        ...

    def waited(self, limiter: str, why: str, seconds: float) -> None:
        """It has waited so long for a limit or a budget before it could begin or go on."""
        ...


class GroupSpan(AbstractContextManager[Any], Protocol):
    """A group whose block is open. Members are enrolled in the block, so their spans find this one as their parent."""

    def ended(self, group: ParallelEventGroup, reason: str | None) -> None:
        """It is about to end; `reason` says why it failed, if it has."""
        ...


class RunTrace(AbstractContextManager[Any], Protocol):
    """A run under way. Its block is that of the run; a run that is used without a block has none, and no span."""

    @property
    def context(self) -> Mapping[str, str]:
        """What stands for its span elsewhere, such as {"traceparent": …}; empty if there is none to be found again."""
        ...

    def carrier(self) -> Mapping[str, str]:
        """The same for the span that is the current one now: for requests and for calls in other processes."""
        ...

    def group(self, group: ParallelEventGroup) -> GroupSpan | None:
        """A block for a group that is being opened. None makes no span of it."""
        ...

    def call(self, call: CallAbout) -> CallSpan | None:
        """A block for a call that is about to be made. None makes no span of it."""
        ...

    @property
    def committed(self) -> Callable[[int, float], None] | None:
        """Is called on the event loop of the run for each batch that is on disk: how many entries, how many seconds.

        None if that is not counted. It raises nothing.
        """
        ...

    def ended(self, totals: RunTotals) -> None:
        """It is about to end."""
        ...

    def give_up(self) -> None:
        """Make no more spans and end none: the blocks that are open only put back what was current around them."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


@runtime_checkable
class MeasuredJournal(Protocol):
    """A journal that says how it comes to the disk."""

    def measure_with(self, committed: Callable[[int, float], None]) -> None:
        """Call `committed` on the event loop of the run for each batch that is on disk.

        It gets how many entries the batch had, and how many seconds the transaction took.
        """
        ...


class Tracing(Protocol):
    """What `ExecutionState(tracing=…)` takes. One object may serve many runs, also at the same time."""

    def run(self, about: RunAbout) -> RunTrace:
        """Begin to tell of a run."""
        ...


CONTINUED = "continued"
"""The name of the tracer of a part of a run that is traced elsewhere: what the program has set up here, if anything."""

TracingLike = Tracing | str | bool
"""A tracer, or the name of one ("otel"); False for none."""

Opener = Callable[["TracingLike | None"], "Tracing | None"]
Entering = Callable[[Mapping[str, str]], AbstractContextManager[Any]]


def _only_given(given: TracingLike | None) -> Tracing | None:
    return None if given is None or isinstance(given, str | bool) else given


_open: Opener = _only_given
_enter: Entering = lambda _: nullcontext()  # noqa: E731


def set_tracing(opener: Opener, enter: Entering) -> None:
    """Tell how tracers are found by name, and how the context of a trace becomes the current one in another process.

    The facade does this once, when it is imported.
    """
    global _open, _enter
    _open, _enter = opener, enter


def opened_tracing(given: TracingLike | None) -> Tracing | None:
    """The tracer that is meant; None for none.

    Args:
        given: None is what the environment says (`RH_AGENTS_TRACING`).

    Raises:
        UsageError: there is none of this name, or what it needs is not installed.
    """
    return _open(given)


def entering(trace: Mapping[str, str]) -> AbstractContextManager[Any]:
    """A block in which the given context of a trace is the current one: around a call that another process asked for.

    Args:
        trace: what `RunTrace.carrier` gave there; empty for none.
    """
    return _enter(trace) if trace else nullcontext()
