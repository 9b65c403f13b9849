"""Run a test's coroutine in virtual time, and let nothing pass that Python would only have warned of."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import detangle

__all__ = ["run_virtually", "tasks_besides_this_one"]

T = TypeVar("T")


def run_virtually(main: Callable[[], Coroutine[Any, Any, T]], *, collect: bool = False) -> T:
    """What `main` returns. Fails at an exception that nobody retrieved, at a deadlock, and at any warning.

    `collect` also finds what only the garbage collector would complain about; it is slow.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = detangle.run(main)
        if collect:
            gc.collect()
    assert not caught, [str(warning.message) for warning in caught]
    return value


def tasks_besides_this_one() -> set[str]:
    """The names of all other tasks that have not ended."""
    return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}
