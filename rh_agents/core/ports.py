"""The shapes through which the core meets the rest of the world. Any object that fits will do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rh_agents.core.results import ExecutionResult, Outcome
from rh_agents.core.types import ExecutionStatus

if TYPE_CHECKING:
    from rh_agents.core.actors import BaseActor
    from rh_agents.core.events import ExecutionEvent
    from rh_agents.core.groups import ParallelEventGroup
    from rh_agents.core.scope import Generation, Scope

__all__ = ["Clock", "Executor", "RecordedRun", "RunHandle", "Store", "Subscriber"]

Subscriber = Callable[["ExecutionEvent[Any]"], Awaitable[object] | object]
"""Whoever is told of events: a function or a coroutine function."""

Clock = Callable[[], float]
"""Gives the time of day in seconds since 1970. (Durations come from the event loop's clock.)"""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What a store knows of a run when it is opened.

    Attributes:
        status: PENDING for a run that it has never seen.
        epoch: how often the run has been started again after it had ended.
        outcomes: by key, in the order in which they were recorded. A view: it shows what is appended later, too.
        events: the journal so far.
    """

    status: ExecutionStatus
    epoch: int
    outcomes: Mapping[bytes, Outcome]
    events: Sequence[ExecutionEvent[Any]]


class Store(Protocol):
    """Where runs are recorded. Every method raises `StoreError` if it cannot do its work; none of them retries."""

    async def open_run(self, run_id: str) -> RecordedRun:
        """Begin the run, or continue it, or begin a new epoch of it if it had ended; and tell what is known of it."""
        ...

    async def append(self, run_id: str, event: ExecutionEvent[Any], outcome: Outcome | None) -> Outcome | None:
        """Add an event to the journal together with the outcome it reports, both or neither.

        Returns:
            The outcome that counts: the given one, or the one that was recorded first for the same key.
        """
        ...

    async def end_run(self, run_id: str, status: ExecutionStatus) -> None:
        """Record how the run ended."""
        ...

    async def aclose(self) -> None:
        """Let go of files and connections."""
        ...


class Executor(Protocol):
    """Runs functions that are not coroutine functions, away from the event loop."""

    async def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the function and return what it returns. If the awaiting task is cancelled, it does not wait for it."""
        ...


class RunHandle(Protocol):
    """What calls and groups need to know of their run."""

    @property
    def run_id(self) -> str:
        """The name of the run."""
        ...

    @property
    def root(self) -> Scope:
        """The scope of calls that are made by no other call."""
        ...

    @property
    def records(self) -> bool:
        """Whether a store was given, so that calls get keys and their outcomes are recorded."""
        ...

    @property
    def epoch(self) -> int:
        """How often the run has been started again after it had ended."""
        ...

    @property
    def is_resumed(self) -> bool:
        """Whether anything was recorded of the run before."""
        ...

    @property
    def is_observed(self) -> bool:
        """Whether anybody subscribes to events."""
        ...

    @property
    def strict(self) -> bool:
        """Whether a call that no replay could tell from another one is an error instead of a warning."""
        ...

    async def open(self) -> None:
        """Read what is recorded, if that has not been done."""
        ...

    def now(self) -> float:
        """The time of day, in seconds since 1970."""
        ...

    def chance(self) -> float:
        """A random number in [0, 1)."""
        ...

    def recorded(self, key: bytes) -> Outcome | None:
        """The outcome of an earlier execution, if there is one that counts."""
        ...

    def reused(self, base: bytes) -> None:
        """The recorded outcome of the call at this place has been returned, and with it those of all calls below."""
        ...

    def is_tried_again(self, key: bytes, generation: Generation) -> bool:
        """Whether the call with this key failed in a generation of its parent that came before this one."""
        ...

    def attempts_before(self, key: bytes) -> int:
        """How many attempts of a call without an outcome failed in earlier executions of the run."""
        ...

    def recorded_order(self, group_id: str) -> Sequence[bytes]:
        """The keys of a group's members that have a recorded outcome, in the order in which they ended."""
        ...

    def new_id(self) -> str:
        """An id for a group of a run that records nothing."""
        ...

    async def record(self, event: ExecutionEvent[Any], outcome: Outcome | None = None) -> Outcome | None:
        """Record an event with the outcome that it reports, if the run records.

        Returns:
            The outcome that counts, see `Store.append`; None in a run that records nothing.
        """
        ...

    async def publish(self, event: ExecutionEvent[Any]) -> None:
        """Tell the subscribers."""
        ...

    def executor(self, actor: BaseActor) -> Executor:
        """Who runs the handler of this actor, which is not a coroutine function."""
        ...

    def count_call(self, name: str, result: ExecutionResult[Any]) -> None:
        """Add a call that has ended to the run's metrics."""
        ...

    def count_group(self, group: ParallelEventGroup) -> None:
        """Add or update a group in the run's metrics."""
        ...

    def start(self, actor: BaseActor, input_data: Any, extra_context: Any) -> Awaitable[ExecutionResult[Any]]:
        """A call of the actor that starts when it is awaited, and again at every attempt of a group."""
        ...
