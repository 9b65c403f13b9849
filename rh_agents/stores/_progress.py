"""How far something is that takes longer than a moment, as log lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from rh_agents.core.redaction import logger

_LOG = logger("rh_agents.stores")
_EVERY: Final = 1.0
"""Seconds. What takes less is not worth a word."""


class Progress:
    """Logs about once a second how far a database is on its way to a newer schema.

    Args:
        name: the database, for people.
        step: what is being made, for people.
        total: how many rows there are to be worked on.
        clock: seconds, from whenever.
    """

    def __init__(self, name: str, step: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._step = step
        self._total = total
        self._clock = clock
        self._done = 0
        self._said_at = clock()

    def add(self, count: int) -> None:
        """So many rows more are done."""
        self._done += count
        now = self._clock()
        if now - self._said_at >= _EVERY:
            self._said_at = now
            share = min(100, self._done * 100 // max(1, self._total))
            _LOG.warning(
                "%s is being brought up to date for this version of rh_agents: %s, %d %%", self._name, self._step, share
            )
