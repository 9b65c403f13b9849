"""One call from its start to its outcome: replay, attempts, timeout, breaker, and the events that tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import CallTimeout, StoreError
from rh_agents.core.events import ExecutionEvent, call_event
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.ports import RunHandle
from rh_agents.core.results import ExecutionResult, Outcome, describe_error, failure, success
from rh_agents.core.scope import Scope, current_scope
from rh_agents.core.types import EventType, ExecutionStatus

__all__ = ["Job", "run_job"]


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
    recorded: Outcome | None = None
    attempts: int = 0
    has_begun: bool = False
    ended_at: float | None = None
    result: ExecutionResult[Any] | None = None

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

    @property
    def is_simple(self) -> bool:
        """Whether it is just one attempt with nothing around it, which most members are."""
        return self.retry is None and self.timeout is None and self.breaker is None and self.check is None

    def event(self, status: ExecutionStatus, facts: Mapping[str, Any] | None = None) -> ExecutionEvent[Any]:
        """An event of the call as it stands."""
        run = self.run
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

    async def tell(self, status: ExecutionStatus, **facts: Any) -> None:
        """Record an event of the call and tell the subscribers."""
        run = self.run
        event = self.event(status, facts)
        await run.record(event)
        if run.is_observed:
            await run.publish(event)


async def run_job(job: Job) -> ExecutionResult[Any]:
    """Execute a call and return its result, which holds the failure if it failed.

    Raises:
        asyncio.CancelledError: the task was cancelled. `job.result` tells whether there is an outcome all the same.
        StoreError: the outcome could not be recorded.
    """
    scope = job.scope
    current_scope.set(scope)
    if job.key is not None:
        if job.recorded is not None:
            return await _recover(job, job.recorded)
        scope.owner = asyncio.current_task()
    told = job.is_told
    run = job.run
    if told:
        event = job.event(ExecutionStatus.STARTED)
        await run.record(event)
        if run.is_observed:
            await run.publish(event)
    clock = asyncio.get_running_loop().time
    started = clock()
    try:
        if job.is_simple:
            job.attempts = 1
            job.has_begun = True
            scope.begin_attempt(1)
            value = await job.begin()
        else:
            value = await _attempt_until_done(job, clock, told)
        error = None
    except asyncio.CancelledError:
        if told:
            await job.tell(ExecutionStatus.CANCELLED, attempt=job.attempts, execution_time=clock() - started)
        raise
    except StoreError:
        raise
    except Exception as caught:  # noqa: BLE001 - the border where a call's failure becomes its result
        value, error = None, caught
    job.ended_at = clock()
    seconds = job.ended_at - started
    if error is None:
        result = success(value, seconds, job.attempts, job.name, job.index, scope.address)
    else:
        result = failure(error, seconds, job.attempts, job.name, job.index, scope.address)
    if told:
        return await _settle(job, result)
    job.result = result
    return result


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
        },
    )
    outcome = None if job.key is None else _outcome(job, job.key, result)
    counts = await job.run.record(event, outcome)
    if counts is not outcome and counts is not None:
        job.result = counts.as_result(job.index, job.scope.address)
        return job.result
    job.result = result  # not before it is recorded: what is given to anybody is not called again
    if job.run.is_observed:
        await job.run.publish(event)
    return result


def _outcome(job: Job, key: bytes, result: ExecutionResult[Any]) -> Outcome:
    scope, parent, error = job.scope, job.parent, result.error
    return Outcome(
        key,
        job.name,
        scope.address,
        result.result,
        error if isinstance(error, Exception) else None,
        result.execution_time or 0.0,
        job.attempts,
        job.group_id,
        base=scope.key,
        parent=parent.key,
        made_in=parent.generation,
    )


async def _recover(job: Job, outcome: Outcome) -> ExecutionResult[Any]:
    """Return what an earlier execution recorded, without calling anything."""
    job.result = outcome.as_result(job.index, job.scope.address)
    job.run.reused(job.scope.key)
    await job.tell(
        ExecutionStatus.RECOVERED,
        attempt=outcome.attempts,
        execution_time=outcome.seconds,
        result=outcome.value,
        message=job.result.error_message,
        is_replayed=True,
        from_cache=True,
    )
    return job.result


async def _attempt_until_done(job: Job, clock: Callable[[], float], told: bool) -> Any:
    """The value of the first attempt that succeeds; raises the error of the last one."""
    if job.check is not None:
        await job.check()
    if job.key is not None:
        job.attempts = job.run.attempts_before(job.key)
    cancellations = _cancellations()
    while True:
        try:
            return await _attempt(job, clock)
        except StoreError:
            raise
        except Exception as error:
            delay = None
            if job.retry is not None and _cancellations() == cancellations:
                delay = job.retry.delay_after(job.attempts, error, job.run.chance())
            if delay is None:
                raise
            message = describe_error(error)
        if told:
            await job.tell(ExecutionStatus.RETRYING, attempt=job.attempts, retry_delay=delay, message=message)
        await asyncio.sleep(delay)


def _cancellations() -> int:
    """How often the task has been told to end: an error of its cleanup is no reason to start anew."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def _attempt(job: Job, clock: Callable[[], float]) -> Any:
    """One attempt, under the breaker and the timeout."""
    breaker = job.breaker
    if breaker is None:
        return await _bounded(job)
    admission = breaker.admit(clock())
    try:
        value = await _bounded(job)
    except Exception as error:
        breaker.failed(admission, error, clock())
        raise
    except BaseException:
        breaker.abandoned(admission)
        raise
    breaker.succeeded(admission)
    return value


async def _bounded(job: Job) -> Any:
    job.attempts += 1
    job.has_begun = True
    job.scope.begin_attempt(job.attempts)
    if job.timeout is None:
        return await job.begin()
    limit = asyncio.timeout(job.timeout)
    try:
        async with limit:
            return await job.begin()
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise CallTimeout(f"{job.name or job.actor.name} took longer than its timeout of {job.timeout:g} s") from error
