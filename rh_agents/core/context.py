"""Where code finds itself: the run and the call that are under way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType

from rh_agents.core.errors import UsageError
from rh_agents.core.keys import idempotency_key
from rh_agents.core.ports import CallContext, RunHandle
from rh_agents.core.scope import current_scope
from rh_agents.core.usage import Usage

__all__ = [
    "CurrentCall",
    "RemoteCall",
    "current",
    "expect_no_import_for_a_worker",
    "imported_for_a_worker",
    "remote_call",
]


@dataclass(frozen=True, slots=True)
class CurrentCall(CallContext):
    """The call that is being executed, as its own code sees it: see `CallContext`."""

    _run: RunHandle | None = None

    @property
    def run(self) -> RunHandle:
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
    scope = current_scope.get()
    if scope is None:
        return _current_elsewhere()
    if scope.run.records:
        key = idempotency_key(scope.run.run_id, scope.key)
    else:
        scope.token = scope.token or scope.run.new_id()
        key = idempotency_key(scope.run.run_id, scope.token.encode())
    return CurrentCall(scope.run.run_id, scope.address, scope.attempt, key, scope.group_id, scope.run)


def _current_elsewhere() -> CurrentCall:
    remote = remote_call.get()
    if remote is None:
        raise UsageError(
            "current() must be called inside a running call: below `run(...)`, a decorated function or a group"
        )
    known = remote.context
    return CurrentCall(known.run_id, known.address, known.attempt, known.idempotency_key, known.group_id)


# -- programs that are imported for a worker ---------------------------------------------------------------------------

imported_for_a_worker: ContextVar[str | None] = ContextVar("rh_agents_imported_for_a_worker", default=None)
"""In a worker process, the module that is being imported because a function lives there."""
_MAIN_IN_WORKERS = "__mp_main__"


def expect_no_import_for_a_worker() -> None:
    """Refuse to start a run where a program is only read again to find its functions: all calls would be paid again.

    `multiprocessing` executes the main file in each process that it spawns, under the name `__mp_main__`; our own
    workers import the module in which a function lives. Once that is done, a process may have runs of its own.

    Raises:
        UsageError: with the remedy.
    """
    module = imported_for_a_worker.get() or _main_being_executed_again()
    if module is not None:
        raise UsageError(
            f"a worker process is importing {module}, and that must not start a run: put what starts it under "
            '`if __name__ == "__main__":`'
        )


def _main_being_executed_again() -> str | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == _MAIN_IN_WORKERS:
            return str(frame.f_globals.get("__file__", "the main program"))
        frame = frame.f_back
    return None
