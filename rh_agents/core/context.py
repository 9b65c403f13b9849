"""Where code finds itself: the run and the call that are under way, and what it can tell about that call."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from rh_agents.core._run.frame import current_frame
from rh_agents.core.errors import UsageError
from rh_agents.core.policies.limits import RateLimitHint
from rh_agents.core.ports import CallContext
from rh_agents.core.runs import Run
from rh_agents.core.usage import Usage

__all__ = [
    "CurrentCall",
    "RemoteCall",
    "again",
    "claim_further_try",
    "current",
    "expect_lease",
    "is_lease_certain",
    "is_traced",
    "remote_call",
    "report_hint",
    "report_usage",
    "tell_progress",
    "trace_headers",
]


@dataclass(frozen=True, slots=True)
class CurrentCall(CallContext):
    """The call that is being executed, as its own code sees it: see `CallContext`."""

    _run: Run | None = None

    @property
    def run(self) -> Run:
        """The run it belongs to.

        Raises:
            UsageError: the code runs in a worker process; the run is in another one.
        """
        if self._run is None:
            raise UsageError(
                f"run {self.run_id!r} is not in this worker process, which knows only run_id, address, attempt, "
                "idempotency_key, group_id, trace and resources of current()"
            )
        return self._run


@dataclass(frozen=True, slots=True)
class RemoteCall:
    """The call that a worker process makes for a run elsewhere.

    Attributes:
        context: what is known of it here.
        add_usage: reports what it has used to its run.
    """

    context: CallContext
    add_usage: Callable[[Usage], None]


remote_call: ContextVar[RemoteCall | None] = ContextVar("rh_agents_remote_call", default=None)
"""Set in worker processes, while they make a call."""


def current() -> CurrentCall:
    """The call that is under way in this context, in worker processes too.

    Raises:
        UsageError: none is.
    """
    frame = current_frame.get()
    if frame is None:
        return _current_elsewhere()
    return _current_call(frame.about(), frame.run.state)


def _current_elsewhere() -> CurrentCall:
    remote = remote_call.get()
    if remote is None:
        raise UsageError(
            "current() must be called inside a running call: below `run(...)`, a decorated function or a group"
        )
    return _current_call(remote.context, None)


def _current_call(about: CallContext, run: Run | None) -> CurrentCall:
    key, group = about.idempotency_key, about.group_id
    return CurrentCall(about.run_id, about.address, about.attempt, key, group, about.trace, about.resources, run)


def is_traced() -> bool:
    """Whether this process makes a call for a run elsewhere that is traced there."""
    remote = remote_call.get()
    return remote is not None and bool(remote.context.trace)


def trace_headers() -> dict[str, str]:
    """What a request carries so that its server can continue the trace (`traceparent`); empty where nothing is traced.

    Baggage of the program is not among it: servers of others are none of its business.
    """
    frame, remote = current_frame.get(), remote_call.get()
    if frame is not None:
        trace = {} if frame.run.tracing is None else frame.run.tracing.carrier()
    else:
        trace = {} if remote is None else dict(remote.context.trace)
    trace.pop("baggage", None)
    return trace


def report_usage(usage: Usage) -> None:
    """Say what the call that is under way has used: it is recorded with its outcome, and counts for budgets and limits.

    May be called any number of times; usages are added. Outside of calls it does nothing.

    Raises:
        UsageError: the cost is no finite number. Added to what was spent it would never be one again, and budgets would
            hold no more.
    """
    if not math.isfinite(usage.cost):
        raise UsageError(f"report_usage(cost={usage.cost}) is no finite number: leave the cost out if it is not known")
    frame = current_frame.get()
    if frame is not None:
        if frame.is_under_way:
            frame.add_usage(usage)
    elif (remote := remote_call.get()) is not None:
        remote.add_usage(usage)


def report_hint(hint: RateLimitHint) -> None:
    """Let the limits of the call that is under way know what a provider has said about its own."""
    frame = current_frame.get()
    if frame is not None and frame.is_under_way:
        frame.honour(hint)


async def tell_progress(progress: Any) -> None:
    """Let subscribers know how the call that is under way gets on, by a PROGRESS event. It is recorded nowhere.

    Those who look at its text as it streams get it as well, if it is a text or has some
    (`rh_agents.core.ports.streaming.Streamable`, as a `ChatDelta` is).
    """
    frame = current_frame.get()
    if frame is not None and frame.is_under_way:
        frame.stream(progress)
        if frame.run.bus.wants_routine:
            await frame.tell_progress(progress)


async def again(estimate: Usage) -> None:
    """The call that is under way makes a further request within one attempt: wait for its rate limits and budgets."""
    frame = current_frame.get()
    if frame is not None and frame.is_under_way:
        await frame.readmit(estimate)


def is_lease_certain() -> bool:
    """Whether it is certain that no other process has taken over the run of the call under way. For any thread."""
    frame = current_frame.get()
    return frame is None or frame.run.recording.is_ours


async def expect_lease() -> None:
    """See to it that the run of the call under way is still this process's, which may have stood still meanwhile.

    An executor in which calls wait for their turn awaits this when the turn has come, just before the function begins.

    Raises:
        LeaseLost: another process has taken the run over.
        StoreError: it cannot be found out.
    """
    frame = current_frame.get()
    if frame is not None and not frame.run.recording.is_ours:
        await frame.run.recording.prove()


def claim_further_try() -> bool:
    """Whether the call under way may ask once more because an answer could not be read: once in all of its attempts."""
    frame = current_frame.get()
    if frame is None or not frame.is_under_way:
        return True
    has_claimed, frame.has_asked_again = frame.has_asked_again, True
    return not has_claimed
