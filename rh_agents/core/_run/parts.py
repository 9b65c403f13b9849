"""What a run is made of, as its calls and groups use it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from rh_agents.core._limits.accounts import Accounts
from rh_agents.core._limits.call_log import CallLog
from rh_agents.core._limits.interruption import Interruption
from rh_agents.core._limits.settings import Settings
from rh_agents.core._limits.sharing.budgets import SharedBudget
from rh_agents.core._limits.steering import Steering
from rh_agents.core._loops.homes import CallsBegun, Home, home
from rh_agents.core._loops.postponed import Postpone
from rh_agents.core._loops.worker_imports import expect_no_import_for_a_worker
from rh_agents.core._run.caching import CallCache
from rh_agents.core._run.recording import Recording
from rh_agents.core._run.tracing import RunTracing
from rh_agents.core.actors import BaseActor
from rh_agents.core.bus import EventBus
from rh_agents.core.errors import UsageError
from rh_agents.core.events import Fact
from rh_agents.core.history import HistorySet
from rh_agents.core.metrics import RunCounter
from rh_agents.core.policies.budget import Budget
from rh_agents.core.ports import Clock, Store
from rh_agents.core.ports.executors import Executors, sharding
from rh_agents.core.ports.streaming import TextSink
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus, OnUnknown, RecordInputs

__all__ = ["RunParts"]

_FAILED, _RETRYING = ExecutionStatus.FAILED, ExecutionStatus.RETRYING


class RunParts:
    """The parts of one run. Each call and group uses those that it needs.

    Attributes:
        state: the run, as its users hold it (a `Run`, which is above all that is here).
        identity: the name of the run to which its calls belong: its own, unless it executes a part of another one.
        recording: what is recorded of it, and what is being recorded now.
        budgets: what it spends.
        interruption: whether it is being stopped, or is paused.
        settings: numbers that people have changed.
        steering: applies what people ask of it.
        cache: results that equal calls share.
        bus, history: who is told of events, and the newest of them.
        counter: its metrics.
        tracing: tells a tracer of it; None if it has none.
        log: logs failures, retries and waits of its calls.
        executors: who runs handlers that do not run on the event loop.
        now: the time of day, in seconds since 1970.
        chance: gives random numbers in [0, 1).
        strict: whether a call that no replay could tell from another one is an error instead of a warning.
        is_validation: whether recorded calls are only compared, so that nothing with an external effect may be called.
        began_at, ended_at: when this execution began and ended; None before that.
        open_groups: the groups whose block is open, by id.
        text_sink: takes text of calls under way, while somebody looks at it.
        paused_at: since when nothing new begins because somebody has paused the run, in seconds since 1970.
        record_inputs: what is recorded of what calls are called with, for actors that do not say.
        root: the place of calls that are made by no other call, see `rh_agents.core._run.frame.root_of`.
        shards_left: what workers still make of groups that an earlier execution had open, by the id of the group.
        begun: counts the calls that begin on its event loop.
        marks_attempts: whether it is on disk that an attempt begins before it does, of calls whose actor does not say
            what to do if that is all that is known. Agents are entered again: it is what is below them that counts.
        decide_unknown: what to do about a call that may have been done, RETRY or FAIL; gets its actor, its address, and
            the number of the event since which that is so. A person may have to be asked.
    """

    decide_unknown: Callable[[BaseActor, str, int], Awaitable[OnUnknown]]

    def __init__(
        self,
        state: Any,
        run_id: str,
        store: Store | None,
        recording: Recording,
        *,
        bus: EventBus,
        history: HistorySet,
        budget: Budget | None,
        executors: Executors,
        clock: Clock,
        chance: Callable[[], float],
        strict: bool,
        is_validation: bool,
        record_inputs: RecordInputs,
        opened: Callable[[], Awaitable[None]],
    ) -> None:
        self.state: Any = state
        self.run_id: str = run_id
        self.identity: str = run_id
        self.store: Store | None = store
        self.records: bool = store is not None
        self.recording: Recording = recording
        self.interruption: Interruption = Interruption()
        self.budgets: Accounts = Accounts(
            budget,
            keeps_parts=self.records,
            time=self.interruption.hold.time,
            share=lambda shared, place: SharedBudget(shared, place, run_id, store, recording),
        )
        self.cache: CallCache = CallCache(run_id, store, self.interruption, clock, recording.report_former_key)
        self.bus: EventBus = bus
        self.history: HistorySet = history
        self.counter: RunCounter = RunCounter()
        self.tracing: RunTracing | None = None
        self.log: CallLog = CallLog()
        self.executors: Executors = executors
        self.now: Clock = clock
        self.chance: Callable[[], float] = chance
        self.strict: bool = strict
        self.is_validation: bool = is_validation
        self.record_inputs: RecordInputs = record_inputs
        self.marks_attempts: bool = False
        self.began_at: float | None = None
        self.ended_at: float | None = None
        self.open_groups: dict[str, Any] = {}
        self.text_sink: TextSink | None = None
        self.paused_at: float | None = None
        self.settings: Settings = Settings(self.budgets, self.open_groups)
        self.steering: Steering = Steering(self)
        self.root: Any = None
        self.shards_left: dict[str, Any] = {}
        self.begun: CallsBegun = CallsBegun()
        self.home: Home | None = None
        """The event loop on which it lives, once it has been opened."""
        self._opened = opened

    @property
    def seconds(self) -> float | None:
        """How long this execution has taken so far; None if it has not begun."""
        if self.began_at is None:
            return None
        return (self.now() if self.ended_at is None else self.ended_at) - self.began_at

    # -- opening ------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read what is recorded, and become the owner of the run, if that has not been done.

        Raises:
            RunIsLive: another process executes the run.
            RunMismatchError: the run was started with another workflow or input.
            StoreError: the store failed, now or before: nothing goes on after that.
            UsageError: it lives on another event loop, or the program is being imported by a worker process.
        """
        here = home()
        if self.home is not here:
            self._live_on(here)
        recording = self.recording
        if not recording.is_open or recording.broken is not None:
            expect_no_import_for_a_worker()
            await recording.open(self._get_ready)

    async def _get_ready(self) -> None:
        """The journal is open: before anything is called, it gets what other processes have left."""
        await self._opened()
        if self.recording.is_resumed and not self.is_validation:
            await sharding().take_up(self)

    def _live_on(self, here: Home) -> None:
        """From now on this is the event loop of the run. Whatever waits for something in it waits there."""
        if self.home is not None and not self.home.is_of(asyncio.get_running_loop()):
            raise UsageError(
                f"run {self.run_id!r} lives on the event loop on which it was opened, and this is another one: make an "
                "ExecutionState for each; in a thread or a plain function, run_sync(workflow) makes a run of its own"
            )
        self.bus.attach()
        self.home = here
        if self.began_at is None:
            self.began_at = self.now()
        self.begun = here.begun

    def is_destroyed_by(self, error: BaseException | None) -> bool:
        """Whether an error is that with which Python destroys what an event loop has left that was given up.

        Then nothing can be waited for, nobody is there to be told anything, and what runs share knows that the loop is
        gone. (Where an async generator is closed in good order, its event loop runs, and so do its blocks come to their
        end.)
        """
        return isinstance(error, GeneratorExit) and (self.home is None or not self.home.is_running)

    async def stop_others(self, status: ExecutionStatus) -> None:
        """The run ends as this: nothing goes on beside its program, and others have what it does not need."""
        await self.interruption.aclose()
        if self.recording.broken is None:
            await self.budgets.aclose()
        await self.steering.close(status)

    # -- events -------------------------------------------------------------------------------------------------------

    @property
    def is_observed(self) -> bool:
        """Whether anything subscribes to events."""
        return bool(self.bus.subscriptions)

    def note(self, fact: Fact) -> None:
        """Record a fact without waiting for it, if the run records."""
        if self.records:
            self.recording.note(fact)
        self.history.add(fact)

    async def record(
        self,
        fact: Fact,
        outcome: Outcome | None = None,
        *,
        is_urgent: bool = False,
        postpone: Postpone | None = None,
    ) -> Outcome | None:
        """Record a fact with the outcome that it reports, if the run records. An urgent one is on disk on return.

        `postpone` takes the cancellations that come meanwhile, see `rh_agents.core._loops.postponed`.

        Returns:
            The outcome that counts, see `Journal.append`; None in a run that records nothing.
        """
        counts = None
        if fact.status is _FAILED or fact.status is _RETRYING:
            self.log.tell(fact)
        if self.records:
            counts = await self.recording.record(fact, outcome, is_urgent=is_urgent, postpone=postpone)
            if counts is not outcome:
                return counts
        self.history.add(fact)
        return counts

    async def take_over(
        self, entries: Sequence[tuple[Fact, Outcome | None]], places: Sequence[str], source: Mapping[str, Any]
    ) -> None:
        """Make entries of another journal entries of this one, at once or not at all, and wait until they are on disk.

        Args:
            entries: what another process has recorded of calls of this run.
            places: the parts of the run with a budget of their own that count what these have spent.
            source: of which journal they are, and up to where; see `ExecutionEvent.taken_over`.
        """
        taken: list[Fact] = []
        for number, (given, outcome) in enumerate(entries, 1):
            fact = given._replace(run_id=self.run_id)
            if places and (outcome is not None or fact.charge is not None):
                known = None if fact.charge is None else fact.charge.places
                fact = fact.with_more(charges={**dict.fromkeys(places, 0.0), **(known or {})})
            if number == len(entries):
                fact = fact.with_more(taken_over=source)
            is_new = outcome is not None and not self.recording.has_outcome(outcome.key)
            self.recording.note(fact, outcome if is_new else None)  # all of them go to disk together
            self.budgets.take_over(fact.charge, has_outcome=is_new)
            taken.append(fact if outcome is None else fact._replace(result=outcome.value))
        await self.recording.written()
        for fact in taken:
            self.history.add(fact)
            await self.publish(fact)

    async def recall(self, fact: Fact) -> None:
        """Let the history and the subscribers, but not the journal, have an outcome that was recorded before."""
        self.history.add(fact)
        await self.publish(fact)

    async def publish(self, fact: Fact) -> None:
        """Let those subscribers have it that want it, as an event."""
        if self.bus.wants(fact):
            await self.bus.publish(fact.event())

    @staticmethod
    def new_id() -> str:
        """An id for a group, or for a call, of a run that records nothing."""
        return uuid.uuid4().hex
