"""Functions in worker processes, for work that keeps a processor busy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rh_agents.core.context import expect_lease
from rh_agents.core.errors import DefinitionError, WorkerLost
from rh_agents.core.ports import CallContext
from rh_agents.executors._workers.exchange import order_for, value_in
from rh_agents.executors._workers.functions import Order
from rh_agents.executors._workers.pool import Slots, pool, processors
from rh_agents.executors._workers.wire import Frame

__all__ = ["ProcessExecutor"]

_STARTS = 3
"""So many workers may die before they have begun the call."""
_shared = Slots(processors())


class ProcessExecutor:
    """Calls functions in worker processes.

    A worker imports the module of the function, never the main file; functions of the main program and of notebooks are
    sent by value. Arguments and results are pickled. What a function prints and logs arrives, `current()` and
    `report_usage` work, and what it raises is raised here, with the worker's traceback as a note. `sys.exit` and
    KeyboardInterrupt are failures of that call. If the caller is cancelled or times out, the worker is killed, with
    everything that it has started; the same happens when this process dies. A timeout includes the start of a worker,
    about half a second; idle workers are used again, by all runs and event loops of this process.

    Args:
        max_processes: how many calls run at a time. None: as many as there are processors, for all executors of this
            process that do not say together.
        max_calls_per_worker: after this many calls a worker is replaced by a new one, for functions that leak; None for
            never.
        max_lost: how many workers one call may lose before it fails with `WorkerLost`, when `on_unknown` says that it
            is made again.
    """

    def __init__(
        self,
        max_processes: int | None = None,
        *,
        max_calls_per_worker: int | None = None,
        max_lost: int = 3,
    ) -> None:
        for name, number in (
            ("max_processes", max_processes),
            ("max_calls_per_worker", max_calls_per_worker),
            ("max_lost", max_lost),
        ):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number!r}: it must be a whole number from 1 on")
        self._slots = _shared if max_processes is None else Slots(max_processes)
        self._max_calls = max_calls_per_worker
        self._max_lost = max_lost

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: CallContext
    ) -> Any:
        """Call the function in a process and return what it returns.

        Raises:
            DefinitionError: a worker cannot find the function, or its arguments cannot be pickled; or this is Windows.
            UnstorableError: what it returned cannot be pickled.
            WorkerLost: the worker died before it had reported the outcome.
        """
        if sys.platform == "win32":
            raise DefinitionError("engine='process' needs Linux or macOS; on Windows, use engine='thread'")
        async with self._slots.one():
            order, arguments = await order_for(function, args, kwargs, about)
            frame = await self._call(order, arguments)
        return await value_in(*frame, order.name)

    async def _call(self, order: Order, arguments: Sequence[bytes]) -> Frame:
        for start in range(1, _STARTS + 1):
            await expect_lease()  # it may have waited for its turn
            worker = pool.take()
            try:
                frame = await worker.call(order, arguments, self._max_lost)
            except WorkerLost as lost:
                worker.kill()
                if lost.has_begun or start == _STARTS:
                    raise
            except BaseException:
                worker.kill()
                raise
            else:
                if self._max_calls is not None and worker.calls >= self._max_calls:
                    worker.retire()
                else:
                    pool.give_back(worker, max(self._slots.count, _shared.count))
                return frame
        raise AssertionError("the last start returns or raises")
