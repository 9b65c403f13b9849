"""Programs that are being imported, or executed again, by one of their worker processes: nothing runs then."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from types import FrameType

from rh_agents.core.errors import UsageError

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
    module = imported_for_a_worker.get() or _main_being_reexecuted()
    if module is not None:
        raise UsageError(
            f"a worker process is importing {module}, and that must not start a run: put what starts it under "
            '`if __name__ == "__main__":`'
        )


def _main_being_reexecuted() -> str | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == _MAIN_IN_WORKERS:
            return str(frame.f_globals.get("__file__", "the main program"))
        frame = frame.f_back
    return None
