"""How long this machine has slept. A lease runs out meanwhile, and the clock of event loops stands still on Linux."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

__all__ = ["since_boot", "slept", "slept_by"]

_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", None)
_EXACT: Final = 0.001
"""Seconds between two looks at one clock within which the other one was looked at; else the look does not count."""
_SHORTEST: Final = 0.01
"""Seconds. Less is no sleep, but that clocks are not looked at in the same moment."""


def since_boot() -> float:
    """Seconds, by a clock that goes on while the machine sleeps, where the system has one.

    That of `time.monotonic` stands still then on Linux, and a laptop that has slept would take its runs for its own.
    """
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)


def slept_by(boot: Callable[[], float], awake: Callable[[], float]) -> Callable[[], float]:
    """A function that says how many seconds the first clock has gained on the second one since now.

    Leases of limits and budgets are counted by the clocks of event loops, which tests have of their own, so what was
    slept is added to those.
    """

    def ahead() -> float:
        while True:
            before = awake()
            moment = boot()
            if awake() - before < _EXACT:
                return moment - before

    begun = ahead()
    most = 0.0

    def gained() -> float:
        nonlocal most
        seconds = ahead() - begun
        if seconds > most + _SHORTEST:
            most = seconds
        return most

    return gained


slept: Final = slept_by(since_boot, time.monotonic)
"""Seconds for which this machine has slept while this process was there; 0 where no clock says so."""
