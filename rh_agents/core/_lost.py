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

from typing import TYPE_CHECKING

from rh_agents.core.errors import WorkerLost
from rh_agents.core.keys import idempotency_key
from rh_agents.core.types import OnUnknown

if TYPE_CHECKING:
    from rh_agents.core._runner import Job

__all__ = ["after_loss"]


async def after_loss(job: Job, lost: WorkerLost) -> float:
    """The worker of the attempt under way has died; returns after how many seconds another one is to be made.

    Raises:
        WorkerLost: none is, and that is the call's failure.
        StopRun: the run is being stopped, or a person has to be asked who is not there.
    """
    run, retry = job.run, job.retry
    job.lost += 1
    job.is_unknown = True
    run.expect_running()
    if job.lost >= lost.max_lost or (retry is not None and job.attempts >= retry.max_attempts):
        job.is_refused = job.actor.on_unknown not in (None, OnUnknown.RETRY)
        raise _failure(job, lost)
    since = None if job.key is None else run.unknown_since(job.key, job.scope.key, 0)
    occasion = job.attempts if since is None else since
    decision = await run.decide_unknown(job.actor, job.scope.address, occasion)
    if decision is not OnUnknown.RETRY:
        job.is_refused = True
        raise _failure(job, lost)
    job.is_unknown = False
    delay = None if retry is None else retry.delay_after(job.attempts, lost, run.chance())
    return delay or 0.0


def _failure(job: Job, lost: WorkerLost) -> WorkerLost:
    text = f"{lost}; whether {job.scope.address or job.name} was done is unknown"
    if job.lost > 1:
        text += f"; it has lost {job.lost} workers"
    if job.run.records:
        text += f"; its idempotency key is {idempotency_key(job.run.run_id, job.scope.key)}"
    error = WorkerLost(text, max_lost=lost.max_lost)
    error.__cause__ = lost
    return error
