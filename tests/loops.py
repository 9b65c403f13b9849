"""The event loops of other people: `pytest --loops=eager` and `--loops=uvloop` run the tests on them.

With eager tasks (Python 3.12 and later) the first step of a task is made before whoever creates it knows it. uvloop
is another implementation altogether. The loops of tests in virtual time are our own, but they take eager tasks, too.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import detangle
import pytest

__all__ = ["LOOPS", "use_loops"]

LOOPS = ["eager", "uvloop"]


def use_loops(kind: str) -> None:
    """Let every event loop that is made from now on be of this kind.

    Raises:
        pytest.UsageError: this Python has none.
    """
    if kind == "eager":
        if not hasattr(asyncio, "eager_task_factory"):
            raise pytest.UsageError("--loops=eager: eager tasks came with Python 3.12")
        _make_eager(asyncio.BaseEventLoop)
        _make_eager(detangle.SimLoop)
    else:
        import uvloop  # noqa: PLC0415 - not everywhere is one

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def _make_eager(kind: Any) -> None:
    begin = kind.__init__

    @functools.wraps(begin)
    def begin_eagerly(loop: Any, *args: Any, **options: Any) -> None:
        begin(loop, *args, **options)
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]

    kind.__init__ = begin_eagerly
