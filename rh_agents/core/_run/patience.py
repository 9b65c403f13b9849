"""Requests to a server that may ask to wait. Such a wait is no failed attempt, and happens within the attempt.

A refused request has done nothing and cost nothing. Were it a failure, the whole attempt would be made again, and with
it the requests before it that were answered and paid for; a call that is refused a few times would fail though nothing
is wrong. So only the request is made again, when the server wants it. Meanwhile the time of the attempt stands still,
its slots are free for others, and subscribers see that it waits. What bounds the wait: the retry policy's `max_wait`
and `max_retry_after`, the time of the budgets around it, and the timeouts of the groups and calls around it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from rh_agents.core._base.foreign import noted, seconds_to_wait
from rh_agents.core._limits.admission import Permits, seconds_held
from rh_agents.core._run.attempts import StandingStill, admitted, within_limits
from rh_agents.core._run.frame import Frame, current_frame
from rh_agents.core.errors import ModelError, ModelOverloaded, RateLimited
from rh_agents.core.policies._checks import Failure, is_meant
from rh_agents.core.policies.limits import Limit, RateLimitHint, need_of
from rh_agents.core.policies.pause import LONGEST_PAUSE, Pause
from rh_agents.core.redaction import logger
from rh_agents.core.usage import Usage

__all__ = ["among_others", "ask_patiently", "asks_to_wait", "under_limits"]

T = TypeVar("T")
_log = logger("rh_agents.models")
_reported: set[str] = set()
"""The models of whose servers it was reported that they ask to wait."""
_REFUSALS = frozenset({None, 425, 429, 498, 503, 529})
"""The statuses of requests that a server did not begin with. After others (500) nobody knows what it has done."""
_LONG = 5.0
"""Seconds without a word that make people wonder."""
_LEAST = 0.05
"""Seconds that a refusal counts at least, so that one which asks for no wait has an end as well."""


def asks_to_wait(error: BaseException) -> bool:
    """Whether a server has refused a request and said when to come again."""
    if not isinstance(error, RateLimited | ModelOverloaded):
        return False
    return error.status in _REFUSALS and seconds_to_wait(error) is not None


async def ask_patiently(pause: Pause, ask: Callable[[], Awaitable[T]], estimate: Callable[[], Usage]) -> T:
    """Make a request within the call that is under way, and make it again when the server asks to wait.

    Args:
        pause: what those share who ask this server.
        ask: makes the request.
        estimate: what it will use at most.

    Raises:
        ModelError: as `ask` does; a refusal if the call has waited enough, or has no retry policy.
        StopRun: the run is being stopped, or a budget of time is over before the wait is.
    """
    frame = _call_under_way()
    if frame is None:
        return await ask()
    while True:
        permits = Permits(frame.run, (pause,), frame.report_waiting)
        await _enter(frame, pause, permits)
        try:
            answer = await ask()
        except BaseException as error:
            refusal = error if asks_to_wait(error) else None
            await permits.leave({}, refusal, has_ended=False)
            if refusal is None or not _is_patient(frame, pause, error):
                raise
            seconds = seconds_to_wait(error) or 0.0
        else:
            await permits.leave({}, None)
            return answer
        _report_wait(frame, pause.name, seconds)
        frame.honour(RateLimitHint(retry_after=seconds, is_overloaded=True))
        if seconds > LONGEST_PAUSE:
            await _wait_alone(frame, pause.name, seconds)
        async with StandingStill(frame):
            await frame.readmit(estimate())


async def under_limits(limits: Sequence[Limit], ask: Callable[[], Awaitable[T]], estimate: Callable[[], Usage]) -> T:
    """Make requests within the call that is under way under limits of their own, in place of those of the call."""
    frame = _call_under_way()
    if frame is None or not limits:
        return await ask()
    return await within_limits(frame, limits, need_of(estimate()), ask)


@contextlib.contextmanager
def among_others(on: Sequence[Failure]) -> Iterator[Callable[[], bool]]:
    """While the block lasts, another server is asked if this one fails so: then nobody waits for it.

    Gives a function that says whether a piece of an answer was delivered since then.
    """
    frame = _call_under_way()
    if frame is None:
        yield lambda: False
        return
    before, told = frame.falls_back_on, frame.pieces_told
    frame.falls_back_on = on
    try:
        yield lambda: frame.pieces_told != told
    finally:
        frame.falls_back_on = before


def _call_under_way() -> Frame | None:
    frame = current_frame.get()
    return frame if frame is not None and frame.is_under_way else None


def _report_wait(frame: Frame, name: str, seconds: float) -> None:
    """Say once for each model that a long wait is no hanging program, where nobody subscribes to what happens."""
    if seconds >= _LONG and name not in _reported and not frame.run.is_observed:
        _reported.add(name)
        _log.warning(
            "%s: the server asked to wait %.0f s, and calls wait as it asks: each up to RetryPolicy(max_wait=600). "
            "Subscribers, such as ParallelEventPrinter(), see which ones do.",
            name,
            seconds,
        )


def _is_patient(frame: Frame, pause: Pause, error: BaseException) -> bool:
    """Whether the call waits as long as the server asks.

    Raises:
        StopRun: a budget of time is over by then.
    """
    policy = frame.retry
    asked = seconds_to_wait(error)
    if policy is None or asked is None or not isinstance(error, ModelError) or not policy.may_mend(error):
        return False
    if error.usage is not None or is_meant(error, frame.falls_back_on):  # it had begun, or somebody else is asked
        return False
    wait = max(asked, _LEAST, 0.0 if asked > LONGEST_PAUSE else pause.hold)
    if asked > policy.max_retry_after or frame.waited + wait > policy.max_wait:
        if policy.max_wait:
            frame.has_waited_enough = True
            bound = "max_retry_after" if asked > policy.max_retry_after else "max_wait"
            reason = f"it wants {asked:.3g} s, and {bound}={getattr(policy, bound):g}"
            noted(error, f"the call had waited {frame.waited:.3g} s for the server; {reason}")
        return False
    _expect_time(frame, wait)
    frame.waited += wait
    return True


def _expect_time(frame: Frame, wait: float) -> None:
    """See that budgets of time last beyond the wait.

    Raises:
        StopRun: one does not.
    """
    for ledger in frame.all_ledgers:
        seconds = ledger.budget.seconds
        if seconds is not None and ledger.seconds + wait >= seconds:
            stop = ledger.stop(f"seconds={seconds:g}", frame.name)
            frame.run.interruption.budget_spent(stop)
            raise stop


async def _enter(frame: Frame, pause: Pause, permits: Permits) -> None:
    if pause.is_idle:
        await permits.enter({}, begins=False)
        return
    left = seconds_held(pause)
    if left and frame.falls_back_on:
        paused = RateLimited(f"{pause.name}: the server asked to wait", retry_after=left)
        if is_meant(paused, frame.falls_back_on):
            raise paused
    await admitted(frame, permits, {})


async def _wait_alone(frame: Frame, name: str, seconds: float) -> None:
    """Longer than others are held up."""
    async with StandingStill(frame):
        await frame.report_waiting(name, "the server asked to wait", seconds)
        await frame.run.interruption.sleep(seconds)
        await frame.report_waiting(name, "waited as long as the server asked", 0.0)
