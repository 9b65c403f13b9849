"""Functions in worker processes, for work that keeps a processor busy."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anyio import CapacityLimiter
from anyio.to_process import run_sync

from rh_agents.core.errors import DefinitionError

__all__ = ["ProcessExecutor"]


class ProcessExecutor:
    """Calls functions in worker processes, `max_processes` at a time (default: one for each processor).

    The function is looked up by its name in the worker, so it must be defined at the top level of a module that can be
    imported; arguments and results are pickled. A timeout includes the start of the worker, about half a second. If the
    caller is cancelled or times out, the worker process is killed.
    """

    def __init__(self, max_processes: int | None = None) -> None:
        self._limiter = CapacityLimiter(max_processes or os.cpu_count() or 1)

    async def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the function in a process and return what it returns.

        Raises:
            DefinitionError: the worker could not find the function by its name.
        """
        name = function.__qualname__
        if "<" in name:
            raise DefinitionError(
                f"{name} cannot run in a worker process: define it at the top level of a module to be imported"
            )
        return await run_sync(
            _call_by_name, function.__module__, name, tuple(args), dict(kwargs), cancellable=True, limiter=self._limiter
        )


def _call_by_name(module: str, qualname: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """In the worker: find the function, under the decorator that stands in its place, and call it."""
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return getattr(found, "__wrapped__", found)(*args, **kwargs)
