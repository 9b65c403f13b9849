"""Functions in worker threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from rh_agents.core.context import expect_lease, is_lease_certain
from rh_agents.core.ports import CallContext

__all__ = ["ThreadExecutor"]


class ThreadExecutor:
    """Calls functions in worker threads, with the context variables of the caller.

    A thread cannot be stopped: if the caller is cancelled or times out, the function continues unseen and its result is
    dropped. `max_threads` bounds how many run at the same time, those included.
    """

    def __init__(self, max_threads: int = 256) -> None:
        self._limiter = CapacityLimiter(max_threads)

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: CallContext
    ) -> Any:
        """Call the function in a thread and return what it returns. `current()` is what it is for the caller."""
        begin = partial(_begin, partial(function, *args, **kwargs))
        while True:
            try:
                return await run_sync(begin, abandon_on_cancel=True, limiter=self._limiter)
            except _Late:
                await expect_lease()


class _Late(Exception):
    """The call has waited for its thread for so long that its run may be another process's by now."""


def _begin(function: Callable[[], Any]) -> Any:
    if not is_lease_certain():
        raise _Late
    return function()
