"""How many calls failed inside of one that has ended well: then its mark is no green one."""

from __future__ import annotations

import re
from typing import Any

from rh_agents.core.events import ExecutionEvent
from rh_agents.core.types import ExecutionStatus

__all__ = ["FailuresInside"]

_BORDER = re.compile(r"::|\[")


class FailuresInside:
    """Counts failures by the calls and groups around them, by address. It keeps those that have not ended."""

    def __init__(self) -> None:
        self._failed: dict[tuple[str, str], int] = {}

    def count(self, event: ExecutionEvent[Any]) -> int:
        """Take in an event. Returns how many calls failed inside of what ends with it; 0 if nothing ends.

        The members of a group count for whatever is around the group: its own line has their number. What failed
        inside of a call that failed itself is one failure for those around it, and none if that call is tried again.
        """
        status, around = event.execution_status, (event.run_id, event.address)
        if not status.is_final and status is not ExecutionStatus.RETRYING:
            return 0
        inside = self._failed.pop(around, 0)
        has_failed = status is ExecutionStatus.FAILED and event.group is None
        more = has_failed - (inside if has_failed or status is ExecutionStatus.RETRYING else 0)
        if more:
            self._add(event, more)
        return inside

    def _add(self, event: ExecutionEvent[Any], more: int) -> None:
        borders = [found.start() for found in _BORDER.finditer(event.address)]
        own_group = event.address.rfind("[") if event.group_id is not None else -1
        for border in borders:
            if border != own_group:
                key = (event.run_id, event.address[:border])
                self._failed[key] = self._failed.get(key, 0) + more
