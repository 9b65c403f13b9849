"""What a test and its children tell each other."""

from __future__ import annotations

import enum
import signal
from typing import Any

__all__ = ["GO", "Ending", "Job"]

GO = signal.SIGUSR2
"""Lets a child go on that is held. It is blocked in all children from the start, so that it never comes too early."""

Job = dict[str, Any]
"""What a child is to do, as JSON."""


class Ending(enum.IntEnum):
    """How a child ended, as its exit status. Negative ones are signals."""

    KILLED = -9
    BUS_ERROR = -7
    """It touched a file in memory whose disk had gone."""
    WELL = 0
    FAILED = 1
    RUN_IS_LIVE = 3
    LEASE_LOST = 4
    STORE_ERROR = 5
    STOPPED = 6
    """Its run was stopped, and says so."""
