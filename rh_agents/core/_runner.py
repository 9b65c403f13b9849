"""One call from its start to its outcome: replay, attempts, timeout, breaker, and the events that tell of it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from rh_agents.core._breaking import attempt_under
from rh_agents.core._cut_off import cancellations, is_cut_off
from rh_agents.core._exits import FAILURES, failure_of
from rh_agents.core._foreign import without_our_frames
from rh_agents.core._gate import Passage
from rh_agents.core._ledger import Ledger, Reservation, check_nesting, reserve
from rh_agents.core._lost import after_loss
from rh_agents.core._postponed import Postponed, until_it_is_done
from rh_agents.core._unstarted import forgotten_await, is_unstarted
from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import (
    CallCancelled,
    CallTimeout,
    StopRun,
    StoreError,
    UnknownOutcomeError,
    UnstorableError,
    UsageError,
    WorkerLost,
)
from rh_agents.core.events import ExecutionEvent, call_event
from rh_agents.core.keys import idempotency_key
from rh_agents.core.policies._checks import Failure
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.limits import Advice, Limit, need_of
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.ports import RunHandle
from rh_agents.core.redaction import without_secrets
from rh_agents.core.replay import spender_of
from rh_agents.core.results import ExecutionResult, Outcome, describe_error, failure, success
from rh_agents.core.scope import Scope, current_scope, every_generation
from rh_agents.core.types import EventType, ExecutionStatus, OnUnknown
from rh_agents.core.usage import Usage

__all__ = ["Job", "recover_nowait", "run_job"]


class Job:
    """All that is needed to execute one call, whoever makes it.

    `begin` starts an attempt. `result` is there as soon as the outcome is, even if the task that executes the job is
    cancelled while it tells others of it: what has been paid for is not lost.
    """

    # Set only where they matter: thousands of jobs are made a second.
    check: Callable[[], Awaitable[None]] | None = None
    retry: RetryPolicy | None = None
    timeout: float | None = None
    breaker: CircuitBreaker | None = None
    group_id: str | None = None
    index: int | None = None
    total: Callable[[], int | None] | None = None
    is_recorded: bool = False
    """Whether its outcome is there already, so that nothing is called."""
    is_dismissed: bool = False
    """Whether its group has no more use for it. Its cancellation is then an outcome; that of a shutdown is none."""
    is_cancelled: bool = False
    """Whether its group has cancelled it, for whatever reason."""
    is_announced: bool = False
    """Whether events have told of its start."""
    may_be_done: bool = False
    """Whether it had begun before, in a try that was cut off, and nothing tells whether it was done then."""
    is_refused: bool = False
    """Whether it may have been done and is therefore not made: by no other attempt of its caller in this epoch."""
    has_settled: bool = False
    """Whether its outcome is on its way to the store, or there: nothing that comes later is its outcome."""
    postponed: Postponed | None = None
    """The cancellations that came when it had finished."""
    settled: Callable[[Job], None] | None = None
    """Told as soon as its outcome counts, in the order of the journal, before subscribers hear of it."""
    attempts: int = 0
    has_begun: bool = False
    ended_at: float | None = None
    result: ExecutionResult[Any] | None = None
    limits: tuple[Limit, ...] = ()
    estimate: Callable[[], Usage | None] | None = None
    """Tells what it will use at most."""
    cached_as: bytes | None = None
    """What it has in common with all calls whose result it may share."""
    formerly_cached_as: tuple[bytes, ...] = ()
    """The same in caches that earlier versions filled."""
    usage: Usage | None = None
    """What it has used so far."""
    told_usage: Usage | None = None
    """What of that has been recorded."""
    cleanup_problem: str = ""
    """What its cleanup raised when it was cancelled from outside: it has no outcome that could say so."""
    passage: Passage | None = None
    reservation: Reservation | None = None
    lost: int = 0
    """How many workers it has lost, in all executions of the run."""
    is_unknown: bool = False
    """Whether it has lost its worker, and nobody has decided yet what becomes of it."""
    has_asked_again: bool = False
    """Whether it has asked a model once more, because an answer could not be read."""
    time_limit: asyncio.Timeout | None = None
    """What ends the attempt under way when its time is over."""
    waited: float = 0.0
    """The seconds for which it has waited because a server that it asks wanted that."""
    falls_back_on: Sequence[Failure] = ()
    """On which failures of the server that is asked now another one is asked, so that it is not waited for."""
    pieces_told: int = 0
    """How many pieces of answers subscribers were told."""
    has_waited_enough: bool = False
    """Whether the server has asked for more than it waits: then another attempt would only be refused as well."""
    pieces_of: Callable[[Any], Sequence[Any]] | None = None
    """Tells what subscribers get of a value that is there already, in place of the pieces in which it once came."""
    marks: Mapping[str, Any] | None = None
    """Fields that all of its events have: its tag, and what else its caller wants to be kept with it."""

    def __init__(
        self,
        run: RunHandle,
        actor: BaseActor,
        name: str,
        scope: Scope,
        parent: Scope,
        begin: Callable[[], Awaitable[Any]],
        key: bytes | None,
    ) -> None:
        self.run: RunHandle = run
        self.actor: BaseActor = actor
        self.name: str = name
        self.scope: Scope = scope
        self.parent: Scope = parent
        self.begin: Callable[[], Awaitable[Any]] = begin
        self.key: bytes | None = key
        self.is_told: bool = run.records or actor.event_type is not EventType.FUNCTION_CALL or run.is_observed
        """Whether there are events about it. Plain functions in an unobserved run go without, because they are many."""
        scope.enter(parent, actor.name if actor.event_type is EventType.AGENT_CALL else None)

    def add_usage(self, usage: Usage) -> None:
        """The call has used something."""
        usage = self.actor.priced(usage)
        self.usage = usage if self.usage is None else self.usage + usage
        self.run.spent.add(spender_of(self.actor, self.name), usage)
        if self.reservation is not None:
            self.reservation.spend(usage)

    def spent_facts(self) -> dict[str, Any]:
        """What an event says about what was spent since the last one that did."""
        facts: dict[str, Any] = {}
        if self.usage is not None:
            facts["usage"] = self.usage if self.told_usage is None else self.usage - self.told_usage
            self.told_usage = self.usage
        ledgers = self.scope.ledgers
        if ledgers and self.run.records:
            now = asyncio.get_running_loop().time()
            charges = {
                ledger.place: ledger.charge(now)
                for ledger in ledgers
                if ledger.place or ledger.budget.seconds is not None
            }
            if charges:
                facts["charges"] = charges
        return facts

    def heed(self, advice: Advice) -> None:
        """A provider has said something about its limits."""
        if self.passage is not None:
            self.passage.heed(advice)

    async def tell_progress(self, progress: Any) -> None:
        """Let subscribers know how the call gets on."""
        self.pieces_told += 1
        await self.run.publish(self.event(ExecutionStatus.PROGRESS, {"progress": progress, "attempt": self.attempts}))

    async def tell_waiting(self, why: str, seconds: float | None) -> None:
        """Let subscribers know that the call waits for a limiter, or (0.0 seconds) that it need not wait any more."""
        if self.run.is_observed:
            facts = {"message": why, "retry_delay": seconds, "attempt": self.attempts}
            await self.run.publish(self.event(ExecutionStatus.WAITING, facts))

    async def admit_again(self, estimate: Usage) -> None:
        """Wait until another request may be made within the same attempt.

        Raises:
            StopRun: the run is being stopped, or its budget does not suffice.
        """
        self.run.expect_running()
        if self.reservation is not None:
            await self.reservation.renew(self.run, estimate)
        if self.passage is not None:
            await self.passage.enter_again(need_of(self.usage), need_of(estimate))

    async def reserve(self, counted: Sequence[Ledger]) -> None:
        """Take what it may use out of all its budgets; `counted` are those that count the call itself.

        Raises:
            StopRun: a budget does not suffice.
        """
        need = None if self.estimate is None else self.estimate()
        name = spender_of(self.actor, self.name)
        self.reservation = await reserve(self.run, self.scope.ledgers, counted, name, need, self._callers())

    def _callers(self) -> list[Reservation]:
        """What is reserved for the calls around it."""
        found = []
        job = self.parent.job
        while job is not None:
            if job.reservation is not None:
                found.append(job.reservation)
            job = job.parent.job
        return found

    def settle(self) -> None:
        """The call has ended, or was cut off."""
        if self.reservation is not None:
            self.reservation.release(has_outcome=self.result is not None)
            self.reservation = None

    def let_go(self) -> None:
        """It has ended, and whoever made it has its result.

        From a function of the program that failed, its error leads to the frames that awaited it, and these hold the
        job. What it held of the result and of its group would hold the error, until the garbage collector comes.
        """
        self.result = self.settled = self.total = None

    @property
    def is_settling(self) -> bool:
        """Whether its outcome is on its way to the store, so that it must not be told to end now."""
        return self.has_settled and self.result is None

    @property
    def is_simple(self) -> bool:
        """Whether it is just one attempt with nothing around it, which most members are."""
        return (
            self.retry is None
            and self.timeout is None
            and self.breaker is None
            and self.check is None
            and not self.limits
            and not self.actor.may_lose_workers
        )

    def event(self, status: ExecutionStatus, facts: Mapping[str, Any] | None = None) -> ExecutionEvent[Any]:
        """An event of the call as it stands."""
        run = self.run
        if self.marks is not None:
            facts = {**self.marks, **(facts or {})}
        return call_event(
            self.actor,
            self.name,
            status,
            run.run_id,
            self.scope.address,
            None if self.key is None else self.key.hex(),
            run.now(),
            self.group_id,
            self.index,
            None if self.total is None else self.total(),
            facts,
        )

    async def tell(self, status: ExecutionStatus, *, is_urgent: bool = False, **facts: Any) -> None:
        """Record an event of the call, an urgent one on disk before anything else happens, and tell the subscribers."""
        run = self.run
        event = self.event(status, facts)
        await run.record(event, is_urgent=is_urgent)
        if run.is_observed:
            await run.publish(event)


async def run_job(job: Job) -> ExecutionResult[Any]:
    """Execute a call and return its result, which holds the failure if it failed.

    Raises:
        asyncio.CancelledError: the task was cancelled. `job.result` tells whether there is an outcome all the same.
        StoreError: the outcome could not be recorded.
    """
    scope = job.scope
    scope.job = job
    current_scope.set(scope)
    begun = job.run.begun
    begun.calls += 1
    if job.group_id is not None or job.parent.job is None:
        begun.outermost += 1
    try:
        return await _run(job, scope)
    finally:
        scope.job = None  # they would hold each other
        if job.reservation is not None:
            job.settle()


async def _run(job: Job, scope: Scope) -> ExecutionResult[Any]:
    run = job.run
    if run.records:
        if job.is_recorded:
            return await _with_its_result(job, _recover(job))
        scope.owner = asyncio.current_task()
    run.expect_running()
    if job.parent.stop is not None:
        job.parent.expect_no_stop(asyncio.current_task())
    clock = asyncio.get_running_loop().time
    started = clock()
    run.call_began()
    try:
        return await _with_its_result(job, _make_or_refuse(job, scope))
    except asyncio.CancelledError:
        if job.is_told and not job.has_settled and (job.is_announced or job.is_dismissed):
            await _tell_cancelled(job, clock() - started)
        raise
    finally:
        run.call_ended()


async def _with_its_result(job: Job, steps: Coroutine[Any, Any, ExecutionResult[Any]]) -> ExecutionResult[Any]:
    """The result of a call. What cancels it when that is recorded, arrives when the caller has it."""
    try:
        result = await steps
    except asyncio.CancelledError as error:
        if job.result is None:
            raise
        if job.postponed is None:
            job.postponed = Postponed()
        job.postponed.add(error)
        result = job.result
    if job.postponed is not None:
        job.postponed.deliver_soon()
    return result


async def _make_or_refuse(job: Job, scope: Scope) -> ExecutionResult[Any]:
    """The result of a call that has none yet."""
    run = job.run
    if job.key is not None:
        since = run.unknown_since(job.key, scope.key, scope.tries if job.actor.marks_attempts else 0)
        job.may_be_done = since is not None
        if since is not None or run.is_validation:
            refusal = await _refusal(job, since)
            if refusal is not None:
                return await _settle(job, refusal)
    check_nesting(run, scope, job.actor.name, job.actor.event_type is EventType.AGENT_CALL)
    if job.cached_as is None:
        return await _make(job)
    return await run.cached(job, job.cached_as, lambda: _make(job), lambda value: _from_cache(job, value))


async def _from_cache(job: Job, value: Any) -> ExecutionResult[Any]:
    """The result of a call that need not be made, since an equal one was."""
    result = success(value, 0.0, 0, job.name, job.index, job.scope.address)
    await _tell_in_pieces(job, value)
    return await _settle(job, result.model_copy(update={"from_cache": True}))


async def _make(job: Job) -> ExecutionResult[Any]:
    """Call what is to be called: nobody has a result for it."""
    run, scope, budget = job.run, job.scope, job.actor.budget
    outer = scope.ledgers
    if budget is None:
        if outer:
            await job.reserve(outer)
        return await _begin(job)
    own = run.open_ledger(budget, scope.key.hex(), scope.address or job.name, scope.depth)
    scope.ledgers = (*outer, own)
    try:
        await job.reserve(outer)
        return await _begin(job)
    finally:
        own.close(asyncio.get_running_loop().time())


async def _begin(job: Job) -> ExecutionResult[Any]:
    run = job.run
    if job.is_told:
        event = job.event(ExecutionStatus.STARTED)
        if job.actor.is_external:
            await run.record(event, is_urgent=True)
        else:
            run.note(event)
        if run.is_observed:
            await run.publish(event)
        job.is_announced = True
    return await _execute(job)


async def _refusal(job: Job, since: int | None) -> ExecutionResult[Any] | None:
    """The failure of a call that must not be made: it may have been done, or a validation may have no effect."""
    run, actor = job.run, job.actor
    if since is not None and await run.decide_unknown(actor, job.scope.address, since) is not OnUnknown.RETRY:
        job.is_refused = True
        return _unknown(job)
    if run.is_validation and actor.is_external and actor.event_type is not EventType.QUESTION:
        return _not_made(job)
    return None


async def _execute(job: Job) -> ExecutionResult[Any]:
    """Make the attempts, and let what comes of them be the result."""
    told, scope = job.is_told, job.scope
    clock = asyncio.get_running_loop().time
    started = clock()
    before = cancellations()
    try:
        if job.is_simple:
            job.attempts = 1
            job.has_begun = True
            scope.begin_attempt(1)
            value = await job.begin()
        else:
            value = await _attempt_until_done(job, clock, told)
    except StopRun as stop:
        if told:
            await _tell_stopped(job, stop)
        raise
    except StoreError:
        raise
    except FAILURES as raised:
        if not job.is_dismissed and is_cut_off(job, raised, before):
            raise _cut_off(job, failure_of(raised)) from raised
        if not job.is_dismissed and scope.stop is not None:
            raise await _hidden_stop(job, scope.stop) from raised
        job.result = _failed(job, failure_of(raised), started)
    except BaseExceptionGroup as raised:  # of several tasks, see `rh_agents.core._stops`
        if scope.stop is None:
            raise
        raise await _hidden_stop(job, scope.stop) from raised
    else:
        if scope.stop is not None:
            raise await _hidden_stop(job, scope.stop)
        job.result = _succeeded(job, value, started)
    return await _conclude(job)


async def _hidden_stop(job: Job, stop: StopRun) -> StopRun:
    """Why a call cannot go on, though its body has come to a value or an error all the same."""
    if job.is_told:
        await _tell_stopped(job, stop)
    return stop | stop


# The frames from here up to the caller may not hold the result or its error when they have ended, see `Job.let_go`.


def _succeeded(job: Job, value: Any, started: float) -> ExecutionResult[Any]:
    if is_unstarted(value):
        return _failed(job, forgotten_await(job.name or job.actor.name, value), started)
    return success(value, _took(job, started), job.attempts, job.name, job.index, job.scope.address)


def _failed(job: Job, error: Exception, started: float) -> ExecutionResult[Any]:
    seconds = _took(job, started)
    return failure(without_our_frames(error), seconds, job.attempts, job.name, job.index, job.scope.address)


def _cut_off(job: Job, error: Exception) -> asyncio.CancelledError:
    """Its cleanup failed, or it translates errors: what was cut off from outside has no outcome all the same."""
    job.cleanup_problem = describe_error(without_our_frames(error))
    return asyncio.CancelledError(job.cleanup_problem)


def _took(job: Job, started: float) -> float:
    job.ended_at = asyncio.get_running_loop().time()
    job.run.spent.calls += 1
    return job.ended_at - started


async def _conclude(job: Job) -> ExecutionResult[Any]:
    """Record what came of the attempts, if anybody is told of it."""
    result, job.result = job.result, None
    assert result is not None
    if job.is_told:
        return await _settle(job, result)
    job.result = result
    return result


async def _tell_cancelled(job: Job, seconds: float) -> None:
    """The call was cancelled. If its group did that, the program goes on from there, so it is an outcome.

    It says whether the function was called at all: what was, may have had its effect, and is not repeated in silence.
    """
    attempts = max(job.attempts, int(job.may_be_done))
    message = None if attempts else "never called"
    if job.cleanup_problem:
        message = f"its cleanup failed: {job.cleanup_problem}"
    facts = {"attempt": attempts, "execution_time": seconds, "message": message, **job.spent_facts()}
    event = job.event(ExecutionStatus.CANCELLED, facts)
    outcome = None
    if job.is_dismissed and job.key is not None:
        text = f"{job.name or 'the call'} was cancelled when its group had no more use for it"
        cancelled = CallCancelled(text if message is None else f"{text}: {message}")
        outcome = _outcome(job, job.key, failure(cancelled, seconds, attempts, job.name, job.index, ""))
    await job.run.record(event, outcome)
    if job.run.is_observed:
        await job.run.publish(event)


async def _tell_stopped(job: Job, stop: StopRun) -> None:
    """The call cannot go on for now. A question has said itself that it waits."""
    if job.actor.event_type is EventType.QUESTION:
        return
    # What had an effect and was left in its middle is not known to wait, unless it waits for an answer.
    waits = not job.actor.is_external or bool(stop.questions)
    status = ExecutionStatus.AWAITING if waits else ExecutionStatus.CANCELLED
    lost = job.lost if job.is_unknown else 0
    await job.tell(status, attempt=job.attempts, message=stop.reason, lost=lost, **job.spent_facts())


def _unknown(job: Job) -> ExecutionResult[Any]:
    """The result of a call that had begun before and was cut off, and that must not be made again."""
    error = UnknownOutcomeError(
        f"{job.scope.address or job.name} had begun when an earlier execution of it was cut off, and nothing tells "
        f"whether it was done; its idempotency key is {idempotency_key(job.run.run_id, job.scope.key)}"
    )
    return failure(error, 0.0, 0, job.name, job.index, job.scope.address)


def _not_made(job: Job) -> ExecutionResult[Any]:
    """The result of a new call with an external effect in a validation."""
    error = UsageError(f"{job.name or job.actor.name} has an external effect, so a validation does not call it")
    return failure(error, 0.0, 0, job.name, job.index, job.scope.address)


async def _settle(job: Job, result: ExecutionResult[Any]) -> ExecutionResult[Any]:
    """Record the outcome and tell of it. If another execution recorded one first, that one counts."""
    status = ExecutionStatus.COMPLETED if result.ok else ExecutionStatus.FAILED
    event = job.event(
        status,
        {
            "attempt": job.attempts,
            "execution_time": result.execution_time,
            "result": result.result,
            "message": result.error_message,
            "from_cache": result.from_cache,
            **({} if result.from_cache else job.spent_facts()),
        },
    )
    outcome = None if job.key is None else _outcome(job, job.key, result)
    job.has_settled = True
    if outcome is not None and job.postponed is None:
        job.postponed = Postponed()
    if job.settled is not None and cancellations():
        await _absorb_cancellation()  # of a group that waits for this very outcome
    try:
        counts = await job.run.record(event, outcome, postponed=job.postponed)
    except UnstorableError as error:
        if not result.ok:
            raise
        error = UnstorableError(f"{job.name or job.actor.name} returned what no store can keep: {error}")
        seconds = result.execution_time
        return await _settle(job, failure(error, seconds, job.attempts, job.name, job.index, job.scope.address))
    is_new = counts is outcome or counts is None
    if counts is not None and not is_new:
        result = counts.as_result(job.index, job.scope.address)
    job.result = result  # not before it is recorded: what is given to anybody is not called again
    if job.settled is not None:
        job.settled(job)
    if is_new and job.run.is_observed:
        await job.run.publish(event)
    return result


def _outcome(job: Job, key: bytes, result: ExecutionResult[Any]) -> Outcome:
    scope, parent, error = job.scope, job.parent, result.error
    return Outcome(
        key,
        without_secrets(job.name),
        scope.address,
        result.result,
        error if isinstance(error, Exception) else None,
        result.execution_time or 0.0,
        job.attempts,
        job.group_id,
        base=scope.key,
        parent=parent.key,
        made_in=every_generation(parent.run.epoch) if job.is_refused else parent.generation,
        usage=job.usage,
    )


def recover_nowait(job: Job) -> bool:
    """Give a job its recorded result without a task, if nobody has to be waited for; False if somebody has to."""
    run = job.run
    if not run.recalls_nowait or job.key is None:
        return False
    outcome = run.load_nowait(job.key)
    if outcome is None:
        return False
    run.recall_nowait(_recovered(job, outcome))
    return True


async def _recover(job: Job) -> ExecutionResult[Any]:
    """Return what an earlier execution recorded, without calling anything."""
    assert job.key is not None
    try:
        outcome = await job.run.load(job.key)
    except asyncio.CancelledError as error:  # the program had its result: it gets it again
        job.postponed = Postponed()
        job.postponed.add(error)
        outcome = await until_it_is_done(job.run.load(job.key), job.postponed)
    event = _recovered(job, outcome)
    try:
        if outcome.error is None:
            await _tell_in_pieces(job, outcome.value)
    finally:
        await job.run.recall(event)
    assert job.result is not None
    return job.result


async def _tell_in_pieces(job: Job, value: Any) -> None:
    """Let those who listen to pieces have what the call returned before."""
    if job.pieces_of is not None and job.run.is_observed:
        for piece in job.pieces_of(value):
            await job.run.publish(job.event(ExecutionStatus.PROGRESS, {"progress": piece, "is_replayed": True}))


def _recovered(job: Job, outcome: Outcome) -> ExecutionEvent[Any]:
    """Give a job its recorded result; returns the event that tells of it."""
    job.result = outcome.as_result(job.index, job.scope.address)
    return job.event(
        ExecutionStatus.RECOVERED,
        {
            "attempt": outcome.attempts,
            "execution_time": outcome.seconds,
            "result": outcome.value,
            "message": job.result.error_message,
            "is_replayed": True,
            "from_cache": True,
            "usage": outcome.usage,
        },
    )


async def _attempt_until_done(job: Job, clock: Callable[[], float], told: bool) -> Any:
    """The value of the first attempt that succeeds; raises the error of the last one."""
    if job.check is not None:
        await job.check()
    if job.key is not None:
        job.attempts = job.run.attempts_before(job.key)
        job.lost = job.run.lost_before(job.key)
    before = cancellations()
    while True:
        try:
            return await _attempt(job)
        except StoreError:
            raise
        except Exception as error:
            delay, lost = None, 0
            if job.scope.stop is None and not is_cut_off(job, error, before):
                if isinstance(error, WorkerLost) and error.has_begun:
                    delay = await after_loss(job, error)
                    lost = job.lost
                elif job.retry is not None and not job.has_waited_enough:
                    delay = job.retry.delay_after(job.attempts, error, job.run.chance())
            if delay is None:
                raise
            message = describe_error(error)
        if told:
            facts = {"attempt": job.attempts, "retry_delay": delay, "message": message, **job.spent_facts()}
            await job.tell(ExecutionStatus.RETRYING, is_urgent=lost > 0, lost=lost, **facts)
        await job.run.sleep(delay)


async def _absorb_cancellation() -> None:
    """Let a cancellation arrive that was on its way when the call returned, before the outcome is being recorded."""
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        return


async def _attempt(job: Job) -> Any:
    """One attempt, when the limits let it pass."""
    if job.attempts and job.reservation is not None:
        await job.reservation.renew(job.run, None if job.estimate is None else job.estimate())
    if not job.limits:
        return await _guarded(job)
    passage = job.passage = Passage(job.run, job.limits, job.tell_waiting)
    await passage.enter(need_of(None if job.estimate is None else job.estimate()))
    before = job.usage
    error: BaseException | None = None
    try:
        return await _guarded(job)
    except BaseException as caught:
        error = caught
        raise
    finally:
        job.passage = None
        used = job.usage if before is None or job.usage is None else job.usage - before
        try:
            await passage.leave(None if used is None else need_of(used), error)
        finally:
            error = None  # by its traceback, which holds this frame, it would hold itself


async def _guarded(job: Job) -> Any:
    """The same under the breaker and the timeout."""
    if job.breaker is None:
        return await _bounded(job)
    return await attempt_under(job.breaker, functools.partial(_bounded, job))


async def _bounded(job: Job) -> Any:
    job.attempts += 1
    job.has_begun = True
    if job.attempts > 1 and job.actor.marks_attempts and job.run.records:
        event = job.event(ExecutionStatus.STARTED, {"attempt": job.attempts})
        await job.run.record(event, is_urgent=job.actor.is_external)
    job.scope.begin_attempt(job.attempts)
    try:
        return await _within_timeout(job)
    except SystemExit as raised:  # an exception already when the breaker, the limits and the retry policy see it
        raise failure_of(raised) from raised


async def _within_timeout(job: Job) -> Any:
    if job.timeout is None:
        return await job.begin()
    limit = job.time_limit = asyncio.timeout(job.timeout)
    try:
        async with limit:
            return await job.begin()
    except TimeoutError as error:
        if not limit.expired():
            raise
        error.__traceback__ = None  # it leads to a frame of asyncio that holds this one, and with it the job
        raise CallTimeout(f"{job.name or job.actor.name} took longer than its timeout of {job.timeout:g} s") from error
    finally:
        job.time_limit = None
