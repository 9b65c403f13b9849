"""Runs: one execution of a workflow, with its identity, its store, its bus and its history."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rh_agents.core.actors import BaseActor
from rh_agents.core.bus import EventBus, EventStream, OnFull, Subscription
from rh_agents.core.calls import ActorCall, set_default_run
from rh_agents.core.errors import StoreError, UsageError
from rh_agents.core.history import HistorySet
from rh_agents.core.keys import ROOT_KEY
from rh_agents.core.metrics import ActorMetrics, RunCounter, RunMetrics
from rh_agents.core.parallel import ErrorStrategy, ParallelExecutionManager
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.ports import Clock, Executor, RecordedRun, Store
from rh_agents.core.results import ExecutionResult, Outcome
from rh_agents.core.scope import Generation, Scope, current_scope
from rh_agents.core.types import Engine, ExecutionStatus

if TYPE_CHECKING:
    from rh_agents.core.events import ExecutionEvent
    from rh_agents.core.groups import ParallelEventGroup

__all__ = [
    "ActorMetrics",
    "EventBus",
    "EventStream",
    "ExecutionState",
    "HistorySet",
    "OnFull",
    "RunMetrics",
    "Subscription",
    "set_executors",
]

_executors: dict[Engine, Callable[[], Executor]] = {}


def set_executors(makers: dict[Engine, Callable[[], Executor]]) -> None:
    """Tell how to make the executors for handlers that are not coroutine functions. The facade does this."""
    _executors.update(makers)


class ExecutionState:
    """One run. `async with ExecutionState() as state:` makes it the current one, and ends it with the block.

    Args:
        store: where the run is recorded, so that starting it again under the same `run_id` repeats no finished call.
            None records nothing: calls get no keys, and only events are kept, see `history_limit`.
        run_id: the name of the run; by default a new one.
        event_bus: tells subscribers what happens; by default a bus of its own.
        tags: words by which people find the run.
        history_limit: how many of the newest events `history` keeps; None keeps all.
        strict: a call that no replay could tell from another one raises `UndefinedOrderError` instead of warning.
        retry_failed: what starting a run again that has *ended* does with its failed calls: True makes them again,
            False repeats their failures. (After a crash, recorded failures are always repeated.)
        clock: the time of day in seconds since 1970, for timestamps.
        chance: numbers in [0, 1), for the jitter of retries.
        executors: by engine, who runs handlers that are not coroutine functions.
    """

    def __init__(
        self,
        *,
        store: Store | None = None,
        run_id: str | None = None,
        event_bus: EventBus | None = None,
        tags: Sequence[str] = (),
        history_limit: int | None = 10_000,
        strict: bool = False,
        retry_failed: bool = True,
        clock: Clock = time.time,
        chance: Callable[[], float] = random.random,
        executors: dict[Engine, Executor] | None = None,
    ) -> None:
        self.run_id: str = run_id or uuid.uuid4().hex
        self.store = store
        self.event_bus: EventBus = event_bus or EventBus()
        self.tags: tuple[str, ...] = tuple(tags)
        self.history: HistorySet = HistorySet(history_limit)
        self.strict = strict
        self.retry_failed = retry_failed
        self.status: ExecutionStatus = ExecutionStatus.PENDING
        self.now = clock
        self.chance = chance
        self.root: Scope = Scope(self, ROOT_KEY, "")
        self.records: bool = store is not None
        self._executors: dict[Engine, Executor] = dict(executors or {})
        self._counter = RunCounter()
        self._recorded: RecordedRun | None = None
        self._is_open = False
        self.epoch: int = 0
        """How often the run has been started again after it had ended."""
        self.is_resumed: bool = False
        """Whether anything was recorded of the run before."""
        self._opening = asyncio.Lock()
        self._attempts: dict[str, int] = {}
        self._orders: dict[str, list[bytes]] = {}
        self._used: set[bytes] = set()
        self._reused: set[bytes] = set()
        self._broken: StoreError | None = None
        self._token: Token[Scope | None] | None = None

    def __repr__(self) -> str:
        return f"<ExecutionState {self.run_id} {self.status.value}>"

    @property
    def state_id(self) -> str:
        """Another name of `run_id`."""
        return self.run_id

    @property
    def is_observed(self) -> bool:
        """Whether anybody subscribes to events."""
        return bool(self.event_bus.subscriptions)

    @property
    def metrics(self) -> RunMetrics:
        """What the run has done so far: calls by actor, and the groups that have ended."""
        return self._counter.snapshot()

    @property
    def unused_outcomes(self) -> list[Outcome]:
        """Recorded outcomes of earlier executions that this one has not asked for (yet): the program has changed.

        What a call made whose own outcome was used is not among them.
        """
        if self._recorded is None or not self.is_resumed:
            return []
        outcomes = self._recorded.outcomes
        parents = {outcome.base: outcome.parent for outcome in outcomes.values()}
        return [
            outcome
            for key, outcome in outcomes.items()
            if key not in self._used and not self._is_below_a_reused_call(outcome, parents)
        ]

    def _is_below_a_reused_call(self, outcome: Outcome, parents: Mapping[bytes, bytes]) -> bool:
        place: bytes | None = outcome.parent
        while place:
            if place in self._reused:
                return True
            place = parents.get(place)
        return False

    def parallel(
        self,
        max_workers: int = 5,
        error_strategy: ErrorStrategy | str = ErrorStrategy.FAIL_SLOW,
        timeout: float | None = None,
        name: str | None = None,
        *,
        fail_after: int | float | None = None,
        item_timeout: float | None = None,
        retry: RetryPolicy | int | None = None,
        breaker: CircuitBreaker | None = None,
    ) -> ParallelExecutionManager:
        """A group of calls that run side by side: `async with state.parallel(...) as p`.

        The arguments are those of `ParallelExecutionManager`.
        """
        return ParallelExecutionManager(
            self,
            max_workers,
            error_strategy,
            timeout,
            name,
            fail_after=fail_after,
            item_timeout=item_timeout,
            retry=retry,
            breaker=breaker,
        )

    # -- its life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read what is recorded of the run. Done by the first call, and by `async with`.

        Raises:
            StoreError: the store failed, now or before: nothing goes on after that.
        """
        if self._broken is not None:
            raise self._broken
        if self._is_open:
            return
        async with self._opening:  # calls side by side wait for the first one
            if not self._is_open:
                if self.store is not None:
                    self._read(await self.store.open_run(self.run_id))
                self.status = ExecutionStatus.STARTED
                self._is_open = True

    def _read(self, recorded: RecordedRun) -> None:
        self._recorded = recorded
        self.epoch = recorded.epoch
        self.is_resumed = bool(recorded.events)
        self.history.extend(recorded.events)
        for outcome in recorded.outcomes.values():
            if outcome.group_id is not None:
                self._orders.setdefault(outcome.group_id, []).append(outcome.key)
        for event in recorded.events:
            if event.key is not None and event.execution_status is ExecutionStatus.RETRYING:
                self._attempts[event.key] = event.attempt

    async def end(self, status: ExecutionStatus = ExecutionStatus.COMPLETED) -> None:
        """Record that the run has ended. Its bus delivers what waits, and closes.

        Raises:
            StoreError: the store failed, now or before.
        """
        self.status = status
        if self.store is not None and self._broken is None:
            await self.store.end_run(self.run_id, status)
        await self.event_bus.aclose()
        if self._broken is not None:
            raise self._broken

    async def __aenter__(self) -> Self:
        if self._token is not None:
            raise UsageError(f"run {self.run_id} is under way: a run is entered once")
        await self.open()
        self._token = current_scope.set(self.root)
        self.root.owner = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            current_scope.reset(self._token)
            self._token = None
        if error is None:
            await self.end(ExecutionStatus.COMPLETED)
        elif self._broken is not None:  # the error says so, and the run has not ended
            await self.event_bus.aclose()
        elif isinstance(error, Exception):
            await self.end(ExecutionStatus.FAILED)
        else:  # Ctrl-C or a shutdown: the run has not ended, and goes on when it is started again
            self.status = ExecutionStatus.CANCELLED
            await self.event_bus.drain()

    # -- what calls and groups need (see RunHandle) -------------------------------------------------------------------

    def start(self, actor: BaseActor, input_data: Any, extra_context: Any) -> Awaitable[ExecutionResult[Any]]:
        """A call of the actor that starts when it is awaited."""
        return ActorCall(actor, input_data, extra_context, self)

    def new_id(self) -> str:
        """An id for a group of a run that records nothing."""
        return uuid.uuid4().hex

    def recorded(self, key: bytes) -> Outcome | None:
        """The outcome that is recorded for a key."""
        if self._recorded is None:
            return None
        outcome = self._recorded.outcomes.get(key)
        if outcome is not None and self.is_resumed:
            self._used.add(key)
        return outcome

    def reused(self, base: bytes) -> None:
        """The recorded outcome of the call at this place has been returned."""
        self._reused.add(base)

    def is_tried_again(self, key: bytes, generation: Generation) -> bool:
        """Whether the recorded outcome is a failure of an earlier generation."""
        outcome = None if self._recorded is None else self._recorded.outcomes.get(key)
        if outcome is None or outcome.error is None:
            return False
        epoch, *made_in = outcome.made_in
        if made_in < list(generation[1:]) or (self.retry_failed and epoch < self.epoch):
            self._used.add(key)
            return True
        return False

    def attempts_before(self, key: bytes) -> int:
        """How many attempts of a call without an outcome failed in earlier executions."""
        return self._attempts.get(key.hex(), 0) if self._attempts else 0

    def recorded_order(self, group_id: str) -> Sequence[bytes]:
        """The keys of the members of a group that have a recorded outcome, in the order in which they ended."""
        return self._orders.get(group_id, ())

    async def record(self, event: ExecutionEvent[Any], outcome: Outcome | None = None) -> Outcome | None:
        """Record an event with its outcome; returns the outcome that counts."""
        counts = None
        if self.store is not None:
            if self._broken is not None:
                raise self._broken
            if outcome is not None and self.is_resumed:
                self._used.add(outcome.key)
            try:
                counts = await self.store.append(self.run_id, event, outcome)
            except StoreError as error:
                self._broken = error
                raise
            if counts is not outcome:
                return counts
        self.history.add(event)
        return counts

    async def publish(self, event: ExecutionEvent[Any]) -> None:
        """Tell the subscribers."""
        if self.event_bus.subscriptions:
            await self.event_bus.publish(event)

    def executor(self, actor: BaseActor) -> Executor:
        """Who runs the handler of this actor."""
        engine = actor.engine or Engine.THREAD
        executor = self._executors.get(engine)
        if executor is None:
            executor = self._executors[engine] = _executors[engine]()
        return executor

    def count_call(self, name: str, result: ExecutionResult[Any]) -> None:
        """A call of an actor has ended."""
        self._counter.count_call(name, result)

    def count_group(self, group: ParallelEventGroup) -> None:
        """A group has ended."""
        self._counter.count_group(group)


set_default_run(lambda: ExecutionState(history_limit=0))
