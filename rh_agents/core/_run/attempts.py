"""The attempts of one call: the waits between them, and what stands around each: limits, the breaker, the timeout.

Where a call has nothing of a kind, the step is a plain function that hands on to the next one, so that neither an await
nor a Python frame is spent on it. A call with none of them never comes here (`rh_agents.core._run.runner`).

What becomes of a call whose worker has died is decided here as well.

The function may have done all, some or nothing of its work, so the outcome is unknown, as it is after a crash of the
whole process; and as there, `on_unknown` decides. Three things are different:

- The run is alive, so that it is decided now and not at the next start: RETRY makes another attempt at once, FAIL
  records the `WorkerLost`, ASK asks a person.
- What killed the worker may be the call itself, an input that needs more memory than there is. So losses are counted,
  and the last one that the executor allows (`max_lost`) is a failure, whatever `on_unknown` says. The count is in the
  journal before the next attempt begins; it outlives the run's process, of which the call may be the death as well.
- The worker may have died because everything is being stopped. Then nothing is decided or recorded as failed: the call
  stays unknown, and the next start decides.

Until it is decided, the journal has the call as unknown: events with a count of lost workers do not change that.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from rh_agents.core._limits.admission import Held, Permits
from rh_agents.core._limits.breakers import attempt_under
from rh_agents.core._loops.exits import failure_of
from rh_agents.core._loops.postponed import Postponed, until_it_is_done
from rh_agents.core._replay.identity import idempotency_key
from rh_agents.core._run.cancellations import cancellations, is_cut_off
from rh_agents.core._run.frame import Frame
from rh_agents.core.errors import CallTimeout, StoreError, WorkerLost
from rh_agents.core.policies.limits import Limit, need_of
from rh_agents.core.results import describe_error
from rh_agents.core.types import ExecutionStatus, OnUnknown

__all__ = ["StandingStill", "admitted", "with_lost", "with_retries", "within_limits"]

T = TypeVar("T")


async def with_retries(frame: Frame) -> Any:
    """The value of the first attempt that succeeds; raises the error of the last one."""
    if frame.check is not None:
        await frame.check()
    if frame.key is not None:
        frame.attempts = frame.run.recording.attempts_before(frame.key)
        frame.lost = frame.run.recording.lost_before(frame.key)
    before = cancellations()
    while True:
        try:
            return await _attempt(frame)
        except StoreError:
            raise
        except Exception as error:
            delay, lost = None, 0
            if frame.stop is None and not is_cut_off(frame, error, before):
                if isinstance(error, WorkerLost) and error.has_begun:
                    delay = await _after_loss(frame, error)
                    lost = frame.lost
                elif frame.retry is not None and not frame.has_waited_enough:
                    policy = frame.run.settings.retried(frame.retry)
                    delay = policy.delay_after(frame.attempts, error, frame.run.chance())
            if delay is None:
                raise
            message = describe_error(error)
        if frame.is_told or frame.run.is_observed:
            more = with_lost({"retry_delay": delay, **(frame.newly_spent() or {})}, lost)
            await frame.report(ExecutionStatus.RETRYING, frame.attempts, message, more, is_urgent=lost > 0)
        await _wait_for_next_attempt(frame, delay)


async def _wait_for_next_attempt(frame: Frame, seconds: float) -> None:
    """Wait, and let another member of the group run meanwhile.

    That the attempt has failed is on disk before: after a crash no more is repeated than the group has slots.
    """
    interruption = frame.run.interruption
    frame.wait_for_attempt(seconds)
    try:
        if frame.slot is None or not seconds:
            await interruption.sleep(seconds)
            await frame.wait_while_held()
            return
        await frame.run.recording.acknowledge()
        if frame.reservation is not None:
            frame.reservation.give_back()  # those who hold slots may wait for it; the next attempt reserves again
        async with frame.slot:
            await interruption.sleep(seconds)
    finally:
        frame.come_forward()
    interruption.expect_running()  # it may have waited for its slot
    await frame.wait_while_held()


def _attempt(frame: Frame) -> Awaitable[Any]:
    """One attempt. A further one reserves again what it may use."""
    return (_renewed if frame.attempts and (frame.reservation or frame.run.budgets.of_run) else _under_limits)(frame)


async def _renewed(frame: Frame) -> Any:
    await frame.renew()
    return await _under_limits(frame)


def _under_limits(frame: Frame) -> Awaitable[Any]:
    if not frame.limits:
        return _under_breaker(frame)
    attempt = functools.partial(_under_breaker, frame)
    return within_limits(frame, frame.limits, need_of(frame.need()), attempt, frame.attempts)


def _under_breaker(frame: Frame) -> Awaitable[Any]:
    if frame.breaker is None:
        return _under_timeout(frame)
    return attempt_under(frame.breaker, functools.partial(_under_timeout, frame))


async def _under_timeout(frame: Frame) -> Any:
    """Call the function. Whether its time is limited or not, this is where an attempt begins."""
    frame.attempts += 1
    frame.has_begun = True
    if frame.attempts > 1 and frame.is_written_ahead and frame.run.records:
        fact = frame.fact(ExecutionStatus.STARTED, frame.attempts)
        await frame.run.record(fact, is_urgent=True)
    if not frame.run.recording.is_ours:
        await frame.run.recording.prove()
    frame.begin_attempt(frame.attempts)
    limit = None if frame.timeout is None else asyncio.timeout(frame.timeout)
    attempt = None if frame.trace is None else frame.trace.attempt(frame)
    try:
        if limit is None:
            return await frame.begin()
        frame.time_limit = limit
        async with limit:
            return await frame.begin()
    except SystemExit as raised:  # an exception already when the breaker, the limits and the retry policy see it
        raise failure_of(raised) from raised
    except TimeoutError as error:
        if limit is None or not limit.expired():
            raise
        error.__traceback__ = None  # it leads to a frame of asyncio that holds this one, and with it the call
        name = frame.name or frame.actor.name
        raise CallTimeout(f"{name} took longer than its timeout of {frame.timeout:g} s") from error
    finally:
        frame.time_limit = None
        if attempt is not None:
            attempt.leave()


async def within_limits(
    frame: Frame,
    limits: Sequence[Limit],
    need: Mapping[str, float],
    attempt: Callable[[], Awaitable[T]],
    attempts: int | None = None,
) -> T:
    """Make an attempt of a call, or requests within one, when these limits let it pass, in place of those around it.

    Args:
        frame: the call.
        limits: whose permits are needed.
        need: of what the permits are.
        attempt: what is made.
        attempts: how many attempts had begun before this one; None within one.
    """
    outer, metered = frame.permits, frame.metered
    frame.run.settings.know(limits)
    permits = Permits(frame.run, limits, frame.report_waiting)
    await admitted(frame, permits, need, begins=attempts is not None)
    frame.permits, frame.metered = permits, frame.usage
    error: BaseException | None = None
    try:
        return await attempt()
    except BaseException as caught:
        error = caught
        raise
    finally:
        used = frame.used_since(frame.metered)
        need = {} if attempts is not None and frame.attempts == attempts else need_of(used)  # a breaker refused it
        is_known = used is not None or not need
        frame.permits, frame.metered = outer, metered
        try:
            await _leave(permits, need if is_known else None, error)
        finally:
            error = None  # by its traceback, which holds this frame, it would hold itself


async def admitted(frame: Frame, permits: Permits, need: Mapping[str, float], *, begins: bool = False) -> None:
    """Wait for permits. Whatever comes meanwhile, also when the slots around it are taken back, leaves none behind.

    `begins`: of an attempt, which does not begin while the run is paused.
    """
    while True:
        try:
            async with StandingStill(frame):
                await permits.enter(need, begins=begins)
            return
        except Held:
            await frame.wait_while_held()
        except BaseException:
            await permits.leave({}, None, has_ended=False)
            raise


async def _leave(permits: Permits, used: Mapping[str, float] | None, error: BaseException | None) -> None:
    """Give permits back. What has been made and paid for is not cut off while other processes are told of it."""
    leaving = permits.leave(used, error)
    if error is not None or not permits.is_shared:
        await leaving
        return
    postponed = Postponed()
    try:
        await until_it_is_done(leaving, postponed)
    finally:
        postponed.deliver_soon()


class StandingStill:
    """While the block lasts, the time of the attempt stands still, and others may have its slots."""

    __slots__ = ("_frame", "_left", "_released")

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._left: float | None = None
        self._released = None if frame.permits is None else frame.permits.released()

    async def __aenter__(self) -> None:
        limit = self._frame.time_limit
        if limit is not None and not limit.expired() and (when := limit.when()) is not None:
            self._left = max(0.0, when - asyncio.get_running_loop().time())
            limit.reschedule(None)
        if self._released is not None:
            await self._released.__aenter__()

    async def __aexit__(self, *about: object) -> None:
        try:
            if self._released is not None:
                await self._released.__aexit__(*about)  # type: ignore[arg-type]
        finally:
            limit = self._frame.time_limit
            if self._left is not None and limit is not None:
                with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                    limit.reschedule(asyncio.get_running_loop().time() + self._left)


# -- a worker that was lost -------------------------------------------------------------------------------------------


async def _after_loss(frame: Frame, lost: WorkerLost) -> float:
    """The worker of the attempt under way has died; returns after how many seconds another one is to be made.

    Raises:
        WorkerLost: none is, and that is the call's failure.
        StopRun: the run is being stopped, or a person has to be asked who is not there.
    """
    run, retry = frame.run, frame.retry
    frame.lost += 1
    frame.is_unknown = True
    run.interruption.expect_running()
    if frame.lost >= lost.max_lost or (retry is not None and frame.attempts >= retry.max_attempts):
        frame.is_refused = frame.actor.on_unknown not in (None, OnUnknown.RETRY)
        raise _failure(frame, lost)
    since = None if frame.key is None else run.recording.unknown_since(frame.key, frame.base, 0)
    occasion = frame.attempts if since is None else since
    decision = await run.decide_unknown(frame.actor, frame.address, occasion)
    if decision is not OnUnknown.RETRY:
        frame.is_refused = True
        raise _failure(frame, lost)
    frame.is_unknown = False
    delay = None if retry is None else retry.delay_after(frame.attempts, lost, run.chance())
    return delay or 0.0


def _failure(frame: Frame, lost: WorkerLost) -> WorkerLost:
    text = f"{lost}; whether {frame.address or frame.name} was done is unknown"
    if frame.lost > 1:
        text += f"; it has lost {frame.lost} workers"
    if frame.run.records:
        text += f"; its idempotency key is {idempotency_key(frame.run.identity, frame.base)}"
    error = WorkerLost(text, max_lost=lost.max_lost)
    error.__cause__ = lost
    return error


def with_lost(more: dict[str, Any] | None, lost: int) -> dict[str, Any] | None:
    """The same with the number of workers that were lost, if there is one to be said."""
    return {**(more or {}), "lost": lost} if lost else more
