"""Runs: one execution of a workflow, with its identity, its store, its bus and its history."""

from __future__ import annotations

import asyncio
import functools
import random
import time
import uuid
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import Token
from datetime import datetime
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar, overload

from rh_agents.core._base.mistakes import AsyncBlock
from rh_agents.core._base.signatures import method_with_arguments_of
from rh_agents.core._base.tracebacks import trimmed
from rh_agents.core._limits.interruption import InterruptChecker
from rh_agents.core._limits.sampling import Sampler, while_it_is_there
from rh_agents.core._loops.blocked_loops import watched_loops
from rh_agents.core._loops.postponed import to_its_end
from rh_agents.core._replay.stops import stop_in
from rh_agents.core._run.cancellations import OwnTask
from rh_agents.core._run.frame import Frame, current_frame, leave, root_of
from rh_agents.core._run.parts import RunParts
from rh_agents.core._run.recording import Recording, make_owner
from rh_agents.core._run.tracing import RunTracing
from rh_agents.core._run.validation import Difference, ValidationJournal
from rh_agents.core.actors import BaseActor
from rh_agents.core.actors.code import codes_of
from rh_agents.core.bus import EventBus, EventStream, OnFull, Subscription
from rh_agents.core.calls import ActorCall, set_default_run
from rh_agents.core.errors import (
    BudgetExceeded,
    OptionError,
    RunAwaiting,
    RunStopped,
    StopRun,
    UsageError,
)
from rh_agents.core.history import HistorySet
from rh_agents.core.metrics import ActorMetrics, RunMetrics, html_of_run
from rh_agents.core.parallel import ParallelExecutionManager
from rh_agents.core.policies._checks import above_zero, number
from rh_agents.core.policies._options import named_run, one_of, takes_options
from rh_agents.core.policies.budget import Budget
from rh_agents.core.policies.child_runs import GROUP_HAS_ENDED
from rh_agents.core.ports import NOT_RESUMED, Clock, Executor, Journal, Question, Resumption, RunRequest, Store
from rh_agents.core.ports.executors import Executors, set_executors
from rh_agents.core.ports.keeping import StoreLike, StoreOf, named_store, opened_store
from rh_agents.core.ports.present import Presented
from rh_agents.core.ports.streaming import StreamingJournal, TextSink
from rh_agents.core.ports.tracing import TracingLike, opened_tracing
from rh_agents.core.questions import Answerer, Asking, EventCall, QuestionCall, SleepCall, Waiting
from rh_agents.core.redaction import without_secrets
from rh_agents.core.results import ExecutionResult, Outcome
from rh_agents.core.types import Durability, Engine, ExecutionStatus, OnUnknown, RecordInputs, ReplayMode
from rh_agents.core.usage import Spending
from rh_agents.core.values import is_large, keep_text
from rh_agents.core.values.inputs import kept_input

__all__ = [
    "ActorMetrics",
    "Difference",
    "EventBus",
    "EventStream",
    "ExecutionState",
    "HistorySet",
    "OnFull",
    "RunMetrics",
    "Subscription",
    "set_executors",
]

T = TypeVar("T")


class ExecutionState(AsyncBlock):
    """One run. `async with ExecutionState() as state:` makes it the current one, and ends it with the block.

    Args:
        store: where the run is recorded, so that starting it again under the same `run_id` repeats no finished call: a
            store, or a URL or path for `open_store`, which is then closed when the run ends. By default what the
            environment variable `RH_AGENTS_STORE` names, if it is set. None records nothing: see `history_limit`.
        run_id: the name of the run; by default a new one.
        event_bus: tells subscribers what happens; by default a bus of its own.
        tags: words by which people find the run.
        history_limit: how many of the newest events of this execution `history` keeps; None keeps all.
        strict: a call that no replay could tell from another one raises `UndefinedOrderError` instead of warning.
        retry_failed: what starting a run again that has *ended* does with its failed calls: True makes them again,
            False repeats their failures. (After a crash, recorded failures are always repeated.)
        durability: when the outcome of a call is on disk; by default before anybody gets it.
        replay_mode: what becomes of recorded outcomes; by default they are reused.
        resume_from: the address of a finished call that is to be made again, with all that depends on it.
        workflow: the name of what is executed, kept with the run; started again with another one, it is refused.
        input: its arguments; started again with other ones, the run is refused.
        reuse: go on all the same, and reuse what still fits.
        on_unknown: what to do with calls that a crash left unfinished, for actors that do not say.
        facts: anything else worth keeping about the run, for people and programs.
        record_inputs: what is recorded, for people, of what calls are called with: "brief" (256 bytes of a text like
            JSON, and 2 KiB of a call that failed), "full" or "none". Secrets are replaced; it is no part of any key.
            Actors may say something else by their own `record_inputs`.
        budget: how much the run may spend, what it spent in earlier executions included. When it does not suffice for
            another call, what is under way comes to its end, and `BudgetExceeded` is raised.
        lease: after this many seconds without a sign of life from this process, another one may take the run over.
        wait: wait in this process for times and events, however long; else the run is suspended meanwhile.
        clock: the time of day in seconds since 1970, for timestamps.
        chance: numbers in [0, 1), for the jitter of retries.
        executors: by the name of an engine, who runs handlers of actors with that `engine`: `{"ray": RayExecutor()}`.
        tracing: tells of the run while it goes on: `OTel()` of `rh_agents.telemetry.otel`, or "otel" for one that is
            set up from the environment. By default what `RH_AGENTS_TRACING` says, which may be nothing; False for none.
        actors: whose code is compared with what it was when results of them were recorded; `run` finds them itself.
        accept_changes: reuse results of code that has changed without a warning, now and later.
    """

    written: ClassVar[str] = "async with ExecutionState(...) as state"

    @takes_options("ExecutionState")
    def __init__(
        self,
        *,
        store: StoreLike | StoreOf | None = StoreOf.ENVIRONMENT,
        run_id: str | None = None,
        event_bus: EventBus | None = None,
        tags: Sequence[str] = (),
        history_limit: int | None = 10_000,
        strict: bool = False,
        retry_failed: bool = True,
        durability: Durability | str = Durability.SYNC,
        replay_mode: ReplayMode | str = ReplayMode.NORMAL,
        resume_from: str | None = None,
        workflow: str = "",
        input: Any = None,  # noqa: A002 - it is what everybody calls it
        reuse: bool = False,
        on_unknown: OnUnknown | str = OnUnknown.RETRY,
        facts: Mapping[str, str] | None = None,
        record_inputs: RecordInputs | str = RecordInputs.BRIEF,
        budget: Budget | None = None,
        lease: float = 15.0,
        wait: bool = False,
        clock: Clock = time.time,
        chance: Callable[[], float] = random.random,
        executors: Mapping[Engine, Executor] | Mapping[str, Executor] | None = None,
        tracing: TracingLike | None = None,
        actors: Iterable[BaseActor] | None = None,
        accept_changes: bool = False,
    ) -> None:
        self.run_id: str = uuid.uuid4().hex if run_id is None else named_run(run_id)
        opened = None if (named := named_store(store)) is None else opened_store(named)
        self.store: Store | None = opened
        self.event_bus: EventBus = event_bus or EventBus()
        self.tags: tuple[str, ...] = tuple(tags)
        self.history: HistorySet = HistorySet(history_limit)
        """The events of this execution; those of earlier ones are in the store."""
        self.status: ExecutionStatus = ExecutionStatus.PENDING
        self.replay_mode: ReplayMode = one_of(ReplayMode, "replay_mode", replay_mode)
        is_validation = self.replay_mode is ReplayMode.VALIDATION
        self.on_unknown: OnUnknown = one_of(OnUnknown, "on_unknown", on_unknown)
        keep_later = opened is not None and is_large(input)
        data, digest = (None, None) if opened is None or keep_later else kept_input(input)
        recording = Recording(
            opened,
            RunRequest(
                self.run_id,
                make_owner(),
                without_secrets(workflow),
                data,
                digest,
                tuple(map(without_secrets, self.tags)),
                {name: keep_text(text) for name, text in (facts or {}).items()},
                number("lease", lease, "seconds above 0 are needed", zero=False),
            ),
            one_of(Durability, "durability", durability),
            validation=ValidationJournal.read if is_validation else None,
            retry_failed=retry_failed,
            reuse=reuse,
            resume_from=resume_from,
            keep_input=functools.partial(kept_input, input) if keep_later else None,
            codes=None if actors is None else functools.partial(codes_of, actors),
            accepts_changes=accept_changes,
            is_strict=strict,
        )
        self.parts: RunParts = RunParts(
            self,
            self.run_id,
            opened,
            recording,
            bus=self.event_bus,
            history=self.history,
            budget=budget,
            executors=Executors(executors or {}),
            clock=clock,
            chance=chance,
            strict=strict,
            is_validation=is_validation,
            record_inputs=one_of(RecordInputs, "record_inputs", record_inputs),
            opened=self._opened,
        )
        """What calls and groups use of the run."""
        if (tracer := opened_tracing(tracing)) is not None:
            self.parts.tracing = RunTracing(self.parts, tracer, without_secrets(workflow))
        self._recording, self._interruption = recording, self.parts.interruption
        self._own_task = OwnTask()
        self._interruption.when_cut_off = self._own_task.cut_off
        self.parts.marks_attempts = self.on_unknown is not OnUnknown.RETRY
        self._asking = Asking(self.parts, self.on_unknown)
        self.parts.decide_unknown = self._asking.decide_unknown
        self._waiting = Waiting(self.parts, stays=wait)
        self._sampler: Sampler | None = None
        self._token: Token[Frame | None] | None = None
        self._is_closed = self._is_handed_on = False
        self._watched_in = 0
        self._owned_store: Store | None = None if opened is store else opened
        self.differences: list[Difference] = []
        """What a validation has found, once the run has ended."""

    def __repr__(self) -> str:
        return f"<ExecutionState {self.run_id} {self.status.value}>"

    def _repr_html_(self) -> str:
        """For notebooks: what the run came to so far, and the command that shows it."""
        place = getattr(self.store, "place", None)
        return html_of_run(self.run_id, self.status.value, self.metrics, self.spent, self.parts.seconds, place)

    @property
    def state_id(self) -> str:
        """Another name of `run_id`."""
        return self.run_id

    @property
    def epoch(self) -> int:
        """How often the run has been started again after it had ended."""
        return self._recording.epoch

    @property
    def journal(self) -> Journal | None:
        """The journal of the run while it is open; None without a store."""
        return self._recording.journal

    @property
    def metrics(self) -> RunMetrics:
        """What the run has done so far: calls by actor, and the groups that have ended."""
        return self.parts.counter.snapshot()

    @property
    def spent(self) -> Spending:
        """What the run has spent so far, in all its executions."""
        return self.parts.budgets.spent

    async def unused_outcomes(self) -> list[Outcome]:
        """Recorded outcomes of earlier executions that this one has not asked for (yet): the program has changed.

        What a call made whose own outcome was used is not among them.
        """
        return [outcome async for outcome in self._recording.unused()]

    @method_with_arguments_of(ParallelExecutionManager)
    def parallel(self, *args: Any, **options: Any) -> ParallelExecutionManager:
        """A group of calls that run side by side: `async with state.parallel(...) as p`.

        The arguments are those of `ParallelExecutionManager`.
        """
        return ParallelExecutionManager(self, *args, **options)

    # -- its life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read what is recorded, and become the owner of the run. Done by the first call, and by `async with`.

        Raises:
            RunIsLive: another process executes the run.
            RunMismatchError: the run was started with another workflow or input.
            StoreError: the store failed, now or before: nothing goes on after that.
            UsageError: it lives on another event loop, or the program is being imported by a worker process.
        """
        await self.parts.open()

    async def _opened(self) -> None:
        recording = self._recording
        self.status = ExecutionStatus.STARTED
        self.parts.budgets.open(recording.recorded.spent)
        if self.parts.tracing is not None:
            self.parts.tracing.open()
        await self.parts.steering.open()
        self._watch_seconds()
        self.parts.settings.when_seconds_change = self._watch_seconds
        self._sampler = sampler = Sampler(self.parts, self.run_id, lambda: len(self._asking.open))
        watched_loops.ask_now_and_then(sampler)
        if recording.journal is not None:
            stop = weakref.WeakMethod(self._stop_for_good)  # a run that nobody holds any more is not kept by its store
            recording.journal.when_stop_requested(lambda reason: _call(stop(), reason))
            if isinstance(recording.journal, Presented):
                recording.journal.present_with(while_it_is_there(sampler))
            if isinstance(recording.journal, StreamingJournal):
                recording.journal.stream_with(_taking_text(weakref.ref(self.parts)))
            if self.replay_mode is ReplayMode.REPUBLISH_ALL:
                await self._republish()

    def _watch_seconds(self) -> None:
        """Nothing new begins when the time of the run's budget is over, also where nothing would begin for long."""
        ledger = self.parts.budgets.of_run
        if ledger is None or ledger.budget.seconds is None:
            return
        left = ledger.budget.seconds - ledger.seconds
        if left > 0:
            self._interruption.after_working(left, self._expect_time)
        else:
            self._expect_time()

    def _expect_time(self) -> None:
        """Stop the run if its time is over. There may be more of it by now."""
        ledger = self.parts.budgets.of_run
        if ledger is None or ledger.budget.seconds is None or ledger.budget.seconds > ledger.seconds:
            return
        self._interruption.budget_spent(ledger.stop(f"seconds={ledger.budget.seconds:g}", "any"))

    async def _republish(self) -> None:
        """Publish the events of earlier executions to the subscribers of this one."""
        assert self.store is not None
        async for recorded in self.store.events(self.run_id):
            await self.event_bus.publish(recorded.event.model_copy(update={"is_replayed": True}))

    async def end(self, status: ExecutionStatus = ExecutionStatus.COMPLETED) -> None:
        """Record that the run has ended, unless it has, or is being stopped. Its bus delivers what waits, and closes.

        Raises:
            StoreError: the store failed, now or before.
        """
        stop = self._interruption.stop
        if stop is None:
            await self._close(status, None)
        elif self._interruption.is_final:
            await self._close(ExecutionStatus.CANCELLED, stop.reason)
        else:
            await self._close(ExecutionStatus.STARTED, stop.reason)

    async def _close(self, status: ExecutionStatus, reason: str | None, *, is_handed_on: bool = False) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        resumption = self._resumption(status, is_handed_on or self._is_handed_on)
        if status is not ExecutionStatus.AWAITING:
            self._asking.forget()
            self._waiting.forget()
        journal = self._recording.journal
        try:
            await self.parts.stop_others(status)
        finally:
            try:
                await to_its_end(self._let_go(status, reason, resumption))
            finally:
                self.parts.log.close()
                if self.parts.tracing is not None:
                    self.parts.tracing.leave(self.status.value, reason)
                if isinstance(journal, ValidationJournal):
                    self.differences.extend(journal.differences)
                await self.event_bus.aclose()
                await self._close_store()

    async def _let_go(self, status: ExecutionStatus, reason: str | None, resumption: Resumption) -> None:
        await self._recording.close(status, reason, resumption)
        self.status = ExecutionStatus.CANCELLED if status is ExecutionStatus.STARTED else status
        self.parts.ended_at = self.parts.now()

    def _resumption(self, status: ExecutionStatus, is_handed_on: bool) -> Resumption:
        """When a worker takes the run up again, if it is in a queue.

        One that its program, its budget or a person has stopped waits for someone to say so.
        """
        if status is ExecutionStatus.AWAITING:
            waits = self._waiting.open
            due_at = min((each.due_at for each in waits if each.due_at is not None), default=None)
            events = tuple(each.event for each in waits if each.event is not None)
            return Resumption(due_at, tuple(question.id for question in self._asking.open), events)
        return Resumption(self.parts.now()) if is_handed_on else NOT_RESUMED

    async def _close_store(self) -> None:
        """Close the store if it was opened here."""
        owned, self._owned_store = self._owned_store, None
        if owned is not None:
            await owned.aclose()

    async def __aenter__(self) -> Self:
        if self._token is not None:
            raise UsageError(f"run {self.run_id} is under way: a run is entered once")
        try:
            await self.open()
        except BaseException as error:
            if not self.parts.is_destroyed_by(error):
                await self._interruption.aclose()
                await self._close_store()
            trimmed(error)
            raise
        around, root = current_frame.get(), root_of(self.parts)
        if around is not None and around.run.home is self.parts.home:
            root.permits = around.permits  # who executes a run within a call holds no slot while it waits for its calls
        self._token = current_frame.set(root)
        if self.parts.tracing is not None:
            self.parts.tracing.enter()
        self._watched_in = watched_loops.add()
        root.owner = self._own_task.enter()
        if self._interruption.is_cut_off:
            asyncio.get_running_loop().call_soon(self._own_task.cut_off)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            watched_loops.remove(self._watched_in)
            leave(self._token)
            root_of(self.parts).permits = None
            self._token = None
        if self.parts.is_destroyed_by(error):
            return
        if self.parts.tracing is not None:
            self.parts.tracing.ends_with(error)
        was_cut_off = self._own_task.leave(error)
        stop = stop_in(error)
        if stop is None and was_cut_off and isinstance(error, asyncio.CancelledError):
            stop = self._interruption.stop
        if stop is None and (error is None or isinstance(error, Exception)):
            stop = root_of(self.parts).stop  # the program has hidden it
        if stop is not None:
            await self._stopped(stop)
        elif error is None:
            await self._close(ExecutionStatus.COMPLETED, None)
        elif isinstance(error, Exception):
            await self._close(ExecutionStatus.FAILED, None)
        else:  # Ctrl-C or a shutdown: the run has not ended, and goes on when it is started again
            await self._close(ExecutionStatus.STARTED, "the process was asked to end", is_handed_on=True)

    async def _stopped(self, stop: StopRun) -> None:
        """Record that the run waits, or was cancelled, and say so to whoever executes it."""
        try:
            await self._interruption.under_way.wait(self._interruption)
        except asyncio.CancelledError:
            await self._close(ExecutionStatus.STARTED, stop.reason, is_handed_on=True)
            raise
        status = ExecutionStatus.STARTED
        if self._interruption.is_final:
            status = ExecutionStatus.CANCELLED
        elif self._interruption.stop is None and stop.questions:
            status = ExecutionStatus.AWAITING
        await self._close(status, stop.reason)
        raise self._error_of(stop, status) from None

    def _error_of(self, stop: StopRun, status: ExecutionStatus) -> RunStopped:
        """What the process that executes the run gets when it was stopped."""
        about: dict[str, Any] = {"run_id": self.run_id, "reason": stop.reason}
        if status is ExecutionStatus.AWAITING:
            questions = [question for question in self._asking.open if question.id in stop.questions]
            texts = [f"{question.id}: {question.text}" for question in questions]
            counted = f"waits for {len(questions)} answer{'s' * (len(questions) != 1)}"
            waits = [each.text for each in self._waiting.open]
            what = "; ".join([f"{counted}: {'; '.join(texts)}"] * bool(texts) + waits)
            named = [question.id for question in questions]
            return RunAwaiting(
                f"run {self.run_id!r} {what}" if texts else f"run {self.run_id!r}: {what}", questions=named, **about
            )
        message, shortfall = f"run {self.run_id!r} was stopped: {stop.reason}", stop.shortfall
        if shortfall is None or status is ExecutionStatus.CANCELLED:
            return RunStopped(message, **about)
        spent = shortfall.spent.copy()
        return BudgetExceeded(message, spent=spent, field=shortfall.field, part=shortfall.name, **about)

    # -- stopping it --------------------------------------------------------------------------------------------------

    def request_interrupt(self, reason: str = "interrupted", *, grace: float = 30.0, hand_on: bool = False) -> None:
        """Stop the run: no new call begins, those under way have `grace` seconds to end, then they are cancelled.

        What executes the run gets `RunStopped`. Started again under the same name, the run resumes where it was. May be
        called from any thread. With `hand_on`, the next worker takes it up if it was submitted to a queue; else it
        waits until `rh-agents requeue` or `resume` says so.
        """
        self._is_handed_on = self._is_handed_on or hand_on
        self._call_here(functools.partial(self._interruption.request, reason, grace))

    def set_interrupt_checker(self, checker: InterruptChecker, *, grace: float = 30.0) -> None:
        """Let `checker` tell when to stop: a coroutine function that returns a reason when it is time, and is awaited

        beside the run; or a plain function that is asked before each call, and gives a reason or nothing.
        """
        self._interruption.check_with(checker, lambda reason: self.request_interrupt(reason, grace=grace))

    def set_timeout(self, seconds: float, *, grace: float = 30.0) -> None:
        """Stop the run after this many seconds from now, as `request_interrupt` does."""
        reason = f"it took longer than its timeout of {above_zero(seconds):g} s"
        self._interruption.after_working(seconds, lambda: self.request_interrupt(reason, grace=grace))

    @property
    def is_interrupted(self) -> bool:
        """Whether the run is being stopped."""
        return self._interruption.stop is not None

    def _stop_for_good(self, reason: str) -> None:
        grace = 0.0 if reason == GROUP_HAS_ENDED else 30.0  # nobody wants what a shard of such a group is doing
        self._call_here(functools.partial(self._interruption.request, reason, grace, is_final=True))

    def _call_here(self, function: Callable[[], None]) -> None:
        """Call a function on the event loop of the run, from any thread. If that is closed, the run is over."""
        if self.parts.home is None:
            function()
        else:
            self.parts.home.call(function)

    # -- asking people ------------------------------------------------------------------------------------------------

    @overload
    async def ask(self, text: str, schema: type[T], *, key: str | None = None) -> T: ...
    @overload
    async def ask(self, text: str, schema: None = None, *, key: str | None = None) -> Any: ...
    async def ask(self, text: str, schema: Any = None, *, key: str | None = None) -> Any:
        """Ask a person, and wait for the answer.

        If no one is there (see `set_answerer`), this branch of the program ends here for now: the others go on as far
        as they can, then the run is suspended and `RunAwaiting` is raised; the process may end. Once it has been
        answered (`rh-agents answer`, or `store.answer`), starting the run again goes on behind the question.

        Args:
            text: the question.
            schema: the type of the answer, anything that Pydantic knows; an answer that does not fit opens the question
                again. None takes any JSON.
            key: tells apart questions of the same text in one place, which are otherwise numbered.
        """
        return await QuestionCall(text, schema, self.parts, self._asking, key)

    async def sleep(self, seconds: float, *, name: str = "sleep") -> None:
        """Wait, durably: from the first time that the program comes here, also if it is started again meanwhile.

        A run that has nothing else to do is suspended (`RunAwaiting`), and occupies no process; a worker takes it up
        in time if it was submitted, or starting it again does. Up to a second is waited for in the process, and
        however long with `ExecutionState(wait=True)` or without a store.

        Args:
            seconds: for how long. With another number it is still the same wait.
            name: tells apart waits in one place, which are otherwise numbered.
        """
        await SleepCall(lambda now: now + above_zero(seconds), name, self.parts, self._waiting)

    async def sleep_until(self, when: datetime | float, *, name: str = "sleep") -> None:
        """The same until a time: a datetime, or seconds since 1970."""
        due_at = when.timestamp() if isinstance(when, datetime) else float(when)
        await SleepCall(lambda _: due_at, name, self.parts, self._waiting)

    async def wait_for_event(self, event: str, schema: Any = None, *, timeout: float | None = None) -> Any:
        """Wait for a signal (`rh-agents signal RUN EVENT VALUE`, `store.control(run_id).signal(event, value)`).

        One that has come before is kept for this; each is delivered once, to one wait, in the order in which they came.
        The run is suspended meanwhile as by `sleep`.

        Args:
            event: for which.
            schema: the type of its value, anything that Pydantic knows; a signal that does not fit is refused. None
                takes any JSON.
            timeout: seconds from the first time that the program comes here.

        Raises:
            CallTimeout: there was none in time.
            UsageError: the run has no store whose runs take signals.
        """
        return await EventCall(event, schema, timeout, self.parts, self._waiting)

    def set_answerer(self, answerer: Answerer | None) -> None:
        """Await `answerer` with each `Question`: it gives the answer, or None. `OptionError`: it cannot be called."""
        if answerer is not None and not callable(answerer):
            raise OptionError(f"answerer={answerer!r}: an `async def` is needed that takes a Question")
        self._asking.answerer = answerer

    @property
    def questions(self) -> list[Question]:
        """What has been asked in this execution and not been answered."""
        return self._asking.open

    def start(
        self, actor: BaseActor, input_data: Any, extra_context: Any, marks: Mapping[str, Any] | None = None
    ) -> Awaitable[ExecutionResult[Any]]:
        """A call of the actor that starts when it is awaited."""
        return ActorCall(actor, input_data, extra_context, self.parts, marks)


def _call(function: Callable[[str], None] | None, reason: str) -> None:
    if function is not None:
        function(reason)


def _taking_text(parts: weakref.ref[RunParts]) -> Callable[[TextSink | None], None]:
    """Lets the calls of a run know who takes their text; a run that no one holds any more is not kept by its store."""

    def changed(sink: TextSink | None) -> None:
        if (found := parts()) is not None:
            found.text_sink = sink

    return changed


set_default_run(lambda: ExecutionState(store=None, history_limit=0).parts)
