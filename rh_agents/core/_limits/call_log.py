"""What a run logs of its calls: retries and waits at DEBUG, failures for good at WARNING, few of them.

A program that has set up logging learns of failures where it looks for everything else. One that has not is told
nothing: the logger has a handler that does nothing. A run of 100,000 calls whose server is gone would log nothing but
that, so of each minute only the first failures are logged, and the rest is counted.
"""

from __future__ import annotations

import logging

from rh_agents.core.events import Fact
from rh_agents.core.redaction import logger, redact
from rh_agents.core.types import EventType, ExecutionStatus

__all__ = ["CallLog"]

MOST: int = 20
"""Failures of a minute that are logged."""
_MINUTE = 60.0
_log = logger("rh_agents.run.calls")
_log.addHandler(logging.NullHandler())


class CallLog:
    """What one run logs of its calls. Time is that of the facts."""

    def __init__(self) -> None:
        self._since = float("-inf")
        self._logged = 0
        self._left_out = 0

    def tell(self, fact: Fact) -> None:
        """A call has failed for good, or is tried again."""
        if fact.kind is EventType.CONTROL:
            return
        place, message = _as_utf8(fact.address or fact.name), _as_utf8(fact.message or "")
        if fact.status is ExecutionStatus.RETRYING:
            delay = 0.0 if fact.more is None else fact.more.get("retry_delay") or 0.0
            _log.debug("%s: attempt %d failed (%s), the next one in %g s", place, fact.attempt, message, delay)
            return
        if not 0 <= fact.timestamp - self._since < _MINUTE:
            self.close()
            self._since, self._logged = fact.timestamp, 0
        if self._logged >= MOST:
            self._left_out += 1
            return
        self._logged += 1
        tries = f" after {fact.attempt} attempts" if fact.attempt > 1 else ""
        _log.warning("%s failed%s: %s", place, tries, message)

    def waits(self, place: str, limiter: str, why: str) -> None:
        """A call waits for a limiter."""
        _log.debug("%s waits for %s: %s", _as_utf8(place), limiter, redact(why))

    def close(self) -> None:
        """Say how many failures were not logged."""
        left_out, self._left_out = self._left_out, 0
        if left_out:
            _log.warning("%d more calls failed within a minute of these, and are not logged", left_out)


def _as_utf8(text: str) -> str:
    """Half characters, which names of files have that are no UTF-8, as escapes: no handler of logs could write them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
