"""Where code finds itself: the run and the call that are under way."""

from __future__ import annotations

from dataclasses import dataclass

from rh_agents.core.errors import UsageError
from rh_agents.core.keys import idempotency_key
from rh_agents.core.ports import RunHandle
from rh_agents.core.scope import current_scope

__all__ = ["CurrentCall", "current"]


@dataclass(frozen=True, slots=True)
class CurrentCall:
    """The call that is being executed, as its own code sees it.

    Attributes:
        run: the run it belongs to.
        address: its readable place.
        attempt: the number of the attempt under way, from 1; 0 outside of calls.
        idempotency_key: the same at every attempt and after every restart, so that a service which gets it can tell
            that it has seen the request before: also when a call that failed for good is made again, since the service
            may have done what it was asked for all the same. In a run without a store, the same at every attempt.
        group_id: the innermost group within which the call is made.
    """

    run: RunHandle
    address: str
    attempt: int
    idempotency_key: str
    group_id: str | None


def current() -> CurrentCall:
    """The call that is under way in this context.

    Raises:
        UsageError: none is.
    """
    scope = current_scope.get()
    if scope is None:
        raise UsageError("current() has a meaning inside of a call: below `run(...)`, a decorated function or a group")
    if scope.run.records:
        key = idempotency_key(scope.run.run_id, scope.key)
    else:
        scope.token = scope.token or scope.run.new_id()
        key = idempotency_key(scope.run.run_id, scope.token.encode())
    return CurrentCall(scope.run, scope.address, scope.attempt, key, scope.group_id)
