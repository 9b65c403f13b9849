"""Where code finds itself: the run and the call that are under way."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from rh_agents.core._frame import current_frame
from rh_agents.core.errors import UsageError
from rh_agents.core.keys import idempotency_key
from rh_agents.core.ports import CallContext
from rh_agents.core.runs import Run
from rh_agents.core.usage import Usage

__all__ = [
    "CurrentCall",
    "RemoteCall",
    "current",
    "remote_call",
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
                "idempotency_key and group_id of current()"
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
    if frame.run.records:
        key = idempotency_key(frame.run.run_id, frame.base)
    else:
        frame.token = frame.token or frame.run.new_id()
        key = idempotency_key(frame.run.run_id, frame.token.encode())
    return CurrentCall(frame.run.run_id, frame.address, frame.attempt, key, frame.innermost_group, frame.run.state)


def _current_elsewhere() -> CurrentCall:
    remote = remote_call.get()
    if remote is None:
        raise UsageError(
            "current() must be called inside a running call: below `run(...)`, a decorated function or a group"
        )
    known = remote.context
    return CurrentCall(known.run_id, known.address, known.attempt, known.idempotency_key, known.group_id)


# -- programs that are imported for a worker ---------------------------------------------------------------------------
