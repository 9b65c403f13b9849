"""Attempts under a circuit breaker, which calls of several event loops may share."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rh_agents.core._loops.homes import Home, SharedClock, home, reentrant_lock
from rh_agents.core.errors import CircuitOpenError
from rh_agents.core.policies.breaker import Admission, CircuitBreaker

T = TypeVar("T")


class _Guard:
    """What makes a breaker, which knows of no threads, fit for them. It is touched under the lock, and held briefly."""

    def __init__(self) -> None:
        self.lock = reentrant_lock()
        self.clock = SharedClock()
        self.under_way: dict[object, tuple[Admission, Home]] = {}


_guards: weakref.WeakKeyDictionary[CircuitBreaker, _Guard] = weakref.WeakKeyDictionary()
_making = reentrant_lock()


def _guard_of(breaker: CircuitBreaker) -> _Guard:
    with _making:
        guard = _guards.get(breaker)
        if guard is None:
            guard = _guards[breaker] = _Guard()
        return guard


async def attempt_under(breaker: CircuitBreaker, attempt: Callable[[], Awaitable[T]]) -> T:
    """Make an attempt if the breaker lets it pass, and report to it what came of that.

    Raises:
        CircuitOpenError: it does not.
    """
    guard = _guard_of(breaker)
    token = object()
    with guard.lock:
        admission = _admit(breaker, guard)
        guard.under_way[token] = (admission, home())
    error: BaseException | None = None
    try:
        return await attempt()
    except BaseException as caught:
        error = caught
        raise
    finally:
        with guard.lock:
            if guard.under_way.pop(token, None) is not None:
                _report(breaker, admission, error, guard.clock)
        error = None  # else it would hold itself, by its traceback


def _admit(breaker: CircuitBreaker, guard: _Guard) -> Admission:
    try:
        return breaker.admit(guard.clock.now())
    except CircuitOpenError:
        dead = [token for token, (_, home) in guard.under_way.items() if home.is_gone]
        if not dead:
            raise
    for token in dead:  # probes that nobody will ever report on
        breaker.abandoned(guard.under_way.pop(token)[0])
    return breaker.admit(guard.clock.now())


def _report(breaker: CircuitBreaker, admission: Admission, error: BaseException | None, clock: SharedClock) -> None:
    if error is None:
        breaker.succeeded(admission)
    elif isinstance(error, Exception):
        breaker.failed(admission, error, clock.now())
    else:
        breaker.abandoned(admission)
