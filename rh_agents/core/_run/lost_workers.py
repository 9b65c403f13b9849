"""What becomes of a call whose worker has died.

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

from rh_agents.core._replay.keys import idempotency_key
from rh_agents.core._run.frame import Frame
from rh_agents.core.errors import WorkerLost
from rh_agents.core.types import OnUnknown

__all__ = ["after_loss"]


async def after_loss(frame: Frame, lost: WorkerLost) -> float:
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
