"""How the process ends when calls that were given up go on in threads: nothing can stop those, so nobody waits."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

__all__ = ["leave_without_threads"]

_PATIENCE = 2.0
"""Seconds that threads get, for those that were about to end anyway."""


def leave_without_threads(exit_code: int, patience: float = _PATIENCE) -> None:
    """From now on the process ends within `patience` seconds, though functions that were given up still run in threads.

    Only for a process of one's own: if such threads are left by then, it ends without the usual clean-up.
    """
    threading.Thread(target=_leave, args=(exit_code, patience), name="leave", daemon=True).start()


def _leave(exit_code: int, patience: float) -> None:
    time.sleep(patience)
    main = threading.main_thread()
    if any(thread is not main and not thread.daemon for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(exit_code)
