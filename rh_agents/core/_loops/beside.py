"""Work that takes long, done in a thread, so that the event loop goes on.

What would be done with a large value on the event loop goes through here. The loop goes on meanwhile as far as the
work lets go of the interpreter's lock: what is one long step in C is to be done in pieces, see
`rh_agents.core.values.pieces`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from rh_agents.core._base.sizes import is_large
from rh_agents.core.results import Outcome, UnreadOutcome

T = TypeVar("T")


def beside(work: Callable[[], T]) -> asyncio.Future[T]:
    """Begin to do it in a thread."""
    return asyncio.get_running_loop().run_in_executor(None, copy_context().run, work)


async def beside_if_large(value: object, work: Callable[..., T], *args: Any) -> T:
    """Call `work(*args)`: here, or in a thread if the value is large."""
    return await asyncio.to_thread(work, *args) if is_large(value) else work(*args)


async def read_beside(outcome: UnreadOutcome, *, unknown_ok: bool = False) -> Outcome:
    """What `outcome.read` gives; what is large is read in a thread."""
    if outcome.is_large:
        return await asyncio.to_thread(outcome.read, unknown_ok=unknown_ok)
    return outcome.read(unknown_ok=unknown_ok)
