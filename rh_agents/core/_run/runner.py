"""One call from its start to its outcome: what stands around its function, and the events that tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from types import CoroutineType
from typing import Any

from rh_agents.core._base.foreign import without_our_frames
from rh_agents.core._base.mistakes import Unstarted
from rh_agents.core._loops.exits import FAILURES, failure_of
from rh_agents.core._loops.postponed import until_it_is_done
from rh_agents.core._replay.identity import idempotency_key
from rh_agents.core._run.attempts import with_lost, with_retries
from rh_agents.core._run.cancellations import absorb_cancellation, cancellations, is_cut_off, is_only_withdrawn
from rh_agents.core._run.frame import Frame, current_frame
from rh_agents.core._run.nesting import check_nesting
from rh_agents.core._run.parts import RunParts
from rh_agents.core._run.tracing import traced
from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import (
    CallCancelled,
    DefinitionError,
    StopRun,
    StoreError,
    UnknownOutcomeError,
    UnstorableError,
    UsageError,
)
from rh_agents.core.events import Fact
from rh_agents.core.redaction import redact, without_secrets
from rh_agents.core.results import ExecutionResult, Outcome, describe_error, failure, success
from rh_agents.core.types import WITHDRAWN, EventType, ExecutionStatus, OnUnknown, RecordInputs, every_generation
from rh_agents.core.values.inputs import recorded_input

__all__ = ["Frame", "recovered_fact", "run_frame"]

_STARTED, _COMPLETED, _FAILED = ExecutionStatus.STARTED, ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
_WORK = (Unstarted, CoroutineType)
_SEQUENCES = (list, tuple)
_REPLAYED = {"is_replayed": True, "from_cache": True}
_new_tuple = tuple.__new__  # a third of the time that a NamedTuple takes to be called


async def run_frame(frame: Frame) -> ExecutionResult[Any]:
    """Execute a call and return its result, which holds the failure if it failed.

    What cancels the call when its outcome is being recorded, arrives when the caller has it.

    Raises:
        asyncio.CancelledError: the task was cancelled. `frame.result` tells whether there is an outcome all the same.
        StoreError: the outcome could not be recorded.
    """
    interruption, is_made = frame.run.interruption, not frame.is_recorded
    started = asyncio.get_running_loop().time()
    caller = frame.caller or asyncio.current_task()
    if is_made:
        if frame.run.records:
            frame.owner = caller if frame.caller is None else asyncio.current_task()
        if interruption.checker is not None or interruption.stop is not None:
            interruption.expect_running()  # what a checker raises is the run's, and no failure of this call
        interruption.under_way.callers[frame] = frame.parent.calls.callers[frame] = caller
    frame.is_under_way = True
    frame.began_at = started
    current_frame.set(frame)
    begun = frame.run.begun  # for those who watch for a blocked event loop
    begun.calls += 1
    if frame.group_id is not None or not frame.parent.is_under_way:
        begun.outermost += 1
    try:
        if is_made:
            if interruption.hold.is_held:
                await frame.wait_while_held()
            await _made(frame)
        else:
            await _recover(frame)
    except asyncio.CancelledError as error:
        if frame.result is None and frame.withdrawn is not None and is_only_withdrawn(frame):
            frame.result = await _record_outcome(frame, _withdrawal(frame))
        elif frame.result is None:
            frame.postponed = None  # what came before arrives with this one
            if is_made and frame.is_told and not frame.has_settled and (frame.is_announced or frame.is_dismissed):
                await _publish_cancelled(frame, asyncio.get_running_loop().time() - started)
            raise
        else:
            frame.postpone(error)
    except StoreError:
        raise
    except FAILURES as raised:
        if not is_made or frame.has_settled or frame.result is not None:
            raise
        await _refused(frame, failure_of(raised))
    finally:
        frame.is_under_way = False
        if is_made:
            for under_way in (interruption.under_way, frame.parent.calls):
                del under_way.callers[frame]
                if under_way.watchers:
                    under_way.wake()
        if frame.reservation is not None:
            frame.release(has_outcome=frame.result is not None)
        if frame.trace is not None:
            frame.trace.leave(frame)
        if frame.postponed is not None:
            frame.postponed.deliver_soon()
    assert frame.result is not None
    return frame.result


# What stands around the function of a call, from the outside: what may have been done, the cache, the tracer, budgets,
# retries, limits, the breaker, the timeout. Where a call has nothing of a kind, the step is a plain function that hands
# on to the next one, so that neither an await nor a Python frame is spent on it: calls nest as deep as the stack lets.


def _made(frame: Frame) -> Awaitable[ExecutionResult[Any]]:
    """The result of a call that has none yet."""
    run, key = frame.run, frame.key
    if frame.withdrawn is not None:
        return _record_outcome(frame, _withdrawal(frame))
    if frame.parent.stop is not None:
        frame.parent.expect_no_stop(asyncio.current_task())
    if key is not None:
        since = None
        if frame.is_written_ahead or key in run.recording.recorded.unknown:
            since = run.recording.unknown_since(key, frame.base, frame.tries if frame.is_written_ahead else 0)
            frame.may_be_done = since is not None
        if since is not None or run.is_validation:
            return _unless_refused(frame, since)
    return with_cache(frame)


def _withdrawal(frame: Frame) -> ExecutionResult[Any]:
    """The result of a call that somebody has cancelled by name."""
    cancelled = CallCancelled(f"{frame.name or 'the call'} was {frame.withdrawn}")
    return failure(cancelled, 0.0, _may_have_begun(frame), frame.name, frame.index, frame.address)


async def _refused(frame: Frame, error: Exception) -> None:
    """Something is wrong with a call before its function is called, and that is its failure: it costs no others.

    For instance an estimate raises, nobody knows a price that a budget needs, or the stack is full.
    """
    if is_cut_off(frame, error, 0):
        raise _cut_off(frame, error) from error
    frame.is_refused = frame.may_be_done
    refusal = failure(without_our_frames(error), 0.0, 0, frame.name, frame.index, frame.address)
    is_told = frame.is_told or frame.run.is_observed
    frame.result = await _record_outcome(frame, refusal) if is_told else refusal


async def _unless_refused(frame: Frame, since: int | None) -> ExecutionResult[Any]:
    refusal = await _refusal(frame, since)
    return await (with_cache(frame) if refusal is None else _record_outcome(frame, refusal))


def with_cache(frame: Frame) -> Awaitable[ExecutionResult[Any]]:
    if frame.elsewhere is not None and frame.key is not None:
        return frame.elsewhere(frame)
    if frame.depth > 1 or frame.ledgers or frame.run.budgets.deepest < 1:
        check_nesting(frame)
    if frame.cached_as is None:
        return _within_budget(frame)
    cache = frame.run.cache
    return cache.call(frame, frame.cached_as, lambda: _within_budget(frame), lambda value: _from_cache(frame, value))


async def _from_cache(frame: Frame, value: Any) -> ExecutionResult[Any]:
    """The result of a call that need not be made, since an equal one was."""
    result = success(value, 0.0, 0, frame.name, frame.index, frame.address)
    await _publish_in_pieces(frame, value)
    return await _record_outcome(frame, result.model_copy(update={"from_cache": True}))


def _within_budget(frame: Frame) -> Awaitable[ExecutionResult[Any]]:
    step = _reserved if frame.actor.budget or frame.ledgers or frame.run.budgets.of_run else _called
    return step(frame) if frame.run.tracing is None else traced(frame, step)


async def _reserved(frame: Frame) -> ExecutionResult[Any]:
    """The same when what it may spend has been taken out of its budgets."""
    run, budget, outer = frame.run, frame.actor.budget, frame.all_ledgers
    if budget is None:
        await frame.reserve(outer)
        return await _called(frame)
    own = run.budgets.open_part(budget, frame.base.hex(), frame.address or frame.name, frame.depth)
    frame.ledgers = (*frame.ledgers, own)
    try:
        await frame.reserve(outer)
        return await _called(frame)
    finally:
        own.close()


async def _announce(frame: Frame, fact: Fact) -> None:
    """Tell of the start, on disk before it comes to that where a crash matters."""
    run = frame.run
    if frame.is_written_ahead:
        await run.record(fact, is_urgent=True)
    else:
        run.note(fact)
    await run.publish(fact)


async def _refusal(frame: Frame, since: int | None) -> ExecutionResult[Any] | None:
    """The failure of a call that must not be made: it may have been done, or a validation may have no effect."""
    run, actor = frame.run, frame.actor
    if since is not None and await run.decide_unknown(actor, frame.address, since) is not OnUnknown.RETRY:
        frame.is_refused = True
        return _unknown(frame)
    if run.is_validation and actor.is_external and actor.event_type is not EventType.QUESTION:
        return _not_made(frame)
    return None


async def _called(frame: Frame) -> ExecutionResult[Any]:
    """Tell of the start, make the attempts, and let what comes of them be the result."""
    if frame.run.interruption.hold.is_held:  # it may have waited for an equal call, or for its budget
        await frame.pass_gate()
    if frame.is_told:
        frame.is_announced = True  # perhaps, if that is cut off
        fact, run = frame.fact(_STARTED), frame.run
        if frame.is_written_ahead or (run.bus.subscriptions and run.bus.wants(fact)):
            await _announce(frame, fact)
        else:
            if run.records:
                run.recording.note(fact)
            run.history.add(fact)
    started = asyncio.get_running_loop().time()
    if frame.stood_still:
        frame.stood_still = 0.0
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    del task  # an error of the program leads to this Python frame, and would hold it
    try:
        value = await _value_of(frame)
        if frame.cached_as is not None and not frame.run.records:
            await frame.run.cache.prepare(frame, value)
    except StopRun as stop:
        if frame.is_told:
            await _publish_stopped(frame, stop)
        raise
    except StoreError:
        raise
    except FAILURES as raised:
        if not frame.is_dismissed and is_cut_off(frame, raised, before):
            raise _cut_off(frame, failure_of(raised)) from raised
        if not frame.is_dismissed and frame.stop is not None:
            raise await _hidden_stop(frame, frame.stop) from raised
        frame.result = _failed(frame, failure_of(raised), started)
    except BaseExceptionGroup as raised:  # of several tasks, see `rh_agents.core._replay.stops`
        if frame.stop is None:
            raise
        raise await _hidden_stop(frame, frame.stop) from raised
    else:
        if frame.stop is not None:
            raise await _hidden_stop(frame, frame.stop)
        frame.result = _succeeded(frame, value, started)
    assert frame.result is not None
    if frame.is_told or (frame.run.is_observed and not (frame.result.ok and frame.usage is None)):
        return await _record_outcome(frame, frame.result)
    return frame.result


async def _hidden_stop(frame: Frame, stop: StopRun) -> StopRun:
    """Why a call cannot go on, though its body has come to a value or an error all the same."""
    if frame.is_told:
        await _publish_stopped(frame, stop)
    return stop | stop


# The frames from here up to the caller may not hold the result or its error when they have ended, see `Frame.let_go`.


def _succeeded(frame: Frame, value: Any, started: float) -> ExecutionResult[Any]:
    first = value[0] if type(value) in _SEQUENCES and value else value
    if isinstance(first, _WORK):
        return _failed(frame, _forgotten_await(frame.name or frame.actor.name, value), started)
    seconds = _took(frame, started)
    return success(value, seconds, frame.attempts, frame.name, frame.index, frame.address)


def _forgotten_await(name: str, value: Any) -> DefinitionError:
    """The error of a function that returned such work, which is then never started."""
    is_many = type(value) in _SEQUENCES
    works = value if is_many else [value]
    first = works[0]
    if isinstance(first, Unstarted):
        kind, shown = "call", first.described
    else:
        kind, shown = "coroutine", f"{first.__qualname__}(...)"
    for work in works:
        if isinstance(work, Unstarted):
            work.discard()
        elif isinstance(work, CoroutineType):
            work.close()
    if is_many:
        return DefinitionError(
            f"{name} returned a {type(value).__name__} of {kind}s that have not started, {shown} first: await them, or "
            "give them to a group, and return what comes of them"
        )
    return DefinitionError(f"{name} returned the {kind} {shown}, which has not started: write `return await {shown}`")


def _failed(frame: Frame, error: Exception, started: float) -> ExecutionResult[Any]:
    seconds = _took(frame, started)
    return failure(without_our_frames(error), seconds, frame.attempts, frame.name, frame.index, frame.address)


def _cut_off(frame: Frame, error: Exception) -> asyncio.CancelledError:
    """Its cleanup failed, or it translates errors: what was cut off from outside has no outcome all the same."""
    frame.cleanup_problem = describe_error(without_our_frames(error))
    return asyncio.CancelledError(frame.cleanup_problem)


def _took(frame: Frame, started: float) -> float:
    frame.ended_at = asyncio.get_running_loop().time()
    frame.run.budgets.spent.calls += 1
    if frame.run.budgets.of_run is not None:
        frame.run.budgets.count_late(frame.reservation)
    return frame.ended_at - started


async def _publish_cancelled(frame: Frame, seconds: float) -> None:
    """The call was cancelled. If its group did that, the program goes on from there, so it is an outcome.

    It says whether the function was called at all: what was, may have had its effect, and is not repeated in silence.
    """
    attempts = _may_have_begun(frame)
    message = None if attempts else "never called"
    if frame.cleanup_problem:
        message = f"its cleanup failed: {frame.cleanup_problem}"
    fact = frame.fact(ExecutionStatus.CANCELLED, attempts, seconds, message, more=frame.spent_and_waited(seconds))
    outcome = None
    if frame.is_dismissed and frame.key is not None:
        text = f"{frame.name or 'the call'} was cancelled when its group had no more use for it"
        cancelled = CallCancelled(text if message is None else f"{text}: {message}")
        outcome = _outcome(frame, frame.key, failure(cancelled, seconds, attempts, frame.name, frame.index, ""))
    await frame.run.record(fact, outcome)
    if frame.run.is_observed:
        await frame.run.publish(fact)


def _may_have_begun(frame: Frame) -> int:
    """How many attempts of a call may have had their effect."""
    return max(frame.attempts, int(frame.may_be_done))


async def _publish_stopped(frame: Frame, stop: StopRun) -> None:
    """The call cannot go on for now. A question has said itself that it waits."""
    if frame.actor.event_type is EventType.QUESTION:
        return
    # What had an effect and was left in its middle is not known to wait, unless it waits for an answer.
    waits = not frame.actor.is_external or bool(stop.questions)
    status = ExecutionStatus.AWAITING if waits else ExecutionStatus.CANCELLED
    more = with_lost(frame.newly_spent(), frame.lost if frame.is_unknown else 0)
    await frame.report(status, _may_have_begun(frame), stop.reason, more)


def _unknown(frame: Frame) -> ExecutionResult[Any]:
    """The result of a call that had begun before and was cut off, and that must not be made again."""
    error = UnknownOutcomeError(
        f"{frame.address or frame.name} was in flight when an earlier execution of it stopped; its outcome is unknown. "
        f"Its idempotency key is {idempotency_key(frame.run.identity, frame.base)}"
    )
    return failure(error, 0.0, 0, frame.name, frame.index, frame.address)


def _not_made(frame: Frame) -> ExecutionResult[Any]:
    """The result of a new call with an external effect in a validation."""
    error = UsageError(f"{frame.name or frame.actor.name} has an external effect, so a validation does not call it")
    return failure(error, 0.0, 0, frame.name, frame.index, frame.address)


async def _record_outcome(frame: Frame, result: ExecutionResult[Any]) -> ExecutionResult[Any]:
    """Record the outcome and tell of it. If another execution recorded one first, that one counts."""
    run, frame.result = frame.run, None  # until it is recorded: what is given to anybody is not called again
    status = _COMPLETED if result.ok else _FAILED
    if frame.withdrawn is not None and isinstance(result.error, CallCancelled):
        status = ExecutionStatus.CANCELLED
    more: dict[str, Any] | None = None
    if result.from_cache:
        more = {"from_cache": True}
    elif frame.usage is not None or frame.ledgers or run.budgets.of_run is not None:
        more = frame.newly_spent()
    more = frame.with_waits(more, result.execution_time) if frame.stood_still or frame.standing else more
    fact = frame.fact(
        status, frame.attempts, result.execution_time, result.error_message, result=result.result, more=more
    )
    outcome = None if frame.key is None else _outcome(frame, frame.key, result)
    frame.has_settled = True
    if frame.settled is not None and cancellations():
        await absorb_cancellation()  # of a group that waits for this very outcome
    if status is _FAILED:
        run.log.tell(fact)
    counts = None
    try:
        if run.records:
            counts = await run.recording.record(fact, outcome, is_urgent=False, postpone=frame.postpone)
    except UnstorableError as error:
        if not result.ok:
            raise
        error = UnstorableError(f"{frame.name or frame.actor.name} returned a value that cannot be stored: {error}")
        about = (result.execution_time, frame.attempts, frame.name, frame.index, frame.address)
        return await _record_outcome(frame, failure(error, *about))
    is_new = counts is outcome
    if is_new:
        run.history.add(fact)
    elif counts is not None:
        result = counts.as_result(frame.index, frame.address)
    frame.result = result
    if frame.settled is not None:
        frame.settled(frame)
    bus = run.bus
    if is_new and bus.subscriptions and bus.wants(fact):
        await run.publish(fact)
    return result


def _outcome(frame: Frame, key: bytes, result: ExecutionResult[Any]) -> Outcome:
    parent, error = frame.parent, result.error
    made_in = (frame.run.recording.epoch, parent.tries, parent.attempt)
    if frame.withdrawn is not None and isinstance(error, CallCancelled):
        made_in = WITHDRAWN
    elif frame.is_refused:
        made_in = every_generation(frame.run.recording.epoch)
    about = (frame.shown_name, frame.address, result.result, error if isinstance(error, Exception) else None)
    took = (result.execution_time or 0.0, frame.attempts, frame.group_id, frame.base, parent.base, made_in, frame.usage)
    how, given = frame.actor.record_inputs or frame.run.record_inputs, None
    if frame.given is not None and how is not RecordInputs.NONE:
        given = recorded_input(frame.given, how, ok=result.ok)
    return _new_tuple(Outcome, (key, *about, *took, given))


async def _recover(frame: Frame) -> ExecutionResult[Any]:
    """Return what an earlier execution recorded, without calling anything."""
    assert frame.key is not None
    try:
        outcome = await frame.run.recording.load(frame.key)
    except asyncio.CancelledError as error:  # the program had its result: it gets it again
        outcome = await until_it_is_done(frame.run.recording.load(frame.key), frame.postpone(error))
    frame.result = outcome.as_result(frame.index, frame.address)
    total = None if frame.among is None else frame.among.total
    about = (frame.actor, frame.name, frame.address, frame.key, frame.group_id, frame.index, total, frame.marks)
    fact = recovered_fact(frame.run, outcome, frame.result, *about)
    try:
        if outcome.error is None:
            await _publish_in_pieces(frame, outcome.value)
    finally:
        await frame.run.recall(fact)
    assert frame.result is not None
    return frame.result


async def _publish_in_pieces(frame: Frame, value: Any) -> None:
    """Let those who listen to pieces have what the call returned before."""
    if frame.pieces_of is not None and frame.run.bus.wants_routine:
        for piece in frame.pieces_of(value):
            more = {"progress": piece, "is_replayed": True}
            await frame.run.publish(frame.fact(ExecutionStatus.PROGRESS, more=more))


def recovered_fact(
    run: RunParts,
    outcome: Outcome,
    result: ExecutionResult[Any],
    actor: BaseActor,
    name: str,
    address: str,
    key: bytes | None,
    group_id: str | None,
    index: int | None,
    total: int | None,
    marks: Mapping[str, Any] | None,
) -> Fact:
    """What there is to tell of a call that has its recorded outcome. `result` is what its caller gets."""
    more = {**(marks or {}), **_REPLAYED}
    if outcome.usage is not None:
        more["usage"] = outcome.usage
    message = None if result.error_message is None else redact(result.error_message)
    return Fact(
        run.run_id, run.now(), ExecutionStatus.RECOVERED, actor.event_type, actor, without_secrets(name), address, key,
        group_id, index, total, outcome.attempts, outcome.seconds, message, outcome.value, more,
    )  # fmt: skip


def _value_of(frame: Frame) -> Awaitable[Any]:
    """What the function returns, or raises."""
    has_check_or_limits = frame.check is not None or frame.limits or frame.actor.may_lose_workers
    if has_check_or_limits or not (frame.retry is None and frame.timeout is None and frame.breaker is None):
        return with_retries(frame)
    frame.attempts = frame.attempt = 1  # with nothing around it, which most members have
    frame.has_begun = True
    recording = frame.run.recording
    return frame.begin() if recording.is_ours else recording.proven(frame.begin)
